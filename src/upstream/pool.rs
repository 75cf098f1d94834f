//! Idle connections to peers, kept for the next request.
//!
//! One pool a worker. Every stream of a worker lives on that worker, so there is nothing to lock
//! and an exchange never crosses workers. The connection used last is used first, so that the
//! surplus of a busy moment grows old and is closed.
//!
//! A connection on which anything has happened since it became idle (the peer closed it, or sent
//! bytes that nobody asked for) is dropped when it is found: what lies there already is no response to
//! the next request. The worker's events tell, without a system call, as far as they are known: for a
//! connection that has been idle since before the last poll. Of others the kernel is asked.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::net::{self, Stream};

/// One worker's idle connections.
#[derive(Default)]
pub struct Pool {
    /// Only an operator names peers, so nobody can choose addresses that collide.
    peers: RefCell<FxHashMap<SocketAddr, OfPeer>>,
}

/// How sure it must be that nothing has happened on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// As of the last poll: whoever finds the connection closed can take another one.
    LastPoll,
    /// As of this moment.
    Now,
}

/// The idle connections to one peer.
#[derive(Default)]
struct OfPeer {
    /// Idle since before the last poll, or longer.
    settled: Vec<Idle>,
    /// Idle since that poll, if it is the last one.
    fresh: Vec<Idle>,
    poll: u64,
    /// Something was kept here since the last eviction, so that the memory will be needed again.
    used: bool,
}

struct Idle {
    stream: Stream,
    /// When it was first seen here by an eviction: the time is not asked for at each request.
    since: Option<Instant>,
}

impl OfPeer {
    fn settle(&mut self) {
        let last = net::polls().last;
        if self.poll < last {
            self.poll = last;
            self.settled.append(&mut self.fresh);
        }
    }

    fn len(&self) -> usize {
        self.settled.len() + self.fresh.len()
    }

    fn retain(&mut self, mut keeps: impl FnMut(&mut Idle) -> bool) {
        self.settled.retain_mut(&mut keeps);
        self.fresh.retain_mut(keeps);
    }
}

impl Pool {
    /// An idle connection to `peer`, if there is a sound one.
    pub fn checkout(&self, peer: SocketAddr, certainty: Certainty) -> Option<Stream> {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.get_mut(&peer)?;
        idle.settle();
        let events_tell = certainty == Certainty::LastPoll && net::polls().all_known;
        while let Some(Idle { stream, .. }) = idle.settled.pop() {
            if !stream.is_readable() && (events_tell || !stream.is_readable_now()) {
                return Some(stream);
            }
        }
        while let Some(Idle { stream, .. }) = idle.fresh.pop() {
            if !stream.is_readable_now() {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps `stream` for the next request to `peer`, unless `limit` are kept already.
    pub fn checkin(&self, peer: SocketAddr, stream: Stream, limit: usize) {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.entry(peer).or_default();
        idle.settle();
        // After a giant body the events speak of bytes that were all taken, so the kernel is asked then.
        let is_sound = !stream.is_readable() || !stream.is_readable_now();
        if idle.len() < limit && is_sound {
            idle.used = true;
            idle.fresh.push(Idle {
                stream,
                since: None,
            });
        }
    }

    /// Closes what has been idle for longer than `limit` by the evictions' look, or is of no use any
    /// more. Returns true while there is something to look after.
    pub fn evict(&self, now: Instant, limit: Duration) -> bool {
        let mut peers = self.peers.borrow_mut();
        peers.retain(|_, idle| {
            idle.retain(|it| {
                let since = *it.since.get_or_insert(now);
                !it.stream.is_readable() && now.duration_since(since) < limit
            });
            std::mem::take(&mut idle.used) || idle.len() > 0
        });
        !peers.is_empty()
    }

    /// How many connections are kept.
    pub fn len(&self) -> usize {
        self.peers.borrow().values().map(OfPeer::len).sum()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every idle connection; false when there was none.
    pub fn clear(&self) -> bool {
        let idle = self.peers.take();
        idle.values().any(|of_peer| of_peer.len() > 0)
    }
}
