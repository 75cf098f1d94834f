//! Which settings of a new configuration a running gateway applies, and the outcomes of reloads so far.
//!
//! Settings that only matter at the start keep their values: threads, the pid file, the user. All others
//! apply to whatever begins after the reload.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Config, gateway};

/// The outcomes of a gateway's reloads. Whoever has sent a signal learns here how it ended.
#[derive(Debug)]
pub(crate) struct Reloads(Mutex<ReloadState>);

/// The state of [`Reloads`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReloadState {
    /// Reloads that succeeded.
    pub ok: u64,
    /// Reloads that changed nothing, since they were not possible.
    pub failed: u64,
    /// Another one has begun and not ended yet.
    pub under_way: bool,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// The full names of the keys that the last good one could not change.
    pub ignored: Vec<&'static str>,
    /// When the file was last taken on: by the last good reload, or by the start.
    pub taken_on: SystemTime,
}

impl Reloads {
    /// Of a gateway that has just read its file.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(ReloadState {
            ok: 0,
            failed: 0,
            under_way: false,
            error: None,
            ignored: Vec::new(),
            taken_on: SystemTime::now(),
        }))
    }

    /// Notes that a reload begins, before the file is read.
    pub(crate) fn begin(&self) {
        self.lock().under_way = true;
    }

    /// Notes the end of the reload: with the keys that it could not change, or with what is wrong.
    pub(crate) fn end(&self, outcome: Result<Vec<&'static str>, String>) {
        let mut state = self.lock();
        state.under_way = false;
        match outcome {
            Ok(ignored) => {
                state.ok += 1;
                state.error = None;
                state.ignored = ignored;
                state.taken_on = SystemTime::now();
            }
            Err(error) => {
                state.failed += 1;
                state.error = Some(error);
            }
        }
    }

    /// The state now.
    pub(crate) fn state(&self) -> ReloadState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReloadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// If a setting that needs a restart differs in the new configuration, keeps the running value and names
/// the key. A test goes through all keys, so that none is forgotten here.
macro_rules! keep {
    ($kept:ident, $old:expr, $new:ident, { $( $setting:path => $( $field:ident ).+, )* }) => {
        $(
            if $setting.key.restart && $new.$( $field ).+ != $old.$( $field ).+ {
                $kept.push($setting.key.full_name);
                $new.$( $field ).+.clone_from(&$old.$( $field ).+);
            }
        )*
    };
}

impl Config {
    /// The configuration to run with once `new` was read, and the full names of the keys
    /// (`gateway.workers`) that `new` changes in vain: they keep their values until a restart.
    pub fn reload(&self, mut new: Self) -> (Self, Vec<&'static str>) {
        let mut kept = Vec::new();
        keep!(kept, self, new, {
            gateway::WORKERS => gateway.workers,
            gateway::PID_FILE => gateway.pid_file,
            gateway::USER => gateway.user,
            gateway::GROUP => gateway.group,
        });
        new.written = new.written.waiting(&self.written, &kept);
        (new, kept)
    }
}
