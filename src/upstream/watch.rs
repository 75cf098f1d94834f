//! The threads that look after what is known of peers: one ages it, see [`InForce::look`], and tells of
//! pools and their outages, and of a wall clock that jumps; one has their names looked up.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::events::PoolWatch;
use super::in_force::InForce;
use super::outage::OutageWatch;
use crate::config::Config;
use crate::process::clock::ClockWatch;
use crate::process::supervised;
use crate::snapshot::Published;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts them.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(in_force: Arc<InForce>, config: Arc<Published<Config>>) -> io::Result<()> {
    let lists = Arc::clone(&in_force);
    supervised::spawn("names", move || {
        loop {
            let interval = config.load().default_service().upstream.resolve_interval;
            if lists.names().turn(interval) {
                lists.find_peers();
            }
        }
    })?;
    supervised::spawn("peers-look", move || {
        let mut clock = ClockWatch::default();
        // By the services' own numbers.
        let mut watches: FxHashMap<u64, (PoolWatch, OutageWatch)> = FxHashMap::default();
        loop {
            thread::sleep(PERIOD);
            let now = Instant::now();
            in_force.look(now);
            clock.look();
            let serving = in_force.serving();
            let services = serving.services();
            let ids: FxHashSet<u64> = services.iter().map(|it| it.pools().service_id()).collect();
            watches.retain(|id, _| ids.contains(id));
            for pools in services.iter().map(|it| it.pools()) {
                let (watch, outages) = watches.entry(pools.service_id()).or_default();
                outages.look(pools, now);
                watch.look(pools, now);
            }
        }
    })?;
    Ok(())
}
