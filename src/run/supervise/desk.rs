//! Where a supervisor is asked for something: see [`super::asking`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use log::Level;

use super::{AT_ONCE, Parent};
use crate::process::handover::{Channel, HandoverSocket, Message, SupervisorMessage};
use crate::process::notices::Notice;
use crate::run::upgrade::supervisor_names_of;

/// Those who have come, and said nothing yet.
const MOST: usize = 8;

/// Who asks.
#[derive(Default)]
pub(super) struct Desk {
    /// One for each name that does not belong to somebody else.
    sockets: Vec<HandoverSocket>,
    waiting: Vec<Channel>,
}

impl Desk {
    /// Opens it for whoever runs with the same ini file.
    ///
    /// # Errors
    /// Another supervisor has it, in words. Somebody who is nobody to be trusted cannot keep a gateway from
    /// starting: that costs the desk only.
    pub(super) fn open(config: &Path) -> Result<(Self, Option<io::Error>), String> {
        let (mut desk, mut closed) = (Self::default(), None);
        for name in supervisor_names_of(config) {
            match HandoverSocket::open(&name) {
                Ok(socket) => desk.add(socket),
                Err(error) => {
                    if let Ok(Some(other)) = Channel::connect(&name) {
                        let (path, pid) = (config.display(), other.pid().unwrap_or_default());
                        return Err(format!("{path}: it is supervised by process {pid}"));
                    }
                    closed = Some(error);
                }
            }
        }
        Ok((desk, closed))
    }

    /// Attends one that is open, also if another program has opened it.
    pub(super) fn add(&mut self, socket: HandoverSocket) {
        self.sockets.push(socket);
    }

    /// What to wait at.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets().chain(self.waiting.iter().map(AsFd::as_fd))
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// What somebody asks, if somebody does.
    fn next(&mut self) -> Option<(Channel, SupervisorMessage)> {
        for socket in &self.sockets {
            while let Ok(Some(channel)) = socket.accept_now() {
                if self.waiting.len() == MOST {
                    self.waiting.remove(0);
                }
                self.waiting.push(channel);
            }
        }
        let mut at = 0;
        while at < self.waiting.len() {
            match self.waiting[at].receive(AT_ONCE) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => at += 1,
                Ok(Some((Message::Supervisor(message), _))) => {
                    return Some((self.waiting.remove(at), message));
                }
                _ => drop(self.waiting.remove(at)),
            }
        }
        None
    }
}

/// Says why something is not done.
pub(super) fn refuse(asker: &Channel, reason: &str) {
    let reason = reason.to_owned();
    // It may have gone.
    let _ = asker.send(&Message::Refused { reason }, &[]);
}

/// Says that it is done.
pub(super) fn confirm(asker: &Channel, pid: u32, note: Option<String>) {
    let done = SupervisorMessage::Done { pid, note };
    // It may have gone.
    let _ = asker.send(&Message::Supervisor(done), &[]);
}

impl Parent {
    /// Does what was asked.
    pub(super) fn attend(&mut self) {
        while let Some((asker, message)) = self.desk.next() {
            match message {
                SupervisorMessage::Upgrade { program } => {
                    self.begin_upgrade(Some(program.into()), Some(asker));
                }
                SupervisorMessage::Leave => self.leave(&asker),
                _ => refuse(&asker, "it is not known what that is"),
            }
        }
    }

    /// Ends at once, and leaves the gateway serving: the next supervisor takes over from it.
    fn leave(&mut self, asker: &Channel) {
        let is_busy = self.succession.is_some() || self.end.is_some();
        let Some(child) = self.current.take_if(|it| it.serving.is_some() && !is_busy) else {
            let why = match is_busy {
                true => "it is about to end, or to be upgraded",
                false => "no gateway serves",
            };
            refuse(asker, why);
            return;
        };
        let pid = child.pid.as_raw().unsigned_abs();
        self.tell(Level::Info, &format!("supervisor-leaves gateway={pid}"));
        if let Some(pid_file) = self.pid_file.take()
            && let Err(error) = pid_file.leave_to(pid)
        {
            let error = error.to_string();
            self.tell(Level::Error, &format!("pid-file-not-left error={error:?}"));
        }
        child.tell(SupervisorMessage::Left);
        self.notices.tell(Notice::Ends);
        self.old.clear();
        self.end = Some(0);
        confirm(asker, pid, None);
    }
}
