//! The format of a lists file: the three lists, one entry a line, under `[gray]`, `[pre]` and `[prod]`.
//!
//! A file is written by hand, so the rules are stricter than for Redis: all three sections must be
//! there, the last line must be complete, and a single bad entry makes the whole version invalid. So one
//! that is still being written, or is wrong, is refused.
//!
//! Lines that begin with `#` or `;` are comments, and so is what follows a `#` after an entry, unless it is
//! within quotes.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use super::{Entries, Reading};
use crate::lists::{self, ByList, ListName, WrongEntry};

/// No lists file is longer than this, in bytes: millions of addresses.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why a version of the file is not used.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Io(io::Error),
    /// What is wrong, and the line, from 1.
    Line(usize, String),
    /// A section is missing.
    Missing(ListName),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(line, what) => write!(f, "line {line}: {what}"),
            Self::Missing(list) => write!(f, "there is no section [{}]", list.name()),
        }
    }
}

/// Reads the file at `path` as it is now, but no more bytes than a lists file may have.
///
/// # Errors
/// The kernel's; or it is too long, or not a regular file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_up_to(path, LONGEST)
}

/// As [`read`], with another limit in bytes.
pub(super) fn read_up_to(path: &Path, longest: u64) -> Result<Vec<u8>, FileError> {
    // Opening a pipe would wait for a writer.
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let refused = |what: &str| Err(FileError::Io(io::Error::other(what)));
    if metadata.is_dir() {
        return refused("a folder, not a file");
    }
    if !metadata.is_file() {
        return refused("not a regular file");
    }
    let mut text = Vec::new();
    // It may have grown meanwhile.
    if metadata.len() <= longest {
        file.take(longest + 1).read_to_end(&mut text)?;
    }
    if metadata.len().max(text.len() as u64) > longest {
        return refused(&format!("longer than {} MiB", longest >> 20));
    }
    Ok(text)
}

/// Parses a version of the file.
///
/// # Errors
/// Why it must not be used.
pub fn parse(text: &[u8], peer_port: u16) -> Result<Reading, FileError> {
    sections(text, |list, entry| check(list, entry, peer_port))
}

/// As [`parse`], but entries that cannot be read are among the others.
///
/// # Errors
/// What is wrong with the file otherwise.
pub(crate) fn parse_leniently(text: &[u8]) -> Result<Reading, FileError> {
    sections(text, |_, _| Ok(()))
}

fn sections(
    text: &[u8],
    check: impl Fn(ListName, &[u8]) -> Result<(), WrongEntry>,
) -> Result<Reading, FileError> {
    // Invisible in most editors, and not part of an entry.
    if text.starts_with(b"\xef\xbb\xbf") {
        let what = "it begins with a byte order mark (EF BB BF); save it as UTF-8 without one";
        return Err(FileError::Line(1, what.to_owned()));
    }
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        let what = "it is UTF-16; save it as UTF-8 without a byte order mark";
        return Err(FileError::Line(1, what.to_owned()));
    }
    let mut sections: ByList<Option<Entries>> = ByList::default();
    let mut current = None;
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let wrong = |what: &str| Err(FileError::Line(at + 1, what.to_owned()));
        let Some(line) = line.strip_suffix(b"\n") else {
            return wrong("the last line has no line feed; is the file still being written?");
        };
        let end = lists::comment(line).unwrap_or(line.len());
        let line = line[..end].trim_ascii();
        if line.is_empty() || line.starts_with(b";") {
            continue;
        }
        if line.starts_with(b"[") && !line.contains(&b':') {
            let named = |list: &ListName| line == format!("[{}]", list.name()).as_bytes();
            let Some(list) = ListName::ALL.into_iter().find(named) else {
                return wrong("an unknown section; there are [gray], [pre] and [prod]");
            };
            if sections[list].replace(Entries::default()).is_some() {
                return wrong("this section stands twice");
            }
            current = Some(list);
            continue;
        }
        let Some(list) = current else {
            return wrong("an entry before the first section");
        };
        if let Err(reason) = check(list, line) {
            let what = format!("{:?}: {reason}", line.escape_ascii().to_string());
            return Err(FileError::Line(at + 1, what));
        }
        sections[list].get_or_insert_default().push(line);
    }
    let is_missing = |list: &ListName| sections[*list].is_none();
    if let Some(list) = ListName::ALL.into_iter().find(is_missing) {
        return Err(FileError::Missing(list));
    }
    Ok(sections.map(|entries| Ok(entries.unwrap_or_default())))
}

fn check(list: ListName, entry: &[u8], peer_port: u16) -> Result<(), WrongEntry> {
    let text = std::str::from_utf8(entry).map_err(|_| "not text")?;
    match list {
        ListName::Gray => lists::gray_entry(text).map(drop),
        ListName::Pre | ListName::Prod => lists::peer_entry(text, peer_port).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# a comment\n[gray]\n 10.0.0.1 # office\n\n; another\n[pre]\n[::1]:81 weight=2\n\
                        [prod]\n10.0.2.1\nhost:81 weight=3 # new\n";

    #[test]
    fn a_file_holds_three_lists() {
        let reading = parse(GOOD.as_bytes(), 80).unwrap();
        let list = |entries: Result<Entries, _>| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (&entries.unwrap())
                .into_iter()
                .map(text)
                .collect::<Vec<_>>()
        };
        assert_eq!(list(reading.gray), ["10.0.0.1"]);
        assert_eq!(list(reading.pre), ["[::1]:81 weight=2"]);
        assert_eq!(list(reading.prod), ["10.0.2.1", "host:81 weight=3"]);
    }

    #[test]
    fn a_version_that_is_wrong_or_not_whole_is_refused_with_its_line() {
        for (text, said) in [
            ("", "no section [gray]"),
            ("[gray]\n[pre]\n", "no section [prod]"),
            ("[gray]\n[pre]\n[prod]\n10.0.0.1", "line 4: the last line"),
            ("[gray]\n[pre]\n[prod", "line 3: the last line"),
            (
                "10.0.0.1\n[gray]\n[pre]\n[prod]\n",
                "line 1: an entry before",
            ),
            (
                "[gray]\n[pre]\n[gray]\n[prod]\n",
                "line 3: this section stands twice",
            ),
            ("[grey]\n", "line 1: an unknown section"),
            (
                "\u{feff}[gray]\n[pre]\n[prod]\n",
                "line 1: it begins with a byte order mark",
            ),
            (
                "[gray]\n10.0.0\n[pre]\n[prod]\n",
                "line 2: \"10.0.0\": neither",
            ),
            (
                "[gray]\n[pre]\n[prod]\nhost:80:80\n",
                "line 4: \"host:80:80\": neither",
            ),
            (
                "[gray]\n[pre]\nhost:80 weigth=3\n[prod]\n",
                "line 3: \"host:80 weigth=3\": \"weigth\" is unknown",
            ),
        ] {
            let error = parse(text.as_bytes(), 80).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_comment_begins_at_a_number_sign_that_is_not_in_quotes() {
        let text = r##"[gray]
header:X="a#b" # "a comment"
cookie:a="\"#" note="#1"# it's "open
percent:5 # half
; a "comment # in another
[pre]
[prod]
"##;
        let gray = parse(text.as_bytes(), 80).unwrap().gray.unwrap();
        let entries = (&gray).into_iter().map(String::from_utf8_lossy);
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                r##"header:X="a#b""##,
                r##"cookie:a="\"#" note="#1""##,
                "percent:5"
            ]
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_unless_whole_lines_of_the_last_list_remain() {
        let last_section = GOOD.find("[prod]\n").unwrap() + "[prod]\n".len();
        for cut in 0..GOOD.len() {
            let whole_lines = cut >= last_section && GOOD[..cut].ends_with('\n');
            let outcome = parse(&GOOD.as_bytes()[..cut], 80);
            assert_eq!(outcome.is_ok(), whole_lines, "cut at {cut}");
        }
    }
}
