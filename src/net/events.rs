//! The events that the kernel has reported for a socket, and how its waiter is woken. The worker's clock
//! has one of these for every connection; how to wait is in `stream`.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use may::io::{AsIoData, CoIo, WaitIoWaker};
use nix::sys::epoll::EpollFlags;

use super::numbers::WorkerSocket;

pub(super) const READ: usize = EpollFlags::EPOLLIN.bits() as usize;
pub(super) const WRITE: usize = EpollFlags::EPOLLOUT.bits() as usize;
pub(super) const READ_END: usize = EpollFlags::EPOLLRDHUP.bits() as usize;

/// Set by `may` when a waiter was woken by [`Io::wake`].
pub(super) const WOKEN: usize = 0x8000_0000;

pub(super) const ERROR: usize = EpollFlags::EPOLLERR.bits() as usize;
pub(super) const GONE: usize = EpollFlags::EPOLLHUP.bits() as usize | ERROR;

/// A descriptor for `may`, which does not own it.
pub(super) struct Descriptor(pub(super) RawFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// What was waited for is there (or the end of the stream, or an error to be read).
    Ready,
    /// The deadline has passed.
    Overdue,
    /// The worker was told to end its idle waits (`super::interrupt_idle`).
    Interrupted,
    /// What was watched has happened.
    Watched,
}

/// A [`Watch`](super::Watch) as the clock keeps it.
pub(super) enum Watched {
    /// One of the events of a socket.
    Events { io: Rc<Io>, events: u32 },
    /// A flag is set.
    Flag(Rc<Cell<bool>>),
}

// The clock has one of these for each connection.
const _: () = assert!(size_of::<Option<Watched>>() == 2 * size_of::<usize>());

impl Watched {
    pub(super) fn has_happened(&self) -> bool {
        match self {
            Self::Events { io, events } => io.look() & *events as usize != 0,
            Self::Flag(flag) => flag.get(),
        }
    }
}

/// What the kernel and the clock know of one socket. Lives on one worker.
pub(super) struct Io {
    /// Before `socket`: `may` must forget the descriptor before it is closed.
    pub(super) registration: CoIo<Descriptor>,
    pub(super) socket: WorkerSocket,
    pub(super) waker: WaitIoWaker,
    /// Events since they last proved to be used up.
    pub(super) ready: Cell<usize>,
    pub(super) interrupted: Cell<bool>,
    pub(super) place: usize,
}

impl Io {
    /// Wakes the waiter, if there is one, without an event.
    pub(super) fn wake(&self) {
        self.waker.wakeup();
    }

    /// Wakes the waiter with [`Wake::Interrupted`].
    pub(super) fn interrupt(&self) {
        self.interrupted.set(true);
        self.wake();
    }

    /// Takes in the events that have arrived, without a system call.
    pub(super) fn look(&self) -> usize {
        let news = self.registration.as_io_data().reset();
        let ready = self.ready.get() | news;
        self.ready.set(ready);
        ready
    }

    pub(super) fn used_up(&self, events: usize) {
        self.ready.set(self.ready.get() & !events);
    }
}
