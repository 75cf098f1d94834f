//! What the gateway says to clients of its decision, in the heads of answers: nothing, unless the settings
//! say so, or a new visitor has to be told.

use std::io::Write;

use super::tally::Tally;
use crate::config::{Exposed, GraySettings};
use crate::http::fields::{FieldKind, Fields, list};
use crate::lists::PoolName;

/// Appends the lines of the gateway's own for the head of an answer.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, settings: &GraySettings, tally: &Tally) {
    if settings.expose != Exposed::Nobody {
        put_decision(out, settings.expose, tally);
    }
    if tally.visitor.is_some() {
        put_visitor(out, settings, tally);
    }
}

#[cold]
fn put_decision(out: &mut Vec<u8>, expose: Exposed, tally: &Tally) {
    // Without them nothing was decided.
    let (Some(pool), Some(reason)) = (tally.pool, tally.reason) else {
        return;
    };
    let is_gray = pool == PoolName::Pre || tally.forced;
    if expose == Exposed::Everybody || is_gray {
        let (pool, reason, generation) = (pool.name(), reason.name(), tally.generation);
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "X-Graygate: pool={pool}; reason={reason}; generation={generation}\r\n"
        );
    }
}

#[cold]
fn put_visitor(out: &mut Vec<u8>, settings: &GraySettings, tally: &Tally) {
    let Some(id) = tally.visitor else {
        return;
    };
    let age = settings.visitor_max_age.as_secs();
    for part in [
        b"Set-Cookie: ",
        settings.visitor_cookie.as_bytes(),
        b"=",
        id.text(),
        b"; Path=/; Max-Age=",
    ] {
        out.extend_from_slice(part);
    }
    // As above.
    let _ = write!(out, "{age}; SameSite=Lax; HttpOnly");
    if tally.by_https {
        out.extend_from_slice(b"; Secure");
    }
    out.extend_from_slice(b"\r\n");
    if settings.visitor_private {
        // Beside what the peer says: of directives that contradict each other, the most restrictive one
        // counts (RFC 9111 section 4.2.1), and the others stay in force.
        out.extend_from_slice(b"Cache-Control: private\r\n");
    }
}

/// Whether the client came to the first proxy by https, as a trusted one says.
pub(super) fn is_by_https(fields: &Fields, bytes: &[u8]) -> bool {
    let fields = fields.of_kind(FieldKind::ForwardedProto);
    let mut named = fields.flat_map(|it| list(it.value, bytes));
    let first = named.next();
    first.is_some_and(|it| it.of(bytes).eq_ignore_ascii_case(b"https"))
}
