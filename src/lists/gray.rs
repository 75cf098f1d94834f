//! The gray list: addresses and nets, whether one of them covers a client, and the rules beside them.

mod admitted;

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha256};

use super::almost::almost_gray;
use super::digest::{ContentHash, Digest};
use super::entry::{canonical, read_net};
use super::family::{CLIENTS_V4, CLIENTS_V6};
use super::flaws;
use super::gray_entry::{GrayEntry, other_entry};
use super::name::ListName;
use super::notes::{self, FindingKind, Notes};
use super::ranges::Ranges;
use super::remarks::{Remarks, Skipped, parse_all};
use super::rule::{Rule, ShareKey, Term, order};
use super::selection::Selection;
use super::selection::near::{self, Inspection};
use super::share::Salt;
use crate::http::subject::Subject;

/// The clients that get the new version.
#[derive(Clone, Debug)]
pub struct GrayList {
    /// Shared by lists that differ only in skipped entries: there may be a million.
    nets: Arc<Nets>,
    /// What its shares are dealt with.
    salt: Salt,
    content: ContentHash,
    remarks: Remarks,
}

/// The entries, sorted and without repetition, an address being a net of one; and what they cover.
#[derive(Debug)]
struct Nets {
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
    /// The entries that are more than an address or a net.
    rules: Box<[Rule]>,
    covered_v4: Ranges<u32>,
    covered_v6: Ranges<u128>,
    /// The rules, made ready for requests, if there are any.
    selection: Option<Box<Selection>>,
    content: ContentHash,
}

impl Default for GrayList {
    fn default() -> Self {
        Self::parse::<&[u8]>([])
    }
}

impl GrayList {
    /// Parses entries: addresses, nets in CIDR notation (RFC 4632, RFC 4291), and rules.
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>) -> Self {
        let (mut v4, mut v6, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        let read = |text: &str, noted: &mut Notes| {
            let net = match read_net(text) {
                Ok(written) => {
                    let net = written.trunc();
                    if net != written {
                        noted.add(FindingKind::HostBits, || {
                            notes::host_bits(text, written, net)
                        });
                    }
                    net
                }
                Err(_) => match other_entry(text)? {
                    GrayEntry::Net(net) => net,
                    GrayEntry::Rule(rule) => {
                        flaws::of_rule(text, &rule, noted);
                        rules.push(rule);
                        return Ok(());
                    }
                },
            };
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
            Ok(())
        };
        let mut remarks = parse_all(texts, read, almost_gray);
        // Numbers compare much faster.
        v4.sort_unstable_by_key(|net| {
            u64::from(net.addr().to_bits()) << 8 | u64::from(net.prefix_len())
        });
        v6.sort_unstable_by_key(|net| (net.addr().to_bits(), net.prefix_len()));
        remarks.notes.dedup(&mut v4, |net| canonical((*net).into()));
        remarks.notes.dedup(&mut v6, |net| canonical((*net).into()));
        order::sort(&mut rules);
        remarks.notes.dedup(&mut rules, Rule::to_string);
        let nets = Arc::new(Nets::new(v4, v6, rules));
        Self {
            content: nets.content,
            salt: Salt::default(),
            nets,
            remarks,
        }
    }

    /// The same list with another salt.
    #[must_use]
    pub(crate) fn with_salt(self, salt: Salt) -> Self {
        let mut content = self.nets.content;
        if self.has_shares() && !salt.is_empty() {
            let mut hash = Sha256::new();
            hash.update(content);
            hash.update(salt.text());
            content = hash.finalize().into();
        }
        Self {
            salt,
            content,
            ..self
        }
    }

    /// What its shares are dealt with.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// True when an entry is about a share: then the salt matters.
    pub(crate) fn has_shares(&self) -> bool {
        self.selection().is_some_and(Selection::has_shares)
    }

    /// True when chance alone has chosen its clients: each entry is a share of everybody. Whoever has no such
    /// cookie or field is in no share by its values, so those are shares of some.
    pub(crate) fn is_of_everybody(&self) -> bool {
        let is_share = |rule: &Rule| {
            let is_dealt = match &*rule.terms {
                [Term::Everybody] => true,
                [Term::Share { by, .. }] => !matches!(by, ShareKey::Part(_)),
                _ => false,
            };
            is_dealt && !rule.excludes
        };
        let rules = self.rules();
        let has_nets = !self.nets.v4.is_empty() || !self.nets.v6.is_empty();
        !has_nets && !rules.is_empty() && rules.iter().all(is_share)
    }

    /// True when an entry has an end: then the clock matters.
    pub fn expires(&self) -> bool {
        self.selection().is_some_and(Selection::expires)
    }

    /// When the next entry ends, after `now`, if one does.
    pub(crate) fn next_end(&self, now: SystemTime) -> Option<SystemTime> {
        self.selection()?.next_end(now)
    }

    /// The entries that are more than an address or a net, made ready for requests, if there are any.
    #[inline]
    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.nets.selection.as_deref()
    }

    /// What the entries that are more than an address or a net make of a request, term by term: those that
    /// hold, and those that came near, at most so many; and how many there are. For explanations.
    pub(crate) fn inspect(
        &self,
        subject: &Subject<'_>,
        now: SystemTime,
        most: usize,
    ) -> (Vec<Inspection>, usize) {
        near::near(self.rules(), subject, &self.salt, now, most)
    }

    /// True when an address or a net covers `client`, which is compared as an address and never as text. An
    /// IPv4-mapped IPv6 client must have been made IPv4 before.
    // Inlined, so that the address is passed in registers: otherwise it is written to memory for the
    // call, and with it the whole subject of a decision.
    #[inline]
    pub fn contains(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(address) => self.nets.covered_v4.contain(address.to_bits()),
            IpAddr::V6(address) => self.nets.covered_v6.contain(address.to_bits()),
        }
    }

    /// The most specific address or net that covers `client`: for explanations, not for every request.
    pub(crate) fn matching(&self, client: IpAddr) -> Option<IpNet> {
        let longest = IpNet::from(client).max_prefix_len();
        let mut nets = (0..=longest).rev().map(|length| {
            let net = IpNet::new(client, length).unwrap_or_else(|_| IpNet::from(client));
            net.trunc()
        });
        nets.find(|net| self.has(net))
    }

    /// The entries that are more than an address or a net, sorted and without repetition. They come behind
    /// those.
    pub fn rules(&self) -> &[Rule] {
        &self.nets.rules
    }

    /// True when `net` itself is an entry.
    pub fn has(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(net) => self.nets.v4.binary_search(net).is_ok(),
            IpNet::V6(net) => self.nets.v6.binary_search(net).is_ok(),
        }
    }

    /// The addresses and nets that are `net`, or lie within it.
    pub(super) fn within(&self, net: &IpNet) -> impl ExactSizeIterator<Item = IpNet> {
        let (v4, v6) = match net {
            IpNet::V4(net) => {
                let end = self
                    .nets
                    .v4
                    .partition_point(|it| it.addr() <= net.broadcast());
                let start = self.nets.v4.partition_point(|it| it < net);
                (start..end, 0..0)
            }
            IpNet::V6(net) => {
                let end = self
                    .nets
                    .v6
                    .partition_point(|it| it.addr() <= net.broadcast());
                let start = self.nets.v6.partition_point(|it| it < net);
                (0..0, start..end)
            }
        };
        let count = v4.len() + v6.len();
        let v4 = self.nets.v4[v4].iter().copied().map(IpNet::V4);
        let mut all = v4.chain(self.nets.v6[v6].iter().copied().map(IpNet::V6));
        // A chain does not know its length.
        (0..count).map(move |_| all.next().unwrap_or_default())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.nets.v4.len() + self.nets.v6.len() + self.nets.rules.len()
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A hash of this list only.
    pub fn digest(&self) -> Digest {
        Digest::of(&[(ListName::Gray, self.content())])
    }

    pub(super) fn content(&self) -> &ContentHash {
        &self.content
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.remarks.skipped
    }

    /// The notes about the entries.
    pub(crate) fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// These entries, with the skipped entries and notes of another list.
    pub(crate) fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            nets: Arc::clone(&self.nets),
            salt: self.salt.clone(),
            content: self.content,
            remarks: other.remarks.clone(),
        }
    }

    /// The addresses and nets, sorted: IPv4 first.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.nets.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.nets.v6.iter().copied().map(IpNet::V6))
    }

    /// Some of [`Self::entries`], by their indexes.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn entries_in(&self, places: Range<usize>) -> impl Iterator<Item = String> {
        let Nets { v4, v6, rules, .. } = &*self.nets;
        let (end_v4, end_v6) = (v4.len(), v4.len() + v6.len());
        let part = |start: usize, end: usize| {
            places.start.clamp(start, end) - start..places.end.clamp(start, end) - start
        };
        let rules = &rules[part(end_v6, self.len().max(places.end))];
        let (v4, v6) = (&v4[part(0, end_v4)], &v6[part(end_v4, end_v6)]);
        let v4 = v4.iter().copied().map(IpNet::V4);
        let nets = v4.chain(v6.iter().copied().map(IpNet::V6)).map(canonical);
        nets.chain(rules.iter().map(Rule::to_string))
    }

    /// The entries in their canonical form: an address, or `network/length`, or a rule as it is displayed.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        let nets = self.nets().map(canonical);
        nets.chain(self.rules().iter().map(Rule::to_string))
    }
}

impl Nets {
    /// Of entries that are sorted and without repetition.
    fn new(v4: Vec<Ipv4Net>, v6: Vec<Ipv6Net>, rules: Vec<Rule>) -> Self {
        let borders = |net: &Ipv4Net| (net.network().to_bits(), net.broadcast().to_bits());
        let covered_v4 = Ranges::new(v4.iter().map(borders), CLIENTS_V4);
        let borders = |net: &Ipv6Net| (net.network().to_bits(), net.broadcast().to_bits());
        let covered_v6 = Ranges::new(v6.iter().map(borders), CLIENTS_V6);
        let mut content = Sha256::new();
        for net in &v4 {
            content.update([4, net.prefix_len()]);
            content.update(net.addr().octets());
        }
        for net in &v6 {
            content.update([6, net.prefix_len()]);
            content.update(net.addr().octets());
        }
        let mut text = String::new();
        for rule in &rules {
            // No net begins with a 0, and no rule has a line feed.
            text.clear();
            // To write into a string does not fail.
            let _ = writeln!(text, "\0{rule}");
            content.update(&text);
        }
        Self {
            v4: v4.into_boxed_slice(),
            v6: v6.into_boxed_slice(),
            covered_v4,
            covered_v6,
            selection: (!rules.is_empty()).then(|| Box::new(Selection::new(&rules))),
            rules: rules.into_boxed_slice(),
            content: content.finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests;
