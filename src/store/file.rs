//! The lists in a file, for those who have no Redis.
//!
//! The file is checked several times a second; a version that did not change between two checks is read
//! ([`format`](super::format)). One that is still being written, or is wrong, leaves the last good lists
//! in force.
//!
//! What is known of a release is in files beside it, named after it: see [`beside`].

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::confirmed::{LOOKED_AT, RecordedChange, confirmed_last};
use super::format::{FileError, parse_services, read};
use super::reading::{FrozenLists, LONGEST_TEXT, NO_STATE, is_state};
use super::{Cause, Feed, Mode, ReleaseReading, ServiceReading, StoredText};
use crate::config::{ServiceSettings, VerdictMode};
use crate::lists::ServiceName;
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
    let mut readings = parse_services(&read(&path)?, &services)?;
    let mut releases = ReleaseFiles::of(&path, &services);
    releases.look();
    releases.add_to(&mut readings);
    add_accepted(&path, &mut readings);
    feed.set_mode(Mode::File);
    feed.publish_watched(readings, why);
    feed.tell_held();
    let watch = move || watch(&path, &services, &feed, version, releases.clone());
    supervised::spawn("lists-file", watch).map_err(FileError::Io)?;
    Ok(())
}

/// The file beside a lists file that has `what` of a service.
pub(crate) fn beside(lists: &Path, service: &ServiceName, what: &str) -> PathBuf {
    let mut path = lists.as_os_str().to_owned();
    path.push(match service.is_default() {
        true => format!(".{what}"),
        false => format!(".{service}.{what}"),
    });
    path.into()
}

/// What such a file has now.
pub(crate) fn text_beside(lists: &Path, service: &ServiceName, what: &str) -> StoredText {
    let path = beside(lists, service, what);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return StoredText::Absent,
        Ok(metadata) if metadata.is_file() && metadata.len() <= LONGEST_TEXT as u64 => {}
        _ => return StoredText::Unknown,
    }
    match fs::read(&path) {
        Ok(text) => StoredText::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => StoredText::Absent,
        Err(_) => StoredText::Unknown,
    }
}

/// What is known of the releases of services that have a verdict.
#[derive(Clone)]
struct ReleaseFiles {
    lists: PathBuf,
    known: Vec<(ServiceName, ReleaseReading)>,
    /// Those of which it was said that their state cannot be read.
    told: BTreeSet<ServiceName>,
}

impl ReleaseFiles {
    fn of(lists: &Path, services: &[Arc<ServiceSettings>]) -> Self {
        let judged = services
            .iter()
            .filter(|it| it.verdict.mode != VerdictMode::Off);
        let unknown = |it: &Arc<ServiceSettings>| (it.name.clone(), ReleaseReading::default());
        Self {
            lists: lists.to_owned(),
            known: judged.map(unknown).collect(),
            told: BTreeSet::new(),
        }
    }

    /// Looks at all of them; returns what is new. They are replaced, not written to, so that each is whole.
    fn look(&mut self) -> Vec<(ServiceName, ReleaseReading)> {
        let mut all = Vec::new();
        for (service, known) in &mut self.known {
            let text = |what| text_beside(&self.lists, service, what);
            let mut read = ReleaseReading {
                tripped: text("tripped"),
                state: text("release"),
                lost: false,
            };
            let wrong = match &read.state {
                StoredText::Text(text) if !is_state(text) => Some(NO_STATE),
                StoredText::Unknown => Some("it cannot be read, or is longer than 64 KiB"),
                _ => None,
            };
            match wrong {
                // It is as it was.
                Some(error) => {
                    read.state.clone_from(&known.state);
                    if self.told.insert(service.clone()) {
                        let (name, path) =
                            (service.in_log(), beside(&self.lists, service, "release"));
                        log::warn!("release-refused {name}file={path:?} error={error:?}");
                    }
                }
                None => drop(self.told.remove(service)),
            }
            if *known != read {
                known.clone_from(&read);
                all.push((service.clone(), read));
            }
        }
        all
    }

    /// Which of them are frozen.
    fn frozen(&self) -> Vec<Option<FrozenLists>> {
        self.known.iter().map(|(_, it)| it.frozen()).collect()
    }

    /// Adds what is known to what was read of the lists.
    fn add_to(&self, readings: &mut [ServiceReading]) {
        for reading in readings {
            let known = self.known.iter().find(|(it, _)| *it == reading.service);
            reading.release = known.map(|(_, it)| it.clone());
            reading.frozen = known.and_then(|(_, it)| it.frozen());
        }
    }
}

/// Adds to what was read what somebody has confirmed.
fn add_accepted(path: &Path, readings: &mut [ServiceReading]) {
    let accepted = accepted(path);
    for reading in readings {
        reading.accepted = [&accepted[..], &confirmed_before(path, &reading.service)].concat();
        reading.meant.clone_from(&accepted);
    }
}

/// So much of the end of a history is looked through, in bytes.
const NEWEST: u64 = 256 << 10;

/// What was confirmed with the last change of the lists of a service, as the history beside them says.
fn confirmed_before(lists: &Path, service: &ServiceName) -> Vec<String> {
    let newest = || {
        let mut file = File::open(beside(lists, service, "history"))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(NEWEST)))?;
        let mut newest = Vec::new();
        file.take(NEWEST).read_to_end(&mut newest)?;
        io::Result::Ok(newest)
    };
    // Who cannot read it holds what was changed, and says so.
    let newest = newest().unwrap_or_default();
    let lines = newest.rsplit(|it| *it == b'\n');
    let records = lines.filter_map(|it| {
        let record: serde_json::Value = serde_json::from_slice(it).ok()?;
        let get = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        Some(RecordedChange {
            before: get("before"),
            after: get("after"),
            confirmed: get("confirmed"),
        })
    });
    confirmed_last(records.take(LOOKED_AT))
}

/// How long changes are accepted that were confirmed before they are made.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);

/// The digests of changes that somebody has confirmed just before making them: words of the file beside the
/// lists whose name ends with `.accept`.
fn accepted(path: &Path) -> Vec<String> {
    let path = beside(path, &ServiceName::default(), "accept");
    let is_new = |metadata: &Metadata| {
        // The clock of a file server may be ahead a little. Where this one was set back, the file may be of
        // whenever.
        let age = metadata.modified().map(|it| match it.elapsed() {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        });
        metadata.is_file()
            && metadata.len() <= LONGEST_TEXT as u64
            && age.is_ok_and(|it| it < ACCEPTED_FOR)
    };
    let text = match fs::metadata(&path) {
        Ok(metadata) if is_new(&metadata) => fs::read_to_string(&path).unwrap_or_default(),
        _ => return Vec::new(),
    };
    let words = text.split_ascii_whitespace();
    words.map(str::to_ascii_lowercase).collect()
}

fn watch(
    path: &Path,
    services: &[Arc<ServiceSettings>],
    feed: &Feed,
    first: Option<FileVersion>,
    mut releases: ReleaseFiles,
) {
    // The version that was read last, whatever the outcome; and the one that the last check found.
    let (mut used, mut seen) = (first, first);
    let mut used_at = Instant::now();
    while !feed.is_over() {
        feed.sleep(LOOK);
        feed.tidy();
        if used_at.elapsed() > OWED {
            feed.tell_owed();
        }
        let frozen = releases.frozen();
        let news = releases.look();
        if !news.is_empty() {
            feed.see_releases(news);
        }
        if releases.frozen() != frozen {
            // What was kept out comes in, or what is in is kept.
            used = None;
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
            Ok(mut readings) => {
                releases.look();
                releases.add_to(&mut readings);
                add_accepted(path, &mut readings);
                feed.publish_watched(readings, Cause::Event);
                feed.tell_held();
            }
            Err(error) => feed.failed(error),
        }
    }
}
