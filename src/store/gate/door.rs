//! The door that lists pass on their way into force: it decides what of a reading may come in now, keeps
//! what has to wait, and logs what is held.
//!
//! Each list is judged by itself, with one exception: what was written together comes into force
//! together. So all lists wait for one that has yet to settle: one that was found empty a moment ago
//! (the store says since when), or a `prod` that has to stand for a moment. But they do not wait for
//! ever ([`MOST_WITHHELD`]), since a list that is rewritten again and again never settles. Nor do they
//! wait if it makes no difference: while nobody is gray, nobody is served by `pre`, so emptying `gray`,
//! the rollback, never waits.
//!
//! Whoever changes lists by a command says what they are afterwards, as a whole. Such lists are meant: none
//! of them is held, or has to settle, and all come into force at once.
//!
//! A list's gate is told of each reading, whatever the list is waiting for, so that nothing waits there
//! that the store no longer has. So a list is in force as it was read, or waits at its gate, or has
//! passed its gate and waits for the others.
//!
//! What follows for one list, whatever its kind, is in [`listed`](super::listed).
//!
//! No clock, no lock, no snapshot: those are the publisher's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guard::{By, Gate, GateRecord, GuardRules, HeldChange, Timestamp};
use super::listed::{accept, becomes_empty, if_settled, is_other, keep_back, legible, over, pass};
use crate::lists::{
    ByList, Digest, GrayList, ListName, Lists, PeerList, Salt, ServiceName, SharedLists,
};
use crate::logs::throttle::Throttle;
use crate::store::reading::EmptyFor;
use crate::store::{Entries, Fault, Reading};

/// The longest time for which lists wait for others to settle: a little longer than that takes.
pub(in crate::store) const MOST_WITHHELD: Duration = Duration::from_millis(1500);

/// How long a list must have been empty to count as empty. An empty `gray` is a rollback, which
/// is urgent; an empty pool is not, since its last peers may still serve, or are skipped if not.
pub(in crate::store) const fn settle_time(list: ListName) -> Duration {
    match list {
        ListName::Gray => Duration::from_millis(20),
        ListName::Pre | ListName::Prod => Duration::from_secs(1),
    }
}

/// What the lists of a service have to pass.
pub(in crate::store) struct Door {
    service: ServiceName,
    rules: GuardRules,
    gray: Gate<GrayList>,
    prod: Gate<PeerList>,
    /// Why lists keep their values although none of their changes is held.
    faults: ByList<Option<Fault>>,
    /// The lists that were found empty by the last reading, and are not believed to be.
    emptied: Vec<ListName>,
    /// What has passed its gate, and waits for another list to settle.
    withheld: Withheld,
    /// Since when there has been something to wait for, and something that waits.
    waits_since: Option<Instant>,
    /// At the last reading that had lasted for the longest time.
    is_late: bool,
    /// Everything that was read last was let in, and nothing waits.
    is_settled: bool,
    /// The held changes that were logged.
    told: Vec<(ListName, Digest)>,
    /// The digests of changes that come in whatever the rules say, as they are displayed.
    foreseen: Vec<String>,
    /// Those of lists, as a whole, that somebody has just written by a command.
    meant: Vec<String>,
    /// Limits the log: a list that is rewritten again and again is held as often.
    throttle: Throttle,
    /// The same for lists that are let in.
    accepted: Throttle,
}

/// A reading as lists. A gray list that is another service's is the one that is in force there.
pub(in crate::store) type ParsedReading =
    ByList<Result<Arc<GrayList>, Fault>, Result<Arc<PeerList>, Fault>>;

/// Reads entries; peers without a port get `peer_port`, and shares are dealt with `salt`.
pub(in crate::store) fn parse(reading: Reading, peer_port: u16, salt: &[u8]) -> ParsedReading {
    let gray = |entries: Entries| {
        let gray = GrayList::parse(&entries);
        Arc::new(gray.with_salt(Salt::new(salt)))
    };
    let peers = |entries: Entries| Arc::new(PeerList::parse(&entries, peer_port));
    reading.map_each(|it| it.map(gray), |it| it.map(peers))
}

/// The digest of what was read, as a whole, if all of it can be read.
pub(in crate::store) fn digest_of(read: &ParsedReading) -> Option<Digest> {
    match read {
        ByList {
            gray: Ok(gray),
            pre: Ok(pre),
            prod: Ok(prod),
        } => Some(Lists::digest_of(gray, pre, prod)),
        _ => None,
    }
}

/// Lists that wait for others to settle.
type Withheld = ByList<Option<Arc<GrayList>>, Option<Arc<PeerList>>>;

/// What a reading has left open for another reading to decide.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Awaited {
    /// The lists that were found empty, and are not believed to be.
    pub(in crate::store) emptied: Vec<(ServiceName, ListName)>,
    /// Others have waited for one of them for the longest time then.
    pub(in crate::store) until: Option<Instant>,
    /// For so long the reading has waited for the addresses of names.
    pub(in crate::store) names: Duration,
}

impl Awaited {
    /// Adds what the `door` of a service leaves open.
    pub(in crate::store) fn add(&mut self, service: &ServiceName, door: &Door) {
        if door.emptied.is_empty() {
            return;
        }
        let emptied = door.emptied.iter().map(|it| (service.clone(), *it));
        self.emptied.extend(emptied);
        self.until = self.until.into_iter().chain(door.waits_until()).min();
    }
}

/// A `prod` whose time has come.
pub(in crate::store) enum Ripe {
    /// It was held.
    Held(SharedLists),
    /// It had to stand for a moment, and what was read with it has waited for it.
    Settled(SharedLists),
}

impl Door {
    pub(in crate::store) fn new(service: ServiceName, rules: GuardRules) -> Self {
        Self {
            service,
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
            foreseen: Vec::new(),
            meant: Vec::new(),
            throttle: Throttle::default(),
            accepted: Throttle::default(),
        }
    }

    pub(in crate::store) fn set_rules(&mut self, rules: GuardRules) {
        self.rules = rules;
    }

    /// The gates as they stand at `now`.
    pub(in crate::store) fn records(&self, now: Instant) -> [(ListName, GateRecord); 2] {
        [
            (ListName::Gray, self.gray.record(now)),
            (ListName::Prod, self.prod.record(now)),
        ]
    }

    /// Goes on with the gates of another process, which has let in the `current` lists. What is held was
    /// logged there.
    pub(in crate::store) fn go_on_with(
        &mut self,
        records: &[(ListName, GateRecord)],
        current: &Lists,
        peer_port: u16,
        now: Instant,
    ) {
        for (list, record) in records {
            match list {
                ListName::Gray => {
                    self.gray = Gate::of_record(record, &*current.gray, peer_port, now);
                }
                ListName::Prod => {
                    self.prod = Gate::of_record(record, &*current.prod, peer_port, now);
                }
                // It has no gate.
                ListName::Pre => {}
            }
        }
        let held = self.held();
        self.told = held.iter().map(|it| (it.list, it.digest)).collect();
    }

    /// True when everything that was read last was let in: judging it again would change nothing.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The lists to come into force now in place of the `current` ones, after what was `read`: for how long
    /// those were empty that are, and when the store was `asked`, if that was earlier. What has waited for
    /// long enough at a gate stays there, for [`Self::ripe_gray`] and the like.
    pub(in crate::store) fn judge(
        &mut self,
        current: &Lists,
        read: ParsedReading,
        (empty_for, asked): (EmptyFor, Option<Instant>),
        now: Timestamp,
    ) -> SharedLists {
        let are_meant = self.are_meant(&read);
        let read = match are_meant {
            true => {
                self.emptied.clear();
                read
            }
            false => self.take_emptied(current, read, empty_for),
        };
        // Without anything to compare with, everything is new, and nothing can be lost.
        let rules = current.are_read().then_some(self.rules);
        let [of_gray, of_prod] = self.rules_for(&read, rules, are_meant);
        let judged = ByList {
            gray: pass(&mut self.gray, of_gray, &current.gray, read.gray, now),
            pre: match legible(&current.pre, read.pre) {
                Ok(list) => (list, None),
                Err((kept, fault)) => (kept, Some(fault)),
            },
            prod: pass(&mut self.prod, of_prod, &current.prod, read.prod, now),
        };
        self.faults = judged.as_ref().map_each(|it| it.1, |it| it.1);
        if self.prod.settles() {
            self.faults.prod.get_or_insert(Fault::Unsettled);
        }
        let mut new = judged.map_each(|it| it.0, |it| it.0);
        // What counts is when the store was asked: a reading that a busy machine delays does not let others
        // in just before the list settles that they wait for.
        let asked = asked.map_or(now.instant, |it| it.min(now.instant));
        self.is_late = self.has_waited(asked);
        self.withhold(current, &mut new, now.instant);
        // The very first lists do not replace others.
        if current.are_read() {
            self.note_change(current, &new, now.instant);
        }
        let is_kept = self.faults.iter().any(|(_, fault)| fault.is_some());
        self.is_settled = !is_kept && self.gray.is_empty() && self.prod.is_empty();
        new
    }

    /// The next reading may bring the changes of these digests, which nobody has to accept any more, or lists
    /// that are `meant`.
    pub(in crate::store) fn accept_in_advance(&mut self, digests: Vec<String>, meant: Vec<String>) {
        (self.foreseen, self.meant) = (digests, meant);
    }

    /// True where these lists, as a whole, are what somebody wanted to have.
    fn are_meant(&mut self, read: &ParsedReading) -> bool {
        let meant = std::mem::take(&mut self.meant);
        let is_meant = |it: Digest| meant.contains(&it.of_service(&self.service).to_string());
        !meant.is_empty() && digest_of(read).is_some_and(is_meant)
    }

    /// The rules for `gray` and for `prod`: none for what was accepted in advance, and nothing waits then.
    fn rules_for(
        &mut self,
        read: &ParsedReading,
        rules: Option<GuardRules>,
        are_meant: bool,
    ) -> [Option<GuardRules>; 2] {
        let accepted = std::mem::take(&mut self.foreseen);
        if accepted.is_empty() && !are_meant {
            return [rules, rules];
        }
        let is_accepted = |digest: Digest, held: Option<HeldChange>| {
            // What is held came before the command, which has said nothing of it.
            let is_held = held.is_some_and(|it| it.digest == digest);
            let digest = digest.of_service(&self.service).to_string();
            are_meant && !is_held || accepted.contains(&digest)
        };
        let (gray, prod) = (read.gray.as_ref(), read.prod.as_ref());
        let gray = gray.is_ok_and(|it| is_accepted(it.digest(), self.gray.held()));
        let of_prod = |it: &Arc<PeerList>| it.digest(ListName::Prod);
        let prod = prod.is_ok_and(|it| is_accepted(of_prod(it), self.prod.held()));
        if gray {
            self.gray = Gate::default();
        }
        if prod {
            self.prod = Gate::default();
        }
        [gray, prod].map(|it| rules.filter(|_| !it))
    }

    /// What was `read`, without the lists that have become empty only a moment ago.
    fn take_emptied(
        &mut self,
        current: &Lists,
        read: ParsedReading,
        empty_for: EmptyFor,
    ) -> ParsedReading {
        let compared = current.each().zip(read.as_ref());
        let mut becomes_empty: ByList<bool> = compared.map_each(becomes_empty, becomes_empty);
        // A held change is not new with each reading.
        let holds_empty = self.prod.held().is_some_and(|it| it.entries == 0);
        becomes_empty.prod &= !holds_empty;
        let is_unsettled =
            ByList::from_fn(|list| becomes_empty[list] && empty_for[list] < settle_time(list));
        let emptied = is_unsettled.iter().filter(|(_, it)| **it);
        self.emptied = emptied.map(|(list, _)| list).collect();
        read.zip(is_unsettled).map_each(if_settled, if_settled)
    }

    /// Keeps back those lists of `new` that have to wait for another one, and notes that among the
    /// faults.
    fn withhold(&mut self, current: &Lists, new: &mut SharedLists, now: Instant) {
        self.withheld = Withheld::default();
        if self.emptied.is_empty() && !self.prod.settles() {
            self.waits_since = None;
            return;
        }
        let nobody_is_gray = new.gray.is_empty();
        if !self.is_late && !nobody_is_gray {
            let compared = new.as_mut().zip(current.each());
            let faulty = compared.zip(self.faults.as_mut());
            self.withheld = faulty.map_each(keep_back, keep_back);
        }
        if self.prod.settles() || self.withholds() {
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

    /// True when lists wait for others to settle.
    fn withholds(&self) -> bool {
        let ByList { gray, pre, prod } = &self.withheld;
        gray.is_some() || pre.is_some() || prod.is_some()
    }

    /// Tells the gate of `prod` if `new` brings another one at once.
    fn note_change(&mut self, current: &Lists, new: &SharedLists, now: Instant) {
        if is_other(&*new.prod, &*current.prod) {
            self.prod.note_change(now);
        }
    }

    /// The store cannot be reached: no time counts until it has been read again.
    pub(in crate::store) fn lose_sight(&mut self) {
        self.gray.lose_sight();
        self.prod.lose_sight();
        // The next reading shows what there is, and what of it has to wait.
        self.withheld = Withheld::default();
        self.emptied.clear();
        (self.waits_since, self.is_late) = (None, false);
    }

    /// What waits is another store's: nothing does any more.
    pub(in crate::store) fn forget(&mut self) {
        let told = std::mem::take(&mut self.told);
        *self = Self {
            told,
            ..Self::new(self.service.clone(), self.rules)
        };
    }

    /// Every list keeps its value for this reason, until the next reading.
    pub(in crate::store) fn keep_all(&mut self, fault: Fault) {
        self.faults = ByList::all(Some(fault));
        self.is_settled = false;
    }

    /// The `current` lists with a `gray` that was held, and whose time has come.
    pub(in crate::store) fn ripe_gray(
        &mut self,
        current: &Lists,
        now: Timestamp,
    ) -> Option<SharedLists> {
        let gray = self.gray.ripe(self.rules, &current.gray, now)?;
        Some(SharedLists {
            gray,
            ..current.shared()
        })
    }

    /// The `current` lists with what has waited for others for long enough. If that was for a list that
    /// was found empty, a reading has to come first, which may take a while, and may end the wait.
    pub(in crate::store) fn ripe_withheld(
        &mut self,
        current: &Lists,
        now: Instant,
    ) -> Option<SharedLists> {
        let waits = self.withholds() && self.emptied.is_empty();
        let is_ripe = waits && self.has_waited(now);
        is_ripe.then(|| self.release(current, now))
    }

    /// The `current` lists with what has waited for others.
    fn release(&mut self, current: &Lists, now: Instant) -> SharedLists {
        self.faults = self
            .faults
            .map(|fault| fault.filter(|it| *it != Fault::Withheld));
        let withheld = std::mem::take(&mut self.withheld);
        let new = current.shared().zip(withheld).map_each(over, over);
        self.note_change(current, &new, now);
        new
    }

    /// The `current` lists with a `prod` whose time has come.
    pub(in crate::store) fn ripe_prod(&mut self, current: &Lists, now: Timestamp) -> Option<Ripe> {
        let settles = self.prod.settles();
        if settles && !self.emptied.is_empty() && !self.is_late {
            return None;
        }
        let prod = self.prod.ripe(self.rules, &current.prod, now)?;
        if !settles {
            // It comes in alone: nothing has waited for it, and it waits for nothing.
            return Some(Ripe::Held(SharedLists {
                prod,
                ..current.shared()
            }));
        }
        self.faults.prod = None;
        let others = self.release(current, now.instant);
        if self.emptied.is_empty() {
            self.waits_since = None;
        }
        Some(Ripe::Settled(SharedLists { prod, ..others }))
    }

    /// When something may be ripe, if nothing else happens.
    pub(in crate::store) fn ripe_at(&self) -> Option<Instant> {
        let prod = self.prod.ripe_at(self.rules);
        let prod = prod.filter(|_| !self.prod.settles() || self.emptied.is_empty() || self.is_late);
        let waits = self.withholds() && self.emptied.is_empty();
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
    ) -> Option<(ListName, SharedLists)> {
        let new = current.shared();
        if let Some(gray) = accept(&mut self.gray, &self.service, digest) {
            return Some((ListName::Gray, SharedLists { gray, ..new }));
        }
        let prod = accept(&mut self.prod, &self.service, digest)?;
        Some((ListName::Prod, SharedLists { prod, ..new }))
    }

    /// The lists that keep their values although none of their changes is held.
    pub(in crate::store) fn faults(&self) -> Vec<(ListName, Fault)> {
        let faults = self.faults.into_iter();
        faults.filter_map(|(list, it)| Some((list, it?))).collect()
    }

    /// When what waits for others has done so for the longest time.
    fn waits_until(&self) -> Option<Instant> {
        let waits = self.withholds() || self.prod.settles();
        let until = self.waits_since.map(|it| it + MOST_WITHHELD);
        until.filter(|_| waits && !self.is_late)
    }

    /// True when a change of the gray list is held.
    pub(in crate::store) fn holds_gray(&self) -> bool {
        self.gray.held().is_some()
    }

    /// What is held.
    pub(in crate::store) fn held(&self) -> Vec<HeldChange> {
        let held = [self.gray.held(), self.prod.held()];
        let held = held.into_iter().flatten();
        let shown = |it: HeldChange| HeldChange {
            digest: it.digest.of_service(&self.service),
            ..it
        };
        held.map(shown).collect()
    }

    /// Logs what was held `before` and has been let in.
    pub(in crate::store) fn tell_accepted(
        &mut self,
        before: &[HeldChange],
        list: ListName,
        by: By,
    ) {
        for it in before.iter().filter(|it| it.list == list) {
            let Some(untold) = self.accepted.turn(Instant::now()) else {
                continue;
            };
            let (list, digest, by) = (list.name(), it.digest, by.name());
            let service = self.service.in_log();
            log::warn!(
                "change-accepted {service}list={list} digest={digest} by={by} untold={untold}"
            );
        }
        self.told.retain(|(told, _)| *told != list);
    }

    /// Logs what is newly held. What is left out, because there is too much, is logged at the next
    /// reading if it is still held.
    pub(in crate::store) fn tell_held(&mut self, held: &[HeldChange]) {
        let is = |it: &HeldChange| (it.list, it.digest);
        let service = self.service.in_log();
        self.told.retain(|told| {
            let stays = held.iter().any(|it| is(it) == *told);
            if !stays {
                let (list, digest) = (told.0.name(), told.1);
                log::info!("change-forgotten {service}list={list} digest={digest}");
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
                "change-held {service}list={} reason={} digest={} entries={} gone={} new={} untold={untold} \
                 remedy=\"if it is meant: graygate lists accept {}; if not: take it back in the store\"",
                it.list.name(),
                it.reason.name(),
                it.digest,
                it.entries,
                it.gone.count,
                it.new.count,
                it.digest
            );
            self.told.push(is(it));
        }
    }
}
