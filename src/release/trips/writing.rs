//! Writing trips to the store, so that they hold for all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::known::{BegunAnew, HeldTrip};
use super::place::TripsPlace;
use super::task::{NotWritten, TripTask, WritingPause, Written};
use super::{Trips, beside, record, there};
use crate::config::{RedisSettings, Store};
use crate::lists::ServiceName;
use crate::release::history::ChangeRecord;
use crate::release::state::{ReleaseState, Trip};

/// Time between two looks at all services, and between two attempts to write.
const LOOK: Duration = Duration::from_secs(1);

/// A trip that was written is seen by then, or was removed or lost.
const SEEN: Duration = Duration::from_secs(5);

/// Time between two attempts to write an epoch.
const PAUSE: Duration = Duration::from_secs(2);

/// So long an epoch is left to gateways that take versions back, by one that only observes; and nobody says
/// that it cannot write what another one may write.
const OTHERS: Duration = Duration::from_secs(5);

/// People are told of a trip that cannot be written after that time.
const ALONE: Duration = Duration::from_secs(10);

/// What was tried for a service.
struct Attempt {
    service: ServiceName,
    held: HeldTrip,
    since: Instant,
    /// Not before this.
    due: Instant,
    pause: WritingPause,
    is_over: bool,
    /// The state of the store that says so, if one does.
    over_by: Option<Box<ReleaseState>>,
    /// What was said of it.
    told: Option<String>,
}

/// What has come of an epoch that is to be written.
struct EpochAttempt {
    begun: BegunAnew,
    since: Instant,
    /// Not before this.
    due: Instant,
    pause: WritingPause,
    is_told: bool,
}

impl EpochAttempt {
    fn new(begun: BegunAnew, is_enforcing: bool) -> Self {
        let now = Instant::now();
        Self {
            begun,
            since: now,
            due: if is_enforcing { now } else { now + OTHERS },
            pause: WritingPause::of(PAUSE),
            is_told: false,
        }
    }

    fn make(&mut self, settings: &RedisSettings, service: &ServiceName) {
        let outcome = there::write_epoch(settings, service, &self.begun);
        let pause = match &outcome {
            Ok(()) => SEEN,
            Err(error) => self.pause.after(error.is_refused),
        };
        self.due = Instant::now() + pause;
        // Until then, another gateway may have written it.
        if let Err(error) = outcome
            && self.since.elapsed() >= OTHERS
            && !std::mem::replace(&mut self.is_told, true)
        {
            let (name, epoch, error) = (service.in_log(), &self.begun.epoch, error.why);
            log::warn!(
                "epoch-unwritten {name}epoch={epoch} error={error:?} effect=\"who has not seen that the trip is over \
                 goes on with its evidence\""
            );
        }
    }
}

impl Trips {
    /// Writes what is to be written, for as long as the process lives.
    pub(super) fn write_all(&self, news: &Receiver<()>) {
        let mut attempts: Vec<Attempt> = Vec::new();
        let (mut epochs, mut texts) = (BTreeMap::new(), BTreeMap::new());
        loop {
            // A ring or not.
            let _ = news.recv_timeout(LOOK);
            self.tick();
            let (place, unwritten) = self.unwritten();
            if place.rests {
                continue;
            }
            attempts.retain(|it| unwritten.contains(&(it.service.clone(), it.held.clone())));
            for (service, held) in unwritten {
                let known = attempts.iter().position(|it| it.service == service);
                let mut attempt = match known {
                    Some(at) if !attempts[at].is_due() => continue,
                    Some(at) => attempts.swap_remove(at),
                    None => Attempt::new(service, held),
                };
                if let Some(is_stored) = attempt.make(&place, self) {
                    self.note_written(&attempt.service, &attempt.held.trip, is_stored);
                }
                match attempt.is_over {
                    true => self.is_over(&attempt.service, &attempt.held.trip, attempt.over_by),
                    false => attempts.push(attempt),
                }
            }
            self.announce();
            self.write_epochs(&place, &mut epochs);
            self.name_texts(&place, &mut texts);
        }
    }

    /// What the store does not have.
    fn unwritten(&self) -> (TripsPlace, Vec<(ServiceName, HeldTrip)>) {
        let known = self.known();
        let unwritten = known.services.iter().filter_map(|(service, it)| {
            let held = it.held.as_ref().filter(|it| !it.is_stored)?;
            Some((service.clone(), held.clone()))
        });
        (known.place.clone(), unwritten.collect())
    }

    /// Writes epochs that have begun since somebody has deleted a key, for gateways that have not seen that;
    /// those whose `attempts` are due.
    fn write_epochs(&self, place: &TripsPlace, attempts: &mut BTreeMap<ServiceName, EpochAttempt>) {
        let Store::Redis(settings) = &place.store else {
            // Whoever reads the file sees what becomes of it.
            return;
        };
        let begun: BTreeMap<ServiceName, BegunAnew> = {
            let known = self.known();
            let services = known.services.iter().filter_map(|(service, it)| {
                let begun = it.begun_anew.as_ref();
                let begun = begun.filter(|begun| begun.after == it.state.epoch)?;
                Some((service.clone(), begun.clone()))
            });
            services.collect()
        };
        attempts.retain(|service, it| begun.get(service) == Some(&it.begun));
        for (service, begun) in begun {
            let is_enforcing = place.enforcing.contains(&service);
            let attempt = attempts.entry(service.clone());
            let attempt = attempt.or_insert_with(|| EpochAttempt::new(begun, is_enforcing));
            if Instant::now() >= attempt.due {
                attempt.make(settings, &service);
            }
        }
    }

    /// True while the store does not have this trip, as far as is known.
    fn is_unwritten(&self, service: &ServiceName, trip: &Trip) -> bool {
        let known = self.known();
        let held = known.services.get(service).and_then(|it| it.held.as_ref());
        held.is_some_and(|it| !it.is_stored && it.trip == *trip)
    }

    /// A trip that could not be written is over: somebody has reset the release since.
    fn is_over(&self, service: &ServiceName, trip: &Trip, by: Option<Box<ReleaseState>>) {
        let mut known = self.known();
        let Some(release) = known.services.get_mut(service) else {
            return;
        };
        let is_it = |it: &HeldTrip| !it.is_stored && it.trip == *trip;
        if release.held.take_if(|it| is_it(it)).is_some() {
            // At once, or the evidence of before would take it back again until the next reading.
            release.ended_by = by.as_ref().and_then(|it| it.reset.clone());
            if let Some(state) = by {
                release.see_state(*state);
            }
            self.settle(service, release);
            known.is_unsaved = true;
            drop(known);
            self.ring();
        }
    }
}

impl Attempt {
    fn new(service: ServiceName, held: HeldTrip) -> Self {
        Self {
            service,
            held,
            since: Instant::now(),
            due: Instant::now(),
            pause: WritingPause::of(LOOK),
            is_over: false,
            over_by: None,
            told: None,
        }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Tries to write it. True if the store has it now; false if people should know that it does not; `None`
    /// if there is nothing to tell.
    fn make(&mut self, place: &TripsPlace, trips: &Trips) -> Option<bool> {
        let outcome = self.write(place, trips);
        let pause = match &outcome {
            Ok(Written::Yes | Written::Before) => SEEN,
            Ok(Written::Left) => self.pause.after(true),
            Err(error) => self.pause.after(error.is_refused),
            Ok(Written::Over(_) | Written::Empty | Written::Again) => LOOK,
        };
        self.due = Instant::now() + pause;
        let (name, pre) = (self.service.in_log(), &self.held.trip.pre);
        let error = match outcome {
            Ok(written @ (Written::Yes | Written::Before)) => {
                log::info!("trip-written {name}pre={pre}");
                self.told = None;
                return matches!(written, Written::Yes).then_some(true);
            }
            Ok(Written::Over(by)) => {
                (self.is_over, self.over_by) = (true, by);
                return None;
            }
            Ok(Written::Again | Written::Left) => return None,
            Ok(Written::Empty) => "pre is empty in the store".to_owned(),
            Err(error) => error.why,
        };
        if self.told.as_ref() != Some(&error) {
            log::warn!(
                "trip-unwritten {name}pre={pre} error={error:?} effect=\"it holds in this gateway, and is written as \
                 soon as that is possible\""
            );
        }
        self.told = Some(error);
        (self.since.elapsed() >= ALONE).then_some(false)
    }

    fn write(&self, place: &TripsPlace, trips: &Trips) -> Result<Written, NotWritten> {
        let (service, trip) = (&self.service, &self.held.trip);
        let lists = trips.in_force.load_of(service);
        let lists = lists.map_or_else(String::new, |it| it.digest.to_string());
        let task = TripTask {
            held: &self.held,
            noted: &|newest: &[ChangeRecord]| record::record(service, trip, newest, &lists),
            is_wanted: &|| trips.is_unwritten(service, trip),
            lags: self.since.elapsed() < SEEN,
        };
        match &place.store {
            Store::Redis(settings) => there::write_trip(settings, service, &task),
            Store::File(path) => beside::write_trip(path, (service, &place.services), &task),
        }
    }
}
