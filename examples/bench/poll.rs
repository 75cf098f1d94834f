//! Readiness by edges: a socket is watched once for both directions, and its owner reads and writes
//! until the kernel has no more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

const EVENTS: usize = 512;

/// An epoll set, and the events of its last wait.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches `socket` until it is closed; its events will carry `key`.
    pub(crate) fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let key = EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, socket, key, flags)?)
    }

    /// Waits, and returns how many events there are.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.events.clear();
        let timeout = Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    /// An event of the last wait: the key, and whether the peer has ended its side or reset it.
    pub(crate) fn event(&self, at: usize) -> (usize, bool) {
        let Event { flags, data } = self.events[at];
        let gone = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        (data.u64() as usize, flags.intersects(gone))
    }
}
