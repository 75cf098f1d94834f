//! How soon the keys may be read again.
//!
//! A single change is read at once. Expensive readings take a bounded share of the gateway's and the
//! server's time, and a storm of changes causes few of them; the last change is read within about a
//! tenth of a second of the end of the storm, or within the time that one reading takes.

use std::time::{Duration, Instant};

/// Shortest time between two readings.
const LEAST: Duration = Duration::from_millis(1);

/// In a storm the gap doubles up to this.
const IN_A_STORM: Duration = Duration::from_millis(25);

/// This many changes between two readings are a storm. A transaction that rewrites each list makes six.
const STORM: u64 = 8;

/// A reading is followed by a gap of this many times its length…
const SHARE: u32 = 3;

/// … but no longer than this, or than the reading itself.
const ENOUGH: Duration = Duration::from_millis(100);

/// When the keys were last read, and how long that took.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    ended: Option<Instant>,
    gap: Duration,
    in_a_storm: Duration,
}

impl Pace {
    /// Notes a reading from `began` to `ended`, after this many announced changes.
    pub(crate) fn note(&mut self, began: Instant, ended: Instant, changes: u64) {
        self.in_a_storm = match changes {
            0..=STORM => LEAST,
            _ => (self.in_a_storm * 2).clamp(LEAST, IN_A_STORM),
        };
        let cost = ended.saturating_duration_since(began);
        let share = (cost * SHARE).min(ENOUGH).max(cost);
        self.gap = share.max(self.in_a_storm);
        self.ended = Some(ended);
    }

    /// Time from `now` until the keys may be read again.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        let since = self.ended.map(|it| now.saturating_duration_since(it));
        since.map_or(Duration::ZERO, |since| self.gap.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The gap after each of some readings: how long it took, and how many changes came before.
    fn gaps(readings: &[(Duration, u64)]) -> Vec<Duration> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut read = |&(cost, changes): &(Duration, u64)| {
            pace.note(now, now + cost, changes);
            now += cost;
            pace.left(now)
        };
        readings.iter().map(&mut read).collect()
    }

    #[test]
    fn the_first_reading_and_one_after_a_pause_wait_for_nothing() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.left(now), ms(0));
        pace.note(now, now, 1);
        assert_eq!(pace.left(now), ms(1));
        assert_eq!(pace.left(now + ms(1)), ms(0));
    }

    #[test]
    fn changes_one_by_one_are_a_millisecond_apart_and_storms_more_and_more() {
        assert_eq!(gaps(&[(ms(0), 1); 3]), [ms(1); 3]);
        assert_eq!(gaps(&[(ms(0), STORM); 3]), [ms(1); 3]);
        let storm = gaps(&[(ms(0), STORM + 1); 7]);
        assert_eq!(storm, [1, 2, 4, 8, 16, 25, 25].map(ms));
        let over = gaps(&[(ms(0), 100), (ms(0), 100), (ms(0), 1)]);
        assert_eq!(over, [1, 2, 1].map(ms));
    }

    #[test]
    fn expensive_readings_take_a_bounded_share_of_the_time() {
        let costs = [1, 10, 33, 50, 100, 500].map(|it| (ms(it), 1));
        assert_eq!(gaps(&costs), [3, 30, 99, 100, 100, 500].map(ms));
    }
}
