//! The gray list: addresses and nets, whether one of them covers a client, and the rules beside them.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha256};

use super::admission::{AdmittedUntil, adds, admission, is_enough};
use super::almost::almost_gray;
use super::digest::{ContentHash, Digest};
use super::entry::{canonical, read_net};
use super::family::{CLIENTS_V4, CLIENTS_V6, Family};
use super::flaws;
use super::gray_entry::{GrayEntry, other_entry};
use super::name::ListName;
use super::notes::{self, FindingKind, Notes};
use super::ranges::Ranges;
use super::remarks::{Remarks, Skipped, parse_all};
use super::rule::{Rule, order};
use super::selection::Selection;
use super::selection::near::{self, Inspection};
use super::share::Salt;
use crate::http::subject::Subject;

/// Entries that leave out at most this fraction of the addresses admit practically everybody.
const LEFT_OUT: u128 = 10;

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

    /// True when an entry has an end: then the clock matters.
    pub fn expires(&self) -> bool {
        self.selection().is_some_and(Selection::expires)
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

    /// Until when the entries together admit at least nine tenths of the clients of a family, however they
    /// are written.
    pub(crate) fn admission(&self, family: Family) -> AdmittedUntil {
        let all = family.clients();
        let part = |admitted: u128| {
            // To nine tenths exactly, without the error of a division.
            match all - admitted <= all / LEFT_OUT {
                true => 1.0,
                false => admitted as f64 / all as f64,
            }
        };
        let covered = |more: &[IpNet]| match (more, family) {
            ([], Family::V4) => part(self.nets.covered_v4.clients()),
            ([], Family::V6) => part(self.nets.covered_v6.clients()),
            (more, _) => {
                let mut nets: Vec<IpNet> =
                    self.nets_of(family).chain(more.iter().copied()).collect();
                nets.sort_unstable();
                part(clients_of(&nets, family))
            }
        };
        admission(self.rules(), family, 1.0 / LEFT_OUT as f64, covered)
    }

    /// The rules that admit people whatever they send, and whether each is enough to admit everybody.
    pub(crate) fn admitting_rules(&self, family: Family) -> impl Iterator<Item = (&Rule, bool)> {
        let rules = self.rules().iter().filter(move |it| adds(it, family));
        rules.map(move |it| (it, is_enough(it, family)))
    }

    /// The addresses and nets of a family.
    pub(crate) fn nets_of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.nets().filter(move |it| family.is_of(it))
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

/// How many clients these nets cover, which are sorted.
fn clients_of(nets: &[IpNet], family: Family) -> u128 {
    let v4 = nets.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        IpNet::V6(_) => None,
    });
    let v6 = nets.iter().filter_map(|net| match net {
        IpNet::V6(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        IpNet::V4(_) => None,
    });
    match family {
        Family::V4 => Ranges::new(v4, CLIENTS_V4).clients(),
        Family::V6 => Ranges::new(v6, CLIENTS_V6).clients(),
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
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::lists::entry::unmapped;

    fn gray(entries: &[&str]) -> GrayList {
        GrayList::parse(entries)
    }

    #[test]
    fn clients_are_matched_as_addresses_and_never_as_text() {
        let list = gray(&[
            "192.168.1.1",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "172.16.5.9/12",
            "2001:db8::/32",
            "::1",
            "::ffff:203.0.113.7",
            "::ffff:198.51.100.0/120",
        ]);
        let table = [
            ("192.168.1.1", true),
            ("192.168.1.10", false),
            ("192.168.1.0", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("10.200.0.1", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("203.0.113.7", true),
            ("198.51.100.255", true),
            ("198.51.101.0", false),
            ("::1", true),
            ("::2", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ];
        for (client, expected) in table {
            assert_eq!(list.contains(client.parse().unwrap()), expected, "{client}");
        }
        assert_eq!(*list.skipped(), Skipped::default());
    }

    #[test]
    fn everything_and_nothing_are_lists_too() {
        let all = gray(&["0.0.0.0/0", "1.2.3.4", "::/0"]);
        for client in ["0.0.0.0", "255.255.255.255", "::", "ffff::ffff"] {
            assert!(all.contains(client.parse().unwrap()));
            assert!(!gray(&[]).contains(client.parse().unwrap()));
        }
    }

    #[test]
    fn some_entries_are_those_of_all_at_their_places() {
        let list = gray(&["1.1.1.1", "::1", "2.2.2.0/24", "2001:db8::/32", "3.3.3.3"]);
        let all: Vec<String> = list.entries().collect();
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let some: Vec<String> = list.entries_in(start..end).collect();
                assert_eq!(some, all[start..end]);
            }
        }
    }

    #[test]
    fn rules_stand_behind_the_addresses_sorted_and_once() {
        let list = gray(&[
            "percent:5:cookie:uid",
            "!*",
            "10.0.0.1",
            "header:X-User=bob",
            "header:x-user=\"alice\"",
            "::1",
            "path:/v2/* header:X-User=alice note=\"\\\"new\\\" site\"",
            "header:X-USER=bob",
            "header: x",
            "* 10.1.2.3/16",
        ]);
        let entries: Vec<String> = list.entries().collect();
        assert_eq!(
            entries,
            [
                "10.0.0.1",
                "10.1.0.0/16",
                "::1",
                "header:x-user=alice",
                "header:x-user=alice path:/v2/* note=\"\\\"new\\\" site\"",
                "header:x-user=bob",
                "percent:5:cookie:uid",
                "!*",
            ]
        );
        assert_eq!((list.len(), list.rules().len()), (8, 5));
        assert_eq!(list.skipped().count, 1);
        assert_eq!(
            list.remarks().notes.counts[FindingKind::Duplicate as usize],
            1
        );
        for start in 0..=entries.len() {
            for end in start..=entries.len() {
                let some: Vec<String> = list.entries_in(start..end).collect();
                assert_eq!(some, entries[start..end]);
            }
        }
        let again = GrayList::parse(&entries);
        assert_eq!(again.entries().collect::<Vec<_>>(), entries);
        assert_eq!(again.digest(), list.digest());
        assert!(
            !list.contains([10, 0, 0, 2].into()),
            "rules are no addresses"
        );
    }

    #[test]
    fn a_rule_is_content_and_so_is_its_note() {
        let mut digests = vec![
            gray(&["10.0.0.1"]).digest(),
            gray(&["10.0.0.1", "header:X"]).digest(),
            gray(&["10.0.0.1", "header:X note=a"]).digest(),
            gray(&["10.0.0.1", "header:X note=b"]).digest(),
            gray(&["10.0.0.1", "header:X until=2026-12-01T18:00Z"]).digest(),
            gray(&["10.0.0.1", "!header:X"]).digest(),
            gray(&["10.0.0.1", "header:X", "header:Y"]).digest(),
            gray(&["10.0.0.1", "header:X header:Y"]).digest(),
        ];
        let same = gray(&["header:x=*", "10.0.0.1"]).digest();
        assert_eq!(digests[1], same);
        let count = digests.len();
        digests.sort_by_key(ToString::to_string);
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn what_cannot_be_read_is_skipped_and_named() {
        let bad: &[&[u8]] = &[
            b"",
            b"1.2.3",
            b"1.2.3.4.5",
            b"01.2.3.4",
            b"1.2.3.4/33",
            b"10.0.0.0/-1",
            b"10.0.0.0/+8",
            b"10.0.0.0/08",
            b"0.0.0.0/00",
            b"010.0.0.0/8",
            b"10.0.0.0/8/8",
            b"10.0.0.0/",
            b"2001:db8::/032",
            b"fe80::1%2",
            b"fe80::%2/64",
            b"host",
            b"1.2.3.4 5.6.7.8",
            b"\xff\x1b",
        ];
        let list = GrayList::parse(bad.iter().copied().chain([&b" 1.2.3.4 "[..]]));
        assert!(list.contains([1, 2, 3, 4].into()));
        assert_eq!(list.skipped().count, bad.len());
        let named: Vec<&str> = list.skipped().first.iter().map(|it| &*it.entry).collect();
        assert_eq!(named.last(), Some(&r"\xff\x1b"));
        let many = GrayList::parse(vec!["x".repeat(1000); 1000]);
        assert_eq!(
            (many.skipped().count, many.skipped().first.len()),
            (1000, 100)
        );
        assert_eq!(many.skipped().first[0].entry.len(), 100);
    }

    #[test]
    fn the_most_specific_entry_is_what_matches() {
        let list = gray(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.1.1",
            "::/0",
            "2001:db8::/32",
            "::ffff:1.2.3.0/120",
        ]);
        for (client, entry) in [
            ("10.1.1.1", Some("10.1.1.1/32")),
            ("10.1.1.2", Some("10.1.0.0/16")),
            ("10.2.1.1", Some("10.0.0.0/8")),
            ("11.1.1.1", None),
            ("1.2.3.4", Some("1.2.3.0/24")),
            ("2001:db8::1", Some("2001:db8::/32")),
            ("2001:db9::1", Some("::/0")),
        ] {
            let found = list.matching(client.parse().unwrap());
            assert_eq!(found, entry.map(|it| it.parse().unwrap()), "{client}");
        }
    }

    /// Nets close to each other, so that they are often nested, adjacent or the same.
    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0..600_u32, 22..=32_u8);
        let v4 =
            v4.prop_map(|(low, length)| (Ipv4Addr::from_bits(0x0a00_0000 + low).into(), length));
        let top = (0..4_u32, 0..=32_u8);
        let top =
            top.prop_map(|(low, length)| (Ipv4Addr::from_bits(u32::MAX - low).into(), length));
        let v6 = (0..600_u128, 118..=128_u8);
        let v6 = v6
            .prop_map(|(low, length)| (Ipv6Addr::from_bits((0x2001 << 112) + low).into(), length));
        let mapped = (0..600_u128, 118..=128_u8);
        let mapped = mapped.prop_map(|(low, length)| {
            (
                Ipv6Addr::from_bits((0xffff << 32) + (0x0a00_0000 + low)).into(),
                length,
            )
        });
        let last = (0..4_u128, 110..=128_u8);
        let last =
            last.prop_map(|(low, length)| (Ipv6Addr::from_bits(u128::MAX - low).into(), length));
        let all = prop_oneof![6 => v4, 1 => top, 6 => v6, 2 => mapped, 1 => last];
        all.prop_map(|(address, length): (IpAddr, u8)| IpNet::new(address, length).unwrap())
    }

    /// Around the borders of a net.
    fn neighbours(net: IpNet) -> Vec<IpAddr> {
        let around = |at: IpAddr| match at {
            IpAddr::V4(it) => [
                it.to_bits().wrapping_sub(1),
                it.to_bits(),
                it.to_bits().wrapping_add(1),
            ]
            .map(|it| IpAddr::V4(it.into())),
            IpAddr::V6(it) => [
                it.to_bits().wrapping_sub(1),
                it.to_bits(),
                it.to_bits().wrapping_add(1),
            ]
            .map(|it| IpAddr::V6(it.into())),
        };
        [around(net.network()), around(net.broadcast())].concat()
    }

    proptest! {
        #[test]
        fn any_nets_cover_and_match_as_one_looks_through_them(nets in vec(net(), 0..60), of in any::<prop::sample::Index>()) {
            let list = GrayList::parse(nets.iter().map(ToString::to_string));
            let mut model: Vec<IpNet> = nets.iter().map(|it| unmapped(*it).trunc()).collect();
            model.sort();
            model.dedup();
            prop_assert_eq!(list.nets().collect::<Vec<_>>(), model.clone());
            prop_assert_eq!(list.len(), model.len());
            for net in &model {
                for client in neighbours(*net) {
                    let covering = model.iter().filter(|it| it.contains(&client));
                    let best = covering.max_by_key(|it| it.prefix_len()).copied();
                    prop_assert_eq!(list.contains(client), best.is_some(), "{}", client);
                    prop_assert_eq!(list.matching(client), best, "{}", client);
                }
            }
            if !model.is_empty() {
                let outer = *of.get(&model);
                let outer = outer.supernet().unwrap_or(outer);
                let within: Vec<IpNet> = list.within(&outer).collect();
                let expected = model.iter().copied().filter(|it| outer.contains(it));
                prop_assert_eq!(within, expected.collect::<Vec<_>>());
            }
        }
    }
}
