//! Likely mistakes in a rule alone: what no client sends so, and what there are other terms for.

use super::entry::read_net;
use super::notes::{self, FindingKind, Notes};
use super::rule::words::words;
use super::rule::{Part, Rule, ShareKey, Term, Test};

/// Notes what can be told of a rule alone, which was written as `text`.
pub(super) fn of_rule(text: &str, rule: &Rule, notes: &mut Notes) {
    // An address has none.
    if text.contains('/') {
        host_bits(text, notes);
    }
    for term in &rule.terms {
        let told = |what: String| (rule.to_string(), what);
        if let Some(what) = why_never_sent(term) {
            notes.add(FindingKind::NeverSent, || told(what));
        }
        if let Some(what) = other_term(term) {
            notes.add(FindingKind::OtherTerm, || told(what.to_owned()));
        }
    }
}

/// Notes nets that are written with host bits.
fn host_bits(text: &str, notes: &mut Notes) {
    let included = text.strip_prefix('!').unwrap_or(text);
    let written = words(included).unwrap_or_default().into_iter();
    for written in written.filter_map(|it| read_net(it).ok()) {
        let net = written.trunc();
        if net != written {
            notes.add(FindingKind::HostBits, || {
                notes::host_bits(text, written, net)
            });
        }
    }
}

/// Why no request, or hardly one, has what a term asks for.
fn why_never_sent(term: &Term) -> Option<String> {
    let Term::Part(part, test) = term else {
        return None;
    };
    let (text, is_start, is_end) = match test {
        Test::Is(text) | Test::IsInAnyCase(text) => (text, true, true),
        Test::Like {
            open_start,
            text,
            open_end,
            ..
        } => (text, !open_start, !open_end),
        Test::Present | Test::Version(..) => return None,
    };
    let is_blank = |byte: Option<&u8>| byte == Some(&b' ');
    let has_blank_at_end = is_start && is_blank(text.first()) || is_end && is_blank(text.last());
    match part {
        Part::Header(_) | Part::Cookie(_) if has_blank_at_end => {
            Some("has a blank at its end, which no value has when it is compared".to_owned())
        }
        Part::Cookie(_) => {
            // RFC 6265 section 4.1.1 allows quotes around it.
            let inner = text
                .strip_prefix(b"\"")
                .and_then(|it| it.strip_suffix(b"\""));
            let is_usual = |byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(byte);
            let is_usual = inner.unwrap_or(text).iter().all(is_usual);
            (!is_usual).then(|| {
                "has a sign that few clients send in a cookie (RFC 6265 section 4.1.1): it is compared \
                 as it was sent, mostly with %20, %22, %2C and the like"
                    .to_owned()
            })
        }
        Part::Query(_) => {
            let is_hex = |it: &[u8]| it[1..].iter().all(u8::is_ascii_hexdigit);
            let encoded = text.windows(3).any(|it| it[0] == b'%' && is_hex(it));
            encoded.then(|| "has a %XX, but is compared with the decoded value".to_owned())
        }
        Part::Method if text.iter().any(u8::is_ascii_lowercase) => {
            let meant = String::from_utf8_lossy(text).to_ascii_uppercase();
            Some(format!("methods are in capitals; is {meant} meant?"))
        }
        _ => None,
    }
}

/// The term that is there for what a header field says.
fn other_term(term: &Term) -> Option<&'static str> {
    let part = match term {
        Term::Part(part, _)
        | Term::Share {
            by: ShareKey::Part(part),
            ..
        } => part,
        _ => return None,
    };
    let Part::Header(name) = part else {
        return None;
    };
    match &**name {
        "host" => Some("is host:NAME meant? It is without the port, and its case does not matter"),
        "cookie" => Some("is cookie:NAME=VALUE meant? A header field has all cookies in one value"),
        "x-forwarded-for" | "forwarded" => {
            Some("is an address meant? It is the client's, as far as trusted proxies tell it")
        }
        _ => None,
    }
}
