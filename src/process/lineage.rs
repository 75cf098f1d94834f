//! The processes of one gateway: which came before this one, since when there has been one, and which of them
//! still finish what is under way.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::handover::{DrainNote, HistoryNote};

/// Where this process stands among those of its gateway.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// When the first of them was started.
    started: SystemTime,
    /// Upgrades before this process came.
    before: u64,
    /// The version of the program that it has taken over from.
    from: String,
    /// When it has taken over.
    taken_over: OnceLock<SystemTime>,
    draining: Mutex<BTreeMap<u64, DrainNote>>,
}

/// An upgrade that this process has come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastUpgrade {
    /// When.
    pub(crate) at: SystemTime,
    /// The version of the program before that.
    pub(crate) from: String,
}

impl Lineage {
    /// Of a process that nobody came before.
    pub(crate) fn first() -> Self {
        Self::after(&HistoryNote::default())
    }

    /// Of one that goes on with what another one has handed over.
    pub(crate) fn after(history: &HistoryNote) -> Self {
        Self {
            started: history.started_ms.map_or_else(SystemTime::now, of_millis),
            before: history.upgrades,
            from: history.program.clone(),
            taken_over: OnceLock::new(),
            draining: Mutex::default(),
        }
    }

    /// What the next process is to know.
    pub(crate) fn history(&self) -> HistoryNote {
        HistoryNote {
            started_ms: Some(to_millis(self.started)),
            upgrades: self.upgrades(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// When the first process of this gateway was started.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// How many upgrades there have been.
    pub(crate) fn upgrades(&self) -> u64 {
        self.before + u64::from(self.taken_over.get().is_some())
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<LastUpgrade> {
        let from = self.from.clone();
        self.taken_over
            .get()
            .map(|at| LastUpgrade { at: *at, from })
    }

    /// This process has taken over.
    pub(crate) fn has_taken_over(&self) {
        // That happens once.
        let _ = self.taken_over.set(SystemTime::now());
    }

    /// Those that have handed over, and have not ended.
    pub(crate) fn draining(&self) -> Vec<DrainNote> {
        self.locked().values().cloned().collect()
    }

    /// How far one of them is.
    pub(crate) fn drains(&self, note: DrainNote) {
        self.locked().insert(note.pid, note);
    }

    /// One of them has ended.
    pub(crate) fn has_ended(&self, pid: u64) {
        self.locked().remove(&pid);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, DrainNote>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(crate) fn to_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time so many milliseconds after the beginning of 1970; that beginning, if there is no such time.
pub(crate) fn of_millis(millis: u64) -> SystemTime {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
