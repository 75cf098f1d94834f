//! Bytes from one socket to another within the kernel: splice(2) through a pipe, without a copy into
//! this process and back. Worth its two extra steps for big bodies only.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::Patience;
use super::socket::Stream;
use super::turns;

/// Bytes that a pipe holds at most: what is moved in the longest turn, and what the kernel gives to
/// anybody (pipe(7), pipe-max-size).
const CAPACITY: usize = turns::LONG;

/// Pipes that a worker has at most: each takes two descriptors, and the kernel gives a user 64 MiB of
/// pipes before it makes new ones small and keeps them so (pipe(7), pipe-user-pages-soft).
pub(super) const MOST: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    /// The last try to make one has failed.
    static SHORT: Cell<bool> = const { Cell::new(false) };
}

/// A pipe of the calling worker's, empty between two uses.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
}

impl Pipe {
    /// A pipe, if there may be another one and the kernel has descriptors and room for it. When it has
    /// not, it is not asked again until [`Self::try_again`].
    pub fn take() -> Option<Self> {
        let free = FREE.with(|free| free.borrow_mut().pop());
        free.or_else(|| Self::another(CAPACITY))
    }

    fn another(capacity: usize) -> Option<Self> {
        if MADE.get() == MOST || SHORT.get() {
            return None;
        }
        let made = Self::make(capacity).ok();
        SHORT.set(made.is_none());
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
        })
    }

    /// Has the kernel asked for pipes again, where it had none; true when that was so.
    pub fn try_again() -> bool {
        SHORT.replace(false)
    }

    /// Closes the pipes that nobody uses; false when there was none.
    pub fn close_unused() -> bool {
        let unused = FREE.with(|free| std::mem::take(&mut *free.borrow_mut()));
        !unused.is_empty()
    }

    /// Gives the pipe back for other bodies; one that still holds bytes is closed.
    pub fn give_back(self) {
        if self.held == 0 {
            FREE.with(|free| free.borrow_mut().push(self));
        }
    }

    /// Fills the pipe, which is empty, with at most `most` bytes that `from` has; 0 is the end of the
    /// stream.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing is there.
    pub fn fill(&mut self, from: &Stream, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let most = most.min(CAPACITY);
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
    pub fn drain(
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
            match to.write_some(patience, until_readable, write) {
                Ok(Some(count)) => self.held -= count,
                Ok(None) => break,
                Err(error) => return (all - self.held, Err(error)),
            }
        }
        (all - self.held, Ok(()))
    }

    /// Moves all that the pipe holds behind what is in `into`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn empty(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        into.reserve(self.held);
        while self.held > 0 {
            match read(&self.read, spare_capacity(into)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.held -= count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
            assert!(Pipe::try_again(), "not noted");
        }
        assert!(Pipe::another(LITTLE).is_some());
        assert!(!Pipe::try_again(), "one was made");
    }
}
