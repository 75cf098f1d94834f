//! The switch to another protocol: how it is requested and granted.

use super::text::put;
use crate::http::bytes::is_token_byte;
use crate::http::fields::{ConnectionOptions, FieldKind, Fields, list};
use crate::http::span::Span;

/// True when a head asks to switch to a protocol other than HTTP; HTTP/2 is not supported here.
pub fn wants_upgrade(options: &ConnectionOptions, fields: &Fields, bytes: &[u8]) -> bool {
    options.upgrade && protocols(fields, bytes).next().is_some()
}

/// Appends the protocols that a request asks for, as one list.
pub(crate) fn protocols_asked(out: &mut Vec<u8>, fields: &Fields, bytes: &[u8]) {
    let mut before: &[u8] = b"";
    for protocol in protocols(fields, bytes) {
        put(out, &[before, protocol.of(bytes)]);
        // Without a space, which would make a long list longer than it was.
        before = b",";
    }
}

/// True when a 101 switches to protocols of the list `asked`, and to no other.
pub(crate) fn switches_as_asked(
    asked: &[u8],
    options: &ConnectionOptions,
    fields: &Fields,
    bytes: &[u8],
) -> bool {
    let asked_all = Span::new(0, asked.len());
    let is_asked = |protocol: Span| {
        let mut asked_for = list(asked_all, asked);
        asked_for.any(|it| it.of(asked).eq_ignore_ascii_case(protocol.of(bytes)))
    };
    let named = fields.of_kind(FieldKind::Upgrade);
    let mut named = named.flat_map(|field| list(field.value, bytes)).peekable();
    options.upgrade && named.peek().is_some() && named.all(is_asked)
}

/// True when a 101 switches to the WebSocket protocol (RFC 6455 section 4.2.2), and to nothing else.
pub(crate) fn is_websocket(fields: &Fields, bytes: &[u8]) -> bool {
    let mut named = protocols(fields, bytes);
    let is_it = |it: Span| it.of(bytes).eq_ignore_ascii_case(b"websocket");
    named.next().is_some_and(is_it) && named.next().is_none()
}

fn protocols<'a>(fields: &'a Fields, bytes: &'a [u8]) -> impl Iterator<Item = Span> + 'a {
    fields
        .of_kind(FieldKind::Upgrade)
        .flat_map(|field| list(field.value, bytes))
        .filter(|protocol| is_foreign_protocol(protocol.of(bytes)))
}

/// `name [/ version]` (RFC 9110 section 7.8), with a name other than HTTP.
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

pub(super) fn put_upgrade(out: &mut Vec<u8>, fields: &Fields, bytes: &[u8]) {
    // In a single field: a list of many short ones must not become as many fields, and a head far above
    // the limits within which it was received.
    if protocols(fields, bytes).next().is_some() {
        put(out, &[b"Connection: Upgrade\r\nUpgrade: "]);
        protocols_asked(out, fields, bytes);
        put(out, &[b"\r\n"]);
    }
}

#[cfg(test)]
mod tests {
    use crate::http::h1::encode::request::tests::{OURS, forwarded};

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
}
