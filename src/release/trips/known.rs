//! What is known of the release of a service, and what a reading of the store makes of it. No I/O.

use crate::lists::{Digest, ServiceName};
use crate::release::state::{ReleaseState, Trip};

/// What is known of the release of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownRelease {
    pub(super) held: Option<HeldTrip>,
    pub(super) state: ReleaseState,
    /// A text that is no trip, and what it was taken for when it was first seen.
    pub(super) taken_for: Option<(Vec<u8>, Trip)>,
    /// The version of which it was logged that it was taken back.
    pub(super) told: Option<u64>,
    /// It was this gateway that has taken that back.
    pub(super) is_own: bool,
}

/// A trip.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldTrip {
    pub(super) trip: Trip,
    pub(super) version: u64,
    /// It was seen in the store.
    pub(super) is_stored: bool,
}

impl KnownRelease {
    /// What the text of the key says, where these `lists` are in force or come into force.
    pub(super) fn read(&self, text: &[u8], service: &ServiceName, pre: Digest) -> Trip {
        if let Some(mut trip) = Trip::parse(text) {
            if trip.epoch().is_empty() {
                // It does not say, or there was none.
                trip.release = format!("{}/{}", trip.pre, self.state.epoch);
            }
            return trip;
        }
        match &self.taken_for {
            Some((known, trip)) if known == text => trip.clone(),
            _ => Trip::by_hand(text, service.as_str(), pre, &self.state.epoch),
        }
    }
}

impl KnownRelease {
    /// The store has this `trip`, while `version` is the one in `pre`.
    pub(super) fn see_trip(&mut self, trip: Trip, version: u64) {
        let seen = HeldTrip {
            version: trip.version(),
            trip,
            is_stored: true,
        };
        match &self.held {
            // What is there is over, and is about to be overwritten.
            Some(own) if !own.is_stored && own.version == version && seen.version != version => {}
            _ => self.held = Some(seen),
        }
    }

    /// The store has none; it may have been `lost`.
    pub(super) fn see_none(&mut self, lost: bool) {
        let Some(held) = &mut self.held else {
            return;
        };
        // Somebody has reset the release, perhaps while this gateway could not say what it had found.
        let epoch = &self.state.epoch;
        let is_other_epoch = !epoch.is_empty() && epoch != held.trip.epoch();
        let was_deleted = held.is_stored && !lost;
        held.is_stored = false;
        if was_deleted || is_other_epoch {
            self.held = None;
        }
    }
}
