//! The logs of a gateway: opened at its start, and moved by a reload.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::folders;
use crate::config::{Config, LogTarget};
use crate::logs::writer::{ERROR_LOG, Links, Log, NewTarget, open_file};
use crate::process::{self, Identity};

/// How long the reader of a log that is a pipe may take to open it.
const READER_WAIT: Duration = Duration::from_secs(5);

/// Where logs are to go from now on, as far as a reload has changed that.
pub(super) struct NewTargets {
    pub(super) access: Option<NewTarget>,
    pub(super) error: Option<NewTarget>,
}

impl NewTargets {
    pub(super) fn open(current: &Config, new: &Config) -> io::Result<Self> {
        let open = |name: &str, old: &LogTarget, new: &LogTarget| {
            let open = || NewTarget::open(name, new, |path| open_log_file(path, None));
            let opened = (old != new).then(open).transpose();
            opened.map_err(|error| io::Error::new(error.kind(), format!("[log] {name}: {error}")))
        };
        Ok(Self {
            access: open("access", &current.log.access, &new.log.access)?,
            error: open(ERROR_LOG, &current.log.error, &new.log.error)?,
        })
    }
}

pub(super) fn opening(name: &str, target: &LogTarget) -> String {
    match target {
        LogTarget::File(path) => format!("opening [log] {name}, {}", path.display()),
        _ => format!("opening [log] {name}"),
    }
}

/// Opens a log. Its file then belongs to `owner`, and so does its folder if it had to be created.
pub(super) fn open_log(
    name: &str,
    target: &LogTarget,
    owner: Option<&Identity>,
) -> io::Result<Log> {
    Log::open(name, target, |path| open_log_file(path, owner))
}

pub(super) fn open_log_file(path: &Path, owner: Option<&Identity>) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    folders::make(folder, LOG_FOLDER_MODE, owner)
        .map_err(|error| process::named(folder, &error))?;
    // Root must not be redirected by a link of the user that it is about to become.
    let links = match fs::metadata(folder) {
        Ok(folder) if owner.is_some() && folder.uid() != 0 => Links::Refuse,
        _ => Links::Follow,
    };
    let file = open_file(path, links, READER_WAIT)?;
    // A device keeps its owner.
    if file.metadata()?.is_file() {
        process::give_to(&file, owner).map_err(|error| process::named(path, &error))?;
    }
    Ok(file)
}

/// For the owner, and readable for its group: see [`open_file`].
const LOG_FOLDER_MODE: u32 = 0o750;
