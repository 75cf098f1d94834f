//! Sends the rest of the request's body while the response is already being passed on.

use std::io;

use super::request::refusal_of;
use super::{Exchange, Outcome, Stop, Upstream};
use crate::error::Close;
use crate::net::Stream;
use crate::proxy::body::relay::RelayEnd;
use crate::proxy::body::upload::{RestOfBody, Upload};
use crate::proxy::downstream::Downstream;

/// What has ended an upload early.
pub(super) enum UploadEnd {
    /// The client's: its body ended in this way.
    Client(RelayEnd),
    /// The peer took nothing of it for too long.
    Peer,
    /// An internal error.
    Panic,
}

impl<D: Downstream> Exchange<'_, D> {
    /// True when the peer answers while the body is still coming, and wants the rest of it.
    pub(super) fn body_goes_on(&self, upstream: &Upstream) -> bool {
        // A peer that refuses, and does not say that it closes, reads the rest to find the next request.
        let closes = self.is_refused() && !self.peer_keeps();
        // A client that was not told to continue will not send its body after the answer.
        let waits = self.plan.expects_continue && !self.tally.continued && self.body.is_untouched();
        // `Connection: close` is about requests to come, not about this one's body.
        !self.body.is_complete() && !upstream.has_enough && !closes && !waits
    }

    /// Continues with the body while the response is passed on.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    pub(super) fn begin_upload(&mut self, upstream: &Upstream) -> Result<Upload, Stop> {
        let twins = self.twins(upstream)?;
        let rest = RestOfBody {
            body: self.body.hand_over(),
            buffer: std::mem::take(self.buffer),
            pending: std::mem::take(&mut self.workspace.pending),
            options: std::mem::take(&mut self.workspace.request_options),
            // A peer that is held up by a client that does not read is as slow as that client; one that
            // has refused need not read at all.
            send_timeout: match self.is_refused() {
                true => self.rules.send_timeout,
                false => {
                    let of_client = self.config.gateway.send_timeout;
                    of_client.max(self.rules.send_timeout)
                }
            },
            end: self.end,
            refused: self.is_refused(),
        };
        Upload::begin(twins, rest).map_err(|error| self.out_of_descriptors(&error).into())
    }

    /// Takes back what the upload has left over; returns how it has failed, unless the peer was free to
    /// end it.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    pub(super) fn finish_upload(
        &mut self,
        upload: Upload,
        peer: &Stream,
        reads_on: bool,
    ) -> Option<UploadEnd> {
        if !reads_on && !upload.has_ended() {
            // The response is over, and nothing waits for the rest.
            peer.shutdown_both();
        }
        let Some(uploaded) = upload.join() else {
            self.worker.metrics().panics.increment();
            return Some(UploadEnd::Panic);
        };
        *self.buffer = uploaded.buffer;
        *self.body = uploaded.body;
        let relayed = uploaded.relayed;
        self.tally.received += relayed.taken;
        self.worker.metrics().upstream_sent.add(relayed.sent);
        match relayed.end {
            RelayEnd::Complete => None,
            RelayEnd::Sink(error)
                if !self.is_refused() && error.kind() == io::ErrorKind::TimedOut =>
            {
                Some(UploadEnd::Peer)
            }
            // The peer has not taken all of it.
            RelayEnd::Watched | RelayEnd::Sink(_) => None,
            end => Some(UploadEnd::Client(end)),
        }
    }

    /// The client has failed within its body, after the response has begun.
    pub(super) fn upload_failed(
        &mut self,
        fault: &RelayEnd,
        complete: bool,
        nothing_sent: bool,
    ) -> Outcome {
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

    fn is_refused(&self) -> bool {
        self.workspace.response.status >= 400
    }
}
