//! The door that lists pass on their way into force: it says what of a reading may come in now,
//! keeps what has to wait, and tells the log of what is held.
//!
//! Each list has its own fate, with one exception: what was written at once comes into force at
//! once, so that all of them wait for a `prod` that is yet to settle.
//!
//! No clock, no lock, no snapshot: those are the publisher's.

use std::sync::Arc;
use std::time::Instant;

use super::guard::{Gate, Guarded, Held, Moment, Rules};
use super::{By, Entries, Fault, Reading};
use crate::lists::{Digest, GrayList, ListName, Lists, PeerList, Skipped};
use crate::logging::Throttle;

/// What lists have to pass.
pub(super) struct Door {
    rules: Rules,
    gray: Gate<GrayList>,
    prod: Gate<PeerList>,
    /// What was read with a `prod` that is yet to settle.
    withheld: Option<New>,
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
        let mut faults = Vec::new();
        let mut keep = |list, fault: Option<Fault>| faults.extend(fault.map(|it| (list, it)));
        let (gray, fault) = pass(&mut self.gray, rules, &current.gray, read.gray, now);
        keep(ListName::Gray, fault);
        let (pre, fault) = match legible(&current.pre, read.pre) {
            Ok(list) => (Arc::new(list), None),
            Err((kept, fault)) => (kept, Some(fault)),
        };
        keep(ListName::Pre, fault);
        let (prod, fault) = pass(&mut self.prod, rules, &current.prod, read.prod, now);
        let settles = self.prod.settles();
        keep(
            ListName::Prod,
            fault.or(settles.then_some(Fault::Unsettled)),
        );

        let read = New { gray, pre, prod };
        let new = match settles {
            true => New::of(current),
            false => read.clone(),
        };
        self.withheld = settles.then_some(read);
        self.is_settled = faults.is_empty() && self.gray.is_empty() && self.prod.is_empty();
        Passed { new, faults }
    }

    /// The store cannot be reached: no time counts until it was read again.
    pub(super) fn lose_sight(&mut self) {
        self.gray.lose_sight();
        self.prod.lose_sight();
    }

    /// The `current` lists with a `gray` whose time has come.
    pub(super) fn ripe_gray(&mut self, current: &Lists, now: Instant) -> Option<New> {
        let gray = self.gray.ripe(self.rules, &current.gray, now)?;
        self.withheld = None;
        Some(New {
            gray,
            ..New::of(current)
        })
    }

    /// The `current` lists with a `prod` whose time has come.
    pub(super) fn ripe_prod(&mut self, current: &Lists, now: Instant) -> Option<Ripe> {
        let settles = self.prod.settles();
        let prod = self.prod.ripe(self.rules, &current.prod, now)?;
        // Read before what is in force now if that was held; then the next reading brings it again.
        let others = self.withheld.take().filter(|_| settles);
        let new = New {
            prod,
            ..others.unwrap_or_else(|| New::of(current))
        };
        Some(match settles {
            true => Ripe::Settled(new),
            false => Ripe::Held(new),
        })
    }

    /// When something may be ripe, if nothing else happens.
    pub(super) fn ripe_at(&self) -> Option<Instant> {
        let times = [self.gray.ripe_at(self.rules), self.prod.ripe_at(self.rules)];
        times.into_iter().flatten().min()
    }

    /// The `current` lists with the held change whose digest is `digest`, as it is displayed, if
    /// the store had it when it was last read.
    pub(super) fn accept(&mut self, digest: &str, current: &Lists) -> Option<(ListName, New)> {
        let mut new = New::of(current);
        let list = if let Some(gray) = self.gray.accept(digest) {
            new.gray = gray;
            ListName::Gray
        } else {
            new.prod = self.prod.accept(digest)?;
            ListName::Prod
        };
        // What is withheld was read before this, and the next reading brings it again.
        self.withheld = None;
        Some((list, new))
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
