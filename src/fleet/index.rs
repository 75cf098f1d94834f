//! The index of the nodes: one key by which all gateways on a server are found.
//!
//! It is a sorted set of their names, each with the time at which its heartbeat will expire, in
//! milliseconds of the server's clock: the clocks of two machines are never compared. Each heartbeat
//! writes its own name anew, and removes those that have been gone for long. So nobody needs to scan all
//! keys of a server, which may have millions of others.
//!
//! If the server refuses that, as it does for a user with the rights of earlier versions, the heartbeat
//! is written all the same; that it cannot be found by the index is logged once.

use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult, Value};

use crate::config;
use crate::store::redis::cluster;
use crate::store::redis::errors::{describe, io_error};
use crate::store::redis::link::Link;

/// How long names stay after their heartbeats have expired.
const GONE: Duration = Duration::from_secs(60 * 60);

/// How long a reading of the server's clock, or a refusal, stays valid.
const AGAIN: Duration = Duration::from_secs(60);

/// Most names that are read.
pub(crate) const MOST: usize = 10_000;

/// What one gateway knows of the index.
#[derive(Default)]
pub(crate) struct Index {
    /// The server's time in milliseconds, and when it was that.
    clock: Option<(i64, Instant)>,
    /// A connection to the index, if a cluster has it elsewhere than the heartbeat.
    aside: Option<Link>,
    refused: Option<Instant>,
    told: bool,
}

impl Index {
    /// Writes that `node` will expire after `ttl`. A refusal is logged once, and is not an error.
    ///
    /// # Errors
    /// What came instead of a reply.
    pub(crate) fn write(
        &mut self,
        link: &mut Link,
        settings: &config::RedisSettings,
        ttl: Duration,
    ) -> RedisResult<()> {
        if self.refused.is_some_and(|it| it.elapsed() < AGAIN) {
            return Ok(());
        }
        let key = settings.fleet.index_key();
        let outcome = self.try_write(link, settings, &key, ttl);
        match outcome {
            Ok(()) => {
                self.refused = None;
                if std::mem::take(&mut self.told) {
                    log::info!("heartbeat-indexed key={key:?}");
                }
                Ok(())
            }
            Err(error) if error.code().is_some() => {
                self.refused = Some(Instant::now());
                if !std::mem::replace(&mut self.told, true) {
                    let error = describe(&error);
                    log::warn!(
                        "heartbeat-not-indexed key={key:?} error={error:?} reason=\"`graygate \
                         fleet` may not find this gateway; it takes ZADD, ZREM, ZREMRANGEBYSCORE \
                         and TIME\""
                    );
                }
                Ok(())
            }
            Err(error) => {
                self.aside = None;
                Err(error)
            }
        }
    }

    fn try_write(
        &mut self,
        link: &mut Link,
        settings: &config::RedisSettings,
        key: &str,
        ttl: Duration,
    ) -> RedisResult<()> {
        let now = self.now(link)?;
        let expires = now.saturating_add(millis(ttl));
        let mut add = redis::cmd("ZADD");
        add.arg(key).arg(expires).arg(&settings.fleet.node);
        let mut trim = redis::cmd("ZREMRANGEBYSCORE");
        trim.arg(key)
            .arg("-inf")
            .arg(now.saturating_sub(millis(GONE)));
        for command in [&add, &trim] {
            cluster::follow_aside(link, &mut self.aside, settings, |it| it.ask(command))?;
        }
        Ok(())
    }

    /// The time of the server.
    fn now(&mut self, link: &mut Link) -> RedisResult<i64> {
        if let Some((time, at)) = self.clock
            && at.elapsed() < AGAIN
        {
            return Ok(time.saturating_add(millis(at.elapsed())));
        }
        let time = link.ask(&redis::cmd("TIME"))?;
        let (seconds, micros): (i64, i64) = redis::from_redis_value(time)?;
        let time = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        self.clock = Some((time, Instant::now()));
        Ok(time)
    }

    /// The connection may lead to another server from now on, with another clock.
    pub(crate) fn reconnected(&mut self) {
        (self.clock, self.aside, self.refused) = (None, None, None);
    }

    /// Removes the name: this gateway ends.
    pub(crate) fn remove(
        &mut self,
        link: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Value> {
        let mut remove = redis::cmd("ZREM");
        remove
            .arg(settings.fleet.index_key())
            .arg(&settings.fleet.node);
        cluster::follow_aside(link, &mut self.aside, settings, |it| it.ask(&remove))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A name in the index.
pub(crate) struct Indexed {
    pub(crate) name: Vec<u8>,
    /// When its heartbeat will have expired, in milliseconds of the server's clock.
    pub(crate) expires: f64,
}

/// The names in the index; `None` where there is none, or it may not be read.
///
/// # Errors
/// What came instead of a reply.
pub(crate) fn names(
    link: &mut Link,
    aside: &mut Option<Link>,
    settings: &config::RedisSettings,
) -> RedisResult<Option<Vec<Indexed>>> {
    let mut range = redis::cmd("ZRANGE");
    range.arg(settings.fleet.index_key()).arg(0).arg(MOST);
    range.arg("WITHSCORES");
    let names = cluster::follow_aside(link, aside, settings, |it| it.ask(&range));
    let names: Vec<(Vec<u8>, f64)> = match names {
        Ok(names) => redis::from_redis_value(names)?,
        Err(error) if is_answer(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if names.len() > MOST {
        let key = settings.fleet.index_key();
        return Err(io_error(format!("more than {MOST} names are in {key}")));
    }
    let names = names.into_iter();
    let names: Vec<Indexed> = names
        .map(|(name, expires)| Indexed { name, expires })
        .collect();
    Ok((!names.is_empty()).then_some(names))
}

/// What a server says that currently accepts no writes from anybody.
const REFUSING: [&str; 4] = ["MISCONF", "OOM", "READONLY", "NOREPLICAS"];

/// Why the server currently accepts no heartbeats, in its words, if that is so: its answer to a write
/// that changes nothing, since there is no such member.
///
/// # Errors
/// What came instead of a reply.
pub(crate) fn refusal(
    link: &mut Link,
    aside: &mut Option<Link>,
    settings: &config::RedisSettings,
) -> RedisResult<Option<String>> {
    let mut add = redis::cmd("ZADD");
    add.arg(settings.fleet.index_key()).arg("XX").arg(0).arg("");
    match cluster::follow_aside(link, aside, settings, |it| it.ask(&add)) {
        Err(error) if error.code().is_none() => Err(error),
        Err(error) => {
            let is_said = error.code().is_some_and(|it| REFUSING.contains(&it));
            Ok(is_said.then(|| describe(&error)))
        }
        Ok(_) => Ok(None),
    }
}

/// The time of the server in milliseconds, if it allows the question.
///
/// # Errors
/// What came instead of a reply.
pub(crate) fn time(link: &mut Link) -> RedisResult<Option<f64>> {
    match link.ask(&redis::cmd("TIME")) {
        Ok(time) => {
            let (seconds, micros): (f64, f64) = redis::from_redis_value(time)?;
            Ok(Some(seconds * 1000.0 + micros / 1000.0))
        }
        Err(error) if is_answer(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the server has answered, and its answer will not change.
pub(crate) fn is_answer(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "WRONGTYPE" | "ERR"))
}
