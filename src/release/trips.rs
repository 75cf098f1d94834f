//! Versions that were taken back: by this gateway, by another one, or by hand; and until when.
//!
//! Of each service there is one trip at most that matters: that of the version in `pre`. It is in one of
//! these states:
//!
//! ```text
//!            this gateway trips                   it is seen in the store
//!   none ───────────────────────▶ unwritten ────────────────────────────▶ stored
//!    ▲                              │    ▲                                  │  │
//!    │  a reset, another pre        │    │      the store has lost it       │  │
//!    ├──────────────────────────────┘    └──────────────────────────────────┘  │
//!    │            the key was deleted                                          │
//!    └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A new epoch has evidence begin anew, on all gateways. Where somebody has deleted the key and nothing else,
//! there is none: then the gateways that see that begin one, which is the same for all of them, and one of
//! them writes it ([`KnownRelease`]).
//!
//! What holds is a number in the accounts of the service ([`Pools::set_tripped`]): workers compare it with
//! the version in the lists that a request is decided by. So a trip counts from the next request on, and is
//! over with the very swap that brings another version. Nothing here is waited for by a request.
//!
//! A trip that is unwritten is written by a thread of its own ([`writing`]), again and again until the store
//! has it; by another one ([`saving`]) the file from which the next process of this gateway knows it
//! ([`memory`]). Nobody hears of it before one of the two has it. Of several gateways that have found the
//! same, the one that has written it tells people ([`announcing`]).
//!
//! [`Pools::set_tripped`]: crate::upstream::serving::Pools::set_tripped

mod announcing;
mod beside;
mod key;
mod known;
mod memory;
mod place;
mod record;
mod saving;
mod task;
mod texts;
mod there;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};
use serde_json::Value;

use self::known::KnownRelease;
use self::memory::SavingNotes;
use self::place::TripsPlace;
use super::rollout::Rollout;
use super::state::{DELETED, ReleaseState, ResetNote, Trip};
use super::webhook::{ReleaseNotice, Webhook};
use crate::config::Config;
use crate::fleet::release::NodeRelease;
use crate::lists::{Digest, ListName, Lists, ServiceName};
use crate::process::supervised;
use crate::store::{ReleaseReading, ReleaseWatch, StoredText};
use crate::upstream::in_force::InForce;

/// The trips of all services. One for the process.
pub(crate) struct Trips {
    in_force: Arc<InForce>,
    known: Mutex<KnownReleases>,
    /// Held while the file is written.
    saving: Mutex<SavingNotes>,
    /// Of what this gateway has taken back, people are told.
    webhook: Arc<Webhook>,
    /// Rung when there is something to be written to the store.
    wake: Sender<()>,
    /// Rung when there is something to be written to the file.
    wake_file: Sender<()>,
    /// Rung when others want to know.
    bell: Sender<()>,
}

struct KnownReleases {
    services: BTreeMap<ServiceName, KnownRelease>,
    /// Those of which this process has read what the store says.
    read: BTreeSet<ServiceName>,
    place: TripsPlace,
    /// It is not what the file says.
    is_unsaved: bool,
}

impl KnownReleases {
    /// What others are told of what is held of a release.
    fn told_of(&self, service: &ServiceName) -> NodeRelease {
        let known = self.services.get(service);
        known.map(KnownRelease::told_of).unwrap_or_default()
    }
}

/// A trip as others see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TripView {
    pub(crate) trip: Trip,
    /// The store has it.
    pub(crate) is_stored: bool,
}

impl Trips {
    /// Begins with what another process has handed over, if there was one; else with what the file has.
    ///
    /// # Errors
    /// When the threads that write cannot be started.
    pub(crate) fn start(
        config: &Config,
        in_force: &Arc<InForce>,
        webhook: &Arc<Webhook>,
        bell: Sender<()>,
        handed: Option<Option<&str>>,
    ) -> std::io::Result<Arc<Self>> {
        let place = TripsPlace::of(config, handed.is_some());
        let read = memory::read(&place).map_err(|unread| unread.tell());
        let unread = read.as_ref().err().cloned();
        let mut services = match handed {
            Some(text) => text.map_or_else(BTreeMap::new, |it| memory::parse(it, &place.name)),
            None => read.unwrap_or_default(),
        };
        services.retain(|it, _| is_looked_at(config, it));
        let (wake, news) = bounded(1);
        let (wake_file, news_of_file) = bounded(1);
        let notes = SavingNotes {
            error: None,
            unread,
        };
        let trips = Arc::new(Self {
            in_force: Arc::clone(in_force),
            webhook: Arc::clone(webhook),
            saving: Mutex::new(notes),
            known: Mutex::new(KnownReleases {
                services,
                read: BTreeSet::new(),
                place,
                is_unsaved: true,
            }),
            wake,
            wake_file,
            bell,
        });
        trips.tick();
        let writer = Arc::clone(&trips);
        let run = move || writer.write_all(&news);
        supervised::spawn("trips", run)?;
        let saver = Arc::clone(&trips);
        supervised::spawn("trips-file", move || saver.save_all(&news_of_file))?;
        Ok(trips)
    }

    fn known(&self) -> MutexGuard<'_, KnownReleases> {
        // Whole at any moment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A ring that nobody has heard yet is enough.
        let _ = self.wake.try_send(());
        let _ = self.bell.try_send(());
        self.ring_file();
    }

    fn ring_file(&self) {
        let _ = self.wake_file.try_send(());
    }

    /// The name of this gateway, as its trips have it.
    pub(crate) fn node(&self) -> String {
        self.known().place.node.clone()
    }

    /// Takes the version back that `trip` is about: from now on here, and for all as soon as the store has
    /// it. Neither that nor the disk is waited for. False where that is not the one in `pre`, was taken back
    /// before, or was found of another epoch.
    pub(crate) fn trip(&self, service: &ServiceName, trip: Trip) -> bool {
        let mut known = self.known();
        let Some(lists) = self.in_force.load_of(service) else {
            return false;
        };
        let release = known.services.entry(service.clone()).or_default();
        let version = trip.version();
        let holds = release
            .held
            .as_ref()
            .is_some_and(|it| it.version == version);
        // Evidence may have begun anew since it was found.
        if lists.version != version || holds || release.epoch() != trip.epoch() {
            return false;
        }
        release.find(trip);
        self.settle(service, release);
        known.is_unsaved = true;
        drop(known);
        self.ring();
        true
    }

    /// The services that have a rollout under way, while this process is the one that acts for the gateway.
    pub(crate) fn rolling_out(&self) -> Vec<ServiceName> {
        let known = self.known();
        let services = known.services.iter().filter(|_| !known.place.rests);
        let services = services.filter(|(_, it)| {
            let rollout = it.state.rollout.as_ref();
            rollout.is_some_and(|it| !it.course.is_over())
        });
        services.map(|(service, _)| service.clone()).collect()
    }

    /// The latest turn of a rollout that has come with the lists of a service, whatever the store has now.
    pub(crate) fn latest_turn(&self, service: &ServiceName) -> Option<Rollout> {
        self.known().services.get(service)?.latest.clone()
    }

    /// That a rollout was looked at, with what is beside the state of the release.
    pub(crate) fn note_rollout(&self, service: &ServiceName, rollout: &Rollout) {
        if let Some(known) = self.known().services.get_mut(service) {
            known.rollout = Some(rollout.clone());
        }
    }

    /// The rollout of a service, if there is one, as far as is known.
    pub(crate) fn rollout(&self, service: &ServiceName) -> Option<Rollout> {
        let known = self.known();
        let known = known.services.get(service)?;
        let of_state = known.state.rollout.as_ref()?;
        let is_of_it = |it: &&Rollout| it.id == of_state.id && it.turns >= of_state.turns;
        let looked_at = known.rollout.as_ref().filter(is_of_it);
        Some(looked_at.unwrap_or(of_state).clone())
    }

    /// The release that evidence belongs to, while these `lists` of a service are in force.
    pub(crate) fn release(&self, service: &ServiceName, lists: &Lists) -> String {
        let known = self.known();
        let epoch = known.services.get(service);
        let epoch = epoch.map_or("", |it| it.epoch());
        format!("{}/{epoch}", lists.pre.digest(ListName::Pre))
    }

    /// What this process holds of a release beside the lists, once it has read that.
    pub(crate) fn held(&self, service: &ServiceName) -> Option<NodeRelease> {
        let known = self.known();
        known.read.contains(service).then(|| known.told_of(service))
    }

    /// Why the version in `pre` of a service was taken back, if it was.
    pub(crate) fn of(&self, service: &ServiceName) -> Option<TripView> {
        let known = self.known();
        let held = known.services.get(service)?.held.as_ref()?;
        let lists = self.in_force.load_of(service)?;
        (lists.version == held.version && !lists.pre.is_empty()).then(|| TripView {
            trip: held.trip.clone(),
            is_stored: held.is_stored,
        })
    }

    /// From now on, trips are kept as the settings say. Of other lists nothing is known.
    pub(crate) fn follow(&self, config: &Config, are_others: bool) {
        let mut known = self.known();
        known.place = TripsPlace::of(config, known.place.rests);
        known
            .read
            .retain(|it| !are_others && is_looked_at(config, it));
        if are_others {
            known.services.clear();
            for service in self.in_force.serving().services() {
                service.pools().set_tripped(0);
            }
        }
        // Nothing would be heard of the end of such a trip.
        for (service, unheard) in known
            .services
            .extract_if(.., |it, _| !is_looked_at(config, it))
        {
            self.forget(&service, &unheard);
        }
        known.is_unsaved = true;
        drop(known);
        self.ring();
    }

    /// Nothing of this service is taken back any more: it is gone, or its release is not looked at.
    fn forget(&self, service: &ServiceName, known: &KnownRelease) {
        if let Some(of) = self.in_force.serving().of(service) {
            of.pools().set_tripped(0);
        }
        if let (Some(held), Some(_)) = (&known.held, known.told) {
            let (name, pre) = (service.in_log(), &held.trip.pre);
            log::info!(
                "trip-over {name}pre={pre} reason=\"its release is not looked at any more\""
            );
        }
    }

    /// Leaves it to another process of this gateway to write, or writes again.
    pub(crate) fn rest(&self, rests: bool) {
        let mut known = self.known();
        (known.place.rests, known.is_unsaved) = (rests, true);
        drop(known);
        self.ring();
    }

    /// Brings what is known of a service into force, and says so if it is new.
    fn settle(&self, service: &ServiceName, known: &mut KnownRelease) {
        let serving = self.in_force.serving();
        let Some(of) = serving.of(service) else {
            return;
        };
        let lists = of.lists();
        known.follow(lists.version);
        let version = known.held.as_ref().map_or(0, |it| it.version);
        of.pools().set_tripped(known.expected.unwrap_or(version));
        // Whoever has emptied it has no other version there; it may be on its way, or have been lost.
        if !lists.are_read() || lists.pre.is_empty() {
            return;
        }
        let name = service.in_log();
        match &known.held {
            Some(held) if held.version == lists.version => {
                known.in_force = Some(held.version);
                // Of several that have found the same, one has written it.
                known.is_own = self.webhook.is_node(&held.trip.by);
                if known.told != Some(held.version) && !known.is_being_kept() {
                    known.told = Some(held.version);
                    tell_trip(service, &held.trip);
                }
            }
            Some(held) => {
                if known.told.take().is_some() {
                    let pre = &held.trip.pre;
                    log::info!("trip-over {name}pre={pre} reason=\"pre has other servers\"");
                }
                // The lists of a start may be older than what the file knows.
                let was_in_force = known.in_force.take() == Some(held.version);
                if !held.is_stored && (was_in_force || known.is_heard) {
                    known.held = None;
                    of.pools().set_tripped(0);
                }
            }
            None => {
                if known.told.take().is_some() {
                    let note = known.ended_by.take();
                    tell_reset(service, note.as_ref());
                    if known.is_own {
                        self.webhook
                            .tell(ReleaseNotice::trip_reset(service, note.as_ref()));
                    }
                }
            }
        }
    }

    /// Looks at all services: lists may be others without a word from the store.
    fn tick(&self) {
        let mut known = self.known();
        for (service, release) in &mut known.services {
            self.settle(service, release);
        }
    }
}

/// The store is asked about the release of this service, so that a trip does not stay for ever.
fn is_looked_at(config: &Config, service: &ServiceName) -> bool {
    let mut services = config.services.iter();
    services.any(|it| it.name == *service && it.verdict.is_on())
}

fn tell_trip(service: &ServiceName, trip: &Trip) {
    let name = service.in_log();
    let Trip {
        by,
        why,
        pre,
        numbers,
        at,
        ..
    } = trip;
    let reason = trip.reason.as_deref().unwrap_or("-");
    let numbers = match numbers {
        Value::Null => String::new(),
        numbers => format!(" numbers={:?}", numbers.to_string()),
    };
    log::warn!(
        "tripped {name}by={by:?} why={why:?} at={at} pre={pre}{numbers} reason={reason:?} \
         effect=\"clients that pre would serve get prod\""
    );
}

fn tell_reset(service: &ServiceName, note: Option<&ResetNote>) {
    let name = service.in_log();
    match note {
        Some(note) => {
            let (by, reason) = (&note.by, note.reason.as_deref().unwrap_or("-"));
            log::info!("trip-reset {name}by={by:?} reason={reason:?}");
        }
        None => log::info!("trip-reset {name}by=- reason={DELETED:?}"),
    }
}

impl ReleaseWatch for Trips {
    fn expect(&self, service: &ServiceName, read: &ReleaseReading, pre: Digest) {
        let StoredText::Text(text) = &read.tripped else {
            return;
        };
        let mut known = self.known();
        let release = known.services.entry(service.clone()).or_default();
        let version = release.read(text, service, pre).version();
        if version == pre.number()
            && let Some(of) = self.in_force.serving().of(service)
        {
            // Until the lists are in force, whoever looks at all services would take it back.
            release.expected = Some(version);
            of.pools().set_tripped(version);
        }
    }

    fn see(&self, service: &ServiceName, read: &ReleaseReading) {
        let mut all = self.known();
        let told = all.told_of(service);
        let before = all.services.get(service).map(|it| it.held.clone());
        let known = all.services.entry(service.clone()).or_default();
        let lost = read.lost || known.has_lost(&read.state);
        (known.is_heard, known.expected) = (true, None);
        match &read.state {
            StoredText::Text(text) => known.see_state(ReleaseState::parse(text)),
            // Its evidence is what was lost, too.
            StoredText::Absent if !lost => known.state = ReleaseState::default(),
            StoredText::Absent | StoredText::Unknown => {}
        }
        let lists = self.in_force.load_of(service);
        let lists = lists.filter(|it| it.are_read());
        match (&read.tripped, lists) {
            (StoredText::Text(text), Some(lists)) => {
                let trip = known.read(text, service, lists.pre.digest(ListName::Pre));
                let is_text = Trip::parse(text).is_none();
                known.taken_for = is_text.then(|| (text.clone(), trip.clone()));
                known.see_trip(trip, lists.version);
            }
            (StoredText::Absent, _) => {
                known.taken_for = None;
                known.see_none(lost);
            }
            _ => {}
        }
        self.settle(service, known);
        let is_new = before.flatten() != known.held;
        if known.held.is_none()
            && known.begun_anew.is_none()
            && known.state == ReleaseState::default()
        {
            all.services.remove(service);
        }
        all.is_unsaved |= is_new;
        let is_first = match read.state {
            StoredText::Unknown => false,
            _ => all.read.insert(service.clone()),
        };
        let is_told = !is_first && told == all.told_of(service);
        drop(all);
        if is_new || !is_told {
            self.ring();
        }
    }

    fn hand_over(&self) -> Option<String> {
        let known = self.known();
        Some(memory::render(&known.services, &known.place.name))
    }
}

#[cfg(test)]
mod tests;
