//! The copy on disk: how it is put in its place, and what happens to what was there before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::{Copy, CopyError};
use crate::store::StoreName;

/// Where the lock on the copy at `path` is.
pub(crate) fn place_of_lock(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Where a copy of another store is kept when this store's takes its place.
pub(crate) fn place_aside(path: &Path, other: &StoreName) -> PathBuf {
    beside(path, &format!(".of-{}", other.mark()))
}

/// Replaces the copy at `path`, or sets aside what is in the way there.
pub(super) fn write_copy(
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

/// Replaces the file at `path` in one step.
///
/// # Errors
/// The kernel's; the old file is still there then.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    replace(path, text, || Ok(()))
}

/// As [`write`]; runs `before` when only the renaming is left to be done.
fn replace(path: &Path, text: &[u8], before: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let new = beside(path, ".new");
    let written = write_new(&new, text).and_then(|()| before());
    let outcome = written.and_then(|()| fs::rename(&new, path));
    if outcome.is_err() {
        // An incomplete file takes room on a disk that may be full.
        let _ = fs::remove_file(&new);
    }
    outcome?;
    // So that the rename survives a power cut. The copy is in its place even if this fails: a folder
    // need not be readable, and not every file system can sync one.
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = File::open(folder).and_then(|it| it.sync_all()) {
        let error = error.to_string();
        log::debug!("copy-folder-not-synced path={folder:?} error={error:?}");
    }
    Ok(())
}

/// The file beside `path` whose name has this ending, too: `.new` for the next copy before it takes
/// its place, `.damaged` for one that was refused, `.of-…` for one of another store, `.lock`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
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

/// What is in the place of the next copy and must not be overwritten.
#[derive(Clone, Debug)]
pub(super) enum InTheWay {
    /// It was refused for its content. The next copy is worth more than that.
    Damaged,
    /// It is of another store, and may be all that is left of its lists.
    Other(StoreName),
    /// So is this one, although it does not say of which.
    Strange,
}

impl InTheWay {
    pub(super) fn of(found: &Result<Option<Copy>, CopyError>, store: &StoreName) -> Option<Self> {
        match found {
            Ok(copy) => copy.as_ref()?.other_store(store).cloned().map(Self::Other),
            Err(_) => Some(Self::Damaged),
        }
    }

    pub(super) fn place(&self, path: &Path) -> PathBuf {
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
