//! Folders that a start makes, and whose they are.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::process::{self, Identity};

/// Makes `folder`, with this mode less the umask, for `owner`, unless it exists.
pub(super) fn make(folder: &Path, mode: u32, owner: Option<&Identity>) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    DirBuilder::new().mode(mode).create(folder)?;
    process::give_to(&File::open(folder)?, owner)
}

/// As [`make`]; one that exists is given to `owner`, too, if it is new.
pub(super) fn make_or_give(folder: &Path, mode: u32, owner: Option<&Identity>) -> io::Result<()> {
    make(folder, mode, None)?;
    if owner.is_some() && is_new(folder)? {
        process::give_to(&File::open(folder)?, owner)?;
    }
    Ok(())
}

/// A folder that was created just now, or by an installation, belongs to root and is empty. A start by
/// root gives it to the user that the gateway becomes.
pub(crate) fn is_new(folder: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    let is_roots = found.is_dir() && found.uid() == 0;
    Ok(is_roots && fs::read_dir(folder)?.next().is_none())
}
