//! Several gateways on one Redis: each is known by its heartbeat, `graygate fleet` lists them, and
//! `graygate fleet wait` tells when all hold the same lists.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Redis, Setup, run_to_exit, wait_for, wait_until};

/// The beat of these tests; three of them are the time to live.
const BEAT: Duration = Duration::from_millis(400);

const WRITTEN: &str = "graygate_fleet_heartbeats_total{outcome=\"written\"}";
const REFUSED: &str = "graygate_fleet_heartbeats_total{outcome=\"refused\"}";

fn lists() -> Redis {
    let redis = Redis::start();
    redis.push("gray", &[&"127.0.0.5"]);
    redis.push("prod", &[&"127.0.2.1"]);
    redis
}

/// What a gateway of this name is started with.
fn setup(redis: &Redis, node: &str) -> Setup {
    Setup::new()
        .redis(redis.url())
        .one_worker()
        .set("redis.node", node)
        .set("redis.check_interval", "1h")
        .set("redis.heartbeat", format!("{}ms", BEAT.as_millis()))
}

#[track_caller]
fn start(redis: &Redis, node: &str) -> Gateway {
    setup(redis, node).start()
}

/// An ini file with nothing but the URL, as on a machine that runs no gateway.
fn ini_of(redis: &Redis, folder: &Path) -> String {
    let path = folder.join("fleet.ini");
    std::fs::write(&path, format!("[redis]\nurl = {}\n", redis.url())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a command; returns what it says, and whether it is content.
#[track_caller]
fn run(ini: &str, arguments: &[&str]) -> (String, bool) {
    let output = run_to_exit(&[arguments, &["-c", ini]].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

/// The lines of `graygate fleet` without the titles, each in its words.
#[track_caller]
fn fleet(ini: &str) -> Vec<Vec<String>> {
    let (text, good) = run(ini, &["fleet"]);
    assert!(good && text.starts_with("NODE "), "{text}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines().skip(1).map(words).collect()
}

/// The names of those that are heard of.
#[track_caller]
fn names(ini: &str) -> Vec<String> {
    let rows = fleet(ini).into_iter().filter(|row| row[1] != "silent");
    rows.map(|row| row.into_iter().next().unwrap()).collect()
}

/// The digest of what the store has.
#[track_caller]
fn digest(ini: &str) -> String {
    let (text, good) = run(ini, &["lists", "show", "--offline"]);
    assert!(good, "{text}");
    let mut lines = text.lines();
    lines
        .find_map(|it| it.strip_prefix("# digest "))
        .unwrap()
        .to_owned()
}

/// The heartbeat of this name, if there is one.
#[track_caller]
fn heartbeat(redis: &Redis, node: &str) -> Option<Value> {
    let text = redis.cli(&["GET", &format!("graygate:node:{node}")]);
    let text: Option<String> = redis::from_redis_value(text).unwrap();
    text.map(|it| serde_json::from_str(&it).unwrap())
}

#[test]
fn ten_gateways_are_waited_for_and_one_that_stands_or_is_gone_is_named() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    // Not in order.
    let wanted: Vec<String> = (0..10).map(|at| format!("gw-{}", (at * 7) % 10)).collect();
    // Three beats are more than a busy machine takes for a command or two.
    let start = |node: &String| setup(&redis, node).set("redis.heartbeat", "1s").start();
    let mut gateways: Vec<Gateway> = wanted.iter().map(start).collect();
    let mut sorted = wanted.clone();
    sorted.sort();
    wait_until("ten are listed", DEADLINE, || names(&ini) == sorted);
    let wait =
        |digest: &str, more: &[&str]| run(&ini, &[&["fleet", "wait", digest], more].concat());

    // Each push is waited for.
    for at in 0..3 {
        redis.push("gray", &[&format!("10.0.0.{at}")]);
        let digest = digest(&ini);
        let (text, good) = wait(&digest, &["--nodes", "10"]);
        assert!(good, "{text}");
        assert_eq!(text, format!("all 10 gateways hold {digest}\n"));
        let page = |it: &Gateway| it.lists()["digest"] == digest.as_str();
        assert!(gateways.iter().all(page));
        let rows = fleet(&ini);
        assert!(rows.iter().all(|row| row[2] == digest), "{rows:?}");
        assert!(rows.iter().all(|row| row[5] == "events"), "{rows:?}");
    }
    let current = digest(&ini);
    let (text, good) = wait(&current, &["--nodes", "11", "--timeout", "300ms"]);
    let said =
        format!("not within 300ms: 10 of 10 gateways hold {current}, at least 11 required\n");
    assert!(!good && text.ends_with(&said), "{text}");
    let (text, good) = wait("0123456789abcdef", &["--timeout", "300ms"]);
    assert!(!good && text.contains("0 of 10 gateways hold"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(sorted.iter().all(|it| text.contains(it)), "{text}");

    // One that stands may serve old lists, as far as Redis knows, also once its key has expired.
    let stands = &wanted[3];
    gateways[3].freeze();
    redis.push("gray", &[&"10.0.1.1"]);
    let current = digest(&ini);
    for (timeout, heard) in [("300ms", " ago)"), ("6s", ", no longer heard from)")] {
        if timeout == "6s" {
            gateways[3].signal(Signal::SIGCONT);
            assert!(wait(&current, &[]).1);
            gateways[3].freeze();
            redis.push("gray", &[&"10.0.1.2"]);
        }
        let current = digest(&ini);
        let start = Instant::now();
        let (text, good) = wait(&current, &["--timeout", timeout]);
        assert!(start.elapsed() < DEADLINE, "{text}");
        let said = format!("9 of 10 gateways hold {current}; {stands} holds ");
        assert!(!good && text.contains(&said), "{text}");
        assert!(text.trim_end().ends_with(heard), "{text}");
    }
    wait_until("its key has expired", DEADLINE, || names(&ini).len() == 9);
    gateways[3].signal(Signal::SIGCONT);
    let current = digest(&ini);
    wait_until("it is back", DEADLINE, || names(&ini) == sorted);
    assert!(wait(&current, &["--nodes", "10"]).1);

    // One that was killed is there until its key expires; one that ends takes its key with it.
    gateways[4].signal(Signal::SIGKILL);
    gateways[4].wait_exit();
    assert!(heartbeat(&redis, &wanted[4]).is_some());
    wait_until("nine are listed", DEADLINE, || {
        let names = names(&ini);
        names.len() == 9 && !names.contains(&wanted[4])
    });
    gateways[5].signal(Signal::SIGTERM);
    gateways[5].wait_exit();
    assert_eq!(heartbeat(&redis, &wanted[5]), None);
    let (text, good) = wait(&current, &[]);
    assert!(good, "{text}");
    // The one that was killed is still in the index.
    let expected = format!("all 8 gateways that are heard from hold {current}\n");
    assert_eq!(text, expected);
}

#[test]
fn a_heartbeat_says_who_it_is_and_what_it_holds_and_follows_a_change_at_once() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    // The next beat by time is far away.
    let gateway = setup(&redis, "a").set("redis.heartbeat", "1h").start();
    let beat = wait_for("the first heartbeat", || heartbeat(&redis, "a"));
    let page = gateway.lists();
    assert_eq!(beat["node"], "a");
    assert_eq!(beat["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(beat["pid"], gateway.pid());
    assert_eq!(beat["digest"], page["digest"]);
    assert_eq!(beat["generation"], 1);
    assert_eq!(beat["mode"], "events");
    assert_eq!(beat["held"], json!([]));
    assert!(beat["age_seconds"].as_f64().unwrap() < 10.0, "{beat}");
    assert_eq!(page["heartbeat"]["node"], "a");
    assert_eq!(page["heartbeat"]["error"], Value::Null);
    let ttl = redis.cli(&["PTTL", "graygate:node:a"]);
    let ttl: u64 = redis::from_redis_value(ttl).unwrap();
    let whole = 3 * 60 * 60 * 1000;
    assert!((whole - 60_000..=whole).contains(&ttl), "{ttl}");

    redis.push("gray", &[&"127.0.0.6"]);
    let start = Instant::now();
    wait_until("the new generation", DEADLINE, || {
        heartbeat(&redis, "a").unwrap()["generation"] == 2
    });
    assert!(start.elapsed() < Duration::from_secs(3));
    // So is what is held.
    redis.cli(&["RPUSH", "gray", "0.0.0.0/0"]);
    wait_until("what is held", DEADLINE, || {
        heartbeat(&redis, "a").unwrap()["held"] == json!(["gray"])
    });
    assert_eq!(fleet(&ini)[0][6], "gray");
    let (text, good) = run(&ini, &["fleet", "wait", &digest(&ini), "--timeout", "2s"]);
    assert!(!good && text.contains("held: gray"), "{text}");
}

#[test]
fn a_refused_heartbeat_is_told_once_and_the_lists_are_followed() {
    let table: [(&str, &[&str], &[&str]); 3] = [
        (
            "NOPERM",
            &["ACL", "SETUSER", "default", "-set"],
            &["ACL", "SETUSER", "default", "+set"],
        ),
        (
            "OOM",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        (
            "READONLY",
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
    ];
    for (word, refuse, allow) in table {
        let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
        let ini = ini_of(&redis, folder.path());
        let gateway = start(&redis, "a");
        gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
        wait_until("it is listed", DEADLINE, || names(&ini) == ["a"]);
        redis.cli(refuse);
        let line = gateway.wait_for_log("heartbeat-refused");
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains(&format!("error=\"{word} ")), "{line}");
        let error = gateway.lists()["heartbeat"]["error"].clone();
        assert!(error.as_str().unwrap().starts_with(word), "{error}");
        // It is tried again.
        let before = gateway.metric(REFUSED);
        wait_until("two more attempts", DEADLINE, || {
            gateway.metric(REFUSED) >= before + 2.0
        });
        if word == "NOPERM" {
            redis.cli(&["DEL", "gray"]);
            gateway.wait_for_lists("the rollback", |page| page["gray"] == json!([]));
        }
        assert_eq!(gateway.lists()["error"], Value::Null, "{word}");
        redis.cli(allow);
        redis.push("gray", &[&"127.0.0.9"]);
        gateway.wait_for_lists("a change", |page| page["generation"] != 1);
        gateway.wait_for_log("heartbeat-written");
        wait_until("it is listed again", DEADLINE, || names(&ini) == ["a"]);
        assert_eq!(gateway.stderr.count("heartbeat-refused"), 1, "{word}");
    }
}

#[test]
fn without_heartbeats_nothing_is_written() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    let off = setup(&redis, "off").set("redis.heartbeat", "off").start();
    // Whose heartbeats go by meanwhile.
    let other = start(&redis, "on");
    wait_until("two heartbeats", DEADLINE, || other.metric(WRITTEN) >= 2.0);
    assert_eq!(names(&ini), ["on"]);
    assert_eq!(off.lists()["heartbeat"], Value::Null);
    assert_eq!(off.shown_metric(WRITTEN), None);
    assert_eq!(off.stderr.count("heartbeat"), 0);
    // Who has none can ask all the same.
    let own = off.path("graygate.ini");
    assert_eq!(names(own.to_str().unwrap()), ["on"]);
}

#[test]
fn two_gateways_of_one_name_are_told_of_once_and_a_restart_is_none() {
    let redis = lists();
    let mut first = start(&redis, "same");
    wait_until("a heartbeat", DEADLINE, || {
        heartbeat(&redis, "same").is_some()
    });
    // Its successor finds what it has left.
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let second = start(&redis, "same");
    wait_until("heartbeats", DEADLINE, || second.metric(WRITTEN) >= 3.0);
    assert_eq!(second.stderr.count("heartbeat-name-taken"), 0);
    // It beats more seldom, so that it is known who has written last.
    let third = setup(&redis, "same").set("redis.heartbeat", "2s");
    let mut third = third.start();
    let line = second.wait_for_log("heartbeat-name-taken");
    assert!(
        line.contains("WARN") && line.contains("graygate:node:same"),
        "{line}"
    );
    let pid = format!("other_pid={}", third.pid());
    assert!(line.contains(&pid), "{line}");
    third.wait_for_log("heartbeat-name-taken");
    let enough = second.metric(WRITTEN) + 3.0;
    wait_until("more", DEADLINE, || second.metric(WRITTEN) >= enough);
    assert_eq!(second.stderr.count("heartbeat-name-taken"), 1);
    // It does not take the other's key with it.
    let beats = third.metric(WRITTEN);
    wait_until("a heartbeat of it", DEADLINE, || {
        third.metric(WRITTEN) > beats
    });
    let pid_of = |beat: Value| beat["pid"].clone();
    let mine = json!(second.pid());
    wait_until("the other's heartbeat", DEADLINE, || {
        heartbeat(&redis, "same").map(pid_of) == Some(mine.clone())
    });
    third.signal(Signal::SIGTERM);
    third.wait_exit();
    assert!(heartbeat(&redis, "same").is_some());
}

#[test]
fn heartbeats_never_cause_a_reading_of_the_lists() {
    for mode in ["tracking", "events"] {
        let redis = Redis::start();
        // Each of these is what the keys of the heartbeats begin with.
        redis.push("graygate", &[&"127.0.0.5"]);
        redis.push("graygate:node", &[&"127.0.2.1"]);
        let start = |node: &str| {
            setup(&redis, node)
                .set("redis.gray_key", "graygate")
                .set("redis.prod_key", "graygate:node")
                .set("redis.notify", mode)
                .set("redis.heartbeat", "100ms")
                .start()
        };
        let gateways = [start("a"), start("b")];
        let readings = |it: &Gateway| {
            let causes = ["start", "event", "check", "reconnect"];
            causes.map(|cause| {
                it.metric(&format!(
                    "graygate_lists_refreshes_total{{cause=\"{cause}\"}}"
                ))
            })
        };
        for gateway in &gateways {
            gateway.wait_for_lists(mode, |page| page["mode"] == mode);
            gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
        }
        for gateway in &gateways {
            let enough = gateway.metric(WRITTEN) + 10.0;
            wait_until("ten heartbeats", DEADLINE, || {
                gateway.metric(WRITTEN) >= enough
            });
        }
        for gateway in &gateways {
            assert_eq!(readings(gateway), [1.0, 0.0, 0.0, 0.0], "{mode}");
        }
        // A change is still heard of.
        redis.push("graygate", &[&"127.0.0.6"]);
        for gateway in &gateways {
            gateway.wait_for_lists("the change", |page| page["generation"] == 2);
            assert_eq!(readings(gateway)[1], 1.0, "{mode}");
        }
    }
}

#[test]
fn heartbeats_come_back_with_redis_and_a_fleet_is_waited_for_meanwhile() {
    let (mut redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    let gateway = start(&redis, "a");
    wait_until("it is listed", DEADLINE, || names(&ini) == ["a"]);
    let digest = digest(&ini);
    redis.kill();
    gateway.wait_for_log("heartbeat-failed");
    let (text, good) = run(&ini, &["fleet"]);
    assert!(!good && text.contains("refused"), "{text}");
    let (text, good) = run(&ini, &["fleet", "wait", &digest, "--timeout", "300ms"]);
    assert!(
        !good && text.contains("not within 300ms: redis://"),
        "{text}"
    );
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| run(&ini, &["fleet", "wait", &digest]));
        redis.restart();
        redis.push("gray", &[&"127.0.0.5"]);
        redis.push("prod", &[&"127.0.2.1"]);
        let (text, good) = waiter.join().unwrap();
        assert!(good, "{text}");
        assert_eq!(text, format!("the only gateway holds {digest}\n"));
    });
    gateway.wait_for_log("heartbeat-written");
    assert_eq!(gateway.stderr.count("heartbeat-failed"), 1);

    // A server that is silent does not keep anybody longer than was asked for.
    redis.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let (text, good) = run(&ini, &["fleet", "wait", &digest, "--timeout", "500ms"]);
    assert!(start.elapsed() < Duration::from_secs(4), "{text}");
    redis.signal(Signal::SIGCONT);
    assert!(!good && text.contains("timed out"), "{text}");
}

#[test]
fn what_is_no_heartbeat_is_shown_as_that_and_other_fleets_are_not_seen() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    let _shop = setup(&redis, "shop")
        .set("redis.node_key", "shop[1]*")
        .start();
    redis.cli(&["SET", "shop1x:decoy", "{}"]);
    let gateway = start(&redis, "a");
    redis.cli(&["SET", "graygate:node:b", "\u{1b}[2J"]);
    redis.push("graygate:node:c", &[&"x"]);
    // Many other keys are on the same server.
    let many = "for i = 1, 5000 do redis.call('SET', 'other:' .. i, i) end";
    redis.cli(&["EVAL", many, "0"]);
    wait_until("three", DEADLINE, || names(&ini) == ["a", "b", "c"]);
    let rows = fleet(&ini);
    for row in &rows[1..] {
        assert_eq!(row[1..3], ["not", "understood"], "{rows:?}");
    }
    let digest = gateway.lists()["digest"].as_str().unwrap().to_owned();
    let (text, good) = run(&ini, &["fleet", "wait", &digest, "--timeout", "2s"]);
    assert!(
        !good && text.contains("b has a heartbeat that is not understood"),
        "{text}"
    );
    let shop = folder.path().join("shop.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&shop, format!("{text}node_key = shop[1]*\n")).unwrap();
    wait_until("the shop", DEADLINE, || {
        names(shop.to_str().unwrap()) == ["shop"]
    });
}

#[test]
fn what_cannot_be_asked_for_is_told_in_one_line() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    for wrong in ["", "0123", "0123456789abcdeg"] {
        let (text, good) = run(&ini, &["fleet", "wait", wrong]);
        assert!(!good && text.contains("is not a digest"), "{text}");
    }
    // More than a clock can count.
    let endless = ["--timeout", "500000000000years"];
    let (text, good) = run(
        &ini,
        &[&["fleet", "wait", "0123456789abcdef"][..], &endless].concat(),
    );
    let said = "graygate: the timeout is too long; at most 1day\n";
    assert!(!good && text == said, "{text}");
    assert_eq!(fleet(&ini), Vec::<Vec<String>>::new());
    let (text, good) = run(
        &ini,
        &["fleet", "wait", &digest(&ini), "--timeout", "100ms"],
    );
    assert!(!good && text.contains("0 of 0 gateways"), "{text}");
    let file = Setup::new().lists(&[], &[], &[&"127.0.2.1"]).write_ini();
    let (text, good) = run(file.to_str().unwrap_or_default(), &["fleet"]);
    assert!(!good, "{text}");

    for (line, what) in [
        (
            "node = a b",
            "[redis] node = a b: it is not a valid name of a gateway;",
        ),
        ("heartbeat = 10ms", "it is less than 100ms;"),
        (
            "node_key = graygate",
            "the key graygate:accept begins with it;",
        ),
    ] {
        let text = std::fs::read_to_string(&ini).unwrap();
        let path = folder.path().join("wrong.ini");
        std::fs::write(&path, format!("{text}{line}\n")).unwrap();
        let output = run_to_exit(&["-t", "-c", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let place = format!("{}:3: ", path.display());
        assert!(said.contains(what) && said.contains(&place), "{said}");
    }
}

#[test]
fn gateways_that_would_skip_entries_are_named_before_and_after_these_are_pushed() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    let _gateway = setup(&redis, "gw-new").start();
    wait_until("it is heard", DEADLINE, || {
        heartbeat(&redis, "gw-new").is_some()
    });
    // As a gateway of an earlier version says it: not what it understands.
    let mut old = heartbeat(&redis, "gw-new").unwrap();
    old["node"] = "gw-old".into();
    for name in ["entries", "entries_used", "services"] {
        old.as_object_mut().unwrap().remove(name);
    }
    let key = "graygate:node:gw-old";
    redis.cli(&["SET", key, &old.to_string(), "PX", "600000"]);
    let (text, _) = run(&ini, &["lists", "check"]);
    assert!(!text.contains("not-understood"), "{text}");
    redis.push("gray", &[&"header:X-Tester", &"cookie:uid=1"]);
    let line = "gray: not-understood: header:x-tester: is skipped by the gateway gw-old, as are all entries but \
                addresses (2): it needs an upgrade\n";
    let (text, good) = run(&ini, &["lists", "check"]);
    assert!(!good && text.contains(line), "{text}");
    assert_eq!(text.matches("not-understood").count(), 1, "{text}");
    wait_until("fleet says so, too", DEADLINE, || {
        let (text, _) = run(&ini, &["fleet"]);
        text.contains(
            "gw-old understands no entries but addresses, and skips others that gw-new has",
        )
    });
    redis.cli(&["DEL", key]);
    let (text, _) = run(&ini, &["lists", "check"]);
    assert!(!text.contains("not-understood"), "{text}");
}

#[test]
fn gateways_that_differ_in_a_service_or_do_not_understand_the_entries_are_told_of() {
    let (redis, folder) = (lists(), tempfile::tempdir().unwrap());
    let ini = ini_of(&redis, folder.path());
    redis.push("shop:gray", &[&"127.0.0.6"]);
    redis.push("shop:prod", &[&"127.0.2.2"]);
    let with_shop = |node: &str| setup(&redis, node).set("service shop.paths", "/shop/");
    let (a, b) = (with_shop("a").start(), with_shop("b").start());
    let c = start(&redis, "c");
    let of_shop = |gateway: &Gateway| {
        let (_, text) = gateway.admin_get("/lists?service=shop");
        let page: Value = serde_json::from_str(&text).unwrap();
        page["digest"].as_str().unwrap().to_owned()
    };
    let own = digest(&ini);
    let wait = |digest: &str, time: &str| {
        run(
            &ini,
            &["fleet", "wait", digest, "--nodes", "3", "--timeout", time],
        )
    };
    let (text, good) = wait(&own, "20s");
    assert!(good, "{text}");
    // One that has no such service is none that holds its lists.
    let shop = of_shop(&a);
    assert_eq!(shop, of_shop(&b));
    let (text, good) = run(&ini, &["fleet"]);
    let differs =
        format!("note: the gateways differ in service shop: a has {shop}, c has no such service");
    assert!(good && text.contains(&differs), "{text}");
    let (text, good) = wait(&shop, "1s");
    let lacks = "2 of 3 gateways hold {}, at least 3 required; \
                 c has no lists of shop, which it does not know (generation 0, heard from ";
    assert!(
        !good && text.contains(&lacks.replace("{}", &shop)),
        "{text}"
    );
    c.end();
    let (text, good) = run(
        &ini,
        &["fleet", "wait", &shop, "--nodes", "2", "--timeout", "20s"],
    );
    assert!(good, "{text}");
    // One that holds something back of a service.
    redis.cli(&["RPUSH", "shop:gray", "0.0.0.0/0"]);
    wait_until("it is held", DEADLINE, || {
        let held =
            |node| heartbeat(&redis, node).unwrap()["services"]["shop"]["held"] == json!(["gray"]);
        held("a") && held("b")
    });
    let held = a.admin_get("/lists?service=shop").1;
    let held: Value = serde_json::from_str(&held).unwrap();
    let accepted = a.path("graygate.ini");
    let digest_of_change = held["held"][0]["digest"].as_str().unwrap();
    let (text, good) = run(
        accepted.to_str().unwrap(),
        &["lists", "accept", digest_of_change],
    );
    assert!(good, "{text}");
    let new = of_shop(&a);
    let differs = format!("the gateways differ in service shop: a has {new}, b has {shop}");
    wait_until("they differ", DEADLINE, || {
        run(&ini, &["fleet"]).0.contains(&differs)
    });
    let (text, good) = run(&ini, &["fleet", "wait", &new, "--timeout", "1s"]);
    let lacks = format!(
        "1 of 2 gateways hold {new}; b holds {shop} of shop (generation 1, held: shop:gray, heard"
    );
    assert!(!good && text.contains(&lacks), "{text}");

    // What a gateway of version 0.1.0 has written.
    let old = json!({
        "node": "old", "version": "0.1.0", "digest": own, "generation": 4, "age_seconds": 0.1, "mode": "events",
        "held": [], "instance": "0123456789abcdef", "pid": 1, "started_at": "", "ttl_ms": 600_000,
    });
    redis.cli(&["SET", "graygate:node:old", &old.to_string(), "PX", "600000"]);
    let check = |ini: &str| run(ini, &["lists", "check"]);
    let (text, good) = check(&ini);
    assert!(good, "all understand addresses: {text}");
    let (text, good) = wait(&own, "20s");
    assert!(good, "{text}");
    // To be seen before it is pushed is too late for nobody: a service that it does not know is no matter.
    redis.push("shop:gray", &[&"cookie:tester=1"]);
    let shop_ini = a.path("graygate.ini");
    let (text, _) = check(shop_ini.to_str().unwrap());
    assert!(!text.contains("not-understood"), "{text}");
    redis.push("gray", &[&"header:X-Tester", &"percent:5"]);
    let (text, good) = check(&ini);
    let skips = "gray: not-understood: header:x-tester: is skipped by the gateway old, ";
    assert!(!good && text.contains(skips), "{text}");
    let new = digest(&ini);
    let behind = "old understands no entries but addresses, and skips others that ";
    wait_until("it is told", DEADLINE, || {
        run(&ini, &["fleet"]).0.contains(behind)
    });
    let (text, good) = wait(&new, "1s");
    let lacks = format!(
        "2 of 3 gateways hold {new}, at least 3 required; old holds {own} (generation 4, it understands no entries \
         but addresses, heard from"
    );
    assert!(!good && text.contains(&lacks), "{text}");
}
