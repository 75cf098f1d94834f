//! The admin socket as a file: made for root and the gateway's group, and removed at the end.
//!
//! Who may connect is decided by its owner, group and mode alone, so these are right from the first
//! moment: nothing is changed afterwards by its path, at which somebody could have put another file.
//!
//! A gateway that was killed leaves its file behind. Whether one is dead is asked by a connection: only if
//! the kernel says that nobody listens is the file removed. Two gateways that start at once do so one
//! after the other, under a lock on the folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::process::Identity;

/// What is taken away from everybody: the socket is for its owner and its group.
const UMASK: Mode = Mode::S_IXUSR.union(Mode::S_IXGRP).union(Mode::S_IRWXO);

/// How long another process may hold the lock on the folder.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to get it.
const LOOK: Duration = Duration::from_millis(10);

/// A socket that listens, and its file.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    pub(crate) file: SocketFile,
    pub(crate) listener: UnixListener,
}

/// The file of a socket; removed when this is dropped, if the process has the right to.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It is another process's by now.
    is_left: bool,
}

impl AdminSocket {
    /// Listens at `path`, whose folder exists. The file will belong to the present user and the group of
    /// `owner`, or the present group without one. Files are made with another umask meanwhile, so no other
    /// thread should make any.
    ///
    /// # Errors
    /// When a live process listens there, or something else is in that place, which are left as they are;
    /// or the kernel's.
    pub(crate) fn bind(path: &Path, owner: Option<&Identity>) -> io::Result<Self> {
        let _lock = lock(folder_of(path))?;
        remove_dead(path)?;
        let before = umask(UMASK);
        let bind = || UnixListener::bind(path);
        let listener = match owner {
            None => bind(),
            Some(owner) => owner.with_group(bind).and_then(|it| it),
        };
        umask(before);
        Ok(Self {
            file: SocketFile::at(path)?,
            listener: listener?,
        })
    }

    /// Goes on with a socket at which another process has listened.
    ///
    /// # Errors
    /// When there is no file at `path`.
    pub(crate) fn adopt(path: &Path, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            file: SocketFile::at(path)?,
            listener: UnixListener::from(socket),
        })
    }
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            is_left: false,
        })
    }

    /// Leaves the file to another process; should that have no use for it, it goes with this.
    pub(crate) fn leave(&mut self) {
        self.is_left = true;
    }

    /// Gives it to the group of `owner`, as which the one that has listened here before may not have run.
    ///
    /// # Errors
    /// When there is another file by now; the kernel's.
    pub(crate) fn give_to_group_of(&self, owner: &Identity) -> io::Result<()> {
        if fs::symlink_metadata(&self.path)?.gid() == owner.group_id() {
            return Ok(());
        }
        // Not std's way to open: with musl, that drops O_PATH, without which a socket cannot be opened.
        let itself = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(open(&self.path, itself, Mode::empty())?);
        let found = file.metadata()?;
        // A second name would be how the folder's owner has root change a socket of somebody else.
        let is_this = (found.dev(), found.ino()) == (self.device, self.inode)
            && found.file_type().is_socket()
            && found.nlink() == 1;
        match is_this {
            true => owner.give_to_group(&file),
            false => Err(io::Error::other("there is another file")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // So that nobody makes another one between a look and what follows from it.
        let _lock = self.is_left.then(|| lock(folder_of(&self.path)));
        // Somebody may have removed it, and another gateway may have made its own.
        let found = fs::symlink_metadata(&self.path);
        let is_own = found.is_ok_and(|it| (it.dev(), it.ino()) == (self.device, self.inode));
        if is_own && (!self.is_left || is_dead(&self.path).unwrap_or(false)) {
            // If the folder refuses it, the next start finds that it is dead.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The lock on a folder, held until the file is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process keeps its folder locked"));
            }
        }
    }
}

/// Removes what a dead process has left at `path`.
fn remove_dead(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::other("there is something else than a socket"))
        }
        Ok(_) if is_dead(path)? => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a process that is running has it",
        )),
    }
}

/// Whether nobody listens at a socket, for certain.
fn is_dead(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One that has a queue to wait in is alive.
    socket.set_nonblocking(true)?;
    let outcome = socket.connect(&SockAddr::unix(path)?);
    Ok(outcome.is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused))
}
