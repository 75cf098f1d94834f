//! The process around the gateway: signals, the pid file, privileges, limits, and threads that are
//! restarted after a panic.

pub(crate) mod clock;
pub(crate) mod figures;
pub(crate) mod handover;
pub(crate) mod lineage;
pub(crate) mod notices;
mod pid_file;
pub(crate) mod secret;
mod startup;
pub(crate) mod supervised;

use std::fs::File;
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{
    Gid, Group, Uid, User, fchownat, getegid, geteuid, getgroups, initgroups, setegid, seteuid,
    setgid, setgroups, setuid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::net;

pub(crate) use self::pid_file::PidFile;
pub(crate) use self::pid_file::{find_gateway, is_free_but_for, is_named_by};
pub(crate) use self::startup::Startup;

/// How long it may take until a process whose files are closed is seen to have ended.
const END_SEEN: std::time::Duration = std::time::Duration::from_secs(1);

/// True when `pid` is a child of `parent`.
pub(crate) fn is_child_of(pid: u32, parent: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have blanks; behind it are the state and the parent.
    let mut rest = stat.rsplit_once(") ").map_or("", |(_, it)| it).split(' ');
    rest.nth(1).and_then(|it| it.parse().ok()) == Some(parent)
}

/// True when there is no such process any more, whoever is yet to ask how it has ended (proc_pid_stat(5)).
pub(crate) fn has_ended(pid: u32) -> bool {
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may have blanks.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|it| !it.starts_with(['Z', 'X']))
    };
    let until = std::time::Instant::now() + END_SEEN;
    while is_there() {
        if std::time::Instant::now() >= until {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    true
}

/// What an operator asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// SIGTERM, SIGINT: finish what is under way, and exit.
    Drain,
    /// SIGHUP: read the configuration anew.
    Reload,
    /// SIGUSR1: open the log files anew.
    ReopenLogs,
    /// SIGUSR2: put the program that lies at this one's path in its place.
    Upgrade,
}

/// Starts to turn signals into commands.
///
/// # Errors
/// When the handlers or their thread cannot be set up.
pub fn commands() -> io::Result<Receiver<Command>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    // A supervisor has them held until here, so that none is lost, and none ends the process.
    SigSet::all().thread_unblock()?;
    let (commands, inbox) = unbounded();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let command = match signal {
                    SIGHUP => Command::Reload,
                    SIGUSR1 => Command::ReopenLogs,
                    SIGUSR2 => Command::Upgrade,
                    _ => Command::Drain,
                };
                if commands.send(command).is_err() {
                    return;
                }
            }
        })?;
    Ok(inbox)
}

/// The user that the process becomes once it has what needs root.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    user: User,
    group: Gid,
}

impl Identity {
    /// Looks up who `user` and `group` are. `None` when there is nothing to become: no user is
    /// configured, or the process is not root's.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub(crate) fn find(user: Option<&str>, group: Option<&str>) -> io::Result<Option<Self>> {
        let Some(name) = user.filter(|_| geteuid().is_root()) else {
            return Ok(None);
        };
        let unknown = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
        let user = User::from_name(name)?
            .ok_or_else(|| unknown(format!("[gateway] user = {name}: there is no such user")))?;
        let group = match group {
            None => user.gid,
            Some(name) => {
                let found = Group::from_name(name)?;
                let missing =
                    || unknown(format!("[gateway] group = {name}: there is no such group"));
                found.ok_or_else(missing)?.gid
            }
        };
        Ok(Some(Self { user, group }))
    }

    /// Becomes this user, for good. Must be called before other threads depend on their user.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn assume(&self) -> io::Result<()> {
        self.join_groups()?;
        setgid(self.group)?;
        setuid(self.user.uid)?;
        Ok(())
    }

    /// Runs `action` with this user's rights, and then restores the process's own. Rights are those of
    /// the whole process, so it must do nothing else meanwhile.
    ///
    /// # Errors
    /// The kernel's. The process should then exit, whatever its rights are.
    pub(crate) fn act<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        let (groups, group, user) = (getgroups()?, getegid(), geteuid());
        self.join_groups()?;
        setegid(self.group)?;
        seteuid(self.user.uid)?;
        let outcome = action();
        seteuid(user)?;
        setegid(group)?;
        setgroups(&groups)?;
        Ok(outcome)
    }

    /// Runs `action` with this user's group, to which the files belong that it makes, and then restores the
    /// process's own. As with [`Identity::act`], the process must do nothing else meanwhile.
    ///
    /// # Errors
    /// The kernel's. The process should then exit, whatever its group is.
    pub(crate) fn with_group<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        let group = getegid();
        setegid(self.group)?;
        let outcome = action();
        setegid(group)?;
        Ok(outcome)
    }

    /// The number of the group.
    pub(crate) fn group_id(&self) -> u32 {
        self.group.as_raw()
    }

    /// Gives an open file to this user's group, also one that is open by its path only (O_PATH).
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn give_to_group(&self, file: &std::fs::File) -> io::Result<()> {
        let by_descriptor = nix::fcntl::AtFlags::AT_EMPTY_PATH;
        Ok(fchownat(file, "", None, Some(self.group), by_descriptor)?)
    }

    fn join_groups(&self) -> io::Result<()> {
        let name = std::ffi::CString::new(self.name())?;
        Ok(initgroups(&name, self.group)?)
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.user.name
    }

    fn ids(&self) -> (Uid, Gid) {
        (self.user.uid, self.group)
    }
}

/// Makes `owner` the owner of a file or folder, if there is one.
///
/// # Errors
/// The kernel's.
pub(crate) fn give_to(file: &File, owner: Option<&Identity>) -> io::Result<()> {
    match owner {
        None => Ok(()),
        Some(owner) => {
            let (user, group) = owner.ids();
            fchown(file, Some(user.as_raw()), Some(group.as_raw()))
        }
    }
}

/// Descriptors that are needed besides those of connections and workers.
const OTHER_DESCRIPTORS: u64 = 64;

/// For how many connections there were not enough descriptors when they were last asked for, or 0. The
/// process's, as its limit is.
static ASKED_IN_VAIN: AtomicUsize = AtomicUsize::new(0);

/// For how many connections there were not enough descriptors, if there were not.
pub(crate) fn connections_in_vain() -> Option<usize> {
    Some(ASKED_IN_VAIN.load(Ordering::Relaxed)).filter(|it| *it > 0)
}

/// Raises the process's limit to as many descriptors as `workers` and `connections` can need: one
/// downstream and one upstream for each connection. Returns for how many connections, at least one,
/// there are descriptors; if fewer than requested, that is a warning in the log.
///
/// # Errors
/// The kernel's.
pub(crate) fn allow_connections(connections: usize, workers: usize) -> io::Result<usize> {
    let others = OTHER_DESCRIPTORS + (workers * net::DESCRIPTORS) as u64;
    let wanted = 2 * connections as u64 + others;
    let allowed = allow_descriptors(wanted)?;
    let is_short = allowed < wanted;
    ASKED_IN_VAIN.store(if is_short { connections } else { 0 }, Ordering::Relaxed);
    if !is_short {
        return Ok(connections);
    }
    let possible = (allowed.saturating_sub(others) / 2).max(1);
    log::warn!(
        "descriptors-short wanted={wanted} allowed={allowed} max_connections={possible} \
         remedy=\"raise the limit (ulimit -n), or lower max_connections\""
    );
    Ok(usize::try_from(possible).unwrap_or(connections))
}

/// Raises the limit of descriptors to `wanted`, or as near to it as is allowed; returns the limit.
fn allow_descriptors(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted {
        return Ok(soft);
    }
    // Only root may raise the hard limit.
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    let most = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
    Ok(most)
}

/// Makes the kernel end this process sooner or later than others when memory is short: from -1000, never, to
/// 1000 (proc_pid_oom_score_adj(5)). Returns what it was before.
///
/// # Errors
/// Only root may lower it.
pub(crate) fn set_oom_score(score: i64) -> io::Result<i64> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(FILE)?;
    std::fs::write(FILE, score.to_string())?;
    Ok(before.trim().parse().unwrap_or_default())
}

/// An error that names the path it is about.
pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Sends panics to the error log instead of standard error, each with its location.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // Whoever wanted it is told, and tells.
        if net::is_spawning() {
            return;
        }
        let backtrace = std::backtrace::Backtrace::force_capture();
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        log::error!(
            "panic place={place} what={what:?} backtrace={:?}",
            backtrace.to_string()
        );
    }));
}
