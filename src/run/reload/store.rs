//! Where the lists come from, at a reload: a new source is read once before anything changes, and then takes
//! the place of the old one, whose lists stay in force until the new one's are read.
//!
//! New services come into force together with what was read of them by then: nobody asks them before they
//! have lists. If these cannot be read, the reload fails, and their requests go where they went.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::config::{Config, RedisSettings, ServiceSettings, Store};
use crate::fleet::heartbeat::Heartbeat;
use crate::lists::{ListName, PeerList, ServiceName};
use crate::run::Running;
use crate::run::lists::{ReportOf, purpose, start_heartbeat};
use crate::run::secrets::Secrets;
use crate::store::format::title;
use crate::store::{self, Cause, Entries, Fault, ServiceReading, StoreName};

/// What was read, or why nothing could be.
pub(super) type TrialOutcome = Result<Vec<ServiceReading>, String>;

/// A first reading of a store that is to be followed.
pub(super) struct StoreTrial {
    /// How it has ended.
    pub(super) outcome: Receiver<TrialOutcome>,
    /// How long it may take.
    pub(super) limit: Duration,
}

/// What changes.
pub(super) struct StoreChange {
    /// Other lists, or the same by another way.
    switches: bool,
    /// Other lists.
    are_others: bool,
    copy: bool,
    heartbeat: bool,
    secrets: Secrets,
    /// The services that there were.
    known: Vec<ServiceName>,
}

impl StoreChange {
    pub(super) fn between(old: &Config, new: &Config, before: Secrets) -> Self {
        let secrets = Secrets::of(&new.store);
        let are_others = StoreName::of(&old.store) != StoreName::of(&new.store);
        let terms = !old
            .services
            .iter()
            .map(terms)
            .eq(new.services.iter().map(terms));
        let (ways, fleet) = match (&old.store, &new.store) {
            (Store::Redis(old), Store::Redis(new)) => {
                let with_old_fleet = RedisSettings {
                    fleet: old.fleet.clone(),
                    ..new.clone()
                };
                (*old != with_old_fleet, old.fleet != new.fleet)
            }
            (old, new) => (old != new, false),
        };
        // Which releases are looked at.
        let judged = !old
            .services
            .iter()
            .map(judged)
            .eq(new.services.iter().map(judged));
        let switches = ways || terms || judged || secrets != before;
        let lists = |it: &Config| (it.lists.last_good.clone(), it.lists.last_good_max_age);
        Self {
            switches,
            are_others,
            copy: are_others || terms || lists(old) != lists(new),
            heartbeat: switches || fleet,
            secrets,
            known: old.services.iter().map(|it| it.name.clone()).collect(),
        }
    }

    /// Reads the lists as they will be read, in a thread of its own; nothing if nothing changes.
    pub(super) fn try_it(&self, new: &Config, servers: usize) -> io::Result<Option<StoreTrial>> {
        if !self.switches {
            return Ok(None);
        }
        let limit = match &new.store {
            Store::Redis(settings) => limit_for(settings.timeout),
            Store::File(_) => FILE_LIMIT,
        };
        let (tell, outcome) = bounded(1);
        let (store, services) = (new.store.clone(), new.services.clone());
        let wanted = match (self.are_others, servers) {
            (false, _) => Wanted::NewServices(self.known.clone()),
            (true, 0) => Wanted::Lists,
            (true, _) => Wanted::Servers,
        };
        let thread = std::thread::Builder::new().name("lists-trial".to_owned());
        thread.spawn(move || {
            // Nobody may be waiting any more.
            let _ = tell.send(attempt(&store, &services, &wanted));
        })?;
        Ok(Some(StoreTrial { outcome, limit }))
    }

    /// Follows the new store, and keeps the copy and the heartbeat as the settings say from now on.
    pub(super) fn bring_into_force(self, running: &mut Running, config: &Config) {
        running.secrets = self.secrets;
        let publisher = &running.publisher;
        let feed = self.switches.then(|| {
            let source = config.store.to_string();
            log::info!("store-changed source={source:?}");
            publisher.switch(source, self.are_others)
        });
        running.trips.follow(config, self.are_others);
        if self.copy {
            let path = config.lists.last_good.as_deref();
            let copy = path.map(|path| (path, purpose(config, false)));
            if let Err(error) = publisher.move_copy(copy) {
                log::error!("copy-not-kept error={:?}", error.to_string());
            }
        }
        if let Some(feed) = feed {
            let started = match &config.store {
                Store::Redis(settings) => {
                    store::redis::start(settings.clone(), feed, Cause::Reconnect)
                }
                Store::File(path) => {
                    let started = store::file::start(
                        path.clone(),
                        config.services.clone(),
                        feed,
                        Cause::Reconnect,
                    );
                    started.map_err(|error| io::Error::other(error.to_string()))
                }
            };
            if let Err(error) = started {
                // It was there just now.
                publisher.failed(error);
            }
            publisher.use_copy();
        }
        if self.heartbeat {
            running.change_heartbeat(config);
        }
    }
}

impl Running {
    fn change_heartbeat(&mut self, config: &Config) {
        let before = self.heartbeat.load_full();
        if let Some(before) = &before {
            // It may have the same name.
            before.rest(true);
        }
        let reported = ReportOf {
            publisher: Arc::clone(&self.publisher),
            trips: Arc::clone(&self.trips),
            judge: Arc::clone(&self.judge),
        };
        let bell = self.bell.clone();
        let new = start_heartbeat(&config.store, reported, bell, false).unwrap_or_else(|error| {
            log::error!("heartbeat-not-started error={:?}", error.to_string());
            None
        });
        self.heartbeat.store(new.map(Arc::new));
        if let Some(before) = before {
            Heartbeat::end(&before);
        }
    }
}

/// What the settings say of the lists of a service: with other ones, the same entries may mean something
/// else.
fn terms(service: &Arc<ServiceSettings>) -> (&ServiceName, Option<&ServiceName>, &str, u16) {
    let ServiceSettings {
        name,
        gray_of,
        salt,
        upstream,
        ..
    } = &**service;
    (name, gray_of.as_ref(), salt, upstream.peer_port)
}

/// Whether the release of a service is looked at beside its lists.
fn judged(service: &Arc<ServiceSettings>) -> (&ServiceName, bool) {
    (&service.name, service.verdict.is_on())
}

/// How long a lists file may take to be read.
const FILE_LIMIT: Duration = Duration::from_secs(5);

/// How long Redis may take, which it answers within this time: a connection and some answers.
fn limit_for(timeout: Duration) -> Duration {
    2 * timeout + Duration::from_secs(1)
}

/// What must be found for a reload to succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// An answer, and lists of services besides these, of which each list may be as it was before.
    NewServices(Vec<ServiceName>),
    /// Lists that can be read.
    Lists,
    /// Servers in `prod` as well, since there are some now.
    Servers,
}

/// Reads the lists once.
fn attempt(store: &Store, services: &[Arc<ServiceSettings>], wanted: &Wanted) -> TrialOutcome {
    let readings: Vec<ServiceReading> = match store {
        Store::Redis(settings) => {
            let once = store::redis::read(settings);
            once.map_err(|error| format!("[redis] {error}"))?.readings
        }
        Store::File(path) => {
            let outcome = store::format::read(path);
            let outcome = outcome.and_then(|text| store::format::parse_services(&text, services));
            // What it says of an entry is not for everybody who sees why a reload has failed.
            outcome.map_err(|_| {
                let path = path.display();
                format!("[lists] file: {path} cannot be read or has a mistake: see `graygate -t`")
            })?
        }
    };
    let may_stay = |service: &ServiceName| match wanted {
        Wanted::NewServices(known) => known.contains(service),
        Wanted::Lists | Wanted::Servers => false,
    };
    for reading in readings.iter().filter(|it| !may_stay(&it.service)) {
        let settings = services.iter().find(|it| it.name == reading.service);
        let port = settings.map_or(80, |it| it.upstream.peer_port);
        if let Some((list, fault)) = fault_of(reading, port) {
            let key = title(&reading.service, list.name());
            return Err(format!("{store}: {key}: {}", fault.name()));
        }
    }
    let mut own = readings.iter().filter(|it| it.service.is_default());
    let has_servers = own.any(|it| it.lists.prod.as_ref().is_ok_and(|it| !it.is_empty()));
    match *wanted == Wanted::Servers && !has_servers {
        true => Err(format!("prod is empty in {store}, and has servers now")),
        false => Ok(readings),
    }
}

/// Why a list of a service cannot be read, or has no server although it has entries.
fn fault_of(reading: &ServiceReading, peer_port: u16) -> Option<(ListName, Fault)> {
    let mut lists = reading.lists.iter();
    let fault = lists.find_map(|(list, it)| it.as_ref().err().map(|it| (list, *it)));
    let prod = reading.lists.prod.as_ref().ok();
    let are_skipped = || prod.is_some_and(|it| !it.is_empty() && has_no_peer(it, peer_port));
    fault.or_else(|| are_skipped().then_some((ListName::Prod, Fault::AllSkipped)))
}

fn has_no_peer(entries: &Entries, peer_port: u16) -> bool {
    PeerList::parse(entries, peer_port).peers().is_empty()
}
