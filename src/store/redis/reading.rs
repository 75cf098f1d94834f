//! All keys at one moment.

use std::hash::{BuildHasher, RandomState};

use redis::{RedisError, RedisResult, Value};

use super::link::Link;
use super::reply::Replies;
use crate::config::Keys;
use crate::lists::ListName;
use crate::store::{Entries, Fault, Reading};

/// The key of a list.
pub(super) fn key(keys: &Keys, list: ListName) -> &str {
    match list {
        ListName::Gray => &keys.gray,
        ListName::Pre => &keys.pre,
        ListName::Prod => &keys.prod,
    }
}

/// What the server said of all keys, as it came.
pub(super) struct Answer(Vec<u8>);

/// Asks for all keys in one transaction; `None` when a WATCHed key was touched. Each is asked for
/// as a list and as a set: the wrong one of the two is an error of that command alone, and costs
/// the server nothing.
///
/// # Errors
/// When the server does not let itself be asked.
pub(super) fn ask(link: &mut Link, keys: &Keys) -> RedisResult<Option<Answer>> {
    let mut pipe = redis::pipe();
    for list in ListName::ALL {
        pipe.cmd("LRANGE").arg(key(keys, list)).arg(0).arg(-1);
        pipe.cmd("SMEMBERS").arg(key(keys, list));
    }
    let answer = match queue(link, &pipe) {
        // Nothing may be queued by a server whose memory is used up, but all may be read.
        Err(error) if error.code() == Some("OOM") => return ask_one_by_one(link, keys, &pipe),
        outcome => {
            outcome?;
            link.receive_bytes()?
        }
    };
    Ok(Replies::of(&answer)?.is_some().then_some(Answer(answer)))
}

/// As [`ask`], without a queue: the keys are WATCHed meanwhile.
fn ask_one_by_one(
    link: &mut Link,
    keys: &Keys,
    pipe: &redis::Pipeline,
) -> RedisResult<Option<Answer>> {
    let watched = ListName::ALL.map(|list| key(keys, list));
    link.ask(redis::cmd("WATCH").arg(&watched))?;
    link.send(&pipe.get_packed_pipeline())?;
    // As EXEC would put it.
    let mut answer = format!("*{}\r\n", pipe.len()).into_bytes();
    for _ in 0..pipe.len() {
        answer.extend(link.receive_bytes()?);
    }
    queue(link, &redis::pipe())?;
    let untouched = link.receive()? != Value::Nil;
    Ok(untouched.then_some(Answer(answer)))
}

/// Runs the commands of `pipe` in one transaction: a reply or an error for each; `None` when a
/// WATCHed key was touched.
pub(super) fn transaction(
    link: &mut Link,
    pipe: &redis::Pipeline,
) -> RedisResult<Option<Vec<RedisResult<Value>>>> {
    queue(link, pipe)?;
    match link.receive()? {
        Value::Nil => Ok(None),
        Value::Array(replies) => {
            let replies = replies.into_iter().map(Value::extract_error);
            Ok(Some(replies.collect()))
        }
        other => {
            other.extract_error()?;
            Err(super::io_error("EXEC has no list of replies"))
        }
    }
}

/// Has the commands of `pipe` queued and executed; what is left to receive is the reply of EXEC.
fn queue(link: &mut Link, pipe: &redis::Pipeline) -> RedisResult<()> {
    let mut request = redis::cmd("MULTI").get_packed_command();
    request.extend(pipe.get_packed_pipeline());
    request.extend(redis::cmd("EXEC").get_packed_command());
    link.send(&request)?;
    // MULTI is accepted, and each command queued. The first refusal says more than that of EXEC.
    let mut refusal = None;
    for _ in 0..1 + pipe.len() {
        if let Err(error) = link.receive()?.extract_error() {
            refusal.get_or_insert(error);
        }
    }
    match refusal {
        None => Ok(()),
        Some(refusal) => {
            link.receive()?;
            Err(refusal)
        }
    }
}

impl Answer {
    /// Equal for equal answers, and for others as good as never: it has 64 bits, which nobody
    /// outside can foresee.
    pub(super) fn fingerprint(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one(&self.0)
    }

    /// True when at least `count` entries may be in it.
    pub(super) fn may_have(&self, count: usize) -> bool {
        // An entry of the fewest bytes: `$7`, `1.1.1.1`, two ends of lines.
        self.0.len() >= count * 13
    }

    /// What that means.
    ///
    /// # Errors
    /// When the server does not let the keys be read.
    pub(super) fn reading(self) -> RedisResult<Reading> {
        let mut replies = Replies::of(&self.0)?.ok_or_else(|| super::io_error("no answer"))?;
        let mut next = || {
            let (as_list, as_set) = (replies.entries(), replies.entries());
            entries(as_list, as_set)
        };
        Ok(Reading {
            gray: next()?,
            pre: next()?,
            prod: next()?,
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
