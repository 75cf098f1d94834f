//! An incoming body: which of the bytes received are content, and where it ends.

use super::chunked::{BadChunk, Decoder, MessageKind, Piece, Trailer};
use super::framing::Framing;
use crate::http::limits::Limits;

/// Reads one body, whatever its framing.
#[derive(Debug)]
pub enum BodyReader {
    /// This many bytes are left.
    Length(u64),
    /// In the chunked coding.
    Chunked(Decoder),
    /// Until the connection ends.
    UntilClose,
}

impl BodyReader {
    /// A reader for a body of which nothing has been read yet.
    pub fn new(of: MessageKind, framing: Framing, limits: Limits) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::new(of, limits)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Reads from the front of `input`: returns how many bytes were taken, and what they are.
    ///
    /// # Errors
    /// When a chunked body is malformed.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Piece), BadChunk> {
        match self {
            Self::Length(0) => Ok((0, Piece::End)),
            Self::Length(_) | Self::UntilClose if input.is_empty() => Ok((0, Piece::More)),
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                let length = here.min(input.len());
                *left -= length as u64;
                Ok((length, Piece::Content(length)))
            }
            Self::Chunked(decoder) => decoder.next(input),
            Self::UntilClose => Ok((input.len(), Piece::Content(input.len()))),
        }
    }

    /// True when the end of the connection is the regular end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Bytes of content that are certainly still to come.
    pub(crate) fn certain(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// Bytes of content that the sender has announced and not sent yet, as the length of the body or of
    /// the current chunk.
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(decoder) => decoder.left_of_chunk(),
            Self::UntilClose => 0,
        }
    }

    /// Notes that `count` bytes of the `certain` content went by without being looked at.
    pub(crate) fn passed(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// The trailer fields of a body that has ended; see [`Decoder::trailer`].
    ///
    /// # Errors
    /// When a field is malformed.
    pub fn trailer(&self, fields: &mut Trailer) -> Result<&[u8], BadChunk> {
        match self {
            Self::Chunked(decoder) => decoder.trailer(fields),
            _ => {
                fields.clear();
                Ok(&[])
            }
        }
    }
}
