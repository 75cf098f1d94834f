//! Bytes from one socket to another within the kernel: splice(2) through a pipe, without a copy into
//! this process and back. The two extra steps pay off for big bodies only.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::Patience;
use super::stream::{Stream, Watch};
use super::{coroutines, turns};
use crate::memory::free_list::FreeList;

/// Most bytes that a pipe holds: as many as the longest turn moves, and as the kernel grants to
/// unprivileged processes (pipe(7), pipe-max-size).
const CAPACITY: usize = turns::LONG_TURN;

/// Most pipes of a worker; each takes two descriptors.
pub(super) const MOST: usize = 32;

/// Most pipes of all workers together. The kernel grants a user 64 MiB of pipes; beyond that, new ones
/// are small and cannot grow (pipe(7), pipe-user-pages-soft). Other programs need some, too.
const MOST_OF_ALL: usize = 48;

/// Most pipes of a worker, given the number of workers.
fn most() -> usize {
    (MOST_OF_ALL / coroutines::workers()).clamp(1, MOST)
}

thread_local! {
    static FREE: RefCell<FreeList<Pipe>> = const { RefCell::new(FreeList::new(0, MOST)) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    /// The last attempt to make or to use one has failed.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// A pipe of the calling worker's, empty between two uses.
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
    /// Its worker counts it, so it must not leave that worker.
    own: PhantomData<*const ()>,
}

impl Pipe {
    /// A pipe, if another one is allowed and the kernel has descriptors and memory for it. If not, the
    /// kernel is not asked again until [`Self::look_after`].
    pub(crate) fn take() -> Option<Self> {
        if REFUSED.get() {
            return None;
        }
        let free = FREE.with_borrow_mut(FreeList::take);
        free.or_else(|| Self::another(CAPACITY))
    }

    fn another(capacity: usize) -> Option<Self> {
        if MADE.get() >= most() || REFUSED.get() {
            return None;
        }
        let made = Self::make(capacity).ok();
        REFUSED.set(made.is_none());
        made
    }

    fn make(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A small one (two pages) would take more steps than copying the bytes.
        fcntl_setpipe_size(&write, capacity)?;
        MADE.set(MADE.get() + 1);
        Ok(Self {
            read,
            write,
            held: 0,
            own: PhantomData,
        })
    }

    /// True when an error of [`Self::fill`] does not concern the connection: this kernel, or a sandbox
    /// around this process (seccomp(2)), does not support this.
    pub(crate) fn is_refusal(error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidInput, OutOfMemory, PermissionDenied, Unsupported};
        let kind = error.kind();
        matches!(
            kind,
            InvalidInput | OutOfMemory | PermissionDenied | Unsupported
        )
    }

    /// Notes a [refusal](Self::is_refusal): there are no pipes until [`Self::look_after`].
    pub(crate) fn refused(self) {
        REFUSED.set(true);
    }

    /// Allows asking the kernel for pipes again after a refusal, and closes some of those that were not
    /// needed lately; true while there is more to do.
    pub(crate) fn look_after() -> bool {
        REFUSED.replace(false) | FREE.with_borrow_mut(FreeList::trim)
    }

    /// Closes the unused pipes; false if there were none.
    pub(crate) fn close_unused() -> bool {
        let unused = FREE.replace(FreeList::new(0, MOST));
        !unused.is_empty()
    }

    /// True when it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Returns the pipe for other bodies to use; one that still holds bytes is closed.
    pub(crate) fn give_back(self) {
        if self.held == 0 {
            FREE.with_borrow_mut(|free| free.give(self));
        }
    }

    /// Moves at most `most` bytes from `from` into the empty pipe; 0 is the end of the stream.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing is there.
    pub(crate) fn fill(&mut self, from: &Stream, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = from.take_now(|socket| {
            let count = splice(socket, None, &self.write, None, most, flags);
            count.map_err(io::Error::from)
        })?;
        self.held = count;
        Ok(count)
    }

    /// Writes everything in the pipe to `to`, and returns how many bytes were written, error or not.
    /// With `until_readable` maybe fewer, as [`Stream::write_both`].
    ///
    /// # Errors
    /// As of [`Stream::write_all`].
    pub(crate) fn drain(
        &mut self,
        to: &Stream,
        patience: &Patience,
        until_readable: bool,
    ) -> (usize, io::Result<()>) {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let all = self.held;
        while self.held > 0 {
            let left = self.held;
            let write = |socket: &socket2::Socket| {
                let count = splice(&self.read, None, socket, None, left, flags);
                count.map_err(io::Error::from)
            };
            match to.write_some(patience, until_readable, Watch::Nothing, write) {
                Ok(Some(count)) => self.held -= count,
                Ok(None) => break,
                Err(error) => return (all - self.held, Err(error)),
            }
        }
        (all - self.held, Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // When the worker ends, the counter may be gone already.
        let _ = MADE.try_with(|made| made.set(made.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the kernel gives anybody: refused as any size is that is above a user's limit.
    const TOO_MUCH: usize = 1 << 31;

    /// A page, which everybody gets.
    const LITTLE: usize = 4096;

    #[test]
    fn a_pipe_that_cannot_have_its_size_is_none_and_is_not_tried_for_again_at_once() {
        // More often than there may be pipes: these are not counted.
        for _ in 0..=MOST {
            assert!(Pipe::another(TOO_MUCH).is_none());
            assert!(Pipe::another(LITTLE).is_none(), "tried for at once");
            assert!(Pipe::look_after(), "not noted");
        }
        assert!(Pipe::another(LITTLE).is_some());
        assert!(!Pipe::look_after(), "one was made");
    }
}
