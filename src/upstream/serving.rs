//! What is in force, as one value: of each service its lists, its settings, and the peers that its lists mean
//! at present.
//!
//! All of it is shared: what replaces it after a change of one service has the others' as they were.

use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::budget::Budget;
use super::check_counts::CheckCounts;
use super::choose::Usable;
use super::roster::{Peer, Roster};
use super::units::{Units, UnitsOfService};
use crate::config::{ServiceSettings, UpstreamSettings};
use crate::error::Checked;
use crate::http::subject::Subject;
use crate::lists::{ListName, Lists, PoolName, ServiceName};
use crate::metrics::{HistogramSum, PoolMetrics};
use crate::route::{ServiceTable, UnknownService};

/// What is counted of a service for as long as it is there, whatever becomes of its lists and settings.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Tells it from every other service, also from one that had its name before.
    id: u64,
    workers: usize,
    /// Of the pools in their order, for all their rosters.
    budgets: [Arc<Budget>; PoolName::ALL.len()],
    /// Of each worker that has served it; none for the default service, whose counters are among the worker's
    /// own.
    counters: Box<[OnceLock<Box<PoolMetrics>>]>,
    /// None before there was one.
    checks: OnceLock<Box<CheckCounts>>,
    units: UnitsOfService,
    /// The version ([`Lists::version`]) that was taken back, or 0. Another one ends that by being in force.
    tripped: AtomicU64,
}

impl Accounts {
    /// Those of a new service that so many workers serve.
    pub(super) fn new(id: u64, service: &ServiceName, workers: usize) -> Self {
        let counting = if service.is_default() { 0 } else { workers };
        Self {
            id,
            workers,
            budgets: PoolName::ALL.map(|_| Arc::new(Budget::new(workers))),
            counters: (0..counting).map(|_| OnceLock::new()).collect(),
            checks: OnceLock::new(),
            units: UnitsOfService::default(),
            tripped: AtomicU64::new(0),
        }
    }

    /// The units of the service, if a release `is_under_way`.
    fn units(&self, is_under_way: bool) -> Option<Arc<Units>> {
        self.units.while_release(is_under_way, self.workers)
    }

    /// Frees what nobody has any more.
    pub(super) fn tidy(&self) {
        self.units.tidy();
    }

    /// The account of retries at a pool.
    pub(super) fn budget(&self, pool: PoolName) -> &Arc<Budget> {
        &self.budgets[pool as usize]
    }
}

/// Requests of all services but the default one, those that are gone included: what counts all requests
/// must not become less by a reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountedRequests {
    pub(crate) by_worker: Vec<u64>,
    pub(crate) durations: HistogramSum,
}

impl CountedRequests {
    /// Adds those of a service.
    pub(super) fn add(&mut self, accounts: &Accounts) {
        let workers = accounts.counters.len().max(self.by_worker.len());
        self.by_worker.resize(workers, 0);
        for (count, counters) in self.by_worker.iter_mut().zip(&accounts.counters) {
            if let Some(counters) = counters.get() {
                *count = count.wrapping_add(counters.all_requests());
                counters
                    .durations
                    .iter()
                    .for_each(|it| self.durations.add(it));
            }
        }
    }
}

/// The peers of both pools of a service, and how they are asked: what an exchange needs for as long as it
/// lasts, while a gray list may be long, and another one every moment.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    settings: Arc<ServiceSettings>,
    accounts: Arc<Accounts>,
    pre: Roster,
    prod: Roster,
    /// What is counted of the release that is under way, if one is.
    units: Option<Arc<Units>>,
}

impl Pools {
    pub(super) fn new(
        settings: Arc<ServiceSettings>,
        accounts: Arc<Accounts>,
        roster: impl Fn(PoolName) -> Roster,
    ) -> Self {
        let (pre, prod) = (roster(PoolName::Pre), roster(PoolName::Prod));
        let units = accounts.units(is_release(&settings, &pre));
        Self {
            settings,
            accounts,
            pre,
            prod,
            units,
        }
    }

    /// The settings of the service.
    pub(crate) fn settings(&self) -> &Arc<ServiceSettings> {
        &self.settings
    }

    /// How its peers are asked.
    pub(crate) fn rules(&self) -> &UpstreamSettings {
        &self.settings.upstream
    }

    /// The name of the service.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.settings.name
    }

    /// Tells the service from every other one, also from one that had its name before.
    pub(crate) fn service_id(&self) -> u64 {
        self.accounts.id
    }

    /// True when the new version in these lists was taken back.
    #[inline]
    pub(crate) fn is_tripped(&self, lists: &Lists) -> bool {
        self.accounts.tripped.load(Ordering::Relaxed) == lists.version
    }

    /// From now on, this version is the one that was taken back; 0 for none.
    pub(crate) fn set_tripped(&self, version: u64) {
        self.accounts.tripped.store(version, Ordering::Relaxed);
    }

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// What `worker` counts of the service; `None` for the default one, whose counters are among the worker's
    /// own.
    #[inline]
    pub(crate) fn counters(&self, worker: usize) -> Option<&PoolMetrics> {
        let counters = self.accounts.counters.get(worker)?;
        Some(counters.get_or_init(Box::default))
    }

    /// What all workers have counted of the service; nothing for the default one.
    pub(crate) fn all_counters(&self) -> impl Iterator<Item = &PoolMetrics> {
        self.accounts
            .counters
            .iter()
            .filter_map(|it| it.get().map(|it| &**it))
    }

    /// What health checks of the service's peers have come to; `None` before there was one.
    pub(crate) fn checks(&self) -> Option<&CheckCounts> {
        self.accounts.checks.get().map(|it| &**it)
    }

    /// Counts a health check of a peer of `pool`.
    pub(super) fn note_check(&self, pool: PoolName, outcome: Checked) {
        let checks = self.accounts.checks.get_or_init(Box::default);
        checks.note(pool, outcome);
    }

    /// The same peers, asked in another way.
    pub(super) fn with(&self, settings: &Arc<ServiceSettings>) -> Self {
        Self {
            settings: Arc::clone(settings),
            units: self.accounts.units(is_release(settings, &self.pre)),
            ..self.clone()
        }
    }

    /// What is counted of the release that is under way; `None` if none is, or nobody wants to know.
    #[inline]
    pub(crate) fn units(&self) -> Option<&Units> {
        self.units.as_deref()
    }

    /// True when another pool answers where nobody of `pool` can.
    pub(crate) fn fall_back(&self, pool: PoolName) -> bool {
        pool == PoolName::Pre && self.rules().fallback && !self.prod.peers().is_empty()
    }

    /// Those peers of `pool` that may be asked.
    pub(crate) fn usable(&self, pool: PoolName, now: Instant) -> Usable {
        let all_may_be_out = self.fall_back(pool);
        Usable::of(self[pool].peers(), all_may_be_out, now, self.rules())
    }
}

/// True when there is a release that is to be watched.
fn is_release(settings: &ServiceSettings, pre: &Roster) -> bool {
    settings.verdict.is_on() && !pre.peers().is_empty()
}

impl Index<PoolName> for Pools {
    type Output = Roster;

    fn index(&self, pool: PoolName) -> &Roster {
        match pool {
            PoolName::Pre => &self.pre,
            PoolName::Prod => &self.prod,
        }
    }
}

/// Where services are to be found among those in force.
#[derive(Debug)]
pub(super) struct Table {
    places: FxHashMap<ServiceName, usize>,
    /// By what requests are for; `None` where all are the default one's.
    requests: Option<ServiceTable>,
}

impl Table {
    pub(super) fn of(services: &[Arc<ServiceSettings>]) -> Self {
        let names = services.iter().map(|it| it.name.clone());
        let is_needed = !matches!(services, [only] if only.takes_rest);
        Self {
            places: names.zip(0..).collect(),
            requests: is_needed.then(|| ServiceTable::new(services)),
        }
    }

    pub(super) fn has(&self, service: &ServiceName) -> bool {
        self.places.contains_key(service)
    }
}

/// One service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceInForce {
    lists: Arc<Lists>,
    pools: Arc<Pools>,
}

impl ServiceInForce {
    pub(super) fn new(lists: Arc<Lists>, pools: Arc<Pools>) -> Self {
        if let Some(units) = pools.units() {
            units.is_release(lists.pre.digest(ListName::Pre).number());
        }
        Self { lists, pools }
    }

    /// Its lists.
    pub(crate) fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// Its peers, and how they are asked.
    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// True when the new version in its lists was taken back.
    pub(crate) fn is_tripped(&self) -> bool {
        self.pools.is_tripped(&self.lists)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &ServiceName {
        self.pools.service()
    }
}

/// Which service one is, for whoever looks for it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceRef {
    id: u64,
    /// Where it was the last time.
    place: usize,
}

impl ServiceRef {
    /// A number that no other service has, nor one that had its name before.
    pub(crate) fn id(self) -> u64 {
        self.id
    }

    /// True when the other one is of the same service.
    pub(crate) fn is(self, other: Self) -> bool {
        self.id == other.id
    }
}

/// The services in force.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The default one first, then in the order of the settings; there is always one.
    services: Box<[Arc<ServiceInForce>]>,
    table: Arc<Table>,
    /// Another one than that of every value before it.
    number: u64,
}

impl Serving {
    pub(super) fn new(services: Vec<Arc<ServiceInForce>>, table: Arc<Table>, number: u64) -> Self {
        Self {
            services: services.into_boxed_slice(),
            table,
            number,
        }
    }

    /// All of them, the default one first.
    pub(crate) fn services(&self) -> &[Arc<ServiceInForce>] {
        &self.services
    }

    /// The one that is always there.
    pub(crate) fn default_service(&self) -> &ServiceInForce {
        &self.services[0]
    }

    /// The service of that name.
    pub(crate) fn of(&self, name: &ServiceName) -> Option<&Arc<ServiceInForce>> {
        self.place_of(name).map(|place| &self.services[place])
    }

    pub(super) fn place_of(&self, name: &ServiceName) -> Option<usize> {
        self.table.places.get(name).copied()
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The place of the service that a request belongs to.
    ///
    /// # Errors
    /// It belongs to none.
    #[inline]
    pub(crate) fn find(&self, subject: &Subject<'_>) -> Result<usize, UnknownService> {
        match &self.table.requests {
            None => Ok(0),
            Some(table) => table.find(subject.host(), subject.path()),
        }
    }

    /// The peers of all services; those of several come for each.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        let pools = self.services.iter().map(|it| it.pools());
        pools.flat_map(|it| PoolName::ALL.into_iter().flat_map(|pool| it[pool].peers()))
    }

    /// True when there are others than the default one.
    pub(crate) fn has_several(&self) -> bool {
        self.services.len() > 1
    }

    /// The service at `place`, for later.
    pub(crate) fn reference(&self, place: usize) -> ServiceRef {
        let id = self.services[place].pools().service_id();
        ServiceRef { id, place }
    }

    /// Where the service is now, if it is still there.
    pub(crate) fn place_again(&self, service: ServiceRef) -> Option<usize> {
        let is_it = |it: &Arc<ServiceInForce>| it.pools().service_id() == service.id;
        match self.services.get(service.place) {
            Some(it) if is_it(it) => Some(service.place),
            _ => self.services.iter().position(is_it),
        }
    }

    /// Another one than that of every value before it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}
