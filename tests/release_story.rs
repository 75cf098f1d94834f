//! Two whole releases, by three gateways on one Redis, while a few hundred clients ask all the time: one that
//! turns out to be bad, and takes itself back, and one that ends well. Of every answer it is known by which
//! lists it may have come, and so which version had to give it.
//!
//! `story/model.rs` says what has to hold for each answer.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]
// The run says what it has done.
#![allow(clippy::print_stdout)]

#[allow(dead_code)] // Another test uses the rest.
mod story;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use story::crowd::Crowd;
use story::fleet::{self, shares};
use story::model::{Model, Outcome, bucket};
use story::world::{World, uids};
use support::Commands;

/// A step that needs a verdict may take so long on a busy machine.
const STEP: Duration = Duration::from_secs(20);

/// A trip that Redis has is in force everywhere so soon: far above what it takes.
const SOON: Duration = Duration::from_secs(2);

/// Who comes by chance, and how many are in each part of 10,000 besides.
const ANYBODY: usize = 150;
const PARTS: [(usize, std::ops::Range<u64>); 5] = [
    (8, 0..100),
    (10, 100..500),
    (24, 500..2_500),
    (24, 2_500..5_000),
    (24, 5_000..10_000),
];
const CLIENTS: usize = ANYBODY + 90;

/// Those who come by chance.
fn anybody(world: &World) -> Crowd {
    let all = uids("anybody", "", &[(ANYBODY, 0..10_000)]);
    Crowd::gather(&all, &world.addresses())
}

/// Those of whom some are in each step of a release with this salt.
fn known(world: &World, salt: &str) -> Crowd {
    Crowd::gather(&uids("known", salt, &PARTS), &world.addresses())
}

fn wait_for_all(crowds: &[Crowd; 2]) {
    crowds.iter().for_each(Crowd::wait_for_all);
}

/// All answers were right, and for each of these states there were clients for whom nothing else was.
#[track_caller]
fn check_answers(outcome: &Outcome, what: &str) {
    let Outcome {
        answers,
        judged,
        violations,
        failures,
    } = outcome;
    let clear: Vec<usize> = judged.values().map(BTreeSet::len).collect();
    println!("{what}: {answers} answers, {failures} of them failures; clients judged: {clear:?}");
    let some = &violations[..violations.len().min(5)];
    let count = violations.len();
    assert!(count == 0, "{what}: {count} of {answers}: {some:#?}");
}

/// What the history says of the lists: who, by which verb, and which shares have gone and come.
#[track_caller]
fn told(world: &World) -> Vec<[String; 3]> {
    let word = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    let shares = |it: &Value| {
        let lines = it["difference"].as_array().unwrap().iter();
        let lines = lines.filter_map(|it| it.as_str()?.split_once("gray percent:"));
        let shares = lines.map(|(sign, it)| format!("{sign}{}", it.split(':').next().unwrap()));
        shares.collect::<Vec<_>>().join(" ")
    };
    let all = world.history();
    all.iter()
        .map(|it| [word(it, "by"), word(it, "verb"), shares(it)])
        .collect()
}

/// The messages of this kind.
fn of_kind<'a>(messages: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let own = messages.iter().filter(|it| it["event"] == kind);
    own.collect()
}

/// What several gateways find, one of them tells: once for each release.
#[track_caller]
fn check_told_once(messages: &[Value]) {
    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    for message in messages {
        if let Some(release) = message["release"].as_str() {
            let kind = message["event"].as_str().unwrap().to_owned();
            *told.entry((release.to_owned(), kind)).or_default() += 1;
        }
    }
    assert!(told.values().all(|it| *it == 1), "{messages:#?}");
}

/// `graygate explain` knows of each of them what the test has computed.
#[track_caller]
fn check_explained(world: &World, salt: &str, share: u64) {
    let parts = [(2, 0..share), (2, share..10_000)];
    for uid in uids("explained", salt, &parts) {
        let cookie = format!("uid={uid}");
        let page = world.json(&["explain", "127.0.0.1", "--cookie", &cookie]);
        let pool = if bucket(salt, &uid) < share {
            "pre"
        } else {
            "prod"
        };
        assert_eq!(page["pool"], pool, "{uid}: {page}");
    }
}

#[test]
fn a_bad_release_takes_itself_back_from_a_quarter_of_the_clients() {
    let world = World::new();
    let words = "stage 1% --by-cookie uid --by ann --reason 1.7 --wait";
    world.done(&words.split(' ').collect::<Vec<_>>());
    let salt = world.salt();
    let crowds = [anybody(&world), known(&world, &salt)];
    wait_for_all(&crowds);
    let words = "rollout start --steps 1,5,25,50,100 --every 2s --by ann --reason quiet";
    world.done(&words.split(' ').collect::<Vec<_>>());
    world.wait_stored("5%", STEP, |it| it.lists.share() == 500);
    world.wait_in_force();
    check_explained(&world, &salt, 500);
    world.wait_stored("25%", STEP, |it| it.lists.share() == 2_500);
    world.wait_in_force();
    let defect = world.break_new_version();
    world.wait_stored("it is taken back", STEP, |it| it.is_tripped);
    println!("taken back after {:?}", defect.elapsed());
    world.wait_tripped(SOON);
    world.wait_stored("nobody is gray", STEP, |it| it.lists.share() == 0);
    world.wait_in_force();
    wait_for_all(&crowds);
    let asked = world.asked("new");
    wait_for_all(&crowds);
    assert_eq!(
        world.asked("new"),
        asked,
        "it is asked, though it was taken back"
    );

    let answers: Vec<_> = crowds.into_iter().flat_map(Crowd::dismiss).collect();
    let (gateways, store) = (world.timelines(), world.store.timeline());
    let steps = fleet::check(&gateways, &store);
    assert_eq!(shares(&steps), [0, 100, 500, 2_500, 0]);
    let model = Model {
        salt: &salt,
        servers: &world.servers(),
        gateways: &gateways,
        defect: Some(defect),
    };
    let outcome = model.judge(&answers);
    check_answers(&outcome, "by what each gateway had");
    assert!(outcome.failures > 0 && outcome.answers > 10 * CLIENTS);
    // In the end, and while the first steps held, everybody was judged, on some gateway.
    for share in [100, 500, 0] {
        assert_eq!(
            outcome.judged_at(&gateways, share).len(),
            CLIENTS,
            "{share}"
        );
    }

    let trip = world.redis.cli(&["GET", "graygate:tripped"]);
    let trip: String = redis::from_redis_value(trip).unwrap();
    let trip: Value = serde_json::from_str(&trip).unwrap();
    let aborted = "the release in pre was taken back";
    let history = world.history();
    let of_verb = |verb: &str| history.iter().find(|it| it["verb"] == verb).unwrap();
    let rollback = of_verb("rollback");
    let leader = rollback["by"].as_str().unwrap();
    assert!(leader.starts_with("gw-"), "{leader}");
    let (by, at) = (trip["by"].as_str().unwrap(), trip["at"].as_str().unwrap());
    let expected = [
        ["ann", "stage", "+ 1"],
        ["ann", "rollout", ""],
        ["ann", "rollout", "- 1 + 5"],
        ["ann", "rollout", "- 5 + 25"],
        [leader, "rollback", "- 25"],
    ];
    // Who has taken it back is there as well; whoever leads need not have waited for that.
    let (trips, others): (Vec<_>, Vec<_>) =
        told(&world).into_iter().partition(|it| it[1] == "trip");
    assert_eq!(others, expected);
    assert_eq!(trips, [[by, "trip", ""]]);
    assert_eq!(
        [&history[0]["reason"], &history[1]["reason"]],
        ["1.7", "quiet"]
    );
    let why = format!("rollout: aborted: {aborted} at {at} by {by}: worse; carried on by {leader}");
    assert_eq!(rollback["reason"], why);
    let table = world.done(&["history"]);
    assert!(table.lines().all(|it| it.chars().count() < 210), "{table}");
    let status = world.done(&["rollout", "status"]);
    let lines: Vec<&str> = status.lines().collect();
    assert!(
        lines[0].starts_with("aborted since ") && lines[0].ends_with("step 3 of 5 (25%)"),
        "{status}"
    );
    assert!(lines[1].starts_with(aborted), "{status}");

    let messages = world.messages();
    check_told_once(&messages);
    let [message] = of_kind(&messages, "tripped")[..] else {
        panic!("{messages:#?}");
    };
    for name in ["by", "at", "release", "numbers"] {
        assert_eq!(message[name], trip[name], "{name}");
    }
    assert_eq!(of_kind(&messages, "rolled-back").len(), 1, "{messages:#?}");
    let status = world.done(&["status"]);
    assert!(
        status.contains("TRIPPED     pre was taken back at "),
        "{status}"
    );
    let counted = trip["numbers"]["text"].as_str().unwrap();
    let said = format!(
        "taken back: everybody gets the old version; {counted}\ntaken back at {at} by {by}: worse; "
    );
    for gateway in &world.gateways {
        let output = Commands::of(&gateway.path("graygate.ini")).run(&["verdict"]);
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(found.starts_with(&said), "{found}");
    }
    let refused = world.refused(&["stage", "5%"]);
    assert!(refused.contains(aborted), "{refused}");

    // The next version is another release, of which nobody holds that against it.
    world.replace_pre("mended");
    world.done(&["stage", "5%", "--by", "bob", "--wait"]);
    let next = world.salt();
    assert_ne!(next, salt);
    let crowd = known(&world, &next);
    crowd.wait_for_all();
    let answers = crowd.dismiss();
    let model = Model {
        salt: &next,
        servers: &world.servers(),
        gateways: &world.timelines(),
        defect: None,
    };
    let outcome = model.judge(&answers);
    check_answers(&outcome, "the next version");
    assert!(world.asked("mended") > 0);
    assert_eq!(world.asked("new"), asked);
}

#[test]
fn a_good_release_reaches_everybody_and_can_still_be_taken_back() {
    let world = World::new();
    let [old, new] = ["old", "new"].map(|it| world.version(it));
    let anybody = anybody(&world);
    anybody.wait_for_all();
    let words = "rollout start --steps 1,25,100 --every 1s --by-cookie uid --promote --by ann";
    world.done(&words.split(' ').chain(["--yes"]).collect::<Vec<_>>());
    let salt = world.salt();
    let crowds = [anybody, known(&world, &salt)];
    let is_promoted = |it: &story::world::StoreSeen| it.lists.prod == new;
    world.wait_stored("it is promoted", 3 * STEP, is_promoted);
    world.wait_in_force();
    wait_for_all(&crowds);
    let asked = world.asked("old");
    wait_for_all(&crowds);
    assert_eq!(world.asked("old"), asked, "the old version is asked");
    // What was there before: everybody has the new version as a share of everybody.
    world.done(&["undo", "--yes", "--wait", "--by", "bob"]);
    world.wait_in_force();
    wait_for_all(&crowds);
    assert_eq!(world.asked("old"), asked, "the old version is asked");
    world.done(&["rollback", "--yes", "--wait", "--by", "bob"]);
    world.wait_in_force();
    wait_for_all(&crowds);
    // By hand: a quarter, then everybody, then nobody.
    for verb in ["stage 25%", "promote --yes", "rollback --yes"] {
        let words = verb.split(' ').chain(["--wait", "--by", "bob"]);
        world.done(&words.collect::<Vec<_>>());
        world.wait_in_force();
        wait_for_all(&crowds);
    }
    let asked = world.asked("new");
    wait_for_all(&crowds);
    assert_eq!(world.asked("new"), asked, "the new version is asked");

    let answers: Vec<_> = crowds.into_iter().flat_map(Crowd::dismiss).collect();
    let (gateways, store) = (world.timelines(), world.store.timeline());
    let steps = fleet::check(&gateways, &store);
    let expected = [0, 100, 2_500, 10_000, 0, 10_000, 0, 2_500, 0, 0];
    assert_eq!(shares(&steps), expected);
    let prods: Vec<bool> = steps.iter().map(|it| it.seen.prod == new).collect();
    assert_eq!(
        prods,
        [
            false, false, false, false, true, false, false, false, true, false
        ]
    );
    assert_eq!((&steps[9].seen.prod, &steps[9].seen.pre), (&old, &new));
    let servers = world.servers();
    let by_gateways = Model {
        salt: &salt,
        servers: &servers,
        gateways: &gateways,
        defect: None,
    };
    let outcome = by_gateways.judge(&answers);
    check_answers(&outcome, "by what each gateway had");
    assert!(outcome.failures == 0 && outcome.answers > 15 * CLIENTS);
    // Nothing of a change is in force alone, as far as clients can tell.
    let whole = fleet::whole(&gateways, &steps);
    let by_changes = Model {
        gateways: &whole,
        ..by_gateways
    };
    let outcome = by_changes.judge(&answers);
    check_answers(&outcome, "by whole changes");
    let last = steps.len() - 1;
    let judged: BTreeSet<&String> = outcome
        .judged
        .iter()
        .filter(|((_, at), _)| *at == last)
        .flat_map(|(_, it)| it)
        .collect();
    assert_eq!(judged.len(), CLIENTS);

    // What a verb has confirmed is nobody's trouble.
    for gateway in &world.gateways {
        assert_eq!(gateway.stderr.count("change-held"), 0);
    }
    let salts: BTreeSet<_> = store.iter().filter_map(|it| it.seen.salt.clone()).collect();
    assert_eq!(salts, BTreeSet::from([salt.clone()]));
    let expected = [
        ["ann", "rollout", "+ 1"],
        ["ann", "rollout", "- 1 + 25"],
        ["ann", "rollout", "- 25 + 100"],
        ["ann", "promote", "- 100"],
        ["bob", "undo", "+ 100"],
        ["bob", "rollback", "- 100"],
        ["bob", "stage", "+ 25"],
        ["bob", "promote", "- 25"],
        ["bob", "rollback", ""],
    ];
    assert_eq!(told(&world), expected);
    let history = world.history();
    for (earlier, later) in history.iter().zip(&history[1..]) {
        assert_eq!(earlier["after"], later["before"]);
    }
    let messages = world.messages();
    check_told_once(&messages);
    assert_eq!(of_kind(&messages, "promoted").len(), 2, "{messages:#?}");
    assert_eq!(of_kind(&messages, "rolled-back").len(), 2, "{messages:#?}");
    for kind in ["suspect", "worse", "tripped"] {
        assert!(of_kind(&messages, kind).is_empty(), "{messages:#?}");
    }
}
