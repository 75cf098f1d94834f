//! The rest of a request's body, while the response is already on its way.
//!
//! A peer may answer before it has read the whole request, and go on reading: it echoes, converts,
//! reports progress. Then both bodies flow at once, and a second coroutine sees to the request's,
//! on handles of its own ([`Twins`]).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::failsafe::Failsafe;
use super::relay::{self, End, Sink, Source};
use super::tunnel::Twins;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::Trailer;
use crate::memory::buffer::Buffer;
use crate::net::{self, Companion, Patience, Pipe, Watch};

/// What is known of the body so far.
pub(super) struct RestOfBody {
    /// Bytes received and not yet used.
    pub(super) buffer: Buffer,
    pub(super) reader: BodyReader,
    /// What is to be written before all else.
    pub(super) pending: Vec<u8>,
    /// What is to be written after that.
    pub(super) pipe: Option<Pipe>,
    /// The end of the body is pending.
    pub(super) ended: bool,
    /// With the client.
    pub(super) patience: Patience,
    /// Content that is still let through.
    pub(super) allowance: Option<u64>,
    /// It goes to the peer in chunks.
    pub(super) chunked: bool,
    /// Of the request's head.
    pub(super) options: ConnectionOptions,
    /// Longest time that the peer may take nothing.
    pub(super) send_timeout: Duration,
    /// The peer has refused the request: that it takes no more of it then is no fault.
    pub(super) refused: bool,
}

/// What has come of it.
pub(super) struct Uploaded {
    pub(super) end: End,
    /// Bytes received and not yet used.
    pub(super) buffer: Buffer,
    /// Where in the body that is.
    pub(super) reader: BodyReader,
    /// With the client.
    pub(super) patience: Patience,
    /// Bytes of the body taken from the client.
    pub(super) taken: u64,
    /// Bytes sent to the peer.
    pub(super) sent: u64,
}

/// An upload under way.
pub(super) struct Upload {
    companion: Companion<Uploaded>,
    broken_off: Rc<Cell<bool>>,
    heard: Rc<Cell<usize>>,
    answered: Rc<Cell<usize>>,
}

impl Upload {
    /// Begins to send the rest.
    ///
    /// # Errors
    /// When the second coroutine cannot be had.
    pub(super) fn begin(twins: Twins, rest: RestOfBody) -> io::Result<Self> {
        let broken_off = Rc::new(Cell::new(false));
        let heard = Rc::new(Cell::new(0));
        let answered = Rc::new(Cell::new(0));
        let of_companion = (Rc::clone(&broken_off), Rc::clone(&heard));
        let of_peer = Rc::clone(&answered);
        let companion = net::spawn_beside(move || {
            let (broken_off, heard) = of_companion;
            rest.send(&twins, &broken_off, &heard, of_peer)
        })?;
        Ok(Self {
            companion,
            broken_off,
            heard,
            answered,
        })
    }

    /// True once the upload has ended the connection to the peer, in the middle of whatever comes
    /// from there.
    pub(super) fn broken_off(&self) -> &Cell<bool> {
        &self.broken_off
    }

    /// Bytes that have come from the client.
    pub(super) fn heard(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.heard)
    }

    /// To count the bytes of its answer that have come from the peer: while they come, it may take nothing.
    pub(super) fn answered(&self) -> &Cell<usize> {
        &self.answered
    }

    /// True when nothing more will be sent.
    pub(super) fn has_ended(&self) -> bool {
        self.companion.has_ended()
    }

    /// Waits for the end; `None` after a panic.
    pub(super) fn join(self) -> Option<Uploaded> {
        self.companion.join()
    }
}

impl RestOfBody {
    fn send(
        mut self,
        twins: &Twins,
        broken_off: &Cell<bool>,
        heard: &Cell<usize>,
        answered: Rc<Cell<usize>>,
    ) -> Uploaded {
        // Unless all went well, a panic included.
        let break_off = Failsafe::new(|| {
            broken_off.set(true);
            twins.peer.shutdown_both();
        });
        let (mut taken, mut sent) = (0, 0);
        let mut trailer = Trailer::default();
        // One that answers is there. Whether it has left off reading, or reads on when it has said its say, it
        // does not tell; but one that has refused has told.
        let answered = (!self.refused).then_some(answered);
        let peer_patience = Patience::new(self.send_timeout).hearing(answered);
        let mut source = Source {
            stream: &twins.client,
            buffer: &mut self.buffer,
            pipe: &mut self.pipe,
            reader: &mut self.reader,
            patience: &self.patience,
            watch: Watch::Gone(&twins.peer),
            allowance: self.allowance,
            heard: Some(heard),
            broken_off: None,
        };
        let mut sink = Sink {
            stream: &twins.peer,
            pending: &mut self.pending,
            chunked: self.chunked,
            options: &self.options,
            patience: &peer_patience,
            until_readable: false,
            ended: &mut self.ended,
            sent: &mut sent,
        };
        let end = relay::relay(&mut source, &mut sink, &mut trailer, &mut taken);
        let ends_exchange = match &end {
            End::Complete | End::Watched => false,
            // A peer that has closed may have said why; one that takes nothing waits for ever.
            End::Sink(error) => !self.refused && error.kind() == io::ErrorKind::TimedOut,
            // The client's fault ends it, whatever the peer is doing.
            _ => true,
        };
        match ends_exchange {
            true => drop(break_off),
            false => break_off.disarm(),
        }
        Uploaded {
            end,
            buffer: self.buffer,
            reader: self.reader,
            patience: self.patience,
            taken,
            sent,
        }
    }
}
