//! The rest of a request's body, while the response is already on its way.
//!
//! A peer may answer before it has read the whole request, and keep reading: it echoes, converts, or
//! reports progress. Then both bodies flow at once, and a second coroutine relays the request's, with
//! handles of its own ([`Twins`]).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::relay::RelayEnd;
use super::request_body::{FromClient, Relayed, RequestBody, ToPeer};
use super::tunnel::Twins;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::chunked::Trailer;
use crate::memory::buffer::Buffer;
use crate::net::{self, Companion, Patience, Watch};
use crate::proxy::downstream::Transport;
use crate::proxy::failsafe::Failsafe;

/// What is handed over with the body.
pub(in crate::proxy) struct RestOfBody {
    pub(in crate::proxy) body: RequestBody,
    /// Bytes received and not yet used.
    pub(in crate::proxy) buffer: Buffer,
    /// What is to be written before all else.
    pub(in crate::proxy) pending: Vec<u8>,
    /// Of the request's head.
    pub(in crate::proxy) options: ConnectionOptions,
    /// Longest time that the peer may take nothing.
    pub(in crate::proxy) send_timeout: Duration,
    /// The end of the exchange's time.
    pub(in crate::proxy) end: Option<Instant>,
    /// The peer has refused the request, so it is not a fault if it takes no more of it.
    pub(in crate::proxy) refused: bool,
}

/// The outcome.
pub(in crate::proxy) struct Uploaded {
    pub(in crate::proxy) relayed: Relayed,
    /// The body, in its state now.
    pub(in crate::proxy) body: RequestBody,
    /// Bytes received and not yet used.
    pub(in crate::proxy) buffer: Buffer,
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
    /// When the second coroutine cannot be started.
    pub(in crate::proxy) fn begin<T: Transport>(
        twins: Twins<T>,
        rest: RestOfBody,
    ) -> io::Result<Self> {
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

    /// True once the upload has ended the connection to the peer, in the middle of the response.
    pub(in crate::proxy) fn broken_off(&self) -> &Cell<bool> {
        &self.broken_off
    }

    /// Bytes that have come from the client.
    pub(in crate::proxy) fn heard(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.heard)
    }

    /// Counts the bytes of the answer that have come from the peer: while they come, it need not take
    /// anything.
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
    fn send<T: Transport>(
        mut self,
        twins: &Twins<T>,
        broken_off: &Cell<bool>,
        heard: &Cell<usize>,
        answered: Rc<Cell<usize>>,
    ) -> Uploaded {
        // Runs unless all goes well, even after a panic.
        let break_off = Failsafe::new(|| {
            broken_off.set(true);
            twins.peer.shutdown_both();
        });
        let mut trailer = Trailer::default();
        // A peer that answers is alive. It may have stopped reading, or continue once it has answered:
        // that is unknown, unless it has refused.
        let answered = (!self.refused).then_some(answered);
        let peer_patience = Patience::new(self.send_timeout).hearing(answered);
        peer_patience.ends_at(self.end);
        let client = FromClient {
            transport: &twins.client,
            buffer: &mut self.buffer,
            watch: Watch::Gone(&twins.peer),
            heard: Some(heard),
        };
        let peer = ToPeer {
            stream: &twins.peer,
            pending: &mut self.pending,
            kept: None,
            options: &self.options,
            patience: &peer_patience,
            until_readable: false,
        };
        let relayed = self.body.relay(client, peer, &mut trailer);
        let ends_exchange = match &relayed.end {
            RelayEnd::Complete | RelayEnd::Watched => false,
            // A peer that has closed may have said why; one that takes nothing would be waited for for
            // ever.
            RelayEnd::Sink(error) => !self.refused && error.kind() == io::ErrorKind::TimedOut,
            // The client's fault ends the exchange, whatever the peer is doing.
            _ => true,
        };
        match ends_exchange {
            true => drop(break_off),
            false => break_off.disarm(),
        }
        Uploaded {
            relayed,
            body: self.body,
            buffer: self.buffer,
        }
    }
}
