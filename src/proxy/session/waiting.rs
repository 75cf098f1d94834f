//! Waiting for a client: for a request, and for the header of a proxy in front.

use std::time::{Duration, Instant};

use super::dormant::Parked;
use super::{Pause, Session};
use crate::error::Close;
use crate::http::client;
use crate::http::proxy_protocol::{self, Header, Malformed};
use crate::net::{self, Wake};

/// Clients may send this before a request, once.
const EMPTY_LINE: &[u8] = b"\r\n";

/// A client that has been silent for this long is parked.
const SILENCE: Duration = Duration::from_secs(1);

/// During a drain, a new connection still has this long to bring its first request.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// A wait for a client.
struct IdleWait {
    deadline: Instant,
    /// Why the connection ends then.
    close: Close,
    /// From when on it may be parked.
    park: Option<Instant>,
    /// It may go on in another process.
    moves: bool,
}

impl Session<'_> {
    /// Lets the connection wait without a coroutine.
    pub(super) fn park(self) -> Result<(), Close> {
        let (deadline, close) = self.time_to_ask();
        let (sessions, dormant) = (self.sessions, self.dormant);
        // What has run out here would be missing for its next request, too.
        let connection = self.stream.detach().map_err(|_| Close::OverCapacity)?;
        let parked = Parked {
            dormant,
            deadline,
            close,
        };
        sessions.park(connection, parked)
    }

    /// Has the connection go on in another process.
    pub(super) fn move_on(self) -> Close {
        let (worker, dormant) = (self.worker, self.dormant);
        match self.stream.detach() {
            Ok(connection) => dormant.move_to_heir(worker, &connection),
            Err(_) => Close::OverCapacity,
        }
    }

    /// Reads the header of the proxy in front; it gets no answer.
    pub(super) fn read_proxy_header(&mut self) -> Result<(), Pause> {
        let config = self.worker.config.snapshot();
        if !client::is_trusted(self.dormant.socket, &config.gateway.trusted_proxies) {
            return Err(Pause::End(Close::UntrustedProxy));
        }
        let mut idle = IdleWait {
            deadline: self.dormant.since + config.gateway.head_timeout,
            close: Close::HeadTimeout,
            park: None,
            moves: true,
        };
        loop {
            match proxy_protocol::parse(self.buffer.filled()) {
                Ok(Header::Incomplete) => {}
                Ok(Header::Complete { len, source }) => {
                    self.buffer.consume(len);
                    match source {
                        Some(source) => self.dormant.socket = client::canonical(source.ip()),
                        // A proxy that passes bytes on has not seen the fields in them, whose
                        // writer it does not name.
                        None => self.dormant.vouched = false,
                    }
                    self.dormant.header_due = false;
                    self.dormant.since = Instant::now();
                    return Ok(());
                }
                Err(Malformed) => return Err(Pause::End(Close::BadProxyHeader)),
            }
            if self.buffer.is_empty() {
                self.wait_idle(&mut idle, &[])?;
                continue;
            }
            match self.stream.read(self.buffer.room(), idle.deadline) {
                Ok(0) => return Err(Pause::End(Close::ClientClosed)),
                Ok(count) => self.buffer.added(count),
                Err(_) if net::are_waits_cut() => return Err(Pause::End(Close::Draining)),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(Pause::End(Close::HeadTimeout));
                }
                Err(_) => return Err(Pause::End(Close::ClientGone)),
            }
        }
    }

    /// Waits, holding nothing, until bytes of a request are there. The empty line that a client may
    /// send before it (RFC 9112 section 2.2) is none of them while nothing follows.
    pub(super) fn wait_for_request(&mut self) -> Result<(), Pause> {
        if self.has_request() {
            return Ok(());
        }
        let (deadline, close) = self.time_to_ask();
        let mut idle = IdleWait {
            deadline,
            close,
            park: None,
            // Whoever is authenticated on a connection to a peer cannot go elsewhere.
            moves: self.dormant.pinned.is_none(),
        };
        let may_park = self.sessions.may_park();
        idle.park = may_park.then(|| self.dormant.since.max(self.begun) + SILENCE);
        while !self.has_request() {
            self.dormant.line += self.buffer.filled().len();
            self.buffer.consume(usize::MAX);
            // It is judged with what follows, as if both had come at once.
            self.wait_idle(&mut idle, &EMPTY_LINE[..self.dormant.line])?;
            self.dormant.line = 0;
        }
        Ok(())
    }

    /// Until when a request may come, and why the connection ends then.
    fn time_to_ask(&self) -> (Instant, Close) {
        let config = self.worker.config.snapshot();
        let (limit, close) = match self.dormant.served {
            0 => (config.gateway.head_timeout, Close::HeadTimeout),
            _ => (config.gateway.keepalive_timeout, Close::KeepaliveTimeout),
        };
        (self.dormant.since + limit, close)
    }

    /// Waits, holding nothing, until bytes are there, and reads them behind those that were laid
    /// `aside`.
    fn wait_idle(&mut self, idle: &mut IdleWait, aside: &[u8]) -> Result<(), Pause> {
        self.buffer.release();
        loop {
            let heir = self.worker.gateway().heir.get().is_some();
            // Nothing runs between this look and the wait, so an interruption is never missed. The
            // kernel is asked, since the news of a request may not have arrived yet.
            // One that cannot move has all of the drain's time, unless nobody goes on.
            let draining = idle.close != Close::Draining
                && self.worker.gateway().is_draining()
                && (idle.moves || self.worker.gateway().ends_silent_tunnels());
            if draining && !self.stream.is_readable_now() {
                if idle.moves && heir {
                    return Err(Pause::Move);
                }
                idle.close = Close::Draining;
                if self.dormant.served > 0 {
                    return Err(idle.close.into());
                }
                idle.park = None;
                idle.deadline = idle.deadline.min(Instant::now() + DRAIN_GRACE);
            }
            let until = idle.park.map_or(idle.deadline, |it| it.min(idle.deadline));
            match self.stream.wait_idle(until) {
                Wake::Ready => {}
                Wake::Overdue if net::are_waits_cut() => return Err(Close::Draining.into()),
                Wake::Overdue if until < idle.deadline => return Err(Pause::Silence),
                Wake::Overdue => return Err(idle.close.into()),
                Wake::Interrupted | Wake::Watched => continue,
            }
            self.buffer.put(aside);
            match self.stream.read_now(self.buffer.room()) {
                Ok(0) => return Err(Close::ClientClosed.into()),
                Ok(count) => {
                    self.buffer.added(count);
                    return Ok(());
                }
                // Old news.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.buffer.consume(aside.len());
                    self.buffer.release();
                }
                Err(_) => return Err(Close::ClientClosed.into()),
            }
        }
    }

    /// True when there are bytes, and not just (a part of) an empty line.
    fn has_request(&self) -> bool {
        !EMPTY_LINE.starts_with(self.buffer.filled())
    }
}
