//! People are told of what this gateway has taken back: at least once, whatever becomes of it meanwhile. So
//! that it is yet to be told is in the file, until the message was delivered or given up.

use super::Trips;
use super::known::{KnownRelease, UntoldTrip};
use crate::lists::ServiceName;
use crate::release::state::Trip;
use crate::release::webhook::{NoticeReceipt, ReleaseNotice};

impl Trips {
    /// Notes of a trip of this gateway that the store has it, or that it does not have it for too long.
    pub(super) fn note_written(&self, service: &ServiceName, trip: &Trip, is_stored: bool) {
        let mut known = self.known();
        let release = known.services.get_mut(service);
        let untold = release.and_then(|it| it.untold.as_mut());
        if let Some(untold) = untold.filter(|it| it.is_of(trip)) {
            untold.is_stored = Some(is_stored);
        }
    }

    /// Has people told of what they may know by now.
    pub(super) fn announce(&self) {
        let mut is_news = false;
        let mut known = self.known();
        for (service, release) in &mut known.services {
            is_news |= release.announce(|trip, is_stored| {
                let notice = ReleaseNotice::tripped(service, trip, is_stored);
                self.webhook.tell_for_receipt(notice)
            });
        }
        known.is_unsaved |= is_news;
        drop(known);
        if is_news {
            self.ring_file();
        }
    }
}

impl KnownRelease {
    /// Has what is due told. True where nothing is to be told any more.
    fn announce(&mut self, tell: impl FnOnce(&Trip, bool) -> Option<NoticeReceipt>) -> bool {
        let Some(untold) = &mut self.untold else {
            return false;
        };
        // It may be over; or another gateway has written that it has found the same, and tells.
        let held = self.held.as_ref().filter(|it| untold.is_of(&it.trip));
        let is_over = untold.receipt.as_ref().is_some_and(NoticeReceipt::is_over);
        let Some(held) = held.filter(|_| !is_over) else {
            self.untold = None;
            return true;
        };
        let is_stored = held.is_stored.then_some(true).or(untold.is_stored);
        // Not before the log says so: until then it is not kept.
        if untold.receipt.is_none()
            && self.told == Some(held.version)
            && let Some(is_stored) = is_stored
        {
            untold.receipt = tell(&untold.trip, is_stored);
        }
        false
    }
}

impl UntoldTrip {
    pub(super) fn new(trip: Trip) -> Self {
        Self {
            trip,
            is_stored: None,
            receipt: None,
        }
    }

    /// It is this trip, of which the store may have more than was found.
    pub(super) fn is_of(&self, trip: &Trip) -> bool {
        (&self.trip.by, &self.trip.at, &self.trip.pre) == (&trip.by, &trip.at, &trip.pre)
    }
}
