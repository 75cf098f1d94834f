//! What has happened to the clients.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Requests that were answered, down to the last byte, as they must be.
    Answered,
    /// Messages through WebSockets that came back.
    Messages,
    /// WebSockets that came to their end.
    Tunnels,
    /// Downloads and uploads that came to their end.
    Transfers,
    /// An answer said that it is the last one on its connection, which the client had not asked for. No harm is
    /// done: the client connects anew.
    Told,
    /// A kept connection was closed; its client noticed before its next request.
    Closed,
    /// A kept connection was closed while a request was on its way: whether it was served nobody knows.
    Lost,
    /// A request was answered wrongly, not in full, too late or not at all, also on a new connection.
    Failed,
    /// A connection was refused.
    Refused,
    /// A WebSocket was cut.
    TunnelsCut,
    /// A download was cut, or was not what it should be.
    DownloadsCut,
    /// An upload was cut, or did not arrive as it was sent.
    UploadsCut,
}

impl Count {
    /// All, in the order of the page.
    pub(crate) const ALL: [Self; 12] = [
        Self::Answered,
        Self::Messages,
        Self::Tunnels,
        Self::Transfers,
        Self::Told,
        Self::Closed,
        Self::Lost,
        Self::Failed,
        Self::Refused,
        Self::TunnelsCut,
        Self::DownloadsCut,
        Self::UploadsCut,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Answered => "requests answered",
            Self::Messages => "messages through WebSockets",
            Self::Tunnels => "WebSockets ended by clients",
            Self::Transfers => "slow transfers completed",
            Self::Told => "told to connect anew (Connection: close)",
            Self::Closed => "kept connections closed",
            Self::Lost => "requests lost on a connection that was closed",
            Self::Failed => "failed requests",
            Self::Refused => "refused connects",
            Self::TunnelsCut => "WebSockets cut",
            Self::DownloadsCut => "downloads cut",
            Self::UploadsCut => "uploads cut",
        }
    }

    /// It must not happen where connections are said to go on.
    pub(crate) const fn is_harm(self) -> bool {
        !matches!(
            self,
            Self::Answered | Self::Messages | Self::Tunnels | Self::Transfers
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in Count::ALL {
            writeln!(f, "{:>10}  {}", self.of(count), count.name())?;
        }
        let slowest = self.slowest().as_secs_f64() * 1e3;
        writeln!(f, "{slowest:>7.0} ms  longest from a connect to its answer")?;
        self.examples()
            .iter()
            .try_for_each(|it| writeln!(f, "{it}"))
    }
}

/// Most descriptions that are kept of what went wrong.
const EXAMPLES: usize = 40;

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [AtomicU64; Count::ALL.len()],
    examples: Mutex<Vec<String>>,
    slowest_us: AtomicU64,
}

impl Tally {
    pub(crate) fn of(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Ordering::Relaxed)
    }

    pub(super) fn increment(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// As [`Self::increment`], with what is to be known of it.
    pub(super) fn note(&self, count: Count, what: impl std::fmt::Display) {
        self.increment(count);
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES {
            examples.push(format!("{}: {what}", count.name()));
        }
    }

    /// A new connection has been made and its request answered within so long.
    pub(super) fn probed(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(time, Ordering::Relaxed);
    }

    /// The longest time from a connect to its answer, of the client that does nothing else.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.load(Ordering::Relaxed))
    }

    /// Everything that must not happen where connections are said to go on.
    pub(crate) fn harm(&self) -> u64 {
        let harm = Count::ALL.into_iter().filter(|it| it.is_harm());
        harm.map(|it| self.of(it)).sum()
    }

    /// What went wrong, as far as it is kept.
    pub(crate) fn examples(&self) -> Vec<String> {
        let examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        examples.clone()
    }
}
