//! The Redis key that names held changes to accept: a string, or a set, of digests. Since they are
//! written by hand, case and white space around them do not matter.
//!
//! It is read while something is held; a server's refusal is logged once then, and everything else goes on.
//! And it is read with changes that would have to wait, since whoever makes one by a command says there that
//! it is meant.

use redis::{RedisResult, Value};

use super::cluster;
use super::errors::{describe, is_refusal};
use super::link::Link;
use crate::config;

/// The key, and what was logged about it.
#[derive(Default)]
pub(crate) struct AcceptKey {
    refusal_told: bool,
    /// It may not be read, so that nobody asks for it in vain before something is held.
    is_refused: bool,
    /// A connection to the server of a cluster that has the key, if that is not the one with the lists.
    aside: Option<Link>,
}

impl AcceptKey {
    /// The digests in the key, as they are displayed; none if the server refuses to read it.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) fn read(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Vec<String>> {
        match self.ask(reader, settings) {
            Ok(digests) => Ok(digests),
            Err(error) if error.code().is_some() => {
                if !std::mem::replace(&mut self.refusal_told, true) {
                    let name = settings.accept_key.as_str();
                    let error = describe(&error);
                    log::warn!("accept-key-refused key={name:?} error={error:?}");
                }
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// The same before it is known whether anything has to be accepted: where it cannot be read, that is
    /// nobody's concern yet.
    pub(crate) fn read_in_advance(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> Vec<String> {
        if self.is_refused {
            return Vec::new();
        }
        let outcome = self.ask(reader, settings);
        self.is_refused = outcome.as_ref().is_err_and(is_refusal);
        outcome.unwrap_or_default()
    }

    fn ask(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Vec<String>> {
        let name = settings.accept_key.as_str();
        let get = |link: &mut Link| match link.ask(redis::cmd("GET").arg(name)) {
            Err(error) if error.code() == Some("WRONGTYPE") => {
                link.ask(redis::cmd("SMEMBERS").arg(name))
            }
            Ok(Value::Nil) => Ok(Value::Array(Vec::new())),
            Ok(digest) => Ok(Value::Array(vec![digest])),
            Err(error) => Err(error),
        };
        let digests = cluster::follow_aside(reader, &mut self.aside, settings, get)?;
        let digests: Vec<Vec<u8>> = redis::from_redis_value(digests)?;
        Ok(digests.iter().map(|it| displayed(it)).collect())
    }
}

/// A digest as it is displayed, if it is one.
fn displayed(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    text.trim().to_ascii_lowercase()
}
