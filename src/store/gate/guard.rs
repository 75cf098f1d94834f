//! The guard: a change that could only be a mistake is held until somebody confirms it.
//!
//! Held are changes that empty `prod`, that remove more of its peers at once than is allowed, and that
//! make practically everybody of a family gray: what counts is the share of the addresses that clients
//! can have, however the entries are written: as nets, as `*`, or as shares of all clients. What is over, and
//! what somebody excludes, is never held. The last good list stays in force meanwhile. A held change
//! comes into force when it is accepted by the digest of its content, or when it has stood for the
//! configured time; it is forgotten when the store has something acceptable again.
//!
//! *At once* means within [`SETTLE`]. The removal of one server, and of another one 10 ms later, are one
//! change, although each is read separately. So the new list is compared with the one in force, and with
//! the *baseline*: the list as it was before the burst of changes. The list in force becomes the
//! baseline when it has stood for [`SETTLE`], but not while something is held. A change that removes
//! nothing of the baseline only undoes what the same burst has added, and is not held.
//!
//! Time counts only while the store is seen to have the change. While the store cannot be reached, the
//! change is *out of sight*: the time begins anew with the next reading, but whoever knows the digest
//! may still accept what the store had. If the store is read but does not give the list, the change is
//! *doubtful*: then nothing of it is let in.
//!
//! A list that is rewritten entry by entry becomes acceptable before it is complete. So whatever follows
//! a held change (or a moment in which the list was unknown) and still removes peers has to stand for
//! [`SETTLE`]; what removes none is in force at once.
//!
//! Emptying `gray` is a rollback and never waits; `pre` has no guard, since `prod` answers for it. A peer
//! with another weight is the same peer, so a change of weights is never held.
//!
//! Pure: no clock, no I/O, no log. One `Gate` for each guarded list.

mod guarded;
mod record;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use guarded::{Guarded, HoldReason, Named};
pub(crate) use record::{GateRecord, WaitingRecord};

use crate::lists::{Digest, ListName};

/// How long a list must stand that follows trouble and still lacks peers; and how long the list in force
/// must have stood for the next change to count as another one.
pub const SETTLE: Duration = Duration::from_secs(1);

/// What has let a held change in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Somebody, at the admin listener.
    Command,
    /// The key in Redis.
    Key,
    /// Time, or other settings.
    Rules,
}

impl By {
    pub(in crate::store) const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Rules => "rules",
        }
    }
}

/// The guard's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuardRules {
    /// The share of `prod`'s peers that one change may remove, in percent; 100: all but the last.
    pub share: usize,
    /// When a held change comes into force by itself, if ever.
    pub timeout: Option<Duration>,
}

/// One moment, by the monotonic clock and by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp {
    /// For lengths of time.
    pub(crate) instant: Instant,
    /// For people.
    pub(crate) time: SystemTime,
}

impl Timestamp {
    /// This moment.
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// A held change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldChange {
    /// Which list.
    pub list: ListName,
    /// Why.
    pub reason: HoldReason,
    /// The hash of the list's new content, by which it is accepted.
    pub digest: Digest,
    /// Since when.
    pub since: SystemTime,
    /// How many entries the new content has.
    pub entries: usize,
    /// What would go.
    pub gone: Named,
    /// What would come.
    pub new: Named,
}

/// A change that waits.
#[derive(Debug)]
struct Waiting<L> {
    content: Arc<L>,
    digest: Digest,
    /// Why it is held; `None` if it only has to settle.
    reason: Option<HoldReason>,
    /// When it was first seen.
    since: SystemTime,
    /// Since when every reading has seen it in the store; `None` if it is out of sight, or doubtful.
    stands_since: Option<Instant>,
    entries: usize,
    gone: Named,
    new: Named,
}

/// The gate that a guarded list has to pass to come into force.
#[derive(Debug)]
pub(crate) struct Gate<L> {
    waiting: Option<Waiting<L>>,
    /// The store was read, but did not give the list.
    doubtful: bool,
    /// The list as it was before the burst of changes that may be under way.
    baseline: Option<Arc<L>>,
    /// When the last change was let in at once; `None` if the list in force has stood.
    changed: Option<Instant>,
}

impl<L> Default for Gate<L> {
    fn default() -> Self {
        Self {
            waiting: None,
            doubtful: false,
            baseline: None,
            changed: None,
        }
    }
}

impl<L: Guarded> Gate<L> {
    /// The store has `new`: returns it if it may replace `in_force` now. Otherwise it waits here,
    /// keeping the time for which it has waited already, in place of whatever else has waited.
    pub(crate) fn judge(
        &mut self,
        rules: GuardRules,
        in_force: &Arc<L>,
        new: impl Into<Arc<L>>,
        now: Timestamp,
    ) -> Option<Arc<L>> {
        let new = new.into();
        self.renew_baseline(in_force, now.instant);
        let troubled = std::mem::take(&mut self.doubtful) || self.waiting.is_some();
        let reason = self.objection(in_force, &new, rules.share, now.time);
        let digest = Guarded::digest(&*new);
        if reason.is_none() && !(troubled && in_force.loses_by(&new)) {
            self.waiting = None;
            return Some(new);
        }
        let same = |it: &&mut Waiting<L>| (it.digest, it.reason) == (digest, reason);
        match self.waiting.as_mut().filter(same) {
            Some(waiting) => {
                waiting.stands_since.get_or_insert(now.instant);
            }
            None => {
                let before = self.baseline.as_deref().unwrap_or(in_force);
                let [gone, come] = before.difference(&new, now.time);
                self.waiting = Some(Waiting {
                    digest,
                    reason,
                    since: now.time,
                    stands_since: Some(now.instant),
                    entries: new.count(),
                    gone,
                    new: come,
                    content: new,
                });
            }
        }
        None
    }

    /// What [`Self::judge`] has returned is in force from now on, and differs from what was.
    pub(crate) fn note_change(&mut self, now: Instant) {
        self.changed = Some(now);
    }

    /// A list in force that has stood is what the next changes are compared with; but what is held
    /// stays compared with what there was before it.
    fn renew_baseline(&mut self, in_force: &Arc<L>, now: Instant) {
        let holds = self.waiting.as_ref().is_some_and(|it| it.reason.is_some());
        let stood = |since| now.saturating_duration_since(since) >= SETTLE;
        if L::IS_SHARED && !holds && self.changed.is_none_or(stood) {
            self.baseline = Some(Arc::clone(in_force));
        }
    }

    /// Why `new` must not come into force by itself.
    fn objection(
        &self,
        in_force: &L,
        new: &L,
        share: usize,
        now: SystemTime,
    ) -> Option<HoldReason> {
        let Some(baseline) = &self.baseline else {
            return in_force.objection(new, share, now);
        };
        baseline.objection(new, share, now).or_else(|| {
            // Whether it was there before the burst or not, the last peer may be in use.
            let takes_back = !baseline.loses_by(new) && new.count() > 0;
            let objection = || in_force.objection(new, share, now);
            (!takes_back).then(objection).flatten()
        })
    }

    /// Takes what waits into force, because it has stood, or was confirmed.
    fn take(&mut self) -> Option<Arc<L>> {
        (self.baseline, self.changed) = (None, None);
        self.waiting.take().map(|it| it.content)
    }

    /// The store was read, but does not give the list.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
        self.lose_sight();
    }

    /// The store cannot be reached: it is unknown whether it still has what waits.
    pub(crate) fn lose_sight(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.stands_since = None;
        }
    }

    /// Takes what waits, if it was seen to stand for long enough, or is in sight and the rules now allow
    /// it, or its time is over.
    pub(crate) fn ripe(
        &mut self,
        rules: GuardRules,
        in_force: &L,
        now: Timestamp,
    ) -> Option<Arc<L>> {
        let waiting = self.waiting.as_ref()?;
        let stood = now.instant.saturating_duration_since(waiting.stands_since?);
        let ripe = match waiting.reason {
            None => stood >= SETTLE,
            Some(_) => {
                rules.timeout.is_some_and(|it| stood >= it)
                    || self
                        .objection(in_force, &waiting.content, rules.share, now.time)
                        .is_none()
            }
        };
        ripe.then(|| self.take()).flatten()
    }

    /// When [`Self::ripe`] may return something, if nothing else happens.
    pub(crate) fn ripe_at(&self, rules: GuardRules) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let after = match waiting.reason {
            None => SETTLE,
            Some(_) => rules.timeout?,
        };
        waiting.stands_since?.checked_add(after)
    }

    /// Takes the held change whose digest is `digest`, as it is displayed, if the store had it when
    /// it was last read.
    pub(crate) fn accept(&mut self, digest: &str) -> Option<Arc<L>> {
        let waiting = self.waiting.as_ref()?;
        let meant = waiting.content.is_meant_by(digest);
        let fits = meant && waiting.reason.is_some() && !self.doubtful;
        fits.then(|| self.take()).flatten()
    }

    /// True when nothing waits, and the last reading gave the list.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_none() && !self.doubtful
    }

    /// True when something waits that only has to settle.
    pub(crate) fn settles(&self) -> bool {
        self.waiting.as_ref().is_some_and(|it| it.reason.is_none())
    }

    /// What is held.
    pub(crate) fn held(&self) -> Option<HeldChange> {
        let waiting = self.waiting.as_ref()?;
        Some(HeldChange {
            list: L::LIST,
            reason: waiting.reason?,
            digest: waiting.digest,
            since: waiting.since,
            entries: waiting.entries,
            gone: waiting.gone.clone(),
            new: waiting.new.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
