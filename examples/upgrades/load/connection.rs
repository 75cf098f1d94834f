//! A client's connection, and the heads of messages.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use super::tally::{Count, Tally};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The head of a message.
pub(super) struct Head {
    /// The first line.
    pub(super) line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// `None` when there is an end instead of a first byte.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(line) = read_line(from)? else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        loop {
            let field = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let Some((name, value)) = field.split_once(':') else {
                return Ok(Some(Self { line, fields }));
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The value of a field; its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn length(&self) -> Option<usize> {
        self.field("content-length")?.parse().ok()
    }

    pub(super) fn is_last(&self) -> bool {
        let connection = self.field("connection").unwrap_or_default();
        connection.eq_ignore_ascii_case("close")
    }
}

/// A line without its end; `None` when there is an end instead of its first byte.
pub(super) fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end().to_owned()))
}

/// What a request has come to.
pub(super) enum Answer {
    /// The connection can be used for another one.
    Kept,
    /// It was the last one on this connection.
    Last,
}

/// Why there is no answer.
pub(super) struct Trouble {
    pub(super) count: Count,
    what: String,
}

impl Trouble {
    pub(super) fn new(count: Count, what: impl ToString) -> Self {
        let what = what.to_string();
        Self { count, what }
    }

    pub(super) fn note(&self, tally: &Tally) {
        tally.note(self.count, &self.what);
    }
}

/// A client's connection.
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
    /// Requests answered.
    pub(super) answered: u64,
}

impl Connection {
    pub(super) fn open(to: SocketAddr) -> Result<Self, Trouble> {
        let opened = TcpStream::connect_timeout(&to, PATIENCE).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Self {
                reader: BufReader::new(stream),
                answered: 0,
            })
        });
        opened.map_err(|error| Trouble::new(Count::Refused, error))
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.reader.into_inner()
    }

    pub(super) fn port(&self) -> u16 {
        self.stream().local_addr().map_or(0, |it| it.port())
    }

    /// Asks, and compares the content of the answer with what it must be.
    pub(super) fn ask(&mut self, request: &[u8], expected: &[u8]) -> Result<Answer, Trouble> {
        self.send(request)?;
        let head = self.answer()?;
        let failed = |what: String| Trouble::new(Count::Failed, what);
        if head.length() != Some(expected.len()) {
            let length = head.length();
            return Err(failed(format!("length {length:?}, not {}", expected.len())));
        }
        let mut content = vec![0; expected.len()];
        let read = self.read(&mut content);
        read.map_err(|error| failed(format!("within the content: {error}")))?;
        if content != expected {
            return Err(failed("another content".to_owned()));
        }
        Ok(self.complete(&head))
    }

    /// The answer has come in full.
    pub(super) fn complete(&mut self, head: &Head) -> Answer {
        self.answered += 1;
        match head.is_last() {
            true => Answer::Last,
            false => Answer::Kept,
        }
    }

    /// Looks whether the connection is still there, and sends a request, or its first part.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<(), Trouble> {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = recv(self.stream(), &mut byte, flags).map(|(count, _)| count);
        match there {
            Err(rustix::io::Errno::AGAIN) => {}
            Ok(1..) => return Err(Trouble::new(Count::Failed, "an answer without a request")),
            Ok(0) => return Err(self.gone(Count::Closed, "the end")),
            Err(error) => return Err(self.gone(Count::Closed, error)),
        }
        let mut stream = self.stream();
        let sent = stream.write_all(request);
        sent.map_err(|error| self.gone(Count::Lost, error))
    }

    /// On a new connection there is no excuse.
    fn gone(&self, count: Count, what: impl ToString) -> Trouble {
        match self.answered {
            0 => Trouble::new(Count::Failed, format!("at once: {}", what.to_string())),
            _ => Trouble::new(count, what),
        }
    }

    /// The head of an answer; its status must be 200.
    pub(super) fn answer(&mut self) -> Result<Head, Trouble> {
        let seen = match self.reader.fill_buf() {
            Ok([]) => Some("the end".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Trouble::new(Count::Failed, "no answer in time"));
            }
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        };
        if let Some(seen) = seen {
            return Err(self.gone(Count::Lost, seen));
        }
        match Head::read(&mut self.reader) {
            Ok(Some(head)) if head.line.starts_with("HTTP/1.1 200 ") => Ok(head),
            Ok(Some(head)) => Err(Trouble::new(Count::Failed, head.line)),
            Ok(None) => Err(Trouble::new(Count::Failed, "the end")),
            Err(error) => Err(Trouble::new(Count::Failed, error)),
        }
    }

    /// Reads some of the content.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(into)
    }
}
