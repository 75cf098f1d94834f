//! A connection to a Redis server, or to a Sentinel. Everything on it has a deadline.
//!
//! The library gives commands, replies and their parser. Its own connection is not used: it has no
//! deadline for the resolution of a name, for a TLS handshake as a whole or for a reply that comes
//! in drops, and it gives up a reply that is late. What the parser gets are whole replies.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use super::errors::{at, closed, describe, is_refusal, of_select, told};
use super::reply::{Bounds, End, Scan};
use super::{password, tls};
use crate::config::{self, Address, Login};
use crate::store::heavy;

/// A reply may take so many times the limit of a silence as a whole.
const WHOLE: u32 = 15;

/// A change of the lists waits no longer than this for a name to be resolved.
const PROMPT: Duration = Duration::from_millis(20);

/// A resolver may tell some of the addresses of a name at a time, each time others: before a server is left, it is
/// asked so often, and each further answer is waited for so long.
const ASKED: usize = 8;
const MORE: Duration = Duration::from_millis(100);

/// So much is read at once.
const CHUNK: usize = 64 * 1024;

/// A connection on which the server knows who asks.
pub(crate) struct Link {
    address: Address,
    /// The other side, which is one of what the name meant when it was resolved.
    peer: Option<SocketAddr>,
    /// What the name means now, as soon as that is known.
    meaning: Option<Resolution>,
    /// Keys may be there that are yet to be the server's own.
    asking: bool,
    stream: Stream,
    received: Received,
    /// For a connection with all that belongs to it, and for each silence.
    limit: Duration,
    /// When the server last said something.
    heard: Instant,
}

/// A second hold on a connection, to end it from another thread.
pub(crate) struct Ender(Socket);

impl Drop for Ender {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Link {
    /// Connects to `address`, and tells who asks, all within `limit`.
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

    /// As [`Self::open`], to this one `peer` of those that the host of `address` may mean.
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
        // Which of the addresses of its name it was.
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
        let socket = Timed {
            socket,
            silence: limit,
            until,
            heard: false,
        };
        let mut link = Self {
            address: address.clone(),
            peer,
            meaning: None,
            asking: false,
            stream: Stream::of(socket, address, files)?,
            received: Received::default(),
            limit,
            heard: Instant::now(),
        };
        let outcome = link.introduce(login);
        outcome.map_err(|error| link.explained(error, files))?;
        Ok(link)
    }

    /// What has come in place of a greeting, with what it is likely to mean.
    fn explained(&self, error: RedisError, files: &config::Tls) -> RedisError {
        let lost = error.is_connection_dropped();
        let hint = match (&self.stream, &files.own) {
            // With TLS 1.3 a server judges the certificate when the handshake is over.
            (Stream::Tls(_), None) if lost => "does the server ask for a certificate, tls_cert?",
            (Stream::Tls(_), Some(_)) if lost => "does the server refuse that in tls_cert?",
            // An alert of TLS, or an end without a word: what came was no handshake.
            (Stream::Plain(_), _) if self.received.bytes.starts_with(b"\x15\x03") => {
                "the server speaks TLS at this port: the URL begins with rediss:// then"
            }
            (Stream::Plain(socket), _) if lost && !socket.heard => {
                "does the server speak TLS at this port? The URL begins with rediss:// then"
            }
            _ => return error,
        };
        let words = format!("{} ({hint})", describe(&error));
        told(&error, words)
    }

    /// Within the deadline of the connection.
    fn introduce(&mut self, login: &Login) -> RedisResult<()> {
        let password = password::read(login)?;
        let outcome = match &password {
            None => self.greet(None, login.db),
            Some(password) => {
                let mut auth = redis::cmd("AUTH");
                match self.greet(Some(auth.arg(&login.user).arg(password)), login.db) {
                    // Before Redis 6 there are no users, and one password for all.
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

    /// Tells who asks, and which database is meant. After a refusal, more can be said.
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
            // It may close the connection rather than say more.
            let rest = 1 + u8::from(db != 0);
            let _ = (0..rest).try_for_each(|_| self.parse().map(drop));
            return Err(authentication(error));
        }
        if db != 0 {
            self.parse()?.extract_error().map_err(of_select)?;
        }
        match self.parse()?.extract_error() {
            Err(error) if !is_refusal(&error) => Err(error),
            // A user who may do other things, or a server that cannot save and takes PING for a write.
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

    /// Which value of a reply that has not come as a whole was the last to begin, from 0.
    pub(crate) fn reached(&self) -> usize {
        self.received.scan.reached()
    }

    /// Waits for the next message, for as long as the server answers to a PING. One that has
    /// become silent is noticed within two limits.
    ///
    /// # Errors
    /// When the connection has ended, or is silent.
    pub(crate) fn hear(&mut self) -> RedisResult<Value> {
        let mut stream = Pinging {
            stream: &mut self.stream,
            limit: self.limit,
            asked: false,
        };
        redis::parse_redis_value(&self.received.reply(&mut stream, Bounds::WORDS)?)
    }

    fn parse(&mut self) -> RedisResult<Value> {
        let reply = self.received.reply(&mut self.stream, Bounds::WORDS)?;
        self.heard = Instant::now();
        redis::parse_redis_value(&reply)
    }

    /// Another connection to the same server, also where the name means another by now.
    ///
    /// # Errors
    /// What came instead.
    pub(crate) fn another(&self, settings: &config::Redis) -> RedisResult<Self> {
        let login = settings.url.login();
        let (tls, limit) = (&settings.tls, settings.timeout);
        Self::open_at(self.peer, &self.address, login, tls, limit)
    }

    /// As it was asked for.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// The other side, unless that is a file.
    pub(crate) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The address, with what its name means here.
    pub(crate) fn place(&self) -> String {
        match (&self.address, self.peer) {
            (Address::Tcp { host, .. }, Some(peer)) if host.parse::<IpAddr>().is_err() => {
                format!("{} ({})", self.address, peer.ip())
            }
            (address, _) => address.to_string(),
        }
    }

    /// Where the name leads now, if it means this server no more. What cannot be resolved at present means
    /// what it did. Nobody waits long for that: what is known late is told the next time.
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

    /// From now on the server is told that it may have keys that are yet to be its own.
    pub(crate) const fn set_asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// What is to be said ahead of a command, or of a transaction.
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
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// A hold to end this connection from elsewhere.
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

/// What has come and was not taken yet.
struct Received {
    bytes: Vec<u8>,
    /// Up to here it was taken.
    taken: usize,
    scan: Scan,
    chunk: Box<[u8]>,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            scan: Scan::default(),
            chunk: vec![0; CHUNK].into(),
        }
    }
}

impl Received {
    /// Takes the next whole reply. What has come of it stays when the stream fails.
    fn reply(&mut self, stream: &mut impl Read, bounds: Bounds) -> RedisResult<Vec<u8>> {
        loop {
            match self.scan.end(&self.bytes[self.taken..], bounds)? {
                End::Whole(length) => {
                    self.scan = Scan::default();
                    return Ok(self.take(length));
                }
                End::Surplus(Range { start, end }) => {
                    let surplus = self.taken + start..self.taken + end;
                    self.bytes.drain(surplus);
                    continue;
                }
                End::Partial => {}
            }
            // So that a long one begins at the beginning, and need not be copied.
            self.bytes.drain(..std::mem::take(&mut self.taken));
            match stream.read(&mut self.chunk)? {
                0 => return Err(closed().into()),
                length => {
                    let needed = self.bytes.len() + length;
                    if needed > self.bytes.capacity() {
                        self.bytes.reserve(heavy::room(needed) - self.bytes.len());
                    }
                    self.bytes.extend_from_slice(&self.chunk[..length]);
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        if self.taken == 0 && length == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let start = self.taken;
        self.taken += length;
        self.bytes[start..self.taken].to_vec()
    }
}

/// True where AUTH knows only passwords.
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

/// Connects to the first of the host's addresses that accepts, and says which.
fn connect(address: &Address, until: Instant) -> io::Result<(Socket, Option<SocketAddr>)> {
    let (host, port) = match address {
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::unix(path)?, left(until)?)?;
            return Ok((socket, None));
        }
        Address::Tcp { host, port, .. } => (host, *port),
    };
    let addresses = resolve(host, port, until)?;
    let mut complaints = Vec::new();
    for (at, peer) in addresses.iter().enumerate() {
        // One that does not answer leaves time for the others.
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match left(until).and_then(|left| connect_to(*peer, left / others)) {
            Ok(socket) => return Ok((socket, Some(*peer))),
            Err(error) if !address.is_name() => return Err(error),
            Err(error) => complaints.push(format!("{peer}: {error}")),
        }
    }
    // In the same order each time, so that they are told once.
    complaints.sort();
    Err(io::Error::other(match complaints.is_empty() {
        true => "the host has no address".to_owned(),
        false => complaints.join(", "),
    }))
}

fn connect_to(address: SocketAddr, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.connect_timeout(&address.into(), limit)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The outcomes of a resolution that goes on.
type Resolution = Receiver<io::Result<Vec<SocketAddr>>>;

/// Begins to resolve the name in an address, if there is one, until `peer` is among what it means.
fn begin_to_resolve(address: &Address, peer: SocketAddr) -> Option<Resolution> {
    match address {
        Address::Tcp { host, port, .. } if host.parse::<IpAddr>().is_err() => {
            ask_resolver(host, *port, Some(peer)).ok()
        }
        _ => None,
    }
}

fn resolve(host: &str, port: u16, until: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match ask_resolver(host, port, None)?.recv_timeout(left(until)?) {
        Ok(found) => found,
        Err(_) => Err(io::Error::other(format!("{host} was not resolved in time"))),
    }
}

/// Resolutions under way at most: one that hangs has its thread for as long.
const RESOLVING: usize = 16;

/// Those under way.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct UnderWay;

impl UnderWay {
    fn begin() -> Option<Self> {
        let one_more = |it| (it < RESOLVING).then_some(it + 1);
        let order = Ordering::Relaxed;
        UNDER_WAY.fetch_update(order, order, one_more).ok()?;
        Some(Self)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the resolver of the system, which has a deadline of its own at best, in another thread: once, or until it tells
/// the address that is `wanted`.
fn ask_resolver(host: &str, port: u16, wanted: Option<SocketAddr>) -> io::Result<Resolution> {
    let Some(place) = UnderWay::begin() else {
        return Err(io::Error::other(format!(
            "{host} was not asked for: the system's resolver hangs"
        )));
    };
    let (said, answers) = crossbeam_channel::bounded(ASKED);
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("lists-resolver".to_owned())
        .spawn(move || {
            let mut place = Some(place);
            for at in 1..=ASKED {
                let found = (name.as_str(), port).to_socket_addrs();
                let found: io::Result<Vec<SocketAddr>> = found.map(Iterator::collect);
                let others = found.as_ref().ok().filter(|it| !it.is_empty());
                let others = others.zip(wanted);
                let is_last = at == ASKED || others.is_none_or(|(it, wanted)| it.contains(&wanted));
                // Whoever hears the last answer may ask for another name.
                place = place.filter(|_| !is_last);
                // Nobody may be waiting any more.
                if said.send(found).is_err() || is_last {
                    return;
                }
            }
        })?;
    Ok(answers)
}

fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A socket on which no silence, and nothing as a whole, takes longer than allowed.
struct Timed {
    socket: Socket,
    silence: Duration,
    until: Instant,
    /// Something has come.
    heard: bool,
}

impl Timed {
    fn patience(&self) -> io::Result<Duration> {
        Ok(left(self.until)?.min(self.silence))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.patience()?))?;
            match (&self.socket).read(buffer) {
                // With a time limit, the kernel does not take up a call again after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    self.heard |= outcome.as_ref().is_ok_and(|it| *it > 0);
                    return outcome.map_err(timed_out);
                }
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(Some(self.patience()?))?;
            match (&self.socket).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(timed_out),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Two names for the same thing: which of them it is depends on the system call.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Bytes, with TLS around them or without it.
enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    fn of(socket: Timed, address: &Address, files: &config::Tls) -> io::Result<Self> {
        match address {
            Address::Tcp {
                host, tls: true, ..
            } => {
                let name = files.name.as_deref().unwrap_or(host);
                Self::handshake(socket, name, tls::client_config(files)?)
            }
            _ => Ok(Self::Plain(socket)),
        }
    }

    fn handshake(mut socket: Timed, host: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)
                .map_err(|error| match socket.heard {
                    true => tls::in_words(error),
                    false => tls::no_answer(error),
                })?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    fn timed(&self) -> &Timed {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn timed_mut(&mut self) -> &mut Timed {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer).map_err(tls::in_words),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes).map_err(tls::in_words),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush().map_err(tls::in_words),
        }
    }
}

/// A stream whose silence is answered with one PING. Below the parser, which thus never gives up
/// a message of which a part has come.
struct Pinging<'a> {
    stream: &'a mut Stream,
    limit: Duration,
    asked: bool,
}

impl Read for Pinging<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.timed_mut().until = Instant::now() + self.limit;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.asked => {
                    self.asked = true;
                    self.stream.timed_mut().until = Instant::now() + self.limit;
                    let ping = redis::cmd("PING").get_packed_command();
                    self.stream.write_all(&ping)?;
                    self.stream.flush()?;
                }
                outcome => {
                    self.asked = false;
                    return outcome;
                }
            }
        }
    }
}
