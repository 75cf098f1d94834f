//! A number that tells whether anything has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts how often the health of any peer has changed, so that a worker sees by one number whether what
/// it has worked out still holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(Arc<AtomicU64>);

impl Changes {
    /// There was one.
    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
