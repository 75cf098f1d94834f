//! A client on a raw socket, which sends what a test wants, well-formed or not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::DEADLINE;
use super::wire::{Framing, Head, Wire};

/// A connection to the gateway. Every read ends after [`DEADLINE`] at the latest.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

/// A response whose body was kept.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    /// The body's bytes on the wire.
    pub(crate) raw: Vec<u8>,
    /// The body's content.
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Response {
    /// All bytes of the response, as received.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.head.raw[..], &self.raw].concat()
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// The value of the one field of this name.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.head.field(name)
    }
}

impl Client {
    /// Connects from whatever address the system takes.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&to, DEADLINE).unwrap())
    }

    /// Connects from `source`, for instance `127.0.0.5`.
    #[track_caller]
    pub(crate) fn from(source: &str, to: SocketAddr) -> Self {
        Self::try_from(source, to).unwrap_or_else(|error| panic!("{source} to {to}: {error}"))
    }

    /// Connects from another address each time: for a loop that makes connection after connection. Each
    /// keeps its port for a minute after its end (`TIME_WAIT`), and those of one address are soon used up,
    /// for the tests that run beside and after this one as well.
    #[track_caller]
    pub(crate) fn from_another(to: SocketAddr) -> Self {
        match to.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => Self::from(&another_source().to_string(), to),
            _ => Self::connect(to),
        }
    }

    /// As [`Self::from`], but a refused connection is an error.
    pub(crate) fn try_from(source: &str, to: SocketAddr) -> io::Result<Self> {
        let socket = bound(source, to)?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        Ok(Self::new(socket.into()))
    }

    /// Connects from `source` with a receive buffer of about `bytes`.
    #[track_caller]
    pub(crate) fn with_small_window(source: &str, to: SocketAddr, bytes: usize) -> Self {
        let socket = bound(source, to).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect_timeout(&to.into(), DEADLINE).unwrap();
        Self::new(socket.into())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self {
            wire: Wire::new(stream),
        }
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).unwrap();
    }

    /// Sends all of `bytes`, or as much as is taken before the other side closes.
    pub(crate) fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.send(bytes.as_ref());
    }

    /// Reads the response to a request that was neither HEAD nor an upgrade.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the response to a request with `method`.
    #[track_caller]
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        let response = self.try_response_to(method);
        response.unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Reads a response; an error when the connection ends or stalls before its end.
    pub(crate) fn try_response_to(&mut self, method: &str) -> io::Result<Response> {
        let Some(head) = self.wire.head()? else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed without an answer",
            ));
        };
        let framing = head.response_framing(method);
        let body = self.wire.body(framing)?;
        Ok(Response {
            head,
            framing,
            raw: body.raw,
            content: body.content,
            trailers: body.trailers,
        })
    }

    /// Sends `request`, and reads the response.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        self.send(request);
        let method = request.split(|byte| *byte == b' ').next().unwrap();
        self.response_to(std::str::from_utf8(method).unwrap())
    }

    /// `GET path` on a connection that stays.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Reads one head only, of whatever status.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        let head = self
            .wire
            .head()
            .unwrap_or_else(|error| panic!("no head: {error}"));
        head.unwrap_or_else(|| panic!("closed in place of a head"))
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.wire.exactly(length).unwrap()
    }

    /// Reads up to the end of the stream. A reset is such an end too.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        loop {
            match self.wire.some(usize::MAX) {
                Ok(piece) if piece.is_empty() => return rest,
                Ok(piece) => rest.extend_from_slice(&piece),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("the connection did not end: {error}"),
            }
        }
    }

    /// Checks that the other side has closed, or closes now, without another byte.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {}", rest.escape_ascii());
    }

    /// Reads within `patience`: some bytes, none at the end of the stream, `None` when nothing came.
    #[track_caller]
    pub(crate) fn glance(&mut self, patience: Duration) -> Option<Vec<u8>> {
        self.wire.stream.set_read_timeout(Some(patience)).unwrap();
        let outcome = self.wire.some(usize::MAX);
        self.wire.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        match outcome {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(Vec::new()),
            Err(error) if is_timeout(&error) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends all of `bytes` with the FIN in the same segment, and goes on reading.
    #[track_caller]
    pub(crate) fn send_with_end(&mut self, bytes: impl AsRef<[u8]>) {
        let socket = self.wire.stream.try_clone().unwrap();
        SockRef::from(&socket).set_tcp_cork(true).unwrap();
        self.send(bytes);
        self.half_close();
    }

    /// Sends FIN and goes on reading.
    pub(crate) fn half_close(&mut self) {
        self.wire.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        let linger = Some(Duration::ZERO);
        SockRef::from(&self.wire.stream).set_linger(linger).unwrap();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The next of 127.128.0.0/10, in which no test has a fixed one.
fn another_source() -> Ipv4Addr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Each process begins elsewhere.
    let number = (std::process::id() << 12).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
    Ipv4Addr::from(0x7F80_0000 | (number & 0x003F_FFFF))
}

fn bound(source: &str, to: SocketAddr) -> io::Result<Socket> {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(socket)
}
