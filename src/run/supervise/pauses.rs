//! How long to wait before a gateway that has died is started again.

use std::time::{Duration, Instant};

/// After the second death; each one doubles it.
const FIRST: Duration = Duration::from_millis(100);

const LONGEST: Duration = Duration::from_secs(10);

/// Who has served for so long has not died of its start.
const PROVEN: Duration = Duration::from_secs(60);

/// The pauses between deaths: none the first time.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The pause for one that has died at `now`, and has served since `serving`, if it has.
    pub(super) fn after(&mut self, serving: Option<Instant>, now: Instant) -> Duration {
        if serving.is_some_and(|it| now.saturating_duration_since(it) >= PROVEN) {
            self.next = Duration::ZERO;
        }
        let pause = self.next;
        self.next = (pause * 2).clamp(FIRST, LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_then_pauses_grow() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        let mut pause = || pauses.after(None, now).as_millis();
        let first: Vec<u128> = (0..10).map(|_| pause()).collect();
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(first, expected);
    }

    #[test]
    fn who_has_served_for_a_minute_is_restarted_at_once() {
        let (mut pauses, begun) = (Pauses::default(), Instant::now());
        for _ in 0..5 {
            pauses.after(Some(begun), begun);
        }
        let short = begun + PROVEN - Duration::from_millis(1);
        assert!(pauses.after(Some(begun), short) > Duration::ZERO);
        assert_eq!(pauses.after(Some(begun), begun + PROVEN), Duration::ZERO);
        assert_eq!(pauses.after(None, begun + PROVEN), FIRST);
    }
}
