//! One request and its response: attempts on peers, until one answers or none is left.
//!
//! An attempt goes in wire order: take or make a connection (`connection`), send the head and stream the
//! body (`request`), await the head of the response, passing interim ones on (`head`, `interim`), stream
//! the body back (`response`), beside the rest of the request's body if need be (`upload`), keep the
//! connection or close it (`keeping`). After a 101 the connection is a tunnel instead (`switch`). Which
//! peer is asked, whether another attempt may follow, and where, is said in `next`; what an attempt says
//! of its peer, in `blame`.

mod accusation;
mod blame;
mod connection;
mod head;
mod interim;
mod keeping;
mod next;
mod request;
mod response;
mod switch;
#[cfg(test)]
mod tests;
mod upload;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use accusation::{Accusation, PeerVerdict};
use interim::Interim;

use super::body::request_body::RequestBody;
use super::chooser::{Candidates, Chosen};
use super::downstream::{Downstream, Transport};
use super::listening::Listening;
use super::pinned::{Pinned, Pinning};
use super::plan::Plan;
use super::tally::Tally;
use super::worker::Worker;
use super::workspace::Workspace;
use crate::config::{Config, UpstreamSettings};
use crate::error::{Close, Failure, Refusal};
use crate::http::h1::framing;
use crate::lists::PoolName;
use crate::memory::buffer::Buffer;
use crate::net::{self, Patience, Stream, Turns};
use crate::route::Reason;
use crate::upstream::health::Counts;
use crate::upstream::pool::{Asker, InUse, Leftover};

/// How often it is looked for what a request cannot do without: a descriptor, or a peer that may be asked.
const SHORTAGE: Duration = Duration::from_millis(10);

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
    /// Counts it as in use.
    in_use: InUse,
    /// When its answer was first waited for.
    asked: Option<Instant>,
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
pub(super) struct Requester<'a, D: Downstream> {
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
    /// Where that came in.
    pub(super) listening: &'a Listening,
    /// The connection to a peer that is its own, between two requests.
    pub(super) pinned: &'a mut Option<Box<Pinned>>,
}

/// One request on its way.
pub(super) struct Exchange<'a, D: Downstream> {
    worker: &'a Rc<Worker>,
    config: &'a Config,
    /// How the peers of the request's service are asked.
    rules: &'a UpstreamSettings,
    /// Who of them may be asked.
    candidates: Rc<Candidates>,
    plan: &'a Plan,
    downstream: &'a mut D,
    transport: &'a D::Transport,
    buffer: &'a mut Buffer,
    /// Where the client's connection came in.
    listening: &'a Listening,
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
    /// What the attempt under way says of its peer.
    verdict: PeerVerdict,
    /// When all of it has to be over, a tunnel excepted.
    end: Option<Instant>,
    /// How long the head for the peer is.
    head_length: usize,
    /// Peers at which it has failed, of which nobody knows yet whose fault it is.
    accused: Vec<Accusation>,
    /// The peer of the last attempt is out by now, or is about to be.
    last_is_bad: bool,
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

/// A request that is under way at a peer, for as long as this lives.
struct InFlight<'a>(&'a Counts);

impl<'a> InFlight<'a> {
    fn begin(counts: &'a Counts) -> Self {
        counts.in_flight.increment();
        Self(counts)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.decrement();
    }
}

impl<'a, D: Downstream> Exchange<'a, D> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        config: &'a Config,
        (rules, candidates): (&'a UpstreamSettings, Rc<Candidates>),
        plan: &'a Plan,
        client: Requester<'a, D>,
        workspace: &'a mut Workspace,
        tally: &'a mut Tally,
    ) -> Self {
        Self {
            worker,
            config,
            rules,
            candidates,
            plan,
            downstream: client.downstream,
            transport: client.transport,
            buffer: client.buffer,
            listening: client.listening,
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
            verdict: PeerVerdict::None,
            end: None,
            head_length: 0,
            accused: Vec::new(),
            last_is_bad: false,
        }
    }

    /// Tries the client's own connection, if it has one, then peers of `pool`, each a different one, and
    /// then of `prod`.
    pub(super) fn run(&mut self, pool: PoolName) -> Outcome {
        self.workspace.tried.clear();
        self.decided = pool;
        self.head_length = self.workspace.to_peer.len();
        if let Some(deadline) = self.rules.deadline {
            self.end = Some(Instant::now() + deadline);
        }
        self.body.patience().ends_at(self.end);
        let outcome = self.try_all();
        if !self.accused.is_empty() {
            self.judge(&outcome);
        }
        // What may still be read of it after the answer has its own time.
        self.body.patience().ends_at(None);
        outcome
    }

    fn try_all(&mut self) -> Outcome {
        if self.pinned.is_some()
            && let Some(outcome) = self.try_pinned()
        {
            return outcome;
        }
        let (mut pool, mut tries, mut last) = (self.decided, self.workspace.tried.len(), None);
        loop {
            let Some(chosen) = self.next_peer(pool, tries) else {
                if pool == PoolName::Pre && self.falls_back() {
                    (pool, tries) = (PoolName::Prod, 0);
                    continue;
                }
                return Outcome::Failed(last.unwrap_or(Failure::NoneUsable));
            };
            if self.transport.is_gone() {
                chosen.is_given_up();
                return Outcome::Close(Close::ClientGone);
            }
            tries += 1;
            self.workspace.tried.push(chosen.peer().address);
            self.tally.upstream_begun.get_or_insert_with(Instant::now);
            self.name_peer(&chosen);
            let failure = match self.try_peer(&chosen) {
                Ok(outcome) | Err(Stop::Over(outcome)) => {
                    chosen.is_given_up();
                    return outcome;
                }
                Err(Stop::Failed(failure)) => failure,
            };
            self.leave(chosen);
            if net::are_waits_cut() || !self.may_retry(failure) {
                return given_up(failure);
            }
            if self.is_overdue() {
                return Outcome::Failed(Failure::Deadline);
            }
            last = Some(failure);
        }
    }

    /// True when its time is over.
    fn is_overdue(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// When a wait for the peer ends, that would end at `at`.
    fn until(&self, at: Instant) -> Instant {
        self.end.map_or(at, |end| end.min(at))
    }

    /// The name of what has failed because its time was over: the `failure`, or that of the exchange.
    fn overdue(&self, failure: Failure) -> Failure {
        match self.is_overdue() && !net::are_waits_cut() {
            true => Failure::Deadline,
            false => failure,
        }
    }

    /// For a peer or a client that may be silent for `budget`.
    fn patience(&self, budget: Duration) -> Patience {
        let patience = Patience::new(budget);
        patience.ends_at(self.end);
        patience
    }

    /// Why the request could not be sent.
    fn send_failure(&self, error: &io::Error, pooled: bool) -> Failure {
        match error.kind() {
            io::ErrorKind::TimedOut => self.overdue(Failure::SendTimeout),
            _ if pooled => Failure::Stale,
            _ => Failure::SendFailed,
        }
    }

    /// Tries the client's own connection to a peer. `None` when there is none for this request, or when
    /// the request may be sent elsewhere: then the user has to authenticate again.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn try_pinned(&mut self) -> Option<Outcome> {
        let falls_back = self.rules.fallback;
        let pinned = *self.pinned.take()?;
        let (taken, chosen) = pinned.take(self.decided, &self.candidates, falls_back)?;
        let reason = self.tally.reason;
        if chosen.pool != self.decided {
            self.tally.reason = Some(Reason::PreExhausted);
        }
        self.tally.upstream_begun.get_or_insert_with(Instant::now);
        self.worker.metrics().upstream_reuses.increment();
        let worker = self.worker;
        self.candidates.note_request(chosen.pool, worker.index());
        self.pinning = match taken.challenged {
            true => Pinning::Challenged,
            false => Pinning::Claimed,
        };
        self.name_peer(&chosen);
        let address = chosen.peer().address;
        let outcome = self.attempt(&chosen, taken.stream, taken.in_use, true);
        self.account(&chosen, &outcome, None);
        let failure = match outcome {
            Ok(outcome) | Err(Stop::Over(outcome)) => return Some(outcome),
            Err(Stop::Failed(failure)) => failure,
        };
        self.leave(chosen);
        if net::are_waits_cut() || !self.may_retry(failure) {
            return Some(given_up(failure));
        }
        if self.is_overdue() {
            return Some(Outcome::Failed(Failure::Deadline));
        }
        // Otherwise the peer itself has not failed.
        if failure != Failure::Stale {
            self.workspace.tried.push(address);
        }
        self.pinning = claimed_by(self.plan);
        self.tally.pool = Some(self.decided);
        self.tally.reason = reason;
        None
    }

    /// Notes whom the request is sent to.
    fn name_peer(&mut self, chosen: &Chosen) {
        self.tally.pool = Some(chosen.pool);
        self.tally.peer = Some(chosen.peer().address);
        let grown = self.workspace.mark_with(chosen.pool);
        self.head_length = self.head_length.saturating_add_signed(grown);
    }

    /// Sends the request and passes the response on.
    fn attempt(
        &mut self,
        chosen: &Chosen,
        stream: Stream,
        in_use: InUse,
        pooled: bool,
    ) -> Result<Outcome, Stop> {
        let _in_flight = InFlight::begin(chosen.counts(self.worker.index()));
        let mut upstream = Upstream {
            stream,
            in_use,
            asked: None,
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
        if self.is_farewell(&upstream) {
            return Err(Failure::Stale.into());
        }
        // Where nobody can tell how long a response is, its head is no answer.
        let bytes = upstream.buffer.filled();
        let framing = framing::of_response(&self.workspace.response, bytes, self.plan.is_head)
            .map_err(|_| Failure::BadResponseFraming)?;
        self.head_has_come(chosen, &upstream);
        if self.workspace.response.status == 101 {
            return self.switch_protocols(upstream);
        }
        self.respond(upstream, framing)
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

/// How an exchange ends when the client cannot be written to. A slow client's unread bytes must not stay
/// with the kernel for as long as it likes, hence the abort.
fn client_lost(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::TimedOut => Outcome::Abort(Close::SendTimeout),
        _ => Outcome::Close(Close::ClientGone),
    }
}
