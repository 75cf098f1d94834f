//! The pid file. Its lock says which process is the gateway; its text is for others.
//!
//! It belongs to the user who started the gateway, and nobody else can write it, least of all the user
//! that the gateway becomes: root sends signals to the process that it names. Here its text is not
//! believed either. A gateway holds a lock on its pid file for as long as it lives (flock(2)), and the
//! kernel knows who holds a lock (`/proc/locks`), even if the file was removed or another number was
//! written into it.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::{Pid, geteuid};

use super::named;

/// Readable for everybody, writable for its owner.
const MODE: u32 = 0o644;

/// How often it is looked whether a predecessor has left the file.
const TAKE_LOOK: Duration = Duration::from_millis(5);

/// How often the creation of the file is tried: some file systems show every file as writable for
/// everybody.
const TRIES: usize = 100;

/// The file that tells the init script the process id. Locked for as long as this lives, so that only
/// one gateway can have it; removed when this is dropped, if the process still has the right to.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    /// Opened for reading only, so that an attacker who takes over the process cannot write the file
    /// through it.
    lock: File,
    /// For writing, until the process id is written.
    writer: Option<File>,
    /// Another process has it, by now or still.
    is_left: bool,
}

impl PidFile {
    /// Makes the file, empty, so that it can be written when the privileges to do so are gone. One
    /// that a process has left behind is taken over; one that somebody else may write is replaced.
    ///
    /// # Errors
    /// When another process holds it, which is left as it is; when others can write it however often it
    /// is made; or the kernel's, with the path.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let is_own =
            |found: &Metadata| found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
        Self::create_if(path, is_own)
    }

    fn create_if(path: &Path, is_own: impl Fn(&Metadata) -> bool) -> io::Result<Self> {
        let with_path = |error| named(path, &error);
        for _ in 0..TRIES {
            let writer = open(path).map_err(with_path)?;
            let lock = open_to_read(path).map_err(with_path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(taken(path)),
                Err(TryLockError::Error(error)) => return Err(with_path(error)),
            }
            // Its holder may have replaced it since; then the lock is worthless.
            if !is_at(&lock, path) || !is_at(&writer, path) {
                continue;
            }
            let found = lock.metadata().map_err(with_path)?;
            if !is_own(&found) {
                // Somebody may have it open for writing.
                fs::remove_file(path).map_err(with_path)?;
                continue;
            }
            // Whatever the umask is.
            let readable = writer.set_permissions(Permissions::from_mode(MODE));
            readable
                .and_then(|()| writer.set_len(0))
                .map_err(with_path)?;
            return Ok(Self {
                path: path.to_owned(),
                lock,
                writer: Some(writer),
                is_left: false,
            });
        }
        let what = "others can write it, or replace it again and again; \
                    it needs a file system that keeps a file's owner and mode";
        Err(with_path(io::Error::other(what)))
    }

    /// Opens the file of the gateway that this one succeeds, so that it can be [taken](Self::take) when the
    /// privileges to open it are gone.
    ///
    /// # Errors
    /// When others can write it; or the kernel's, with the path.
    pub(crate) fn of_predecessor(path: &Path) -> io::Result<Self> {
        let with_path = |error| named(path, &error);
        let writer = open(path).map_err(with_path)?;
        let lock = open_to_read(path).map_err(with_path)?;
        let found = lock.metadata().map_err(with_path)?;
        let is_own = found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
        if !is_own || !is_at(&lock, path) || !is_at(&writer, path) {
            return Err(with_path(io::Error::other(
                "others can write or replace it",
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            lock,
            writer: Some(writer),
            is_left: true,
        })
    }

    /// Opens the file of this process's supervisor, so that it can be [taken](Self::take) should that die.
    /// Its text stays that of the supervisor: this process has no right to change it.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn of_supervisor(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            lock: open_to_read(path).map_err(|error| named(path, &error))?,
            writer: None,
            is_left: true,
        })
    }

    /// Says that another process is the gateway from now on, and leaves the file to that.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn leave_to(mut self, pid: u32) -> io::Result<()> {
        let written = open(&self.path).and_then(|mut file| {
            file.set_len(0)?;
            file.write_all(format!("{pid}\n").as_bytes())
        });
        let written = written.map_err(|error| named(&self.path, &error));
        // Its lock goes with this.
        self.is_left = true;
        written
    }

    /// The file at `path`, whose lock this process has by this descriptor: another program has left it.
    pub(crate) fn held(path: &Path, lock: OwnedFd) -> Self {
        Self {
            path: path.to_owned(),
            lock: File::from(lock),
            writer: None,
            is_left: false,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file that its predecessor has left, or is about to leave within `limit`. What it says is
    /// that one's until [`Self::announce`].
    ///
    /// # Errors
    /// When somebody holds it; the kernel's, with the path.
    pub(crate) fn take(&mut self, limit: Duration) -> io::Result<()> {
        let until = Instant::now() + limit;
        let with_path = |error| named(&self.path, &error);
        loop {
            match self.lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(TAKE_LOOK);
                }
                Err(TryLockError::WouldBlock) => return Err(taken(&self.path)),
                Err(TryLockError::Error(error)) => return Err(with_path(error)),
            }
        }
        // One that is yet to be written is still the predecessor's, should this process fail.
        self.is_left = self.writer.is_some();
        Ok(())
    }

    /// Leaves the file to a successor: only its lock goes.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let left = self.lock.unlock();
        self.is_left = left.is_ok();
        left.map_err(|error| named(&self.path, &error))
    }

    /// Removes the file after [`Self::leave`], since the successor has another one; not if somebody else has
    /// it by now.
    pub(crate) fn give_up(mut self) {
        let is_nobodys = self.lock.try_lock().is_ok();
        let own = Pid::from_raw(std::process::id().cast_signed());
        self.is_left = !is_nobodys || read(&self.path).ok().flatten() != Some(own);
    }

    /// Takes the file again, since the successor has come to nothing before it has written anything.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn come_back(&mut self, limit: Duration) -> io::Result<()> {
        self.take(limit)
    }

    /// Writes the process id: the sign for the init script that the gateway serves. Afterwards nobody
    /// can write the file any more but who has started the gateway.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn announce(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        self.is_left = false;
        let line = format!("{}\n", std::process::id());
        // What was there is written over first: that takes no room on a disk that is full.
        let written = writer.write_all(line.as_bytes());
        let written = written.and_then(|()| writer.set_len(line.len() as u64));
        written.map_err(|error| named(&self.path, &error))
    }
}

/// What has the lock.
impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have removed the file, and another gateway may have created its own.
        if !self.is_left && is_at(&self.lock, &self.path) {
            // The folder may refuse it to an unprivileged user: then the lock is gone, which says the
            // same to those who look for it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Root must not be redirected by a link, nor wait for the other end of a pipe.
const WITH_CARE: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Opens the file without changing its content.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(MODE).custom_flags(WITH_CARE).open(path)?;
    // It will be removed later, which must not happen to a device.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

fn open_to_read(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(WITH_CARE).open(path)
}

/// True while `path` leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn taken(path: &Path) -> io::Error {
    let holder = holders(path).into_iter().flatten().next();
    let by = match (holder, read(path)) {
        (Some(pid), Ok(Some(_))) => format!("process {pid}, which is running"),
        (Some(pid), _) => format!("process {pid}, which is about to start or to end"),
        _ => "a process that is about to start or to end".to_owned(),
    };
    let what = format!("it belongs to {by}");
    named(path, &io::Error::new(io::ErrorKind::ResourceBusy, what))
}

/// # Errors
/// Another process than `supervisor` holds the file at `path`.
pub(crate) fn is_free_but_for(path: &Path, supervisor: u32) -> io::Result<()> {
    let is_other = |pid: &Pid| pid.as_raw() != supervisor.cast_signed();
    // Where there is no file, nobody holds it.
    match holders(path).unwrap_or_default().iter().any(is_other) {
        true => Err(taken(path)),
        false => Ok(()),
    }
}

/// True when the process has locked the file at `path`, and that names it, which only this user could have
/// written.
pub(crate) fn is_named_by(path: &Path, pid: u32) -> bool {
    let is_own = |found: &Metadata| found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
    let is_this = |it: &Pid| it.as_raw() == pid.cast_signed();
    fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && is_own(&it))
        && read(path).is_ok_and(|it| it.as_ref().is_some_and(is_this))
        && holders(path).is_ok_and(|it| it.iter().any(is_this))
}

/// The number in a pid file; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<Pid>> {
    let text = fs::read_to_string(path)?;
    let number = text.trim().parse().ok().filter(|pid| *pid > 0);
    Ok(number.map(Pid::from_raw))
}

/// Finds the gateway whose pid file is at `path`, or was there before somebody removed it.
///
/// # Errors
/// When none is running, as far as can be told.
pub(crate) fn find_gateway(path: &Path) -> Result<Pid, String> {
    let shown = path.display();
    let found = match holders(path) {
        Ok(holders) => holders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("{shown}: {error}")),
    };
    let of_removed = || holders_of_removed(path);
    let mut candidates = found.iter().copied().chain(of_removed());
    if let Some(pid) = candidates.find(|pid| is_gateway(*pid)) {
        return Ok(pid);
    }
    Err(match found.first() {
        Some(pid) => {
            format!("not running: {shown} is locked by process {pid}, which is not a gateway")
        }
        None if path.exists() => format!("not running: no gateway holds {shown}"),
        None => format!("not running: there is no {shown}"),
    })
}

/// The processes that have locked the file at `path`.
fn holders(path: &Path) -> io::Result<Vec<Pid>> {
    let file = fs::metadata(path)?;
    let locks = fs::read_to_string("/proc/locks");
    let locks = locks.map_err(|error| named(Path::new("/proc/locks"), &error))?;
    let mut holders = lock_holders(&locks, file.ino());
    holders.retain(|pid| has_open(*pid, &file));
    Ok(holders)
}

/// True when the process has this file open: two file systems have inodes of the same number. Whoever may
/// not look at the process cannot signal it either, so then it is believed.
fn has_open(pid: Pid, file: &Metadata) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return true;
    };
    // What the link leads to, even if that has no name any more.
    let mut open = open.flatten().filter_map(|it| fs::metadata(it.path()).ok());
    open.any(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

/// Who holds a lock of flock(2) on a file with that inode number, by the text of `/proc/locks`
/// (proc_locks(5)). By the number alone: some file systems show another device there than stat(2) does. So
/// these are candidates.
fn lock_holders(locks: &str, inode: u64) -> Vec<Pid> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        // For a process that is still waiting for a lock, there is an arrow in this place.
        let is_lock = words.next() == Some("FLOCK") && words.next().is_some();
        let (mode, pid, place) = (words.next()?, words.next()?, words.next()?);
        let is_on_file = place.rsplit(':').next()?.parse() == Ok(inode);
        let pid: i32 = pid.parse().ok().filter(|it| *it > 0)?;
        (is_lock && mode == "WRITE" && is_on_file).then(|| Pid::from_raw(pid))
    };
    locks.lines().filter_map(holder).collect()
}

/// The processes that have a file open which was at `path` and was removed. Others' are shown to root
/// only.
fn holders_of_removed(path: &Path) -> Vec<Pid> {
    let folder = path.parent().and_then(|it| it.canonicalize().ok());
    let (Some(folder), Some(name)) = (folder, path.file_name()) else {
        return Vec::new();
    };
    let mut shown = folder.join(name).into_os_string();
    shown.push(" (deleted)");
    let has_it_open = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut open = open.into_iter().flatten().flatten();
        open.any(|it| fs::read_link(it.path()).is_ok_and(|to| to.as_os_str() == shown))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    numbers.filter(has_it_open).map(Pid::from_raw).collect()
}

/// Whether a live process runs this program, or another version of it.
fn is_gateway(pid: Pid) -> bool {
    let of_process = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
    let status = fs::read_to_string(of_process("status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    // A zombie, which has ended and waits for its parent, is in state Z.
    let lives = state.is_some_and(|it| !it.trim_start().starts_with(['Z', 'X']));
    let program = match fs::read_link(of_process("exe")) {
        Ok(program) => last_part(&program),
        // The program of other users' processes is not visible.
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
    // The longest short name of a process.
    const SHORT: usize = 15;
    // The kernel appends this once the program was replaced by a newer one.
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
        let mut first = PidFile::create(&path).unwrap();
        assert_eq!(text(), "");
        let own = std::process::id();
        let error = PidFile::create(&path).unwrap_err().to_string();
        let about_to =
            format!("pid: it belongs to process {own}, which is about to start or to end");
        assert!(error.ends_with(&about_to), "{error}");
        first.announce().unwrap();
        let error = PidFile::create(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!(": it belongs to process {own}, which is running")));
        assert_eq!(text(), format!("{own}\n"));
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn who_holds_the_file_is_told_by_the_kernel_whatever_is_written_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let own = Pid::from_raw(std::process::id().cast_signed());
        let mut file = PidFile::create(&path).unwrap();
        file.announce().unwrap();
        fs::write(&path, "1\n").unwrap();
        assert_eq!(holders(&path).unwrap(), [own]);
        fs::remove_file(&path).unwrap();
        assert_eq!(holders_of_removed(&path), [own]);
        drop(file);
        assert_eq!(holders_of_removed(&path), []);
    }

    #[test]
    fn nobody_can_write_the_file_through_the_gateway_once_it_is_announced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let mut file = PidFile::create(&path).unwrap();
        file.announce().unwrap();
        assert!((&file.lock).write_all(b"1\n").is_err());
        assert!(file.writer.is_none());
    }

    #[test]
    fn where_every_file_is_everybodys_none_is_made_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let error = PidFile::create_if(&path, |_| false).unwrap_err();
        let said =
            "pid: others can write it, or replace it again and again; it needs a file system";
        assert!(error.to_string().contains(said), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_others_could_write_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "4711\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let mut open_before = OpenOptions::new().append(true).open(&path).unwrap();
        let mut file = PidFile::create(&path).unwrap();
        open_before.write_all(b"1\n").unwrap();
        file.announce().unwrap();
        let own = std::process::id();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{own}\n"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
    }

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:19:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ  12 00:19:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:19:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:19:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:19:77 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 15 00:19:771 0 EOF\n\
                     6: OFDLCK ADVISORY  WRITE -1 00:19:77 0 EOF\n\
                     7: FLOCK\n\n";
        assert_eq!(lock_holders(locks, 77), [Pid::from_raw(13)]);
    }

    #[test]
    fn a_file_that_another_has_made_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let first = PidFile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut second = PidFile::create(&path).unwrap();
        second.announce().unwrap();
        drop(first);
        assert!(!fs::read_to_string(&path).unwrap().is_empty());
    }

    #[test]
    fn a_device_is_no_pid_file() {
        let error = PidFile::create(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null: not a regular file");
        assert!(Path::new("/dev/null").exists());
    }
}
