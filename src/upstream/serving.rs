//! What is in force, as one value: of each service its lists, its settings, and the peers that its lists mean
//! at present.
//!
//! All of it is shared: what replaces it after a change of one service has the others' as they were.

use std::ops::Index;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::budget::Budget;
use super::choose::Usable;
use super::roster::Roster;
use crate::config::{ServiceSettings, UpstreamSettings};
use crate::lists::{Lists, PoolName, ServiceName};

/// What is counted of a service for as long as it is there, whatever becomes of its lists and settings.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Tells it from every other service, also from one that had its name before.
    id: u64,
    /// Of the pools in their order, for all their rosters.
    budgets: [Arc<Budget>; PoolName::ALL.len()],
}

impl Accounts {
    /// Those of a new service that so many workers serve.
    pub(super) fn new(id: u64, workers: usize) -> Self {
        Self {
            id,
            budgets: PoolName::ALL.map(|_| Arc::new(Budget::new(workers))),
        }
    }

    /// The account of retries at a pool.
    pub(super) fn budget(&self, pool: PoolName) -> &Arc<Budget> {
        &self.budgets[pool as usize]
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
}

impl Pools {
    pub(super) fn new(
        settings: Arc<ServiceSettings>,
        accounts: Arc<Accounts>,
        roster: impl Fn(PoolName) -> Roster,
    ) -> Self {
        Self {
            settings,
            accounts,
            pre: roster(PoolName::Pre),
            prod: roster(PoolName::Prod),
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

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// The same peers, asked in another way.
    pub(super) fn with(&self, settings: &Arc<ServiceSettings>) -> Self {
        Self {
            settings: Arc::clone(settings),
            ..self.clone()
        }
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

impl Index<PoolName> for Pools {
    type Output = Roster;

    fn index(&self, pool: PoolName) -> &Roster {
        match pool {
            PoolName::Pre => &self.pre,
            PoolName::Prod => &self.prod,
        }
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

    /// Its name.
    pub(crate) fn name(&self) -> &ServiceName {
        self.pools.service()
    }
}

/// The services in force.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The default one first, then in the order of the settings; there is always one.
    services: Box<[Arc<ServiceInForce>]>,
    places: Arc<FxHashMap<ServiceName, usize>>,
    /// Another one than that of every value before it.
    number: u64,
}

impl Serving {
    pub(super) fn new(
        services: Vec<Arc<ServiceInForce>>,
        places: Arc<FxHashMap<ServiceName, usize>>,
        number: u64,
    ) -> Self {
        Self {
            services: services.into_boxed_slice(),
            places,
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
        self.places.get(name).copied()
    }

    pub(super) fn places(&self) -> &Arc<FxHashMap<ServiceName, usize>> {
        &self.places
    }

    /// Another one than that of every value before it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}
