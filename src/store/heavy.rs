//! Work that takes its time, out of the way of requests.
//!
//! A list of a million entries is some hundred milliseconds of work, during which a worker that
//! has a request would wait for a CPU. So it is done by a thread to which the kernel prefers every
//! other one of the process, on a machine that is busy a tenth of the usual share at least: slower,
//! but not never, as an idle class would have it.

use std::io;
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// So many entries are heavy. Fewer take a few milliseconds, and their changes are urgent.
pub(super) const HEAVY: usize = 20_000;

/// So much nicer than the others of the process: with a ninth of their weight.
const NICER: i32 = 10;

/// As nice as can be.
const NICEST: i32 = 19;

/// The room to ask for, for `bytes` bytes that are needed for a moment only. What is larger than 32
/// MiB glibc takes from the kernel and gives back when it is freed; what is smaller it may keep, for
/// each thread. Room that is not used takes no memory.
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
    scope(|scope| {
        let thread = Builder::new().name("lists-heavy".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            step_back();
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Lowers the priority of the calling thread, for good: without privileges there is no way back.
pub(super) fn step_back() {
    // Linux has a priority for each thread, and takes no process for the calling thread. Where it
    // is refused, the work is done all the same.
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
