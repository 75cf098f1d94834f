//! One request and its response: attempts on peers, until one answers or none is left.
//!
//! An attempt goes in wire order: take or make a connection, send the head, stream the body, await
//! the head of the response (interim responses are passed on), stream the body back, keep the
//! connection or close it. The rules for another attempt stand in [`Exchange::may_retry`].

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::relay::{self, End, Sink, Source};
use super::tally::Tally;
use super::{Worker, Workspace, tunnel};
use crate::buffer::Buffer;
use crate::config::Config;
use crate::error::{Close, Failure, Refusal, Retry};
use crate::http::body::BodyReader;
use crate::http::chunked::BadChunk;
use crate::http::encode::{self, Connection, ResponseToClient};
use crate::http::framing::{self, Framing};
use crate::http::head::{BadResponse, Parsed, Scanner, Version};
use crate::lists::Lists;
use crate::net::{Patience, Stream, Wake, Watch};
use crate::route::{self, PoolName, Reason};
use crate::upstream::peer;

/// Interim responses of one exchange that are passed on; a peer that sends more is at fault.
const MAX_INTERIM: usize = 16;

/// What an exchange has to know of the request, once the bytes of its head are gone.
pub(super) struct Plan {
    pub(super) framing: Framing,
    pub(super) version: Version,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
    pub(super) expects_continue: bool,
    pub(super) upgrade: bool,
    /// The client wants to keep the connection.
    pub(super) keep_alive: bool,
}

impl Plan {
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Why the connection must end after the response, if it must.
    pub(super) fn close_reason(&self, complete: bool, draining: bool) -> Option<Close> {
        match () {
            () if !self.keep_alive => Some(Close::ConnectionClose),
            () if !complete => Some(Close::BodyUnread),
            () if draining => Some(Close::Draining),
            () => None,
        }
    }
}

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
}

/// One request on its way.
pub(super) struct Exchange<'a> {
    worker: &'a Worker,
    config: &'a Config,
    lists: &'a Lists,
    plan: &'a Plan,
    downstream: &'a Stream,
    buffer: &'a mut Buffer,
    workspace: &'a mut Workspace,
    tally: &'a mut Tally,
    /// The request's body on its way in.
    body: BodyReader,
    /// With the client, while its body comes in.
    body_patience: Patience,
    /// Content of the body that may still come.
    body_allowance: Option<u64>,
    /// Bytes of the body were taken from the buffer, so that it cannot be sent again.
    body_begun: bool,
    /// The body is complete.
    body_complete: bool,
}

impl<'a> Exchange<'a> {
    #[allow(clippy::too_many_arguments)] // The one place where all of them meet.
    pub(super) fn new(
        worker: &'a Worker,
        config: &'a Config,
        lists: &'a Lists,
        plan: &'a Plan,
        downstream: &'a Stream,
        buffer: &'a mut Buffer,
        workspace: &'a mut Workspace,
        tally: &'a mut Tally,
    ) -> Self {
        Self {
            worker,
            config,
            lists,
            plan,
            downstream,
            buffer,
            workspace,
            tally,
            body: BodyReader::new(plan.framing, config.gateway.limits),
            body_patience: Patience::with_rate(
                config.gateway.body_timeout,
                config.gateway.min_rate,
            ),
            body_allowance: config.gateway.max_body,
            body_begun: false,
            body_complete: !plan.has_body(),
        }
    }

    /// True once the whole request has been taken.
    pub(super) fn request_is_complete(&self) -> bool {
        self.body_complete
    }

    /// Tries peers of `pool`, each a different one, and then of `prod`.
    pub(super) fn run(&mut self, pool: PoolName) -> Outcome {
        self.workspace.tried.clear();
        let (mut pool, mut last) = (pool, Failure::ConnectFailed);
        loop {
            let tried = &self.workspace.tried;
            let peers = pool.peers(self.lists);
            let random = |below| fastrand::usize(..below);
            let next = match tried.len() < self.config.upstream.tries {
                true => route::pick(peers, tried, random),
                false => None,
            };
            let Some(peer) = next else {
                if pool == PoolName::Pre && self.falls_back() {
                    pool = PoolName::Prod;
                    continue;
                }
                return Outcome::Failed(last);
            };
            self.workspace.tried.push(peer);
            self.tally.peer = Some(peer);
            self.tally.upstream_begun.get_or_insert_with(Instant::now);
            match self.try_peer(pool, peer) {
                Ok(outcome) | Err(Stop::Over(outcome)) => return outcome,
                Err(Stop::Failed(failure)) if self.may_retry(failure) => last = failure,
                Err(Stop::Failed(Failure::ClientGone)) => return Outcome::Close(Close::ClientGone),
                Err(Stop::Failed(failure)) => return Outcome::Failed(failure),
            }
        }
    }

    /// Every attempt on `pre` has failed: goes on with `prod` if that is allowed and possible.
    fn falls_back(&mut self) -> bool {
        if !self.config.upstream.fallback || self.lists.prod.is_empty() {
            return false;
        }
        self.worker.metrics().fallbacks_exhausted.one();
        self.tally.pool = Some(PoolName::Prod);
        self.tally.reason = Some(Reason::PreExhausted);
        self.workspace.tried.clear();
        true
    }

    /// Another attempt may follow a connection that could not be made; once bytes of the request
    /// were sent, only if sending them twice means no more than once (RFC 9110 section 9.2.2) and
    /// they are still here.
    fn may_retry(&self, failure: Failure) -> bool {
        match failure.retry() {
            Retry::Always => true,
            Retry::IfIdempotent => self.plan.is_idempotent && !self.body_begun,
            Retry::Never => false,
        }
    }

    /// One peer: an idle connection if there is one, and a new one if there is none or the idle
    /// one turns out to be closed.
    fn try_peer(&mut self, pool: PoolName, peer: SocketAddr) -> Result<Outcome, Stop> {
        // What cannot be sent twice is not sent on a connection that is known to be closed.
        let sound = |stream: &Stream| self.plan.is_idempotent || !stream.is_readable_now();
        if let Some(stream) = self.worker.pool.checkout(peer).filter(sound) {
            self.worker.metrics().upstream_reuses.one();
            let outcome = self.attempt(stream, true);
            self.account(pool, peer, &outcome, None);
            match outcome {
                // The peer itself has not failed.
                Err(Stop::Failed(Failure::Stale)) if self.may_retry(Failure::Stale) => {}
                outcome => return outcome,
            }
        }
        let limit = self.config.upstream.connect_timeout;
        let (outcome, error) = match peer::connect(peer, limit, self.downstream, &self.worker.pool)
        {
            Ok(stream) => {
                self.worker.metrics().upstream_connects.one();
                (self.attempt(stream, false), None)
            }
            Err((failure, error)) => (Err(Stop::Failed(failure)), Some(error)),
        };
        self.account(pool, peer, &outcome, error.as_ref());
        outcome
    }

    fn account(
        &mut self,
        pool: PoolName,
        peer: SocketAddr,
        outcome: &Result<Outcome, Stop>,
        error: Option<&io::Error>,
    ) {
        self.tally.attempts += 1;
        match outcome {
            Ok(_) => self.worker.metrics().attempts_ok[super::label(Some(pool)) as usize].one(),
            Err(Stop::Failed(failure)) => self.worker.failed(pool, peer, *failure, error),
            // Nobody can tell how the peer would have done, or it is accounted for already.
            Err(Stop::Over(_)) => {}
        }
    }

    /// Sends the request and passes the response on.
    fn attempt(&mut self, stream: Stream, pooled: bool) -> Result<Outcome, Stop> {
        let mut upstream = Upstream {
            stream,
            buffer: Buffer::new(),
            pooled,
            answered: false,
        };
        self.send_request(&mut upstream)?;
        // A final response may have come before the body was complete.
        if self.workspace.response.status < 200 {
            self.await_response(&mut upstream)?;
        }
        if self.workspace.response.status == 101 {
            return self.switch_protocols(upstream);
        }
        self.respond(upstream)
    }

    /// Sends the head, and the body as it comes in. Ends early when the peer answers before the
    /// body is complete.
    fn send_request(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        self.workspace.response.status = 0;
        let patience = Patience::new(self.config.upstream.send_timeout);
        if self.body_complete {
            let head = &self.workspace.to_peer;
            self.worker.metrics().upstream_sent.add(head.len() as u64);
            let sent = upstream.stream.write_all(head, &patience);
            return sent.map_err(|error| send_failure(&error, upstream.pooled).into());
        }
        let Workspace {
            to_peer, pending, ..
        } = &mut *self.workspace;
        pending.clear();
        pending.extend_from_slice(to_peer);
        if self.plan.expects_continue && self.buffer.is_empty() {
            self.worker
                .metrics()
                .upstream_sent
                .add(pending.len() as u64);
            let sent = upstream.stream.write_all(pending, &patience);
            pending.clear();
            sent.map_err(|error| send_failure(&error, upstream.pooled))?;
            self.await_continue(upstream)?;
        }
        // Interim responses may come at any time; a final one ends the sending.
        while self.workspace.response.status < 200 {
            if self.relay_request_body(upstream)? {
                return Ok(());
            }
            self.read_response_head(upstream)?;
        }
        Ok(())
    }

    /// Waits until the peer says something, or the client sends its body unbidden.
    fn await_continue(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let deadline = Instant::now() + self.config.gateway.body_timeout;
        let watch = Watch::Readable(self.downstream);
        match upstream.stream.wait_readable(deadline, watch) {
            Wake::Ready => self.read_response_head(upstream),
            Wake::Watched => Ok(()),
            Wake::Overdue | Wake::Interrupted => {
                Err(Stop::Over(Outcome::Refused(Refusal::BodyTimeout)))
            }
        }
    }

    /// Relays the request's body. False when the peer speaks before the body is complete.
    fn relay_request_body(&mut self, upstream: &mut Upstream) -> Result<bool, Stop> {
        let (mut taken, mut sent) = (0, 0);
        let peer_patience = Patience::new(self.config.upstream.send_timeout);
        let mut source = Source {
            stream: self.downstream,
            buffer: self.buffer,
            reader: &mut self.body,
            patience: &self.body_patience,
            watch: Watch::Readable(&upstream.stream),
            allowance: self.body_allowance,
        };
        let mut sink = Sink {
            stream: &upstream.stream,
            pending: &mut self.workspace.pending,
            chunked: self.plan.framing == Framing::Chunked,
            patience: &peer_patience,
            sent: &mut sent,
        };
        let end = relay::relay(
            &mut source,
            &mut sink,
            &mut self.workspace.trailer,
            &mut taken,
        );
        self.body_allowance = source.allowance;
        self.body_begun |= taken > 0;
        self.tally.received += taken;
        self.worker.metrics().upstream_sent.add(sent);
        let refused = |refusal| Err(Stop::Over(Outcome::Refused(refusal)));
        match end {
            End::Complete => {
                self.body_complete = true;
                Ok(true)
            }
            End::Watched => Ok(false),
            End::Cut => Err(Stop::Over(Outcome::Close(Close::BodyCut))),
            End::Stalled => refused(Refusal::BodyTimeout),
            End::TooLarge => refused(Refusal::BodyTooLarge),
            End::Malformed(BadChunk::Coding) => refused(Refusal::BadChunk),
            End::Malformed(BadChunk::Trailer) => refused(Refusal::BadTrailer),
            End::Malformed(BadChunk::TrailerTooLarge) => refused(Refusal::TrailerTooLarge),
            // It may have answered before it closed: that answer says more than the reset.
            End::Sink(_) if upstream.stream.is_readable() => Ok(false),
            End::Sink(error) => Err(send_failure(&error, upstream.pooled).into()),
        }
    }

    /// Waits for the final response (or 101).
    fn await_response(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        loop {
            self.read_response_head(upstream)?;
            match self.workspace.response.status {
                101 | 200.. => return Ok(()),
                _ => {}
            }
        }
    }

    /// Reads one head. An interim one is passed on; a 101 or a final one is left for the caller.
    fn read_response_head(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let deadline = Instant::now() + self.config.upstream.read_timeout;
        let limits = &self.config.gateway.limits;
        let mut scanner = Scanner::default();
        loop {
            if !upstream.buffer.is_empty() {
                let bytes = upstream.buffer.filled();
                match self.workspace.response.parse(bytes, &mut scanner, limits) {
                    Ok(Parsed::Complete) => break,
                    Ok(Parsed::Incomplete) => {}
                    Err(BadResponse::Malformed) => return Err(Failure::BadResponseHead.into()),
                    Err(BadResponse::TooLarge) => return Err(Failure::ResponseHeadTooLarge.into()),
                }
            }
            self.read_some(upstream, deadline)?;
        }
        let (response, bytes) = (&self.workspace.response, upstream.buffer.filled());
        self.worker
            .metrics()
            .upstream_received
            .add(response.len as u64);
        if !self
            .workspace
            .response_options
            .read(bytes, &response.fields)
        {
            return Err(Failure::BadResponseHead.into());
        }
        match response.status {
            101 if self.plan.upgrade && self.body_complete => Ok(()),
            101 => Err(Failure::UnexpectedUpgrade.into()),
            100..200 => self.pass_interim(upstream),
            _ => Ok(()),
        }
    }

    fn read_some(&self, upstream: &mut Upstream, deadline: Instant) -> Result<(), Failure> {
        match upstream
            .stream
            .wait_readable(deadline, Watch::Gone(self.downstream))
        {
            Wake::Ready => {}
            Wake::Watched => return Err(Failure::ClientGone),
            Wake::Overdue | Wake::Interrupted => return Err(Failure::ReadTimeout),
        }
        match upstream.stream.read(upstream.buffer.room(), deadline) {
            Ok(0) => Err(upstream.closed_early()),
            Ok(count) => {
                upstream.answered = true;
                upstream.buffer.added(count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::ReadTimeout),
            Err(_) => Err(upstream.closed_early()),
        }
    }

    /// Passes an interim response on: not to an HTTP/1.0 client (RFC 9110 section 15.2), and 100
    /// only where it was asked for, once.
    fn pass_interim(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let Workspace {
            response,
            response_options: options,
            to_client,
            ..
        } = &mut *self.workspace;
        self.tally.interim += 1;
        if self.tally.interim > MAX_INTERIM {
            return Err(Failure::TooManyInterim.into());
        }
        let wanted = match response.status {
            100 => {
                self.plan.expects_continue && !std::mem::replace(&mut self.tally.continued, true)
            }
            _ => true,
        };
        if wanted && self.plan.version == Version::Http11 {
            to_client.clear();
            encode::interim(to_client, response, upstream.buffer.filled(), options);
            let patience = Patience::new(self.config.gateway.send_timeout);
            let sent = self.downstream.write_all(to_client, &patience);
            sent.map_err(|error| Stop::Over(client_lost(&error)))?;
            self.tally.sent += to_client.len() as u64;
        }
        upstream.buffer.consume(response.len);
        Ok(())
    }

    /// Passes the final response on.
    fn respond(&mut self, mut upstream: Upstream) -> Result<Outcome, Stop> {
        let Workspace {
            response: head,
            response_options: options,
            to_client,
            trailer,
            ..
        } = &mut *self.workspace;
        let bytes = upstream.buffer.filled();
        let framing = framing::of_response(head, bytes, self.plan.is_head)
            .map_err(|_| Failure::BadResponseFraming)?;
        let to_http10 = self.plan.version == Version::Http10;
        let framing_down = match framing {
            Framing::UntilClose if !to_http10 => Framing::Chunked,
            Framing::Chunked if to_http10 => Framing::UntilClose,
            framing => framing,
        };
        let draining = self.worker.gateway.is_draining();
        let close = match framing_down {
            Framing::UntilClose => Some(Close::ResponseEnd),
            _ => self.plan.close_reason(self.body_complete, draining),
        };
        to_client.clear();
        let response = ResponseToClient {
            head,
            bytes,
            options,
            framing: framing_down,
            version: self.plan.version,
            connection: match close {
                None => Connection::KeepAlive,
                Some(_) => Connection::Close,
            },
        };
        encode::response(to_client, &response);
        let peer_keeps = match head.version {
            Version::Http11 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        };
        self.tally.status = head.status;
        upstream.buffer.consume(head.len);

        let (mut taken, sent_before) = (0, self.tally.sent);
        let mut reader = BodyReader::new(framing, self.config.gateway.limits);
        let peer_patience = Patience::new(self.config.upstream.read_timeout);
        let gateway = &self.config.gateway;
        let client_patience = Patience::with_rate(gateway.send_timeout, gateway.min_rate);
        let mut source = Source {
            stream: &upstream.stream,
            buffer: &mut upstream.buffer,
            reader: &mut reader,
            patience: &peer_patience,
            watch: Watch::Gone(self.downstream),
            allowance: None,
        };
        let mut sink = Sink {
            stream: self.downstream,
            pending: to_client,
            chunked: framing_down == Framing::Chunked,
            patience: &client_patience,
            sent: &mut self.tally.sent,
        };
        let end = relay::relay(&mut source, &mut sink, trailer, &mut taken);
        self.worker.metrics().upstream_received.add(taken);
        let nothing_sent = self.tally.sent == sent_before;
        let failure = match end {
            End::Complete => {
                let ends = framing == Framing::UntilClose;
                if peer_keeps && !ends && self.body_complete && upstream.buffer.is_empty() {
                    self.keep(upstream.stream);
                }
                return Ok(close.map_or(Outcome::KeepAlive, Outcome::Close));
            }
            End::Watched => return Err(Stop::Over(Outcome::Close(Close::ClientGone))),
            End::Sink(error) => return Err(Stop::Over(client_lost(&error))),
            End::Stalled => Failure::ResponseStalled,
            End::Malformed(_) => Failure::BadResponseChunk,
            End::Cut | End::TooLarge => Failure::ResponseCut,
        };
        if nothing_sent {
            self.tally.status = 0;
            return Err(failure.into());
        }
        self.tally.error = Some(failure.name());
        if let (Some(pool), Some(peer)) = (self.tally.pool, self.tally.peer) {
            self.worker.failed(pool, peer, failure, None);
        }
        Err(Stop::Over(Outcome::Abort(Close::ResponseCut)))
    }

    fn keep(&self, stream: Stream) {
        if let Some(peer) = self.tally.peer {
            self.worker.keep_upstream(peer, stream, self.config);
        }
    }

    /// Passes the 101 on and carries bytes both ways until the tunnel ends.
    fn switch_protocols(&mut self, mut upstream: Upstream) -> Result<Outcome, Stop> {
        let Workspace {
            response: head,
            response_options: options,
            to_client,
            ..
        } = &mut *self.workspace;
        to_client.clear();
        let response = ResponseToClient {
            head,
            bytes: upstream.buffer.filled(),
            options,
            framing: Framing::None,
            version: self.plan.version,
            connection: Connection::Upgrade,
        };
        encode::response(to_client, &response);
        self.tally.status = head.status;
        upstream.buffer.consume(head.len);
        // What the peer has sent behind its head belongs to the new protocol already, and so does
        // what the client has sent behind its own.
        to_client.extend_from_slice(upstream.buffer.filled());
        let limit = self.config.gateway.send_timeout;
        let passed = self.downstream.write_all(to_client, &Patience::new(limit));
        passed.map_err(|error| Stop::Over(client_lost(&error)))?;
        self.tally.sent += to_client.len() as u64;
        let early = self.buffer.filled();
        self.tally.received += early.len() as u64;
        let over = Ok(Outcome::Close(Close::TunnelEnded));
        let patience = Patience::new(self.config.upstream.send_timeout);
        if upstream.stream.write_all(early, &patience).is_err() {
            return over;
        }
        self.buffer.consume(usize::MAX);
        let limits = tunnel::Limits {
            idle: self.config.gateway.tunnel_timeout,
            send: limit,
        };
        upstream.buffer.release();
        self.buffer.release();
        match tunnel::carry(self.downstream, &upstream.stream, limits) {
            Ok(carried) => {
                self.tally.received += carried.up;
                self.tally.sent += carried.down;
                let metrics = self.worker.metrics();
                metrics.upstream_sent.add(carried.up);
                metrics.upstream_received.add(carried.down);
            }
            Err(error) => log::error!("tunnel-failed error={:?}", error.to_string()),
        }
        over
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

fn send_failure(error: &io::Error, pooled: bool) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::SendTimeout,
        _ if pooled => Failure::Stale,
        _ => Failure::SendFailed,
    }
}

/// How an exchange ends when the client cannot be written to. What a slow client has not taken
/// must not stay with the kernel for as long as the client likes.
fn client_lost(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::TimedOut => Outcome::Abort(Close::SendTimeout),
        _ => Outcome::Close(Close::ClientGone),
    }
}
