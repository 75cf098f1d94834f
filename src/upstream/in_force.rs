//! The lists in force, with the peers that they mean at present: what the control plane publishes and
//! workers read.
//!
//! Both are replaced together, by one pointer swap. Peers change without their lists, too, when a name
//! means other addresses: then the lists stay, with their generation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::{Deref, Index};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::budget::Budget;
use super::changes::Changes;
use super::choose::Usable;
use super::health::HealthRecord;
use super::names::Names;
use super::roster::{Peer, Registry, Roster};
use crate::config;
use crate::lists::{Lists, PoolName};
use crate::snapshot::{Published, Reader};

/// The peers of both pools.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pre: Roster,
    prod: Roster,
}

impl Pools {
    /// True when another pool answers where nobody of `pool` can.
    pub(crate) fn fall_back(&self, pool: PoolName, rules: &config::UpstreamSettings) -> bool {
        pool == PoolName::Pre && rules.fallback && !self.prod.peers().is_empty()
    }

    /// Those peers of `pool` that may be asked.
    pub(crate) fn usable(
        &self,
        pool: PoolName,
        now: Instant,
        rules: &config::UpstreamSettings,
    ) -> Usable {
        let all_may_be_out = self.fall_back(pool, rules);
        Usable::of(self[pool].peers(), all_may_be_out, now, rules)
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

/// Lists, and the peers that they mean.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    lists: Arc<Lists>,
    pools: Arc<Pools>,
}

impl Serving {
    /// The peers: what an exchange needs for as long as it lasts, while a gray list may be long, and
    /// another one every moment.
    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }
}

impl Deref for Serving {
    type Target = Lists;

    fn deref(&self) -> &Lists {
        &self.lists
    }
}

/// The lists in force.
pub struct InForce {
    published: Published<Serving>,
    names: Names,
    registry: Registry,
    /// Of the pools in their order, for all their rosters.
    budgets: [Arc<Budget>; 2],
    /// Whether new peers are checked before they are used, of the pools in their order.
    check_first: [AtomicBool; 2],
    /// Rung whenever the peers are others.
    bell: OnceLock<Sender<()>>,
    /// Held while the value is replaced: all lists that somebody may still have.
    replacing: Mutex<Vec<Weak<Lists>>>,
}

impl InForce {
    /// Nothing has been read yet; so many workers will serve.
    pub fn new(workers: usize) -> Self {
        let (names, registry) = (Names::default(), Registry::new(workers));
        let budgets = PoolName::ALL.map(|_| registry.budget());
        let lists = Arc::new(Lists::unread());
        let replacing = Mutex::new(vec![Arc::downgrade(&lists)]);
        let pools = pools(&names, &registry, &budgets, &lists, [false; 2]);
        let pools = Arc::new(pools);
        Self {
            published: Published::new(Serving { lists, pools }),
            names,
            registry,
            budgets,
            check_first: Default::default(),
            bell: OnceLock::new(),
            replacing,
        }
    }

    /// See [`Published::tell`].
    pub(crate) fn tell(&self, tell: fn()) {
        self.published.tell(tell);
    }

    /// The lists now in force. For the control plane.
    pub(crate) fn load(&self) -> Arc<Lists> {
        Arc::clone(&self.published.load().lists)
    }

    /// The peers now in force. For the control plane.
    pub(crate) fn pools(&self) -> Arc<Pools> {
        Arc::clone(&self.published.load().pools)
    }

    /// The names of the lists.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// How every peer does, for another process of this gateway.
    pub(crate) fn record_health(
        &self,
        now: Instant,
        rules: &config::UpstreamSettings,
    ) -> BTreeMap<SocketAddr, HealthRecord> {
        let pools = self.pools();
        let peers = PoolName::ALL.into_iter().flat_map(|it| pools[it].peers());
        let record = |it: &Peer| (it.address, it.health.record(now, rules));
        peers.map(record).collect()
    }

    /// Begins with what another process of this gateway knew of peers. Nothing of it counts any more for
    /// peers that come later, once `records` is empty.
    pub(crate) fn go_on_with(&self, records: BTreeMap<SocketAddr, HealthRecord>) {
        self.registry.go_on_with(records.into_iter().collect());
    }

    /// How often the health of a peer has changed.
    pub(crate) fn changes(&self) -> &Changes {
        self.registry.changes()
    }

    /// From now on, whether peers that come into these pools are checked before they are used.
    pub(crate) fn check_first(&self, is_first: impl Fn(PoolName) -> bool) {
        for (pool, check_first) in PoolName::ALL.into_iter().zip(&self.check_first) {
            check_first.store(is_first(pool), Ordering::Relaxed);
        }
    }

    /// From now on `bell` is rung whenever the peers may be others.
    pub(super) fn ring(&self, bell: Sender<()>) {
        // One who listens is enough.
        let _ = self.bell.set(bell);
    }

    /// Replaces the lists, and the peers by theirs.
    pub fn store(&self, lists: Lists) {
        let mut replacing = self.replacing();
        let lists = Arc::new(lists);
        replacing.retain(|it| it.strong_count() > 0);
        replacing.push(Arc::downgrade(&lists));
        self.replace(lists);
    }

    /// The same lists, with the peers that their names mean by now.
    pub(crate) fn find_peers(&self) {
        let _replacing = self.replacing();
        self.replace(self.load());
    }

    fn replace(&self, lists: Arc<Lists>) {
        self.names.use_for(&lists);
        let check_first = self
            .check_first
            .each_ref()
            .map(|it| it.load(Ordering::Relaxed));
        let budgets = &self.budgets;
        let pools = pools(&self.names, &self.registry, budgets, &lists, check_first);
        let pools = Arc::new(pools);
        self.published.store(Serving { lists, pools });
        self.registry.tidy();
        if let Some(bell) = self.bell.get() {
            // A ring that nobody has heard yet is enough.
            let _ = bell.try_send(());
        }
    }

    fn ask_for_names_of_dead(&self, pools: &Pools) {
        let peers = || PoolName::ALL.into_iter().flat_map(|it| pools[it].peers());
        let named = |is_up: bool| {
            let peers = peers().filter(move |it| it.health.is_up() == is_up);
            peers.filter_map(|it| it.name.as_ref())
        };
        let dead: BTreeSet<_> = named(false).collect();
        if !dead.is_empty() {
            let alive: BTreeSet<_> = named(true).collect();
            self.names.ask_now(dead.difference(&alive).copied());
        }
    }

    /// A worker's view.
    pub(crate) fn reader(&self) -> Reader<Serving> {
        Reader::new(&self.published)
    }

    /// How many lists are in memory: those in force, and those that somebody has not let go.
    pub(crate) fn kept(&self) -> usize {
        self.published.tidy();
        let lists = self.replacing();
        lists.iter().filter(|it| it.strong_count() > 0).count()
    }

    fn replacing(&self) -> MutexGuard<'_, Vec<Weak<Lists>>> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called once a second, by one thread: what is older than the window of health and budgets
    /// counts no more, and names that have nobody up are asked for.
    pub fn look(&self, now: Instant) {
        let pools = self.pools();
        self.ask_for_names_of_dead(&pools);
        for pool in PoolName::ALL {
            pools[pool].budget().look(now);
            pools[pool]
                .peers()
                .iter()
                .for_each(|it| it.health.look(now));
        }
        drop(pools);
        self.published.tidy();
        self.registry.tidy();
    }
}

fn pools(
    names: &Names,
    registry: &Registry,
    budgets: &[Arc<Budget>; 2],
    lists: &Lists,
    check_first: [bool; 2],
) -> Pools {
    let now = Instant::now();
    let [of_pre, of_prod] = budgets;
    let [pre_first, prod_first] = check_first;
    let pre = || registry.roster(names.found(&lists.pre), of_pre, pre_first, now);
    let prod = || registry.roster(names.found(&lists.prod), of_prod, prod_first, now);
    // A new peer of both is checked first if either says so: whoever makes it has the say.
    match prod_first {
        true => {
            let prod = prod();
            Pools { pre: pre(), prod }
        }
        false => {
            let pre = pre();
            Pools { pre, prod: prod() }
        }
    }
}
