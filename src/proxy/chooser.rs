//! Which peer a worker asks next.
//!
//! What [`upstream::choose`](crate::upstream::choose) works out of lists, health and settings is kept here
//! until one of them changes: for a request that is a number to compare and a number by chance.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use crate::config::Config;
use crate::lists::PoolName;
use crate::route::PoolStanding;
use crate::snapshot::Snapshot;
use crate::upstream::changes::Changes;
use crate::upstream::choose::{self, Request, Usable};
use crate::upstream::events;
use crate::upstream::health::{Change, Counts, Trial};
use crate::upstream::roster::{Peer, Roster};
use crate::upstream::serving::{Pools, Serving};

/// The peers in force, counted on this worker only: see [`crate::snapshot`].
#[allow(clippy::redundant_allocation)] // The outer counter is the point.
pub(super) type OwnPools = Rc<Arc<Pools>>;

/// A peer that is to be asked.
pub(super) struct Chosen {
    pools: OwnPools,
    pub(super) pool: PoolName,
    place: usize,
    /// It is out, and the request is to show how it does now.
    trial: Option<Trial>,
    /// Nobody knows whether it answers, nor whether any other one does; there is another one.
    pub(super) is_doubtful: bool,
}

impl Chosen {
    pub(super) fn peer(&self) -> &Peer {
        &self.roster().peers()[self.place]
    }

    fn roster(&self) -> &Roster {
        &self.pools[self.pool]
    }

    /// What `worker` counts of the peer.
    pub(super) fn counts(&self, worker: usize) -> &Counts {
        self.peer().health.counts(worker)
    }

    /// The peer has gone out or come back, which is told.
    pub(super) fn has_changed(&self, change: Change) {
        events::peer_changed(self.pool, self.roster().peers(), self.peer(), change);
    }

    /// Nothing more will be heard of the request: if it was a trial and had no outcome, another may follow.
    pub(super) fn is_given_up(&self) {
        if let Some(trial) = self.trial {
            self.peer().health.trial_is_void(trial, Instant::now());
        }
    }
}

/// One worker's.
pub(super) struct Chooser {
    changes: Changes,
    current: RefCell<Current>,
    /// Its own, since the thread's has to be looked up each time.
    random: RefCell<Rng>,
}

struct Current {
    pools: OwnPools,
    config: Snapshot<Config>,
    /// How often the health of a peer had changed.
    changes: u64,
    pre: Usable,
    prod: Usable,
}

impl Chooser {
    pub(super) fn new(changes: Changes, serving: &Serving, config: &Snapshot<Config>) -> Self {
        let current = Current::of(
            Rc::new(Arc::clone(serving.default_service().pools())),
            config,
            changes.count(),
        );
        Self {
            changes,
            current: RefCell::new(current),
            random: RefCell::new(Rng::new()),
        }
    }

    /// Takes note of what has changed, and lets go of what was replaced.
    pub(super) fn refresh(&self, serving: &Serving, config: &Snapshot<Config>, now: Instant) {
        let mut current = self.current.borrow_mut();
        // Before the states are looked at: what changes meanwhile is seen the next time.
        let changes = self.changes.count();
        let has_pools = Arc::ptr_eq(&current.pools, serving.default_service().pools());
        if has_pools
            && current.config.is(config)
            && current.changes == changes
            && !current.is_over(now)
        {
            return;
        }
        let pools = match has_pools {
            true => Rc::clone(&current.pools),
            false => Rc::new(Arc::clone(serving.default_service().pools())),
        };
        *current = Current::of(pools, config, changes);
    }

    /// How `pool` stands for a request that may be risked, or not.
    pub(super) fn standing(
        &self,
        pool: PoolName,
        may_be_risked: bool,
        now: Instant,
    ) -> PoolStanding {
        let current = self.current.borrow();
        let peers = current.pools[pool].peers();
        current.usable(pool).standing(peers, may_be_risked, now)
    }

    /// The pools that peers are chosen from.
    pub(super) fn pools(&self) -> OwnPools {
        Rc::clone(&self.current.borrow().pools)
    }

    /// True when a pool has a peer at `address`.
    pub(super) fn is_peer(&self, address: SocketAddr) -> bool {
        let current = self.current.borrow();
        let mut pools = PoolName::ALL.iter();
        pools.any(|pool| current.pools[*pool].place_of(address).is_some())
    }

    /// True when `pool` has a peer at `address` that may be asked.
    pub(super) fn is_usable(&self, pool: PoolName, address: SocketAddr) -> bool {
        self.find(pool, address).is_some()
    }

    /// The peer of `pool` at `address`, if it is one that may be asked.
    pub(super) fn find(&self, pool: PoolName, address: SocketAddr) -> Option<Chosen> {
        let current = self.current.borrow();
        let place = current.pools[pool].place_of(address)?;
        current.usable(pool).has(place).then(|| Chosen {
            pools: Rc::clone(&current.pools),
            pool,
            place,
            trial: None,
            is_doubtful: false,
        })
    }

    /// True when somebody of `pool` may be asked as soon as a first check has succeeded, and nobody else
    /// can answer.
    pub(super) fn awaits_first_check(&self, pool: PoolName) -> bool {
        let current = self.current.borrow();
        let mut peers = current.pools[pool].peers().iter();
        current.usable(pool).is_empty()
            && !current.pools.fall_back(pool)
            && peers.any(|it| it.health.awaits_first_check())
    }

    /// `worker` has a request for `pool`.
    pub(super) fn note_request(&self, pool: PoolName, worker: usize) {
        self.current.borrow().pools[pool].budget().request(worker);
    }

    /// True when one more request may be tried once more at `pool`, which is counted then.
    pub(super) fn may_retry(&self, pool: PoolName) -> bool {
        let current = self.current.borrow();
        current.pools[pool]
            .budget()
            .allows(current.config.upstream.retry_budget)
    }

    /// The peer of `pool` to ask next, if one is left.
    pub(super) fn choose(
        &self,
        pool: PoolName,
        request: &Request<'_>,
        now: Instant,
    ) -> Option<Chosen> {
        let current = self.current.borrow();
        let (usable, peers) = (current.usable(pool), current.pools[pool].peers());
        let rules = &current.config.upstream;
        let falls_back = current.pools.fall_back(pool);
        if usable.has_trial(now, request.may_be_risked)
            && (falls_back || usable.has_other(peers, request.tried))
            && let Some(trial) = current.begin_trial(pool, request, now)
        {
            return Some(trial);
        }
        let mut random = self.random.borrow_mut();
        let random = |below: u32| random.u32(..below);
        let place = usable.choose(peers, request, rules.balance, rules.max_fails, random);
        // Where another pool answers, nobody waits once more for what others wait for in vain just now.
        let is_vain = |place: usize| {
            let others = falls_back && !request.tried.is_empty();
            others && peers[place].health.is_suspect(rules.max_fails)
        };
        let place = place.filter(|it| !is_vain(*it));
        let place = place.or_else(|| match falls_back {
            true => None,
            false => choose::last_resort(peers, request.tried, now, rules),
        });
        place.map(|place| Chosen {
            pools: Rc::clone(&current.pools),
            pool,
            place,
            is_doubtful: request.is_doubtful_at(&peers[place], rules.max_fails)
                && usable.len() > 1
                && !peers[place].health.is_out(),
            trial: None,
        })
    }
}

impl Current {
    fn of(pools: OwnPools, config: &Snapshot<Config>, changes: u64) -> Self {
        let now = Instant::now();
        let usable = |pool| pools.usable(pool, now);
        let (pre, prod) = (usable(PoolName::Pre), usable(PoolName::Prod));
        Self {
            pools,
            config: config.clone(),
            changes,
            pre,
            prod,
        }
    }

    fn usable(&self, pool: PoolName) -> &Usable {
        match pool {
            PoolName::Pre => &self.pre,
            PoolName::Prod => &self.prod,
        }
    }

    /// A peer that is out, and may be tried by now.
    #[cold]
    fn begin_trial(&self, pool: PoolName, request: &Request<'_>, now: Instant) -> Option<Chosen> {
        let untried = self.pools[pool].peers().iter().enumerate();
        let mut untried = untried.filter(|(_, it)| !request.tried.contains(&it.address));
        untried.find_map(|(place, it)| {
            let rules = &self.config.upstream;
            let trial = it.health.begin_trial(now, request.may_be_risked, rules)?;
            Some(Chosen {
                pools: Rc::clone(&self.pools),
                pool,
                place,
                trial: Some(trial),
                is_doubtful: false,
            })
        })
    }

    fn is_over(&self, now: Instant) -> bool {
        self.pre.is_over(now) || self.prod.is_over(now)
    }
}
