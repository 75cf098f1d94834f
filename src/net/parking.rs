//! Connections that wait for bytes without a coroutine: each costs a descriptor in a separate epoll set
//! of the worker, and a place in a table, instead of a stack.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;

use may::io::{CoIo, WaitIo};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::events::Descriptor;
use super::places::Places;
use super::stream::Detached;
use super::{numbers, rounds};

/// Events that are fetched at once.
const EVENTS: usize = rounds::PORTION;

/// The parked connections of a worker, each with what belongs to it.
pub(crate) struct Parking<T> {
    /// Before `epoll`: `may` must forget the descriptor before it is closed.
    registration: CoIo<Descriptor>,
    epoll: Epoll,
    places: RefCell<Places<(Detached, T)>>,
}

/// What becomes of a parked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays.
    Stays,
    /// It goes on, or ends: it is handed to the caller.
    Leaves,
}

impl<T> Parking<T> {
    /// An empty one, for the calling worker.
    ///
    /// # Errors
    /// When descriptors run out.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let epoll = Epoll(numbers::with_fitting_number(epoll.0)?);
        Ok(Self {
            registration: CoIo::new(Descriptor(epoll.0.as_raw_fd())).map_err(io::Error::from)?,
            epoll,
            places: RefCell::default(),
        })
    }

    /// Parks `connection` until bytes come, or its end.
    ///
    /// # Errors
    /// Gives both back when the kernel has no room for it.
    pub(crate) fn park(&self, connection: Detached, what: T) -> Result<(), (Detached, T)> {
        let mut places = self.places.borrow_mut();
        let place = places.put(|_| (connection, what));
        // Level-triggered, so what has arrived already is reported at once.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let event = EpollEvent::new(flags, place as u64);
        match self.epoll.add(&places[place].0, event) {
            Ok(()) => Ok(()),
            // It was put there just now.
            Err(_) => places.take(place).map_or(Ok(()), Err),
        }
    }

    /// Hands out connections as bytes come, or their end; never returns.
    pub(crate) fn watch(&self, resume: impl Fn(Detached, T)) -> ! {
        loop {
            self.registration.wait_io();
            let mut resumed = 0;
            let mut events = [EpollEvent::empty(); EVENTS];
            while let Ok(count @ 1..) = self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                for event in &events[..count] {
                    if let Some((connection, what)) = self.take(event.data() as usize) {
                        resume(connection, what);
                    }
                }
                // The resumed ones have something to do.
                resumed += count;
                if resumed >= rounds::PORTION {
                    resumed = 0;
                    rounds::next_round();
                }
            }
        }
    }

    /// Looks at every connection; those that leave are handed out, some in each round.
    pub(crate) fn sweep(
        &self,
        fate: impl Fn(&Detached, &mut T) -> Fate,
        leave: impl Fn(Detached, T),
    ) {
        let (end, mut left) = (self.places.borrow().end(), 0);
        for place in 0..end {
            let leaves = {
                let mut places = self.places.borrow_mut();
                let parked = places.get_mut(place);
                parked.is_some_and(|(connection, what)| fate(connection, what) == Fate::Leaves)
            };
            if let Some((connection, what)) = leaves.then(|| self.take(place)).flatten() {
                leave(connection, what);
                left += 1;
                if left % rounds::PORTION == 0 {
                    rounds::next_round();
                }
            }
        }
    }

    /// True when nobody is parked.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.borrow().is_empty()
    }

    fn take(&self, place: usize) -> Option<(Detached, T)> {
        let (connection, what) = self.places.borrow_mut().take(place)?;
        // This could only fail for a descriptor that is not in the set.
        let _ = self.epoll.delete(&connection);
        Some((connection, what))
    }
}
