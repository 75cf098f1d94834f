//! The canonical form of a [`Rule`].

use std::fmt;

use super::moment::write_moment;
use super::words::{write_note, write_value};
use super::{AppVersion, Comparison, Part, Rule, ShareKey, Term, Test};
use crate::lists::entry::write_net;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.excludes {
            f.write_str("!")?;
        }
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            term.fmt(f)?;
        }
        if let Some(until) = self.until {
            f.write_str(" until=")?;
            write_moment(f, until)?;
        }
        if let Some(note) = &self.note {
            f.write_str(" note=")?;
            write_note(f, note)?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Net(net) => write_net(f, *net),
            Self::Part(part, test) => {
                part.fmt(f)?;
                let is_named = matches!(part, Part::Header(_) | Part::Cookie(_) | Part::Query(_));
                test.write(f, is_named)
            }
            Self::Share { limit, by } => {
                write!(f, "percent:{}", limit / 100)?;
                match limit % 100 {
                    0 => {}
                    tenths if tenths % 10 == 0 => write!(f, ".{}", tenths / 10)?,
                    hundredths => write!(f, ".{hundredths:02}")?,
                }
                match by {
                    ShareKey::Client => Ok(()),
                    ShareKey::Visitor => f.write_str(":visitor"),
                    ShareKey::Part(part) => write!(f, ":{part}"),
                }
            }
        }
    }
}

/// What stands before the value: `header:x-user`, `path:`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{}", String::from_utf8_lossy(name)),
            Self::Query(name) => {
                f.write_str("query:")?;
                name.iter().try_for_each(|byte| match byte {
                    b' ' => f.write_str("+"),
                    _ if is_plain(*byte) => write!(f, "{}", char::from(*byte)),
                    _ => write!(f, "%{byte:02X}"),
                })
            }
            Self::Path => f.write_str("path:"),
            Self::Method => f.write_str("method:"),
            Self::Host => f.write_str("host:"),
        }
    }
}

/// True for what stands for itself in the name of a query parameter, also at its end.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"%+=~<>!\"#&\\*:".contains(&byte)
}

impl Test {
    /// Behind the part's name, or its kind if it has no name.
    fn write(&self, f: &mut fmt::Formatter<'_>, is_named: bool) -> fmt::Result {
        let sign = |any_case| match (is_named, any_case) {
            (false, _) => "",
            (true, false) => "=",
            (true, true) => "~",
        };
        match self {
            Self::Present if is_named => Ok(()),
            Self::Present => f.write_str("*"),
            Self::Is(text) => {
                f.write_str(sign(false))?;
                // Otherwise it would be a version, and every form of it be meant.
                let reads = |it| text.contains(&b'.') && AppVersion::parse(it).is_some();
                let is_version = is_named && std::str::from_utf8(text).is_ok_and(reads);
                write_value(f, [false, false], text, is_version)
            }
            Self::IsInAnyCase(text) => {
                f.write_str(sign(true))?;
                write_value(f, [false, false], text, false)
            }
            Self::Like {
                open_start,
                text,
                open_end,
                any_case,
            } => {
                f.write_str(sign(*any_case))?;
                write_value(f, [*open_start, *open_end], text, false)
            }
            Self::Version(comparison, version) => {
                write!(f, "{}{}", comparison.sign(), version.text)?;
                // Without a dot it would be a text.
                let needs_dot = *comparison == Comparison::Equal && version.numbers.len() < 2;
                f.write_str(if needs_dot { ".0" } else { "" })
            }
        }
    }
}
