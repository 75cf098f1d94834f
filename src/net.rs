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

// `may` has no safe way to spawn; each block below says why it is sound.
#![allow(unsafe_code)]

mod clock;
mod events;
mod listener;
mod news;
mod numbers;
mod parking;
mod patience;
mod pipe;
mod places;
mod rounds;
mod stream;
mod turns;

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use may::coroutine;

pub(crate) use clock::{ensure_ticking, interrupt_idle, set_housekeeping};
pub use events::Wake;
pub use listener::{Accepted, Listener};
pub use news::news;
pub(crate) use parking::{Fate, Parking};
pub use patience::Patience;
pub(crate) use pipe::Pipe;
pub use rounds::{turns_over, yield_turn};
pub(crate) use stream::Peeked;
pub use stream::{Detached, Stream, Uptake, Watch};
pub use turns::Turns;
pub(crate) use turns::note_arrival;

/// True when the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errors = [nix::libc::EMFILE, nix::libc::ENFILE];
    error.raw_os_error().is_some_and(|it| errors.contains(&it))
}

/// A descriptor for `may`, which does not own it.
struct Descriptor(RawFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Descriptors that a worker needs for itself, at most: its pipes, and a few to wait with.
pub const DESCRIPTORS: usize = 2 * pipe::MOST + 8;

/// Virtual size of a coroutine's stack, in bytes. Only touched pages take memory; an overflow
/// ends the process, so it is generous.
pub const STACK_SIZE: usize = 256 * 1024;

/// Stacks kept for reuse when their coroutines have ended; each holds two or three touched pages.
const STACKS_KEPT: usize = 256;

static WORKERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

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
        WORKERS.store(workers, Ordering::Release);
    });
    let workers = self::workers();
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
    if WORKER.replace(Some(worker)).is_some() {
        return Ok(());
    }
    if let Ok(name) = std::ffi::CString::new(format!("worker-{worker}")) {
        // For `top -H` only.
        let _ = nix::sys::prctl::set_name(&name);
    }
    rounds::start()?;
    clock::start()
}

/// The number of workers.
pub fn workers() -> usize {
    WORKERS.load(Ordering::Acquire).max(1)
}

/// The worker that the caller runs on, from 0.
///
/// # Panics
/// When called from a thread that is not a worker.
pub fn worker() -> usize {
    match WORKER.get() {
        Some(worker) => worker,
        None => panic!("not on a worker"),
    }
}

/// Runs `task` as a coroutine of its own on `worker`. A panic in `task` ends that task only.
///
/// # Errors
/// When no stack can be had for it (memory, or the limit `vm.max_map_count`).
pub fn spawn(worker: usize, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn_joinable(worker, task).map(drop)
}

/// A coroutine that runs beside the one that started it.
pub struct Companion<T> {
    handle: coroutine::JoinHandle<()>,
    outcome: Rc<Cell<Option<T>>>,
}

impl<T> Companion<T> {
    /// True when the coroutine has ended.
    pub fn has_ended(&self) -> bool {
        self.handle.is_done()
    }

    /// Waits until the coroutine has ended; `None` after a panic in it. The only wait without a
    /// deadline of its own: the companion's waits have theirs.
    pub fn join(self) -> Option<T> {
        self.handle.wait();
        self.outcome.take()
    }
}

/// Runs `task` on the calling worker, beside the caller, which can wait for its outcome. As it
/// stays on this worker, it may hold what is the worker's own.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_beside<T: 'static>(task: impl FnOnce() -> T + 'static) -> io::Result<Companion<T>> {
    /// Something that belongs to one worker.
    struct Local<T>(T);
    // SAFETY: a coroutine is spawned onto the calling worker, which is one thread, and never
    // leaves it; where it cannot be spawned, its task is dropped here. So nothing moves between
    // threads.
    unsafe impl<T> Send for Local<T> {}

    let outcome = Rc::new(Cell::new(None));
    let local = Local((task, Rc::clone(&outcome)));
    let handle = spawn_joinable(worker(), move || {
        let Local((task, outcome)) = { local };
        outcome.set(Some(task()));
    })?;
    Ok(Companion { handle, outcome })
}

fn spawn_joinable(
    worker: usize,
    task: impl FnOnce() + Send + 'static,
) -> io::Result<coroutine::JoinHandle<()>> {
    let contained = move || {
        // The hook has reported it; what is left is to keep it inside this task.
        let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(task));
    };
    let spawned = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `may` asks that the task does not overflow its stack (a generous one, see
        // STACK_SIZE, and a guard page below it) and does not rely on thread-local state across
        // a wait: a coroutine here never leaves its worker, so thread-locals stay the same.
        unsafe { coroutine::Builder::new().id(worker).spawn(contained) }
    }));
    match spawned {
        Ok(handle) => handle,
        // A stack that cannot be mapped is a panic in `may`.
        Err(_) => Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            "no stack for a coroutine",
        )),
    }
}

/// Runs `task` once on every worker, each in a coroutine of its own, without waiting for it.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn on_each_worker(task: impl Fn(usize) + Clone + Send + 'static) -> io::Result<()> {
    for worker in 0..workers() {
        let task = task.clone();
        spawn(worker, move || task(worker))?;
    }
    Ok(())
}

/// As [`ensure_ticking`], on every worker.
pub(crate) fn ensure_all_ticking() {
    // A worker that cannot be told now notices at its next request.
    let _ = on_each_worker(|_| ensure_ticking());
}

/// Set once every wait is to end.
static CUT: AtomicBool = AtomicBool::new(false);

/// Ends every wait of every worker, now and from now on, as if its deadline had passed: whatever is
/// under way is cut off.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn cut_waits() -> io::Result<()> {
    CUT.store(true, Ordering::Release);
    on_each_worker(|_| clock::wake_all())
}

/// True once waits are cut.
pub(crate) fn are_waits_cut() -> bool {
    CUT.load(Ordering::Acquire)
}
