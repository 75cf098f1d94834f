//! Where the lists come from: starts whatever reads them, and tells the fleet which are in force.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::config::{Config, Store};
use crate::fleet::heartbeat::{self, Heartbeat, NodeReport};
use crate::fleet::node::{GRAMMAR, NodeService};
use crate::lists::ServiceName;
use crate::proxy::Gateway;
use crate::release::judge::Judge;
use crate::release::leader::{self, LeaderOf};
use crate::release::scribe::Scribe;
use crate::release::trips::Trips;
use crate::release::webhook::Webhook;
use crate::store::copy::{PeerPorts, Purpose};
use crate::store::gate::guard::GuardRules;
use crate::store::{self, Cause, HandedLists, Publisher, ReleaseWatch, StoreName, TakenLists};
use crate::upstream::watch;

pub(super) fn rules(config: &Config) -> GuardRules {
    GuardRules {
        share: config.lists.guard_share,
        timeout: config.lists.guard_timeout,
    }
}

/// What reads the lists, and what tells others of them.
pub(super) struct Started {
    pub(super) publisher: Arc<Publisher>,
    pub(super) webhook: Arc<Webhook>,
    pub(super) trips: Arc<Trips>,
    pub(super) judge: Arc<Judge>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) bell: Bell,
}

/// Rung when a heartbeat has something new to say, and heard by the one that there is.
pub(super) type Bell = (Sender<()>, Receiver<()>);

/// Begins with the lists that were `handed` over by another process, if there was one.
pub(super) fn start_store(
    config: &Config,
    gateway: &Gateway,
    handed: Option<&HandedLists>,
) -> io::Result<(Started, TakenLists)> {
    let port = config.default_service().upstream.peer_port;
    let lists = Arc::clone(&gateway.lists);
    watch::start(Arc::clone(&lists), Arc::clone(&gateway.config))?;
    let publisher = Publisher::new(lists, port, rules(config), &config.store);
    let publisher = publisher.with_services(&config.services);
    let mut publisher = publisher.with_config(Arc::clone(&gateway.config));
    if let Some(path) = &config.lists.last_good {
        let purpose = purpose(config, handed.is_some());
        publisher = publisher.with_copy(path, purpose)?;
    }
    let mut taken = TakenLists::default();
    if let Some(handed) = handed {
        (publisher, taken) = publisher.with_handed(handed, &StoreName::of(&config.store));
    }
    let bell = heartbeat::bell();
    // Before there are lists: nobody gets what was taken back.
    let known = handed.map(|it| it.trips.as_deref());
    let webhook = Webhook::start(config, handed.is_some())?;
    let trips = Trips::start(config, &gateway.lists, &webhook, bell.0.clone(), known)?;
    let publisher = publisher.with_watch(Arc::clone(&trips) as Arc<dyn ReleaseWatch>);
    let scribe = Scribe::start(Arc::clone(&gateway.config))?;
    let publisher = publisher.with_lists_watch(scribe);
    let publisher = Arc::new(publisher.with_bell(bell.0.clone()));
    publisher.keep_time()?;
    let settings = Arc::clone(&gateway.config);
    let judge = Judge::start(
        Arc::clone(&gateway.lists),
        settings,
        Arc::clone(&trips),
        Arc::clone(&webhook),
        bell.0.clone(),
    )?;
    leader::start(LeaderOf {
        in_force: Arc::clone(&gateway.lists),
        config: Arc::clone(&gateway.config),
        trips: Arc::clone(&trips),
        judge: Arc::clone(&judge),
        webhook: Arc::clone(&webhook),
    })?;
    match &config.store {
        Store::Redis(settings) => {
            store::redis::start(settings.clone(), publisher.feed(), Cause::Start)?;
            // In case Redis has not answered in time.
            publisher.use_copy();
        }
        Store::File(path) => {
            let started = store::file::start(
                path.clone(),
                config.services.clone(),
                publisher.feed(),
                Cause::Start,
            );
            started.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
    }
    // The other process writes it for as long as it is the gateway.
    let rests = handed.is_some();
    let reported = ReportOf {
        publisher: Arc::clone(&publisher),
        trips: Arc::clone(&trips),
        judge: Arc::clone(&judge),
    };
    let heartbeat = start_heartbeat(&config.store, reported, bell.clone(), rests)?;
    let started = Started {
        publisher,
        webhook,
        trips,
        judge,
        heartbeat,
        bell,
    };
    Ok((started, taken))
}

/// What the last-good copy is kept for; `succeeds`: another process keeps it still.
pub(super) fn purpose(config: &Config, succeeds: bool) -> Purpose {
    let max_age = match &config.store {
        Store::Redis(_) => config.lists.last_good_max_age,
        // The file is always available at the start, so its copy only serves for comparison.
        Store::File(_) => None,
    };
    Purpose {
        store: StoreName::of(&config.store),
        ports: PeerPorts::of(&config.services),
        max_age,
        config: config.path.clone(),
        succeeds,
    }
}

/// What a heartbeat tells of.
pub(super) struct ReportOf {
    pub(super) publisher: Arc<Publisher>,
    pub(super) trips: Arc<Trips>,
    pub(super) judge: Arc<Judge>,
}

/// The heartbeat, if there is to be one; `rests`: see [`Heartbeat::rest`].
pub(super) fn start_heartbeat(
    store: &Store,
    reported: ReportOf,
    bell: Bell,
    rests: bool,
) -> io::Result<Option<Heartbeat>> {
    let Store::Redis(settings) = store else {
        return Ok(None);
    };
    let Some(beat) = settings.fleet.heartbeat else {
        return Ok(None);
    };
    let report = move || report(&reported);
    Heartbeat::start(settings.clone(), beat, report, bell, rests).map(Some)
}

/// What the heartbeat reports about the lists, and the releases in them.
fn report(reported: &ReportOf) -> NodeReport {
    let (publisher, trips) = (&reported.publisher, &reported.trips);
    let (lists, status) = (publisher.lists(), publisher.status());
    let services = publisher.services();
    let held = |service: &ServiceName| -> Vec<String> {
        let held = status.of(service).held;
        held.iter().map(|it| it.list.name().to_owned()).collect()
    };
    let tripped = |service: &ServiceName| trips.of(service).map(|it| it.trip.pre);
    let all = services.iter().map(|it| (it, publisher.lists_of(it)));
    let all: Vec<_> = all.collect();
    let has_rules = all.iter().any(|(_, lists)| !lists.gray.rules().is_empty());
    let others = all.iter().filter(|(service, _)| !service.is_default());
    let others = others.map(|(service, lists)| {
        let of = NodeService {
            digest: lists.are_read().then(|| lists.digest.to_string()),
            generation: lists.generation,
            held: held(service),
            tripped: tripped(service),
            release: trips.held(service),
            pre: reported.judge.pre_up(service),
        };
        (service.to_string(), of)
    });
    NodeReport {
        generation: lists.generation,
        digest: lists.are_read().then(|| lists.digest.to_string()),
        mode: status.mode.name(),
        held: held(&ServiceName::default()),
        tripped: tripped(&ServiceName::default()),
        release: trips.held(&ServiceName::default()),
        pre: reported.judge.pre_up(&ServiceName::default()),
        services: others.collect(),
        entries_used: if has_rules { GRAMMAR } else { 1 },
        verdicts: reported.judge.told(),
        checked: status.checked,
        server: status.server,
    }
}

/// Where the old gateway has lists, the new one must not serve without, nor take over with settings by which
/// it cannot read its store: that would be noticed much later. So it waits until it has read the store: the
/// lists of every service, for of one that is new the old one has none. Only where the old one cannot read
/// the same store either, nothing gets worse, and it goes on with the lists that were `handed` over.
pub(super) fn wait_for_lists(
    publisher: &Publisher,
    handed: &HandedLists,
    taken: TakenLists,
    limit: Duration,
) -> io::Result<()> {
    let until = Instant::now() + limit;
    while !publisher.was_read() {
        let error = publisher.status().error;
        if let Some(error) = &error
            && taken.in_force
            && handed.error.is_some()
        {
            log::warn!(
                "lists-unread error={error:?} reason=\"the gateway before could not read them either\""
            );
            return Ok(());
        }
        if Instant::now() >= until {
            let why = error.unwrap_or_else(|| "not yet".to_owned());
            let what = format!("no lists were read within {limit:.1?}: {why}");
            return Err(io::Error::other(what));
        }
        std::thread::sleep(LISTS_LOOK);
    }
    let (lists, servers) = (publisher.lists(), taken.servers);
    if !taken.in_force && lists.prod.is_empty() && servers > 0 {
        let source = publisher.status().source;
        let what = format!(
            "prod is empty in {source}, and the running gateway has {servers} servers there"
        );
        return Err(io::Error::other(what));
    }
    Ok(())
}

/// How often it is looked whether they are there.
const LISTS_LOOK: Duration = Duration::from_millis(10);
