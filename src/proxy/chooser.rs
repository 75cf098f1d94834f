//! Which peer a worker asks next.
//!
//! What [`upstream::choose`](crate::upstream::choose) works out of lists, health and settings is kept here
//! until one of them changes: for a request that is a number to compare and a number by chance. It is worked
//! out for a service when a request comes for it, and let go with the peers that it was worked out of: so
//! services that nobody asks for cost a worker nothing.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use crate::config::UpstreamSettings;
use crate::lists::PoolName;
use crate::route::PoolStanding;
use crate::upstream::changes::Changes;
use crate::upstream::choose::{self, Request, Usable};
use crate::upstream::events;
use crate::upstream::health::{Change, Counts, Trial};
use crate::upstream::roster::{Peer, Roster};
use crate::upstream::serving::{Pools, ServiceRef, Serving};

/// The peers of a service, counted on this worker only: see [`crate::snapshot`].
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

    /// The pools of the service that it serves.
    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// What `worker` counts of the peer.
    pub(super) fn counts(&self, worker: usize) -> &Counts {
        self.peer().health.counts(worker)
    }

    /// The peer has gone out or come back, which is told.
    pub(super) fn has_changed(&self, change: Change) {
        events::peer_changed(&self.pools, self.pool, self.peer(), change);
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
    kept: RefCell<KeptCandidates>,
    /// Its own, since the thread's has to be looked up each time.
    random: RefCell<Rng>,
}

#[derive(Default)]
struct KeptCandidates {
    /// Of which value this is: see [`Serving::number`].
    number: u64,
    /// By the places of the services.
    services: Vec<Option<Rc<Candidates>>>,
}

/// The peers of a service, and which of them may be asked at present.
pub(super) struct Candidates {
    pools: OwnPools,
    service: ServiceRef,
    /// How often the health of a peer had changed.
    changes: u64,
    pre: Usable,
    prod: Usable,
}

impl Chooser {
    pub(super) fn new(changes: Changes) -> Self {
        Self {
            changes,
            kept: RefCell::default(),
            random: RefCell::new(Rng::new()),
        }
    }

    /// Lets go of what was replaced.
    pub(super) fn refresh(&self, serving: &Serving) {
        let mut kept = self.kept.borrow_mut();
        if kept.number != serving.number() {
            kept.let_go(serving);
        }
    }

    /// Who may be asked of the service at `place`.
    #[inline]
    pub(super) fn candidates(
        &self,
        serving: &Serving,
        place: usize,
        now: Instant,
    ) -> Rc<Candidates> {
        let mut kept = self.kept.borrow_mut();
        if kept.number != serving.number() {
            kept.let_go(serving);
        }
        // Before the states are looked at: what changes meanwhile is seen the next time.
        let changes = self.changes.count();
        match &kept.services[place] {
            Some(known) if known.is_right(changes, now) => Rc::clone(known),
            _ => kept.work_out(serving, place, changes),
        }
    }

    /// The same for a service that is not in force any more.
    #[cold]
    pub(super) fn of_gone(&self, gone: &Rc<Candidates>, now: Instant) -> Rc<Candidates> {
        let changes = self.changes.count();
        match gone.is_right(changes, now) {
            true => Rc::clone(gone),
            false => {
                let pools = Rc::clone(&gone.pools);
                Rc::new(Candidates::of(pools, gone.service, changes))
            }
        }
    }

    /// The peer of `pool` to ask next, if one is left.
    pub(super) fn choose(
        &self,
        candidates: &Candidates,
        pool: PoolName,
        request: &Request<'_>,
        now: Instant,
    ) -> Option<Chosen> {
        let (pools, rules) = (&candidates.pools, candidates.rules());
        let (usable, peers) = (candidates.usable(pool), pools[pool].peers());
        let falls_back = pools.fall_back(pool);
        if usable.has_trial(now, request.may_be_risked)
            && (falls_back || usable.has_other(peers, request.tried))
            && let Some(trial) = candidates.begin_trial(pool, request, now)
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
            pools: Rc::clone(pools),
            pool,
            place,
            is_doubtful: request.is_doubtful_at(&peers[place], rules.max_fails)
                && usable.len() > 1
                && !peers[place].health.is_out(),
            trial: None,
        })
    }
}

impl KeptCandidates {
    /// Keeps what is right for `serving`, too.
    #[cold]
    fn let_go(&mut self, serving: &Serving) {
        let services = serving.services();
        self.services.resize_with(services.len(), || None);
        for (kept, service) in self.services.iter_mut().zip(services) {
            kept.take_if(|it| !Arc::ptr_eq(&it.pools, service.pools()));
        }
        self.number = serving.number();
    }

    #[cold]
    fn work_out(&mut self, serving: &Serving, place: usize, changes: u64) -> Rc<Candidates> {
        let pools = match &self.services[place] {
            Some(known) => Rc::clone(&known.pools),
            None => Rc::new(Arc::clone(serving.services()[place].pools())),
        };
        let service = serving.reference(place);
        let new = Rc::new(Candidates::of(pools, service, changes));
        self.services[place] = Some(Rc::clone(&new));
        new
    }
}

impl Candidates {
    fn of(pools: OwnPools, service: ServiceRef, changes: u64) -> Self {
        let now = Instant::now();
        let usable = |pool| pools.usable(pool, now);
        let (pre, prod) = (usable(PoolName::Pre), usable(PoolName::Prod));
        Self {
            pools,
            service,
            changes,
            pre,
            prod,
        }
    }

    /// True while it is as it would be worked out at `now`, after so many changes of health.
    fn is_right(&self, changes: u64, now: Instant) -> bool {
        self.changes == changes && !self.pre.is_over(now) && !self.prod.is_over(now)
    }

    /// The pools that peers are chosen from.
    pub(super) fn pools(&self) -> &OwnPools {
        &self.pools
    }

    /// The service.
    pub(super) fn service(&self) -> ServiceRef {
        self.service
    }

    fn rules(&self) -> &UpstreamSettings {
        self.pools.rules()
    }

    /// How `pool` stands for a request that may be risked, or not.
    pub(super) fn standing(
        &self,
        pool: PoolName,
        may_be_risked: bool,
        now: Instant,
    ) -> PoolStanding {
        let peers = self.pools[pool].peers();
        self.usable(pool).standing(peers, may_be_risked, now)
    }

    /// True when `pool` has a peer at `address` that may be asked.
    pub(super) fn is_usable(&self, pool: PoolName, address: SocketAddr) -> bool {
        self.find(pool, address).is_some()
    }

    /// The peer of `pool` at `address`, if it is one that may be asked.
    pub(super) fn find(&self, pool: PoolName, address: SocketAddr) -> Option<Chosen> {
        let place = self.pools[pool].place_of(address)?;
        self.usable(pool).has(place).then(|| Chosen {
            pools: Rc::clone(&self.pools),
            pool,
            place,
            trial: None,
            is_doubtful: false,
        })
    }

    /// True when somebody of `pool` may be asked as soon as a first check has succeeded, and nobody else
    /// can answer.
    pub(super) fn awaits_first_check(&self, pool: PoolName) -> bool {
        let mut peers = self.pools[pool].peers().iter();
        self.usable(pool).is_empty()
            && !self.pools.fall_back(pool)
            && peers.any(|it| it.health.awaits_first_check())
    }

    /// `worker` has a request for `pool`.
    pub(super) fn note_request(&self, pool: PoolName, worker: usize) {
        self.pools[pool].budget().request(worker);
    }

    /// True when one more request may be tried once more at `pool`, which is counted then.
    pub(super) fn may_retry(&self, pool: PoolName) -> bool {
        self.pools[pool].budget().allows(self.rules().retry_budget)
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
            let may_be_risked = request.may_be_risked;
            let trial = it.health.begin_trial(now, may_be_risked, self.rules())?;
            Some(Chosen {
                pools: Rc::clone(&self.pools),
                pool,
                place,
                trial: Some(trial),
                is_doubtful: false,
            })
        })
    }
}
