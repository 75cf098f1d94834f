//! Sends the request to the peer.

use std::time::Instant;

use super::{Exchange, Outcome, Stop, Upstream};
use crate::error::{Close, Failure, Refusal};
use crate::http::h1::chunked::BadChunk;
use crate::http::h1::framing::Framing;
use crate::net::{Patience, Wake, Watch};
use crate::proxy::body::outgoing::KeptBody;
use crate::proxy::body::relay::RelayEnd;
use crate::proxy::body::request_body::{FromClient, SMALL_BODY, ToPeer};
use crate::proxy::downstream::{Downstream, Transport};
use crate::proxy::workspace::Workspace;

impl<D: Downstream> Exchange<'_, D> {
    /// Sends the head, and the body as it comes in. Ends early when the peer answers before the
    /// body is complete.
    pub(super) fn send_request(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        self.workspace.response.status = 0;
        let patience = self.patience(self.rules.send_timeout);
        if self.body.is_complete() {
            let head = &self.workspace.to_peer;
            self.worker.metrics().upstream_sent.add(head.len() as u64);
            return match upstream.stream.write_all(head, &patience) {
                Ok(()) => Ok(()),
                // It may have answered before it closed or stopped reading: the answer says more.
                Err(_) if upstream.stream.is_readable_now() => {
                    upstream.has_enough = true;
                    Ok(())
                }
                Err(error) => Err(self.send_failure(&error, upstream.pooled).into()),
            };
        }
        self.send_in_parts(upstream, &patience)
    }

    /// Sends the head, and the body as it comes in.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn send_in_parts(&mut self, upstream: &mut Upstream, patience: &Patience) -> Result<(), Stop> {
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
            let sent = upstream.stream.write_all(pending, patience);
            pending.clear();
            sent.map_err(|error| self.send_failure(&error, upstream.pooled))?;
            self.await_continue(upstream)?;
        }
        // Interim responses may come at any time; a final one ends the sending.
        while self.workspace.response.status < 200 {
            // Another response may have come with the last one.
            if upstream.buffer.is_empty() {
                if upstream.has_enough || self.relay_request_body(upstream)? {
                    return Ok(());
                }
                // The event may have been about bytes read before; waiting for a response that does not
                // come would keep the body from a peer that waits for it.
                if !upstream.stream.is_readable_now() {
                    continue;
                }
            }
            self.read_response_head(upstream)?;
        }
        Ok(())
    }

    /// Waits until the peer responds, or the client sends its body without waiting for consent.
    fn await_continue(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        // Some peers never consent, and some clients wait for a second before they go on without
        // consent; so the peer, which is blamed in the end, has more than its ordinary time.
        let read_timeout = self.rules.read_timeout;
        let deadline = Instant::now() + self.config.gateway.body_timeout.max(read_timeout);
        let deadline = self.until(deadline);
        let watch = self.transport.watch_readable();
        match upstream.stream.wait_readable(deadline, watch) {
            Wake::Ready => self.read_response_head(upstream),
            Wake::Watched => Ok(()),
            Wake::Overdue | Wake::Interrupted => Err(self.overdue(Failure::ReadTimeout).into()),
        }
    }

    /// Relays the request's body. False when the peer responds before the body is complete.
    fn relay_request_body(&mut self, upstream: &mut Upstream) -> Result<bool, Stop> {
        let peer_patience = self.patience(self.rules.send_timeout);
        let Workspace {
            to_peer,
            pending,
            request_options: options,
            trailer,
            ..
        } = &mut *self.workspace;
        // A large one goes through a pipe.
        let is_large =
            matches!(self.plan.framing, Framing::Length(length) if length > SMALL_BODY as u64);
        let client = FromClient {
            transport: self.transport,
            buffer: self.buffer,
            watch: Watch::Readable(&upstream.stream),
            heard: None,
        };
        let peer = ToPeer {
            stream: &upstream.stream,
            pending,
            kept: (!is_large).then_some(KeptBody {
                to: to_peer,
                limit: self.head_length + SMALL_BODY,
            }),
            options,
            patience: &peer_patience,
            until_readable: true,
        };
        let relayed = self.body.relay(client, peer, trailer);
        self.tally.received += relayed.taken;
        self.worker.metrics().upstream_sent.add(relayed.sent);
        match relayed.end {
            RelayEnd::Complete => Ok(true),
            RelayEnd::Watched => Ok(false),
            // It may have answered before it closed: that answer says more than the reset.
            RelayEnd::Sink(_) if upstream.stream.is_readable_now() => {
                upstream.has_enough = true;
                Ok(false)
            }
            RelayEnd::Sink(error) => Err(self.send_failure(&error, upstream.pooled).into()),
            RelayEnd::Stalled if self.is_overdue() => Err(Failure::Deadline.into()),
            fault => Err(Stop::Over(match refusal_of(&fault) {
                Some(refusal) => Outcome::Refused(refusal),
                None => Outcome::Close(Close::BodyCut),
            })),
        }
    }
}

/// The refusal for a client whose body has ended in this way; `None` when the client has gone.
pub(super) fn refusal_of(end: &RelayEnd) -> Option<Refusal> {
    match end {
        RelayEnd::Stalled => Some(Refusal::BodyTimeout),
        RelayEnd::TooLarge => Some(Refusal::BodyTooLarge),
        RelayEnd::Malformed(BadChunk::Coding) => Some(Refusal::BadChunk),
        RelayEnd::Malformed(BadChunk::Trailer) => Some(Refusal::BadTrailer),
        RelayEnd::Malformed(BadChunk::TrailerTooLarge) => Some(Refusal::TrailerTooLarge),
        RelayEnd::Complete | RelayEnd::Cut | RelayEnd::Watched | RelayEnd::Sink(_) => None,
    }
}
