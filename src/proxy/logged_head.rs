//! What the access log shows of a request's head.

use std::fmt::{self, Write};

use crate::config::LogFormat;
use crate::http::bytes::is_token_byte;
use crate::http::fields::{Field, FieldKind};
use crate::http::h1::head::RequestHead;
use crate::http::span::Span;
use crate::lists::Rule;
use crate::logs::access::ShownFields;

/// So many bytes of an entry are shown.
const ENTRY_LIMIT: usize = 100;

/// Text that is cut after so many bytes, between two characters.
struct Shortened<'a> {
    room: usize,
    out: &'a mut Vec<u8>,
}

impl Write for Shortened<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let shown = &text[..text.floor_char_boundary(self.room)];
        self.out.extend_from_slice(shown.as_bytes());
        self.room -= shown.len();
        match shown.len() < text.len() {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

/// Parts of a request head that the access log shows, copied because the head's bytes make room
/// for the body. The memory is reused.
#[derive(Default)]
pub(super) struct LoggedHead {
    /// The request line, and what follows.
    bytes: Vec<u8>,
    line: Span,
    method: Span,
    target: Span,
    host: Span,
    user_agent: Option<Span>,
    request_id: Option<Span>,
    /// The entry of the gray list that has decided, if it is more than an address.
    entry: Option<Span>,
    /// The request's bucket, if that entry is about a share.
    bucket: Option<u16>,
    /// What the format shows besides.
    fields: Vec<Option<Span>>,
}

impl LoggedHead {
    /// The memory that it has, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        (self.line, self.method) = (Span::default(), Span::default());
        (self.target, self.host) = (Span::default(), Span::default());
        (self.user_agent, self.request_id) = (None, None);
        (self.entry, self.bucket) = (None, None);
    }

    /// Notes what lines in this `format` show of a head that was parsed.
    pub(super) fn note(&mut self, head: &RequestHead, bytes: &[u8], format: &LogFormat) {
        self.bytes.clear();
        self.fields.clear();
        let (start, target) = (head.method.range().start, head.target.range());
        self.line = self.add(&bytes[start..target.end + " HTTP/1.1".len()]);
        self.method = Span::new(0, head.method.range().len());
        self.target = Span::new(target.start - start, target.end - start);
        self.host = self.add(head.authority().map_or(b"", |it| it.of(bytes)));
        let agent = head.fields.of_kind(FieldKind::UserAgent).next();
        self.user_agent = agent.map(|it| self.add(it.value.of(bytes)));
        for name in format.fields() {
            let is_it = |it: &&Field| it.name.of(bytes).eq_ignore_ascii_case(name);
            let field = head.fields.iter().find(is_it);
            let value = field.map(|it| self.add(it.value.of(bytes)));
            self.fields.push(value);
        }
    }

    /// Notes what can be made out of a request line that was refused, or whose head was.
    pub(super) fn note_line(&mut self, bytes: &[u8]) {
        self.clear();
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len());
        self.line = self.add(&line[..end]);
        let mut words = line[..end].splitn(3, |byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        // A method is shown unquoted, so it must be a token.
        if method.len() <= 32 && method.iter().all(|byte| is_token_byte(*byte)) {
            self.method = Span::new(0, method.len());
            let target = words.next().unwrap_or_default();
            let start = method.len() + usize::from(!target.is_empty());
            self.target = Span::new(start, start + target.len());
        }
    }

    /// Notes the id of the request whose head was noted.
    pub(super) fn note_id(&mut self, id: &[u8]) {
        self.request_id = Some(self.add(id));
    }

    /// Notes the entry that has decided about the request whose head was noted: a copy, since lists are not
    /// kept for as long as a request may take.
    pub(super) fn note_entry(&mut self, entry: &Rule, bucket: Option<u16>) {
        let start = self.bytes.len();
        // It ends with an error where the text is cut.
        let _ = write!(
            Shortened {
                room: ENTRY_LIMIT,
                out: &mut self.bytes,
            },
            "{entry}"
        );
        self.entry = Some(Span::new(start, self.bytes.len()));
        self.bucket = bucket;
    }

    fn add(&mut self, part: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part);
        Span::new(start, self.bytes.len())
    }

    /// The request line as received.
    pub(super) fn line(&self) -> &[u8] {
        self.line.of(&self.bytes)
    }

    /// The method, once it has been noted.
    pub(super) fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    pub(super) fn target(&self) -> &[u8] {
        self.target.of(&self.bytes)
    }

    pub(super) fn host(&self) -> &[u8] {
        self.host.of(&self.bytes)
    }

    pub(super) fn user_agent(&self) -> Option<&[u8]> {
        self.user_agent.map(|it| it.of(&self.bytes))
    }

    pub(super) fn request_id(&self) -> Option<&[u8]> {
        self.request_id.map(|it| it.of(&self.bytes))
    }

    /// The entry of the gray list that has decided, in its canonical form, shortened.
    pub(super) fn entry(&self) -> Option<&[u8]> {
        self.entry.map(|it| it.of(&self.bytes))
    }

    pub(super) fn bucket(&self) -> Option<u16> {
        self.bucket
    }

    pub(super) fn fields(&self) -> ShownFields<'_> {
        ShownFields {
            bytes: &self.bytes,
            values: &self.fields,
        }
    }
}
