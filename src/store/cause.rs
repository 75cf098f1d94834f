//! Why lists are read, and how changes of them are noticed.

/// Why the lists were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The gateway started.
    Start,
    /// The store announced a change: a keyspace event, or a new version of the file.
    Event,
    /// The time for a full check had come.
    Check,
    /// The connection to the store was re-established.
    Reconnect,
    /// The store was not read: the last-good copy came into force.
    Copy,
    /// The store was not read: a held change was let in.
    Accepted,
}

impl Cause {
    /// Every cause, in the order of [`Status::refreshes`](super::Status::refreshes).
    pub(crate) const ALL: [Self; 6] = [
        Self::Start,
        Self::Event,
        Self::Check,
        Self::Reconnect,
        Self::Copy,
        Self::Accepted,
    ];

    /// The name in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Event => "event",
            Self::Check => "check",
            Self::Reconnect => "reconnect",
            Self::Copy => "copy",
            Self::Accepted => "accepted",
        }
    }
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing was read yet.
    Starting,
    /// By keyspace events, with a full check now and then.
    Events,
    /// By client tracking, with a full check now and then.
    Tracking,
    /// By polling.
    Poll,
    /// By polling the file.
    File,
}

impl Mode {
    /// The name in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Events => "events",
            Self::Tracking => "tracking",
            Self::Poll => "poll",
            Self::File => "file",
        }
    }
}
