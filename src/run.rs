//! `graygate run`: starts everything in order, carries out commands, and shuts down.
//!
//! The order of the start: first what needs root (addresses, the pid file, log files, the admin socket,
//! descriptors), then the change of user, then the lists, and last the listeners accept.

mod acquired;
mod doors;
mod ending;
pub(crate) mod folders;
pub(crate) mod force_secret;
mod inheritance;
mod lists;
mod logs;
pub(crate) mod neighbours;
mod open_socket;
mod reload;
mod secrets;
mod sockets;
pub(crate) mod supervise;
mod supervisor;
pub(crate) mod upgrade;
mod watch;
pub(crate) mod webhook_secret;

use std::collections::BTreeMap;
use std::collections::VecDeque;
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
use crate::process::handover::{Message, SupervisorMessage};
use crate::process::lineage::Lineage;
use crate::process::notices::{Notice, Notices};
use crate::process::{Command, PidFile, Startup};
use crate::proxy::doubts::Doubts;
use crate::proxy::listeners::Entrance;
use crate::proxy::moved::Heir;
use crate::proxy::{Gateway, listeners};
use crate::release::judge::Judge;
use crate::release::trips::Trips;
use crate::release::webhook::Webhook;
use crate::run::acquired::Acquired;
use crate::run::doors::OpenDoors;
use crate::run::inheritance::Inheritance;
use crate::run::lists::{Bell, Started, start_store, wait_for_lists};
use crate::run::neighbours::Announcement;
use crate::run::secrets::Secrets;
use crate::run::sockets::SharedSockets;
use crate::run::supervisor::Supervisor;
use crate::run::upgrade::{Arrivals, Estate, Giver, Open, Successor, Taking};
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
    // It is remembered.
    let _ = upgrade::starting::own_program();
    let mut inherited = Inheritance::of_supervisor()?;
    let startup = Startup::begin().map_err(|error| error.to_string())?;
    let startup = startup.with_notices(inherited.notices());
    let supervisor = inherited.supervisor.clone();
    let start = |startup: Startup| {
        startup.at(format!("reading {}", path.display()));
        let mut config = load(path)?;
        inherited.ask(&config, &startup)?;
        if inherited.taking.is_some() {
            // What a reload of the old one has taken on since then is in force; from now on, it says so.
            config = load(path)?;
        }
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
    judge: Arc<Judge>,
    webhook: Arc<Webhook>,
    trips: Arc<Trips>,
    heartbeat: Arc<ArcSwapOption<Heartbeat>>,
    bell: Bell,
    secrets: Secrets,
    /// Commands that have come during a reload.
    deferred: VecDeque<Command>,
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
    /// What an earlier process was told to do, and this one is to do as well.
    orders: Receiver<Command>,
    notices: Notices,
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
        let sockets = SharedSockets::new(
            again,
            admin.share(&config.admin)?,
            inherited.supervisor.clone(),
        );

        // If they were started before, their number is fixed.
        let workers = net::start(config.gateway.workers)?;
        let notices = inherited.notices();
        let Inheritance {
            mut taking,
            supervisor,
            ..
        } = inherited;
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
        gateway.lists.set_services(&config.services);
        let checker = Checker::start(Arc::clone(&gateway.lists))?;
        startup.at("reading the lists");
        let estate = taking.as_mut().map(|it| std::mem::take(&mut it.estate));
        let lineage = estate.as_ref().map(|it| Lineage::after(&it.history));
        let lineage = Arc::new(lineage.unwrap_or_else(Lineage::first));
        let Started {
            publisher,
            judge,
            webhook,
            trips,
            heartbeat,
            bell,
        } = read_lists(&config, &gateway, taking.as_ref(), estate)?;
        let heartbeat = Arc::new(ArcSwapOption::from_pointee(heartbeat));
        startup.at("checking the servers");
        checker.wait_for_first();
        startup.at("opening the doors");
        let reloads = Arc::new(Reloads::new());
        let token = admin.token.take();
        let view = View {
            gateway: Arc::clone(&gateway),
            publisher: Arc::clone(&publisher),
            judge: Arc::clone(&judge),
            webhook: Arc::clone(&webhook),
            trips: Arc::clone(&trips),
            heartbeat: Arc::clone(&heartbeat),
            reloads: Arc::clone(&reloads),
            lineage: Arc::clone(&lineage),
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
        if let Some(taking) = &mut taking {
            startup.at("waiting until the running gateway lets go");
            let taken = take_over(taking, pid_file.as_mut(), &publisher);
            taken.inspect_err(|why| give_up(&gateway, supervisor.as_deref(), why))?;
            lineage.has_taken_over();
            webhook.rest(false);
            trips.rest(false);
            gateway.lists.go_on_with(BTreeMap::new());
            if let Some(heartbeat) = &*heartbeat.load() {
                heartbeat.rest(false);
            }
        }
        let (sender, successors) = crossbeam_channel::bounded(1);
        let (order, orders) = crossbeam_channel::unbounded();
        for told in taking.iter_mut().flat_map(|it| it.orders.drain(..)) {
            // It is received below.
            let _ = order.send(told);
        }
        let arrivals = Arc::new(Arrivals::new(&gateway, &lineage, order));
        let giver = Giver::new(
            &gateway,
            &arrivals,
            &publisher,
            &sockets,
            supervisor.as_ref(),
            sender,
        );
        if let Some(supervisor) = &supervisor {
            supervisor.doors_changed(&sockets.locked().all()?)?;
        }
        let handover = giver.start(&config.path)?;
        if let (Some(pid_file), None) = (&mut pid_file, &taking) {
            // Whoever sees the number may ask for an upgrade.
            pid_file.announce()?;
        }
        if let Some(taking) = &mut taking {
            taking.tell();
            arrivals.receive(Arc::clone(&taking.channel))?;
        }
        if let Some(supervisor) = &supervisor {
            supervisor.tell(SupervisorMessage::Serving);
        }
        watch::start(notices.clone(), Arc::clone(&publisher), workers)?;
        Ok(Self {
            gateway,
            publisher,
            judge,
            webhook,
            trips,
            heartbeat,
            bell,
            secrets: Secrets::of(&config.store),
            deferred: VecDeque::new(),
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
            orders,
            notices,
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
        let mut orders = self.orders.clone();
        let successor = loop {
            if let Some(command) = self.deferred.pop_front() {
                if self.obey(command, commands) {
                    break None;
                }
                continue;
            }
            let command = select! {
                // When all senders are gone, nothing else could end it.
                recv(commands) -> command => command.unwrap_or(Command::Drain),
                recv(orders) -> order => match order {
                    Ok(order) => order,
                    Err(_) => {
                        orders = crossbeam_channel::never();
                        continue;
                    }
                },
                recv(successors) -> successor => match successor {
                    Ok(successor) if self.hand_over(&successor) => break Some(successor),
                    _ => continue,
                },
                recv(gone) -> has_left => {
                    self.go_on_alone(has_left.unwrap_or_default());
                    gone = crossbeam_channel::never();
                    continue;
                }
            };
            if self.obey(command, commands) {
                break None;
            }
        };
        self.end(commands, successor);
    }

    /// Carries out a command; true for the end.
    fn obey(&mut self, command: Command, commands: &Receiver<Command>) -> bool {
        match command {
            Command::Reload => {
                self.notices.tell(Notice::Reloading);
                self.reload(commands);
                self.notices.tell(Notice::Reloaded);
                if let Some(handover) = &self.handover {
                    handover.giver.pass_on(&Message::Reload);
                }
            }
            Command::ReopenLogs => {
                self.reopen_logs();
                if let Some(handover) = &self.handover {
                    handover.giver.pass_on(&Message::Reopen);
                }
            }
            Command::Upgrade => self.upgrade(),
            Command::Drain => return true,
        }
        false
    }

    /// Has the program at this one's path take over, with the rights that this one has. The outcome is in the
    /// log.
    fn upgrade(&self) {
        let supervisor = self.supervisor.as_ref();
        if let Some(supervisor) = supervisor.filter(|it| !it.is_gone()) {
            let reason = format!(
                "send the signal to its supervisor, process {}",
                supervisor.pid
            );
            log::error!("upgrade-failed reason={reason:?}");
            return;
        }
        upgrade::starting::start_beside(&self.gateway.config.load());
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
}

/// Starts whatever reads the lists; in an upgrade, waits until they are read.
fn read_lists(
    config: &Config,
    gateway: &Gateway,
    taking: Option<&Taking>,
    estate: Option<Estate>,
) -> io::Result<Started> {
    let Some(taking) = taking else {
        return start_store(config, gateway, None).map(|(started, _)| started);
    };
    let Estate { lists, peers, .. } = estate.unwrap_or_default();
    gateway.lists.go_on_with(peers);
    let (started, taken_lists) = start_store(config, gateway, Some(&lists))?;
    taking.tell_of_accepted(&started.publisher);
    if taking.has_lists {
        let limit = taking.left_of(config.gateway.upgrade_timeout);
        wait_for_lists(&started.publisher, &lists, taken_lists, limit)?;
    }
    Ok(started)
}

/// Waits until the running gateway lets go, and takes what only one can have.
fn take_over(
    taking: &mut Taking,
    mut pid_file: Option<&mut PidFile>,
    publisher: &Publisher,
) -> io::Result<()> {
    taking.take_over(publisher).map_err(io::Error::other)?;
    if let Some(pid_file) = &mut pid_file {
        pid_file.take(PID_FILE_WAIT)?;
    }
    taking.confirm();
    // At once: the old one may be about to end, and its number stands there.
    if let Some(pid_file) = pid_file
        && let Err(error) = pid_file.announce()
    {
        // There is no other gateway any more.
        log::error!("pid-file-not-written error={:?}", error.to_string());
    }
    publisher.take_over_copy();
    Ok(())
}

/// The running gateway serves on: whoever has come here by now gets an answer first.
fn give_up(gateway: &Arc<Gateway>, supervisor: Option<&Supervisor>, why: &io::Error) {
    upgrade::tell(&why.to_string());
    if let Some(supervisor) = supervisor {
        supervisor.give_up(&why.to_string());
    }
    let limit = gateway.config.load().gateway.drain_timeout;
    listeners::drain(gateway, limit, || false);
}

/// How long a predecessor may take to leave the pid file, once it has said that it does.
const PID_FILE_WAIT: Duration = Duration::from_secs(5);
