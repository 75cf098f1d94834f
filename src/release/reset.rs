//! Resetting a release: the version in `pre` may be tried again, and its evidence begins anew.
//!
//! In Redis it is one transaction: the key that says that a version was taken back is gone in the same moment in
//! which the state of the release has a new epoch. So a gateway that could not say yet what it had found knows
//! that it was reset since. With a lists file the state is written first: who sees one of the two only sees a
//! version that is taken back still.

use std::fs;
use std::io;
use std::path::Path;

use redis::{RedisError, RedisResult};
use serde_json::{Map, Value};

use super::state::{Trip, state_after_reset};
use super::trips::replace_file;
use crate::config::{Config, RedisSettings, ServiceKeys, Store};
use crate::lists::ServiceName;
use crate::store::file::beside;
use crate::store::redis::errors::io_error;
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{Division, Keyring, transaction};

/// How often it is tried where somebody else changes something meanwhile.
const TRIES: usize = 10;

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResetDone {
    /// What was taken back, if the store said so; without words where it was not said in words known here.
    pub(crate) trip: Option<Option<Trip>>,
    /// The epoch that has begun.
    pub(crate) epoch: String,
}

/// Resets the release of a service in the store of this configuration.
///
/// # Errors
/// One line: why nothing was changed.
pub(crate) fn reset(
    config: &Config,
    service: &ServiceName,
    by: &str,
    reason: Option<&str>,
) -> Result<ResetDone, String> {
    if !config.services.iter().any(|it| it.name == *service) {
        let there: Vec<&str> = config.services.iter().map(|it| it.name.as_str()).collect();
        let there = there.join(", ");
        return Err(format!(
            "the ini file has no service {service}; there is {there}"
        ));
    }
    let order = ResetOrder {
        epoch: format!("{:016x}", fastrand::u64(..)),
        by,
        reason,
    };
    match &config.store {
        Store::Redis(settings) => order.in_redis(settings, service),
        Store::File(lists) => order
            .beside(lists, service)
            .map_err(|error| format!("{}: {error}", lists.display())),
    }
}

struct ResetOrder<'a> {
    epoch: String,
    by: &'a str,
    reason: Option<&'a str>,
}

impl ResetOrder<'_> {
    /// The new state in place of this one.
    fn state(&self, before: Option<&[u8]>) -> String {
        let before = before.and_then(|it| serde_json::from_slice::<Map<String, Value>>(it).ok());
        let state = before.unwrap_or_default();
        Value::Object(state_after_reset(state, &self.epoch, self.by, self.reason)).to_string()
    }

    fn done(&self, tripped: Option<&[u8]>) -> ResetDone {
        ResetDone {
            trip: tripped.map(Trip::parse),
            epoch: self.epoch.clone(),
        }
    }

    fn in_redis(
        &self,
        settings: &RedisSettings,
        service: &ServiceName,
    ) -> Result<ResetDone, String> {
        let all = settings.services.iter();
        let keys = all.cloned().find(|it| it.service == *service);
        let keys = keys.ok_or("there is no such service")?;
        let keyring = Keyring::new(vec![keys.clone()]);
        let mut finder = Finder::quiet();
        for _ in 0..TRIES {
            let outcome = finder
                .open_at_lists(settings, &keyring, &mut Division::default())
                .and_then(|mut link| self.attempt(&mut link, &keys));
            match outcome {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(error) => return Err(format!("{}: {}", settings.url, finder.describe(&error))),
            }
        }
        Err("others change it at every moment; try again".to_owned())
    }

    /// `None` where somebody has changed something meanwhile.
    fn attempt(&self, link: &mut Link, keys: &ServiceKeys) -> RedisResult<Option<ResetDone>> {
        let (Some(tripped), Some(state)) = (&keys.tripped, &keys.release) else {
            return Err(io_error(
                "tripped_key or release_key has no key of its own: its default is used for something else",
            ));
        };
        link.ask(redis::cmd("WATCH").arg(tripped).arg(state))?;
        let mut get = |key: &str| -> RedisResult<Option<Vec<u8>>> {
            redis::from_redis_value(link.ask(redis::cmd("GET").arg(key))?).map_err(RedisError::from)
        };
        // What is no text is no state, and is replaced; nor is it a trip.
        let mut text = |key: &str| match get(key) {
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
            outcome => outcome,
        };
        let (before, trip) = (text(state)?, text(tripped)?);
        let mut pipe = redis::pipe();
        pipe.cmd("DEL").arg(tripped);
        pipe.cmd("SET")
            .arg(state)
            .arg(self.state(before.as_deref()));
        let Some(replies) = transaction::run(link, &pipe)? else {
            return Ok(None);
        };
        for reply in replies {
            reply?;
        }
        Ok(Some(self.done(trip.as_deref())))
    }

    fn beside(&self, lists: &Path, service: &ServiceName) -> io::Result<ResetDone> {
        let read = |what| match fs::read(beside(lists, service, what)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let (before, trip) = (read("release")?, read("tripped")?);
        let state = format!("{}\n", self.state(before.as_deref()));
        replace_file(&beside(lists, service, "release"), state.as_bytes())?;
        if trip.is_some() {
            fs::remove_file(beside(lists, service, "tripped"))?;
        }
        Ok(self.done(trip.as_deref()))
    }
}
