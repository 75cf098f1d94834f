//! Section `[upstream]`: the servers' side.

use std::time::Duration;

use super::error::ConfigError;
use super::file::Section;
use super::units;

/// Section `[upstream]`: the servers' side.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The port of peers that are listed without one, never 0.
    pub peer_port: u16,
    /// For a peer to accept.
    pub connect_timeout: Duration,
    /// For a peer to take some of a request.
    pub send_timeout: Duration,
    /// For a response head, and for the next bytes of its body.
    pub read_timeout: Duration,
    /// Attempts for one request, 1 to 10.
    pub tries: usize,
    /// Idle connections that each worker keeps for each peer.
    pub keepalive: usize,
    /// How long they are kept.
    pub keepalive_timeout: Duration,
    /// Whether `prod` answers when no peer of `pre` can.
    pub fallback: bool,
}

impl Upstream {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let duration = |name| section.get(name, units::duration);
        Ok(Self {
            peer_port: section.get("peer_port", units::port)?,
            connect_timeout: duration("connect_timeout")?,
            send_timeout: duration("send_timeout")?,
            read_timeout: duration("read_timeout")?,
            tries: section.get("tries", units::count(1..=10))?,
            keepalive: section.get("keepalive", units::count(0..=10_000))?,
            keepalive_timeout: duration("keepalive_timeout")?,
            fallback: section.get("fallback", units::switch)?,
        })
    }
}
