//! How many connections to a peer are in use at once, now and lately: that many are worth keeping.
//!
//! They are counted by guards, so that none is forgotten however its request ends. Everything here belongs
//! to one worker.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::net::Moment;

/// How many connections of one worker to one peer are in use, beside what else the worker has of that peer.
#[derive(Debug)]
pub(super) struct Usage<T> {
    /// What the guards lead to without a search for the peer.
    pub(super) of: T,
    /// Connections in use that any request may use next.
    now: Cell<usize>,
    /// The most at once since the last look.
    most: Cell<usize>,
    /// Descriptors of the worker that connections to all peers take, whatever they are in use for.
    of_worker: Rc<Cell<usize>>,
}

impl<T> Usage<T> {
    pub(super) fn new(of_worker: &Rc<Cell<usize>>, of: T) -> Rc<Self> {
        Rc::new(Self {
            of,
            now: Cell::new(0),
            most: Cell::new(0),
            of_worker: Rc::clone(of_worker),
        })
    }

    pub(super) fn now(&self) -> usize {
        self.now.get()
    }

    /// The most at once since the last look.
    pub(super) fn most(&self) -> usize {
        self.most.get()
    }

    /// As [`Self::most`], and starts again.
    fn take_most(&self) -> usize {
        self.most.replace(self.now.get())
    }
}

/// Counts a connection that is in use, or is being made, for as long as this lives.
#[derive(Debug)]
pub(super) struct Guard<T> {
    usage: Rc<Usage<T>>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It goes back to the pool.
    Shared,
    /// It belongs to one client, and never goes back to the pool.
    Pinned,
    /// A tunnel.
    Tunnel,
}

impl Kind {
    /// The descriptors it takes, besides the client's one. Each end of a tunnel has two.
    fn descriptors(self) -> usize {
        match self {
            Self::Shared | Self::Pinned => 1,
            Self::Tunnel => 3,
        }
    }
}

impl<T> Guard<T> {
    pub(super) fn begin(usage: &Rc<Usage<T>>) -> Self {
        let now = usage.now.get() + 1;
        usage.now.set(now);
        usage.most.set(usage.most.get().max(now));
        let guard = Self {
            usage: Rc::clone(usage),
            kind: Kind::Shared,
        };
        guard.add(guard.kind.descriptors());
        guard
    }

    /// Ends, and returns what was counted.
    pub(super) fn into_usage(self) -> Rc<Usage<T>> {
        Rc::clone(&self.usage)
    }

    /// From now on it belongs to one client.
    pub(super) fn pin(&mut self) {
        self.become_kind(Kind::Pinned);
    }

    /// From now on it is a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        self.become_kind(Kind::Tunnel);
    }

    /// From now on it does not count among those worth keeping.
    fn become_kind(&mut self, kind: Kind) {
        self.end();
        self.kind = kind;
        self.add(kind.descriptors());
    }

    fn add(&self, descriptors: usize) {
        let of_worker = &self.usage.of_worker;
        of_worker.set(of_worker.get() + descriptors);
    }

    fn end(&self) {
        let Usage { now, of_worker, .. } = &*self.usage;
        if self.kind == Kind::Shared {
            now.set(now.get() - 1);
        }
        of_worker.set(of_worker.get() - self.kind.descriptors());
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The time for which a connection is kept is this many windows.
const PARTS: u32 = 8;

/// Windows that are remembered, including the current one. The rest of the time is for letting the surplus
/// go gradually.
const WINDOWS: usize = 7;

/// The most connections that were in use at once, lately.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// The most in each window, the current one first.
    most: [usize; WINDOWS],
    /// The most of all.
    most_of_all: usize,
    /// When the current window began.
    began: Option<Moment>,
}

impl Peaks {
    /// Notes the most since the last look. `age` is how long a connection is kept at most.
    pub(super) fn look<T>(&mut self, usage: &Usage<T>, now: Moment, age: Duration) {
        let window = age / PARTS;
        let mut began = self.began.unwrap_or(now);
        for _ in 0..WINDOWS {
            if now.since(began) < window {
                break;
            }
            self.most.rotate_right(1);
            self.most[0] = 0;
            began = began + window;
        }
        // After a long time without looks, all windows are over.
        let is_behind = now.since(began) >= window;
        self.began = Some(if is_behind { now } else { began });
        self.most[0] = self.most[0].max(usage.take_most());
        self.most_of_all = self.most.into_iter().fold(0, usize::max);
    }

    /// The most until the last look.
    pub(super) fn most(&self) -> usize {
        self.most_of_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Rc<Usage<()>> {
        Usage::new(&Rc::default(), ())
    }

    #[test]
    fn guards_count_what_is_in_use_and_the_most_at_once() {
        let (of_worker, mut guards) = (Rc::default(), Vec::new());
        let usage = Usage::new(&of_worker, ());
        for count in 1..=3 {
            guards.push(Guard::begin(&usage));
            assert_eq!(
                (usage.now(), usage.most(), of_worker.get()),
                (count, count, count)
            );
        }
        guards.pop();
        drop(Guard::begin(&usage));
        assert_eq!((usage.now(), usage.most(), of_worker.get()), (2, 3, 2));
        assert_eq!(usage.take_most(), 3);
        assert_eq!(usage.most(), 2);
        drop(guards);
        assert_eq!((usage.now(), of_worker.get()), (0, 0));
    }

    #[test]
    fn what_will_not_be_kept_takes_descriptors_only() {
        let of_worker = Rc::default();
        let usage = Usage::new(&of_worker, ());
        let mut one = Guard::begin(&usage);
        one.pin();
        assert_eq!((usage.now(), of_worker.get()), (0, 1));
        let mut other = Guard::begin(&usage);
        other.become_tunnel();
        assert_eq!((usage.now(), of_worker.get()), (0, 4));
        one.become_tunnel();
        assert_eq!(of_worker.get(), 6);
        drop((one, other));
        assert_eq!((usage.now(), of_worker.get()), (0, 0));
    }

    #[test]
    fn a_peak_is_remembered_for_nearly_as_long_as_a_connection_is_kept() {
        let (age, start) = (Duration::from_secs(40), Moment::now());
        for second in 0..10 {
            let (mut peaks, usage) = (Peaks::default(), usage());
            let mut forgotten = None;
            for passed in 0..100 {
                if passed == second {
                    let crowd = [(); 7].map(|()| Guard::begin(&usage));
                    drop(crowd);
                }
                peaks.look(&usage, start + Duration::from_secs(passed), age);
                if passed > second && peaks.most() < 7 {
                    forgotten.get_or_insert(passed - second);
                }
            }
            let forgotten = forgotten.unwrap();
            assert!((30..=35).contains(&forgotten), "{forgotten}");
        }
    }

    #[test]
    fn after_a_time_without_looks_only_what_was_since_counts() {
        let (mut peaks, usage) = (Peaks::default(), usage());
        let (age, start) = (Duration::from_secs(40), Moment::now());
        let crowd = [(); 7].map(|()| Guard::begin(&usage));
        peaks.look(&usage, start, age);
        drop(crowd);
        peaks.look(&usage, start, age);
        assert_eq!(peaks.most(), 7);
        drop([Guard::begin(&usage), Guard::begin(&usage)]);
        peaks.look(&usage, start + Duration::from_secs(3600), age);
        assert_eq!(peaks.most(), 2);
    }
}
