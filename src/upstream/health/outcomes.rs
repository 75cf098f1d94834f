//! How attempts on a peer have ended, a little back in time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::latency::RecentLatency;

/// How far back outcomes count.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// How many attempts have ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    /// Well.
    pub answered: u64,
    /// Through the peer's fault.
    pub failed: u64,
}

/// What a look a second has seen of late.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// From the oldest one on, which is a window old or what was seen first.
    looks: VecDeque<(Instant, Outcomes)>,
    pub(super) latency: RecentLatency,
}

impl Recent {
    /// Notes what is seen `now`; returns what was a window ago.
    pub(super) fn note(&mut self, seen: Outcomes, now: Instant) -> Outcomes {
        self.looks.push_back((now, seen));
        // The youngest one that is old enough stays.
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.looks.pop_front();
        }
        match self.looks.front() {
            Some((at, outcomes)) if now.saturating_duration_since(*at) >= WINDOW => *outcomes,
            _ => Outcomes::default(),
        }
    }

    /// What was seen between the last two looks.
    pub(super) fn latest(&self) -> Outcomes {
        let mut looks = self.looks.iter().rev();
        let (Some((_, now)), Some((_, before))) = (looks.next(), looks.next()) else {
            return Outcomes::default();
        };
        Outcomes {
            answered: now.answered.wrapping_sub(before.answered),
            failed: now.failed.wrapping_sub(before.failed),
        }
    }
}
