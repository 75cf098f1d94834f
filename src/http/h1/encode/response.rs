//! Responses to the client.

use super::lines::{FieldLines, put_framing, put_status};
use super::text::put;
use super::upgrade::put_upgrade;
use crate::http::fields::{ConnectionOptions, FieldKind};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::ResponseHead;
use crate::http::version::Version;

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
    /// What is said about the client's connection.
    pub connection: Connection,
    /// Lines of the gateway's own, each with its CR LF.
    pub added: &'a [u8],
}

/// What a response says about the downstream connection.
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
    // Without a body the length is information about another response (RFC 9110 section 8.6), unless the
    // status forbids it.
    let informs = response.framing == Framing::None && head.status >= 200 && head.status != 204;
    let mut lines = match head.version {
        // The line is as it would be written.
        Version::Http11 => FieldLines::behind(0..head.reason.range().end + 2, bytes),
        Version::Http10 => {
            put_status(out, head.status, head.reason.of(bytes));
            FieldLines::of(bytes)
        }
    };
    for field in &head.fields {
        let passes = match field.kind {
            FieldKind::ContentLength => informs,
            // Dropped trailers are not announced.
            FieldKind::Trailer if response.framing != Framing::Chunked => false,
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
    if !response.added.is_empty() {
        put(out, &[response.added]);
    }
    put(out, &[b"\r\n"]);
}

/// Appends the head of an interim (1xx) response to the client.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], options: &ConnectionOptions) {
    put_status(out, head.status, head.reason.of(bytes));
    let mut lines = FieldLines::of(bytes);
    for field in &head.fields {
        // It has no body, and so no trailer.
        let passes = passes_in_response(field.kind) && field.kind != FieldKind::Trailer;
        if passes && !options.nominates(field.name.of(bytes)) {
            lines.pass(out, field);
        }
    }
    lines.put(out);
    put(out, &[b"\r\n"]);
}

fn passes_in_response(kind: FieldKind) -> bool {
    !matches!(
        kind,
        FieldKind::Connection
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
            | FieldKind::Te
            | FieldKind::HopByHop
            | FieldKind::Forbidden
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::h1::encode::request::tests::LIMITS;
    use crate::http::h1::head::Scanner;

    /// Field lines of a response, as the client gets them.
    pub(in super::super) fn passed_in_response(
        fields: &str,
        framing: Framing,
        status: u16,
    ) -> String {
        let begin = format!("HTTP/1.1 {status} OK\r\n");
        let out = passed(&format!("{begin}{fields}\r\n"), framing);
        out.strip_prefix(&begin).unwrap().to_owned()
    }

    /// A response as the client gets it.
    fn passed(text: &str, framing: Framing) -> String {
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
            added: b"",
        };
        let mut out = Vec::new();
        response(&mut out, &to_client);
        String::from_utf8(out).unwrap()
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
    fn a_response_begins_with_our_version_whatever_the_peers() {
        for reason in ["OK", "", "Not so bad \t!"] {
            for version in ["1.0", "1.1"] {
                let text = format!("HTTP/{version} 200 {reason}\r\nA: 1\r\n\r\n");
                let expected = format!("HTTP/1.1 200 {reason}\r\nA: 1\r\n\r\n");
                assert_eq!(passed(&text, Framing::UntilClose), expected);
            }
        }
    }
}
