//! A scripted origin: it records exactly what it is sent, and answers as a test wants.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::DEADLINE;
use super::ports::ends_on_the_way_from;
use super::wire::{Head, Wire};

/// A response with status 200, a length and this content.
pub(crate) fn ok(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    response.extend_from_slice(content);
    response
}

/// A whole request as an origin received it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Which connection of the origin it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    /// The body's bytes on the wire.
    pub(crate) raw: Vec<u8>,
    /// The body's content.
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Request {
    /// The value of the one field of this name.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.head.field(name)
    }

    /// All bytes of the request, as received.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.head.raw[..], &self.raw].concat()
    }

    /// Names and values of the request, as text that a test can search.
    pub(crate) fn text(&self) -> String {
        self.head.text()
    }
}

/// What an origin has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections that were accepted.
    pub(crate) accepted: usize,
    /// Connections that were closed, by either side.
    pub(crate) closed: usize,
    /// Heads, as soon as they were complete.
    pub(crate) heads: Vec<Head>,
    /// Requests, once they were complete.
    pub(crate) requests: Vec<Request>,
    /// All bytes of each connection that was recorded by [`Conn::record`].
    pub(crate) recorded: Vec<Vec<u8>>,
    /// What a script noted for its test.
    pub(crate) notes: Vec<String>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stopping: AtomicBool,
    open: Mutex<Vec<(usize, TcpStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let outcome = change(&mut lock(&self.seen));
        self.changed.notify_all();
        outcome
    }
}

/// An origin, which listens until it is dropped. It displays as its address.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Origin {
    /// An origin whose every connection is served by `script`, which ends it when it returns.
    pub(crate) fn scripted(
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// The same at an address.
    pub(crate) fn scripted_at(
        address: SocketAddr,
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting, &Arc::new(script)));
        Self { address, shared }
    }

    /// An origin that answers every request with what `answer` makes of it, and keeps the
    /// connection.
    pub(crate) fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |conn| {
            while let Some(request) = conn.request()? {
                conn.send(answer(&request))?;
            }
            Ok(())
        })
    }

    /// An origin that answers every request with these bytes, whatever they are.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::answering(move |_| bytes.clone())
    }

    /// An origin of each version, by its name.
    pub(crate) fn pre_and_prod() -> (Self, Self) {
        (Self::named("pre"), Self::named("prod"))
    }

    /// An origin that answers every request with 200 and its name.
    pub(crate) fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::answering(move |request| {
            let mut response = ok(&name);
            if request.head.method() == "HEAD" {
                response.truncate(response.len() - name.len());
            }
            response
        })
    }

    /// An origin at an address that answers every GET with 200 and its name.
    pub(crate) fn named_at(address: SocketAddr, name: &str) -> Self {
        let name = name.to_owned();
        Self::scripted_at(address, move |conn| {
            while conn.request()?.is_some() {
                conn.send(ok(&name))?;
            }
            Ok(())
        })
    }

    /// An origin that answers every request with 200 and the very bytes that it received.
    pub(crate) fn echo() -> Self {
        Self::answering(|request| {
            let mut bytes = request.head.raw.clone();
            bytes.extend_from_slice(&request.raw);
            ok(bytes)
        })
    }

    /// An origin that reads every request and never answers.
    pub(crate) fn mute() -> Self {
        Self::scripted(|conn| {
            while conn.request()?.is_some() {}
            Ok(())
        })
    }

    /// An origin that never answers, and records every byte, be it part of a request or not.
    pub(crate) fn recording() -> Self {
        Self::scripted(Conn::record)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at what was seen so far.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&lock(&self.shared.seen))
    }

    /// The requests that were complete so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen(|seen| seen.requests.clone())
    }

    /// The bytes so far of the connection with this number; see [`Conn::record`].
    pub(crate) fn recorded(&self, connection: usize) -> Vec<u8> {
        self.seen(|seen| seen.recorded.get(connection).cloned().unwrap_or_default())
    }

    /// The last request.
    #[track_caller]
    pub(crate) fn last(&self) -> Request {
        self.seen(|seen| seen.requests.last().cloned()).unwrap()
    }

    /// How many connections were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.seen(|seen| seen.accepted)
    }

    /// Waits until `cond` holds for what was seen.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`].
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, cond: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + DEADLINE;
        let mut seen = lock(&self.shared.seen);
        while !cond(&seen) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "origin: not within {DEADLINE:?}: {what}; saw {seen:?}"
            );
            let waited = self.shared.changed.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until `count` connections were closed.
    #[track_caller]
    pub(crate) fn wait_closed(&self, count: usize) {
        self.wait(&format!("{count} connections closed"), |it| {
            it.closed >= count
        });
    }

    /// As [`Self::wait_closed`], and until the other sides' kernel knows it, too.
    #[track_caller]
    pub(crate) fn wait_known_closed(&self, count: usize) {
        self.wait_closed(count);
        super::wait_until("the other sides know it", DEADLINE, || {
            ends_on_the_way_from(self.address.port()) == 0
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for (_, stream) in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<S>(listener: &TcpListener, shared: &Arc<Shared>, script: &Arc<S>)
where
    S: Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
{
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.change(|seen| {
            seen.accepted += 1;
            seen.accepted - 1
        });
        stream.set_nodelay(true).unwrap();
        lock(&shared.open).push((number, stream.try_clone().unwrap()));
        let (shared, script) = (Arc::clone(shared), Arc::clone(script));
        std::thread::spawn(move || {
            let mut conn = Conn {
                number,
                wire: Wire::new(stream),
                shared: Arc::clone(&shared),
            };
            // An error is the other side's end of the connection.
            let _ = script(&mut conn);
            // Before the note, so that who waits for it can rely on the FIN having been sent.
            lock(&shared.open).retain(|(it, _)| *it != number);
            drop(conn);
            shared.change(|seen| seen.closed += 1);
        });
    }
}

/// One connection of an origin, for its script.
pub(crate) struct Conn {
    /// Which connection of the origin this is, from 0.
    pub(crate) number: usize,
    pub(crate) wire: Wire,
    shared: Arc<Shared>,
}

impl Conn {
    /// Reads and records a whole request; nothing when the connection ends before one.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        self.body(head).map(Some)
    }

    /// Reads and records the head of a request only.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let head = self.wire.head()?;
        if let Some(head) = &head {
            self.shared.change(|seen| seen.heads.push(head.clone()));
        }
        Ok(head)
    }

    /// Reads the body that follows `head`, and records the request.
    pub(crate) fn body(&mut self, head: Head) -> io::Result<Request> {
        let body = self.wire.body(head.request_framing())?;
        let request = Request {
            connection: self.number,
            head,
            raw: body.raw,
            content: body.content,
            trailers: body.trailers,
        };
        self.shared
            .change(|seen| seen.requests.push(request.clone()));
        Ok(request)
    }

    /// Reads the body that follows `head` and hands its content to `sink`; nothing is recorded.
    pub(crate) fn stream_body(
        &mut self,
        head: &Head,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.wire.stream_body(head.request_framing(), sink)
    }

    /// Writes all of `bytes`.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Leaves a note for the test.
    pub(crate) fn note(&self, note: impl Into<String>) {
        self.shared.change(|seen| seen.notes.push(note.into()));
    }

    /// Waits until the test has let this origin go on; see [`Origin::release`].
    pub(crate) fn wait_for_release(&self) -> io::Result<()> {
        let mut seen = lock(&self.shared.seen);
        while !seen.notes.iter().any(|it| it == RELEASE) {
            if self.shared.stopping.load(Ordering::SeqCst) {
                return Err(io::Error::other("the test is over"));
            }
            let waited = self
                .shared
                .changed
                .wait_timeout(seen, Duration::from_millis(100));
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Reads and records every byte until the other side ends the connection.
    pub(crate) fn record(&mut self) -> io::Result<()> {
        let number = self.number;
        loop {
            let piece = self.wire.some(usize::MAX)?;
            if piece.is_empty() {
                return Ok(());
            }
            self.shared.change(|seen| {
                let count = seen.recorded.len().max(number + 1);
                seen.recorded.resize_with(count, Vec::new);
                seen.recorded[number].extend_from_slice(&piece);
            });
        }
    }

    /// Reads and forgets until the other side ends the connection.
    pub(crate) fn wait_gone(&mut self) -> io::Result<()> {
        while !self.wire.some(usize::MAX)?.is_empty() {}
        Ok(())
    }

    /// Makes the end of this connection a reset.
    pub(crate) fn reset_at_end(&self) {
        let linger = Some(Duration::ZERO);
        let _ = SockRef::from(&self.wire.stream).set_linger(linger);
    }
}

const RELEASE: &str = "released";

impl Origin {
    /// Lets the scripts go on that wait in [`Conn::wait_for_release`].
    pub(crate) fn release(&self) {
        self.shared
            .change(|seen| seen.notes.push(RELEASE.to_owned()));
    }
}
