//! The lock on a copy: the file `PATH.lock` beside it, by which one gateway at a time writes there.
//!
//! The kernel releases the lock when the process ends, however that happens. The file says who holds it,
//! for whoever finds it taken. It is an open file description lock, which can be queried without taking
//! it, so that a mere look never keeps a gateway from its copy.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The longest content of the file, in bytes.
const LONGEST: u64 = 8 * 1024;

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

/// The gateway that holds a lock, as far as it has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process id, as it sees it.
    pub pid: Option<u32>,
    /// Its ini file.
    pub config: Option<PathBuf>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another gateway")?;
        if let Some(pid) = self.pid {
            write!(f, ", process {pid}")?;
        }
        if let Some(config) = &self.config {
            write!(f, " with {}", config.display())?;
        }
        Ok(())
    }
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Somebody else holds it.
    Taken(Holder),
    /// It is unknown.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// Takes the lock at `path`, for the gateway with this ini file.
    pub(super) fn take(path: &Path, config: &Path) -> Result<Self, LockError> {
        loop {
            let file = open(path, true)?;
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK))) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => return Err(LockError::Taken(read(&file))),
                Err(error) => return Err(LockError::Io(error.into())),
            }
            // Its holder may have removed the file since; then the lock is worthless.
            if is_at(&file, path) {
                // The content is for people, so a full disk does not matter.
                let _ = file.set_len(0);
                let pid = std::process::id();
                let text = format!("pid {pid}\nconfig {}\n", config.display());
                let _ = (&file).write_all(text.as_bytes());
                let path = path.to_owned();
                return Ok(Self { path, file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Somebody may have removed the file, and another gateway may have made its own.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who holds the lock at `path`, if somebody does, and it can be told.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    let file = open(path, false).ok()?;
    let mut lock = whole(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    let is_free = i32::from(lock.l_type) == libc::F_UNLCK;
    (!is_free).then(|| read(&file))
}

fn open(path: &Path, to_take: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let options = options.read(true).custom_flags(flags).mode(0o640);
    options.write(to_take).create(to_take).open(path)
}

/// A lock of a whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        // The constants are small.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn read(file: &File) -> Holder {
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    let value = |name: &str| text.lines().find_map(|it| it.strip_prefix(name));
    match read {
        Ok(_) => Holder {
            pid: value("pid ").and_then(|it| it.parse().ok()),
            config: value("config ").map(PathBuf::from),
        },
        Err(_) => Holder::default(),
    }
}

/// True while `path` leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_one_gateways_until_that_is_gone_and_who_only_looks_does_not_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lists.lock");
        let take = || Lock::take(&path, Path::new("/etc/a.ini"));
        assert_eq!(holder(&path), None);
        let first = take().unwrap();
        let expected = Holder {
            pid: Some(std::process::id()),
            config: Some("/etc/a.ini".into()),
        };
        assert_eq!(holder(&path).as_ref(), Some(&expected));
        match take().unwrap_err() {
            LockError::Taken(by) => assert_eq!(by, expected),
            LockError::Io(error) => panic!("{error}"),
        }
        drop(first);
        assert!(!path.exists());
        // One that a crash has left behind is nobody's.
        fs::write(&path, "pid 1\n").unwrap();
        assert_eq!(holder(&path), None);
        let second = take().unwrap();
        // Whoever removes it must not keep the next one from its own.
        fs::remove_file(&path).unwrap();
        let third = take().unwrap();
        drop(second);
        assert_eq!(holder(&path), Some(expected));
        drop(third);
        assert!(matches!(
            Lock::take(&dir.path().join("no/lock"), Path::new("/")),
            Err(LockError::Io(_))
        ));
    }
}
