//! The page `/peers`: every server of the lists in force, and how it does.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use crate::admin::pages::member::{Member, Page, object};
use crate::admin::view::View;
use crate::config;
use crate::error::Failure;
use crate::lists::{PoolName, ServiceName};
use crate::proxy::Gateway;
use crate::upstream::health::{PeerState, Why};
use crate::upstream::roster::Peer;
use crate::upstream::serving::Pools;

object! {
    /// What the page says.
    pub(crate) struct PeersPage {
        pools: Vec<PoolSeen>,
    }
}

object! {
    /// A pool and its peers.
    pub(crate) struct PoolSeen {
        service: String,
        pool: String,
        /// How many are up or starting.
        up: u64,
        /// How many may be asked at present.
        asked: u64,
        /// How many are in which state.
        states: BTreeMap<String, u64>,
        /// Sorted by address.
        peers: Vec<PeerSeen>,
    }
}

object! {
    /// One peer.
    pub(crate) struct PeerSeen {
        address: String,
        /// The name that it was found by.
        name: Option<String>,
        weight: u64,
        state: String,
        /// Up or starting.
        up: bool,
        /// Why it is out.
        reason: Option<String>,
        /// When it may be tried again.
        until: Option<String>,
        /// How long that is from now.
        left_seconds: Option<f64>,
        /// It may be asked at present: all that are up, and perhaps some that are out.
        asked: bool,
        /// How often in a row it went out.
        outs_in_a_row: u64,
        in_flight: u64,
        /// Attempts since it was listed, by how they ended.
        answered: u64,
        failed: u64,
        abandoned: u64,
        /// Those that failed, by failure.
        failures: BTreeMap<String, u64>,
        /// To the head of the response, in the last minute; none when nothing was answered.
        latency_median_seconds: Option<f64>,
        latency_p99_seconds: Option<f64>,
        /// What its last health check has come to; none when there was none.
        last_check: Option<String>,
        /// The status of its response, if one came.
        last_check_status: Option<u64>,
        last_check_age_seconds: Option<f64>,
    }
}

impl Page for PeersPage {
    const PATH: &'static str = "/peers";

    fn of(page: &Value) -> Option<Self> {
        Self::read(page)
    }
}

/// The page as text.
pub(crate) fn render(view: &View) -> String {
    text(PoolSeen::all(&view.gateway, Instant::now()))
}

/// The page of one service as text, if there is one.
pub(crate) fn render_of(view: &View, service: &ServiceName) -> Option<String> {
    let serving = view.gateway.lists.serving();
    let service = serving.of(service)?;
    let pools = PoolSeen::of_service(service.pools(), Instant::now());
    Some(text(pools.into()))
}

fn text(pools: Vec<PoolSeen>) -> String {
    format!("{:#}\n", PeersPage { pools }.render())
}

impl PeersPage {
    /// What it says of one service.
    pub(crate) fn only(mut self, service: &str) -> Self {
        self.pools.retain(|it| it.service == service);
        self
    }
}

impl PoolSeen {
    /// Those of all services of `gateway`, as they stand at `now`.
    pub(crate) fn all(gateway: &Gateway, now: Instant) -> Vec<Self> {
        let serving = gateway.lists.serving();
        let services = serving.services().iter().map(|it| it.pools());
        services.flat_map(|it| Self::of_service(it, now)).collect()
    }

    fn of_service(pools: &Pools, now: Instant) -> [Self; PoolName::ALL.len()] {
        let rules = pools.rules();
        PoolName::ALL.map(|pool| {
            let usable = pools.usable(pool, now);
            let peers = pools[pool].peers();
            let mut seen: Vec<_> = peers
                .iter()
                .map(|it| PeerSeen::of(it, now, rules))
                .collect();
            usable.places().for_each(|place| seen[place].asked = true);
            Self {
                service: pools.service().to_string(),
                pool: pool.name().to_owned(),
                up: seen.iter().filter(|it| it.up).count() as u64,
                asked: usable.len() as u64,
                states: PeerState::NAMES
                    .map(|state| {
                        let count = seen.iter().filter(|it| it.state == state).count();
                        (state.to_owned(), count as u64)
                    })
                    .into(),
                peers: seen,
            }
        })
    }
}

impl PeerSeen {
    fn of(peer: &Peer, now: Instant, rules: &config::UpstreamSettings) -> Self {
        let health = &peer.health;
        let state = health.state(now, rules);
        let (reason, until) = match state {
            PeerState::Out { until, why } => (Some(why), Some(until)),
            _ => (None, None),
        };
        // A check that succeeds ends it, whenever that is.
        let until = until.filter(|_| reason != Some(Why::Check));
        let left = until.map(|it| it.saturating_duration_since(now));
        let (quantiles, check) = (health.quantiles(), health.last_check());
        let outcomes = health.outcomes();
        let failed = outcomes.failed + health.unsure();
        let failures = Failure::ALL.iter();
        let by_failure = failures.map(|it| (it.name(), health.failures(*it)));
        let with_a_name: u64 = by_failure.clone().map(|(_, count)| count).sum();
        let by_status = failed.saturating_sub(with_a_name);
        let by_kind = by_failure.chain([(Why::Status.name(), by_status)]);
        Self {
            address: peer.address.to_string(),
            name: peer.name.as_deref().map(str::to_owned),
            weight: u64::from(peer.weight),
            state: state.name().to_owned(),
            up: state.is_up(),
            reason: reason.map(|it| it.name().to_owned()),
            until: left
                .map(|it| humantime::format_rfc3339_millis(SystemTime::now() + it).to_string()),
            left_seconds: left.map(|it| it.as_secs_f64()),
            asked: false,
            outs_in_a_row: u64::from(health.strikes()),
            in_flight: health.in_flight(),
            answered: outcomes.answered,
            failed,
            abandoned: health.abandoned(),
            failures: by_kind
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            latency_median_seconds: quantiles.map(|it| it.median.as_secs_f64()),
            latency_p99_seconds: quantiles.map(|it| it.p99.as_secs_f64()),
            last_check: check.map(|it| it.outcome.name().to_owned()),
            last_check_status: check.and_then(|it| it.status).map(u64::from),
            last_check_age_seconds: check
                .map(|it| now.saturating_duration_since(it.at).as_secs_f64()),
        }
    }
}
