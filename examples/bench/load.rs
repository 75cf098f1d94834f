//! The load generator: one thread, many connections, two ways to pace them.
//!
//! *Closed*: each connection sends the next request once its answer is there, so that the proxy sets
//! the pace. *Offered*: requests are due at times that do not depend on the proxy, and what is late
//! waits its turn; latency counts from the time at which a request was due, so that nothing that a
//! slow proxy holds back is left out (coordinated omission).

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, Progress, Request, Scratch};
use crate::poll::Poll;

/// A run with more errors is not worth its time.
const MAX_ERRORS: u64 = 100;
/// So long without any byte is an error.
const STALL: Duration = Duration::from_secs(10);
/// How long requests that were due in time may take beyond the end.
const GRACE: Duration = Duration::from_secs(5);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    Closed,
    /// Requests a second. The gaps are random, as of many clients that know nothing of each other,
    /// but the same in each run.
    Offered(f64),
}

/// What to send, and how.
pub(crate) struct Plan<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) request: &'a Request,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    /// Load that is not measured yet.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Errors are what is measured, however many there are.
    pub(crate) endures: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Bytes of answers and of whole requests.
    pub(crate) bytes: u64,
    /// Of each request, in nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
    pub(crate) elapsed: Duration,
    /// CPU time of the proxy.
    pub(crate) cpu: Duration,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Puts the load on. `cpu` tells the CPU time that the proxy has taken so far.
pub(crate) fn run(
    plan: &Plan<'_>,
    interrupted: &AtomicBool,
    mut cpu: impl FnMut() -> Result<Duration, String>,
) -> Result<Outcome, String> {
    let mut generator = Generator::new(plan)?;
    generator.begin();
    let (from, until) = (generator.from, generator.until);
    let mut before = None;
    loop {
        let now = Instant::now();
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        if generator.has_too_many_errors() {
            let errors = &generator.outcome.errors;
            return Err(format!("too many errors: {errors:?}"));
        }
        if before.is_none() && now >= from {
            before = Some((cpu()?, Instant::now()));
            generator.is_measured = true;
        }
        if now >= until {
            break;
        }
        let end = if before.is_none() { from } else { until };
        generator.turn(now, end)?;
    }
    let Some((cpu_before, since)) = before else {
        return Err("no time to measure".to_owned());
    };
    let elapsed = since.elapsed();
    let cpu = cpu()? - cpu_before;
    generator.finish(interrupted)?;
    let mut outcome = generator.outcome;
    outcome.latencies.sort_unstable();
    (outcome.elapsed, outcome.cpu) = (elapsed, cpu);
    Ok(outcome)
}

/// A connection, and since when its request is due.
struct Slot {
    client: Client,
    due: Option<Instant>,
}

struct Generator<'a> {
    plan: &'a Plan<'a>,
    poll: Poll,
    scratch: Scratch,
    slots: Vec<Slot>,
    /// Those without a request, where requests have their times.
    idle: VecDeque<usize>,
    schedule: Option<Schedule>,
    /// Those whose connection must be made anew.
    broken: Vec<usize>,
    from: Instant,
    until: Instant,
    /// Between `from` and `until`.
    is_measured: bool,
    last_news: Instant,
    outcome: Outcome,
}

impl<'a> Generator<'a> {
    fn new(plan: &'a Plan<'a>) -> Result<Self, String> {
        let poll = Poll::new().map_err(|it| format!("epoll: {it}"))?;
        let mut slots = Vec::with_capacity(plan.connections);
        for key in 0..plan.connections {
            slots.push(Slot {
                client: connect(plan, &poll, key)?,
                due: None,
            });
        }
        let now = Instant::now();
        let from = now + plan.warm_up;
        Ok(Self {
            plan,
            poll,
            scratch: Scratch::new(),
            slots,
            idle: VecDeque::new(),
            schedule: None,
            broken: Vec::new(),
            from,
            until: from + plan.measured,
            is_measured: false,
            last_news: now,
            outcome: Outcome::default(),
        })
    }

    fn begin(&mut self) {
        let now = Instant::now();
        match self.plan.pace {
            Pace::Closed => {
                for key in 0..self.slots.len() {
                    self.start(key, now);
                }
            }
            Pace::Offered(rate) => {
                self.idle.extend(0..self.slots.len());
                self.schedule = Some(Schedule::new(now, rate));
            }
        }
    }

    fn has_too_many_errors(&self) -> bool {
        let count: u64 = self.outcome.errors.values().sum();
        !self.plan.endures && count > MAX_ERRORS
    }

    fn start(&mut self, key: usize, due: Instant) {
        let slot = &mut self.slots[key];
        slot.due = Some(due);
        if let Err(error) = slot.client.start(self.plan.request) {
            self.fail(key, error);
        }
    }

    /// Sends what is due, waits until `end` at most, and takes what has come.
    fn turn(&mut self, now: Instant, end: Instant) -> Result<(), String> {
        for key in std::mem::take(&mut self.broken) {
            self.renew(key)?;
        }
        let mut next = end;
        while let (Some(schedule), true) = (&mut self.schedule, !self.idle.is_empty()) {
            if schedule.next > now || schedule.next >= self.until {
                next = next.min(schedule.next);
                break;
            }
            let due = schedule.take();
            if let Some(key) = self.idle.pop_front() {
                self.start(key, due);
            }
        }
        let patience = next.saturating_duration_since(now);
        let patience = patience.min(Duration::from_millis(100));
        let count = self.poll.wait(patience);
        let count = count.map_err(|it| format!("epoll: {it}"))?;
        for at in 0..count {
            let (key, gone) = self.poll.event(at);
            self.take_news(key, gone);
        }
        // With requests at times of their own there may rightly be none.
        let is_busy = self.idle.len() < self.slots.len();
        if count > 0 || !is_busy {
            self.last_news = now;
        } else if now.duration_since(self.last_news) > STALL {
            return Err(format!("nothing came for {} s", STALL.as_secs()));
        }
        Ok(())
    }

    fn take_news(&mut self, key: usize, gone: bool) {
        let slot = &mut self.slots[key];
        let progress = slot
            .client
            .advance(self.plan.request, gone, &mut self.scratch);
        if self.is_measured {
            self.outcome.bytes += slot.client.take_received();
        }
        let progress = match progress {
            Ok(progress) => progress,
            Err(error) => return self.fail(key, error),
        };
        if progress != Progress::Waiting
            && let Some(due) = slot.due.take()
        {
            let now = Instant::now();
            self.count(due, now);
            if !self.plan.request.close {
                self.go_on(key, now);
            }
        }
        if progress == Progress::Ended {
            self.broken.push(key);
        }
    }

    fn count(&mut self, due: Instant, now: Instant) {
        if self.is_measured {
            self.outcome.requests += 1;
            self.outcome.bytes += self.plan.request.bytes.len() as u64;
        }
        let is_counted = match self.plan.pace {
            Pace::Closed => self.is_measured,
            // Each that was due in time, whenever its answer came.
            Pace::Offered(_) => due >= self.from && due < self.until,
        };
        if is_counted {
            let latency = now.duration_since(due).as_nanos();
            self.outcome.latencies.push(latency as u64);
        }
    }

    /// The connection is free for its next request.
    fn go_on(&mut self, key: usize, now: Instant) {
        match self.plan.pace {
            Pace::Closed => self.start(key, now),
            Pace::Offered(_) => self.idle.push_back(key),
        }
    }

    /// A new connection in the place of one that has ended.
    fn renew(&mut self, key: usize) -> Result<(), String> {
        // Connecting is a part of the latency.
        let now = Instant::now();
        self.slots[key].client = connect(self.plan, &self.poll, key)?;
        self.go_on(key, now);
        Ok(())
    }

    fn fail(&mut self, key: usize, error: String) {
        self.slots[key].due = None;
        self.broken.push(key);
        *self.outcome.errors.entry(error).or_default() += 1;
    }

    /// What was due in time counts also when its answer comes late, or not at all.
    fn finish(&mut self, interrupted: &AtomicBool) -> Result<(), String> {
        self.is_measured = false;
        if self.schedule.is_none() {
            return Ok(());
        }
        let end = self.until + GRACE;
        loop {
            let now = Instant::now();
            let is_done = self.idle.len() == self.slots.len()
                && self
                    .schedule
                    .as_ref()
                    .is_none_or(|it| it.next >= self.until);
            if is_done || interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            if now >= end || self.has_too_many_errors() {
                return Err("much of what was due was not answered".to_owned());
            }
            self.turn(now, end)?;
        }
    }
}

fn connect(plan: &Plan<'_>, poll: &Poll, key: usize) -> Result<Client, String> {
    let source = plan.request.of_many.then(|| client_number(key));
    let client = Client::connect(plan.address, source).map_err(|it| format!("connecting: {it}"))?;
    poll.add(&client.stream, key)
        .map_err(|it| format!("epoll: {it}"))?;
    Ok(client)
}

/// The address of one of many clients.
pub(crate) fn client_number(number: usize) -> Ipv4Addr {
    const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
    Ipv4Addr::from_bits(FIRST.to_bits() + number as u32)
}

/// The times at which requests are due.
struct Schedule {
    next: Instant,
    mean_gap: f64,
    random: fastrand::Rng,
}

impl Schedule {
    fn new(start: Instant, rate: f64) -> Self {
        Self {
            next: start,
            mean_gap: 1.0 / rate,
            random: fastrand::Rng::with_seed(1),
        }
    }

    /// The time of the request that is due next.
    fn take(&mut self) -> Instant {
        let due = self.next;
        // Exponential gaps: of a Poisson process. The argument is never 0.
        let gap = -(1.0 - self.random.f64()).ln() * self.mean_gap;
        self.next += Duration::from_secs_f64(gap);
        due
    }
}
