//! The only way for lists to come into force.
//!
//! A [`Publisher`] takes what a store has read, submits it to the [`door`](crate::store::gate::door),
//! and replaces the snapshot by what that lets in. It also brings the last-good copy into force while
//! there is nothing else, lets in what has waited long enough, and keeps the status for operators.
//!
//! Locks are taken in this order: what is at the door, then the status.

mod feed;
mod handed;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

pub(crate) use feed::Feed;
pub(crate) use handed::{HandedLists, TakenLists};

use super::copy::{self, Copy, Keeper, Purpose};
use super::findings::Reported;
use super::status::ReportedFaults;
use super::{By, Cause, Fault, Mode, Status, StoreFinding, StoreName};
use crate::config::Config;
use crate::error::StoreFindingKind;
use crate::lists::findings::{self, Findings};
use crate::lists::{ListName, Lists, ServiceName, SharedLists};
use crate::process::supervised;
use crate::snapshot::Published;
use crate::store::gate::door::{Awaited, Door, EmptyFor, ParsedReading, Ripe};
use crate::store::gate::guard::{GuardRules, HeldChange, Timestamp};
use crate::upstream::in_force::InForce;

/// Brings lists into force. One for the process.
pub(crate) struct Publisher {
    lists: Arc<InForce>,
    /// That of the process that this one succeeds: counting goes on from here.
    generation_before: u64,
    /// Told of every held change that somebody accepts, by its digest.
    witness: Mutex<Option<Witness>>,
    peer_port: AtomicU16,
    /// Taken before all other locks.
    turn: Mutex<StoreTurn>,
    /// Names the trusted proxies, which findings are about.
    config: Option<Arc<Published<Config>>>,
    /// Held while lists are judged and replaced.
    entrance: Mutex<Intake>,
    /// Something may have come to wait at the door.
    knock: Condvar,
    status: Mutex<Status>,
    keeper: Mutex<Option<Arc<Keeper>>>,
    /// Rung when something that others want to know may have changed.
    bell: Option<Sender<()>>,
}

/// Which store has its turn.
#[derive(Default)]
struct StoreTurn {
    number: u64,
    /// Dropped when the turn ends.
    lives: Option<Sender<()>>,
}

/// Where lists come in.
struct Intake {
    door: Door,
    /// The last-good copy, until the store was read.
    copy: Option<FoundCopy>,
    /// This process has read the store.
    was_read: bool,
    /// What is in force is another store's, so no copy is kept of it.
    awaits_store: bool,
    /// The same entries may mean other servers.
    are_anew: bool,
    reported: Reported,
    reported_faults: ReportedFaults,
}

/// Whoever is told of accepted changes.
pub(crate) type Witness = Box<dyn Fn(&str) + Send>;

/// The last-good copy that was found at the start. Whatever its age, the first reading is compared
/// with it: a restart is no way around what is held.
struct FoundCopy {
    copy: Copy,
    /// Nothing is to be served by it while the store is away.
    is_too_old: bool,
}

/// A held change that is in force now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedChange {
    /// Which list.
    pub list: ListName,
    /// The generation with it.
    pub generation: u64,
}

impl Publisher {
    /// A publisher into `lists`, for entries of `source`; peers without a port get `peer_port`.
    pub(crate) fn new(
        lists: Arc<InForce>,
        peer_port: u16,
        rules: GuardRules,
        source: impl fmt::Display,
    ) -> Self {
        Self {
            lists,
            generation_before: 0,
            witness: Mutex::new(None),
            peer_port: AtomicU16::new(peer_port),
            turn: Mutex::default(),
            config: None,
            entrance: Mutex::new(Intake {
                door: Door::new(rules),
                copy: None,
                was_read: false,
                awaits_store: false,
                are_anew: false,
                reported: Reported::default(),
                reported_faults: ReportedFaults::default(),
            }),
            knock: Condvar::new(),
            status: Mutex::new(Status::new(source.to_string())),
            keeper: Mutex::default(),
            bell: None,
        }
    }

    /// Sets a bell to ring, without waiting for its listener, when lists, mode or what is held may have
    /// changed.
    pub(crate) fn with_bell(mut self, bell: Sender<()>) -> Self {
        self.bell = Some(bell);
        self
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // A full queue already contains a ring that was not heard yet: that is enough.
            let _ = bell.try_send(());
        }
    }

    /// Will compare the lists with the trusted proxies of `config`, as it is at that time.
    pub(crate) fn with_config(mut self, config: Arc<Published<Config>>) -> Self {
        self.config = Some(config);
        self
    }

    /// What is likely to be a mistake in `lists`.
    pub(crate) fn findings(&self, lists: &Lists) -> Findings {
        let config = self.config.as_ref().map(|it| it.load());
        let trusted = config.as_ref().map(|it| &*it.gateway.trusted_proxies);
        findings::findings(lists, trusted.unwrap_or_default())
    }

    /// Keeps a copy of the lists in force at `path`. What is found there, if it is of the same store,
    /// is what the first reading is compared with; and what [`Self::use_copy`] uses, unless it is older
    /// than the purpose allows.
    ///
    /// # Errors
    /// When the thread that writes cannot be started.
    pub(crate) fn with_copy(self, path: &Path, purpose: Purpose) -> io::Result<Self> {
        self.keep_at(path, purpose)?;
        Ok(self)
    }

    fn keep_at(&self, path: &Path, purpose: Purpose) -> io::Result<()> {
        let (max_age, store) = (purpose.max_age, purpose.store.clone());
        let (keeper, found) = Keeper::start(path, purpose)?;
        *self.locked_keeper() = Some(Arc::new(keeper));
        // Once lists were read, only the next start has a use for one.
        if self.lists.load().are_read() {
            return Ok(());
        }
        let found = judge(path, found, &store, max_age);
        if let Some(FoundCopy { copy, .. }) = &found {
            self.lists.names().remember(copy.names.iter().cloned());
        }
        self.locked_entrance().copy = found;
        Ok(())
    }

    /// Keeps the copy there and for this purpose from now on, or none; the one so far is left as it is.
    ///
    /// # Errors
    /// When the thread that writes cannot be started: then none is kept.
    pub(crate) fn move_copy(&self, copy: Option<(&Path, Purpose)>) -> io::Result<()> {
        let before = self.locked_keeper().take();
        // It may have the same lock.
        if let Some(before) = before {
            before.end();
        }
        let Some((path, purpose)) = copy else {
            return Ok(());
        };
        self.keep_at(path, purpose)?;
        let entrance = self.locked_entrance();
        if self.lists.load().are_read() {
            self.keep_copy(&entrance);
        }
        Ok(())
    }

    fn locked_keeper(&self) -> MutexGuard<'_, Option<Arc<Keeper>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> Option<Arc<Keeper>> {
        self.locked_keeper().clone()
    }

    fn peer_port(&self) -> u16 {
        self.peer_port.load(Ordering::Acquire)
    }

    /// Starts the thread that lets in what waits, once its time has come.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn keep_time(self: &Arc<Self>) -> io::Result<()> {
        let publisher = Arc::clone(self);
        supervised::spawn("lists-guard", move || publisher.follow_time())?;
        Ok(())
    }

    fn follow_time(&self) -> ! {
        let mut entrance = self.locked_entrance();
        loop {
            self.let_in_ripe(&mut entrance, Instant::now());
            let reported = &mut entrance.reported;
            reported.tell_unpublished(&self.lists.load(), Instant::now());
            let times = [entrance.door.ripe_at(), entrance.reported.unpublished_at()];
            let next = times.into_iter().flatten().min();
            entrance = match next.map(|it| it.saturating_duration_since(Instant::now())) {
                Some(left) => {
                    let waited = self.knock.wait_timeout(entrance, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.knock.wait(entrance);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// The lists in force.
    pub(crate) fn lists(&self) -> Arc<Lists> {
        self.lists.load()
    }

    /// The lists in force; before there are any, those of the copy that the first reading will be
    /// compared with.
    fn compared(&self, entrance: &Intake) -> Arc<Lists> {
        let lists = self.lists.load();
        match &entrance.copy {
            Some(found) if !lists.are_read() => Arc::new(found.copy.lists.clone()),
            _ => lists,
        }
    }

    /// What is known of the store.
    pub(crate) fn status(&self) -> Status {
        self.locked().clone()
    }

    /// What is known of the last-good copy, if one is kept.
    pub(crate) fn copy(&self) -> Option<copy::CopyView> {
        self.keeper().map(|it| it.view())
    }

    /// True when something is held.
    pub(crate) fn holds(&self) -> bool {
        !self.locked().held.is_empty()
    }

    fn locked(&self) -> MutexGuard<'_, Status> {
        // A status is whole at any moment, so a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked_entrance(&self) -> MutexGuard<'_, Intake> {
        // As above: each gate is.
        self.entrance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how changes are noticed from now on.
    pub(crate) fn set_mode(&self, mode: Mode) {
        let before = std::mem::replace(&mut self.locked().mode, mode);
        if before != mode {
            log::info!("lists-mode mode={}", mode.name());
            self.ring();
        }
    }

    /// From now on the guard goes by these rules; what they allow is let in.
    pub(crate) fn set_rules(&self, rules: GuardRules) {
        let mut entrance = self.locked_entrance();
        entrance.door.set_rules(rules);
        self.let_in_ripe(&mut entrance, Instant::now());
        self.knock.notify_all();
    }

    /// Notes that the store could not be read; the lists in force stay, and so does what is held: it is
    /// unknown whether the store still has it. Logged once for as long as the reason is the same.
    pub(crate) fn failed(&self, error: impl fmt::Display) {
        self.note_failure(error, false);
    }

    fn note_failure(&self, error: impl fmt::Display, at_once: bool) {
        let (error, generation) = (error.to_string(), self.lists.load().generation);
        let mut entrance = self.locked_entrance();
        entrance.door.lose_sight();
        self.locked().failed(error, generation, at_once);
    }

    /// As [`Self::failed`], where each list is kept for this reason until the next reading.
    pub(crate) fn failed_for(&self, fault: Fault, error: impl fmt::Display) {
        // Such a reason does not go away by itself.
        self.note_failure(error, true);
        let mut entrance = self.locked_entrance();
        entrance.door.keep_all(fault);
        let faults = entrance.door.faults();
        entrance.reported_faults.tell(&faults, Instant::now());
        self.locked().faults = faults;
    }

    /// Notes the server from which the lists come from now on.
    pub(crate) fn set_server(&self, server: Option<SocketAddr>) {
        self.locked().server = server;
    }

    /// Notes what is found of a kind, or that nothing is.
    pub(crate) fn find(&self, finding: StoreFindingKind, found: Option<StoreFinding>) {
        self.locked().find(finding, found);
    }

    /// True when a list in force has entries, or one of a copy that may come into force: there is
    /// something to lose.
    pub(crate) fn has_lists(&self) -> bool {
        let has_entries = |it: &Lists| ListName::ALL.iter().any(|list| it.len(*list) > 0);
        let entrance = self.locked_entrance();
        let copy = entrance.copy.as_ref().filter(|it| !it.is_too_old);
        copy.is_some_and(|it| has_entries(&it.copy.lists)) || has_entries(&self.lists.load())
    }

    /// Notes that the store has not told of what a check has found, although it should.
    pub(crate) fn missed_event(&self) {
        let generation = self.lists.load().generation;
        self.locked().missed_event(generation);
    }

    /// The store has what it had when it was last read: true when that needs no second look, since
    /// all of it is in force. The rules make no difference then, nor does time.
    pub(crate) fn confirm(&self, cause: Cause) -> bool {
        let mut entrance = self.locked_entrance();
        // What the log is owed is told with the next lists.
        let is_settled = entrance.door.is_settled() && !entrance.reported.owes();
        if is_settled {
            self.succeeded(&mut entrance, cause);
            self.keep_copy(&entrance);
        }
        is_settled
    }

    /// Looks up names that are new: their servers are to be known when the lists come into force. That takes
    /// a while, too; returns how long.
    fn prepare(&self, read: &ParsedReading) -> Duration {
        let pools = [&read.pre, &read.prod].map(|it| it.as_ref().ok());
        self.lists.names().prepare(pools)
    }

    fn publish_parsed(
        &self,
        read: ParsedReading,
        empty_for: EmptyFor,
        cause: Cause,
        now: impl FnOnce() -> Timestamp,
    ) -> Awaited {
        let mut entrance = self.locked_entrance();
        let current = match self.is_strange(&entrance, &read) {
            // Also if it is in force: nothing of it is to be compared with.
            true => Arc::new(Lists::unread()),
            false => self.compared(&entrance),
        };
        let now = now();
        let new = entrance.door.judge(&current, read, empty_for, now);
        // Whoever sees the new lists must not see the age of the old ones.
        self.locked().checked = Some(now.instant);
        self.put_in_force(&mut entrance, new, cause);
        (entrance.copy, entrance.awaits_store) = (None, false);
        self.note_held(&mut entrance);
        self.succeeded(&mut entrance, cause);
        // What has stood until now may come in with what has just been read.
        self.let_in_ripe(&mut entrance, now.instant);
        self.ring();
        self.keep_copy(&entrance);
        self.knock.notify_all();
        let mut awaited = Awaited::default();
        awaited.add(&ServiceName::default(), &entrance.door);
        awaited
    }

    /// True when the copy that was found turns out to be of another store: it is set aside then.
    fn is_strange(&self, entrance: &Intake, read: &ParsedReading) -> bool {
        let copy = entrance.copy.as_ref().zip(read.prod.as_ref().ok());
        let is_strange = copy.is_some_and(|(found, prod)| found.copy.is_strange_to(prod));
        if let Some(keeper) = self.keeper().filter(|_| is_strange) {
            keeper.set_aside();
        }
        is_strange
    }

    fn succeeded(&self, entrance: &mut Intake, cause: Cause) {
        entrance.was_read = true;
        let faults = entrance.door.faults();
        entrance.reported_faults.tell(&faults, Instant::now());
        self.locked().succeeded(faults, cause);
    }

    /// Brings the last-good copy into force, if there is one that may be used, and nothing else is.
    pub(crate) fn use_copy(&self) {
        let pools = self.usable_copy(&self.locked_entrance());
        if let Some(Copy { lists, .. }) = &pools {
            let pools = [&lists.pre, &lists.prod].map(|it| Some(&**it));
            self.lists.names().prepare(pools);
        }
        let entrance = self.locked_entrance();
        let Some(copy) = self.usable_copy(&entrance) else {
            return;
        };
        let mut lists = copy.lists.clone();
        lists.generation = self.generation_before + 1;
        let (generation, digest) = (lists.generation, lists.digest);
        let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
        self.lists.store(lists);
        let mut status = self.locked();
        status.changed = Some(copy.written);
        status.refreshed(Cause::Copy);
        self.ring();
        let age = copy.age(SystemTime::now()).unwrap_or_default();
        let age = copy::shown_age(age);
        log::warn!(
            "lists-from-copy generation={generation} digest={digest} age={age} gray={gray} pre={pre} prod={prod}"
        );
    }

    /// The last-good copy, if it is what may come into force now.
    fn usable_copy(&self, entrance: &Intake) -> Option<Copy> {
        let found = entrance.copy.as_ref().filter(|it| !it.is_too_old);
        let found = found.filter(|_| !self.lists.load().are_read());
        found.map(|it| it.copy.clone())
    }

    /// Brings the held change into force whose digest is `digest`, as it is displayed, if the store
    /// had it when it was last read.
    ///
    /// # Errors
    /// Nothing of that digest is held; with what is.
    pub(crate) fn accept(&self, digest: &str, by: By) -> Result<AcceptedChange, Vec<HeldChange>> {
        let mut entrance = self.locked_entrance();
        let Some((list, new)) = entrance.door.accept(digest, &self.lists.load()) else {
            return Err(self.locked().held.clone());
        };
        let generation = self.let_in(&mut entrance, new, list, by);
        drop(entrance);
        let witness = self.witness.lock();
        if let Some(witness) = &*witness.unwrap_or_else(PoisonError::into_inner) {
            witness(digest);
        }
        Ok(AcceptedChange { list, generation })
    }

    fn let_in_ripe(&self, entrance: &mut Intake, now: Instant) {
        if let Some(new) = entrance.door.ripe_gray(&self.lists.load(), now) {
            self.let_in(entrance, new, ListName::Gray, By::Rules);
        }
        match entrance.door.ripe_prod(&self.lists.load(), now) {
            Some(Ripe::Held(new)) => {
                self.let_in(entrance, new, ListName::Prod, By::Rules);
            }
            Some(Ripe::Settled(new)) => self.let_in_late(entrance, new),
            None => {}
        }
        if let Some(new) = entrance.door.ripe_withheld(&self.lists.load(), now) {
            self.let_in_late(entrance, new);
        }
    }

    /// Brings a change into force that was held; returns the generation.
    fn let_in(&self, entrance: &mut Intake, new: SharedLists, list: ListName, by: By) -> u64 {
        let held = self.locked().held.clone();
        entrance.door.tell_accepted(&held, list, by);
        self.note_held(entrance);
        self.put_in_force(entrance, new, Cause::Accepted);
        self.locked().refreshed(Cause::Accepted);
        self.ring();
        self.keep_copy(entrance);
        self.lists.load().generation
    }

    /// Brings lists into force that had to wait for a moment.
    fn let_in_late(&self, entrance: &mut Intake, new: SharedLists) {
        self.put_in_force(entrance, new, Cause::Event);
        let faults = entrance.door.faults();
        entrance.reported_faults.tell(&faults, Instant::now());
        self.locked().faults = faults;
        self.ring();
        self.keep_copy(entrance);
    }

    fn note_held(&self, entrance: &mut Intake) {
        let held = entrance.door.held();
        entrance.door.tell_held(&held);
        self.locked().held = held;
    }

    fn keep_copy(&self, entrance: &Intake) {
        if entrance.awaits_store {
            return;
        }
        if let Some(keeper) = self.keeper() {
            keeper.keep(self.lists.load(), self.lists.names().addresses());
        }
    }

    /// Writes the newest copy, and stops keeping it.
    pub(crate) fn end(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.end();
        }
    }

    /// Logs what was left out because too much had been logged before, if it still holds. For a store
    /// that is not read again before it changes: nothing else would log it there.
    pub(crate) fn tell_owed(&self) {
        if self.locked_entrance().reported.owes() {
            self.tell_findings();
        }
        let mut entrance = self.locked_entrance();
        self.note_held(&mut entrance);
        let faults = entrance.door.faults();
        entrance.reported_faults.tell(&faults, Instant::now());
    }

    /// Logs likely mistakes in the lists in force that were not logged yet.
    pub(crate) fn tell_findings(&self) {
        let (mut entrance, lists) = (self.locked_entrance(), self.lists.load());
        let findings = self.findings(&lists);
        entrance.reported.tell(&lists, &findings, Instant::now());
    }

    fn put_in_force(&self, entrance: &mut Intake, new: SharedLists, cause: Cause) {
        let current = self.lists.load();
        let before = current.generation.max(self.generation_before);
        let mut new = Lists::new(before + 1, new);
        let are_anew = std::mem::take(&mut entrance.are_anew);
        let same = current.are_read() && current.digest == new.digest && !are_anew;
        let same_remarks = ListName::ALL
            .iter()
            .all(|list| current.remarks(*list) == new.remarks(*list));
        if same && same_remarks && !entrance.reported.owes() {
            return;
        }
        let findings = self.findings(&new);
        entrance.reported.tell(&new, &findings, Instant::now());
        if same {
            // The same lists for every request; only what is said of them differs.
            new.generation = current.generation;
            self.lists.store(new);
            return;
        }
        // First: whoever sees the new lists sees when they came into force.
        self.locked().changed = Some(SystemTime::now());
        self.lists.store(new);
        let reported = &mut entrance.reported;
        reported.tell_published(&self.lists.load(), cause, Instant::now());
        self.knock.notify_all();
    }
}

/// The copy that was found, if there is a good one; says why it may not be used.
fn judge(
    path: &Path,
    found: copy::CopyAtStart,
    store: &StoreName,
    max_age: Option<Duration>,
) -> Option<FoundCopy> {
    let copy = match found {
        Ok(copy) => copy?,
        Err(error) => {
            let reason = error.to_string();
            log::error!("copy-refused path={path:?} reason={reason:?}");
            return None;
        }
    };
    if let Some(other) = copy.other_store(store) {
        let (other, store) = (other.to_string(), store.to_string());
        log::error!("copy-of-another-store path={path:?} store={other:?} own={store:?}");
        return None;
    }
    let written = humantime::format_rfc3339_millis(copy.written);
    if copy.store.is_none() {
        // It was written before copies named their store, most likely by this very gateway.
        log::warn!("copy-names-no-store path={path:?} written={written} taken_for=\"{store}\"");
    }
    let age = copy.age(SystemTime::now());
    let is_too_old = age.zip(max_age).is_some_and(|(age, most)| age > most);
    match age {
        None => log::warn!("copy-from-the-future path={path:?} written={written}"),
        Some(_) if is_too_old => {
            let [age, most] = [age, max_age].map(|it| copy::shown_age(it.unwrap_or_default()));
            log::error!(
                "copy-refused path={path:?} reason=\"it is older than last_good_max_age\" \
                 written={written} age={age} max_age={most}"
            );
        }
        Some(_) => {}
    }
    Some(FoundCopy { copy, is_too_old })
}

#[cfg(test)]
mod tests;
