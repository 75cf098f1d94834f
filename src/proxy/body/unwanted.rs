//! The rest of a body that nobody wants: it is read and dropped, since its client may read nothing until
//! it has sent everything.

use crate::config::Config;
use crate::http::h1::body::BodyReader;
use crate::http::h1::chunked::{MessageKind, Piece};
use crate::http::h1::framing::Framing;
use crate::memory::buffer::Buffer;
use crate::net::{Patience, Turns};

/// A body that is still coming.
pub(in crate::proxy) struct Unread {
    pub(in crate::proxy) reader: BodyReader,
    /// With the client.
    pub(in crate::proxy) patience: Patience,
    /// Bytes of it that were dropped so far.
    pub(in crate::proxy) dropped: u64,
}

impl Unread {
    /// A body that has not begun.
    pub(in crate::proxy) fn of(framing: Framing, config: &Config) -> Self {
        let gateway = &config.gateway;
        Self {
            reader: BodyReader::new(MessageKind::Request, framing, gateway.limits),
            patience: Patience::with_rate(gateway.body_timeout, gateway.min_rate),
            dropped: 0,
        }
    }
}

/// What has become of the bytes that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Dropped {
    /// All are dropped, and more of the body may come.
    All,
    /// The body has ended, or nobody can tell where it will.
    Over,
    /// More than is dropped of a body.
    TooMuch,
}

/// True when the rest of a body of which so much was `dropped` may be read, as far as is known of it.
pub(in crate::proxy) fn is_read(reader: &BodyReader, dropped: u64, limit: Option<u64>) -> bool {
    limit.is_none_or(|limit| reader.certain() <= limit.saturating_sub(dropped))
}

/// Drops what is in the `buffer` of the body, and counts it.
pub(in crate::proxy) fn drop_filled(
    reader: &mut BodyReader,
    buffer: &mut Buffer,
    dropped: &mut u64,
    limit: Option<u64>,
    turns: &mut Turns,
) -> Dropped {
    loop {
        let Ok((count, piece)) = reader.next(buffer.filled()) else {
            return Dropped::Over;
        };
        buffer.consume(count);
        *dropped += count as u64;
        if limit.is_some_and(|limit| *dropped > limit) {
            return Dropped::TooMuch;
        }
        match piece {
            Piece::Content(_) => turns.took_piece(),
            Piece::End => return Dropped::Over,
            Piece::More => return Dropped::All,
        }
    }
}
