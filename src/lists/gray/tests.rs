//! What a gray list has, covers and says of itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::lists::entry::unmapped;

fn gray(entries: &[&str]) -> GrayList {
    GrayList::parse(entries)
}

#[test]
fn only_shares_of_everybody_are_chosen_by_chance_alone() {
    for (entries, expected) in [
        (&[][..], false),
        (&["percent:5"], true),
        (&["percent:5", "percent:1:visitor until=2099-01-01"], true),
        (&["*"], true),
        (&["percent:5", "10.0.0.1"], false),
        (&["percent:5", "2001:db8::/32"], false),
        (&["percent:5", "header:X-Beta"], false),
        (&["percent:5 path:/v2/*"], false),
        (&["percent:5:cookie:uid"], false),
        (&["percent:5", "!percent:1"], false),
        (&["percent:5", "!10.0.0.1"], false),
    ] {
        assert_eq!(gray(entries).is_of_everybody(), expected, "{entries:?}");
    }
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
    let v4 = v4.prop_map(|(low, length)| (Ipv4Addr::from_bits(0x0a00_0000 + low).into(), length));
    let top = (0..4_u32, 0..=32_u8);
    let top = top.prop_map(|(low, length)| (Ipv4Addr::from_bits(u32::MAX - low).into(), length));
    let v6 = (0..600_u128, 118..=128_u8);
    let v6 =
        v6.prop_map(|(low, length)| (Ipv6Addr::from_bits((0x2001 << 112) + low).into(), length));
    let mapped = (0..600_u128, 118..=128_u8);
    let mapped = mapped.prop_map(|(low, length)| {
        (
            Ipv6Addr::from_bits((0xffff << 32) + (0x0a00_0000 + low)).into(),
            length,
        )
    });
    let last = (0..4_u128, 110..=128_u8);
    let last = last.prop_map(|(low, length)| (Ipv6Addr::from_bits(u128::MAX - low).into(), length));
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
