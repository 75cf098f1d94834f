//! Section `[upstream]`: the servers' side.

use std::time::Duration;

use super::error::{ConfigError, ValueResult, WrongValue};
use super::file::Section;
use super::key::settings;
use super::units;

settings! {
    [upstream]
    PEER_PORT: u16 = peer_port, "80", reload, |it, _| units::port(it),
        "Port of the servers that are listed without one, 1 to 65535.";
    RESOLVE_INTERVAL: Duration = resolve_interval, "10s", reload, |it, _| units::duration(it),
        "Time between two look-ups of a server's name.";
    CONNECT_TIMEOUT: Duration = connect_timeout, "1s", reload, |it, _| units::duration(it),
        "Time for a server to accept a connection.";
    SEND_TIMEOUT: Duration = send_timeout, "1s", reload, |it, _| units::duration(it),
        "Longest time in which a server reads nothing of a request.";
    READ_TIMEOUT: Duration = read_timeout, "1s", reload, |it, _| units::duration(it),
        "Time for the head of a response. The first setting to look at: what takes longer is tried elsewhere, or 504.";
    STALL_TIMEOUT: Duration = stall_timeout, "60s", reload, |it, _| units::duration(it),
        "Longest silence within the body of a response, if it is longer than read_timeout.";
    DEADLINE: Option<Duration> = deadline, "off", reload, |it, _| units::duration_or_off(it),
        "Time for a request with all that it is tried, from its head to the end of its response; or off.";
    TRIES: usize = tries, "3", reload, |it, _| units::count(it, 1..=10),
        "Largest number of servers to try for a request, 1 to 10.";
    RETRY_BUDGET: u64 = retry_budget, "20", reload, |it, _| units::count(it, 0..=1000),
        "Requests to try again, in percent of a pool's of the last 10 s, 0 to 1000; 3 a second in any case.";
    BALANCE: Balance = balance, "random", reload, |it, _| Balance::parse(it),
        "Choice of a server: random, least (busy, of two by chance) or hash (of the client's address).";
    MAX_FAILS: u32 = max_fails, "3", reload, |it, _| units::count(it, 0..=1000),
        "Failures in a row, or most of 20 and more within 10 s, that put a server out, 1 to 1000; 0: never.";
    FAIL_STATUSES: Vec<u16> = fail_statuses, "", reload, |it, _| units::statuses(it),
        "Statuses, separated by commas, that count as failures, as 502,503,504.";
    FAIL_TIMEOUT: Duration = fail_timeout, "10s", reload, |it, _| units::duration(it),
        "Time for which a server is out, doubled each time it fails again, up to 5m.";
    MAX_OUT: usize = max_out, "50", reload, |it, _| units::count(it, 0..=100),
        "Servers of a pool that are out at once, in percent, 0 to 100; the last one never is.";
    SLOW_START: Duration = slow_start, "10s", reload, |it, _| units::duration_or_off(it).map(Option::unwrap_or_default),
        "Time in which a server that is back gets its share again, from a tenth of it up; or off.";
    KEEPALIVE: Keepalive = keepalive, "auto", reload, |it, _| Keepalive::read(it),
        "Idle connections that each worker keeps per server: auto (as many as it used at once lately), or 0 to 10000.";
    KEEPALIVE_TIMEOUT: Duration = keepalive_timeout, "30s", reload, |it, _| units::duration(it),
        "Longest time that an idle connection to a server is kept.";
    FALLBACK: bool = fallback, "on", reload, |it, _| units::switch(it),
        "Try the old version when no server of the new one can answer: on or off.";
}

/// How a peer is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each with the same chance, but for its weight.
    #[default]
    Random,
    /// Of two by chance the one with fewer requests under way.
    Least,
    /// A client stays at one peer.
    Hash,
}

impl Balance {
    /// Every one, with its name in the ini file.
    const NAMES: [(&'static str, Self); 3] = [
        ("random", Self::Random),
        ("least", Self::Least),
        ("hash", Self::Hash),
    ];

    fn parse(text: &str) -> ValueResult<Self> {
        units::one_of(text, &Self::NAMES)
    }
}

/// Section `[upstream]`: the servers' side.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamSettings {
    /// The port of peers that are listed without one, never 0.
    pub peer_port: u16,
    /// How long an answer of the resolver counts.
    pub resolve_interval: Duration,
    /// For a peer to accept.
    pub connect_timeout: Duration,
    /// For a peer to take some of a request.
    pub send_timeout: Duration,
    /// For a response head.
    pub read_timeout: Duration,
    /// For the next bytes of a response's body.
    pub stall_timeout: Duration,
    /// For all attempts and the response's body together.
    pub deadline: Option<Duration>,
    /// Attempts for one request, 1 to 10.
    pub tries: usize,
    /// Retries, in percent of a pool's requests of late.
    pub retry_budget: u64,
    /// How a peer is chosen.
    pub balance: Balance,
    /// Failures in a row that put a peer out; 0: nothing does.
    pub max_fails: u32,
    /// Statuses that are failures.
    pub fail_statuses: Vec<u16>,
    /// For how long a peer is out the first time.
    pub fail_timeout: Duration,
    /// How many peers of a pool may be out at once, in percent.
    pub max_out: usize,
    /// How long the share of a peer grows that is back.
    pub slow_start: Duration,
    /// Idle connections that each worker keeps for each peer.
    pub keepalive: Keepalive,
    /// How long they are kept, at most.
    pub keepalive_timeout: Duration,
    /// Whether `prod` answers when no peer of `pre` can.
    pub fallback: bool,
}

/// How many idle connections a worker keeps for a peer. It is never more than were in use at once lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// All of these.
    Auto,
    /// So many of these.
    AtMost(usize),
}

/// Connections that a client's word alone has pinned, and that a worker keeps for a peer when nothing else is
/// said.
const CLAIMS: usize = 64;

impl Keepalive {
    fn read(text: &str) -> ValueResult<Self> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = units::count(text, 0..=10_000).map_err(|error| WrongValue {
            allowed: format!("auto, or {}", error.allowed),
            ..error
        })?;
        Ok(Self::AtMost(number))
    }

    /// The bound.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Auto => usize::MAX,
            Self::AtMost(most) => most,
        }
    }

    /// The bound of those that clients have pinned by a word of their own: nobody knows how many are needed.
    pub(crate) fn claims(self) -> usize {
        match self {
            Self::Auto => CLAIMS,
            Self::AtMost(most) => most,
        }
    }
}

impl UpstreamSettings {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            peer_port: section.get(&PEER_PORT)?,
            resolve_interval: section.get(&RESOLVE_INTERVAL)?,
            connect_timeout: section.get(&CONNECT_TIMEOUT)?,
            send_timeout: section.get(&SEND_TIMEOUT)?,
            read_timeout: section.get(&READ_TIMEOUT)?,
            // Who had set a longer one when it was one for both keeps it.
            stall_timeout: section
                .get(&STALL_TIMEOUT)?
                .max(section.get(&READ_TIMEOUT)?),
            deadline: section.get(&DEADLINE)?,
            tries: section.get(&TRIES)?,
            retry_budget: section.get(&RETRY_BUDGET)?,
            balance: section.get(&BALANCE)?,
            max_fails: section.get(&MAX_FAILS)?,
            fail_statuses: section.get(&FAIL_STATUSES)?,
            fail_timeout: section.get(&FAIL_TIMEOUT)?,
            max_out: section.get(&MAX_OUT)?,
            slow_start: section.get(&SLOW_START)?,
            keepalive: section.get(&KEEPALIVE)?,
            keepalive_timeout: section.get(&KEEPALIVE_TIMEOUT)?,
            fallback: section.get(&FALLBACK)?,
        })
    }
}
