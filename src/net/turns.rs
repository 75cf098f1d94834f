//! How much work a connection makes before the worker's others have their turn.
//!
//! Work is counted in bytes that are moved, and what costs time without moving many of them (a wake-up
//! with its system calls, a chunk that is read and written anew) as the bytes that could be moved
//! meanwhile. It is counted and not timed, since time passes for other reasons, too.
//!
//! Long turns make bytes cheap: whoever waits for them is woken once for many of them, and waking is
//! most of what a large body costs. Short turns make others wait less. So turns are long while nobody
//! else asks anything of the worker.
//!
//! Whoever is woken asks first whether the round has room for its work ([`Turns::begin`]): a crowd that is
//! woken at once would otherwise be one long round, whatever little each of them does.

use std::cell::Cell;

use super::news;
use super::rounds::{self, SHARE};

/// What a wake-up costs, with the system calls to read and to write: as much as to move so many bytes. So
/// whoever wakes for each byte has four wake-ups in a turn.
const WAKE_UP: usize = 32 * 1024;

/// What it costs to read a chunk's frame and to write one.
const PIECE: usize = 512;

/// Moved at once, at most, while others ask for something.
const SHORT_TURN: usize = 256 * 1024;

/// Moved at once, at most, while nobody does.
pub(super) const LONG_TURN: usize = 1024 * 1024;

/// So many turns in a row in which nobody has asked for anything make the next one long. One or two say
/// little: whoever has asked may wait for an answer just now, and asks again soon.
const QUIET: u32 = 8;

thread_local! {
    /// Heads of requests, and pieces of what goes through tunnels, that have come to this worker.
    static ARRIVALS: Cell<u64> = const { Cell::new(0) };
}

/// Notes that something has come to the calling worker that somebody waits for.
pub(crate) fn note_arrival() {
    ARRIVALS.set(ARRIVALS.get() + 1);
}

/// The turns of a connection that moves many bytes.
pub struct Turns {
    left: usize,
    arrivals: u64,
    /// Turns since the last arrival.
    quiet: u32,
    /// What was done since the last wake-up: so much, it is expected, follows the next one.
    done: usize,
    /// Of what is done next, so much is on the round's account already.
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

    /// To be called after a wait, before the work: returns when the round has room for it. Who has not
    /// waited since its last work goes on with its turn.
    pub fn begin(&mut self) {
        if news() != self.news {
            let expected = std::mem::take(&mut self.done).clamp(WAKE_UP, SHARE);
            self.paid = rounds::enter(expected);
            self.news = news();
        }
    }

    /// As [`Self::begin`], but the first time nobody is asked: for the beginning of an answer.
    pub(crate) fn begin_again(&mut self) {
        if self.worked {
            self.begin();
        }
    }

    /// So many bytes may be moved at once.
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
