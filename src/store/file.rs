//! The lists in a file, for those who have no Redis.
//!
//! The file is checked several times a second; a version that did not change between two checks is read
//! ([`format`](super::format)). One that is still being written, or is wrong, leaves the last good lists
//! in force.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::format::{FileError, parse_services, read};
use super::{Cause, Feed, Mode};
use crate::config::ServiceSettings;
use crate::process::supervised;

/// How often the file is checked. An edit takes effect after two checks at most, plus the time for
/// reading it.
const LOOK: Duration = Duration::from_millis(200);

/// What the log was not told about a version, because it had been told too much already, it is told
/// after this time: some lines are allowed each second.
const OWED: Duration = Duration::from_secs(1);

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Nobody can set this time, so it reveals new content with the old `modified` time.
    changed: (i64, i64),
}

impl FileVersion {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The version now; `None` while there is no file.
    fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|it| Self::of(&it))
    }
}

/// Reads the file, which has the lists of these services, for the first time, for the cause `why`, and then
/// watches it in a thread of its own, until another store has its turn.
///
/// # Errors
/// When the file cannot be used at the start, when there are no good lists to keep.
pub(crate) fn start(
    path: PathBuf,
    services: Vec<Arc<ServiceSettings>>,
    feed: Feed,
    why: Cause,
) -> Result<(), FileError> {
    let version = FileVersion::now(&path);
    let readings = parse_services(&read(&path)?, &services)?;
    feed.set_mode(Mode::File);
    feed.publish_watched(readings, why);
    let watch = move || watch(&path, &services, &feed, version);
    supervised::spawn("lists-file", watch).map_err(FileError::Io)?;
    Ok(())
}

fn watch(path: &Path, services: &[Arc<ServiceSettings>], feed: &Feed, first: Option<FileVersion>) {
    // The version that was read last, whatever the outcome; and the one that the last check found.
    let (mut used, mut seen) = (first, first);
    let mut used_at = Instant::now();
    while !feed.is_over() {
        feed.sleep(LOOK);
        feed.tidy();
        if used_at.elapsed() > OWED {
            feed.tell_owed();
        }
        let now = FileVersion::now(path);
        let stands_still = now == seen;
        seen = now;
        if now == used || !stands_still {
            continue;
        }
        let outcome = read(path).and_then(|text| parse_services(&text, services));
        if FileVersion::now(path) != now {
            // It was changed while it was read.
            continue;
        }
        (used, used_at) = (now, Instant::now());
        match outcome {
            Ok(readings) => {
                feed.publish_watched(readings, Cause::Event);
            }
            Err(error) => feed.failed(error),
        }
    }
}
