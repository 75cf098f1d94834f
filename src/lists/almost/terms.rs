//! Repairs of entries with terms: what other programs write, and what is forgotten.

use crate::lists::comment;

/// Repairs one kind of mistake in an entry, if it is there.
pub(super) type Repair = fn(&str) -> String;

/// Kinds of terms, and what others call them.
const KINDS: &[(&str, &[&str])] = &[
    ("header", &["headers"]),
    ("cookie", &["cookies"]),
    ("query", &["arg", "args", "param", "params", "queries"]),
    ("path", &["paths", "uri", "url"]),
    ("method", &["methods", "verb"]),
    ("host", &["hosts", "domain"]),
    ("percent", &["percentage", "percents", "share"]),
];

/// What stands before addresses elsewhere.
const ADDRESSES: &[&str] = &["ip", "addr", "address", "net", "cidr", "client"];

/// True for what is rather an entry with terms than an address.
pub(super) fn has_terms(text: &str) -> bool {
    let is_kind = |it: &str| kind(it).is_some() || ADDRESSES.contains(&&*it.to_ascii_lowercase());
    let begins = |word: &str| {
        let word = word.trim_start_matches(['!', '"', '\'']);
        word.split_once([':', '='])
            .is_some_and(|(first, _)| is_kind(first))
    };
    let lower = text.to_ascii_lowercase();
    text.starts_with('!')
        || text.ends_with('%')
        || text.split_ascii_whitespace().any(begins)
        || [" until", " note"].iter().any(|it| lower.contains(it))
}

/// The name of a kind in the form in which it is read.
fn kind(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let mut kinds = KINDS.iter();
    let found = kinds.find(|(kind, others)| *kind == name || others.contains(&&*name));
    found.map(|(kind, _)| *kind)
}

/// In the order in which they are tried.
pub(super) const TERM_REPAIRS: &[Repair] = &[
    without_comment,
    without_quotes_around,
    double_quotes,
    with_exclamation_mark,
    without_conjunctions,
    without_blanks_at_signs,
    right_signs,
    right_kinds,
    right_moments,
];

/// `header:X-User=alice # a tester`.
fn without_comment(text: &str) -> String {
    let end = comment(text.as_bytes()).unwrap_or(text.len());
    text[..end].trim_ascii_end().to_owned()
}

/// `"header:X-User=alice"`.
fn without_quotes_around(text: &str) -> String {
    let text = text.trim_end_matches([',', ';']);
    for quote in ['"', '\'', '`'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|it| it.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner.to_owned();
        }
    }
    text.to_owned()
}

/// `header:User-Agent='a b'`.
fn double_quotes(text: &str) -> String {
    match text.contains('"') {
        true => text.to_owned(),
        false => text.replace('\'', "\""),
    }
}

/// `! 10.0.0.1`, `!!10.0.0.1`, `not 10.0.0.1`.
fn with_exclamation_mark(text: &str) -> String {
    let rest = text.strip_prefix("not ").or_else(|| text.strip_prefix('!'));
    match rest {
        Some(rest) => format!("!{}", rest.trim_start_matches(['!', ' '])),
        None => text.to_owned(),
    }
}

/// `header:A && cookie:b`.
fn without_conjunctions(text: &str) -> String {
    text.replace(" && ", " ")
        .replace(" and ", " ")
        .replace(" AND ", " ")
}

/// `header:X-User: alice`, `header:X-User = alice`, `until = 2026-12-01T18:00Z`.
fn without_blanks_at_signs(text: &str) -> String {
    let mut text = text.to_owned();
    for sign in ['=', '~', '<', '>', ':'] {
        text = text.replace(&format!("{sign} "), &sign.to_string());
        text = text.replace(&format!(" {sign}"), &sign.to_string());
    }
    text
}

/// `cookie:a==b`, `header:X=>2.1`.
fn right_signs(text: &str) -> String {
    let text = text
        .replace("==", "=")
        .replace("=~", "~")
        .replace("~=", "~");
    text.replace("=>", ">=").replace("=<", "<=")
}

/// Each word in the form in which it is read.
fn right_kinds(text: &str) -> String {
    let mark = if text.starts_with('!') { "!" } else { "" };
    let words = text[mark.len()..].split(' ').map(right_kind);
    format!("{mark}{}", words.collect::<Vec<_>>().join(" "))
}

/// `Header:X-User:alice`, `percent=5%`, `5%`, `ip:10.0.0.1`, `path:v2`.
fn right_kind(word: &str) -> String {
    if let Some(number) = word.strip_suffix('%')
        && number.parse::<f64>().is_ok()
    {
        return format!("percent:{number}");
    }
    let Some(at) = word.find([':', '=']) else {
        return word.to_owned();
    };
    let (name, rest) = (&word[..at], &word[at + 1..]);
    let lower = name.to_ascii_lowercase();
    if ADDRESSES.contains(&&*lower) {
        return rest.to_owned();
    }
    if matches!(&*lower, "until" | "note") {
        return format!("{lower}={rest}");
    }
    let Some(kind) = kind(name) else {
        return word.to_owned();
    };
    let rest = match kind {
        "percent" => rest.replacen('%', "", 1),
        "path" if !rest.starts_with(['/', '*', '"']) => format!("/{rest}"),
        "host" => match rest.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host.to_owned(),
            _ => rest.to_owned(),
        },
        "header" | "cookie" | "query" if !rest.contains(['=', '~', '<', '>']) => {
            rest.replacen(':', "=", 1)
        }
        _ => rest.to_owned(),
    };
    format!("{kind}:{rest}")
}

/// `until=2026-12-01`, `until=2026-12-01T18:00`, `until=2026-12-01 18:00`.
fn right_moments(text: &str) -> String {
    let Some((before, rest)) = text.split_once("until=") else {
        return text.to_owned();
    };
    let mut words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
    let is_date = |it: &str| it.len() == 10 && it.matches('-').count() == 2;
    if is_date(&words[0]) {
        let is_time = words
            .get(1)
            .is_some_and(|it| it.contains(':') && it.starts_with(|it: char| it.is_ascii_digit()));
        let time = match is_time {
            true => words.remove(1),
            false => "00:00".to_owned(),
        };
        words[0] = format!("{}T{time}", words[0]);
    }
    let zoned = words[0]
        .rsplit_once('T')
        .is_some_and(|(_, it)| it.contains(['Z', 'z', '+', '-']));
    if words[0].contains('T') && !zoned {
        words[0].push('Z');
    }
    format!("{before}until={}", words.join(" "))
}
