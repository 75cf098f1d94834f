//! Waits for the head of the response, and passes interim responses on.

use std::io;
use std::time::{Duration, Instant};

use super::{ClientSide, Exchange, Stop, Upstream, client_lost};
use crate::error::Failure;
use crate::http::h1::encode;
use crate::http::h1::framing;
use crate::http::h1::head::{BadResponse, Parsed, Scanner};
use crate::http::version::Version;
use crate::net::{self, Uptake, Wake};
use crate::proxy::downstream::{Downstream, Transport};
use crate::proxy::workspace::Workspace;

/// A client that ends its side this soon after its request has nothing more to ask and waits for the
/// answer, as `printf … | nc` does. One that does so later has probably closed: TCP distinguishes the
/// two only once something is written to it.
const ENDS_WITH_REQUEST: Duration = Duration::from_millis(100);

impl<D: Downstream> Exchange<'_, D> {
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
        upstream.asked.get_or_insert(begun);
        let read_timeout = self.rules.read_timeout;
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
                // A peer that is still taking what was sent does not have the whole request yet.
                Err(Failure::ReadTimeout)
                    if !net::are_waits_cut() && uptake.goes_on(upstream.stream.unsent()) =>
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
            // HTTP/1.0 has no interim responses (RFC 9110 section 15.2).
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

    /// Reads some of a response; the wait for it began at `begun`.
    fn read_some(
        &mut self,
        upstream: &mut Upstream,
        begun: Instant,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (stream, client) = (&upstream.stream, self.transport);
        let deadline = self.until(deadline);
        let read = loop {
            let watch = match self.client_side {
                ClientSide::Open => client.watch_ended(),
                ClientSide::Ended | ClientSide::GaveUp => client.watch_gone(),
            };
            match stream.wait_readable(deadline, watch) {
                Wake::Ready => {}
                Wake::Watched if client.is_gone() => return Err(Failure::ClientGone),
                // The client may be waiting for its answer all the same.
                Wake::Watched => {
                    self.client_side = match begun.elapsed() > ENDS_WITH_REQUEST {
                        true => ClientSide::GaveUp,
                        false => ClientSide::Ended,
                    };
                    continue;
                }
                Wake::Overdue | Wake::Interrupted => {
                    return Err(self.overdue(Failure::ReadTimeout));
                }
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

    /// What follows when the client cannot be written to.
    fn lost(&self, error: &io::Error) -> Stop {
        match error.kind() == io::ErrorKind::TimedOut && self.is_overdue() {
            true => Failure::Deadline.into(),
            false => Stop::Over(client_lost(error)),
        }
    }

    /// Passes an interim response on, unless it is [too much](super::interim::Interim): not to an
    /// HTTP/1.0 client (RFC 9110 section 15.2), and 100 only once and only if it was asked for.
    // Out of line: its locals would lie on the stack of every other request, too.
    #[inline(never)]
    fn pass_interim(&mut self, upstream: &mut Upstream) -> Result<(), Stop> {
        let (response, now) = (&self.workspace.response, Instant::now());
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
            let (bytes, options) = (upstream.buffer.filled(), &self.workspace.response_options);
            let patience = self.patience(self.config.gateway.send_timeout);
            let sent = self.downstream.interim(response, bytes, options, &patience);
            self.tally.sent += sent.map_err(|error| self.lost(&error))? as u64;
        }
        upstream.buffer.consume(response.len);
        upstream.turns.moved(response.len);
        let Some(pause) = verdict.pause else {
            return Ok(());
        };
        let read_timeout = self.rules.read_timeout;
        if upstream.interim.is_endless(read_timeout) {
            return Err(Failure::InterimFlood.into());
        }
        let client = self.transport.watch_gone();
        match upstream.stream.pause(now + pause, client) {
            Wake::Watched => Err(Failure::ClientGone.into()),
            _ => Ok(()),
        }
    }
}
