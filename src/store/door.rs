//! The door that lists pass on their way into force: it says what of a reading may come in now,
//! keeps what has to wait, and tells the log of what is held.
//!
//! Each list has its own fate, with one exception: what was written at once comes into force at
//! once, so that all of them wait for a `prod` that is yet to settle. But not for ever
//! ([`MOST_WITHHELD`]): a `prod` that is rewritten again and again never settles. And not where
//! that makes no difference: while nobody is gray, nobody is served by `pre`, so that emptying
//! `gray`, the rollback, never waits.
//!
//! No clock, no lock, no snapshot: those are the publisher's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guard::{Gate, Guarded, Held, Moment, Rules};
use super::{By, Entries, Fault, Reading};
use crate::lists::{Digest, GrayList, ListName, Lists, PeerList, Skipped};
use crate::logging::Throttle;

/// How long lists wait for others to settle, at most: a little longer than that takes.
pub(super) const MOST_WITHHELD: Duration = Duration::from_millis(1500);

/// What lists have to pass.
pub(super) struct Door {
    rules: Rules,
    gray: Gate<GrayList>,
    prod: Gate<PeerList>,
    /// Since when, reading after reading, `prod` has been about to settle.
    settles_since: Option<Instant>,
    /// What was read with it, and waits for it.
    withheld: Option<Withheld>,
    /// All of what was read last was let in, and nothing waits.
    is_settled: bool,
    /// The held changes that were told of.
    told: Vec<(ListName, Digest)>,
    /// A list that is rewritten again and again is held as often.
    throttle: Throttle,
}

/// A reading as lists.
pub(super) struct Parsed {
    gray: Result<GrayList, Fault>,
    pre: Result<PeerList, Fault>,
    prod: Result<PeerList, Fault>,
}

impl Parsed {
    /// Reads entries; peers without a port get `peer_port`.
    pub(super) fn of(reading: Reading, peer_port: u16) -> Self {
        let peers =
            |entries: Result<Entries, Fault>| entries.map(|it| PeerList::parse(&it, peer_port));
        Self {
            gray: reading.gray.map(|it| GrayList::parse(&it)),
            pre: peers(reading.pre),
            prod: peers(reading.prod),
        }
    }
}

/// The lists that are to come into force.
#[derive(Clone)]
pub(super) struct New {
    pub(super) gray: Arc<GrayList>,
    pub(super) pre: Arc<PeerList>,
    pub(super) prod: Arc<PeerList>,
}

impl New {
    /// The same as before.
    pub(super) fn of(lists: &Lists) -> Self {
        Self {
            gray: Arc::clone(&lists.gray),
            pre: Arc::clone(&lists.pre),
            prod: Arc::clone(&lists.prod),
        }
    }
}

/// The lists that wait for a `prod` that is yet to settle.
struct Withheld {
    gray: Arc<GrayList>,
    pre: Arc<PeerList>,
    /// Since when `prod` has been about to settle.
    since: Instant,
}

impl Withheld {
    /// The `current` lists with these.
    fn with(self, current: &Lists) -> New {
        New {
            gray: self.gray,
            pre: self.pre,
            prod: Arc::clone(&current.prod),
        }
    }
}

/// What became of a reading.
pub(super) struct Passed {
    /// What comes into force; as before where nothing may.
    pub(super) new: New,
    /// The lists that keep their value although nothing of theirs is held.
    pub(super) faults: Vec<(ListName, Fault)>,
}

/// A `prod` whose time has come.
pub(super) enum Ripe {
    /// It was held.
    Held(New),
    /// It had to stand for a moment, and what was read with it has waited for it.
    Settled(New),
}

impl Door {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            gray: Gate::default(),
            prod: Gate::default(),
            settles_since: None,
            withheld: None,
            is_settled: false,
            told: Vec::new(),
            throttle: Throttle::default(),
        }
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// True when all of what was read last was let in: nothing will come of reading it again.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// What of `read` may take the place of the `current` lists.
    pub(super) fn judge(&mut self, current: &Lists, read: Parsed, now: Moment) -> Passed {
        // Without anything to compare with, everything is new, and nothing destroys.
        let rules = current.are_read().then_some(self.rules);
        let (gray, gray_fault) = pass(&mut self.gray, rules, &current.gray, read.gray, now);
        let (pre, pre_fault) = match legible(&current.pre, read.pre) {
            Ok(list) => (Arc::new(list), None),
            Err((kept, fault)) => (kept, Some(fault)),
        };
        let (prod, prod_fault) = pass(&mut self.prod, rules, &current.prod, read.prod, now);
        let mut new = New { gray, pre, prod };
        let mut faults = [gray_fault, pre_fault, prod_fault];
        self.withhold(current, &mut new, &mut faults, now.instant);

        let faults = ListName::ALL.into_iter().zip(faults);
        let faults: Vec<_> = faults.filter_map(|(list, it)| Some((list, it?))).collect();
        self.is_settled = faults.is_empty() && self.gray.is_empty() && self.prod.is_empty();
        Passed { new, faults }
    }

    /// Keeps back what of `new` has to wait for `prod`, and notes that among the `faults`.
    fn withhold(
        &mut self,
        current: &Lists,
        new: &mut New,
        faults: &mut [Option<Fault>; ListName::ALL.len()],
        now: Instant,
    ) {
        let before = self.withheld.take();
        if !self.prod.settles() {
            self.settles_since = None;
            return;
        }
        let since = *self.settles_since.get_or_insert(now);
        let [gray_fault, pre_fault, prod_fault] = faults;
        prod_fault.get_or_insert(Fault::Unsettled);
        // The store's own watcher keeps back what it has read; what is kept back here is no worse.
        if let Some(before) = before {
            if *gray_fault == Some(Fault::Withheld) {
                new.gray = before.gray;
            }
            if *pre_fault == Some(Fault::Withheld) {
                new.pre = before.pre;
            }
        }
        let late = now.saturating_duration_since(since) >= MOST_WITHHELD;
        if late || new.gray.is_empty() {
            return;
        }
        if new.gray.digest() != current.gray.digest() {
            gray_fault.get_or_insert(Fault::Withheld);
        }
        if new.pre.digest(ListName::Pre) != current.pre.digest(ListName::Pre) {
            pre_fault.get_or_insert(Fault::Withheld);
        }
        let read = std::mem::replace(new, New::of(current));
        self.withheld = Some(Withheld {
            gray: read.gray,
            pre: read.pre,
            since,
        });
    }

    /// The store cannot be reached: no time counts until it was read again.
    pub(super) fn lose_sight(&mut self) {
        self.gray.lose_sight();
        self.prod.lose_sight();
        // The next reading says what there is, and what of it has to wait.
        self.withheld = None;
        self.settles_since = None;
    }

    /// The `current` lists with a `gray` whose time has come.
    pub(super) fn ripe_gray(&mut self, current: &Lists, now: Instant) -> Option<New> {
        let gray = self.gray.ripe(self.rules, &current.gray, now)?;
        Some(self.with_gray(gray, current))
    }

    /// The `current` lists with a `gray` that was held. What still waits for `prod` will come with
    /// it, too.
    fn with_gray(&mut self, gray: Arc<GrayList>, current: &Lists) -> New {
        if let Some(withheld) = &mut self.withheld {
            withheld.gray = Arc::clone(&gray);
        }
        New {
            gray,
            ..New::of(current)
        }
    }

    /// The `current` lists with what has waited for `prod` for long enough.
    pub(super) fn ripe_withheld(&mut self, current: &Lists, now: Instant) -> Option<New> {
        let late = |it: &mut Withheld| now.saturating_duration_since(it.since) >= MOST_WITHHELD;
        self.withheld.take_if(late).map(|it| it.with(current))
    }

    /// The `current` lists with a `prod` whose time has come.
    pub(super) fn ripe_prod(&mut self, current: &Lists, now: Instant) -> Option<Ripe> {
        let settles = self.prod.settles();
        let prod = self.prod.ripe(self.rules, &current.prod, now)?;
        // Nothing waits for what was held.
        let others = self.withheld.take();
        let new = New {
            prod,
            ..others.map_or_else(|| New::of(current), |it| it.with(current))
        };
        self.settles_since = None;
        Some(match settles {
            true => Ripe::Settled(new),
            false => Ripe::Held(new),
        })
    }

    /// When something may be ripe, if nothing else happens.
    pub(super) fn ripe_at(&self) -> Option<Instant> {
        let withheld = self.withheld.as_ref();
        let times = [
            self.gray.ripe_at(self.rules),
            self.prod.ripe_at(self.rules),
            withheld.map(|it| it.since + MOST_WITHHELD),
        ];
        times.into_iter().flatten().min()
    }

    /// The `current` lists with the held change whose digest is `digest`, as it is displayed, if
    /// the store had it when it was last read.
    pub(super) fn accept(&mut self, digest: &str, current: &Lists) -> Option<(ListName, New)> {
        if let Some(gray) = self.gray.accept(digest) {
            return Some((ListName::Gray, self.with_gray(gray, current)));
        }
        let prod = self.prod.accept(digest)?;
        let new = New {
            prod,
            ..New::of(current)
        };
        Some((ListName::Prod, new))
    }

    /// What is held.
    pub(super) fn held(&self) -> Vec<Held> {
        let held = [self.gray.held(), self.prod.held()];
        held.into_iter().flatten().collect()
    }

    /// Tells of what was held `before` and has been let in.
    pub(super) fn tell_accepted(&mut self, before: &[Held], list: ListName, by: By) {
        for it in before.iter().filter(|it| it.list == list) {
            let (list, digest, by) = (list.name(), it.digest, by.name());
            log::warn!("change-accepted list={list} digest={digest} by={by}");
        }
        self.told.retain(|(told, _)| *told != list);
    }

    /// Tells what of what is held is news. What is not told now, since so much is, is told at the
    /// next reading if it is held still.
    pub(super) fn tell_held(&mut self, held: &[Held]) {
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
            if fault != Fault::Withheld {
                gate.doubt();
            }
            (kept, Some(fault))
        }
    }
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
