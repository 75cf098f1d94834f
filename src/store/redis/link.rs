//! A connection to a Redis server, or to a Sentinel. Everything on it has a deadline.
//!
//! The library provides commands, replies and the parser. Its own connection is not used: it has no
//! deadline for resolving a name, for a TLS handshake as a whole or for a reply that trickles in, and it
//! gives up on a late reply. The parser is given complete replies only.

mod connect;
mod received;
mod resolver;
mod stream;
mod waker;

use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use socket2::Socket;

use self::connect::{connect, connect_to};
use self::received::Received;
use self::resolver::{MORE, PROMPT, Resolution, begin_to_resolve};
use self::stream::{LinkStream, Pinging, TimedSocket, left};
pub(crate) use self::waker::{Hearing, Waker};
use super::errors::{at, describe, is_refusal, of_select, reworded};
use super::password;
use super::reply::Bounds;
use crate::config::{self, Address, Login};

/// The time for a whole reply, as a multiple of the limit for silence.
const WHOLE: u32 = 15;

/// An authenticated connection.
pub(crate) struct Link {
    address: Address,
    /// The other side: one of the addresses to which the name resolved.
    peer: Option<SocketAddr>,
    /// What the name resolves to now, as soon as that is known.
    meaning: Option<Resolution>,
    /// The server may have keys of a slot that it is still importing.
    asking: bool,
    stream: LinkStream,
    received: Received,
    /// For connecting, including authentication, and for each silence.
    limit: Duration,
    /// When something was last received from the server.
    heard: Instant,
}

/// A handle to end a connection from another thread.
pub(crate) struct Ender(Socket);

impl Drop for Ender {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Link {
    /// Connects to `address` and authenticates, all within `limit`.
    ///
    /// # Errors
    /// What came instead.
    pub(crate) fn open(
        address: &Address,
        login: &Login,
        files: &config::Tls,
        limit: Duration,
    ) -> RedisResult<Self> {
        Self::open_at(None, address, login, files, limit)
    }

    /// As [`Self::open`], to this one `peer` among those to which the host of `address` may resolve.
    ///
    /// # Errors
    /// What came instead.
    pub(crate) fn open_at(
        peer: Option<SocketAddr>,
        address: &Address,
        login: &Login,
        files: &config::Tls,
        limit: Duration,
    ) -> RedisResult<Self> {
        let until = Instant::now() + limit;
        let (socket, peer) = match peer {
            Some(peer) => (connect_to(peer, left(until)?)?, Some(peer)),
            None => connect(address, until)?,
        };
        let opened = Self::open_on(socket, peer, address, login, files, (limit, until));
        // Says which of the addresses of its name it was.
        opened.map_err(|error| match peer {
            Some(peer) if address.is_name() => at(&error, peer),
            _ => error,
        })
    }

    fn open_on(
        socket: Socket,
        peer: Option<SocketAddr>,
        address: &Address,
        login: &Login,
        files: &config::Tls,
        (limit, until): (Duration, Instant),
    ) -> RedisResult<Self> {
        let socket = TimedSocket {
            socket,
            silence: limit,
            until,
            heard: false,
            waker: None,
        };
        let mut link = Self {
            address: address.clone(),
            peer,
            meaning: None,
            asking: false,
            stream: LinkStream::of(socket, address, files)?,
            received: Received::default(),
            limit,
            heard: Instant::now(),
        };
        let outcome = link.introduce(login);
        outcome.map_err(|error| link.explained(error, files))?;
        Ok(link)
    }

    /// The error in place of a greeting, with its probable meaning.
    fn explained(&self, error: RedisError, files: &config::Tls) -> RedisError {
        let lost = error.is_connection_dropped();
        let hint = match (&self.stream, &files.own) {
            // With TLS 1.3 a server checks the client's certificate after the handshake.
            (LinkStream::Tls(_), None) if lost => {
                "does the server ask for a certificate, tls_cert?"
            }
            (LinkStream::Tls(_), Some(_)) if lost => "does the server refuse the one in tls_cert?",
            // An alert of TLS, or an end without a message: not a handshake.
            (LinkStream::Plain(_), _) if self.received.bytes.starts_with(b"\x15\x03") => {
                "the server speaks TLS on this port: then the URL must begin with rediss://"
            }
            (LinkStream::Plain(socket), _) if lost && !socket.heard => {
                "does the server speak TLS on this port? Then the URL must begin with rediss://"
            }
            _ => return error,
        };
        let words = format!("{} ({hint})", describe(&error));
        reworded(&error, words)
    }

    /// Within the deadline of the connection.
    fn introduce(&mut self, login: &Login) -> RedisResult<()> {
        let password = password::read(login)?;
        let outcome = match &password {
            None => self.greet(None, login.db),
            Some(password) => {
                let mut auth = redis::cmd("AUTH");
                match self.greet(Some(auth.arg(&login.user).arg(password)), login.db) {
                    // Before Redis 6 there are no users, only one password for all.
                    Err(error) if login.user.is_some() && is_arity(&error) => {
                        let mut auth = redis::cmd("AUTH");
                        self.greet(Some(auth.arg(password)), login.db)
                    }
                    outcome => outcome,
                }
            }
        };
        outcome.map_err(|error| password::hinted(error, login))
    }

    /// Authenticates, and selects the database.
    fn greet(&mut self, auth: Option<&Cmd>, db: i64) -> RedisResult<()> {
        let mut hello = Vec::new();
        if let Some(auth) = auth {
            auth.write_packed_command(&mut hello);
        }
        if db != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(db).write_packed_command(&mut hello);
        }
        redis::cmd("PING").write_packed_command(&mut hello);
        self.stream.write_all(&hello)?;
        if auth.is_some()
            && let Err(error) = self.parse()?.extract_error()
        {
            // It may close the connection instead of saying more.
            let rest = 1 + u8::from(db != 0);
            let _ = (0..rest).try_for_each(|_| self.parse().map(drop));
            return Err(authentication(error));
        }
        if db != 0 {
            self.parse()?.extract_error().map_err(of_select)?;
        }
        match self.parse()?.extract_error() {
            Err(error) if !is_refusal(&error) => Err(error),
            // A user without the right to PING, or a server that cannot save and treats PING as a write.
            _ => Ok(()),
        }
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// The reply, if it is an error, or what came instead.
    pub(crate) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut request = self.asking();
        request.extend(command.get_packed_command());
        self.send(&request)?;
        self.receive_asked()?;
        self.receive()?.extract_error()
    }

    /// Sends packed commands.
    ///
    /// # Errors
    /// When the server does not take them in time.
    pub(crate) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        self.allow(self.limit * WHOLE);
        self.stream.write_all(packed)?;
        Ok(self.stream.flush()?)
    }

    /// Waits for the next reply, which may be an error.
    ///
    /// # Errors
    /// What came instead of a reply.
    pub(crate) fn receive(&mut self) -> RedisResult<Value> {
        self.allow(self.limit * WHOLE);
        self.parse()
    }

    /// As [`Self::receive`], where the reply may be a text of `most` bytes.
    ///
    /// # Errors
    /// What came instead of a reply.
    pub(crate) fn receive_long(&mut self, most: usize) -> RedisResult<Value> {
        self.allow(self.limit * WHOLE);
        let reply = self.received.reply(&mut self.stream, Bounds::text(most))?;
        self.heard = Instant::now();
        redis::parse_redis_value(&reply)
    }

    /// As [`Self::receive`], as it came, within [`Bounds::lists`] of `most` bytes.
    ///
    /// # Errors
    /// What came instead of a reply.
    pub(crate) fn receive_lists(&mut self, most: usize) -> RedisResult<Vec<u8>> {
        self.allow(self.limit * WHOLE);
        let bounds = Bounds::lists(most);
        let reply = self.received.reply(&mut self.stream, bounds)?;
        self.heard = Instant::now();
        Ok(reply)
    }

    /// As [`Scan::longest`](super::reply::Scan::longest), where a reply was too long.
    pub(crate) const fn longest(&self) -> (usize, usize) {
        self.received.scan.longest()
    }

    /// Which value of a reply that has not come as a whole was the last to begin, from 0.
    pub(crate) fn reached(&self) -> usize {
        self.received.scan.reached()
    }

    /// Waits for the next message, for as long as the server answers to a PING. One that has
    /// become silent is noticed within two limits. A reply that is no message is the answer to the first
    /// question of `hearing` that has none.
    ///
    /// # Errors
    /// When the connection has ended, or is silent.
    pub(crate) fn hear(&mut self, hearing: &mut Hearing) -> RedisResult<Value> {
        let mut stream = Pinging {
            stream: &mut self.stream,
            limit: self.limit,
            asked: false,
            hearing,
        };
        redis::parse_redis_value(&self.received.reply(&mut stream, Bounds::WORDS)?)
    }

    /// From now on [`Self::hear`] can be made to ask a question by what is returned.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wakeable(&mut self) -> io::Result<Arc<Waker>> {
        let waker = Arc::new(Waker::new()?);
        self.stream.timed_mut().waker = Some(Arc::clone(&waker));
        Ok(waker)
    }

    fn parse(&mut self) -> RedisResult<Value> {
        let reply = self.received.reply(&mut self.stream, Bounds::WORDS)?;
        self.heard = Instant::now();
        redis::parse_redis_value(&reply)
    }

    /// Another connection to the same server, even if the name resolves to another one by now.
    ///
    /// # Errors
    /// What came instead.
    pub(crate) fn another(&self, settings: &config::RedisSettings) -> RedisResult<Self> {
        let login = settings.url.login();
        let (tls, limit) = (&settings.tls, settings.timeout);
        Self::open_at(self.peer, &self.address, login, tls, limit)
    }

    /// The address as it was given.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// The other side, unless that is a file.
    pub(crate) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The address, with what its name resolved to.
    pub(crate) fn place(&self) -> String {
        match (&self.address, self.peer) {
            (Address::Tcp { host, .. }, Some(peer)) if host.parse::<IpAddr>().is_err() => {
                format!("{} ({})", self.address, peer.ip())
            }
            (address, _) => address.to_string(),
        }
    }

    /// Where the name leads now, if not to this server any more. A name that cannot be resolved at
    /// present is taken to mean what it did. This does not wait long: an answer that is late is used the
    /// next time.
    pub(crate) fn moved_to(&mut self) -> Option<SocketAddr> {
        let peer = self.peer?;
        let meaning = match self.meaning.take() {
            Some(begun) => begun,
            None => begin_to_resolve(&self.address, peer)?,
        };
        let mut first = None;
        loop {
            let patience = if first.is_none() { PROMPT } else { MORE };
            match meaning.recv_timeout(patience) {
                Ok(now) => match now.ok()? {
                    now if now.contains(&peer) => return None,
                    now => first = first.or(now.first().copied()),
                },
                Err(RecvTimeoutError::Timeout) if first.is_none() => {
                    self.meaning = Some(meaning);
                    return None;
                }
                Err(_) => return first,
            }
        }
    }

    /// From now on the server is told (ASKING) that it may have keys of a slot that it is still
    /// importing.
    pub(crate) const fn set_asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// What must be sent ahead of a command, or of a transaction.
    pub(crate) fn asking(&self) -> Vec<u8> {
        match self.asking {
            true => redis::cmd("ASKING").get_packed_command(),
            false => Vec::new(),
        }
    }

    /// Takes the reply to that.
    ///
    /// # Errors
    /// What came instead.
    pub(crate) fn receive_asked(&mut self) -> RedisResult<()> {
        match self.asking {
            true => self.receive()?.extract_error().map(drop),
            false => Ok(()),
        }
    }

    /// When the server last replied.
    pub(crate) fn last_reply(&self) -> Instant {
        self.heard
    }

    /// A handle to end this connection from elsewhere.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn ender(&self) -> io::Result<Ender> {
        Ok(Ender(self.stream.timed().socket.try_clone()?))
    }

    /// From now on nothing takes longer than this without a byte.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
        self.stream.timed_mut().silence = limit;
    }

    fn allow(&mut self, time: Duration) {
        self.stream.timed_mut().until = Instant::now() + time;
    }
}

/// True when the server's AUTH knows only passwords.
fn is_arity(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    error.kind() == ErrorKind::AuthenticationFailed && detail.contains("wrong number of arguments")
}

fn authentication(error: RedisError) -> RedisError {
    match error.code() {
        Some(code @ ("WRONGPASS" | "ERR" | "NOPERM")) => {
            let detail = format!("{code} {}", error.detail().unwrap_or_default());
            RedisError::from((
                ErrorKind::AuthenticationFailed,
                "authentication failed",
                detail,
            ))
        }
        _ => error,
    }
}
