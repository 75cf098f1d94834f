//! Passes bodies through, in either direction, always streamed: at most one buffer of a body is held, or
//! a pipe with the rest of a large one.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use crate::http::fields::ConnectionOptions;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::{BadChunk, Piece, Trailer};
use crate::memory::buffer::Buffer;
use crate::net::{Patience, Pipe, Turns, Wake, Watch};
use crate::proxy::downstream::{BodyEnd, BodySink, Transport, Wait, WriteOutcome};

/// With more certain content than this, a big buffer is worth its memory, if there is no pipe.
const LARGE_BODY: u64 = 64 * 1024;

/// More certain content than this goes through a pipe, without leaving the kernel.
const PIPED_BODY: u64 = 128 * 1024;

/// Where a body comes from.
pub(in crate::proxy) struct Source<'a, T> {
    pub(in crate::proxy) from: &'a T,
    pub(in crate::proxy) buffer: &'a mut Buffer,
    /// What has left the source and not reached the sink yet; between two relays only if it holds bytes.
    pub(in crate::proxy) pipe: &'a mut Option<Pipe>,
    pub(in crate::proxy) reader: &'a mut BodyReader,
    /// How long the source may be silent.
    pub(in crate::proxy) patience: &'a Patience,
    /// Ends the relay when it happens while the source is silent.
    pub(in crate::proxy) watch: Watch<'a>,
    /// Content that is still let through.
    pub(in crate::proxy) allowance: Option<u64>,
    /// Counts the bytes that arrive.
    pub(in crate::proxy) heard: Option<&'a Cell<usize>>,
    /// Once true, the end of the source was caused by this side.
    pub(in crate::proxy) broken_off: Option<&'a Cell<bool>>,
}

/// Where a body goes to.
pub(in crate::proxy) struct Sink<'a, B> {
    pub(in crate::proxy) to: &'a mut B,
    /// Of the message's head.
    pub(in crate::proxy) options: &'a ConnectionOptions,
    /// How to wait for a sink that takes nothing. If it has sent something first, that ends the relay
    /// like what is watched.
    pub(in crate::proxy) wait: Wait<'a>,
    /// Bytes written.
    pub(in crate::proxy) sent: &'a mut u64,
}

/// How a relay ended.
pub(in crate::proxy) enum RelayEnd {
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

impl RelayEnd {
    /// True when the sink has taken nothing for too long.
    pub(in crate::proxy) fn is_timeout_of_sink(&self) -> bool {
        matches!(self, Self::Sink(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

/// Relays the rest of a body; adds the bytes taken to `taken`.
// Out of line: its locals would lie on the stack of every other request, too.
#[inline(never)]
pub(in crate::proxy) fn relay<T: Transport, B: BodySink>(
    source: &mut Source<'_, T>,
    sink: &mut Sink<'_, B>,
    trailer: &mut Trailer,
    taken: &mut u64,
) -> RelayEnd {
    let end = relay_rest(source, sink, trailer, taken);
    if let Some(pipe) = source.pipe.take_if(|it| it.is_empty()) {
        pipe.give_back();
    }
    end
}

fn relay_rest<T: Transport, B: BodySink>(
    source: &mut Source<'_, T>,
    sink: &mut Sink<'_, B>,
    trailer: &mut Trailer,
    taken: &mut u64,
) -> RelayEnd {
    let mut turns = Turns::new();
    // An earlier relay may have left something.
    if let Some(pipe) = source.pipe {
        match sink.take_from(pipe) {
            Ok(true) => {}
            Ok(false) => return RelayEnd::Watched,
            Err(error) => return RelayEnd::Sink(error),
        }
    }
    loop {
        let filled = source.buffer.filled();
        let (count, piece) = match source.reader.next(filled) {
            Ok(next) => next,
            Err(bad) => return RelayEnd::Malformed(bad),
        };
        let mut put = Ok(true);
        if let Piece::Content(length) = piece {
            if let Some(allowance) = &mut source.allowance {
                match allowance.checked_sub(length as u64) {
                    Some(left) => *allowance = left,
                    None => {
                        // The reader has gone over it, and may go on from here.
                        source.buffer.consume(count);
                        return RelayEnd::TooLarge;
                    }
                }
            }
            put = sink.piece(&filled[count - length..count]);
        }
        // Taken is what the reader has gone over, whatever becomes of it: it cannot be sent again.
        source.buffer.consume(count);
        *taken += count as u64;
        match put {
            Ok(true) => {}
            Ok(false) => return RelayEnd::Watched,
            Err(error) => return RelayEnd::Sink(error),
        }
        match piece {
            Piece::Content(_) => turns.took_piece(),
            Piece::End => return finish(source.reader, sink, trailer),
            Piece::More => {
                match sink.flush() {
                    Ok(true) => {}
                    Ok(false) => return RelayEnd::Watched,
                    Err(error) => return RelayEnd::Sink(error),
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
                    Filled::End => return RelayEnd::Cut,
                    Filled::Nothing(end) => return end,
                }
            }
        }
    }
}

fn finish<B: BodySink>(
    reader: &BodyReader,
    sink: &mut Sink<'_, B>,
    trailer: &mut Trailer,
) -> RelayEnd {
    // Parsed even if it is not passed on: a body with a malformed trailer has no proper end.
    let bytes = match reader.trailer(trailer) {
        Ok(bytes) => bytes,
        Err(bad) => return RelayEnd::Malformed(bad),
    };
    match sink.end(trailer, bytes) {
        Ok(true) => RelayEnd::Complete,
        Ok(false) => RelayEnd::Watched,
        Err(error) => RelayEnd::Sink(error),
    }
}

impl<T: Transport> Source<'_, T> {
    /// True when the end of the connection is the end of the body.
    fn may_end(&self) -> bool {
        self.reader.ends_with_connection() && !self.broken_off.is_some_and(Cell::get)
    }
}

/// Notes that this many bytes have arrived.
fn came(count: usize, patience: &Patience, heard: Option<&Cell<usize>>) {
    patience.moved(count);
    if let Some(heard) = heard {
        heard.set(heard.get() + count);
    }
}

enum Filled {
    Some(usize),
    End,
    Nothing(RelayEnd),
}

impl<T: Transport> Source<'_, T> {
    /// Waits until something of the body is there.
    fn wait(&self) -> Result<(), RelayEnd> {
        let begun = Instant::now();
        // Else one that is always ready would have no end.
        if self.patience.has_ended(begun) {
            return Err(RelayEnd::Stalled);
        }
        self.patience.expects(self.reader.announced());
        let deadline = self.patience.deadline(begun);
        let wake = self.from.wait_readable(deadline, self.watch);
        self.patience.waited_since(begun);
        match wake {
            Wake::Ready => Ok(()),
            Wake::Watched => Err(RelayEnd::Watched),
            Wake::Overdue | Wake::Interrupted => Err(RelayEnd::Stalled),
        }
    }
}

/// Reads more of the body into the buffer.
fn fill<T: Transport>(turns: &mut Turns, source: &mut Source<'_, T>) -> Filled {
    if source.reader.certain() > LARGE_BODY {
        source.buffer.enlarge();
    }
    if let Err(end) = source.wait() {
        return Filled::Nothing(end);
    }
    turns.begin_again();
    let room = source.buffer.room();
    let size = room.len();
    match source.from.read_now(room) {
        Ok(0) => Filled::End,
        Ok(count) => {
            source.buffer.added(count);
            came(count, source.patience, source.heard);
            if count == size {
                // The source is faster than a buffer of this size can pass on.
                source.buffer.enlarge();
            }
            Filled::Some(count)
        }
        // Old news.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Filled::Some(0),
        Err(_) => Filled::Nothing(RelayEnd::Cut),
    }
}

/// True when the bytes that come are passed on as they are, and there are many of them.
fn may_be_piped<T: Transport, B: BodySink>(source: &Source<'_, T>, sink: &Sink<'_, B>) -> bool {
    let certain = source.reader.certain();
    let is_let_through = source.allowance.is_none_or(|it| certain <= it);
    let are_sockets = source.from.socket().is_some() && sink.to.socket().is_some();
    are_sockets && is_let_through && certain > PIPED_BODY
}

/// Passes more of the body on through the pipe.
fn splice<T: Transport, B: BodySink>(
    turns: &mut Turns,
    source: &mut Source<'_, T>,
    sink: &mut Sink<'_, B>,
    taken: &mut u64,
) -> Filled {
    if let Err(end) = source.wait() {
        return Filled::Nothing(end);
    }
    turns.begin_again();
    let (Some(mut pipe), Some(socket)) = (source.pipe.take(), source.from.socket()) else {
        return Filled::Some(0);
    };
    let certain = usize::try_from(source.reader.certain()).unwrap_or(usize::MAX);
    let filled = pipe.fill(socket, turns.most().min(certain));
    if filled.as_ref().is_err_and(Pipe::is_refusal) {
        // What comes now is copied.
        pipe.refused();
        return Filled::Some(0);
    }
    let pipe = source.pipe.insert(pipe);
    match filled {
        Ok(0) => Filled::End,
        Ok(count) => {
            source.reader.passed(count);
            if count == certain {
                // The events may be about bytes that were read already, and nothing else would find that
                // out.
                socket.is_readable_now();
            }
            came(count, source.patience, source.heard);
            if let Some(allowance) = &mut source.allowance {
                *allowance = allowance.saturating_sub(count as u64);
            }
            *taken += count as u64;
            match sink.take_from(pipe) {
                Ok(true) => Filled::Some(count),
                Ok(false) => Filled::Nothing(RelayEnd::Watched),
                Err(error) => Filled::Nothing(RelayEnd::Sink(error)),
            }
        }
        // Old news.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Filled::Some(0),
        Err(_) => Filled::Nothing(RelayEnd::Cut),
    }
}

impl<B: BodySink> Sink<'_, B> {
    /// Takes content; false when the sink has sent something first.
    fn piece(&mut self, content: &[u8]) -> io::Result<bool> {
        let written = self.to.piece(content, self.wait);
        self.count(written)
    }

    /// Takes everything in the pipe, after what is pending; false when the sink has sent something
    /// first.
    fn take_from(&mut self, pipe: &mut Pipe) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        // There is one, or there would be no pipe.
        let Some(socket) = self.to.socket() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let Wait {
            patience,
            until_readable,
        } = self.wait;
        let (written, outcome) = pipe.drain(socket, patience, until_readable);
        self.count((written, outcome.map(|()| pipe.is_empty())))
    }

    /// Takes the end, and writes what is pending; false when the sink has sent something first.
    fn end(&mut self, trailer: &Trailer, bytes: &[u8]) -> io::Result<bool> {
        let end = BodyEnd {
            trailer,
            bytes,
            options: self.options,
        };
        let written = self.to.end(end, self.wait);
        self.count(written)
    }

    /// Writes what is pending; false when the sink has sent something first.
    fn flush(&mut self) -> io::Result<bool> {
        let written = self.to.flush(self.wait);
        self.count(written)
    }

    fn count(&mut self, (written, outcome): WriteOutcome) -> io::Result<bool> {
        *self.sent += written as u64;
        outcome
    }
}
