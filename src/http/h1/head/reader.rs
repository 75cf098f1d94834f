//! The lines of a head, parsed in one pass by the strictest form of the grammar (RFC 9112 sections 3 to
//! 5): single spaces in the first line, no white space before or after a name, nothing folded, CR LF
//! after every line.
//!
//! Anything else, or an incomplete head, gives `None`; why is found out elsewhere.

use crate::http::fields::{Field, FieldKind, Fields};
use crate::http::h1::runs;
use crate::http::limits::Limits;
use crate::http::span::Span;
use crate::http::version::Version;

/// Reads the parts of a head, one after the other.
pub(crate) struct HeadReader<'a> {
    bytes: &'a [u8],
    /// Where the head begins.
    start: usize,
    /// How far it has been read.
    pub(crate) at: usize,
}

impl<'a> HeadReader<'a> {
    /// A reader of the head that begins at `start`.
    pub(crate) fn new(bytes: &'a [u8], start: usize) -> Self {
        let at = start;
        Self { bytes, start, at }
    }

    /// The method, or a field's name.
    pub(crate) fn token(&mut self) -> Option<Span> {
        let span = self.up_to(runs::token(self.bytes, self.at));
        (!span.is_empty()).then_some(span)
    }

    pub(crate) fn target(&mut self) -> Option<Span> {
        let span = self.up_to(runs::target(self.bytes, self.at));
        (!span.is_empty()).then_some(span)
    }

    /// A reason phrase, or a field's value with the white space around it.
    pub(crate) fn text(&mut self) -> Span {
        self.up_to(runs::text(self.bytes, self.at))
    }

    pub(crate) fn version(&mut self) -> Option<Version> {
        let version = match self.next()? {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return None,
        };
        Some(version)
    }

    /// Three digits, of which the first is not 0.
    pub(crate) fn status(&mut self) -> Option<u16> {
        let digits = self.next::<3>()?;
        let add = |status, digit: &u8| status * 10 + u16::from(digit - b'0');
        let is_status = digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
        is_status.then(|| digits.iter().fold(0, add))
    }

    /// Exactly these bytes.
    pub(crate) fn expect<const N: usize>(&mut self, expected: &[u8; N]) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    /// The end of the first line, the fields, and the empty line, all within `limits`.
    pub(crate) fn rest(&mut self, fields: &mut Fields, limits: &Limits) -> Option<()> {
        fields.clear();
        let line = self.at - self.start;
        self.expect(b"\r\n")?;
        while self.bytes.get(self.at) != Some(&b'\r') {
            if fields.len() == limits.most_fields() {
                return None;
            }
            fields.push(self.field()?);
        }
        self.expect(b"\r\n")?;
        let head = self.at - self.start;
        (line <= limits.line && head <= limits.head).then_some(())
    }

    fn field(&mut self) -> Option<Field> {
        let name = self.token()?;
        self.expect(b":")?;
        let text = self.text();
        self.expect(b"\r\n")?;
        let (value, is_as_written) = match text.of(self.bytes) {
            // Nearly all values are like that.
            [b' ', value @ ..] if !begins_or_ends_with_space(value) => {
                (text.part(1, value.len()), true)
            }
            _ => (text.trimmed(self.bytes), false),
        };
        Some(Field {
            name,
            value,
            kind: FieldKind::of(name.of(self.bytes)),
            is_as_written,
        })
    }

    /// The next `N` bytes.
    fn next<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let next = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(next)
    }

    fn up_to(&mut self, end: usize) -> Span {
        let span = Span::new(self.at, end);
        self.at = end;
        span
    }
}

/// True when the text `value` has a space or a tab at an end.
fn begins_or_ends_with_space(value: &[u8]) -> bool {
    // There is nothing else up to the space in a text.
    let is_space = |byte: Option<&u8>| byte.is_some_and(|it| *it <= b' ');
    is_space(value.first()) || is_space(value.last())
}
