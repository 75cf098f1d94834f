//! How one peer has done of late, and whether it is asked.
//!
//! A [`Health`] is a cell of atomics that all workers share without locks, and that outlives changes of the
//! lists which keep the peer. What is counted for each request is a worker's own; what is shared is written
//! only when a peer fails or comes back. Time is a parameter.
//!
//! ```text
//!            max_fails in a row, or most of the
//!            outcomes of the last ten seconds          its time is over, and
//!   up  ----------------------------------------> out  a request may be risked --> trial
//!    ^                                             ^                                |   |
//!    |  slow_start is over                         +--------------------------------+   |
//!    +---------------------------- starting <-------------------------------------------+
//!                                                    failed: for twice as long      answered
//! ```
//!
//! What a client has caused is never a peer's failure: see [`Failure::blames_peer`]. Which of several peers
//! that are out are asked all the same is said by [`choose`](super::choose), since it depends on the others.

mod latency;
mod outcomes;
mod record;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod word;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) use latency::RecentLatency;
pub(crate) use latency::{Latency, Quantiles};
pub(crate) use outcomes::{Outcomes, WINDOW};
pub(crate) use record::{HealthRecord, RecordedCheck, RecordedState};
pub(crate) use state::{PeerState, Why};
use word::{StateKind, StateWord};

use super::changes::Changes;
use crate::config;
use crate::error::{Checked, Failure};
use crate::metrics::Counter;

/// What a failure weighs that is a peer's for sure, where one that may be the request's weighs 1.
const SURE: u32 = 5;

/// Outcomes within [`WINDOW`] below which their share says nothing.
const ENOUGH: u64 = 20;

/// The longest time for which a peer is out before it is tried again.
pub(crate) const LONGEST_OUT: Duration = Duration::from_secs(5 * 60);

/// Part of its share with which a peer starts, and with which one is asked that would better be out.
pub(crate) const LEAST_SHARE: f64 = 0.1;

/// A trial of which nobody has heard for so long is anybody's again.
const TRIAL_TIME: Duration = Duration::from_secs(60);

/// A peer that nobody could try with a request that may be repeated is tried with any, after so many more
/// times `fail_timeout`,
const ANY_TRIAL_AFTER: u32 = 6;

/// but no later than this.
const LATEST_ANY_TRIAL: Duration = Duration::from_secs(60);

/// The right of one request to show how a peer does that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial(StateWord);

/// A change that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The peer is out from now on, for so long.
    Out(Duration, Why),
    /// It is back.
    Back,
}

/// A check of a peer that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCheck {
    /// When it ended.
    pub at: Instant,
    /// What it has come to.
    pub outcome: Checked,
    /// The status of the response, if one came.
    pub status: Option<u16>,
}

/// What one worker counts of a peer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    /// Attempts that have ended well.
    pub answered: Counter,
    /// Attempts that have failed, and were the peer's fault.
    pub failed: Counter,
    /// Attempts that have failed, as the same request did elsewhere: it may be the request's fault.
    pub unsure: Counter,
    /// Attempts of which nobody can tell how the peer would have done: the client has gone, or the like.
    pub abandoned: Counter,
    /// Requests under way, tunnels too.
    pub in_flight: Counter,
    /// How long the heads of its responses took.
    pub latency: Latency,
}

/// How a peer has done of late.
#[derive(Debug)]
pub(crate) struct Health {
    /// What times are counted from.
    base: Instant,
    changes: Changes,
    state: AtomicU64,
    /// Failures since it has last begun to answer, each by its weight.
    in_a_row: AtomicU32,
    /// Failures of requests that others are being asked for, so that nobody knows yet whose fault it is.
    accused: AtomicU32,
    /// Responses that it has cut short since the last one that was whole: with the head alone a peer does
    /// not answer.
    cuts_in_a_row: AtomicU32,
    /// How often it has gone out without having been well for long in between.
    strikes: AtomicU32,
    /// When it went out, in milliseconds, however often a trial has failed since.
    out_since: AtomicU64,
    /// It has answered since it was last out, or was first seen.
    proven: AtomicBool,
    /// Its last checks have failed, so no request is risked.
    check_failing: AtomicBool,
    workers: Box<[Counts]>,
    /// As it was one [`WINDOW`] ago; written by the control plane.
    past: Past,
    /// Of each failure, how many there were.
    kinds: [AtomicU64; Failure::ALL.len()],
    /// For the control plane.
    recent: Mutex<outcomes::Recent>,
    /// Likewise.
    last_check: Mutex<Option<LastCheck>>,
    /// There was one.
    is_checked: AtomicBool,
    /// What is known of it comes from another process of this gateway.
    is_handed: bool,
}

#[derive(Debug, Default)]
struct Past {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Health {
    /// A peer of which nothing is known, for so many workers; `changes` counts its changes, too. One that
    /// is to be checked first is [`PeerState::Unchecked`].
    pub(crate) fn new(workers: usize, changes: Changes, check_first: bool, now: Instant) -> Self {
        let first = match check_first {
            true => StateKind::Unchecked,
            false => StateKind::Up,
        };
        Self {
            base: now,
            changes,
            state: AtomicU64::new(StateWord::new(first, 0).bits()),
            in_a_row: AtomicU32::new(0),
            accused: AtomicU32::new(0),
            cuts_in_a_row: AtomicU32::new(0),
            strikes: AtomicU32::new(0),
            out_since: AtomicU64::new(0),
            proven: AtomicBool::new(false),
            check_failing: AtomicBool::new(false),
            workers: (0..workers).map(|_| Counts::default()).collect(),
            past: Past::default(),
            kinds: [const { AtomicU64::new(0) }; Failure::ALL.len()],
            recent: Mutex::default(),
            last_check: Mutex::default(),
            is_checked: AtomicBool::new(false),
            is_handed: false,
        }
    }

    /// What `worker` counts.
    pub(crate) fn counts(&self, worker: usize) -> &Counts {
        &self.workers[worker]
    }

    /// Requests under way, of all workers.
    pub(crate) fn in_flight(&self) -> u64 {
        let counts = self.workers.iter().map(|it| it.in_flight.get());
        counts.fold(0, u64::wrapping_add)
    }

    /// Attempts of all workers that have failed, and may have failed because of what was asked.
    pub(crate) fn unsure(&self) -> u64 {
        let counts = self.workers.iter().map(|it| it.unsure.get());
        counts.fold(0, u64::wrapping_add)
    }

    /// Attempts of all workers that say nothing of it.
    pub(crate) fn abandoned(&self) -> u64 {
        let counts = self.workers.iter().map(|it| it.abandoned.get());
        counts.fold(0, u64::wrapping_add)
    }

    /// True when it has answered since it was last out, or was first seen. Of one that has not, nobody can
    /// tell whether it will.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Failures since it has last begun to answer, those included of which nobody knows yet whose they are.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.in_a_row.load(Ordering::Relaxed).div_ceil(SURE) + self.accused.load(Ordering::Relaxed)
    }

    /// It will be out if that is its fault of which it is accused.
    pub(crate) fn is_suspect(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.accused.load(Ordering::Relaxed) >= max_fails
    }

    /// A request has failed here, and others are asked for it; [`Self::note_judged`] takes it back.
    pub(crate) fn note_accused(&self) {
        self.accused.fetch_add(1, Ordering::Relaxed);
    }

    /// The exchange is over that has accused it.
    pub(crate) fn note_judged(&self) {
        self.accused.fetch_sub(1, Ordering::Relaxed);
    }

    /// How it stands at `now`.
    pub(crate) fn state(&self, now: Instant, rules: &config::UpstreamSettings) -> PeerState {
        let word = self.word();
        let at = self.base + Duration::from_millis(word.millis());
        match word.kind() {
            StateKind::Unchecked => PeerState::Unchecked,
            StateKind::Out => PeerState::Out {
                until: at,
                why: word.why(),
            },
            StateKind::Trial => PeerState::Trial { since: at },
            StateKind::Starting if now.saturating_duration_since(at) < rules.slow_start => {
                PeerState::Starting { since: at }
            }
            _ => PeerState::Up,
        }
    }

    /// Whether it is asked as a matter of course: see [`PeerState::is_up`].
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.word().kind(), StateKind::Up | StateKind::Starting)
    }

    /// True when it has been asked as a matter of course for `time`: what it does first, with cold caches,
    /// says little of how fast it is.
    pub(crate) fn is_warm(&self, time: Duration, now: Instant) -> bool {
        let word = self.word();
        let since = self.base + Duration::from_millis(word.millis());
        let is_up = matches!(word.kind(), StateKind::Up | StateKind::Starting);
        is_up && now.saturating_duration_since(since) >= time
    }

    /// For how long it has been out, or was when it came back just now.
    pub(crate) fn out_for(&self, now: Instant) -> Duration {
        let since = self.out_since.load(Ordering::Relaxed);
        Duration::from_millis(self.millis(now).saturating_sub(since))
    }

    /// True when it is out, its trial included.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.word().kind(), StateKind::Out | StateKind::Trial)
    }

    /// How many times in a row it went out.
    pub(crate) fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Relaxed)
    }

    /// How often it has failed in this way.
    pub(crate) fn failures(&self, failure: Failure) -> u64 {
        self.kinds[failure.index()].load(Ordering::Relaxed)
    }

    /// An attempt of `worker` has ended well.
    pub(crate) fn succeeded(&self, worker: usize) {
        self.workers[worker].answered.increment();
        if self.cuts_in_a_row.load(Ordering::Relaxed) != 0 {
            self.cuts_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// It has begun to answer, whatever comes after that.
    pub(crate) fn is_answering(&self, now: Instant) -> Option<Change> {
        // Written only where it changes something: what all workers read stays in all their caches.
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        let word = self.word();
        let is_back = match word.kind() {
            // What comes from others that were sent before speaks for it as well.
            StateKind::Trial => true,
            // One that would better be out is asked all the same where too few others are left.
            StateKind::Out => self.is_over(word, now),
            _ => false,
        };
        if is_back {
            self.proven.store(true, Ordering::Relaxed);
            let back = StateWord::new(StateKind::Starting, self.millis(now));
            return self.replace(word, back).then_some(Change::Back);
        }
        if word.kind() != StateKind::Out && !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
        None
    }

    /// The time is over for which it was to be out.
    fn is_over(&self, word: StateWord, now: Instant) -> bool {
        let until = self.base + Duration::from_millis(word.millis());
        !self.fails_checks() && now >= until
    }

    /// An attempt of `worker` has failed at `now`, through the fault of the peer. `jitter` is a number from
    /// 0 to 1 by chance.
    pub(crate) fn failed(
        &self,
        worker: usize,
        why: Why,
        now: Instant,
        rules: &config::UpstreamSettings,
        jitter: f64,
    ) -> Option<Change> {
        self.workers[worker].failed.increment();
        if let Why::Failed(failure) = why {
            self.kinds[failure.index()].fetch_add(1, Ordering::Relaxed);
        }
        let (count, weight) = match why {
            // It may be what was asked for, and nobody else can be asked.
            Why::Failed(Failure::ResponseCut | Failure::BadResponseChunk) => {
                (&self.cuts_in_a_row, 1)
            }
            _ => (&self.in_a_row, SURE),
        };
        let is_too_much = add(count, weight) >= rules.max_fails.saturating_mul(SURE);
        let word = self.word();
        let goes = match word.kind() {
            // Whatever was sent before it went out says nothing new. One that is asked all the same, and has
            // not come back when its time was over, is as bad as one whose trial has failed.
            StateKind::Out => self.is_over(word, now),
            StateKind::Trial => true,
            _ if rules.max_fails == 0 => false,
            _ => is_too_much || self.most_have_failed(),
        };
        match goes {
            true => self.put_out(word, why, now, rules, jitter),
            false => None,
        }
    }

    /// As [`Self::failed`] for a request that has failed elsewhere as well, or could not be tried there: that
    /// says as much of the request as of the peer. Only a long row of these puts it out.
    pub(crate) fn may_have_failed(
        &self,
        worker: usize,
        failure: Failure,
        now: Instant,
        rules: &config::UpstreamSettings,
        jitter: f64,
    ) -> Option<Change> {
        self.workers[worker].unsure.increment();
        self.kinds[failure.index()].fetch_add(1, Ordering::Relaxed);
        let is_too_much = add(&self.in_a_row, 1) >= rules.max_fails.saturating_mul(SURE);
        let word = self.word();
        let goes = rules.max_fails != 0
            && is_too_much
            && !matches!(word.kind(), StateKind::Out | StateKind::Trial);
        match goes {
            true => self.put_out(word, Why::Failed(failure), now, rules, jitter),
            false => None,
        }
    }

    /// More than half of enough outcomes of late.
    fn most_have_failed(&self) -> bool {
        let outcomes = self.outcomes();
        let failed = outcomes
            .failed
            .wrapping_sub(self.past.failed.load(Ordering::Relaxed));
        let before = self.past.answered.load(Ordering::Relaxed);
        let answered = outcomes.answered.wrapping_sub(before);
        let all = failed.saturating_add(answered);
        all >= ENOUGH && failed > all / 2
    }

    /// All outcomes since it was first seen.
    pub(crate) fn outcomes(&self) -> Outcomes {
        let sum = |count: fn(&Counts) -> &Counter| {
            let counts = self.workers.iter().map(|it| count(it).get());
            counts.fold(0, u64::wrapping_add)
        };
        Outcomes {
            answered: sum(|it| &it.answered),
            failed: sum(|it| &it.failed),
        }
    }

    fn put_out(
        &self,
        word: StateWord,
        why: Why,
        now: Instant,
        rules: &config::UpstreamSettings,
        jitter: f64,
    ) -> Option<Change> {
        let strikes = match self.has_been_well(word, now, rules) {
            true => 0,
            false => self.strikes(),
        };
        let pause = pause(rules.fail_timeout, strikes, jitter);
        let until = StateWord::out(why, self.millis(now + pause));
        if !self.replace(word, until) {
            return None;
        }
        self.note_out(word, now);
        self.strikes
            .store(strikes.saturating_add(1), Ordering::Relaxed);
        self.proven.store(false, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        self.cuts_in_a_row.store(0, Ordering::Relaxed);
        Some(Change::Out(pause, why))
    }

    /// It was up for as long as it would be out next, so that what was before is forgotten.
    fn has_been_well(
        &self,
        word: StateWord,
        now: Instant,
        rules: &config::UpstreamSettings,
    ) -> bool {
        let next = pause(rules.fail_timeout, self.strikes(), 0.0);
        let since = self.base + Duration::from_millis(word.millis());
        matches!(word.kind(), StateKind::Up | StateKind::Starting)
            && now.saturating_duration_since(since) > next.max(rules.slow_start)
    }

    /// Makes the calling request the trial of a peer that is out, if its time is over, and the request
    /// `may_be_risked`, since another peer can have it if this one fails.
    pub(crate) fn begin_trial(
        &self,
        now: Instant,
        may_be_risked: bool,
        rules: &config::UpstreamSettings,
    ) -> Option<Trial> {
        let word = self.word();
        let due = self.trial_due(word, may_be_risked, rules)?;
        let trial = word.with(StateKind::Trial, self.millis(now));
        (now >= due && self.replace(word, trial)).then_some(Trial(trial))
    }

    /// When a request may be its trial, if it is out.
    pub(crate) fn tried_at(
        &self,
        may_be_risked: bool,
        rules: &config::UpstreamSettings,
    ) -> Option<Instant> {
        self.trial_due(self.word(), may_be_risked, rules)
    }

    fn trial_due(
        &self,
        word: StateWord,
        may_be_risked: bool,
        rules: &config::UpstreamSettings,
    ) -> Option<Instant> {
        let at = self.base + Duration::from_millis(word.millis());
        let due = match word.kind() {
            StateKind::Out if self.fails_checks() => return None,
            StateKind::Out => at,
            StateKind::Trial => at + TRIAL_TIME,
            _ => return None,
        };
        let later = rules.fail_timeout.saturating_mul(ANY_TRIAL_AFTER);
        Some(match may_be_risked {
            true => due,
            false => due + later.min(LATEST_ANY_TRIAL),
        })
    }

    /// A trial has come to nothing: the client has gone, or the like. The next request may be one.
    pub(crate) fn trial_is_void(&self, trial: Trial, now: Instant) {
        let Trial(word) = trial;
        // Otherwise it has had its outcome, and there may be another one by now.
        if self.word() == word {
            self.replace(word, word.with(StateKind::Out, self.millis(now)));
        }
    }

    /// It may be tried at once, though it was to be out for longer.
    pub(crate) fn need_not_be_out(&self, now: Instant) {
        let (word, now) = (self.word(), self.millis(now));
        if word.kind() == StateKind::Out && !word.is_out_by_check() && word.millis() > now {
            // Otherwise somebody has just changed it, who knows more.
            self.replace(word, word.with(StateKind::Out, now));
        }
    }

    /// Between the last two looks it has answered whatever it was asked. For the control plane.
    pub(crate) fn has_answered_of_late(&self) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let Outcomes { answered, failed } = recent.latest();
        answered > 0 && failed == 0
    }

    /// So many of its checks have failed that it counts as down. One that nobody asks yet stays so.
    pub(crate) fn check_has_failed(&self, now: Instant) -> Option<Change> {
        self.note_check(true);
        let out = StateWord::out(Why::Check, self.millis(now));
        let before = self.replace_if(
            |it| !matches!(it.kind(), StateKind::Out | StateKind::Unchecked),
            out,
        )?;
        self.note_out(before, now);
        self.proven.store(false, Ordering::Relaxed);
        Some(Change::Out(Duration::ZERO, Why::Check))
    }

    /// It has gone out from what it was before.
    fn note_out(&self, before: StateWord, now: Instant) {
        if !matches!(before.kind(), StateKind::Out | StateKind::Trial) {
            self.out_since.store(self.millis(now), Ordering::Relaxed);
        }
    }

    /// So many of its checks have succeeded that it counts as up. What requests have found out stands.
    pub(crate) fn check_has_succeeded(&self, now: Instant) -> Option<Change> {
        self.note_check(false);
        let back = StateWord::new(StateKind::Starting, self.millis(now));
        let waits = |it: StateWord| it.is_out_by_check() || it.kind() == StateKind::Unchecked;
        self.replace_if(waits, back).map(|_| Change::Back)
    }

    /// Nobody checks it (any more): what checks have found out counts for nothing.
    pub(crate) fn is_not_checked(&self, now: Instant) -> Option<Change> {
        self.note_check(false);
        self.needs_no_first_check();
        let back = StateWord::new(StateKind::Starting, self.millis(now));
        let before = self.replace_if(StateWord::is_out_by_check, back);
        before.map(|_| Change::Back)
    }

    /// It may be asked before it has been checked.
    pub(crate) fn needs_no_first_check(&self) {
        self.replace_if(
            |it| it.kind() == StateKind::Unchecked,
            StateWord::new(StateKind::Up, 0),
        );
    }

    /// True when so many of its last checks have failed that it counts as down.
    pub(crate) fn fails_checks(&self) -> bool {
        self.check_failing.load(Ordering::Relaxed)
    }

    /// True when nothing is asked of it before its first check has succeeded.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.word().kind() == StateKind::Unchecked
    }

    fn note_check(&self, is_failing: bool) {
        if self.check_failing.swap(is_failing, Ordering::Relaxed) != is_failing {
            // It decides when the next trial may be.
            self.changes.increment();
        }
    }

    /// The check that ended last, if one has. For the control plane.
    pub(crate) fn last_check(&self) -> Option<LastCheck> {
        *self.last_check_lock()
    }

    /// A check has ended, and what follows from it holds already. For the control plane.
    pub(crate) fn note_last_check(&self, check: LastCheck) {
        *self.last_check_lock() = Some(check);
        self.is_checked.store(true, Ordering::Release);
    }

    /// True when its first check is about to say whether it may be asked.
    pub(crate) fn awaits_first_check(&self) -> bool {
        !self.is_checked.load(Ordering::Acquire) && self.is_unchecked()
    }

    fn last_check_lock(&self) -> MutexGuard<'_, Option<LastCheck>> {
        self.last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What of its share it has at `now`, of 1.
    pub(crate) fn share(&self, now: Instant, rules: &config::UpstreamSettings) -> f64 {
        match self.state(now, rules) {
            PeerState::Starting { since } => {
                let passed = now.saturating_duration_since(since).as_secs_f64();
                let ramp = passed / rules.slow_start.as_secs_f64();
                ramp.clamp(LEAST_SHARE, 1.0)
            }
            _ => 1.0,
        }
    }

    /// To be called once a second, by one thread: what is older than the window counts no more.
    pub(crate) fn look(&self, now: Instant) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let past = recent.note(self.outcomes(), now);
        self.past.answered.store(past.answered, Ordering::Relaxed);
        self.past.failed.store(past.failed, Ordering::Relaxed);
        recent
            .latency
            .note(self.workers.iter().map(|it| &it.latency), now);
    }

    /// Of the last minute; `None` when nothing was answered.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent
            .latency
            .quantiles(self.workers.iter().map(|it| &it.latency))
    }

    fn word(&self) -> StateWord {
        StateWord::of_bits(self.state.load(Ordering::Relaxed))
    }

    /// False when it was changed by somebody else.
    fn replace(&self, from: StateWord, to: StateWord) -> bool {
        let state = &self.state;
        let outcome =
            state.compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Relaxed);
        if outcome.is_ok() {
            self.changes.increment();
        }
        outcome.is_ok()
    }

    /// Replaces the state if it is `such`, whatever workers make of it meanwhile; returns what it was.
    fn replace_if(&self, such: impl Fn(StateWord) -> bool, to: StateWord) -> Option<StateWord> {
        loop {
            let word = Some(self.word()).filter(|it| such(*it))?;
            if self.replace(word, to) {
                return Some(word);
            }
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.base).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

/// Adds `weight` to a count that does not overflow; returns the sum.
fn add(count: &AtomicU32, weight: u32) -> u32 {
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    let more = |it: u32| Some(it.saturating_add(weight));
    let before = count.fetch_update(set, fetch, more).unwrap_or_default();
    before.saturating_add(weight)
}

/// For how long a peer is out that has gone out so often before: twice as long each time, and by chance
/// up to a tenth longer, so that many gateways do not try it at once.
fn pause(first: Duration, strikes: u32, jitter: f64) -> Duration {
    let factor = 2_u32.saturating_pow(strikes.min(20));
    let doubled = first.saturating_mul(factor).min(LONGEST_OUT.max(first));
    doubled.mul_f64(1.0 + jitter / 10.0)
}
