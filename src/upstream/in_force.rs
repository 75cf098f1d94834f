//! The lists in force, with the peers that they mean at present: what the control plane publishes and
//! workers read.
//!
//! Both are replaced together, by one pointer swap. Peers change without their lists, too, when a name
//! means other addresses: then the lists stay, with their generation.

use std::ops::{Deref, Index};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::budget::Budget;
use super::changes::Changes;
use super::choose::Usable;
use super::roster::{Found, Registry, Roster};
use crate::config;
use crate::lists::{Lists, PeerList, PoolName};
use crate::snapshot::{Published, Reader};

/// The peers of both pools.
#[derive(Clone, Debug)]
pub struct Pools {
    pre: Roster,
    prod: Roster,
}

impl Pools {
    /// True when another pool answers where nobody of `pool` can.
    pub fn fall_back(&self, pool: PoolName, rules: &config::Upstream) -> bool {
        pool == PoolName::Pre && rules.fallback && !self.prod.peers().is_empty()
    }

    /// Those peers of `pool` that may be asked.
    pub fn usable(&self, pool: PoolName, now: Instant, rules: &config::Upstream) -> Usable {
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
pub struct Serving {
    lists: Arc<Lists>,
    pools: Arc<Pools>,
}

impl Serving {
    /// The peers: what an exchange needs for as long as it lasts, while a gray list may be long, and
    /// another one every moment.
    pub fn pools(&self) -> &Arc<Pools> {
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
    registry: Registry,
    /// Of the pools in their order, for all their rosters.
    budgets: [Arc<Budget>; 2],
    /// Held while the value is replaced: all lists that somebody may still have.
    replacing: Mutex<Vec<Weak<Lists>>>,
}

impl InForce {
    /// Nothing has been read yet; so many workers will serve.
    pub fn new(workers: usize) -> Self {
        let registry = Registry::new(workers);
        let budgets = PoolName::ALL.map(|_| registry.budget());
        let lists = Arc::new(Lists::unread());
        let replacing = Mutex::new(vec![Arc::downgrade(&lists)]);
        let pools = Arc::new(pools(&registry, &budgets, &lists));
        Self {
            published: Published::new(Serving { lists, pools }),
            registry,
            budgets,
            replacing,
        }
    }

    /// See [`Published::tell`].
    pub fn tell(&self, tell: fn()) {
        self.published.tell(tell);
    }

    /// The lists now in force. For the control plane.
    pub fn load(&self) -> Arc<Lists> {
        Arc::clone(&self.published.load().lists)
    }

    /// The peers now in force. For the control plane.
    pub fn pools(&self) -> Arc<Pools> {
        Arc::clone(&self.published.load().pools)
    }

    /// How often the health of a peer has changed.
    pub fn changes(&self) -> &Changes {
        self.registry.changes()
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
    pub fn find_peers(&self) {
        let _replacing = self.replacing();
        self.replace(self.load());
    }

    fn replace(&self, lists: Arc<Lists>) {
        let pools = Arc::new(pools(&self.registry, &self.budgets, &lists));
        self.published.store(Serving { lists, pools });
        self.registry.tidy();
    }

    /// A worker's view.
    pub fn reader(&self) -> Reader<Serving> {
        Reader::new(&self.published)
    }

    /// How many lists are in memory: those in force, and those that somebody has not let go.
    pub fn kept(&self) -> usize {
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
    /// counts no more.
    pub fn look(&self, now: Instant) {
        let pools = self.pools();
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

fn pools(registry: &Registry, budgets: &[Arc<Budget>; 2], lists: &Lists) -> Pools {
    let now = Instant::now();
    let roster = |list: &PeerList, budget| registry.roster(found(list), budget, false, now);
    let [of_pre, of_prod] = budgets;
    Pools {
        pre: roster(&lists.pre, of_pre),
        prod: roster(&lists.prod, of_prod),
    }
}

/// The peers that the entries of a list mean.
fn found(list: &PeerList) -> Vec<Found> {
    let found = list.peers().iter().map(|peer| Found {
        address: peer.address(),
        weight: 1,
        name: None,
    });
    found.collect()
}
