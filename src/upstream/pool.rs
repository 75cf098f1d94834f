//! Idle connections to peers, kept for the next request.
//!
//! One pool a worker. Every stream of a worker lives on that worker, so there is nothing to lock
//! and an exchange never crosses workers. The connection used last is used first, so that the
//! surplus of a busy moment grows old and is closed.
//!
//! A connection on which anything has happened since it became idle (the peer closed it, or sent
//! bytes that nobody asked for) is dropped when it is found: what lies there already is no response to
//! the next request. The worker's events tell of some, without a system call; but they are as old as its
//! last poll, which on a busy worker is milliseconds ago. So the kernel is asked each time, as the
//! last thing before the request is sent.

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

/// What may still come on a connection whose response is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    None,
    /// The response had no body, as must be, but its head spoke of one: there are peers that send it
    /// all the same, a moment later.
    Body,
}

/// The idle connections to one peer.
#[derive(Default)]
struct OfPeer {
    idle: Vec<Idle>,
    /// Something was kept here since the last eviction, so that the memory will be needed again.
    used: bool,
}

struct Idle {
    stream: Stream,
    /// When it was first seen here by an eviction: the time is not asked for at each request.
    since: Option<Instant>,
    /// Not to be used before the worker has heard something since this number of [`net::news`], so
    /// that what may be left over has had the time to come.
    rests: Option<u64>,
}

impl Idle {
    /// True when nothing has come since it became idle: not even the end. Asks the kernel.
    fn is_sound(&self) -> bool {
        !self.stream.is_readable_now()
    }
}

impl Pool {
    /// An idle connection to `peer`, if there is a sound one.
    pub fn checkout(&self, peer: SocketAddr) -> Option<Stream> {
        let mut peers = self.peers.borrow_mut();
        let idle = &mut peers.get_mut(&peer)?.idle;
        for place in (0..idle.len()).rev() {
            if idle[place].rests == Some(net::news()) {
                continue;
            }
            let found = idle.remove(place);
            if found.is_sound() {
                return Some(found.stream);
            }
        }
        None
    }

    /// Keeps `stream` for the next request to `peer`, unless `limit` are kept already.
    pub fn checkin(&self, peer: SocketAddr, stream: Stream, leftover: Leftover, limit: usize) {
        let mut peers = self.peers.borrow_mut();
        let of_peer = peers.entry(peer).or_default();
        // After a giant body the events speak of bytes that were all taken, so the kernel is asked then.
        let is_sound = !stream.is_readable() || !stream.is_readable_now();
        if of_peer.idle.len() < limit && is_sound {
            of_peer.used = true;
            of_peer.idle.push(Idle {
                stream,
                since: None,
                rests: (leftover == Leftover::Body).then(net::news),
            });
        }
    }

    /// Closes what has been idle for longer than `limit` by the evictions' look, or is of no use any
    /// more. Returns true while there is something to look after.
    pub fn evict(&self, now: Instant, limit: Duration) -> bool {
        let mut peers = self.peers.borrow_mut();
        peers.retain(|_, of_peer| {
            of_peer.idle.retain_mut(|it| {
                let since = *it.since.get_or_insert(now);
                !it.stream.is_readable() && now.duration_since(since) < limit
            });
            std::mem::take(&mut of_peer.used) || !of_peer.idle.is_empty()
        });
        !peers.is_empty()
    }

    /// How many connections are kept.
    pub fn len(&self) -> usize {
        self.peers.borrow().values().map(|it| it.idle.len()).sum()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every idle connection; false when there was none.
    pub fn clear(&self) -> bool {
        let peers = self.peers.take();
        peers.values().any(|of_peer| !of_peer.idle.is_empty())
    }
}
