//! How many events a worker has delivered so far: tells whether anything has happened since an earlier
//! look.
//!
//! A worker learns what has happened on its sockets when it polls, and delivers each event to the
//! coroutine that waits for it. While the number stays the same, the coroutine that looks has not waited
//! for anything, and no other one was told of anything.

use std::cell::Cell;

thread_local! {
    static DELIVERED: Cell<u64> = const { Cell::new(0) };
}

/// Events that the calling worker has delivered so far.
pub fn news() -> u64 {
    DELIVERED.with(Cell::get)
}

/// Counts an event that was delivered.
pub(super) fn delivered() {
    DELIVERED.with(|delivered| delivered.set(delivered.get() + 1));
}
