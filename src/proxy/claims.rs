//! Connections to peers that are pinned on the client's word alone: see [`super::pinned`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::gateway::Counters;
use crate::net::Stream;
use crate::upstream::pool::InUse;

/// One worker's claims.
#[derive(Default)]
pub(super) struct Claims {
    next: Cell<u64>,
    /// By age.
    kept: RefCell<BTreeMap<u64, Claim>>,
}

struct Claim {
    held: WaitingConnection,
    peer: SocketAddr,
    since: Instant,
}

impl Claims {
    /// Keeps one; if there are `limit` for its peer already, the oldest of these gives way. Returns its
    /// number.
    pub(super) fn keep(
        &self,
        peer: SocketAddr,
        held: WaitingConnection,
        limit: usize,
    ) -> Option<u64> {
        if limit == 0 {
            return None;
        }
        let mut kept = self.kept.borrow_mut();
        let of_peer = |kept: &BTreeMap<u64, Claim>| {
            let mut numbers = kept.iter().filter(|(_, it)| it.peer == peer);
            let oldest = numbers.next().map(|(number, _)| *number)?;
            Some((1 + numbers.count(), oldest))
        };
        // More than one if the limit was lowered.
        while let Some((count, oldest)) = of_peer(&kept)
            && count >= limit
        {
            kept.remove(&oldest);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let claim = Claim {
            held,
            peer,
            since: Instant::now(),
        };
        kept.insert(number, claim);
        Some(number)
    }

    /// Closes those that have been idle for the `limit` of their peer, and those that are of no use any
    /// more. Returns true while some are left.
    pub(super) fn evict(&self, now: Instant, limit: impl Fn(SocketAddr) -> Duration) -> bool {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|_, it| {
            now.saturating_duration_since(it.since) < limit(it.peer)
                && !it.held.stream.is_readable()
        });
        !kept.is_empty()
    }

    /// Closes those to peers for which `stays` does not hold.
    pub(super) fn close_others(&self, stays: impl Fn(SocketAddr) -> bool) {
        self.kept.borrow_mut().retain(|_, it| stays(it.peer));
    }

    /// Closes all; false if there were none.
    pub(super) fn clear(&self) -> bool {
        !std::mem::take(&mut *self.kept.borrow_mut()).is_empty()
    }

    pub(super) fn is_spent(&self, number: u64) -> bool {
        let kept = self.kept.borrow();
        kept.get(&number)
            .is_none_or(|it| it.held.stream.is_readable())
    }

    /// Takes the connection with this `number`, if it is still kept.
    pub(super) fn take(&self, number: u64) -> Option<WaitingConnection> {
        let mut kept = self.kept.borrow_mut();
        kept.remove(&number).map(|it| it.held)
    }
}

/// A connection that waits for its client's next request.
pub(super) struct WaitingConnection {
    pub(super) stream: Stream,
    in_use: InUse,
    _counted: CountedClaim,
}

impl WaitingConnection {
    pub(super) fn new(stream: Stream, in_use: InUse, counters: &Rc<Counters>) -> Self {
        Self {
            stream,
            in_use,
            _counted: CountedClaim::new(counters),
        }
    }

    /// It, and what counts it, for the client's next request.
    pub(super) fn into_parts(self) -> (Stream, InUse) {
        (self.stream, self.in_use)
    }
}

/// Counts a waiting connection for as long as it lives.
struct CountedClaim(Rc<Counters>);

impl CountedClaim {
    fn new(counters: &Rc<Counters>) -> Self {
        counters.upstream_pinned.increment();
        Self(Rc::clone(counters))
    }
}

impl Drop for CountedClaim {
    fn drop(&mut self) {
        self.0.upstream_pinned.decrement();
    }
}
