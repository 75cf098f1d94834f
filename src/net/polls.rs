//! How new a worker's knowledge of its sockets is.
//!
//! A worker asks the kernel for news (a *poll*), and `may` runs the waiters of all events in turn,
//! and then what has queued up meanwhile. So a coroutine that queues up goes on when every event of
//! the poll is known: what [`Stream::is_readable`](super::Stream::is_readable) says then is as new as
//! the poll, without a system call.
//!
//! Polls cannot be counted, since `may` does not tell of them. But the first event after the queue
//! was run comes from another poll. So what is counted here is a lower bound: two numbers that
//! differ are those of two polls, and two of one number may be.

use std::cell::Cell;

use may::coroutine;

thread_local! {
    static STATE: State = const {
        State {
            number: Cell::new(0),
            all_known: Cell::new(false),
            queued: Cell::new(0),
        }
    };
}

struct State {
    /// Of the poll whose events are dealt with.
    number: Cell<u64>,
    /// All of its events are known.
    all_known: Cell<bool>,
    /// Coroutines that wait for that.
    queued: Cell<usize>,
}

/// What the calling worker knows at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polls {
    /// The number of the last poll: it grows with time, though not with every poll.
    pub last: u64,
    /// All events of that poll are known.
    pub all_known: bool,
}

/// What the calling worker knows at this moment.
pub fn polls() -> Polls {
    STATE.with(|state| Polls {
        last: state.number.get(),
        all_known: state.all_known.get(),
    })
}

/// Waits until all events of the last poll are known: other coroutines may run meanwhile, but nobody
/// waits for the kernel.
pub fn take_in_events() {
    if STATE.with(|state| state.all_known.get()) {
        return;
    }
    STATE.with(|state| state.queued.set(state.queued.get() + 1));
    coroutine::yield_now();
    STATE.with(|state| {
        state.queued.set(state.queued.get() - 1);
        state.all_known.set(true);
    });
}

/// Sees to it that the next poll gets another number than the last one.
pub fn note_poll() {
    // Whoever is queued does it.
    if STATE.with(|state| state.queued.get() == 0) {
        take_in_events();
    }
}

/// An event has been delivered to whom it was for.
pub(super) fn delivered() {
    STATE.with(|state| {
        if state.all_known.replace(false) {
            state.number.set(state.number.get() + 1);
        }
    });
}
