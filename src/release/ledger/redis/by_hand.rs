//! Noting what was changed by hand: as a rule, one look at the last record says that somebody has done so.
//! Only otherwise the lists are read, WATCHed together with the history; so of several gateways one writes.
//! Lists that are too long to be remembered are read only where what this gateway has seen of them does not
//! tell.

use redis::RedisResult;

use super::reading::trimmed;
use super::stream::added;
use super::{PAGE, RedisLedger};
use crate::release::change::FoundLists;
use crate::release::history::ChangeRecord;
use crate::release::ledger::account::{
    NotNoted, Noting, SeenAccount, by_hand_by_sight, by_hand_until,
};
use crate::store::redis::errors::{is_of_cluster, is_refusal};
use crate::store::redis::link::Link;
use crate::store::redis::transaction;

impl RedisLedger<'_> {
    /// See `Ledger::note_by_hand`.
    pub(in crate::release::ledger) fn note_by_hand(
        &mut self,
        account: &SeenAccount<'_>,
    ) -> Result<Noting, NotNoted> {
        let outcome = self.try_to_note(account);
        outcome.map_err(|error| {
            let is_refused = is_refusal(&error) || is_of_cluster(&error);
            let words = self.finder.describe(&self.explained(error));
            match is_refused {
                true => NotNoted::Refused(words),
                false => NotNoted::Away(words),
            }
        })
    }

    fn try_to_note(&mut self, account: &SeenAccount<'_>) -> RedisResult<Noting> {
        let mut link = self.connect()?;
        if let Some(noting) = account.at_once(self.last(&mut link)?.as_ref()) {
            self.link = Some(link);
            return Ok(noting);
        }
        let mut watch = redis::cmd("WATCH");
        watch.arg(&self.release.history);
        self.keys.lists.iter().for_each(|(_, key)| {
            watch.arg(key);
        });
        link.ask(&watch)?;
        // Whoever may not read the salt does without.
        allowed(link.ask(redis::cmd("WATCH").arg(&self.keys.salt)))?;
        let record = match self.record_by_hand(&mut link, account)? {
            Ok(record) => record,
            Err(noting) => return Ok(noting),
        };
        let mut pipe = redis::pipe();
        pipe.add_command(added(&self.release.history, &record));
        let Some(replies) = transaction::run(&mut link, &pipe)? else {
            self.link = Some(link);
            return Ok(Noting::Again);
        };
        replies.into_iter().try_for_each(|it| it.map(drop))?;
        self.link = Some(link);
        Ok(Noting::Written(record.number))
    }

    /// The record of what was changed by hand, or what there is to say of it otherwise.
    fn record_by_hand(
        &self,
        link: &mut Link,
        account: &SeenAccount<'_>,
    ) -> RedisResult<Result<ChangeRecord, Noting>> {
        if account.is_long() {
            let found = self.found_beside(link)?;
            if let Some(noting) = account.at_once(found.history.first()) {
                return Ok(Err(noting));
            }
            if let Some(record) = by_hand_by_sight(&self.terms, &found, account) {
                return Ok(Ok(record));
            }
            if account.waits_for_turn() {
                return Ok(Err(Noting::MustRead));
            }
        }
        let found = self.found(link)?;
        Ok(by_hand_until(&self.terms, &found, account))
    }

    /// What there is besides the lists, with the latest records.
    fn found_beside(&self, link: &mut Link) -> RedisResult<FoundLists> {
        let mut text = |key: &String| -> RedisResult<Option<Vec<u8>>> {
            let text = allowed(link.ask(redis::cmd("GET").arg(key)))?;
            Ok(text.map(redis::from_redis_value).transpose()?.flatten())
        };
        let salt = text(&self.keys.salt)?;
        let state = match self.keys.has_verdict {
            true => text(&self.release.release)?,
            false => None,
        };
        let state = state.and_then(|it| serde_json::from_slice(&it).ok());
        Ok(FoundLists {
            salt: salt.map(trimmed),
            state: state.unwrap_or_default(),
            history: self.records(link, PAGE, |all| !all.is_empty())?,
            ..FoundLists::default()
        })
    }

    /// The last record.
    fn last(&self, link: &mut Link) -> RedisResult<Option<ChangeRecord>> {
        let all = self.records(link, 1, |all| !all.is_empty())?;
        Ok(all.into_iter().next())
    }

    /// What there is, as far as a gateway may read it.
    fn found(&self, link: &mut Link) -> RedisResult<FoundLists> {
        let mut keys = vec![&self.keys.salt];
        // Where there is no verdict, the key is nobody's business.
        keys.extend(self.keys.has_verdict.then_some(&self.release.release));
        let (lists, texts) = self.read_lists(link, &keys)?;
        let mut texts = texts.into_iter();
        let mut text = || match texts.next() {
            Some(text) => allowed(text).map(Option::flatten),
            None => Ok(None),
        };
        let (salt, state) = (text()?, text()?);
        let state = state.and_then(|it| serde_json::from_slice(&it).ok());
        Ok(FoundLists {
            lists,
            salt: salt.map(trimmed),
            state: state.unwrap_or_default(),
            history: self.last(link)?.into_iter().collect(),
            ..FoundLists::default()
        })
    }
}

/// Nothing where the server says no.
fn allowed<T>(outcome: RedisResult<T>) -> RedisResult<Option<T>> {
    match outcome {
        Err(error) if error.code().is_some() => Ok(None),
        outcome => outcome.map(Some),
    }
}
