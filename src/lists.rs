//! The three lists as one immutable value: who is gray, and where `pre` and `prod` are.
//!
//! A store hands over entries as text; here they are parsed, one parser for each kind of entry,
//! and put into the form that a request needs: ranges to search (`ranges`), addresses to choose from.
//! An entry that cannot be read is skipped and named; it never empties a list. Entries are sets:
//! their order and repetition mean nothing, but [`findings`] tells of what is likely to be a mistake.
//!
//! Not here: where entries come from and when ([`crate::store`]); who is served by whom
//! ([`crate::route`]). No clock, no I/O.

pub(crate) mod almost;
pub mod findings;
mod gray;
mod peers;
mod ranges;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use gray::{Family, GrayList, canonical, gray_entry};
pub use peers::{PeerList, Written, peer_entry};

/// The names of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListName {
    /// The clients that get the new version.
    Gray,
    /// The peers of the new version.
    Pre,
    /// The peers of the old version.
    Prod,
}

impl ListName {
    /// Every list, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Gray, Self::Pre, Self::Prod];

    /// The name in files, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Pre => "pre",
            Self::Prod => "prod",
        }
    }
}

/// One snapshot of all three lists.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Counts the snapshots of this process; 0 is the one that stands for "nothing read yet".
    pub generation: u64,
    /// A hash of the content: equal on every gateway that holds the same lists.
    pub digest: Digest,
    /// The clients that get the new version.
    pub gray: Arc<GrayList>,
    /// The peers of the new version.
    pub pre: Arc<PeerList>,
    /// The peers of the old version.
    pub prod: Arc<PeerList>,
}

/// The peers of one snapshot, without its gray list: what an exchange needs for as long as it lasts,
/// while a gray list may be long, and another one every moment.
#[derive(Clone, Debug)]
pub struct Pools {
    /// The peers of the new version.
    pub pre: Arc<PeerList>,
    /// The peers of the old version.
    pub prod: Arc<PeerList>,
}

impl Pools {
    /// True when these are the very lists of `lists`.
    pub fn are_of(&self, lists: &Lists) -> bool {
        Arc::ptr_eq(&self.pre, &lists.pre) && Arc::ptr_eq(&self.prod, &lists.prod)
    }
}

impl Lists {
    /// The peers alone.
    pub fn pools(&self) -> Pools {
        Pools {
            pre: Arc::clone(&self.pre),
            prod: Arc::clone(&self.prod),
        }
    }

    /// What is in force before anything was read.
    pub fn unread() -> Self {
        Self::new(0, Arc::default(), Arc::default(), Arc::default())
    }

    /// One snapshot of these lists.
    pub fn new(
        generation: u64,
        gray: Arc<GrayList>,
        pre: Arc<PeerList>,
        prod: Arc<PeerList>,
    ) -> Self {
        let digest = Digest::of(&[
            (ListName::Gray, gray.content()),
            (ListName::Pre, pre.content()),
            (ListName::Prod, prod.content()),
        ]);
        Self {
            generation,
            digest,
            gray,
            pre,
            prod,
        }
    }

    /// False before anything was read.
    pub fn are_read(&self) -> bool {
        self.generation > 0
    }

    /// How many entries a list has.
    pub fn len(&self, list: ListName) -> usize {
        match list {
            ListName::Gray => self.gray.len(),
            ListName::Pre => self.pre.peers().len(),
            ListName::Prod => self.prod.peers().len(),
        }
    }

    /// What was skipped when a list was read.
    pub fn skipped(&self, list: ListName) -> &Skipped {
        &self.remarks(list).skipped
    }

    /// What there is to be said of the entries of a list.
    pub fn remarks(&self, list: ListName) -> &Remarks {
        match list {
            ListName::Gray => self.gray.remarks(),
            ListName::Pre => self.pre.remarks(),
            ListName::Prod => self.prod.remarks(),
        }
    }
}

/// A hash of the content of lists: the first 64 bits of a SHA-256 of all entries in their sorted,
/// canonical form, as they were written: without a port where none stands there, whatever it is by the
/// settings of a gateway. Displayed as 16 hexadecimal digits. Equal for equal content in gateways of the
/// same version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

/// The SHA-256 of one list's entries.
type Content = [u8; 32];

impl Digest {
    fn of(lists: &[(ListName, &Content)]) -> Self {
        let mut hash = Sha256::new();
        for (list, content) in lists {
            hash.update([*list as u8]);
            hash.update(content);
        }
        let first = hash.finalize().first_chunk().copied();
        Self(u64::from_be_bytes(first.unwrap_or_default()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What there is to be said of a list's entries, as they were written, beside what they mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What could not be read.
    pub skipped: Skipped,
    /// What may be a mistake.
    pub notes: crate::lists::findings::Notes,
}

/// Entries of one list that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many there are.
    pub count: usize,
    /// The first of them, at most 100.
    pub first: Vec<SkippedEntry>,
}

/// So many skipped entries are named.
const SKIPPED_NAMED: usize = 100;

/// So much of a skipped entry is shown.
const SKIPPED_LENGTH: usize = 100;

/// An entry that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The entry, with everything escaped that is no printable ASCII, cut to 100 bytes.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Skipped {
    fn add(&mut self, entry: &[u8], reason: &'static str) {
        self.count += 1;
        if self.first.len() < SKIPPED_NAMED {
            let entry = shown(entry);
            self.first.push(SkippedEntry { entry, reason });
        }
    }
}

/// No entry that can be read is longer, in bytes: an address with its port has 55 at most, and there
/// is room for blanks around it. Of a longer one a store need not keep more than that it is longer.
pub const LONGEST_ENTRY: usize = 1024;

/// Reads entries, each with `parse`; what that cannot read is skipped, and compared with what may
/// be meant.
fn parse_all<E: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = E>,
    mut parse: impl FnMut(&str, &mut crate::lists::findings::Notes) -> Result<(), &'static str>,
    almost: impl Fn(&str) -> Option<String>,
) -> Remarks {
    let mut remarks = Remarks::default();
    for text in texts {
        let bytes = text.as_ref();
        let text = std::str::from_utf8(bytes).map(str::trim_ascii);
        let parsed = match text {
            _ if bytes.len() > LONGEST_ENTRY => Err("longer than any address"),
            Ok(text) => parse(text, &mut remarks.notes),
            Err(_) => Err("not text"),
        };
        let Err(reason) = parsed else { continue };
        remarks.skipped.add(bytes, reason);
        if let Some(meant) = text.ok().and_then(&almost) {
            let entry = || shown(bytes);
            remarks
                .notes
                .add(crate::lists::findings::Kind::Almost, || (entry(), meant));
        }
    }
    remarks
}

/// A number in the one form that it has: digits alone, and no zero before others. Where some read
/// `010` as ten and others as eight, it is better not read.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| digits && !is_padded)
}

/// An entry as it is shown.
fn shown(entry: &[u8]) -> String {
    let part = &entry[..entry.len().min(SKIPPED_LENGTH)];
    part.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(gray: &[&str], pre: &[&str], prod: &[&str]) -> Lists {
        let peers = |entries: &[&str]| Arc::new(PeerList::parse(entries, 80));
        Lists::new(1, Arc::new(GrayList::parse(gray)), peers(pre), peers(prod))
    }

    #[test]
    fn the_digest_is_of_the_content_and_of_nothing_else() {
        let one = lists(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3"], &["4.4.4.4"]);
        let same = lists(
            &["2.2.2.9/24", "::ffff:1.1.1.1", "1.1.1.1", "garbage"],
            &["3.3.3.3", " 3.3.3.3 "],
            &["4.4.4.4"],
        );
        assert_eq!(one.digest, same.digest);
        let elsewhere = |entries: &[&str]| Arc::new(PeerList::parse(entries, 8080));
        let gray = Arc::clone(&one.gray);
        let elsewhere = Lists::new(1, gray, elsewhere(&["3.3.3.3"]), elsewhere(&["4.4.4.4"]));
        assert_eq!(one.digest, elsewhere.digest, "with another default port");
        assert_eq!(one.digest.to_string().len(), 16);
        for other in [
            lists(&["1.1.1.1"], &["3.3.3.3"], &["4.4.4.4"]),
            lists(&["1.1.1.1", "2.2.2.0/24"], &["4.4.4.4"], &["3.3.3.3"]),
            lists(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3:81"], &["4.4.4.4"]),
        ] {
            assert_ne!(one.digest, other.digest);
        }
    }
}
