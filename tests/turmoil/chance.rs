//! Entries by chance.

use std::net::Ipv4Addr;

use fastrand::Rng;

use super::entries::{Comparison, Entry, Part, ShareOf, Term, Test};
use super::requests::{CLIENTS, FIRST_CLIENT};

const fn like(open_start: bool, text: &'static str, open_end: bool) -> Test {
    Test::Like {
        open_start,
        text,
        open_end,
    }
}

const USER: Part = Part::Header("x-user");
const APP: Part = Part::Header("x-app-version");
const UID: Part = Part::Cookie("uid");

const PARTS: &[(Part, Test)] = &[
    (USER, Test::Present),
    (USER, Test::Is("alice")),
    (USER, Test::Is("Li Wei")),
    (USER, Test::InAnyCase("alice")),
    (USER, like(false, "ali", true)),
    (USER, like(true, "lice", false)),
    (USER, like(true, "lic", true)),
    (APP, Test::Version(Comparison::AtLeast, &[2, 10, 3])),
    (APP, Test::Version(Comparison::Greater, &[2, 10, 3])),
    (APP, Test::Version(Comparison::Less, &[2, 11])),
    (APP, Test::Version(Comparison::AtMost, &[2, 9, 9])),
    (APP, Test::Version(Comparison::Equal, &[2, 10, 3])),
    (Part::Header("x-beta"), Test::Present),
    (Part::Cookie("plan"), Test::Is("Gold")),
    (Part::Cookie("plan"), Test::InAnyCase("gold")),
    (Part::Cookie("beta"), Test::Present),
    (UID, Test::Is("7")),
    (UID, like(false, "1", true)),
    (Part::Query("v"), Test::Present),
    (Part::Query("v"), Test::Is("2")),
    (Part::Query("q"), Test::Is("a b")),
    (Part::Path, like(false, "/v2/", true)),
    (Part::Path, Test::Is("/exact")),
    (Part::Path, like(true, "i", true)),
    (Part::Method, Test::Is("POST")),
    (Part::Host, Test::Is("shop.test")),
    (Part::Host, like(true, ".pop.test", false)),
];

const SHARES: [ShareOf; 5] = [
    ShareOf::Clients,
    ShareOf::Values(USER),
    ShareOf::Values(UID),
    ShareOf::Values(Part::Query("uid")),
    ShareOf::Visitors,
];

/// Small enough that all of them together are not everybody, which would be held.
const LIMITS: [u16; 5] = [0, 25, 500, 1250, 3000];

fn net(rng: &mut Rng) -> Term {
    let host = FIRST_CLIENT + rng.u8(..CLIENTS);
    match rng.u8(..4) {
        0 => Term::Net(Ipv4Addr::new(127, 0, 0, host & !3), 30),
        1 => Term::Net(Ipv4Addr::new(10, 0, 0, host), 32),
        _ => Term::Net(Ipv4Addr::new(127, 0, 0, host), 32),
    }
}

fn term(rng: &mut Rng) -> Term {
    match rng.u8(..8) {
        0 => net(rng),
        1..3 => Term::Share(
            LIMITS[rng.usize(..LIMITS.len())],
            SHARES[rng.usize(..SHARES.len())],
        ),
        _ => {
            let (part, test) = PARTS[rng.usize(..PARTS.len())];
            Term::Part(part, test)
        }
    }
}

/// What there is one term of in an entry at most.
fn subject(term: &Term) -> String {
    match term {
        Term::Everybody => "everybody".to_owned(),
        Term::Net(..) => "net".to_owned(),
        Term::Part(part, _) => part.to_string(),
        Term::Share(_, of) => format!("{of:?}"),
    }
}

/// An entry; ends are a few seconds after `now`, in seconds since 1970.
pub(crate) fn entry(rng: &mut Rng, now: u64) -> Entry {
    if rng.u8(..3) == 0 {
        return Entry::of(vec![net(rng)]);
    }
    let mut terms: Vec<Term> = Vec::new();
    for _ in 0..[1, 1, 1, 2, 2, 3][rng.usize(..6)] {
        let new = term(rng);
        if terms.iter().all(|it| subject(it) != subject(&new)) {
            terms.push(new);
        }
    }
    let mut entry = Entry::of(terms);
    entry.excludes = rng.u8(..6) == 0;
    if rng.u8(..25) == 0 {
        entry = Entry::of(vec![Term::Everybody]);
        entry.excludes = true;
    }
    if rng.u8(..4) == 0 {
        entry.until = Some(now + rng.u64(1..5));
    }
    if rng.u8(..10) == 0 {
        entry.note = Some("ticket 4711");
    }
    entry
}
