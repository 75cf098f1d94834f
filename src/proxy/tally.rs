//! What is noted of a request while it is served, for the access log and the counters.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use super::chooser::OwnPools;
use super::listening::Listening;
use super::logged_head::LoggedHead;
use super::worker::Worker;
use crate::config::LogSettings;
use crate::error::{Close, Refusal};
use crate::http::visitor::VisitorId;
use crate::lists::{PoolName, ServiceName};
use crate::logs::access::Record;
use crate::net;
use crate::route::Reason;
use crate::upstream::units::Unit;

/// The account of one request.
pub(super) struct Tally {
    pub(super) begun: Instant,
    pub(super) client: IpAddr,
    /// There is more than one service.
    pub(super) has_services: bool,
    /// The pools of the service that it was for, once that is known.
    pub(super) service: Option<OwnPools>,
    pub(super) pool: Option<PoolName>,
    pub(super) reason: Option<Reason>,
    /// A tester has chosen the pool, whatever became of that.
    pub(super) forced: bool,
    /// Who the client is from now on, which it is to be told.
    pub(super) visitor: Option<VisitorId>,
    /// It came by https, as a trusted proxy says; only known where that matters.
    pub(super) by_https: bool,
    pub(super) peer: Option<SocketAddr>,
    pub(super) attempts: u32,
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// What `sent` was, or is to be, where the body of the answer begins.
    body_from: u64,
    pub(super) upstream_begun: Option<Instant>,
    pub(super) generation: u64,
    pub(super) error: Option<&'static str>,
    pub(super) refusal: Option<Refusal>,
    /// The client was told to continue.
    pub(super) continued: bool,
    /// Another peer could have been asked, but `retry_budget` was used up.
    pub(super) retry_denied: bool,
    /// It is a unit, and not counted yet.
    pub(super) unit: Option<Unit>,
}

impl Tally {
    pub(super) fn new(begun: Instant, client: IpAddr) -> Self {
        Self {
            begun,
            client,
            has_services: false,
            service: None,
            pool: None,
            reason: None,
            forced: false,
            visitor: None,
            by_https: false,
            peer: None,
            attempts: 0,
            status: 0,
            received: 0,
            sent: 0,
            body_from: 0,
            upstream_begun: None,
            generation: 0,
            error: None,
            refusal: None,
            continued: false,
            retry_denied: false,
            unit: None,
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.error = Some(refusal.name());
    }

    /// A head with this many bytes is sent next, before the body. An earlier one was not sent.
    pub(super) fn note_head(&mut self, length: usize) {
        self.body_from = self.sent + length as u64;
    }

    /// What becomes of the request from now on says nothing of the version: counts it if it is a unit.
    pub(super) fn count_unit(&mut self, worker: &Worker) {
        if let Some(unit) = self.unit.take() {
            self.count(&unit, worker);
        }
    }

    #[inline(never)]
    fn count(&self, unit: &Unit, worker: &Worker) {
        if let Some(units) = self.service.as_ref().and_then(|it| it.units()) {
            units.count(worker.index(), unit);
        }
    }

    /// Counts and logs the request, which has ended and came in there; returns the time of its end.
    pub(super) fn close(
        &self,
        worker: &Worker,
        listening: &Listening,
        settings: &LogSettings,
        head: &LoggedHead,
        close: Option<Close>,
    ) -> Instant {
        let now = Instant::now();
        let duration = now - self.begun;
        let metrics = worker.metrics();
        let counters = match &self.service {
            Some(service) => worker.counters_of(service),
            None => &metrics.of_default,
        };
        counters.request(self.pool, self.status, duration);
        if self.attempts > 0 {
            metrics.requests_attempted.increment();
        }
        if let Some(unit) = &self.unit {
            self.count(unit, worker);
        }
        metrics.downstream_received.add(self.received);
        metrics.downstream_sent.add(self.sent);
        if let Some(refusal) = self.refusal {
            metrics.refusals[refusal.index()].increment();
        }
        if worker.access_log.is_off() {
            return now;
        }
        let sample = self.sample(settings, close);
        let is_left_out = sample > 1 && fastrand::u32(..sample) != 0;
        if is_left_out || !self.has_line(listening, settings, close, now) {
            return now;
        }
        let record = Record {
            time: SystemTime::now(),
            client: self.client,
            pool: self.pool.map_or("-", PoolName::name),
            reason: self.reason.map_or("-", Reason::name),
            peer: self.peer,
            attempts: self.attempts,
            status: self.status,
            received: self.received,
            sent: self.sent,
            body_sent: self.sent.saturating_sub(self.body_from),
            request_time: duration,
            upstream_time: self.upstream_begun.map(|begun| now - begun),
            generation: self.generation,
            service: match &self.service {
                Some(pools) => pools.service().as_str(),
                None if self.has_services => "-",
                None => ServiceName::DEFAULT,
            },
            has_services: self.has_services,
            entry: head.entry(),
            bucket: head.bucket(),
            line: head.line(),
            method: head.method(),
            target: head.target(),
            host: head.host(),
            user_agent: head.user_agent(),
            fields: head.fields(),
            request_id: head.request_id(),
            error: self.error,
            close: close.map(Close::name),
            denied: self.retry_denied.then_some("retry-budget"),
            sample,
        };
        if worker.access_log.write(&record, &settings.format) {
            net::ensure_ticking();
        }
        now
    }

    /// One of how many such requests has a line; 1 for whatever went wrong.
    fn sample(&self, settings: &LogSettings, close: Option<Close>) -> u32 {
        match self.error.is_some() || close == Some(Close::Panic) {
            true => 1,
            false => settings.sample.rate(self.status),
        }
    }

    /// Whether the request gets its line in the access log: not if it needed no server, and there are
    /// too many such lines.
    fn has_line(
        &self,
        listening: &Listening,
        settings: &LogSettings,
        close: Option<Close>,
        now: Instant,
    ) -> bool {
        let needed_a_server = self.attempts > 0 || self.upstream_begun.is_some();
        if needed_a_server || close == Some(Close::Panic) {
            return true;
        }
        let admitted = listening.own_lines().admits(settings.own_lines, now);
        if !admitted {
            // So that it is reported.
            net::ensure_ticking();
        }
        admitted
    }
}
