//! What a person has set by hand says nothing of what it is about: that is what was in `pre` when it was
//! first seen. A gateway that is started later could not know that, so one that may write has the key say so:
//! as the trip that it was taken for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::place::TripsPlace;
use super::task::WritingPause;
use super::{Trips, beside, there};
use crate::config::Store;
use crate::lists::ServiceName;
use crate::release::state::Trip;

/// Gateways that only observe leave it to others for that time.
const OTHERS: Duration = Duration::from_secs(5);

/// The pause until a text that was written, or is another one by now, is seen to be.
const SEEN: Duration = Duration::from_secs(5);

/// The shortest one after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What has come of a text.
pub(super) struct TextAttempt {
    text: Vec<u8>,
    /// Not before this.
    due: Instant,
    pause: WritingPause,
}

impl Trips {
    /// Has the keys with a text say what they are about; those whose `attempts` are due.
    pub(super) fn name_texts(
        &self,
        place: &TripsPlace,
        attempts: &mut BTreeMap<ServiceName, TextAttempt>,
    ) {
        let texts = self.texts();
        attempts.retain(|service, it| texts.get(service).is_some_and(|(text, _)| *text == it.text));
        for (service, (text, trip)) in texts {
            let attempt = attempts.entry(service.clone());
            let attempt = attempt.or_insert_with(|| {
                let is_enforcing = place.enforcing.contains(&service);
                let wait = if is_enforcing { Duration::ZERO } else { OTHERS };
                TextAttempt {
                    text: text.clone(),
                    due: Instant::now() + wait,
                    pause: WritingPause::of(AGAIN),
                }
            });
            if Instant::now() < attempt.due {
                continue;
            }
            let outcome = match &place.store {
                Store::Redis(settings) => there::name_text(settings, &service, (&text, &trip)),
                Store::File(path) => {
                    beside::name_text(path, (&service, &place.services), (&text, &trip))
                }
            };
            // Where it cannot be written, it goes on as it was: each gateway by what it has seen.
            let pause = match outcome {
                Ok(()) => SEEN,
                Err(error) => attempt.pause.after(error.is_refused),
            };
            attempt.due = Instant::now() + pause;
        }
    }

    /// The texts that are about what is in force, and what they were taken for.
    fn texts(&self) -> BTreeMap<ServiceName, (Vec<u8>, Trip)> {
        let known = self.known();
        let texts = known.services.iter().filter_map(|(service, it)| {
            let (text, trip) = it.taken_for.as_ref()?;
            let held = it.held.as_ref()?;
            let lists = self.in_force.load_of(service)?;
            let is_it = held.is_stored && held.trip == *trip && lists.version == held.version;
            is_it.then(|| (service.clone(), (text.clone(), trip.clone())))
        });
        texts.collect()
    }
}
