//! A supervisor becomes another program: the same process, with its gateways, its pid file and the sockets
//! that it keeps.
//!
//! What it has goes through a channel whose other end is the standard input of the new program. So what the
//! new program does not understand closes, and no descriptor is known by its number.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, stdin};

use super::Parent;
use super::child::{Child, RESUMED};
use super::desk::{Desk, confirm};
use crate::process::PidFile;
use crate::process::handover::{Channel, HandoverSocket, Message, SupervisorMessage};
use crate::run::supervisor::KeptDoor;

impl Parent {
    /// Becomes `program`, which tells `asker` that the gateway `pid` serves. Returns why it does not.
    pub(super) fn become_program(
        &self,
        program: &Path,
        asker: Option<&Channel>,
        pid: u32,
    ) -> io::Error {
        let become_it = || {
            let (own, other) = Channel::pair()?;
            self.hand_on(&own, asker, pid)?;
            let before = fcntl_dupfd_cloexec(stdin(), 0)?;
            dup2_stdin(other)?;
            let mut command = Command::new(program);
            let command = command.args(["run", "--supervise", "-c"]).arg(&self.path);
            let error = command.env(RESUMED, "1").exec();
            dup2_stdin(before)?;
            Err::<(), _>(error)
        };
        become_it()
            .err()
            .unwrap_or_else(|| io::Error::other("nothing has happened"))
    }

    fn hand_on(&self, to: &Channel, asker: Option<&Channel>, pid: u32) -> io::Result<()> {
        let say = |what: SupervisorMessage, with: Option<BorrowedFd<'_>>| {
            to.send(&Message::Supervisor(what), with.as_slice())
        };
        say(self.supervised(), None)?;
        let current = self.current.iter().map(|it| (it, true));
        for (child, is_current) in current.chain(self.old.iter().map(|it| (it, false))) {
            for (kind, asked, socket) in &child.doors {
                let (kind, asked) = (kind.clone(), asked.clone());
                to.send(&Message::Door { kind, asked }, &[socket.as_fd()])?;
            }
            let serving = child.serving.map(|it| it.elapsed().as_millis());
            let gateway = SupervisorMessage::Gateway {
                pid: child.pid.as_raw().unsigned_abs(),
                is_current,
                serving_ms: serving.and_then(|it| u64::try_from(it).ok()),
            };
            say(gateway, child.channel.as_ref().map(AsFd::as_fd))?;
        }
        if let Some(pid_file) = &self.pid_file {
            let path = pid_file.path().to_string_lossy().into_owned();
            say(SupervisorMessage::PidFile { path }, Some(pid_file.as_fd()))?;
        }
        for socket in self.desk.sockets() {
            say(SupervisorMessage::Desk, Some(socket))?;
        }
        if let Some(asker) = asker {
            say(SupervisorMessage::Asker { pid }, Some(asker.as_fd()))?;
        }
        to.send(&Message::Offered { has_lists: false }, &[])
    }
}

/// What the program that was here before has left.
#[derive(Default)]
pub(super) struct Left {
    pub(super) current: Option<Child>,
    pub(super) old: Vec<Child>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) desk: Desk,
    pub(super) restarts: u64,
    pub(super) reason: Option<String>,
    pub(super) oom: Option<i64>,
}

/// Time for what is there already.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Left {
    /// What was left, if this program goes on in the place of another one.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn find() -> io::Result<Option<Self>> {
        if std::env::var_os(RESUMED).is_none() {
            return Ok(None);
        }
        let Some(channel) = Channel::of(fcntl_dupfd_cloexec(stdin(), 0)?) else {
            return Ok(None);
        };
        dup2_stdin(File::open("/dev/null")?)?;
        let (mut left, mut doors) = (Self::default(), Vec::new());
        while let Some((message, sockets)) = channel.receive(AT_ONCE)? {
            let mut socket = sockets.into_iter().next();
            match message {
                Message::Door { kind, asked } => {
                    doors.extend(socket.map(|it| (kind, asked, it)));
                }
                Message::Supervisor(message) => left.take(message, &mut socket, &mut doors),
                Message::Offered { .. } => break,
                _ => {}
            }
        }
        Ok(Some(left))
    }

    fn take(
        &mut self,
        message: SupervisorMessage,
        socket: &mut Option<OwnedFd>,
        doors: &mut Vec<KeptDoor>,
    ) {
        match message {
            SupervisorMessage::Supervised {
                restarts,
                reason,
                oom,
                ..
            } => (self.restarts, self.reason, self.oom) = (restarts, reason, oom),
            SupervisorMessage::Gateway {
                pid,
                is_current,
                serving_ms,
            } => {
                let now = Instant::now();
                let ago = serving_ms.map(Duration::from_millis);
                let child = Child {
                    pid: Pid::from_raw(pid.cast_signed()),
                    channel: socket.take().and_then(Channel::of),
                    serving: ago.map(|it| now.checked_sub(it).unwrap_or(now)),
                    is_ready: true,
                    refusal: None,
                    shown: Vec::new(),
                    doors: std::mem::take(doors),
                };
                match is_current {
                    true => self.current = Some(child),
                    false => self.old.push(child),
                }
            }
            SupervisorMessage::PidFile { path } => {
                let path = PathBuf::from(path);
                self.pid_file = socket.take().map(|it| PidFile::held(&path, it));
            }
            SupervisorMessage::Desk => {
                if let Some(socket) = socket.take() {
                    self.desk.add(HandoverSocket::from(socket));
                }
            }
            SupervisorMessage::Asker { pid } => {
                if let Some(asker) = socket.take().and_then(Channel::of) {
                    confirm(&asker, pid, None);
                }
            }
            _ => {}
        }
    }
}
