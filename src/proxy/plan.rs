//! What a request asks for, as far as serving it depends on that.

use crate::config::GatewaySettings;
use crate::error::{Close, Refusal};
use crate::http::authentication;
use crate::http::fields::{ConnectionOptions, FieldKind, list};
use crate::http::h1::encode;
use crate::http::h1::framing::{self, Framing};
use crate::http::h1::head::RequestHead;
use crate::http::span::Span;
use crate::http::version::Version;

/// What must be known of a request once the bytes of its head are gone.
pub(super) struct Plan {
    pub(super) framing: Framing,
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// It asks for nothing to be changed (RFC 9110 section 9.2.1).
    pub(super) is_safe: bool,
    pub(super) is_idempotent: bool,
    pub(super) expects_continue: bool,
    pub(super) upgrade: bool,
    /// It has credentials that authenticate a connection.
    pub(super) authenticates_connection: bool,
    /// The client is a trusted proxy, on whose connection requests of many people may come.
    pub(super) by_proxy: bool,
    /// It must not be passed on, by its Max-Forwards.
    pub(super) last_hop: bool,
    /// The client wants to keep the connection.
    pub(super) keep_alive: bool,
}

impl Plan {
    /// Judges a head beyond its syntax, and parses its `options`.
    ///
    /// # Errors
    /// The refusal with which the request is to be answered.
    pub(super) fn of(
        head: &RequestHead,
        bytes: &[u8],
        options: &mut ConnectionOptions,
        gateway: &GatewaySettings,
        by_proxy: bool,
    ) -> Result<Self, Refusal> {
        // No URI has such bytes (RFC 3986 section 2), but curl, old browsers and crawlers send them.
        if !gateway.raw_target && !head.target.of(bytes).is_ascii() {
            return Err(Refusal::BadTarget);
        }
        if !options.read(bytes, &head.fields) {
            return Err(Refusal::BadField);
        }
        let framing = framing::of_request(head, bytes, gateway.max_body)?;
        let is_http11 = head.version == Version::Http11;
        let method = head.method.of(bytes);
        Ok(Self {
            framing,
            version: head.version,
            is_head: method == b"HEAD",
            is_safe: is_safe(method),
            is_idempotent: is_safe(method) || is_idempotent(method),
            // An HTTP/1.0 client's expectation is ignored (RFC 9110 section 10.1.1).
            expects_continue: is_http11 && expects_continue(head, bytes)?,
            // With a body the Upgrade is ignored, as the RFC allows (RFC 9110 section 7.8): some servers
            // take what follows the head of such a request for the next one.
            upgrade: is_http11
                && has_no_body(framing)
                && encode::wants_upgrade(options, &head.fields, bytes),
            authenticates_connection: authentication::is_of_connection(&head.fields, bytes),
            by_proxy,
            last_hop: {
                let left = |field| encode::max_forwards(field, method, bytes);
                let fields = head.fields.of_kind(FieldKind::MaxForwards);
                fields.filter_map(left).any(|it| it == 0)
            },
            keep_alive: !options.close && (is_http11 || options.keep_alive),
        })
    }

    /// Why the connection must end after the response, if it must; `ending` is a reason that has nothing to
    /// do with the request.
    pub(super) fn close_reason(&self, complete: bool, ending: Option<Close>) -> Option<Close> {
        match () {
            () if !self.keep_alive => Some(Close::ConnectionClose),
            () if !complete => Some(Close::BodyUnread),
            () => ending,
        }
    }
}

/// True when the client may wait for `100 Continue` (RFC 9110 section 10.1.1).
fn expects_continue(head: &RequestHead, bytes: &[u8]) -> Result<bool, Refusal> {
    let fields = head.fields.of_kind(FieldKind::Expect);
    let mut expectations = fields.flat_map(|it| list(it.value, bytes));
    let is_known = |it: Span| it.of(bytes).eq_ignore_ascii_case(b"100-continue");
    match (expectations.next(), expectations.all(is_known)) {
        (None, _) => Ok(false),
        (Some(first), true) if is_known(first) => Ok(true),
        _ => Err(Refusal::BadExpect),
    }
}

fn has_no_body(framing: Framing) -> bool {
    matches!(framing, Framing::None | Framing::Length(0))
}

/// True when the HTTP method registry names it safe (RFC 9110 sections 9.2.1 and 16.1.1): nothing is changed,
/// however often it is sent. Methods are case-sensitive, and one that is not registered may mean anything.
fn is_safe(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"HEAD"
            | b"OPTIONS"
            | b"TRACE"
            | b"PRI"
            | b"QUERY"
            | b"SEARCH"
            | b"REPORT"
            | b"PROPFIND"
    )
}

/// True when the HTTP method registry names it idempotent, though not safe (RFC 9110 sections 9.2.2 and
/// 16.1.1).
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"PUT"
            | b"DELETE"
            | b"PROPPATCH"
            | b"MKCOL"
            | b"COPY"
            | b"MOVE"
            | b"UNLOCK"
            | b"ACL"
            | b"MKCALENDAR"
            | b"ORDERPATCH"
            | b"MKREDIRECTREF"
            | b"UPDATEREDIRECTREF"
            | b"BIND"
            | b"REBIND"
            | b"UNBIND"
            | b"LINK"
            | b"UNLINK"
            | b"VERSION-CONTROL"
            | b"CHECKOUT"
            | b"CHECKIN"
            | b"UNCHECKOUT"
            | b"MKWORKSPACE"
            | b"UPDATE"
            | b"LABEL"
            | b"MERGE"
            | b"BASELINE-CONTROL"
            | b"MKACTIVITY"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registry as of RFC 7237, RFC 9110, RFC 9113 and QUERY: which methods are idempotent.
    const REGISTERED: &str = "ACL yes, BASELINE-CONTROL yes, BIND yes, CHECKIN yes, CHECKOUT yes, \
        CONNECT no, COPY yes, DELETE yes, GET yes, HEAD yes, LABEL yes, LINK yes, LOCK no, MERGE yes, \
        MKACTIVITY yes, MKCALENDAR yes, MKCOL yes, MKREDIRECTREF yes, MKWORKSPACE yes, MOVE yes, \
        OPTIONS yes, ORDERPATCH yes, PATCH no, POST no, PRI yes, PROPFIND yes, PROPPATCH yes, PUT yes, \
        QUERY yes, REBIND yes, REPORT yes, SEARCH yes, TRACE yes, UNBIND yes, UNCHECKOUT yes, \
        UNLINK yes, UNLOCK yes, UPDATE yes, UPDATEREDIRECTREF yes, VERSION-CONTROL yes, * no";

    /// And which are safe as well.
    const SAFE: &str = "GET HEAD OPTIONS PRI PROPFIND QUERY REPORT SEARCH TRACE";

    #[test]
    fn methods_are_safe_or_idempotent_as_the_registry_says_and_others_are_not() {
        for entry in REGISTERED.split(", ") {
            let (method, idempotent) = entry.split_once(' ').unwrap();
            let expected = idempotent == "yes";
            let safe = SAFE.split(' ').any(|it| it == method);
            let found = |method: &str| {
                let safe = is_safe(method.as_bytes());
                (safe, safe || is_idempotent(method.as_bytes()))
            };
            assert_eq!(found(method), (safe, expected), "{method}");
            for other in [method.to_ascii_lowercase(), format!("{method}S")] {
                assert_eq!(found(&other), (false, false), "{other}");
            }
        }
        for method in ["", "PURGE", "SUBSCRIBE", "M-SEARCH", "GE", "Get"] {
            let method = method.as_bytes();
            assert!(!is_safe(method) && !is_idempotent(method), "{method:?}");
        }
    }
}
