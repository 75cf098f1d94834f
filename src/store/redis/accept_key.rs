//! The Redis key that names held changes to accept: a string, or a set, of digests.
//!
//! It is read only while something is held. A server that refuses that is told of once, and
//! everything else goes on.

use redis::{RedisResult, Value};

use super::link::Link;

/// The key, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct AcceptKey {
    refusal_told: bool,
}

impl AcceptKey {
    /// The digests that the key `name` holds; none where the server refuses to tell.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn read(&mut self, reader: &mut Link, name: &str) -> RedisResult<Vec<Vec<u8>>> {
        let reply = match reader.ask(redis::cmd("GET").arg(name)) {
            Err(error) if error.code() == Some("WRONGTYPE") => {
                reader.ask(redis::cmd("SMEMBERS").arg(name))
            }
            Ok(Value::Nil) => return Ok(Vec::new()),
            Ok(digest) => Ok(Value::Array(vec![digest])),
            Err(error) => Err(error),
        };
        match reply {
            Ok(digests) => Ok(redis::from_redis_value(digests)?),
            Err(error) if error.code().is_some() => {
                if !std::mem::replace(&mut self.refusal_told, true) {
                    let error = super::describe(&error);
                    log::warn!("accept-key-refused key={name:?} error={error:?}");
                }
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}
