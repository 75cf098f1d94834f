//! What is in the history besides what verbs have done: lists that somebody has changed by hand, noted by
//! whichever gateway sees that first, once; and versions that were taken back.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;
use support::{Commands, DEADLINE, FileSite, Gateway, Origin, Redis, Setup, poll, wait_until};

/// Longer than a gateway waits for more before it notes a change.
const NOTED: Duration = Duration::from_millis(3500);

const KEY: &str = "graygate:history";

/// A Redis with lists, and gateways on it.
struct Fleet {
    redis: Redis,
    gateways: Vec<Gateway>,
    _origins: (Origin, Origin),
}

impl Fleet {
    #[track_caller]
    fn of(count: usize) -> Self {
        Self::with(count, |setup, _| setup)
    }

    /// With other settings, which the Redis may be prepared for.
    #[track_caller]
    fn with(count: usize, edit: impl Fn(Setup, &Redis) -> Setup) -> Self {
        let redis = Redis::start();
        let (pre, prod) = Origin::pre_and_prod();
        redis.push_peers(&pre, &prod);
        redis.push("gray", &[&"127.0.0.5"]);
        let start = |number| {
            let setup = Setup::new().redis(redis.url());
            let setup = setup.set("redis.node", format!("gw-{number}"));
            let gateway = edit(setup, &redis).start();
            gateway.wait_for_lists("the lists", |it| it["generation"] != 0);
            gateway
        };
        Self {
            gateways: (0..count).map(start).collect(),
            redis,
            _origins: (pre, prod),
        }
    }

    fn desk(&self) -> Desk {
        Desk::of(&self.gateways[0])
    }

    /// How often the last record was asked for.
    #[track_caller]
    fn looks(&self) -> u64 {
        let info = self.redis.cli(&["INFO", "commandstats"]);
        let info: String = redis::from_redis_value(info).unwrap();
        let calls = info.split("cmdstat_xrevrange:calls=").nth(1);
        let calls = calls.map(|it| it.split(',').next().unwrap());
        calls.map_or(0, |it| it.parse().unwrap())
    }

    /// So many records there are.
    #[track_caller]
    fn records(&self) -> i64 {
        redis::from_redis_value(self.redis.cli(&["XLEN", KEY])).unwrap()
    }

    /// Waits until every gateway has looked at the history after this was done.
    #[track_caller]
    fn after(&self, act: impl FnOnce()) {
        let before = self.looks();
        act();
        let all = before + self.gateways.len() as u64;
        wait_until("every gateway looks", DEADLINE, || self.looks() >= all);
        std::thread::sleep(Duration::from_millis(500));
    }

    /// Waits until every gateway has so many gray entries.
    #[track_caller]
    fn wait_for_gray(&self, count: usize) {
        for gateway in &self.gateways {
            gateway.wait_for_lists("so many entries", |it| {
                it["gray"].as_array().is_some_and(|all| all.len() == count)
            });
        }
    }

    #[track_caller]
    fn gray(&self) -> Vec<String> {
        redis::from_redis_value(self.redis.cli(&["LRANGE", "gray", "0", "-1"])).unwrap()
    }
}

/// Where verbs are said.
struct Desk(Commands);

impl Deref for Desk {
    type Target = Commands;

    fn deref(&self) -> &Commands {
        &self.0
    }
}

impl Desk {
    fn of(gateway: &Gateway) -> Self {
        Self(Commands::of(&gateway.path("graygate.ini")))
    }

    #[track_caller]
    fn history(&self) -> Vec<Value> {
        self.records(&[])
    }

    /// The verbs, the earliest first.
    #[track_caller]
    fn verbs(&self) -> Vec<String> {
        let all = self.history();
        let verbs = all.iter().rev().map(|it| it["verb"].as_str().unwrap());
        verbs.map(str::to_owned).collect()
    }

    /// Waits for the record of this number.
    #[track_caller]
    fn wait_for(&self, number: u64) -> Value {
        let found = || {
            let all = self.history();
            all.into_iter().find(|it| it["number"] == number)
        };
        poll(DEADLINE, found).unwrap_or_else(|| panic!("no record {number}"))
    }
}

#[test]
fn of_three_gateways_one_notes_what_was_changed_by_hand_and_it_can_be_taken_back() {
    let fleet = Fleet::of(3);
    let desk = fleet.desk();
    // Without a verb before it.
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.1"]));
    assert_eq!(fleet.records(), 1);
    let first = desk.wait_for(1);
    assert_eq!(
        (&first["verb"], &first["by"], &first["difference"][0]),
        (&"by-hand".into(), &"".into(), &"+ gray 10.0.0.1".into())
    );
    assert_eq!(first["after"], fleet.gateways[0].lists()["digest"]);
    assert_ne!(first["before"], first["after"]);
    let table = desk.done(&["history"]);
    assert!(table.contains(" -   by-hand  "), "{table}");
    // What verbs do is theirs, however quickly they follow each other.
    fleet.after(|| {
        for client in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            desk.done(&["admit", client, "--no-wait"]);
        }
    });
    assert_eq!(desk.verbs(), ["by-hand", "admit", "admit", "admit"]);
    // And what comes between them is not.
    fleet.after(|| {
        desk.done(&["admit", "10.0.0.5", "--no-wait"]);
        fleet.wait_for_gray(6);
        fleet.redis.cli(&["LREM", "gray", "0", "10.0.0.2"]);
    });
    let last = desk.wait_for(6);
    assert_eq!(last["difference"], serde_json::json!(["- gray 10.0.0.2"]));
    assert_eq!(fleet.records(), 6);
    assert_eq!(last["before"], desk.wait_for(5)["after"]);
    // The last change by anybody, if nothing came after.
    let said = desk.done(&["undo"]);
    assert!(said.contains("+ gray 10.0.0.2"), "{said}");
    fleet.wait_for_gray(6);
    fleet.redis.push("gray", &[&"10.0.0.9"]);
    let why = desk.refused(&["undo"]);
    assert!(why.contains("changed by hand after change 7"), "{why}");
    desk.wait_for(8);
    desk.done(&["rollback", "--to", "6", "--yes"]);
    assert_eq!(
        fleet.gray(),
        [
            "127.0.0.5",
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.3",
            "10.0.0.4",
            "10.0.0.5"
        ]
    );
    desk.done(&["rollback", "--to", "1", "--yes"]);
    assert_eq!(fleet.gray(), ["127.0.0.5"]);
    for gateway in &fleet.gateways {
        assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    }
}

/// The commands of the server until the history is written.
#[track_caller]
fn commands_until_noted(redis: &Redis, change: impl FnOnce()) -> Vec<[String; 2]> {
    let mut monitor = redis.connect(0);
    redis::cmd("MONITOR").exec(&mut monitor).unwrap();
    monitor.set_read_timeout(Some(DEADLINE)).unwrap();
    change();
    let mut all = Vec::new();
    loop {
        let line: String = redis::from_redis_value(monitor.recv_response().unwrap()).unwrap();
        // `1764400000.1 [0 127.0.0.1:1] "XADD" "graygate:history" "*"`
        let (place, command) = line.split_once("] ").unwrap_or_default();
        let place = place.rsplit(' ').next().unwrap_or_default();
        let is_written = command.starts_with("\"XADD\"");
        all.push([place, command].map(str::to_owned));
        if is_written {
            return all;
        }
    }
}

#[test]
fn a_list_that_is_too_long_to_be_remembered_is_not_read_again_for_the_history() {
    let fleet = Fleet::with(3, |setup, redis| {
        if redis.cli(&["LLEN", "gray"]) == redis::Value::Int(1) {
            let entry = |it: i32| format!("10.7.{}.{}", it / 250, it % 250);
            let entries: Vec<String> = (0..9000).map(entry).collect();
            let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
            redis.push("gray", &entries);
        }
        setup
    });
    let desk = fleet.desk();
    for (number, command, counts) in [
        (1, "RPUSH gray 10.8.0.1", [9001, 9002]),
        (2, "LREM gray 0 10.8.0.1", [9002, 9001]),
    ] {
        let before = fleet.gateways[0].lists()["digest"].clone();
        let command: Vec<&str> = command.split(' ').collect();
        let all = commands_until_noted(&fleet.redis, || drop(fleet.redis.cli(&command)));
        let places = |is: &dyn Fn(&str) -> bool| {
            let those = all.iter().filter(|[_, command]| is(command));
            let places = those.map(|[place, _]| place.as_str());
            places.collect::<HashSet<_>>()
        };
        let notes = places(&|it| it.starts_with("\"WATCH\"") && it.contains(KEY));
        let reads = places(&|it| it == "\"LRANGE\" \"gray\" \"0\" \"-1\"");
        assert!(!notes.is_empty() && !reads.is_empty(), "{all:?}");
        assert!(notes.is_disjoint(&reads), "{all:?}");
        let record = desk.wait_for(number);
        let [gone, come] = counts;
        let difference = [
            format!("- gray of {gone} entries"),
            format!("+ gray of {come} entries"),
        ];
        assert_eq!(record["difference"], serde_json::json!(difference));
        let after = &fleet.gateways[0].lists()["digest"];
        assert_eq!([&record["before"], &record["after"]], [&before, after]);
    }
}

#[test]
fn what_a_script_pushes_entry_by_entry_is_one_change() {
    let fleet = Fleet::of(2);
    fleet.after(|| {
        let mut connection = fleet.redis.connect(0);
        for part in 0..10 {
            let mut pipe = redis::pipe();
            for it in 0..1000 {
                let client = format!("10.{part}.{}.{}", it / 250, it % 250);
                pipe.cmd("RPUSH").arg("gray").arg(client).ignore();
            }
            pipe.exec(&mut connection).unwrap();
            // It has something else to do, too.
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    std::thread::sleep(NOTED);
    let all = fleet.desk().history();
    assert_eq!(all.len(), 1, "{all:?}");
    let lines = all[0]["difference"].as_array().unwrap();
    assert_eq!(lines.len(), 21);
    assert_eq!(lines[20], "+ gray … and 9980 more");
    // It is taken back in one step, too.
    fleet.desk().done(&["undo", "--yes"]);
    assert_eq!(fleet.gray(), ["127.0.0.5"]);
}

#[test]
fn a_history_that_is_none_is_named_and_none_of_its_changes_are_nothing() {
    let fleet = Fleet::of(1);
    let desk = fleet.desk();
    assert_eq!(desk.done(&["history"]), "the history is empty\n");
    let none = desk.run(&["history", "--last", "0"]);
    let why = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(2), "{why}");
    assert!(
        why.contains("--last") && why.contains("at least 1"),
        "{why}"
    );
    fleet.redis.cli(&["SET", "graygate:history", "x"]);
    for words in [&["history"][..], &["admit", "127.0.0.9"]] {
        let why = desk.refused(words);
        let named = "graygate:history must be a stream, but is something else; rename or delete it";
        assert!(why.contains(named), "{why}");
    }
    // A gateway that would note a change by hand says so, too, and once.
    fleet.redis.push("gray", &[&"127.0.0.6"]);
    let line = fleet.gateways[0].wait_for_log("history-refused");
    assert!(line.contains("must be a stream"), "{line}");
    std::thread::sleep(NOTED);
    assert_eq!(fleet.gateways[0].stderr.count("history-refused"), 1);
}

#[test]
fn who_may_not_write_the_history_says_so_once_and_serves_as_ever() {
    // As a gateway without a verdict needs them.
    let fleet = Fleet::with(1, |setup, redis| {
        redis.cli(&[
            "ACL",
            "SETUSER",
            "gateway",
            "on",
            ">password",
            "~gray",
            "~pre",
            "~prod",
            "&*",
            "+get",
            "+lrange",
            "+smembers",
            "+type",
            "+watch",
            "+multi",
            "+exec",
            "+ping",
            "+subscribe",
            "+role",
            "+info",
            "+config|get",
            "+config|set",
        ]);
        let url = format!("redis://gateway:password@{}/0", redis.address());
        let setup = setup.redis(url).set("redis.heartbeat", "off");
        setup.set("verdict.mode", "off")
    });
    let (gateway, redis) = (&fleet.gateways[0], &fleet.redis);
    let log_of_acl =
        || -> Vec<redis::Value> { redis::from_redis_value(redis.cli(&["ACL", "LOG"])).unwrap() };
    assert!(log_of_acl().is_empty(), "nothing is asked for that was not");
    redis.push("gray", &[&"127.0.0.6"]);
    let line = gateway.wait_for_log("history-refused");
    assert!(line.contains(" INFO ") && line.contains("NOPERM"), "{line}");
    redis.push("gray", &[&"127.0.0.7"]);
    gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    std::thread::sleep(NOTED);
    assert_eq!(gateway.stderr.count("history-refused"), 1);
    let warns = |it: &String| it.contains(" WARN ") || it.contains(" ERROR ");
    let said = gateway.stderr.all();
    // Of the machine, perhaps.
    let of_it = said.iter().filter(|it| !it.contains("descriptors-short"));
    assert!(!of_it.into_iter().any(warns), "{said:?}");
    assert_eq!(redis.cli(&["EXISTS", KEY]), redis::Value::Int(0));
}

#[test]
fn a_gateway_without_a_verdict_notes_it_too_and_a_frozen_one() {
    let fleet = Fleet::with(1, |setup, _| setup.set("verdict.mode", "off"));
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.1"]));
    assert_eq!(fleet.desk().verbs(), ["by-hand"]);
    let fleet = Fleet::of(1);
    let desk = fleet.desk();
    desk.done(&["freeze"]);
    fleet.gateways[0].wait_for_log("frozen");
    let before = fleet.gateways[0].lists()["digest"].clone();
    fleet.redis.push("gray", &[&"10.0.0.1"]);
    let record = desk.wait_for(2);
    assert_eq!(record["verb"], "by-hand");
    assert_eq!(record["before"], before);
    // What is in the store, not what is in force.
    assert_eq!(fleet.gateways[0].lists()["digest"], before);
    assert_ne!(record["after"], before);
}

#[test]
fn another_salt_is_noted_and_taken_back() {
    let fleet = Fleet::of(1);
    let desk = fleet.desk();
    desk.done(&["stage", "5%", "--no-wait"]);
    let salt = fleet.redis.cli(&["GET", "graygate:salt"]);
    fleet.wait_for_gray(2);
    fleet.redis.cli(&["SET", "graygate:salt", "mine"]);
    let record = desk.wait_for(2);
    assert_eq!(
        record["difference"],
        serde_json::json!(["+ salt another one"])
    );
    desk.done(&["undo", "--yes"]);
    assert_eq!(fleet.redis.cli(&["GET", "graygate:salt"]), salt);
}

#[test]
fn what_a_server_has_lost_was_removed_by_nobody() {
    let mut fleet = Fleet::of(2);
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.1"]));
    assert_eq!(fleet.records(), 1);
    let (pre, prod) = (
        fleet.redis.cli(&["LRANGE", "pre", "0", "-1"]),
        fleet.redis.cli(&["LRANGE", "prod", "0", "-1"]),
    );
    let text = |it| {
        redis::from_redis_value::<Vec<String>>(it)
            .unwrap()
            .remove(0)
    };
    let (pre, prod) = (text(pre), text(prod));
    let fill = |redis: &Redis| {
        redis.push_peers(&pre, &prod);
        redis.push("gray", &[&"127.0.0.5", &"10.0.0.77"]);
    };
    // By a person, or a script that begins anew.
    fleet.after(|| {
        fleet.redis.cli(&["FLUSHALL"]);
    });
    assert_eq!(fleet.records(), 0);
    fleet.after(|| fill(&fleet.redis));
    assert_eq!(fleet.records(), 0);
    // By a restart.
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.2"]));
    assert_eq!(fleet.records(), 1);
    fleet.redis.kill();
    fleet.redis.restart();
    fleet.redis.cli(&["FLUSHALL"]);
    std::thread::sleep(NOTED);
    assert_eq!(fleet.records(), 0);
    fill(&fleet.redis);
    std::thread::sleep(NOTED);
    assert_eq!(fleet.records(), 0);
    // From then on, it is as before.
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.3"]));
    assert_eq!(fleet.records(), 1);
}

#[test]
fn a_shared_gray_list_is_in_the_history_of_its_owner_alone() {
    let fleet = Fleet::with(1, |setup, redis| {
        redis.push("shop:pre", &[&"127.0.2.1"]);
        redis.push("shop:prod", &[&"127.0.2.2"]);
        let setup = setup.set("service shop.hosts", "shop.example");
        setup.set("service shop.gray", "default")
    });
    let desk = fleet.desk();
    desk.done(&["stage", "5%", "--no-wait"]);
    fleet.wait_for_gray(2);
    fleet.after(|| fleet.redis.push("gray", &[&"10.0.0.1"]));
    assert_eq!(desk.verbs(), ["stage", "by-hand"]);
    assert!(desk.records(&["--service", "shop"]).is_empty());
    fleet.after(|| fleet.redis.push("shop:prod", &[&"127.0.2.3"]));
    let all = desk.records(&["--service", "shop"]);
    assert_eq!(all.len(), 1);
    assert_eq!(
        all[0]["difference"],
        serde_json::json!(["+ prod 127.0.2.3"])
    );
    assert_eq!(desk.verbs(), ["stage", "by-hand"]);
}

#[test]
fn an_edited_lists_file_is_noted_beside_it() {
    let site = FileSite::with(&["127.0.0.5"], |it| it);
    let desk = Desk::of(&site.gateway);
    desk.done(&["admit", "10.0.0.1", "--no-wait"]);
    site.gateway
        .wait_for_lists("the first", |it| it["gray"].as_array().unwrap().len() == 2);
    site.gateway
        .write_lists_text(&site.text("127.0.0.5\n10.0.0.2"));
    let record = desk.wait_for(2);
    assert_eq!(record["verb"], "by-hand");
    assert_eq!(
        record["difference"],
        serde_json::json!(["- gray 10.0.0.1", "+ gray 10.0.0.2"])
    );
    desk.done(&["undo", "--yes"]);
    let text = std::fs::read_to_string(site.file()).unwrap();
    assert!(
        text.contains("10.0.0.1") && !text.contains("10.0.0.2"),
        "{text}"
    );
    std::thread::sleep(NOTED);
    assert_eq!(desk.verbs(), ["admit", "by-hand", "undo"]);
}

/// Has the gateway find that `pre` fails, for clients of 10.1.0.0/16.
#[track_caller]
fn let_fail(gateway: &Gateway) {
    let mut client = gateway.connect();
    let mut number = 0;
    wait_until("it is taken back", DEADLINE, || {
        for _ in 0..20 {
            number += 1;
            for net in [1, 2] {
                let of = format!("10.{net}.{}.{}", number / 250, number % 250 + 1);
                let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {of}\r\n\r\n");
                client.ask(head);
            }
        }
        !gateway.lists()["tripped"].is_null()
    });
}

/// A server that fails.
fn failing() -> Origin {
    Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
}

fn judging(setup: Setup) -> Setup {
    let setup = setup.set("gateway.trusted_proxies", "127.0.0.0/8");
    let setup = setup.set("upstream.max_fails", 0);
    setup.set("verdict.mode", "enforce")
}

#[test]
fn of_gateways_that_take_a_version_back_at_once_one_is_in_the_history_however_late() {
    let mut redis = Redis::start();
    let (pre, prod) = (failing(), Origin::named("prod"));
    let fill = |redis: &Redis| {
        redis.push_peers(&pre, &prod);
        redis.push("gray", &[&"10.1.0.0/16"]);
    };
    fill(&redis);
    let start = |name| {
        let setup = Setup::new().redis(redis.url()).set("redis.node", name);
        let gateway = judging(setup).start();
        gateway.wait_for_lists("the lists", |it| it["generation"] != 0);
        gateway
    };
    let gateways = ["gw-1", "gw-2"].map(start);
    redis.kill();
    let mut trips = Vec::new();
    for gateway in &gateways {
        gateway.wait_for_log("lists-unreadable");
        let_fail(gateway);
        trips.push(gateway.lists()["tripped"].clone());
    }
    redis.restart();
    fill(&redis);
    for gateway in &gateways {
        gateway.wait_for_lists("that the store has it", |it| {
            it["tripped"]["stored"] == true
        });
    }
    let desk = Desk::of(&gateways[0]);
    let record = desk.wait_for(1);
    assert_eq!(desk.verbs(), ["trip"]);
    let key: String = redis::from_redis_value(redis.cli(&["GET", "graygate:tripped"])).unwrap();
    let key: Value = serde_json::from_str(&key).unwrap();
    assert_eq!((&record["by"], &record["at"]), (&key["by"], &key["at"]));
    let is_it = |it: &Value| it["at"] == record["at"];
    assert!(
        trips.iter().any(is_it),
        "it is from when the store was away"
    );
    assert_eq!(record["reason"], key["why"]);
    let lines = record["difference"].as_array().unwrap();
    assert_eq!(
        lines[0],
        format!("+ tripped {}", key["pre"].as_str().unwrap())
    );
    assert!(
        lines[1].as_str().unwrap().ends_with("pre is worse"),
        "{lines:?}"
    );
    assert_eq!(record["before"], record["after"]);
    desk.done(&["verdict", "reset", "--by", "ann", "--no-wait"]);
    assert_eq!(desk.verbs(), ["trip", "reset"]);
    // It stands in the way of nothing.
    desk.done(&["admit", "10.3.0.1", "--no-wait"]);
    desk.done(&["rollback", "--to", "1", "--yes", "--no-wait"]);
    let gray = redis.cli(&["LRANGE", "gray", "0", "-1"]);
    let gray: Vec<String> = redis::from_redis_value(gray).unwrap();
    assert_eq!(gray, ["10.1.0.0/16"]);
}

#[test]
fn a_trip_needs_no_right_to_the_history() {
    let redis = Redis::start();
    let (pre, prod) = (failing(), Origin::named("prod"));
    redis.push_peers(&pre, &prod);
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.cli(&[
        "ACL",
        "SETUSER",
        "gateway",
        "on",
        ">password",
        "~*",
        "&*",
        "+@all",
        "-xadd",
    ]);
    let url = format!("redis://gateway:password@{}/0", redis.address());
    let gateway = judging(Setup::new().redis(url)).start();
    let_fail(&gateway);
    gateway.wait_for_log("trip-written");
    let line = gateway.wait_for_log("history-refused");
    assert!(line.contains("xadd"), "{line}");
    assert_eq!(redis.cli(&["EXISTS", KEY]), redis::Value::Int(0));
    assert_eq!(
        redis.cli(&["EXISTS", "graygate:tripped"]),
        redis::Value::Int(1)
    );
}

#[test]
fn a_trip_beside_a_lists_file_is_in_its_history() {
    let (pre, prod) = (failing(), Origin::named("prod"));
    let setup = judging(Setup::new().lists(&["10.1.0.0/16"], &[&pre], &[&prod]));
    let gateway = setup.start();
    let_fail(&gateway);
    let desk = Desk::of(&gateway);
    let record = desk.wait_for(1);
    assert_eq!(record["verb"], "trip");
    assert_eq!(record["after"], gateway.lists()["digest"]);
    desk.done(&["verdict", "reset"]);
    assert_eq!(desk.verbs(), ["trip", "reset"]);
}
