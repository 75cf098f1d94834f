//! Bodies on their way through, in either direction, always streamed: what is held is one buffer, or
//! for the rest of a large one a pipe.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use crate::http::fields::ConnectionOptions;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::{BadChunk, Piece, Trailer};
use crate::http::h1::encode;
use crate::memory::buffer::Buffer;
use crate::net::{Patience, Pipe, Stream, Turns, Wake, Watch};

/// Content up to this size is copied behind what is to be written anyway, so that a small message
/// takes one write; larger content is written from where it lies.
const COPY_LIMIT: usize = 8 * 1024;

/// What is to be written is written when it has so many bytes.
const PENDING_LIMIT: usize = 32 * 1024;

/// More certain content than this makes a big buffer worth its memory, where there is no pipe for it.
const LARGE_BODY: u64 = 64 * 1024;

/// More certain content than this goes through a pipe, from where it lies in the kernel.
const PIPED_BODY: u64 = 128 * 1024;

/// Where a body comes from.
pub(in crate::proxy) struct Source<'a> {
    pub(in crate::proxy) stream: &'a Stream,
    pub(in crate::proxy) buffer: &'a mut Buffer,
    /// What has left the source and not yet reached the sink; between two relays only if it holds bytes.
    pub(in crate::proxy) pipe: &'a mut Option<Pipe>,
    pub(in crate::proxy) reader: &'a mut BodyReader,
    /// With the source's silence.
    pub(in crate::proxy) patience: &'a Patience,
    /// Ends the relay when it happens while the source is silent.
    pub(in crate::proxy) watch: Watch<'a>,
    /// Content that is still let through.
    pub(in crate::proxy) allowance: Option<u64>,
    /// Counts what comes.
    pub(in crate::proxy) heard: Option<&'a Cell<usize>>,
    /// Once true, the end of the source is not of its own making.
    pub(in crate::proxy) broken_off: Option<&'a Cell<bool>>,
}

/// Where a body goes to.
pub(in crate::proxy) struct Sink<'a> {
    pub(in crate::proxy) stream: &'a Stream,
    /// What is to be written before the body: the head; then whatever is not yet worth a write.
    pub(in crate::proxy) pending: &'a mut Vec<u8>,
    pub(in crate::proxy) chunked: bool,
    /// Of the message's head.
    pub(in crate::proxy) options: &'a ConnectionOptions,
    /// With a sink that takes nothing.
    pub(in crate::proxy) patience: &'a Patience,
    /// It may have something to say before it takes more, which ends the relay as what is watched.
    pub(in crate::proxy) until_readable: bool,
    /// The end of the body is written, or pending.
    pub(in crate::proxy) ended: &'a mut bool,
    /// Bytes written.
    pub(in crate::proxy) sent: &'a mut u64,
}

/// How a relay ended.
pub(in crate::proxy) enum End {
    /// The whole body is written.
    Complete,
    /// What was watched has happened; the relay can go on later.
    Watched,
    /// The source ended or was reset inside the body.
    Cut,
    /// The source was silent for too long.
    Stalled,
    /// The source's framing is malformed.
    Malformed(BadChunk),
    /// More content than is let through.
    TooLarge,
    /// The sink failed.
    Sink(io::Error),
}

/// Relays the rest of a body; adds the bytes taken to `taken`.
pub(in crate::proxy) fn relay(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    trailer: &mut Trailer,
    taken: &mut u64,
) -> End {
    let end = relay_rest(source, sink, trailer, taken);
    if let Some(pipe) = source.pipe.take_if(|it| it.is_empty()) {
        pipe.give_back();
    }
    end
}

fn relay_rest(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    trailer: &mut Trailer,
    taken: &mut u64,
) -> End {
    let mut turns = Turns::new();
    // The relay before this one may have left something.
    if let Some(pipe) = source.pipe {
        match sink.take_from(pipe) {
            Ok(true) => {}
            Ok(false) => return End::Watched,
            Err(error) => return End::Sink(error),
        }
    }
    loop {
        let filled = source.buffer.filled();
        let (count, piece) = match source.reader.next(filled) {
            Ok(next) => next,
            Err(bad) => return End::Malformed(bad),
        };
        let mut put = Ok(true);
        if let Piece::Content(length) = piece {
            if let Some(allowance) = &mut source.allowance {
                match allowance.checked_sub(length as u64) {
                    Some(left) => *allowance = left,
                    None => {
                        // The reader has gone over it, and may go on from here.
                        source.buffer.consume(count);
                        return End::TooLarge;
                    }
                }
            }
            put = sink.content(&filled[count - length..count]);
        }
        // Taken is what the reader has gone over, whatever becomes of it: it cannot be sent again.
        source.buffer.consume(count);
        *taken += count as u64;
        match put {
            Ok(true) => {}
            Ok(false) => return End::Watched,
            Err(error) => return End::Sink(error),
        }
        match piece {
            Piece::Content(_) => turns.took_piece(),
            Piece::End => return finish(source.reader, sink, trailer),
            Piece::More => {
                match sink.flush() {
                    Ok(true) => {}
                    Ok(false) => return End::Watched,
                    Err(error) => return End::Sink(error),
                }
                if source.pipe.is_none() && may_be_piped(source, sink) {
                    *source.pipe = Pipe::take();
                }
                let filled = match source.pipe {
                    Some(_) => splice(&mut turns, source, sink, taken),
                    None => fill(&mut turns, source),
                };
                match filled {
                    Filled::Some(count) => turns.moved(count),
                    Filled::End if source.may_end() => {
                        return finish(source.reader, sink, trailer);
                    }
                    Filled::End => return End::Cut,
                    Filled::Nothing(end) => return end,
                }
            }
        }
    }
}

fn finish(reader: &BodyReader, sink: &mut Sink<'_>, trailer: &mut Trailer) -> End {
    // Also where nobody gets it: a body whose trailer is malformed has no proper end.
    let trailer_bytes = match reader.trailer(trailer) {
        Ok(bytes) => bytes,
        Err(bad) => return End::Malformed(bad),
    };
    if sink.chunked && !std::mem::replace(sink.ended, true) {
        encode::last_chunk(sink.pending, trailer, trailer_bytes, sink.options);
    }
    match sink.flush() {
        Ok(true) => End::Complete,
        Ok(false) => End::Watched,
        Err(error) => End::Sink(error),
    }
}

impl Source<'_> {
    /// True when the end of the connection is the end of the body.
    fn may_end(&self) -> bool {
        self.reader.ends_with_connection() && !self.broken_off.is_some_and(Cell::get)
    }
}

/// Notes that so much has come.
fn came(count: usize, patience: &Patience, heard: Option<&Cell<usize>>) {
    patience.moved(count);
    if let Some(heard) = heard {
        heard.set(heard.get() + count);
    }
}

enum Filled {
    Some(usize),
    End,
    Nothing(End),
}

impl Source<'_> {
    /// Waits until something of the body is there.
    fn wait(&self) -> Result<(), End> {
        let begun = Instant::now();
        self.patience.expects(self.reader.announced());
        let deadline = self.patience.deadline(begun);
        let wake = self.stream.wait_readable(deadline, self.watch);
        self.patience.waited_since(begun);
        match wake {
            Wake::Ready => Ok(()),
            Wake::Watched => Err(End::Watched),
            Wake::Overdue | Wake::Interrupted => Err(End::Stalled),
        }
    }
}

/// Reads more of the body into the buffer.
fn fill(turns: &mut Turns, source: &mut Source<'_>) -> Filled {
    if source.reader.certain() > LARGE_BODY {
        source.buffer.enlarge();
    }
    if let Err(end) = source.wait() {
        return Filled::Nothing(end);
    }
    turns.begin_again();
    let room = source.buffer.room();
    let size = room.len();
    match source.stream.read_now(room) {
        Ok(0) => Filled::End,
        Ok(count) => {
            source.buffer.added(count);
            came(count, source.patience, source.heard);
            if count == size {
                // The source is faster than this buffer.
                source.buffer.enlarge();
            }
            Filled::Some(count)
        }
        // Old news.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Filled::Some(0),
        Err(_) => Filled::Nothing(End::Cut),
    }
}

/// True when the bytes that come are passed on as they are, and there are many of them.
fn may_be_piped(source: &Source<'_>, sink: &Sink<'_>) -> bool {
    let certain = source.reader.certain();
    let is_let_through = source.allowance.is_none_or(|it| certain <= it);
    !sink.chunked && is_let_through && certain > PIPED_BODY
}

/// Passes more of the body on through the pipe.
fn splice(
    turns: &mut Turns,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    taken: &mut u64,
) -> Filled {
    if let Err(end) = source.wait() {
        return Filled::Nothing(end);
    }
    turns.begin_again();
    let Some(mut pipe) = source.pipe.take() else {
        return Filled::Some(0);
    };
    let certain = usize::try_from(source.reader.certain()).unwrap_or(usize::MAX);
    let filled = pipe.fill(source.stream, turns.most().min(certain));
    if filled.as_ref().is_err_and(Pipe::is_refusal) {
        // What comes is copied.
        pipe.refused();
        return Filled::Some(0);
    }
    let pipe = source.pipe.insert(pipe);
    match filled {
        Ok(0) => Filled::End,
        Ok(count) => {
            source.reader.passed(count);
            if count == certain {
                // The events speak of bytes that were all taken, and nothing else would find that out.
                source.stream.is_readable_now();
            }
            came(count, source.patience, source.heard);
            if let Some(allowance) = &mut source.allowance {
                *allowance = allowance.saturating_sub(count as u64);
            }
            *taken += count as u64;
            match sink.take_from(pipe) {
                Ok(true) => Filled::Some(count),
                Ok(false) => Filled::Nothing(End::Watched),
                Err(error) => Filled::Nothing(End::Sink(error)),
            }
        }
        // Old news.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Filled::Some(0),
        Err(_) => Filled::Nothing(End::Cut),
    }
}

impl Sink<'_> {
    /// Takes content; false when the sink has something to say first.
    fn content(&mut self, content: &[u8]) -> io::Result<bool> {
        if self.chunked {
            encode::chunk_line(self.pending, content.len());
        }
        let mut open = true;
        if content.len() <= COPY_LIMIT {
            self.pending.extend_from_slice(content);
        } else {
            open = self.write(content)?;
        }
        if self.chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
        if open && self.pending.len() > PENDING_LIMIT {
            open = self.flush()?;
        }
        Ok(open)
    }

    /// Takes all that the pipe holds, behind what is pending; false when the sink has something to say
    /// first.
    fn take_from(&mut self, pipe: &mut Pipe) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        let (written, outcome) = pipe.drain(self.stream, self.patience, self.until_readable);
        *self.sent += written as u64;
        outcome?;
        Ok(pipe.is_empty())
    }

    /// Writes what is pending; false when the sink has something to say first.
    fn flush(&mut self) -> io::Result<bool> {
        self.write(&[])
    }

    /// Writes what is pending, and `content` after it. What is not written for now is pending.
    fn write(&mut self, content: &[u8]) -> io::Result<bool> {
        let (pending, until_readable) = (self.pending.len(), self.until_readable);
        let stream = self.stream;
        let (written, outcome) =
            stream.write_both(self.pending, content, self.patience, until_readable);
        *self.sent += written as u64;
        outcome?;
        self.pending.drain(..written.min(pending));
        let of_content = written.saturating_sub(pending);
        self.pending.extend_from_slice(&content[of_content..]);
        Ok(written == pending + content.len())
    }
}
