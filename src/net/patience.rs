//! How long the other side may keep a coroutine waiting.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// If more bytes than this are [announced](Patience::expects), the rate applies.
const MUCH: u64 = 64 * 1024;

/// If no more are announced, a side may be this many times slower,
const TOLERANCE: u64 = 100;

/// and its credit is this many times the budget.
const CREDIT: u32 = 20;

/// How long the other side of a stream may keep us waiting, in one direction of one message.
///
/// A budget of time, which waiting uses up and progress restores: in full with each byte, or, where a
/// rate is required, one second for each `rate` bytes. So silence ends it after the whole budget, and so
/// does a drip that stays below the rate.
///
/// The rate is required of a side that has much to send and sends it slowly, since that holds a connection
/// for hours and costs the sender nothing. It is not required of a side that may have nothing more to send at
/// present: one that sends a small message, or a stream of events in chunks. Such a side may be silent for
/// the budget after each byte; but so that it cannot go on for ever byte by byte, there is a second, longer
/// account, with a hundredth of the rate and twenty times the budget.
#[derive(Debug)]
pub struct Patience {
    budget: Duration,
    /// Bytes a second.
    rate: Option<NonZeroU64>,
    /// How much of the budget is used up.
    used: Cell<Duration>,
    /// How much of the longer account is.
    credit_used: Cell<Duration>,
    /// Much is announced.
    much: Cell<bool>,
    /// Bytes that were counted as taken; writing into the room they left must not count again.
    taken: Cell<usize>,
    /// Bytes that came from the same side in the other direction, not yet counted.
    heard: Option<Rc<Cell<usize>>>,
    /// The end of all patience, whatever comes until then.
    end: Cell<Option<Instant>>,
}

impl Patience {
    /// For a side that may be silent for `budget`.
    pub fn new(budget: Duration) -> Self {
        Self::with_rate(budget, None)
    }

    /// For a side that may be silent for `budget`, and must reach `rate` bytes a second on average while
    /// we wait for it.
    pub(crate) fn with_rate(budget: Duration, rate: Option<NonZeroU64>) -> Self {
        Self {
            budget,
            rate,
            used: Cell::new(Duration::ZERO),
            credit_used: Cell::new(Duration::ZERO),
            much: Cell::new(true),
            taken: Cell::new(0),
            heard: None,
            end: Cell::new(None),
        }
    }

    /// Sets the end of all patience, whatever comes until then; or takes it back.
    pub(crate) fn ends_at(&self, end: Option<Instant>) {
        self.end.set(end);
    }

    /// True once that has come.
    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.end.get().is_some_and(|end| now >= end)
    }

    /// The same, but bytes that come in the other direction meanwhile count as progress, too: a side
    /// that is still sending is alive, and may not read anything before it has sent everything.
    pub(crate) fn hearing(self, heard: Option<Rc<Cell<usize>>>) -> Self {
        Self { heard, ..self }
    }

    /// Counts what has come in the other direction; false if nothing has.
    pub(super) fn has_heard(&self) -> bool {
        let heard = self.heard.as_ref().map_or(0, |it| it.take());
        self.gain(heard);
        heard > 0
    }

    /// Notes how many bytes the other side has announced and not sent yet. Before the first call, many
    /// are assumed.
    pub(crate) fn expects(&self, announced: u64) {
        self.much.set(announced > MUCH);
    }

    /// When a wait that begins `now` has to end.
    pub fn deadline(&self, now: Instant) -> Instant {
        let left = self.budget.saturating_sub(self.used.get());
        let credit_left = self.credit().saturating_sub(self.credit_used.get());
        let silence = now + left.min(credit_left);
        self.end.get().map_or(silence, |end| end.min(silence))
    }

    /// Notes a wait that has ended.
    pub(crate) fn waited_since(&self, begun: Instant) {
        if self.rate.is_some() {
            self.waited(begun.elapsed());
        }
    }

    fn waited(&self, time: Duration) {
        let used = self.used.get().saturating_add(time);
        self.used.set(used.min(self.budget));
        let credit_used = self.credit_used.get().saturating_add(time);
        self.credit_used.set(credit_used.min(self.credit()));
    }

    /// The longer account, when nothing of it is used up.
    fn credit(&self) -> Duration {
        self.budget.saturating_mul(CREDIT)
    }

    /// Notes that the other side has taken this much of what was written before.
    pub(crate) fn taken(&self, bytes: usize) {
        self.gain(bytes);
        self.taken.set(self.taken.get() + bytes);
    }

    /// Notes progress, except for bytes that only fill the room made by what was taken.
    pub fn moved(&self, bytes: usize) {
        let counted = self.taken.get().min(bytes);
        self.taken.set(self.taken.get() - counted);
        self.gain(bytes - counted);
    }

    fn gain(&self, bytes: usize) {
        let Some(rate) = self.rate.filter(|_| bytes > 0) else {
            return;
        };
        // Mostly nothing was waited for, and there is nothing to restore.
        if !self.credit_used.get().is_zero() || !self.used.get().is_zero() {
            self.restore(bytes, rate);
        }
    }

    #[cold]
    fn restore(&self, bytes: usize, rate: NonZeroU64) {
        let second = u64::saturating_mul(bytes as u64, 1_000_000_000);
        let gain = |used: &Cell<Duration>, nanos: u64| {
            used.set(used.get().saturating_sub(Duration::from_nanos(nanos)));
        };
        match self.much.get() {
            true => gain(&self.used, second / rate),
            false => self.used.set(Duration::ZERO),
        }
        gain(&self.credit_used, second.saturating_mul(TOLERANCE) / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits a second for `bytes`, again and again: which wait is cut?
    fn drips(rate: Option<u64>, bytes: usize) -> usize {
        sends(rate, u64::MAX, 1, bytes)
    }

    /// Waits so many seconds for `bytes`, again and again, while so many are announced: after how many
    /// seconds is it cut? Not within a day is never.
    fn sends(rate: Option<u64>, announced: u64, seconds: u32, bytes: usize) -> usize {
        let rate = rate.and_then(NonZeroU64::new);
        let patience = Patience::with_rate(10 * SECOND, rate);
        let (now, pause) = (Instant::now(), seconds * SECOND);
        let mut waits = 0..24 * 60 * 60 / seconds as usize;
        let is_cut = |_: &usize| {
            patience.expects(announced);
            let is_cut = patience.deadline(now) < now + pause;
            patience.waited(pause);
            patience.moved(bytes);
            is_cut
        };
        let cut = waits.find(is_cut);
        cut.map_or(usize::MAX, |it| (it + 1) * seconds as usize)
    }

    #[test]
    fn a_trickle_is_cut_only_where_much_is_announced_and_a_drip_everywhere_in_the_end() {
        const NEVER: usize = usize::MAX;
        let (much, little, unknown) = (MUCH + 1, MUCH, 0);
        // At 500 bytes a second, with 10 s: what is announced, so many bytes each so many seconds, and when
        // that is cut.
        let table = [
            (much, 1, 500, NEVER),
            (much, 1, 20, 11),
            (much, 5, 1000, 15),
            (little, 1, 500, NEVER),
            (little, 1, 20, NEVER),
            (unknown, 1, 20, NEVER),
            // Events that are few and far between.
            (unknown, 9, 45, NEVER),
            (unknown, 9, 200, NEVER),
            // Below a hundredth of the rate, the longer account is used up,
            (unknown, 1, 4, 997),
            (unknown, 1, 1, 250),
            (little, 1, 1, 250),
            // for which a byte now and then is a slow loris.
            (unknown, 9, 1, 207),
            (little, 9, 1, 207),
            // Silence is silence.
            (little, 11, 1000, 11),
            (unknown, 11, 1000, 11),
            (little, 1, 0, 11),
        ];
        for (announced, seconds, bytes, cut) in table {
            let got = sends(Some(500), announced, seconds, bytes);
            assert_eq!(got, cut, "{announced}: {bytes} each {seconds} s");
        }
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
    fn the_end_of_all_patience_is_the_end_whatever_has_come() {
        let patience = Patience::new(SECOND);
        let now = Instant::now();
        patience.ends_at(Some(now + 3 * SECOND));
        assert_eq!(patience.deadline(now), now + SECOND);
        patience.moved(1 << 30);
        let late = now + SECOND * 5 / 2;
        assert_eq!(patience.deadline(late), now + 3 * SECOND);
        assert!(!patience.has_ended(late) && patience.has_ended(now + 3 * SECOND));
        patience.ends_at(None);
        assert_eq!(patience.deadline(late), late + SECOND);
    }

    #[test]
    fn without_a_rate_each_wait_has_the_whole_budget() {
        let patience = Patience::new(SECOND);
        let begun = Instant::now();
        patience.waited_since(begun - SECOND);
        assert_eq!(patience.deadline(begun), begun + SECOND);
    }
}
