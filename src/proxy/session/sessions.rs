//! What one worker has for its sessions: their numbers, and a place for the silent ones.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::dormant::Parked;
use crate::error::Close;
use crate::net::{self, Detached, Parking};
use crate::proxy::worker::Worker;

/// What one worker has for its sessions.
pub(in crate::proxy) struct Sessions {
    pub(in crate::proxy) worker: Rc<Worker>,
    /// Silent connections.
    parking: Option<Parking<Parked>>,
    /// There is room for them, and a coroutine that resumes them.
    parks: Cell<bool>,
    /// How many client connections have begun here, from which each gets its number.
    begun: Cell<u64>,
}

fn failed(error: &io::Error) {
    log::error!("parking-failed error={:?}", error.to_string());
}

impl Sessions {
    pub(in crate::proxy) fn new(worker: Worker) -> Self {
        Self {
            worker: Rc::new(worker),
            parking: Parking::new().inspect_err(failed).ok(),
            parks: Cell::new(false),
            begun: Cell::new(0),
        }
    }

    /// A number that no other connection of this worker ever has.
    pub(super) fn next_number(&self) -> u64 {
        self.begun.replace(self.begun.get() + 1)
    }

    /// True when silent connections may wait without a coroutine.
    pub(super) fn may_park(&self) -> bool {
        self.parks.get()
    }

    /// True while some of them are parked.
    pub(in crate::proxy) fn has_parked(&self) -> bool {
        self.parking.as_ref().is_some_and(|it| !it.is_empty())
    }

    /// Starts to watch them; calls `resume` when something has arrived.
    pub(super) fn watch(self: &Rc<Self>, resume: impl Fn(&Rc<Self>, Detached, Parked) + 'static) {
        let watcher = Rc::clone(self);
        let watched = net::spawn_beside(move || {
            if let Some(parking) = &watcher.parking {
                parking.watch(|connection, parked| resume(&watcher, connection, parked));
            }
        });
        // Without it, silent connections keep their coroutines.
        match watched {
            Ok(_) => self.parks.set(self.parking.is_some()),
            Err(error) => failed(&error),
        }
    }

    /// Lets a silent connection wait without a coroutine.
    pub(super) fn park(&self, connection: Detached, parked: Parked) -> Result<(), Close> {
        self.worker.look_later();
        self.worker.metrics().parked.increment();
        let parked = match &self.parking {
            Some(parking) => parking.park(connection, parked).map_err(drop),
            None => Err(()),
        };
        parked.map_err(|()| {
            self.worker.metrics().parked.decrement();
            Close::OverCapacity
        })
    }

    /// Hands out those whose time is over; all of them during a drain.
    pub(super) fn sweep(&self, now: Instant, draining: bool, leave: impl Fn(Detached, Parked)) {
        if let Some(parking) = &self.parking {
            parking.sweep(|_, parked| parked.fate(now, draining, &self.worker), leave);
        }
    }
}
