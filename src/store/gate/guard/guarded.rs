//! What the guard objects to in a new list: what could only be a mistake.
//!
//! A list is compared with another one, at a time; how long something has stood is the gate's part.

use std::fmt::{self, Write};
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::lists::{Digest, Family, GrayList, ListName, ListedPeer, PeerList, Rule};

/// How many entries that would go, and that would come, are named.
pub(super) const NAMED: usize = 20;

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
    fn objection(&self, new: &Self, share: usize, now: SystemTime) -> Option<HoldReason>;

    /// True when `new` lacks something of this list that its clients may miss.
    fn loses_by(&self, new: &Self) -> bool;

    /// What would go with `new`, and what would come.
    fn difference(&self, new: &Self, now: SystemTime) -> [Named; 2];

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

    fn objection(&self, new: &Self, share: usize, _: SystemTime) -> Option<HoldReason> {
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

    fn difference(&self, new: &Self, _: SystemTime) -> [Named; 2] {
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

    fn objection(&self, new: &Self, _: usize, now: SystemTime) -> Option<HoldReason> {
        let mut families = Family::ALL.into_iter();
        families
            .any(|it| comes_to_admit_everybody(self, new, it, now))
            .then_some(HoldReason::AdmitsEverybody)
    }

    fn loses_by(&self, _: &Self) -> bool {
        // Clients that are no longer gray get the old version: a rollback.
        false
    }

    /// Names only the entries that admit everybody, as there may be a million others: a single one if
    /// that is enough, otherwise the widest of those that would come, and what others add to them.
    fn difference(&self, new: &Self, now: SystemTime) -> [Named; 2] {
        let mut come = Named::default();
        // A rule is of both families, unless it has a net.
        let mut rules: Vec<&Rule> = Vec::new();
        for (family, everybody) in Family::ALL.into_iter().zip(everybody()) {
            if !comes_to_admit_everybody(self, new, family, now) {
                continue;
            }
            if new.has(&everybody) && !self.has(&everybody) {
                come.add(1, [everybody]);
                continue;
            }
            let is_new = |(rule, _): &(&Rule, bool)| self.rules().binary_search(rule).is_err();
            let mut admitting = new.admitting_rules(family, now).filter(is_new);
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
            let admitting = new.admitting_rules(family, now).filter(is_new);
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
fn comes_to_admit_everybody(
    old: &GrayList,
    new: &GrayList,
    family: Family,
    now: SystemTime,
) -> bool {
    new.admission(family, now) > old.admission(family, now)
}

/// The entries that admit everybody by themselves, in the order of [`Family::ALL`].
fn everybody() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}
