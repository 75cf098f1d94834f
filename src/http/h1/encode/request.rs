//! Requests to peers.

use std::net::IpAddr;
use std::ops::Range;

use super::lines::{FieldLines, put_framing};
use super::text::{put, put_decimal, put_ip};
use super::upgrade::put_upgrade;
use crate::http::cookies;
use crate::http::fields::{ConnectionOptions, Field, FieldKind, list};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::{RequestHead, Target};
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
    /// The client asks for another protocol; see [`wants_upgrade`](super::wants_upgrade).
    pub upgrade: bool,
    /// The address of the socket's other side.
    pub socket: IpAddr,
    /// The client's address.
    pub client: IpAddr,
    /// What an HTTP/1.0 request without Host is for: the address that it came to.
    pub default_host: &'a [u8],
    /// The request's id, in place of whatever the client says; empty: what it says is passed on.
    pub request_id: &'a [u8],
    /// The other side is a trusted proxy, so that its forwarding fields are continued rather
    /// than replaced.
    pub trusted: bool,
    /// What is changed besides, in a gateway that is told to.
    pub amended: Option<Amendment<'a>>,
}

/// What a gateway takes from a request and adds to it of its own accord, where its settings say so. One
/// value, so that all others ask for it once.
pub struct Amendment<'a> {
    /// A cookie that the peer does not get; empty: none.
    pub without_cookie: &'a [u8],
    /// A field of the gateway's own, by name and value.
    pub mark: Option<(&'a str, &'a str)>,
}

/// Appends the head of a request to a peer. Returns where the value of the mark begins, if there is one.
pub fn request(out: &mut Vec<u8>, request: &RequestToPeer<'_>) -> Option<usize> {
    let RequestToPeer { head, bytes, .. } = request;
    let host = head
        .authority()
        .map_or(request.default_host, |host| host.of(bytes));
    let mut takes_trailers = false;
    let mut lines = match begin_as_written(head, bytes) {
        Some(begin) => FieldLines::behind(begin, bytes),
        None => {
            put_begin(out, head, host, bytes);
            FieldLines::of(bytes)
        }
    };
    for field in &head.fields {
        let passes = match field.kind {
            FieldKind::Other | FieldKind::UserAgent | FieldKind::Authentication => true,
            FieldKind::Cookie => match &request.amended {
                Some(it) if cookies::has(field.value.of(bytes), it.without_cookie) => {
                    lines.put(out);
                    put_cookies(out, field, it.without_cookie, request);
                    false
                }
                _ => true,
            },
            // With other framings there is no trailer to announce.
            FieldKind::Trailer => request.framing == Framing::Chunked,
            FieldKind::Te => {
                takes_trailers |= has_trailers(field, bytes);
                false
            }
            // Only a trusted proxy can know what was before this hop (RFC 7239 section 8.1).
            FieldKind::Forwarded => request.trusted,
            FieldKind::MaxForwards => true,
            FieldKind::RequestId => request.request_id.is_empty(),
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
    if !request.request_id.is_empty() {
        put(out, &[b"X-Request-Id: ", request.request_id, b"\r\n"]);
    }
    put_framing(out, request.framing);
    if request.expects_continue {
        put(out, &[b"Expect: 100-continue\r\n"]);
    }
    match request.upgrade {
        true => put_upgrade(out, &head.fields, bytes),
        // Not together with an upgrade, since some servers only accept a Connection with `Upgrade`
        // alone.
        false if takes_trailers && head.version == Version::Http11 => {
            put(out, &[b"Connection: TE\r\nTE: trailers\r\n"]);
        }
        false => {}
    }
    let mark = match &request.amended {
        Some(it) => it.mark.map(|mark| put_mark(out, mark)),
        None => None,
    };
    put(out, &[b"\r\n"]);
    mark
}

/// Appends the mark. Returns where its value begins.
#[cold]
fn put_mark(out: &mut Vec<u8>, (name, value): (&str, &str)) -> usize {
    put(out, &[name.as_bytes(), b": "]);
    let begin = out.len();
    put(out, &[value.as_bytes(), b"\r\n"]);
    begin
}

/// Appends a `Cookie` field without a cookie that the peer does not get.
#[cold]
fn put_cookies(out: &mut Vec<u8>, field: &Field, without: &[u8], request: &RequestToPeer<'_>) {
    let bytes = request.bytes;
    if request.options.nominates(field.name.of(bytes)) {
        return;
    }
    let begin = out.len();
    put(out, &[field.name.of(bytes), b": "]);
    match cookies::put_without(out, field.value.of(bytes), without) {
        true => put(out, &[b"\r\n"]),
        false => out.truncate(begin),
    }
}

/// The request line and the Host field, if they are exactly what would be written.
fn begin_as_written(head: &RequestHead, bytes: &[u8]) -> Option<Range<usize>> {
    let first = head.fields.first()?;
    let is_host = first.kind == FieldKind::Host && first.name.of(bytes) == b"Host";
    let is_relative = matches!(head.form, Target::Origin | Target::Asterisk);
    if !is_host || !is_relative || head.version != Version::Http11 {
        return None;
    }
    let host = first.line_as_written()?;
    Some(head.method.range().start..host.end)
}

fn put_begin(out: &mut Vec<u8>, head: &RequestHead, host: &[u8], bytes: &[u8]) {
    put(out, &[head.method.of(bytes), b" "]);
    match head.form {
        Target::Absolute { rest, .. } => put_path(out, rest.of(bytes), head.method.of(bytes)),
        Target::Origin | Target::Asterisk => put(out, &[head.target.of(bytes)]),
    }
    put(out, &[b" HTTP/1.1\r\nHost: ", host, b"\r\n"]);
}

/// True when a `TE` field says that trailers are welcome. That is about the final recipient, to whom
/// they are passed on; the codings in the field are for one connection only.
fn has_trailers(field: &Field, bytes: &[u8]) -> bool {
    let is_trailers = |it: Span| it.of(bytes).eq_ignore_ascii_case(b"trailers");
    list(field.value, bytes).any(is_trailers)
}

/// How many more hops an OPTIONS may take, if `field` says so (RFC 9110 section 7.6.2). With other
/// methods the field has no meaning.
pub(crate) fn max_forwards(field: &Field, method: &[u8], bytes: &[u8]) -> Option<u64> {
    if field.kind != FieldKind::MaxForwards || method != b"OPTIONS" {
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
    let received = |kind: FieldKind| {
        let fields = head.fields.of_kind(kind);
        fields.filter(|_| request.trusted)
    };
    put(out, &[b"X-Forwarded-For: "]);
    for field in received(FieldKind::ForwardedFor) {
        if !field.value.of(bytes).is_empty() {
            put(out, &[field.value.of(bytes), b", "]);
        }
    }
    let socket = crate::http::client::canonical(request.socket);
    let start = out.len();
    put_ip(out, socket);
    let end = out.len();
    put(out, &[b"\r\nX-Real-IP: "]);
    // Mostly the two are the same, and an address takes longer to write than any other field.
    match request.client == socket {
        true => out.extend_from_within(start..end),
        false => put_ip(out, request.client),
    }
    let first = |kind, otherwise| {
        let mut values = received(kind).map(|field| field.value.of(bytes));
        values.find(|it| !it.is_empty()).unwrap_or(otherwise)
    };
    let proto = first(FieldKind::ForwardedProto, b"http");
    put(out, &[b"\r\nX-Forwarded-Proto: ", proto]);
    let host = first(FieldKind::ForwardedHost, host);
    put(out, &[b"\r\nX-Forwarded-Host: ", host, b"\r\n"]);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::h1::encode::wants_upgrade;
    use crate::http::h1::head::Scanner;
    use crate::http::limits::Limits;

    pub(in super::super) const LIMITS: Limits = Limits {
        line: 8192,
        head: 32_768,
        fields: 100,
    };

    /// The head that a peer gets.
    pub(in super::super) fn forwarded(text: &str, trusted: bool) -> String {
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
            request_id: b"",
            trusted,
            amended: None,
        };
        request(&mut out, &to_peer);
        String::from_utf8(out).unwrap()
    }

    /// The fields that say who the client is.
    pub(in super::super) const OURS: &str = "X-Forwarded-For: 127.0.0.5\r\nX-Real-IP: 127.0.0.9\r\n\
                        X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

    #[test]
    fn requests_are_passed_on_without_what_is_of_this_hop_or_forged() {
        let table: &[(&str, &str)] = &[
            (
                "Accept: */*\r\naccept:x\r\n",
                "Accept: */*\r\naccept: x\r\n",
            ),
            (
                "Cookie: a=1\r\nAuthorization: Basic x\r\nUser-Agent: y\r\n",
                "Cookie: a=1\r\nAuthorization: Basic x\r\nUser-Agent: y\r\n",
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
    fn a_head_begins_alike_whether_it_comes_so_or_not() {
        for begin in [
            "GET /x HTTP/1.1\r\nHost: a\r\nB: 1\r\n",
            "\r\nGET /x HTTP/1.1\r\nHost: a\r\nB: 1\r\n",
            "GET /x HTTP/1.1\r\nhost: a\r\nB: 1\r\n",
            "GET /x HTTP/1.1\r\nHost:a\r\nB: 1\r\n",
            "GET /x HTTP/1.1\r\nHost: \ta \r\nB: 1\r\n",
            "GET /x HTTP/1.1\r\nB: 1\r\nHost: a\r\n",
            "GET /x HTTP/1.0\r\nHost: a\r\nB: 1\r\n",
            "GET http://a/x HTTP/1.1\r\nHost: a\r\nB: 1\r\n",
            "GET http://a/x HTTP/1.1\r\nHost: b\r\nB: 1\r\n",
        ] {
            let expected = format!("GET /x HTTP/1.1\r\nHost: a\r\nB: 1\r\n{OURS}\r\n");
            let text = format!("{begin}\r\n");
            assert_eq!(forwarded(&text, false), expected, "{begin:?}");
        }
        let text = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected = format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{OURS}\r\n");
        assert_eq!(forwarded(text, false), expected);
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
}
