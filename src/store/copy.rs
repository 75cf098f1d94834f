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
//! The lists of services follow those of the default one, in sections as a lists file has them; on top, a
//! line each says more of them. There are none in version 2, which is written where no services are
//! configured, so that an older gateway can go on with it.
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
use super::format::{self, FileError, title};
use crate::config::ServiceSettings;
use crate::lists::{
    ByList, Digest, GrayList, ListName, ListedPeer, Lists, PeerList, Place, PoolName, Salt,
    ServiceName, SharedLists,
};

/// No copy is longer than this, in bytes: any lists that a gateway can hold fit. It is not written by
/// hand, so it may be longer than a lists file.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// What a copy begins with; its version and its checksum follow.
const BEGIN: &str = "# graygate last-good lists, version ";

/// The version that is written where there are only the lists of the default service.
const VERSION: &str = "2";

/// The one with the lists of services.
const SERVICES_VERSION: &str = "3";

/// The version before that: it names no store, and every peer has its port.
const OLD_VERSION: &str = "1";

/// Before the name of the store.
const STORE: &str = "store";

/// Before a name and its addresses, in comments at the end: for a start at which nothing can be resolved.
const NAME: &str = "# name ";

/// Before what is said of a service, or of its salt, on top.
const SERVICE: &str = "# service ";
const SALT: &str = "salt=";

/// A copy that was read.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The lists of the default service; their generation is that of the process that wrote them, at least 1,
    /// or 0 where it has none.
    pub lists: Lists,
    /// Those of the other services. A gray list that is another service's is empty here.
    pub(crate) services: Vec<(ServiceName, Lists)>,
    /// When they were last known to be good.
    pub written: SystemTime,
    /// The store that they come from; `None` when it was written by a version that did not say so.
    pub store: Option<StoreName>,
    /// What the names in them meant then.
    pub names: Vec<(Arc<str>, Vec<IpAddr>)>,
}

impl Copy {
    /// The lists of a service, if it has some.
    pub(crate) fn of(&self, service: &ServiceName) -> Option<&Lists> {
        let lists = match service.is_default() {
            true => Some(&self.lists),
            false => {
                let mut services = self.services.iter();
                services.find(|(name, _)| name == service).map(|(_, it)| it)
            }
        };
        lists.filter(|it| it.are_read())
    }

    /// A hash of all lists, by which a copy is compared with what is in force.
    fn digest(&self) -> Digest {
        let services = self.services.iter().map(|(name, it)| (name, it.digest));
        all_digest(self.lists.digest, services)
    }

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
                    "it has version {version}; known are {OLD_VERSION}, {VERSION} and {SERVICES_VERSION}"
                )
            }
            Self::WrongChecksum => {
                f.write_str("its checksum is wrong: it was cut, edited or damaged")
            }
            Self::NotUnderstood(what) => write!(f, "its checksum is right, but {what}"),
        }
    }
}

/// The ports of peers that are listed without one, by service.
#[derive(Clone, Debug, Default)]
pub struct PeerPorts {
    default: u16,
    services: Vec<(ServiceName, u16)>,
}

impl From<u16> for PeerPorts {
    /// The same for all services.
    fn from(default: u16) -> Self {
        Self {
            default,
            services: Vec::new(),
        }
    }
}

impl From<&Self> for PeerPorts {
    fn from(ports: &Self) -> Self {
        ports.clone()
    }
}

impl FromIterator<(ServiceName, u16)> for PeerPorts {
    fn from_iter<I: IntoIterator<Item = (ServiceName, u16)>>(services: I) -> Self {
        let services: Vec<_> = services.into_iter().collect();
        let mut default = services.iter().filter(|(name, _)| name.is_default());
        Self {
            default: default.next().map_or(80, |(_, port)| *port),
            services,
        }
    }
}

impl PeerPorts {
    /// Those that are configured.
    pub(crate) fn of(services: &[Arc<ServiceSettings>]) -> Self {
        let port = |it: &Arc<ServiceSettings>| (it.name.clone(), it.upstream.peer_port);
        services.iter().map(port).collect()
    }

    fn of_service(&self, service: &ServiceName) -> u16 {
        let mut services = self.services.iter();
        let found = services.find(|(name, _)| name == service);
        found.map_or(self.default, |(_, port)| *port)
    }
}

/// What is in force, as a copy has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptLists {
    /// Of the default service.
    default: Option<Arc<Lists>>,
    /// Of the others, in the order of their names; and whether the gray list is another service's.
    services: Vec<(ServiceName, bool, Arc<Lists>)>,
}

impl From<Arc<Lists>> for KeptLists {
    fn from(lists: Arc<Lists>) -> Self {
        Self {
            default: Some(lists),
            services: Vec::new(),
        }
    }
}

impl KeptLists {
    /// The lists of these services; of each, whether its gray list is another one's.
    pub(crate) fn of<'a>(all: impl Iterator<Item = (&'a ServiceName, bool, Arc<Lists>)>) -> Self {
        let mut kept = Self::default();
        for (service, shares_gray, lists) in all {
            match service.is_default() {
                true => kept.default = Some(lists),
                false => kept.services.push((service.clone(), shares_gray, lists)),
            }
        }
        kept
    }

    /// True when there is nothing to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.default.is_none() && self.services.is_empty()
    }

    /// Only those of the default service, and only those of the others.
    pub(crate) fn split(self) -> (Option<Self>, Option<Self>) {
        let default = self.default.map(Self::from);
        let others = Self {
            default: None,
            services: self.services,
        };
        (default, (!others.is_empty()).then_some(others))
    }

    /// See [`Copy::digest`].
    fn digest(&self) -> Digest {
        let unread = || Lists::unread().digest;
        let default = self.default.as_ref().map_or_else(unread, |it| it.digest);
        let services = self.services.iter();
        all_digest(
            default,
            services.map(|(name, shares_gray, it)| {
                let digest = match shares_gray {
                    true => without_gray(it).digest,
                    false => it.digest,
                };
                (name, digest)
            }),
        )
    }
}

/// Lists as a copy has them where the gray list is another service's.
fn without_gray(lists: &Lists) -> Lists {
    let shared = SharedLists {
        gray: Arc::default(),
        ..lists.shared()
    };
    Lists::new(lists.generation, shared)
}

fn all_digest<'a>(
    default: Digest,
    services: impl Iterator<Item = (&'a ServiceName, Digest)>,
) -> Digest {
    services.fold(default, |all, (name, digest)| {
        all.with(&digest.of_service(name))
    })
}

/// Reads the copy at `path`; `None` when there is none. Peers without a port get theirs of `ports`.
///
/// # Errors
/// Why it must not be used.
pub fn read(path: &Path, ports: impl Into<PeerPorts>) -> Result<Option<Copy>, CopyError> {
    match format::read_up_to(path, LONGEST) {
        Ok(text) => parse(&text, ports).map(Some),
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

/// The text of a copy of the lists that are `kept` of `store`, which were good at `time`, when `names` had
/// these addresses.
pub(crate) fn render(
    kept: &KeptLists,
    names: &[(Arc<str>, Vec<IpAddr>)],
    store: &StoreName,
    time: SystemTime,
) -> Vec<u8> {
    use std::fmt::Write;
    let mut rest = String::new();
    let unread = || Arc::new(Lists::unread());
    let lists = kept.default.clone().unwrap_or_else(unread);
    let Lists {
        generation, digest, ..
    } = *lists;
    let time = humantime::format_rfc3339_millis(time);
    // Writing to a String cannot fail.
    let _ = write!(
        rest,
        "# time {time}\n# digest {digest}\n# generation {generation}\n# {STORE} {}\n",
        store.to_json()
    );
    let services = kept.services.iter();
    let services = services.map(|(name, shares_gray, lists)| (name, *shares_gray, lists));
    let own = ServiceName::default();
    let default = kept.default.as_ref().map(|it| (&own, false, it));
    let all: Vec<_> = default.into_iter().chain(services).collect();
    let is_plain = all.iter().all(|(service, shares_gray, lists)| {
        service.is_default() && (*shares_gray || salt_of(lists).is_empty())
    });
    let version = match is_plain {
        true => VERSION,
        false => SERVICES_VERSION,
    };
    for (service, shares_gray, lists) in all.iter().filter(|_| !is_plain) {
        let (generation, digest) = (lists.generation, lists.digest);
        let _ = write!(
            rest,
            "{SERVICE}{service} generation={generation} digest={digest}"
        );
        let salt = salt_of(lists);
        if !shares_gray && !salt.is_empty() {
            let _ = write!(rest, " {SALT}{}", to_hex(salt));
        }
        rest.push('\n');
    }
    for (service, shares_gray, lists) in all {
        if !shares_gray {
            let _ = writeln!(rest, "[{}]", title(service, ListName::Gray.name()));
            for entry in lists.gray.entries() {
                let _ = writeln!(rest, "{entry}");
            }
        }
        for pool in PoolName::ALL {
            let _ = writeln!(rest, "[{}]", title(service, pool.name()));
            for peer in lists.pool(pool).written() {
                let _ = writeln!(rest, "{peer}");
            }
        }
    }
    for (name, addresses) in names {
        let _ = write!(rest, "{NAME}{name}");
        for address in addresses {
            let _ = write!(rest, " {address}");
        }
        rest.push('\n');
    }
    let sum = checksum(version, rest.as_bytes());
    let mut text = format!("{BEGIN}{version}, sha256 {sum}\n").into_bytes();
    text.append(&mut rest.into_bytes());
    text
}

/// The salt of the shares of lists.
fn salt_of(lists: &Lists) -> &[u8] {
    match lists.gray.has_shares() {
        true => lists.gray.salt().text(),
        false => &[],
    }
}

/// Of the text after the first line; what is later than version 2 cannot pass for an earlier one.
fn checksum(version: &str, text: &[u8]) -> String {
    let hash = match version {
        OLD_VERSION | VERSION => Sha256::new(),
        later => Sha256::new().chain_update(later),
    };
    to_hex(&hash.chain_update(text).finalize())
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
    bytes.collect()
}

/// Parses the text of a copy.
///
/// # Errors
/// Why it must not be used.
pub(crate) fn parse(text: &[u8], ports: impl Into<PeerPorts>) -> Result<Copy, CopyError> {
    let ports = ports.into();
    let end = text.iter().position(|byte| *byte == b'\n');
    let (first, rest) = text.split_at(end.ok_or(CopyError::NoCopy)?);
    let rest = &rest[1..];
    let first = std::str::from_utf8(first).map_err(|_| CopyError::NoCopy)?;
    let (version, sum) = first
        .strip_prefix(BEGIN)
        .and_then(|it| it.split_once(", sha256 "))
        .ok_or(CopyError::NoCopy)?;
    if ![OLD_VERSION, VERSION, SERVICES_VERSION].contains(&version) {
        let shown = version.chars().take(20).collect::<String>();
        return Err(CopyError::OtherVersion(shown.escape_default().to_string()));
    }
    if checksum(version, rest) != sum {
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
    let check = |_: &ServiceName, list: ListName, entry: &[u8]| format::check(list, entry, 80);
    let is_known = |service: &ServiceName| service.is_default() || version == SERVICES_VERSION;
    let mut all =
        format::read_sections(rest, is_known, check).map_err(|error| wrong(&error.to_string()))?;
    let facts = facts(rest);
    let fact = |service: &ServiceName| {
        let mut facts = facts.iter();
        facts.find(|it| it.service == *service)
    };
    // The digest in the text is for people: the checksum covers more, and another version of this
    // program may compute the digest differently.
    let own = ServiceName::default();
    let lists = match all.remove(&own) {
        Some(sections) => {
            let salt = fact(&own).map(|it| &*it.salt);
            let port = ports.of_service(&own);
            let lists = lists_of(sections, generation.max(1), salt, port);
            lists.ok_or_else(|| wrong("it lacks a section"))?
        }
        None if version == SERVICES_VERSION => Lists::unread(),
        None => return Err(wrong("it has no lists")),
    };
    let services = all.into_iter().filter_map(|(service, sections)| {
        let fact = fact(&service)?;
        let port = ports.of_service(&service);
        let lists = lists_of(sections, fact.generation.max(1), Some(&fact.salt), port)?;
        Some((service, lists))
    });
    Ok(Copy {
        lists,
        services: services.collect(),
        written,
        store,
        names: names(rest),
    })
}

/// The lists of a service; without a section for it, the gray list is empty. `None` if another one is
/// missing.
fn lists_of(
    sections: format::ServiceSections,
    generation: u64,
    salt: Option<&[u8]>,
    peer_port: u16,
) -> Option<Lists> {
    let ByList { gray, pre, prod } = sections.lists;
    let entries = ByList {
        gray: gray.unwrap_or_default(),
        pre: pre?,
        prod: prod?,
    };
    let lists = Lists::parse(generation, entries.as_ref(), peer_port);
    let Some(salt) = salt.filter(|it| !it.is_empty()) else {
        return Some(lists);
    };
    let gray = GrayList::clone(&lists.gray).with_salt(Salt::new(salt));
    let salted = SharedLists {
        gray: Arc::new(gray),
        ..lists.shared()
    };
    Some(Lists::new(generation, salted))
}

/// What is said of a service on top.
struct ServiceFacts {
    service: ServiceName,
    generation: u64,
    salt: Vec<u8>,
}

fn facts(text: &[u8]) -> Vec<ServiceFacts> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.take_while(|line| line.starts_with(b"#"));
    let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let read = |line: &str| {
        let mut words = line.strip_prefix(SERVICE)?.split(' ');
        let service = words.next()?;
        let service = match service == ServiceName::DEFAULT {
            true => ServiceName::default(),
            false => ServiceName::parse(service)?,
        };
        let mut facts = ServiceFacts {
            service,
            generation: 1,
            salt: Vec::new(),
        };
        for word in words {
            if let Some(generation) = word.strip_prefix("generation=") {
                facts.generation = generation.parse().ok()?;
            } else if let Some(salt) = word.strip_prefix(SALT) {
                facts.salt = of_hex(salt)?;
            }
        }
        Some(facts)
    };
    texts.filter_map(read).collect()
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
