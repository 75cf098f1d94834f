//! The file for the next process is written by a thread of its own: a disk that takes its time holds up
//! neither whoever finds something nor whoever writes it to the store. People hear of a trip once it is kept.

use std::sync::PoisonError;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::known::HeldTrip;
use super::{Trips, memory};

/// What could not be written is tried again after that time.
const AGAIN: Duration = Duration::from_secs(1);

impl Trips {
    /// Keeps the file as it is to be, until the process ends.
    pub(super) fn save_all(&self, news: &Receiver<()>) {
        loop {
            // A ring or not.
            let _ = news.recv_timeout(AGAIN);
            self.save();
        }
    }

    /// Writes the file, if it says something else.
    fn save(&self) {
        let notes = self.saving.lock();
        let mut notes = notes.unwrap_or_else(PoisonError::into_inner);
        let mut known = self.known();
        let (place, services) = (known.place.clone(), known.services.clone());
        let is_due = known.is_unsaved && !place.rests;
        known.is_unsaved &= !is_due;
        drop(known);
        if is_due {
            match memory::write(&place, &services, &mut notes.unread) {
                Ok(()) => notes.error = None,
                Err(error) => {
                    self.known().is_unsaved = true;
                    let error = error.to_string();
                    if notes.error.as_ref() != Some(&error) {
                        log::warn!("trips-not-saved error={error:?}");
                    }
                    notes.error = Some(error);
                }
            }
        }
        drop(notes);
        // Also what cannot be kept is not kept from people.
        let mut is_news = false;
        let mut known = self.known();
        for (service, release) in &mut known.services {
            let saved = services.get(service).and_then(|it| it.held.as_ref());
            let trip = |it: &HeldTrip| it.trip.clone();
            let is_it = saved.map(trip) == release.held.as_ref().map(trip);
            if is_it && release.keeping.is_some() {
                release.keeping = None;
                self.settle(service, release);
                is_news = true;
            }
        }
        drop(known);
        if is_news {
            self.ring();
        }
    }
}
