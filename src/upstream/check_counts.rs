//! What health checks have come to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Checked;
use crate::lists::PoolName;

/// How many checks of a service's peers there were, by pool and outcome.
#[derive(Debug, Default)]
pub(crate) struct CheckCounts([[AtomicU64; Checked::ALL.len()]; PoolName::ALL.len()]);

impl CheckCounts {
    /// Counts one of a peer of `pool`.
    pub(super) fn note(&self, pool: PoolName, outcome: Checked) {
        self.0[pool as usize][outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many checks of peers of `pool` had this outcome.
    pub(crate) fn count(&self, pool: PoolName, outcome: Checked) -> u64 {
        self.0[pool as usize][outcome.index()].load(Ordering::Relaxed)
    }
}
