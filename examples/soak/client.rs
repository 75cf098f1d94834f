//! A client that waits for what it reads, and reads no more than HTTP/1.1 needs here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// Nobody waits longer; the gateway's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(15);

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer that has come whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The connection ends with it.
    pub(crate) closes: bool,
    pub(crate) body: Vec<u8>,
    /// What the gateway says of the version that has served it.
    pub(crate) disclosed: Option<String>,
    /// The cookie that it sets, without its attributes.
    pub(crate) cookie: Option<String>,
}

impl Answer {
    /// For a report: the status, and the begin of the body.
    pub(crate) fn brief(&self) -> String {
        let body = &self.body[..self.body.len().min(60)];
        format!("{} {}", self.status, String::from_utf8_lossy(body).trim())
    }
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&to, PATIENCE)?)
    }

    pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let buffer = Vec::new();
        Ok(Self { stream, buffer })
    }

    /// The other side of a connection that the gateway has made.
    pub(crate) fn of_gateway(stream: TcpStream) -> io::Result<Self> {
        let client = Self::of(stream)?;
        // The gateway keeps it for so long.
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(client)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    /// The next answer, without its interim ones.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        loop {
            let head = self.head()?;
            if !(100..200).contains(&status(&head)?) || status(&head)? == 101 {
                return self.rest_of(&head);
            }
        }
    }

    fn rest_of(&mut self, head: &str) -> io::Result<Answer> {
        let status = status(head)?;
        let field = |name: &str| field(head, name);
        let body = if matches!(status, 101 | 204 | 304) {
            Vec::new()
        } else if let Some(length) = field("content-length") {
            let length = length.parse().map_err(|_| bad("a length", &length))?;
            self.exactly(length)?
        } else if field("transfer-encoding").is_some() {
            self.chunks()?
        } else {
            self.rest()?
        };
        let closes = field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        let cookie = field("set-cookie");
        let cookie = cookie.and_then(|it| Some(it.split(';').next()?.to_owned()));
        Ok(Answer {
            status,
            closes,
            body,
            disclosed: field("x-graygate"),
            cookie,
        })
    }

    /// The next head, with its empty line.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        let head = self.through(b"\r\n\r\n")?;
        String::from_utf8(head).map_err(|_| bad("a head", "bytes"))
    }

    /// A body in chunks.
    pub(crate) fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.through(b"\r\n")?;
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let size = usize::from_str_radix(&line, 16).map_err(|_| bad("a chunk", &line))?;
            body.extend(self.exactly(size)?);
            self.through(b"\r\n")?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// What has come, after waiting for something; nothing at the end of the connection.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            match self.more() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                outcome => outcome?,
            }
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// All up to the end of the connection.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.buffer)?;
        Ok(std::mem::take(&mut self.buffer))
    }

    fn through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|it| it == end);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        reset(&self.stream);
    }
}

/// Makes the end of a connection a reset.
pub(crate) fn reset(stream: &TcpStream) {
    // Where it fails, it is a plain end.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn status(head: &str) -> io::Result<u16> {
    let word = head.split(' ').nth(1).unwrap_or_default();
    word.parse().map_err(|_| bad("a status line", head))
}

/// The value of the field `name`, of a head of a request or an answer.
pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        let same = found.eq_ignore_ascii_case(name);
        same.then(|| value.trim().to_owned())
    })
}

fn bad(what: &str, text: &str) -> io::Error {
    io::Error::other(format!("no {what}: {text:.60}"))
}
