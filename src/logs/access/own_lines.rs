//! A limit for access log lines that cost a client nothing.
//!
//! A request that needs no server costs a client next to nothing, but its line takes space on disk. So
//! each listener may log a limited number of such lines a second; more are dropped, counted, and
//! reported in the error log now and then. No lock: workers share an atomic number for each listener,
//! and only for these lines.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two reports of dropped lines.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// One listener's lines for requests for which no server was tried.
#[derive(Debug)]
pub(crate) struct OwnLines {
    listen: SocketAddr,
    begun: Instant,
    /// The second (since `begun`) in the upper half, its lines so far in the lower one.
    second: AtomicU64,
    dropped: AtomicU64,
    /// The dropped ones that were reported.
    told: AtomicU64,
    /// When the next report is allowed, in milliseconds since `begun`.
    tell_from: AtomicU64,
}

impl OwnLines {
    /// Of the listener at `listen`.
    pub(crate) fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            begun: Instant::now(),
            second: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            told: AtomicU64::new(0),
            tell_from: AtomicU64::new(0),
        }
    }

    /// True when one more line is allowed at `now`, of `limit` in this second; otherwise it is counted
    /// as dropped.
    pub(crate) fn admits(&self, limit: Option<u32>, now: Instant) -> bool {
        let Some(limit) = limit else {
            return true;
        };
        let second = now.saturating_duration_since(self.begun).as_secs() << 32;
        let one_more = |at: u64| match at >> 32 << 32 {
            // A worker with an older clock value counts for the newer second.
            current if current >= second => (at & 0xffff_ffff < u64::from(limit)).then_some(at + 1),
            _ => Some(second | 1),
        };
        let order = Ordering::Relaxed;
        let admitted = self.second.fetch_update(order, order, one_more).is_ok();
        if !admitted {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// The listener's address.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Reports dropped lines in the error log, unless that was done just now. True while there is
    /// something left to report.
    pub(crate) fn tell(&self, now: Instant) -> bool {
        if let Some(lines) = self.to_tell(now) {
            let listen = self.listen;
            log::warn!("own-lines-dropped listen={listen} lines={lines}");
        }
        self.told.load(Ordering::Relaxed) < self.dropped()
    }

    /// Reports everything that is left, however little time has passed.
    pub(crate) fn tell_rest(&self) {
        self.tell(Instant::now() + TOLD_EVERY);
    }

    /// Lines to report now, which then count as reported. Only one of several workers that ask gets
    /// them.
    fn to_tell(&self, now: Instant) -> Option<u64> {
        let (dropped, told) = (self.dropped(), self.told.load(Ordering::Relaxed));
        if told >= dropped {
            return None;
        }
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.begun));
        let from = self.tell_from.load(Ordering::Relaxed);
        let next = now + millis(TOLD_EVERY);
        let order = Ordering::Relaxed;
        let is_ours = now >= from
            && self
                .tell_from
                .compare_exchange(from, next, order, order)
                .is_ok();
        is_ours.then(|| dropped.saturating_sub(self.told.swap(dropped, order)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lines() -> OwnLines {
        OwnLines::new(([127, 0, 0, 1], 80).into())
    }

    #[test]
    fn each_second_has_its_lines() {
        let lines = lines();
        for at in 0..3 {
            let now = lines.begun + at * SECOND;
            let admitted = (0..10).filter(|_| lines.admits(Some(4), now)).count();
            assert_eq!(admitted, 4, "second {at}");
        }
        assert_eq!(lines.dropped(), 18);
        // Another worker's clock value is a little older.
        assert!(!lines.admits(Some(4), lines.begun + SECOND));
        // After a reload.
        assert!(lines.admits(Some(5), lines.begun + 2 * SECOND));
        assert!(lines.admits(None, lines.begun));
    }

    #[test]
    fn workers_that_count_at_once_have_no_more_together() {
        let lines = lines();
        let now = lines.begun;
        let admitted = || (0..1000).filter(|_| lines.admits(Some(1500), now)).count();
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(admitted);
            admitted() + other.join().unwrap()
        });
        assert_eq!((both, lines.dropped()), (1500, 500));
    }

    #[test]
    fn what_was_dropped_is_told_now_and_then_and_each_line_once() {
        let lines = lines();
        let drop_some = |count| {
            for _ in 0..count {
                assert!(!lines.admits(Some(0), lines.begun));
            }
        };
        assert_eq!(lines.to_tell(lines.begun), None);
        drop_some(1);
        assert_eq!(lines.to_tell(lines.begun), Some(1));
        drop_some(500);
        assert_eq!(lines.to_tell(lines.begun + SECOND), None);
        assert!(lines.tell(lines.begun + SECOND), "there are some left");
        assert_eq!(lines.to_tell(lines.begun + TOLD_EVERY), Some(500));
        assert!(!lines.tell(lines.begun + 2 * TOLD_EVERY), "none is left");
    }
}
