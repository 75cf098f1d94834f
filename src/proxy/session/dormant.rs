//! What is kept of a connection between two requests, and how it waits without a coroutine.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Arrival, go_on};
use crate::error::Close;
use crate::http::client;
use crate::net::{self, Detached, Fate};
use crate::proxy::Worker;
use crate::proxy::pinned::Pinned;

/// What is kept of a connection between two requests.
pub(super) struct Rest {
    _open: Open,
    /// Which of its worker's connections it is, for as long as that runs.
    pub(super) number: u64,
    /// Which listener it came to.
    pub(super) listener: usize,
    /// The address of the socket's other side, or what the PROXY protocol says it is.
    pub(super) socket: IpAddr,
    /// The other side may be believed what its forwarding fields say, if it is a trusted proxy.
    pub(super) vouched: bool,
    /// Requests served.
    pub(super) served: u64,
    /// When the last request ended; before the first one, since when it may come.
    pub(super) since: Instant,
    /// Bytes of an empty line that have come since then.
    pub(super) line: usize,
    /// The connection to a peer that is its own. Most have none, so it takes no room here.
    pub(super) pinned: Option<Box<Pinned>>,
}

impl Rest {
    /// Of a connection that begins now.
    pub(super) fn new(worker: &Rc<Worker>, arrival: &Arrival) -> Self {
        let number = worker.begun.get();
        worker.begun.set(number + 1);
        Self {
            _open: Open::new(worker),
            number,
            listener: arrival.listener,
            socket: client::canonical(arrival.from.ip()),
            vouched: true,
            served: 0,
            since: Instant::now(),
            line: 0,
            pinned: None,
        }
    }
}

/// A silent connection without a coroutine.
pub(in crate::proxy) struct Parked {
    pub(super) rest: Rest,
    /// When the client's time is over.
    pub(super) deadline: Instant,
    /// Why the connection ends then.
    pub(super) close: Close,
}

impl Parked {
    /// Goes on with a connection that has something to say, on the calling worker.
    pub(in crate::proxy) fn resume(self, worker: &Rc<Worker>, connection: Detached) {
        worker.metrics().parked.decrement();
        let here = Rc::clone(worker);
        let spawned = net::spawn_beside(move || go_on(&here, connection, self.rest, false));
        if spawned.is_err() {
            worker.metrics().closes[Close::OverCapacity.index()].increment();
        }
    }

    /// Looks whether a parked connection has to leave; lets its peer's connection go where that has
    /// ended.
    pub(in crate::proxy) fn fate(&mut self, now: Instant, draining: bool) -> Fate {
        self.rest.pinned.take_if(|pinned| pinned.is_spent());
        match draining || self.deadline <= now {
            true => Fate::Leaves,
            false => Fate::Stays,
        }
    }

    /// Ends a connection whose time is over, unless it has something to say at the last moment: then it
    /// goes on. When the gateway is to end, so does one that has had no request yet.
    pub(in crate::proxy) fn leave(self, worker: &Rc<Worker>, connection: Detached, draining: bool) {
        let first = draining && self.rest.served == 0;
        if first || connection.is_readable_now() {
            return self.resume(worker, connection);
        }
        let close = match draining {
            true => Close::Draining,
            false => self.close,
        };
        worker.metrics().parked.decrement();
        worker.metrics().closes[close.index()].increment();
    }
}

/// Counts a connection as open for as long as it lives, however it ends.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.metrics().connections.increment();
        worker.metrics().active.increment();
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics().active.decrement();
        // Counted up by whoever accepted the connection.
        self.0.gateway.connections[self.0.index].fetch_sub(1, Ordering::AcqRel);
    }
}
