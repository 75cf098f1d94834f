//! Reading all keys at one moment.

use std::hash::{BuildHasher, RandomState};

use redis::{RedisError, RedisResult, Value};

use super::errors::{bounded, io_error, is_of_open_slot, naming};
use super::link::Link;
use super::open_slot::OpenSlot;
use super::reply::Replies;
use super::rights::Rights;
use super::standing::{ServerStanding, StandingQuery};
use super::transaction;
use crate::config;
use crate::lists::{ByList, ListName};
use crate::store::{Entries, Fault, Reading};

/// The server's answer about the keys, unparsed.
pub(crate) struct KeysReply {
    /// The lists that it is about, in this order; the others are forbidden.
    lists: Vec<ListName>,
    bytes: Vec<u8>,
    /// What the server says about itself, just before that.
    pub(crate) standing: ServerStanding,
}

/// How often the keys are asked for: they may have been touched, and some may be forbidden.
const TRIES: usize = 3;

/// Asks until there is an answer, of `max_reply` bytes at most. Also returns whether the WATCHed keys
/// were untouched before. The server is asked for its standing in passing.
///
/// # Errors
/// When the server cannot be asked, or the answer is longer.
pub(crate) fn ask(
    link: &mut Link,
    slot: &mut OpenSlot,
    settings: &config::RedisSettings,
    rights: &mut Rights,
    question: &mut StandingQuery,
) -> RedisResult<(KeysReply, bool)> {
    for at in 0..TRIES {
        if let Some(answer) = ask_once(link, slot, settings, rights, question)? {
            rights.read();
            // After the first try nothing is watched any more.
            return Ok((answer, at == 0));
        }
    }
    Err(io_error("the transaction was aborted"))
}

/// Asks for all keys in one transaction; `None` when a WATCHed key was touched, or some turned out to be
/// forbidden. Each is asked for as a list and as a set: the wrong one of the two is an error of that
/// command only, and costs the server nothing.
fn ask_once(
    link: &mut Link,
    slot: &mut OpenSlot,
    settings: &config::RedisSettings,
    rights: &mut Rights,
    question: &mut StandingQuery,
) -> RedisResult<Option<KeysReply>> {
    let (keys, most) = (&settings.keys, settings.max_reply);
    let lists = rights.allowed();
    let mut pipe = redis::pipe();
    for list in &lists {
        pipe.cmd("LRANGE").arg(&keys[*list]).arg(0).arg(-1);
        pipe.cmd("SMEMBERS").arg(&keys[*list]);
    }
    let mut request = question.packed().unwrap_or_default();
    let is_asked = !request.is_empty();
    request.extend(transaction::packed(link, &pipe));
    link.send(&request)?;
    let standing = match is_asked {
        true => question.understand(link.receive()?.extract_error())?,
        false => ServerStanding::Settled,
    };
    let refusals = transaction::queued(link, &pipe)?;
    for refusal in &refusals {
        if let Some(list) = refusal.list(&lists)
            && refusal.error.code() == Some("NOPERM")
        {
            rights.refused(list, &keys[list], &refusal.error);
        }
    }
    let some_are_left = !rights.allowed().is_empty();
    if rights.allowed().len() < lists.len() && some_are_left {
        return Ok(None);
    }
    let is_open = refusals.iter().any(|it| is_of_open_slot(&it.error));
    let bytes = match refusals.into_iter().next() {
        _ if is_open => slot.read(link, &lists, settings)?,
        None => match receive(link, &lists, most)? {
            // This may turn out only now, when all keys are checked together.
            bytes if is_refused_by_open_slot(&bytes)? => slot.read(link, &lists, settings)?,
            bytes => {
                slot.close(link);
                Some(bytes)
            }
        },
        // A server without free memory queues nothing, but still allows reading.
        Some(first) if first.error.code() == Some("OOM") => {
            read_one_by_one(link, keys, &lists, &pipe, most)?
        }
        Some(first) => {
            let list = first.list(&lists);
            return Err(match list {
                Some(list) => naming(&first.error, list),
                None => first.error,
            });
        }
    };
    match bytes {
        Some(bytes) if Replies::of(&bytes)?.is_some() => Ok(Some(KeysReply {
            lists,
            bytes,
            standing,
        })),
        _ => Ok(None),
    }
}

/// The reply of EXEC to the commands about `lists`.
fn receive(link: &mut Link, lists: &[ListName], most: usize) -> RedisResult<Vec<u8>> {
    link.receive_lists(most).map_err(|error| {
        let list = lists.get(link.reached() / 2);
        bounded(error, most, list.copied())
    })
}

/// True for EXEC's reply when some keys may be at another server.
fn is_refused_by_open_slot(bytes: &[u8]) -> RedisResult<bool> {
    if !bytes.starts_with(b"-") {
        return Ok(false);
    }
    let refusal = redis::parse_redis_value(bytes)?.extract_error();
    Ok(refusal.is_err_and(|it| is_of_open_slot(&it)))
}

/// Runs `pipe` without a transaction, WATCHing the keys meanwhile. The replies are in the form of
/// EXEC's; `None` when a key was touched.
fn read_one_by_one(
    link: &mut Link,
    keys: &ByList<String>,
    lists: &[ListName],
    pipe: &redis::Pipeline,
    most: usize,
) -> RedisResult<Option<Vec<u8>>> {
    let watched: Vec<&str> = lists.iter().map(|list| keys[*list].as_str()).collect();
    link.ask(redis::cmd("WATCH").arg(&watched))?;
    link.send(&pipe.get_packed_pipeline())?;
    let mut replies = format!("*{}\r\n", pipe.len()).into_bytes();
    for at in 0..pipe.len() {
        let left = most.saturating_sub(replies.len());
        let reply = link.receive_lists(left);
        replies.extend(reply.map_err(|error| bounded(error, most, lists.get(at / 2).copied()))?);
    }
    transaction::accepted(transaction::queue(link, &redis::pipe())?)?;
    let untouched = link.receive()? != Value::Nil;
    Ok(untouched.then_some(replies))
}

impl KeysReply {
    /// Equal for equal answers, and practically never for different ones: it has 64 bits, which nobody
    /// outside can predict.
    pub(crate) fn fingerprint(&self, hasher: &RandomState) -> u64 {
        let lists: Vec<u8> = self.lists.iter().map(|it| *it as u8).collect();
        hasher.hash_one((lists, &self.bytes))
    }

    /// True when there is none of all lists that may be read.
    pub(crate) fn is_empty(&self) -> bool {
        // Each was asked for twice.
        let count = 2 * self.lists.len();
        let none = format!("*{count}\r\n{}", "*0\r\n".repeat(count));
        self.bytes == none.as_bytes()
    }

    /// True when at least `count` entries may be in it.
    pub(crate) fn may_have(&self, count: usize) -> bool {
        // The shortest entry: `$7`, `1.1.1.1`, two line ends.
        self.bytes.len() >= count * 13
    }

    /// What that means.
    ///
    /// # Errors
    /// When the server does not allow the keys to be read.
    pub(crate) fn reading(self) -> RedisResult<Reading> {
        let replies = Replies::of(&self.bytes)?;
        let mut replies = replies.ok_or_else(|| io_error("no answer"))?;
        let mut next = |list: ListName| {
            if !self.lists.contains(&list) {
                return Ok(Err(Fault::Forbidden));
            }
            let (as_list, as_set) = (replies.entries(), replies.entries());
            entries(as_list, as_set).map_err(|error| naming(&error, list))
        };
        Ok(Reading {
            gray: next(ListName::Gray)?,
            pre: next(ListName::Pre)?,
            prod: next(ListName::Prod)?,
        })
    }
}

/// The entries of a key that was read both as a list and as a set.
fn entries(
    as_list: RedisResult<Entries>,
    as_set: RedisResult<Entries>,
) -> RedisResult<Result<Entries, Fault>> {
    let is_wrong_type = |error: &RedisError| error.code() == Some("WRONGTYPE");
    match (as_list, as_set) {
        (Ok(list), _) => Ok(Ok(list)),
        (Err(_), Ok(set)) => Ok(Ok(set)),
        (Err(one), Err(other)) if is_wrong_type(&one) && is_wrong_type(&other) => {
            Ok(Err(Fault::WrongType))
        }
        (Err(error), Err(_)) => Err(error),
    }
}
