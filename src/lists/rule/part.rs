//! Terms about a part of the request: `header:NAME=VALUE`, `path:/v2/*` and their like.

use super::host::host;
use super::words::{Pattern, Wrong, value};
use super::{AppVersion, Comparison, Part, Term, Test};

/// Parts that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Header,
    Cookie,
    Query,
}

impl PartKind {
    /// The kind of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "header" => Some(Self::Header),
            "cookie" => Some(Self::Cookie),
            "query" => Some(Self::Query),
            _ => None,
        }
    }
}

/// The part of that name.
pub(super) fn name(kind: PartKind, text: &str) -> Result<Part, Wrong> {
    if text.is_empty() {
        return Err("a name is missing, as in header:X-User, cookie:uid=42 or query:version=2");
    }
    if text.contains(':') {
        return Err(match kind {
            PartKind::Query => {
                "a value is behind `=`, as in query:version=2; a `:` in a name is %3A"
            }
            PartKind::Header => "a value is behind `=` and no blank, as in header:X-User=alice",
            PartKind::Cookie => "a value is behind `=` and no blank, as in cookie:uid=42",
        });
    }
    if text.contains('*') {
        return Err("a wildcard is for values, not for names");
    }
    match kind {
        PartKind::Header if text.bytes().all(is_token_byte) => {
            Ok(Part::Header(text.to_ascii_lowercase().into()))
        }
        PartKind::Header => Err("a header field's name has letters, digits and signs like - or _"),
        PartKind::Cookie if text.chars().all(is_of_cookie_name) => {
            Ok(Part::Cookie(text.as_bytes().into()))
        }
        PartKind::Cookie => {
            Err("no cookie has such a name: it has a quote, a comma, `;`, `#` or `\\`")
        }
        PartKind::Query if text.contains(['"', '&', '#', '\\']) => {
            Err("such a sign in a query parameter's name is written as %XX")
        }
        PartKind::Query => Ok(Part::Query(decoded(text).into())),
    }
}

/// As RFC 9110 section 5.6.2 has it, but `#`, which would begin a comment in a lists file.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'*+-.^_`|~".contains(&byte)
}

/// More than RFC 6265 allows: browsers do, too.
fn is_of_cookie_name(it: char) -> bool {
    !it.is_whitespace() && !matches!(it, '"' | ',' | ';' | '#' | '\\')
}

/// As a query is decoded: `%XX`, and `+` for a blank.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        decoded.push(match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes = ahead;
                // Two digits make a byte.
                u8::try_from(high << 4 | low).unwrap_or_default()
            }
            (b'+', _, _) => b' ',
            _ => byte,
        });
    }
    decoded
}

/// The first sign that ends a name.
const SIGNS: [char; 4] = ['=', '~', '<', '>'];

/// What stands behind `header:`, `cookie:` or `query:`.
pub(super) fn named(kind: PartKind, text: &str) -> Result<Term, Wrong> {
    let end = text.find(SIGNS).unwrap_or(text.len());
    let (name_text, rest) = text.split_at(end);
    let part = name(kind, name_text)?;
    if rest.is_empty() {
        return Ok(Term::Part(part, Test::Present));
    }
    // Many languages have such a sign, and no client such a name.
    if name_text.ends_with('!') {
        return Err(
            "there is no `!=`; a `!` before the first term excludes whom the entry holds for",
        );
    }
    let signs = ["<=", ">=", "=", "~", "<", ">"];
    let split = |sign| rest.strip_prefix(sign).map(|written| (sign, written));
    let (sign, written) = signs.into_iter().find_map(split).unwrap_or(("=", rest));
    if written.starts_with(SIGNS) {
        return Err(
            "there are `=`, `~`, `<`, `<=`, `>=` and `>`; a value that begins with such a sign is in quotes",
        );
    }
    let value = value(written)?;
    let compare = |comparison| -> Result<Test, Wrong> {
        let version = AppVersion::parse(&value.text);
        let version = version.ok_or("`<`, `<=`, `>=` and `>` compare versions like 2.10.3")?;
        Ok(Test::Version(comparison, version))
    };
    let test = match sign {
        "<" => compare(Comparison::Less)?,
        "<=" => compare(Comparison::AtMost)?,
        ">=" => compare(Comparison::AtLeast)?,
        ">" => compare(Comparison::Greater)?,
        "=" if !value.is_quoted
            && value.text.contains('.')
            && let Some(version) = AppVersion::parse(&value.text) =>
        {
            Test::Version(Comparison::Equal, version)
        }
        _ => test(value.pattern()?, sign == "~"),
    };
    if kind == PartKind::Cookie && value.text.contains(';') {
        return Err("no cookie has a `;` in its value, as that ends it");
    }
    Ok(Term::Part(part, test))
}

/// The test that a value stands for.
fn test(pattern: Pattern, any_case: bool) -> Test {
    let Pattern {
        open_start,
        mut text,
        open_end,
    } = pattern;
    let any_case = any_case && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if any_case {
        text.make_ascii_lowercase();
    }
    let is_empty = text.is_empty();
    let text: Box<[u8]> = text.into_bytes().into();
    match (open_start || open_end, any_case) {
        (true, _) if is_empty => Test::Present,
        (true, any_case) => Test::Like {
            open_start,
            text,
            open_end,
            any_case,
        },
        (false, true) => Test::IsInAnyCase(text),
        (false, false) => Test::Is(text),
    }
}

/// What stands behind `path:`.
pub(super) fn path(text: &str) -> Result<Term, Wrong> {
    let pattern = value(text)?.pattern()?;
    let path = &pattern.text;
    if !pattern.open_start && !path.starts_with('/') {
        return Err("a path begins with `/` or `*`");
    }
    if path.contains('?') {
        return Err("a path ends before `?`; for what follows there is query:NAME=VALUE");
    }
    if path.contains(['#', ' ']) {
        return Err("no path has a blank or `#`: it is compared as it is sent, with %20 or %23");
    }
    Ok(part_or_everybody(Part::Path, test(pattern, false)))
}

/// What stands behind `method:`.
pub(super) fn method(text: &str) -> Result<Term, Wrong> {
    let pattern = value(text)?.pattern()?;
    let is_open = pattern.open_start || pattern.open_end;
    if !pattern.text.bytes().all(is_token_byte) || pattern.text.is_empty() && !is_open {
        return Err("method: is followed by a method like GET");
    }
    Ok(part_or_everybody(Part::Method, test(pattern, false)))
}

/// Every request has a path and a method.
fn part_or_everybody(part: Part, test: Test) -> Term {
    match test {
        Test::Present => Term::Everybody,
        _ => Term::Part(part, test),
    }
}

/// What stands behind `host:`.
pub(super) fn host_term(text: &str) -> Result<Term, Wrong> {
    let mut pattern = value(text)?.pattern()?;
    pattern.text = host(&pattern)?;
    Ok(Term::Part(Part::Host, test(pattern, false)))
}
