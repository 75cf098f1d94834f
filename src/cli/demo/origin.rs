//! The origin of the demo: an HTTP/1.1 server that answers every request with one text.
//!
//! It takes any method and any body, which it reads to its end and forgets, and keeps its connections as
//! clients wish. Heads and bodies are read by the gateway's own rules.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Refusal;
use crate::http::fields::{ConnectionOptions, Field, FieldKind};
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::{MessageKind, Piece};
use crate::http::h1::encode;
use crate::http::h1::framing::{self, Framing};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::http::version::Version;
use crate::memory::buffer::Buffer;
use crate::net::{self, Accepted, Admission, Listener, Patience, Stream, Turns};

/// How long a client may be silent, or read nothing.
const PATIENCE: Duration = Duration::from_secs(75);

/// How long new connections wait when descriptors run out.
const SHORTAGE: Duration = Duration::from_millis(100);

/// More than the gateway lets through.
const LIMITS: Limits = Limits {
    line: 1 << 20,
    head: 1 << 20,
    fields: MAX_FIELDS,
};

/// Starts to answer requests on `listener` with `text`, on the workers.
///
/// # Errors
/// When a coroutine cannot be started.
pub(super) fn start(listener: Listener, text: &str) -> io::Result<()> {
    let text: Arc<str> = text.into();
    net::spawn(0, move || {
        let serve = |connection: Accepted, _: SocketAddr| {
            let text = Arc::clone(&text);
            // On the worker where it needs no other descriptor. Without memory for a stack, the
            // connection ends.
            let _ = net::spawn(connection.natural_worker(), move || {
                let settled = connection.settle().map_err(|(_, error)| error);
                if let Ok(stream) = settled.and_then(net::Detached::attach) {
                    // However it ends, there is nobody to tell.
                    let _ = serve(&stream, &text);
                }
            });
        };
        // It listens for the life of the process.
        let _ = listener.accept_loop(|| Admission::Open, serve, |_| SHORTAGE);
    })
}

/// Answers request after request.
fn serve(stream: &Stream, text: &str) -> io::Result<()> {
    let (mut buffer, mut head) = (Buffer::new(), RequestHead::default());
    let (mut options, mut answer) = (ConnectionOptions::default(), Vec::new());
    let mut turns = Turns::new();
    loop {
        answer.clear();
        let judged = match read_head(stream, &mut buffer, &mut head)? {
            Some(Ok(())) => framing::of_request(&head, buffer.filled(), None),
            Some(Err(refusal)) => Err(refusal),
            None => return Ok(()),
        };
        let framing = match judged {
            Ok(framing) => framing,
            Err(refusal) => return refuse(stream, refusal),
        };
        let bytes = buffer.filled();
        if !options.read(bytes, &head.fields) {
            return refuse(stream, Refusal::BadField);
        }
        let keeps = !options.close && (head.version == Version::Http11 || options.keep_alive);
        let is_head = head.method.of(bytes) == b"HEAD";
        let waits = head.fields.iter().any(|it| expects(it, bytes)) && bytes.len() == head.len;
        buffer.consume(head.len);
        if waits && framing != Framing::None {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n", &Patience::new(PATIENCE))?;
        }
        drop_body(stream, &mut buffer, framing, &mut turns)?;
        put_answer(&mut answer, text, is_head, keeps);
        stream.write_all(&answer, &Patience::new(PATIENCE))?;
        if !keeps {
            return Ok(());
        }
        turns.moved(answer.len());
    }
}

/// Reads a head, which is left in the buffer; `None` when the client has no more requests.
fn read_head(
    stream: &Stream,
    buffer: &mut Buffer,
    head: &mut RequestHead,
) -> io::Result<Option<Result<(), Refusal>>> {
    let mut scanner = Scanner::default();
    loop {
        match head.parse(buffer.filled(), &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => return Ok(Some(Ok(()))),
            Ok(Parsed::Incomplete) => {}
            Err(refusal) => return Ok(Some(Err(refusal))),
        }
        if read_some(stream, buffer)? == 0 {
            return Ok(None);
        }
    }
}

fn read_some(stream: &Stream, buffer: &mut Buffer) -> io::Result<usize> {
    if buffer.is_empty() {
        buffer.release();
    }
    let count = stream.read(buffer.room(), Instant::now() + PATIENCE)?;
    buffer.added(count);
    Ok(count)
}

/// The client waits for `100 Continue`.
fn expects(field: &Field, bytes: &[u8]) -> bool {
    let value = field.value.of(bytes);
    field.kind == FieldKind::Expect && value.eq_ignore_ascii_case(b"100-continue")
}

fn drop_body(
    stream: &Stream,
    buffer: &mut Buffer,
    framing: Framing,
    turns: &mut Turns,
) -> io::Result<()> {
    let mut body = BodyReader::new(MessageKind::Request, framing, LIMITS);
    loop {
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let (count, piece) = body.next(buffer.filled()).map_err(malformed)?;
        buffer.consume(count);
        turns.moved(count);
        match piece {
            Piece::Content(_) => {}
            Piece::End => return Ok(()),
            Piece::More if read_some(stream, buffer)? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Piece::More => {}
        }
    }
}

fn put_answer(out: &mut Vec<u8>, text: &str, is_head: bool, keeps: bool) {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    if !keeps {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(text.as_bytes());
    }
}

fn refuse(stream: &Stream, refusal: Refusal) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode::refusal(&mut bytes, refusal);
    stream.write_all(&bytes, &Patience::new(PATIENCE))
}
