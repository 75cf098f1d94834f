//! A connection to a peer that serves one client connection only, and is kept for its next request.
//!
//! Such is the connection that was authenticated, or is being: what comes on it counts as that user's.
//! It stays with its client connection, also while that is parked, and is closed with it. So there
//! is at most one to each client connection, and `max_connections` bounds them.
//!
//! It goes before its time where it is of no use any more: when the peer has closed it or has sent
//! bytes that nobody asked for, when the next request is for another pool, or when its peer is in none.
//! Then the next request goes another way, as the first one did, and whoever has to authenticate begins
//! anew.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Worker;
use crate::lists::Pools;
use crate::net::Stream;
use crate::route::PoolName;

/// One of them, between two requests.
pub(super) struct Pinned {
    stream: Stream,
    peer: SocketAddr,
    /// The pool that its first request was for.
    decided: PoolName,
    /// The pool of its peer, which is another where the first one had none left.
    pool: PoolName,
    _counted: Counted,
}

impl Pinned {
    pub(super) fn new(
        worker: &Rc<Worker>,
        stream: Stream,
        peer: SocketAddr,
        decided: PoolName,
        pool: PoolName,
    ) -> Self {
        Self {
            stream,
            peer,
            decided,
            pool,
            _counted: Counted::new(worker),
        }
    }

    /// The connection with its peer and pool, if it may serve a request for the pool `decided`.
    /// Asks the kernel whether anything has come on it.
    pub(super) fn take(
        self,
        decided: PoolName,
        pools: &Pools,
        falls_back: bool,
    ) -> Option<(Stream, SocketAddr, PoolName)> {
        let is_for_it = self.decided == decided && (self.pool == decided || falls_back);
        let is_listed = self.pool.peers(pools).contains(&self.peer);
        let is_sound = || !self.stream.is_readable_now();
        (is_for_it && is_listed && is_sound()).then_some((self.stream, self.peer, self.pool))
    }

    /// True when something has come on it, as far as events tell: it serves nobody any more.
    pub(super) fn is_spent(&self) -> bool {
        self.stream.is_readable()
    }
}

/// Counts one for as long as it lives.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.metrics().upstream_pinned.one();
        Self(Rc::clone(worker))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics().upstream_pinned.less_one();
    }
}
