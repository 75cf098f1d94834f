//! The supervisor as its gateway sees it: `graygate run --supervise`, which has started this process, keeps
//! its listening sockets, and starts another one should this one die. The other side is
//! [`super::supervise`].
//!
//! They talk by a channel that is the gateway's standard input at its start. Whoever is without a supervisor,
//! from the start or since that has died, serves all the same.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, stdin};

use super::open_socket::OpenSocket;
use crate::admin::view::Supervision;
use crate::process::handover::{Channel, Message, SupervisorMessage};
use crate::process::{self, supervised};

/// Set for a process whose standard input is the channel to its supervisor.
pub(super) const SUPERVISED: &str = "GRAYGATE_SUPERVISED";

/// How long the supervisor may take to say what a gateway begins with, and for other answers.
const BEGIN: Duration = Duration::from_secs(10);

/// How much earlier a successor may ask than the supervisor's word about it is here.
const WORD: Duration = Duration::from_secs(2);

/// Between two looks for it.
const WORD_LOOK: Duration = Duration::from_millis(10);

/// Longer than any life: the end of the other side is seen at once.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// A socket that listens where it was asked to, or why there is none.
type BoundOrNot = Result<OwnedFd, String>;

/// A listening socket that the supervisor has kept: its kind and what the ini file calls it.
pub(super) type KeptDoor = (String, String, OwnedFd);

/// The supervisor of this process.
pub(super) struct Supervisor {
    channel: Channel,
    /// The supervisor's.
    pub(super) pid: u32,
    /// How often a gateway was started again since the supervisor was.
    restarts: u64,
    /// Why, the last time.
    reason: Option<String>,
    /// It has died, or left.
    is_gone: AtomicBool,
    /// The process that is to succeed this one, or 0.
    expected: AtomicU32,
    /// What it answers to who asks for a socket: one at a time.
    answers: Mutex<Receiver<BoundOrNot>>,
    answer: Sender<BoundOrNot>,
}

impl Supervisor {
    /// The supervisor that has started this process, if one has, and the sockets that it has kept.
    ///
    /// # Errors
    /// It has gone meanwhile, or the kernel's.
    pub(super) fn find() -> io::Result<Option<(Self, Vec<KeptDoor>)>> {
        if std::env::var_os(SUPERVISED).is_none() {
            return Ok(None);
        }
        // It is not for whatever this process starts.
        let Some(channel) = Channel::of(fcntl_dupfd_cloexec(stdin(), 0)?) else {
            return Ok(None);
        };
        dup2_stdin(File::open("/dev/null")?)?;
        let (answer, answers) = unbounded();
        let mut supervisor = Self {
            channel,
            pid: 0,
            restarts: 0,
            reason: None,
            is_gone: AtomicBool::new(false),
            expected: AtomicU32::new(0),
            answers: Mutex::new(answers),
            answer,
        };
        let mut kept = Vec::new();
        loop {
            match supervisor.channel.receive(BEGIN)? {
                Some((Message::Supervisor(message), _)) => supervisor.take_note(message),
                Some((Message::Door { kind, asked }, sockets)) => {
                    kept.extend(sockets.into_iter().next().map(|it| (kind, asked, it)));
                }
                Some((Message::Offered { .. }, _)) => return Ok(Some((supervisor, kept))),
                Some(_) => {}
                None => return Err(io::Error::other("the supervisor has gone")),
            }
        }
    }

    fn take_note(&mut self, message: SupervisorMessage) {
        if let SupervisorMessage::Supervised {
            pid,
            restarts,
            reason,
            oom,
        } = message
        {
            (self.pid, self.restarts, self.reason) = (pid, restarts, reason);
            if let Some(oom) = oom {
                // Then the kernel ends whom it likes.
                let _ = process::set_oom_score(oom);
            }
        }
    }

    /// What it has said of itself.
    pub(super) fn supervision(&self) -> Supervision {
        Supervision {
            pid: self.pid,
            restarts: self.restarts,
            reason: self.reason.clone(),
        }
    }

    /// Listens to it from now on. What is returned gets a word once it is no more: true when it has left, and
    /// false when it has died.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn attend(self: &Arc<Self>) -> io::Result<Receiver<bool>> {
        let (tell, gone) = bounded(1);
        let own = Arc::clone(self);
        supervised::spawn("supervisor", move || {
            let has_left = own.listen();
            own.is_gone.store(true, Ordering::Release);
            let _ = tell.send(has_left);
        })?;
        Ok(gone)
    }

    fn listen(&self) -> bool {
        let mut has_left = false;
        loop {
            match self.channel.receive(SILENCE) {
                Ok(Some((Message::Supervisor(SupervisorMessage::Expect { pid }), _))) => {
                    self.expected.store(pid, Ordering::Release);
                }
                Ok(Some((Message::Supervisor(SupervisorMessage::Left), _))) => has_left = true,
                Ok(Some((Message::Door { .. }, sockets))) => {
                    let socket = sockets.into_iter().next();
                    let socket = socket.ok_or_else(|| "it has sent no socket".to_owned());
                    // It is received by whoever asks next.
                    let _ = self.answer.send(socket);
                }
                Ok(Some((Message::Refused { reason }, _))) => drop(self.answer.send(Err(reason))),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Ok(None) | Err(_) => return has_left,
            }
        }
    }

    /// It is there no more.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Whether the process `pid` may succeed this one: the supervisor must have started it, else that would
    /// lose sight of the gateway.
    pub(super) fn lets(&self, pid: u32) -> bool {
        let until = Instant::now() + WORD;
        loop {
            if self.is_gone() || self.expected.load(Ordering::Acquire) == pid {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(WORD_LOOK);
        }
    }

    /// Has it bind an address that the ini file names, by the rights that it has kept.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn bind(&self, kind: &str, addr: SocketAddr) -> io::Result<OwnedFd> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have given up on an earlier one.
        while answers.try_recv().is_ok() {}
        self.tell(SupervisorMessage::Bind {
            kind: kind.to_owned(),
            asked: addr.to_string(),
        });
        let answer = answers.recv_timeout(BEGIN);
        let answer = answer.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        answer.map_err(|why| {
            let what = format!("cannot listen on {addr}: nor can the supervisor: {why}");
            io::Error::other(what)
        })
    }

    /// Tells it something.
    pub(super) fn tell(&self, message: SupervisorMessage) {
        // Its end is seen elsewhere.
        let _ = self.channel.send(&Message::Supervisor(message), &[]);
    }

    /// This process cannot start.
    pub(super) fn give_up(&self, reason: &str) {
        let reason = reason.to_owned();
        let _ = self.channel.send(&Message::Refused { reason }, &[]);
    }

    /// These are the listening sockets from now on, all of them: the supervisor keeps them for the next
    /// process, and no others.
    ///
    /// # Errors
    /// The kernel's. A supervisor that has gone is none.
    pub(super) fn doors_changed(&self, doors: &[OpenSocket]) -> io::Result<()> {
        let send = || {
            for OpenSocket {
                kind,
                asked,
                socket,
            } in doors
            {
                let door = Message::Door {
                    kind: (*kind).to_owned(),
                    asked: asked.clone(),
                };
                self.channel.send(&door, &[socket.as_fd()])?;
            }
            self.channel
                .send(&Message::Offered { has_lists: false }, &[])
        };
        match send() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }
}
