//! Who is checked, in which way, when next, and what follows from the outcome. Time and chance are
//! parameters.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::ask::CheckClient;
use super::crew::MOST;
use super::job::{CheckTarget, Job};
use crate::config::{Checks, ServiceSettings};
use crate::error::Checked;
use crate::lists::{PoolName, ServiceName};
use crate::upstream::health::{Change, Health, LastCheck};
use crate::upstream::serving::Serving;

/// Checks at once of peers whose last one has timed out: the others are not to wait for these.
const SLOW_MOST: usize = MOST / 4 * 3;

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckNews {
    /// The peer is out.
    Out,
    /// It is back.
    Back,
    /// It would be out, and waits for its first success as it is.
    Unchecked,
}

/// What has followed from a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Consequence {
    /// For which service and pool it was made; the first of several.
    pub(super) service: ServiceName,
    pub(super) pool: PoolName,
    pub(super) news: Option<CheckNews>,
}

/// The checks of all peers.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// How each service checks that does, by its own number.
    services: FxHashMap<u64, ServiceChecks>,
    /// Each way in which one checks, once.
    askers: Vec<Arc<CheckClient>>,
    targets: FxHashMap<CheckTarget, ScheduledCheck>,
    due: BTreeSet<(Instant, CheckTarget)>,
    /// What is due, by the time since when: those that were quick of late, and those that were not.
    ready: [VecDeque<(Instant, CheckTarget)>; 2],
    slow_running: usize,
    /// Counts the updates.
    update: u64,
}

/// How a service checks.
#[derive(Debug)]
struct ServiceChecks {
    settings: Arc<ServiceSettings>,
    /// How each pool checks, with the first one that does so.
    ways: [Option<(PoolName, Arc<CheckClient>)>; PoolName::ALL.len()],
}

/// One target.
#[derive(Debug)]
struct ScheduledCheck {
    asker: Arc<CheckClient>,
    health: Arc<Health>,
    /// The service whose checks these are.
    service: ServiceName,
    /// Its first pool that has it and checks in this way.
    pool: PoolName,
    phase: Phase,
    /// Its last check has timed out.
    is_slow: bool,
    /// No check has ended yet.
    is_new: bool,
    record: CheckRecord,
    /// The check under way began before the peer or the settings became what they are.
    is_stale: bool,
    /// It was told that it waits for its first success.
    is_told: bool,
    /// The last update that has seen it.
    seen: u64,
    /// It is in no pool any more, and only waits for the end of its check.
    is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Due(Instant),
    Ready,
    /// Another check of the same peer is under way.
    Waiting,
    Running {
        since: Instant,
        is_slow: bool,
    },
}

/// What the checks of a target have shown.
#[derive(Debug, Default)]
struct CheckRecord {
    /// Nothing yet, when none has succeeded and too few have failed.
    is_well: Option<bool>,
    /// Outcomes that speak against that, since the last one that does not.
    against: u32,
}

impl CheckRecord {
    /// Takes down an outcome. `at_once`: one success suffices.
    fn note(&mut self, succeeded: bool, checks: &Checks, at_once: bool) {
        if self.is_well == Some(succeeded) {
            self.against = 0;
            return;
        }
        self.against += 1;
        let enough = match (succeeded, self.is_well) {
            (true, None) => 1,
            (true, _) if at_once => 1,
            (true, _) => checks.rise,
            (false, _) => checks.fall,
        };
        if self.against >= enough {
            (self.is_well, self.against) = (Some(succeeded), 0);
        }
    }
}

impl Schedule {
    /// Takes note of the peers in force and of how they are checked. A peer that is new is due at once.
    /// Returns those that were out by their checks and are not checked any more. `chance` gives a number
    /// from 0 to 1.
    pub(super) fn update(
        &mut self,
        serving: &Serving,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) -> Vec<(ServiceName, PoolName, SocketAddr)> {
        self.find_ways(serving);
        self.update += 1;
        // Whose checks count for a peer, where several services have it: the first one's that has any.
        let mut owners: FxHashMap<SocketAddr, u64> = FxHashMap::default();
        for pools in serving.services().iter().map(|it| it.pools()) {
            let id = pools.service_id();
            for pool in PoolName::ALL {
                let checks = self.services.get(&id);
                let way = checks.and_then(|it| it.ways[pool as usize].clone());
                let Some((way, asker)) = way else { continue };
                for peer in pools[pool].peers() {
                    if *owners.entry(peer.address).or_insert(id) != id {
                        continue;
                    }
                    let target = CheckTarget {
                        peer: peer.address,
                        way,
                    };
                    let user = (pools.service(), pool);
                    self.take_up(target, user, &asker, &peer.health, now, &mut chance);
                }
            }
        }
        self.forget_others();
        let mut back = Vec::new();
        for pools in serving.services().iter().map(|it| it.pools()) {
            for pool in PoolName::ALL {
                for peer in pools[pool].peers() {
                    let Some(owner) = owners.get(&peer.address) else {
                        let change = peer.health.is_not_checked(now);
                        let told = (pools.service().clone(), pool, peer.address);
                        back.extend(change.map(|_| told));
                        continue;
                    };
                    let has_it = |it: PoolName| pools[it].place_of(peer.address).is_some();
                    let mut own = PoolName::ALL.into_iter().filter(|it| has_it(*it));
                    let is_before_use = |it| pools.settings().health.is_before_use(it);
                    if *owner == pools.service_id() && !own.any(is_before_use) {
                        peer.health.needs_no_first_check();
                    }
                }
            }
        }
        back
    }

    /// Pools with the same settings check in the same way, whatever their services, and what has not changed
    /// stays.
    fn find_ways(&mut self, serving: &Serving) {
        let mut old = std::mem::take(&mut self.services);
        for pools in serving.services().iter().map(|it| it.pools()) {
            let (id, settings) = (pools.service_id(), pools.settings());
            let known = old.remove(&id);
            if let Some(known) = known.filter(|it| Arc::ptr_eq(&it.settings, settings)) {
                self.services.insert(id, known);
                continue;
            }
            let [pre, prod] = PoolName::ALL.map(|pool| {
                let checks = settings.health.of_pool(pool)?;
                Some((pool, self.asker_of(checks)))
            });
            let is_same = |(_, asker): &(PoolName, Arc<CheckClient>)| {
                pre.as_ref().is_some_and(|(_, it)| Arc::ptr_eq(it, asker))
            };
            let prod = match prod {
                Some(prod) if is_same(&prod) => pre.clone(),
                prod => prod,
            };
            if pre.is_some() || prod.is_some() {
                let checks = ServiceChecks {
                    settings: Arc::clone(settings),
                    ways: [pre, prod],
                };
                self.services.insert(id, checks);
            }
        }
        drop(old);
        // Those of targets that wait for the end of a check go with the next update.
        self.askers.retain(|it| Arc::strong_count(it) > 1);
    }

    fn asker_of(&mut self, checks: &Arc<Checks>) -> Arc<CheckClient> {
        let mut known = self.askers.iter();
        let is_it =
            |it: &&Arc<CheckClient>| Arc::ptr_eq(&it.checks, checks) || it.checks == *checks;
        if let Some(known) = known.find(is_it) {
            return Arc::clone(known);
        }
        let new = Arc::new(CheckClient::new(Arc::clone(checks)));
        self.askers.push(Arc::clone(&new));
        new
    }

    fn take_up(
        &mut self,
        target: CheckTarget,
        (service, pool): (&ServiceName, PoolName),
        asker: &Arc<CheckClient>,
        health: &Arc<Health>,
        now: Instant,
        chance: &mut impl FnMut() -> f64,
    ) {
        let update = self.update;
        let Some(known) = self.targets.get_mut(&target) else {
            self.due.insert((now, target));
            let new = ScheduledCheck::new(asker, health, (service, pool), now, update);
            self.targets.insert(target, new);
            return;
        };
        if known.seen == update {
            // The other pool that checks in this way has it, too.
            return;
        }
        let is_running = matches!(known.phase, Phase::Running { .. });
        let mut due = None;
        if known.is_gone || !Arc::ptr_eq(&known.health, health) {
            // It has gone and come again.
            let phase = known.phase;
            *known = ScheduledCheck::new(asker, health, (service, pool), now, update);
            (known.phase, known.is_stale) = (phase, is_running);
            due = Some(now);
        } else if !Arc::ptr_eq(&known.asker, asker) {
            known.asker = Arc::clone(asker);
            known.is_stale |= is_running;
            due = Some(now + asker.checks.interval.mul_f64(chance()));
        }
        (known.pool, known.seen) = (pool, update);
        if known.service != *service {
            known.service = service.clone();
        }
        if let (Some(due), Phase::Due(before)) = (due, known.phase) {
            known.phase = Phase::Due(due);
            self.due.remove(&(before, target));
            self.due.insert((due, target));
        }
    }

    fn forget_others(&mut self) {
        let (update, due) = (self.update, &mut self.due);
        self.targets.retain(|target, it| {
            if it.seen == update {
                return true;
            }
            it.is_gone = true;
            match it.phase {
                Phase::Due(at) => {
                    due.remove(&(at, *target));
                    false
                }
                Phase::Ready | Phase::Waiting => false,
                Phase::Running { .. } => true,
            }
        });
        let targets = &self.targets;
        for queue in &mut self.ready {
            queue.retain(|(_, target)| {
                let known = targets.get(target);
                known.is_some_and(|it| it.phase == Phase::Ready)
            });
        }
    }

    /// The next check to be made, if one is due and there is `room` for it.
    pub(super) fn next(&mut self, now: Instant, room: usize) -> Option<Job> {
        while let Some((at, target)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.be_ready(target, at);
        }
        if room == 0 {
            return None;
        }
        loop {
            let [quick, slow] = &self.ready;
            let (quick, slow) = (quick.front(), slow.front());
            let slow = slow.filter(|_| self.slow_running < SLOW_MOST);
            let is_slow = match (quick, slow) {
                (None, None) => return None,
                (Some((quick, _)), Some((slow, _))) => slow < quick,
                (quick, _) => quick.is_none(),
            };
            let (_, target) = self.ready[usize::from(is_slow)].pop_front()?;
            let is_waiting = self.other(target).is_some_and(ScheduledCheck::is_running);
            let Some(checking) = self.targets.get_mut(&target) else {
                continue;
            };
            if is_waiting {
                checking.phase = Phase::Waiting;
                continue;
            }
            checking.phase = Phase::Running {
                since: now,
                is_slow,
            };
            self.slow_running += usize::from(is_slow);
            return Some(Job {
                target,
                asker: Arc::clone(&checking.asker),
            });
        }
    }

    fn be_ready(&mut self, target: CheckTarget, since: Instant) {
        if let Some(checking) = self.targets.get_mut(&target) {
            checking.phase = Phase::Ready;
            self.ready[usize::from(checking.is_slow)].push_back((since, target));
        }
    }

    /// The same peer as it is checked by the other pool in another way.
    fn other(&self, target: CheckTarget) -> Option<&ScheduledCheck> {
        let mut others = PoolName::ALL.into_iter().filter(|it| *it != target.way);
        others.find_map(|way| self.targets.get(&CheckTarget { way, ..target }))
    }

    /// True when checks are due for which there is no room yet.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|it| !it.is_empty())
    }

    /// When the next check is due.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A check has ended; returns what has followed, if it still counts. `chance` is a number from 0 to 1.
    pub(super) fn has_ended(
        &mut self,
        target: CheckTarget,
        check: LastCheck,
        chance: f64,
    ) -> Option<Consequence> {
        let now = check.at;
        for way in PoolName::ALL.into_iter().filter(|it| *it != target.way) {
            let other = CheckTarget { way, ..target };
            let is_waiting = |it: &ScheduledCheck| it.phase == Phase::Waiting;
            if self.targets.get(&other).is_some_and(is_waiting) {
                self.be_ready(other, now);
            }
        }
        let of_other = self.other(target).filter(|it| !it.is_gone);
        let other = of_other.map(|it| it.record.is_well);
        let checking = self.targets.get_mut(&target)?;
        let Phase::Running { since, is_slow } = checking.phase else {
            return None;
        };
        self.slow_running -= usize::from(is_slow);
        if checking.is_gone {
            self.targets.remove(&target);
            return None;
        }
        let next = match checking.is_stale {
            true => now,
            false => checking.next_after(since, chance).max(now),
        };
        checking.phase = Phase::Due(next);
        self.due.insert((next, target));
        if std::mem::take(&mut checking.is_stale) {
            return None;
        }
        Some(checking.note(check, other))
    }
}

impl ScheduledCheck {
    fn new(
        asker: &Arc<CheckClient>,
        health: &Arc<Health>,
        (service, pool): (&ServiceName, PoolName),
        due: Instant,
        seen: u64,
    ) -> Self {
        Self {
            asker: Arc::clone(asker),
            health: Arc::clone(health),
            service: service.clone(),
            pool,
            phase: Phase::Due(due),
            is_slow: false,
            is_new: true,
            record: CheckRecord {
                // As many successes bring it back as if it had been checked here all the time.
                is_well: health.fails_checks_since_before().then_some(false),
                against: 0,
            },
            is_stale: false,
            is_told: false,
            seen,
            is_gone: false,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// When the check after one that began at `since` is due. Those of peers that came at once are spread
    /// over an interval, and stay so.
    fn next_after(&mut self, since: Instant, chance: f64) -> Instant {
        let interval = self.asker.checks.interval;
        since
            + match std::mem::take(&mut self.is_new) {
                true => interval.mul_f64(chance),
                false => interval.mul_f64(0.9 + chance / 5.0),
            }
    }

    /// Takes down a check. `other` is what the checks in another way have shown, if there are any.
    fn note(&mut self, check: LastCheck, other: Option<Option<bool>>) -> Consequence {
        self.is_slow = check.outcome == Checked::Timeout;
        let consequence = self.judge(check, other);
        // Last: who waits for it may go on now.
        self.health.note_last_check(check);
        consequence
    }

    fn judge(&mut self, check: LastCheck, other: Option<Option<bool>>) -> Consequence {
        let mut told = Consequence {
            service: self.service.clone(),
            pool: self.pool,
            news: None,
        };
        if check.outcome == Checked::NotMade {
            return told;
        }
        let waits = self.health.is_unchecked();
        let succeeded = check.outcome == Checked::Ok;
        self.record.note(succeeded, &self.asker.checks, waits);
        let all = [Some(self.record.is_well), other];
        let mut all = all.into_iter().flatten();
        let change = if all.clone().any(|it| it == Some(false)) {
            self.health.check_has_failed(check.at)
        } else if all.all(|it| it == Some(true)) {
            self.health.check_has_succeeded(check.at)
        } else {
            None
        };
        told.news = match change {
            Some(Change::Out(..)) => Some(CheckNews::Out),
            // It was not away for those who never had it.
            Some(Change::Back) if waits && !std::mem::take(&mut self.is_told) => None,
            Some(Change::Back) => Some(CheckNews::Back),
            None if waits && self.record.is_well == Some(false) && !self.is_told => {
                self.is_told = true;
                Some(CheckNews::Unchecked)
            }
            None => None,
        };
        told
    }
}

#[cfg(test)]
mod tests;
