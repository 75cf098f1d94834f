//! Bytes from one socket to another within the kernel: splice(2) through a pipe, without a copy into
//! this process and back. Worth its two extra steps for big bodies only.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::Patience;
use super::stream::{Stream, Watch};
use super::turns;
use crate::memory::free_list::FreeList;

/// Bytes that a pipe holds at most: what is moved in the longest turn, and what the kernel gives to
/// anybody (pipe(7), pipe-max-size).
const CAPACITY: usize = turns::LONG_TURN;

/// Pipes that a worker has at most: each takes two descriptors.
pub(super) const MOST: usize = 32;

/// What all workers have together, in [`CAPACITY`]s: the kernel gives a user 64 MiB of pipes, before it
/// makes new ones small and keeps them so (pipe(7), pipe-user-pages-soft), and others want some, too.
const MOST_OF_ALL: usize = 48;

/// Pipes that a worker has at most, where there are so many workers.
fn most() -> usize {
    (MOST_OF_ALL / super::workers()).clamp(1, MOST)
}

thread_local! {
    static FREE: RefCell<FreeList<Pipe>> = const { RefCell::new(FreeList::new(0, MOST)) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    /// The last try to make or to use one has failed.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// A pipe of the calling worker's, empty between two uses.
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
    /// It is counted by its worker, so it never leaves it.
    own: PhantomData<*const ()>,
}

impl Pipe {
    /// A pipe, if there may be another one and the kernel has descriptors and room for it. When it has
    /// not, it is not asked again until [`Self::look_after`].
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
        // A small one (two pages) would take more steps than to copy the bytes.
        fcntl_setpipe_size(&write, capacity)?;
        MADE.set(MADE.get() + 1);
        Ok(Self {
            read,
            write,
            held: 0,
            own: PhantomData,
        })
    }

    /// True when an error of [`Self::fill`] says nothing of the connection: this kernel, or a sandbox
    /// around this process (seccomp(2)), does not do this with pipes.
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

    /// Has the kernel asked for pipes again, where it had none, and closes some of those that were not
    /// needed lately; true while there is something to look after.
    pub(crate) fn look_after() -> bool {
        REFUSED.replace(false) | FREE.with_borrow_mut(FreeList::trim)
    }

    /// Closes the pipes that nobody uses; false when there was none.
    pub(crate) fn close_unused() -> bool {
        let unused = FREE.replace(FreeList::new(0, MOST));
        !unused.is_empty()
    }

    /// True when it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Gives the pipe back for other bodies; one that still holds bytes is closed.
    pub(crate) fn give_back(self) {
        if self.held == 0 {
            FREE.with_borrow_mut(|free| free.give(self));
        }
    }

    /// Fills the pipe, which is empty, with at most `most` bytes that `from` has; 0 is the end of the
    /// stream.
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

    /// Writes all that the pipe holds to `to`: how many bytes, whatever came then. With
    /// `until_readable` fewer, as [`Stream::write_both`].
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
        // At the end of a worker the counter may be gone; then it counts nothing any more.
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
