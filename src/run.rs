//! `graygate run`: starts everything in order, carries out commands, and shuts down.
//!
//! The order of the start: first what needs root (addresses, the pid file, log files, the admin socket,
//! descriptors), then the change of user, then the lists, and last the listeners accept.

mod doors;
pub(crate) mod folders;
pub(crate) mod neighbours;
pub(crate) mod upgrade;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use crate::admin::view::{Refused, View};
use crate::config::{Config, LogTarget, REDIS_URL_VARIABLE, Reloads, Store};
use crate::fleet::heartbeat::{self, Heartbeat, NodeReport};
use crate::logs::access::OwnLines;
use crate::logs::events;
use crate::logs::writer::{ERROR_LOG, Links, Log, NewTarget, Reopened, open_file};
use crate::metrics::Metrics;
use crate::net;
use crate::process::{self, Command, Identity, PidFile, Startup};
use crate::proxy::doubts::Doubts;
use crate::proxy::listeners::Entrance;
use crate::proxy::{Gateway, listeners, workers};
use crate::run::doors::{AdminListeners, OpenDoors};
use crate::run::neighbours::Announcement;
use crate::run::upgrade::{Door, Giver, LISTEN, Mover, Open, Successor, Taking, VARIABLE};
use crate::snapshot::Published;
use crate::store::copy::Purpose;
use crate::store::gate::guard::GuardRules;
use crate::store::{self, Publisher, StoreName};
use crate::upstream::check::Checker;
use crate::upstream::in_force::InForce;
use crate::upstream::watch;

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
    let running = Running::start(config, None, &Startup::begin()?)?;
    running.follow(commands);
    Ok(())
}

/// Reads the ini file at `path`, and serves as it says until a command ends it.
///
/// # Errors
/// One line that says why it cannot start.
pub fn run_file(path: &Path, commands: &Receiver<Command>) -> Result<(), String> {
    let start = |startup: Startup| {
        startup.at(format!("reading {}", path.display()));
        let config = load(path)?;
        let taking = match std::env::var_os(VARIABLE) {
            Some(_) => {
                // It outlives the terminal, or whatever else has started it.
                let _ = rustix::process::setsid();
                startup.at("asking the running gateway for a handover");
                Some(Taking::begin(&config)?)
            }
            None => None,
        };
        Running::start(config, taking, &startup).map_err(|error| error.to_string())
    };
    let startup = Startup::begin().map_err(|error| error.to_string())?;
    start(startup)
        .inspect_err(|why| upgrade::tell(why))?
        .follow(commands);
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
    admin: OpenDoors,
    claims: Option<Announcement>,
    counter: Option<Open>,
    successors: Receiver<Successor>,
}

/// What only root may take, or must be there before the lists are read; nothing is served with it yet.
struct Acquired {
    listeners: Vec<Entrance>,
    admin: AdminListeners,
    pid_file: Option<PidFile>,
    error_log: Log,
    access_log: Log,
    claims: Announcement,
}

impl Acquired {
    /// Takes it, and becomes the configured user.
    fn take(
        config: &mut Config,
        own: &Config,
        mut taking: Option<&mut Taking>,
        startup: &Startup,
    ) -> io::Result<Self> {
        let settings = &mut config.gateway;
        startup.at("taking the addresses to listen on");
        let succeeds = taking.is_some();
        let mut door = |kind: &str, asked: &str| {
            let taking = taking.as_mut();
            taking.and_then(|it| it.door(kind, asked))
        };
        let listeners =
            listeners::bind(&settings.listen, |asked| door(LISTEN, &asked.to_string()))?;
        let mut admin = AdminListeners::take(&config.admin, &mut door)?;
        startup.at("looking up [gateway] user and group");
        let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref())?;
        let identity = identity.as_ref();
        startup.at("making the pid file");
        let pid_file = settings.pid_file.as_deref().map(|path| match succeeds {
            true => PidFile::of_predecessor(path),
            false => PidFile::create(path),
        });
        let pid_file = pid_file.transpose()?;
        startup.at(opening("error", &config.log.error));
        let error_log = open_log(ERROR_LOG, &config.log.error, identity)?;
        events::install(error_log.queue(), config.log.level);
        process::log_panics();
        startup.at(opening("access", &config.log.access));
        let access_log = open_log("access", &config.log.access, identity)?;
        if let Some(path) = &config.lists.last_good {
            startup.at(format!("looking at the folder of {}", path.display()));
            make_folder_of_copy(path, identity);
        }
        startup.at("making the admin socket");
        admin.take_socket(&config.admin, identity)?;
        // Another gateway may have the default one, which was told above.
        let mut used = own.clone();
        used.admin.socket = used.admin.socket.filter(|_| admin.has_socket());
        // In this order, so that of two gateways that start at once, at least one sees the other.
        let claims = Announcement::make(&used);
        neighbours::tell(&used);
        startup.at("starting the workers");
        settings.max_connections =
            process::allow_connections(settings.max_connections, settings.workers)?;
        if let Some(identity) = identity {
            identity.assume()?;
        }
        Ok(Self {
            listeners,
            admin,
            pid_file,
            error_log,
            access_log,
            claims,
        })
    }
}

impl Running {
    fn start(config: Config, taking: Option<Taking>, startup: &Startup) -> io::Result<Self> {
        let own = config.clone();
        let started = Self::start_as(config, &own, taking, startup);
        started.map_err(|error| neighbours::named(error, &own))
    }

    fn start_as(
        mut config: Config,
        own: &Config,
        mut taking: Option<Taking>,
        startup: &Startup,
    ) -> io::Result<Self> {
        let acquired = Acquired::take(&mut config, own, taking.as_mut(), startup)?;
        Self::open(acquired, config, taking, startup)
    }

    /// Reads the lists, and opens the doors.
    fn open(
        acquired: Acquired,
        config: Config,
        taking: Option<Taking>,
        startup: &Startup,
    ) -> io::Result<Self> {
        let Acquired {
            listeners,
            mut admin,
            mut pid_file,
            error_log,
            access_log,
            claims,
        } = acquired;
        let own_lines = listeners.iter().map(|it| OwnLines::new(it.addr()));
        let addrs: Vec<String> = listeners.iter().map(|it| it.addr().to_string()).collect();
        let addrs = addrs.join(",");
        let admin_doors = admin.doors()?;
        let doors_shown = doors::shown(&admin_doors);
        let doors = doors_of(&config, &listeners, &admin)?;
        let again = listeners.iter().map(Entrance::again);
        let again = again.collect::<io::Result<Vec<_>>>()?;

        // If they were started before, their number is fixed.
        let workers = net::start(config.gateway.workers)?;
        let gateway = Arc::new(Gateway {
            config: Arc::new(Published::new(config.clone())),
            lists: Arc::new(InForce::new(workers)),
            metrics: Metrics::new(workers),
            access_log: access_log.queue(),
            own_lines: own_lines.collect(),
            doubts: Doubts::default(),
            draining: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            heir: OnceLock::new(),
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
        let reloads = Arc::new(Reloads::default());
        let token = admin.token.take();
        let view = View {
            gateway: Arc::clone(&gateway),
            publisher: Arc::clone(&publisher),
            checker: Arc::clone(&checker),
            heartbeat: heartbeat.clone(),
            reloads: Arc::clone(&reloads),
            error_log: error_log.queue(),
            doors: admin_doors,
            token,
            refused: Refused::default(),
        };
        let admin_open = admin.serve(&Arc::new(view))?;
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
        let giver = Giver::new(
            &gateway,
            &publisher,
            heartbeat.as_ref(),
            doors,
            again,
            sender,
        );
        let counter = giver.start(&config.path)?;
        if let Some(taking) = taking {
            upgrade::receive(&gateway, taking.confirm())?;
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
            admin: admin_open,
            claims: Some(claims),
            counter,
            successors,
        })
    }

    /// Carries out commands until one of them ends the gateway.
    fn follow(mut self, commands: &Receiver<Command>) {
        let successors = match &self.counter {
            Some(_) => self.successors.clone(),
            // Nobody can succeed to a gateway that cannot be asked for a handover.
            None => crossbeam_channel::never(),
        };
        let successor = loop {
            select! {
                recv(commands) -> command => match command {
                    Ok(Command::Reload) => self.reload(),
                    Ok(Command::ReopenLogs) => self.reopen_logs(),
                    // When all senders are gone, nothing else could end it.
                    Ok(Command::Drain) | Err(_) => break None,
                },
                recv(successors) -> successor => break successor.ok(),
            }
        };
        self.end(commands, successor);
    }

    /// Opens the log files anew. If one cannot be opened, its writer logs that.
    fn reopen_logs(&self) {
        let logs = [("access", &self.access_log), (ERROR_LOG, &self.error_log)];
        let outcomes = logs.map(|(name, log)| (name, log.reopen()));
        let outcomes = outcomes.map(|(name, reopening)| (name, reopening.wait()));
        if outcomes.iter().all(|(_, it)| *it == Reopened::Done) {
            log::info!("logs-reopened");
        }
        for (name, _) in outcomes.iter().filter(|(_, it)| *it == Reopened::Late) {
            log::warn!("log-reopen-late log={name} reason=\"its writer is busy\"");
        }
    }

    /// Reads the ini file anew. A bad one changes nothing.
    fn reload(&mut self) {
        self.reloads.begin();
        let current = self.gateway.config.load();
        let outcome = load(&current.path).and_then(|new| self.apply(&current, new));
        if let Err(error) = &outcome {
            log::error!("reload-failed error={error:?}");
        }
        self.reloads.end(outcome);
    }

    /// Brings `new` into force; returns the keys for which that needs a restart.
    ///
    /// # Errors
    /// Why that is not possible; nothing has changed then.
    fn apply(&mut self, current: &Config, new: Config) -> Result<Vec<&'static str>, String> {
        let (mut config, fixed) = current.reload(new);
        let targets = NewTargets::open(current, &config).map_err(|error| error.to_string())?;
        for key in &config.masked {
            log::warn!("reload-masked key={key} reason=\"{REDIS_URL_VARIABLE} takes precedence\"");
        }
        for key in &fixed {
            log::warn!("reload-ignored key={key} reason=\"only a restart changes it\"");
        }
        log::set_max_level(config.log.level);
        let path = config.path.display().to_string();
        let settings = &config.gateway;
        match process::allow_connections(settings.max_connections, settings.workers) {
            Ok(allowed) => config.gateway.max_connections = allowed,
            Err(error) => log::warn!("descriptors-unknown error={:?}", error.to_string()),
        }
        self.move_logs(targets, &config);
        self.publisher.set_rules(rules(&config));
        self.checker.apply(&config);
        self.gateway.config.store(config);
        self.checker.tell();
        // The trusted proxies may be different now.
        self.publisher.tell_findings();
        log::info!("reloaded file={path:?} ignored={}", fixed.len());
        Ok(fixed)
    }

    /// From now on, logs go where the new `config` says.
    fn move_logs(&mut self, targets: NewTargets, config: &Config) {
        let NewTargets { access, error } = targets;
        if access.is_none() && error.is_none() {
            return;
        }
        if let Some(target) = access {
            log::info!("log-moved log=access");
            workers::flush_access_logs(&self.gateway);
            self.access_log.switch(target);
        }
        if let Some(target) = error {
            log::info!("log-moved log={ERROR_LOG}");
            self.error_log.switch(target);
        }
        if let Some(claims) = &mut self.claims {
            claims.change_logs(&config.log);
        }
    }

    fn end(mut self, commands: &Receiver<Command>, successor: Option<Successor>) {
        let mut mover = None;
        if let Some(successor) = successor {
            // What only one gateway can have.
            self.publisher.end();
            self.claims = None;
            self.admin.leave();
            if let Some(pid_file) = self.pid_file.take() {
                pid_file.leave();
            }
            if let Some(counter) = self.counter.take() {
                counter.close();
            }
            let channel = successor.let_it_take_over();
            mover = Mover::start(&self.gateway, channel)
                .inspect_err(|error| {
                    log::error!("connections-not-moved error={:?}", error.to_string());
                })
                .ok();
        }
        let limit = self.gateway.config.load().gateway.drain_timeout;
        log::info!(
            "draining connections={} limit={limit:?}",
            self.gateway.open_connections()
        );
        let hurry = || commands.try_iter().any(|command| command == Command::Drain);
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

/// What a successor can go on with.
fn doors_of(
    config: &Config,
    listeners: &[Entrance],
    admin: &AdminListeners,
) -> io::Result<Vec<Door>> {
    let asked = config.gateway.listen.iter().map(|it| it.addr.to_string());
    let door = |(asked, entrance): (_, &Entrance)| {
        Ok(Door {
            kind: LISTEN,
            asked,
            socket: entrance.share()?,
        })
    };
    let mut doors = asked
        .zip(listeners)
        .map(door)
        .collect::<io::Result<Vec<_>>>()?;
    doors.extend(admin.share(&config.admin)?);
    Ok(doors)
}

/// How long a predecessor may take to leave the pid file, once it has said that it does.
const PID_FILE_WAIT: Duration = Duration::from_secs(5);

/// Where the old gateway has lists, the new one must not serve without.
fn wait_for_lists(publisher: &Publisher, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    while !publisher.lists().are_read() {
        if Instant::now() >= until {
            let why = publisher.status().error.unwrap_or_default();
            let what = format!("no lists within upgrade_timeout, {limit:?}: {why}");
            return Err(io::Error::other(what));
        }
        std::thread::sleep(LISTS_LOOK);
    }
    Ok(())
}

/// How often it is looked whether they are there.
const LISTS_LOOK: Duration = Duration::from_millis(10);

/// How long the reader of a log that is a pipe may take to open it.
const READER_WAIT: Duration = Duration::from_secs(5);

/// Where logs are to go from now on, as far as a reload has changed that.
struct NewTargets {
    access: Option<NewTarget>,
    error: Option<NewTarget>,
}

impl NewTargets {
    fn open(current: &Config, new: &Config) -> io::Result<Self> {
        let open = |name: &str, old: &LogTarget, new: &LogTarget| {
            let open = || NewTarget::open(name, new, |path| open_log_file(path, None));
            let opened = (old != new).then(open).transpose();
            opened.map_err(|error| io::Error::new(error.kind(), format!("[log] {name}: {error}")))
        };
        Ok(Self {
            access: open("access", &current.log.access, &new.log.access)?,
            error: open(ERROR_LOG, &current.log.error, &new.log.error)?,
        })
    }
}

fn opening(name: &str, target: &LogTarget) -> String {
    match target {
        LogTarget::File(path) => format!("opening [log] {name}, {}", path.display()),
        _ => format!("opening [log] {name}"),
    }
}

/// Opens a log. Its file then belongs to `owner`, and so does its folder if it had to be created.
fn open_log(name: &str, target: &LogTarget, owner: Option<&Identity>) -> io::Result<Log> {
    Log::open(name, target, |path| open_log_file(path, owner))
}

fn open_log_file(path: &Path, owner: Option<&Identity>) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    folders::make(folder, LOG_FOLDER_MODE, owner)
        .map_err(|error| process::named(folder, &error))?;
    // Root must not be redirected by a link of the user that it is about to become.
    let links = match fs::metadata(folder) {
        Ok(folder) if owner.is_some() && folder.uid() != 0 => Links::Refuse,
        _ => Links::Follow,
    };
    let file = open_file(path, links, READER_WAIT)?;
    // A device keeps its owner.
    if file.metadata()?.is_file() {
        process::give_to(&file, owner).map_err(|error| process::named(path, &error))?;
    }
    Ok(file)
}

/// For the owner, and readable for its group: see [`open_file`].
const LOG_FOLDER_MODE: u32 = 0o750;

/// If the folder of the last-good copy has to be created, it will belong to the user who writes the
/// copy. Without it the gateway serves all the same.
fn make_folder_of_copy(path: &Path, owner: Option<&Identity>) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = folders::make_or_give(folder, ANY_MODE, owner) {
        let error = error.to_string();
        log::error!("copy-folder-failed path={folder:?} error={error:?}");
    }
}

/// Reduced by the umask only.
const ANY_MODE: u32 = 0o777;

fn rules(config: &Config) -> GuardRules {
    GuardRules {
        share: config.lists.guard_share,
        timeout: config.lists.guard_timeout,
    }
}

type Started = (Arc<Publisher>, Option<Arc<Heartbeat>>);

fn start_store(config: &Config, gateway: &Gateway) -> io::Result<Started> {
    let port = config.upstream.peer_port;
    let max_age = match &config.store {
        Store::Redis(_) => config.lists.last_good_max_age,
        // The file is always available at the start, so its copy only serves for comparison.
        Store::File(_) => None,
    };
    let lists = Arc::clone(&gateway.lists);
    watch::start(Arc::clone(&lists), Arc::clone(&gateway.config))?;
    let publisher = Publisher::new(lists, port, rules(config), &config.store);
    let mut publisher = publisher.with_config(Arc::clone(&gateway.config));
    if let Some(path) = &config.lists.last_good {
        let purpose = Purpose {
            store: StoreName::of(&config.store),
            peer_port: port,
            max_age,
            config: config.path.clone(),
        };
        publisher = publisher.with_copy(path, purpose)?;
    }
    let bell = heartbeat::bell();
    let publisher = Arc::new(publisher.with_bell(bell.0.clone()));
    publisher.keep_time()?;
    let mut heartbeat = None;
    match &config.store {
        Store::Redis(settings) => {
            store::redis::start(settings.clone(), Arc::clone(&publisher))?;
            // In case Redis has not answered in time.
            publisher.use_copy();
            if let Some(beat) = settings.fleet.heartbeat {
                let publisher = Arc::clone(&publisher);
                let report = move || report(&publisher);
                let started = Heartbeat::start(settings.clone(), beat, report, bell)?;
                heartbeat = Some(Arc::new(started));
            }
        }
        Store::File(path) => {
            let started = store::file::start(path.clone(), port, Arc::clone(&publisher));
            started.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
    }
    Ok((publisher, heartbeat))
}

/// What the heartbeat reports about the lists.
fn report(publisher: &Publisher) -> NodeReport {
    let (lists, status) = (publisher.lists(), publisher.status());
    let held = status.held.iter().map(|it| it.list.name().to_owned());
    NodeReport {
        generation: lists.generation,
        digest: lists.are_read().then(|| lists.digest.to_string()),
        mode: status.mode.name(),
        held: held.collect(),
        checked: status.checked,
        server: status.server,
    }
}
