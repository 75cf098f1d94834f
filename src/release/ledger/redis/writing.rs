//! The transaction: what has changed, and the record of it.

use std::borrow::Cow;

use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use serde_json::json;

use super::reading::explained_stream;
use super::stream::added;
use super::{LedgerAttempt, RedisLedger};
use crate::lists::ListName;
use crate::release::change::{Edit, FoundLists, ListsChange};
use crate::release::history::{ASIDE, INLINE, next_number};
use crate::release::ledger::order::{Done, Order, by_hand};
use crate::release::rollout::is_under_way;
use crate::store::Entries;
use crate::store::redis::cluster;
use crate::store::redis::errors::{describe, io_error, is_of_cluster};
use crate::store::redis::link::Link;
use crate::store::redis::transaction;

/// So many digests of earlier changes stay in the accept key.
const MOST_ACCEPTED: usize = 100;

/// How long an accepted digest stays in its key.
const ACCEPTED: u64 = 60;

/// What has become of a transaction.
enum Execution {
    /// It was executed: what was replied to each command.
    Done(Vec<Value>),
    /// It was not, since somebody else was faster, or a part of it is elsewhere: it is to be made anew.
    Again,
    /// The connection is gone, and nobody knows.
    Unanswered(RedisError),
}

impl Execution {
    /// An error of a server says that nothing was done; any other says nothing of that.
    fn failed(error: RedisError) -> RedisResult<Self> {
        match error.code() {
            None => Ok(Self::Unanswered(error)),
            Some(_) => Err(error),
        }
    }
}

impl RedisLedger<'_> {
    /// Writes a change and its record, or nothing.
    pub(super) fn write(
        &mut self,
        mut link: Link,
        order: &Order,
        change: ListsChange,
        found: &FoundLists,
    ) -> RedisResult<LedgerAttempt> {
        let mut pipe = redis::pipe();
        self.add_lists(&mut pipe, &change, found);
        self.add_state(&mut pipe, &change, found);
        let mut notes = Vec::new();
        let number = self.note(&mut pipe, order, &change, found, &mut notes);
        // Read before it is needed, and last, so that nothing else stands or falls with it.
        let accept_from = pipe.len();
        if !self.accepts_elsewhere {
            for command in self.accept_commands(&mut link, &change)? {
                pipe.add_command(command);
            }
        }
        let replies = match self.execute(&mut link, &pipe, accept_from)? {
            Execution::Done(replies) => replies,
            Execution::Again => {
                self.link = Some(link);
                return Ok(LedgerAttempt::Again);
            }
            Execution::Unanswered(error) => {
                self.unanswered = Some(Box::new(change));
                return Err(error);
            }
        };
        let failed = replies.into_iter().find_map(|it| it.extract_error().err());
        notes.extend(failed.map(|it| {
            let why = describe(&it);
            format!("a part of the change was refused: {why}")
        }));
        Ok(self.done(&mut link, change, number, notes))
    }

    /// A change that was made, by this number, with what there is to say besides.
    pub(super) fn done(
        &self,
        link: &mut Link,
        change: ListsChange,
        number: u64,
        mut notes: Vec<String>,
    ) -> LedgerAttempt {
        if self.accepts_elsewhere {
            self.accept_elsewhere(link, &change, &mut notes);
        }
        LedgerAttempt::Done(Box::new(Done {
            change,
            number: Some(number),
            notes,
        }))
    }

    /// What makes the edits of the lists, and another salt.
    fn add_lists(&self, pipe: &mut Pipeline, change: &ListsChange, found: &FoundLists) {
        for list in ListName::ALL {
            let (key, is_set) = (&self.keys.lists[list], change.are_sets[list]);
            let before = &found.lists[list].entries;
            let edit = cheapest(&change.edits[list], before, is_set);
            for command in commands(&edit, key, is_set, before.is_empty()) {
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
    }

    /// What makes another state of the release, with what is beside it.
    fn add_state(&self, pipe: &mut Pipeline, change: &ListsChange, found: &FoundLists) {
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
        if found.is_renewed && change.state.as_ref().is_some_and(|it| !is_under_way(it)) {
            pipe.cmd("DEL").arg(&self.release.lease);
        }
        if change.untrips {
            pipe.cmd("DEL").arg(&self.release.tripped);
        }
    }

    /// Has all of it done, or nothing. What is in `pipe` from `accept_from` on may be elsewhere in a cluster.
    fn execute(
        &mut self,
        link: &mut Link,
        pipe: &Pipeline,
        accept_from: usize,
    ) -> RedisResult<Execution> {
        let refusals = match transaction::queue(link, pipe) {
            Ok(refusals) => refusals,
            Err(error) => return Execution::failed(error),
        };
        if let Some(first) = refusals.into_iter().next() {
            if first.at >= accept_from && is_of_cluster(&first.error) {
                self.accepts_elsewhere = true;
                return Ok(Execution::Again);
            }
            return Err(explained_stream(first.error, &self.release.history));
        }
        match link.receive() {
            Ok(Value::Nil) => Ok(Execution::Again),
            Ok(Value::Array(replies)) => Ok(Execution::Done(replies)),
            Ok(other) => {
                let error = other.extract_error().err();
                let error = error.unwrap_or_else(|| io_error("EXEC did not return replies"));
                Err(self.explained(error))
            }
            Err(error) => Execution::failed(error),
        }
    }

    /// The record, and before it that of a change by hand, if there was one.
    fn note(
        &self,
        pipe: &mut Pipeline,
        order: &Order,
        change: &ListsChange,
        found: &FoundLists,
        notes: &mut Vec<String>,
    ) -> u64 {
        let last = found.history.first();
        let mut number = next_number(last.map_or(0, |it| it.number));
        if let Some(record) = by_hand(last, change, &self.terms) {
            pipe.add_command(added(&self.release.history, &record));
            number = next_number(number);
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
        pipe.add_command(added(&self.release.history, &record));
        number
    }

    /// What lets gateways take a change at once that their guard would hold, or of which something would
    /// have to settle. A set by hand keeps what is in it, for ever; one of earlier changes for as long as
    /// this one.
    fn accept_commands(&self, link: &mut Link, change: &ListsChange) -> RedisResult<Vec<Cmd>> {
        if change.accept.is_empty() {
            return Ok(Vec::new());
        }
        let key = &self.settings.accept_key;
        let members = match link.ask(redis::cmd("SMEMBERS").arg(key)) {
            Ok(Value::Array(members)) => Some(members.len()),
            // Another type, which a value by hand may have.
            Err(error) if error.code() == Some("WRONGTYPE") => None,
            // The transaction will say so, too.
            Err(error) if is_of_cluster(&error) => Some(0),
            Err(error) => return Err(error),
            Ok(_) => Some(0),
        };
        // Who may not ask leaves it as it is.
        let left = match members {
            Some(1..) => link.ask(redis::cmd("PTTL").arg(key)),
            _ => Ok(Value::Nil),
        };
        let has_end = matches!(left, Ok(Value::Int(left)) if left >= 0);
        let mut add = redis::cmd("SADD");
        add.arg(key);
        for digest in &change.accept {
            add.arg(digest.to_string());
        }
        let (mut clear, mut expire) = (redis::cmd("DEL"), redis::cmd("EXPIRE"));
        clear.arg(key);
        expire.arg(key).arg(ACCEPTED);
        Ok(match members {
            Some(0) => vec![add, expire],
            None => vec![clear, add, expire],
            Some(_) if !has_end => vec![add],
            Some(members) if members >= MOST_ACCEPTED => vec![clear, add, expire],
            Some(_) => vec![add, expire],
        })
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
