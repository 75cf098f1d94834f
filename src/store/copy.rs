//! The last-good copy: the lists in force, on disk, for a start while their source is away.
//!
//! The format is that of the lists file, with comment lines on top. The first of them holds the SHA-256
//! of everything after it, so that a copy that was cut, edited or damaged anywhere is refused. It is
//! written to a temporary file, synced and renamed, so that a crash leaves either the old one or the new
//! one. A copy that was refused for its content is kept aside once, for whoever wants to know what
//! happened.
//!
//! It names the store that its lists come from, and is used for no other one: a copy of another store is
//! set aside before the next one takes its place. Peers are written as they were in the store, without
//! the port that the settings add; what their names meant stands in comments at the end. Version 1 had
//! neither; such a copy is assumed to be of the configured
//! store, since that is what a gateway finds that replaces an older one, unless the store, when it is
//! first read, has none of its servers: then it is set aside, too.
//!
//! Only one gateway at a time writes it (`copy/lock.rs`). Another one that finds it locked reports that,
//! serves without writing, and takes over once the lock is free: so a new process can start while an old
//! one ends.
//!
//! A separate thread writes it: immediately, then at most once a second, and always the newest lists.
//! While nothing changes, a copy whose lists were confirmed by the store is renewed now and then, and at
//! the end of the process, so that its time says when the lists were last known to be good. Nothing
//! waits for the disk, except for a moment the end of the process.
//!
//! Not here: what a copy is used for (`super::Publisher`).

mod disk;
mod keeper;
mod lock;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

pub use self::disk::write;
pub(crate) use self::disk::{place_aside, place_of_lock};
pub(crate) use self::keeper::{CopyView, Keeper, Purpose, holder};
pub(crate) use self::lock::Holder;
use super::StoreName;
use super::format::{self, FileError};
use crate::lists::{ListedPeer, Lists, PeerList, Place, PoolName};

/// No copy is longer than this, in bytes: any lists that a gateway can hold fit. It is not written by
/// hand, so it may be longer than a lists file.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// What a copy begins with; its version and its checksum follow.
const BEGIN: &str = "# graygate last-good lists, version ";

/// The version that is written.
const VERSION: &str = "2";

/// The version before that: it names no store, and every peer has its port.
const OLD_VERSION: &str = "1";

/// Before the name of the store.
const STORE: &str = "store";

/// Before a name and its addresses, in comments at the end: for a start at which nothing can be resolved.
const NAME: &str = "# name ";

/// A copy that was read.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The lists; their generation is that of the process that wrote them, at least 1.
    pub lists: Lists,
    /// When they were last known to be good.
    pub written: SystemTime,
    /// The store that they come from; `None` when it was written by a version that did not say so.
    pub store: Option<StoreName>,
    /// What the names in them meant then.
    pub names: Vec<(Arc<str>, Vec<IpAddr>)>,
}

impl Copy {
    /// The store that the lists come from, if that is not `own`.
    pub(crate) fn other_store(&self, own: &StoreName) -> Option<&StoreName> {
        self.store.as_ref().filter(|it| !it.is(own))
    }

    /// True when it names no store, and this `prod` contains none of its servers, at any port. Whoever wrote
    /// it knew no names, which may be those of its servers.
    pub(crate) fn is_strange_to(&self, prod: &PeerList) -> bool {
        let ip = |peer: &ListedPeer| match peer.place() {
            Place::Address(address) => Some(address.ip()),
            Place::Name(..) => None,
        };
        let own: HashSet<Option<IpAddr>> = prod.peers().iter().map(ip).collect();
        let peers = self.lists.prod.peers();
        let is_comparable =
            self.store.is_none() && !own.is_empty() && !own.contains(&None) && !peers.is_empty();
        is_comparable && !peers.iter().any(|it| own.contains(&ip(it)))
    }

    /// How old it is; `None` when its time is in the future, because a clock was set.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.written).ok()
    }
}

/// An age for people, in the units of the ini file: `4s`, `2h5m`, `30d`. Units below about a hundredth
/// of it are left out.
pub(crate) fn shown_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let units = [
        (days, 'd'),
        (hours, 'h'),
        (minutes, 'm'),
        (seconds % 60, 's'),
    ];
    let mut units = units.into_iter().skip_while(|(count, _)| *count == 0);
    let Some((first, unit)) = units.next() else {
        return "0s".to_owned();
    };
    match units.next() {
        Some((count, less)) if count > 0 && first < 100 => format!("{first}{unit}{count}{less}"),
        _ => format!("{first}{unit}"),
    }
}

/// Why a copy is not used.
#[derive(Debug)]
pub enum CopyError {
    /// It cannot be read.
    Unreadable(String),
    /// It does not begin like a copy, or its first line is incomplete.
    NoCopy,
    /// It has another version.
    OtherVersion(String),
    /// The checksum is wrong.
    WrongChecksum,
    /// The checksum is right, but the rest cannot be parsed.
    NotUnderstood(String),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::NoCopy => f.write_str("it does not begin like a copy of the lists"),
            Self::OtherVersion(version) => {
                write!(
                    f,
                    "it has version {version}; known are {OLD_VERSION} and {VERSION}"
                )
            }
            Self::WrongChecksum => {
                f.write_str("its checksum is wrong: it was cut, edited or damaged")
            }
            Self::NotUnderstood(what) => write!(f, "its checksum is right, but {what}"),
        }
    }
}

/// Reads the copy at `path`; `None` when there is none. Peers without a port get `peer_port`.
///
/// # Errors
/// Why it must not be used.
pub fn read(path: &Path, peer_port: u16) -> Result<Option<Copy>, CopyError> {
    match format::read_up_to(path, LONGEST) {
        Ok(text) => parse(&text, peer_port).map(Some),
        Err(FileError::Io(error)) if is_absent(&error) => Ok(None),
        Err(error) => Err(CopyError::Unreadable(error.to_string())),
    }
}

/// A path through something that is not a folder counts as absent, too.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// What the start finds.
pub(crate) type CopyAtStart = Result<Option<Copy>, CopyError>;

/// Why a copy of `other` is not used.
pub(crate) fn of_another(other: &StoreName) -> String {
    format!("it holds the lists of another store: {other}")
}

/// The text of a copy of the `lists` from `store`, which were good at `time`, when `names` had these
/// addresses.
pub(crate) fn render(
    lists: &Lists,
    names: &[(Arc<str>, Vec<IpAddr>)],
    store: &StoreName,
    time: SystemTime,
) -> Vec<u8> {
    use std::fmt::Write;
    let mut rest = String::new();
    let Lists {
        generation, digest, ..
    } = lists;
    let time = humantime::format_rfc3339_millis(time);
    // Writing to a String cannot fail.
    let _ = write!(
        rest,
        "# time {time}\n# digest {digest}\n# generation {generation}\n# {STORE} {}\n",
        store.to_json()
    );
    rest.push_str("[gray]\n");
    for entry in lists.gray.entries() {
        rest.push_str(&entry);
        rest.push('\n');
    }
    for pool in PoolName::ALL {
        let _ = writeln!(rest, "[{}]", pool.name());
        for peer in lists.pool(pool).written() {
            let _ = writeln!(rest, "{peer}");
        }
    }
    for (name, addresses) in names {
        let _ = write!(rest, "{NAME}{name}");
        for address in addresses {
            let _ = write!(rest, " {address}");
        }
        rest.push('\n');
    }
    let sum = checksum(rest.as_bytes());
    let mut text = format!("{BEGIN}{VERSION}, sha256 {sum}\n").into_bytes();
    text.append(&mut rest.into_bytes());
    text
}

fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Parses the text of a copy.
///
/// # Errors
/// Why it must not be used.
pub(crate) fn parse(text: &[u8], peer_port: u16) -> Result<Copy, CopyError> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let (first, rest) = text.split_at(end.ok_or(CopyError::NoCopy)?);
    let rest = &rest[1..];
    let first = std::str::from_utf8(first).map_err(|_| CopyError::NoCopy)?;
    let (version, sum) = first
        .strip_prefix(BEGIN)
        .and_then(|it| it.split_once(", sha256 "))
        .ok_or(CopyError::NoCopy)?;
    if ![OLD_VERSION, VERSION].contains(&version) {
        let shown = version.chars().take(20).collect::<String>();
        return Err(CopyError::OtherVersion(shown.escape_default().to_string()));
    }
    if checksum(rest) != sum {
        return Err(CopyError::WrongChecksum);
    }
    let wrong = |what: &str| CopyError::NotUnderstood(what.to_owned());
    let value = |name: &str| {
        let mut lines = rest.split(|byte| *byte == b'\n').take(4);
        let found = lines.find_map(|line| line.strip_prefix(format!("# {name} ").as_bytes()));
        found.and_then(|it| std::str::from_utf8(it).ok())
    };
    let written = value("time").and_then(|it| humantime::parse_rfc3339(it).ok());
    let written = written.ok_or_else(|| wrong("it has no time"))?;
    let generation = value("generation").and_then(|it| it.parse::<u64>().ok());
    let generation = generation.ok_or_else(|| wrong("it has no generation"))?;
    let store = match version {
        OLD_VERSION => None,
        _ => {
            let store = value(STORE).and_then(StoreName::parse);
            Some(store.ok_or_else(|| wrong("it does not say of which store it is"))?)
        }
    };
    let reading = format::parse(rest, peer_port).map_err(|error| wrong(&error.to_string()))?;
    let entries = reading.map(Result::unwrap_or_default);
    // The digest in the text is for people: the checksum covers more, and another version of this
    // program may compute the digest differently.
    let lists = Lists::parse(generation.max(1), entries.as_ref(), peer_port);
    Ok(Copy {
        lists,
        written,
        store,
        names: names(rest),
    })
}

/// The names at the end of a copy, with their addresses.
fn names(text: &[u8]) -> Vec<(Arc<str>, Vec<IpAddr>)> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = lines.rsplit(|byte| *byte == b'\n');
    let lines = lines.map_while(|line| line.strip_prefix(NAME.as_bytes()));
    let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let read = |line: &str| {
        let (name, addresses) = line.split_once(' ')?;
        let addresses = addresses.split(' ').filter_map(|it| it.parse().ok());
        Some((name.into(), addresses.collect()))
    };
    texts.filter_map(read).collect()
}

#[cfg(test)]
mod tests;
