//! The new gateway's side of an upgrade.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::User;
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::estate::Estate;
use super::{ANSWER, DONE, PROBATION, socket_names_of};
use crate::config::Config;
use crate::process;
use crate::process::Command;
use crate::process::handover::{Channel, Message, SupervisorMessage};
use crate::store::{By, Publisher};

/// What the old gateway has offered.
pub(in crate::run) struct Taking {
    pub(in crate::run) channel: Arc<Channel>,
    /// The old one.
    pub(in crate::run) pid: u32,
    begun: Instant,
    /// Of each, its kind and what the ini file calls it.
    doors: Vec<(String, String, OwnedFd)>,
    /// Standard output of the old one.
    output: Option<OwnedFd>,
    /// The supervisor is told instead of whoever reads standard output.
    is_supervised: bool,
    /// The old one has lists.
    pub(in crate::run) has_lists: bool,
    /// What else it has.
    pub(in crate::run) estate: Estate,
    /// What the old one was told to do meanwhile, and this one is to do as well.
    pub(in crate::run) orders: Vec<Command>,
}

impl Taking {
    /// Asks the gateway that runs with this ini file for all that it has. One that dies meanwhile leaves
    /// what it has handed over.
    ///
    /// # Errors
    /// Nobody runs with it, or it refuses; in words.
    pub(in crate::run) fn begin(config: &Config, supervisor: Option<u32>) -> Result<Self, String> {
        Self::if_any(config, supervisor)?.ok_or_else(|| {
            let path = config.path.display();
            format!("no gateway that can be asked runs with {path}")
        })
    }

    /// As [`Self::begin`], in a gateway that this supervisor has started; `None` when nobody runs with it.
    ///
    /// # Errors
    /// It refuses; in words.
    pub(in crate::run) fn if_any(
        config: &Config,
        supervisor: Option<u32>,
    ) -> Result<Option<Self>, String> {
        let is_supervised = supervisor.is_some();
        let names = socket_names_of(&config.path);
        let trusts = |user, pid| is_gateway(config, supervisor, user, pid);
        let found = Channel::connect_to_any(&names, trusts).map_err(in_words)?;
        let Some(channel) = found else {
            return Ok(None);
        };
        let mut taking = Self {
            pid: channel.pid().map_err(in_words)?,
            channel: Arc::new(channel),
            begun: Instant::now(),
            doors: Vec::new(),
            output: None,
            is_supervised,
            has_lists: false,
            estate: Estate::default(),
            orders: Vec::new(),
        };
        let take = Message::Take {
            version: process::handover::VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // One that refuses at once may have gone: it is heard below.
        let _ = taking.channel.send(&take, &[]);
        loop {
            match taking.channel.receive(ANSWER).map_err(in_words)? {
                Some((Message::Door { kind, asked }, sockets)) => {
                    let socket = sockets.into_iter().next();
                    taking.doors.extend(socket.map(|it| (kind, asked, it)));
                }
                // Those of the supervisor stay.
                Some((Message::Streams, _)) if is_supervised => {}
                Some((Message::Streams, streams)) => {
                    let mut streams = streams.into_iter();
                    taking.output = streams.next();
                    // Now, since a log may go there.
                    let errors = streams.next().map_or(Ok(()), dup2_stderr);
                    errors.map_err(|error| error.to_string())?;
                }
                Some((Message::Supervisor(SupervisorMessage::Manager(manager)), _)) => {
                    manager.adopt();
                }
                Some((Message::Offered { has_lists }, _)) => {
                    taking.has_lists = has_lists;
                    return Ok(Some(taking));
                }
                Some((Message::Refused { reason }, _)) => return Err(reason),
                Some((Message::Reload, _)) => taking.orders.push(Command::Reload),
                Some((message, files)) => {
                    let taken = taking.estate.take_down(message, files);
                    taken.map_err(in_words)?;
                }
                // Somebody has to serve.
                None if process::has_ended(taking.pid) => return Ok(Some(taking)),
                None => return Err(BROKEN_OFF.to_owned()),
            }
        }
    }

    /// How much of `limit`, which the old one waits for this one, is left; less what it takes to be the first
    /// to say why it takes too long.
    pub(in crate::run) fn left_of(&self, limit: Duration) -> Duration {
        (limit * 9 / 10).saturating_sub(self.begun.elapsed())
    }

    /// The socket of this kind that listens at what the ini file calls `asked`, if the old one has it.
    pub(in crate::run) fn door(&mut self, kind: &str, asked: &str) -> Option<OwnedFd> {
        let mut doors = self.doors.iter();
        let place = doors.position(|(of, at, _)| of == kind && at == asked)?;
        // In their order: several may be called the same.
        Some(self.doors.remove(place).2)
    }

    /// Whatever held change somebody accepts here is accepted by the old one as well: it may have to go on.
    pub(in crate::run) fn tell_of_accepted(&self, publisher: &Publisher) {
        let channel = Arc::clone(&self.channel);
        let tell = move |digest: &str| {
            let digest = digest.to_owned();
            // It may have gone.
            let _ = channel.send(&Message::Accepted { digest }, &[]);
        };
        publisher.tell_of_accepted(Some(Box::new(tell)));
    }

    /// This one serves: waits until the old one lets go. If it dies instead, that comes to the same.
    ///
    /// # Errors
    /// It has changed its mind; in words.
    pub(in crate::run) fn take_over(&mut self, publisher: &Publisher) -> Result<(), String> {
        // Of no use here. While they are open, the old one would take their files for those of a process that
        // listens, and leave them.
        self.doors.clear();
        let limit = PROBATION + ANSWER;
        // If it has gone, its last words are still there.
        let _ = self.channel.send(&Message::Ready, &[]);
        loop {
            match self.channel.receive(limit).map_err(in_words)? {
                Some((Message::Yours, _)) => break,
                Some((Message::Refused { reason }, _)) => return Err(reason),
                Some((Message::Ping, _)) => drop(self.channel.send(&Message::Pong, &[])),
                Some((Message::Accepted { digest }, _)) => {
                    // It may be in force here by now.
                    let _ = publisher.accept(&digest, By::Command);
                }
                Some((Message::Reload, _)) => self.orders.push(Command::Reload),
                Some((Message::Reopen, _)) => self.orders.push(Command::ReopenLogs),
                // A newer one may say more.
                Some(_) => {}
                None if process::has_ended(self.pid) => {
                    log::warn!("predecessor-died pid={}", self.pid);
                    break;
                }
                None => return Err(BROKEN_OFF.to_owned()),
            }
        }
        publisher.tell_of_accepted(None);
        Ok(())
    }

    /// What only one can have is this one's now.
    pub(in crate::run) fn confirm(&self) {
        // The old one may have gone.
        let _ = self.channel.send(&Message::Taken, &[]);
    }

    /// All is done. Tells whoever has started this process, by one line on standard output, and goes on with
    /// that of the old one.
    pub(in crate::run) fn tell(&mut self) {
        if self.is_supervised {
            return;
        }
        // Whoever it was may have gone.
        let _ = writeln!(io::stdout(), "{DONE}").and_then(|()| io::stdout().flush());
        let taken = self.output.take().map_or(Ok(()), dup2_stdout);
        if let Err(error) = taken {
            log::error!("streams-not-taken error={:?}", error.to_string());
        }
    }
}

fn in_words(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "the running gateway does not answer".to_owned(),
        _ => error.to_string(),
    }
}

const BROKEN_OFF: &str = "the running gateway has broken off";

/// Whether a process of another user than root is the gateway that runs with this ini file: it has the user
/// that the file names, or, since that may be what changes, it is known by its supervisor or its pid file.
fn is_gateway(config: &Config, supervisor: Option<u32>, user: u32, pid: u32) -> bool {
    let named = config.gateway.user.as_deref();
    let named = named.and_then(|it| User::from_name(it).ok().flatten());
    let pid_file = config.gateway.pid_file.as_deref();
    named.is_some_and(|it| it.uid.as_raw() == user)
        || supervisor.is_some_and(|it| process::is_child_of(pid, it))
        || pid_file.is_some_and(|it| process::is_named_by(it, pid))
}
