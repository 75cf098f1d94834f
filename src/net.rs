//! The workers: N threads that serve sockets in a straight, blocking style.
//!
//! This file and its parts under `net/` are the only ones that name `may`. A *worker* is one of
//! `may`'s threads with its own epoll set; what runs on it are stackful coroutines, so that code
//! reads like blocking code and a wait costs a switch instead of a thread. Offered: [`start`],
//! [`spawn`], [`Listener`], [`Stream`], `Pipe`, deadlines ([`Patience`]), turns ([`Turns`],
//! [`yield_turn`]), `Parking` and `on_each_worker`; nothing of `may` leaks out.
//!
//! Invariants, which the rest of the data plane relies on:
//!
//! - **A coroutine never leaves its worker.** `may` delivers a socket's events at the worker `fd %
//!   workers`, and resumes there. So every socket is given a descriptor number that belongs to the
//!   worker that uses it (`net/numbers.rs`), coroutines are spawned onto a named worker, and none is
//!   ever woken from another thread. So what is worker-local needs no lock (`Rc`, `RefCell`,
//!   thread-locals), and a waiter cannot be resumed while it is still being parked.
//! - **No borrow of worker-local state is held across a wait**: other coroutines of the worker
//!   run meanwhile.
//! - **Every wait has a deadline** except a listener's and `Companion::join`, and is cut by the
//!   worker's clock (`net/clock.rs`) at most 25 ms late.
//! - **A crowd waits for itself**: a coroutine that has had its turn, or wakes with more to do, queues
//!   up, and each round (`net/rounds.rs`) lets a few of the queue go on, so that nobody has to wait for
//!   a turn of each.
//! - **Wait before read**: after a read that did not fill its buffer the socket is empty, so the next
//!   read waits for an event first instead of asking the kernel in vain (epoll(7), edge-triggered).
//!
//! Not here: HTTP, limits, accounting.

// `may` has no safe way to spawn, nor is there one to give descriptors their numbers; each block in
// these files says why it is sound.
#![allow(unsafe_code)]

mod clock;
mod coroutines;
mod events;
mod listener;
mod moment;
mod news;
mod numbers;
mod parking;
mod patience;
mod pipe;
mod places;
mod rounds;
mod stream;
mod turns;

use std::io;
use std::sync::Once;
use std::time::Duration;

pub(crate) use clock::{
    are_waits_cut, cut_waits, ensure_all_ticking, ensure_ticking, interrupt_idle, set_housekeeping,
};
pub use coroutines::{Companion, spawn, spawn_beside};
pub(crate) use coroutines::{is_spawning, on_each_worker};
pub(crate) use coroutines::{worker, workers};
pub use events::Wake;
pub(crate) use listener::SharedPort;
pub use listener::{Accepted, Admission, Listener};
pub use moment::Moment;
pub use news::news;
pub(crate) use parking::{Fate, Parking};
pub use patience::Patience;
pub(crate) use pipe::Pipe;
pub use rounds::{turns_over, yield_turn};
pub(crate) use stream::Grip;
pub(crate) use stream::Peeked;
pub(crate) use stream::Uptake;
pub use stream::{Detached, Stream, Watch};
pub use turns::Turns;
pub(crate) use turns::note_arrival;

/// True when the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errors = [nix::libc::EMFILE, nix::libc::ENFILE];
    error.raw_os_error().is_some_and(|it| errors.contains(&it))
}

/// Descriptors that a worker needs for itself, at most: its pipes, and a few to wait with.
pub(crate) const DESCRIPTORS: usize = 2 * pipe::MOST + 8;

/// Virtual size of a coroutine's stack, in bytes. Only touched pages take memory; an overflow
/// ends the process, so it is generous.
pub const STACK_SIZE: usize = 256 * 1024;

/// Stacks kept for reuse when their coroutines have ended; each holds two or three touched pages.
const STACKS_KEPT: usize = 256;

/// Starts `workers` workers, for the life of the process, and returns how many there are. A second call
/// changes nothing.
///
/// # Errors
/// When a worker's clock cannot be made (out of descriptors or memory).
pub fn start(workers: usize) -> io::Result<usize> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        may::config()
            .set_workers(workers)
            .set_pool_capacity(STACKS_KEPT)
            // `may` counts stacks in words.
            .set_stack_size(STACK_SIZE / size_of::<usize>())
            // The kernel places threads better than a fixed map when others share the machine.
            .set_worker_pin(false);
        coroutines::set_workers(workers);
    });
    let workers = coroutines::workers();
    let (started, outcome) = crossbeam_channel::bounded(workers);
    on_each_worker(move |worker| {
        let _ = started.send(set_up_worker(worker));
    })?;
    // The senders live in the closures, so a worker that never runs its own ends the wait with an error.
    for _ in 0..workers {
        outcome
            .recv_timeout(Duration::from_secs(5))
            .map_err(|_| io::Error::other("a worker did not start"))??;
    }
    Ok(workers)
}

fn set_up_worker(worker: usize) -> io::Result<()> {
    if !coroutines::become_worker(worker) {
        return Ok(());
    }
    if let Ok(name) = std::ffi::CString::new(format!("worker-{worker}")) {
        // For `top -H` only.
        let _ = nix::sys::prctl::set_name(&name);
    }
    rounds::start()?;
    clock::start()
}
