//! A question that one thread has another one put to the server, on the connection on which that one listens.
//! The answer follows everything that the server had sent before.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use socket2::Socket;

/// Wakes the thread that listens.
#[derive(Debug)]
pub(crate) struct Waker {
    bell: OwnedFd,
    question: AtomicU64,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            bell: eventfd(0, flags)?,
            question: AtomicU64::new(0),
        })
    }

    /// Has a question asked; returns its number.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wake(&self) -> io::Result<u64> {
        let question = self.question.fetch_add(1, Ordering::AcqRel) + 1;
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes())?;
        Ok(question)
    }

    /// The number of the last question.
    pub(super) fn question(&self) -> u64 {
        self.question.load(Ordering::Acquire)
    }

    /// Waits for bytes on the socket, or until this waker is used: then the error is
    /// [`io::ErrorKind::WouldBlock`].
    pub(super) fn wait(&self, socket: &Socket, patience: Duration) -> io::Result<()> {
        let mut polled = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(&self.bell, PollFlags::IN),
        ];
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&patience)))?;
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if polled[1].revents().is_empty() {
            return Ok(());
        }
        let mut count = [0; 8];
        rustix::io::read(&self.bell, &mut count)?;
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The questions that were asked, and not yet answered.
#[derive(Debug, Default)]
pub(crate) struct Hearing(VecDeque<Option<u64>>);

impl Hearing {
    pub(super) fn asked(&mut self, question: Option<u64>) {
        self.0.push_back(question);
    }

    /// There was an answer: the number of the question, unless nobody waits for that.
    pub(crate) fn answered(&mut self) -> Option<u64> {
        self.0.pop_front().flatten()
    }
}
