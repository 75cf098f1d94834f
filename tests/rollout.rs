//! Rollouts on a real Redis: the share of a release grows by itself, whichever gateway is there to see to it,
//! and stops by itself.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    DEADLINE, FileSite, Gateway, Ground, Origin, Redis, Setup, run_to_exit, wait_for,
    wait_for_within, wait_until,
};

fn told(verb: &str, share: &str) -> (String, String) {
    (verb.to_owned(), share.to_owned())
}

#[test]
fn steps_are_taken_one_after_the_other_up_to_the_promotion() {
    let ground = Ground::new();
    let gateways = ["a", "b"].map(|it| ground.gateway(it));
    let (pre, prod) = (ground.list("pre"), ground.list("prod"));
    ground.start(
        "1,5%,50",
        "1s",
        &[
            "--without-verdict",
            "--promote",
            "--by-cookie",
            "uid",
            "--by",
            "ann",
            "--reason",
            "1.7",
        ],
    );
    assert_eq!(ground.list("gray"), ["percent:1:cookie:uid"]);
    let why = ground.refused(&["rollout", "start", "--steps", "5", "--every", "1s"]);
    assert!(why.contains("a rollout by ann is under way"), "{why}");
    ground.wait_course("done");
    assert_eq!(
        (ground.list("prod"), ground.list("gray")),
        (pre, Vec::new())
    );
    let expected = [
        told("rollout", "percent:1:cookie:uid"),
        told("rollout", "percent:5:cookie:uid"),
        told("rollout", "percent:50:cookie:uid"),
        told("promote", ""),
    ];
    assert_eq!(ground.history(), expected);
    let last = ground.json(&["history", "show", "4"]);
    assert_eq!(last["by"], "ann");
    for gateway in &gateways {
        gateway.wait_served("127.0.0.9", "pre", DEADLINE);
    }
    // It is over for good, and what it has promoted is rolled back like any other promotion.
    assert!(ground.refused(&["rollout", "resume"]).contains("is done"));
    ground.done(&["rollback", "--yes"]);
    assert_eq!(ground.list("gray"), Vec::<String>::new());
    assert_eq!(ground.list("prod"), prod);
}

#[test]
fn a_step_waits_until_the_verdict_is_good_enough() {
    let ground = Ground::new();
    let gateway = ground.gateway("a");
    ground.start("40,60", "1s", &[]);
    wait_until("it is led", DEADLINE, || ground.leader().is_some());
    // Nobody has come: nothing is known, and the time alone is not enough.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(ground.list("gray"), ["percent:40"]);
    wait_until("many have come", DEADLINE, || {
        ask(&gateway);
        ground.list("gray") == ["percent:60"]
    });
}

/// Two gateways, and a rollout that one of them leads: the other one, which gets all requests.
fn busy_beside_the_leader(
    ground: &Ground,
    steps: &str,
    every: &str,
    more: &[&str],
) -> [Gateway; 2] {
    let [a, b] = ["a", "b"].map(|it| ground.gateway(it));
    ground.start(steps, every, more);
    let leader = wait_for("it is led", || ground.leader());
    match &*leader {
        "a" => [b, a],
        _ => [a, b],
    }
}

fn ask(gateway: &Gateway) {
    for client in 1..=60 {
        gateway.get(&format!("127.0.0.{client}"), "/");
    }
}

#[test]
fn a_leader_that_serves_nobody_goes_on_by_what_another_gateway_sees() {
    let ground = Ground::new();
    let [busy, _leader] = busy_beside_the_leader(&ground, "40,60", "1s", &[]);
    wait_until("the next step", 2 * DEADLINE, || {
        ask(&busy);
        ground.list("gray") == ["percent:60"]
    });
}

#[test]
fn a_leader_that_serves_nobody_goes_no_further_where_another_gateway_finds_it_worse() {
    let failing = Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let ground = Ground::of(failing, Origin::named("prod"));
    let more = ["--without-verdict"];
    let [busy, _leader] = busy_beside_the_leader(&ground, "30,40,50,60", "4s", &more);
    wait_until("a step waits", 3 * DEADLINE, || {
        ask(&busy);
        let shown = ground.done(&["rollout", "status"]);
        assert!(!shown.starts_with("done"), "{shown}");
        shown.contains("the next step waits: the verdict: ") && shown.contains("pre is worse")
    });
}

#[test]
fn a_trip_ends_it_and_nobody_is_gray() {
    let ground = Ground::new();
    let _gateway = ground.gateway("a");
    ground.start("5,50", "1h", &[]);
    ground.redis.cli(&["SET", "graygate:tripped", "it is slow"]);
    let why = ground.wait_course("aborted");
    assert!(why.contains("was taken back"), "{why}");
    assert!(ground.list("gray").is_empty());
    let expected = [told("rollout", "percent:5"), told("rollback", "")];
    assert_eq!(ground.history(), expected);
    assert!(
        ground
            .refused(&["rollout", "resume"])
            .contains("is aborted")
    );
}

#[test]
fn what_people_do_stops_it_and_it_goes_on_by_their_word_alone() {
    let ground = Ground::new();
    let _gateway = ground.gateway("a");
    ground.done(&["freeze", "--by", "bob"]);
    for form in [&["rollout", "status", "--json"][..], &["rollout", "status"]] {
        let shown = ground.done(form);
        assert!(shown.contains("the lists are frozen by bob"), "{shown}");
    }
    ground.done(&["thaw"]);
    ground.start("5,50", "1h", &["--without-verdict"]);
    ground.done(&["rollout", "pause", "--by", "bob", "--reason", "lunch"]);
    let shown = ground.done(&["rollout", "status"]);
    assert!(shown.starts_with("paused since 2"), "{shown}");
    assert!(
        shown.contains("step 1 of 2 (5%)\npaused by bob: lunch\n"),
        "{shown}"
    );
    ground.done(&["rollout", "resume"]);
    // The share is changed by hand.
    ground.done(&["stage", "7%"]);
    let why = ground.wait_course("paused");
    assert!(why.contains("changed: percent:5"), "{why}");
    let why = ground.refused(&["rollout", "resume"]);
    assert!(why.contains("`graygate stage 5%`"), "{why}");
    ground.done(&["stage", "5%"]);
    ground.done(&["rollout", "resume"]);
    // A freeze is not ended by a thaw alone.
    ground.done(&["freeze", "--by", "bob"]);
    let were = "the lists were frozen by bob";
    assert!(ground.wait_course("paused").contains(were));
    let shown = ground.done(&["rollout", "status"]);
    let both = "`graygate thaw`, and then `graygate rollout resume`, has it go on";
    assert!(shown.contains(were) && shown.contains(both), "{shown}");
    let thawed = ground.json(&["thaw"]);
    let note = "`graygate rollout resume` has it go on";
    assert!(thawed["notes"].to_string().contains(note), "{thawed}");
    let shown = ground.done(&["rollout", "status"]);
    assert!(
        !shown.contains("thaw") && !shown.contains("are frozen"),
        "{shown}"
    );
    assert!(shown.contains(were) && shown.contains(note), "{shown}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(ground.rollout()["course"], "paused");
    ground.done(&["rollout", "resume"]);
    // Other entries are no affair of it.
    ground.done(&["admit", "127.0.0.7"]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(ground.rollout()["course"], "running");
    ground.done(&["rollout", "abort", "--by", "bob"]);
    assert_eq!(ground.rollout()["why"], "aborted by bob");
    assert!(ground.list("gray").is_empty());
    // Another version; and a step back.
    ground.done(&["stage", "10%"]);
    let why = ground.refused(&["rollout", "start", "--steps", "5,50", "--every", "1h"]);
    assert!(why.contains("10% already"), "{why}");
    ground.start("10,50", "1h", &[]);
    let other = Origin::named("other");
    ground.redis.push("pre", &[&other.address()]);
    assert!(ground.wait_course("aborted").contains("pre is another one"));
    assert_eq!(ground.list("gray"), ["percent:10"]);
    ground.done(&["rollback"]);
    ground.start("10,50", "1h", &[]);
    ground.done(&["rollback"]);
    assert!(ground.wait_course("aborted").contains("rolled back by"));
    // Also where somebody has emptied the list before.
    ground.start("10,50", "1h", &[]);
    ground.redis.cli(&["DEL", "gray"]);
    ground.done(&["rollback"]);
    assert!(ground.wait_course("aborted").contains("rolled back by"));
    for (steps, said) in [
        ("5,5", "larger share"),
        ("0,5", "larger share"),
        ("5,101", "a share is"),
    ] {
        let why = ground.refused(&["rollout", "start", "--steps", steps, "--every", "1h"]);
        assert!(why.contains(said), "{why}");
    }
}

#[test]
fn another_gateway_goes_on_where_the_leader_stands_still_or_was_killed() {
    let ground = Ground::new();
    let gateways = ["a", "b", "c"].map(|it| (it, ground.gateway(it)));
    ground.start("1,2,3,4,5", "3s", &["--without-verdict"]);
    let limit = Duration::from_secs(40);
    let another = |than: &str| {
        let leader = wait_for_within("another one leads", limit, || {
            ground.leader().filter(|it| it != than)
        });
        let (_, gateway) = gateways.iter().find(|(name, _)| *name == leader).unwrap();
        (leader, gateway)
    };
    let (first, standing) = another("");
    standing.signal(Signal::SIGSTOP);
    let (second, killed) = another(&first);
    // What the old one would still do comes too late.
    standing.signal(Signal::SIGCONT);
    killed.signal(Signal::SIGKILL);
    another(&second);
    wait_until("it is done", limit, || ground.rollout()["course"] == "done");
    let mut shares = ground.history();
    assert_eq!(shares.pop(), Some(told("rollout", "")));
    let expected = [1, 2, 3, 4, 5].map(|it| told("rollout", &format!("percent:{it}")));
    assert_eq!(shares, expected);
}

#[test]
fn a_gateway_needs_the_rights_that_the_docs_name_and_leaves_it_to_another_without_them() {
    let ground = Ground::new();
    ground.redis.allow_as_in_the_docs("graygate", 0);
    let url = format!("redis://graygate:password@{}/0", ground.redis.address());
    let gateway = ground.gateway_at("a", url);
    ground.start("1,2", "1s", &["--without-verdict"]);
    gateway.wait_for_log("rollout-unattended");
    assert_eq!(ground.list("gray"), ["percent:1"]);
    let other = ground.gateway("b");
    let limit = Duration::from_secs(40);
    wait_until("the other one goes on", limit, || {
        ground.list("gray") == ["percent:2"]
    });
    assert_eq!(gateway.stderr.count("rollout-unattended"), 1);
    wait_until("it is done", DEADLINE, || {
        ground.rollout()["course"] == "done"
    });
    // Whoever was killed would be waited for.
    other.end();
    ground.done(&["rollback"]);
    ground.redis.allow_as_in_the_docs("graygate", 1);
    ground.start("1,2", "1s", &["--without-verdict", "--promote"]);
    wait_until("it does all of it itself", limit, || {
        ground.rollout()["course"] == "done"
    });
    assert_eq!(ground.list("gray"), Vec::<String>::new());
}

/// How often each of these commands was called since the server was last asked to begin anew.
#[track_caller]
fn calls<const N: usize>(redis: &Redis, commands: [&str; N]) -> [u64; N] {
    let stats: String = redis::from_redis_value(redis.cli(&["INFO", "commandstats"])).unwrap();
    commands.map(|command| {
        let calls = stats.split_once(&format!("cmdstat_{command}:calls="));
        let calls = calls.and_then(|(_, it)| it.split_once(','));
        calls.map_or(0, |(it, _)| it.parse().unwrap())
    })
}

#[test]
fn gateways_do_not_read_the_lists_again_while_a_leader_renews_its_lease() {
    let ground = Ground::new();
    let _gateways = ["a", "b", "c"].map(|it| ground.gateway(it));
    ground.start("5,50", "1h", &[]);
    let beat = || {
        let text: Option<String> =
            redis::from_redis_value(ground.redis.cli(&["GET", "graygate:release:lease"])).unwrap();
        let renewal: Value = serde_json::from_str(&text?).unwrap();
        renewal["beat"].as_u64()
    };
    let first = wait_for_within("the lease is renewed", DEADLINE, beat);
    ground.redis.cli(&["CONFIG", "RESETSTAT"]);
    wait_until("it is renewed again", DEADLINE, || beat() > Some(first + 1));
    assert_eq!(calls(&ground.redis, ["smembers"]), [0]);
    // What they say is shown, and is gone when it is of no use any more.
    assert_eq!(ground.rollout()["beat"].as_u64(), beat());
    ground.done(&["rollout", "abort"]);
    assert_eq!(beat(), None);
}

#[test]
fn a_redis_that_has_lost_the_last_step_does_not_take_it_again() {
    let ground = Ground::new();
    let gateway = ground.gateway("a");
    let state = || -> Vec<u8> {
        redis::from_redis_value(ground.redis.cli(&["GET", "graygate:release"])).unwrap()
    };
    ground.start("1,2,3", "2s", &["--without-verdict"]);
    let before = String::from_utf8(state()).unwrap();
    wait_until("the second step", DEADLINE, || {
        ground.list("gray") == ["percent:2"]
    });
    wait_until("it was seen", DEADLINE, || {
        gateway.stderr.count("step 2 of 3") > 1
    });
    // What was in force a second before, in one transaction, as a replica may have it.
    let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2]) \
                  redis.call('RPUSH', KEYS[2], 'percent:1')";
    let words = ["EVAL", script, "2", "graygate:release", "gray", &before];
    ground.redis.cli(&words);
    assert!(ground.wait_course("paused").contains("has lost"));
    assert_eq!(ground.list("gray"), ["percent:1"]);
}

#[test]
fn a_lists_file_has_rollouts_too() {
    let site = FileSite::with(&[], |it| it.set("verdict.mode", "observe"));
    let text = std::fs::read_to_string(site.gateway.path("graygate.ini")).unwrap();
    let socket = format!("socket = {}", site.gateway.path("admin.sock").display());
    let file = format!("file = {}", site.file().display());
    let text = text.replace("socket = admin.sock", &socket);
    let setup = Setup::new().file("desk.ini", &text.replace("file = lists", &file));
    let ini = setup.path("desk.ini").to_str().unwrap().to_owned();
    let words = "rollout start --steps 1,100 --every 1s --without-verdict --promote";
    let words: Vec<&str> = words.split(' ').chain(["-c", &ini]).collect();
    let output = run_to_exit(&words);
    assert!(output.status.success(), "{output:?}");
    site.gateway.wait_served("127.0.0.9", "pre", DEADLINE);
    let history = site.gateway.path("lists.history");
    let verbs = || {
        let text = std::fs::read_to_string(&history).unwrap();
        let lines = text
            .lines()
            .map(|it| serde_json::from_str::<Value>(it).unwrap());
        lines
            .map(|it| it["verb"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    wait_until("it is promoted", DEADLINE, || {
        verbs() == ["rollout", "rollout", "promote"]
    });
}
