//! Keeps the copy: when it is written, and by whom.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::disk::{InTheWay, place_aside, place_of_lock, write_copy};
use super::lock::{self, Holder, Lock, LockError};
use super::{
    Copy, CopyAtStart, CopyError, KeptLists, LONGEST, PeerPorts, of_another, read, render,
};
use crate::lists::Digest;
use crate::process::supervised;
use crate::store::{StoreName, heavy};

/// Shortest time between two copies.
const GAP: Duration = Duration::from_secs(1);

/// Time until a copy that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A copy of lists that are still the store's is renewed after this time.
const RENEW: Duration = Duration::from_secs(600);

/// If copies above a certain age are refused at the start, they are renewed after this fraction of that
/// age: a copy must not reach it while its lists are still confirmed, even if a reading of the store has
/// failed.
const RENEW_PART: u32 = 3;

/// How long a predecessor may take to write its last copy, and how often it is looked whether it has.
const PREDECESSOR: Duration = Duration::from_secs(10);
const PREDECESSOR_LOOK: Duration = Duration::from_millis(50);

/// How long the end of the process waits for the last copy.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What is known of the copy on disk.
#[derive(Clone, Debug)]
pub(crate) struct CopyView {
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

/// The gateway that keeps the copy at `path` at this moment, if there is one and it can be told which.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    lock::holder(&place_of_lock(path))
}

/// What a copy is kept for.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    /// The store of the lists.
    pub store: StoreName,
    /// The ports of peers that are listed without one.
    pub ports: PeerPorts,
    /// The age at which a start refuses it, if there is one.
    pub max_age: Option<Duration>,
    /// The ini file of the gateway, for another one that finds the copy taken.
    pub config: PathBuf,
    /// Another process of this gateway keeps it until [`Keeper::take_over`].
    pub succeeds: bool,
}

/// Keeps the copy, with a thread of its own.
pub(crate) struct Keeper(Arc<KeeperShared>);

struct KeeperShared {
    path: PathBuf,
    purpose: Purpose,
    state: Mutex<KeeperState>,
    news: Condvar,
}

#[derive(Default)]
struct KeeperState {
    /// The age at which a start refuses it, if there is one.
    max_age: Option<Duration>,
    /// The lists in force, and when they were last known to be good.
    newest: Option<(KeptLists, SystemTime)>,
    /// What their names meant then.
    names: Vec<(Arc<str>, Vec<IpAddr>)>,
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
    /// Another process of this gateway keeps it.
    rests: bool,
    /// That one is about to let go of it.
    succeeds: bool,
    /// Nothing more will come.
    ends: bool,
    ended: bool,
}

impl KeeperState {
    /// The age at which the copy is renewed.
    fn renew_at(&self) -> Duration {
        let part = self.max_age.map(|it| it / RENEW_PART);
        part.map_or(RENEW, |it| it.min(RENEW))
    }

    /// Whether the newest lists are to be written.
    fn is_due(&self) -> bool {
        let Some((lists, time)) = self.newest.as_ref().filter(|_| !self.rests) else {
            return false;
        };
        self.is_outdated
            || self.on_disk.is_none_or(|(digest, written)| {
                let age = time.duration_since(written).unwrap_or_default();
                digest != lists.digest()
                    || age >= self.renew_at()
                    || (self.ends && *time != written)
            })
    }
}

impl KeeperState {
    /// Notes what was found on the disk.
    fn find(&mut self, found: &Result<Option<Copy>, CopyError>, store: &StoreName) {
        let copy = found.as_ref().ok().and_then(Option::as_ref);
        let other = copy.and_then(|it| it.other_store(store));
        let own = copy.filter(|_| other.is_none());
        self.on_disk = own.map(|it| (it.digest(), it.written));
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

impl KeeperShared {
    fn locked(&self) -> MutexGuard<'_, KeeperState> {
        // A state is consistent at any moment, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Will keep the copy at `path` for this purpose. Returns what is found there, too.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub(crate) fn start(path: &Path, purpose: Purpose) -> io::Result<(Self, CopyAtStart)> {
        // With it, nobody else changes it from now on.
        let lock = (!purpose.succeeds).then(|| take_lock(path, &purpose));
        let found = read(path, purpose.ports.clone());
        let mut state = KeeperState {
            max_age: purpose.max_age,
            rests: purpose.succeeds,
            ..KeeperState::default()
        };
        state.find(&found, &purpose.store);
        if let Some(Err(LockError::Taken(by))) = &lock {
            let what = taken(by);
            log::error!("copy-taken path={path:?} reason={what:?}");
            state.failed = Some(what);
        }
        let shared = Arc::new(KeeperShared {
            path: path.to_owned(),
            purpose,
            state: Mutex::new(state),
            news: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        // If that could not be found out, the next copy cannot be written either, and that error says
        // why.
        let mut lock = lock.and_then(Result::ok);
        supervised::spawn("lists-copy", move || keep(&own, &mut lock))?;
        Ok((Self(shared), found))
    }

    /// These lists are in force, and good now, when their `names` have these addresses.
    pub(crate) fn keep(&self, lists: KeptLists, names: Vec<(Arc<str>, Vec<IpAddr>)>) {
        let mut state = self.0.locked();
        state.names = names;
        state.newest = Some((lists, SystemTime::now()));
        if state.is_due() {
            self.0.news.notify_all();
        }
    }

    /// From now on this process keeps it: the one that it succeeds has let go, or is about to.
    pub(crate) fn take_over(&self) {
        let mut state = self.0.locked();
        state.rests = false;
        state.succeeds = true;
        self.0.news.notify_all();
    }

    /// What was found is of another store, although it does not say so.
    pub(crate) fn set_aside(&self) {
        let mut state = self.0.locked();
        state.in_the_way = Some(InTheWay::Strange);
        state.on_disk = None;
    }

    /// What there is to know.
    pub(crate) fn view(&self) -> CopyView {
        let state = self.0.locked();
        CopyView {
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

    /// Writes the newest lists and ends the thread; does not wait for a disk that does not answer.
    pub(crate) fn end(&self) {
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
fn take_over(shared: &KeeperShared, lock: &mut Option<Lock>) -> io::Result<()> {
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
    let found = read(&shared.path, shared.purpose.ports.clone());
    shared.locked().find(&found, &shared.purpose.store);
    Ok(())
}

fn write_newest(
    shared: &KeeperShared,
    lock: &mut Option<Lock>,
    lists: &KeptLists,
    time: SystemTime,
) -> io::Result<(Digest, SystemTime)> {
    take_over(shared, lock)?;
    let (in_the_way, names) = {
        let state = shared.locked();
        (state.in_the_way.clone(), state.names.clone())
    };
    let text = render(lists, &names, &shared.purpose.store, time);
    write_copy(&shared.path, &text, LONGEST, in_the_way.as_ref())?;
    Ok((lists.digest(), time))
}

/// The lock is released at the end, after the last copy.
fn keep(shared: &KeeperShared, lock: &mut Option<Lock>) {
    // A million entries make a text of many megabytes, and nobody waits for it.
    heavy::step_back();
    let mut not_before = Instant::now();
    let mut state = shared.locked();
    loop {
        if std::mem::take(&mut state.succeeds) {
            drop(state);
            succeed(shared, lock);
            state = shared.locked();
        }
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

/// Waits for the lock of a predecessor, which may be about to write its last copy.
fn succeed(shared: &KeeperShared, lock: &mut Option<Lock>) {
    let until = Instant::now() + PREDECESSOR;
    while let Err(error) = take_over(shared, lock) {
        if shared.locked().ends {
            return;
        }
        if Instant::now() >= until {
            note_failure(shared, &mut shared.locked(), &error);
            return;
        }
        std::thread::sleep(PREDECESSOR_LOOK);
    }
}

fn note_success(shared: &KeeperShared, state: &mut KeeperState, on_disk: (Digest, SystemTime)) {
    state.on_disk = Some(on_disk);
    state.refused = None;
    (state.in_the_way, state.is_outdated) = (None, false);
    if state.failed.take().is_some() {
        log::info!("copy-written path={:?} digest={}", shared.path, on_disk.0);
    }
}

fn note_failure(shared: &KeeperShared, state: &mut KeeperState, error: &io::Error) {
    state.failures += 1;
    let error = error.to_string();
    if state.failed.as_ref() != Some(&error) {
        log::error!("copy-failed path={:?} error={error:?}", shared.path);
    }
    state.failed = Some(error);
}

#[cfg(test)]
mod tests {
    use super::super::tests::lists;
    use super::*;
    use crate::lists::Lists;

    #[test]
    fn a_copy_is_due_when_the_lists_differ_when_it_is_old_and_at_the_end() {
        let lists = Arc::new(lists());
        let time = SystemTime::UNIX_EPOCH + RENEW * 2;
        let mut state = KeeperState::default();
        assert!(!state.is_due(), "nothing was read yet");
        state.newest = Some((KeptLists::from(Arc::clone(&lists)), time));
        assert!(state.is_due(), "there is no copy");
        for (on_disk, due, due_at_end) in [
            (time, false, false),
            (time - Duration::from_secs(1), false, true),
            // A clock was set back.
            (time + RENEW * 2, false, true),
            (time - RENEW, true, true),
        ] {
            state.on_disk = Some((lists.digest, on_disk));
            for (ends, expected) in [(false, due), (true, due_at_end)] {
                state.ends = ends;
                assert_eq!(state.is_due(), expected, "{on_disk:?}, {ends}");
            }
        }
        state.on_disk = Some((Lists::unread().digest, time));
        assert!(state.is_due(), "another digest");
        // Long before a start would refuse it.
        state.ends = false;
        for (max_age, age, due) in [(3, 0, false), (3, 1, true), (60, 19, false), (60, 20, true)] {
            let seconds = Duration::from_secs;
            state.max_age = Some(seconds(max_age));
            state.on_disk = Some((lists.digest, time - seconds(age)));
            assert_eq!(state.is_due(), due, "{age} of {max_age}");
        }
        state.max_age = Some(RENEW * 100);
        state.on_disk = Some((lists.digest, time - RENEW));
        assert!(state.is_due());
    }
}
