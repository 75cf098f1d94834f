//! Message heads: found in a buffer, parsed by `httparse`, and then held to stricter rules.
//!
//! Two steps. A [`Scanner`] looks for the end of the head, line by line, as bytes arrive; it
//! enforces the limits and that every line ends with CR LF. Once the head is whole, `httparse`
//! takes it apart, and what it lets pass although two parsers could disagree about it is
//! refused here (RFC 9112 sections 2 to 5).

use std::mem::MaybeUninit;
use std::ops::Range;

use super::fields::{ByteSet, Field, Kind, is_token_byte};
use crate::error::Refusal;

/// A part of a head, as offsets into the bytes that it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The part from `start` to before `end`.
    pub fn new(start: usize, end: usize) -> Self {
        // Heads are limited to far less than 4 GiB.
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes of this part.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// `len` bytes of this part, from `start` on.
    pub fn part(self, start: usize, len: usize) -> Self {
        let start = self.start as usize + start;
        Self::new(start, start + len)
    }

    /// Where it stands.
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn within(part: &[u8], bytes: &[u8]) -> Self {
        let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
        Self::new(start, start + part.len())
    }
}

/// Limits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The request or status line, in bytes without CR LF.
    pub line: usize,
    /// The whole head, in bytes.
    pub head: usize,
    /// The number of fields, at most [`MAX_FIELDS`].
    pub fields: usize,
}

/// No head has more fields than this, whatever the configuration says.
pub const MAX_FIELDS: usize = 256;

/// HTTP versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What a look at the bytes so far gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head does not end in these bytes.
    Incomplete,
    /// The head is whole.
    Complete,
}

/// Finds the end of a head in a buffer that grows at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Where the head begins: behind one empty line that a client may send first.
    start: usize,
    /// Begin of the line that is not yet whole.
    line: usize,
    /// How far was searched.
    searched: usize,
    /// Lines that are whole.
    lines: usize,
}

/// What a [`Scanner`] objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A line does not end with CR LF.
    BareLineFeed,
    /// It begins with something that no message begins with.
    NoHead,
    /// The first line is too long.
    Line,
    /// The head is too long.
    Head,
    /// There are too many fields.
    Fields,
}

impl Scanner {
    /// Looks at all `bytes` received so far, and returns where the head ends, if it does.
    ///
    /// # Errors
    /// What is wrong already.
    pub fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Unfit> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let feed = self.searched + found;
            let line = &bytes[self.line..feed];
            let content = line.strip_suffix(b"\r");
            // In this order, so that a line that arrives in pieces is judged as one in whole.
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
            // The first line is none of the fields.
            if self.lines > limits.fields + 1 {
                return Err(Unfit::Fields);
            }
        }
        self.searched = bytes.len();
        let rest = &bytes[self.line..];
        // A CR may be the first half of the line's end.
        self.check_line(rest.strip_suffix(b"\r").unwrap_or(rest), limits)?;
        Ok(None)
    }

    fn check_line(&self, line: &[u8], limits: &Limits) -> Result<(), Unfit> {
        if self.lines == 0 {
            if line.first().is_some_and(|byte| !is_token_byte(*byte)) {
                return Err(Unfit::NoHead);
            }
            // Also when the head is too small for it, or how much of the line had come would decide
            // which of the two limits it is over.
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
    /// `http://authority/path?query`: the authority, and what goes on as the target.
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
    /// The target as received.
    pub target: Span,
    /// The target's form.
    pub form: Target,
    /// The client's version.
    pub version: Version,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// The one Host field's value.
    pub host: Option<Span>,
    /// Bytes of the head, with all before it.
    pub len: usize,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Span::default(),
            target: Span::default(),
            form: Target::Origin,
            version: Version::Http11,
            fields: Vec::new(),
            host: None,
            len: 0,
        }
    }
}

impl RequestHead {
    /// Parses the head at the begin of `bytes` into `self`.
    ///
    /// # Errors
    /// The refusal with which the request is to be answered.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        scanner: &mut Scanner,
        limits: &Limits,
    ) -> Result<Parsed, Refusal> {
        let end = match scanner.scan(bytes, limits) {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(Parsed::Incomplete),
            Err(Unfit::BareLineFeed) => return Err(Refusal::BareLineFeed),
            Err(Unfit::NoHead) => return Err(Refusal::BadRequestLine),
            Err(Unfit::Line) => return Err(Refusal::LineTooLong),
            Err(Unfit::Head) => return Err(Refusal::HeadTooLarge),
            Err(Unfit::Fields) => return Err(Refusal::TooManyFields),
        };
        let head = &bytes[scanner.start..end];
        let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, &mut storage) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Ok(_) => return Err(why_malformed(head)),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
            Err(_) => return Err(why_malformed(head)),
        }
        self.method = Span::within(request.method.unwrap_or_default().as_bytes(), bytes);
        self.target = Span::within(request.path.unwrap_or_default().as_bytes(), bytes);
        self.version = match request.version {
            Some(1) => Version::Http11,
            _ => Version::Http10,
        };
        self.len = end;
        collect(request.headers, bytes, &mut self.fields);
        self.check(bytes)?;
        Ok(Parsed::Complete)
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let method = self.method.of(bytes);
        check_method(method)?;
        self.form = target_form(self.target, method, bytes)?;
        let mut hosts = self.fields.iter().filter(|it| it.kind == Kind::Host);
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
    pub fields: Vec<Field>,
    /// Bytes of the head.
    pub len: usize,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            version: Version::Http11,
            status: 0,
            reason: Span::default(),
            fields: Vec::new(),
            len: 0,
        }
    }
}

/// What is wrong with a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// Not HTTP/1, or not by its grammar.
    Malformed,
    /// Over a limit.
    TooLarge,
}

impl ResponseHead {
    /// Parses the head at the begin of `bytes` into `self`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        scanner: &mut Scanner,
        limits: &Limits,
    ) -> Result<Parsed, BadResponse> {
        let end = match scanner.scan(bytes, limits) {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(Parsed::Incomplete),
            Err(Unfit::BareLineFeed | Unfit::NoHead) => return Err(BadResponse::Malformed),
            Err(_) => return Err(BadResponse::TooLarge),
        };
        // Only clients may begin with an empty line.
        if scanner.start > 0 {
            return Err(BadResponse::Malformed);
        }
        let head = &bytes[..end];
        let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut response, head, &mut storage) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(BadResponse::TooLarge),
            _ => return Err(BadResponse::Malformed),
        }
        self.version = match response.version {
            Some(1) => Version::Http11,
            _ => Version::Http10,
        };
        self.status = response.code.unwrap_or_default();
        self.reason = reason_phrase(head).ok_or(BadResponse::Malformed)?;
        self.len = end;
        collect(response.headers, bytes, &mut self.fields);
        if !(100..=999).contains(&self.status) {
            return Err(BadResponse::Malformed);
        }
        Ok(Parsed::Complete)
    }
}

/// The reason phrase of a status line that `httparse` took. It does not ask for the space in front
/// of an empty phrase, and does not show a phrase that is no UTF-8 (RFC 9112 section 4).
fn reason_phrase(head: &[u8]) -> Option<Span> {
    let start = "HTTP/1.1 200 ".len();
    let end = memchr::memchr(b'\r', head)?;
    (start <= end && head[start - 1] == b' ').then(|| Span::new(start, end))
}

fn collect(headers: &[httparse::Header<'_>], bytes: &[u8], fields: &mut Vec<Field>) {
    fields.clear();
    fields.extend(headers.iter().map(|header| Field {
        name: Span::within(header.name.as_bytes(), bytes),
        value: if header.value.is_empty() {
            Span::default()
        } else {
            Span::within(header.value, bytes)
        },
        kind: Kind::of(header.name.as_bytes()),
    }));
}

/// Which refusal fits a head that `httparse` did not take; for the refusal's name only.
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

fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

fn target_form(target: Span, method: &[u8], bytes: &[u8]) -> Result<Target, Refusal> {
    let text = target.of(bytes);
    // All of them in any case: without a branch for each, that is a few wide instructions.
    let is_fine = text
        .iter()
        .fold(true, |fine, byte| fine & is_target_byte(*byte));
    if !is_fine {
        return Err(Refusal::BadTarget);
    }
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

/// `host [ ":" port ]` without user information, and without the comma that RFC 3986 would allow
/// in a name but that several Hosts joined by a careless hop look like.
fn is_authority(text: &[u8]) -> bool {
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
        match &text[end..] {
            [byte, ..] if PLAIN.has(*byte) => end += 1,
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
            // Any number of zeros may stand in front.
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
