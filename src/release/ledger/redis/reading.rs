//! What is there of a service, read while its keys are WATCHed.

use redis::{RedisError, RedisResult};
use serde_json::{Map, Value};

use super::{PAGE, RedisLedger, ReleaseKeys};
use crate::lists::{ByList, ListName};
use crate::release::change::{self, BackTo, FoundList, FoundLists};
use crate::release::history::{ASIDE, Before, ChangeRecord, KEPT};
use crate::release::rollout::{add_renewal, is_under_way};
use crate::store::Entries;
use crate::store::redis::KeyOf;
use crate::store::redis::cluster;
use crate::store::redis::errors::io_error;
use crate::store::redis::link::Link;
use crate::store::redis::reply::Replies;

/// The text of a key, if there is one.
type FoundText = RedisResult<Option<Vec<u8>>>;

impl RedisLedger<'_> {
    pub(super) fn watch(&self, link: &mut Link) -> RedisResult<()> {
        let mut watch = redis::cmd("WATCH");
        for (_, key) in self.keys.lists.iter() {
            watch.arg(key);
        }
        let ReleaseKeys {
            tripped,
            release,
            history,
            ..
        } = &self.release;
        watch
            .arg(&self.keys.salt)
            .arg(tripped)
            .arg(release)
            .arg(history);
        link.ask(&watch)
            .map(drop)
            .map_err(|error| self.explained(error))
    }

    /// That the keys of a service are in several slots, and what to do.
    pub(super) fn explained(&self, error: RedisError) -> RedisError {
        let is_moved = error.code() == Some("MOVED");
        let is_apart = is_moved && self.keyring.is_apart(KeyOf::release(0));
        if !is_apart && error.code() != Some("CROSSSLOT") {
            return cluster::explained(error, &self.keyring);
        }
        let service = &self.terms.service;
        let (section, tag) = match service.is_default() {
            true => ("redis".to_owned(), "gg".to_owned()),
            false => (format!("service {service}"), service.to_string()),
        };
        let names = [
            "gray", "pre", "prod", "salt", "tripped", "release", "history",
        ];
        let keys = names
            .map(|it| format!("{it}_key = {{{tag}}}{it}"))
            .join(", ");
        io_error(format!(
            "this is a Redis Cluster, and the keys of {service} are in several slots of it, which cannot be changed \
             in one transaction; give them one hash tag, in [{section}]: {keys}"
        ))
    }

    /// What there is, while the keys are WATCHed.
    pub(super) fn read(&self, link: &mut Link, back_to: BackTo) -> RedisResult<FoundLists> {
        let texts = [
            &self.keys.salt,
            &self.release.tripped,
            &self.release.release,
        ];
        let (mut lists, texts) = self.read_lists(link, &texts)?;
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap_or(Ok(None));
        let (salt, tripped, state) = (text()?, text()?, text()?);
        let mut state = self.state(state)?;
        let is_renewed = self.add_renewal(link, &mut state)?;
        for list in ListName::ALL {
            let found = &mut lists[list];
            found.is_set |= found.entries.is_empty() && change::was_set(&state, list);
        }
        let page = if back_to == BackTo::Last { 1 } else { PAGE };
        let mut history = self.records(link, page, |all| match back_to {
            BackTo::Last => !all.is_empty(),
            BackTo::Change => all.iter().any(ChangeRecord::is_of_lists),
            BackTo::Number(number) => all
                .last()
                .is_some_and(|it: &ChangeRecord| it.number <= number),
        })?;
        if !matches!(back_to, BackTo::Last) {
            self.fetch_aside(link, &mut history)?;
        }
        Ok(FoundLists {
            lists,
            // As the gateways read it.
            salt: salt.map(trimmed),
            tripped,
            state,
            is_renewed,
            history,
        })
    }

    /// The state of the release, from the text of its key.
    pub(super) fn state(&self, text: Option<Vec<u8>>) -> RedisResult<Map<String, Value>> {
        let Some(text) = text else {
            return Ok(Map::new());
        };
        serde_json::from_slice(&text).map_err(|_| {
            let key = &self.release.release;
            io_error(format!(
                "{key} holds something else than the state of a release"
            ))
        })
    }

    /// Adds what is beside the state; true if something is. What may not be read was never written.
    pub(super) fn add_renewal(
        &self,
        link: &mut Link,
        state: &mut Map<String, Value>,
    ) -> RedisResult<bool> {
        if !is_under_way(state) {
            return Ok(false);
        }
        let text: Option<Vec<u8>> = match link.ask(redis::cmd("GET").arg(&self.release.lease)) {
            Ok(text) => redis::from_redis_value(text)?,
            Err(error) if error.code().is_some() => None,
            Err(error) => return Err(error),
        };
        if let Some(text) = &text {
            add_renewal(state, text);
        }
        Ok(text.is_some())
    }

    /// What there is of the lists, and of these keys with a text; each of them may be refused.
    pub(super) fn read_lists(
        &self,
        link: &mut Link,
        keys: &[&String],
    ) -> RedisResult<(ByList<FoundList>, Vec<FoundText>)> {
        let mut pipe = redis::pipe();
        for (_, key) in self.keys.lists.iter() {
            pipe.cmd("LRANGE").arg(key).arg(0).arg(-1);
            pipe.cmd("SMEMBERS").arg(key);
        }
        for key in keys {
            pipe.cmd("GET").arg(key);
        }
        link.send(&pipe.get_packed_pipeline())?;
        let most = self.settings.max_reply;
        let mut lists = ByList::<FoundList>::default();
        let mut wrong = None;
        for list in ListName::ALL {
            let as_list = entries(&link.receive_lists(most)?);
            let as_set = entries(&link.receive_lists(most)?);
            let is_wrong = |error: &RedisError| error.code() == Some("WRONGTYPE");
            lists[list] = match (as_list, as_set) {
                (Ok(entries), _) => FoundList {
                    is_set: false,
                    entries,
                },
                (Err(_), Ok(entries)) => FoundList {
                    is_set: true,
                    entries,
                },
                (Err(one), Err(other)) if is_wrong(&one) && is_wrong(&other) => {
                    wrong = Some(&self.keys.lists[list]);
                    FoundList::default()
                }
                (Err(error), Err(_)) => return Err(error),
            };
        }
        let mut texts = Vec::with_capacity(keys.len());
        for key in keys {
            let text = match link.receive()?.extract_error() {
                Ok(text) => redis::from_redis_value(text).map_err(RedisError::from),
                Err(error) => Err(explained_text(error, key)),
            };
            texts.push(text);
        }
        match wrong {
            Some(key) => Err(io_error(format!("{key} is neither a list nor a set"))),
            None => Ok((lists, texts)),
        }
    }

    /// Records, the newest first, until there are enough; so many at once.
    pub(super) fn records(
        &self,
        link: &mut Link,
        count: usize,
        are_enough: impl Fn(&[ChangeRecord]) -> bool,
    ) -> RedisResult<Vec<ChangeRecord>> {
        let mut all: Vec<ChangeRecord> = Vec::new();
        let mut end = "+".to_owned();
        loop {
            let mut range = redis::cmd("XREVRANGE");
            range.arg(&self.release.history).arg(&end).arg("-");
            range.arg("COUNT").arg(count);
            let page = link.ask(&range);
            let page = page.map_err(|error| explained_stream(error, &self.release.history))?;
            let page: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(page)?;
            let Some((last, _)) = page.last() else {
                return Ok(all);
            };
            let next = just_before(last);
            let length = page.len();
            all.extend(
                page.iter()
                    .filter_map(|(_, fields)| ChangeRecord::of_fields(fields)),
            );
            match next {
                Some(next) if length == count && !are_enough(&all) && all.len() <= 2 * KEPT => {
                    end = next;
                }
                _ => return Ok(all),
            }
        }
    }

    /// What undoes a change, where that lies beside the history.
    pub(super) fn fetch_aside(
        &self,
        link: &mut Link,
        history: &mut [ChangeRecord],
    ) -> RedisResult<()> {
        if !history.iter().any(|it| it.is_aside) {
            return Ok(());
        }
        link.send(
            redis::cmd("GET")
                .arg(&self.release.aside)
                .get_packed_command()
                .as_slice(),
        )?;
        let reply = link.receive_long(self.settings.max_reply.max(2 * ASIDE))?;
        let text: Option<Vec<u8>> = redis::from_redis_value(reply.extract_error()?)?;
        let Some(text) = text else { return Ok(()) };
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        let mut records = history.iter_mut();
        if let Some(record) = records.find(|it| it.is_aside && value["id"] == it.id.as_str()) {
            record.undo = Before::of_json(&value["undo"]);
        }
        Ok(())
    }
}

/// The entries in a reply.
fn entries(reply: &[u8]) -> RedisResult<Entries> {
    Replies::from_first(reply).entries()
}

/// Without the line's end that an editor or `echo` has left.
pub(super) fn trimmed(mut text: Vec<u8>) -> Vec<u8> {
    if text.ends_with(b"\n") {
        text.pop();
        if text.ends_with(b"\r") {
            text.pop();
        }
    }
    text
}

/// An error of a server for a key that is no string, with what that means.
fn explained_text(error: RedisError, key: &str) -> RedisError {
    match error.code() {
        Some("WRONGTYPE") => {
            let detail = format!("{key} must be a string, but is something else; delete it");
            redis::make_extension_error("WRONGTYPE".to_owned(), Some(detail))
        }
        _ => error,
    }
}

/// An error of a server from before there were streams, or of a key that is something else, with what that
/// means. It keeps its code: the server has answered, and refuses.
pub(super) fn explained_stream(error: RedisError, history: &str) -> RedisError {
    let detail = error.detail().unwrap_or_default();
    let is_unknown = detail.contains("unknown command");
    let (code, detail) = match error.code() {
        Some("ERR") if is_unknown => (
            "ERR",
            format!("{detail}; the history is a stream, which takes Redis 5 or later"),
        ),
        Some("WRONGTYPE") => (
            "WRONGTYPE",
            format!(
                "{history} must be a stream, but is something else; rename or delete it, or set history_key"
            ),
        ),
        _ => return error,
    };
    redis::make_extension_error(code.to_owned(), Some(detail))
}

/// The last id that is before this one: `1234-5`.
fn just_before(id: &str) -> Option<String> {
    let (time, count) = id.split_once('-')?;
    let (time, count): (u64, u64) = (time.parse().ok()?, count.parse().ok()?);
    match (time, count) {
        (0, 0) => None,
        (time, 0) => Some(format!("{}-{}", time - 1, u64::MAX)),
        (time, count) => Some(format!("{time}-{}", count - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::errors::{describe, is_refusal};

    #[test]
    fn what_is_no_stream_is_refused_in_other_words() {
        for (code, detail, means) in [
            ("WRONGTYPE", "Operation against a key", "h must be a stream"),
            ("ERR", "unknown command `XREVRANGE`", "takes Redis 5"),
            ("NOPERM", "no permissions", "no permissions"),
        ] {
            let error = redis::make_extension_error(code.to_owned(), Some(detail.to_owned()));
            let explained = explained_stream(error, "h");
            assert!(is_refusal(&explained), "{explained}");
            assert!(describe(&explained).contains(means), "{explained}");
        }
    }

    #[test]
    fn a_page_of_records_is_followed_by_what_is_before_it() {
        assert_eq!(just_before("12-3").as_deref(), Some("12-2"));
        let before = format!("11-{}", u64::MAX);
        assert_eq!(just_before("12-0").as_deref(), Some(&*before));
        assert_eq!(just_before("0-0"), None);
        assert_eq!(just_before("x"), None);
    }
}
