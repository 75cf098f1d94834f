//! A connection to a peer that serves one client connection only, and is kept for its next request.
//!
//! Such is the connection that was authenticated, or is being: what comes on it counts as that user's.
//! It stays with its client connection, also while that is parked, and is closed with it. So there
//! is at most one to each client connection, and `max_connections` bounds them.
//!
//! That holds where the peer itself has asked for such an authentication on it. Where only the client has
//! spoken of one, which costs a word, the connection is a [claim](super::claims::Claims): an idle one like
//! those of the pool, and no more of them are kept, nor for longer.
//!
//! It goes before its time where it is of no use any more: when the peer has closed it or has sent
//! bytes that nobody asked for, when the next request is for another pool or service, or when its peer is
//! in none or out.
//! Then the next request goes another way, as the first one did, and whoever has to authenticate begins
//! anew.

use std::net::SocketAddr;
use std::rc::Rc;

use super::chooser::{Candidates, Chosen};
use super::claims::WaitingConnection;
use super::worker::Worker;
use crate::lists::PoolName;
use crate::net::Stream;
use crate::upstream::pool::InUse;
use crate::upstream::serving::ServiceRef;

/// One of them, between two requests.
pub(super) struct Pinned {
    place: PinnedPlace,
    /// The service of its first request.
    service: ServiceRef,
    peer: SocketAddr,
    /// The pool that its first request was for.
    decided: PoolName,
    /// The pool of its peer, which is another where the first one had none left.
    pool: PoolName,
}

/// Whether the connection in use is its client's own from now on, and on whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pinning {
    /// It is not.
    None,
    /// The client has sent credentials that authenticate a connection.
    Claimed,
    /// The peer has asked for such an authentication on it.
    Challenged,
}

/// Where it is.
enum PinnedPlace {
    /// Here, for as long as its client stays.
    Here(WaitingConnection),
    /// With the worker's claims.
    Claimed(Ticket),
}

/// One that was taken for a request.
pub(super) struct Taken {
    pub(super) stream: Stream,
    /// Counts it.
    pub(super) in_use: InUse,
    pub(super) service: ServiceRef,
    pub(super) peer: SocketAddr,
    pub(super) pool: PoolName,
    /// The peer has asked for such an authentication on it.
    pub(super) challenged: bool,
}

impl Pinned {
    /// `limit` is how many mere claims a worker keeps for a peer.
    pub(super) fn new(
        worker: &Rc<Worker>,
        taken: Taken,
        decided: PoolName,
        limit: usize,
    ) -> Option<Self> {
        let Taken {
            stream,
            in_use,
            service,
            peer,
            pool,
            challenged,
        } = taken;
        let held = WaitingConnection::new(stream, in_use, &worker.counters);
        let place = match challenged {
            true => PinnedPlace::Here(held),
            false => PinnedPlace::Claimed(Ticket {
                number: worker.claims.keep(peer, held, limit)?,
                worker: Rc::clone(worker),
            }),
        };
        worker.look_later();
        Some(Self {
            place,
            service,
            peer,
            decided,
            pool,
        })
    }

    /// The connection and its peer, if it may serve a request for the pool `decided` of the service with
    /// these candidates. Asks the kernel whether anything has come on it.
    pub(super) fn take(
        self,
        decided: PoolName,
        candidates: &Candidates,
        falls_back: bool,
    ) -> Option<(Taken, Chosen)> {
        let is_for_it = self.decided == decided
            && (self.pool == decided || falls_back)
            && self.service.is(candidates.service());
        if !is_for_it {
            return None;
        }
        let chosen = candidates.find(self.pool, self.peer)?;
        let challenged = matches!(self.place, PinnedPlace::Here(_));
        let (stream, in_use) = match self.place {
            PinnedPlace::Here(held) => held.into_parts(),
            PinnedPlace::Claimed(ticket) => ticket.take()?.into_parts(),
        };
        let is_sound = !stream.is_readable_now();
        let taken = Taken {
            stream,
            in_use,
            service: self.service,
            peer: self.peer,
            pool: self.pool,
            challenged,
        };
        is_sound.then_some((taken, chosen))
    }

    /// True when something has come on it, as far as events tell, or it was closed, or its peer is not to be
    /// asked: it serves nobody any more.
    pub(super) fn is_spent(&self, worker: &Worker) -> bool {
        let candidates = worker.candidates_of(self.service);
        if candidates.is_none_or(|it| !it.is_usable(self.pool, self.peer)) {
            return true;
        }
        match &self.place {
            PinnedPlace::Here(held) => held.stream.is_readable(),
            PinnedPlace::Claimed(ticket) => ticket.worker.claims.is_spent(ticket.number),
        }
    }
}

/// A client's right to its claim, which ends with it.
struct Ticket {
    worker: Rc<Worker>,
    number: u64,
}

impl Ticket {
    fn take(&self) -> Option<WaitingConnection> {
        self.worker.claims.take(self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(self.take());
    }
}
