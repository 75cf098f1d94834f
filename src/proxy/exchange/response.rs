//! The response's way to the client.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::keeping::{Exchanged, Keeping};
use super::request::refusal_of;
use super::{Exchange, Outcome, Stop, Upstream, client_lost};
use crate::error::{Close, Failure};
use crate::http::authentication;
use crate::http::fields::{Field, Kind};
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::MessageKind;
use crate::http::h1::encode::{self, Connection, ResponseToClient};
use crate::http::h1::framing::{self, Framing};
use crate::http::h1::head::{BadResponse, Parsed, ResponseHead, Scanner};
use crate::http::version::Version;
use crate::memory::buffer::Buffer;
use crate::net::{self, Patience, Peeked, Stream, Turns, Uptake, Wake, Watch};
use crate::proxy::body::relay::{self, End, Sink, Source};
use crate::proxy::body::request_body::{Dropped, RequestBody};
use crate::proxy::body::tunnel::{self, Twins};
use crate::proxy::body::upload::{RestOfBody, Upload};
use crate::proxy::failsafe::Failsafe;
use crate::proxy::pinned::{Pinned, Taken};
use crate::proxy::workspace::Workspace;
use crate::upstream::pool::Leftover;

/// A client that ends its side so soon after its request has nothing more to ask and waits for the
/// answer, as `printf … | nc` does. One that does so later has most likely closed: TCP tells the two
/// apart only once it is written to.
const ENDS_WITH_REQUEST: Duration = Duration::from_millis(100);

/// So long a peer is listened to that may send the body of a response that must not have one: long
/// enough for the client's own next request, and [not](Leftover) for anybody else's.
const LATE_BODY: Duration = Duration::from_millis(50);

/// How a response passes through.
struct Passage {
    /// How its body comes from the peer.
    framing: Framing,
    /// How it goes to the client.
    framing_down: Framing,
    /// What the peer may send behind it.
    leftover: Leftover,
    /// Why the client was told that its connection ends.
    close: Option<Close>,
}

/// What has ended an upload before its time.
enum Fault {
    /// The client's: so its body ended.
    Client(End),
    /// The peer took nothing of it for too long.
    Peer,
    /// The gateway's own.
    Panic,
}

impl Exchange<'_> {
    /// Waits for the final response (or 101).
    pub(super) fn await_response(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        loop {
            self.read_response_head(upstream)?;
            match self.workspace.response.status {
                101 | 200.. => return Ok(()),
                _ => {}
            }
        }
    }

    /// Reads one head. An interim one is passed on; a 101 or a final one is left for the caller.
    pub(super) fn read_response_head(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let begun = Instant::now();
        let read_timeout = self.config.upstream.read_timeout;
        let mut deadline = begun + read_timeout;
        let mut uptake = Uptake::default();
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
            match self.read_some(upstream, begun, deadline) {
                // A peer that still takes what was sent has not got the whole request yet.
                Err(Failure::ReadTimeout)
                    if !net::are_waits_cut() && uptake.goes_on(&upstream.stream) =>
                {
                    deadline = Instant::now() + read_timeout;
                }
                outcome => outcome?,
            }
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
        if response.status < 200 {
            let checked = framing::check_interim(response, bytes);
            checked.map_err(|_| Failure::BadResponseFraming)?;
        }
        match response.status {
            // HTTP/1.0 knows none of these (RFC 9110 section 15.2).
            100..200 if response.version == Version::Http10 => Err(Failure::BadResponseHead.into()),
            101 if self.switches_as_asked(bytes) && self.body.is_complete() => Ok(()),
            101 => Err(Failure::UnexpectedUpgrade.into()),
            100..200 => self.pass_interim(upstream),
            _ => Ok(()),
        }
    }

    fn switches_as_asked(&self, bytes: &[u8]) -> bool {
        let Workspace {
            asked,
            response,
            response_options: options,
            ..
        } = &*self.workspace;
        encode::switches_as_asked(asked, options, &response.fields, bytes)
    }

    /// Reads some of a response that was waited for since `begun`.
    fn read_some(
        &mut self,
        upstream: &mut Upstream,
        begun: Instant,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (stream, client) = (&upstream.stream, self.downstream);
        let read = loop {
            let watch = match self.client_ended {
                false => Watch::Ended(client),
                true => Watch::Gone(client),
            };
            match stream.wait_readable(deadline, watch) {
                Wake::Ready => {}
                Wake::Watched if client.is_gone() => return Err(Failure::ClientGone),
                // It may be waiting for its answer all the same.
                Wake::Watched => {
                    self.client_ended = true;
                    self.client_gave_up = begun.elapsed() > ENDS_WITH_REQUEST;
                    continue;
                }
                Wake::Overdue | Wake::Interrupted => return Err(Failure::ReadTimeout),
            }
            match stream.read_now(upstream.buffer.room()) {
                // Old news.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => break outcome,
            }
        };
        match read {
            Ok(0) | Err(_) => Err(upstream.closed_early()),
            Ok(count) => {
                upstream.answered = true;
                upstream.buffer.added(count);
                Ok(())
            }
        }
    }

    /// Passes an interim response on, unless it is [too much](Interim): not to an HTTP/1.0 client (RFC
    /// 9110 section 15.2), and 100 only where it was asked for, once.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn pass_interim(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let Workspace {
            response,
            response_options: options,
            to_client,
            ..
        } = &mut *self.workspace;
        let now = Instant::now();
        let verdict = upstream.interim.judge(response.len, now);
        if verdict.is_news {
            self.worker.reports.interim_dropped(self.tally.peer);
        }
        let wanted = match response.status {
            100 => {
                self.plan.expects_continue && !std::mem::replace(&mut self.tally.continued, true)
            }
            _ => true,
        };
        let may_be_sent = verdict.passes && self.plan.version == Version::Http11;
        if wanted && may_be_sent {
            to_client.clear();
            encode::interim(to_client, response, upstream.buffer.filled(), options);
            let patience = Patience::new(self.config.gateway.send_timeout);
            let sent = self.downstream.write_all(to_client, &patience);
            sent.map_err(|error| Stop::Over(client_lost(&error)))?;
            self.tally.sent += to_client.len() as u64;
        }
        upstream.buffer.consume(response.len);
        upstream.turns.moved(response.len);
        let Some(pause) = verdict.pause else {
            return Ok(());
        };
        let read_timeout = self.config.upstream.read_timeout;
        if upstream.interim.is_endless(read_timeout) {
            return Err(Failure::InterimFlood.into());
        }
        let client = Watch::Gone(self.downstream);
        match upstream.stream.pause(now + pause, client) {
            Wake::Watched => Err(Failure::ClientGone.into()),
            _ => Ok(()),
        }
    }

    /// Passes the final response on.
    pub(super) fn respond(&mut self, mut upstream: Upstream) -> Result<Outcome, Stop> {
        if self.is_farewell(&upstream) {
            return Err(Failure::Stale.into());
        }
        let bytes = upstream.buffer.filled();
        let framing = framing::of_response(&self.workspace.response, bytes, self.plan.is_head)
            .map_err(|_| Failure::BadResponseFraming)?;
        // The last word of Negotiate comes with a success (RFC 4559 section 5).
        if self.pins || matches!(self.workspace.response.status, 401 | 407) {
            let fields = &self.workspace.response.fields;
            self.challenged |= authentication::is_of_connection(fields, bytes);
            self.pins |= self.challenged;
        }
        let upload = match self.body_goes_on(&upstream) {
            true => Some(self.begin_upload(&upstream)?),
            false => None,
        };
        let (client, peer) = (self.downstream, &upstream.stream);
        let failsafe = Failsafe::new(|| {
            // The upload has handles of its own.
            client.shutdown_read();
            peer.shutdown_both();
        });
        let passage = self.write_response_head(&mut upstream.buffer, framing, upload.is_some());
        let until_close = passage.framing_down == Framing::UntilClose;
        if until_close {
            // Whatever ends it before its time, be it the end of this process, must not look like its
            // proper end.
            client.abort();
        }
        let sent_before = self.tally.sent;
        let (buffer, upload_under_way) = (&mut upstream.buffer, upload.as_ref());
        let end = self.relay_response_body(peer, buffer, &passage, upload_under_way);
        let nothing_sent = self.tally.sent == sent_before;
        if until_close && (nothing_sent || matches!(end, End::Complete)) {
            client.cancel_abort();
        }
        // A peer that has answered may go on reading, unless the end of its response was its own.
        let reads_on = matches!(end, End::Complete)
            && passage.framing != Framing::UntilClose
            && self.peer_keeps();
        let ahead = upload.is_some();
        let fault = upload.and_then(|upload| self.finish_upload(upload, peer, reads_on));
        failsafe.disarm();
        match (end, fault) {
            (End::Complete, None | Some(Fault::Peer)) => {
                Ok(self.response_is_complete(upstream, &passage, ahead))
            }
            (_, Some(Fault::Peer)) => {
                Err(self.response_is_cut(Failure::SendTimeout, &passage, nothing_sent))
            }
            (end, Some(Fault::Panic)) => Err(Stop::Over(match end {
                End::Complete => Outcome::Close(Close::Panic),
                _ => Outcome::Abort(Close::Panic),
            })),
            // This fault is the cause of whatever the peer has done since.
            (end, Some(Fault::Client(fault))) => {
                let complete = matches!(end, End::Complete);
                let outcome = self.upload_failed(&fault, complete, nothing_sent);
                Err(Stop::Over(outcome))
            }
            (End::Watched, None) => Err(Stop::Over(Outcome::Close(Close::ClientGone))),
            (End::Sink(error), None) => Err(Stop::Over(client_lost(&error))),
            (end, None) => {
                let failure = match end {
                    End::Stalled => Failure::ResponseStalled,
                    End::Malformed(_) => Failure::BadResponseChunk,
                    _ => Failure::ResponseCut,
                };
                Err(self.response_is_cut(failure, &passage, nothing_sent))
            }
        }
    }

    /// True when the peer has told a kept connection that its time is over, by a 408 that nobody had asked
    /// for (RFC 9110 section 15.5.9), when the request was on its way already. It may be the answer to a
    /// request that is not all there, or of which more than the head was sent.
    fn is_farewell(&self, upstream: &Upstream) -> bool {
        upstream.pooled
            && self.workspace.response.status == 408
            && !self.peer_keeps()
            && self.body.is_repeatable()
            && (self.body.is_complete() || self.may_retry(Failure::Stale))
    }

    /// True when the peer answers while the body is still coming, and wants the rest of it.
    fn body_goes_on(&self, upstream: &Upstream) -> bool {
        // Who refuses and does not say that it closes reads the rest to find the next request.
        let closes = self.is_refused() && !self.peer_keeps();
        // A client that was not told to continue takes the answer for the end of the matter.
        let waits =
            self.plan.expects_continue && !self.tally.continued && self.body.is_repeatable();
        // `Connection: close` is about requests to come, not about this one's body.
        !self.body.is_complete() && !upstream.has_enough && !closes && !waits
    }

    fn is_refused(&self) -> bool {
        self.workspace.response.status >= 400
    }

    /// True when the peer will take another request on its connection.
    fn peer_keeps(&self) -> bool {
        let options = &self.workspace.response_options;
        match self.workspace.response.version {
            Version::Http11 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        }
    }

    /// Writes the response's head into `to_client`, from where it goes with the body.
    fn write_response_head(
        &mut self,
        buffer: &mut Buffer,
        framing: Framing,
        body_goes_on: bool,
    ) -> Passage {
        let to_http10 = self.plan.version == Version::Http10;
        let framing_down = match framing {
            Framing::UntilClose if !to_http10 => Framing::Chunked,
            Framing::Chunked if to_http10 => Framing::UntilClose,
            framing => framing,
        };
        let draining = self.worker.gateway().is_draining();
        let complete = self.body.is_complete() || body_goes_on;
        let close = match framing_down {
            Framing::UntilClose => Some(Close::ResponseEnd),
            _ => self.plan.close_reason(complete, draining),
        };
        let Workspace {
            response: head,
            response_options: options,
            to_client,
            ..
        } = &mut *self.workspace;
        to_client.clear();
        let response = ResponseToClient {
            head,
            bytes: buffer.filled(),
            options,
            framing: framing_down,
            version: self.plan.version,
            connection: match close {
                None => Connection::KeepAlive,
                Some(_) => Connection::Close,
            },
        };
        encode::response(to_client, &response);
        let leftover = match speaks_of_absent_body(head, buffer.filled(), framing) {
            true => Leftover::Body,
            false => Leftover::None,
        };
        self.tally.status = head.status;
        buffer.consume(head.len);
        Passage {
            leftover,
            framing,
            framing_down,
            close,
        }
    }

    fn relay_response_body(
        &mut self,
        peer: &Stream,
        buffer: &mut Buffer,
        passage: &Passage,
        upload: Option<&Upload>,
    ) -> End {
        let gateway = &self.config.gateway;
        // A peer that waits for the rest of the body is as slow as the client.
        let peer_patience = Patience::new(match upload.is_some() {
            true => gateway.body_timeout.max(self.config.upstream.read_timeout),
            false => self.config.upstream.read_timeout,
        });
        // Nobody else reads what the client may have to send before it reads.
        let mut drops = upload.is_none() && !self.body.is_complete();
        let heard = match upload {
            Some(upload) => Some(upload.heard()),
            None => drops.then(Rc::default),
        };
        let client_patience = Patience::with_rate(gateway.send_timeout, gateway.min_rate);
        let client_patience = client_patience.hearing(heard.clone());
        let (mut taken, mut pipe, mut ended, mut turns) = (0, None, false, Turns::new());
        let mut reader = BodyReader::new(MessageKind::Response, passage.framing, gateway.limits);
        let end = loop {
            let mut source = Source {
                stream: peer,
                buffer,
                pipe: &mut pipe,
                reader: &mut reader,
                patience: &peer_patience,
                watch: Watch::Gone(self.downstream),
                allowance: None,
                heard: upload.map(Upload::answered),
                broken_off: upload.map(Upload::broken_off),
            };
            let mut sink = Sink {
                stream: self.downstream,
                pending: &mut self.workspace.to_client,
                chunked: passage.framing_down == Framing::Chunked,
                options: &self.workspace.response_options,
                patience: &client_patience,
                until_readable: drops,
                ended: &mut ended,
                sent: &mut self.tally.sent,
            };
            let trailer = &mut self.workspace.trailer;
            let end = relay::relay(&mut source, &mut sink, trailer, &mut taken);
            match (end, &heard) {
                (End::Watched, Some(heard)) if drops && !self.downstream.is_gone() => {
                    drops = self.drop_some(heard, &mut turns);
                }
                (end, _) => break end,
            }
        };
        self.worker.metrics().upstream_received.add(taken);
        end
    }

    /// Drops some of a body that nobody wants; false when no more of it is to be read.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn drop_some(&mut self, heard: &Cell<usize>, turns: &mut Turns) -> bool {
        let (limit, before) = (self.config.gateway.max_discard, self.body.dropped());
        let drop_filled = |body: &mut RequestBody, buffer: &mut Buffer, turns: &mut Turns| {
            let outcome = body.drop_filled(buffer, limit, turns);
            outcome == Dropped::All && body.may_be_dropped(limit)
        };
        // What had come with the head, too.
        let goes_on = drop_filled(self.body, self.buffer, turns)
            && match self.downstream.read_now(self.buffer.room()) {
                Ok(0) => false,
                Ok(count) => {
                    self.buffer.added(count);
                    self.body.patience().moved(count);
                    heard.set(heard.get() + count);
                    turns.moved(count);
                    drop_filled(self.body, self.buffer, turns)
                }
                // Old news.
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
        self.tally.received += self.body.dropped() - before;
        self.buffer.release();
        goes_on
    }

    /// Goes on with the body while the response is passed on.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn begin_upload(&mut self, upstream: &Upstream) -> Result<Upload, Stop> {
        let twins = || Twins::of(self.downstream, &upstream.stream);
        let twins = self.worker.with_descriptors(twins);
        let twins = twins.map_err(|error| self.out_of_descriptors(&error))?;
        let rest = RestOfBody {
            body: self.body.hand_over(),
            buffer: std::mem::take(self.buffer),
            pending: std::mem::take(&mut self.workspace.pending),
            options: std::mem::take(&mut self.workspace.request_options),
            // A peer that is held up by a client who does not read is as slow as that; one that has refused
            // need not read at all.
            send_timeout: match self.is_refused() {
                true => self.config.upstream.send_timeout,
                false => {
                    let of_client = self.config.gateway.send_timeout;
                    of_client.max(self.config.upstream.send_timeout)
                }
            },
            refused: self.is_refused(),
        };
        Upload::begin(twins, rest).map_err(|error| self.out_of_descriptors(&error).into())
    }

    /// Takes back what the upload has left; returns how it has failed, unless the peer was free to
    /// end it.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn finish_upload(&mut self, upload: Upload, peer: &Stream, reads_on: bool) -> Option<Fault> {
        if !reads_on && !upload.has_ended() {
            // The response is over, and nobody waits for the rest.
            peer.shutdown_both();
        }
        let Some(uploaded) = upload.join() else {
            self.worker.metrics().panics.increment();
            return Some(Fault::Panic);
        };
        *self.buffer = uploaded.buffer;
        *self.body = uploaded.body;
        let relayed = uploaded.relayed;
        self.tally.received += relayed.taken;
        self.worker.metrics().upstream_sent.add(relayed.sent);
        match relayed.end {
            End::Complete => None,
            End::Sink(error) if !self.is_refused() && error.kind() == io::ErrorKind::TimedOut => {
                Some(Fault::Peer)
            }
            // The peer has not taken it all.
            End::Watched | End::Sink(_) => None,
            end => Some(Fault::Client(end)),
        }
    }

    /// The client has failed within its body, after the response has begun.
    fn upload_failed(&mut self, fault: &End, complete: bool, nothing_sent: bool) -> Outcome {
        match refusal_of(fault) {
            None if complete => Outcome::Close(Close::BodyCut),
            None => Outcome::Abort(Close::BodyCut),
            Some(refusal) if nothing_sent => {
                self.tally.status = 0;
                Outcome::Refused(refusal)
            }
            Some(refusal) => {
                self.tally.refuse(refusal);
                match complete {
                    true => Outcome::Close(Close::Refused),
                    false => Outcome::Abort(Close::Refused),
                }
            }
        }
    }

    /// The response is complete. It was `ahead` when it began before the request was complete.
    fn response_is_complete(
        &mut self,
        upstream: Upstream,
        passage: &Passage,
        ahead: bool,
    ) -> Outcome {
        let unread = (!self.body.is_complete()).then_some(Close::BodyUnread);
        let close = passage.close.or(unread);
        let ends = passage.framing == Framing::UntilClose;
        let sent = self.body.is_complete() && !upstream.has_enough;
        let is_behind = !upstream.buffer.is_empty();
        if is_behind
            && passage.leftover == Leftover::Body
            && let Some(peer) = self.tally.peer
        {
            self.worker.pool.heard(peer, true);
        }
        if self.peer_keeps() && !ends && sent && !is_behind {
            self.keep(upstream.stream, passage.leftover, ahead, close.is_none());
        }
        close.map_or(Outcome::KeepAlive, Outcome::Close)
    }

    /// The peer has failed within its response.
    fn response_is_cut(&mut self, failure: Failure, passage: &Passage, nothing_sent: bool) -> Stop {
        if nothing_sent {
            self.tally.status = 0;
            return failure.into();
        }
        self.tally.error = Some(failure.name());
        if let (Some(pool), Some(peer)) = (self.tally.pool, self.tally.peer) {
            self.worker
                .reports
                .attempt_failed(pool, peer, failure, None);
        }
        // A length or chunks show by themselves that something is missing, and what was sent
        // should arrive.
        Stop::Over(match passage.framing_down {
            Framing::UntilClose => Outcome::Abort(Close::ResponseCut),
            _ => Outcome::Close(Close::ResponseCut),
        })
    }

    fn out_of_descriptors(&self, error: &io::Error) -> Failure {
        let peer = self.tally.peer.map(|it| it.to_string()).unwrap_or_default();
        log::error!(
            "out-of-descriptors peer={peer} error={:?}",
            error.to_string()
        );
        Failure::OutOfDescriptors
    }

    /// Keeps a connection to the peer, on which both messages are complete, for whom it may serve.
    fn keep(&mut self, stream: Stream, leftover: Leftover, ahead: bool, client_stays: bool) {
        let (Some(peer), Some(pool)) = (self.tally.peer, self.tally.pool) else {
            return;
        };
        let keeping = Keeping::after(Exchanged {
            pins: self.pins,
            ahead,
            upgrade: self.plan.upgrade,
            by_proxy: self.plan.by_proxy,
            client_stays,
        });
        match keeping {
            Keeping::Close => {}
            // The next request on a proxy's connection may be another user's, whatever credentials this one
            // has.
            Keeping::Pin
                if self.plan.by_proxy && !self.challenged && leftover != Leftover::None => {}
            Keeping::Pin => {
                let taken = Taken {
                    stream,
                    peer,
                    pool,
                    challenged: self.challenged,
                };
                let limit = self.config.upstream.keepalive;
                let pinned = Pinned::new(self.worker, taken, self.decided, limit);
                *self.pinned = pinned.map(Box::new);
            }
            Keeping::Pool => {
                let worker = self.worker;
                let leftover = match leftover {
                    _ if self.leftover != Leftover::None => Leftover::Answer,
                    Leftover::Body if worker.pool.is_to_be_heard(peer) => {
                        if !self.is_silent(peer, &stream) {
                            return;
                        }
                        Leftover::Doubtful
                    }
                    leftover => leftover,
                };
                worker.keep_upstream(peer, stream, leftover, self.asker, self.config);
            }
        }
    }

    /// Listens for a moment whether the peer sends the body that must not come; once for each peer.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn is_silent(&self, peer: SocketAddr, stream: &Stream) -> bool {
        let deadline = Instant::now() + LATE_BODY;
        let outcome = loop {
            match stream.wait_readable(deadline, Watch::Nothing) {
                Wake::Ready => match stream.peek_now() {
                    // Old news.
                    Peeked::Nothing => {}
                    peeked => break peeked,
                },
                _ if net::are_waits_cut() => return false,
                _ => break Peeked::Nothing,
            }
        };
        if outcome != Peeked::End {
            let talks = outcome == Peeked::Bytes;
            self.worker.pool.heard(peer, talks);
        }
        outcome == Peeked::Nothing
    }

    /// Passes the 101 on and carries bytes both ways until the tunnel ends.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    pub(super) fn switch_protocols(&mut self, mut upstream: Upstream) -> Result<Outcome, Stop> {
        // Before the client is told, since there is no way back then.
        let twins = || Twins::of(self.downstream, &upstream.stream);
        let twins = self.worker.with_descriptors(twins);
        let twins = twins.map_err(|error| self.out_of_descriptors(&error))?;
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
        // From here on whatever is lost must be seen to be lost, by both sides.
        if let Err(error) = passed {
            upstream.stream.reset();
            return Err(Stop::Over(tunnel_lost(&error)));
        }
        self.tally.sent += to_client.len() as u64;
        let early = self.buffer.filled();
        self.tally.received += early.len() as u64;
        let limit = self.config.gateway.tunnel_timeout;
        let sent = upstream.stream.write_all(early, &Patience::new(limit));
        self.buffer.consume(usize::MAX);
        upstream.buffer.release();
        self.buffer.release();
        if sent.is_err() {
            upstream.stream.reset();
            return Ok(Outcome::Abort(Close::TunnelEnded));
        }
        let carried = match tunnel::carry(self.downstream, &upstream.stream, twins, limit) {
            Ok(carried) => carried,
            Err(error) => {
                log::error!("tunnel-failed error={:?}", error.to_string());
                upstream.stream.reset();
                return Ok(Outcome::Abort(Close::TunnelEnded));
            }
        };
        let metrics = self.worker.metrics();
        let down = carried.down.unwrap_or_default();
        self.tally.received += carried.up;
        self.tally.sent += down;
        metrics.upstream_sent.add(carried.up);
        metrics.upstream_received.add(down);
        if carried.down.is_none() {
            metrics.panics.increment();
            return Ok(Outcome::Abort(Close::Panic));
        }
        Ok(match carried.cut {
            true => Outcome::Abort(Close::TunnelEnded),
            false => Outcome::Close(Close::TunnelEnded),
        })
    }
}

/// How a tunnel ends to whose client the answer cannot be passed on.
fn tunnel_lost(error: &io::Error) -> Outcome {
    match client_lost(error) {
        Outcome::Close(close) => Outcome::Abort(close),
        outcome => outcome,
    }
}

/// True when a response must not have a body, but its head speaks of one: a peer that sends it all
/// the same must not have it taken for the next response.
fn speaks_of_absent_body(head: &ResponseHead, bytes: &[u8], framing: Framing) -> bool {
    let speaks = |field: &Field| match field.kind {
        Kind::ContentLength => field.value.of(bytes) != b"0",
        kind => kind == Kind::TransferEncoding,
    };
    framing == Framing::None && head.fields.iter().any(speaks)
}
