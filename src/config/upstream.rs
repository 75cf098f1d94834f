//! Section `[upstream]`: the servers' side.

use std::time::Duration;

use super::error::ConfigError;
use super::file::Section;
use super::key::settings;
use super::units;

settings! {
    [upstream]
    PEER_PORT: u16 = peer_port, "80", restart, |it, _| units::port(it),
        "Port of the servers that are listed without one, 1 to 65535.";
    CONNECT_TIMEOUT: Duration = connect_timeout, "1s", reload, |it, _| units::duration(it),
        "Time for a server to accept a connection.";
    SEND_TIMEOUT: Duration = send_timeout, "1s", reload, |it, _| units::duration(it),
        "Longest time in which a server reads nothing of a request.";
    READ_TIMEOUT: Duration = read_timeout, "1s", reload, |it, _| units::duration(it),
        "Time for the head of a response, and longest silence within its body.";
    TRIES: usize = tries, "3", reload, |it, _| units::count(it, 1..=10),
        "Largest number of servers to try for a request, 1 to 10.";
    KEEPALIVE: usize = keepalive, "64", reload, |it, _| units::count(it, 0..=10_000),
        "Idle connections that each worker keeps per server, 0 to 10000.";
    KEEPALIVE_TIMEOUT: Duration = keepalive_timeout, "30s", reload, |it, _| units::duration(it),
        "Time that an idle connection to a server is kept.";
    FALLBACK: bool = fallback, "on", reload, |it, _| units::switch(it),
        "Try the old version when no server of the new one can answer: on or off.";
}

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
        Ok(Self {
            peer_port: section.get(&PEER_PORT)?,
            connect_timeout: section.get(&CONNECT_TIMEOUT)?,
            send_timeout: section.get(&SEND_TIMEOUT)?,
            read_timeout: section.get(&READ_TIMEOUT)?,
            tries: section.get(&TRIES)?,
            keepalive: section.get(&KEEPALIVE)?,
            keepalive_timeout: section.get(&KEEPALIVE_TIMEOUT)?,
            fallback: section.get(&FALLBACK)?,
        })
    }
}
