//! Requests and attempts.
//!
//! What is counted by pool is counted by service, too. Of other services than the default one, what has never
//! been counted mostly has no samples: where there are a thousand services, most of a page would be zeros.

use super::page::{Labels, MetricsPage};
use super::service::ServiceLabel;
use crate::error::{Doubt, Failure, Refusal, WrongForce};
use crate::lists::PoolName;
use crate::metrics::{Counter, Histogram, HistogramSum, Metrics, PoolMetrics, STATUS_CLASSES};
use crate::route::Reason;
use crate::upstream::serving::{CountedRequests, Serving};

/// What the workers have counted of one service.
struct ServiceCounts<'a> {
    service: ServiceLabel<'a>,
    workers: Vec<&'a PoolMetrics>,
    /// Also what has never been counted has a sample, so that a first one is seen as an increase.
    with_zeros: bool,
}

impl<'a> ServiceCounts<'a> {
    fn all(metrics: &'a Metrics, serving: &'a Serving) -> Vec<Self> {
        let services = serving.services().iter();
        let counts = services.map(|it| Self {
            service: ServiceLabel::of(serving, it.name()),
            workers: match it.name().is_default() {
                true => metrics.workers().iter().map(|it| &it.of_default).collect(),
                false => it.pools().all_counters().collect(),
            },
            with_zeros: it.name().is_default(),
        });
        counts.collect()
    }

    fn sum(&self, counter: impl Fn(&PoolMetrics) -> &Counter) -> u64 {
        let counts = self.workers.iter().map(|it| counter(it).get());
        counts.fold(0, u64::wrapping_add)
    }

    /// `None` where nothing was noted and that is not shown.
    fn histogram(&self, of: impl Fn(&PoolMetrics) -> &Histogram) -> Option<HistogramSum> {
        let mut sum = HistogramSum::default();
        self.workers.iter().for_each(|it| sum.add(of(it)));
        let is_shown = self.with_zeros || sum.buckets.iter().any(|it| *it > 0);
        is_shown.then_some(sum)
    }

    /// True when a worker has served it.
    fn is_in_use(&self) -> bool {
        !self.workers.is_empty()
    }
}

pub(super) fn render(
    page: &mut MetricsPage,
    metrics: &Metrics,
    serving: &Serving,
    counted: &CountedRequests,
) {
    let services = &ServiceCounts::all(metrics, serving)[..];
    page.family(
        "requests_total",
        "counter",
        "Requests by pool and class of status; class 0xx: nothing was answered.",
    );
    for of in services {
        for pool in POOLS_AND_NONE {
            for class in 0..STATUS_CLASSES {
                let count = of.sum(|it| &it.requests_of(pool)[class]);
                let class = format!("{class}xx");
                let name = pool_name(pool);
                let labels = of.service.labels(&[("pool", &name), ("status", &class)]);
                page.value("requests_total", &labels, count);
            }
        }
    }
    page.family(
        "decisions_total",
        "counter",
        "Requests by the pool that was to serve them at first, and why that one.",
    );
    for of in services.iter().filter(|it| it.is_in_use()) {
        for reason in Reason::ALL {
            for pool in reason.pools() {
                let count = of.sum(|it| &it.decisions[*pool as usize][reason.index()]);
                let (pool, reason) = (pool.name(), reason.name());
                let labels = of.service.labels(&[("pool", &pool), ("reason", &reason)]);
                page.value("decisions_total", &labels, count);
            }
        }
    }
    page.single(
        "requests_attempted_total",
        "counter",
        "Requests for which a peer was asked; the attempts are these and the retries.",
        metrics.sum(|it| &it.requests_attempted),
    );
    attempts(page, services);
    fallbacks(page, services);
    refusals(page, metrics);
    page.family(
        "request_duration_seconds",
        "histogram",
        "From the first byte of a request to the last of its response.",
    );
    let mut all = metrics.histogram(|it| &it.of_default.durations);
    all.merge(&counted.durations);
    page.histogram("request_duration_seconds", &[], &all);
    durations_by_pool(page, services);
}

fn fallbacks(page: &mut MetricsPage, services: &[ServiceCounts<'_>]) {
    page.family(
        "fallbacks_total",
        "counter",
        "Gray clients that prod has served, by reason.",
    );
    let reasons: [(&str, OfService); 3] = [
        ("pre-empty", |it| &it.fallbacks_empty),
        ("pre-out", |it| &it.fallbacks_out),
        ("pre-exhausted", |it| &it.fallbacks_exhausted),
    ];
    for of in services.iter().filter(|it| it.is_in_use()) {
        for (reason, counter) in reasons {
            let labels = of.service.labels(&[("reason", &reason)]);
            page.value("fallbacks_total", &labels, of.sum(counter));
        }
    }
}

/// What was refused, or not believed: of no service.
fn refusals(page: &mut MetricsPage, metrics: &Metrics) {
    page.family(
        "refusals_total",
        "counter",
        "Requests that the gateway has answered itself, by reason.",
    );
    for refusal in Refusal::ALL {
        let count = metrics.sum(|it| &it.refusals[refusal.index()]);
        page.value("refusals_total", &[("reason", &refusal.name())], count);
    }
    page.family(
        "proxies_not_believed_total",
        "counter",
        "Requests of trusted proxies whose word on the client was not taken, by reason.",
    );
    for doubt in Doubt::ALL {
        let count = metrics.sum(|it| &it.doubts[doubt.index()]);
        let labels: Labels<'_> = &[("reason", &doubt.name())];
        page.value("proxies_not_believed_total", labels, count);
    }
    page.family(
        "forces_refused_total",
        "counter",
        "Requests that ask for a version by force_header or force_cookie in a way that does not count, by reason.",
    );
    for wrong in WrongForce::ALL {
        let count = metrics.sum(|it| &it.forces_refused[wrong.index()]);
        let labels: Labels<'_> = &[("reason", &wrong.name())];
        page.value("forces_refused_total", labels, count);
    }
}

fn attempts(page: &mut MetricsPage, services: &[ServiceCounts<'_>]) {
    page.family(
        "attempts_total",
        "counter",
        "Attempts on peers by pool and outcome; abandoned: through no fault of the peer's.",
    );
    let in_use = || services.iter().filter(|it| it.is_in_use());
    for of in in_use() {
        for pool in PoolName::ALL {
            let (at, name) = (pool as usize, pool.name());
            let mut value = |outcome: &str, count: u64| {
                let labels = of.service.labels(&[("pool", &name), ("outcome", &outcome)]);
                page.value("attempts_total", &labels, count);
            };
            value("ok", of.sum(|it| &it.attempts_ok[at]));
            value("abandoned", of.sum(|it| &it.attempts_abandoned[at]));
            for failure in Failure::ALL {
                let count = of.sum(|it| &it.attempts_failed[at][failure.index()]);
                if count > 0 || of.with_zeros {
                    value(failure.name(), count);
                }
            }
        }
    }
    let tables: [(&str, &str, OfPools); 2] = [
        (
            "retries_total",
            "Attempts that were not the first of their request, by pool.",
            |it| &it.retries,
        ),
        (
            "retries_denied_total",
            "Requests that were not tried again, since retry_budget was used up, by pool.",
            |it| &it.retries_denied,
        ),
    ];
    for (name, help, counters) in tables {
        page.family(name, "counter", help);
        for of in in_use() {
            for pool in PoolName::ALL {
                let count = of.sum(|it| &counters(it)[pool as usize]);
                let shown = pool.name();
                let labels = of.service.labels(&[("pool", &shown)]);
                page.value(name, &labels, count);
            }
        }
    }
}

/// One counter of a service.
type OfService = fn(&PoolMetrics) -> &Counter;

/// One counter for each pool.
type OfPools = fn(&PoolMetrics) -> &[Counter; PoolName::ALL.len()];

const POOLS_AND_NONE: [Option<PoolName>; PoolName::ALL.len() + 1] =
    [Some(PoolName::Pre), Some(PoolName::Prod), None];

fn pool_name(pool: Option<PoolName>) -> &'static str {
    pool.map_or("none", PoolName::name)
}

fn durations_by_pool(page: &mut MetricsPage, services: &[ServiceCounts<'_>]) {
    let name = "pool_request_duration_seconds";
    page.family(
        name,
        "histogram",
        "As request_duration_seconds, by pool; none: answered without a peer.",
    );
    for of in services {
        for pool in POOLS_AND_NONE {
            if let Some(of_pool) = of.histogram(|it| it.durations_of(pool)) {
                let shown = pool_name(pool);
                page.histogram(name, &of.service.labels(&[("pool", &shown)]), &of_pool);
            }
        }
    }
    let name = "upstream_duration_seconds";
    page.family(
        name,
        "histogram",
        "From the moment that a peer's answer was waited for to the end of its head, by pool.",
    );
    for of in services {
        for pool in PoolName::ALL {
            if let Some(of_pool) = of.histogram(|it| &it.upstream_durations[pool as usize]) {
                let shown = pool.name();
                page.histogram(name, &of.service.labels(&[("pool", &shown)]), &of_pool);
            }
        }
    }
}
