//! The lines around the chunks of a body, and its trailer.

use std::io::Write;

use super::lines::put_field;
use super::text::put;
use crate::http::fields::{ConnectionOptions, FieldKind, reads_as};
use crate::http::h1::chunked::Trailer;

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
        let passes =
            matches!(field.kind, FieldKind::Other | FieldKind::UserAgent) && may_trail(name);
        if passes && !options.nominates(name) {
            put_field(out, field, bytes);
        }
    }
    put(out, &[b"\r\n"]);
}

/// RFC 9110 section 6.5.1: fields that must not be taken from a trailer, because decisions were already
/// made by the head (authentication, routing, caching, content coding).
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
