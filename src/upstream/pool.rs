//! Idle connections to peers, kept for the next request.
//!
//! There is one pool per worker. Every stream stays on its worker, so there is nothing to lock and an
//! exchange never crosses workers. The connection used last is reused first, so that the surplus of a
//! busy moment grows old and is closed.
//!
//! A connection on which anything has happened since it became idle (the peer closed it, or sent bytes
//! that nobody asked for) is dropped when it is found: bytes that are already there are not a response
//! to the next request. The worker's events reveal some of these cases without a system call, but they
//! are as old as its last poll, which on a busy worker is milliseconds ago. So the kernel is asked each
//! time, as the last thing before the request is sent.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::net::{self, Peeked, Stream};

/// After this time, a peer that sent bodies where none are allowed is given another chance: it may be
/// another server by then.
const FORGETS: Duration = Duration::from_secs(3600);

/// How long a connection on which an unexpected body may still arrive must have been silent before it
/// serves another client.
const QUARANTINE_TIME: Duration = Duration::from_secs(1);

/// One worker's idle connections.
#[derive(Default)]
pub struct Pool {
    /// A fast hash without protection: only operators choose the addresses.
    peers: RefCell<FxHashMap<SocketAddr, PeerConnections>>,
}

/// What may still arrive on a connection whose response is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    None,
    /// The response had no body, as required, but its head announced one: some peers send it all the
    /// same, a moment later.
    Body,
    /// The same, but nothing came in the moment since.
    Doubtful,
    /// The answer to a request that was sent while such a body might still arrive: what was taken for
    /// the answer may have been the body, and the answer itself may still come.
    Answer,
}

/// Who wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client connection of a single user, by its number on this worker.
    Connection(u64),
    /// Anyone, for instance a trusted proxy with many users.
    Anybody,
}

/// A connection from the pool.
pub struct CheckedOut {
    /// It is sound.
    pub stream: Stream,
    /// What may still come on it.
    pub leftover: Leftover,
}

/// The idle connections to one peer.
#[derive(Default)]
struct PeerConnections {
    idle: Vec<Idle>,
    /// Something was kept here since the last eviction, so that the memory will be needed again.
    used: bool,
    manner: Manner,
}

/// How a peer behaves after a response that must not have a body, but announces one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    /// Not known yet.
    #[default]
    Unknown,
    /// Nothing, as it should be.
    Silent,
    /// It has sent a body, or what could be one.
    Talks {
        /// When an eviction first saw this.
        since: Option<Instant>,
    },
}

const TALKS: Manner = Manner::Talks { since: None };

struct Idle {
    stream: Stream,
    /// When an eviction first saw it here, so that the clock is not read for each request.
    since: Option<Instant>,
    quarantine: Option<Quarantine>,
}

/// Restrictions while something may still arrive on the connection.
struct Quarantine {
    /// Not to be used before the worker's [`net::news`] has changed from this value.
    news: Option<u64>,
    /// Until then, or always, it serves only the asker of that response.
    until: Option<Instant>,
    asker: Asker,
}

impl Quarantine {
    fn is_for(&self, asker: Asker) -> bool {
        let is_same = asker == self.asker && asker != Asker::Anybody;
        is_same && self.news != Some(net::news())
    }
}

impl PeerConnections {
    /// True when nothing has arrived on `idle` since it became idle, not even its end. Asks the kernel.
    fn find_sound(&mut self, idle: &Idle) -> bool {
        let peeked = idle.stream.peek_now();
        if peeked == Peeked::Bytes && idle.quarantine.is_some() {
            self.manner = TALKS;
        }
        peeked == Peeked::Nothing
    }

    /// True when `idle` may be kept, too, with `limit` at most. A quarantined connection gives way to
    /// one that may serve anybody: otherwise a client that sends enough HEAD requests would leave the
    /// others no connection to reuse.
    fn has_room_for(&mut self, idle: &Idle, limit: usize) -> bool {
        if self.idle.len() < limit {
            return true;
        }
        let is_quarantined = |it: &Idle| it.quarantine.is_some();
        let gives_way = self.idle.iter().position(is_quarantined);
        match gives_way.filter(|_| !is_quarantined(idle) && self.idle.len() == limit) {
            Some(place) => {
                self.idle.remove(place);
                true
            }
            None => false,
        }
    }

    /// Closes what is no longer of use, and forgets what was long ago. Returns true while anything is
    /// left.
    fn evict(&mut self, now: Instant, limit: Duration) -> bool {
        let mut talks = false;
        self.idle.retain_mut(|it| {
            let since = *it.since.get_or_insert(now);
            let is_quiet = !it.stream.is_readable();
            talks |= !is_quiet && it.quarantine.is_some() && it.stream.peek_now() == Peeked::Bytes;
            is_quiet && now.duration_since(since) < limit
        });
        if talks {
            self.manner = TALKS;
        }
        if let Manner::Talks { since } = &mut self.manner
            && now.duration_since(*since.get_or_insert(now)) >= FORGETS
        {
            self.manner = Manner::Unknown;
        }
        let is_noted = matches!(self.manner, Manner::Talks { .. });
        std::mem::take(&mut self.used) || !self.idle.is_empty() || is_noted
    }
}

impl Pool {
    /// An idle connection to `peer` that may serve `asker`, if there is a sound one.
    pub fn checkout(&self, peer: SocketAddr, asker: Asker) -> Option<CheckedOut> {
        let mut peers = self.peers.borrow_mut();
        let connections = peers.get_mut(&peer)?;
        let mut now = None;
        for place in (0..connections.idle.len()).rev() {
            let mut leftover = Leftover::None;
            if let Some(quarantine) = &connections.idle[place].quarantine
                && quarantine
                    .until
                    .is_none_or(|it| it > *now.get_or_insert_with(Instant::now))
            {
                if !quarantine.is_for(asker) {
                    continue;
                }
                leftover = Leftover::Doubtful;
            }
            let found = connections.idle.remove(place);
            if connections.find_sound(&found) {
                let stream = found.stream;
                return Some(CheckedOut { stream, leftover });
            }
        }
        None
    }

    /// True when it is not known yet whether `peer` sends a body where none is allowed.
    pub(crate) fn is_to_be_heard(&self, peer: SocketAddr) -> bool {
        let peers = self.peers.borrow();
        let manner = peers.get(&peer).map(|it| it.manner);
        manner.unwrap_or_default() == Manner::Unknown
    }

    /// Notes whether `peer` has sent a body where none is allowed. If so, no connection to it is kept
    /// after such a response, since the next body may be late.
    pub fn heard(&self, peer: SocketAddr, talks: bool) {
        let mut peers = self.peers.borrow_mut();
        peers.entry(peer).or_default().manner = match talks {
            true => TALKS,
            false => Manner::Silent,
        };
    }

    /// Keeps `stream`, whose last request was `asker`'s, for the next request to `peer`, unless `limit`
    /// are kept already and none of them gives way.
    pub fn checkin(
        &self,
        peer: SocketAddr,
        stream: Stream,
        leftover: Leftover,
        asker: Asker,
        limit: usize,
    ) {
        let mut peers = self.peers.borrow_mut();
        let connections = peers.entry(peer).or_default();
        if leftover != Leftover::None && matches!(connections.manner, Manner::Talks { .. }) {
            return;
        }
        let idle = Idle {
            stream,
            since: None,
            quarantine: (leftover != Leftover::None).then(|| Quarantine {
                news: (leftover != Leftover::Doubtful).then(net::news),
                until: (leftover != Leftover::Answer).then(|| Instant::now() + QUARANTINE_TIME),
                asker,
            }),
        };
        // After a very large body the events may be about bytes that were read, so the kernel is asked
        // then.
        let is_sound = !idle.stream.is_readable() || connections.find_sound(&idle);
        if is_sound && connections.has_room_for(&idle, limit) {
            connections.used = true;
            connections.idle.push(idle);
        }
    }

    /// Closes what has been idle for longer than `limit`, as seen by evictions, or is of no use any
    /// more. Returns true while anything is left.
    pub fn evict(&self, now: Instant, limit: Duration) -> bool {
        let mut peers = self.peers.borrow_mut();
        peers.retain(|_, connections| connections.evict(now, limit));
        !peers.is_empty()
    }

    /// Closes the connections to those peers for which `stays` does not hold: no list has them any more.
    pub fn close_others(&self, stays: impl Fn(SocketAddr) -> bool) {
        self.peers.borrow_mut().retain(|peer, _| stays(*peer));
    }

    /// How many connections are kept.
    pub fn len(&self) -> usize {
        self.peers.borrow().values().map(|it| it.idle.len()).sum()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every idle connection; false if there were none.
    pub fn clear(&self) -> bool {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.values_mut().flat_map(|it| it.idle.drain(..));
        idle.count() > 0
    }
}
