//! Which worker this is, how many there are, and coroutines on them.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use may::coroutine;

static WORKERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
    static SPAWNS: Cell<bool> = const { Cell::new(false) };
}

/// Sets the number of workers, before there is one.
pub(super) fn set_workers(workers: usize) {
    WORKERS.store(workers, Ordering::Release);
}

/// Makes the calling thread this worker; false if it is one already.
pub(super) fn become_worker(worker: usize) -> bool {
    WORKER.replace(Some(worker)).is_none()
}

/// The number of workers.
pub(crate) fn workers() -> usize {
    WORKERS.load(Ordering::Acquire).max(1)
}

/// The worker that the caller runs on, from 0.
///
/// # Panics
/// When called from a thread that is not a worker.
pub(crate) fn worker() -> usize {
    match WORKER.get() {
        Some(worker) => worker,
        None => panic!("not on a worker"),
    }
}

/// True while the calling thread starts a coroutine: a panic is an [error of `spawn`](spawn) then.
pub(crate) fn is_spawning() -> bool {
    SPAWNS.get()
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
    pub(crate) fn has_ended(&self) -> bool {
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
    SPAWNS.set(true);
    let spawned = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `may` asks that the task does not overflow its stack (a generous one, see
        // `STACK_SIZE`, and a guard page below it) and does not rely on thread-local state across
        // a wait: a coroutine here never leaves its worker, so thread-locals stay the same.
        unsafe { coroutine::Builder::new().id(worker).spawn(contained) }
    }));
    SPAWNS.set(false);
    match spawned {
        Ok(handle) => handle,
        // A stack that cannot be mapped is a panic in `may`.
        Err(_) => Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            "no stack for a coroutine: no memory, or vm.max_map_count areas are in use",
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
