//! The body of a request, from its head to its end, whatever becomes of it: it is relayed to the peer,
//! by this coroutine or a second one, or it is read and dropped, since the client may read nothing until
//! it has sent everything.
//!
//! ```text
//!   Untouched -> WithHead (a small one that has arrived is sent with the head)
//!   Untouched -> Begun -> Ending -> Complete
//!       any of them -> Away (a second coroutine has it) -> as that has left it
//!       any of them -> Unknown (nobody can tell where it ends)
//! ```

use std::cell::Cell;
use std::time::Duration;

use super::outgoing::{KeptBody, Outgoing};
use super::relay::{self, RelayEnd, Sink, Source};
use crate::config::Config;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::{MessageKind, Piece, Trailer};
use crate::http::h1::framing::Framing;
use crate::memory::buffer::Buffer;
use crate::net::{Patience, Pipe, Stream, Turns, Watch};
use crate::proxy::downstream::{Transport, Wait};

/// A body up to this size, in bytes, is kept until it is answered, so that it can be sent again.
pub(in crate::proxy) const SMALL_BODY: usize = 8 * 1024;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// There is none, or it is sent with the head: in one write, and again for another attempt.
    WithHead,
    /// Nothing of it was taken.
    Untouched,
    /// Some of it was taken, and cannot be sent again.
    Begun,
    /// All of it was taken, and its end is pending.
    Ending,
    /// All of it was taken, and has left.
    Complete,
    /// A second coroutine has it.
    Away,
    /// Its end cannot be found.
    Unknown,
}

/// The body of a request.
pub(in crate::proxy) struct RequestBody {
    state: BodyState,
    reader: BodyReader,
    /// What has left the client and not reached the peer yet.
    pipe: Option<Pipe>,
    /// With the client, while it comes in.
    patience: Patience,
    /// How much content may still come.
    allowance: Option<u64>,
    /// It arrives, and is sent to the peer, in chunks.
    is_chunked: bool,
    /// Bytes of it that were dropped, as nobody wanted them.
    dropped: u64,
    /// What was taken of it is still here, and can be sent again.
    is_kept: bool,
}

/// The client, from which it comes.
pub(in crate::proxy) struct FromClient<'a, T> {
    pub(in crate::proxy) transport: &'a T,
    pub(in crate::proxy) buffer: &'a mut Buffer,
    /// Ends the relay when it happens while the client is silent.
    pub(in crate::proxy) watch: Watch<'a>,
    /// Counts the bytes that arrive.
    pub(in crate::proxy) heard: Option<&'a Cell<usize>>,
}

/// The peer, to which it goes.
pub(in crate::proxy) struct ToPeer<'a> {
    pub(in crate::proxy) stream: &'a Stream,
    /// What is to be written before all else.
    pub(in crate::proxy) pending: &'a mut Vec<u8>,
    /// Gets a copy of what goes there, if that is to be kept.
    pub(in crate::proxy) kept: Option<KeptBody<'a>>,
    /// Of the request's head.
    pub(in crate::proxy) options: &'a ConnectionOptions,
    /// How long the peer may take nothing.
    pub(in crate::proxy) patience: &'a Patience,
    /// If the peer sends something before it takes more, that ends the relay.
    pub(in crate::proxy) until_readable: bool,
}

/// How a relay has ended, and what it has moved.
pub(in crate::proxy) struct Relayed {
    pub(in crate::proxy) end: RelayEnd,
    /// Bytes taken from the client.
    pub(in crate::proxy) taken: u64,
    /// Bytes sent to the peer.
    pub(in crate::proxy) sent: u64,
}

/// The outcome of dropping bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Dropped {
    /// All are dropped, and more of the body may come.
    All,
    /// The body has ended, or its end cannot be found.
    Over,
    /// More bytes than may be dropped of a body.
    TooMuch,
}

impl RequestBody {
    /// One that has not begun.
    pub(in crate::proxy) fn new(framing: Framing, config: &Config) -> Self {
        let gateway = &config.gateway;
        Self {
            state: match framing {
                Framing::None | Framing::Length(0) => BodyState::WithHead,
                _ => BodyState::Untouched,
            },
            reader: BodyReader::new(MessageKind::Request, framing, gateway.limits),
            pipe: None,
            patience: Patience::with_rate(gateway.body_timeout, gateway.min_rate),
            allowance: gateway.max_body,
            is_chunked: framing == Framing::Chunked,
            dropped: 0,
            is_kept: true,
        }
    }

    /// One of which nothing is known.
    pub(in crate::proxy) fn unknown() -> Self {
        Self {
            state: BodyState::Unknown,
            reader: BodyReader::Length(0),
            pipe: None,
            patience: Patience::new(Duration::ZERO),
            allowance: None,
            is_chunked: false,
            dropped: 0,
            is_kept: false,
        }
    }

    /// Its end cannot be found any more.
    pub(in crate::proxy) fn mark_unknown(&mut self) {
        self.state = BodyState::Unknown;
    }

    /// There is none, or it is sent with the head.
    pub(in crate::proxy) fn mark_with_head(&mut self) {
        self.state = BodyState::WithHead;
    }

    /// Discards what was taken and has not reached the peer.
    pub(in crate::proxy) fn let_go(&mut self) {
        self.pipe = None;
    }

    /// Hands it over to a second coroutine.
    pub(in crate::proxy) fn hand_over(&mut self) -> Self {
        let mut body = std::mem::replace(self, Self::unknown());
        self.state = BodyState::Away;
        body.is_kept = false;
        if body.state == BodyState::Untouched {
            body.state = BodyState::Begun;
        }
        body
    }

    /// All of it was taken: the request is complete.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        matches!(self.state, BodyState::WithHead | BodyState::Complete)
    }

    /// None of it was taken, or what was taken can be sent again.
    pub(in crate::proxy) fn is_repeatable(&self) -> bool {
        match self.state {
            BodyState::WithHead | BodyState::Untouched => true,
            BodyState::Begun | BodyState::Ending | BodyState::Complete => self.is_kept,
            BodyState::Away | BodyState::Unknown => false,
        }
    }

    /// It goes with the head, if there is one, or nothing of it was taken.
    pub(in crate::proxy) fn is_untouched(&self) -> bool {
        matches!(self.state, BodyState::WithHead | BodyState::Untouched)
    }

    /// It may be on its way, and has to be taken.
    pub(in crate::proxy) fn is_under_way(&self) -> bool {
        matches!(
            self.state,
            BodyState::Untouched | BodyState::Begun | BodyState::Ending
        )
    }

    /// With the client, while it comes in.
    pub(in crate::proxy) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// As [`BodyReader::announced`].
    pub(in crate::proxy) fn announced(&self) -> u64 {
        self.reader.announced()
    }

    /// Relays what is still to come of it.
    pub(in crate::proxy) fn relay<T: Transport>(
        &mut self,
        client: FromClient<'_, T>,
        peer: ToPeer<'_>,
        trailer: &mut Trailer,
    ) -> Relayed {
        let (mut taken, mut sent) = (0, 0);
        let mut source = Source {
            from: client.transport,
            buffer: client.buffer,
            pipe: &mut self.pipe,
            reader: &mut self.reader,
            patience: &self.patience,
            watch: client.watch,
            allowance: self.allowance,
            heard: client.heard,
            broken_off: None,
        };
        let mut body = Outgoing {
            to: peer.stream,
            pending: peer.pending,
            chunked: self.is_chunked,
            ended: self.state == BodyState::Ending,
            kept: peer.kept.filter(|_| self.is_kept),
        };
        let mut sink = Sink {
            to: &mut body,
            options: peer.options,
            wait: Wait {
                patience: peer.patience,
                until_readable: peer.until_readable,
            },
            sent: &mut sent,
        };
        let end = relay::relay(&mut source, &mut sink, trailer, &mut taken);
        self.allowance = source.allowance;
        self.is_kept = body.kept.is_some();
        self.state = match end {
            RelayEnd::Complete => BodyState::Complete,
            _ if body.ended => BodyState::Ending,
            _ if taken > 0 => BodyState::Begun,
            _ => self.state,
        };
        Relayed { end, taken, sent }
    }

    /// True when the rest of it may be read and dropped, as far as its length is known: not more than
    /// `limit`.
    pub(in crate::proxy) fn may_be_dropped(&self, limit: Option<u64>) -> bool {
        limit.is_none_or(|limit| self.reader.certain() <= limit.saturating_sub(self.dropped))
    }

    /// Drops its bytes in the `buffer`.
    pub(in crate::proxy) fn drop_filled(
        &mut self,
        buffer: &mut Buffer,
        limit: Option<u64>,
        turns: &mut Turns,
    ) -> Dropped {
        loop {
            let Ok((count, piece)) = self.reader.next(buffer.filled()) else {
                return Dropped::Over;
            };
            buffer.consume(count);
            self.dropped += count as u64;
            // What is gone cannot be sent to another peer.
            if count > 0 {
                self.is_kept = false;
                if self.state == BodyState::Untouched {
                    self.state = BodyState::Begun;
                }
            }
            if limit.is_some_and(|limit| self.dropped > limit) {
                return Dropped::TooMuch;
            }
            match piece {
                Piece::Content(_) => turns.took_piece(),
                Piece::End => return Dropped::Over,
                Piece::More => return Dropped::All,
            }
        }
    }

    /// Bytes of it that were dropped.
    pub(in crate::proxy) fn dropped(&self) -> u64 {
        self.dropped
    }
}
