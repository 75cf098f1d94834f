//! A limit for events that may happen a thousand times a second.

use std::time::{Duration, Instant};

/// Lets an event that may happen a thousand times a second be logged a few times a second.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

/// How many events of one kind are logged each second.
const PER_SECOND: u32 = 10;

impl Throttle {
    /// `Some` if the event is to be logged, with the number of those before it that were suppressed.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<u64> {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1))
        {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged == PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// As [`Self::turn`], for an event that was suppressed when it happened, and so is counted already.
    pub(crate) fn late_turn(&mut self, now: Instant) -> Option<u64> {
        self.suppressed = self.suppressed.saturating_sub(1);
        self.turn(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_told_late_is_not_among_the_untold() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..PER_SECOND {
            assert_eq!(throttle.turn(now), Some(0));
        }
        assert_eq!(throttle.turn(now), None);
        assert_eq!(throttle.turn(now), None);
        assert_eq!(throttle.late_turn(now), None);
        let later = now + Duration::from_secs(1);
        assert_eq!(throttle.late_turn(later), Some(1));
        assert_eq!(throttle.turn(later), Some(0));
    }
}
