//! `graygate run`: starts everything in order, carries out commands, and shuts down.
//!
//! The order of the start: first what needs root (addresses, the pid file, log files, the admin socket,
//! descriptors), then the change of user, then the lists, and last the listeners accept.

mod acquired;
mod doors;
pub(crate) mod folders;
mod inheritance;
mod lists;
mod logs;
pub(crate) mod neighbours;
mod open_socket;
mod reload;
mod sockets;
pub(crate) mod supervise;
mod supervisor;
pub(crate) mod upgrade;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_channel::{Receiver, select};

use crate::admin::view::{Refused, View};
use crate::config::{Config, REDIS_URL_VARIABLE, Reloads};
use crate::fleet::heartbeat::Heartbeat;
use crate::logs::writer::Log;
use crate::metrics::Metrics;
use crate::net;
use crate::process::handover::SupervisorMessage;
use crate::process::{Command, PidFile, Startup};
use crate::proxy::doubts::Doubts;
use crate::proxy::listeners::Entrance;
use crate::proxy::moved::Heir;
use crate::proxy::{Gateway, listeners, workers};
use crate::run::acquired::Acquired;
use crate::run::doors::OpenDoors;
use crate::run::inheritance::Inheritance;
use crate::run::lists::{start_store, wait_for_lists};
use crate::run::neighbours::Announcement;
use crate::run::sockets::SharedSockets;
use crate::run::supervisor::Supervisor;
use crate::run::upgrade::{Arrivals, Giver, Mover, Open, Successor};
use crate::snapshot::Published;
use crate::store::Publisher;
use crate::upstream::check::Checker;
use crate::upstream::in_force::InForce;

pub(crate) use self::supervise::supervise;

/// Reads the configuration that the process is to use.
///
/// # Errors
/// One line that says what is wrong, and where.
pub(crate) fn load(path: &Path) -> Result<Config, String> {
    let url = std::env::var(REDIS_URL_VARIABLE).ok();
    Config::load(path, url).map_err(|error| error.to_string())
}

/// Serves until a command ends it.
///
/// # Errors
/// Why it cannot start.
pub(crate) fn run(config: Config, commands: &Receiver<Command>) -> io::Result<()> {
    let running = Running::start(config, Inheritance::default(), &Startup::begin()?)?;
    running.follow(commands);
    Ok(())
}

/// Reads the ini file at `path`, and serves as it says until a command ends it.
///
/// # Errors
/// One line that says why it cannot start.
pub(crate) fn run_file(path: &Path, commands: &Receiver<Command>) -> Result<(), String> {
    let startup = Startup::begin().map_err(|error| error.to_string())?;
    let mut inherited = Inheritance::of_supervisor()?;
    let supervisor = inherited.supervisor.clone();
    let start = |startup: Startup| {
        startup.at(format!("reading {}", path.display()));
        let config = load(path)?;
        inherited.ask(&config, &startup)?;
        Running::start(config, inherited, &startup).map_err(|error| error.to_string())
    };
    let started = start(startup).inspect_err(|why| {
        upgrade::tell(why);
        if let Some(supervisor) = supervisor {
            supervisor.give_up(why);
        }
    });
    started?.follow(commands);
    Ok(())
}

/// A gateway that serves.
struct Running {
    gateway: Arc<Gateway>,
    publisher: Arc<Publisher>,
    checker: Arc<Checker>,
    heartbeat: Option<Arc<Heartbeat>>,
    reloads: Arc<Reloads>,
    access_log: Log,
    error_log: Log,
    pid_file: Option<PidFile>,
    view: Arc<View>,
    sockets: SharedSockets,
    admin: OpenDoors,
    claims: Option<Announcement>,
    handover: Option<Open>,
    arrivals: Arc<Arrivals>,
    successors: Receiver<Successor>,
    supervisor: Option<Arc<Supervisor>>,
    /// The supervisor's pid file.
    watched: Option<PidFile>,
}

impl Running {
    fn start(config: Config, inherited: Inheritance, startup: &Startup) -> io::Result<Self> {
        let own = config.clone();
        let started = Self::start_as(config, &own, inherited, startup);
        started.map_err(|error| neighbours::named(error, &own))
    }

    fn start_as(
        mut config: Config,
        own: &Config,
        mut inherited: Inheritance,
        startup: &Startup,
    ) -> io::Result<Self> {
        let acquired = Acquired::take(&mut config, own, &mut inherited, startup)?;
        Self::open(acquired, config, inherited, startup)
    }

    /// Reads the lists, and opens the doors.
    fn open(
        acquired: Acquired,
        config: Config,
        inherited: Inheritance,
        startup: &Startup,
    ) -> io::Result<Self> {
        let Inheritance {
            taking, supervisor, ..
        } = inherited;
        let Acquired {
            listeners,
            mut admin,
            mut pid_file,
            watched,
            error_log,
            access_log,
            claims,
        } = acquired;
        let addrs: Vec<String> = listeners.iter().map(|it| it.addr().to_string()).collect();
        let addrs = addrs.join(",");
        let admin_doors = admin.doors()?;
        let doors_shown = doors::shown(&admin_doors);
        let again = listeners.iter().map(Entrance::again);
        let again = again.collect::<io::Result<Vec<_>>>()?;
        let sockets = SharedSockets::new(again, admin.share(&config.admin)?);

        // If they were started before, their number is fixed.
        let workers = net::start(config.gateway.workers)?;
        let gateway = Arc::new(Gateway {
            config: Arc::new(Published::new(config.clone())),
            lists: Arc::new(InForce::new(workers)),
            metrics: Metrics::new(workers),
            access_log: access_log.queue(),
            listening: ArcSwap::default(),
            doubts: Doubts::default(),
            draining: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            heir: Heir::default(),
            accepting: AtomicUsize::new(0),
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        });
        // So that idle workers release what was replaced, too.
        gateway.config.tell(net::ensure_all_ticking);
        gateway.lists.tell(net::ensure_all_ticking);
        let (peers, settings) = (Arc::clone(&gateway.lists), Arc::clone(&gateway.config));
        let checker = Arc::new(Checker::start(peers, settings)?);
        startup.at("reading the lists");
        let (publisher, heartbeat) = start_store(&config, &gateway)?;
        if taking.as_ref().is_some_and(|it| it.has_lists) {
            wait_for_lists(&publisher, config.gateway.upgrade_timeout)?;
        }
        startup.at("checking the servers");
        checker.wait_for_first(&config);
        startup.at("opening the doors");
        let reloads = Arc::new(Reloads::new());
        let token = admin.token.take();
        let view = View {
            gateway: Arc::clone(&gateway),
            publisher: Arc::clone(&publisher),
            checker: Arc::clone(&checker),
            heartbeat: heartbeat.clone(),
            reloads: Arc::clone(&reloads),
            error_log: error_log.queue(),
            doors: ArcSwap::from_pointee(admin_doors),
            token: ArcSwapOption::new(token.map(Arc::new)),
            refused: Refused::default(),
            supervision: supervisor.as_ref().map(|it| it.supervision()),
        };
        let view = Arc::new(view);
        let admin_open = admin.serve(&view)?;
        listeners::serve(&gateway, listeners)?;
        let (pid, most) = (std::process::id(), config.gateway.max_connections);
        log::info!(
            "ready listen={addrs} {doors_shown} workers={workers} pid={pid} max_connections={most}"
        );
        // Whoever has seen the process id must find the line above in the log.
        log::logger().flush();
        if let Some(taking) = &taking {
            startup.at("waiting until the running gateway lets go");
            taking.take_over().map_err(io::Error::other)?;
        }
        if let Some(pid_file) = &mut pid_file {
            if taking.is_some() {
                pid_file.take(PID_FILE_WAIT)?;
            }
            pid_file.announce()?;
        }
        let (sender, successors) = crossbeam_channel::bounded(1);
        let arrivals = Arc::new(Arrivals::new(&gateway));
        let giver = Giver::new(
            &gateway,
            &arrivals,
            &publisher,
            heartbeat.as_ref(),
            &sockets,
            supervisor.as_ref(),
            sender,
        );
        if let Some(supervisor) = &supervisor {
            supervisor.doors_changed(&sockets.locked().all()?)?;
        }
        let handover = giver.start(&config.path)?;
        if let Some(taking) = taking {
            arrivals.receive(taking.confirm())?;
        }
        if let Some(supervisor) = &supervisor {
            supervisor.tell(SupervisorMessage::Serving);
        }
        Ok(Self {
            gateway,
            publisher,
            checker,
            heartbeat,
            reloads,
            access_log,
            error_log,
            pid_file,
            view,
            sockets,
            admin: admin_open,
            claims: Some(claims),
            handover,
            arrivals,
            successors,
            supervisor,
            watched,
        })
    }

    /// Carries out commands until one of them ends the gateway.
    fn follow(mut self, commands: &Receiver<Command>) {
        let successors = match &self.handover {
            Some(_) => self.successors.clone(),
            // Nobody can succeed to a gateway that cannot be asked for a handover.
            None => crossbeam_channel::never(),
        };
        let attended = self.supervisor.as_ref().map(Supervisor::attend).transpose();
        let attended = attended.inspect_err(|error| {
            log::error!("supervisor-unheard error={:?}", error.to_string());
        });
        let mut gone = attended
            .ok()
            .flatten()
            .unwrap_or_else(crossbeam_channel::never);
        let successor = loop {
            select! {
                recv(commands) -> command => match command {
                    Ok(Command::Reload) => self.reload(),
                    Ok(Command::ReopenLogs) => self.reopen_logs(),
                    // When all senders are gone, nothing else could end it.
                    Ok(Command::Drain) | Err(_) => break None,
                },
                recv(successors) -> successor => break successor.ok(),
                recv(gone) -> has_left => {
                    self.go_on_alone(has_left.unwrap_or_default());
                    gone = crossbeam_channel::never();
                }
            }
        };
        self.end(commands, successor);
    }

    /// The supervisor is there no more. The next one will find this gateway as a successor would.
    fn go_on_alone(&mut self, has_left: bool) {
        let pid = self
            .supervisor
            .as_ref()
            .map(|it| it.pid)
            .unwrap_or_default();
        match has_left {
            true => log::info!("supervisor-left pid={pid}"),
            false => log::error!(
                "supervisor-died pid={pid} remedy=\"start the gateway again: it takes over from this one\""
            ),
        }
        // By its lock, `graygate reload` finds the gateway.
        if let Some(mut pid_file) = self.watched.take() {
            match pid_file.take(PID_FILE_WAIT) {
                Ok(()) => self.pid_file = Some(pid_file),
                Err(error) => log::warn!("pid-file-not-taken error={:?}", error.to_string()),
            }
        }
    }

    fn end(mut self, commands: &Receiver<Command>, successor: Option<Successor>) {
        // It has duplicates of the listening sockets, which would keep a port open that nobody attends.
        if let Some(handover) = self.handover.take() {
            handover.close();
        }
        let mut mover = None;
        let is_stop = Cell::new(successor.is_none());
        if let Some(successor) = successor {
            // What only one gateway can have.
            self.publisher.end();
            self.claims = None;
            self.admin.leave();
            if let Some(pid_file) = self.pid_file.take() {
                pid_file.leave();
            }
            let channel = successor.let_it_take_over();
            mover = Mover::start(&self.gateway, channel)
                .inspect_err(|error| {
                    log::error!("connections-not-moved error={:?}", error.to_string());
                })
                .ok();
        }
        // Those of earlier processes go wherever this one's go.
        self.arrivals.close();
        self.sockets.close();
        let limit = self.gateway.config.load().gateway.drain_timeout;
        log::info!(
            "draining connections={} limit={limit:?}",
            self.gateway.open_connections()
        );
        let hurry = || {
            let mut ends = commands.try_iter().filter(|it| *it == Command::Drain);
            // The end of all, of those on their way out, too, is no reason to cut what is under way.
            ends.any(|_| is_stop.replace(true) || !listeners::end_silent_tunnels(&self.gateway))
        };
        let left = listeners::drain(&self.gateway, limit, hurry);
        if left > 0 {
            log::warn!("drain-cut connections={left}");
        }
        if let Some(mover) = mover {
            mover.end();
        }
        workers::flush_access_logs(&self.gateway);
        self.publisher.end();
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.end();
        }
        log::info!("stopped");
        drop(self.admin);
        drop(self.pid_file);
        self.access_log.close();
        self.error_log.close();
    }
}

/// How long a predecessor may take to leave the pid file, once it has said that it does.
const PID_FILE_WAIT: Duration = Duration::from_secs(5);
