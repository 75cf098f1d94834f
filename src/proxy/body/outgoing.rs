//! An outgoing HTTP/1 message: its head and its body, to a peer or to a client.

use crate::http::h1::encode;
use crate::net::Stream;
use crate::proxy::downstream::{BodyEnd, BodySink, ByteStream, Wait, WriteOutcome};

/// Content up to this size is copied to what is to be written anyway, so that a small message takes one
/// write; larger content is written from where it is.
const COPY_LIMIT: usize = 8 * 1024;

/// Pending bytes are written once there are this many of them.
const PENDING_LIMIT: usize = 32 * 1024;

/// A message that is being written.
pub(in crate::proxy) struct Outgoing<'a, S> {
    pub(in crate::proxy) to: &'a S,
    /// First the head; then whatever is not worth a write yet.
    pub(in crate::proxy) pending: &'a mut Vec<u8>,
    pub(in crate::proxy) chunked: bool,
    /// The end of the body is written, or pending.
    pub(in crate::proxy) ended: bool,
    /// Gets a copy of what is written, should it have to be written again.
    pub(in crate::proxy) kept: Option<KeptBody<'a>>,
}

/// A copy of a body on its way out, as long as that is small.
pub(in crate::proxy) struct KeptBody<'a> {
    /// Where it goes, behind what is there.
    pub(in crate::proxy) to: &'a mut Vec<u8>,
    /// As long as this will be, the copy is made.
    pub(in crate::proxy) limit: usize,
}

impl<S: ByteStream> BodySink for Outgoing<'_, S> {
    fn piece(&mut self, content: &[u8], wait: Wait<'_>) -> WriteOutcome {
        self.keep_piece(content);
        if self.chunked {
            encode::chunk_line(self.pending, content.len());
        }
        let (mut written, mut outcome) = (0, Ok(true));
        if content.len() <= COPY_LIMIT {
            self.pending.extend_from_slice(content);
        } else {
            (written, outcome) = self.write(content, wait);
        }
        if self.chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
        if matches!(outcome, Ok(true)) && self.pending.len() > PENDING_LIMIT {
            let (more, outcome) = self.flush(wait);
            return (written + more, outcome);
        }
        (written, outcome)
    }

    fn end(&mut self, end: BodyEnd<'_>, wait: Wait<'_>) -> WriteOutcome {
        if self.chunked && !std::mem::replace(&mut self.ended, true) {
            encode::last_chunk(self.pending, end.trailer, end.bytes, end.options);
            if let Some(kept) = &mut self.kept {
                encode::last_chunk(kept.to, end.trailer, end.bytes, end.options);
            }
        }
        self.flush(wait)
    }

    fn flush(&mut self, wait: Wait<'_>) -> WriteOutcome {
        self.write(&[], wait)
    }

    fn socket(&self) -> Option<&Stream> {
        match self.chunked {
            true => None,
            false => self.to.socket(),
        }
    }
}

impl<S: ByteStream> Outgoing<'_, S> {
    fn keep_piece(&mut self, content: &[u8]) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        if self.chunked {
            encode::chunk_line(kept.to, content.len());
        }
        if kept.to.len() + content.len() > kept.limit {
            // It is no copy any more.
            self.kept = None;
            return;
        }
        kept.to.extend_from_slice(content);
        if self.chunked {
            kept.to.extend_from_slice(b"\r\n");
        }
    }

    /// Writes what is pending, and then `content`. What cannot be written now becomes pending.
    fn write(&mut self, content: &[u8], wait: Wait<'_>) -> WriteOutcome {
        let pending = self.pending.len();
        let (written, outcome) = self.to.write_both(self.pending, content, wait);
        if let Err(error) = outcome {
            return (written, Err(error));
        }
        self.pending.drain(..written.min(pending));
        let of_content = written.saturating_sub(pending);
        self.pending.extend_from_slice(&content[of_content..]);
        (written, Ok(written == pending + content.len()))
    }
}
