//! The old gateway's side of an upgrade.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ANSWER, Arrivals, PROBATION, estate, socket_names_of};
use crate::process::handover::{
    Channel, HandoverSocket, Message, ReceivedMessage, SupervisorMessage,
};
use crate::process::notices::ManagerAddress;
use crate::process::supervised;
use crate::proxy::Gateway;
use crate::proxy::listeners::{self, Entrance};
use crate::run::open_socket::OpenSocket;
use crate::run::sockets::SharedSockets;
use crate::run::supervisor::Supervisor;
use crate::store::{By, Publisher};

/// How often a new one has to say that it is alive before it is let take over,
const LIFE_SIGN_GAP: Duration = Duration::from_millis(500);

/// and how long it may take to say so, on a machine that has much to do.
const LIFE_SIGN: Duration = Duration::from_secs(3);

/// For so long, the failure of the last one may not have been noticed here when somebody tries again.
const LAST_ONE: Duration = Duration::from_millis(500);
const LAST_ONE_LOOK: Duration = Duration::from_millis(10);

/// For how long a predecessor may still have the socket's name.
const NAME_WAIT: Duration = Duration::from_secs(10);

/// The same, once it has left one of them.
const OTHER_NAME_WAIT: Duration = Duration::from_millis(500);

/// The new gateway, which has proved itself.
pub(in crate::run) struct Successor {
    pub(in crate::run) channel: Arc<Channel>,
    pub(in crate::run) pid: u32,
}

impl Successor {
    /// The process that takes over.
    pub(in crate::run) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it that what only one can have is free now, and waits until it has it.
    ///
    /// # Errors
    /// It has ended before that, or does not say so; in words. It does not live any more.
    pub(in crate::run) fn let_it_take_over(&self) -> Result<(), String> {
        let until = Instant::now() + ANSWER;
        let outcome = self.channel.send(&Message::Yours, &[]);
        let outcome = outcome.and_then(|()| {
            loop {
                let left = until.saturating_duration_since(Instant::now());
                match self.channel.receive(left)? {
                    Some((Message::Taken, _)) => return Ok(true),
                    Some(_) => {}
                    None => return Ok(false),
                }
            }
        });
        match outcome {
            Ok(true) => {
                log::info!("handed-over pid={}", self.pid);
                Ok(())
            }
            Ok(false) => Err("it has ended before it had taken over".to_owned()),
            Err(error) => {
                // It may be half-way: there must not be two.
                self.kill();
                Err(format!("it has not taken over: {error}"))
            }
        }
    }

    /// Its end of the channel is open, so it is still the process with that number.
    fn kill(&self) {
        if let Ok(pid) = i32::try_from(self.pid) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Why there is no successor after a panic, which the error log has.
const PANIC: &str = "the running gateway has failed; see its error log";

/// Sockets that are attended.
pub(in crate::run) struct Open {
    attended: Vec<(Arc<HandoverSocket>, JoinHandle<()>)>,
    /// Whoever attends them.
    pub(in crate::run) giver: Arc<Giver>,
}

impl Open {
    /// Closes them, so that their names are free. An upgrade that is under way, and has not come so far that
    /// this one only ends, is refused.
    pub(in crate::run) fn close(self) {
        self.giver.close();
        for (socket, thread) in self.attended {
            socket.close();
            // Its panics are in the log.
            let _ = thread.join();
        }
    }
}

/// Whether there is an upgrade.
enum Upgrading {
    No,
    /// By this channel.
    Yes(Arc<Channel>),
    /// Nor will there be one.
    Closed,
}

/// Hands over when it is asked to.
pub(in crate::run) struct Giver {
    gateway: Arc<Gateway>,
    arrivals: Arc<Arrivals>,
    publisher: Arc<Publisher>,
    sockets: SharedSockets,
    supervisor: Option<Arc<Supervisor>>,
    upgrading: Mutex<Upgrading>,
    successors: Sender<Successor>,
}

impl Giver {
    pub(in crate::run) fn new(
        gateway: &Arc<Gateway>,
        arrivals: &Arc<Arrivals>,
        publisher: &Arc<Publisher>,
        sockets: &SharedSockets,
        supervisor: Option<&Arc<Supervisor>>,
        successors: Sender<Successor>,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            arrivals: Arc::clone(arrivals),
            publisher: Arc::clone(publisher),
            sockets: sockets.clone(),
            supervisor: supervisor.cloned(),
            upgrading: Mutex::new(Upgrading::No),
            successors,
        }
    }

    /// Waits for successors from now on, for the gateway with this ini file.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn start(self, config: &Path) -> io::Result<Option<Open>> {
        let giver = Arc::new(self);
        let (mut attended, mut wait) = (Vec::new(), NAME_WAIT);
        for name in socket_names_of(config) {
            match open(&name, wait) {
                Ok(socket) => attended.push(giver.attend_at(socket)?),
                Err(error) => log::error!("upgrade-unavailable error={:?}", error.to_string()),
            }
            // A predecessor leaves all of its names at once.
            wait = OTHER_NAME_WAIT;
        }
        Ok((!attended.is_empty()).then_some(Open { attended, giver }))
    }

    fn attend_at(
        self: &Arc<Self>,
        socket: HandoverSocket,
    ) -> io::Result<(Arc<HandoverSocket>, JoinHandle<()>)> {
        let socket = Arc::new(socket);
        let (attending, attended) = (Arc::clone(self), Arc::clone(&socket));
        let thread = supervised::spawn("upgrades", move || {
            while let Some(channel) = attending.next_at(&attended) {
                let giver = Arc::clone(&attending);
                // Others are refused meanwhile, so they must be heard.
                let thread = std::thread::Builder::new().name("upgrade".to_owned());
                if let Err(error) = thread.spawn(move || giver.attend(channel)) {
                    log::error!("upgrade-unavailable error={:?}", error.to_string());
                }
            }
        })?;
        Ok((socket, thread))
    }

    fn next_at(&self, socket: &HandoverSocket) -> Option<Channel> {
        loop {
            match socket.accept() {
                Ok(channel) => return channel,
                Err(error) => {
                    log::error!("upgrade-unavailable error={:?}", error.to_string());
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Upgrading> {
        self.upgrading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn attend(&self, channel: Channel) {
        let (pid, channel) = (channel.pid().unwrap_or_default(), Arc::new(channel));
        // Also before it is refused: otherwise it learns of the end of the channel, and not why.
        let asked = channel.receive(ANSWER);
        if let Ok(Some((Message::Arriving, _))) = asked {
            if let Err(error) = self.arrivals.welcome(channel) {
                let error = error.to_string();
                log::error!("connections-not-moved pid={pid} error={error:?}");
            }
            return;
        }
        if let Err(why) = self.begin(&channel, pid) {
            refuse(&channel, &why);
            return;
        }
        // A reload that is under way comes first.
        self.sockets.locked().are_promised = true;
        let successor = Successor { channel, pid };
        // Otherwise an upgrade would be under way for ever after a panic, and others refused.
        let given = catch_unwind(AssertUnwindSafe(|| self.give(&successor, asked)));
        let given = given.unwrap_or_else(|_| Err(PANIC.to_owned()));
        match given {
            Ok(()) => drop(self.successors.send(successor)),
            Err(reason) => self.has_failed(&successor, &reason),
        }
    }

    fn begin(&self, channel: &Arc<Channel>, pid: u32) -> Result<(), String> {
        if let Some(supervisor) = self.supervisor.as_ref().filter(|it| !it.lets(pid)) {
            let by = supervisor.pid;
            return Err(format!(
                "it is supervised by process {by}, which starts its successors"
            ));
        }
        let until = Instant::now() + LAST_ONE;
        loop {
            let mut upgrading = self.locked();
            match *upgrading {
                Upgrading::No => {
                    *upgrading = Upgrading::Yes(Arc::clone(channel));
                    return Ok(());
                }
                Upgrading::Closed => return Err(ENDS.to_owned()),
                Upgrading::Yes(_) if Instant::now() >= until => {
                    return Err("another upgrade is under way".to_owned());
                }
                Upgrading::Yes(_) => {}
            }
            drop(upgrading);
            std::thread::sleep(LAST_ONE_LOOK);
        }
    }

    /// There is no successor after all: this one serves on, as if nothing had been, unless it is to end.
    pub(in crate::run) fn has_failed(&self, successor: &Successor, reason: &str) {
        let pid = successor.pid;
        self.publisher.tell_of_accepted(None);
        let mut upgrading = self.locked();
        if matches!(*upgrading, Upgrading::Closed) {
            log::info!("upgrade-refused pid={pid} reason={ENDS:?}");
            return;
        }
        log::error!("upgrade-failed pid={pid} reason={reason:?}");
        let mut sockets = self.sockets.locked();
        sockets.are_promised = false;
        if self.gateway.elsewhere.load(Ordering::Acquire) {
            let entrances = sockets.entrances.iter().map(Entrance::again);
            let taken_back = entrances
                .collect::<io::Result<Vec<_>>>()
                .and_then(|it| listeners::take_back(&self.gateway, it));
            if let Err(error) = taken_back {
                log::error!("accept-failed error={:?}", error.to_string());
            }
        }
        refuse(&successor.channel, reason);
        *upgrading = Upgrading::No;
    }

    /// It has taken over.
    pub(in crate::run) fn has_succeeded(&self) {
        self.publisher.tell_of_accepted(None);
        *self.locked() = Upgrading::Closed;
    }

    /// No upgrade from now on. One that is under way is refused: the gateway is to end.
    fn close(&self) {
        let upgrading = std::mem::replace(&mut *self.locked(), Upgrading::Closed);
        if let Upgrading::Yes(channel) = upgrading {
            refuse(&channel, ENDS);
        }
    }

    /// The new one, if there is one, is to know this as well.
    pub(in crate::run) fn pass_on(&self, message: &Message) {
        if let Upgrading::Yes(channel) = &*self.locked() {
            // It may be about to fail.
            let _ = channel.send(message, &[]);
        }
    }

    /// Hands over, as far as it can be taken back.
    fn give(&self, successor: &Successor, asked: ReceivedMessage) -> Result<(), String> {
        let in_words = |error: io::Error| error.to_string();
        let Successor { channel, pid } = successor;
        let program = match asked.map_err(in_words)? {
            Some((Message::Take { program, .. }, _)) => program,
            _ => return Err("it has not asked for anything".to_owned()),
        };
        log::info!("upgrade-begun pid={pid} program={program:?}");
        // What somebody accepts here from now on is accepted there, too.
        let told = Arc::clone(channel);
        let tell = move |digest: &str| {
            let digest = digest.to_owned();
            // It may be about to fail.
            let _ = told.send(&Message::Accepted { digest }, &[]);
        };
        self.publisher.tell_of_accepted(Some(Box::new(tell)));
        self.offer(channel).map_err(in_words)?;
        let limit = self.gateway.config.load().gateway.upgrade_timeout;
        match self.listen(channel, limit) {
            Ok(Some(Message::Ready)) => {}
            Ok(_) => return Err("it has ended before it was ready".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(format!(
                    "it was not ready within upgrade_timeout, {limit:?}"
                ));
            }
            Err(error) => return Err(in_words(error)),
        }
        listeners::leave_to_another(&self.gateway).map_err(in_words)?;
        self.prove(channel)
    }

    /// Sends all that it can have.
    fn offer(&self, channel: &Channel) -> io::Result<()> {
        for OpenSocket {
            kind,
            asked,
            socket,
        } in self.sockets.locked().all()?
        {
            let kind = kind.to_owned();
            let door = Message::Door { kind, asked };
            channel.send(&door, &[socket.as_fd()])?;
        }
        let (output, errors) = (io::stdout(), io::stderr());
        channel.send(&Message::Streams, &[output.as_fd(), errors.as_fd()])?;
        let (lists, config) = (&self.gateway.lists, self.gateway.config.load());
        estate::send(
            channel,
            &self.publisher,
            lists,
            &config,
            self.arrivals.lineage(),
        )?;
        if let Some(manager) = ManagerAddress::known().filter(|_| self.supervisor.is_none()) {
            let manager = Message::Supervisor(SupervisorMessage::Manager(manager));
            channel.send(&manager, &[])?;
        }
        let has_lists = self.publisher.lists().are_read();
        channel.send(&Message::Offered { has_lists }, &[])
    }

    /// The next thing that it says, besides what it has accepted.
    fn listen(&self, channel: &Channel, limit: Duration) -> io::Result<Option<Message>> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match channel.receive(left)? {
                Some((Message::Accepted { digest }, _)) => {
                    // It may be in force here by now.
                    let _ = self.publisher.accept(&digest, By::Command);
                }
                other => return Ok(other.map(|(message, _)| message)),
            }
        }
    }

    /// Waits until it has lived for long enough, and looks at whether it does.
    fn prove(&self, channel: &Channel) -> Result<(), String> {
        const ENDED: &str = "it has ended within its first seconds";
        let is_silence = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        let until = Instant::now() + PROBATION;
        while Instant::now() < until {
            let asked = channel.send(&Message::Ping, &[]);
            match asked.and_then(|()| self.listen(channel, LIFE_SIGN)) {
                Ok(Some(Message::Pong)) => {}
                Ok(Some(_)) => return Err("it has said what it should not".to_owned()),
                Err(error) if is_silence(&error) => {
                    return Err(format!("it has given no sign of life for {LIFE_SIGN:?}"));
                }
                // It cannot be asked any more.
                Ok(None) | Err(_) => return Err(ENDED.to_owned()),
            }
            // Nothing is to come, but its end is to be noticed at once.
            match self.listen(channel, LIFE_SIGN_GAP) {
                Err(error) if is_silence(&error) => {}
                Ok(Some(_)) => return Err("it has said what it should not".to_owned()),
                Ok(None) | Err(_) => return Err(ENDED.to_owned()),
            }
        }
        Ok(())
    }
}

/// Why there is no upgrade any more.
const ENDS: &str = "the running gateway is shutting down";

fn open(name: &str, wait: Duration) -> io::Result<HandoverSocket> {
    let until = Instant::now() + wait;
    loop {
        match HandoverSocket::open(name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

fn refuse(channel: &Channel, reason: &str) {
    let reason = reason.to_owned();
    // It may have gone.
    let _ = channel.send(&Message::Refused { reason }, &[]);
}
