//! What the access log shows of a request's head.

use crate::http::bytes::is_token_byte;
use crate::http::fields::FieldKind;
use crate::http::h1::head::RequestHead;

/// Parts of a request head that the access log shows, copied because the head's bytes make room
/// for the body. The memory is reused.
#[derive(Default)]
pub(super) struct LoggedHead {
    bytes: Vec<u8>,
    /// Where method, target, host and user agent end.
    ends: [usize; 4],
}

impl LoggedHead {
    /// The memory that it has, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends = [0; 4];
    }

    pub(super) fn note(&mut self, head: &RequestHead, bytes: &[u8]) {
        self.bytes.clear();
        let agent = head.fields.of_kind(FieldKind::UserAgent).next();
        let parts = [
            Some(head.method),
            Some(head.target),
            head.authority(),
            agent.map(|field| field.value),
        ];
        for (part, end) in parts.iter().zip(&mut self.ends) {
            if let Some(span) = part {
                self.bytes.extend_from_slice(span.of(bytes));
            }
            *end = self.bytes.len();
        }
    }

    /// Notes what can be made out of a request line that was refused, or whose head was.
    pub(super) fn note_line(&mut self, bytes: &[u8]) {
        self.clear();
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len());
        let mut words = line[..end].splitn(3, |byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        // A method is shown unquoted, so it must be a token.
        if method.len() <= 32 && method.iter().all(|byte| is_token_byte(*byte)) {
            self.bytes.extend_from_slice(method);
            self.ends = [self.bytes.len(); 4];
            self.bytes
                .extend_from_slice(words.next().unwrap_or_default());
            self.ends[1..].fill(self.bytes.len());
        }
    }

    /// The method, once it has been noted.
    pub(super) fn method(&self) -> &[u8] {
        self.part(0)
    }

    pub(super) fn target(&self) -> &[u8] {
        self.part(1)
    }

    pub(super) fn host(&self) -> &[u8] {
        self.part(2)
    }

    pub(super) fn user_agent(&self) -> &[u8] {
        self.part(3)
    }

    fn part(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }
}
