//! Long-running work, kept out of the way of requests.
//!
//! A list of a million entries takes some hundred milliseconds of work, during which a worker with a
//! request might have to wait for a CPU. So it is done by a thread of lower priority than all others of
//! the process. On a busy machine it gets at least a tenth of the usual share: it is slower, but it does
//! get done, which the idle class would not guarantee.

use std::io;
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

use crate::memory::advice;

/// Lists with at least this many entries are heavy. Shorter ones take a few milliseconds, and their
/// changes are urgent.
pub(super) const HEAVY: usize = 20_000;

/// How much nicer than the other threads of the process: a ninth of their weight.
const NICER: i32 = 10;

/// The highest nice value.
const NICEST: i32 = 19;

/// The capacity to allocate for `bytes` bytes that are needed only for a moment. Blocks above 32 MiB
/// glibc takes from the kernel and returns when they are freed; smaller ones it may keep, for each
/// thread. Unused capacity takes no memory.
pub(super) const fn room(bytes: usize) -> usize {
    const MIB: usize = 1 << 20;
    let is_long = bytes > MIB && bytes < 40 * MIB;
    if is_long { 40 * MIB } else { bytes }
}

/// Does `work` in a thread of low priority, and waits for it.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    advice::room_for_thread()?;
    scope(|scope| {
        let thread = Builder::new().name("lists-heavy".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            step_back();
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Lowers the priority of the calling thread for good: without privileges it cannot be raised again.
pub(crate) fn step_back() {
    // On Linux each thread has a priority of its own, and process 0 stands for the calling thread. If
    // the call fails, the work is done all the same.
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    let _ = rustix::process::setpriority_process(None, (own + NICER).min(NICEST));
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// The niceness of the calling thread, as the kernel tells it.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Behind the name, which is in brackets, the 17th.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn heavy_work_is_done_with_low_priority_and_nothing_else_is() {
        let before = niceness();
        let expected = (before + NICER).min(NICEST);
        assert_eq!(run(niceness).unwrap(), expected);
        assert_eq!(niceness(), before);
    }

    #[test]
    fn a_panic_of_the_work_is_one_of_who_waits_for_it() {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(|| panic!("on purpose"))));
        let panic = outcome.err().and_then(|it| it.downcast::<&str>().ok());
        assert_eq!(panic.as_deref(), Some(&"on purpose"));
    }
}
