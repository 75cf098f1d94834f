//! What a server says of itself in reply to INFO.

use std::time::Duration;

use redis::{RedisResult, Value};

use super::errors::is_refusal;
use super::link::Link;

/// The reply to INFO.
#[derive(Debug, Default)]
pub(crate) struct Info(pub(crate) String);

impl Info {
    pub(crate) fn of(reply: Value) -> Self {
        Self(redis::from_redis_value(reply).unwrap_or_default())
    }

    /// Asks for some sections; leaves out those that the server does not have.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn ask(link: &mut Link, sections: &[&str]) -> RedisResult<Self> {
        // One by one, since older servers take only one per command.
        let commands = sections.iter().flat_map(|it| {
            let info = redis::cmd("INFO").arg(*it).get_packed_command();
            info.into_iter()
        });
        link.send(&commands.collect::<Vec<u8>>())?;
        let mut all = String::new();
        for _ in sections {
            match link.receive()?.extract_error() {
                Ok(reply) => all.push_str(&Self::of(reply).0),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(all))
    }

    /// The value after this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// How long the link to the master has been down, if it was up since the server was started.
    pub(crate) fn link_down(&self) -> Option<Duration> {
        // -1 if it never was; older ones count from 1970 then.
        let down = self.number("master_link_down_since_seconds")?;
        (down <= self.number("uptime_in_seconds")?).then(|| Duration::from_secs(down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_was_up_if_it_has_been_down_for_less_than_the_server_is_up() {
        let down = |text: &str| {
            let text =
                format!("uptime_in_seconds:100\r\nmaster_link_down_since_seconds:{text}\r\n");
            Info(text).link_down().map(|it| it.as_secs())
        };
        assert_eq!(down("0"), Some(0));
        assert_eq!(down("99"), Some(99));
        assert_eq!(down("-1"), None);
        assert_eq!(down("1764400000"), None);
        assert_eq!(Info::default().link_down(), None);
    }
}
