//! One request and its response: attempts on peers, until one answers or none is left.
//!
//! An attempt goes in wire order: take or make a connection, send the head and stream the body
//! (`request`), await the head of the response, passing interim ones on (`head`, `interim`), stream the
//! body back (`response`), beside the rest of the request's body if need be (`upload`), keep the
//! connection or close it (`keeping`). After a 101 the connection is a tunnel instead (`switch`). The
//! rules for another attempt are in [`Exchange::may_retry`].

mod head;
mod interim;
mod keeping;
mod request;
mod response;
mod switch;
#[cfg(test)]
mod tests;
mod upload;

use std::io;
use std::rc::Rc;
use std::time::Instant;

use interim::Interim;

use super::body::request_body::RequestBody;
use super::downstream::{Downstream, Transport};
use super::pinned::{Pinned, Pinning};
use super::plan::Plan;
use super::tally::Tally;
use super::worker::Worker;
use super::workspace::Workspace;
use crate::config::Config;
use crate::error::{Close, Failure, Refusal, Retry};
use crate::lists::{Peer, PoolName, Pools};
use crate::memory::buffer::Buffer;
use crate::net::{self, Stream, Turns};
use crate::route::Reason;
use crate::upstream::choose::choose;
use crate::upstream::peer;
use crate::upstream::pool::{Asker, Leftover};

/// How an exchange ended.
pub(super) enum Outcome {
    /// The response is complete, and another request may follow.
    KeepAlive,
    /// The response is complete, or none is possible; the connection ends.
    Close(Close),
    /// The response is not complete, which the client must be able to see.
    Abort(Close),
    /// Nothing was answered yet, and the client is at fault.
    Refused(Refusal),
    /// Nothing was answered yet, and no peer is left.
    Failed(Failure),
}

/// Why an attempt ended without an outcome for the client.
enum Stop {
    /// The peer failed before anything of its response was passed on.
    Failed(Failure),
    /// The exchange is over, through no fault of the peer.
    Over(Outcome),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One connection to a peer during one attempt.
struct Upstream {
    stream: Stream,
    buffer: Buffer,
    /// It has served before, so it may turn out to be closed.
    pooled: bool,
    /// Bytes of a response have come.
    answered: bool,
    /// Interim responses so far.
    interim: Interim,
    /// Its turns among the worker's other connections.
    turns: Turns,
    /// It takes nothing more of the request, so it would not understand another one.
    has_enough: bool,
}

/// Whose request it is.
pub(super) struct Client<'a, D: Downstream> {
    /// What takes the response.
    pub(super) downstream: &'a mut D,
    /// What the request's body comes from.
    pub(super) transport: &'a D::Transport,
    /// Bytes received and not yet used.
    pub(super) buffer: &'a mut Buffer,
    /// The request's.
    pub(super) body: &'a mut RequestBody,
    /// Which of its worker's connections it is.
    pub(super) connection: u64,
    /// The connection to a peer that is its own, between two requests.
    pub(super) pinned: &'a mut Option<Box<Pinned>>,
}

/// One request on its way.
pub(super) struct Exchange<'a, D: Downstream> {
    worker: &'a Rc<Worker>,
    config: &'a Config,
    pools: &'a Pools,
    plan: &'a Plan,
    downstream: &'a mut D,
    transport: &'a D::Transport,
    buffer: &'a mut Buffer,
    /// The connection to a peer that is the client's own, between two requests.
    pinned: &'a mut Option<Box<Pinned>>,
    pinning: Pinning,
    /// Who is asking, for connections to peers that only one client's next request may use.
    asker: Asker,
    /// What may still arrive on the connection in use from an earlier request.
    leftover: Leftover,
    /// The pool that the request is for.
    decided: PoolName,
    workspace: &'a mut Workspace,
    tally: &'a mut Tally,
    /// The request's.
    body: &'a mut RequestBody,
    client_side: ClientSide,
}

/// Whether the client may still send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientSide {
    Open,
    /// It sends nothing more, though it may still read.
    Ended,
    /// It has ended its side so long after its request that it has probably given up.
    GaveUp,
}

impl<'a, D: Downstream> Exchange<'a, D> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        config: &'a Config,
        pools: &'a Pools,
        plan: &'a Plan,
        client: Client<'a, D>,
        workspace: &'a mut Workspace,
        tally: &'a mut Tally,
    ) -> Self {
        Self {
            worker,
            config,
            pools,
            plan,
            downstream: client.downstream,
            transport: client.transport,
            buffer: client.buffer,
            pinned: client.pinned,
            pinning: claimed_by(plan),
            asker: match plan.by_proxy {
                true => Asker::Anybody,
                false => Asker::Connection(client.connection),
            },
            leftover: Leftover::None,
            decided: PoolName::Prod,
            workspace,
            tally,
            body: client.body,
            client_side: ClientSide::Open,
        }
    }

    /// Tries the client's own connection, if it has one, then peers of `pool`, each a different one, and
    /// then of `prod`.
    pub(super) fn run(&mut self, pool: PoolName) -> Outcome {
        self.workspace.tried.clear();
        self.decided = pool;
        if self.pinned.is_some()
            && let Some(outcome) = self.try_pinned()
        {
            return outcome;
        }
        let (mut pool, mut tries, mut last) = (pool, 0, Failure::ConnectFailed);
        loop {
            let tried = &self.workspace.tried;
            let peers = self.pools[pool].peers();
            let random = |below| fastrand::usize(..below);
            let next = match tries < self.config.upstream.tries {
                true => choose(peers, tried, random),
                false => None,
            };
            let Some(peer) = next else {
                if pool == PoolName::Pre && self.falls_back() {
                    (pool, tries) = (PoolName::Prod, 0);
                    continue;
                }
                return Outcome::Failed(last);
            };
            if self.transport.is_gone() {
                return Outcome::Close(Close::ClientGone);
            }
            tries += 1;
            self.workspace.tried.push(peer.address());
            self.tally.peer = Some(peer.address());
            self.tally.upstream_begun.get_or_insert_with(Instant::now);
            match self.try_peer(pool, peer) {
                Ok(outcome) | Err(Stop::Over(outcome)) => return outcome,
                Err(Stop::Failed(failure)) if net::are_waits_cut() || !self.may_retry(failure) => {
                    return given_up(failure);
                }
                Err(Stop::Failed(failure)) => last = failure,
            }
        }
    }

    /// Tries the client's own connection to a peer. `None` when there is none for this request, or when
    /// the request may be sent elsewhere: then the user has to authenticate again.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn try_pinned(&mut self) -> Option<Outcome> {
        let falls_back = self.config.upstream.fallback;
        let pinned = *self.pinned.take()?;
        let (taken, peer) = pinned.take(self.decided, self.pools, falls_back)?;
        let pool = taken.pool;
        let reason = self.tally.reason;
        if pool != self.decided {
            self.tally.reason = Some(Reason::PreExhausted);
        }
        self.tally.pool = Some(pool);
        self.tally.peer = Some(peer.address());
        self.tally.upstream_begun.get_or_insert_with(Instant::now);
        self.worker.metrics().upstream_reuses.increment();
        self.pinning = match taken.challenged {
            true => Pinning::Challenged,
            false => Pinning::Claimed,
        };
        let outcome = self.attempt(taken.stream, true);
        self.account(pool, peer, &outcome, None);
        match outcome {
            Ok(outcome) | Err(Stop::Over(outcome)) => return Some(outcome),
            Err(Stop::Failed(failure)) if net::are_waits_cut() || !self.may_retry(failure) => {
                return Some(given_up(failure));
            }
            // The peer itself has not failed.
            Err(Stop::Failed(Failure::Stale)) => {}
            Err(Stop::Failed(_)) => self.workspace.tried.push(peer.address()),
        }
        self.pinning = claimed_by(self.plan);
        self.tally.pool = Some(self.decided);
        self.tally.reason = reason;
        None
    }

    /// Every attempt on `pre` has failed: goes on with `prod` if that is allowed and possible.
    fn falls_back(&mut self) -> bool {
        if !self.config.upstream.fallback || self.pools.prod.is_empty() {
            return false;
        }
        self.worker.metrics().fallbacks_exhausted.increment();
        self.tally.pool = Some(PoolName::Prod);
        self.tally.reason = Some(Reason::PreExhausted);
        true
    }

    /// Whether another attempt may follow. Always after a connection that could not be made. Once bytes
    /// of the request were sent, only if sending them twice has the same effect as once (RFC 9110
    /// section 9.2.2), they are still here, and so, as far as one can tell, is the client.
    fn may_retry(&self, failure: Failure) -> bool {
        match failure.retry() {
            Retry::Always => true,
            Retry::IfIdempotent => self.may_repeat(self.plan.is_idempotent),
            // While the body waits for the peer's consent (RFC 9110 section 10.1.1), the peer does not
            // have the request. Other requests may have been acted on as soon as their head was sent.
            Retry::UnlessAwaited => {
                let waits = self.plan.expects_continue && !self.body.is_complete();
                self.may_repeat(self.plan.is_idempotent || waits)
            }
            Retry::Never => false,
        }
    }

    fn may_repeat(&self, is_harmless: bool) -> bool {
        is_harmless && self.body.is_repeatable() && self.client_side != ClientSide::GaveUp
    }

    /// Tries one peer: on an idle connection if there is one, and on a new one if there is none or it
    /// turns out to be closed.
    fn try_peer(&mut self, pool: PoolName, peer: &Peer) -> Result<Outcome, Stop> {
        if let Some(found) = self.worker.pool.checkout(peer.address(), self.asker) {
            self.worker.metrics().upstream_reuses.increment();
            self.leftover = found.leftover;
            let outcome = self.attempt(found.stream, true);
            self.account(pool, peer, &outcome, None);
            match outcome {
                // The peer itself has not failed.
                Err(Stop::Failed(Failure::Stale)) if self.may_retry(Failure::Stale) => {}
                outcome => return outcome,
            }
        }
        self.leftover = Leftover::None;
        let limit = self.config.upstream.connect_timeout;
        let connect = || peer::connect(peer, limit, self.transport.watch_gone());
        let (outcome, error) = match self.worker.with_descriptors(connect) {
            Ok(stream) => {
                self.worker.metrics().upstream_connects.increment();
                (self.attempt(stream, false), None)
            }
            Err(error) => (Err(Stop::Failed(peer::failure_of(&error))), Some(error)),
        };
        self.account(pool, peer, &outcome, error.as_ref());
        outcome
    }

    fn account(
        &mut self,
        pool: PoolName,
        peer: &Peer,
        outcome: &Result<Outcome, Stop>,
        error: Option<&io::Error>,
    ) {
        self.tally.attempts += 1;
        match outcome {
            Ok(_) => self.worker.metrics().attempts_ok[pool as usize].increment(),
            Err(Stop::Failed(failure)) => {
                self.worker
                    .reports
                    .attempt_failed(pool, peer.address(), *failure, error)
            }
            // It is unknown how the peer would have fared, or it is accounted for already.
            Err(Stop::Over(_)) => {}
        }
    }

    fn out_of_descriptors(&self, error: &io::Error) -> Failure {
        let peer = self.tally.peer.map(|it| it.to_string()).unwrap_or_default();
        log::error!(
            "out-of-descriptors peer={peer} error={:?}",
            error.to_string()
        );
        Failure::OutOfDescriptors
    }

    /// Sends the request and passes the response on.
    fn attempt(&mut self, stream: Stream, pooled: bool) -> Result<Outcome, Stop> {
        let mut upstream = Upstream {
            stream,
            buffer: Buffer::new(),
            pooled,
            answered: false,
            interim: Interim::default(),
            turns: Turns::new(),
            has_enough: false,
        };
        self.send_request(&mut upstream)?;
        // Others that are served meanwhile get the memory while it is in the cache.
        self.buffer.release();
        // A final response may have come before the body was complete.
        if self.workspace.response.status < 200 {
            self.await_response(&mut upstream)?;
        }
        if self.workspace.response.status == 101 {
            return self.switch_protocols(upstream);
        }
        self.respond(upstream)
    }
}

impl Upstream {
    fn closed_early(&self) -> Failure {
        match self.pooled && !self.answered {
            true => Failure::Stale,
            false => Failure::ClosedEarly,
        }
    }
}

/// What the request says of a connection on which nothing else was.
fn claimed_by(plan: &Plan) -> Pinning {
    match plan.authenticates_connection {
        true => Pinning::Claimed,
        false => Pinning::None,
    }
}

/// How an exchange ends whose last attempt has failed.
fn given_up(failure: Failure) -> Outcome {
    match failure {
        Failure::ClientGone if !net::are_waits_cut() => Outcome::Close(Close::ClientGone),
        failure => Outcome::Failed(failure),
    }
}

fn send_failure(error: &io::Error, pooled: bool) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::SendTimeout,
        _ if pooled => Failure::Stale,
        _ => Failure::SendFailed,
    }
}

/// How an exchange ends when the client cannot be written to. A slow client's unread bytes must not stay
/// with the kernel for as long as it likes, hence the abort.
fn client_lost(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::TimedOut => Outcome::Abort(Close::SendTimeout),
        _ => Outcome::Close(Close::ClientGone),
    }
}
