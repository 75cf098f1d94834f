//! Listeners: where connections come from, and the drain that ends them all.
//!
//! Each listening address has one accepting coroutine. A connection goes to the worker that has the
//! fewest, so that all workers have the same load; it stays there for life. Above the limit, connections
//! are answered with 503 at once. While descriptors or memory are short, accepting pauses instead of
//! spinning.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Listen};
use crate::error::{Close, Refusal};
use crate::http::h1::encode;
use crate::logs::throttle::Throttle;
use crate::net::{self, Accepted, Listener};
use crate::proxy::gateway::Gateway;
use crate::proxy::listening::Listening;
use crate::proxy::moved::MovedConnection;
use crate::proxy::session::Arrival;
use crate::proxy::workers;
use crate::snapshot::Reader;

/// The pause after an error that is due to a shortage (descriptors, memory).
const SHORTAGE: Duration = Duration::from_millis(100);

/// How often a drain checks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Binds every address, or none. `inherited` has the sockets that another process has listened with.
///
/// # Errors
/// The first address that cannot be bound; the message names it.
pub fn bind(
    listen: &[Listen],
    mut inherited: impl FnMut(SocketAddr) -> Option<OwnedFd>,
) -> io::Result<Vec<Entrance>> {
    let mut bind = |it: &Listen| Entrance::open(*it, inherited(it.addr));
    listen.iter().map(&mut bind).collect()
}

/// A listener that nobody accepts from yet.
pub struct Entrance {
    listener: Listener,
    listening: Arc<Listening>,
}

impl Entrance {
    /// Listens as the ini file asks, with the socket that is there for it already, if there is one.
    ///
    /// # Errors
    /// The kernel's, with the address.
    pub(crate) fn open(listen: Listen, socket: Option<OwnedFd>) -> io::Result<Self> {
        Self::of(
            listen,
            match socket {
                Some(socket) => Listener::adopt(socket),
                None => Listener::bind(listen.addr),
            },
        )
    }

    /// As [`Self::open`], where these sockets are in the way and are about to be closed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_beside(listen: Listen, others: &[BorrowedFd<'_>]) -> io::Result<Self> {
        Self::of(listen, Listener::bind_beside(listen.addr, others))
    }

    fn of(listen: Listen, listener: io::Result<Listener>) -> io::Result<Self> {
        let addr = listen.addr;
        let listener = listener.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
        })?;
        let listening = Arc::new(Listening::new(listen, listener.addr()));
        Ok(Self {
            listener,
            listening,
        })
    }

    /// The address, for whoever comes in there.
    pub(crate) fn listening(&self) -> &Arc<Listening> {
        &self.listening
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The same entrance once more.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::adopt(self.listener.share()?)?,
            listening: Arc::clone(&self.listening),
        })
    }

    /// Its socket.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// A descriptor of its socket.
    ///
    /// # Errors
    /// As [`Self::again`].
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.listener.share()
    }
}

/// Starts to accept connections.
///
/// # Errors
/// When a coroutine cannot be started.
pub fn serve(gateway: &Arc<Gateway>, entrances: Vec<Entrance>) -> io::Result<()> {
    let mut all = Vec::clone(&gateway.listening.load());
    for entrance in &entrances {
        if !all.iter().any(|it| Arc::ptr_eq(it, &entrance.listening)) {
            all.push(Arc::clone(&entrance.listening));
        }
    }
    gateway.listening.store(Arc::new(all));
    for (at, entrance) in entrances.into_iter().enumerate() {
        let gateway = Arc::clone(gateway);
        let accepting = Accepting::new(&gateway);
        net::spawn(at % net::workers(), move || {
            accept(&gateway, entrance);
            drop(accepting);
        })?;
    }
    Ok(())
}

/// Stops accepting there once the kernel's queues are empty. Connections that came in there end with their
/// next answer.
///
/// # Errors
/// As [`net::spawn`].
pub(crate) fn remove(gateway: &Gateway, removed: &[Arc<Listening>]) -> io::Result<()> {
    if removed.is_empty() {
        return Ok(());
    }
    removed.iter().for_each(|it| it.remove());
    let all = gateway.listening.load();
    let stays = |it: &&Arc<Listening>| !removed.iter().any(|other| Arc::ptr_eq(it, other));
    let left: Vec<_> = all.iter().filter(stays).cloned().collect();
    gateway.listening.store(Arc::new(left));
    net::on_each_worker(|_| net::interrupt_idle())
}

/// Counts a listener for as long as it accepts: whatever ends it, a drain must not wait for it any more.
struct Accepting(Arc<Gateway>);

impl Accepting {
    fn new(gateway: &Arc<Gateway>) -> Self {
        gateway.accepting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(gateway))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn accept(gateway: &Arc<Gateway>, entrance: Entrance) {
    let Entrance {
        listener,
        listening,
    } = entrance;
    let addr = listener.addr();
    let config = Reader::new(&gateway.config);
    let (failed, over_capacity) = (
        RefCell::<Throttle>::default(),
        RefCell::<Throttle>::default(),
    );
    let tell_failed = |error: &io::Error| {
        if let Some(unsaid) = failed.borrow_mut().turn(Instant::now()) {
            let error = error.to_string();
            log::error!("accept-failed listen={addr} error={error:?} unsaid={unsaid}");
        }
    };
    let outcome = listener.accept_loop(
        || gateway.admission(&listening),
        |connection, from| {
            let arrival = Arrival {
                listening: Arc::clone(&listening),
                from,
                proxy: listening.expects_proxy(),
                past: None,
            };
            let admit = || {
                let refused = place(gateway, &config.snapshot(), connection, arrival);
                let Err(Unplaced { connection, error }) = refused else {
                    return;
                };
                match error {
                    Some(error) => tell_failed(&error),
                    None => {
                        if let Some(unsaid) = over_capacity.borrow_mut().turn(Instant::now()) {
                            let name = Refusal::OverCapacity.name();
                            let (open, client) = (gateway.open_connections(), from.ip());
                            log::warn!("{name} client={client} connections={open} unsaid={unsaid}");
                        }
                    }
                }
                refuse(gateway, connection);
            };
            // A panic costs this connection only; otherwise nobody would listen at the address any more.
            if catch_unwind(AssertUnwindSafe(admit)).is_err() {
                gateway.metrics.worker(net::worker()).panics.increment();
            }
        },
        |error| {
            tell_failed(&error);
            match error.kind() {
                // The client has gone already.
                io::ErrorKind::ConnectionAborted => Duration::ZERO,
                _ => SHORTAGE,
            }
        },
    );
    if let Err(error) = outcome {
        log::error!(
            "listener-failed listen={addr} error={:?}",
            error.to_string()
        );
    }
}

/// Goes on with a connection that another process has had. One that came to a listener that there is no more
/// ends.
///
/// # Errors
/// It cannot be served.
pub(crate) fn go_on_with(gateway: &Arc<Gateway>, moved: MovedConnection) -> io::Result<()> {
    let config = gateway.config.load();
    let all = gateway.listening.load();
    let Some(listening) = all.iter().find(|it| it.asked() == moved.listener) else {
        return Ok(());
    };
    let connection = Accepted::elsewhere(moved.socket)?;
    let arrival = Arrival {
        listening: Arc::clone(listening),
        from: SocketAddr::new(moved.past.client, 0),
        proxy: false,
        past: Some(moved.past),
    };
    connection.tolerate(config.gateway.send_timeout);
    let worker = idlest(gateway, connection.natural_worker());
    let begun = begin(gateway, worker, connection, arrival);
    begun.map_err(|refused| {
        refused
            .error
            .unwrap_or_else(|| io::ErrorKind::OutOfMemory.into())
    })
}

/// A connection that no worker serves.
struct Unplaced {
    connection: Accepted,
    /// Why; none when there are too many.
    error: Option<io::Error>,
}

/// Gives a connection to a worker, or returns it.
fn place(
    gateway: &Arc<Gateway>,
    config: &Config,
    connection: Accepted,
    arrival: Arrival,
) -> Result<(), Unplaced> {
    if gateway.open_connections() >= config.gateway.max_connections {
        return Err(Unplaced {
            connection,
            error: None,
        });
    }
    connection.tolerate(config.gateway.send_timeout);
    let worker = idlest(gateway, connection.natural_worker());
    begin(gateway, worker, connection, arrival)
}

/// Begins a session on `worker`; returns the connection when there is no memory for it.
fn begin(
    gateway: &Arc<Gateway>,
    worker: usize,
    connection: Accepted,
    arrival: Arrival,
) -> Result<(), Unplaced> {
    gateway.connections[worker].fetch_add(1, Ordering::AcqRel);
    // In a separate cell, so that it is not lost with a coroutine that cannot be started.
    let handover = Arc::new(Mutex::new(Some(connection)));
    let take =
        |cell: &Mutex<Option<Accepted>>| cell.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = Arc::clone(&handover);
    let session_gateway = Arc::clone(gateway);
    let spawned = net::spawn(worker, move || {
        if let Some(connection) = take(&taken)
            && let Err(connection) = workers::serve(&session_gateway, connection, &arrival)
        {
            session_gateway.connections[worker].fetch_sub(1, Ordering::AcqRel);
            // The natural worker needs no other descriptor for it.
            let natural = connection.natural_worker();
            if let Err(refused) = begin(&session_gateway, natural, connection, arrival) {
                refuse(&session_gateway, refused.connection);
            }
        }
    });
    let Err(error) = spawned else {
        return Ok(());
    };
    gateway.connections[worker].fetch_sub(1, Ordering::AcqRel);
    match take(&handover) {
        Some(connection) => Err(Unplaced {
            connection,
            error: Some(error),
        }),
        None => Ok(()),
    }
}

/// The worker with the fewest connections; `natural` where it makes no difference, which saves a
/// system call.
fn idlest(gateway: &Gateway, natural: usize) -> usize {
    let open = |worker: usize| gateway.connections[worker].load(Ordering::Relaxed);
    let fewest = (0..gateway.connections.len()).min_by_key(|worker| open(*worker));
    match fewest {
        Some(fewest) if open(fewest) < open(natural) => fewest,
        _ => natural,
    }
}

fn refuse(gateway: &Gateway, connection: Accepted) {
    let refusal = Refusal::OverCapacity;
    let metrics = gateway.metrics.worker(net::worker());
    metrics.connections.increment();
    metrics.refusals[refusal.index()].increment();
    metrics.closes[Close::OverCapacity.index()].increment();
    let mut bytes = Vec::new();
    encode::refusal(&mut bytes, refusal);
    connection.refuse(&bytes);
}

/// Leaves it to another process to accept connections. What has been accepted is served as ever.
///
/// # Errors
/// As [`net::spawn`].
pub(crate) fn leave_to_another(gateway: &Gateway) -> io::Result<()> {
    gateway.elsewhere.store(true, Ordering::Release);
    net::on_each_worker(|_| net::interrupt_idle())
}

/// Accepts connections again.
///
/// # Errors
/// As [`serve`].
pub(crate) fn take_back(gateway: &Arc<Gateway>, entrances: Vec<Entrance>) -> io::Result<()> {
    // Those that have not noticed yet that they were to end go on as well: the sockets are the same.
    gateway.elsewhere.store(false, Ordering::Release);
    serve(gateway, entrances)
}

/// Ends tunnels as a stop does, in a drain beside a successor. False when that cannot be.
pub(crate) fn end_silent_tunnels(gateway: &Gateway) -> bool {
    gateway.stopping.store(true, Ordering::Release);
    let told = net::on_each_worker(|_| net::interrupt_idle());
    told.is_ok()
}

/// How long to wait for the end of what was cut.
const CUT_TIME: Duration = Duration::from_millis(500);

/// Stops accepting once the kernel's queues are empty, lets requests come to their end, and ends
/// idle connections. Returns how many connections are still open when `limit` has passed or `hurry`
/// says so.
pub fn drain(gateway: &Arc<Gateway>, limit: Duration, hurry: impl Fn() -> bool) -> usize {
    gateway.draining.store(true, Ordering::Release);
    if let Err(error) = workers::interrupt_idle(gateway) {
        log::error!("drain-failed error={:?}", error.to_string());
    }
    let deadline = Instant::now() + limit;
    let is_done =
        || gateway.accepting.load(Ordering::Acquire) == 0 && gateway.open_connections() == 0;
    while !is_done() && Instant::now() < deadline && !hurry() {
        std::thread::sleep(DRAIN_LOOK);
    }
    let left = gateway.open_connections();
    if left > 0 {
        cut(gateway);
    }
    left
}

/// Cuts off whatever is under way, so that each request still has its line in the access log.
fn cut(gateway: &Gateway) {
    if let Err(error) = net::cut_waits() {
        log::error!("drain-failed error={:?}", error.to_string());
    }
    let deadline = Instant::now() + CUT_TIME;
    while gateway.open_connections() > 0 && Instant::now() < deadline {
        std::thread::sleep(DRAIN_LOOK);
    }
}
