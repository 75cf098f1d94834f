//! All keys at one moment.

use redis::{RedisError, RedisResult, Value};

use super::io_error;
use super::link::Link;
use crate::config::Keys;
use crate::lists::ListName;
use crate::store::{Fault, Reading};

/// The key of a list.
pub(super) fn key(keys: &Keys, list: ListName) -> &str {
    match list {
        ListName::Gray => &keys.gray,
        ListName::Pre => &keys.pre,
        ListName::Prod => &keys.prod,
    }
}

/// Reads all keys in one transaction; `None` when a WATCHed key was touched. Each is asked for as
/// a list and as a set: the wrong one of the two is an error of that command alone.
///
/// # Errors
/// When the server does not let itself be read.
pub(super) fn read(link: &mut Link, keys: &Keys) -> RedisResult<Option<Reading>> {
    let mut pipe = redis::pipe();
    for list in ListName::ALL {
        pipe.cmd("LRANGE").arg(key(keys, list)).arg(0).arg(-1);
        pipe.cmd("SMEMBERS").arg(key(keys, list));
    }
    let Some(replies) = transaction(link, &pipe)? else {
        return Ok(None);
    };
    let mut replies = replies.into_iter();
    let mut next = || match (replies.next(), replies.next()) {
        (Some(as_list), Some(as_set)) => entries(as_list, as_set),
        _ => Err(io_error("the transaction has too few replies")),
    };
    Ok(Some(Reading {
        gray: next()?,
        pre: next()?,
        prod: next()?,
    }))
}

/// Runs the commands of `pipe` in one transaction: a reply or an error for each; `None` when a
/// WATCHed key was touched.
pub(super) fn transaction(
    link: &mut Link,
    pipe: &redis::Pipeline,
) -> RedisResult<Option<Vec<RedisResult<Value>>>> {
    let mut request = redis::cmd("MULTI").get_packed_command();
    request.extend(pipe.get_packed_pipeline());
    request.extend(redis::cmd("EXEC").get_packed_command());
    link.send(&request)?;
    // MULTI is accepted, and each command queued. A refusal here says more than that of EXEC.
    for _ in 0..1 + pipe.len() {
        link.receive()?.extract_error()?;
    }
    match link.receive()? {
        Value::Nil => Ok(None),
        Value::Array(replies) => {
            let replies = replies.into_iter().map(Value::extract_error);
            Ok(Some(replies.collect()))
        }
        other => {
            other.extract_error()?;
            Err(io_error("EXEC has no list of replies"))
        }
    }
}

/// The entries of a key that was read both as a list and as a set.
fn entries(
    as_list: RedisResult<Value>,
    as_set: RedisResult<Value>,
) -> RedisResult<Result<Vec<Vec<u8>>, Fault>> {
    let is_wrong_type = |error: &RedisError| error.code() == Some("WRONGTYPE");
    let reply = match (as_list, as_set) {
        (Ok(list), _) => list,
        (Err(_), Ok(set)) => set,
        (Err(one), Err(other)) if is_wrong_type(&one) && is_wrong_type(&other) => {
            return Ok(Err(Fault::WrongType));
        }
        (Err(error), Err(_)) => return Err(error),
    };
    redis::from_redis_value(reply)
        .map(Ok)
        .map_err(RedisError::from)
}
