//! A file that is replaced in one step: whoever reads it finds the old text or the new one, also where the
//! machine has stopped in between.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// What the file is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileAccess<'a> {
    /// It has this mode, less what is masked.
    Mode(u32),
    /// It has the owner and the mode of this one.
    As(&'a Metadata),
}

/// Puts a file with this text in the place of the one at `path`, by way of one beside it: of that name with
/// this ending, which nobody else uses at the same time.
///
/// # Errors
/// Why it cannot be written: then all is as it was.
pub(super) fn replace(
    path: &Path,
    ending: &str,
    text: &[u8],
    access: FileAccess<'_>,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    let beside = PathBuf::from(beside);
    let written = write_through(&beside, text, access).and_then(|()| fs::rename(&beside, path));
    // Nobody has a use for it; that it may stay is no worse than what has failed.
    written.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    // It is in its place, whether the disk knows that or not.
    let _ = sync_folder_of(path);
    Ok(())
}

/// Has the disk know which files the folder of this one has.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_through(path: &Path, text: &[u8], access: FileAccess<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mode = match access {
        FileAccess::Mode(mode) => mode,
        FileAccess::As(_) => 0o640,
    };
    let mut file = options.mode(mode).open(path)?;
    if let FileAccess::As(kept) = access {
        // Only root may give a file away.
        let _ = fchown(&file, Some(kept.uid()), Some(kept.gid()));
        file.set_permissions(Permissions::from_mode(kept.mode() & 0o7777))?;
    }
    file.write_all(text)?;
    file.sync_all()
}
