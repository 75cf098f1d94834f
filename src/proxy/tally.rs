//! What is noted of a request while it is served, for the access log and the counters.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use super::Worker;
use crate::error::{Close, Refusal};
use crate::http::bytes::is_token_byte;
use crate::http::fields::Kind;
use crate::http::h1::head::RequestHead;
use crate::logs::access::Record;
use crate::net;
use crate::route::{PoolName, Reason};

/// Parts of a request head that the access log shows, copied because the head's bytes make room
/// for the body. The memory is reused.
#[derive(Default)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    /// Where method, target, host and user agent end.
    ends: [usize; 4],
}

impl Seen {
    /// The memory that it has, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends = [0; 4];
    }

    pub(super) fn note(&mut self, head: &RequestHead, bytes: &[u8]) {
        self.bytes.clear();
        let agent = head.fields.iter().find(|it| it.kind == Kind::UserAgent);
        let parts = [
            Some(head.method),
            Some(head.target),
            head.authority(),
            agent.map(|field| field.value),
        ];
        for (part, end) in parts.iter().zip(&mut self.ends) {
            if let Some(span) = part {
                self.bytes.extend_from_slice(span.of(bytes));
            }
            *end = self.bytes.len();
        }
    }

    /// Notes what a request line that was refused, or stands in a head that was, may mean.
    pub(super) fn note_line(&mut self, bytes: &[u8]) {
        self.clear();
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len());
        let mut words = line[..end].splitn(3, |byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        // A method is shown as it is, so it must be one.
        if method.len() <= 32 && method.iter().all(|byte| is_token_byte(*byte)) {
            self.bytes.extend_from_slice(method);
            self.ends = [self.bytes.len(); 4];
            self.bytes
                .extend_from_slice(words.next().unwrap_or_default());
            self.ends[1..].fill(self.bytes.len());
        }
    }

    /// The method, once it was noted.
    pub(super) fn method(&self) -> &[u8] {
        self.part(0)
    }

    fn part(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }
}

/// The account of one request.
pub(super) struct Tally {
    pub(super) begun: Instant,
    /// Which listener the request came to.
    listener: usize,
    pub(super) client: IpAddr,
    pub(super) pool: Option<PoolName>,
    pub(super) reason: Option<Reason>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) attempts: u32,
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) upstream_begun: Option<Instant>,
    pub(super) generation: u64,
    pub(super) error: Option<&'static str>,
    pub(super) refusal: Option<Refusal>,
    /// The client was told to continue.
    pub(super) continued: bool,
}

impl Tally {
    pub(super) fn new(begun: Instant, client: IpAddr, listener: usize) -> Self {
        Self {
            begun,
            listener,
            client,
            pool: None,
            reason: None,
            peer: None,
            attempts: 0,
            status: 0,
            received: 0,
            sent: 0,
            upstream_begun: None,
            generation: 0,
            error: None,
            refusal: None,
            continued: false,
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.error = Some(refusal.name());
    }

    /// Counts and logs the request, which has ended; returns when.
    pub(super) fn close(&self, worker: &Worker, seen: &Seen, close: Option<Close>) -> Instant {
        let now = Instant::now();
        let duration = now - self.begun;
        let metrics = worker.metrics();
        metrics.request(super::label(self.pool), self.status, duration);
        metrics.downstream_received.add(self.received);
        metrics.downstream_sent.add(self.sent);
        if let Some(refusal) = self.refusal {
            metrics.refusals[refusal.index()].increment();
        }
        if worker.access_log.is_off() || !self.has_line(worker, close, now) {
            return now;
        }
        let first = worker.access_log.write(&Record {
            time: SystemTime::now(),
            client: self.client,
            pool: self.pool.map_or("-", PoolName::name),
            reason: self.reason.map_or("-", Reason::name),
            peer: self.peer,
            attempts: self.attempts,
            status: self.status,
            received: self.received,
            sent: self.sent,
            request_time: duration,
            upstream_time: self.upstream_begun.map(|begun| now - begun),
            generation: self.generation,
            method: seen.method(),
            target: seen.part(1),
            host: seen.part(2),
            user_agent: seen.part(3),
            error: self.error,
            close: close.map(Close::name),
        });
        if first {
            net::ensure_ticking();
        }
        now
    }

    /// Whether the request has its line in the access log: not if it has cost the client nothing but the
    /// line, and there are too many of these.
    fn has_line(&self, worker: &Worker, close: Option<Close>, now: Instant) -> bool {
        let needed_a_server = self.attempts > 0 || self.upstream_begun.is_some();
        if needed_a_server || close == Some(Close::Panic) {
            return true;
        }
        let limit = worker.config.snapshot().log.own_lines;
        let admitted = worker.gateway.own_lines[self.listener].admits(limit, now);
        if !admitted {
            // So that it is told of.
            net::ensure_ticking();
        }
        admitted
    }
}
