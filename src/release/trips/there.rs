//! Writing to Redis: a trip, and an epoch that has begun since somebody has deleted the key of one.

use redis::{RedisError, RedisResult};

use super::key::{KeyTurn, digest_of, turn_of};
use super::known::{BegunAnew, HeldTrip};
use super::record;
use super::task::{NotWritten, TripTask, Written, tell_unrecorded};
use crate::config::{RedisSettings, ServiceKeys};
use crate::lists::{Digest, ServiceName};
use crate::release::ledger::{added, newest};
use crate::release::state::{ReleaseState, Trip, with_epoch};
use crate::store::redis::errors::{describe, io_error, is_refusal};
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{Division, Keyring, transaction};

/// Writes a trip, unless there is one of the same version, or it is over.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write_trip(
    settings: &RedisSettings,
    service: &ServiceName,
    task: &TripTask<'_>,
) -> Result<Written, NotWritten> {
    let keys = settings.services.iter().find(|it| it.service == *service);
    let Some(keys) = keys else {
        return Ok(Written::Over(None));
    };
    if keys.tripped.is_none() {
        return Err(NotWritten {
            why: "its tripped_key is the key of something else".to_owned(),
            is_refused: true,
        });
    }
    at_lists(settings, keys, |link| {
        let history = keys.history.as_deref();
        let written = write_there(link, keys, task, history);
        match written {
            // It may be the history alone that is refused.
            Err(error) if history.is_some() && error.code().is_some() => {
                let written = write_there(link, keys, task, None);
                if written.is_ok() {
                    tell_unrecorded(service, &describe(&error));
                }
                written
            }
            written => written,
        }
    })
}

/// Writes that the release has another epoch, unless it has had one since.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write_epoch(
    settings: &RedisSettings,
    service: &ServiceName,
    begun: &BegunAnew,
) -> Result<(), NotWritten> {
    let keys = settings.services.iter().find(|it| it.service == *service);
    let Some((keys, release)) = keys.and_then(|it| Some((it, it.release.as_deref()?))) else {
        return Ok(());
    };
    at_lists(settings, keys, |link| {
        link.ask(redis::cmd("WATCH").arg(release))?;
        let text = get(link, release)?;
        let text = text.as_deref().unwrap_or_default();
        let Some(next) = with_epoch(text, &begun.after, &begun.epoch) else {
            return Ok(());
        };
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(release).arg(next);
        // Where somebody else was faster, that is seen before the next attempt.
        let replies = transaction::run(link, &pipe)?;
        replies
            .into_iter()
            .flatten()
            .try_for_each(|it| it.map(drop))
    })
}

/// Has the key with this text of a person say which `trip` it was taken for, unless it is another one by now,
/// or about something else. It expires as it was to.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn name_text(
    settings: &RedisSettings,
    service: &ServiceName,
    (text, trip): (&[u8], &Trip),
) -> Result<(), NotWritten> {
    let keys = settings.services.iter().find(|it| it.service == *service);
    let Some((keys, tripped)) = keys.and_then(|it| Some((it, it.tripped.as_deref()?))) else {
        return Ok(());
    };
    at_lists(settings, keys, |link| {
        link.ask(redis::cmd("WATCH").arg(tripped))?;
        link.ask(redis::cmd("WATCH").arg(&*keys.lists.pre))?;
        let is_same = get(link, tripped)?.as_deref() == Some(text);
        let FoundPre::Of(Some(pre)) = pre_of(link, &keys.lists.pre)? else {
            return Ok(());
        };
        if !is_same || pre.to_string() != trip.pre {
            return Ok(());
        }
        let left: i64 = redis::from_redis_value(link.ask(redis::cmd("PTTL").arg(tripped))?)?;
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(tripped).arg(trip.to_json().to_string());
        if left > 0 {
            pipe.arg("PX").arg(left);
        }
        let replies = transaction::run(link, &pipe)?;
        replies
            .into_iter()
            .flatten()
            .try_for_each(|it| it.map(drop))
    })
}

/// Does something by a connection to where the lists of a service are.
fn at_lists<T>(
    settings: &RedisSettings,
    keys: &ServiceKeys,
    work: impl FnOnce(&mut Link) -> RedisResult<T>,
) -> Result<T, NotWritten> {
    let mut finder = Finder::quiet();
    let keyring = Keyring::new(vec![keys.clone()]);
    let outcome = finder
        .open_at_lists(settings, &keyring, &mut Division::default())
        .and_then(|mut link| work(&mut link));
    outcome.map_err(|error| {
        let why = match error.code() {
            Some("MOVED" | "CROSSSLOT") => format!(
                "{}; give tripped_key, release_key and the lists one hash tag",
                describe(&error)
            ),
            _ => finder.describe(&error),
        };
        NotWritten {
            why,
            is_refused: is_refusal(&error),
        }
    })
}

fn get(link: &mut Link, key: &str) -> RedisResult<Option<Vec<u8>>> {
    redis::from_redis_value(link.ask(redis::cmd("GET").arg(key))?).map_err(RedisError::from)
}

/// What there is in `pre`.
enum FoundPre {
    /// There is no such key.
    Nothing,
    /// A list with this digest; `None` where the key is something else.
    Of(Option<Digest>),
}

fn pre_of(link: &mut Link, pre: &str) -> RedisResult<FoundPre> {
    let kind = link.ask(redis::cmd("TYPE").arg(pre))?;
    let ask = match redis::from_redis_value::<String>(kind)?.as_str() {
        "none" => return Ok(FoundPre::Nothing),
        "list" => redis::cmd("LRANGE").arg(pre).arg(0).arg(-1).to_owned(),
        "set" => redis::cmd("SMEMBERS").arg(pre).to_owned(),
        _ => return Ok(FoundPre::Of(None)),
    };
    let entries: Vec<Vec<u8>> = redis::from_redis_value(link.ask(&ask)?)?;
    Ok(FoundPre::Of(Some(digest_of(entries))))
}

fn write_there(
    link: &mut Link,
    keys: &ServiceKeys,
    task: &TripTask<'_>,
    history: Option<&str>,
) -> RedisResult<Written> {
    let HeldTrip { trip, .. } = task.held;
    let tripped = keys.tripped.as_deref().unwrap_or_default();
    // Of no history there is no argument.
    let watch = redis::cmd("WATCH").arg(tripped).arg(history).to_owned();
    link.ask(&watch)?;
    link.ask(redis::cmd("WATCH").arg(&*keys.lists.pre))?;
    let release = keys.release.as_deref();
    let state = release.map_or(Ok(None), |key| state_of(link, key))?;
    let text = get(link, tripped)?;
    let pre = pre_of(link, &keys.lists.pre)?;
    let digest = match &pre {
        FoundPre::Nothing => None,
        FoundPre::Of(digest) => *digest,
    };
    let turn = turn_of(text.as_deref(), digest, trip, task.lags);
    match turn {
        KeyTurn::Written => return Ok(Written::Yes),
        KeyTurn::Before => return Ok(Written::Before),
        KeyTurn::Write | KeyTurn::Leave => {}
    }
    if let Some(state) = state.filter(|it| task.held.is_over(it)) {
        return Ok(Written::Over(Some(Box::new(state))));
    }
    if matches!(pre, FoundPre::Nothing) {
        return Ok(Written::Empty);
    }
    if turn == KeyTurn::Leave {
        return Ok(Written::Left);
    }
    // It may have been seen there since, and deleted.
    if !(task.is_wanted)() {
        return Ok(Written::Again);
    }
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(tripped).arg(trip.to_json().to_string());
    if let Some(history) = history
        && let Some(record) = (task.noted)(&newest(link, history, record::LOOKED_AT)?)
    {
        pipe.add_command(added(history, &record));
    }
    let Some(replies) = transaction::run(link, &pipe)? else {
        return Ok(Written::Again);
    };
    let reply = replies.into_iter().next();
    reply.ok_or_else(|| io_error("the transaction has too few replies"))??;
    Ok(Written::Yes)
}

/// The state of the release, WATCHed. Whoever may not read it does not know of a reset by others, as it does
/// not otherwise.
fn state_of(link: &mut Link, release: &str) -> RedisResult<Option<ReleaseState>> {
    let watched = link.ask(redis::cmd("WATCH").arg(release));
    match watched.and_then(|_| get(link, release)) {
        Ok(text) => Ok(text.map(|it| ReleaseState::parse(&it))),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
