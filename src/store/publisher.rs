//! The only way for lists to come into force.
//!
//! A [`Publisher`] takes what a store has read, submits it to the [`door`](crate::store::gate::door) of each
//! service, and replaces the snapshot by what these let in: all at once, by one swap. It also brings the
//! last-good copy into force while there is nothing else, lets in what has waited long enough, and keeps the
//! status for operators.
//!
//! Services are judged by themselves, and count their generations by themselves. What one of them holds or
//! keeps back holds no other one up, with one exception: who has the gray list of another service has
//! whatever is in force there (`intake`).
//!
//! Locks are taken in this order: what is at the doors, then the status.

mod feed;
mod handed;
mod intake;
mod last_good;
mod reading;
mod time;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;

pub(crate) use feed::Feed;
pub(crate) use handed::{HandedLists, HandedService, TakenLists};

use self::intake::{Intake, Intakes, ListTerms, TermsByService};
use super::copy::Keeper;
use super::status::StoreShare;
use super::{
    By, Cause, Fault, ListsWatch, Mode, ReleaseReading, ReleaseWatch, ServiceReading, Status,
    StoreFinding,
};
use crate::config::{Config, ServiceSettings};
use crate::error::StoreFindingKind;
use crate::lists::findings::{self, Findings};
use crate::lists::{GrayList, ListName, Lists, ServiceName, SharedLists};
use crate::snapshot::Published;
use crate::store::gate::guard::{GuardRules, HeldChange, Timestamp};
use crate::upstream::in_force::InForce;

/// Brings lists into force. One for the process.
pub(crate) struct Publisher {
    lists: Arc<InForce>,
    /// Told of every held change that somebody accepts, by its digest.
    witness: Mutex<Option<Witness>>,
    /// Told of what stores say of releases.
    watch: Option<Arc<dyn ReleaseWatch>>,
    /// Told of what stores have, whatever comes into force of it.
    lists_watch: Option<Arc<dyn ListsWatch>>,
    /// What entries mean, by service; changed with the entrance, and read without it.
    terms: ArcSwap<TermsByService>,
    /// Taken before all other locks.
    turn: Mutex<StoreTurn>,
    /// Names the trusted proxies, which findings are about.
    config: Option<Arc<Published<Config>>>,
    /// Held while lists are judged and replaced.
    entrance: Mutex<Intakes>,
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

/// Whoever is told of accepted changes.
pub(crate) type Witness = Box<dyn Fn(&str) + Send>;

/// What was read of releases.
type ReadReleases = Vec<(ServiceName, ReleaseReading)>;

/// A held change that is in force now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedChange {
    /// Of which service.
    pub service: ServiceName,
    /// Which list.
    pub list: ListName,
    /// The generation with it.
    pub generation: u64,
}

impl Publisher {
    /// A publisher into `lists` of the default service, for entries of `source`; peers without a port get
    /// `peer_port`.
    pub(crate) fn new(
        lists: Arc<InForce>,
        peer_port: u16,
        rules: GuardRules,
        source: impl fmt::Display,
    ) -> Self {
        let terms = ListTerms::of_port(peer_port);
        let terms = TermsByService::from([(ServiceName::default(), terms)]);
        Self {
            lists,
            witness: Mutex::new(None),
            watch: None,
            lists_watch: None,
            entrance: Mutex::new(Intakes::new(&terms, rules)),
            terms: ArcSwap::from_pointee(terms),
            turn: Mutex::default(),
            config: None,
            knock: Condvar::new(),
            status: Mutex::new(Status::new(source.to_string())),
            keeper: Mutex::default(),
            bell: None,
        }
    }

    /// As [`Self::set_services`].
    pub(crate) fn with_services(self, services: &[Arc<ServiceSettings>]) -> Self {
        self.set_services(services, Vec::new());
        self
    }

    /// From now on there are these services. What is in force of those that stay remains, and so does what
    /// waits for them; what waits for one that is gone goes with it. A new one begins with what was `read` of
    /// it, at the same moment; nothing else of that is used.
    pub(crate) fn set_services(
        &self,
        services: &[Arc<ServiceSettings>],
        read: Vec<ServiceReading>,
    ) {
        let terms = services
            .iter()
            .map(|it| (it.name.clone(), ListTerms::of(it)));
        let terms: TermsByService = terms.collect();
        let is_new = |it: &ServiceReading| self.lists.load_of(&it.service).is_none();
        let read = read.into_iter().filter(is_new).collect();
        let mut read = Self::parse_by(read, &terms);
        let releases = Self::taken_releases(&mut read);
        self.prepare(&read);
        let mut entrance = self.locked_entrance();
        entrance.set_services(&terms);
        self.locked().retain(|service| terms.contains_key(service));
        self.terms.store(Arc::new(terms));
        // Whatever is in force is of services that there are here, too.
        let new = self.judge_all(&mut entrance, read, Timestamp::now());
        self.put_in_force_with(&mut entrance, new, Cause::Reconnect, Some(services));
        self.see(&releases);
        self.knock.notify_all();
    }

    /// Sets a bell to ring, without waiting for its listener, when lists, mode or what is held may have
    /// changed.
    pub(crate) fn with_bell(mut self, bell: Sender<()>) -> Self {
        self.bell = Some(bell);
        self
    }

    /// Will tell `watch` of what stores say of releases.
    pub(crate) fn with_watch(mut self, watch: Arc<dyn ReleaseWatch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Will tell `watch` of what stores have.
    pub(crate) fn with_lists_watch(mut self, watch: Arc<dyn ListsWatch>) -> Self {
        self.lists_watch = Some(watch);
        self
    }

    /// Tells of what was read of releases where the lists stay.
    fn see(&self, read: &ReadReleases) {
        if let Some(watch) = &self.watch {
            read.iter().for_each(|(it, read)| watch.see(it, read));
        }
    }

    /// Tells of what was read of releases ahead of these lists.
    fn expect(&self, read: &ReadReleases, new: &[(ServiceName, SharedLists)]) {
        let Some(watch) = &self.watch else {
            return;
        };
        for (service, read) in read {
            if let Some((_, lists)) = new.iter().find(|(it, _)| it == service) {
                watch.expect(service, read, lists.pre.digest(ListName::Pre));
            }
        }
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
        findings::findings(lists, trusted.unwrap_or_default(), SystemTime::now())
    }

    /// The default service's lists in force.
    pub(crate) fn lists(&self) -> Arc<Lists> {
        self.lists.load()
    }

    /// A service's lists in force; unread ones where there is no such service.
    pub(crate) fn lists_of(&self, service: &ServiceName) -> Arc<Lists> {
        let lists = self.lists.load_of(service);
        lists.unwrap_or_else(|| Arc::new(Lists::unread()))
    }

    /// The names of all services, the default one's first.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        let mut names = self.locked_entrance().names();
        names.sort_by_key(|it| !it.is_default());
        names
    }

    /// The service whose gray list this one has, if it is another one.
    pub(crate) fn owner_of(&self, service: &ServiceName) -> Option<ServiceName> {
        self.locked_entrance().owner_of(service).cloned()
    }

    /// What is known of the store.
    pub(crate) fn status(&self) -> Status {
        self.locked().clone()
    }

    /// A service's lists in force, as [`Self::lists_of`], with what is looked at of the status at the same
    /// moment.
    pub(crate) fn lists_with<T>(
        &self,
        service: &ServiceName,
        look: impl FnOnce(&Status) -> T,
    ) -> (Arc<Lists>, T) {
        // Lists come into force while it is locked.
        let status = self.locked();
        (self.lists_of(service), look(&status))
    }

    /// True when something is held.
    pub(crate) fn holds(&self) -> bool {
        self.locked().held().next().is_some()
    }

    fn locked(&self) -> MutexGuard<'_, Status> {
        // A status is whole at any moment, so a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked_entrance(&self) -> MutexGuard<'_, Intakes> {
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

    /// Notes that the store could not be read; the lists in force stay, and so does what is held: it is
    /// unknown whether the store still has it. Logged once for as long as the reason is the same.
    pub(crate) fn failed(&self, error: impl fmt::Display) {
        let (error, generation) = (error.to_string(), self.lists.load().generation);
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|_, intake| intake.door.lose_sight());
        self.locked().failed(error, generation, false);
    }

    /// As [`Self::failed`], of a share of the store, until [`Self::recovers`].
    fn share_failed(&self, share: &StoreShare, error: impl fmt::Display) {
        self.note_failure(share, error, false);
    }

    fn note_failure(&self, share: &StoreShare, error: impl fmt::Display, at_once: bool) {
        let (error, generation) = (error.to_string(), self.lists.load().generation);
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| {
            if share.has(service) {
                intake.door.lose_sight();
            }
        });
        let mut status = self.locked();
        let error = status.fails(share, error);
        status.failed(error, generation, at_once);
    }

    /// As [`Self::failed`], where each list is kept for this reason until the next reading.
    pub(crate) fn failed_for(&self, share: &StoreShare, fault: Fault, error: impl fmt::Display) {
        // Such a reason does not go away by itself.
        self.note_failure(share, error, true);
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| {
            if share.has(service) {
                intake.door.keep_all(fault);
                self.note_faults(service, intake);
            }
        });
    }

    /// A share of the store has been read.
    fn recovers(&self, share: &StoreShare) {
        self.locked().recovers(share);
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
    pub(crate) fn has_lists(&self, share: &StoreShare) -> bool {
        let entrance = self.locked_entrance();
        let mut all = entrance.each().filter(|(it, _)| share.has(it));
        all.any(|(service, intake)| self.has_own_lists(&entrance, service, intake))
    }

    /// The same of one service.
    pub(crate) fn has_lists_of(&self, service: &ServiceName) -> bool {
        let entrance = self.locked_entrance();
        let intake = entrance.get(service);
        intake.is_some_and(|it| self.has_own_lists(&entrance, service, it))
    }

    fn has_own_lists(&self, entrance: &Intakes, service: &ServiceName, intake: &Intake) -> bool {
        // The gray list of another service is there to be lost once.
        let is_own = |it: &ListName| *it != ListName::Gray || intake.terms.gray_of.is_none();
        let own: Vec<ListName> = ListName::ALL.into_iter().filter(is_own).collect();
        let has_entries = |it: &Lists| own.iter().any(|list| it.len(*list) > 0);
        let is_usable = entrance.copy.as_ref().is_some_and(|it| !it.is_too_old);
        let copy = intake.copy.as_ref().filter(|_| is_usable);
        copy.is_some_and(has_entries) || has_entries(&self.lists_of(service))
    }

    /// Notes that the store has not told of what a check has found, although it should.
    pub(crate) fn missed_event(&self) {
        let generation = self.lists.load().generation;
        self.locked().missed_event(generation);
    }

    /// Brings the held change into force whose digest is `digest`, as it is displayed, if the store
    /// had it when it was last read.
    ///
    /// # Errors
    /// Nothing of that digest is held; with what is.
    pub(crate) fn accept(
        &self,
        digest: &str,
        by: By,
    ) -> Result<AcceptedChange, Vec<(ServiceName, HeldChange)>> {
        let mut entrance = self.locked_entrance();
        let mut accepted = None;
        entrance.each_mut(|service, intake| {
            if accepted.is_none() {
                let new = intake.door.accept(digest, &self.lists_of(service));
                accepted = new.map(|it| (service.clone(), it));
            }
        });
        let Some((service, (list, new))) = accepted else {
            let status = self.locked();
            let held = status.held().map(|(it, held)| (it.clone(), held.clone()));
            return Err(held.collect());
        };
        let generation = self.let_in(&mut entrance, &service, new, list, by);
        drop(entrance);
        let witness = self.witness.lock();
        if let Some(witness) = &*witness.unwrap_or_else(PoisonError::into_inner) {
            witness(digest);
        }
        Ok(AcceptedChange {
            service,
            list,
            generation,
        })
    }

    /// Brings a change into force that was held; returns the generation.
    fn let_in(
        &self,
        entrance: &mut Intakes,
        service: &ServiceName,
        new: SharedLists,
        list: ListName,
        by: By,
    ) -> u64 {
        if let Some(intake) = entrance.get_mut(service) {
            let held = self.locked().of(service).held;
            intake.door.tell_accepted(&held, list, by);
            match by {
                // The key may name more; then they are told.
                By::Key => self.locked().of_mut(service).held = intake.door.held(),
                _ => self.note_held(service, intake),
            }
        }
        self.put_in_force(entrance, vec![(service.clone(), new)], Cause::Accepted);
        self.locked().refreshed(Cause::Accepted);
        self.ring();
        self.keep_copy(entrance);
        self.lists_of(service).generation
    }

    fn note_held(&self, service: &ServiceName, intake: &mut Intake) {
        let held = intake.door.held();
        intake.door.tell_held(&held);
        self.locked().of_mut(service).held = held;
    }

    /// Logs what is newly held, and what is no longer.
    pub(crate) fn tell_held(&self) {
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| self.note_held(service, intake));
    }

    fn note_faults(&self, service: &ServiceName, intake: &mut Intake) {
        let faults = intake.door.faults();
        intake
            .reported_faults
            .tell(service, &faults, Instant::now());
        self.locked().of_mut(service).faults = faults;
    }

    /// Logs what was left out because too much had been logged before, if it still holds. For a store
    /// that is not read again before it changes: nothing else would log it there.
    pub(crate) fn tell_owed(&self) {
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| {
            if intake.reported.owes() {
                self.tell_findings_of(service, intake);
            }
            self.note_held(service, intake);
            self.note_faults(service, intake);
        });
    }

    /// Logs likely mistakes in the lists in force that were not logged yet.
    pub(crate) fn tell_findings(&self) {
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| self.tell_findings_of(service, intake));
    }

    fn tell_findings_of(&self, service: &ServiceName, intake: &mut Intake) {
        let lists = self.lists_of(service);
        let findings = self.findings(&lists);
        intake.reported.tell(&lists, &findings, Instant::now());
    }

    /// Brings these lists into force, all at once, and with them those of the services that share a gray
    /// list of theirs.
    fn put_in_force(
        &self,
        entrance: &mut Intakes,
        new: Vec<(ServiceName, SharedLists)>,
        cause: Cause,
    ) {
        self.put_in_force_with(entrance, new, cause, None);
    }

    /// As [`Self::put_in_force`]; from the same moment on there are these `services`, if any are named.
    fn put_in_force_with(
        &self,
        entrance: &mut Intakes,
        mut new: Vec<(ServiceName, SharedLists)>,
        cause: Cause,
        services: Option<&[Arc<ServiceSettings>]>,
    ) {
        self.share_gray(entrance, &mut new);
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for (service, lists) in new {
            let Some(intake) = entrance.get_mut(&service) else {
                continue;
            };
            let current = self.lists_of(&service);
            let Some(lists) = self.renewed(intake, &current, lists) else {
                continue;
            };
            if lists.generation != current.generation {
                others.push(service.clone());
            }
            all.push((service, lists));
        }
        if all.is_empty() && services.is_none() {
            return;
        }
        // Whoever sees the new lists sees when they came into force, and what is held or kept beside them;
        // see [`Self::lists_with`].
        let changed = Some(SystemTime::now());
        let mut status = self.locked();
        for service in &others {
            status.of_mut(service).changed = changed;
        }
        for (service, _) in &all {
            if let Some(intake) = entrance.get(service) {
                let of_service = status.of_mut(service);
                of_service.held = intake.door.held();
                of_service.faults = intake.door.faults();
            }
        }
        match services {
            Some(services) => self.lists.set_services_with(services, all),
            None => self.lists.store_all(all),
        }
        drop(status);
        for service in &others {
            if let Some(intake) = entrance.get_mut(service) {
                let lists = self.lists_of(service);
                intake
                    .reported
                    .tell_published(&lists, cause, Instant::now());
            }
        }
        entrance.note_time(&others);
        self.knock.notify_all();
    }

    /// Gives `new` lists of services that share a gray list the one that comes into force with them, or is,
    /// and adds those services that have it as well.
    fn share_gray(&self, entrance: &Intakes, new: &mut Vec<(ServiceName, SharedLists)>) {
        let shared = new.iter().map(|(service, _)| {
            let owner = entrance.owner_of(service)?;
            let renewed = new.iter().find(|(it, _)| it == owner);
            Some(match renewed {
                Some((_, lists)) => Arc::clone(&lists.gray),
                None => Arc::clone(&self.lists_of(owner).gray),
            })
        });
        let shared: Vec<Option<Arc<GrayList>>> = shared.collect();
        for ((_, lists), gray) in new.iter_mut().zip(shared) {
            if let Some(gray) = gray {
                lists.gray = gray;
            }
        }
        let followers = entrance.followers(new).filter_map(|(service, owner)| {
            let current = self.lists_of(service);
            let is_other = !Arc::ptr_eq(&current.gray, &owner.gray);
            (current.are_read() && is_other).then(|| {
                let gray = Arc::clone(&owner.gray);
                let lists = SharedLists {
                    gray,
                    ..current.shared()
                };
                (service.clone(), lists)
            })
        });
        let followers: Vec<_> = followers.collect();
        new.extend(followers);
    }

    /// The lists of a service as they come into force in place of the `current` ones; `None` when they are
    /// the same and nothing else is to be said of them.
    fn renewed(&self, intake: &mut Intake, current: &Lists, new: SharedLists) -> Option<Lists> {
        let before = current.generation.max(intake.generation_before);
        let mut new = Lists::new(before + 1, new);
        let are_anew = std::mem::take(&mut intake.are_anew);
        let same = current.are_read() && current.digest == new.digest && !are_anew;
        let same_remarks = ListName::ALL
            .iter()
            .all(|list| current.remarks(*list) == new.remarks(*list));
        let is_shared = intake.terms.gray_of.is_some();
        let same_shared = !is_shared || Arc::ptr_eq(&current.gray, &new.gray);
        if same && same_remarks && same_shared && !intake.reported.owes() {
            return None;
        }
        let findings = self.findings(&new);
        intake.reported.tell(&new, &findings, Instant::now());
        if same {
            // The same lists for every request; only what is said of them differs.
            new.generation = current.generation;
        }
        Some(new)
    }
}

#[cfg(test)]
mod tests;
