//! Entries against requests: a table of what must hold, and all of it against an implementation that does
//! without anything of the real one.

mod decided;
mod naive;
mod random;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

pub(in crate::lists) use self::random::rules;
use self::random::{Request, nets, requests};
use super::*;
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::http::visitor::{Visitor, VisitorId};
use crate::lists::rule::{AppVersion, Comparison, Test};
use crate::lists::{ByList, GrayList, Lists, PoolName};
use crate::route::{PoolStanding, Reason, Service, decide};

const LIMITS: Limits = Limits {
    line: 64 * 1024,
    head: 128 * 1024,
    fields: MAX_FIELDS,
};

/// A request with that visitor, should anybody ask.
fn with_subject<T>(client: IpAddr, head: &str, test: impl FnOnce(&Subject<'_>) -> T) -> T {
    let mut parsed = RequestHead::default();
    let outcome = parsed.parse(head.as_bytes(), &mut Scanner::default(), &LIMITS);
    assert!(matches!(outcome, Ok(Parsed::Complete)), "{head}");
    let next_id = || VisitorId::of(7);
    let visitor = Visitor::new(b"v", &next_id);
    let subject = Subject::new(client, &parsed, head.as_bytes());
    test(&subject.with_visitor(&visitor))
}

fn rule(terms: &[Term]) -> Rule {
    Rule {
        excludes: false,
        terms: terms.into(),
        until: None,
        note: None,
    }
}

fn text(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn is(part: Part, value: &str) -> Term {
    Term::Part(part, Test::Is(text(value)))
}

fn header(name: &str) -> Part {
    Part::Header(name.into())
}

fn cookie(name: &str) -> Part {
    Part::Cookie(text(name))
}

fn query(name: &str) -> Part {
    Part::Query(text(name))
}

fn net(text: &str) -> Term {
    Term::Net(text.parse().unwrap())
}

fn share(limit: u16, by: ShareKey) -> Term {
    Term::Share { limit, by }
}

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What is selected: by an exclusion, and by another entry.
fn select_of(rules: &[Rule], subject: &Subject<'_>) -> [Option<Selected>; 2] {
    let (selection, mut scratch) = (Selection::new(rules), Scratch::default());
    let (salt, now) = (Salt::default(), Some(at(NOW)));
    let mut look = selection.look_at(subject, &salt, now, &mut scratch);
    [look.exclusion(), look.admission()]
}

/// A request with something of everything.
const HEAD: &str = "GET /v2/cart?u=1&%75id=a+b%21&u=2&flag&=x HTTP/1.1\r\nHost: Shop.Example.com.:8080\r\n\
    X-App-Version: 2.10.3\r\nx-tester: yes\r\nX-Tester: no\r\nX-Empty:\r\n\
    Cookie: uid=alice; theme=Dark ; uid=bob; ; nothing; =x; q=\"a b\"; e=\r\nCookie: late=1; theme=light\r\n\r\n";

#[test]
fn each_term_holds_for_what_it_names_and_the_first_of_several_counts() {
    let version = |comparison, numbers: &[u64]| {
        Test::Version(
            comparison,
            AppVersion {
                text: "-".into(),
                numbers: numbers.into(),
            },
        )
    };
    let app = || header("x-app-version");
    let begins = |value: &str| Test::Like {
        open_start: false,
        text: text(value),
        open_end: true,
        any_case: false,
    };
    let table = [
        (Term::Everybody, true),
        (net("10.0.0.0/8"), true),
        (net("10.1.2.3/32"), true),
        (net("10.1.2.4/32"), false),
        (net("0.0.0.0/0"), true),
        (net("::/0"), false),
        (is(header("x-tester"), "yes"), true),
        (is(header("x-tester"), "no"), false),
        (is(header("x-empty"), ""), true),
        (Term::Part(header("x-empty"), Test::Present), true),
        (Term::Part(header("x-none"), Test::Present), false),
        (is(cookie("uid"), "alice"), true),
        (is(cookie("uid"), "bob"), false),
        (is(cookie("UID"), "alice"), false),
        (is(cookie("theme"), "Dark"), true),
        (is(cookie("theme"), "dark"), false),
        (
            Term::Part(cookie("theme"), Test::IsInAnyCase(text("dARK"))),
            true,
        ),
        (is(cookie("q"), "\"a b\""), true),
        (is(cookie("e"), ""), true),
        (Term::Part(cookie("nothing"), Test::Present), false),
        (is(cookie("late"), "1"), true),
        (is(query("u"), "1"), true),
        (is(query("u"), "2"), false),
        (is(query("uid"), "a b!"), true),
        (is(query("flag"), ""), true),
        (Term::Part(query("flags"), Test::Present), false),
        (Term::Part(Part::Path, begins("/v2/")), true),
        (Term::Part(Part::Path, begins("/v3/")), false),
        (is(Part::Path, "/v2/cart"), true),
        (is(Part::Method, "GET"), true),
        (is(Part::Method, "get"), false),
        (is(Part::Host, "shop.example.com"), true),
        (is(Part::Host, "example.com"), false),
        (
            Term::Part(app(), version(Comparison::AtLeast, &[2, 9])),
            true,
        ),
        (
            Term::Part(app(), version(Comparison::Less, &[2, 10, 3])),
            false,
        ),
        (
            Term::Part(header("x-tester"), version(Comparison::AtLeast, &[])),
            false,
        ),
        (share(10_000, ShareKey::Client), true),
        (share(0, ShareKey::Client), false),
        // That of alice is 6726.
        (share(6_726, ShareKey::Part(cookie("uid"))), false),
        (share(6_727, ShareKey::Part(cookie("uid"))), true),
        (share(10_000, ShareKey::Part(cookie("none"))), false),
        (share(10_000, ShareKey::Part(header("x-empty"))), false),
        (share(10_000, ShareKey::Part(query("flag"))), false),
        (share(10_000, ShareKey::Visitor), true),
    ];
    with_subject(IpAddr::from([10, 1, 2, 3]), HEAD, |subject| {
        for (term, expected) in table {
            // Alone, and beside terms that hold, whichever of them it is filed under.
            let others = [
                vec![],
                vec![net("10.1.0.0/16")],
                vec![net("10.1.2.3/32")],
                vec![is(cookie("uid"), "alice")],
                vec![is(Part::Method, "GET"), is(Part::Host, "shop.example.com")],
                vec![Term::Part(header("x-tester"), Test::Present)],
                vec![Term::Everybody, is(Part::Path, "/v2/cart")],
            ];
            for mut terms in others {
                terms.push(term.clone());
                let [none, selected] = select_of(&[rule(&terms)], subject);
                assert_eq!(none, None);
                assert_eq!(selected.is_some(), expected, "{terms:?}");
                let excluding = Rule {
                    excludes: true,
                    ..rule(&terms)
                };
                let [selected, none] = select_of(&[excluding], subject);
                assert_eq!(none, None);
                assert_eq!(selected.is_some(), expected, "{terms:?}");
            }
        }
    });
}

#[test]
fn the_first_entry_that_holds_decides_whatever_it_is_filed_under() {
    let mut rules = [
        rule(&[is(header("x-tester"), "never")]),
        rule(&[Term::Part(header("x-tester"), Test::Present)]),
        rule(&[share(7_000, ShareKey::Part(cookie("uid")))]),
        rule(&[is(cookie("uid"), "alice")]),
        rule(&[net("10.0.0.0/8")]),
        rule(&[Term::Everybody]),
        rule(&[is(Part::Method, "GET")]),
        rule(&[is(query("u"), "1")]),
    ];
    with_subject(IpAddr::from([10, 1, 2, 3]), HEAD, |subject| {
        for _ in 0..rules.len() {
            rules.rotate_left(1);
            let holds = |it: &Rule| select_of(std::slice::from_ref(it), subject)[1];
            let first = rules.iter().position(|it| holds(it).is_some()).unwrap();
            let bucket = holds(&rules[first]).unwrap().bucket;
            let of_share = matches!(*rules[first].terms, [Term::Share { .. }]);
            assert_eq!(bucket, of_share.then_some(6726));
            let place = first as u32;
            let expected = Some(Selected { place, bucket });
            assert_eq!(select_of(&rules, subject)[1], expected);
        }
    });
}

#[test]
fn an_entry_holds_until_its_end_and_only_then_is_the_clock_needed() {
    let ends = |seconds| Rule {
        until: Some(at(seconds)),
        ..rule(&[Term::Everybody])
    };
    let client = IpAddr::from([1, 2, 3, 4]);
    with_subject(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", |subject| {
        for (end, expected) in [(NOW - 1, false), (NOW, false), (NOW + 1, true), (0, false)] {
            let selected = select_of(&[ends(end)], subject)[1];
            assert_eq!(selected.is_some(), expected, "{end}");
        }
        // Its last moment.
        let selection = Selection::new(&[ends(NOW)]);
        let (salt, mut scratch) = (Salt::default(), Scratch::default());
        let mut holds = |now| {
            let mut look = selection.look_at(subject, &salt, now, &mut scratch);
            look.admission().is_some()
        };
        assert!(holds(Some(at(NOW) - Duration::from_nanos(1))));
        assert!(!holds(Some(at(NOW))));
        assert!(!holds(None));
        assert!(selection.expires());
        assert!(!Selection::new(&[rule(&[Term::Everybody])]).expires());
    });
}

#[test]
fn nobody_becomes_a_visitor_whom_another_term_keeps_out() {
    let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let tester = Term::Part(header("x-tester"), Test::Present);
    // The client is in the other half: its bucket is 6006.
    let half = share(5_000, ShareKey::Client);
    let mut parsed = RequestHead::default();
    let parsed_so = parsed.parse(head.as_bytes(), &mut Scanner::default(), &LIMITS);
    assert!(parsed_so.is_ok());
    let next_id = || VisitorId::of(7);
    let visitor = Visitor::new(b"v", &next_id);
    let subject = Subject::new(IpAddr::from([10, 0, 0, 1]), &parsed, head.as_bytes());
    let subject = subject.with_visitor(&visitor);
    for other in [tester, half] {
        let rule = rule(&[share(10_000, ShareKey::Visitor), other]);
        assert_eq!(select_of(&[rule], &subject), [None; 2]);
        assert_eq!(visitor.to_be_told(), None);
    }
}

#[test]
fn a_salt_is_content_where_an_entry_is_about_a_share_and_deals_anew() {
    let digest = |entries: &[&str], salt: &str| {
        let list = GrayList::parse(entries).with_salt(Salt::new(salt.as_bytes()));
        (list.has_shares(), list.digest())
    };
    for (entries, is_content) in [
        (&["10.0.0.1", "cookie:a"][..], false),
        (&["percent:5"], true),
        (&["percent:0"], true),
        (&["10.0.0.1", "!header:a percent:5:cookie:uid"], true),
    ] {
        let (has_shares, unsalted) = digest(entries, "");
        assert_eq!(has_shares, is_content, "{entries:?}");
        assert_eq!(unsalted, GrayList::parse(entries).digest(), "{entries:?}");
        let (one, other) = (digest(entries, "1").1, digest(entries, "2").1);
        let are_others = [one != unsalted, other != unsalted, one != other];
        assert_eq!(are_others, [is_content; 3], "{entries:?}");
    }
    // The last salt is the one that counts, and the list of whoever shares it stays as it is.
    let list = GrayList::parse(["percent:50:cookie:uid"]);
    let salted = list
        .clone()
        .with_salt(Salt::new(b"1"))
        .with_salt(Salt::new(b"2026-12 checkout"));
    let head = "GET / HTTP/1.1\r\nHost: x\r\nCookie: uid=alice\r\n\r\n";
    let mut scratch = Scratch::default();
    with_subject(IpAddr::from([1, 1, 1, 1]), head, |subject| {
        let mut bucket = |list: &GrayList| {
            let selection = list.selection().unwrap();
            let mut look = selection.look_at(subject, list.salt(), None, &mut scratch);
            look.admission().map(|it| it.bucket)
        };
        assert_eq!(bucket(&list), None);
        assert_eq!(bucket(&salted), Some(Some(1076)));
    });
    let same = digest(&["percent:50:cookie:uid"], "2026-12 checkout");
    assert_eq!(salted.digest(), same.1);
}

#[test]
fn memory_of_another_request_and_another_list_counts_for_nothing() {
    let lists = [
        Selection::new(&[rule(&[is(cookie("uid"), "alice")])]),
        Selection::new(&[
            rule(&[is(cookie("theme"), "alice")]),
            rule(&[is(query("u"), "alice")]),
        ]),
        Selection::new(&[]),
        Selection::new(&[rule(&[share(6_727, ShareKey::Part(cookie("uid")))])]),
    ];
    let heads = [
        (
            "GET / HTTP/1.1\r\nHost: x\r\nCookie: uid=alice\r\n\r\n",
            [true, false, false, true],
        ),
        (
            "GET /?u=%61lice HTTP/1.1\r\nHost: x\r\n\r\n",
            [false, true, false, false],
        ),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", [false; 4]),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nCookie: theme=alice\r\n\r\n",
            [false, true, false, false],
        ),
    ];
    let (salt, mut scratch) = (Salt::default(), Scratch::default());
    // So that the counter of requests comes around.
    scratch.begin(0, 0);
    scratch.set_epoch(u32::MAX - 20);
    for _ in 0..10 {
        for (head, expected) in heads {
            with_subject(IpAddr::from([1, 1, 1, 1]), head, |subject| {
                for (selection, expected) in lists.iter().zip(expected) {
                    let mut look = selection.look_at(subject, &salt, None, &mut scratch);
                    assert_eq!(look.admission().is_some(), expected, "{head}");
                }
            });
        }
    }
}

/// How many cases there are: as `GRAYGATE_CASES` says, else so few. For a million in some minutes:
/// `GRAYGATE_CASES=1000000 cargo test --release --lib lists::selection`.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("GRAYGATE_CASES").map_or(usual, |it| it.parse().unwrap());
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_is_selected_is_what_a_naive_reading_selects(
        rules in vec(rules(), 0..12),
        requests in vec(requests(), 1..4),
        salt in "[a-z]{0,3}",
    ) {
        let (selection, mut scratch) = (Selection::new(&rules), Scratch::default());
        let salt = Salt::new(salt.as_bytes());
        for request in requests {
            let head = request.text();
            let naive = naive::Naive::of(request.client, &head, salt.text(), at(NOW));
            let expected = [true, false].map(|excludes| naive.first(&rules, excludes));
            let found = with_subject(request.client, &head, |subject| {
                let now = Some(at(NOW));
                let mut look = selection.look_at(subject, &salt, now, &mut scratch);
                [look.exclusion(), look.admission()]
            });
            let found = found.map(|it| it.map(|it| (it.place as usize, it.bucket)));
            prop_assert_eq!(found, expected, "{}", head);
            // What is said of each entry is what holds, and whatever decides is among what is said.
            let (said, count) = with_subject(request.client, &head, |subject| {
                near::near(&rules, subject, &salt, at(NOW), rules.len())
            });
            prop_assert_eq!(said.len(), count);
            let place = |excludes: bool| {
                let mut said: Vec<_> = said.iter().filter(|it| it.holds).map(|it| it.place).collect();
                said.retain(|it| rules[*it].excludes == excludes);
                said.into_iter().min()
            };
            let decides = expected.map(|it| it.map(|(place, _)| place));
            prop_assert_eq!([place(true), place(false)], decides, "{}", head);
            for entry in &said {
                let terms = rules[entry.place].terms.iter().zip(&entry.terms);
                for (term, said) in terms {
                    prop_assert_eq!(said.holds, naive.holds(term), "{} {}", said.text, head);
                }
            }
        }
    }
}
