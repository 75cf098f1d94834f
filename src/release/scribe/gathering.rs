//! When the history is looked at: once nothing has come for a moment, so that what a script pushes entry by
//! entry is one change; and where lists are rewritten all the time, not so often that verbs are lost among
//! what is changed by hand. Time is a parameter.

use std::time::{Duration, Instant};

/// Nothing has come for so long.
const QUIET: Duration = Duration::from_secs(2);

/// Whatever comes, it is not waited for longer.
const MOST: Duration = Duration::from_secs(10);

/// So many changes by hand are noted as they come; then one in each of these times.
const AT_ONCE: u32 = 10;
const EACH: Duration = Duration::from_secs(60);

/// What has come of one service.
#[derive(Debug)]
pub(super) struct Gathering {
    /// The first and the last that have come since the history was looked at.
    came: Option<(Instant, Instant)>,
    /// By how much it is looked at later than it could be.
    spread: Duration,
    /// Not before this.
    not_before: Instant,
    /// When all changes by hand that were noted have had their time: the moment of the last one, or later.
    paid: Instant,
}

impl Gathering {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            came: None,
            spread: Duration::ZERO,
            not_before: now,
            paid: now,
        }
    }

    /// Something has come; if it is the first, it is looked at later by this `spread`.
    pub(super) fn add(&mut self, now: Instant, spread: Duration) {
        let first = self.came.map_or(now, |it| it.0);
        if self.came.is_none() {
            self.spread = spread;
        }
        self.came = Some((first, now));
    }

    /// When to look at the history; none where nothing has come.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.came?;
        let at = (last + QUIET).min(first + MOST) + self.spread;
        let in_turn = self.paid.checked_sub(EACH * (AT_ONCE - 1));
        Some(at.max(self.not_before).max(in_turn.unwrap_or(at)))
    }

    /// It is not looked at before this time.
    pub(super) fn wait(&mut self, until: Instant) {
        self.not_before = until;
    }

    /// It was looked at: something `is_new` in it. More has come meanwhile, if `is_more`.
    pub(super) fn done(&mut self, now: Instant, is_new: bool, is_more: bool) {
        if is_new {
            self.paid = self.paid.max(now) + EACH;
        }
        self.came = is_more.then_some((now, now));
        self.not_before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_without_a_pause_is_one_change_and_not_waited_for_without_end() {
        let begun = Instant::now();
        let mut it = Gathering::new(begun);
        assert_eq!(it.due(), None);
        it.add(begun, SECOND);
        assert_eq!(it.due(), Some(begun + QUIET + SECOND));
        it.add(begun + SECOND, Duration::ZERO);
        assert_eq!(it.due(), Some(begun + 2 * SECOND + QUIET));
        for second in 2..60 {
            it.add(begun + SECOND * second, Duration::ZERO);
        }
        assert_eq!(it.due(), Some(begun + MOST + SECOND));
        it.done(begun + MOST + SECOND, false, false);
        assert_eq!(it.due(), None);
    }

    #[test]
    fn some_changes_are_noted_as_they_come_and_then_one_a_minute() {
        let begun = Instant::now();
        let mut it = Gathering::new(begun);
        let mut now = begun;
        let mut noted = Vec::new();
        for _ in 0..20 {
            it.add(now, Duration::ZERO);
            now = it.due().unwrap();
            it.done(now, true, false);
            noted.push(now - begun);
        }
        assert_eq!(noted[AT_ONCE as usize - 1], QUIET * AT_ONCE);
        let pauses: Vec<_> = noted[12..].windows(2).map(|it| it[1] - it[0]).collect();
        assert!(pauses.iter().all(|it| *it == EACH), "{pauses:?}");
        // After a while they come at once again.
        now += EACH * AT_ONCE;
        it.add(now, Duration::ZERO);
        assert_eq!(it.due(), Some(now + QUIET));
    }

    #[test]
    fn a_pause_after_an_attempt_is_kept() {
        let begun = Instant::now();
        let mut it = Gathering::new(begun);
        it.add(begun, Duration::ZERO);
        it.wait(begun + MOST);
        assert_eq!(it.due(), Some(begun + MOST));
        it.done(begun + MOST, true, true);
        assert_eq!(it.due(), Some(begun + MOST + QUIET));
    }
}
