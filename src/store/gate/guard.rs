//! The guard: a change that could only be a mistake is held until somebody confirms it.
//!
//! Held are changes that empty `prod`, that remove more of its peers at once than is allowed, and that
//! make practically everybody of a family gray: what counts is the share of the addresses that clients
//! can have, however the entries are written: as nets, as `*`, or as shares of all clients. What somebody
//! excludes is never held. The last good list stays in force meanwhile. A held change
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

mod record;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub(crate) use record::{GateRecord, WaitingRecord};

use crate::lists::{Digest, Family, GrayList, ListName, ListedPeer, PeerList, Rule};

/// How long a list must stand that follows trouble and still lacks peers; and how long the list in force
/// must have stood for the next change to count as another one.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How many entries that would go, and that would come, are named.
const NAMED: usize = 20;

/// Why a change is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// It leaves `prod` without a peer.
    EmptiesProd,
    /// It removes too many of `prod`'s peers at once.
    RemovesPeers,
    /// It makes practically everybody of a family gray.
    AdmitsEverybody,
}

impl HoldReason {
    /// The name in logs and on the admin page.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EmptiesProd => "empties-prod",
            Self::RemovesPeers => "removes-peers",
            Self::AdmitsEverybody => "admits-everybody",
        }
    }
}

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

/// Some entries: how many there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// How many.
    pub count: usize,
    /// The first of them, at most 20.
    pub first: Vec<String>,
}

impl Named {
    /// This many more, of which these are the first.
    fn add<T: ToString>(&mut self, count: usize, first: impl IntoIterator<Item = T>) {
        self.count += count;
        let room = NAMED.saturating_sub(self.first.len());
        let first = first.into_iter().take(room);
        self.first.extend(first.map(|it| it.to_string()));
    }

    fn of<T: ToString>(entries: impl Iterator<Item = T>) -> Self {
        let mut named = Self::default();
        for entry in entries {
            named.count += 1;
            if named.first.len() < NAMED {
                named.first.push(entry.to_string());
            }
        }
        named
    }
}

/// A list with a guard.
pub(crate) trait Guarded {
    /// Its name.
    const LIST: ListName;

    /// Whether it matters how much is taken away at once.
    const IS_SHARED: bool;

    /// Why `new` must not take the place of this list by itself.
    fn objection(&self, new: &Self, share: usize) -> Option<HoldReason>;

    /// True when `new` lacks something of this list that its clients may miss.
    fn loses_by(&self, new: &Self) -> bool;

    /// What would go with `new`, and what would come.
    fn difference(&self, new: &Self) -> [Named; 2];

    /// A hash of the content.
    fn digest(&self) -> Digest;

    /// True when this content is meant by a digest as it is displayed.
    fn is_meant_by(&self, digest: &str) -> bool {
        Guarded::digest(self).to_string() == digest
    }

    /// How many entries there are.
    fn count(&self) -> usize;

    /// The entries as they are written, one a line.
    fn to_lines(&self) -> Vec<u8>;

    /// The list of such lines; peers without a port get `peer_port`.
    fn of_lines(lines: &[u8], peer_port: u16) -> Self;

    /// The same list with what lines do not say, as it is in this one.
    fn with_salt_of(self, _: &Self) -> Self
    where
        Self: Sized,
    {
        self
    }
}

fn lines_of<T: fmt::Display>(entries: impl Iterator<Item = T>) -> Vec<u8> {
    let mut lines = String::new();
    for entry in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{entry}");
    }
    lines.into_bytes()
}

fn entries_of(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = lines.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty())
}

impl Guarded for PeerList {
    const LIST: ListName = ListName::Prod;
    const IS_SHARED: bool = true;

    fn objection(&self, new: &Self, share: usize) -> Option<HoldReason> {
        let (all, gone) = (self.peers().len(), missing(self, new).count());
        if new.is_empty() && all > 0 {
            Some(HoldReason::EmptiesProd)
        } else if gone * 100 > all * share {
            Some(HoldReason::RemovesPeers)
        } else {
            None
        }
    }

    fn loses_by(&self, new: &Self) -> bool {
        missing(self, new).next().is_some()
    }

    fn difference(&self, new: &Self) -> [Named; 2] {
        [Named::of(missing(self, new)), Named::of(missing(new, self))]
    }

    fn digest(&self) -> Digest {
        self.digest(Self::LIST)
    }

    fn is_meant_by(&self, digest: &str) -> bool {
        // The other one is the digest that a gateway of an older version shows for the same servers.
        [self.digest(Self::LIST), self.digest_with_ports(Self::LIST)]
            .iter()
            .any(|it| it.to_string() == digest)
    }

    fn count(&self) -> usize {
        self.peers().len()
    }

    fn to_lines(&self) -> Vec<u8> {
        lines_of(self.written().iter())
    }

    fn of_lines(lines: &[u8], peer_port: u16) -> Self {
        Self::parse(entries_of(lines), peer_port)
    }
}

/// Peers of one list that the other lacks. One with another weight is there.
fn missing<'a>(one: &'a PeerList, other: &'a PeerList) -> impl Iterator<Item = &'a ListedPeer> {
    let there = |peer: &ListedPeer| other.at(peer.place()).is_some();
    one.peers().iter().filter(move |it| !there(it))
}

impl Guarded for GrayList {
    const LIST: ListName = ListName::Gray;
    // Also so that an old list of a million entries is not kept alive.
    const IS_SHARED: bool = false;

    fn objection(&self, new: &Self, _: usize) -> Option<HoldReason> {
        let mut families = Family::ALL.into_iter();
        families
            .any(|it| comes_to_admit_everybody(self, new, it))
            .then_some(HoldReason::AdmitsEverybody)
    }

    fn loses_by(&self, _: &Self) -> bool {
        // Clients that are no longer gray get the old version: a rollback.
        false
    }

    /// Names only the entries that admit everybody, as there may be a million others: a single one if
    /// that is enough, otherwise the widest of those that would come, and what others add to them.
    fn difference(&self, new: &Self) -> [Named; 2] {
        let mut come = Named::default();
        // A rule is of both families, unless it has a net.
        let mut rules: Vec<&Rule> = Vec::new();
        for (family, everybody) in Family::ALL.into_iter().zip(everybody()) {
            if !comes_to_admit_everybody(self, new, family) {
                continue;
            }
            if new.has(&everybody) && !self.has(&everybody) {
                come.add(1, [everybody]);
                continue;
            }
            let is_new = |(rule, _): &(&Rule, bool)| self.rules().binary_search(rule).is_err();
            let mut admitting = new.admitting_rules(family).filter(is_new);
            if let Some((rule, _)) = admitting.find(|(_, is_enough)| *is_enough) {
                rules.push(rule);
                continue;
            }
            let mut nets: Vec<IpNet> = Vec::new();
            let mut count = 0;
            for net in new.nets_of(family).filter(|it| !self.has(it)) {
                count += 1;
                let at = nets.partition_point(|it| it.prefix_len() <= net.prefix_len());
                nets.insert(at, net);
                nets.truncate(NAMED);
            }
            come.add(count, nets);
            let admitting = new.admitting_rules(family).filter(is_new);
            rules.extend(admitting.map(|(rule, _)| rule));
        }
        rules.sort_unstable();
        rules.dedup();
        come.add(rules.len(), rules);
        [Named::default(), come]
    }

    fn digest(&self) -> Digest {
        self.digest()
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn to_lines(&self) -> Vec<u8> {
        lines_of(self.entries())
    }

    fn of_lines(lines: &[u8], _: u16) -> Self {
        Self::parse(entries_of(lines))
    }

    fn with_salt_of(self, other: &Self) -> Self {
        self.with_salt(other.salt().clone())
    }
}

/// True when `new` admits everybody of a family, and `old` does not, or not for as long.
fn comes_to_admit_everybody(old: &GrayList, new: &GrayList, family: Family) -> bool {
    new.admission(family) > old.admission(family)
}

/// The entries that admit everybody by themselves, in the order of [`Family::ALL`].
fn everybody() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
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
        let reason = self.objection(in_force, &new, rules.share);
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
                let [gone, come] = before.difference(&new);
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
    fn objection(&self, in_force: &L, new: &L, share: usize) -> Option<HoldReason> {
        let Some(baseline) = &self.baseline else {
            return in_force.objection(new, share);
        };
        baseline.objection(new, share).or_else(|| {
            // Whether it was there before the burst or not, the last peer may be in use.
            let takes_back = !baseline.loses_by(new) && new.count() > 0;
            let objection = || in_force.objection(new, share);
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
    /// it.
    pub(crate) fn ripe(&mut self, rules: GuardRules, in_force: &L, now: Instant) -> Option<Arc<L>> {
        let waiting = self.waiting.as_ref()?;
        let stood = now.saturating_duration_since(waiting.stands_since?);
        let ripe = match waiting.reason {
            None => stood >= SETTLE,
            Some(_) => {
                rules.timeout.is_some_and(|it| stood >= it)
                    || self
                        .objection(in_force, &waiting.content, rules.share)
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
