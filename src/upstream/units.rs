//! What workers count of a service while a release is under way: of each pool its *units*, and how many of
//! them were bad, or slow.
//!
//! A unit is one client's first request within a second. It is chosen when it arrives, never by how it ends,
//! and counted when it has ended. What is counted only ever grows: whoever judges takes the differences from
//! time to time, and what has come between two looks is a block.
//!
//! - Clients are what is assigned to a pool, so clients are what may be counted: a client counts until its
//!   first bad unit, in whichever pool, and then neither its good nor its bad ones, until all
//!   [begins anew](Units::begin). Where `pre` has few clients, up to `OF_FEW` of each
//!   count. The same holds for slow units, on their own account. Which clients have had theirs is marked
//!   for all workers in one table, by a hash: two clients of one mark count as one, which loses units.
//! - A worker takes no lock, allocates nothing and calls nobody. It reads what the others read, too, and
//!   writes what is its own, except where a client has its first bad or slow unit, or is new to `pre`.
//! - The control plane makes and frees all of it: it is there while `pre` has a peer and the settings have
//!   the release watched, see `Accounts`.
//!
//! What a bad unit is, is said where attempts are accounted for; what evidence there is in all this, by who
//! takes the blocks.

mod clients;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh64::xxh64;

pub(crate) use self::clients::PreClients;
use self::clients::{BadClients, RecentClients};
use super::health::{Latency, RecentLatency};
use crate::lists::PoolName;
use crate::memory::zeroed;

/// So many marks there are.
const MARKS: usize = 1 << 20;

/// A mark has four bits for bad units, and four for slow ones.
const BAD: u32 = 0;
const SLOW: u32 = 4;

/// So many bad units of a client count, where there are many.
const OF_MANY: u8 = 1;

/// Where `pre` has few clients.
const OF_FEW: u8 = 10;

/// What the quantile of the times of `prod` is of.
const TIMES: Duration = Duration::from_secs(5 * 60);

/// A peer's first time, in which it is slow because its caches are cold.
pub(crate) const WARMING_UP: Duration = Duration::from_secs(30);

/// No time is above it.
const NO_BOUND: u64 = u64::MAX;

/// A request that is a unit, on its way.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    client: u64,
    /// When it has come: what has begun anew meanwhile does not count it.
    round: u32,
    /// By whom it is to be served.
    pool: PoolName,
    /// An attempt has been made there.
    is_attempted: bool,
    is_bad: bool,
    /// Until the head of the response had come, in microseconds; `None` where that says nothing.
    took: Option<u64>,
}

impl Unit {
    /// An attempt in `pool` has ended, and the peer `has_failed` or not.
    pub fn attempt_has_ended(&mut self, pool: PoolName, has_failed: bool) {
        if pool == self.pool {
            self.is_attempted = true;
            self.is_bad |= has_failed;
        }
    }

    /// The head of the response has come from `pool`, and its status is a failure or not. What it `took` says
    /// something of the version, or it is not told.
    pub fn is_answered(&mut self, pool: PoolName, is_failure: bool, took: Option<Duration>) {
        if pool == self.pool {
            self.is_attempted = true;
            self.is_bad |= is_failure;
            self.took = took.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// Units, and how many of them were bad, or slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitCount {
    pub(crate) units: u32,
    pub(crate) bad: u32,
}

impl UnitCount {
    fn since(self, before: Self) -> Self {
        Self {
            units: self.units.wrapping_sub(before.units),
            bad: self.bad.wrapping_sub(before.bad),
        }
    }

    fn add(&mut self, other: Self) {
        self.units = self.units.wrapping_add(other.units);
        self.bad = self.bad.wrapping_add(other.bad);
    }
}

/// What was counted of both pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitCounts {
    /// By pool.
    pub(crate) units: [UnitCount; PoolName::ALL.len()],
    /// Those of which is known how long they took, by pool; `bad` are the slow ones.
    pub(crate) slow: [UnitCount; PoolName::ALL.len()],
    /// Those of clients that count no more, by pool: no evidence, but they tell how things are.
    pub(crate) left_out: [UnitCount; PoolName::ALL.len()],
}

impl UnitCounts {
    fn since(&self, before: &Self) -> Self {
        let since = |now: [UnitCount; PoolName::ALL.len()], before: [_; PoolName::ALL.len()]| {
            PoolName::ALL.map(|it| now[it as usize].since(before[it as usize]))
        };
        Self {
            units: since(self.units, before.units),
            slow: since(self.slow, before.slow),
            left_out: since(self.left_out, before.left_out),
        }
    }
}

/// What somebody has seen who looks from time to time.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenUnits {
    /// None is 0.
    round: u32,
    counts: UnitCounts,
}

/// Both numbers of a [`UnitCount`] in one word, so that nobody sees one without the other. Only one thread
/// changes it.
#[derive(Debug, Default)]
struct CountCell(AtomicU64);

impl CountCell {
    fn get(&self) -> UnitCount {
        let both = self.0.load(Ordering::Relaxed);
        UnitCount {
            units: both as u32,
            bad: (both >> 32) as u32,
        }
    }

    fn add_one(&self, is_bad: bool) {
        let mut count = self.get();
        count.add(UnitCount {
            units: 1,
            bad: u32::from(is_bad),
        });
        let both = u64::from(count.units) | u64::from(count.bad) << 32;
        self.0.store(both, Ordering::Relaxed);
    }
}

/// One worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct UnitCells {
    units: [CountCell; PoolName::ALL.len()],
    slow: [CountCell; PoolName::ALL.len()],
    left_out: [CountCell; PoolName::ALL.len()],
    /// How long `prod` takes.
    times: Latency,
}

/// What is counted of a service while a release is under way.
#[derive(Debug)]
pub struct Units {
    /// Another one whenever all begins anew; odd until it has begun.
    round: AtomicU32,
    /// Of the hashes of clients.
    seed: AtomicU64,
    /// So many bad units of a client count.
    most: AtomicU8,
    /// In microseconds.
    slow_bound: AtomicU64,
    /// By the hashes of clients.
    marks: Box<[AtomicU8]>,
    /// There is one.
    is_marked: AtomicBool,
    workers: Box<[UnitCells]>,
    pre_clients: RecentClients,
    bad_clients: BadClients,
    control: Mutex<UnitControl>,
}

/// For the control plane.
#[derive(Debug)]
struct UnitControl {
    times: RecentLatency,
}

impl Units {
    /// For so many workers. Nothing is counted before it [begins](Self::begin), with another round than this
    /// one.
    pub fn new(workers: usize, round: u32) -> Self {
        Self {
            round: AtomicU32::new(round | 1),
            seed: AtomicU64::new(0),
            most: AtomicU8::new(OF_FEW),
            slow_bound: AtomicU64::new(NO_BOUND),
            marks: zeroed::bytes(MARKS),
            is_marked: AtomicBool::new(false),
            workers: (0..workers).map(|_| UnitCells::default()).collect(),
            pre_clients: RecentClients::new(),
            bad_clients: BadClients::default(),
            control: Mutex::new(UnitControl {
                times: RecentLatency::over(TIMES),
            }),
        }
    }

    /// A request of the client with this `key`, that is for `pool`; `None` while all begins anew.
    #[inline]
    pub fn unit(&self, key: &[u8], pool: PoolName) -> Option<Unit> {
        // In this order: with a new round comes its seed.
        let round = self.round.load(Ordering::Acquire);
        (round & 1 == 0).then(|| Unit {
            client: xxh64(key, self.seed.load(Ordering::Relaxed)),
            round,
            pool,
            is_attempted: false,
            is_bad: false,
            took: None,
        })
    }

    /// Counts a unit of `worker` that has ended. One that nobody of its pool was asked for is none.
    pub fn count(&self, worker: usize, unit: &Unit) {
        if !unit.is_attempted || self.round.load(Ordering::Acquire) != unit.round {
            return;
        }
        let (cells, at) = (&self.workers[worker], unit.pool as usize);
        if unit.pool == PoolName::Pre {
            self.pre_clients.note(unit.client);
        }
        let cell = match self.still_counts(unit, BAD, unit.is_bad) {
            true => &cells.units[at],
            false => &cells.left_out[at],
        };
        cell.add_one(unit.is_bad);
        let Some(took) = unit.took else {
            return;
        };
        if unit.pool == PoolName::Prod {
            cells.times.note(Duration::from_micros(took));
        }
        let bound = self.slow_bound.load(Ordering::Relaxed);
        let is_slow = took > bound;
        if bound != NO_BOUND && self.still_counts(unit, SLOW, is_slow) {
            cells.slow[at].add_one(is_slow);
        }
    }

    /// Whether a client counts that has now a bad unit more, or a good one: by the four bits of its mark at
    /// `shift`.
    #[inline]
    fn still_counts(&self, unit: &Unit, shift: u32, is_bad: bool) -> bool {
        let mark = &self.marks[place_of(unit.client)];
        match is_bad {
            false => {
                let had = mark.load(Ordering::Relaxed) >> shift & 0xf;
                had < self.most.load(Ordering::Relaxed)
            }
            true => self.mark(unit, mark, shift),
        }
    }

    #[cold]
    fn mark(&self, unit: &Unit, mark: &AtomicU8, shift: u32) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let had = |mark: u8| mark >> shift & 0xf;
        let more = |mark: u8| (had(mark) < most).then(|| mark + (1 << shift));
        if !self.is_marked.load(Ordering::Relaxed) {
            self.is_marked.store(true, Ordering::Relaxed);
        }
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let Ok(before) = mark.fetch_update(set, fetch, more) else {
            return false;
        };
        if shift == BAD && had(before) == 0 && unit.pool == PoolName::Pre {
            self.bad_clients.add(unit.client);
        }
        true
    }
}

/// The control plane's side.
impl Units {
    /// All begins anew: every client counts again, and what is under way does not count. `seed` is that of
    /// the hashes of clients, and the same on all gateways with the same release.
    pub fn begin(&self, seed: u64) {
        let control = self.control();
        self.begin_anew(seed, &control);
    }

    /// The same if the seed is another one, or nothing has begun yet.
    pub(super) fn is_release(&self, seed: u64) {
        let control = self.control();
        let has_begun = self.round.load(Ordering::Relaxed) & 1 == 0;
        if !has_begun || self.seed.load(Ordering::Relaxed) != seed {
            self.begin_anew(seed, &control);
        }
    }

    fn begin_anew(&self, seed: u64, _control: &UnitControl) {
        let before = self.round.load(Ordering::Relaxed);
        // From here on nothing is counted, and nothing marked.
        let between = before | 1;
        self.round.store(between, Ordering::SeqCst);
        if self.is_marked.swap(false, Ordering::Relaxed) {
            // Read first: what nobody has written to is not there, and must not come to be.
            let marked = self.marks.iter();
            let marked = marked.filter(|it| it.load(Ordering::Relaxed) != 0);
            marked.for_each(|it| it.store(0, Ordering::Relaxed));
        }
        self.bad_clients.clear();
        if self.seed.swap(seed, Ordering::Relaxed) != seed {
            self.pre_clients.clear();
            self.most.store(OF_FEW, Ordering::Relaxed);
        }
        // None is 0, as what nobody has seen yet.
        let round = between.checked_add(1).unwrap_or(2);
        self.round.store(round, Ordering::Release);
    }

    /// What was counted since the last call with this `seen`; nothing where all has begun anew since then.
    pub(crate) fn take(&self, seen: &mut SeenUnits) -> UnitCounts {
        let round = self.round.load(Ordering::Acquire);
        let counts = self.counts();
        let before = std::mem::replace(seen, SeenUnits { round, counts });
        match before.round == round {
            true => counts.since(&before.counts),
            false => UnitCounts::default(),
        }
    }

    /// All that was counted so far, whatever has begun anew; modulo 2^32.
    pub(crate) fn counts(&self) -> UnitCounts {
        let mut all = UnitCounts::default();
        for worker in &self.workers {
            for pool in PoolName::ALL.map(|it| it as usize) {
                all.units[pool].add(worker.units[pool].get());
                all.slow[pool].add(worker.slow[pool].get());
                all.left_out[pool].add(worker.left_out[pool].get());
            }
        }
        all
    }

    /// From now on units that take longer than this are slow; there are none without it.
    pub fn set_slow_bound(&self, bound: Option<Duration>) {
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(NO_BOUND - 1);
        let bound = bound.map_or(NO_BOUND, micros);
        self.slow_bound.store(bound, Ordering::Relaxed);
    }

    /// All but one in twenty units of `prod` took no longer, in the last five minutes; `None` if there were
    /// none.
    pub(crate) fn prod_p95(&self) -> Option<Duration> {
        let times = self.workers.iter().map(|it| &it.times);
        let quantiles = self.control().times.quantiles(times)?;
        Some(quantiles.p95)
    }

    /// The hashes of the first 64 clients behind bad units of `pre`.
    pub(crate) fn bad_clients(&self) -> Vec<u64> {
        self.bad_clients.all()
    }

    /// How many clients `pre` had in the last hour.
    pub(crate) fn pre_clients(&self) -> PreClients {
        self.pre_clients.count()
    }

    /// To be called once a second, by one thread.
    pub(super) fn look(&self, now: Instant) {
        let mut control = self.control();
        let times = self.workers.iter().map(|it| &it.times);
        control.times.note(times, now);
        self.pre_clients.look(now);
        let most = match self.pre_clients.count() {
            PreClients::Few(_) => OF_FEW,
            PreClients::Many => OF_MANY,
        };
        if self.most.load(Ordering::Relaxed) != most {
            self.most.store(most, Ordering::Relaxed);
        }
    }

    fn control(&self) -> MutexGuard<'_, UnitControl> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(client: u64) -> usize {
    (client >> (u64::BITS - MARKS.ilog2())) as usize
}

/// The units of a service, where a release is under way. For the control plane.
#[derive(Debug, Default)]
pub(super) struct UnitsOfService(Mutex<KeptUnits>);

#[derive(Debug, Default)]
struct KeptUnits {
    current: Option<Arc<Units>>,
    /// That of the last ones: whoever has seen these sees that the next ones are others.
    round: u32,
    /// Workers may still have them, and must not be those who free them.
    past: Vec<Arc<Units>>,
}

impl UnitsOfService {
    /// Those that are to be counted into from now on, by so many workers: none unless a release
    /// `is_under_way`, and the same for as long as one is.
    pub(super) fn while_release(&self, is_under_way: bool, workers: usize) -> Option<Arc<Units>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_under_way && kept.current.is_none() {
            kept.current = Some(Arc::new(Units::new(workers, kept.round)));
        } else if !is_under_way && let Some(ended) = kept.current.take() {
            kept.round = ended.round.load(Ordering::Relaxed);
            kept.past.push(ended);
        }
        kept.current.clone()
    }

    /// Frees what nobody has any more.
    pub(super) fn tidy(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.past.retain(|it| Arc::strong_count(it) > 1);
    }
}
