//! How often an event is told that may come a thousand times a second.

use std::time::{Duration, Instant};

/// Lets an event that may come a thousand times a second be told a few times a second.
#[derive(Debug, Default)]
pub struct Throttle {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

/// So many of one kind of event are told each second.
const SAID_PER_SECOND: u32 = 10;

impl Throttle {
    /// `Some` when the event is to be told, with the number of those before it that were not.
    pub fn turn(&mut self, now: Instant) -> Option<u64> {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1))
        {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said == SAID_PER_SECOND {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }

    /// As [`Self::turn`], for an event that was not told when it happened, and so is counted already.
    pub fn late_turn(&mut self, now: Instant) -> Option<u64> {
        self.unsaid = self.unsaid.saturating_sub(1);
        self.turn(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_told_late_is_not_among_the_untold() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..SAID_PER_SECOND {
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
