//! The last-good copy: the lists in force, on disk, for a start while their source is away.
//!
//! The form is that of the lists file, with comment lines on top. The first of them holds the
//! SHA-256 of all that follows, so that a copy that was cut, edited or damaged in any place is
//! refused. It is written beside its place, synced and renamed, so that a crash leaves the old one
//! or the new one. One that was refused for what is in it is kept aside once, for whoever wants to
//! know what has happened.
//!
//! It names the store that its lists are of, and is used for no other: a copy of another store is set
//! aside before the next one takes its place. Peers stand there as they were written, without the port
//! that the settings give them. Version 1, which said neither, is taken for one of the own store: that
//! is what it is when a gateway was replaced by a newer one, and the next copy says it. Unless the store, when it
//! is first read, has none of its servers: then it is set aside, too.
//!
//! One gateway at a time writes (`copy/lock.rs`). Another one that finds it taken says so, serves without
//! writing, and takes over when the copy is free: so a new process can start while an old one ends.
//!
//! A thread of its own writes: at once, then at most once a second and always the newest lists.
//! While nothing changes, a copy whose lists were found in the store again is renewed now and then,
//! and at the end, so that its time says when the lists were last known to be good. Nothing waits
//! for the disk, except the end of the process, for a moment.
//!
//! Not here: what a copy is used for ([`super::Publisher`]).

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

mod lock;

use nix::libc;
use sha2::{Digest as _, Sha256};

use self::lock::{Lock, LockError};
use super::format::{self, FileError};
use super::{Entries, StoreName, heavy};
use crate::lists::{Digest, GrayList, ListName, Lists, PeerList};
use crate::process::supervised;

/// Shortest time between two copies.
const GAP: Duration = Duration::from_secs(1);

/// Time until a copy that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A copy of lists that are still the store's is renewed after this time.
const RENEW: Duration = Duration::from_secs(600);

/// Where a start refuses a copy of a certain age, it is renewed after this part of that: it must not
/// come to that age while the lists are confirmed, also when a look at the store has failed.
const RENEW_PART: u32 = 3;

/// How long the end of the process waits for the last copy.
const END_LIMIT: Duration = Duration::from_secs(2);

/// No copy is longer than this, in bytes: any lists that a gateway can hold fit. Nobody writes it by
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

/// A copy that was read.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The lists; their generation is that of the process that wrote them, at least 1.
    pub lists: Lists,
    /// When they were last known to be good.
    pub written: SystemTime,
    /// The store that they are of; `None`: it is from a version that did not say it.
    pub store: Option<StoreName>,
}

impl Copy {
    /// The store that the lists are of, if that is another than `own`.
    pub fn other_store(&self, own: &StoreName) -> Option<&StoreName> {
        self.store.as_ref().filter(|it| !it.is(own))
    }

    /// True when it names no store, and one whose prod this is has none of its servers, at whatever port.
    pub fn is_strange_to(&self, prod: &PeerList) -> bool {
        let own: HashSet<IpAddr> = prod.peers().iter().map(SocketAddr::ip).collect();
        let peers = self.lists.prod.peers();
        let is_comparable = self.store.is_none() && !own.is_empty() && !peers.is_empty();
        is_comparable && !peers.iter().any(|it| own.contains(&it.ip()))
    }

    /// How old it is; `None` when it is from the future, since a clock was set.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.written).ok()
    }
}

/// An age as a person says it, in the units of the ini file: `4s`, `2h5m`, `30d`. What is less than a
/// hundredth of it, or so, is left out.
pub fn shown_age(age: Duration) -> String {
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
    /// It does not begin like one, or its first line was cut.
    NoCopy,
    /// It has another version.
    OtherVersion(String),
    /// It is not what was written.
    WrongChecksum,
    /// The checksum is right, and the rest is not understood.
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

/// Above something that is no folder there is nothing, too.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// The gateway that keeps the copy at `path` at this moment, if one does, and that can be told.
pub fn holder(path: &Path) -> Option<Holder> {
    lock::holder(&place_of_lock(path))
}

/// Where the lock on the copy at `path` is.
pub fn place_of_lock(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Where a copy of another store is kept when this store's takes its place.
pub fn place_aside(path: &Path, other: &StoreName) -> PathBuf {
    beside(path, &format!(".of-{}", other.mark()))
}

/// The text of a copy of `lists` of `store`, which were good at `time`.
pub fn render(lists: &Lists, store: &StoreName, time: SystemTime) -> Vec<u8> {
    use std::fmt::Write;
    let mut rest = String::new();
    let Lists {
        generation, digest, ..
    } = lists;
    let time = humantime::format_rfc3339_millis(time);
    // A String takes whatever is written.
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
    for (name, list) in [(ListName::Pre, &lists.pre), (ListName::Prod, &lists.prod)] {
        let _ = writeln!(rest, "[{}]", name.name());
        for peer in list.written() {
            let _ = writeln!(rest, "{peer}");
        }
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
        // A String takes whatever is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Understands the text of a copy.
///
/// # Errors
/// Why it must not be used.
pub fn parse(text: &[u8], peer_port: u16) -> Result<Copy, CopyError> {
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
    let entries = |list: Result<Entries, _>| list.unwrap_or_default();
    let peers = |list| Arc::new(PeerList::parse(&entries(list), peer_port));
    let gray = Arc::new(GrayList::parse(&entries(reading.gray)));
    // The digest in the text is for people: the checksum says more, and another version of this
    // program may hash in another way.
    let lists = Lists::new(
        generation.max(1),
        gray,
        peers(reading.pre),
        peers(reading.prod),
    );
    Ok(Copy {
        lists,
        written,
        store,
    })
}

/// Replaces the file at `path` in one step.
///
/// # Errors
/// The kernel's; the old file is still there then.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    replace(path, text, || Ok(()))
}

/// As [`write`]; `before` is done when nothing is left to do but to rename.
fn replace(path: &Path, text: &[u8], before: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let new = beside(path, ".new");
    let written = write_new(&new, text).and_then(|()| before());
    let outcome = written.and_then(|()| fs::rename(&new, path));
    if outcome.is_err() {
        // What there is of it takes room on a disk that may be full.
        let _ = fs::remove_file(&new);
    }
    outcome?;
    // So that the rename outlives a power cut. The copy is in its place whatever comes of it: a folder
    // need not be readable, and not every file system syncs one.
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = File::open(folder).and_then(|it| it.sync_all()) {
        let error = error.to_string();
        log::debug!("copy-folder-not-synced path={folder:?} error={error:?}");
    }
    Ok(())
}

/// The file beside `path` whose name has this ending, too: `.new` for the next copy before it takes
/// its place, `.damaged` for one that was refused, `.of-…` for one of another store, `.lock`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What stands in the place of the next copy, and is not to be overwritten.
#[derive(Clone, Debug)]
enum InTheWay {
    /// It was refused for what is in it. The next copy is worth more than that.
    Damaged,
    /// It is of another store, and may be all that is left of its lists.
    Other(StoreName),
    /// So is this one, although it does not say of which.
    Strange,
}

impl InTheWay {
    fn of(found: &Result<Option<Copy>, CopyError>, store: &StoreName) -> Option<Self> {
        match found {
            Ok(copy) => copy.as_ref()?.other_store(store).cloned().map(Self::Other),
            Err(_) => Some(Self::Damaged),
        }
    }

    fn place(&self, path: &Path) -> PathBuf {
        match self {
            Self::Damaged => beside(path, ".damaged"),
            Self::Other(store) => place_aside(path, store),
            Self::Strange => beside(path, ".of-unknown"),
        }
    }

    /// Keeps what is at `path` from being overwritten.
    fn set_aside(&self, path: &Path) -> io::Result<()> {
        let is_file = fs::symlink_metadata(path).is_ok_and(|it| it.is_file());
        if !is_file {
            return Ok(());
        }
        let aside = self.place(path);
        let Err(error) = fs::rename(path, &aside) else {
            let of = match self {
                Self::Damaged => String::new(),
                Self::Other(store) => format!(" store={:?}", store.to_string()),
                Self::Strange => {
                    " reason=\"it names no store, and this one has none of its servers\"".to_owned()
                }
            };
            log::warn!("copy-set-aside path={path:?} as={aside:?}{of}");
            return Ok(());
        };
        let shown = error.to_string();
        log::error!("copy-not-set-aside path={path:?} as={aside:?} error={shown:?}");
        match self {
            Self::Damaged => Ok(()),
            Self::Other(_) | Self::Strange => Err(error),
        }
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

pub use self::lock::Holder;

/// What a start finds.
pub type Found = Result<Option<Copy>, CopyError>;

/// What there is to know of the copy on disk.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it is.
    pub path: PathBuf,
    /// When the lists in it were last known to be good; `None`: there is none that can be used.
    pub written: Option<SystemTime>,
    /// Why the last one could not be written, or the one that was found was not used.
    pub error: Option<String>,
    /// How often writing has failed.
    pub failures: u64,
    /// The store that it is kept for.
    pub store: String,
    /// A copy of another store that was found here: of which, and where it is, or will be when the next
    /// one takes its place.
    pub other: Option<(String, PathBuf)>,
}

/// What a copy is kept for.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// The store of the lists.
    pub store: StoreName,
    /// The port of peers that are listed without one.
    pub peer_port: u16,
    /// The age at which a start refuses it, if there is one.
    pub max_age: Option<Duration>,
    /// The ini file of the gateway, for another one that finds the copy taken.
    pub config: PathBuf,
}

/// Keeps the copy, with a thread of its own.
pub struct Keeper(Arc<Shared>);

struct Shared {
    path: PathBuf,
    purpose: Purpose,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// The age at which a start refuses it, if there is one.
    max_age: Option<Duration>,
    /// The lists in force, and when they were last known to be good.
    newest: Option<(Arc<Lists>, SystemTime)>,
    /// What is on disk.
    on_disk: Option<(Digest, SystemTime)>,
    /// Why the one that was found was not used.
    refused: Option<String>,
    /// That one is still there, and to be kept aside.
    in_the_way: Option<InTheWay>,
    /// One of another store that was found.
    other: Option<StoreName>,
    /// What is on disk says too little, even if it is of the same lists.
    is_outdated: bool,
    /// Why the last one could not be written.
    failed: Option<String>,
    failures: u64,
    /// Nothing is to come any more.
    ends: bool,
    ended: bool,
}

impl State {
    /// The age at which the copy is renewed.
    fn renew_at(&self) -> Duration {
        let part = self.max_age.map(|it| it / RENEW_PART);
        part.map_or(RENEW, |it| it.min(RENEW))
    }

    /// Whether the newest lists are to be written.
    fn is_due(&self) -> bool {
        let Some((lists, time)) = &self.newest else {
            return false;
        };
        self.is_outdated
            || self.on_disk.is_none_or(|(digest, written)| {
                let age = time.duration_since(written).unwrap_or_default();
                digest != lists.digest || age >= self.renew_at() || (self.ends && *time != written)
            })
    }
}

impl State {
    /// Notes what was found on the disk.
    fn find(&mut self, found: &Result<Option<Copy>, CopyError>, store: &StoreName) {
        let copy = found.as_ref().ok().and_then(Option::as_ref);
        let other = copy.and_then(|it| it.other_store(store));
        let own = copy.filter(|_| other.is_none());
        self.on_disk = own.map(|it| (it.lists.digest, it.written));
        self.is_outdated = own.is_some_and(|it| it.store.is_none());
        self.refused = match (found, other) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), Some(other)) => Some(of_another(other)),
            (Ok(_), None) => None,
        };
        self.in_the_way = InTheWay::of(found, store);
        if other.is_some() {
            self.other = other.cloned();
        }
    }
}

/// Why a copy of `other` is not used.
pub fn of_another(other: &StoreName) -> String {
    format!("it holds the lists of another store: {other}")
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // A state is whole at any moment, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Will keep the copy at `path` for this purpose. Returns what is found there, too.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(path: &Path, purpose: Purpose) -> io::Result<(Self, Found)> {
        // From now on nobody else changes it.
        let lock = take_lock(path, &purpose);
        let found = read(path, purpose.peer_port);
        let mut state = State {
            max_age: purpose.max_age,
            ..State::default()
        };
        state.find(&found, &purpose.store);
        if let Err(LockError::Taken(by)) = &lock {
            let what = taken(by);
            log::error!("copy-taken path={path:?} reason={what:?}");
            state.failed = Some(what);
        }
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            purpose,
            state: Mutex::new(state),
            news: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        // Where it could not be told, the next copy cannot be written either, which says why.
        let mut lock = lock.ok();
        supervised::spawn("lists-copy", move || keep(&own, &mut lock))?;
        Ok((Self(shared), found))
    }

    /// These lists are in force, and good now.
    pub fn keep(&self, lists: Arc<Lists>) {
        let mut state = self.0.locked();
        state.newest = Some((lists, SystemTime::now()));
        if state.is_due() {
            self.0.news.notify_all();
        }
    }

    /// What was found is of another store, although it does not say so.
    pub fn set_aside(&self) {
        let mut state = self.0.locked();
        state.in_the_way = Some(InTheWay::Strange);
        state.on_disk = None;
    }

    /// What there is to know.
    pub fn view(&self) -> View {
        let state = self.0.locked();
        View {
            path: self.0.path.clone(),
            written: state.on_disk.map(|(_, written)| written),
            error: state.failed.as_ref().or(state.refused.as_ref()).cloned(),
            failures: state.failures,
            store: self.0.purpose.store.to_string(),
            other: state.other.as_ref().map(|other| {
                let place = place_aside(&self.0.path, other);
                (other.to_string(), place)
            }),
        }
    }

    /// Writes the newest lists and ends the thread; a disk that does not answer is left behind.
    pub fn end(&self) {
        let mut state = self.0.locked();
        state.ends = true;
        self.0.news.notify_all();
        let deadline = Instant::now() + END_LIMIT;
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!("copy-unfinished path={:?}", self.0.path);
                return;
            }
            let waited = self.0.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn take_lock(path: &Path, purpose: &Purpose) -> Result<Lock, LockError> {
    Lock::take(&place_of_lock(path), &purpose.config)
}

/// Says whose a copy is.
fn taken(by: &Holder) -> String {
    format!("it is kept by {by}; each gateway needs its own last_good")
}

/// Takes the lock if it is not held yet. What was found before may be another's by now.
fn take_over(shared: &Shared, lock: &mut Option<Lock>) -> io::Result<()> {
    if lock.is_some() {
        return Ok(());
    }
    *lock = match take_lock(&shared.path, &shared.purpose) {
        Ok(lock) => Some(lock),
        Err(LockError::Taken(by)) => return Err(io::Error::other(taken(&by))),
        Err(LockError::Io(error)) => {
            let lock = place_of_lock(&shared.path);
            let what = format!("the lock {}: {error}", lock.display());
            return Err(io::Error::new(error.kind(), what));
        }
    };
    let found = read(&shared.path, shared.purpose.peer_port);
    shared.locked().find(&found, &shared.purpose.store);
    Ok(())
}

fn write_newest(
    shared: &Shared,
    lock: &mut Option<Lock>,
    lists: &Lists,
    time: SystemTime,
) -> io::Result<(Digest, SystemTime)> {
    take_over(shared, lock)?;
    let in_the_way = shared.locked().in_the_way.clone();
    let text = render(lists, &shared.purpose.store, time);
    write_copy(&shared.path, &text, LONGEST, in_the_way.as_ref())?;
    Ok((lists.digest, time))
}

/// The lock is given back at the end, behind the last copy.
fn keep(shared: &Shared, lock: &mut Option<Lock>) {
    // A million entries are a text of many megabytes, and nobody waits for it.
    heavy::step_back();
    let mut not_before = Instant::now();
    let mut state = shared.locked();
    loop {
        let pause = not_before.saturating_duration_since(Instant::now());
        let ends = state.ends;
        if state.is_due() && (ends || pause.is_zero()) {
            let newest = state.newest.clone();
            drop(state);
            not_before = Instant::now() + GAP;
            let outcome: Option<io::Result<_>> =
                newest.map(|(lists, time)| write_newest(shared, lock, &lists, time));
            state = shared.locked();
            match outcome {
                Some(Ok(on_disk)) => note_success(shared, &mut state, on_disk),
                Some(Err(error)) => {
                    not_before = Instant::now() + RETRY;
                    note_failure(shared, &mut state, &error);
                }
                None => {}
            }
            if !ends {
                continue;
            }
        }
        if ends {
            *lock = None;
            state.ended = true;
            shared.news.notify_all();
            return;
        }
        let due = state.is_due();
        state = if due {
            let waited = shared.news.wait_timeout(state, pause);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let waited = shared.news.wait(state);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
    }
}

/// Replaces the copy at `path`, or sets aside what is in the way there.
fn write_copy(
    path: &Path,
    text: &[u8],
    longest: u64,
    in_the_way: Option<&InTheWay>,
) -> io::Result<()> {
    if text.len() as u64 > longest {
        let limit = longest >> 20;
        let what = format!("it would be longer than {limit} MiB, and be refused at a start");
        return Err(io::Error::other(what));
    }
    replace(path, text, || {
        in_the_way.map_or(Ok(()), |it| it.set_aside(path))
    })
}

fn note_success(shared: &Shared, state: &mut State, on_disk: (Digest, SystemTime)) {
    state.on_disk = Some(on_disk);
    state.refused = None;
    (state.in_the_way, state.is_outdated) = (None, false);
    if state.failed.take().is_some() {
        log::info!("copy-written path={:?} digest={}", shared.path, on_disk.0);
    }
}

fn note_failure(shared: &Shared, state: &mut State, error: &io::Error) {
    state.failures += 1;
    let error = error.to_string();
    if state.failed.as_ref() != Some(&error) {
        log::error!("copy-failed path={:?} error={error:?}", shared.path);
    }
    state.failed = Some(error);
}

#[cfg(test)]
mod tests;
