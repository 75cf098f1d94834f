//! The verbs of a release on a real Redis: what each of them does there and to the answers of gateways, and
//! what it refuses.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    Cluster, Commands, DEADLINE, Gateway, Origin, Redis, RefusingPeer, Relay, Setup, Site,
    wait_for, wait_until,
};

/// Where verbs are said: a Redis, and an ini file that names it.
struct Desk {
    setup: Setup,
    commands: Commands,
}

impl Deref for Desk {
    type Target = Commands;

    fn deref(&self) -> &Commands {
        &self.commands
    }
}

impl Desk {
    fn with(setup: Setup) -> Self {
        let commands = Commands::of(&setup.write_ini());
        Self { setup, commands }
    }

    /// Without a gateway that could be asked.
    fn of(redis: &Redis) -> Self {
        Self::with(Setup::new().redis(redis.url()))
    }

    /// Beside this gateway.
    fn beside(gateway: &Gateway) -> Self {
        let ini = gateway.path("graygate.ini");
        let setup = Setup::new();
        // The gateway's own file says port 0.
        let text = std::fs::read_to_string(ini).unwrap();
        let socket = format!("socket = {}", gateway.path("admin.sock").display());
        let text = text.replace("socket = admin.sock", &socket);
        let setup = setup.file("desk.ini", &text);
        let commands = Commands::of(&setup.path("desk.ini"));
        Self { setup, commands }
    }

    fn spawn(&self, words: &[&str]) -> Child {
        self.spawn_in(&self.setup.path("."), words)
    }

    /// The history, the newest first.
    #[track_caller]
    fn history(&self) -> Vec<Value> {
        self.records(&[])
    }
}

#[track_caller]
fn texts(redis: &Redis, command: &[&str]) -> Vec<String> {
    redis::from_redis_value(redis.cli(command)).unwrap()
}

#[track_caller]
fn list(redis: &Redis, key: &str) -> Vec<String> {
    texts(redis, &["LRANGE", key, "0", "-1"])
}

#[track_caller]
fn text(redis: &Redis, key: &str) -> Option<String> {
    redis::from_redis_value(redis.cli(&["GET", key])).unwrap()
}

#[test]
fn each_verb_is_in_redis_in_the_answers_of_the_gateway_and_in_the_history() {
    let site = Site::with(|it| it.set("redis.heartbeat", "300ms"));
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let (pre, prod) = (list(redis, "pre"), list(redis, "prod"));

    let said = desk.done(&[
        "admit",
        "127.0.0.5",
        "cookie:uid=7",
        "--by",
        "ann",
        "--wait",
    ]);
    assert!(
        said.contains("+ gray 127.0.0.5\n+ gray cookie:uid=7\nchange 1: "),
        "{said}"
    );
    assert!(said.contains("the only gateway holds "), "{said}");
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
    desk.done(&["remove", "127.0.0.5/32", "--reason", "not he", "--wait"]);
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "prod");
    assert_eq!(list(redis, "gray"), ["cookie:uid=7"]);

    let staged = desk.json(&["stage", "5%", "--by-cookie", "uid"]);
    assert_eq!(staged["number"], 3);
    let salt = text(redis, "graygate:salt").unwrap();
    assert_eq!(salt.len(), 16);
    let state: Value = serde_json::from_str(&text(redis, "graygate:release").unwrap()).unwrap();
    assert_eq!(state["stage"]["share"], "percent:5:cookie:uid");
    assert_eq!(state["epoch"].as_str().unwrap().len(), 16);
    desk.done(&["stage", "10"]);
    assert_eq!(
        list(redis, "gray"),
        ["cookie:uid=7", "percent:10:cookie:uid"]
    );
    assert_eq!(text(redis, "graygate:salt"), Some(salt));
    let next: Value = serde_json::from_str(&text(redis, "graygate:release").unwrap()).unwrap();
    assert_ne!(next["epoch"], state["epoch"]);

    // Nothing is written, and what would be is said.
    let dry = desk.json(&["promote", "--dry-run", "--force"]);
    assert_eq!(
        (&dry["number"], &dry["dry_run"]),
        (&Value::Null, &true.into())
    );
    assert_eq!(list(redis, "prod"), prod);
    let holds = |digest: &Value| site.gateway.lists()["digest"] == *digest;
    wait_until("the gateway has the stage", DEADLINE, || {
        holds(&dry["before"])
    });
    let promote = || desk.run(&["promote", "--yes", "--wait", "--json"]);
    let promoted = wait_for("its heartbeat has it, too", || {
        let output = promote();
        output.status.success().then_some(output)
    });
    let promoted: Value = serde_json::from_slice(&promoted.stdout).unwrap();
    assert_eq!(promoted["after"], dry["after"]);
    assert!(holds(&dry["after"]));
    assert_eq!(
        (list(redis, "prod"), list(redis, "pre").len()),
        (pre.clone(), 0)
    );
    assert_eq!(site.gateway.get("127.0.0.9", "/").text(), "pre");

    // The share of the release is gone, too; who is listed by name gets pre as before.
    desk.done(&["rollback", "--yes", "--wait"]);
    assert_eq!(list(redis, "prod"), prod);
    assert_eq!(list(redis, "pre"), pre);
    assert_eq!(list(redis, "gray"), ["cookie:uid=7"]);
    assert_eq!(site.gateway.get("127.0.0.9", "/").text(), "prod");
    desk.done(&["rollback"]);
    assert!(list(redis, "gray").is_empty());
    desk.done(&["undo"]);
    assert_eq!(list(redis, "gray"), ["cookie:uid=7"]);
    desk.done(&["rollback", "--to", "2"]);
    assert_eq!(list(redis, "gray"), ["127.0.0.5", "cookie:uid=7"]);

    let history = desk.history();
    let verbs: Vec<&str> = history
        .iter()
        .map(|it| it["verb"].as_str().unwrap())
        .collect();
    let expected = [
        "rollback", "undo", "rollback", "rollback", "promote", "stage", "stage", "remove", "admit",
    ];
    assert_eq!(verbs, expected);
    assert_eq!(history[8]["by"], "ann");
    assert_eq!(history[7]["reason"], "not he");
    for (later, earlier) in history.iter().zip(&history[1..]) {
        assert_eq!(later["before"], earlier["after"]);
    }
    let shown = desk.done(&["history", "show", "2"]);
    assert!(shown.contains("- gray 127.0.0.5"), "{shown}");
    let table = desk.done(&["history"]);
    assert_eq!(table.lines().count(), 10, "{table}");
    assert!(
        desk.refused(&["history", "show", "99"])
            .contains("it has 1 to 9")
    );
}

#[test]
fn what_must_not_be_is_refused_and_nothing_changes() {
    let redis = Redis::start();
    redis.push("gray", &[&"10.0.0.0/8"]);
    redis.push("pre", &[&"127.0.2.1"]);
    redis.push("prod", &[&"127.0.2.2", &"127.0.2.3"]);
    let desk = Desk::of(&redis);
    let dump = || {
        (
            list(&redis, "gray"),
            list(&redis, "prod"),
            text(&redis, "graygate:release"),
        )
    };
    let before = dump();
    let tried = desk.run(&["stage", "100%", "--dry-run"]);
    let said = String::from_utf8(tried.stderr).unwrap();
    assert!(
        tried.status.success() && said.contains("to be confirmed: everybody gets pre"),
        "{said}"
    );
    for (words, said) in [
        (&["admit", "1.2.3.4", "1.2.3.256"][..], "from 0 to 255"),
        (&["remove", "10.1.1.1"], "it is gray by 10.0.0.0/8"),
        (&["remove", "10.0.0.0/8"], "gray is emptied; --yes"),
        (
            &["admit", "0.0.0.0/0"],
            "practically everybody becomes gray; --yes",
        ),
        (&["stage", "100%"], "everybody gets pre"),
        (&["stage", "101%"], "a share is a number"),
        (
            &["promote", "--force"],
            "many servers of prod go at once; --yes",
        ),
        (&["undo"], "nothing to undo"),
        (&["rollback", "--to", "3"], "it is empty"),
        (
            &["admit", "1.2.3.4", "--service", "shop"],
            "no service shop",
        ),
    ] {
        let why = desk.refused(words);
        assert!(why.contains(said), "{words:?}: {why}");
        assert_eq!(dump(), before, "{words:?}");
    }
    assert!(desk.history().is_empty());
    // What is meant is done, and the gateways are told that it is.
    desk.done(&["promote", "--force", "--yes"]);
    assert_eq!(list(&redis, "prod"), ["127.0.2.1"]);
    assert_eq!(texts(&redis, &["SMEMBERS", "graygate:accept"]).len(), 2);
    let left: i64 = redis::from_redis_value(redis.cli(&["TTL", "graygate:accept"])).unwrap();
    assert!((1..=60).contains(&left), "{left}");
    // Frozen: who, when and why.
    let said = desk.done(&["freeze", "--by", "bob", "--reason", "Christmas"]);
    assert!(
        said.contains(": the lists are ") && said.ends_with(", as before\n"),
        "{said}"
    );
    let why = desk.refused(&["rollback", "--yes"]);
    for word in ["by bob", "Christmas", "graygate thaw", "since 20"] {
        assert!(why.contains(word), "{why}");
    }
    desk.done(&["thaw"]);
    // Somebody has been at it by hand.
    redis.push("gray", &[&"1.1.1.1"]);
    assert!(
        desk.refused(&["undo"])
            .contains("changed by hand after change 1")
    );
    desk.done(&["admit", "2.2.2.2"]);
    let by_hand = &desk.history()[1];
    assert_eq!(by_hand["verb"], "by-hand");
    // A release that was taken back, and what is no state of a release.
    redis.push("pre", &[&"127.0.2.9"]);
    redis.cli(&["SET", "graygate:tripped", "by hand"]);
    assert!(desk.refused(&["stage", "5%"]).contains("was taken back"));
    redis.cli(&["SET", "graygate:release", "[]"]);
    assert!(
        desk.refused(&["admit", "3.3.3.3"])
            .contains("something else")
    );
    redis.cli(&["DEL", "graygate:release", "gray", "graygate:tripped"]);
    redis.push("graygate:tripped", &[&"x"]);
    assert!(
        desk.refused(&["admit", "3.3.3.3"])
            .contains("graygate:tripped must be a string")
    );
    redis.cli(&["DEL", "graygate:tripped"]);
    redis.cli(&["SET", "gray", "x"]);
    assert!(
        desk.refused(&["admit", "3.3.3.3"])
            .contains("neither a list nor a set")
    );
}

/// Changes the heartbeat of a gateway, as another one.
fn copy_heartbeat(redis: &Redis, of: &str, name: &str, edit: impl Fn(&mut Value)) {
    let told = text(redis, &format!("graygate:node:{of}")).unwrap();
    let mut told: Value = serde_json::from_str(&told).unwrap();
    told["node"] = name.into();
    edit(&mut told);
    let key = format!("graygate:node:{name}");
    redis.cli(&["SET", &key, &told.to_string(), "PX", "60000"]);
}

#[test]
fn gateways_are_waited_for_to_hear_of_a_freeze_a_thaw_and_a_reset() {
    let site = Site::with(|it| it.set("redis.heartbeat", "300ms").set("redis.node", "gw-a"));
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let other = Setup::new().redis(redis.url());
    // What is told at once is told at once.
    let other = other
        .set("redis.node", "gw-b")
        .set("redis.heartbeat", "10s");
    let other = other.start();
    other.wait_served("127.0.0.200", "prod", DEADLINE);
    let is_known = || text(redis, "graygate:node:gw-b").is_some();
    wait_until("it is known", DEADLINE, is_known);
    let said = desk.done(&["freeze", "--wait", "--reason", "Christmas"]);
    let frozen = "all 2 gateways have heard: the lists are frozen\n";
    assert!(said.ends_with(frozen), "{said}");
    let said = desk.json(&["thaw", "--wait"]);
    let thawed = "all 2 gateways have heard: the lists are not frozen";
    assert_eq!(said["in_force"], thawed);
    let said = desk.done(&["verdict", "reset", "--wait"]);
    assert!(
        said.contains("all 2 gateways have heard: the epoch "),
        "{said}"
    );
    desk.done(&["admit", "127.0.0.5", "--wait"]);
    // A gateway of before tells nothing of that.
    copy_heartbeat(redis, "gw-a", "old", |it| {
        let members = it.as_object_mut().unwrap();
        members.remove("release").unwrap();
        members.remove("pre").unwrap();
    });
    let said = desk.done(&["freeze", "--wait"]);
    let not_told = "2 gateways have heard: the lists are frozen; \
                    old does not say what it holds, and does not freeze if its verdict is off\n";
    assert!(said.ends_with(not_told), "{said}");
    redis.cli(&["DEL", "graygate:node:old"]);
    // Where there is nothing to change, gateways may still have something else.
    desk.done(&["thaw"]);
    desk.done(&["admit", "127.0.0.6", "--wait"]);
    other.signal(Signal::SIGSTOP);
    desk.done(&["rollback"]);
    let again = desk.run(&["rollback", "--wait", "--timeout", "1s"]);
    let why = String::from_utf8(again.stderr).unwrap();
    let lacks = "1 of 2 gateways hold";
    let nothing = "there was nothing to change; not within 1s: ";
    assert!(
        why.contains(nothing) && why.contains(lacks) && why.contains("gw-b"),
        "{why}"
    );
    assert_eq!(again.status.code(), Some(1));
    let again = desk.run(&["rollback", "--wait", "--timeout", "1s", "--json"]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert!(again["error"].to_string().contains(lacks), "{again}");
    other.signal(Signal::SIGCONT);
    let again = desk.done(&["rollback", "--wait"]);
    assert!(
        again.contains("nothing to change\nall 2 gateways hold"),
        "{again}"
    );
    desk.done(&["freeze", "--wait"]);
    // One that stands has not heard, and differs.
    other.signal(Signal::SIGSTOP);
    let tried = desk.run(&["thaw", "--wait", "--timeout", "1s"]);
    let why = String::from_utf8(tried.stderr).unwrap();
    let standing = "1 of 2 gateways have heard: the lists are not frozen; gw-b has epoch ";
    assert!(
        why.contains(standing) && why.contains("frozen (heard"),
        "{why}"
    );
    assert_eq!(tried.status.code(), Some(1));
    let fleet = desk.run(&["fleet"]);
    let notes = String::from_utf8(fleet.stderr).unwrap();
    let differs = "the gateways differ in the release: gw-";
    assert!(
        notes.contains(differs) && notes.contains(", frozen"),
        "{notes}"
    );
    other.signal(Signal::SIGCONT);
    // A reset that another one has overtaken is heard of by whoever has heard of that one, and by nobody
    // else.
    other.signal(Signal::SIGSTOP);
    let epoch = || text(redis, "graygate:release").unwrap();
    let before = epoch();
    thread::scope(|scope| {
        let first = scope.spawn(|| desk.done(&["verdict", "reset", "--wait"]));
        wait_until("it is reset", DEADLINE, || epoch() != before);
        desk.done(&["verdict", "reset"]);
        let again = desk.run(&["verdict", "reset", "--wait", "--timeout", "1s"]);
        let why = String::from_utf8(again.stderr).unwrap();
        assert!(why.contains("1 of 2 gateways have heard: "), "{why}");
        other.signal(Signal::SIGCONT);
        let said = first.join().unwrap();
        let heard = "all 2 gateways have heard: the epoch ";
        assert!(said.contains(heard), "{said}");
    });
    wait_for("it has heard", || {
        let notes = desk.run(&["fleet"]).stderr;
        notes.is_empty().then_some(())
    });
}

#[test]
fn a_promotion_is_refused_while_another_gateway_finds_a_server_out() {
    let site = Site::with(|it| it.set("redis.heartbeat", "300ms").set("redis.node", "gw-a"));
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let refusing = RefusingPeer::new();
    desk.done(&["admit", "127.0.0.5", "--wait"]);
    redis.push("pre", &[&refusing]);
    let other = Setup::new().redis(redis.url()).set("redis.node", "gw-b");
    let other = other
        .set("redis.heartbeat", "300ms")
        .set("upstream.tries", "1");
    let other = other
        .set("upstream.max_fails", 1)
        .set("upstream.fail_timeout", "1h");
    let other = other.start();
    other.wait_served("127.0.0.200", "prod", DEADLINE);
    // Nobody asks the gateway here, so that it knows nothing against that server.
    wait_until("it is out there", DEADLINE, || {
        other.get("127.0.0.5", "/");
        other.peers().to_string().contains("\"up\":false")
    });
    wait_until("it is told", DEADLINE, || {
        let told = text(redis, "graygate:node:gw-b").unwrap_or_default();
        told.contains("\"up\":1}")
    });
    let out = "not all servers of pre are up: gw-b has 1 of 2 up";
    let why = desk.refused(&["promote", "--yes"]);
    assert!(why.contains(out) && why.contains("--force"), "{why}");
    assert!(site.gateway.peers().to_string().contains("\"up\":true"));
    let tried = desk.run(&["promote", "--yes", "--force", "--dry-run"]);
    let notes = String::from_utf8(tried.stderr).unwrap();
    assert!(tried.status.success() && notes.contains(out), "{notes}");
}

#[test]
fn a_release_of_the_servers_of_prod_is_to_be_meant() {
    let redis = Redis::start();
    redis.push("gray", &[&"10.0.0.1"]);
    redis.push("pre", &[&"127.0.2.1"]);
    redis.push("prod", &[&"127.0.2.1 weight=2"]);
    let desk = Desk::of(&redis);
    for words in [
        &["stage", "5%"][..],
        &["rollout", "start", "--steps", "5,50", "--every", "1h"],
        &["promote"],
        &["promote", "--swap"],
    ] {
        let why = desk.refused(words);
        let said = "pre has the very servers of prod";
        assert!(
            why.contains(said) && why.contains("--yes"),
            "{words:?}: {why}"
        );
    }
    assert!(desk.history().is_empty());
    desk.done(&["stage", "5%", "--yes"]);
    desk.done(&["rollback", "--yes"]);
}

#[test]
fn what_is_done_is_said_before_a_slow_receiver_has_taken_the_message() {
    let receiver = Origin::scripted(|conn| {
        conn.request()?;
        conn.wait_for_release()?;
        conn.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let redis = Redis::start();
    redis.push("gray", &[&"10.0.0.1"]);
    redis.push("pre", &[&"127.0.2.1"]);
    redis.push("prod", &[&"127.0.2.2"]);
    let setup = Setup::new().redis(redis.url());
    let setup = setup.set("verdict.webhook", format!("http://{receiver}/"));
    let desk = Desk::with(setup.set("verdict.webhook_timeout", "60s"));
    let mut verb = desk.spawn(&["rollback", "--yes"]);
    let mut said = BufReader::new(verb.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("change 1: ") {
        assert_ne!(said.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    receiver.wait("it is told", |it| it.requests.len() == 1);
    assert!(
        verb.try_wait().unwrap().is_none(),
        "it waits for the receiver"
    );
    receiver.release();
    let ended = verb.wait_with_output().unwrap();
    let notes = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{notes}");
    assert!(notes.contains("note: people were not told: "), "{notes}");
    // A program reads all in one.
    let said = desk.json(&["rollback", "--to", "1", "--yes"]);
    assert!(
        said["notes"].to_string().contains("people were not told"),
        "{said}"
    );
}

#[test]
fn gateways_keep_frozen_lists_and_say_so_once() {
    let site = Site::by_events();
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    desk.done(&["admit", "127.0.0.5", "--wait"]);
    desk.done(&["freeze", "--reason", "Christmas"]);
    let kept = |page: &Value| {
        let kept = page["kept"].as_array().unwrap();
        kept.iter().filter(|it| it["fault"] == "frozen").count()
    };
    site.gateway
        .wait_for_lists("it says so", |it| kept(it) == 3);
    redis.push("gray", &[&"127.0.0.6"]);
    redis.cli(&["LREM", "gray", "0", "127.0.0.5"]);
    redis.cli(&["SET", "graygate:salt", "x"]);
    // Another one has nothing to keep.
    let other = Setup::new()
        .redis(redis.url())
        .set("redis.node", "b")
        .start();
    other.wait_served("127.0.0.6", "pre", DEADLINE);
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
    assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
    assert_eq!(site.gateway.stderr.count("list-kept"), 3);
    assert_eq!(site.gateway.stderr.count("list-recovered"), 0);
    desk.done(&["thaw"]);
    site.wait_served("127.0.0.6", "pre");
    site.wait_served("127.0.0.5", "prod");
    assert_eq!(kept(&site.gateway.lists()), 0);
}

#[test]
fn a_promotion_waits_for_servers_and_gateways() {
    let site = Site::with(|it| {
        it.set("redis.heartbeat", "300ms")
            .set("upstream.tries", "1")
    });
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    // A server that refuses connections, until it is out.
    let refusing = RefusingPeer::new();
    desk.done(&["admit", "127.0.0.5", "--wait"]);
    redis.push("pre", &[&refusing]);
    let address = refusing.to_string();
    wait_until("it is out", DEADLINE, || {
        site.gateway.get("127.0.0.5", "/");
        let peers = site.gateway.peers();
        let pools = peers["pools"].as_array().unwrap().clone();
        let mut all = pools
            .iter()
            .flat_map(|it| it["peers"].as_array().unwrap().clone());
        all.any(|it| it["address"] == address.as_str() && it["up"] == false)
    });
    let why = desk.refused(&["promote", "--yes"]);
    assert!(
        why.contains("not all servers of pre are up") && why.contains(&address),
        "{why}"
    );
    redis.cli(&["LREM", "pre", "0", &address]);
    // One that stands has old lists.
    let other = Setup::new()
        .redis(redis.url())
        .set("redis.node", "gw-b")
        .set("redis.heartbeat", "2s");
    let other = other.start();
    other.wait_served("127.0.0.5", "pre", DEADLINE);
    wait_until("it is known", DEADLINE, || {
        text(redis, "graygate:node:gw-b").is_some()
    });
    other.signal(Signal::SIGSTOP);
    redis.push("gray", &[&"127.0.0.6"]);
    site.wait_served("127.0.0.6", "pre");
    let why = wait_for("only that one is missing", || {
        let why = desk.refused(&["promote", "--yes"]);
        why.contains("1 of 2 gateways do not hold").then_some(why)
    });
    assert!(why.contains("gw-b") && why.contains("--force"), "{why}");
    // What nobody hears of is no reason to wait, but is said.
    redis.cli(&["DEL", "graygate:node:gw-b"]);
    wait_until("it is said", DEADLINE, || {
        // The next heartbeat of another one removes what is so old.
        redis.cli(&["ZADD", "graygate:nodes", "1", "gw-b"]);
        let tried = desk.run(&["promote", "--yes", "--dry-run"]);
        let said = String::from_utf8(tried.stderr).unwrap();
        said.contains("not heard from") && said.contains("gw-b")
    });
    other.signal(Signal::SIGCONT);
}

#[test]
fn what_was_confirmed_is_not_held_by_a_gateway_that_was_away_when_it_was() {
    let site = Site::with(|it| it);
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let other = Setup::new().redis(redis.url()).start();
    other.wait_served("127.0.0.9", "prod", DEADLINE);
    other.signal(Signal::SIGSTOP);
    desk.done(&["promote", "--yes"]);
    desk.done(&["freeze"]);
    desk.done(&["thaw"]);
    // A minute later.
    redis.cli(&["DEL", "graygate:accept"]);
    other.signal(Signal::SIGCONT);
    other.wait_served("127.0.0.9", "pre", DEADLINE);
    assert_eq!(other.stderr.count("change-held"), 0);
    // What came since, nobody has confirmed.
    let mut by_hand = redis::pipe();
    by_hand.atomic().cmd("DEL").arg("prod").ignore();
    by_hand.cmd("RPUSH").arg("prod").arg("127.0.0.1:1").ignore();
    by_hand.exec(&mut redis.connect(0)).unwrap();
    other.wait_for_log("change-held list=prod");
    // Nor does a command about something else.
    desk.done(&["admit", "127.0.0.77", "--no-wait"]);
    other.wait_for_lists("it has come", |it| it["gray"] == json!(["127.0.0.77"]));
    assert_eq!(other.get("127.0.0.9", "/").text(), "pre");
    assert_ne!(other.lists()["held"], json!([]));
}

#[test]
fn a_promotion_is_refused_while_any_gateway_doubts_the_new_version() {
    let (pre, prod) = (
        Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
        Origin::named("prod"),
    );
    for heartbeat in ["300ms", "off"] {
        let redis = Redis::start();
        redis.push_peers(&pre, &prod);
        redis.push("gray", &[&"10.1.0.0/16"]);
        let start = |node: &str| {
            let setup = Setup::new().redis(redis.url()).set("redis.node", node);
            let setup = setup.set("gateway.trusted_proxies", "127.0.0.0/8");
            let setup = setup.set("redis.heartbeat", heartbeat);
            setup.set("upstream.max_fails", 0).start()
        };
        let (one, other) = (start("gw-a"), start("gw-b"));
        let doubts = match heartbeat {
            // Without heartbeats only the gateway here can be asked.
            "off" => {
                one.load_both_until("worse", |it| it.stderr.count("verdict-worse") > 0);
                "the gateway here says worse"
            }
            _ => {
                other.load_both_until("worse", |it| it.stderr.count("verdict-worse") > 0);
                "gw-b says worse"
            }
        };
        let desk = Desk::beside(&one);
        let why = wait_for("it is known", || {
            let why = desk.refused(&["promote", "--yes"]);
            why.contains("the verdict speaks against it").then_some(why)
        });
        assert!(why.contains(doubts) && why.contains("--force"), "{why}");
        assert_eq!(redis.cli(&["LLEN", "pre"]), redis::Value::Int(1));
        desk.done(&["promote", "--force", "--yes"]);
        assert_eq!(redis.cli(&["LLEN", "pre"]), redis::Value::Int(0));
        other.end();
    }
}

#[test]
fn a_promotion_is_refused_while_both_versions_fail_also_where_nobody_knows_what_is_usual() {
    let down = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    let (pre, prod) = (Origin::saying(*down), Origin::saying(*down));
    let redis = Redis::start();
    redis.push_peers(&pre, &prod);
    redis.push("gray", &[&"10.1.0.0/16"]);
    let setup = Setup::new().redis(redis.url()).set("redis.node", "gw-a");
    let setup = setup.set("gateway.trusted_proxies", "127.0.0.0/8");
    let setup = setup.set("redis.heartbeat", "300ms");
    let gateway = setup.set("upstream.max_fails", 0).start();
    gateway.load_both_until("incident", |it| it.stderr.count("verdict-incident") > 0);
    let line = gateway.wait_for_log("verdict-incident");
    assert!(line.contains("both fail in plain sight"), "{line}");
    let desk = Desk::beside(&gateway);
    let why = wait_for("it is known", || {
        let why = desk.refused(&["promote", "--yes"]);
        why.contains("gw-a says").then_some(why)
    });
    let said = "both versions fail, so nothing is known of the new one: gw-a says incident";
    assert!(why.contains(said) && why.contains("--force"), "{why}");
    desk.done(&["promote", "--force", "--yes"]);
}

#[test]
fn of_two_at_the_same_moment_neither_is_lost() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::of(&redis);
    let entries: Vec<String> = (0..6).map(|it| format!("10.0.0.{it}")).collect();
    let children: Vec<Child> = entries
        .iter()
        .map(|it| desk.spawn(&["admit", it]))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let mut gray = list(&redis, "gray");
    gray.sort();
    assert_eq!(gray, entries);
    let history = desk.history();
    let numbers: Vec<u64> = history
        .iter()
        .map(|it| it["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [6, 5, 4, 3, 2, 1]);
    for (later, earlier) in history.iter().zip(&history[1..]) {
        assert_eq!(later["before"], earlier["after"]);
    }
}

#[test]
fn whoever_is_killed_has_changed_all_or_nothing() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::of(&redis);
    let began = Instant::now();
    desk.done(&["admit", "10.9.9.9"]);
    let usual = began.elapsed();
    for round in 0..10u32 {
        let entries = [1, 2, 3].map(|it| format!("10.0.{round}.{it}"));
        let words: Vec<&str> = ["admit"]
            .into_iter()
            .chain(entries.iter().map(String::as_str))
            .collect();
        let mut child = desk.spawn(&words);
        std::thread::sleep(usual.mul_f64(f64::from(round) / 8.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let gray = list(&redis, "gray");
        let there = entries.iter().filter(|it| gray.contains(it)).count();
        let last = desk.history().remove(0);
        let is_last = last["difference"][0] == format!("+ gray {}", entries[0]);
        assert_eq!(
            (there, is_last),
            if is_last { (3, true) } else { (0, false) }
        );
    }
}

/// Asks gateways as these clients, until told to end; says what each client got, without repetition.
fn answers(gateways: &[Gateway], client: &str, end: &AtomicBool) -> Vec<Vec<String>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = gateways
            .iter()
            .map(|gateway| {
                scope.spawn(move || {
                    let mut client = gateway.connect_from(client);
                    let mut all = Vec::new();
                    while !end.load(Ordering::Relaxed) {
                        let response = client.get("/");
                        assert_eq!(response.status(), 200);
                        all.push(response.text());
                        all.dedup();
                    }
                    all
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

#[test]
fn no_request_is_served_by_a_half_of_a_promotion() {
    let redis = Redis::start();
    let (new, old) = Origin::pre_and_prod();
    redis.push_peers(&new, &old);
    redis.push("gray", &[&"127.0.0.5"]);
    let start = |node: &str| {
        let setup = Setup::new().redis(redis.url()).one_worker();
        let setup = setup
            .set("redis.node", node)
            .set("redis.heartbeat", "500ms");
        setup.start()
    };
    let gateways: Vec<Gateway> = ["a", "b", "c"].map(start).into();
    for gateway in &gateways {
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    }
    let desk = Desk::of(&redis);
    let swap = ["promote", "--swap", "--force", "--yes", "--wait"];
    // Gray clients have the new version before and after; all others change over once.
    for (words, others) in [
        (
            &["promote", "--force", "--yes", "--wait"][..],
            ["prod", "pre"],
        ),
        (&["rollback", "--yes", "--wait"], ["pre", "prod"]),
        (&swap, ["prod", "pre"]),
        (&["undo", "--yes", "--wait"], ["pre", "prod"]),
    ] {
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let gray = scope.spawn(|| answers(&gateways, "127.0.0.5", &end));
            let rest = scope.spawn(|| answers(&gateways, "127.0.0.9", &end));
            desk.done(words);
            for gateway in &gateways {
                gateway.wait_served("127.0.0.9", others[1], DEADLINE);
            }
            end.store(true, Ordering::Relaxed);
            for got in gray.join().unwrap() {
                assert_eq!(got, ["pre"], "{words:?}");
            }
            for got in rest.join().unwrap() {
                assert!(
                    others.ends_with(&got.iter().map(String::as_str).collect::<Vec<_>>()),
                    "{words:?}: {got:?}"
                );
            }
        });
    }
}

/// What a command has written is meant: gateways neither hold it nor wait until it has stood for a while, and
/// read it once.
#[test]
fn what_a_verb_has_written_is_in_force_as_a_whole_and_at_once() {
    let (pre, prod) = Origin::pre_and_prod();
    let redis = Redis::start();
    redis.push_peers(&pre, &prod);
    redis.push("gray", &[&"127.0.0.5"]);
    let setup = Setup::new().redis(redis.url());
    let gateway = setup.set("redis.check_interval", "1h").start();
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let desk = Desk::of(&redis);
    let generation = || gateway.lists()["generation"].as_u64().unwrap();
    let promote = ["promote", "--force", "--yes"];
    let verbs = [
        &promote[..],
        &["rollback", "--yes"],
        &["rollback"],
        &["undo", "--yes"],
        &promote,
    ];
    for verb in verbs {
        let before = generation();
        desk.done(verb);
        let changes: Value = serde_json::from_str(&desk.done(&["history", "--json"])).unwrap();
        let after = changes["changes"][0]["after"].clone();
        gateway.wait_for_lists(verb[0], |it| it["digest"] == after);
        assert_eq!(generation(), before + 1, "{verb:?}");
    }
    for word in ["change-held", "list-kept", " ERROR "] {
        assert_eq!(gateway.stderr.count(word), 0, "{:?}", gateway.stderr.all());
    }
    // What names them is for a minute, and no reason to read lists.
    let left: i64 = redis::from_redis_value(redis.cli(&["PTTL", "graygate:accept"])).unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    let readings_of = |client: &str| -> u64 {
        desk.done(&["admit", client]);
        gateway.wait_for_lists("the client", |it| it["gray"].to_string().contains(client));
        let stats = redis.cli(&["INFO", "commandstats"]);
        let stats: String = redis::from_redis_value(stats).unwrap();
        let calls = stats.split_once("cmdstat_lrange:calls=").unwrap().1;
        calls.split(',').next().unwrap().parse().unwrap()
    };
    // What is announced in two parts may be read twice, now and then.
    let least = |third: u8, before: &dyn Fn()| {
        let readings = (1..=5).map(|it| {
            redis.cli(&["CONFIG", "RESETSTAT"]);
            before();
            readings_of(&format!("10.9.{third}.{it}"))
        });
        readings.min().unwrap()
    };
    let usual = least(1, &|| {});
    let with_key = least(2, &|| {
        redis.cli(&["PEXPIRE", "graygate:accept", "1"]);
        redis.cli(&["SADD", "graygate:accept", "0123456789abcdef"]);
    });
    // What was announced before is read by then.
    assert_eq!(with_key, usual);
}

#[test]
fn a_set_stays_one_and_of_a_long_list_only_what_changes_is_written() {
    let redis = Redis::start();
    redis.cli(&["SADD", "gray", "10.0.0.1", "10.0.0.2"]);
    redis.cli(&["SADD", "pre", "127.0.2.1"]);
    redis.cli(&["SADD", "prod", "127.0.2.2"]);
    let desk = Desk::of(&redis);
    desk.done(&["admit", "10.0.0.1/32", "10.0.0.3"]);
    desk.done(&["remove", "10.0.0.1"]);
    let members = |key: &str| {
        let mut all = texts(&redis, &["SMEMBERS", key]);
        all.sort();
        all
    };
    assert_eq!(members("gray"), ["10.0.0.2", "10.0.0.3"]);
    desk.done(&["promote", "--force", "--yes"]);
    assert_eq!(members("prod"), ["127.0.2.1"]);
    desk.done(&["admit", "10.0.0.4"]);
    assert_eq!(members("gray"), ["10.0.0.4"]);
    redis.cli(&["FLUSHALL"]);

    let fill = "for i = 0, 199999 do redis.call('RPUSH', 'gray', '10.' .. math.floor(i / 65536) .. '.' .. \
                math.floor(i / 256) % 256 .. '.' .. i % 256) end";
    redis.cli(&["EVAL", fill, "0"]);
    redis.push("prod", &[&"127.0.2.2"]);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    desk.done(&["admit", "10.200.0.1"]);
    desk.done(&["remove", "10.0.0.7"]);
    let stats: String = redis::from_redis_value(redis.cli(&["INFO", "commandstats"])).unwrap();
    for (command, calls) in [("rpush", 1), ("lrem", 1)] {
        assert!(
            stats.contains(&format!("cmdstat_{command}:calls={calls},")),
            "{stats}"
        );
    }
    assert!(!stats.contains("cmdstat_del:"), "{stats}");
    let length: usize = redis::from_redis_value(redis.cli(&["LLEN", "gray"])).unwrap();
    assert_eq!(length, 200_000);
    // All of it goes, and comes back.
    desk.done(&["rollback"]);
    let length = || -> usize { redis::from_redis_value(redis.cli(&["LLEN", "gray"])).unwrap() };
    assert_eq!(length(), 0);
    desk.done(&["undo"]);
    assert_eq!(length(), 200_000);
}

#[test]
fn in_a_cluster_all_keys_of_a_service_are_in_one_slot() {
    let cluster = Cluster::start();
    cluster.run(&["RPUSH", "{gg}prod", "127.0.2.2"]);
    let setup = || {
        let lists = ["gray", "pre", "prod"].into_iter();
        lists.fold(Setup::new().redis(cluster.servers[2].url()), |setup, it| {
            setup.set(&format!("redis.{it}_key"), format!("{{gg}}{it}"))
        })
    };
    let why = Desk::with(setup()).refused(&["admit", "10.0.0.1"]);
    assert!(why.contains("tripped_key = {gg}tripped"), "{why}");
    let others = ["salt", "tripped", "release", "history"].into_iter();
    let setup = others.fold(setup(), |setup, it| {
        setup.set(&format!("redis.{it}_key"), format!("{{gg}}{it}"))
    });
    let desk = Desk::with(setup);
    desk.done(&["admit", "10.0.0.1"]);
    // The accept key is in another slot.
    desk.done(&["admit", "*", "--yes"]);
    let gray = cluster.run(&["LRANGE", "{gg}gray", "0", "-1"]);
    let gray: Vec<String> = redis::from_redis_value(gray).unwrap();
    assert_eq!(gray, ["10.0.0.1", "*"]);
    let accepted = cluster.run(&["SMEMBERS", "graygate:accept"]);
    let accepted: Vec<String> = redis::from_redis_value(accepted).unwrap();
    assert_eq!(accepted.len(), 3);
    assert_eq!(desk.history().len(), 2);
}

#[test]
fn an_operator_needs_the_rights_that_the_docs_name() {
    let redis = Redis::start();
    redis.push("pre", &[&"127.0.2.1"]);
    redis.push("prod", &[&"127.0.2.2"]);
    redis.allow_as_in_the_docs("operator", 0);
    let url = format!("redis://operator:password@{}/0", redis.address());
    let desk = Desk::with(Setup::new().redis(url));
    for words in [
        &["admit", "10.0.0.1", "--no-wait"][..],
        &["stage", "5%"],
        &["promote", "--yes"],
        &["rollback", "--yes"],
        &["undo", "--yes"],
        &["rollback", "--to", "1", "--yes"],
        &["freeze"],
        &["thaw"],
        &["history"],
    ] {
        desk.done(words);
    }
    redis.cli(&["ACL", "SETUSER", "operator", "-xadd"]);
    let why = desk.refused(&["admit", "10.0.0.2"]);
    assert!(
        why.contains("NOPERM") && why.contains("docs/redis.md"),
        "{why}"
    );
    assert!(list(&redis, "gray").is_empty());
}

#[test]
fn a_connection_that_is_lost_leaves_no_doubt() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::of(&redis);
    let script = redis.cli(&["CLIENT", "NO-EVICT", "on"]);
    drop(script);
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // All others are thrown out all the time.
        scope.spawn(|| {
            let mut connection = redis.connect(0);
            while !end.load(Ordering::Relaxed) {
                let _: redis::RedisResult<i64> = redis::cmd("CLIENT")
                    .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .query(&mut connection);
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        let outcomes: Vec<bool> = (0..8)
            .map(|it| {
                desk.run(&["admit", &format!("10.0.0.{it}")])
                    .status
                    .success()
            })
            .collect();
        end.store(true, Ordering::Relaxed);
        // What was said to be done is done, once; what was said not to be, is not.
        std::thread::sleep(Duration::from_millis(50));
        let gray = list(&redis, "gray");
        for (at, done) in outcomes.iter().enumerate() {
            let count = gray
                .iter()
                .filter(|it| **it == format!("10.0.0.{at}"))
                .count();
            assert_eq!(count, usize::from(*done), "{outcomes:?} {gray:?}");
        }
    });
}

#[test]
fn a_change_whose_reply_was_lost_is_told_as_any_other() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    redis.push("pre", &[&"127.0.2.1"]);
    let relay = Relay::to(redis.address());
    let url = format!("redis://{}/0", relay.address());
    let desk = Desk::with(Setup::new().redis(url));
    // The record of it, as it stands in the transaction.
    relay.lose_reply_to("$7\r\npromote\r\n");
    let told = desk.json(&["promote", "--yes"]);
    assert!(relay.has_lost_reply());
    let notes = told["notes"].to_string();
    assert!(notes.contains("the connection was lost"), "{notes}");
    let [record] = &desk.history()[..] else {
        panic!("{:?}", desk.history());
    };
    for name in ["number", "before", "after", "difference"] {
        assert_eq!(told[name], record[name], "{name}");
    }
    assert_ne!(told["before"], told["after"]);
    assert_eq!(list(&redis, "prod"), ["127.0.2.1"]);
}

/// Somebody else puts another version into `pre` between the checks of a promotion and its transaction.
#[test]
fn a_promotion_is_checked_again_where_others_have_changed_the_lists_meanwhile() {
    let site = Site::with(|it| it.set("redis.heartbeat", "10s").set("redis.node", "gw-a"));
    let redis = &site.redis;
    let prod = list(redis, "prod");
    let relay = Relay::to(redis.address());
    let url = format!("redis://{}/0", relay.address());
    let desk = Desk::with(Setup::new().redis(url));
    wait_until("nothing speaks against it", DEADLINE, || {
        let tried = desk.run(&["promote", "--yes", "--dry-run"]);
        tried.status.success()
    });
    // It does not get the other version.
    site.gateway.signal(Signal::SIGSTOP);
    relay.keep_back("$7\r\npromote\r\n");
    let promotion = desk.spawn(&["promote", "--yes"]);
    wait_until("all was checked", DEADLINE, || relay.keeps_back());
    redis.push("pre", &[&"127.0.2.9"]);
    relay.pass_on();
    let output = promotion.wait_with_output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    let lacks = "not promoted: 1 of 1 gateways do not hold the lists: gw-a";
    assert!(why.contains(lacks), "{why}");
    assert_eq!(list(redis, "prod"), prod);
    site.gateway.signal(Signal::SIGCONT);
}

#[test]
fn of_two_who_take_back_the_last_change_one_does() {
    let redis = Redis::start();
    redis.push("pre", &[&"127.0.1.1"]);
    redis.push("prod", &[&"127.0.2.1"]);
    let relay = Relay::to(redis.address());
    let url = format!("redis://{}/0", relay.address());
    let (slow, fast) = (Desk::with(Setup::new().redis(url)), Desk::of(&redis));
    for entry in ["10.0.0.1", "10.0.0.2"] {
        fast.done(&["admit", entry]);
    }
    relay.keep_back("$4\r\nundo\r\n");
    let undo = slow.spawn(&["undo", "--yes"]);
    wait_until("it is about to", DEADLINE, || relay.keeps_back());
    fast.done(&["undo", "--yes"]);
    relay.pass_on();
    let output = undo.wait_with_output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(
        why.contains("others were faster, and change 2 is not the last any more, but change 3"),
        "{why}"
    );
    assert_eq!(list(&redis, "gray"), ["10.0.0.1"]);
}

#[test]
fn who_waits_for_lists_that_were_overtaken_is_told_by_what_and_waits_no_longer() {
    let site = Site::with(|it| it.set("redis.heartbeat", "10s").set("redis.node", "gw-a"));
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let is_known = || text(redis, "graygate:node:gw-a").is_some();
    wait_until("it is known", DEADLINE, is_known);
    // It never has what came in between.
    site.gateway.signal(Signal::SIGSTOP);
    thread::scope(|scope| {
        let first = scope.spawn(|| desk.json(&["admit", "127.0.0.5", "--wait"]));
        wait_until("it is done", DEADLINE, || desk.history().len() == 1);
        desk.done(&["admit", "127.0.0.6", "--by", "bob"]);
        let last = desk.json(&["admit", "127.0.0.7", "--by", "ann"]);
        site.gateway.signal(Signal::SIGCONT);
        let first = first.join().unwrap();
        let said = first["in_force"].as_str().unwrap();
        let after = |it: &Value| it["after"].as_str().unwrap().to_owned();
        let expected = format!(
            "the only gateway holds {}, or {} by change 3 (admit by ann), which has overtaken it",
            after(&first),
            after(&last)
        );
        assert_eq!(said, expected);
    });
}

/// Two services with the same servers have lists of one digest.
#[test]
fn the_lists_of_a_service_are_waited_for_and_not_the_same_ones_of_another() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.1"]);
    redis.push("api:prod", &[&"127.0.2.2"]);
    redis.push("web:prod", &[&"127.0.2.1"]);
    redis.push("web:pre", &[&"127.0.2.2"]);
    let setup = || {
        let setup = Setup::new().redis(redis.url()).set("redis.node", "gw-a");
        let setup = setup.set("redis.heartbeat", "10s");
        let setup = setup.set("service api.hosts", "api.test");
        setup.set("service web.hosts", "web.test")
    };
    let gateway = setup().start();
    wait_until("it is known", DEADLINE, || {
        let told = text(&redis, "graygate:node:gw-a").unwrap_or_default();
        told.contains("\"web\"")
    });
    gateway.signal(Signal::SIGSTOP);
    let desk = Desk::with(setup());
    let promote = ["promote", "--service", "web", "--force", "--yes", "--wait"];
    let tried = desk.run(&[&promote[..], &["--timeout", "1s"]].concat());
    let why = String::from_utf8(tried.stderr).unwrap();
    assert_eq!(tried.status.code(), Some(1), "{why}");
    assert!(
        why.contains("0 of 1 gateways hold ") && why.contains(" of web "),
        "{why}"
    );
    gateway.signal(Signal::SIGCONT);
    desk.done(&["admit", "10.0.0.1", "--service", "web", "--wait"]);
}

#[test]
fn a_text_that_is_too_long_for_the_state_of_a_release_is_refused() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::of(&redis);
    for (option, most) in [("--reason", 1000), ("--by", 200)] {
        let why = desk.refused(&["freeze", option, &"é".repeat(most + 1)]);
        let said = format!(
            "{option} has {} characters, which are more than {most}\n",
            most + 1
        );
        assert!(why.ends_with(&said), "{why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    assert_eq!(text(&redis, "graygate:release"), None);
    let (reason, by) = ("é".repeat(1000), "é".repeat(200));
    desk.done(&["freeze", "--reason", &reason, "--by", &by]);
    desk.done(&["thaw"]);
    // What others have put there leaves no room.
    let state = format!("{{\"others\":\"{}\"}}", "x".repeat(65_500));
    redis.cli(&["SET", "graygate:release", &state]);
    let why = desk.refused(&["freeze"]);
    assert!(why.contains("gateways read none above 65536"), "{why}");
    assert_eq!(text(&redis, "graygate:release"), Some(state));
}

#[test]
fn the_longest_state_that_is_written_is_read_by_gateways() {
    let site = Site::with(|it| it.set("redis.heartbeat", "300ms").set("redis.node", "gw-a"));
    let (desk, redis) = (Desk::beside(&site.gateway), &site.redis);
    let freeze = ["freeze", "--by", "ann", "--wait"];
    desk.done(&freeze);
    let frozen = text(redis, "graygate:release").unwrap();
    let others = |more: usize| {
        let left = 65_536 - frozen.len() - "\"others\":\"\",".len() + more;
        let state = format!("{{\"others\":\"{}\"}}", "x".repeat(left));
        redis.cli(&["SET", "graygate:release", &state]);
    };
    others(1);
    assert!(desk.refused(&freeze).contains("would have 65537 bytes"));
    others(0);
    wait_until("it is not frozen", DEADLINE, || {
        let told = text(redis, "graygate:node:gw-a").unwrap_or_default();
        told.contains("\"frozen\":false")
    });
    let said = desk.done(&freeze);
    assert!(
        said.contains("the only gateway has heard: the lists are frozen"),
        "{said}"
    );
}

#[test]
fn a_number_that_nobody_has_given_is_none_and_changes_are_counted_on() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::of(&redis);
    desk.done(&["admit", "10.0.0.1"]);
    let by_hand = ["XADD", "graygate:history", "*", "n", "18446744073709551615"];
    redis.cli(&by_hand);
    let said = desk.json(&["admit", "10.0.0.2"]);
    assert_eq!(said["number"], 2);
    assert_eq!(desk.history().len(), 2);
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_once() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.2"]);
    let desk = Desk::with(
        Setup::new()
            .redis(redis.url())
            .set("redis.timeout", "1500ms"),
    );
    redis.signal(Signal::SIGSTOP);
    let began = Instant::now();
    let why = desk.refused(&["admit", "10.0.0.1"]);
    assert!(why.contains("nothing was changed: timed out"), "{why}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    redis.signal(Signal::SIGCONT);
}
