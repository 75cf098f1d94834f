//! Idle connections to peers, kept for the next request.
//!
//! One pool a worker. Every stream of a worker lives on that worker, so there is nothing to lock
//! and an exchange never crosses workers. The connection used last is used first, so that the
//! surplus of a busy moment grows old and is closed.
//!
//! A connection on which anything has happened since it became idle (the peer closed it, or sent
//! bytes that nobody asked for) is dropped when it is found: that costs no system call, since
//! the worker's events say it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::Stream;

/// One worker's idle connections.
#[derive(Default)]
pub struct Pool {
    peers: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
}

struct Idle {
    stream: Stream,
    since: Instant,
}

impl Pool {
    /// An idle connection to `peer`, if there is a sound one.
    pub fn checkout(&self, peer: SocketAddr) -> Option<Stream> {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.get_mut(&peer)?;
        while let Some(candidate) = idle.pop() {
            if !candidate.stream.is_readable() {
                return Some(candidate.stream);
            }
        }
        None
    }

    /// Keeps `stream` for the next request to `peer`, unless `limit` are kept already.
    pub fn checkin(&self, peer: SocketAddr, stream: Stream, now: Instant, limit: usize) {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.entry(peer).or_default();
        if idle.len() < limit && !stream.is_readable() {
            idle.push(Idle { stream, since: now });
        }
    }

    /// Closes what has been idle for longer than `limit`, or is of no use any more. Returns true
    /// while any connection is kept.
    pub fn evict(&self, now: Instant, limit: Duration) -> bool {
        let mut peers = self.peers.borrow_mut();
        peers.retain(|_, idle| {
            idle.retain(|it| !it.stream.is_readable() && now.duration_since(it.since) < limit);
            !idle.is_empty()
        });
        !peers.is_empty()
    }

    /// Closes every idle connection; false when there was none.
    pub fn clear(&self) -> bool {
        let idle = self.peers.take();
        idle.values().any(|of_peer| !of_peer.is_empty())
    }
}
