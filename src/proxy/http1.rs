//! A client that speaks HTTP/1, and a plain socket as its transport.

use std::io;
use std::time::Instant;

use super::body::outgoing::Outgoing;
use super::downstream::{BodyEnd, BodySink, ByteStream, Downstream, Transport, Wait, WriteOutcome};
use crate::http::fields::ConnectionOptions;
use crate::http::h1::encode::{self, ResponseToClient};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::ResponseHead;
use crate::http::version::Version;
use crate::net::{Grip, Patience, Stream, Wake, Watch};

/// The response to one request, being written.
pub(super) struct Http1<'a, S> {
    /// What of it is to be written.
    response: Outgoing<'a, S>,
    /// The client's.
    version: Version,
}

impl<'a, S: ByteStream> Http1<'a, S> {
    /// `pending` is the memory for what is not written yet.
    pub(super) fn new(to: &'a S, version: Version, pending: &'a mut Vec<u8>) -> Self {
        Self {
            response: Outgoing {
                kept: None,
                to,
                pending,
                chunked: false,
                ended: false,
            },
            version,
        }
    }
}

impl<S: ByteStream> Downstream for Http1<'_, S> {
    type Transport = S;

    fn framing(&self, of_peer: Framing) -> Framing {
        match (of_peer, self.version) {
            (Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (Framing::Chunked, Version::Http10) => Framing::UntilClose,
            (framing, _) => framing,
        }
    }

    fn interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        options: &ConnectionOptions,
        patience: &Patience,
    ) -> io::Result<usize> {
        let Outgoing { to, pending, .. } = &mut self.response;
        pending.clear();
        encode::interim(pending, head, bytes, options);
        let wait = Wait {
            patience,
            until_readable: false,
        };
        let (written, outcome) = to.write_both(pending, &[], wait);
        outcome.map(|()| written)
    }

    fn head(&mut self, response: &ResponseToClient<'_>) -> usize {
        self.response.pending.clear();
        encode::response(self.response.pending, response);
        self.response.chunked = response.framing == Framing::Chunked;
        self.response.ended = false;
        self.response.pending.len()
    }
}

impl<S: ByteStream> BodySink for Http1<'_, S> {
    fn piece(&mut self, content: &[u8], wait: Wait<'_>) -> WriteOutcome {
        self.response.piece(content, wait)
    }

    fn end(&mut self, end: BodyEnd<'_>, wait: Wait<'_>) -> WriteOutcome {
        self.response.end(end, wait)
    }

    fn flush(&mut self, wait: Wait<'_>) -> WriteOutcome {
        self.response.flush(wait)
    }

    fn socket(&self) -> Option<&Stream> {
        self.response.socket()
    }
}

// Used for peers, too: bodies come from them and go to them, and tunnels lead there.
impl Transport for Stream {
    fn watch_gone(&self) -> Watch<'_> {
        Watch::Gone(self)
    }

    fn watch_reset(&self) -> Watch<'_> {
        Watch::Reset(self)
    }

    fn watch_ended(&self) -> Watch<'_> {
        Watch::Ended(self)
    }

    fn watch_readable(&self) -> Watch<'_> {
        Watch::Readable(self)
    }

    fn is_gone(&self) -> bool {
        self.is_gone()
    }

    fn wait_readable(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.wait_readable(deadline, watch)
    }

    fn wait_in_tunnel(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.wait_interruptible(deadline, watch)
    }

    fn grip(&self) -> Option<Grip> {
        Some(self.grip())
    }

    fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_now(into)
    }

    fn socket(&self) -> Option<&Stream> {
        Some(self)
    }

    fn twin(&self) -> io::Result<Self> {
        self.twin()
    }

    fn shutdown_read(&self) {
        self.shutdown_read();
    }

    fn abort(&self) {
        self.abort();
    }

    fn cancel_abort(&self) {
        self.cancel_abort();
    }

    fn write_all_unless(
        &self,
        bytes: &[u8],
        patience: &Patience,
        watch: Watch<'_>,
    ) -> io::Result<()> {
        self.write_all_unless(bytes, patience, watch)
    }

    fn unsent(&self) -> usize {
        self.unsent()
    }

    fn shutdown_write(&self) {
        self.shutdown_write();
    }

    fn reset(&self) {
        self.reset();
    }
}

impl ByteStream for Stream {
    fn write_both(&self, head: &[u8], body: &[u8], wait: Wait<'_>) -> (usize, io::Result<()>) {
        self.write_both(head, body, wait.patience, wait.until_readable)
    }
}
