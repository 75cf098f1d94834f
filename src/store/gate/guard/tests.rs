//! What is held, what settles, and what is let in when.

use ipnet::Ipv4Net;

use super::guarded::NAMED;
use super::*;
use crate::lists::{AdmittedUntil, Family, GrayList, PeerList};

const RULES: GuardRules = GuardRules {
    share: 50,
    timeout: None,
};

/// Long before the ends of the entries here, but for one.
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn peers(text: &str) -> PeerList {
    PeerList::parse(text.split_whitespace(), 80)
}

fn gray(text: &str) -> GrayList {
    GrayList::parse(text.split_whitespace())
}

/// A gate before `prod`, with what is in force behind it, and the time.
struct Prod {
    gate: Gate<PeerList>,
    in_force: Arc<PeerList>,
    rules: GuardRules,
    now: Timestamp,
}

impl Prod {
    fn new(in_force: &str) -> Self {
        Self {
            gate: Gate::default(),
            in_force: Arc::new(peers(in_force)),
            rules: RULES,
            now: Timestamp::now(),
        }
    }

    /// The store has `new`; true when that is in force now.
    fn reads(&mut self, new: &str) -> bool {
        let judged = self
            .gate
            .judge(self.rules, &self.in_force, peers(new), self.now);
        let is_other =
            |it: &Arc<PeerList>| Guarded::digest(&**it) != Guarded::digest(&*self.in_force);
        if judged.as_ref().is_some_and(is_other) {
            self.gate.note_change(self.now.instant);
        }
        self.takes(judged) || self.is_ripe()
    }

    fn takes(&mut self, taken: Option<Arc<PeerList>>) -> bool {
        let any = taken.is_some();
        self.in_force = taken.unwrap_or_else(|| Arc::clone(&self.in_force));
        any
    }

    fn passes(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.time += time;
    }

    fn is_ripe(&mut self) -> bool {
        let taken = self.gate.ripe(self.rules, &self.in_force, self.now);
        self.takes(taken)
    }

    fn held(&self) -> Option<HoldReason> {
        self.gate.held().map(|it| it.reason)
    }
}

#[test]
fn what_takes_too_many_peers_away_or_all_is_held() {
    use HoldReason::{EmptiesProd, RemovesPeers};
    let table = [
        ("1.1.1.1", "1.1.1.1 1.1.1.2", 50, None),
        ("1.1.1.1", "", 50, Some(EmptiesProd)),
        ("1.1.1.1", "", 100, Some(EmptiesProd)),
        ("", "", 0, None),
        ("", "1.1.1.1", 0, None),
        // Another port is another peer.
        ("1.1.1.1", "1.1.1.1:81", 50, Some(RemovesPeers)),
        ("1.1.1.1", "2.2.2.2", 99, Some(RemovesPeers)),
        ("1.1.1.1", "2.2.2.2", 100, None),
        ("1.1.1.1 1.1.1.2", "1.1.1.1", 50, None),
        ("1.1.1.1 1.1.1.2", "1.1.1.1", 49, Some(RemovesPeers)),
        ("1.1.1.1 1.1.1.2", "1.1.1.1", 0, Some(RemovesPeers)),
        ("1.1.1.1 1.1.1.2", "1.1.1.1 2.2.2.2 3.3.3.3", 50, None),
        ("1.1.1.1 1.1.1.2 1.1.1.3", "1.1.1.3", 66, Some(RemovesPeers)),
        ("1.1.1.1 1.1.1.2 1.1.1.3", "1.1.1.3", 67, None),
    ];
    for (now, new, share, expected) in table {
        let found = peers(now).objection(&peers(new), share, NOW);
        assert_eq!(found, expected, "{now} -> {new}, {share}");
    }
}

#[test]
fn what_admits_everybody_is_held_unless_that_is_in_force() {
    let table = [
        ("", "0.0.0.0/0", true),
        ("", "::/0", true),
        ("", "::ffff:0.0.0.0/96", true),
        ("", "7.7.7.7/0 1.1.1.1", true),
        ("0.0.0.0/0", "0.0.0.0/0 1.1.1.1", false),
        ("0.0.0.0/0", "0.0.0.0/0 ::/0", true),
        ("1.1.1.1", "", false),
        ("0.0.0.0/0", "", false),
        ("1.1.1.1 2.2.2.2", "3.3.3.0/24 ::1", false),
        // However it is written.
        ("", "0.0.0.0/1 128.0.0.0/1", true),
        ("", "::/1 8000::/1", true),
        ("", "2000::/3", true),
        ("", "2000::/4 3000::/5 3800::/5", true),
        ("0.0.0.0/1 128.0.0.0/1", "0.0.0.0/0", false),
        ("0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1 1.1.1.1", false),
        ("0.0.0.0/0", "::/0", true),
        // Groups and what is reserved are no clients.
        ("", "0.0.0.0/1 128.0.0.0/2 192.0.0.0/3", true),
        ("", "224.0.0.0/3 10.0.0.0/8", false),
        ("", "fc00::/7 fe80::/10", false),
        // The last step is the one that counts.
        ("0.0.0.0/1", "0.0.0.0/1 128.0.0.0/2", false),
        (
            "0.0.0.0/1 128.0.0.0/2",
            "0.0.0.0/1 128.0.0.0/2 192.0.0.0/4",
            true,
        ),
        ("", "0.0.0.0/1", false),
        ("", "2000::/4", false),
        // Covered twice is not more.
        ("", "0.0.0.0/1 0.0.0.0/2 64.0.0.0/2", false),
    ];
    for (now, new, held) in table {
        let found = gray(now).objection(&gray(new), 50, NOW);
        let expected = held.then_some(HoldReason::AdmitsEverybody);
        assert_eq!(found, expected, "{now} -> {new}");
    }
}

#[test]
fn rules_that_admit_everybody_are_held_as_nets_are() {
    let gray = |text: &str| GrayList::parse(text.split(", ").filter(|it| !it.is_empty()));
    let table = [
        ("", "*", "*"),
        ("", "percent:100", "percent:100"),
        (
            "",
            "percent:100:visitor path:/*",
            "path:/* percent:100:visitor",
        ),
        ("", "host:*", "host:*"),
        // What every request has, however that is said.
        ("", "header:Host", "header:host"),
        ("", "header:HOST=*", "header:host"),
        ("", "header:Host~*", "header:host"),
        (
            "",
            "host:* path:*/* header:Host",
            "header:host path:*/* host:*",
        ),
        ("", "path:*", "*"),
        ("", "method:*", "*"),
        ("", "percent:100:header:Host", "percent:100:header:host"),
        (
            "",
            "percent:90:header:Host path:/*",
            "path:/* percent:90:header:host",
        ),
        (
            "",
            "percent:70:header:Host, percent:70",
            "percent:70, percent:70:header:host",
        ),
        (
            "",
            "percent:95 percent:95:header:Host",
            "percent:95 percent:95:header:host",
        ),
        (
            "",
            "0.0.0.0/1 percent:100:header:Host, 128.0.0.0/1",
            "128.0.0.0/1, 0.0.0.0/1 percent:100:header:host",
        ),
        ("", "* note=\"a\"", "* note=\"a\""),
        ("", "* until=2026-12-01T18:00Z", "* until=2026-12-01T18:00Z"),
        ("", "0.0.0.0/0 note=\"a\"", "0.0.0.0/0 note=\"a\""),
        (
            "",
            "0.0.0.0/1 note=\"a\", 128.0.0.0/1",
            "128.0.0.0/1, 0.0.0.0/1 note=\"a\"",
        ),
        ("1.1.1.1, header:X", "*, 1.1.1.1, header:X", "*"),
        // Half of the rest, and so on: no two keys know of each other.
        ("", "percent:90", "percent:90"),
        (
            "",
            "percent:70, percent:70:visitor",
            "percent:70, percent:70:visitor",
        ),
        (
            "",
            "0.0.0.0/1, 128.0.0.0/2, percent:50",
            "0.0.0.0/1, 128.0.0.0/2, percent:50",
        ),
        // Longer than before.
        (
            "* until=2026-12-01T18:00Z",
            "* until=2026-12-01T18:00Z, *",
            "*",
        ),
        ("*, !*", "*", ""),
        ("", "*, !* until=2026-12-01T18:00Z", "*"),
        // Somebody is left out, or may leave something away.
        ("", "percent:89.99", "-"),
        ("", "percent:60, percent:89", "-"),
        ("", "percent:60, percent:60:visitor", "-"),
        ("", "percent:95 percent:90:visitor", "-"),
        ("", "percent:100:cookie:uid", "-"),
        ("", "percent:100:query:uid", "-"),
        ("", "percent:100:header:User-Agent", "-"),
        (
            "",
            "header:User-Agent, header:Connection, cookie:a, query:a",
            "-",
        ),
        ("", "header:Host=*.example.com", "-"),
        ("", "host:*a*", "-"),
        ("", "path:*/", "-"),
        ("", "method:GET", "-"),
        ("", "percent:89:header:Host", "-"),
        ("", "percent:100:header:Host, !percent:100:header:Host", "-"),
        ("", "percent:100:header:Host, !header:Host", "-"),
        ("", "path:/a*", "-"),
        ("", "header:X", "-"),
        ("", "percent:100 header:X", "-"),
        ("", "10.0.0.0/8 percent:100", "-"),
        ("", "!*", "-"),
        ("*", "*, !*", "-"),
        ("", "*, !*", "-"),
        ("", "!percent:100", "-"),
        ("10.0.0.1", "!0.0.0.0/0", "-"),
        // It did before.
        ("*", "*, 10.0.0.1", "-"),
        ("*", "percent:100", "-"),
        ("0.0.0.0/0, ::/0", "*", "-"),
        (
            "* until=2026-12-01T18:00Z",
            "* until=2026-12-01T18:00Z, 1.1.1.1",
            "-",
        ),
        ("*", "", "-"),
    ];
    for (now, new, named) in table {
        let (now, new) = (gray(now), gray(new));
        assert_eq!((now.skipped().count, new.skipped().count), (0, 0));
        let objection = now.objection(&new, 50, NOW);
        let expected = (named != "-").then_some(HoldReason::AdmitsEverybody);
        let entries: Vec<String> = new.entries().collect();
        assert_eq!(objection, expected, "{entries:?}");
        if expected.is_some() {
            let [gone, come] = now.difference(&new, NOW);
            assert_eq!(come.first.join(", "), named, "{entries:?}");
            assert_eq!((gone.count, come.count), (0, come.first.len()));
        }
    }
    // Of both families, or of one.
    let families =
        |text: &str| Family::ALL.map(|it| gray(text).admission(it, NOW) > AdmittedUntil::Never);
    assert_eq!(families("*"), [true, true]);
    assert_eq!(families("0.0.0.0/0 note=\"a\""), [true, false]);
    assert_eq!(families("*, !::/0"), [true, false]);
}

#[test]
fn what_is_over_admits_nobody() {
    let gray = |text: &str| GrayList::parse(text.split(", ").filter(|it| !it.is_empty()));
    const SIX: &str = "2026-12-01T18:00Z";
    let six = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_148_000);
    let second = Duration::from_secs(1);
    // Before, at the end, and after it: what is held, and what is named.
    let table = [
        ("", "* until=6", ["* until=6", "-", "-"]),
        ("", "0.0.0.0/0 until=6", ["0.0.0.0/0 until=6", "-", "-"]),
        (
            "",
            "percent:95:header:Host until=6",
            ["percent:95:header:host until=6", "-", "-"],
        ),
        ("", "*, * until=6", ["*"; 3]),
        // Which of them are enough together.
        (
            "",
            "percent:80 until=6, percent:80:visitor",
            ["percent:80 until=6, percent:80:visitor", "-", "-"],
        ),
        (
            "",
            "0.0.0.0/1 until=6, 128.0.0.0/1",
            ["128.0.0.0/1, 0.0.0.0/1 until=6", "-", "-"],
        ),
        (
            "",
            "percent:95, percent:95:visitor until=6",
            ["percent:95", "percent:95", "percent:95"],
        ),
        // What has admitted everybody does so no longer.
        ("* until=6", "*", ["*"; 3]),
        ("* until=6", "* until=6, 10.0.0.1", ["-"; 3]),
        ("* until=6", "", ["-"; 3]),
        // Excluded for a time only, or for a time that is over.
        ("", "*, !* until=6", ["*"; 3]),
    ];
    for (now, new, expected) in table {
        let list = |text: &str| gray(&text.replace("=6", &format!("={SIX}")));
        let (now, new) = (list(now), list(new));
        assert_eq!((now.skipped().count, new.skipped().count), (0, 0));
        let times = [six - second, six, six + second];
        for (time, expected) in times.into_iter().zip(expected) {
            let entries: Vec<String> = new.entries().collect();
            let held = now.objection(&new, 50, time);
            assert_eq!(held.is_some(), expected != "-", "{entries:?} {time:?}");
            if held.is_some() {
                let [_, come] = now.difference(&new, time);
                let named = come.first.join(", ").replace(SIX, "6");
                assert_eq!(named, expected, "{entries:?} {time:?}");
            }
        }
    }
    // What is held until its end has come is let in then: it makes nobody gray.
    let (mut gate, in_force) = (Gate::default(), Arc::new(gray("")));
    let mut now = Timestamp {
        time: six - second,
        ..Timestamp::now()
    };
    let new = Arc::new(gray(&format!("* until={SIX}")));
    let judged = gate.judge(RULES, &in_force, Arc::clone(&new), now);
    assert!(judged.is_none() && gate.ripe(RULES, &in_force, now).is_none());
    now.time = six;
    let let_in = gate.ripe(RULES, &in_force, now).unwrap();
    assert!(Arc::ptr_eq(&let_in, &new));
    assert!(gate.is_empty());
}

/// All addresses but some, as few nets or as many small ones.
#[test]
fn a_hole_makes_no_difference_unless_it_is_large() {
    // All but a.b.0.0/16, by the halves that it is not in.
    let but = |hole: Ipv4Net| {
        let others = (1..=hole.prefix_len()).map(|length| {
            let bit = 1_u32 << (32 - length);
            let net = Ipv4Net::new((hole.addr().to_bits() ^ bit).into(), length).unwrap();
            net.trunc().to_string()
        });
        GrayList::parse(others)
    };
    let nobody = gray("");
    for (hole, held) in [
        ("192.0.2.1/32", true),
        ("10.0.0.0/8", true),
        ("96.0.0.0/5", true),
        ("96.0.0.0/4", true),
        ("96.0.0.0/3", false),
        // Where there is nobody.
        ("224.0.0.0/3", true),
    ] {
        let found = nobody.objection(&but(hole.parse().unwrap()), 50, NOW);
        assert_eq!(found.is_some(), held, "{hole}");
    }
    // In slices of 65,536 addresses, of which each is nothing.
    let slices = |count: u32| {
        GrayList::parse(
            (0..count).map(|it| format!("{}/16", std::net::Ipv4Addr::from_bits(it << 16))),
        )
    };
    let most = 224 * 256 * 9 / 10;
    assert_eq!(nobody.objection(&slices(most), 50, NOW), None);
    let held = slices(most + 1);
    assert_eq!(
        nobody.objection(&held, 50, NOW),
        Some(HoldReason::AdmitsEverybody)
    );
    let [_, come] = slices(10).difference(&held, NOW);
    assert_eq!(
        (come.count, come.first.len()),
        (most as usize + 1 - 10, NAMED)
    );
    assert_eq!(come.first[0], "0.10.0.0/16");
    let [_, come] = nobody.difference(&gray("1.1.1.1 128.0.0.0/1 0.0.0.0/1 2.2.2.0/24 ::1"), NOW);
    assert_eq!(
        (come.count, come.first.join(" ")),
        (4, "0.0.0.0/1 128.0.0.0/1 2.2.2.0/24 1.1.1.1/32".to_owned())
    );
}

#[test]
fn a_list_that_is_rewritten_entry_by_entry_is_held_until_it_is_whole() {
    let mut prod = Prod::new("1.1.1.1 1.1.1.2 1.1.1.3");
    for (new, held) in [
        ("", Some(HoldReason::EmptiesProd)),
        ("1.1.1.1", Some(HoldReason::RemovesPeers)),
        // Acceptable alone, but not behind the two above.
        ("1.1.1.1 1.1.1.2", None),
    ] {
        prod.passes(SETTLE / 2);
        assert!(!prod.reads(new), "{new}");
        assert_eq!((prod.held(), prod.gate.settles()), (held, held.is_none()));
    }
    assert!(prod.reads("1.1.1.1 1.1.1.2 1.1.1.3"));
    assert_eq!((prod.held(), prod.gate.settles()), (None, false));
    assert!(prod.reads("1.1.1.1 1.1.1.2"), "without trouble before");
}

#[test]
fn what_follows_trouble_and_lacks_peers_is_in_force_once_it_has_settled() {
    for trouble in ["held", "doubt"] {
        let mut prod = Prod::new("1.1.1.1 1.1.1.2 1.1.1.3");
        match trouble {
            "held" => assert!(!prod.reads("")),
            _ => prod.gate.doubt(),
        }
        assert!(!prod.reads("1.1.1.1 1.1.1.2"), "{trouble}");
        assert_eq!(
            prod.gate.ripe_at(RULES),
            Some(prod.now.instant + SETTLE),
            "{trouble}"
        );
        prod.passes(SETTLE - Duration::from_millis(1));
        assert!(!prod.is_ripe() && !prod.reads("1.1.1.1 1.1.1.2"));
        prod.passes(Duration::from_millis(1));
        assert!(prod.is_ripe(), "{trouble}");
        assert_eq!(prod.in_force.peers().len(), 2);
    }
}

#[test]
fn a_held_change_is_accepted_by_its_own_digest_and_only_while_it_stands() {
    let mut prod = Prod::new("1.1.1.1 1.1.1.2");
    assert!(!prod.reads("3.3.3.3"));
    let held = prod.gate.held().unwrap();
    assert_eq!((held.entries, held.gone.count, held.new.count), (1, 2, 1));
    assert_eq!(held.new.first, ["3.3.3.3:80"]);
    let digest = held.digest.to_string();
    assert!(prod.gate.accept("0123456789abcdef").is_none());
    assert!(prod.gate.accept("").is_none());
    prod.gate.doubt();
    assert!(prod.gate.accept(&digest).is_none(), "it does not stand");
    assert!(!prod.reads("3.3.3.3"));
    assert_eq!(prod.gate.held().unwrap().since, held.since);
    let taken = prod.gate.accept(&digest);
    assert!(prod.takes(taken));
    assert_eq!(prod.in_force.peers(), peers("3.3.3.3").peers());
    assert_eq!(prod.gate.held(), None);

    // Another content has another digest, and the old one is of no use.
    let mut prod = Prod::new("1.1.1.1 1.1.1.2");
    assert!(!prod.reads("3.3.3.3") && !prod.reads("4.4.4.4"));
    assert!(prod.gate.accept(&digest).is_none());
    // What only settles needs nobody's word.
    assert!(!prod.reads("1.1.1.1"));
    let settling = Guarded::digest(&peers("1.1.1.1")).to_string();
    assert!(prod.gate.settles() && prod.gate.accept(&settling).is_none());
}

#[test]
fn a_held_change_comes_into_force_by_itself_after_the_time_and_not_without_one() {
    let mut prod = Prod::new("1.1.1.1");
    assert!(!prod.reads("3.3.3.3"));
    prod.passes(Duration::from_secs(1_000_000));
    assert!(!prod.is_ripe() && !prod.reads("3.3.3.3"));
    assert_eq!(prod.gate.ripe_at(prod.rules), None);

    let minute = Duration::from_secs(60);
    let mut prod = Prod::new("1.1.1.1");
    prod.rules.timeout = Some(minute);
    assert!(!prod.reads("3.3.3.3"));
    prod.passes(minute / 2);
    // Another content, and a doubt, begin the count anew.
    assert!(!prod.reads("4.4.4.4"));
    prod.passes(minute / 2);
    assert!(!prod.is_ripe());
    prod.gate.doubt();
    assert_eq!(prod.gate.ripe_at(prod.rules), None);
    prod.passes(minute);
    assert!(!prod.is_ripe() && !prod.reads("4.4.4.4"));
    let at = prod.gate.ripe_at(prod.rules).unwrap();
    assert_eq!(at, prod.now.instant + minute);
    prod.passes(minute);
    assert!(prod.is_ripe());
}

#[test]
fn out_of_sight_no_time_counts_and_what_was_seen_last_can_be_accepted() {
    let minute = Duration::from_secs(60);
    let mut prod = Prod::new("1.1.1.1");
    prod.rules.timeout = Some(minute);
    assert!(!prod.reads("3.3.3.3"));
    prod.passes(minute / 2);
    prod.gate.lose_sight();
    prod.passes(minute);
    assert!(!prod.is_ripe());
    assert_eq!(prod.gate.ripe_at(prod.rules), None);
    // Other rules are for what the store has.
    prod.rules.share = 100;
    assert!(!prod.is_ripe());
    prod.rules.share = 50;
    assert!(!prod.reads("3.3.3.3"));
    let at = prod.gate.ripe_at(prod.rules).unwrap();
    assert_eq!(at, prod.now.instant + minute, "it begins anew");
    let digest = prod.gate.held().unwrap().digest.to_string();
    prod.gate.doubt();
    prod.gate.lose_sight();
    assert!(prod.gate.accept(&digest).is_none(), "it was not told");
    assert!(!prod.reads("3.3.3.3"));
    prod.gate.lose_sight();
    assert!(prod.gate.accept(&digest).is_some());

    // What only settles waits for the store, too.
    let mut prod = Prod::new("1.1.1.1 1.1.1.2");
    prod.gate.doubt();
    assert!(!prod.reads("1.1.1.1") && prod.gate.settles());
    prod.gate.lose_sight();
    prod.passes(SETTLE * 2);
    assert!(!prod.is_ripe() && !prod.reads("1.1.1.1"));
    prod.passes(SETTLE);
    assert!(prod.is_ripe());
}

#[test]
fn other_rules_let_in_what_they_allow() {
    let mut prod = Prod::new("1.1.1.1");
    assert!(!prod.reads("3.3.3.3"));
    prod.rules.share = 99;
    assert!(!prod.is_ripe());
    prod.rules.share = 100;
    assert!(prod.is_ripe());
    assert!(!prod.reads("") && prod.held() == Some(HoldReason::EmptiesProd));
}

#[test]
fn a_rollback_of_gray_never_waits() {
    let (mut gate, in_force) = (Gate::default(), Arc::new(gray("1.1.1.1 2.2.2.0/24")));
    let now = Timestamp::now();
    let mut judge = |text| gate.judge(RULES, &in_force, gray(text), now).is_some();
    assert!(!judge("0.0.0.0/0"));
    assert!(judge("1.1.1.1"), "behind a held change, too");
    assert!(!judge("0.0.0.0/0") && judge(""));
    gate.doubt();
    assert!(gate.judge(RULES, &in_force, gray(""), now).is_some());
}

#[test]
fn of_many_peers_the_first_are_named() {
    let many = |net: u8| {
        let peers = (0..200).map(|at| format!("10.0.{net}.{at}"));
        PeerList::parse(peers, 80)
    };
    let mut gate = Gate::default();
    assert!(
        gate.judge(RULES, &Arc::new(many(0)), many(1), Timestamp::now())
            .is_none()
    );
    let held: HeldChange = gate.held().unwrap();
    for named in [held.gone, held.new] {
        assert_eq!((named.count, named.first.len()), (200, NAMED));
    }
}

/// So many peers, the first of ten.
fn first(count: usize) -> String {
    let peers = (0..count).map(|at| format!("10.0.0.{at}"));
    peers.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_removed_bit_by_bit_in_a_moment_is_removed_at_once() {
    let mut prod = Prod::new(&first(10));
    for left in (5..10).rev() {
        prod.passes(Duration::from_millis(7));
        assert!(prod.reads(&first(left)), "{left}");
    }
    for left in (1..5).rev() {
        prod.passes(Duration::from_millis(7));
        assert!(!prod.reads(&first(left)), "{left}");
        let held = prod.gate.held().unwrap();
        assert_eq!(held.reason, HoldReason::RemovesPeers);
        assert_eq!((held.gone.count, held.entries), (10 - left, left));
    }
    // What there was before stays what it is compared with, for as long as it is held.
    prod.passes(SETTLE * 100);
    assert!(!prod.reads(&first(4)) && prod.held().is_some());
    assert_eq!(prod.gate.held().unwrap().gone.count, 6);
    // What is meant is what the next change is compared with.
    let digest = prod.gate.held().unwrap().digest.to_string();
    let taken = prod.gate.accept(&digest);
    assert!(prod.takes(taken));
    assert!(prod.reads(&first(2)) && !prod.reads(&first(1)));
}

#[test]
fn what_is_accepted_amid_a_burst_ends_it() {
    let mut prod = Prod::new(&first(10));
    assert!(prod.reads(&first(5)) && !prod.reads(&first(4)));
    let digest = prod.gate.held().unwrap().digest.to_string();
    let taken = prod.gate.accept(&digest);
    assert!(prod.takes(taken));
    assert!(prod.reads(&first(2)) && !prod.reads(&first(1)));
    assert_eq!(prod.gate.held().unwrap().gone.count, 3);
}

#[test]
fn what_is_removed_once_the_list_has_stood_is_another_change() {
    let mut prod = Prod::new(&first(10));
    assert!(prod.reads(&first(6)));
    prod.passes(SETTLE - Duration::from_millis(1));
    assert!(prod.reads(&first(5)));
    // The same list again is no change.
    prod.passes(SETTLE - Duration::from_millis(1));
    assert!(prod.reads(&first(5)));
    assert!(!prod.reads(&first(3)) && prod.held().is_some());
    assert!(prod.reads(&first(5)) && prod.held().is_none());
    prod.passes(Duration::from_millis(1));
    assert!(prod.reads(&first(3)));
}

#[test]
fn what_takes_nothing_from_the_list_before_the_burst_is_not_held_unless_it_is_nothing() {
    let mut prod = Prod::new(&first(2));
    assert!(prod.reads(&first(10)));
    assert!(prod.reads(&first(2)), "it was there before");
    assert!(prod.reads(&first(10)));
    // One of the two, and one of the ten.
    assert!(!prod.reads(&first(1)) && prod.held() == Some(HoldReason::RemovesPeers));
    let mut prod = Prod::new("");
    assert!(prod.reads(&first(3)));
    assert!(!prod.reads("") && prod.held() == Some(HoldReason::EmptiesProd));
    assert!(prod.reads(&first(3)));
}
