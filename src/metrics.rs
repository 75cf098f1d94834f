//! Counters. Each worker has its own, so that a request touches no shared cache line; the admin listener
//! adds them up on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Close, Doubt, Failure, Refusal, WrongForce};
use crate::lists::PoolName;

/// A number that only one thread changes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `amount`. There is only one writer, so a plain load and store will do, without a locked
    /// instruction.
    pub fn add(&self, amount: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(amount);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Adds one.
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// Sets the number: for gauges.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Subtracts one: for gauges.
    pub(crate) fn decrement(&self) {
        self.add(u64::MAX);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds.
pub(crate) const DURATION_BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bucket; the last one has no upper bound.
    pub buckets: [Counter; DURATION_BOUNDS.len() + 1],
    /// Of all durations, in microseconds.
    pub sum: Counter,
}

impl Histogram {
    /// It took so long once more.
    pub fn note(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].increment();
        self.sum.add(micros);
    }
}

/// The same, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistogramSum {
    pub(crate) buckets: [u64; DURATION_BOUNDS.len() + 1],
    /// In microseconds.
    pub(crate) sum: u64,
}

impl HistogramSum {
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum = sum.wrapping_add(count.get());
        }
        self.sum = self.sum.wrapping_add(histogram.sum.get());
    }

    /// Adds what was added up elsewhere.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(*count);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Status classes: index 0 is "nothing was answered", 1 to 5 are 1xx to 5xx.
pub(crate) const STATUS_CLASSES: usize = 6;

/// So many reasons a decision can have: they are above, in `route`.
pub(crate) const REASONS: usize = 9;

/// What one worker counts of the pools of a service.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolMetrics {
    /// Requests, by pool and status class; the last are those that were answered without a peer.
    pub requests: [[Counter; STATUS_CLASSES]; PoolName::ALL.len() + 1],
    /// Decisions, by pool and reason.
    pub decisions: [[Counter; REASONS]; PoolName::ALL.len()],
    /// Attempts that succeeded, by pool.
    pub attempts_ok: [Counter; PoolName::ALL.len()],
    /// Attempts that have ended through no fault of the peer's, by pool.
    pub attempts_abandoned: [Counter; PoolName::ALL.len()],
    /// Attempts that were not the first of their request, by pool.
    pub retries: [Counter; PoolName::ALL.len()],
    /// Requests that were not tried again, since too many were of late, by pool.
    pub retries_denied: [Counter; PoolName::ALL.len()],
    /// Attempts that failed, by pool and [`Failure`].
    pub attempts_failed: [[Counter; Failure::ALL.len()]; PoolName::ALL.len()],
    /// Gray clients served by prod because pre had no peer.
    pub fallbacks_empty: Counter,
    /// Gray clients served by prod because every peer of pre was out.
    pub fallbacks_out: Counter,
    /// Gray clients served by prod because every attempt on pre failed.
    pub fallbacks_exhausted: Counter,
    /// Of requests, by pool; the last are those that were answered without a peer.
    pub durations: [Histogram; PoolName::ALL.len() + 1],
    /// How long peers took until the head of a final response had come, by pool.
    pub upstream_durations: [Histogram; PoolName::ALL.len()],
}

impl PoolMetrics {
    /// The requests for a pool, or those that were answered without a peer, by status class.
    pub(crate) fn requests_of(&self, pool: Option<PoolName>) -> &[Counter; STATUS_CLASSES] {
        &self.requests[place_of(pool)]
    }

    /// How long the requests for a pool took, or those that were answered without a peer.
    pub(crate) fn durations_of(&self, pool: Option<PoolName>) -> &Histogram {
        &self.durations[place_of(pool)]
    }

    /// All requests.
    pub(crate) fn all_requests(&self) -> u64 {
        let counts = self.requests.iter().flatten().map(Counter::get);
        counts.fold(0, u64::wrapping_add)
    }

    /// Counts one finished request.
    pub fn request(&self, pool: Option<PoolName>, status: u16, duration: Duration) {
        let class = usize::from(status / 100).min(STATUS_CLASSES - 1);
        self.requests_of(pool)[class].increment();
        self.durations_of(pool).note(duration);
    }
}

/// One worker's counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Of the default service, and of requests that were refused before their service was known.
    pub of_default: PoolMetrics,
    /// Requests that at least one attempt was made for.
    pub requests_attempted: Counter,
    /// Refusals, by reason.
    pub refusals: [Counter; Refusal::ALL.len()],
    /// Requests of trusted proxies that were not believed, by reason.
    pub doubts: [Counter; Doubt::ALL.len()],
    /// Requests of testers who are not served as they have asked to be, by reason.
    pub forces_refused: [Counter; WrongForce::ALL.len()],
    /// Closed downstream connections, by reason.
    pub closes: [Counter; Close::ALL.len()],
    /// Downstream connections accepted.
    pub connections: Counter,
    /// Downstream connections that are open now.
    pub active: Counter,
    /// Of these, the ones that are silent and have no coroutine.
    pub parked: Counter,
    /// Idle connections to peers, at the worker's last look, which is a second old at most.
    pub upstream_idle: Counter,
    /// Connections made to peers.
    pub upstream_connects: Counter,
    /// Pooled connections to peers that were used again.
    pub upstream_reuses: Counter,
    /// Connections to peers that wait for the next request of one client connection, and serve no other.
    pub upstream_pinned: Counter,
    /// Bytes from clients.
    pub downstream_received: Counter,
    /// Bytes to clients.
    pub downstream_sent: Counter,
    /// Bytes from peers.
    pub upstream_received: Counter,
    /// Bytes to peers.
    pub upstream_sent: Counter,
    /// Panics that were contained.
    pub panics: Counter,
}

fn place_of(pool: Option<PoolName>) -> usize {
    pool.map_or(PoolName::ALL.len(), |it| it as usize)
}

/// The counters of all workers.
#[derive(Debug)]
pub struct Metrics {
    /// Shared with those who count, so that these find their own without a search.
    workers: Box<[Arc<WorkerMetrics>]>,
}

impl Metrics {
    /// Counters for this many workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    /// The counters of one worker.
    pub(crate) fn worker(&self, worker: usize) -> &Arc<WorkerMetrics> {
        &self.workers[worker]
    }

    /// The counters of every worker.
    pub fn workers(&self) -> &[Arc<WorkerMetrics>] {
        &self.workers
    }

    /// Sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.workers
            .iter()
            .fold(0, |sum, worker| sum.wrapping_add(counter(worker).get()))
    }

    /// Sum of some histograms of each worker.
    pub(crate) fn histogram<'a>(
        &'a self,
        histograms: impl Fn(&'a WorkerMetrics) -> &'a [Histogram],
    ) -> HistogramSum {
        let mut all = HistogramSum::default();
        let each = self.workers.iter().flat_map(|it| histograms(it));
        each.for_each(|it| all.add(it));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_class_and_duration() {
        let metrics = Metrics::new(2);
        let record = |worker: usize, status, micros| {
            let duration = Duration::from_micros(micros);
            let worker = metrics.worker(worker);
            worker
                .of_default
                .request(Some(PoolName::Prod), status, duration);
        };
        record(0, 200, 500);
        record(1, 204, 501);
        record(1, 503, 60_000_000);
        let requests = |class: usize| {
            metrics.sum(|it| &it.of_default.requests_of(Some(PoolName::Prod))[class])
        };
        assert_eq!((requests(2), requests(5), requests(4)), (2, 1, 0));
        let bucket = |at: usize| {
            metrics.sum(|it| &it.of_default.durations_of(Some(PoolName::Prod)).buckets[at])
        };
        assert_eq!((bucket(0), bucket(1), bucket(14)), (1, 1, 1));
        let sum = metrics.sum(|it| &it.of_default.durations_of(Some(PoolName::Prod)).sum);
        assert_eq!(sum, 60_001_001);
        assert_eq!(metrics.sum(|it| &it.of_default.durations_of(None).sum), 0);
    }

    #[test]
    fn a_gauge_goes_down_again() {
        let metrics = WorkerMetrics::default();
        metrics.active.increment();
        metrics.active.decrement();
        assert_eq!(metrics.active.get(), 0);
    }
}
