//! Passes the final response to the client.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::keeping::Kept;
use super::upload::UploadEnd;
use super::{Exchange, Outcome, PeerVerdict, Stop, Upstream, client_lost};
use crate::error::{Close, Failure};
use crate::http::authentication;
use crate::http::fields::{Field, FieldKind};
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::MessageKind;
use crate::http::h1::encode::{Connection, ResponseToClient};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::ResponseHead;
use crate::http::keep_alive;
use crate::memory::buffer::Buffer;
use crate::net::{self, Moment, Patience, Stream, Turns};
use crate::proxy::body::relay::{self, RelayEnd, Sink, Source};
use crate::proxy::body::request_body::{Dropped, RequestBody};
use crate::proxy::body::upload::Upload;
use crate::proxy::disclosure;
use crate::proxy::downstream::{Downstream, Transport, Wait};
use crate::proxy::failsafe::Failsafe;
use crate::proxy::pinned::Pinning;
use crate::proxy::workspace::Workspace;
use crate::upstream::pool::Leftover;

/// How a response is passed on.
struct Passage {
    /// How its body comes from the peer.
    framing: Framing,
    /// How it goes to the client.
    framing_down: Framing,
    /// What the peer may still send after it.
    leftover: Leftover,
    /// When its head was there, and maybe all of it.
    answered: Moment,
    /// How long the peer keeps an idle connection, as it says.
    announced: Option<Duration>,
    /// Why the client was told that its connection ends.
    close: Option<Close>,
}

impl<D: Downstream> Exchange<'_, D> {
    /// Passes the final response on, whose body comes in this `framing`.
    pub(super) fn respond(
        &mut self,
        mut upstream: Upstream,
        framing: Framing,
    ) -> Result<Outcome, Stop> {
        let bytes = upstream.buffer.filled();
        // The last message of Negotiate comes with a successful response (RFC 4559 section 5).
        let is_asked = matches!(self.workspace.response.status, 401 | 407);
        if (is_asked || self.pinning != Pinning::None)
            && authentication::is_of_connection(&self.workspace.response.fields, bytes)
        {
            self.pinning = Pinning::Challenged;
        }
        let upload = match self.body_goes_on(&upstream) {
            true => Some(self.begin_upload(&upstream)?),
            false => None,
        };
        let (client, peer) = (self.transport, &upstream.stream);
        let failsafe = Failsafe::new(|| {
            // The upload has handles of its own.
            client.shutdown_read();
            peer.shutdown_both();
        });
        let passage = self.write_response_head(&mut upstream.buffer, framing, upload.is_some());
        let until_close = passage.framing_down == Framing::UntilClose;
        if until_close {
            // If it is cut short, even by the end of this process, that must not look like its proper
            // end.
            client.abort();
        }
        let sent_before = self.tally.sent;
        let (buffer, upload_under_way) = (&mut upstream.buffer, upload.as_ref());
        let end = self.relay_response_body(peer, buffer, &passage, upload_under_way);
        let nothing_sent = self.tally.sent == sent_before;
        if until_close && (nothing_sent || matches!(end, RelayEnd::Complete)) {
            client.cancel_abort();
        }
        // A peer that has answered may go on reading, unless its response ended with the connection.
        let reads_on = matches!(end, RelayEnd::Complete)
            && passage.framing != Framing::UntilClose
            && self.peer_keeps();
        let ahead = upload.is_some();
        let fault = upload.and_then(|upload| self.finish_upload(upload, peer, reads_on));
        failsafe.disarm();
        if self.end.is_some()
            && let Some(stop) = self.has_run_out(&end, fault.as_ref(), &passage, nothing_sent)
        {
            return Err(stop);
        }
        match (end, fault) {
            (RelayEnd::Complete, None | Some(UploadEnd::Peer)) => {
                Ok(self.response_is_complete(upstream, &passage, ahead))
            }
            (_, Some(UploadEnd::Peer)) => {
                Err(self.response_is_cut(Failure::SendTimeout, &passage, nothing_sent))
            }
            (end, Some(UploadEnd::Panic)) => Err(Stop::Over(match end {
                RelayEnd::Complete => Outcome::Close(Close::Panic),
                _ => Outcome::Abort(Close::Panic),
            })),
            // This fault has caused whatever the peer did afterwards.
            (end, Some(UploadEnd::Client(fault))) => {
                let complete = matches!(end, RelayEnd::Complete);
                let outcome = self.upload_failed(&fault, complete, nothing_sent);
                Err(Stop::Over(outcome))
            }
            (RelayEnd::Watched, None) => Err(Stop::Over(Outcome::Close(Close::ClientGone))),
            (RelayEnd::Sink(error), None) => Err(Stop::Over(client_lost(&error))),
            (end, None) => {
                let failure = match end {
                    RelayEnd::Stalled => Failure::ResponseStalled,
                    RelayEnd::Malformed(_) => Failure::BadResponseChunk,
                    _ => Failure::ResponseCut,
                };
                Err(self.response_is_cut(failure, &passage, nothing_sent))
            }
        }
    }

    /// How the exchange ends if its time was over before its bodies were.
    fn has_run_out(
        &mut self,
        end: &RelayEnd,
        fault: Option<&UploadEnd>,
        passage: &Passage,
        nothing_sent: bool,
    ) -> Option<Stop> {
        let client_stalls = end.is_timeout_of_sink();
        let is_timeout =
            |end: &RelayEnd| matches!(end, RelayEnd::Stalled) || end.is_timeout_of_sink();
        let timed_out = match fault {
            Some(UploadEnd::Client(end)) => is_timeout(end),
            Some(UploadEnd::Peer) => true,
            Some(UploadEnd::Panic) => return None,
            None => is_timeout(end),
        };
        if !timed_out || !self.is_overdue() || net::are_waits_cut() {
            return None;
        }
        let stop = match end {
            // There was no time left for the rest of the request.
            RelayEnd::Complete => {
                self.tally.error = Some(Failure::Deadline.name());
                Stop::Over(Outcome::Close(Close::BodyUnread))
            }
            _ => self.response_is_cut(Failure::Deadline, passage, nothing_sent),
        };
        Some(match stop {
            // What it has not taken must not stay with the kernel for as long as it likes.
            Stop::Over(Outcome::Close(close)) if client_stalls => Stop::Over(Outcome::Abort(close)),
            stop => stop,
        })
    }

    /// True when the peer has ended a kept connection for being idle, by an unsolicited 408 (RFC 9110
    /// section 15.5.9), while the request was on its way already. If the request is incomplete, or more
    /// than its head was sent, the 408 may be the answer to it.
    pub(super) fn is_farewell(&self, upstream: &Upstream) -> bool {
        upstream.pooled
            && self.workspace.response.status == 408
            && !self.peer_keeps()
            && self.body.is_untouched()
            && (self.body.is_complete() || self.may_retry(Failure::Stale))
    }

    /// Passes the response's head on, which goes with the body.
    fn write_response_head(
        &mut self,
        buffer: &mut Buffer,
        framing: Framing,
        body_goes_on: bool,
    ) -> Passage {
        let framing_down = self.downstream.framing(framing);
        let ending = self.worker.gateway().ending(self.listening);
        let complete = self.body.is_complete() || body_goes_on;
        let close = match framing_down {
            Framing::UntilClose => Some(Close::ResponseEnd),
            _ => self.plan.close_reason(complete, ending),
        };
        let Workspace {
            response: head,
            response_options: options,
            added,
            ..
        } = &mut *self.workspace;
        added.clear();
        disclosure::put(added, &self.config.gray, self.tally);
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
            added,
        };
        let head_length = self.downstream.head(&response);
        self.tally.note_head(head_length);
        let leftover = match speaks_of_absent_body(head, buffer.filled(), framing) {
            true => Leftover::Body,
            false => Leftover::None,
        };
        let announced = keep_alive::timeout(&head.fields, buffer.filled());
        self.tally.status = head.status;
        buffer.consume(head.len);
        Passage {
            leftover,
            answered: Moment::now(),
            announced,
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
    ) -> RelayEnd {
        let gateway = &self.config.gateway;
        // A peer that waits for the rest of the body is as slow as the client.
        let peer_patience = self.patience(match upload.is_some() {
            true => gateway.body_timeout.max(self.rules.stall_timeout),
            false => self.rules.stall_timeout,
        });
        // Nothing else reads what the client may have to send before it reads.
        let mut drops = upload.is_none() && !self.body.is_complete();
        let heard = match upload {
            Some(upload) => Some(upload.heard()),
            None => drops.then(Rc::default),
        };
        let client_patience = Patience::with_rate(gateway.send_timeout, gateway.min_rate);
        let client_patience = client_patience.hearing(heard.clone());
        client_patience.ends_at(self.end);
        let (mut taken, mut pipe, mut turns) = (0, None, Turns::new());
        let mut reader = BodyReader::new(MessageKind::Response, passage.framing, gateway.limits);
        let end = loop {
            let mut source = Source {
                from: peer,
                buffer,
                pipe: &mut pipe,
                reader: &mut reader,
                patience: &peer_patience,
                watch: self.transport.watch_gone(),
                allowance: None,
                heard: upload.map(Upload::answered),
                broken_off: upload.map(Upload::broken_off),
            };
            let mut sink = Sink {
                to: self.downstream,
                options: &self.workspace.response_options,
                wait: Wait {
                    patience: &client_patience,
                    until_readable: drops,
                },
                sent: &mut self.tally.sent,
            };
            let trailer = &mut self.workspace.trailer;
            let end = relay::relay(&mut source, &mut sink, trailer, &mut taken);
            match (end, &heard) {
                (RelayEnd::Watched, Some(heard)) if drops && !self.transport.is_gone() => {
                    drops = self.drop_some(heard, &mut turns);
                }
                (end, _) => break end,
            }
        };
        self.worker.metrics().upstream_received.add(taken);
        end
    }

    /// Drops some of a body that is not wanted; false when no more of it is to be read.
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
            && match self.transport.read_now(self.buffer.room()) {
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
            self.keep(Kept {
                stream: upstream.stream,
                in_use: upstream.in_use,
                leftover: passage.leftover,
                answered: passage.answered,
                announced: passage.announced,
                ahead,
                client_stays: close.is_none(),
            });
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
        self.verdict = PeerVerdict::Cut(failure);
        // A length or chunks show by themselves that something is missing, and what was sent should
        // still arrive.
        Stop::Over(match passage.framing_down {
            Framing::UntilClose => Outcome::Abort(Close::ResponseCut),
            _ => Outcome::Close(Close::ResponseCut),
        })
    }
}

/// True when a response must not have a body, but its head announces one: if the peer sends it all the
/// same, it must not be taken for the next response.
fn speaks_of_absent_body(head: &ResponseHead, bytes: &[u8], framing: Framing) -> bool {
    let speaks = |field: &Field| match field.kind {
        FieldKind::ContentLength => field.value.of(bytes) != b"0",
        kind => kind == FieldKind::TransferEncoding,
    };
    framing == Framing::None && head.fields.iter().any(speaks)
}
