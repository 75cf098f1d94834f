//! What one look at a store gave, of whichever services, on its way to their doors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::intake::{Intakes, ListTerms, TermsByService};
use super::{Publisher, ReadReleases};
use crate::lists::{ByList, Digest, GrayList, Lists, ServiceName, SharedLists};
use crate::store::gate::door::{self, Awaited, ParsedReading, digest_of};
use crate::store::gate::guard::Timestamp;
use crate::store::reading::{EmptyFor, FrozenLists};
use crate::store::{Cause, Fault, ReleaseReading, SeenLists, ServiceReading};

/// A [`ServiceReading`] as lists.
pub(super) struct ParsedService {
    pub(super) service: ServiceName,
    pub(super) lists: ParsedReading,
    pub(super) empty_for: EmptyFor,
    /// When a store was asked that may be seen while it is written.
    pub(super) asked: Option<Instant>,
    /// The service whose gray list it has.
    pub(super) gray_of: Option<ServiceName>,
    /// The store has the salt.
    pub(super) has_salt: bool,
    /// What was read of its release.
    pub(super) release: Option<ReleaseReading>,
    /// Somebody has frozen its lists.
    pub(super) frozen: Option<FrozenLists>,
    /// The digests of changes that were accepted in advance.
    pub(super) accepted: Vec<String>,
    /// Those of lists, as a whole, that a command has just written.
    pub(super) meant: Vec<String>,
}

impl ParsedService {
    /// The store has lost its lists.
    pub(super) fn is_lost(&self) -> bool {
        let lost = Some(Fault::WithoutData);
        let ByList { gray, pre, prod } = &self.lists;
        let faults = [gray.as_ref().err(), pre.as_ref().err(), prod.as_ref().err()];
        faults.into_iter().any(|it| it.copied() == lost)
    }
}

impl Publisher {
    /// Takes what was read of releases.
    pub(super) fn taken_releases(read: &mut [ParsedService]) -> ReadReleases {
        let releases = read.iter_mut();
        let releases = releases.filter_map(|it| Some((it.service.clone(), it.release.take()?)));
        releases.collect()
    }

    /// What is to be told of these readings, if somebody wants to know.
    pub(super) fn seen(&self, readings: &[ServiceReading]) -> Vec<(ServiceName, SeenLists)> {
        let readings = readings.iter().filter(|_| self.lists_watch.is_some());
        let seen = readings.map(|it| (it.service.clone(), SeenLists::of(it)));
        seen.collect()
    }

    /// Tells of it.
    pub(super) fn tell_seen(&self, seen: Vec<(ServiceName, SeenLists)>) {
        if let Some(watch) = &self.lists_watch {
            for (service, seen) in seen {
                watch.saw(&service, seen);
            }
        }
    }

    /// Reads the entries. Nobody waits for this.
    pub(super) fn parse(&self, readings: Vec<ServiceReading>) -> Vec<ParsedService> {
        Self::parse_by(readings, &self.terms.load())
    }

    /// As [`Self::parse`], where these `terms` are to be in force.
    pub(super) fn parse_by(
        readings: Vec<ServiceReading>,
        terms: &TermsByService,
    ) -> Vec<ParsedService> {
        let parse = |reading: ServiceReading| {
            // Those of a service that is gone are dropped later.
            let terms = terms.get(&reading.service);
            parse(reading, terms.unwrap_or(&ListTerms::of_port(80)))
        };
        readings.into_iter().map(parse).collect()
    }

    /// Looks up names that are new: their servers are to be known when the lists come into force. That takes
    /// a while, too; returns how long.
    pub(super) fn prepare(&self, read: &[ParsedService]) -> Duration {
        let pools = read.iter().map(|it| {
            let pools = [&it.lists.pre, &it.lists.prod].map(|it| it.as_deref().ok());
            (&it.service, pools)
        });
        self.lists.names().prepare_all(pools)
    }

    pub(super) fn publish_parsed(
        &self,
        mut read: Vec<ParsedService>,
        cause: Cause,
        now: impl FnOnce() -> Timestamp,
    ) -> Awaited {
        let mut entrance = self.locked_entrance();
        let now = now();
        let releases = Self::taken_releases(&mut read);
        let new = self.judge_all(&mut entrance, read, now);
        let services: Vec<ServiceName> = new.iter().map(|it| it.0.clone()).collect();
        // Whoever sees the new lists must not see the age of the old ones.
        self.locked().checked = Some(now.instant);
        self.expect(&releases, &new);
        self.put_in_force(&mut entrance, new, cause);
        self.see(&releases);
        for service in &services {
            if let Some(intake) = entrance.get_mut(service) {
                (intake.copy, intake.awaits_store) = (None, false);
                // Whoever publishes has it told, once nobody is known to have confirmed it.
                self.locked().of_mut(service).held = intake.door.held();
            }
        }
        entrance.forget_used_copy();
        self.succeeded(&mut entrance, &services, cause);
        // What has stood until now may come in with what has just been read.
        for service in &services {
            self.let_in_ripe(&mut entrance, service, now);
        }
        entrance.note_time(&services);
        self.ring();
        self.keep_copy(&entrance);
        self.knock.notify_all();
        let mut awaited = Awaited::default();
        for service in &services {
            if let Some(intake) = entrance.get(service) {
                awaited.add(service, &intake.door);
            }
        }
        awaited
    }

    /// What of readings comes into force, of each service that there still is.
    pub(super) fn judge_all(
        &self,
        entrance: &mut Intakes,
        mut read: Vec<ParsedService>,
        now: Timestamp,
    ) -> Vec<(ServiceName, SharedLists)> {
        // Those first whose gray lists others have.
        read.sort_by_key(|it| it.gray_of.is_some());
        let mut new: Vec<(ServiceName, SharedLists)> = Vec::with_capacity(read.len());
        for it in read {
            let service = it.service.clone();
            if let Some(lists) = self.judge(entrance, &new, it, now) {
                new.push((service, lists));
            }
        }
        new
    }

    /// What of a reading comes into force, with the `new` lists of others; `None` if there is no such
    /// service any more.
    fn judge(
        &self,
        entrance: &mut Intakes,
        new: &[(ServiceName, SharedLists)],
        mut read: ParsedService,
        now: Timestamp,
    ) -> Option<SharedLists> {
        let service = &read.service;
        let prod = read.lists.prod.as_deref().ok();
        let is_strange = service.is_default() && self.is_strange(entrance, prod);
        let mut current = match is_strange {
            // Also if it is in force: nothing of it is to be compared with.
            true => Arc::new(Lists::unread()),
            false => self.compared(entrance, service),
        };
        let mut salt = None;
        let owner = read.gray_of.as_ref();
        if let Some(owner) = owner {
            let renewed = new.iter().find(|(it, _)| it == owner);
            let gray = match renewed {
                Some((_, lists)) => Arc::clone(&lists.gray),
                None => Arc::clone(&self.lists_of(owner).gray),
            };
            current = with_gray(&current, Arc::clone(&gray));
            read.lists.gray = Ok(gray);
        } else if let Ok(gray) = &read.lists.gray
            && (read.has_salt || gray.has_shares())
            && current.gray.has_shares()
            && current.gray.salt() != gray.salt()
        {
            salt = Some(gray.salt().clone());
        }
        // A gateway that has nothing yet takes what there is.
        let frozen = read.frozen.filter(|_| current.are_read());
        let are_those = |digest: Digest| {
            let those = frozen.as_ref().and_then(|it| it.digest.as_ref());
            those.is_some_and(|it| digest.of_service(service).to_string() == *it)
        };
        // Where others are in force than those that are to stay, these come in as ever, and then no more.
        let come = !are_those(current.digest) && digest_of(&read.lists).is_some_and(are_those);
        if frozen.is_some() && !come {
            if owner.is_none() {
                read.lists.gray = Err(Fault::Frozen);
            }
            (read.lists.pre, read.lists.prod) = (Err(Fault::Frozen), Err(Fault::Frozen));
        }
        let intake = entrance.get_mut(service)?;
        intake.set_owner(read.gray_of);
        intake.door.accept_in_advance(read.accepted, read.meant);
        let (lists, seen) = (read.lists, (read.empty_for, read.asked));
        let mut new = intake.door.judge(&current, lists, seen, now);
        if come && are_those(Lists::digest_of(&new.gray, &new.pre, &new.prod)) {
            intake.door.keep_all(Fault::Frozen);
        }
        if let Some(salt) = salt
            && intake.door.holds_gray()
        {
            // Another salt is never held. But where the list only waits for others, it waits as well.
            new.gray = Arc::new(GrayList::clone(&new.gray).with_salt(salt));
        }
        Some(new)
    }

    /// The store has of these services what it had when that was last read. Says of each whether that needs
    /// no second look, since all of it is in force: the rules make no difference then, nor does time.
    pub(crate) fn confirm(&self, services: &[&ServiceName]) -> Vec<bool> {
        let mut entrance = self.locked_entrance();
        let confirmed = services.iter().map(|service| {
            let Some(intake) = entrance.get_mut(service) else {
                return false;
            };
            // What the log is owed is told with the next lists.
            let is_settled = intake.door.is_settled() && !intake.reported.owes();
            if is_settled {
                self.note_faults(service, intake);
            }
            is_settled
        });
        confirmed.collect()
    }

    /// The store was read, and all of that was confirmed.
    pub(crate) fn checked(&self, cause: Cause) {
        let entrance = self.locked_entrance();
        self.locked().succeeded(cause);
        self.keep_copy(&entrance);
    }

    fn succeeded(&self, entrance: &mut Intakes, services: &[ServiceName], cause: Cause) {
        self.locked().succeeded(cause);
        for service in services {
            if let Some(intake) = entrance.get_mut(service) {
                intake.was_read = true;
                self.note_faults(service, intake);
            }
        }
    }
}

fn parse(reading: ServiceReading, terms: &ListTerms) -> ParsedService {
    let salt = reading.salt.as_deref();
    ParsedService {
        service: reading.service,
        has_salt: salt.is_some(),
        lists: door::parse(reading.lists, terms.peer_port, salt.unwrap_or(&terms.salt)),
        empty_for: reading.empty_for,
        asked: reading.asked,
        gray_of: reading.gray_of,
        frozen: reading.frozen,
        release: reading.release,
        accepted: reading.accepted,
        meant: reading.meant,
    }
}

/// The same lists with another gray list.
fn with_gray(lists: &Lists, gray: Arc<GrayList>) -> Arc<Lists> {
    let shared = SharedLists {
        gray,
        ..lists.shared()
    };
    Arc::new(Lists::new(lists.generation, shared))
}
