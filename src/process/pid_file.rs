//! The pid file: who writes it holds a lock on it, and who reads it makes sure of whom it names.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Pid;

use super::{Identity, give_to, named};

/// The file that tells the init script the process id. Locked for as long as this lives, so that it
/// is one gateway's only; removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes the file, empty and owned by `owner`, so that it can be written when the privileges
    /// to do so are gone. One that a process has left behind is taken over.
    ///
    /// # Errors
    /// When another process holds it, which is left as it is; or the kernel's, with the path.
    pub fn create(path: &Path, owner: Option<&Identity>) -> io::Result<Self> {
        let file = loop {
            let file = open(path).map_err(|error| named(path, &error))?;
            match file.try_lock() {
                // It may have been removed since, by who held it; then the lock is worth nothing.
                Ok(()) if is_at(&file, path) => break file,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(taken(path)),
                Err(TryLockError::Error(error)) => return Err(named(path, &error)),
            }
        };
        let prepare = || {
            file.set_len(0)?;
            give_to(&file, owner)
        };
        prepare().map_err(|error| named(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes the process id: the sign for the init script that the gateway serves.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn announce(&self) -> io::Result<()> {
        let line = format!("{}\n", std::process::id());
        let written = (&self.file).write_all(line.as_bytes());
        written.map_err(|error| named(&self.path, &error))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have removed it, and another gateway made its own.
        let ours = is_at(&self.file, &self.path);
        if !ours || fs::remove_file(&self.path).is_err() {
            // The folder may refuse it to an unprivileged user; an empty file says the same.
            let _ = self.file.set_len(0);
        }
    }
}

/// Opens the file without changing what is in it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    // Root must not be led elsewhere by a link, nor wait for the other end of a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.custom_flags(flags).open(path)?;
    // It will be removed, which must not happen to a device.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// True while `path` leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn taken(path: &Path) -> io::Error {
    let by = match read(path) {
        Ok(Some(pid)) => format!("process {pid}, which runs"),
        _ => "a process that is about to start or to end".to_owned(),
    };
    let what = format!("it belongs to {by}");
    named(path, &io::Error::other(what))
}

/// The number in a pid file; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<Pid>> {
    let text = fs::read_to_string(path)?;
    let number = text.trim().parse().ok().filter(|pid| *pid > 0);
    Ok(number.map(Pid::from_raw))
}

/// Finds the gateway whose pid file is at `path`.
///
/// # Errors
/// When none runs, as far as can be told: after a crash, the file may name a process that has
/// nothing to do with it.
pub fn find_gateway(path: &Path) -> Result<Pid, String> {
    let shown = path.display();
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("not running: there is no {shown}"))
        }
        Err(error) => Err(format!("{shown}: {error}")),
        Ok(None) => Err(format!("not running: {shown} names no process")),
        Ok(Some(pid)) if is_gateway(pid) => Ok(pid),
        Ok(Some(pid)) => Err(format!(
            "not running: {shown} names process {pid}, which is no gateway"
        )),
    }
}

/// Whether a live process runs this program, or another version of it.
pub fn is_gateway(pid: Pid) -> bool {
    let of_process = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
    let status = fs::read_to_string(of_process("status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    // One that has ended waits for its parent as Z.
    let lives = state.is_some_and(|it| !it.trim_start().starts_with(['Z', 'X']));
    let program = match fs::read_link(of_process("exe")) {
        Ok(program) => last_part(&program),
        // Other people's processes do not show where their program is.
        Err(_) => fs::read_to_string(of_process("comm")).unwrap_or_default(),
    };
    let own = std::env::current_exe().map(|it| last_part(&it));
    lives && is_version_of(program.trim_end(), &own.unwrap_or_default())
}

fn last_part(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Whether `program` is called as this one is, `own`, or as others of it may be: the running one
/// may have been renamed to `graygate.old`, or `graygate-1.2`.
fn is_version_of(program: &str, own: &str) -> bool {
    // All that a process's short name holds.
    const SHORT: usize = 15;
    // The kernel says so once the program was replaced by a newer one.
    let plain = |name: &str| name.trim_end_matches(" (deleted)").to_owned();
    let (program, own) = (plain(program), plain(own));
    ["graygate", &own].into_iter().any(|name| {
        let rest = program.strip_prefix(name);
        let version = rest.is_some_and(|it| it.is_empty() || it.starts_with(['-', '.']));
        let short = program.len() == SHORT && name.starts_with(&program);
        !name.is_empty() && (version || short)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_name() {
        for (program, own, known) in [
            ("graygate", "graygate", true),
            ("graygate (deleted)", "graygate", true),
            ("graygate.old", "graygate", true),
            ("graygate-1.2", "graygate", true),
            ("graygate", "gate (deleted)", true),
            ("gate", "gate (deleted)", true),
            ("gateway-of-the-o", "gateway-of-the-other-kind", false),
            ("gateway-of-the-", "gateway-of-the-other-kind", true),
            ("graygates", "graygate", false),
            ("gray", "graygate", false),
            ("cat", "graygate", false),
            ("cat", "", false),
            ("", "", false),
        ] {
            assert_eq!(is_version_of(program, own), known, "{program}, {own}");
        }
    }

    #[test]
    fn a_file_belongs_to_one_at_a_time_and_a_stale_one_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let text = || fs::read_to_string(&path).unwrap();
        fs::write(&path, "4711\n").unwrap();
        let first = PidFile::create(&path, None).unwrap();
        assert_eq!(text(), "");
        let error = PidFile::create(&path, None).unwrap_err().to_string();
        assert!(error.ends_with("pid: it belongs to a process that is about to start or to end"));
        first.announce().unwrap();
        let error = PidFile::create(&path, None).unwrap_err().to_string();
        let own = std::process::id();
        assert!(error.ends_with(&format!(": it belongs to process {own}, which runs")));
        assert_eq!(text(), format!("{own}\n"));
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_another_has_made_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let first = PidFile::create(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let second = PidFile::create(&path, None).unwrap();
        second.announce().unwrap();
        drop(first);
        assert!(!fs::read_to_string(&path).unwrap().is_empty());
    }

    #[test]
    fn a_device_is_no_pid_file() {
        let error = PidFile::create(Path::new("/dev/null"), None).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null: not a regular file");
        assert!(Path::new("/dev/null").exists());
    }
}
