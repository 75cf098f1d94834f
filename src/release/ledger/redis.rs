//! The ledger in Redis: one transaction, retried when somebody else was faster.
//!
//! All keys of the service are WATCHed, so they must be in one slot of a cluster. What is written is what has
//! changed: of a million entries, those that go and those that come.
//!
//! A connection may end when a transaction was sent and its reply has not come. Then the history is asked
//! whether the change is there, by an id that no other has.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use redis::{Cmd, RedisError, RedisResult, Value};
use serde_json::{Map, json};

use super::order::{Consent, Done, Hear, Order, Tend, by_hand, heard};
use crate::config::{RedisSettings, ServiceKeys};
use crate::lists::{ByList, ListName};
use crate::release::change::{
    self, BackTo, Edit, FoundList, FoundLists, ListsChange, ServiceTerms,
};
use crate::release::history::{ASIDE, Before, ChangeRecord, INLINE, KEPT};
use crate::store::Entries;
use crate::store::redis::cluster::{self, Division};
use crate::store::redis::errors::{describe, io_error, is_of_cluster};
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::reply::Replies;
use crate::store::redis::{Keyring, transaction};

/// How long somebody else may be faster, or the server away after something was sent to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The pause before another connection is tried.
const AWAY: Duration = Duration::from_millis(200);

/// So many records are read at once.
const PAGE: usize = 50;

/// How long an accepted digest stays in its key.
const ACCEPTED: u64 = 60;

/// The keys of a service besides its lists.
struct ReleaseKeys {
    tripped: String,
    release: String,
    history: String,
    /// With what undoes the last change that is too large for its record.
    aside: String,
}

/// See the module.
pub(crate) struct RedisLedger<'a> {
    settings: &'a RedisSettings,
    keys: ServiceKeys,
    release: ReleaseKeys,
    keyring: Keyring,
    terms: ServiceTerms,
    finder: Finder,
    link: Option<Link>,
    /// A transaction was sent and not answered.
    is_unsure: bool,
    /// A cluster has the accept key elsewhere.
    accepts_elsewhere: bool,
}

/// How an attempt has ended.
enum LedgerAttempt {
    Done(Box<Done>),
    /// Somebody else was faster.
    Again,
}

impl<'a> RedisLedger<'a> {
    pub(super) fn of(settings: &'a RedisSettings, terms: ServiceTerms) -> Result<Self, String> {
        let mut all = settings.services.iter();
        let keys = all.find(|it| it.service == terms.service).cloned();
        let keys = keys.ok_or("there is no such service")?;
        let named = |key: &Option<String>, setting: &str| {
            key.clone().ok_or_else(|| {
                format!(
                    "{setting} has no key of its own: its default is used for something else; set it for {}",
                    terms.service
                )
            })
        };
        let history = named(&keys.history, "history_key")?;
        let release = ReleaseKeys {
            tripped: named(&keys.tripped, "tripped_key")?,
            release: named(&keys.release, "release_key")?,
            aside: format!("{history}:before"),
            history,
        };
        Ok(Self {
            settings,
            keyring: Keyring::new(vec![keys.clone()]),
            keys,
            release,
            terms,
            finder: Finder::quiet(),
            link: None,
            is_unsure: false,
            accepts_elsewhere: false,
        })
    }

    /// See `Ledger::perform`.
    pub(super) fn perform(&mut self, order: &Order, hear: Hear<'_>) -> Result<Done, String> {
        let mut until = Instant::now() + PATIENCE;
        loop {
            let mut refusal = None;
            let began = Instant::now();
            let outcome = self.attempt(order, hear, &mut refusal);
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            // Whoever is asked takes his time, and a server may end a connection meanwhile.
            let asked_for = began.elapsed().saturating_sub(Duration::from_secs(1));
            until += asked_for;
            match outcome {
                Ok(LedgerAttempt::Done(done)) => return Ok(*done),
                Ok(LedgerAttempt::Again) if Instant::now() < until => {
                    std::thread::sleep(PAUSE.mul_f64(fastrand::f64()));
                }
                Ok(LedgerAttempt::Again) => {
                    let why = "others change the lists all the time";
                    return Err(format!("{}: nothing was changed: {why}", self.settings.url));
                }
                Err(error) => {
                    self.link = None;
                    let is_lost = error.code().is_none();
                    let is_worth_it = self.is_unsure || !asked_for.is_zero();
                    if is_lost && is_worth_it && Instant::now() < until {
                        std::thread::sleep(AWAY);
                        continue;
                    }
                    return Err(self.failed(&error));
                }
            }
        }
    }

    fn failed(&self, error: &RedisError) -> String {
        let url = &self.settings.url;
        let words = self.finder.describe(error);
        match (self.is_unsure, error.code()) {
            (true, _) => format!(
                "{url}: {words}; it is not known whether the change was made: see `graygate history`"
            ),
            (false, Some("NOPERM")) => format!(
                "{url}: nothing was changed: {words}; what rights this takes is in docs/redis.md, \"Rights of an operator\""
            ),
            (false, _) => format!("{url}: nothing was changed: {words}"),
        }
    }

    fn connect(&mut self) -> RedisResult<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let mut division = Division::default();
        self.finder
            .open_at_lists(self.settings, &self.keyring, &mut division)
    }

    fn attempt(
        &mut self,
        order: &Order,
        hear: Hear<'_>,
        refusal: &mut Option<String>,
    ) -> RedisResult<LedgerAttempt> {
        let mut link = self.connect()?;
        self.watch(&mut link)?;
        let found = self.read(&mut link, order.verb.needs_back_to())?;
        if self.is_unsure {
            let there = self.records(&mut link, PAGE, |all| all.len() >= PAGE)?;
            if let Some(record) = there.into_iter().find(|it| it.id == order.id) {
                return Ok(LedgerAttempt::Done(Box::new(self.was_done(record, &found))));
            }
        }
        let (change, answer) = match heard(order, &self.terms, &found, hear) {
            Ok(heard) => heard,
            Err(why) => {
                *refusal = Some(why);
                return Ok(LedgerAttempt::Again);
            }
        };
        if answer == Consent::No {
            self.link = Some(link);
            return Ok(LedgerAttempt::Done(Box::new(Done {
                change,
                number: None,
                notes: Vec::new(),
            })));
        }
        self.write(link, order, change, &found)
    }

    /// That a change is in the history already: nobody knows any more what was there before, but the record.
    fn was_done(&self, record: ChangeRecord, found: &FoundLists) -> Done {
        let texts = found.lists.as_ref().map(|it| &it.entries);
        let lists = change::parsed(texts, found.salt.as_deref(), &self.terms);
        let digest = crate::lists::Lists::new(1, lists).digest;
        Done {
            number: Some(record.number),
            change: ListsChange {
                edits: ByList::default(),
                are_sets: ByList::default(),
                salt: None,
                state: None,
                untrips: false,
                difference: record.difference,
                notes: Vec::new(),
                asks: Vec::new(),
                accept: Vec::new(),
                before: digest,
                after: digest,
                undo: Before::default(),
                verb: None,
                reason: None,
            },
            notes: vec!["the connection was lost; the change was made all the same".to_owned()],
        }
    }

    fn watch(&self, link: &mut Link) -> RedisResult<()> {
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
    fn explained(&self, error: RedisError) -> RedisError {
        if error.code() != Some("CROSSSLOT") {
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
    fn read(&self, link: &mut Link, back_to: BackTo) -> RedisResult<FoundLists> {
        let mut pipe = redis::pipe();
        for (_, key) in self.keys.lists.iter() {
            pipe.cmd("LRANGE").arg(key).arg(0).arg(-1);
            pipe.cmd("SMEMBERS").arg(key);
        }
        for key in [
            &self.keys.salt,
            &self.release.tripped,
            &self.release.release,
        ] {
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
        let mut texts = [None, None, None];
        for text in &mut texts {
            *text = redis::from_redis_value(link.receive()?.extract_error()?)?;
        }
        if let Some(key) = wrong {
            return Err(io_error(format!("{key} is neither a list nor a set")));
        }
        let [salt, tripped, state]: [Option<Vec<u8>>; 3] = texts;
        let state = match state {
            None => Map::new(),
            Some(text) => {
                serde_json::from_slice(&text).map_err(|_| no_state(&self.release.release))?
            }
        };
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
            history,
        })
    }

    /// Records, the newest first, until there are enough; so many at once.
    fn records(
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
            let page = link.ask(&range).map_err(explained_stream)?;
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
    fn fetch_aside(&self, link: &mut Link, history: &mut [ChangeRecord]) -> RedisResult<()> {
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
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let mut records = history.iter_mut();
        if let Some(record) = records.find(|it| it.is_aside && value["id"] == it.id.as_str()) {
            record.undo = Before::of_json(&value["undo"]);
        }
        Ok(())
    }

    fn write(
        &mut self,
        mut link: Link,
        order: &Order,
        change: ListsChange,
        found: &FoundLists,
    ) -> RedisResult<LedgerAttempt> {
        let mut notes = Vec::new();
        let mut pipe = redis::pipe();
        for list in ListName::ALL {
            let (key, is_set) = (&self.keys.lists[list], change.are_sets[list]);
            let before = &found.lists[list].entries;
            let edit = cheapest(&change.edits[list], before, is_set);
            let commands = commands(&edit, key, is_set, before.is_empty());
            for command in commands {
                pipe.add_command(command);
            }
        }
        match &change.salt {
            Some(Some(salt)) => {
                pipe.cmd("SET").arg(&self.keys.salt).arg(&salt[..]);
            }
            Some(None) => {
                pipe.cmd("DEL").arg(&self.keys.salt);
            }
            None => {}
        }
        match &change.state {
            Some(state) if state.is_empty() => {
                pipe.cmd("DEL").arg(&self.release.release);
            }
            Some(state) => {
                let text = json!(state).to_string();
                pipe.cmd("SET").arg(&self.release.release).arg(text);
            }
            None => {}
        }
        if change.untrips {
            pipe.cmd("DEL").arg(&self.release.tripped);
        }
        let number = self.note(&mut pipe, order, &change, found, &mut notes);
        // Read before it is needed, and last, so that nothing else stands or falls with it.
        let accepts = match self.accepts_elsewhere {
            false => self.accept_commands(&mut link, &change)?,
            true => Vec::new(),
        };
        let (of_accept, accept_from) = (accepts.len(), pipe.len());
        for command in accepts {
            pipe.add_command(command);
        }
        let refusals = match transaction::queue(&mut link, &pipe) {
            Ok(refusals) => refusals,
            Err(error) => {
                self.is_unsure |= error.code().is_none();
                return Err(error);
            }
        };
        if let Some(first) = refusals.into_iter().next() {
            let is_of_accept = first.at >= accept_from;
            if is_of_accept && of_accept > 0 && is_of_cluster(&first.error) {
                self.accepts_elsewhere = true;
                self.link = Some(link);
                return Ok(LedgerAttempt::Again);
            }
            return Err(explained_stream(first.error));
        }
        let replies = link.receive().inspect_err(|error| {
            self.is_unsure |= error.code().is_none();
        })?;
        match replies {
            Value::Nil => {
                self.link = Some(link);
                return Ok(LedgerAttempt::Again);
            }
            Value::Array(replies) => {
                let failed = replies.into_iter().find_map(|it| it.extract_error().err());
                if let Some(error) = failed {
                    notes.push(format!(
                        "a part of the change was refused: {}",
                        describe(&error)
                    ));
                }
            }
            other => {
                let error = other.extract_error().err();
                let error = error.unwrap_or_else(|| io_error("EXEC did not return replies"));
                return Err(self.explained(error));
            }
        }
        if self.accepts_elsewhere {
            self.accept_elsewhere(&mut link, &change, &mut notes);
        }
        Ok(LedgerAttempt::Done(Box::new(Done {
            change,
            number: Some(number),
            notes,
        })))
    }

    /// The record, and before it that of a change by hand, if there was one.
    fn note(
        &self,
        pipe: &mut redis::Pipeline,
        order: &Order,
        change: &ListsChange,
        found: &FoundLists,
        notes: &mut Vec<String>,
    ) -> u64 {
        let last = found.history.first();
        let mut number = last.map_or(0, |it| it.number) + 1;
        if let Some(record) = by_hand(last, change, &self.terms) {
            pipe.add_command(self.added(&record));
            number += 1;
        }
        let mut record = order.record(change, &self.terms, number);
        let undo = change.undo.to_json();
        let size = undo.to_string().len();
        if size > ASIDE {
            record.undo = None;
            notes.push("it is too large for the history to keep what undoes it".to_owned());
        } else if size > INLINE {
            record.is_aside = true;
            let text = json!({ "id": record.id, "undo": undo }).to_string();
            pipe.cmd("SET").arg(&self.release.aside).arg(text);
        }
        pipe.add_command(self.added(&record));
        number
    }

    fn added(&self, record: &ChangeRecord) -> Cmd {
        let mut add = redis::cmd("XADD");
        let key = &self.release.history;
        add.arg(key).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        for (name, value) in record.fields() {
            add.arg(name).arg(value);
        }
        add
    }

    /// What lets gateways take a change that their guard would hold. A set by hand keeps what is in it.
    fn accept_commands(&self, link: &mut Link, change: &ListsChange) -> RedisResult<Vec<Cmd>> {
        if change.accept.is_empty() {
            return Ok(Vec::new());
        }
        let key = &self.settings.accept_key;
        let members = link.ask(redis::cmd("SMEMBERS").arg(key));
        let is_set = match members {
            Ok(Value::Array(members)) => !members.is_empty(),
            Ok(_) => false,
            Err(error) if error.code() == Some("WRONGTYPE") => false,
            // The transaction will say so, too.
            Err(error) if is_of_cluster(&error) => false,
            Err(error) => return Err(error),
        };
        let mut add = redis::cmd("SADD");
        add.arg(key);
        for digest in &change.accept {
            add.arg(digest.to_string());
        }
        if is_set {
            return Ok(vec![add]);
        }
        let (mut clear, mut expire) = (redis::cmd("DEL"), redis::cmd("EXPIRE"));
        clear.arg(key);
        expire.arg(key).arg(ACCEPTED);
        Ok(vec![clear, add, expire])
    }

    /// The same where a cluster has the key elsewhere: after the change, which is held for that long.
    fn accept_elsewhere(&self, link: &mut Link, change: &ListsChange, notes: &mut Vec<String>) {
        let mut aside = None;
        let outcome = self.accept_commands(link, change).and_then(|commands| {
            commands.iter().try_for_each(|command| {
                let ask = |it: &mut Link| it.ask(command).map(drop);
                cluster::follow_aside(link, &mut aside, self.settings, ask)
            })
        });
        if let Err(error) = outcome {
            let digests: Vec<String> = change.accept.iter().map(ToString::to_string).collect();
            notes.push(format!(
                "gateways hold the change: {} could not be written: {}; `graygate lists accept {}` lets it in",
                self.settings.accept_key,
                describe(&error),
                digests.join(" ")
            ));
        }
    }

    /// See `Ledger::tend`.
    pub(super) fn tend(&mut self, tend: Tend<'_>) -> Result<bool, String> {
        let outcome = self.tend_once(tend);
        outcome.map_err(|error| format!("{}: {}", self.settings.url, self.finder.describe(&error)))
    }

    fn tend_once(&mut self, tend: Tend<'_>) -> RedisResult<bool> {
        let mut link = self.connect()?;
        let key = &self.release.release;
        link.ask(redis::cmd("WATCH").arg(key))
            .map_err(|error| cluster::explained(error, &self.keyring))?;
        let text: Option<Vec<u8>> = redis::from_redis_value(link.ask(redis::cmd("GET").arg(key))?)?;
        let state = match text {
            None => Map::new(),
            Some(text) => serde_json::from_slice(&text).map_err(|_| no_state(key))?,
        };
        let is_written = match tend(&state) {
            None => {
                // Ends the WATCH, by what is allowed anyway.
                transaction::run(&mut link, &redis::pipe())?;
                true
            }
            Some(state) => {
                let mut pipe = redis::pipe();
                pipe.cmd("SET").arg(key).arg(json!(state).to_string());
                match transaction::run(&mut link, &pipe)? {
                    None => false,
                    Some(replies) => {
                        replies.into_iter().try_for_each(|it| it.map(drop))?;
                        true
                    }
                }
            }
        };
        self.link = Some(link);
        Ok(is_written)
    }

    /// See `Ledger::history`.
    pub(super) fn history(&mut self, most: usize) -> Result<Vec<ChangeRecord>, String> {
        let read = |it: &mut Self| {
            let mut link = it.connect()?;
            let mut all = it.records(&mut link, PAGE, |all| all.len() >= most)?;
            all.truncate(most);
            Ok(all)
        };
        read(self).map_err(|error: RedisError| {
            format!("{}: {}", self.settings.url, self.finder.describe(&error))
        })
    }
}

fn no_state(key: &str) -> RedisError {
    io_error(format!(
        "{key} holds something else than the state of a release"
    ))
}

/// The entries in a reply.
fn entries(reply: &[u8]) -> RedisResult<Entries> {
    Replies::from_first(reply).entries()
}

/// Without the line's end that an editor or `echo` has left.
fn trimmed(mut text: Vec<u8>) -> Vec<u8> {
    if text.ends_with(b"\n") {
        text.pop();
        if text.ends_with(b"\r") {
            text.pop();
        }
    }
    text
}

/// An error of a server from before there were streams, with what that means.
fn explained_stream(error: RedisError) -> RedisError {
    let is_unknown = error
        .detail()
        .is_some_and(|it| it.contains("unknown command"));
    match error.code() {
        Some("ERR") if is_unknown => io_error(format!(
            "{}; the history is a stream, which takes Redis 5 or later",
            describe(&error)
        )),
        _ => error,
    }
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

/// Redis looks through a whole list for each entry that goes: above so many entries that it looks at, the
/// list is written anew.
const LOOKED_AT: usize = 20_000_000;

/// The edit that keeps the server busy for the shorter time.
fn cheapest<'a>(edit: &'a Edit, before: &Entries, is_set: bool) -> Cow<'a, Edit> {
    match edit {
        Edit::Some { gone, .. } if !is_set && gone.len() > 1 => {
            match gone.len().saturating_mul(before.len()) > LOOKED_AT {
                true => Cow::Owned(edit.as_whole(before)),
                false => Cow::Borrowed(edit),
            }
        }
        edit => Cow::Borrowed(edit),
    }
}

/// What makes an edit of a key, which may be empty.
fn commands(edit: &Edit, key: &str, is_set: bool, is_empty: bool) -> Vec<Cmd> {
    let add = |entries: &[Vec<u8>]| {
        let mut add = redis::cmd(if is_set { "SADD" } else { "RPUSH" });
        add.arg(key).arg(entries);
        add
    };
    let mut all = Vec::new();
    match edit {
        Edit::None => {}
        Edit::Some { gone, new } => {
            if is_set && !gone.is_empty() {
                let mut remove = redis::cmd("SREM");
                remove.arg(key).arg(gone);
                all.push(remove);
            } else {
                for entry in gone {
                    let mut remove = redis::cmd("LREM");
                    remove.arg(key).arg(0).arg(&entry[..]);
                    all.push(remove);
                }
            }
            if !new.is_empty() {
                all.push(add(new));
            }
        }
        Edit::All(entries) => {
            if !is_empty {
                let mut clear = redis::cmd("DEL");
                clear.arg(key);
                all.push(clear);
            }
            if !entries.is_empty() {
                all.push(add(entries));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_records_is_followed_by_what_is_before_it() {
        assert_eq!(just_before("12-3").as_deref(), Some("12-2"));
        let before = format!("11-{}", u64::MAX);
        assert_eq!(just_before("12-0").as_deref(), Some(&*before));
        assert_eq!(just_before("0-0"), None);
        assert_eq!(just_before("x"), None);
    }

    #[test]
    fn only_what_changes_is_written() {
        let words = |edit: &Edit, is_set, is_empty| -> Vec<String> {
            let all = commands(edit, "gray", is_set, is_empty).into_iter();
            let text = |it: &redis::Arg<&[u8]>| match it {
                redis::Arg::Simple(text) => String::from_utf8_lossy(text).into_owned(),
                _ => "?".to_owned(),
            };
            all.map(|it| {
                it.args_iter()
                    .map(|it| text(&it))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
        };
        let texts = |all: &[&str]| all.iter().map(|it| it.as_bytes().to_vec()).collect();
        let some = Edit::Some {
            gone: texts(&["a", "b"]),
            new: texts(&["c", "d"]),
        };
        assert_eq!(
            words(&some, false, false),
            ["LREM gray 0 a", "LREM gray 0 b", "RPUSH gray c d"]
        );
        assert_eq!(
            words(&some, true, false),
            ["SREM gray a b", "SADD gray c d"]
        );
        let all = Edit::All(texts(&["a"]));
        assert_eq!(words(&all, false, false), ["DEL gray", "RPUSH gray a"]);
        assert_eq!(words(&all, true, true), ["SADD gray a"]);
        assert_eq!(words(&Edit::emptied(), true, false), ["DEL gray"]);
        assert!(words(&Edit::None, false, false).is_empty());
    }
}
