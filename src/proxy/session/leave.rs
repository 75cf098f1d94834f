//! The end of a connection whose client may still be sending.
//!
//! Closing with unread bytes would reset the connection, and a client that reads nothing until it has
//! sent everything would get an error instead of its answer (RFC 9112 section 9.6). So after the answer
//! the gateway shuts down its sending side and reads on: a body whose end is known for as long as it
//! arrives in time, up to `max_discard` bytes; anything else for a moment.

use std::io;
use std::time::{Duration, Instant};

use super::Session;
use crate::config::Config;
use crate::error::Close;
use crate::http::h1::framing;
use crate::net::{Turns, Wake};
use crate::proxy::body::request_body::{Dropped, RequestBody};
use crate::proxy::workspace::Workspace;

/// How long bytes are read and dropped that come after a body, or in a body whose end is unknown.
const LINGER: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Finds the body of a request that is refused for its head, if that is well-formed and says how
    /// long the body is.
    pub(super) fn find_body(&mut self, config: &Config, workspace: &Workspace) {
        let head = &workspace.request;
        if head.len == 0 {
            return;
        }
        if let Ok(framing) = framing::of_request(head, self.buffer.filled(), None) {
            self.buffer.consume(head.len);
            self.body = RequestBody::new(framing, config);
        }
    }

    /// Ends the connection so that the last answer arrives, even if the client is still sending.
    pub(super) fn linger(&mut self, close: Close) {
        let expects_more = close == Close::Refused || !self.body.is_complete();
        if !expects_more && !self.stream.is_readable() && self.buffer.is_empty() {
            return;
        }
        self.stream.shutdown_write();
        if self.body.is_under_way() && !self.drop_body() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut turns = Turns::new();
        loop {
            self.buffer.consume(usize::MAX);
            let room = self.buffer.room();
            match self.stream.read_in_turn(room, deadline, &mut turns) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    self.buffer.added(count);
                    turns.moved(count);
                }
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Reads the rest of a body and drops it. False when the client has gone, or has used up its time or
    /// bytes.
    fn drop_body(&mut self) -> bool {
        let limit = self.worker.config.snapshot().gateway.max_discard;
        // Such a body would not be read to its end anyway.
        if !self.body.may_be_dropped(limit) {
            return true;
        }
        let mut turns = Turns::new();
        loop {
            // All that may be lost is the answer's reason.
            if self.worker.gateway().is_draining() {
                return true;
            }
            match self.body.drop_filled(&mut self.buffer, limit, &mut turns) {
                Dropped::All => {}
                Dropped::Over => return true,
                Dropped::TooMuch => return false,
            }
            self.buffer.release();
            let begun = Instant::now();
            let patience = self.body.patience();
            patience.expects(self.body.announced());
            let deadline = patience.deadline(begun);
            // A silent client does not delay the end of the gateway.
            let wake = self.stream.wait_idle(deadline);
            patience.waited_since(begun);
            match wake {
                Wake::Ready => turns.begin(),
                Wake::Interrupted => continue,
                Wake::Overdue | Wake::Watched => return false,
            }
            match self.stream.read_now(self.buffer.room()) {
                Ok(0) => return false,
                Ok(count) => {
                    self.buffer.added(count);
                    patience.moved(count);
                    turns.moved(count);
                }
                // Old news.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
}
