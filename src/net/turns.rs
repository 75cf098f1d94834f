//! How much work a connection makes before the worker's others have their turn.
//!
//! Work is counted in bytes that are moved, and what costs time without moving many of them (a wake-up
//! with its system calls, a chunk that is read and written anew) as the bytes that could be moved
//! meanwhile. It is counted and not timed, since time passes for other reasons, too.
//!
//! Long turns make bytes cheap: whoever waits for them is woken once for many of them, and waking is
//! most of what a large body costs. Short turns make others wait less. So turns are long while nobody
//! else asks anything of the worker.

use std::cell::Cell;

use super::hand_back;

/// After so many bytes the turn is over. Less than what is moved at once, so that a well filled pipe or
/// large buffer is a turn of its own.
const SHARE: usize = 128 * 1024;

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
pub fn note_arrival() {
    ARRIVALS.set(ARRIVALS.get() + 1);
}

/// The turns of a connection that moves many bytes.
pub struct Turns {
    left: usize,
    arrivals: u64,
    /// Turns since the last arrival.
    quiet: u32,
}

impl Turns {
    /// Begins with a short one.
    pub fn new() -> Self {
        Self {
            left: SHARE,
            arrivals: ARRIVALS.get(),
            quiet: 0,
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
    pub fn took_piece(&mut self) {
        self.worked(PIECE);
    }

    fn worked(&mut self, cost: usize) {
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 {
            hand_back();
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
