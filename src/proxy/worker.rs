//! What one worker has for the requests that it serves. Nothing else uses any of it, so none of it needs
//! a lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chooser::{Candidates, Chooser, Chosen};
use super::claims::Claims;
use super::gateway::{Counters, Gateway};
use super::kept_for::KeptFor;
use super::recalls::Recalls;
use super::reports::Reports;
use super::request_ids::RequestIds;
use super::units::UnitTable;
use super::visitors::VisitorIds;
use super::workspace::Workspace;
use crate::config::{Config, UpstreamSettings};
use crate::error::Failure;
use crate::logs::access::AccessLog;
use crate::memory::buffer;
use crate::memory::free_list::FreeList;
use crate::metrics::{PoolMetrics, WorkerMetrics};
use crate::net::{self, Moment, Pipe};
use crate::snapshot::Reader;
use crate::upstream::health::Why;
use crate::upstream::pool::{InUse, Pool, PoolLimits, Spent};
use crate::upstream::serving::{Pools, ServiceRef, Serving};

/// How often idle connections, on both sides, are checked.
const LOOK: Duration = Duration::from_secs(1);

/// Most workspaces that a worker keeps for reuse.
const WORKSPACES_KEPT: usize = 4096;

/// A workspace with more memory than this, in bytes, is not kept. Only a few heads need more; but sooner
/// or later every workspace would have met one, and keep its memory for ever.
const WORKSPACE: usize = 64 * 1024;

/// Workspaces that are kept even when they are not needed.
const LEAST_WORKSPACES: usize = 8;

/// What one worker has for itself.
pub(super) struct Worker {
    pub(super) counters: Rc<Counters>,
    pub(super) config: Reader<Config>,
    pub(super) serving: Reader<Serving>,
    pub(super) chooser: Chooser,
    pub(super) units: UnitTable,
    pub(super) pool: Pool,
    /// For how long connections are kept in it.
    kept_for: RefCell<KeptFor>,
    /// Connections to peers that are pinned on the client's word alone.
    pub(super) claims: Claims,
    /// Tunnels to `pre`.
    pub(super) recalls: Recalls,
    pub(super) access_log: AccessLog,
    pub(super) request_ids: RequestIds,
    pub(super) visitor_ids: VisitorIds,
    /// Workspaces for reuse. Boxed, since moving a pointer is cheaper.
    workspaces: RefCell<FreeList<Box<Workspace>>>,
    next_look: Cell<Option<Instant>>,
    pub(super) reports: Reports,
}

impl Worker {
    /// The calling worker's own.
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let (config, serving) = (Reader::new(&gateway.config), gateway.lists.reader());
        let chooser = Chooser::new(gateway.lists.changes().clone());
        let counters = Rc::new(Counters::new(Arc::clone(&gateway), net::worker()));
        Self {
            config,
            serving,
            chooser,
            units: UnitTable::new(Instant::now()),
            pool: Pool::default(),
            kept_for: RefCell::default(),
            claims: Claims::default(),
            recalls: Recalls::default(),
            access_log: AccessLog::new(gateway.access_log.clone()),
            request_ids: RequestIds::new(),
            visitor_ids: VisitorIds::new(),
            workspaces: RefCell::new(FreeList::new(LEAST_WORKSPACES, WORKSPACES_KEPT)),
            next_look: Cell::new(None),
            reports: Reports::new(Rc::clone(&counters)),
            counters,
        }
    }

    /// Which of the workers it is.
    pub(super) fn index(&self) -> usize {
        self.counters.index()
    }

    /// Who may be asked of the same service by `now`. What is under way for one that a reload has taken away
    /// goes on as it began.
    pub(super) fn renewed(&self, candidates: &Rc<Candidates>, now: Instant) -> Rc<Candidates> {
        let serving = self.serving.snapshot();
        match serving.place_again(candidates.service()) {
            Some(place) => self.chooser.candidates(&serving, place, now),
            None => self.chooser.of_gone(candidates, now),
        }
    }

    /// Who may be asked of the service, if it is still there.
    pub(super) fn candidates_of(&self, service: ServiceRef) -> Option<Rc<Candidates>> {
        let serving = self.serving.snapshot();
        let place = serving.place_again(service)?;
        Some(self.chooser.candidates(&serving, place, Instant::now()))
    }

    /// The worker's counters of the service with these pools.
    #[inline]
    pub(super) fn counters_of<'a>(&'a self, pools: &'a Pools) -> &'a PoolMetrics {
        self.counters.of_service(pools)
    }

    /// A peer has answered in full.
    pub(super) fn answered(&self, chosen: &Chosen) {
        chosen.peer().health.succeeded(self.index());
    }

    /// A peer answers.
    pub(super) fn is_answering(&self, chosen: &Chosen, now: Instant) {
        if let Some(change) = chosen.peer().health.is_answering(now) {
            chosen.has_changed(change);
        }
    }

    /// An attempt on a peer has ended, and nobody can tell how the peer would have done.
    pub(super) fn abandoned(&self, chosen: &Chosen) {
        let counters = self.counters.of_service(chosen.pools());
        counters.attempts_abandoned[chosen.pool as usize].increment();
        chosen.counts(self.index()).abandoned.increment();
    }

    /// A peer has failed.
    #[cold]
    pub(super) fn failed(&self, chosen: &Chosen, why: Why) {
        let (health, now, rules) = (
            &chosen.peer().health,
            Instant::now(),
            chosen.pools().rules(),
        );
        let change = health.failed(self.index(), why, now, rules, fastrand::f64());
        if let Some(change) = change {
            chosen.has_changed(change);
        }
    }

    /// A request has failed at a peer, maybe through its own fault.
    #[cold]
    pub(super) fn may_have_failed(&self, chosen: &Chosen, failure: Failure) {
        let (health, now, rules) = (
            &chosen.peer().health,
            Instant::now(),
            chosen.pools().rules(),
        );
        let jitter = fastrand::f64();
        let change = health.may_have_failed(self.index(), failure, now, rules, jitter);
        if let Some(change) = change {
            chosen.has_changed(change);
        }
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.counters.gateway
    }

    pub(super) fn metrics(&self) -> &WorkerMetrics {
        &self.counters
    }

    /// Runs at every tick of the worker's clock; true while there is something left to do.
    /// `look_through` checks the idle connections of clients, and returns whether there are any.
    pub(super) fn housekeeping(&self, look_through: impl FnOnce(Instant) -> bool) -> bool {
        let lines_left = self.access_log.tick();
        // Replaced lists and settings are released even when no request comes.
        let now = Instant::now();
        let serving = self.serving.snapshot();
        self.chooser.refresh(&serving);
        if !self.recalls.is_idle() {
            let config = self.config.snapshot();
            self.recalls
                .tick(&serving, &config, self.config.seen(), now);
        }
        let looks_again = match self.next_look.get() {
            Some(next) if now < next => true,
            _ => {
                let clients = look_through(now);
                let memory = buffer::trim() | self.workspaces.borrow_mut().trim();
                let idle = self.look_through_peers(&serving, now);
                let any = idle | memory | Pipe::look_after() | clients;
                self.metrics().upstream_idle.set(self.pool.len() as u64);
                self.next_look.set(any.then_some(now + LOOK));
                any
            }
        };
        self.gateway().tell_of_own_lines(now) | lines_left | looks_again
    }

    /// Makes sure that idle connections will be checked.
    pub(super) fn look_later(&self) {
        if self.next_look.get().is_none() {
            self.next_look.set(Some(Instant::now() + LOOK));
            net::ensure_ticking();
        }
    }

    /// Makes something that needs descriptors. When these have run out, the worker's idle connections to
    /// peers and unused pipes are closed first.
    pub(super) fn with_descriptors<T>(&self, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if net::is_out_of_descriptors(&error) => {
                let any = Pipe::close_unused() | self.pool.clear() | self.claims.clear();
                if any { make() } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    /// Closes idle connections to peers that are in no list any more, or that nobody needed for too long.
    /// Returns true while some are left.
    fn look_through_peers(&self, serving: &Serving, now: Instant) -> bool {
        let config = self.config.snapshot();
        let mut kept_for = self.kept_for.borrow_mut();
        kept_for.note(serving, |rules| limits(&config, rules));
        let is_peer = |address| kept_for.limits(serving, address).is_some();
        self.pool.close_others(is_peer);
        self.claims.close_others(is_peer);
        let default = limits(&config, serving.default_service().pools().rules());
        let limits = |address| kept_for.limits(serving, address).unwrap_or(default);
        let claims = self.claims.evict(now, |address| limits(address).age);
        self.pool.evict_each(Moment::now(), default.total, limits) | claims
    }

    /// Counts a connection to `peer` that is about to be made.
    pub(super) fn begin_upstream(
        &self,
        peer: SocketAddr,
        config: &Config,
        rules: &UpstreamSettings,
    ) -> InUse {
        self.pool.begin(peer, &limits(config, rules))
    }

    /// Keeps a connection to a peer for the next request.
    pub(super) fn keep_upstream(&self, spent: Spent, config: &Config, rules: &UpstreamSettings) {
        self.pool.checkin(spent, &limits(config, rules));
        self.look_later();
    }

    pub(super) fn lend_workspace(&self) -> Box<Workspace> {
        let kept = self.workspaces.borrow_mut().take();
        kept.unwrap_or_default()
    }

    pub(super) fn take_back(&self, workspace: Box<Workspace>) {
        if workspace.bytes() <= WORKSPACE {
            self.workspaces.borrow_mut().give(workspace);
        }
    }
}

/// What a worker may keep of connections to peers. One descriptor for a peer is planned per client
/// connection: [`crate::process::allow_connections`] has lowered `max_connections` if there are fewer.
fn limits(config: &Config, rules: &UpstreamSettings) -> PoolLimits {
    PoolLimits {
        most: rules.keepalive.most(),
        total: config.gateway.max_connections.div_ceil(net::workers()),
        age: rules.keepalive_timeout,
    }
}
