//! The states of a peer.

use std::time::Instant;

use crate::error::Failure;

/// Why a peer is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Attempts on it failed, the last one so.
    Failed(Failure),
    /// It answers with a status of `fail_statuses`.
    Status,
    /// Its health checks fail.
    Check,
}

impl Why {
    /// The name in logs, metrics and pages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.name(),
            Self::Status => "fail-status",
            Self::Check => "check-failed",
        }
    }

    /// What has this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let failures = Failure::ALL.iter().map(|it| Self::Failed(*it));
        let mut all = failures.chain([Self::Status, Self::Check]);
        all.find(|it| it.name() == name)
    }
}

/// Whether a peer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// It has its whole share.
    Up,
    /// Nobody knows yet, and nothing is asked of it before its first check has succeeded.
    Unchecked,
    /// It is left alone until then.
    Out {
        /// When it may be tried again.
        until: Instant,
        /// What has put it out.
        why: Why,
    },
    /// One request is to show how it does now.
    Trial {
        /// When that request was sent.
        since: Instant,
    },
    /// It is back, with a share that grows.
    Starting {
        /// When it came back.
        since: Instant,
    },
}

impl PeerState {
    /// Whether it is asked as a matter of course, with all of its share or some.
    pub(crate) const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Starting { .. })
    }

    /// The name on pages and in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unchecked => "unchecked",
            Self::Out { .. } => "out",
            Self::Trial { .. } => "trial",
            Self::Starting { .. } => "starting",
        }
    }

    /// Every name.
    pub(crate) const NAMES: [&str; 5] = ["up", "unchecked", "out", "trial", "starting"];
}
