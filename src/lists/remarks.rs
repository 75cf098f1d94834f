//! Parsing the entries of a list: those that can be read, and remarks about the rest.

use super::entry::{LONGEST_ENTRY, TOO_LONG, WrongEntry};
use super::notes::{FindingKind, Notes};

/// Remarks about a list's entries, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// What could not be read.
    pub skipped: Skipped,
    /// What may be a mistake.
    pub notes: Notes,
}

/// Entries of one list that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many there are.
    pub count: usize,
    /// The first of them, at most 100.
    pub first: Vec<SkippedEntry>,
}

/// How many skipped entries are named.
const SKIPPED_NAMED: usize = 100;

/// How many bytes of a skipped entry are shown.
const SKIPPED_LENGTH: usize = 100;

/// An entry that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The entry, with everything escaped that is not printable ASCII, cut to 100 bytes.
    pub entry: String,
    /// What is wrong with it.
    pub reason: WrongEntry,
}

impl Skipped {
    fn add(&mut self, entry: &[u8], reason: WrongEntry) {
        self.count += 1;
        if self.first.len() < SKIPPED_NAMED {
            let entry = shown(entry);
            self.first.push(SkippedEntry { entry, reason });
        }
    }
}

/// Parses entries, each with `parse`; those that cannot be read are skipped, and checked for a likely
/// meaning.
pub(super) fn parse_all<E: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = E>,
    mut parse: impl FnMut(&str, &mut Notes) -> Result<(), WrongEntry>,
    almost: impl Fn(&str) -> Option<String>,
) -> Remarks {
    let mut remarks = Remarks::default();
    for text in texts {
        let bytes = text.as_ref();
        let text = std::str::from_utf8(bytes).map(str::trim_ascii);
        let parsed = match text {
            _ if bytes.len() > LONGEST_ENTRY => Err(TOO_LONG.into()),
            Ok(text) => parse(text, &mut remarks.notes),
            Err(_) => Err("not text".into()),
        };
        let Err(reason) = parsed else { continue };
        remarks.skipped.add(bytes, reason);
        if let Some(meant) = text.ok().and_then(&almost) {
            let entry = || shown(bytes);
            remarks.notes.add(FindingKind::Almost, || (entry(), meant));
        }
    }
    remarks
}

/// An entry as it is shown.
fn shown(entry: &[u8]) -> String {
    let part = &entry[..entry.len().min(SKIPPED_LENGTH)];
    part.escape_ascii().to_string()
}
