//! Heads on their way out, written anew from what was parsed.
//!
//! Fields that mean nothing to a gateway go on as received, in their order, names and values byte
//! for byte; a line that was received as it would be written is copied in one piece, with those that
//! follow it. Everything that frames a message, belongs to one connection, or says who the client
//! is, is written here and not copied; but for the length of a body that does not come (the answer to a
//! HEAD, 304), which frames nothing.

use std::io::Write;
use std::mem;
use std::net::IpAddr;
use std::ops::Range;

use super::chunked::Trailer;
use super::framing::Framing;
use super::head::{RequestHead, ResponseHead, Target};
use crate::error::{Refusal, reason_phrase};
use crate::http::bytes::is_token_byte;
use crate::http::fields::{ConnectionOptions, Field, Kind, list, reads_as};
use crate::http::span::Span;
use crate::http::version::Version;

/// What a request to a peer is made from.
pub struct RequestToPeer<'a> {
    /// The client's head, and the bytes it was parsed from.
    pub head: &'a RequestHead,
    /// The bytes of `head`.
    pub bytes: &'a [u8],
    /// What the client's `Connection` fields say.
    pub options: &'a ConnectionOptions,
    /// How the body is sent.
    pub framing: Framing,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
    /// The client asks for another protocol; see [`wants_upgrade`].
    pub upgrade: bool,
    /// The address of the socket's other side.
    pub socket: IpAddr,
    /// The client's address.
    pub client: IpAddr,
    /// What an HTTP/1.0 request without Host is for: the address that it came to.
    pub default_host: &'a [u8],
    /// The other side is a trusted proxy, so that its forwarding fields are continued rather
    /// than replaced.
    pub trusted: bool,
}

/// Appends the head of a request to a peer.
pub fn request(out: &mut Vec<u8>, request: &RequestToPeer<'_>) {
    let RequestToPeer { head, bytes, .. } = request;
    put(out, &[head.method.of(bytes), b" "]);
    match head.form {
        Target::Absolute { rest, .. } => put_path(out, rest.of(bytes), head.method.of(bytes)),
        Target::Origin | Target::Asterisk => put(out, &[head.target.of(bytes)]),
    }
    let host = head
        .authority()
        .map_or(request.default_host, |host| host.of(bytes));
    put(out, &[b" HTTP/1.1\r\nHost: ", host, b"\r\n"]);
    let mut takes_trailers = false;
    let mut lines = Lines::of(bytes);
    for field in &head.fields {
        let passes = match field.kind {
            Kind::Other | Kind::UserAgent | Kind::Authentication => true,
            // In other framings there is nothing to announce.
            Kind::Trailer => request.framing == Framing::Chunked,
            Kind::Te => {
                takes_trailers |= has_trailers(field, bytes);
                false
            }
            // Nobody else can say what was before this hop (RFC 7239 section 8.1).
            Kind::Forwarded => request.trusted,
            Kind::MaxForwards => true,
            _ => false,
        };
        if passes && !request.options.nominates(field.name.of(bytes)) {
            match max_forwards(field, head.method.of(bytes), bytes) {
                Some(left) => {
                    lines.put(out);
                    put_one_less(out, field, left, bytes);
                }
                None => lines.pass(out, field),
            }
        }
    }
    lines.put(out);
    put_forwarding(out, request, host);
    put_framing(out, request.framing);
    if request.expects_continue {
        put(out, &[b"Expect: 100-continue\r\n"]);
    }
    match request.upgrade {
        true => put_upgrade(out, &head.fields, bytes),
        // Not beside an upgrade, since some servers know no Connection but `Upgrade` alone.
        false if takes_trailers && head.version == Version::Http11 => {
            put(out, &[b"Connection: TE\r\nTE: trailers\r\n"]);
        }
        false => {}
    }
    put(out, &[b"\r\n"]);
}

/// True when a `TE` field says that trailers are welcome. It says so of whoever the response is for,
/// and they are passed on to the client; the codings in it are of one connection only.
fn has_trailers(field: &Field, bytes: &[u8]) -> bool {
    let is_trailers = |it: Span| it.of(bytes).eq_ignore_ascii_case(b"trailers");
    list(field.value, bytes).any(is_trailers)
}

/// How many hops an OPTIONS may still go, if `field` says so (RFC 9110 section 7.6.2). With other
/// methods the field means nothing.
pub fn max_forwards(field: &Field, method: &[u8], bytes: &[u8]) -> Option<u64> {
    if field.kind != Kind::MaxForwards || method != b"OPTIONS" {
        return None;
    }
    let digits = field.value.of(bytes);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| {
        let digit = u64::from(digit - b'0');
        number.saturating_mul(10).saturating_add(digit)
    };
    is_number.then(|| digits.iter().fold(0, add))
}

fn put_one_less(out: &mut Vec<u8>, field: &Field, left: u64, bytes: &[u8]) {
    put(out, &[field.name.of(bytes), b": "]);
    put_decimal(out, left.saturating_sub(1));
    put(out, &[b"\r\n"]);
}

/// True when a head asks to switch to a protocol other than HTTP, whose version 2 is not spoken here.
pub fn wants_upgrade(options: &ConnectionOptions, fields: &[Field], bytes: &[u8]) -> bool {
    options.upgrade && protocols(fields, bytes).next().is_some()
}

/// Appends the protocols that a request asks for, as one list.
pub fn protocols_asked(out: &mut Vec<u8>, fields: &[Field], bytes: &[u8]) {
    let mut before: &[u8] = b"";
    for protocol in protocols(fields, bytes) {
        put(out, &[before, protocol.of(bytes)]);
        // Without a space, which would make a long list longer than it came.
        before = b",";
    }
}

/// True when a 101 switches to protocols of the list `asked`, and to no other.
pub fn switches_as_asked(
    asked: &[u8],
    options: &ConnectionOptions,
    fields: &[Field],
    bytes: &[u8],
) -> bool {
    let asked_all = Span::new(0, asked.len());
    let is_asked = |protocol: Span| {
        let mut asked_for = list(asked_all, asked);
        asked_for.any(|it| it.of(asked).eq_ignore_ascii_case(protocol.of(bytes)))
    };
    let named = fields.iter().filter(|field| field.kind == Kind::Upgrade);
    let mut named = named.flat_map(|field| list(field.value, bytes)).peekable();
    options.upgrade && named.peek().is_some() && named.all(is_asked)
}

fn protocols<'a>(fields: &'a [Field], bytes: &'a [u8]) -> impl Iterator<Item = Span> + 'a {
    fields
        .iter()
        .filter(|field| field.kind == Kind::Upgrade)
        .flat_map(|field| list(field.value, bytes))
        .filter(|protocol| is_foreign_protocol(protocol.of(bytes)))
}

/// `name [/ version]` (RFC 9110 section 7.8), and by its name not HTTP.
fn is_foreign_protocol(protocol: &[u8]) -> bool {
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|it| is_token_byte(*it));
    let slash = memchr::memchr(b'/', protocol);
    let (name, version) = match slash {
        Some(slash) => (&protocol[..slash], &protocol[slash + 1..]),
        None => (protocol, &b"none"[..]),
    };
    let is_http = ["h2c", "h2", "http"]
        .iter()
        .any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
    is_token(name) && is_token(version) && !is_http
}

/// The path and query of an absolute target, in origin form (RFC 9112 section 3.2.1 and 3.2.4).
fn put_path(out: &mut Vec<u8>, path: &[u8], method: &[u8]) {
    match path.first() {
        Some(b'/') => put(out, &[path]),
        None if method == b"OPTIONS" => put(out, &[b"*"]),
        _ => put(out, &[b"/", path]),
    }
}

fn put_forwarding(out: &mut Vec<u8>, request: &RequestToPeer<'_>, host: &[u8]) {
    let RequestToPeer { head, bytes, .. } = request;
    let received = |kind: Kind| {
        let fields = head.fields.iter();
        fields.filter(move |field| request.trusted && field.kind == kind)
    };
    put(out, &[b"X-Forwarded-For: "]);
    for field in received(Kind::ForwardedFor) {
        if !field.value.of(bytes).is_empty() {
            put(out, &[field.value.of(bytes), b", "]);
        }
    }
    let socket = crate::http::client::canonical(request.socket);
    let start = out.len();
    put_ip(out, socket);
    let end = out.len();
    put(out, &[b"\r\nX-Real-IP: "]);
    // Mostly they are one, and an address takes longer to write than any other field.
    match request.client == socket {
        true => out.extend_from_within(start..end),
        false => put_ip(out, request.client),
    }
    let first = |kind, otherwise| {
        let mut values = received(kind).map(|field| field.value.of(bytes));
        values.find(|it| !it.is_empty()).unwrap_or(otherwise)
    };
    let proto = first(Kind::ForwardedProto, b"http");
    put(out, &[b"\r\nX-Forwarded-Proto: ", proto]);
    let host = first(Kind::ForwardedHost, host);
    put(out, &[b"\r\nX-Forwarded-Host: ", host, b"\r\n"]);
}

/// What a response to the client is made from.
pub struct ResponseToClient<'a> {
    /// The peer's head.
    pub head: &'a ResponseHead,
    /// The bytes of `head`.
    pub bytes: &'a [u8],
    /// What the peer's `Connection` fields say.
    pub options: &'a ConnectionOptions,
    /// How the body is sent.
    pub framing: Framing,
    /// The client's version.
    pub version: Version,
    /// What is said of the connection.
    pub connection: Connection,
}

/// What a response says of the downstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It stays open.
    KeepAlive,
    /// It ends after this response.
    Close,
    /// It switches protocols.
    Upgrade,
}

/// Appends the head of a response to the client.
pub fn response(out: &mut Vec<u8>, response: &ResponseToClient<'_>) {
    let ResponseToClient { head, bytes, .. } = response;
    put_status(out, head.status, head.reason.of(bytes));
    // Without a body the length is information about another response (RFC 9110 section 8.6), except
    // where the status forbids it.
    let informs = response.framing == Framing::None && head.status >= 200 && head.status != 204;
    let mut lines = Lines::of(bytes);
    for field in &head.fields {
        let passes = match field.kind {
            Kind::ContentLength => informs,
            // Where they are dropped, nothing announces them.
            Kind::Trailer if response.framing != Framing::Chunked => false,
            kind => passes_in_response(kind) && !response.options.nominates(field.name.of(bytes)),
        };
        if passes {
            lines.pass(out, field);
        }
    }
    lines.put(out);
    put_framing(out, response.framing);
    match (response.connection, response.version) {
        (Connection::Close, _) => put(out, &[b"Connection: close\r\n"]),
        (Connection::KeepAlive, Version::Http10) => put(out, &[b"Connection: keep-alive\r\n"]),
        (Connection::KeepAlive, Version::Http11) => {}
        (Connection::Upgrade, _) => put_upgrade(out, &head.fields, bytes),
    }
    if head.status == 426 && response.connection != Connection::Upgrade {
        // RFC 9110 section 15.5.22: it says which protocol is required.
        put_upgrade(out, &head.fields, bytes);
    }
    put(out, &[b"\r\n"]);
}

/// Appends the head of an interim (1xx) response to the client.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], options: &ConnectionOptions) {
    put_status(out, head.status, head.reason.of(bytes));
    let mut lines = Lines::of(bytes);
    for field in &head.fields {
        // It has no body, and so no trailer.
        let passes = passes_in_response(field.kind) && field.kind != Kind::Trailer;
        if passes && !options.nominates(field.name.of(bytes)) {
            lines.pass(out, field);
        }
    }
    lines.put(out);
    put(out, &[b"\r\n"]);
}

fn passes_in_response(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Connection
            | Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::Te
            | Kind::HopByHop
            | Kind::Forbidden
    )
}

/// An answer of the gateway's own.
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The reason's name, which is the body.
    pub name: &'a str,
    /// What is said of the connection.
    pub connection: Connection,
    /// The request was a HEAD: no body.
    pub to_head: bool,
    /// The client's version.
    pub version: Version,
}

/// Appends the [`answer`] to what is refused, in HTTP/1.1, after which the connection ends.
pub fn refusal(out: &mut Vec<u8>, refusal: Refusal) {
    let refused = Answer {
        status: refusal.status(),
        name: refusal.name(),
        connection: Connection::Close,
        to_head: false,
        version: Version::Http11,
    };
    answer(out, &refused);
}

/// Appends an answer of the gateway's own: a length, a short text, no version of the program.
pub fn answer(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let phrase = reason_phrase(answer.status);
    let length = "000 : \n".len() + phrase.len() + answer.name.len();
    put_status(out, answer.status, phrase.as_bytes());
    put(out, &[b"Content-Type: text/plain\r\n"]);
    put_framing(out, Framing::Length(length as u64));
    if matches!(answer.status, 200 | 405) {
        // Any other method may be served by a peer; these are what HTTP itself defines.
        put(
            out,
            &[b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"],
        );
    }
    match (answer.connection, answer.version) {
        (Connection::KeepAlive, Version::Http11) => {}
        (Connection::KeepAlive, Version::Http10) => put(out, &[b"Connection: keep-alive\r\n"]),
        _ => put(out, &[b"Connection: close\r\n"]),
    }
    put(out, &[b"\r\n"]);
    if !answer.to_head {
        put_decimal(out, u64::from(answer.status));
        put(
            out,
            &[
                b" ",
                phrase.as_bytes(),
                b": ",
                answer.name.as_bytes(),
                b"\n",
            ],
        );
    }
}

/// Appends the line that begins a chunk of `length` bytes.
pub fn chunk_line(out: &mut Vec<u8>, length: usize) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{length:x}\r\n");
}

/// Appends the end of a chunked body, with those trailer fields that may be passed on; `options` are
/// those of the message's head.
pub fn last_chunk(out: &mut Vec<u8>, trailer: &Trailer, bytes: &[u8], options: &ConnectionOptions) {
    put(out, &[b"0\r\n"]);
    for field in trailer.fields() {
        let name = field.name.of(bytes);
        let passes = matches!(field.kind, Kind::Other | Kind::UserAgent) && may_trail(name);
        if passes && !options.nominates(name) {
            put_field(out, field, bytes);
        }
    }
    put(out, &[b"\r\n"]);
}

/// RFC 9110 section 6.5.1: fields that must not be taken from a trailer, because something was
/// decided by the head already (authentication, routing, caching, content coding).
fn may_trail(name: &[u8]) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "proxy-authenticate",
        "authentication-info",
        "proxy-authentication-info",
        "cookie",
        "set-cookie",
        "forwarded",
        "via",
        "cache-control",
        "content-encoding",
        "content-type",
        "content-range",
        "range",
        "max-forwards",
        "pragma",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
        "age",
        "date",
        "expires",
        "location",
        "retry-after",
        "vary",
        "warning",
    ];
    const FORWARDING: &[u8] = b"x-forwarded-";
    let begin = &name[..name.len().min(FORWARDING.len())];
    let never = NEVER.iter().any(|never| reads_as(name, never.as_bytes()));
    !never && !reads_as(begin, FORWARDING)
}

/// Appends a status line; `status` is below 1000.
fn put_status(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    let mut begin = *b"HTTP/1.1 000 ";
    begin[9] += (status / 100) as u8;
    begin[10] += (status / 10 % 10) as u8;
    begin[11] += (status % 10) as u8;
    put(out, &[&begin, phrase, b"\r\n"]);
}

fn put_framing(out: &mut Vec<u8>, framing: Framing) {
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

fn put_upgrade(out: &mut Vec<u8>, fields: &[Field], bytes: &[u8]) {
    // In one field: a list of many short ones must not become as many fields, and a head far
    // above the limits that it was received within.
    if protocols(fields, bytes).next().is_some() {
        put(out, &[b"Connection: Upgrade\r\nUpgrade: "]);
        protocols_asked(out, fields, bytes);
        put(out, &[b"\r\n"]);
    }
}

/// The lines of fields on their way out. Those that were received as they would be written are copied,
/// as many at once as stand together: most of a head is few such pieces.
struct Lines<'a> {
    bytes: &'a [u8],
    /// Lines that pass and are not written yet.
    piece: Range<usize>,
}

impl<'a> Lines<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, piece: 0..0 }
    }

    /// Appends the line of `field`, now or with those behind it; [`Lines::put`] must follow.
    fn pass(&mut self, out: &mut Vec<u8>, field: &Field) {
        match field.line_as_written(self.bytes) {
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
    fn put(&mut self, out: &mut Vec<u8>) {
        put(out, &[&self.bytes[mem::take(&mut self.piece)]]);
    }
}

fn put_field(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    let (name, value) = (field.name.of(bytes), field.value.of(bytes));
    put(out, &[name, b": ", value, b"\r\n"]);
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address as text. Every request needs some, and most are IPv4: those go without the
/// formatting machinery.
pub fn put_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut text = [0; "255.255.255.255.".len()];
            let mut len = 0;
            for octet in address.octets() {
                text[len..len + 4].copy_from_slice(&OCTETS[usize::from(octet)]);
                // Its digits and the dot; what stands behind these is overwritten.
                len += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
            }
            put(out, &[&text[..len - 1]]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Each octet in decimal, and a dot.
static OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0;
    while octet < octets.len() {
        let value = octet as u8;
        let [hundreds, tens, ones] = [
            b'0' + value / 100,
            b'0' + value / 10 % 10,
            b'0' + value % 10,
        ];
        octets[octet] = match octet {
            0..10 => [ones, b'.', 0, 0],
            10..100 => [tens, ones, b'.', 0],
            _ => [hundreds, tens, ones, b'.'],
        };
        octet += 1;
    }
    octets
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::head::Scanner;
    use crate::http::limits::Limits;

    const LIMITS: Limits = Limits {
        line: 8192,
        head: 32_768,
        fields: 100,
    };

    fn forwarded(text: &str, trusted: bool) -> String {
        let bytes = text.as_bytes();
        let mut head = RequestHead::default();
        head.parse(bytes, &mut Scanner::default(), &LIMITS).unwrap();
        let mut options = ConnectionOptions::default();
        assert!(options.read(bytes, &head.fields));
        let mut out = Vec::new();
        let to_peer = RequestToPeer {
            head: &head,
            bytes,
            options: &options,
            framing: Framing::None,
            expects_continue: false,
            upgrade: wants_upgrade(&options, &head.fields, bytes),
            socket: [127, 0, 0, 5].into(),
            client: [127, 0, 0, 9].into(),
            default_host: b"127.0.0.1:80",
            trusted,
        };
        request(&mut out, &to_peer);
        String::from_utf8(out).unwrap()
    }

    const OURS: &str = "X-Forwarded-For: 127.0.0.5\r\nX-Real-IP: 127.0.0.9\r\n\
                        X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

    #[test]
    fn requests_are_passed_on_without_what_is_of_this_hop_or_forged() {
        let table: &[(&str, &str)] = &[
            (
                "Accept: */*\r\naccept:x\r\n",
                "Accept: */*\r\naccept: x\r\n",
            ),
            (
                "Connection: X-A, close\r\nX-A: 1\r\nX-B: 2\r\n",
                "X-B: 2\r\n",
            ),
            (
                "Keep-Alive: 5\r\nTE: gzip\r\nTrailer: x\r\nUpgrade: x\r\n",
                "",
            ),
            ("X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n", ""),
            ("X-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\n", ""),
            ("X_Forwarded_For: 9.9.9.9\r\nX-Graygate-Pool: pre\r\n", ""),
            ("Connection: X-Forwarded-For, Host, X-Real-IP\r\n", ""),
        ];
        for (fields, passed) in table {
            let text = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let expected = format!("GET /x HTTP/1.1\r\nHost: a\r\n{passed}{OURS}\r\n");
            assert_eq!(forwarded(&text, false), expected);
        }
    }

    #[test]
    fn a_trusted_proxys_forwarding_fields_are_continued() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\
                    X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: a\r\n\
                        X-Forwarded-For: 9.9.9.9, 8.8.8.8, 127.0.0.5\r\nX-Real-IP: 127.0.0.9\r\n\
                        X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n";
        assert_eq!(forwarded(text, true), expected);
    }

    #[test]
    fn absolute_targets_are_passed_on_in_origin_form_with_their_authority() {
        for (line, passed) in [
            ("GET http://b/x?y", "GET /x?y"),
            ("GET http://b", "GET /"),
            ("GET http://b?y", "GET /?y"),
            ("OPTIONS http://b", "OPTIONS *"),
        ] {
            let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
            let begin = format!("{passed} HTTP/1.1\r\nHost: b\r\n");
            let out = forwarded(&text, false);
            assert!(out.starts_with(&begin), "{out:?}");
        }
    }

    #[test]
    fn an_upgrade_is_written_anew_and_never_to_http_2() {
        let text =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n";
        let out = forwarded(text, false);
        assert!(
            out.ends_with("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            "{out:?}"
        );
        for (protocols, passes) in [
            ("websocket", true),
            ("a/1.0", true),
            ("h2c/1", false),
            ("H2", false),
            ("HTTP/2.0", false),
            ("a b", false),
            ("a/1/2", false),
            ("a/", false),
            ("/1", false),
            ("a;b", false),
            ("\"a\"", false),
        ] {
            let fields = format!("Connection: Upgrade\r\nUpgrade: {protocols}\r\n");
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(
                forwarded(&text, false).contains("Upgrade"),
                passes,
                "{text}"
            );
        }
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n";
        assert_eq!(
            forwarded(text, false),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{OURS}\r\n")
        );
    }

    #[test]
    fn many_protocols_to_switch_to_stay_one_field() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a,b,,h2c\r\nUpgrade: c\r\n\r\n";
        let out = forwarded(text, false);
        let end = "\r\nConnection: Upgrade\r\nUpgrade: a,b,c\r\n\r\n";
        assert!(out.ends_with(end), "{out:?}");
    }

    /// Field lines of a response, as the client gets them.
    fn passed_in_response(fields: &str, framing: Framing, status: u16) -> String {
        let text = format!("HTTP/1.1 {status} OK\r\n{fields}\r\n");
        let bytes = text.as_bytes();
        let mut head = ResponseHead::default();
        head.parse(bytes, &mut Scanner::default(), &LIMITS).unwrap();
        let mut options = ConnectionOptions::default();
        assert!(options.read(bytes, &head.fields));
        let to_client = ResponseToClient {
            head: &head,
            bytes,
            options: &options,
            framing,
            version: Version::Http11,
            connection: Connection::KeepAlive,
        };
        let mut out = Vec::new();
        response(&mut out, &to_client);
        let out = String::from_utf8(out).unwrap();
        let begin = format!("HTTP/1.1 {status} OK\r\n");
        out.strip_prefix(&begin).unwrap().to_owned()
    }

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
    fn a_length_without_a_body_passes_where_it_says_something() {
        let fields = "A: 1\r\nContent-Length: 5\r\nB: 2\r\n";
        let without = "A: 1\r\nB: 2\r\n\r\n";
        for (framing, status, expected) in [
            (Framing::None, 200, format!("{fields}\r\n")),
            (Framing::None, 304, format!("{fields}\r\n")),
            (Framing::None, 204, without.to_owned()),
            (
                Framing::Length(5),
                200,
                "A: 1\r\nB: 2\r\nContent-Length: 5\r\n\r\n".to_owned(),
            ),
        ] {
            assert_eq!(
                passed_in_response(fields, framing, status),
                expected,
                "{status}"
            );
        }
        // Nominated or not.
        let out = passed_in_response(
            "Connection: Content-Length\r\nContent-Length: 5\r\n",
            Framing::None,
            200,
        );
        assert_eq!(out, "Content-Length: 5\r\n\r\n");
    }

    #[test]
    fn every_status_and_every_octet_is_written_as_display_does() {
        for status in 100..=999 {
            let mut out = Vec::new();
            put_status(&mut out, status, b"x y");
            assert_eq!(out, format!("HTTP/1.1 {status} x y\r\n").as_bytes());
        }
        for octet in 0..=u8::MAX {
            for octets in [
                [octet, 0, 10, 100],
                [1, octet, 200, 99],
                [255, 9, octet, 254],
                [0, 50, 101, octet],
                [octet; 4],
            ] {
                let (mut out, address) = (Vec::new(), IpAddr::from(octets));
                put_ip(&mut out, address);
                assert_eq!(out, address.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn an_own_answer_has_the_length_of_its_text() {
        let mut out = Vec::new();
        let refusal = Answer {
            status: 400,
            name: "many-hosts",
            connection: Connection::Close,
            to_head: false,
            version: Version::Http11,
        };
        answer(&mut out, &refusal);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "400 Bad Request: many-hosts\n");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
