//! A place for the last-good copy of the lists.

use std::path::{Path, PathBuf};

use super::setup::Setup;

/// A folder of a copy, which outlives its gateways.
pub(crate) struct CopyFolder(tempfile::TempDir);

impl CopyFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The copy's own path.
    pub(crate) fn copy(&self) -> PathBuf {
        self.path().join("lists")
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Settings with the copy here, and no long wait for a Redis that is away.
    pub(crate) fn set(&self, setup: Setup) -> Setup {
        let setup = setup.set("lists.last_good", self.copy().display());
        setup.set("redis.timeout", "300ms")
    }
}
