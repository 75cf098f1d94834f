//! Message heads: found in a buffer, taken apart, and judged.
//!
//! Nearly every head arrives in one piece, well-formed and within the limits, so a single pass is tried
//! first: a `HeadReader` accepts exactly the strictest form of the grammar, and nothing that two parsers
//! could disagree about (RFC 9112 sections 2 to 5). Everything else takes the slow path: a [`Scanner`]
//! looks for the end of the head, line by line, as bytes arrive; it enforces the limits and CR LF at the
//! end of every line, and names what is wrong. Once the head is complete, the same `HeadReader` parses it.

mod reader;

use super::runs::is_target_byte;
use crate::error::Refusal;
use crate::http::bytes::{ByteSet, is_token_byte};
use crate::http::fields::{FieldKind, Fields};
use crate::http::limits::Limits;
use crate::http::span::Span;
use crate::http::version::Version;
use reader::HeadReader;

/// The outcome of parsing the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The end of the head has not arrived yet.
    Incomplete,
    /// The head is complete.
    Complete,
}

/// Finds the end of a head in a buffer that grows at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Where the head begins: after the one empty line that a client may send first.
    start: usize,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// How far the search has come.
    searched: usize,
    /// Complete lines.
    lines: usize,
}

/// What a [`Scanner`] objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A line does not end with CR LF.
    BareLineFeed,
    /// No message begins like this.
    NoHead,
    /// The first line is too long.
    Line,
    /// The head is too long.
    Head,
    /// There are too many fields.
    Fields,
}

impl Scanner {
    /// True when nothing was scanned yet.
    fn is_new(&self) -> bool {
        self.searched == 0
    }

    /// Looks at all `bytes` received so far, and returns where the head ends, if it does.
    ///
    /// # Errors
    /// What is wrong already.
    pub(crate) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Unfit> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let feed = self.searched + found;
            let line = &bytes[self.line..feed];
            let content = line.strip_suffix(b"\r");
            // In this order, so that a line is judged in the same way whether it arrives in pieces or
            // not.
            self.check_line(content.unwrap_or(line), limits)?;
            let empty = match content {
                Some(content) => content.is_empty(),
                None => return Err(Unfit::BareLineFeed),
            };
            self.line = feed + 1;
            self.searched = feed + 1;
            match (empty, self.lines) {
                (true, 0) if self.start == 0 => self.start = self.line,
                (true, 0) => return Err(Unfit::NoHead),
                (true, _) => return Ok(Some(self.line)),
                (false, _) => self.lines += 1,
            }
            // The first line is not a field.
            if self.lines > limits.most_fields() + 1 {
                return Err(Unfit::Fields);
            }
        }
        self.searched = bytes.len();
        let rest = &bytes[self.line..];
        // A CR may be half of the line's end.
        self.check_line(rest.strip_suffix(b"\r").unwrap_or(rest), limits)?;
        Ok(None)
    }

    fn check_line(&self, line: &[u8], limits: &Limits) -> Result<(), Unfit> {
        if self.lines == 0 {
            if line.first().is_some_and(|byte| !is_token_byte(*byte)) {
                return Err(Unfit::NoHead);
            }
            // Even if the limit of the head is the smaller one; otherwise the verdict would depend on
            // how much of the line has arrived.
            if line.len() > limits.line.min(limits.head.saturating_sub(4)) {
                return Err(Unfit::Line);
            }
        }
        // The line's CR LF, and that of the empty line that must follow unless this is it.
        let end = self.line - self.start + line.len() + if line.is_empty() { 2 } else { 4 };
        if end > limits.head {
            return Err(Unfit::Head);
        }
        Ok(())
    }
}

/// The forms of a request target that are served (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`: the whole target.
    Origin,
    /// `http://authority/path?query`: the authority, and the rest, which is passed on as the target.
    Absolute {
        /// `host [: port]`
        authority: Span,
        /// Path and query; empty when there is no path.
        rest: Span,
    },
    /// `*`, with OPTIONS.
    Asterisk,
}

/// A request head, as offsets. Its memory is reused from request to request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method's token.
    pub method: Span,
    /// The target as received; its path and query may have bytes from 0x80 on.
    pub target: Span,
    /// The target's form.
    pub form: Target,
    /// The client's version.
    pub version: Version,
    /// The fields in their order.
    pub fields: Fields,
    /// The one Host field's value.
    pub host: Option<Span>,
    /// Bytes up to the end of the head, with what precedes it; 0 while none has been parsed.
    pub len: usize,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Span::default(),
            target: Span::default(),
            form: Target::Origin,
            version: Version::Http11,
            fields: Fields::default(),
            host: None,
            len: 0,
        }
    }
}

impl RequestHead {
    /// Parses the head at the start of `bytes` into `self`.
    ///
    /// # Errors
    /// The refusal with which the request is to be answered.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        scanner: &mut Scanner,
        limits: &Limits,
    ) -> Result<Parsed, Refusal> {
        self.len = 0;
        let is_read = scanner.is_new() && self.read(bytes, 0, limits).is_some();
        if !is_read {
            let end = match scanner.scan(bytes, limits) {
                Ok(Some(end)) => end,
                Ok(None) => return Ok(Parsed::Incomplete),
                Err(Unfit::BareLineFeed) => return Err(Refusal::BareLineFeed),
                Err(Unfit::NoHead) => return Err(Refusal::BadRequestLine),
                Err(Unfit::Line) => return Err(Refusal::LineTooLong),
                Err(Unfit::Head) => return Err(Refusal::HeadTooLarge),
                Err(Unfit::Fields) => return Err(Refusal::TooManyFields),
            };
            self.read(&bytes[..end], scanner.start, limits)
                .ok_or_else(|| why_malformed(&bytes[scanner.start..end]))?;
        }
        self.check(bytes)?;
        Ok(Parsed::Complete)
    }

    /// Parses the head that begins at `start`, if it is complete, well-formed and within the limits.
    fn read(&mut self, bytes: &[u8], start: usize, limits: &Limits) -> Option<()> {
        let mut reader = HeadReader::new(bytes, start);
        self.method = reader.token()?;
        reader.expect(b" ")?;
        self.target = reader.target()?;
        reader.expect(b" ")?;
        self.version = reader.version()?;
        reader.rest(&mut self.fields, limits)?;
        self.len = reader.at;
        Some(())
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let method = self.method.of(bytes);
        check_method(method)?;
        self.form = target_form(self.target, method, bytes)?;
        let mut hosts = self.fields.of_kind(FieldKind::Host);
        self.host = hosts.next().map(|it| it.value);
        if hosts.next().is_some() {
            return Err(Refusal::ManyHosts);
        }
        match self.host {
            None if self.version == Version::Http11 => return Err(Refusal::NoHost),
            Some(host) if !is_authority(host.of(bytes)) => return Err(Refusal::BadHost),
            _ => {}
        }
        Ok(())
    }

    /// The host that the request is for: the target's authority wins over the Host field.
    pub fn authority(&self) -> Option<Span> {
        match self.form {
            Target::Absolute { authority, .. } => Some(authority),
            _ => self.host,
        }
    }
}

/// A response head, as offsets. Its memory is reused from response to response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The peer's version.
    pub version: Version,
    /// The status, 100 to 999.
    pub status: u16,
    /// The reason phrase, which may be empty.
    pub reason: Span,
    /// The fields in their order.
    pub fields: Fields,
    /// Bytes of the head.
    pub len: usize,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            version: Version::Http11,
            status: 0,
            reason: Span::default(),
            fields: Fields::default(),
            len: 0,
        }
    }
}

/// What is wrong with a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// Not HTTP/1, or malformed.
    Malformed,
    /// Over a limit.
    TooLarge,
}

impl ResponseHead {
    /// Parses the head at the start of `bytes` into `self`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        scanner: &mut Scanner,
        limits: &Limits,
    ) -> Result<Parsed, BadResponse> {
        let is_read = scanner.is_new() && self.read(bytes, limits).is_some();
        if !is_read {
            let end = match scanner.scan(bytes, limits) {
                Ok(Some(end)) => end,
                Ok(None) => return Ok(Parsed::Incomplete),
                Err(Unfit::BareLineFeed | Unfit::NoHead) => return Err(BadResponse::Malformed),
                Err(_) => return Err(BadResponse::TooLarge),
            };
            self.read(&bytes[..end], limits)
                .ok_or(BadResponse::Malformed)?;
        }
        Ok(Parsed::Complete)
    }

    /// Parses the head, if it is complete, well-formed and within the limits. Only clients may begin
    /// with an empty line.
    fn read(&mut self, bytes: &[u8], limits: &Limits) -> Option<()> {
        let mut reader = HeadReader::new(bytes, 0);
        self.version = reader.version()?;
        reader.expect(b" ")?;
        self.status = reader.status()?;
        // The space is there even if the phrase is empty (RFC 9112 section 4).
        reader.expect(b" ")?;
        self.reason = reader.text();
        reader.rest(&mut self.fields, limits)?;
        self.len = reader.at;
        Some(())
    }
}

/// Which refusal fits a head that a [`HeadReader`] did not accept; decides about the name only.
#[cold]
fn why_malformed(head: &[u8]) -> Refusal {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(head);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Refusal::BadRequestLine;
    };
    if let Err(refusal) = check_method(method) {
        return refusal;
    }
    if target.is_empty() || !target.iter().all(|byte| is_target_byte(*byte)) {
        return Refusal::BadTarget;
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Refusal::BadField,
        version if version.starts_with(b"HTTP/") => Refusal::BadVersion,
        _ => Refusal::BadRequestLine,
    }
}

fn check_method(method: &[u8]) -> Result<(), Refusal> {
    match method {
        b"CONNECT" | b"TRACE" => Err(Refusal::MethodNotAllowed),
        method if method.is_empty() || method.len() > 32 => Err(Refusal::BadMethod),
        method if !method.iter().all(|byte| is_token_byte(*byte)) => Err(Refusal::BadMethod),
        _ => Ok(()),
    }
}

fn target_form(target: Span, method: &[u8], bytes: &[u8]) -> Result<Target, Refusal> {
    let text = target.of(bytes);
    match text {
        [b'/', ..] => Ok(Target::Origin),
        b"*" if method == b"OPTIONS" => Ok(Target::Asterisk),
        _ => absolute_form(target, text).ok_or(Refusal::BadTarget),
    }
}

fn absolute_form(target: Span, text: &[u8]) -> Option<Target> {
    let scheme = ["http://", "https://"].iter().find(|scheme| {
        text.get(..scheme.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))
    })?;
    let rest = &text[scheme.len()..];
    let len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    if !is_authority(&rest[..len]) {
        return None;
    }
    Some(Target::Absolute {
        authority: target.part(scheme.len(), len),
        rest: target.part(scheme.len() + len, rest.len() - len),
    })
}

/// `host [ ":" port ]` without user information, and without commas: RFC 3986 allows them in a name, but
/// they look like several Hosts joined by a careless hop.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let (host_is_fine, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else {
                return false;
            };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            let fine = address.parse::<std::net::Ipv6Addr>().is_ok();
            (fine, &rest[end + 1..])
        }
        _ => {
            let end = reg_name(text);
            (end > 0, &text[end..])
        }
    };
    host_is_fine && is_port(port)
}

/// How much of `text` is a registered name (RFC 3986 section 3.2.2).
fn reg_name(text: &[u8]) -> usize {
    const PLAIN: ByteSet = ByteSet::alphanumeric_and(b"-._~!$&'()*+;=");
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let plain = rest.iter().position(|byte| !PLAIN.has(*byte));
        let plain = plain.unwrap_or(rest.len());
        end += plain;
        match &rest[plain..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                end += 3;
            }
            _ => return end,
        }
    }
}

fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => {
            let digit = |port: u32, digit: &u8| match digit {
                b'0'..=b'9' => Some(port * 10 + u32::from(digit - b'0')),
                _ => None,
            };
            // Any number of leading zeros is allowed.
            let port = digits
                .iter()
                .try_fold(0, |port, it| digit(port, it).filter(|port| *port <= 65_535));
            port.is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
