//! Doubts about what trusted proxies have said of their clients: logged now and then, and a finding
//! until an hour after the last one.
//!
//! A worker comes here a few times a second at most, whatever its proxies say, so requests do not wait
//! for the lock.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Doubt;

/// A proxy that was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubted {
    /// The address that the connection came from.
    pub proxy: IpAddr,
    /// Why it was not believed.
    pub doubt: Doubt,
    /// What it said, escaped and cut.
    pub element: String,
    /// When that was.
    pub at: Instant,
}

impl Doubted {
    /// In words, with the time.
    pub(crate) fn in_words(&self, now: Instant) -> String {
        let Self {
            proxy,
            doubt,
            element,
            at,
        } = self;
        let (name, text) = (doubt.name(), doubt.text());
        let seconds = now.saturating_duration_since(*at).as_secs();
        format!("{proxy} was not believed {seconds} s ago: {name}: {text}: \"{element}\"")
    }
}

/// The latest doubt.
#[derive(Debug, Default)]
pub struct Doubts(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    doubted: Option<Doubted>,
    reported: Option<LastReport>,
}

/// When a doubt was last logged.
#[derive(Debug)]
struct LastReport {
    at: Instant,
    /// How many doubts there had been by then.
    count: u64,
}

/// The shortest time between two log lines.
const PAUSE: Duration = Duration::from_secs(10);

/// A doubt that is older than this is no longer a finding.
const MEMORY: Duration = Duration::from_secs(3600);

impl Doubts {
    /// Notes a doubt, the `count`th. `Some` when it is to be logged, with the number of those before it
    /// that were not.
    pub(super) fn note(&self, doubted: Doubted, count: u64) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = doubted.at;
        last.doubted = Some(doubted);
        let is_soon = |reported: &LastReport| at.saturating_duration_since(reported.at) < PAUSE;
        if last.reported.as_ref().is_some_and(is_soon) {
            return None;
        }
        let before = last.reported.replace(LastReport { at, count });
        Some(count.saturating_sub(before.map_or(0, |it| it.count) + 1))
    }

    /// The latest one, if it is recent.
    pub(crate) fn recent(&self, now: Instant) -> Option<Doubted> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |it: &&Doubted| now.saturating_duration_since(it.at) < MEMORY;
        last.doubted.as_ref().filter(is_recent).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubted(at: Instant) -> Doubted {
        Doubted {
            proxy: [10, 0, 0, 1].into(),
            doubt: Doubt::MalformedChain,
            element: "unknown".to_owned(),
            at,
        }
    }

    #[test]
    fn it_is_a_finding_until_an_hour_after_the_last_time() {
        let (doubts, start) = (Doubts::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(doubts.recent(start), None);
        doubts.note(doubted(start), 1);
        assert_eq!(doubts.recent(after(3599)), Some(doubted(start)));
        assert_eq!(doubts.recent(after(3600)), None);
        doubts.note(doubted(after(3000)), 2);
        assert_eq!(doubts.recent(after(3600)), Some(doubted(after(3000))));
        assert_eq!(doubts.recent(after(6600)), None);
        // A worker's clock may be a moment behind.
        doubts.note(doubted(after(7001)), 3);
        assert!(doubts.recent(after(7000)).is_some());
    }

    #[test]
    fn the_log_tells_of_one_in_ten_seconds_with_the_number_of_the_others() {
        let (doubts, start) = (Doubts::default(), Instant::now());
        let note = |seconds, count| {
            let at = start + Duration::from_secs(seconds);
            doubts.note(doubted(at), count)
        };
        assert_eq!(note(0, 1), Some(0));
        assert_eq!(note(1, 2), None);
        assert_eq!(note(9, 700), None);
        assert_eq!(note(10, 701), Some(699));
        assert_eq!(note(11, 702), None);
        assert_eq!(note(1000, 703), Some(1));
        assert_eq!(note(2000, 704), Some(0));
    }
}
