//! Commands that a server executes at one moment, or not at all.

use redis::{RedisError, RedisResult, Value};

use super::errors::io_error;
use super::link::Link;
use super::proxies;

/// Runs the commands of `pipe` in one transaction: a reply or an error for each; `None` when a
/// WATCHed key was touched.
pub(crate) fn run(
    link: &mut Link,
    pipe: &redis::Pipeline,
) -> RedisResult<Option<Vec<RedisResult<Value>>>> {
    accepted(queue(link, pipe)?)?;
    match link.receive()? {
        Value::Nil => Ok(None),
        Value::Array(replies) => {
            let replies = replies.into_iter().map(Value::extract_error);
            Ok(Some(replies.collect()))
        }
        other => {
            other.extract_error()?;
            Err(io_error("EXEC did not return a list of replies"))
        }
    }
}

/// What the server did not queue.
pub(crate) struct CommandRefusal {
    /// The command's place in the transaction.
    pub(crate) at: usize,
    pub(crate) error: RedisError,
}

/// The first refusal as an error: it says more than EXEC's.
pub(crate) fn accepted(refusals: Vec<CommandRefusal>) -> RedisResult<()> {
    let first = refusals.into_iter().next();
    first.map_or(Ok(()), |it| Err(it.error))
}

/// Has the commands of `pipe` queued and executed. If nothing is refused, the reply of EXEC is left to
/// be received; otherwise nothing was executed.
pub(crate) fn queue(link: &mut Link, pipe: &redis::Pipeline) -> RedisResult<Vec<CommandRefusal>> {
    link.send(&packed(link, pipe))?;
    queued(link, pipe)
}

pub(crate) fn packed(link: &Link, pipe: &redis::Pipeline) -> Vec<u8> {
    let mut request = link.asking();
    request.extend(redis::cmd("MULTI").get_packed_command());
    request.extend(pipe.get_packed_pipeline());
    request.extend(redis::cmd("EXEC").get_packed_command());
    request
}

/// The second half of [`queue`], when all has been sent.
pub(crate) fn queued(link: &mut Link, pipe: &redis::Pipeline) -> RedisResult<Vec<CommandRefusal>> {
    link.receive_asked()?;
    // MULTI is accepted, and each command queued.
    let mut refusals = Vec::new();
    for at in 0..1 + pipe.len() {
        if let Err(error) = link.receive()?.extract_error() {
            // Without a transaction, the rest would be the lists themselves, one by one.
            let Some(at) = at.checked_sub(1) else {
                return Err(proxies::without_multi(error));
            };
            refusals.push(CommandRefusal { at, error });
        }
    }
    if !refusals.is_empty() {
        link.receive()?;
    }
    Ok(refusals)
}
