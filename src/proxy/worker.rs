//! What one worker has for the requests that it serves. Nothing else uses any of it, so none of it needs
//! a lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::gateway::{Counters, Gateway};
use super::reports::Reports;
use super::workspace::Workspace;
use crate::config::Config;
use crate::lists::{Lists, Pools};
use crate::logs::access::AccessLog;
use crate::memory::buffer;
use crate::memory::free_list::FreeList;
use crate::metrics::WorkerMetrics;
use crate::net::{self, Pipe, Stream};
use crate::snapshot::Reader;
use crate::upstream::pool::{Asker, Leftover, Pool};

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
    pub(super) lists: Reader<Lists>,
    /// The pools of the lists seen last.
    pools: RefCell<Rc<Pools>>,
    pub(super) pool: Pool,
    /// Connections to peers that are pinned on the client's word alone.
    pub(super) claims: Claims,
    pub(super) access_log: AccessLog,
    /// Workspaces for reuse. Boxed, since moving a pointer is cheaper.
    workspaces: RefCell<FreeList<Box<Workspace>>>,
    next_look: Cell<Option<Instant>>,
    pub(super) reports: Reports,
}

impl Worker {
    /// The calling worker's own.
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let counters = Rc::new(Counters::new(Arc::clone(&gateway), net::worker()));
        Self {
            config: Reader::new(&gateway.config),
            lists: Reader::new(&gateway.lists),
            pools: RefCell::new(Rc::new(gateway.lists.load().pools())),
            pool: Pool::default(),
            claims: Claims::default(),
            access_log: AccessLog::new(gateway.access_log.clone()),
            workspaces: RefCell::new(FreeList::new(LEAST_WORKSPACES, WORKSPACES_KEPT)),
            next_look: Cell::new(None),
            reports: Reports::new(Rc::clone(&counters)),
            counters,
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
        self.lists.refresh();
        self.config.refresh();
        let now = Instant::now();
        let looks_again = match self.next_look.get() {
            Some(next) if now < next => true,
            _ => {
                let limit = self.config.snapshot().upstream.keepalive_timeout;
                let clients = look_through(now);
                let memory = buffer::trim() | self.workspaces.borrow_mut().trim();
                let idle = self.pool.evict(now, limit) | self.claims.evict(now, limit);
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

    /// Keeps a connection to `peer`, whose last request was `asker`'s, for the next one.
    pub(super) fn keep_upstream(
        &self,
        peer: SocketAddr,
        stream: Stream,
        leftover: Leftover,
        asker: Asker,
        config: &Config,
    ) {
        let limit = config.upstream.keepalive;
        self.pool.checkin(peer, stream, leftover, asker, limit);
        self.look_later();
    }

    /// The pools of `lists`, with a reference count of this worker's own: see [`crate::snapshot`].
    pub(super) fn pools(&self, lists: &Lists) -> Rc<Pools> {
        let mut last = self.pools.borrow_mut();
        if !last.are_of(lists) {
            *last = Rc::new(lists.pools());
        }
        Rc::clone(&last)
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
