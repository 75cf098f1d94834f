//! One connection of the load generator: a request out, its answer in and checked.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Socket, Type};

/// An answer may have 30 fields, and a proxy adds some.
const MAX_FIELDS: usize = 64;
/// The longest head of an answer.
const MAX_HEAD: usize = 64 << 10;
/// So much of a body is dropped in one call.
const SINK: usize = 1 << 20;

/// A request, and what its answer must be beside a 200.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Length of the answer's body.
    pub(crate) answer: u64,
    /// The connection ends with the answer.
    pub(crate) close: bool,
    /// Each connection is another client's, by its address.
    pub(crate) of_many: bool,
}

/// Memory that all connections read into.
pub(crate) struct Scratch {
    head: Vec<u8>,
    /// Never written: see [`Client::skip`].
    sink: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            head: vec![0; MAX_HEAD],
            sink: vec![0; SINK],
        }
    }
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Progress {
    Waiting,
    /// The answer is whole.
    Answered,
    /// The answer is whole, and the connection has ended as it was asked to.
    Ended,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Idle,
    Head,
    Body {
        left: u64,
    },
    /// Whole, but the end of the connection is still to come.
    Closing,
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    state: State,
    /// Bytes of the request that the kernel has taken.
    sent: usize,
    /// The begin of a head whose end is not there yet.
    head: Vec<u8>,
    /// Bytes of answers, with heads, since it was last asked.
    received: u64,
}

impl Client {
    /// Connects from `source`, if that is told.
    pub(crate) fn connect(address: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Self> {
        // It blocks, but on one machine no longer than the call itself takes.
        let stream = match source {
            None => TcpStream::connect(address)?,
            Some(source) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&SocketAddr::from((source, 0)).into())?;
                socket.connect(&address.into())?;
                socket.into()
            }
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            state: State::Idle,
            sent: 0,
            head: Vec::new(),
            received: 0,
        })
    }

    /// Begins an exchange.
    pub(crate) fn start(&mut self, request: &Request) -> Result<(), String> {
        self.state = State::Head;
        self.sent = 0;
        self.send(request)
    }

    /// Bytes that have come since this was last called.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    fn send(&mut self, request: &Request) -> Result<(), String> {
        while self.sent < request.bytes.len() {
            match send(
                &self.stream,
                &request.bytes[self.sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        Ok(())
    }

    /// Goes on after an event, as far as the kernel lets it. `gone`: the proxy has ended the
    /// connection, which makes no further event.
    pub(crate) fn advance(
        &mut self,
        request: &Request,
        gone: bool,
        scratch: &mut Scratch,
    ) -> Result<Progress, String> {
        if self.state == State::Idle {
            // Nothing was asked. Only the end can be news.
            return if gone {
                Err("closed between two requests".to_owned())
            } else {
                Ok(Progress::Waiting)
            };
        }
        self.send(request)?;
        loop {
            let more = match self.state {
                State::Head => self.read_head(request, scratch)?,
                State::Body { left } => self.skip(left, scratch)?,
                State::Closing => return self.read_end(scratch),
                State::Idle => return Ok(Progress::Answered),
            };
            if matches!(self.state, State::Body { left: 0 }) {
                if self.sent < request.bytes.len() {
                    return Err("answered before the whole request was sent".to_owned());
                }
                if request.close {
                    self.state = State::Closing;
                    return Ok(match self.read_end(scratch)? {
                        Progress::Ended => Progress::Ended,
                        _ => Progress::Answered,
                    });
                }
                self.state = State::Idle;
                return Ok(Progress::Answered);
            }
            if !more && !gone {
                return Ok(Progress::Waiting);
            }
        }
    }

    /// True when there may be more to read now.
    fn read_head(&mut self, request: &Request, scratch: &mut Scratch) -> Result<bool, String> {
        let count = match recv(&self.stream, &mut scratch.head[..], RecvFlags::empty()) {
            Ok((0, _)) => return Err("closed before an answer".to_owned()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(format!("reading: {error}")),
        };
        self.received += count as u64;
        let is_short = count < scratch.head.len();
        let bytes = &scratch.head[..count];
        let found = if self.head.is_empty() {
            // Mostly it is there as a whole, and is not copied.
            body_left(bytes, request)?
        } else {
            self.head.extend_from_slice(bytes);
            body_left(&self.head, request)?
        };
        match found {
            Some(left) => {
                self.head.clear();
                self.state = State::Body { left };
            }
            None if self.head.is_empty() => self.head.extend_from_slice(bytes),
            None if self.head.len() > MAX_HEAD => return Err("a head too long".to_owned()),
            None => {}
        }
        Ok(!is_short)
    }

    /// Drops what is there of the body. With this flag the kernel does not copy, so that the
    /// generator takes little of what it shares with the proxy. True when there may be more.
    fn skip(&mut self, left: u64, scratch: &mut Scratch) -> Result<bool, String> {
        let most = left.min(SINK as u64) as usize;
        let count = match recv(&self.stream, &mut scratch.sink[..most], RecvFlags::TRUNC) {
            Ok((_, 0)) => return Err("closed within an answer".to_owned()),
            Ok((_, count)) => count as u64,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(format!("reading: {error}")),
        };
        self.received += count;
        self.state = State::Body { left: left - count };
        Ok(true)
    }

    fn read_end(&mut self, scratch: &mut Scratch) -> Result<Progress, String> {
        match recv(&self.stream, &mut scratch.head[..1], RecvFlags::empty()) {
            Ok((0, _)) => Ok(Progress::Ended),
            Ok(_) => Err("more than the answer".to_owned()),
            Err(Errno::AGAIN) => Ok(Progress::Waiting),
            Err(error) => Err(format!("reading: {error}")),
        }
    }
}

/// What is to come of the body behind these bytes; none when they end within the head.
fn body_left(bytes: &[u8], request: &Request) -> Result<Option<u64>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(bytes);
    let httparse::Status::Complete(end) = parsed.map_err(|it| format!("bad answer: {it}"))? else {
        return Ok(None);
    };
    let code = answer.code.unwrap_or_default();
    if code != 200 {
        return Err(format!("status {code}"));
    }
    let length = answer
        .headers
        .iter()
        .find(|it| it.name.eq_ignore_ascii_case("content-length"))
        .and_then(|it| std::str::from_utf8(it.value).ok()?.parse::<u64>().ok());
    if length != Some(request.answer) {
        return Err(format!("length {length:?}, not {}", request.answer));
    }
    let here = (bytes.len() - end) as u64;
    let left = request.answer.checked_sub(here);
    left.map(Some)
        .ok_or_else(|| "more than the answer".to_owned())
}
