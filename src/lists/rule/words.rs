//! The words of an entry, and the values among them: quotes, escapes and wildcards.

use std::fmt::{self, Write};

/// What is wrong with a word.
pub(super) type Wrong = &'static str;

/// The words between blanks that are not in quotes.
pub(in crate::lists) fn words(text: &str) -> Result<Vec<&str>, Wrong> {
    let mut words = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (None, false, false);
    for (at, it) in text.char_indices() {
        match it {
            '\n' | '\r' => return Err("a line break in an entry: each entry is pushed by itself"),
            '\t' if is_quoted => return Err(CONTROL),
            _ if it.is_control() && it != '\t' => return Err(CONTROL),
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' | '\t' if !is_quoted => {
                words.extend(start.take().map(|start| &text[start..at]));
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    if is_quoted {
        return Err(OPEN_QUOTE);
    }
    words.extend(start.map(|start| &text[start..]));
    Ok(words)
}

const CONTROL: Wrong = "a control character in an entry";
const OPEN_QUOTE: Wrong = "a quote is not closed";

/// Where a comment begins that stands behind an entry: at the first `#` that is not in quotes.
pub(crate) fn comment(line: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.iter().position(|byte| {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'#' => return !is_quoted,
            _ => {}
        }
        false
    })
}

/// A value as it was meant: without quotes and escapes.
pub(super) struct Value {
    pub(super) text: String,
    /// Where in it a `*` stands that may be a wildcard.
    stars: Vec<usize>,
    pub(super) is_quoted: bool,
}

/// Reads a value.
pub(super) fn value(word: &str) -> Result<Value, Wrong> {
    let inner = word.strip_prefix('"');
    let is_quoted = inner.is_some();
    let mut chars = inner.unwrap_or(word).chars();
    let (mut text, mut stars) = (String::with_capacity(word.len()), Vec::new());
    let mut is_open = is_quoted;
    while let Some(it) = chars.next() {
        match it {
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\' | '*')) => text.push(escaped),
                _ => return Err(r#"`\` stands only before `"`, `\` or `*`"#),
            },
            '"' if is_quoted => {
                is_open = false;
                break;
            }
            '"' => {
                return Err(
                    r#"a value with a quote in it is in quotes: "…", with `\"` for each within"#,
                );
            }
            '*' => {
                stars.push(text.len());
                text.push(it);
            }
            _ => text.push(it),
        }
    }
    if is_open {
        return Err(OPEN_QUOTE);
    }
    if chars.next().is_some() {
        return Err("something stands directly behind a value in quotes; is a blank missing?");
    }
    if text.is_empty() && !is_quoted {
        return Err(r#"a value is missing; an empty one is written as """#);
    }
    Ok(Value {
        text,
        stars,
        is_quoted,
    })
}

/// A value with its wildcards.
pub(super) struct Pattern {
    pub(super) open_start: bool,
    pub(super) text: String,
    pub(super) open_end: bool,
}

impl Value {
    /// What the value stands for, with wildcards at its ends.
    pub(super) fn pattern(&self) -> Result<Pattern, Wrong> {
        let Self { text, stars, .. } = self;
        let open_start = stars.first() == Some(&0);
        let open_end = stars.last().is_some_and(|at| at + 1 == text.len());
        let inner = match (open_start, open_end) {
            (true, true) if text.len() == 1 => 0..0,
            _ => usize::from(open_start)..text.len() - usize::from(open_end),
        };
        if stars.iter().any(|at| inner.contains(at)) {
            return Err(
                r"a `*` is a wildcard at either end of a value only; one that is meant is `\*`",
            );
        }
        Ok(Pattern {
            open_start,
            text: text[inner].to_owned(),
            open_end,
        })
    }
}

/// Writes a value in its canonical form: in quotes only where that is needed, or wanted.
pub(super) fn write_value(
    f: &mut fmt::Formatter<'_>,
    [open_start, open_end]: [bool; 2],
    text: &[u8],
    is_quoted: bool,
) -> fmt::Result {
    // It is a piece of an entry, which was text.
    let text = String::from_utf8_lossy(text);
    let special = |it: char| matches!(it, ' ' | '"' | '\\' | '*' | '#');
    let is_quoted = is_quoted
        || text.is_empty() && !open_start
        || text.contains(special)
        || !open_start && text.starts_with(['=', '~', '<', '>']);
    let quote = if is_quoted { "\"" } else { "" };
    let star = |is_there| if is_there { "*" } else { "" };
    write!(f, "{quote}{}", star(open_start))?;
    write_escaped(f, &text, &['"', '\\', '*'])?;
    write!(f, "{}{quote}", star(open_end))
}

/// Writes a text with a `\` before each of the `special` signs.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str, special: &[char]) -> fmt::Result {
    let mut written = 0;
    for (at, _) in text.match_indices(special) {
        f.write_str(&text[written..at])?;
        f.write_char('\\')?;
        written = at;
    }
    f.write_str(&text[written..])
}

/// Writes a note.
pub(super) fn write_note(f: &mut fmt::Formatter<'_>, note: &str) -> fmt::Result {
    f.write_char('"')?;
    write_escaped(f, note, &['"', '\\'])?;
    f.write_char('"')
}
