//! Entries filed under what they ask for, so that only those are looked at that a request may have.

use std::hash::Hash;
use std::ops::{BitAnd, Range};

use ipnet::IpNet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::sources::{SourceKind, SourceNumber, Sources};
use crate::lists::rule::{Part, Rule, ShareKey, Term, Test};

/// The place of an entry among the rules of its list.
pub type RulePlace = u32;

/// An entry, as far as it does not follow from what it is filed under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filed {
    pub(super) place: RulePlace,
    /// Its first check, and how many there are.
    pub(super) first: u32,
    pub(super) count: u32,
    /// The second from which on it does not hold; the last one if it has no end.
    pub(super) until: u64,
}

/// An entry without an end lasts until then.
pub(super) const FOR_EVER: u64 = u64::MAX;

impl Filed {
    /// The places of its checks.
    pub(super) fn checks(&self) -> Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

/// What an entry is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heading<'a> {
    /// Nothing that could be looked up.
    Always,
    /// The client is in there: the length and the network.
    V4(u8, u32),
    V6(u8, u128),
    /// The request has a value of that source.
    Present(SourceNumber),
    /// It has this value.
    Value(SourceNumber, &'a [u8]),
}

impl<'a> Heading<'a> {
    /// That of the term that the fewest requests have, as far as can be told by its kind.
    pub(super) fn of(rule: &'a Rule, number: impl Fn(&Part) -> SourceNumber) -> Self {
        let ranked = rule.terms.iter().map(|term| {
            let heading = match term {
                Term::Everybody => Self::Always,
                Term::Net(net) => Self::of_net(*net),
                Term::Part(part, Test::Is(value)) => Self::Value(number(part), value),
                Term::Part(part, _) => Self::Present(number(part)),
                Term::Share {
                    by: ShareKey::Part(part),
                    ..
                } => Self::Present(number(part)),
                Term::Share { .. } => Self::Always,
            };
            (heading.rank(), heading)
        });
        let best = ranked.max_by_key(|(rank, _)| *rank);
        best.map_or(Self::Always, |(rank, heading)| match rank {
            0 => Self::Always,
            _ => heading,
        })
    }

    fn of_net(net: IpNet) -> Self {
        let net = net.trunc();
        match net {
            IpNet::V4(net) => Self::V4(net.prefix_len(), net.addr().to_bits()),
            IpNet::V6(net) => Self::V6(net.prefix_len(), net.addr().to_bits()),
        }
    }

    /// The higher, the fewer requests have it.
    fn rank(&self) -> u8 {
        let is_single = |source: &SourceNumber| source.0 < SourceKind::SINGLE.len() as u32;
        let kind = |source: &SourceNumber| SourceKind::SINGLE.get(source.0 as usize);
        match self {
            Self::V4(24.., _) | Self::V6(48.., _) => 7,
            Self::Value(source, _) if !is_single(source) => 6,
            Self::Value(source, _) if kind(source) == Some(&SourceKind::Path) => 5,
            Self::V4(..) | Self::V6(..) => 4,
            Self::Present(source) if !is_single(source) => 3,
            Self::Value(source, _) if kind(source) == Some(&SourceKind::Host) => 2,
            Self::Value(..) => 1,
            // All have a path, a method and a host.
            Self::Present(_) | Self::Always => 0,
        }
    }

    /// True for a term that holds for every request that has this.
    pub(super) fn implies(&self, term: &Term, number: impl Fn(&Part) -> SourceNumber) -> bool {
        match (self, term) {
            (_, Term::Everybody) => true,
            (Self::V4(..) | Self::V6(..), Term::Net(net)) => Self::of_net(*net) == *self,
            (Self::Value(source, value), Term::Part(part, Test::Is(other))) => {
                *source == number(part) && *value == &**other
            }
            (Self::Present(source) | Self::Value(source, _), Term::Part(part, Test::Present)) => {
                *source == number(part)
            }
            _ => false,
        }
    }
}

/// Some entries, one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    start: u32,
    end: u32,
}

/// Entries by what they are filed under.
#[derive(Debug)]
pub(super) struct Filing {
    entries: Box<[Filed]>,
    /// Those that every request may have.
    pub(super) always: Run,
    pub(super) v4: FiledNets<u32>,
    pub(super) v6: FiledNets<u128>,
    by_source: Box<[SourceFile]>,
    /// The kinds of sources that something is filed under.
    kinds: u8,
}

/// The entries that are filed under one source.
#[derive(Debug, Default)]
pub(super) struct SourceFile {
    /// It is there.
    pub(super) present: Run,
    values: FxHashMap<Box<[u8]>, Run>,
    /// The length of the longest value: a longer one need not be looked up.
    longest: usize,
}

/// The entries that are filed under nets of one family.
#[derive(Debug)]
pub(super) struct FiledNets<A> {
    /// By the mask, in order.
    by_length: Vec<(A, FxHashMap<A, Run>)>,
}

impl Filing {
    pub(super) fn new(mut filed: Vec<(Heading<'_>, Filed)>, sources: &Sources) -> Self {
        filed.sort_unstable_by_key(|(heading, entry)| (*heading, entry.place));
        let mut filing = Self {
            entries: filed.iter().map(|(_, entry)| *entry).collect(),
            always: Run::default(),
            v4: FiledNets::default(),
            v6: FiledNets::default(),
            by_source: Box::default(),
            kinds: 0,
        };
        // Of each length, so that no table of a million is made anew again and again.
        let (mut v4, mut v6) = ([0; 33], [0; 129]);
        for same in filed.chunk_by(|(one, _), (other, _)| one == other) {
            match same[0].0 {
                Heading::V4(length, _) => v4[usize::from(length)] += 1,
                Heading::V6(length, _) => v6[usize::from(length)] += 1,
                _ => {}
            }
        }
        let mut by_source = Vec::new();
        by_source.resize_with(sources.count(), SourceFile::default);
        let mut start = 0;
        for same in filed.chunk_by(|(one, _), (other, _)| one == other) {
            let end = start + same.len() as u32;
            let run = Run { start, end };
            start = end;
            match same[0].0 {
                Heading::Always => filing.always = run,
                Heading::V4(length, net) => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(length));
                    let count = v4[usize::from(length)];
                    filing.v4.add(mask.unwrap_or(0), count, net, run);
                }
                Heading::V6(length, net) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(length));
                    let count = v6[usize::from(length)];
                    filing.v6.add(mask.unwrap_or(0), count, net, run);
                }
                Heading::Present(source) => {
                    filing.kinds |= sources.kind(source).bit();
                    by_source[source.0 as usize].present = run;
                }
                Heading::Value(source, value) => {
                    filing.kinds |= sources.kind(source).bit();
                    let file: &mut SourceFile = &mut by_source[source.0 as usize];
                    file.longest = file.longest.max(value.len());
                    file.values.insert(value.into(), run);
                }
            }
        }
        filing.by_source = by_source.into();
        filing
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when something is filed under a source of that kind.
    pub(super) fn has(&self, kind: SourceKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    pub(super) fn of_source(&self, source: SourceNumber) -> &SourceFile {
        &self.by_source[source.0 as usize]
    }

    /// The entries of a run, in the order in which they decide.
    pub(super) fn entries(&self, run: Run) -> &[Filed] {
        let Range { start, end } = run.start as usize..run.end as usize;
        &self.entries[start..end]
    }
}

impl SourceFile {
    /// True when entries are filed under values.
    pub(super) fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// The entries that are filed under this value.
    pub(super) fn run_of(&self, value: &[u8]) -> Option<Run> {
        match value.len() <= self.longest {
            true => self.values.get(value).copied(),
            false => None,
        }
    }
}

impl<A> Default for FiledNets<A> {
    fn default() -> Self {
        Self {
            by_length: Vec::new(),
        }
    }
}

impl<A: Copy + Eq + Hash + BitAnd<Output = A>> FiledNets<A> {
    /// Adds what is filed under a net; those of one length, of which there are `count`, come one after the
    /// other.
    fn add(&mut self, mask: A, count: usize, net: A, run: Run) {
        if self.by_length.last().is_none_or(|(last, _)| *last != mask) {
            let nets = FxHashMap::with_capacity_and_hasher(count, FxBuildHasher);
            self.by_length.push((mask, nets));
        }
        if let Some((_, nets)) = self.by_length.last_mut() {
            nets.insert(net, run);
        }
    }

    /// Calls `each` with the entries of every net that `address` is in.
    pub(super) fn runs_of(&self, address: A, mut each: impl FnMut(Run)) {
        for (mask, nets) in &self.by_length {
            if let Some(run) = nets.get(&(address & *mask)) {
                each(*run);
            }
        }
    }
}
