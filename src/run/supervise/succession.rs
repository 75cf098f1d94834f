//! An upgrade by the supervisor: it starts the new gateway itself, with the rights that it has kept, and then
//! the new program takes its own place, too.
//!
//! ```text
//!   asked -> checking -> starting -> the new one serves -> the supervisor becomes the new program
//!               |            |
//!               v            v
//!            refused      refused: the old gateway serves on
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::child::{Child, Start};
use super::desk::{confirm, refuse};
use super::{Parent, Without, shown};
use crate::process::PidFile;
use crate::process::handover::{Channel, SupervisorMessage};
use crate::process::notices::Notice;
use crate::run::load;
use crate::run::upgrade::{ANSWER, starting};

/// How long a program may take to say that it can supervise.
const CHECK: Duration = ANSWER;

/// An upgrade that is under way.
pub(super) struct Succession {
    /// Who waits for the outcome.
    asker: Option<Channel>,
    program: PathBuf,
    pub(super) step: Step,
    pub(super) until: Instant,
    /// The gateway that was, if it has ended meanwhile: it may have had nothing to finish.
    lost: Option<(Child, WaitStatus)>,
    /// What the gateway that was has been told meanwhile.
    signals: BTreeSet<Signal>,
}

/// How far it has come.
pub(super) enum Step {
    /// Whether the program can be a supervisor is seen by this process's exit code.
    Checking(Pid),
    /// This gateway is to succeed the present one.
    Starting(Child),
}

impl Succession {
    pub(super) fn child(&self) -> Option<&Child> {
        match &self.step {
            Step::Starting(child) => Some(child),
            Step::Checking(_) => None,
        }
    }

    pub(super) fn child_mut(&mut self) -> Option<&mut Child> {
        match &mut self.step {
            Step::Starting(child) => Some(child),
            Step::Checking(_) => None,
        }
    }

    fn pid(&self) -> Pid {
        match &self.step {
            Step::Checking(pid) => *pid,
            Step::Starting(child) => child.pid,
        }
    }
}

impl Parent {
    /// Puts `program`, or the one that lies at this one's path, in the place of the gateway and of this
    /// process.
    pub(super) fn begin_upgrade(&mut self, program: Option<PathBuf>, asker: Option<Channel>) {
        match self.check(program) {
            Ok((program, pid)) => {
                self.succession = Some(Succession {
                    asker,
                    program,
                    step: Step::Checking(pid),
                    until: Instant::now() + CHECK,
                    lost: None,
                    signals: BTreeSet::new(),
                });
            }
            Err(why) => self.tell_failed(asker.as_ref(), &why),
        }
    }

    /// The next gateway is to be told this as well, if there is to be one.
    pub(super) fn remember(&mut self, signal: Signal) {
        if let Some(succession) = &mut self.succession {
            succession.signals.insert(signal);
        }
    }

    fn check(&self, program: Option<PathBuf>) -> Result<(PathBuf, Pid), String> {
        if self.succession.is_some() {
            return Err("another upgrade is under way".to_owned());
        }
        if self.end.is_some() {
            return Err("the gateway was told to end".to_owned());
        }
        load(&self.path)?;
        let program = program.map_or_else(starting::own_program, Ok)?;
        let pid = ask_for_help(&program).map_err(|error| error.to_string())?;
        Ok((program, pid))
    }

    /// A process has ended. True if it belonged to an upgrade.
    pub(super) fn has_ended_in_upgrade(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let Some(succession) = &mut self.succession else {
            return false;
        };
        if succession.pid() == pid {
            match &mut succession.step {
                Step::Checking(_) if status == WaitStatus::Exited(pid, 0) => self.start_successor(),
                Step::Checking(_) => {
                    let how = shown(status);
                    let why = format!(
                        "it cannot go on as a supervisor: `run --supervise --help` has ended with {how}"
                    );
                    self.fail_upgrade(&why);
                }
                Step::Starting(_) => self.fail_upgrade(&format!("it has ended: {}", shown(status))),
            }
            return true;
        }
        if succession.child().is_none() {
            return false;
        }
        // It may have let go, which the new one will say.
        match self.current.take_if(|it| it.pid == pid) {
            Some(child) => {
                succession.lost = Some((child, status));
                true
            }
            None => false,
        }
    }

    fn start_successor(&mut self) {
        let Some(succession) = &self.succession else {
            return;
        };
        // One that keeps dying may be why somebody asks: then the new one goes on with what it has left.
        let succeeds = self.current.is_some();
        let started = Child::start(&Start {
            config: &self.path,
            program: Some(&succession.program),
            succeeds,
            supervised: self.supervised(),
            doors: if succeeds { &[] } else { &self.doors },
        });
        match started {
            Ok(child) => {
                let pid = child.pid.as_raw().unsigned_abs();
                if let Some(current) = &self.current {
                    current.tell(SupervisorMessage::Expect { pid });
                }
                let limit = starting::limit(&self.config);
                if let Some(succession) = &mut self.succession {
                    succession.step = Step::Starting(child);
                    succession.until = Instant::now() + limit;
                }
            }
            Err(error) => self.fail_upgrade(&error.to_string()),
        }
    }

    /// A gateway of another program is being started, whether or not there is one.
    pub(super) fn has_successor(&self) -> bool {
        let child = self.succession.as_ref().and_then(Succession::child);
        child.is_some()
    }

    /// It has taken too long.
    pub(super) fn look_at_upgrade(&mut self) {
        if self
            .succession
            .as_ref()
            .is_some_and(|it| it.until <= Instant::now())
        {
            self.fail_upgrade("it has not taken over in time");
        }
    }

    /// Nothing comes of it, and everything stays as it was.
    pub(super) fn fail_upgrade(&mut self, why: &str) {
        let Some(succession) = self.succession.take() else {
            return;
        };
        // If it lives, that ends it, and it will be waited for.
        let _ = kill(succession.pid(), Signal::SIGKILL);
        self.tell_failed(succession.asker.as_ref(), why);
        if let Some((child, status)) = succession.lost {
            self.on_end(child, status);
        }
    }

    /// The new gateway has given up: everything stays as it was. It ends by itself, since somebody may have
    /// come to it by now who is to have an answer.
    pub(super) fn give_successor_up(&mut self, why: &str) {
        let Some(succession) = self.succession.take() else {
            return;
        };
        self.tell_failed(succession.asker.as_ref(), why);
        if let Step::Starting(child) = succession.step {
            self.old.push(child);
        }
        if let Some((child, status)) = succession.lost {
            self.on_end(child, status);
        }
    }

    /// The gateway is to end, and so is the one that would have taken over.
    pub(super) fn drop_upgrade(&mut self) {
        let Some(succession) = self.succession.take() else {
            return;
        };
        match succession.step {
            Step::Checking(pid) => drop(kill(pid, Signal::SIGKILL)),
            Step::Starting(child) => self.old.push(child),
        }
        self.tell_failed(succession.asker.as_ref(), "the gateway was told to end");
    }

    fn tell_failed(&self, asker: Option<&Channel>, why: &str) {
        if let Some(asker) = asker {
            refuse(asker, why);
        }
        self.tell(Level::Error, &format!("upgrade-failed reason={why:?}"));
    }

    /// The new gateway serves.
    pub(super) fn succeed(&mut self) {
        let Some(Succession {
            asker,
            program,
            step: Step::Starting(child),
            lost,
            signals,
            ..
        }) = self.succession.take()
        else {
            return;
        };
        let pid = child.pid.as_raw().unsigned_abs();
        if child.is_ready {
            self.notices.tell(Notice::Ready);
        }
        // The one that was may have ended before it could pass them on.
        signals.into_iter().for_each(|it| child.signal(it));
        let old = self.current.replace(child);
        self.old.extend(old.filter(|_| lost.is_none()));
        self.old.iter_mut().for_each(|it| it.doors.clear());
        self.doors.clear();
        self.without = Without::Nothing;
        if let Ok(config) = load(&self.path) {
            self.config = config;
        }
        self.move_pid_file();
        self.tell(
            Level::Info,
            &format!("upgraded pid={pid} program={program:?}"),
        );
        // Only a failure comes back.
        let error = self
            .become_program(&program, asker.as_ref(), pid)
            .to_string();
        self.tell(
            Level::Error,
            &format!("supervisor-not-replaced error={error:?}"),
        );
        if let Some(asker) = &asker {
            let note = format!("the supervisor goes on as it is: {error}");
            confirm(asker, pid, Some(note));
        }
    }

    /// The ini file may name another one.
    fn move_pid_file(&mut self) {
        let wanted = self.config.gateway.pid_file.as_deref();
        if self.pid_file.as_ref().map(PidFile::path) == wanted {
            return;
        }
        let made = wanted.map(|path| {
            let mut made = PidFile::create(path)?;
            made.announce()?;
            Ok::<_, std::io::Error>(made)
        });
        match made.transpose() {
            Ok(made) => self.pid_file = made,
            Err(error) => {
                let error = error.to_string();
                self.tell(Level::Error, &format!("pid-file-not-taken error={error:?}"));
            }
        }
    }
}

/// Starts `program` in a way that tells whether it can supervise: one that cannot does not know the option.
fn ask_for_help(program: &Path) -> std::io::Result<Pid> {
    let mut command = Command::new(program);
    let command = command.args(["run", "--supervise", "--help"]);
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(Pid::from_raw(command.spawn()?.id().cast_signed()))
}
