//! Whether a worker has heard anything since: how many events it has delivered so far.
//!
//! A worker learns what has happened on its sockets when it polls, and delivers each event to the
//! coroutine that waits for it. While that number stands still, the coroutine that asks has not waited
//! for anything, and no other has heard anything either.

use std::cell::Cell;

thread_local! {
    static DELIVERED: Cell<u64> = const { Cell::new(0) };
}

/// Events that the calling worker has delivered so far.
pub fn news() -> u64 {
    DELIVERED.with(Cell::get)
}

/// An event has been delivered to whom it was for.
pub(super) fn delivered() {
    DELIVERED.with(|delivered| delivered.set(delivered.get() + 1));
}
