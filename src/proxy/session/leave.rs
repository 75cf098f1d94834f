//! The end of a connection whose client may still be sending.
//!
//! Closing on unread bytes would reset the connection, and a client that only writes until it is done
//! would get an error instead of its answer (RFC 9112 section 9.6). So after the answer the gateway
//! shuts down its own sending and reads on. While a body comes whose end is known, for as long as it
//! comes in time, up to `max_discard` bytes; else for a moment.

use std::io;
use std::time::{Duration, Instant};

use super::Session;
use crate::config::Config;
use crate::error::Close;
use crate::http::h1::framing;
use crate::net::{Turns, Wake};
use crate::proxy::body::unwanted::{self, Dropped, Unread};
use crate::proxy::workspace::Workspace;

/// What a client sends of which nobody can tell where it ends, or behind the end of its body, is read and
/// dropped for so long.
const LINGER: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Finds the body of a request that is refused by its head, where that is one by the grammar and says
    /// how long its body is.
    pub(super) fn find_body(&mut self, config: &Config, workspace: &Workspace) {
        let head = &workspace.request;
        if head.len == 0 {
            return;
        }
        if let Ok(framing) = framing::of_request(head, self.buffer.filled(), None) {
            self.buffer.consume(head.len);
            self.unread = Some(Unread::of(framing, config));
        }
    }

    /// Ends the connection so that the last answer arrives, although the client may be sending.
    pub(super) fn linger(&mut self, close: Close) {
        let expects_more = close == Close::Refused || !self.request_complete;
        if !expects_more && !self.stream.is_readable() && self.buffer.is_empty() {
            return;
        }
        self.stream.shutdown_write();
        if let Some(unread) = self.unread.take()
            && !self.drop_body(unread)
        {
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

    /// Reads the rest of a body and drops it. False when the client has gone or is to go: it has had its
    /// time, or its bytes.
    fn drop_body(&mut self, mut unread: Unread) -> bool {
        let limit = self.worker.config.snapshot().gateway.max_discard;
        // Such a body is not read to its end anyway.
        if !unwanted::is_read(&unread.reader, unread.dropped, limit) {
            return true;
        }
        let mut turns = Turns::new();
        loop {
            // Nothing is lost by then but the word of why.
            if self.worker.gateway().is_draining() {
                return true;
            }
            let (reader, buffer) = (&mut unread.reader, &mut self.buffer);
            match unwanted::drop_filled(reader, buffer, &mut unread.dropped, limit, &mut turns) {
                Dropped::All => {}
                Dropped::Over => return true,
                Dropped::TooMuch => return false,
            }
            self.buffer.release();
            let begun = Instant::now();
            unread.patience.expects(unread.reader.announced());
            let deadline = unread.patience.deadline(begun);
            // A silent client does not hold up the end of the gateway.
            let wake = self.stream.wait_idle(deadline);
            unread.patience.waited_since(begun);
            match wake {
                Wake::Ready => turns.begin(),
                Wake::Interrupted => continue,
                Wake::Overdue | Wake::Watched => return false,
            }
            match self.stream.read_now(self.buffer.room()) {
                Ok(0) => return false,
                Ok(count) => {
                    self.buffer.added(count);
                    unread.patience.moved(count);
                    turns.moved(count);
                }
                // Old news.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
}
