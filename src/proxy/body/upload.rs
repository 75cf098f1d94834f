//! The rest of a request's body, while the response is already on its way.
//!
//! A peer may answer before it has read the whole request, and go on reading: it echoes, converts,
//! reports progress. Then both bodies flow at once, and a second coroutine sees to the request's,
//! on handles of its own ([`Twins`]).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::relay::{self, End, Sink, Source};
use super::tunnel::Twins;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::Trailer;
use crate::memory::buffer::Buffer;
use crate::net::{self, Companion, Patience, Pipe, Watch};
use crate::proxy::failsafe::Failsafe;

/// What is known of the body so far.
pub(in crate::proxy) struct RestOfBody {
    /// Bytes received and not yet used.
    pub(in crate::proxy) buffer: Buffer,
    pub(in crate::proxy) reader: BodyReader,
    /// What is to be written before all else.
    pub(in crate::proxy) pending: Vec<u8>,
    /// What is to be written after that.
    pub(in crate::proxy) pipe: Option<Pipe>,
    /// The end of the body is pending.
    pub(in crate::proxy) ended: bool,
    /// With the client.
    pub(in crate::proxy) patience: Patience,
    /// Content that is still let through.
    pub(in crate::proxy) allowance: Option<u64>,
    /// It goes to the peer in chunks.
    pub(in crate::proxy) chunked: bool,
    /// Of the request's head.
    pub(in crate::proxy) options: ConnectionOptions,
    /// Longest time that the peer may take nothing.
    pub(in crate::proxy) send_timeout: Duration,
    /// The peer has refused the request: that it takes no more of it then is no fault.
    pub(in crate::proxy) refused: bool,
}

/// What has come of it.
pub(in crate::proxy) struct Uploaded {
    pub(in crate::proxy) end: End,
    /// Bytes received and not yet used.
    pub(in crate::proxy) buffer: Buffer,
    /// Where in the body that is.
    pub(in crate::proxy) reader: BodyReader,
    /// With the client.
    pub(in crate::proxy) patience: Patience,
    /// Bytes of the body taken from the client.
    pub(in crate::proxy) taken: u64,
    /// Bytes sent to the peer.
    pub(in crate::proxy) sent: u64,
}

/// An upload under way.
pub(in crate::proxy) struct Upload {
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
    pub(in crate::proxy) fn begin(twins: Twins, rest: RestOfBody) -> io::Result<Self> {
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
    pub(in crate::proxy) fn broken_off(&self) -> &Cell<bool> {
        &self.broken_off
    }

    /// Bytes that have come from the client.
    pub(in crate::proxy) fn heard(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.heard)
    }

    /// To count the bytes of its answer that have come from the peer: while they come, it may take nothing.
    pub(in crate::proxy) fn answered(&self) -> &Cell<usize> {
        &self.answered
    }

    /// True when nothing more will be sent.
    pub(in crate::proxy) fn has_ended(&self) -> bool {
        self.companion.has_ended()
    }

    /// Waits for the end; `None` after a panic.
    pub(in crate::proxy) fn join(self) -> Option<Uploaded> {
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
