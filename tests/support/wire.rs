//! HTTP/1 on a socket, as both the client and the origin of the tests speak it.
//!
//! It takes a well-formed message apart and keeps the exact bytes. It refuses what is not
//! well-formed, but looks for no more than the tests need.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The head of a message, with the bytes exactly as received.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// All bytes up to and with the empty line.
    pub(crate) raw: Vec<u8>,
}

impl Head {
    /// The request or status line.
    pub(crate) fn start_line(&self) -> String {
        self.lines().remove(0)
    }

    /// The head as text, for assertions and their messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    fn lines(&self) -> Vec<String> {
        let text = self.text();
        let lines = text.strip_suffix("\r\n\r\n").unwrap_or(&text);
        lines.split("\r\n").map(str::to_owned).collect()
    }

    /// Names and values of the fields, in their order.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let fields = self.lines().into_iter().skip(1);
        fields
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect()
    }

    /// The values of all fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let fields = self.fields().into_iter();
        fields
            .filter(|(it, _)| it.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of the one field of this name.
    ///
    /// # Panics
    /// When there is more than one.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(values.len() < 2, "{name} twice in {}", self.text());
        values.pop()
    }

    /// The words of the start line.
    fn word(&self, at: usize) -> String {
        let line = self.start_line();
        line.split(' ').nth(at).unwrap_or_default().to_owned()
    }

    /// A request's method.
    pub(crate) fn method(&self) -> String {
        self.word(0)
    }

    /// A request's target.
    pub(crate) fn target(&self) -> String {
        self.word(1)
    }

    /// A response's status, or 0.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    fn is_chunked(&self) -> bool {
        let coding = self.field("transfer-encoding");
        coding.is_some_and(|it| it.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.field("content-length").map(|it| it.parse().unwrap())
    }

    /// How the body of a request with this head is delimited.
    pub(crate) fn request_framing(&self) -> Framing {
        match self.length() {
            _ if self.is_chunked() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Length(0),
        }
    }

    /// How the body of a response with this head, to a request with `method`, is delimited.
    pub(crate) fn response_framing(&self, method: &str) -> Framing {
        match (self.status(), self.length()) {
            (100..200 | 204 | 304, _) => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ if self.is_chunked() => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length),
            (_, None) => Framing::UntilClose,
        }
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A body that was kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// The bytes on the wire, with those of the chunked coding.
    pub(crate) raw: Vec<u8>,
    /// The content.
    pub(crate) content: Vec<u8>,
    /// The trailer fields.
    pub(crate) trailers: Vec<(String, String)>,
}

/// A part of a body as it arrives.
enum Part<'a> {
    Frame(&'a [u8]),
    Content(&'a [u8]),
    Trailer(String, String),
}

/// A socket with what was read from it and not yet taken.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// What was read and not yet taken.
    fn waiting(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Reads once; 0 is the end of the stream.
    fn fill(&mut self) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        // Not read into the vector itself, which would be filled byte by byte in a debug build.
        let mut piece = [0; 64 * 1024];
        // With a time limit, the kernel does not take up a read again that was interrupted.
        let read = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    /// Takes all bytes up to and with `end`. At the end of the stream: nothing when no byte came.
    fn take_through(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(found) = memchr::memmem::find(self.waiting(), end) {
                let taken = self.waiting()[..found + end.len()].to_vec();
                self.at += taken.len();
                return Ok(Some(taken));
            }
            if self.fill()? == 0 {
                return match self.waiting() {
                    [] => Ok(None),
                    rest => Err(cut(&format!(
                        "behind {:?}",
                        rest.escape_ascii().to_string()
                    ))),
                };
            }
        }
    }

    /// Takes a head; nothing at the end of the stream.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let raw = self.take_through(b"\r\n\r\n")?;
        Ok(raw.map(|raw| Head { raw }))
    }

    /// Takes some bytes, at most `most`; empty at the end of the stream.
    pub(crate) fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.waiting().is_empty() {
            self.fill()?;
        }
        let taken = self.waiting()[..most.min(self.waiting().len())].to_vec();
        self.at += taken.len();
        Ok(taken)
    }

    /// Takes exactly `length` bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut taken = Vec::new();
        self.take(length as u64, &mut |piece| taken.extend_from_slice(piece))?;
        Ok(taken)
    }

    /// Takes all up to the end of the stream.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        let taken = self.waiting().to_vec();
        self.at += taken.len();
        Ok(taken)
    }

    fn take(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.waiting().is_empty() && self.fill()? == 0 {
                return Err(cut(&format!("{left} of {length} bytes missing")));
            }
            let here = usize::try_from(left).map_or(usize::MAX, |left| left);
            let here = here.min(self.waiting().len());
            sink(&self.waiting()[..here]);
            self.at += here;
            left -= here as u64;
        }
        Ok(())
    }

    /// Takes a body and keeps it.
    pub(crate) fn body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body::default();
        self.visit(framing, &mut |part| match part {
            Part::Frame(bytes) => body.raw.extend_from_slice(bytes),
            Part::Content(bytes) => {
                body.raw.extend_from_slice(bytes);
                body.content.extend_from_slice(bytes);
            }
            Part::Trailer(name, value) => body.trailers.push((name, value)),
        })?;
        Ok(body)
    }

    /// Takes a body, and hands its content to `sink` piece by piece.
    pub(crate) fn stream_body(
        &mut self,
        framing: Framing,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.visit(framing, &mut |part| {
            if let Part::Content(bytes) = part {
                sink(bytes);
            }
        })
    }

    fn visit(&mut self, framing: Framing, visit: &mut dyn FnMut(Part<'_>)) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.take(length, &mut |piece| visit(Part::Content(piece))),
            Framing::Chunked => self.chunks(visit),
            Framing::UntilClose => loop {
                let piece = self.some(usize::MAX)?;
                if piece.is_empty() {
                    return Ok(());
                }
                visit(Part::Content(&piece));
            },
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let line = self.take_through(b"\r\n")?;
        line.ok_or_else(|| cut("in place of a line"))
    }

    fn chunks(&mut self, visit: &mut dyn FnMut(Part<'_>)) -> io::Result<()> {
        loop {
            let line = self.line()?;
            visit(Part::Frame(&line));
            let digits = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let size = u64::from_str_radix(&digits, 16).map_err(|_| bad(&line))?;
            if size == 0 {
                break;
            }
            self.take(size, &mut |piece| visit(Part::Content(piece)))?;
            let end = self.exactly(2)?;
            if end != b"\r\n" {
                return Err(bad(&end));
            }
            visit(Part::Frame(&end));
        }
        loop {
            let line = self.line()?;
            visit(Part::Frame(&line));
            if line == b"\r\n" {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let (name, value) = text.split_once(':').ok_or_else(|| bad(&line))?;
            visit(Part::Trailer(name.to_owned(), value.trim().to_owned()));
        }
    }
}

fn cut(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the stream ended {what}"),
    )
}

fn bad(line: &[u8]) -> io::Error {
    let text = format!("no chunk: {:?}", line.escape_ascii().to_string());
    io::Error::new(io::ErrorKind::InvalidData, text)
}
