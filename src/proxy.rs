//! The data plane: from an accepted connection to the last byte of its last response.
//!
//! - [`session`]: one downstream connection; reads heads, keeps the connection or closes it.
//! - `plan`: what a request asks for. `exchange`: the attempts on peers, in wire order.
//! - `pinned`: connections to peers that serve one client connection only.
//! - `relay`: bodies in both directions. `upload`: both at once. `tunnel`: upgraded connections.
//! - [`doubts`]: what trusted proxies have said and was not believed.
//! - `reports`: what is told of peers and clients in the error log.
//! - `failsafe`: a panic ends its connection, and everything that belongs to it.
//!
//! [`Gateway`] is what all workers share (cells that are read, counters of their own each, one
//! flag); [`Worker`] is what one worker has for itself.

pub mod body;
pub mod doubts;
mod exchange;
mod failsafe;
pub mod listeners;
mod pinned;
mod plan;
mod reports;
pub mod session;
mod tally;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Close;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::chunked::Trailer;
use crate::http::h1::head::{RequestHead, ResponseHead};
use crate::lists::{Lists, Pools};
use crate::logs::access::{AccessLog, OwnLines};
use crate::logs::writer::LogQueue;
use crate::memory::buffer;
use crate::memory::free_list::FreeList;
use crate::metrics::{Metrics, PoolLabel, WorkerMetrics};
use crate::net::{self, Detached, Parking, Pipe};
use crate::proxy::doubts::Doubts;
use crate::proxy::pinned::Claims;
use crate::proxy::reports::Reports;
use crate::proxy::session::Parked;
use crate::route::PoolName;
use crate::snapshot::{Published, Reader};
use crate::upstream::pool::{Asker, Leftover, Pool};

/// What all workers share.
pub struct Gateway {
    /// The configuration in force.
    pub config: Arc<Published<Config>>,
    /// The lists in force.
    pub lists: Arc<Published<Lists>>,
    /// The counters.
    pub metrics: Metrics,
    /// The access log.
    pub access_log: LogQueue,
    /// Of each listener, the lines there that needed no server.
    pub own_lines: Vec<OwnLines>,
    /// What trusted proxies have said and was not believed.
    pub doubts: Doubts,
    /// Set once: sessions end as soon as they can.
    pub draining: AtomicBool,
    /// Listeners that still accept.
    pub accepting: AtomicUsize,
    /// Open downstream connections of each worker, to share them out evenly.
    pub connections: Vec<AtomicUsize>,
}

impl Gateway {
    /// Open downstream connections, of all workers.
    pub fn open_connections(&self) -> usize {
        let open = self.connections.iter();
        open.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// True once the gateway is to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// What one worker has for itself.
pub struct Worker {
    gateway: Arc<Gateway>,
    index: usize,
    config: Reader<Config>,
    lists: Reader<Lists>,
    /// Those of the lists that were seen last.
    pools: RefCell<Rc<Pools>>,
    pool: Pool,
    /// Connections to peers that clients have pinned by themselves.
    claims: Claims,
    /// Silent connections.
    parking: Option<Parking<Parked>>,
    /// There is room for them, and somebody who wakes them.
    parks: Cell<bool>,
    access_log: AccessLog,
    /// Memory of requests that have ended, for those to come. Lent for each request: moving a pointer is
    /// cheaper.
    workspaces: RefCell<FreeList<Box<Workspace>>>,
    next_look: Cell<Option<Instant>>,
    /// How many connections of clients have begun here: each is told from all others by that.
    begun: Cell<u64>,
    reports: Reports,
}

/// The metrics' label of a pool.
fn label(pool: Option<PoolName>) -> PoolLabel {
    match pool {
        Some(PoolName::Pre) => PoolLabel::Pre,
        Some(PoolName::Prod) => PoolLabel::Prod,
        None => PoolLabel::None,
    }
}

/// Hands over what the workers have not yet given to the access log's writer.
pub fn flush_access_logs(gateway: &Arc<Gateway>) {
    let (done, outcome) = crossbeam_channel::unbounded();
    let of_workers = Arc::clone(gateway);
    let flush = move |_| {
        Worker::here(&of_workers).access_log.flush();
        let _ = done.send(());
    };
    if net::on_each_worker(flush).is_ok() {
        for _ in 0..net::workers() {
            // A worker that does not answer keeps its lines.
            let _ = outcome.recv_timeout(Duration::from_secs(1));
        }
    }
    gateway.own_lines.iter().for_each(OwnLines::tell_rest);
}

/// Ends the idle waits of every worker, so that each session sees that the gateway is to end.
///
/// # Errors
/// As [`net::spawn`].
pub fn interrupt_idle(gateway: &Arc<Gateway>) -> io::Result<()> {
    let gateway = Arc::clone(gateway);
    net::on_each_worker(move |_| {
        net::interrupt_idle();
        Worker::here(&gateway).sift_parked(Instant::now());
    })
}

/// How often idle connections, on both sides, are looked through.
const LOOK: Duration = Duration::from_secs(1);

/// Workspaces that a worker keeps for reuse, at most.
const WORKSPACES_KEPT: usize = 4096;

/// Memory, in bytes, with which a workspace is kept: that of all but a few heads. With time each would
/// have met one of these, and have its memory for ever.
const WORKSPACE: usize = 64 * 1024;

/// Workspaces that stay although nobody needs them at present.
const LEAST_WORKSPACES: usize = 8;

thread_local! {
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

impl Worker {
    /// The calling worker's own; made at the first call.
    pub fn here(gateway: &Arc<Gateway>) -> Rc<Self> {
        WORKER.with(|cell| Rc::clone(cell.get_or_init(|| Self::new(Arc::clone(gateway)))))
    }

    fn new(gateway: Arc<Gateway>) -> Rc<Self> {
        let parking = Parking::new();
        let failed =
            |error: &io::Error| log::error!("parking-failed error={:?}", error.to_string());
        let parking = parking.inspect_err(failed).ok();
        let worker = Rc::new(Self {
            index: net::worker(),
            config: Reader::new(&gateway.config),
            lists: Reader::new(&gateway.lists),
            pools: RefCell::new(Rc::new(gateway.lists.load().pools())),
            pool: Pool::default(),
            claims: Claims::default(),
            parking,
            parks: Cell::new(false),
            access_log: AccessLog::new(gateway.access_log.clone()),
            workspaces: RefCell::new(FreeList::new(LEAST_WORKSPACES, WORKSPACES_KEPT)),
            next_look: Cell::new(None),
            begun: Cell::new(0),
            reports: Reports::default(),
            gateway,
        });
        let housekeeper = Rc::clone(&worker);
        net::set_housekeeping(move || housekeeper.housekeeping());
        let watcher = Rc::clone(&worker);
        let watched = net::spawn_beside(move || {
            if let Some(parking) = &watcher.parking {
                parking.watch(|connection, parked| parked.resume(&watcher, connection));
            }
        });
        // Without it, silent connections keep their coroutines.
        match watched {
            Ok(_) => worker.parks.set(worker.parking.is_some()),
            Err(error) => failed(&error),
        }
        worker
    }

    /// Runs at every tick of the worker's clock; true while there is something left to do.
    fn housekeeping(self: &Rc<Self>) -> bool {
        let lines_left = self.access_log.tick();
        // Lists and settings that were replaced are let go even when no request comes.
        self.lists.refresh();
        self.config.refresh();
        let now = Instant::now();
        let looks_again = match self.next_look.get() {
            Some(next) if now < next => true,
            _ => {
                let limit = self.config.snapshot().upstream.keepalive_timeout;
                self.sift_parked(now);
                let parks = self.parking.as_ref().is_some_and(|it| !it.is_empty());
                let memory = buffer::trim() | self.workspaces.borrow_mut().trim();
                let idle = self.pool.evict(now, limit) | self.claims.evict(now, limit);
                let any = idle | memory | Pipe::look_after() | parks;
                self.metrics().upstream_idle.set(self.pool.len() as u64);
                self.next_look.set(any.then_some(now + LOOK));
                any
            }
        };
        reports::tell_of_own_lines(&self.gateway, now) | lines_left | looks_again
    }

    fn metrics(&self) -> &WorkerMetrics {
        self.gateway.metrics.worker(self.index)
    }

    /// Makes something that takes descriptors. When they have run out, the worker's idle connections to
    /// peers and unused pipes give way.
    fn with_descriptors<T>(&self, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if net::is_out_of_descriptors(&error) => {
                let any = Pipe::close_unused() | self.pool.clear() | self.claims.clear();
                if any { make() } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    /// Keeps a connection to `peer`, whose last request was `asker`'s, for the next one.
    fn keep_upstream(
        &self,
        peer: SocketAddr,
        stream: net::Stream,
        leftover: Leftover,
        asker: Asker,
        config: &Config,
    ) {
        let limit = config.upstream.keepalive;
        self.pool.checkin(peer, stream, leftover, asker, limit);
        self.look_later();
    }

    /// Sees to it that what is idle is looked through.
    fn look_later(&self) {
        if self.next_look.get().is_none() {
            self.next_look.set(Some(Instant::now() + LOOK));
            net::ensure_ticking();
        }
    }

    /// Lets a silent connection wait without a coroutine.
    fn park(&self, connection: Detached, parked: Parked) -> Result<(), Close> {
        self.look_later();
        self.metrics().parked.increment();
        let parked = match &self.parking {
            Some(parking) => parking.park(connection, parked).map_err(drop),
            None => Err(()),
        };
        parked.map_err(|()| {
            self.metrics().parked.decrement();
            Close::OverCapacity
        })
    }

    /// Ends parked connections whose time is over; all of them when the gateway is to end.
    fn sift_parked(self: &Rc<Self>, now: Instant) {
        let draining = self.gateway.is_draining();
        if let Some(parking) = &self.parking {
            parking.sift(
                |_, parked| parked.fate(now, draining),
                |connection, parked| parked.leave(self, connection, draining),
            );
        }
    }

    /// The pools of `lists`, counted on this worker only: see [`crate::snapshot`].
    fn pools(&self, lists: &Lists) -> Rc<Pools> {
        let mut last = self.pools.borrow_mut();
        if !last.are_of(lists) {
            *last = Rc::new(lists.pools());
        }
        Rc::clone(&last)
    }

    fn lend_workspace(&self) -> Box<Workspace> {
        let kept = self.workspaces.borrow_mut().take();
        kept.unwrap_or_default()
    }

    fn take_back(&self, workspace: Box<Workspace>) {
        if workspace.bytes() <= WORKSPACE {
            self.workspaces.borrow_mut().give(workspace);
        }
    }
}

/// Memory that one request needs, reused from request to request so that a request allocates
/// nothing.
#[derive(Default)]
struct Workspace {
    request: RequestHead,
    request_options: ConnectionOptions,
    /// The head for the peer, with a small body.
    to_peer: Vec<u8>,
    /// The protocols that the client asks for.
    asked: Vec<u8>,
    /// What is to be written next to the peer.
    pending: Vec<u8>,
    response: ResponseHead,
    response_options: ConnectionOptions,
    /// What is to be written next to the client.
    to_client: Vec<u8>,
    trailer: Trailer,
    /// Peers tried.
    tried: Vec<SocketAddr>,
    /// What the access log says of the request.
    seen: tally::Seen,
}

impl Workspace {
    /// The memory that it has for what is written and noted.
    fn bytes(&self) -> usize {
        let written = [&self.to_peer, &self.asked, &self.pending, &self.to_client];
        written.map(Vec::capacity).iter().sum::<usize>() + self.seen.capacity()
    }
}
