//! Where the lists come from: starts whatever reads them, and tells the fleet which are in force.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Store};
use crate::fleet::heartbeat::{self, Heartbeat, NodeReport};
use crate::proxy::Gateway;
use crate::store::copy::Purpose;
use crate::store::gate::guard::GuardRules;
use crate::store::{self, Publisher, StoreName};
use crate::upstream::watch;

pub(super) fn rules(config: &Config) -> GuardRules {
    GuardRules {
        share: config.lists.guard_share,
        timeout: config.lists.guard_timeout,
    }
}

pub(super) type Started = (Arc<Publisher>, Option<Arc<Heartbeat>>);

pub(super) fn start_store(config: &Config, gateway: &Gateway) -> io::Result<Started> {
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

/// Where the old gateway has lists, the new one must not serve without.
pub(super) fn wait_for_lists(publisher: &Publisher, limit: Duration) -> io::Result<()> {
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
