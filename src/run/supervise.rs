//! `graygate run --supervise`: a small process that outlives the gateways which it starts.
//!
//! It keeps a duplicate of every listening socket, so that when a gateway dies, connections wait in the
//! kernel for the next one instead of being refused. It owns the pid file, under one process id for years,
//! and it keeps root's rights, which a gateway gives up. It serves nothing itself: one thread, which waits
//! for signals and for what its gateways say, and no runtime.
//!
//! ```text
//!              start
//!                |  it never served: the supervisor ends with it
//!                v
//!   +-------> serving ------ dies -----> pause, longer each time ----+
//!   |            |                            ^                      |
//!   |            | SIGTERM          bad ini   |  the file changes    |
//!   |            v                            v                      |
//!   |         draining                    waiting                    |
//!   |            |                                                   |
//!   |            v                                                   |
//!   |           end                                                  |
//!   +----------------------------------------------------------------+
//! ```
//!
//! Signals are read from a descriptor, and held back otherwise, so none is lost at any time.

pub(crate) mod asking;
mod binding;
mod child;
mod desk;
mod events;
mod pauses;
mod replacement;
mod succession;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use log::Level;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::child::{Child, Start};
use self::desk::Desk;
use self::pauses::Pauses;
use self::replacement::Left;
use self::succession::Succession;
use super::load;
use super::supervisor::KeptDoor;
use super::upgrade::starting;
use crate::config::Config;
use crate::process::handover::{Message, SupervisorMessage};
use crate::process::notices::{Notice, Notices};
use crate::process::{self, PidFile};

/// What it listens to. The others do what they always do.
const SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCHLD,
    Signal::SIGABRT,
];

/// For a message that is there already.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How often it is looked whether the ini file has changed, when a gateway waits for that.
const FILE_LOOK: Duration = Duration::from_secs(1);

/// How long a gateway that has died may still hold its pid file.
const PID_FILE_WAIT: Duration = Duration::from_secs(5);

/// Most listening sockets that are kept: many more than anybody names.
const MOST_DOORS: usize = 1024;

/// When memory is short, the kernel ends a gateway rather than its supervisor.
const OOM_SCORE: i64 = -900;

/// Starts a gateway with the ini file at `path`, and another one whenever it dies, until a signal ends that.
/// Returns the exit code of the last one.
///
/// # Errors
/// One line that says why it cannot start. A gateway that cannot start the first time has said so itself.
pub(crate) fn supervise(path: &Path) -> Result<u8, String> {
    let signals = SIGNALS.into_iter().collect::<SigSet>();
    let in_words = |error: Errno| format!("signals: {error}");
    signals.thread_block().map_err(in_words)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).map_err(in_words)?;
    // It is remembered.
    let _ = starting::own_program();
    let config = load(path)?;
    let mut parent = match Left::find().map_err(|error| error.to_string())? {
        Some(left) => Parent::of(path, config, signals, left),
        None => Parent::begin(path, config, signals)?,
    };
    if parent.current.is_none() {
        parent.start().map_err(|error| error.to_string())?;
    }
    parent.follow()
}

/// Takes the file, or opens it for later: it may belong to a gateway whose supervisor has died, and which the
/// first child will succeed.
fn take_pid_file(path: &Path) -> io::Result<PidFile> {
    match PidFile::create(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => PidFile::of_predecessor(path),
        outcome => outcome,
    }
}

/// What to do without a gateway.
#[derive(Debug)]
enum Without {
    /// There is one.
    Nothing,
    /// Start one then.
    Start(Instant),
    /// Start one then, or once the ini file is another one: it may be to blame.
    StartOr(Instant, FileMark),
    /// Start one once the ini file is another one.
    WaitForFile(FileMark),
}

/// By which it is seen that a file was changed or replaced.
#[derive(Debug, PartialEq, Eq)]
struct FileMark(Option<(u64, u64, Option<SystemTime>)>);

impl FileMark {
    fn of(path: &Path) -> Self {
        let found = fs::metadata(path).ok();
        Self(found.map(|it| (it.dev(), it.ino(), it.modified().ok())))
    }
}

/// The supervisor.
struct Parent {
    path: PathBuf,
    /// As it was read last.
    config: Config,
    signals: SignalFd,
    pid_file: Option<PidFile>,
    /// The gateway.
    current: Option<Child>,
    /// Those on their way out.
    old: Vec<Child>,
    /// The listening sockets of one that has died.
    doors: Vec<KeptDoor>,
    succession: Option<Succession>,
    desk: Desk,
    pauses: Pauses,
    restarts: u64,
    /// Why, the last time.
    reason: Option<String>,
    /// The process's share of the blame before it was lowered.
    oom: Option<i64>,
    without: Without,
    /// The service manager.
    notices: Notices,
    /// When it is to hear that all is well without a gateway.
    next_turn: Instant,
    /// It is about to end, with this exit code: that of the last gateway.
    end: Option<u8>,
}

impl Parent {
    fn begin(path: &Path, config: Config, signals: SignalFd) -> Result<Self, String> {
        let (desk, closed) = Desk::open(path)?;
        let pid_file = config.gateway.pid_file.as_deref().map(take_pid_file);
        let left = Left {
            pid_file: pid_file.transpose().map_err(|error| error.to_string())?,
            desk,
            // Only root may lower it. Others' gateways take more memory, too.
            oom: process::set_oom_score(OOM_SCORE).ok(),
            ..Left::default()
        };
        let parent = Self::of(path, config, signals, left);
        if let Some(error) = closed {
            let error = error.to_string();
            parent.tell(
                Level::Error,
                &format!("supervisor-unavailable error={error:?}"),
            );
        }
        Ok(parent)
    }

    fn of(path: &Path, config: Config, signals: SignalFd, left: Left) -> Self {
        Self {
            path: path.to_owned(),
            config,
            signals,
            pid_file: left.pid_file,
            current: left.current,
            old: left.old,
            doors: Vec::new(),
            succession: None,
            desk: left.desk,
            pauses: Pauses::default(),
            restarts: left.restarts,
            reason: left.reason,
            oom: left.oom,
            without: Without::Nothing,
            notices: Notices::to_manager(),
            next_turn: Instant::now(),
            end: None,
        }
    }

    /// What a gateway is to know.
    fn supervised(&self) -> SupervisorMessage {
        SupervisorMessage::Supervised {
            pid: std::process::id(),
            restarts: self.restarts,
            reason: self.reason.clone(),
            oom: self.oom,
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let started = Child::start(&Start {
            config: &self.path,
            program: None,
            succeeds: false,
            supervised: self.supervised(),
            doors: &self.doors,
        })?;
        self.without = Without::Nothing;
        self.current = Some(started);
        Ok(())
    }

    /// Waits for whatever happens, until the end.
    fn follow(mut self) -> Result<u8, String> {
        loop {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                if let Ok(signal) = Signal::try_from(number) {
                    self.on_signal(signal);
                }
            }
            self.hear();
            self.reap();
            self.look();
            self.look_at_upgrade();
            self.turn();
            self.attend();
            if let Some(code) = self.end
                && self.current.is_none()
                && self.old.is_empty()
            {
                return Ok(code);
            }
            self.wait().map_err(|error| error.to_string())?;
        }
    }

    /// Waits until something has happened, or it is time for something.
    fn wait(&self) -> io::Result<()> {
        let channels = self.children().filter_map(|it| it.channel.as_ref());
        let mut waits = vec![PollFd::new(&self.signals, PollFlags::IN)];
        waits.extend(channels.map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::IN)));
        let waiting = self.desk.descriptors();
        waits.extend(waiting.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)));
        let left = |when: &Instant| when.saturating_duration_since(Instant::now());
        let limit = match &self.without {
            _ if self.has_successor() => None,
            Without::Nothing => None,
            Without::Start(when) => Some(left(when)),
            Without::StartOr(when, _) => Some(left(when).min(FILE_LOOK)),
            Without::WaitForFile(_) => Some(FILE_LOOK),
        };
        let upgrade = self.succession.as_ref().map(|it| left(&it.until));
        let turn = self.own_pace().map(|_| left(&self.next_turn));
        let limit = limit.into_iter().chain(upgrade).chain(turn).min();
        let limit = limit.map(Timespec::try_from).transpose();
        let limit = limit.map_err(io::Error::other)?;
        match poll(&mut waits, limit.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            outcome => outcome.map(drop).map_err(io::Error::from),
        }
    }

    /// How often this process is to say that all is well, while there is no gateway that serves and would.
    fn own_pace(&self) -> Option<Duration> {
        let serves = self.current.as_ref().is_some_and(|it| it.serving.is_some());
        self.notices.pace().filter(|_| !serves)
    }

    fn turn(&mut self) {
        let now = Instant::now();
        if let Some(pace) = self.own_pace().filter(|_| self.next_turn <= now) {
            self.notices.tell(Notice::Turns);
            self.next_turn = now + pace;
        }
    }

    fn children(&self) -> impl Iterator<Item = &Child> {
        let successor = self.succession.iter().filter_map(Succession::child);
        self.current.iter().chain(&self.old).chain(successor)
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM | Signal::SIGINT => self.drain(),
            Signal::SIGHUP | Signal::SIGUSR1 => {
                if let Some(child) = &self.current {
                    child.signal(signal);
                }
                self.remember(signal);
                // Whoever asks for a reload has done something about it.
                if !matches!(self.without, Without::Nothing) {
                    self.without = Without::Start(Instant::now());
                }
            }
            Signal::SIGUSR2 => self.begin_upgrade(None, None),
            Signal::SIGABRT => self.abort(),
            _ => {}
        }
    }

    /// A service manager says so when it has not heard of the gateway for too long: nobody is to be left that
    /// has the listening sockets and does not answer.
    fn abort(&mut self) {
        self.tell(
            Level::Error,
            "supervisor-aborted reason=\"the service manager has ended it\"",
        );
        for child in self.children() {
            child.signal(Signal::SIGKILL);
        }
        self.drain();
    }

    /// Ends once all gateways have. They hurry if they were told to end before.
    fn drain(&mut self) {
        // Nobody would be there for connections that wait here.
        self.drop_upgrade();
        self.doors.clear();
        let children = self.current.iter_mut().chain(&mut self.old);
        children.for_each(|it| it.doors.clear());
        self.without = Without::Nothing;
        self.end.get_or_insert(0);
        self.notices.tell(Notice::Ends);
        for child in self.children() {
            child.signal(Signal::SIGTERM);
        }
    }

    /// Reads what gateways say.
    fn hear(&mut self) {
        let pids: Vec<Pid> = self.children().map(|it| it.pid).collect();
        for pid in pids {
            while let Some((message, sockets)) = self.next_message(pid) {
                self.on_message(pid, message, sockets);
            }
        }
    }

    fn child(&mut self, pid: Pid) -> Option<&mut Child> {
        let successor = self.succession.iter_mut().filter_map(Succession::child_mut);
        let children = self.current.iter_mut().chain(&mut self.old);
        children.chain(successor).find(|it| it.pid == pid)
    }

    fn next_message(&mut self, pid: Pid) -> Option<(Message, Vec<std::os::fd::OwnedFd>)> {
        let child = self.child(pid)?;
        match child.channel.as_ref()?.receive(AT_ONCE) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            Ok(Some(message)) => Some(message),
            Ok(None) | Err(_) => {
                child.channel = None;
                None
            }
        }
    }

    fn on_message(&mut self, pid: Pid, message: Message, sockets: Vec<std::os::fd::OwnedFd>) {
        let is_current = self.current.as_ref().is_some_and(|it| it.pid == pid);
        let is_successor = self.succession.as_ref().and_then(Succession::child);
        let is_successor = is_successor.is_some_and(|it| it.pid == pid);
        let is_ending = self.end.is_some();
        let Some(child) = self.child(pid) else {
            return;
        };
        match message {
            Message::Door { kind, asked } if child.shown.len() < MOST_DOORS => {
                let shown = sockets.into_iter().next().map(|it| (kind, asked, it));
                child.shown.extend(shown);
            }
            Message::Offered { .. } => {
                let shown = std::mem::take(&mut child.shown);
                if !is_ending {
                    child.doors = shown;
                }
                if is_current {
                    self.doors.clear();
                }
            }
            Message::Refused { reason } if is_successor => self.give_successor_up(&reason),
            Message::Refused { reason } => child.refusal = Some(reason),
            Message::Supervisor(SupervisorMessage::Notice(notice)) => {
                child.is_ready |= notice == Notice::Ready;
                // How it all ends is for the supervisor to say.
                if is_current && !is_ending && notice != Notice::Ends {
                    self.notices.tell(notice);
                }
            }
            Message::Supervisor(SupervisorMessage::Bind { kind, asked }) => {
                self.bind_for(pid, kind, asked);
            }
            Message::Supervisor(SupervisorMessage::Serving) => {
                child.serving = Some(Instant::now());
                match is_successor {
                    true => self.succeed(),
                    false if is_current => self.announce(),
                    false => {}
                }
            }
            _ => {}
        }
    }

    /// A gateway serves, and so whoever waits for that may look.
    fn announce(&mut self) {
        let Some(pid_file) = &mut self.pid_file else {
            return;
        };
        let taken = pid_file.take(PID_FILE_WAIT);
        if let Err(error) = taken.and_then(|()| pid_file.announce()) {
            let error = error.to_string();
            self.tell(Level::Error, &format!("pid-file-not-taken error={error:?}"));
        }
    }

    /// Learns which processes have ended, whosever they were: in a container, this may be the first one.
    fn reap(&mut self) {
        // It is left to be waited for at first: what is heard can make another program of this one, which
        // would wait for it for ever.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(ended) = waitid(Id::All, look) {
            let Some(pid) = ended.pid() else {
                return;
            };
            // It may have said something at last.
            self.hear();
            let Ok(status) = waitpid(pid, None) else {
                return;
            };
            self.old.retain(|it| it.pid != pid);
            if self.has_ended_in_upgrade(pid, status) {
                continue;
            }
            if let Some(child) = self.current.take_if(|it| it.pid == pid) {
                self.on_end(child, status);
            }
        }
    }

    fn on_end(&mut self, child: Child, status: WaitStatus) {
        if let Some(end) = &mut self.end {
            *end = code(status);
            return;
        }
        if self.restarts == 0 && child.serving.is_none() {
            // It has said why.
            self.end = Some(code(status).max(1));
            return;
        }
        // If it has not shown any, it has died before it could.
        if !child.doors.is_empty() {
            self.doors = child.doors;
        }
        let pause = self.pauses.after(child.serving, Instant::now());
        let when = Instant::now() + pause;
        let mark = child.refusal.is_some().then(|| FileMark::of(&self.path));
        self.without = match mark {
            Some(mark) => Without::StartOr(when, mark),
            None => Without::Start(when),
        };
        let reason = child.refusal.unwrap_or_else(|| shown(status));
        let (pid, restarts) = (child.pid, self.restarts + 1);
        let says = format!("the gateway has died ({reason}), and is started again");
        self.notices.tell(Notice::Waits(says));
        let is_new = child.serving.is_some() || self.reason.as_ref() != Some(&reason);
        (self.restarts, self.reason) = (restarts, Some(reason.clone()));
        // At once, if at all: a log may be slow.
        self.look();
        if is_new {
            let died = format!(
                "gateway-died pid={pid} status={reason:?} restarts={restarts} pause={pause:?}"
            );
            self.tell(Level::Error, &died);
        }
    }

    /// Starts a gateway if it is time to.
    fn look(&mut self) {
        if self.has_successor() {
            return;
        }
        match &self.without {
            Without::Start(when) | Without::StartOr(when, _) if *when <= Instant::now() => {
                self.start_again();
            }
            Without::StartOr(_, mark) if *mark != FileMark::of(&self.path) => self.start_again(),
            Without::WaitForFile(mark) if *mark != FileMark::of(&self.path) => self.start_again(),
            _ => {}
        }
    }

    fn start_again(&mut self) {
        let mark = FileMark::of(&self.path);
        match load(&self.path) {
            Ok(config) => self.config = config,
            Err(error) => {
                self.without = Without::WaitForFile(mark);
                self.notices
                    .tell(Notice::Waits(format!("waiting for a good file: {error}")));
                let waits = format!(
                    "gateway-waits error={error:?} remedy=\"correct the file: it is read again then\""
                );
                self.tell(Level::Error, &waits);
                return;
            }
        }
        if let Err(error) = self.start() {
            let pause = self.pauses.after(None, Instant::now());
            self.without = Without::Start(Instant::now() + pause);
            let error = error.to_string();
            self.tell(
                Level::Error,
                &format!("gateway-not-started error={error:?} pause={pause:?}"),
            );
        }
    }

    fn tell(&self, level: Level, event: &str) {
        events::tell(&self.config, level, event);
    }
}

/// What a shell says of it.
fn code(status: WaitStatus) -> u8 {
    const OF_SIGNALS: i32 = 128;
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => OF_SIGNALS + signal as i32,
        _ => 1,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn shown(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal {} ({signal})", signal as i32),
        _ => "unknown".to_owned(),
    }
}
