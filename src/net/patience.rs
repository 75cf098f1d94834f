//! How long the other side may keep a coroutine waiting.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// How long the other side of a stream may keep us waiting, in one direction of one message.
///
/// A budget of time, which waiting uses up and progress gives back: in full with each byte, or,
/// where a rate is asked for, one second for so many bytes. So silence ends it after the whole
/// budget, and so does a drip that stays below the rate.
#[derive(Debug)]
pub struct Patience {
    budget: Duration,
    /// Bytes a second.
    rate: Option<NonZeroU64>,
    left: Cell<Duration>,
    /// Bytes that were counted before the room that they have made was used.
    taken: Cell<usize>,
}

impl Patience {
    /// For a side that may be silent for `budget`.
    pub fn new(budget: Duration) -> Self {
        Self::with_rate(budget, None)
    }

    /// For a side that may be silent for `budget`, and must reach `rate` bytes a second on average
    /// while it is waited for.
    pub fn with_rate(budget: Duration, rate: Option<NonZeroU64>) -> Self {
        Self {
            budget,
            rate,
            left: Cell::new(budget),
            taken: Cell::new(0),
        }
    }

    /// When a wait that begins `now` has to end.
    pub fn deadline(&self, now: Instant) -> Instant {
        now + self.left.get()
    }

    /// Notes a wait that has ended.
    pub fn waited_since(&self, begun: Instant) {
        if self.rate.is_some() {
            self.waited(begun.elapsed());
        }
    }

    fn waited(&self, time: Duration) {
        self.left.set(self.left.get().saturating_sub(time));
    }

    /// Notes that the other side has taken so much of what was moved before.
    pub fn taken(&self, bytes: usize) {
        self.gain(bytes);
        self.taken.set(self.taken.get() + bytes);
    }

    /// Notes progress, unless it is room that was made by what was [taken](Self::taken).
    pub fn moved(&self, bytes: usize) {
        let counted = self.taken.get().min(bytes);
        self.taken.set(self.taken.get() - counted);
        self.gain(bytes - counted);
    }

    fn gain(&self, bytes: usize) {
        if let Some(rate) = self.rate {
            let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate;
            let gained = self.left.get() + Duration::from_nanos(nanos);
            self.left.set(gained.min(self.budget));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits a second for `bytes`, again and again: which wait is cut?
    fn drips(rate: Option<u64>, bytes: usize) -> usize {
        let rate = rate.and_then(NonZeroU64::new);
        let patience = Patience::with_rate(10 * SECOND, rate);
        let now = Instant::now();
        let mut waits = 0..1000;
        let is_cut = |_: &usize| {
            let is_cut = patience.deadline(now) < now + SECOND;
            patience.waited(SECOND);
            patience.moved(bytes);
            is_cut
        };
        waits.find(is_cut).map_or(usize::MAX, |it| it + 1)
    }

    #[test]
    fn silence_and_a_drip_below_the_rate_use_up_the_budget() {
        assert_eq!(drips(Some(500), 0), 11);
        assert_eq!(drips(Some(500), 1), 11);
        assert_eq!(drips(Some(500), 250), 20);
        assert_eq!(drips(Some(500), 500), usize::MAX);
        assert_eq!(drips(Some(1 << 30), 1 << 30), usize::MAX);
    }

    #[test]
    fn what_came_fast_is_no_credit_for_later() {
        let patience = Patience::with_rate(10 * SECOND, NonZeroU64::new(500));
        patience.moved(1 << 30);
        let now = Instant::now();
        assert_eq!(patience.deadline(now), now + 10 * SECOND);
    }

    #[test]
    fn what_was_taken_counts_once() {
        let patience = Patience::with_rate(10 * SECOND, NonZeroU64::new(500));
        let now = Instant::now();
        patience.waited(10 * SECOND);
        patience.taken(1000);
        assert_eq!(patience.deadline(now), now + 2 * SECOND);
        patience.moved(1500);
        assert_eq!(patience.deadline(now), now + 3 * SECOND);
        patience.moved(500);
        assert_eq!(patience.deadline(now), now + 4 * SECOND);
    }

    #[test]
    fn without_a_rate_each_wait_has_the_whole_budget() {
        let patience = Patience::new(SECOND);
        let begun = Instant::now();
        patience.waited_since(begun - SECOND);
        assert_eq!(patience.deadline(begun), begun + SECOND);
    }
}
