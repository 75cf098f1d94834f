//! The door that lists pass on their way into force: it says what of a reading may come in now,
//! keeps what has to wait, and tells the log of what is held.
//!
//! Each list has its own fate, with one exception: what was written at once comes into force at
//! once, so that all of them wait for one that is yet to settle: one that was found empty a moment
//! ago (the store tells since when), or a `prod` that has to stand. But not for ever
//! ([`MOST_WITHHELD`]): one that is rewritten again and again never settles. And not where that
//! makes no difference: while nobody is gray, nobody is served by `pre`, so that emptying `gray`,
//! the rollback, never waits.
//!
//! What a list has to wait for makes no difference to its gate, which is told of each reading: it
//! waits for nothing that the store does not have any more. So a list is in force as it was read, or
//! it waits at its gate, or, having passed that, for the others.
//!
//! No clock, no lock, no snapshot: those are the publisher's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guard::{By, Gate, Guarded, Held, Moment, Rules};
use crate::lists::{ByList, Digest, GrayList, ListName, Lists, PeerList, Skipped};
use crate::logs::throttle::Throttle;
use crate::store::{Entries, Fault, Reading};

/// How long lists wait for others to settle, at most: a little longer than that takes.
pub(in crate::store) const MOST_WITHHELD: Duration = Duration::from_millis(1500);

/// How long a list must have been empty to count as empty. An empty `gray` is a rollback, which
/// is urgent; an empty pool is not, since its last peers may still serve, or are skipped if not.
pub(in crate::store) const fn settle_time(list: ListName) -> Duration {
    match list {
        ListName::Gray => Duration::from_millis(20),
        ListName::Pre | ListName::Prod => Duration::from_secs(1),
    }
}

/// For how long each list, if it is empty, has been known to be, untouched.
pub(in crate::store) type EmptyFor = ByList<Duration>;

/// What lists have to pass.
pub(in crate::store) struct Door {
    rules: Rules,
    gray: Gate<GrayList>,
    prod: Gate<PeerList>,
    /// Why lists keep their value although nothing of theirs is held.
    faults: ByList<Option<Fault>>,
    /// The lists that were found empty by the last reading, and are not believed to be.
    emptied: Vec<ListName>,
    /// What has passed its gate, and waits for another list to settle.
    withheld: Withheld,
    /// Since when there was something to wait for, and something that waits.
    waits_since: Option<Instant>,
    /// The last reading came when that was the longest time ago.
    is_late: bool,
    /// All of what was read last was let in, and nothing waits.
    is_settled: bool,
    /// The held changes that were told of.
    told: Vec<(ListName, Digest)>,
    /// A list that is rewritten again and again is held as often.
    throttle: Throttle,
    /// And it may be let in as often.
    accepted: Throttle,
}

/// A reading as lists.
pub(in crate::store) struct Parsed {
    gray: Result<GrayList, Fault>,
    pre: Result<PeerList, Fault>,
    prod: Result<PeerList, Fault>,
}

impl Parsed {
    /// Reads entries; peers without a port get `peer_port`.
    pub(in crate::store) fn of(reading: Reading, peer_port: u16) -> Self {
        let peers =
            |entries: Result<Entries, Fault>| entries.map(|it| PeerList::parse(&it, peer_port));
        Self {
            gray: reading.gray.map(|it| GrayList::parse(&it)),
            pre: peers(reading.pre),
            prod: peers(reading.prod),
        }
    }

    /// The new `prod`, if it can be read.
    pub(in crate::store) fn prod(&self) -> Option<&PeerList> {
        self.prod.as_ref().ok()
    }
}

/// The lists that are to come into force.
#[derive(Clone)]
pub(in crate::store) struct New {
    pub(in crate::store) gray: Arc<GrayList>,
    pub(in crate::store) pre: Arc<PeerList>,
    pub(in crate::store) prod: Arc<PeerList>,
}

impl New {
    /// The same as before.
    pub(in crate::store) fn of(lists: &Lists) -> Self {
        Self {
            gray: Arc::clone(&lists.gray),
            pre: Arc::clone(&lists.pre),
            prod: Arc::clone(&lists.prod),
        }
    }
}

/// Lists that wait for others to settle.
#[derive(Default)]
struct Withheld {
    gray: Option<Arc<GrayList>>,
    pre: Option<Arc<PeerList>>,
    prod: Option<Arc<PeerList>>,
}

impl Withheld {
    const fn is_empty(&self) -> bool {
        self.gray.is_none() && self.pre.is_none() && self.prod.is_none()
    }

    /// The `current` lists with these.
    fn over(self, current: &Lists) -> New {
        let current = New::of(current);
        New {
            gray: self.gray.unwrap_or(current.gray),
            pre: self.pre.unwrap_or(current.pre),
            prod: self.prod.unwrap_or(current.prod),
        }
    }
}

/// What a reading has left to wait for, that another reading has to tell.
#[derive(Default)]
pub(in crate::store) struct Awaited {
    /// The lists that were found empty, and are not believed to be.
    pub(in crate::store) emptied: Vec<ListName>,
    /// Others have waited for them for the longest time then.
    pub(in crate::store) until: Option<Instant>,
}

/// A `prod` whose time has come.
pub(in crate::store) enum Ripe {
    /// It was held.
    Held(New),
    /// It had to stand for a moment, and what was read with it has waited for it.
    Settled(New),
}

impl Door {
    pub(in crate::store) fn new(rules: Rules) -> Self {
        Self {
            rules,
            gray: Gate::default(),
            prod: Gate::default(),
            faults: ByList::default(),
            emptied: Vec::new(),
            withheld: Withheld::default(),
            waits_since: None,
            is_late: false,
            is_settled: false,
            told: Vec::new(),
            throttle: Throttle::default(),
            accepted: Throttle::default(),
        }
    }

    pub(in crate::store) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// True when all of what was read last was let in: nothing will come of reading it again.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// What comes into force now of what was `read`, in the place of the `current` lists. What has
    /// waited for long enough at a gate is still there, for [`Self::ripe_gray`] and the like.
    pub(in crate::store) fn judge(
        &mut self,
        current: &Lists,
        mut read: Parsed,
        empty_for: EmptyFor,
        now: Moment,
    ) -> New {
        self.take_emptied(current, &mut read, empty_for);
        // Without anything to compare with, everything is new, and nothing destroys.
        let rules = current.are_read().then_some(self.rules);
        let (gray, gray_fault) = pass(&mut self.gray, rules, &current.gray, read.gray, now);
        let (pre, pre_fault) = match legible(&current.pre, read.pre) {
            Ok(list) => (Arc::new(list), None),
            Err((kept, fault)) => (kept, Some(fault)),
        };
        let (prod, mut prod_fault) = pass(&mut self.prod, rules, &current.prod, read.prod, now);
        if self.prod.settles() {
            prod_fault.get_or_insert(Fault::Unsettled);
        }
        self.faults = ByList {
            gray: gray_fault,
            pre: pre_fault,
            prod: prod_fault,
        };
        let mut new = New { gray, pre, prod };
        self.withhold(current, &mut new, now.instant);
        // The first lists of all are no change of others.
        if current.are_read() {
            self.note_change(current, &new, now.instant);
        }
        let is_kept = self.faults.iter().any(|(_, fault)| fault.is_some());
        self.is_settled = !is_kept && self.gray.is_empty() && self.prod.is_empty();
        new
    }

    /// Takes the lists out of `read` that have become empty only a moment ago.
    fn take_emptied(&mut self, current: &Lists, read: &mut Parsed, empty_for: EmptyFor) {
        // What is held is no news with each reading.
        let holds_empty = self.prod.held().is_some_and(|it| it.entries == 0);
        let becomes_empty = ByList {
            gray: becomes_empty(&current.gray, &read.gray),
            pre: becomes_empty(&current.pre, &read.pre),
            prod: becomes_empty(&current.prod, &read.prod) && !holds_empty,
        };
        self.emptied.clear();
        for list in ListName::ALL {
            if !becomes_empty[list] || empty_for[list] >= settle_time(list) {
                continue;
            }
            self.emptied.push(list);
            match list {
                ListName::Gray => read.gray = Err(Fault::Unsettled),
                ListName::Pre => read.pre = Err(Fault::Unsettled),
                ListName::Prod => read.prod = Err(Fault::Unsettled),
            }
        }
    }

    /// Keeps back what of `new` has to wait for another list, and notes that among the faults.
    fn withhold(&mut self, current: &Lists, new: &mut New, now: Instant) {
        self.withheld = Withheld::default();
        self.is_late = self.has_waited(now);
        if self.emptied.is_empty() && !self.prod.settles() {
            self.waits_since = None;
            return;
        }
        let nobody_is_gray = new.gray.is_empty();
        if !self.is_late && !nobody_is_gray {
            let ByList { gray, pre, prod } = &mut self.faults;
            let is_other_gray = new.gray.digest() != current.gray.digest();
            let is_other_pre = is_other(&new.pre, &current.pre);
            let is_other_prod = is_other(&new.prod, &current.prod);
            self.withheld = Withheld {
                gray: keep_back(gray, &mut new.gray, &current.gray, is_other_gray),
                pre: keep_back(pre, &mut new.pre, &current.pre, is_other_pre),
                prod: keep_back(prod, &mut new.prod, &current.prod, is_other_prod),
            };
        }
        if self.prod.settles() || !self.withheld.is_empty() {
            self.waits_since.get_or_insert(now);
        } else if !self.is_late {
            self.waits_since = None;
        }
    }

    /// True when there has been something to wait for during the longest time.
    fn has_waited(&self, now: Instant) -> bool {
        let waited = |since| now.saturating_duration_since(since);
        let since = self.waits_since;
        since.is_some_and(|it| waited(it) >= MOST_WITHHELD)
    }

    /// Tells the gate when `new` brings another `prod` at once.
    fn note_change(&mut self, current: &Lists, new: &New, now: Instant) {
        if is_other(&new.prod, &current.prod) {
            self.prod.note_change(now);
        }
    }

    /// The store cannot be reached: no time counts until it was read again.
    pub(in crate::store) fn lose_sight(&mut self) {
        self.gray.lose_sight();
        self.prod.lose_sight();
        // The next reading says what there is, and what of it has to wait.
        self.withheld = Withheld::default();
        self.emptied.clear();
        (self.waits_since, self.is_late) = (None, false);
    }

    /// Every list keeps its value for this reason, until the next reading.
    pub(in crate::store) fn keep_all(&mut self, fault: Fault) {
        self.faults = ByList::all(Some(fault));
        self.is_settled = false;
    }

    /// The `current` lists with a `gray` that was held, and whose time has come.
    pub(in crate::store) fn ripe_gray(&mut self, current: &Lists, now: Instant) -> Option<New> {
        let gray = self.gray.ripe(self.rules, &current.gray, now)?;
        Some(New {
            gray,
            ..New::of(current)
        })
    }

    /// The `current` lists with what has waited for others for long enough. What waits for a list that
    /// was found empty waits for a reading, which may take its time, and may end the waiting.
    pub(in crate::store) fn ripe_withheld(&mut self, current: &Lists, now: Instant) -> Option<New> {
        let waits = !self.withheld.is_empty() && self.emptied.is_empty();
        let is_ripe = waits && self.has_waited(now);
        is_ripe.then(|| self.release(current, now))
    }

    /// The `current` lists with what has waited for others.
    fn release(&mut self, current: &Lists, now: Instant) -> New {
        self.faults = self
            .faults
            .map(|fault| fault.filter(|it| *it != Fault::Withheld));
        let new = std::mem::take(&mut self.withheld).over(current);
        self.note_change(current, &new, now);
        new
    }

    /// The `current` lists with a `prod` whose time has come.
    pub(in crate::store) fn ripe_prod(&mut self, current: &Lists, now: Instant) -> Option<Ripe> {
        let settles = self.prod.settles();
        if settles && !self.emptied.is_empty() && !self.is_late {
            return None;
        }
        let prod = self.prod.ripe(self.rules, &current.prod, now)?;
        if !settles {
            // It comes alone: nothing has waited for it, and it waits for nothing.
            return Some(Ripe::Held(New {
                prod,
                ..New::of(current)
            }));
        }
        self.faults.prod = None;
        let others = self.release(current, now);
        if self.emptied.is_empty() {
            self.waits_since = None;
        }
        Some(Ripe::Settled(New { prod, ..others }))
    }

    /// When something may be ripe, if nothing else happens.
    pub(in crate::store) fn ripe_at(&self) -> Option<Instant> {
        let prod = self.prod.ripe_at(self.rules);
        let prod = prod.filter(|_| !self.prod.settles() || self.emptied.is_empty() || self.is_late);
        let waits = !self.withheld.is_empty() && self.emptied.is_empty();
        let withheld = self.waits_until().filter(|_| waits);
        let times = [self.gray.ripe_at(self.rules), prod, withheld];
        times.into_iter().flatten().min()
    }

    /// The `current` lists with the held change whose digest is `digest`, as it is displayed, if
    /// the store had it when it was last read.
    pub(in crate::store) fn accept(
        &mut self,
        digest: &str,
        current: &Lists,
    ) -> Option<(ListName, New)> {
        let new = New::of(current);
        if let Some(gray) = self.gray.accept(digest) {
            return Some((ListName::Gray, New { gray, ..new }));
        }
        let prod = self.prod.accept(digest)?;
        Some((ListName::Prod, New { prod, ..new }))
    }

    /// The lists that keep their value although nothing of theirs is held.
    pub(in crate::store) fn faults(&self) -> Vec<(ListName, Fault)> {
        let faults = self.faults.into_iter();
        faults.filter_map(|(list, it)| Some((list, it?))).collect()
    }

    /// When what waits for others has done so for the longest time.
    fn waits_until(&self) -> Option<Instant> {
        let waits = !self.withheld.is_empty() || self.prod.settles();
        let until = self.waits_since.map(|it| it + MOST_WITHHELD);
        until.filter(|_| waits && !self.is_late)
    }

    /// What another reading has to tell.
    pub(in crate::store) fn awaited(&self) -> Awaited {
        let until = self.waits_until();
        Awaited {
            emptied: self.emptied.clone(),
            until: until.filter(|_| !self.emptied.is_empty()),
        }
    }

    /// What is held.
    pub(in crate::store) fn held(&self) -> Vec<Held> {
        let held = [self.gray.held(), self.prod.held()];
        held.into_iter().flatten().collect()
    }

    /// Tells of what was held `before` and has been let in.
    pub(in crate::store) fn tell_accepted(&mut self, before: &[Held], list: ListName, by: By) {
        for it in before.iter().filter(|it| it.list == list) {
            let Some(untold) = self.accepted.turn(Instant::now()) else {
                continue;
            };
            let (list, digest, by) = (list.name(), it.digest, by.name());
            log::warn!("change-accepted list={list} digest={digest} by={by} untold={untold}");
        }
        self.told.retain(|(told, _)| *told != list);
    }

    /// Tells what of what is held is news. What is not told now, since so much is, is told at the
    /// next reading if it is held still.
    pub(in crate::store) fn tell_held(&mut self, held: &[Held]) {
        let is = |it: &Held| (it.list, it.digest);
        self.told.retain(|told| {
            let stays = held.iter().any(|it| is(it) == *told);
            if !stays {
                let (list, digest) = (told.0.name(), told.1);
                log::info!("change-forgotten list={list} digest={digest}");
            }
            stays
        });
        for it in held {
            if self.told.contains(&is(it)) {
                continue;
            }
            let Some(untold) = self.throttle.turn(Instant::now()) else {
                continue;
            };
            log::error!(
                "change-held list={} reason={} digest={} entries={} gone={} new={} untold={untold}",
                it.list.name(),
                it.reason.name(),
                it.digest,
                it.entries,
                it.gone.count,
                it.new.count
            );
            self.told.push(is(it));
        }
    }
}

/// What a guarded list is from now on, and why it keeps its value, if that is for a fault.
fn pass<L: Guarded + Listed>(
    gate: &mut Gate<L>,
    rules: Option<Rules>,
    in_force: &Arc<L>,
    read: Result<L, Fault>,
    now: Moment,
) -> (Arc<L>, Option<Fault>) {
    match legible(in_force, read) {
        Ok(list) => {
            let passed = match rules {
                None => Some(Arc::new(list)),
                Some(rules) => gate.judge(rules, in_force, list, now),
            };
            (passed.unwrap_or_else(|| Arc::clone(in_force)), None)
        }
        Err((kept, fault)) => {
            gate.doubt();
            (kept, Some(fault))
        }
    }
}

/// True when a list that is `in_force` has no entries any more.
fn becomes_empty<L: Listed>(in_force: &Arc<L>, read: &Result<L, Fault>) -> bool {
    let is_empty = |it: &L| it.is_empty() && it.skipped().count == 0;
    !in_force.is_empty() && read.as_ref().is_ok_and(is_empty)
}

/// Puts the `current` list in the place of a `new` one that is another and has no fault of its own.
fn keep_back<L>(
    fault: &mut Option<Fault>,
    new: &mut Arc<L>,
    current: &Arc<L>,
    is_other: bool,
) -> Option<Arc<L>> {
    let keeps = fault.is_none() && is_other;
    keeps.then(|| {
        *fault = Some(Fault::Withheld);
        std::mem::replace(new, Arc::clone(current))
    })
}

fn is_other(one: &PeerList, other: &PeerList) -> bool {
    // As one and the same kind of list: their names are in their digests.
    one.digest(ListName::Prod) != other.digest(ListName::Prod)
}

/// The list that was read, or the one that is kept for want of it, with what is wrong.
fn legible<L: Listed>(in_force: &Arc<L>, read: Result<L, Fault>) -> Result<L, (Arc<L>, Fault)> {
    match read {
        // Kept, but what is wrong with the new entries is told.
        Ok(list) if list.is_empty() && list.skipped().count > 0 => {
            Err((Arc::new(in_force.with_skipped_of(&list)), Fault::AllSkipped))
        }
        Ok(list) => Ok(list),
        Err(fault) => Err((Arc::clone(in_force), fault)),
    }
}

/// What any kind of list can say of its entries.
trait Listed: Sized {
    fn is_empty(&self) -> bool;
    fn skipped(&self) -> &Skipped;
    fn with_skipped_of(&self, other: &Self) -> Self;
}

impl Listed for GrayList {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn skipped(&self) -> &Skipped {
        self.skipped()
    }

    fn with_skipped_of(&self, other: &Self) -> Self {
        self.with_skipped_of(other)
    }
}

impl Listed for PeerList {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn skipped(&self) -> &Skipped {
        self.skipped()
    }

    fn with_skipped_of(&self, other: &Self) -> Self {
        self.with_skipped_of(other)
    }
}
