//! A clock that is cheap enough to be read for every request: for the ages of connections.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A time by the kernel's coarse clock (`CLOCK_MONOTONIC_COARSE`), which is that of the last timer interrupt:
/// up to 10 ms ago. It is read from memory that the kernel shares with every process, so it takes no system
/// call, whatever the clock source of the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Since the start of the machine: enough for five centuries.
    nanos: u64,
}

impl Moment {
    /// Now, or a little earlier.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
        // Every Linux since 2.6.32 has this clock.
        let nanos = time.map_or(0, |it| it.tv_sec() * 1_000_000_000 + it.tv_nsec());
        Self {
            nanos: nanos as u64,
        }
    }

    /// The time since `earlier`; zero when that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            nanos: self.nanos.saturating_add(nanos),
        }
    }
}
