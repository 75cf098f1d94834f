//! What is kept of a connection between two requests, also while it waits without a coroutine.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Close;
use crate::http::client;
use crate::net::{Detached, Fate};
use crate::proxy::gateway::Counters;
use crate::proxy::listening::Listening;
use crate::proxy::moved::{ConnectionPast, MovedConnection};
use crate::proxy::pinned::Pinned;
use crate::proxy::worker::Worker;

/// Where a connection came from.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Arrival {
    /// Where it came in.
    pub(in crate::proxy) listening: Arc<Listening>,
    /// The address of the socket's other side.
    pub(in crate::proxy) from: SocketAddr,
    /// It begins with a PROXY protocol header.
    pub(in crate::proxy) proxy: bool,
    /// It is not new: another process has had it.
    pub(in crate::proxy) past: Option<ConnectionPast>,
}

/// What is kept of a connection between two requests.
pub(super) struct Dormant {
    _open: OpenConnection,
    /// Its number among its worker's connections, never used again.
    pub(super) number: u64,
    /// Where it came in.
    pub(super) listening: Arc<Listening>,
    /// The address of the socket's other side, or what the PROXY protocol says it is.
    pub(super) socket: IpAddr,
    /// Forwarding fields are believed if the other side is a trusted proxy. False if a PROXY header
    /// named nobody.
    pub(super) vouched: bool,
    /// Requests served.
    pub(super) served: u64,
    /// When the last request ended; before the first one, since when that may come.
    pub(super) since: Instant,
    /// Bytes of an empty line that have arrived since then.
    pub(super) line: usize,
    /// The PROXY protocol's header is still to come.
    pub(super) header_due: bool,
    /// The pinned connection to a peer. Boxed, since most sessions have none.
    pub(super) pinned: Option<Box<Pinned>>,
}

impl Dormant {
    /// For a connection that begins now.
    pub(super) fn new(counters: &Rc<Counters>, number: u64, arrival: &Arrival) -> Self {
        let past = arrival.past.unwrap_or_else(|| ConnectionPast {
            client: client::canonical(arrival.from.ip()),
            vouched: true,
            served: 0,
            since: Instant::now(),
            line: 0,
            header_due: arrival.proxy,
        });
        Self {
            _open: OpenConnection::new(counters),
            number,
            listening: Arc::clone(&arrival.listening),
            socket: past.client,
            vouched: past.vouched,
            served: past.served,
            since: past.since,
            line: past.line,
            header_due: past.header_due,
            pinned: None,
        }
    }

    /// Hands the connection to the heir.
    pub(super) fn move_to_heir(&self, worker: &Worker, connection: &Detached) -> Close {
        let (Some(heir), Ok(socket)) = (worker.gateway().heir.get(), connection.share()) else {
            return Close::Draining;
        };
        let past = ConnectionPast {
            client: self.socket,
            vouched: self.vouched,
            served: self.served,
            since: self.since,
            line: self.line,
            header_due: self.header_due,
        };
        let moved = MovedConnection {
            socket,
            listener: self.listening.asked(),
            past,
        };
        match heir.send(Some(moved)) {
            Ok(()) => Close::Moved,
            Err(_) => Close::Draining,
        }
    }
}

/// A silent connection without a coroutine.
pub(super) struct Parked {
    pub(super) dormant: Dormant,
    /// When the client's time is over.
    pub(super) deadline: Instant,
    /// Why the connection ends then.
    pub(super) close: Close,
}

impl Parked {
    /// Checks whether a parked connection has to leave; closes its pinned connection if that is of no
    /// use any more. One that is pinned cannot go on elsewhere, and has all of the drain's time.
    pub(super) fn fate(&mut self, now: Instant, draining: bool, worker: &Worker) -> Fate {
        let pinned = &mut self.dormant.pinned;
        pinned.take_if(|pinned| pinned.is_spent(worker));
        let stays = pinned.is_some() && !worker.gateway().ends_silent_tunnels();
        match draining && !stays || self.deadline <= now {
            true => Fate::Leaves,
            false => Fate::Stays,
        }
    }
}

/// Counts a connection as open for as long as it lives, however it ends.
struct OpenConnection(Rc<Counters>);

impl OpenConnection {
    fn new(counters: &Rc<Counters>) -> Self {
        counters.connections.increment();
        counters.active.increment();
        Self(Rc::clone(counters))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.active.decrement();
        self.0.connection_has_ended();
    }
}
