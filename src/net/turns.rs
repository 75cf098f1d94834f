//! How much work a connection does before the worker's other connections have their turn.
//!
//! Work is counted in bytes moved. What takes time without moving many bytes (a wake-up with its system
//! calls, a chunk that is read and written anew) counts as the bytes that could be moved meanwhile. Work
//! is counted rather than timed, since time passes for other reasons, too.
//!
//! Long turns make bytes cheap: whoever waits for them is woken once for many of them, and waking is
//! most of what a large body costs. Short turns make others wait less. So turns are long while nobody
//! else wants anything from the worker.
//!
//! A coroutine that is woken first asks whether the round has room for its work ([`Turns::begin`]):
//! otherwise a crowd that is woken at once would make one long round, however little each of them does.

use std::cell::Cell;

use super::news;
use super::rounds::{self, SHARE};

/// The cost of a wake-up with the system calls to read and to write, in bytes that could be moved
/// meanwhile. So a connection that wakes up for every byte has four wake-ups in a turn.
const WAKE_UP: usize = 32 * 1024;

/// The cost of reading a chunk's frame and writing one.
const PIECE: usize = 512;

/// The most that is moved at once while others want something.
const SHORT_TURN: usize = 256 * 1024;

/// The most that is moved at once while nobody does.
pub(super) const LONG_TURN: usize = 1024 * 1024;

/// After this many turns in a row in which nobody wanted anything, the next one is long. One or two mean
/// little: a client may be waiting for its answer at the moment, and ask again soon.
const QUIET: u32 = 8;

thread_local! {
    /// Heads of requests, and pieces of what goes through tunnels, that have come to this worker.
    static ARRIVALS: Cell<u64> = const { Cell::new(0) };
}

/// Notes that something has arrived at the calling worker whose sender waits for an answer.
pub(crate) fn note_arrival() {
    ARRIVALS.set(ARRIVALS.get() + 1);
}

/// The turns of a connection that moves many bytes.
pub struct Turns {
    left: usize,
    arrivals: u64,
    /// Turns since the last arrival.
    quiet: u32,
    /// Work done since the last wake-up; as much is expected after the next one.
    done: usize,
    /// This much of the next work is charged to the round already.
    paid: usize,
    /// The worker's news when it was this one's turn.
    news: u64,
    /// Something was done.
    worked: bool,
}

impl Turns {
    /// Begins with a short one.
    pub fn new() -> Self {
        Self {
            left: SHARE,
            arrivals: ARRIVALS.get(),
            quiet: 0,
            done: 0,
            paid: 0,
            news: news(),
            worked: false,
        }
    }

    /// To be called after a wait, before the work: returns when the round has room for it. Without a
    /// wait since the last work, the turn just goes on.
    pub fn begin(&mut self) {
        if news() != self.news {
            let expected = std::mem::take(&mut self.done).clamp(WAKE_UP, SHARE);
            self.paid = rounds::enter(expected);
            self.news = news();
        }
    }

    /// As [`Self::begin`], but does nothing before the first work: for the beginning of an answer.
    pub(crate) fn begin_again(&mut self) {
        if self.worked {
            self.begin();
        }
    }

    /// How many bytes may be moved at once.
    pub fn most(&self) -> usize {
        match self.quiet {
            ..QUIET => SHORT_TURN,
            QUIET.. => LONG_TURN,
        }
    }

    /// Notes that bytes were moved, after a wake-up; when the turn is over, returns after the others'
    /// turns.
    pub fn moved(&mut self, count: usize) {
        self.worked(count.max(WAKE_UP));
    }

    /// Notes that a chunk was taken, whatever its size; when the turn is over, returns after the others'
    /// turns.
    pub(crate) fn took_piece(&mut self) {
        self.worked(PIECE);
    }

    fn worked(&mut self, cost: usize) {
        self.worked = true;
        self.done = self.done.saturating_add(cost);
        rounds::charge(cost.saturating_sub(self.paid));
        self.paid = self.paid.saturating_sub(cost);
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 {
            self.done = 0;
            self.paid = rounds::wait_for_turn(SHARE);
            self.news = news();
            let arrivals = ARRIVALS.get();
            self.quiet = match arrivals == self.arrivals {
                true => self.quiet.saturating_add(1),
                false => 0,
            };
            self.arrivals = arrivals;
            self.left = SHARE;
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}
