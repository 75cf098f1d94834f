//! A gateway as its supervisor sees it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::handover::{Channel, Message, SupervisorMessage};
use crate::process::notices::{MANAGER, WATCHED};
use crate::run::supervisor::{KeptDoor, SUPERVISED};
use crate::run::upgrade::VARIABLE;

/// This very program, even when another one lies at its path by now.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Set for a supervisor that goes on in the place of another program: see [`super::replacement`].
pub(super) const RESUMED: &str = "GRAYGATE_SUPERVISOR_RESUMED";

/// A gateway process.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// Gone once the other end is.
    pub(super) channel: Option<Channel>,
    /// Since it serves.
    pub(super) serving: Option<Instant>,
    /// It has lists.
    pub(super) is_ready: bool,
    /// Why it could not start, as it has said.
    pub(super) refusal: Option<String>,
    /// Sockets that it has shown, until it has shown all of them.
    pub(super) shown: Vec<KeptDoor>,
    /// Its listening sockets, as it has shown them.
    pub(super) doors: Vec<KeptDoor>,
}

/// What to start.
pub(super) struct Start<'a> {
    pub(super) config: &'a Path,
    /// Another program than this one.
    pub(super) program: Option<&'a Path>,
    /// There is a gateway, which it must succeed.
    pub(super) succeeds: bool,
    /// What it is to know of its supervisor.
    pub(super) supervised: SupervisorMessage,
    /// What another one has listened with.
    pub(super) doors: &'a [KeptDoor],
}

impl Child {
    /// Starts one. It is in a group of its own, so that what a terminal sends comes by the supervisor alone.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn start(start: &Start<'_>) -> io::Result<Self> {
        let (channel, other) = Channel::pair()?;
        let own = std::env::args_os()
            .next()
            .unwrap_or_else(|| "graygate".into());
        let shown: &OsStr = start.program.map_or(&own, Path::as_os_str);
        let mut command = Command::new(start.program.unwrap_or(Path::new(THIS_PROGRAM)));
        command
            .arg0(shown)
            .arg("run")
            .arg("-c")
            .arg(start.config)
            .env(SUPERVISED, "1")
            .env_remove(VARIABLE)
            .env_remove(RESUMED)
            .env_remove(MANAGER)
            .env_remove(WATCHED)
            .stdin(Stdio::from(other))
            .process_group(0);
        if start.succeeds {
            command.env(VARIABLE, "1");
        }
        let pid = command.spawn()?.id();
        drop(command);
        let child = Self {
            pid: Pid::from_raw(pid.cast_signed()),
            channel: Some(channel),
            serving: None,
            is_ready: false,
            refusal: None,
            shown: Vec::new(),
            doors: Vec::new(),
        };
        child.send(&Message::Supervisor(start.supervised.clone()), &[]);
        for door in start.doors {
            let (kind, asked) = (door.0.clone(), door.1.clone());
            child.send(&Message::Door { kind, asked }, std::slice::from_ref(door));
        }
        child.send(&Message::Offered { has_lists: false }, &[]);
        Ok(child)
    }

    /// Says something to it, with these sockets.
    pub(super) fn send(&self, message: &Message, doors: &[KeptDoor]) {
        if let Some(channel) = &self.channel {
            let sockets: Vec<_> = doors.iter().map(|it| it.2.as_fd()).collect();
            // Its end is seen when its status is read.
            let _ = channel.send(message, &sockets);
        }
    }

    /// As [`Self::send`], without sockets.
    pub(super) fn tell(&self, message: SupervisorMessage) {
        self.send(&Message::Supervisor(message), &[]);
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It has not been waited for, so the number is its own still.
        let _ = kill(self.pid, signal);
    }
}
