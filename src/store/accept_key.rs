//! The Redis key that names held changes to accept: a string, or a set, of digests.
//!
//! It is read only while something is held. A server that refuses that, or refuses the key's
//! channel, is told of once, and everything else goes on.

use std::sync::Once;

use redis::{Connection, RedisResult};

/// The key, and what was said of it.
pub(super) struct AcceptKey {
    name: String,
    refusal_told: Once,
    channel_told: Once,
}

impl AcceptKey {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            refusal_told: Once::new(),
            channel_told: Once::new(),
        }
    }

    /// The digests that the key names; none where the server refuses to tell.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn read(&self, reader: &mut Connection) -> RedisResult<Vec<Vec<u8>>> {
        let as_string: RedisResult<Option<Vec<u8>>> =
            redis::cmd("GET").arg(&self.name).query(reader);
        let outcome = match as_string {
            Err(error) if error.code() == Some("WRONGTYPE") => {
                redis::cmd("SMEMBERS").arg(&self.name).query(reader)
            }
            outcome => outcome.map(|it| it.into_iter().collect()),
        };
        match outcome {
            Err(error) if error.code().is_some() => {
                self.refusal_told.call_once(|| {
                    let (key, error) = (&self.name, error.to_string());
                    log::warn!("accept-key-refused key={key:?} error={error:?}");
                });
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }

    /// Subscribes to the key's channel, on a connection that has subscribed to those of the lists.
    /// Without it, the key is still read at each check.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn subscribe(&self, connection: &mut Connection, db: i64) -> RedisResult<()> {
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(format!("__keyspace@{db}__:{}", self.name));
        connection.send_packed_command(&command.get_packed_command())?;
        match connection.recv_response()?.extract_error() {
            Err(error) if error.code().is_some() => {
                self.channel_told.call_once(|| {
                    let (key, error) = (&self.name, error.to_string());
                    log::warn!("accept-key-events-refused key={key:?} error={error:?}");
                });
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }
}
