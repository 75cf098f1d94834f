//! Who carries a rollout on, as one gateway sees it: whether it has the lease, may take it, or follows
//! another one. Pure; times are those of its own monotonic clock.
//!
//! The lease of another one is over when it was seen unchanged for [`LEASE`]; its own when it has not renewed
//! it for as long. What a lease is good for is in [`rollout`](super::rollout).

use std::time::Duration;

use super::rollout::{LEASE, Lease, Rollout, SeenTurn};

/// What a gateway knows of who carries a rollout on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidacy {
    /// The rollout that was seen last, and how far it has come.
    id: String,
    seen: SeenTurn,
    /// Its lease, and since when it is this one.
    lease: Lease,
    since: Duration,
    own: Option<OwnLease>,
}

/// The lease of this gateway.
#[derive(Clone, Copy, Debug)]
struct OwnLease {
    fence: u64,
    beat: u64,
    /// When its last write was begun, which counts for the lease, and when it was known to be done, which
    /// counts for the time of the step.
    begun: Duration,
    known: Duration,
}

/// What a gateway is for a rollout at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has the lease.
    Leads {
        /// By this number.
        fence: u64,
        /// So long after its last write.
        unwritten: Duration,
        /// The lease is to be renewed.
        is_due: bool,
    },
    /// It may take the lease.
    Takes,
    /// Another one has it.
    Follows,
}

impl Candidacy {
    /// What `own` is, by what it sees in the store at `now`.
    pub(crate) fn look(&mut self, rollout: &Rollout, own: &str, now: Duration) -> Role {
        if self.id != rollout.id {
            *self = Self {
                id: rollout.id.clone(),
                ..Self::default()
            };
        }
        self.seen.see(rollout);
        if self.lease != rollout.lease || self.since.is_zero() {
            self.lease = rollout.lease.clone();
            self.since = now;
        }
        let Some(holder) = &rollout.lease.holder else {
            self.own = None;
            return Role::Takes;
        };
        if holder != own {
            self.own = None;
            return match now.saturating_sub(self.since) >= LEASE {
                true => Role::Takes,
                false => Role::Follows,
            };
        }
        let Lease { fence, beat, .. } = rollout.lease;
        let own = self.own.filter(|it| it.fence == fence);
        let own = own.map(|it| match it.beat == beat {
            true => it,
            // It has written something, and never heard of that: what it has waited may be written already.
            false => OwnLease {
                beat,
                known: now,
                ..it
            },
        });
        self.own = own.filter(|it| now.saturating_sub(it.begun) < LEASE);
        match self.own {
            Some(it) => Role::Leads {
                fence: it.fence,
                unwritten: now.saturating_sub(it.known),
                is_due: now.saturating_sub(it.begun) >= LEASE / 3,
            },
            // It has the lease, but cannot tell for how long.
            None => Role::Takes,
        }
    }

    /// A write that has left this `lease` was begun and was known to be done then.
    pub(crate) fn wrote(&mut self, lease: &Lease, begun: Duration, known: Duration) {
        self.own = Some(OwnLease {
            fence: lease.fence,
            beat: lease.beat,
            begun,
            known,
        });
    }

    /// It was seen like that, or brought to that.
    pub(crate) fn saw(&mut self, rollout: &Rollout) {
        if self.id == rollout.id {
            self.seen.see(rollout);
        }
    }

    /// How far it has come.
    pub(crate) fn seen(&self) -> SeenTurn {
        self.seen
    }
}
