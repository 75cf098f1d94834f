//! The lines of a head.

use std::mem;
use std::ops::Range;

use super::text::{put, put_decimal};
use crate::http::fields::Field;
use crate::http::h1::framing::Framing;

/// Appends a status line; `status` is below 1000.
pub(super) fn put_status(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    let mut begin = *b"HTTP/1.1 000 ";
    begin[9] += (status / 100) as u8;
    begin[10] += (status / 10 % 10) as u8;
    begin[11] += (status % 10) as u8;
    put(out, &[&begin, phrase, b"\r\n"]);
}

pub(super) fn put_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            put(out, &[b"Content-Length: "]);
            put_decimal(out, length);
            put(out, &[b"\r\n"]);
        }
        Framing::Chunked => put(out, &[b"Transfer-Encoding: chunked\r\n"]),
    }
}

/// The lines of an outgoing head. Those that would be written exactly as they were received are copied,
/// as many at once as are adjacent: most of a head consists of a few such pieces.
pub(super) struct FieldLines<'a> {
    bytes: &'a [u8],
    /// Adjacent lines to be copied that are not written yet.
    piece: Range<usize>,
}

impl<'a> FieldLines<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, piece: 0..0 }
    }

    /// The same, behind a piece of the head.
    pub(super) fn behind(piece: Range<usize>, bytes: &'a [u8]) -> Self {
        Self { bytes, piece }
    }

    /// Appends the line of `field`, now or with those after it; [`FieldLines::put`] must follow.
    pub(super) fn pass(&mut self, out: &mut Vec<u8>, field: &Field) {
        match field.line_as_written() {
            Some(line) if line.start == self.piece.end => self.piece.end = line.end,
            Some(line) => {
                self.put(out);
                self.piece = line;
            }
            None => {
                self.put(out);
                put_field(out, field, self.bytes);
            }
        }
    }

    /// Appends what is not written yet.
    pub(super) fn put(&mut self, out: &mut Vec<u8>) {
        put(out, &[&self.bytes[mem::take(&mut self.piece)]]);
    }
}

pub(super) fn put_field(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    let (name, value) = (field.name.of(bytes), field.value.of(bytes));
    put(out, &[name, b": ", value, b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::encode::request::tests::{OURS, forwarded};
    use crate::http::h1::encode::response::tests::passed_in_response;

    #[test]
    fn lines_are_written_alike_whether_they_come_so_or_not() {
        // What comes as it would be written is copied in pieces, which end where a line is left out,
        // or is not like that.
        let table: &[(&str, &str)] = &[
            ("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            ("A:1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            ("A: 1\r\nB:\t2\r\nC: 3\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n"),
            ("A:  1\r\nB: 2 \r\nC: 3\t\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n"),
            ("A:\r\nB: \r\nC: 3\r\n", "A: \r\nB: \r\nC: 3\r\n"),
            ("TE: x\r\nA: 1\r\nTE: x\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            (
                "A: 1\r\nConnection: B\r\nB: 2\r\nC: 3\r\n",
                "A: 1\r\nC: 3\r\n",
            ),
            ("A: 1\r\nX_Forwarded-For: 2\r\nC: 3\r\n", "A: 1\r\nC: 3\r\n"),
        ];
        for (received, passed) in table {
            let out = passed_in_response(received, Framing::UntilClose, 200);
            assert_eq!(out, format!("{passed}\r\n"), "{received:?}");
            let out = forwarded(
                &format!("GET / HTTP/1.1\r\nHost: a\r\n{received}\r\n"),
                false,
            );
            let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{passed}{OURS}\r\n");
            assert_eq!(out, expected, "{received:?}");
        }
    }

    #[test]
    fn every_status_is_written_as_display_does() {
        for status in 100..=999 {
            let mut out = Vec::new();
            put_status(&mut out, status, b"x y");
            assert_eq!(out, format!("HTTP/1.1 {status} x y\r\n").as_bytes());
        }
    }
}
