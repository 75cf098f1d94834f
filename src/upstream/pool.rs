//! Idle connections to peers, kept for the next request.
//!
//! There is one pool per worker. Every stream stays on its worker, so there is nothing to lock and an
//! exchange never crosses workers. The connection used last is reused first, so that the surplus of a
//! busy moment grows old and is closed.
//!
//! The pool sizes itself: it keeps as many connections to a peer as were in use at once lately (`usage`).
//! The surplus is let go gradually, a fraction at each look, and no connection is idle for longer than the
//! configured time. All connections of a worker to peers, idle or in use, stay within the worker's share
//! of the descriptors: where they would not, the peer with the most idle ones gives some up.
//!
//! A request that cannot be sent twice is only given a connection that its peer is unlikely to close
//! before the request arrives (`lifetime`).
//!
//! A connection on which anything has happened since it became idle (the peer closed it, or sent bytes
//! that nobody asked for) is dropped when it is found: bytes that are already there are not a response
//! to the next request. The worker's events reveal some of these cases without a system call, but they
//! are as old as its last poll, which on a busy worker is milliseconds ago. So the kernel is asked each
//! time, as the last thing before the request is sent.

mod lifetime;
mod usage;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use self::lifetime::Lifetime;
use self::usage::{Guard, Peaks, Usage};
use crate::net::{self, Moment, Peeked, Stream};

/// After this time, a peer that sent bodies where none are allowed is given another chance: it may be
/// another server by then.
const FORGETS: Duration = Duration::from_secs(3600);

/// How long a connection on which an unexpected body may still arrive must have been silent before it
/// serves another client.
const QUARANTINE_TIME: Duration = Duration::from_secs(1);

/// Between two looks, up to this many times the number in use at once may be open: some are quarantined
/// for a while, or too old for a request that cannot be sent twice.
const SPARE: usize = 2;

/// The least number of connections that may be open between two looks.
const LEAST_OPEN: usize = 16;

/// One in this many of the surplus is closed at each look. A smaller surplus stays until its time is over,
/// so that a peer that is asked now and then keeps its connection.
const SURPLUS_PARTS: usize = 4;

/// One in this many of the idle connections is closed where a peer gives way, so that the fullest peer is
/// not searched for at every request.
const GIVES_WAY: usize = 8;

/// One worker's idle connections.
#[derive(Default)]
pub struct Pool {
    /// A fast hash without protection: only operators choose the addresses.
    peers: RefCell<Peers>,
    /// The number of idle connections to all peers.
    kept: Cell<usize>,
    /// The number of descriptors in use for connections to all peers.
    in_use: Rc<Cell<usize>>,
    /// When idle connections were last looked through.
    looked: Cell<Option<Moment>>,
}

type Peers = FxHashMap<SocketAddr, Rc<PeerUsage>>;

type PeerUsage = Usage<RefCell<PeerConnections>>;

/// Counts a connection that is in use, or is being made, for as long as this lives.
pub struct InUse(Guard<RefCell<PeerConnections>>);

impl InUse {
    /// From now on it belongs to one client.
    pub(crate) fn pin(&mut self) {
        self.0.pin();
    }

    /// From now on it is a tunnel.
    pub(crate) fn become_tunnel(&mut self) {
        self.0.become_tunnel();
    }
}

/// How many connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The most idle connections to one peer.
    pub most: usize,
    /// The most connections of the worker to all peers, in use or idle.
    pub total: usize,
    /// The longest time that a connection may be idle.
    pub age: Duration,
}

/// What an idle connection is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A request that may be sent again on another connection.
    Repeatable,
    /// A request that may be sent only once, now.
    Once(Moment),
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
    /// Counts it as in use.
    pub in_use: InUse,
    /// How long it had been idle when a look last found it open.
    pub seen_open: Duration,
}

/// A connection whose response is over, as it goes into the pool.
pub struct Spent {
    /// The connection itself.
    pub stream: Stream,
    /// What may still come on it.
    pub leftover: Leftover,
    /// Who sent its last request.
    pub asker: Asker,
    /// Counts it as in use.
    pub in_use: InUse,
    /// The earliest time at which the peer may have finished its response, and begun to count idle time.
    pub answered: Moment,
    /// How long the peer keeps it when idle, by its own announcement.
    pub announced: Option<Duration>,
}

/// The idle connections to one peer.
#[derive(Default)]
struct PeerConnections {
    idle: Vec<IdleConnection>,
    /// Something was kept here since the last eviction, so that the memory will be needed again.
    used: bool,
    manner: Manner,
    peaks: Peaks,
    lifetime: Lifetime,
    /// No list has the peer any more.
    is_gone: bool,
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
        since: Option<Moment>,
    },
}

const TALKS: Manner = Manner::Talks { since: None };

struct IdleConnection {
    stream: Stream,
    /// When it was checked in.
    since: Moment,
    /// When the peer may have begun to count idle time. A slow client may have read the response for longer.
    answered: Moment,
    /// How long it may be idle, by the peer's announcement.
    promised: Option<Duration>,
    quarantine: Option<Quarantine>,
}

impl IdleConnection {
    fn is_beyond_promise(&self, now: Moment) -> bool {
        self.promised
            .is_some_and(|it| now.since(self.answered) >= it)
    }

    /// How long it had been idle at the time of `look`; zero if that was before it was checked in.
    fn age_at(&self, look: Option<Moment>) -> Duration {
        look.map_or(Duration::ZERO, |look| look.since(self.since))
    }
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
    /// Behind the response to a request of `asker`'s.
    #[cold]
    fn after(leftover: Leftover, asker: Asker) -> Self {
        Self {
            news: (leftover != Leftover::Doubtful).then(net::news),
            until: (leftover != Leftover::Answer).then(|| Instant::now() + QUARANTINE_TIME),
            asker,
        }
    }

    fn is_for(&self, asker: Asker) -> bool {
        let is_same = asker == self.asker && asker != Asker::Anybody;
        is_same && self.news != Some(net::news())
    }
}

impl PeerConnections {
    /// True when nothing has arrived on `idle` since it became idle, not even its end. Asks the kernel.
    fn find_sound(&mut self, idle: &IdleConnection) -> bool {
        let peeked = idle.stream.peek_now();
        if peeked == Peeked::Bytes && idle.quarantine.is_some() {
            self.manner = TALKS;
        }
        peeked == Peeked::Nothing
    }

    /// True when `idle` may be kept, too, with `limit` at most. A quarantined connection gives way to
    /// one that may serve anybody: otherwise a client that sends enough HEAD requests would leave the
    /// others no connection to reuse.
    fn has_room_for(&mut self, idle: &IdleConnection, limit: usize) -> bool {
        self.idle.len() < limit || self.makes_room_for(idle, limit)
    }

    #[cold]
    fn makes_room_for(&mut self, idle: &IdleConnection, limit: usize) -> bool {
        let is_quarantined = |it: &IdleConnection| it.quarantine.is_some();
        let gives_way = self.idle.iter().position(is_quarantined);
        match gives_way.filter(|_| !is_quarantined(idle) && self.idle.len() == limit) {
            Some(place) => {
                self.idle.remove(place);
                true
            }
            None => false,
        }
    }

    /// How many connections may be idle until the next look.
    fn limit(&self, usage: &PeerUsage, limits: &PoolLimits) -> usize {
        let most = self.peaks.most().max(usage.most());
        let open = LEAST_OPEN.max(SPARE.saturating_mul(most));
        limits.most.min(open.saturating_sub(usage.now()))
    }

    /// True when `idle` is young enough for what it is needed for.
    fn suits(&self, idle: &IdleConnection, need: Need) -> bool {
        match need {
            // The clock is read only where it matters.
            Need::Repeatable => idle.promised.is_none() || !idle.is_beyond_promise(Moment::now()),
            Need::Once(now) => now.since(idle.answered) < self.lifetime.limit(idle.promised),
        }
    }

    /// Closes what is no longer of use, learns from it, and forgets what was long ago. Returns true while
    /// anything is left.
    fn evict(
        &mut self,
        usage: &PeerUsage,
        now: Moment,
        last: Option<Moment>,
        limits: &PoolLimits,
    ) -> bool {
        let (mut talks, lifetime) = (false, &mut self.lifetime);
        self.idle.retain_mut(|it| {
            if !it.stream.is_readable() {
                let age = now.since(it.since);
                lifetime.seen_open(age, now);
                return age < limits.age && !it.is_beyond_promise(now);
            }
            match it.quarantine.is_some() && it.stream.peek_now() == Peeked::Bytes {
                true => talks = true,
                false => lifetime.seen_closed(it.age_at(last), now),
            }
            false
        });
        self.let_surplus_go(usage, now, limits);
        if talks {
            self.manner = TALKS;
        }
        if let Manner::Talks { since } = &mut self.manner
            && now.since(*since.get_or_insert(now)) >= FORGETS
        {
            self.manner = Manner::Unknown;
        }
        let is_noted = matches!(self.manner, Manner::Talks { .. });
        let is_used = std::mem::take(&mut self.used);
        if self.idle.is_empty() && !is_used {
            self.idle = Vec::new();
        }
        is_used || !self.idle.is_empty() || is_noted
    }

    /// Closes a fraction of the connections that were not needed lately, the oldest first.
    fn let_surplus_go(&mut self, usage: &PeerUsage, now: Moment, limits: &PoolLimits) {
        self.peaks.look(usage, now, limits.age);
        let open = usage.now() + self.idle.len();
        let unneeded = open.saturating_sub(self.peaks.most()) / SURPLUS_PARTS;
        // A reload may have lowered the bound.
        let excess = self.idle.len().saturating_sub(limits.most);
        let forbidden = excess.div_ceil(SURPLUS_PARTS);
        let count = unneeded.max(forbidden).min(self.idle.len());
        self.idle.drain(..count);
    }

    /// True when this must not be forgotten, although there may be nothing to look after.
    fn is_remembered(&mut self, usage: &PeerUsage, now: Moment) -> bool {
        self.lifetime.forget(now) || usage.now() > 0
    }
}

impl Pool {
    /// An idle connection to `peer` that may serve `asker`, if there is one that is sound and young enough.
    pub fn checkout(&self, peer: SocketAddr, asker: Asker, need: Need) -> Option<CheckedOut> {
        let peers = self.peers.borrow();
        let usage = peers.get(&peer)?;
        let connections = &mut *usage.of.borrow_mut();
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
            if !connections.suits(&connections.idle[place], need) {
                continue;
            }
            // Mostly it is the last one, which moves no other.
            let found = match place + 1 == connections.idle.len() {
                true => connections.idle.pop()?,
                false => connections.idle.remove(place),
            };
            self.kept.set(self.kept.get() - 1);
            let seen_open = found.age_at(self.looked.get());
            if connections.find_sound(&found) {
                return Some(CheckedOut {
                    stream: found.stream,
                    leftover,
                    in_use: InUse(Guard::begin(usage)),
                    seen_open,
                });
            }
            if found.quarantine.is_none() {
                connections.lifetime.seen_closed(seen_open, Moment::now());
            }
        }
        None
    }

    /// Counts a connection to `peer` that is about to be made, and makes room for it.
    pub fn begin(&self, peer: SocketAddr, limits: &PoolLimits) -> InUse {
        let in_use = InUse(Guard::begin(&self.of(peer)));
        self.make_room(limits.total);
        in_use
    }

    /// Notes that `peer` has closed a connection that was last seen open when it had been idle for `age`.
    pub(crate) fn was_closed(&self, peer: SocketAddr, age: Duration) {
        if let Some(usage) = self.peers.borrow().get(&peer) {
            let lifetime = &mut usage.of.borrow_mut().lifetime;
            lifetime.seen_closed(age, Moment::now());
        }
    }

    /// True when it is not known yet whether `peer` sends a body where none is allowed.
    pub(crate) fn is_to_be_heard(&self, peer: SocketAddr) -> bool {
        let peers = self.peers.borrow();
        let manner = peers.get(&peer).map(|it| it.of.borrow().manner);
        manner.unwrap_or_default() == Manner::Unknown
    }

    /// Notes whether `peer` has sent a body where none is allowed. If so, no connection to it is kept
    /// after such a response, since the next body may be late.
    pub(crate) fn heard(&self, peer: SocketAddr, talks: bool) {
        self.of(peer).of.borrow_mut().manner = match talks {
            true => TALKS,
            false => Manner::Silent,
        };
    }

    /// Keeps a connection for the next request to its peer, unless there are enough already and none of them
    /// gives way.
    pub fn checkin(&self, spent: Spent, limits: &PoolLimits) {
        let Spent {
            stream,
            leftover,
            asker,
            in_use,
            answered,
            announced,
        } = spent;
        // A second for the request's way to the peer, and for the peer's own rounding.
        let promised = announced.map(|it| it.saturating_sub(Duration::from_secs(1)));
        if promised == Some(Duration::ZERO) {
            return;
        }
        let usage = in_use.0.into_usage();
        let mut connections = usage.of.borrow_mut();
        let is_risky =
            leftover != Leftover::None && matches!(connections.manner, Manner::Talks { .. });
        if is_risky || connections.is_gone {
            return;
        }
        let idle = IdleConnection {
            stream,
            since: Moment::now(),
            answered,
            promised,
            quarantine: (leftover != Leftover::None).then(|| Quarantine::after(leftover, asker)),
        };
        // After a very large body the events may be about bytes that were read, so the kernel is asked
        // then.
        let is_sound = !idle.stream.is_readable() || connections.find_sound(&idle);
        let (before, limit) = (connections.idle.len(), connections.limit(&usage, limits));
        if is_sound && connections.has_room_for(&idle, limit) {
            connections.used = true;
            connections.idle.push(idle);
            self.kept
                .set(self.kept.get() + connections.idle.len() - before);
            drop(connections);
            self.make_room(limits.total);
        }
    }

    /// Closes idle connections while the worker has too many: those of the peer with the most, the oldest
    /// first.
    #[inline]
    fn make_room(&self, total: usize) {
        if self.kept.get() + self.in_use.get() > total {
            self.close_some(total);
        }
    }

    #[cold]
    fn close_some(&self, total: usize) {
        while self.kept.get() + self.in_use.get() > total && self.kept.get() > 0 {
            let peers = self.peers.borrow();
            let fullest = peers.values().max_by_key(|it| it.of.borrow().idle.len());
            let Some(fullest) = fullest else {
                return;
            };
            let idle = &mut fullest.of.borrow_mut().idle;
            let count = idle.len().div_ceil(GIVES_WAY);
            idle.drain(..count);
            self.kept.set(self.kept.get() - count);
        }
    }

    fn count_kept(&self, peers: &Peers) {
        let idle = peers.values().map(|it| it.of.borrow().idle.len());
        self.kept.set(idle.sum());
    }

    fn of(&self, peer: SocketAddr) -> Rc<PeerUsage> {
        let mut peers = self.peers.borrow_mut();
        let new = || Usage::new(&self.in_use, RefCell::default());
        Rc::clone(peers.entry(peer).or_insert_with(new))
    }

    /// Looks through the idle connections: closes those that have been idle for too long or are of no use
    /// any more, and a fraction of the surplus. Returns true while anything is left.
    pub fn evict(&self, now: Moment, limits: &PoolLimits) -> bool {
        self.evict_each(now, limits.total, |_| *limits)
    }

    /// The same, with the limits of each peer, and the most connections to all of them.
    pub(crate) fn evict_each(
        &self,
        now: Moment,
        total: usize,
        limits: impl Fn(SocketAddr) -> PoolLimits,
    ) -> bool {
        let mut peers = self.peers.borrow_mut();
        let last = self.looked.replace(Some(now));
        let mut any = false;
        peers.retain(|peer, usage| {
            let mut connections = usage.of.borrow_mut();
            let is_busy = connections.evict(usage, now, last, &limits(*peer));
            any |= is_busy;
            is_busy | connections.is_remembered(usage, now)
        });
        self.count_kept(&peers);
        drop(peers);
        self.make_room(total);
        any
    }

    /// Closes the connections to those peers for which `stays` does not hold: no list has them any more.
    pub(crate) fn close_others(&self, stays: impl Fn(SocketAddr) -> bool) {
        let mut peers = self.peers.borrow_mut();
        peers.retain(|peer, usage| {
            let stays = stays(*peer);
            if !stays {
                // Those in use lead here, and are closed when they come back.
                let connections = &mut *usage.of.borrow_mut();
                connections.is_gone = true;
                connections.idle.clear();
            }
            stays
        });
        self.count_kept(&peers);
    }

    /// How many connections are kept.
    pub fn len(&self) -> usize {
        self.kept.get()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every idle connection; false if there were none.
    pub(crate) fn clear(&self) -> bool {
        let peers = self.peers.borrow();
        let each = peers.values().map(|it| it.of.borrow_mut());
        each.for_each(|mut it| it.idle.clear());
        self.kept.replace(0) > 0
    }
}
