//! What all workers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::doubts::Doubts;
use super::listening::Listening;
use super::moved::Heir;
use crate::config::Config;
use crate::error::Close;
use crate::logs::writer::LogQueue;
use crate::metrics::{Metrics, PoolMetrics, WorkerMetrics};
use crate::net::Admission;
use crate::snapshot::Published;
use crate::upstream::in_force::InForce;
use crate::upstream::serving::Pools;

/// What all workers share.
pub struct Gateway {
    /// The configuration in force.
    pub config: Arc<Published<Config>>,
    /// The lists in force.
    pub lists: Arc<InForce>,
    /// The counters.
    pub metrics: Metrics,
    /// The access log.
    pub access_log: LogQueue,
    /// Where it listens.
    pub listening: ArcSwap<Vec<Arc<Listening>>>,
    /// Doubts about what trusted proxies say.
    pub doubts: Doubts,
    /// Set once: sessions end as soon as they can.
    pub draining: AtomicBool,
    /// Another process accepts connections, while this one does not.
    pub elsewhere: AtomicBool,
    /// In a drain beside a successor: that one is about to end, too.
    pub stopping: AtomicBool,
    /// Takes idle connections in a drain, instead of their end.
    pub heir: Heir,
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
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Connections end with their next answer, or before that where none is due.
    pub(super) fn ends_connections(&self) -> bool {
        self.is_draining() && self.heir.get().is_none()
    }

    /// Why connections that came in there end with their next answer, if they do.
    pub(super) fn ending(&self, listening: &Listening) -> Option<Close> {
        match () {
            () if self.ends_connections() => Some(Close::Draining),
            () if listening.is_removed() => Some(Close::ListenerRemoved),
            () => None,
        }
    }

    /// Tunnels end when they are silent: nobody goes on after this process.
    pub(super) fn ends_silent_tunnels(&self) -> bool {
        self.ends_connections() || self.stopping.load(Ordering::Acquire)
    }

    /// Who may come in there.
    pub(super) fn admission(&self, listening: &Listening) -> Admission {
        let ends = self.is_draining() || listening.is_removed();
        match (self.elsewhere.load(Ordering::Acquire), ends) {
            (true, _) => Admission::Closed,
            (false, true) => Admission::Last,
            (false, false) => Admission::Open,
        }
    }

    /// Reports in the error log which lines the access log lacks. True while there is something left to
    /// report.
    pub(super) fn tell_of_own_lines(&self, now: Instant) -> bool {
        let listening = self.listening.load();
        let lines = listening.iter().map(|it| it.own_lines());
        lines.fold(false, |left, lines| lines.tell(now) | left)
    }
}

/// One worker's counters, for as long as something there uses them.
pub(super) struct Counters {
    pub(super) gateway: Arc<Gateway>,
    /// Which worker it is.
    index: usize,
    own: Arc<WorkerMetrics>,
}

impl Counters {
    pub(super) fn new(gateway: Arc<Gateway>, index: usize) -> Self {
        let own = Arc::clone(gateway.metrics.worker(index));
        Self {
            gateway,
            index,
            own,
        }
    }

    /// Which worker it is.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The worker's counters of the service with these pools.
    #[inline]
    pub(super) fn of_service<'a>(&'a self, pools: &'a Pools) -> &'a PoolMetrics {
        pools.counters(self.index).unwrap_or(&self.own.of_default)
    }

    /// Notes the end of a downstream connection, which was counted when it was accepted.
    pub(super) fn connection_has_ended(&self) {
        self.gateway.connections[self.index].fetch_sub(1, Ordering::AcqRel);
    }
}

impl Deref for Counters {
    type Target = WorkerMetrics;

    fn deref(&self) -> &WorkerMetrics {
        &self.own
    }
}
