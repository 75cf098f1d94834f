//! Writing trips to the store, so that they hold for all; and the file for the next process.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::known::{BegunAnew, HeldTrip};
use super::place::TripsPlace;
use super::task::{NotWritten, TripTask, Written};
use super::{Trips, beside, memory, record, there};
use crate::config::{RedisSettings, Store};
use crate::lists::ServiceName;
use crate::release::history::ChangeRecord;
use crate::release::state::{ReleaseState, Trip};
use crate::release::webhook::ReleaseNotice;

/// Time between two looks at all services, and between two attempts to write.
const LOOK: Duration = Duration::from_secs(1);

/// A trip that was written is seen by then, or was removed or lost.
const SEEN: Duration = Duration::from_secs(5);

/// Time between two attempts to write an epoch.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause after attempts that were refused, each twice as long as the one before.
const REFUSED: Duration = Duration::from_secs(60);

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
    at: Instant,
    /// Since then.
    pause: Duration,
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
    pause: Duration,
    is_told: bool,
}

/// The pause after an attempt that was not successful, where the one before it was `pause`, and `first` is
/// the shortest. Of a connection that failed nothing is known: it may be there the next moment.
fn pause_after(pause: Duration, first: Duration, is_refused: bool) -> Duration {
    match is_refused {
        true => (pause * 2).clamp(first, REFUSED),
        false => first,
    }
}

impl EpochAttempt {
    fn new(begun: BegunAnew, is_enforcing: bool) -> Self {
        let now = Instant::now();
        Self {
            begun,
            since: now,
            due: if is_enforcing { now } else { now + OTHERS },
            pause: PAUSE / 2,
            is_told: false,
        }
    }

    fn make(&mut self, settings: &RedisSettings, service: &ServiceName) {
        let outcome = there::write_epoch(settings, service, &self.begun);
        self.pause = match &outcome {
            Ok(()) => SEEN,
            Err(error) => pause_after(self.pause, PAUSE, error.is_refused),
        };
        self.due = Instant::now() + self.pause;
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
        let mut epochs = BTreeMap::new();
        // What people were told last.
        let mut noticed: BTreeMap<ServiceName, Trip> = BTreeMap::new();
        loop {
            // A ring or not.
            let _ = news.recv_timeout(LOOK);
            self.tick();
            let (place, unwritten) = self.unwritten();
            if place.rests {
                continue;
            }
            self.save();
            self.write_epochs(&place, &mut epochs);
            attempts.retain(|it| unwritten.contains(&(it.service.clone(), it.held.clone())));
            for (service, held) in unwritten {
                let known = attempts.iter().position(|it| it.service == service);
                let mut attempt = match known {
                    Some(at) if !attempts[at].is_due() => continue,
                    Some(at) => attempts.swap_remove(at),
                    None => Attempt::new(service, held),
                };
                let known = attempt.make(&place, self);
                let trip = &attempt.held.trip;
                if let Some(is_stored) = known
                    && trip.by == place.node
                    && noticed.get(&attempt.service) != Some(trip)
                {
                    let notice = ReleaseNotice::tripped(&attempt.service, trip, is_stored);
                    self.webhook.tell(notice);
                    noticed.insert(attempt.service.clone(), trip.clone());
                }
                match attempt.is_over {
                    true => self.is_over(&attempt.service, &attempt.held.trip, attempt.over_by),
                    false => attempts.push(attempt),
                }
            }
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

    /// Writes the file, if it says something else.
    pub(super) fn save(&self) {
        let told = self.saving.lock();
        let mut told = told.unwrap_or_else(PoisonError::into_inner);
        let mut known = self.known();
        if !known.is_unsaved || known.place.rests {
            return;
        }
        let (place, services) = (known.place.clone(), known.services.clone());
        known.is_unsaved = false;
        drop(known);
        match memory::write(&place, &services) {
            Ok(()) => *told = None,
            Err(error) => {
                self.known().is_unsaved = true;
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    log::warn!("trips-not-saved error={error:?}");
                }
                *told = Some(error);
            }
        }
    }
}

impl Attempt {
    fn new(service: ServiceName, held: HeldTrip) -> Self {
        Self {
            service,
            held,
            since: Instant::now(),
            at: Instant::now(),
            pause: LOOK / 2,
            is_over: false,
            over_by: None,
            told: None,
        }
    }

    fn is_due(&self) -> bool {
        self.at.elapsed() >= self.pause
    }

    /// Tries to write it. True if the store has it now; false if people should know that it does not; `None`
    /// if there is nothing to tell.
    fn make(&mut self, place: &TripsPlace, trips: &Trips) -> Option<bool> {
        let outcome = self.write(place, trips);
        self.at = Instant::now();
        self.pause = match &outcome {
            Ok(Written::Yes | Written::Before) => SEEN,
            Ok(Written::Left) => pause_after(self.pause, LOOK, true),
            Err(error) => pause_after(self.pause, LOOK, error.is_refused),
            Ok(Written::Over(_) | Written::Empty | Written::Again) => LOOK,
        };
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
            Ok(Written::Empty) => "the store has no lists".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_ever_more_seldom_and_a_lost_connection_at_once() {
        let mut pause = LOOK / 2;
        let pauses: Vec<u64> = std::iter::repeat_with(|| {
            pause = pause_after(pause, LOOK, true);
            pause.as_secs()
        })
        .take(8)
        .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after(pause, LOOK, false), LOOK);
        assert_eq!(pause_after(PAUSE / 2, PAUSE, true), PAUSE);
    }
}
