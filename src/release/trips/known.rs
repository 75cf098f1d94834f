//! What is known of the release of a service, and what a reading of the store makes of it. No I/O.

use std::time::{Duration, Instant};

use xxhash_rust::xxh64::xxh64;

use crate::fleet::release::NodeRelease;
use crate::lists::{Digest, ServiceName};
use crate::release::rollout::Rollout;
use crate::release::state::{ReleaseState, ResetNote, Trip};
use crate::release::webhook::NoticeReceipt;
use crate::store::StoredText;

/// What is known of the release of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownRelease {
    pub(super) held: Option<HeldTrip>,
    /// What the store has instead, of a version that is not in force: it counts once that is.
    pub(super) other: Option<HeldTrip>,
    pub(super) state: ReleaseState,
    /// The version that is to be tripped from the swap that brings it.
    pub(super) expected: Option<u64>,
    /// What has ended a trip without a new epoch has begun one.
    pub(super) begun_anew: Option<BegunAnew>,
    /// This process has heard of it from the store: until then, lists may be those of an old copy.
    pub(super) is_heard: bool,
    /// The resets that were seen, the last one last.
    pub(super) resets: Vec<String>,
    /// The latest turn of the rollout that was seen, also if the store has lost it since.
    pub(super) latest: Option<Rollout>,
    /// Its rollout, as it was looked at last.
    pub(super) rollout: Option<Rollout>,
    /// A text that is no trip, and what it was taken for when it was first seen.
    pub(super) taken_for: Option<(Vec<u8>, Trip)>,
    /// The version of which it was logged that it was taken back.
    pub(super) told: Option<u64>,
    /// The version that was held and in force here.
    pub(super) in_force: Option<u64>,
    /// It was this gateway that has taken that back.
    pub(super) is_own: bool,
    /// Who has reset what was held last, if that is why it is over. The state may have another epoch by the
    /// time that it is read: a step or a share begins one, too.
    pub(super) ended_by: Option<ResetNote>,
    /// Since when the file is about to have what is held: see [`Self::is_being_kept`].
    pub(super) keeping: Option<Instant>,
    /// What this gateway has taken back, while people are to be told of it.
    pub(super) untold: Option<UntoldTrip>,
}

/// A trip of which people are to be told.
#[derive(Clone, Debug)]
pub(super) struct UntoldTrip {
    pub(super) trip: Trip,
    /// The store has it; or people should know that it does not.
    pub(super) is_stored: Option<bool>,
    /// Of the message that says so.
    pub(super) receipt: Option<NoticeReceipt>,
}

/// A trip.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldTrip {
    pub(super) trip: Trip,
    pub(super) version: u64,
    /// It was seen in the store.
    pub(super) is_stored: bool,
    /// The resets that were known when it was found, by their epochs: another one ends it.
    pub(super) resets: Vec<String>,
}

/// Somebody has deleted the key of a trip, and that is all. The evidence by which it tripped must not have it
/// tripped again, so it begins anew: in an epoch that is the same for all gateways that see the key gone,
/// whatever else they know. One of them writes it, for those that were not there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BegunAnew {
    /// The epoch that the store has, until it has this one.
    pub(super) after: String,
    pub(super) epoch: String,
}

impl KnownRelease {
    /// The epoch of the evidence.
    pub(super) fn epoch(&self) -> &str {
        let begun = self.begun_anew.as_ref();
        let begun = begun.filter(|it| it.after == self.state.epoch);
        begun.map_or(&self.state.epoch, |it| &it.epoch)
    }

    /// What others are told of it.
    pub(super) fn told_of(&self) -> NodeRelease {
        NodeRelease {
            epoch: self.epoch().to_owned(),
            ..self.state.held()
        }
    }

    /// The next epoch of the release of this `version`.
    fn begin_anew(&mut self, version: u64) {
        let next = xxh64(self.epoch().as_bytes(), version);
        let epoch = format!("{next:016x}");
        self.know_reset(&epoch);
        self.begun_anew = Some(BegunAnew {
            after: self.state.epoch.clone(),
            epoch,
        });
    }
}

impl HeldTrip {
    /// Somebody has reset the release since. That it has another epoch says nothing: each step of a rollout
    /// begins one.
    pub(super) fn is_over(&self, state: &ReleaseState) -> bool {
        let reset = state.reset.as_ref();
        reset.is_some_and(|it| !self.resets.contains(&it.epoch))
    }
}

/// So long the file is waited for where the store has a trip already.
const DISK: Duration = Duration::from_secs(1);

/// So many resets are known: a store that has lost its last data may have an earlier one again.
const RESETS: usize = 16;

impl KnownRelease {
    /// The store has this state.
    pub(super) fn see_state(&mut self, state: ReleaseState) {
        if let Some(reset) = &state.reset {
            self.know_reset(&reset.epoch);
        }
        if let Some(rollout) = &state.rollout {
            let seen = self.latest.as_ref();
            let is_ahead = |it: &Rollout| it.id == rollout.id && it.turns > rollout.turns;
            if !seen.is_some_and(is_ahead) {
                self.latest = Some(rollout.clone());
            }
        }
        self.state = state;
    }

    fn know_reset(&mut self, epoch: &str) {
        if !self.resets.iter().any(|it| it == epoch) {
            self.resets.push(epoch.to_owned());
            let over = self.resets.len().saturating_sub(RESETS);
            self.resets.drain(..over);
        }
    }

    /// This gateway takes something back, and is going to keep that.
    pub(super) fn find(&mut self, trip: Trip) {
        self.keeping = Some(Instant::now());
        self.untold = Some(UntoldTrip::new(trip.clone()));
        self.held = Some(HeldTrip {
            version: trip.version(),
            trip,
            is_stored: false,
            resets: self.resets.clone(),
        });
    }

    /// Nobody hears of what is held until it is kept: what was said is not forgotten, should this process be
    /// killed then. Where the disk takes its time, it is enough that the store has it.
    pub(super) fn is_being_kept(&self) -> bool {
        let is_stored = self.held.as_ref().is_some_and(|it| it.is_stored);
        self.keeping
            .is_some_and(|since| !is_stored || since.elapsed() < DISK)
    }

    /// What the text of the key says, where these `lists` are in force or come into force.
    pub(super) fn read(&self, text: &[u8], service: &ServiceName, pre: Digest) -> Trip {
        if let Some(mut trip) = Trip::parse(text) {
            if trip.epoch().is_empty() {
                // It does not say, or there was none: when it was first seen.
                let held = self.held.as_ref().map(|it| &it.trip);
                let held =
                    held.filter(|it| (&it.pre, &it.by, &it.at) == (&trip.pre, &trip.by, &trip.at));
                let epoch = held.map_or(self.epoch(), Trip::epoch);
                trip.release = format!("{}/{epoch}", trip.pre);
            }
            return trip;
        }
        match &self.taken_for {
            Some((known, trip)) if known == text => trip.clone(),
            _ => Trip::by_hand(text, service.as_str(), pre, self.epoch()),
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
            resets: self.resets.clone(),
        };
        match &mut self.held {
            // What is there is over, and about to be overwritten; or it is of what comes next.
            Some(own)
                if own.version == version
                    && seen.version != version
                    && !own.is_over(&self.state) =>
            {
                own.is_stored = false;
                self.other = Some(seen);
            }
            _ => (self.held, self.other) = (Some(seen), None),
        }
    }

    /// What is in force is of this `version`.
    pub(super) fn follow(&mut self, version: u64) {
        if let Some(other) = self.other.take_if(|it| it.version == version) {
            self.held = Some(other);
        }
    }

    /// Who knows of a trip by its file alone cannot tell a key that was deleted meanwhile from one that the
    /// store has lost: it has lost more where the `state` of the release has gone as well, and no verb takes
    /// that away.
    pub(super) fn has_lost(&self, state: &StoredText) -> bool {
        !self.is_heard && *state == StoredText::Absent && !self.state.epoch.is_empty()
    }

    /// The store has none; it may have been `lost`.
    pub(super) fn see_none(&mut self, lost: bool) {
        self.other = None;
        let Some(held) = &mut self.held else {
            return;
        };
        // It may have been reset while this gateway could not say what it had found.
        let is_over = held.is_over(&self.state);
        let was_deleted = held.is_stored && !lost;
        held.is_stored = false;
        if was_deleted || is_over {
            let version = held.version;
            self.held = None;
            self.ended_by = self.state.reset.clone().filter(|_| is_over);
            if !is_over {
                self.begin_anew(version);
            }
        }
    }
}
