//! The index of the nodes: a fleet is found without a look through all keys of the server.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use support::{DEADLINE, Gateway, Redis, Setup, run_to_exit, wait_until};

const INDEX: &str = "graygate:nodes";
const WRITTEN: &str = "graygate_fleet_heartbeats_total{outcome=\"written\"}";

fn lists() -> Redis {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.2.1"]);
    redis
}

/// Other tenants have many keys on the same server.
#[track_caller]
fn fill(redis: &Redis) {
    for part in 0..10 {
        let many = format!("for i = 1, 20000 do redis.call('SET', 'other:{part}:' .. i, i) end");
        redis.cli(&["EVAL", &many, "0"]);
    }
}

fn setup(url: &str, node: &str) -> Setup {
    Setup::new()
        .redis(url)
        .one_worker()
        .set("redis.node", node)
        .set("redis.check_interval", "1h")
        .set("redis.heartbeat", "500ms")
}

/// What a command says, and whether it is content.
#[track_caller]
fn run(gateway: &Gateway, words: &[&str]) -> (String, bool) {
    let ini = gateway.path("graygate.ini");
    let output = run_to_exit(&[words, &["-c", ini.to_str().unwrap()]].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

/// The names that `graygate fleet` shows.
#[track_caller]
fn names(gateway: &Gateway) -> Vec<String> {
    let (text, good) = run(gateway, &["fleet"]);
    assert!(good && text.starts_with("NODE "), "{text}");
    let name = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    text.lines().skip(1).map(name).collect()
}

/// Those of them that are silent.
#[track_caller]
fn silent(gateway: &Gateway) -> Vec<String> {
    let (text, good) = run(gateway, &["fleet"]);
    assert!(good, "{text}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    let rows = text.lines().skip(1).map(words);
    let rows = rows.filter(|row: &Vec<String>| row[1] == "silent");
    rows.map(|row| row[0].clone()).collect()
}

/// Waits for lists that are not there, until that is told with this note. It is told of the last
/// look, which a busy machine may cut off: with another line, which is no less true.
#[track_caller]
fn wait_in_vain(gateway: &Gateway, digest: &str, note: &str) {
    wait_until(note, DEADLINE, || {
        let (text, good) = run(gateway, &["fleet", "wait", digest, "--timeout", "200ms"]);
        assert!(!good && text.contains("not within 200ms: "), "{text}");
        text.contains(note)
    });
}

#[track_caller]
fn indexed(redis: &Redis) -> Vec<String> {
    let names = redis.cli(&["ZRANGE", INDEX, "0", "-1"]);
    let mut names: Vec<String> = redis::from_redis_value(names).unwrap();
    names.sort();
    names
}

/// Whether the server was asked for this, whoever it was.
#[track_caller]
fn asked(redis: &Redis, command: &str) -> bool {
    times_asked(redis, command) > 0
}

/// How often.
#[track_caller]
fn times_asked(redis: &Redis, command: &str) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let stats: String = redis::from_redis_value(stats).unwrap();
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|it| it.strip_prefix(&start));
    line.map_or(0, |it| it.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn among_many_keys_of_others_a_fleet_is_found_without_a_scan() {
    let redis = lists();
    fill(&redis);
    let a = setup(&redis.url(), "a").start();
    let mut b = setup(&redis.url(), "b").start();
    wait_until("both are in the index", DEADLINE, || {
        indexed(&redis).len() == 2
    });
    assert_eq!(names(&a), ["a", "b"]);
    let digest = a.lists()["digest"].as_str().unwrap().to_owned();
    let (text, good) = run(&a, &["fleet", "wait", &digest, "--nodes", "2"]);
    assert!(good, "{text}");
    assert_eq!(text, format!("all 2 gateways hold {digest}\n"));
    assert!(asked(&redis, "zrange"));
    assert!(!asked(&redis, "scan") && !asked(&redis, "keys"));

    // One that ends takes its name with it.
    b.signal(Signal::SIGTERM);
    b.wait_exit();
    assert_eq!(indexed(&redis), ["a"]);
    assert_eq!(names(&a), ["a"]);
    // One that is killed is shown as silent, and not waited for; its name goes later.
    let mut c = setup(&redis.url(), "c").start();
    wait_until("it is listed", DEADLINE, || {
        run(&a, &["fleet"]).0.contains("\nc ") && silent(&a).is_empty()
    });
    c.signal(Signal::SIGKILL);
    c.wait_exit();
    wait_until("it has expired", DEADLINE, || silent(&a) == ["c"]);
    let (text, _) = run(&a, &["fleet"]);
    assert!(
        text.contains("not for ") && !text.contains("Redis takes no"),
        "{text}"
    );
    assert!(run(&a, &["fleet", "wait", &digest]).1);
    assert_eq!(indexed(&redis), ["a", "c"]);
    redis.cli(&["ZADD", INDEX, "1000", "c"]);
    wait_until("it has been gone for long", DEADLINE, || {
        indexed(&redis) == ["a"]
    });
    assert!(!asked(&redis, "scan") && !asked(&redis, "keys"));
}

#[test]
fn a_fleet_whose_heartbeats_redis_refuses_is_shown_as_silent_with_the_reason() {
    let refusals: [(&str, &[&str], &[&str]); 4] = [
        ("MISCONF", &[], &["CONFIG", "SET", "save", ""]),
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
        (
            "NOREPLICAS",
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
    ];
    for (word, refuse, allow) in refusals {
        let redis = lists();
        let both = ["a", "b"].map(|it| setup(&redis.url(), it).start());
        let [a, _] = &both;
        wait_until("both are listed", DEADLINE, || names(a) == ["a", "b"]);
        let digest = a.lists()["digest"].as_str().unwrap().to_owned();
        match refuse {
            [] => redis.fail_to_save(),
            refuse => drop(redis.cli(refuse)),
        }
        wait_until("both are silent", DEADLINE, || silent(a) == ["a", "b"]);
        let (text, good) = run(a, &["fleet"]);
        let reason = format!("Redis accepts no heartbeats: {word} ");
        assert!(good && text.contains(&reason), "{text}");
        wait_in_vain(a, &digest, &reason);
        redis.cli(allow);
        wait_until("both are back", DEADLINE, || {
            run(a, &["fleet"]).0.matches(&digest).count() == 2
        });
    }
}

#[test]
fn with_the_rights_of_earlier_versions_a_gateway_works_and_is_found_while_keys_are_few() {
    let redis = lists();
    let old = "ACL SETUSER old on >password resetkeys ~gray ~pre ~prod ~graygate:accept \
               ~graygate:node:* resetchannels &__keyspace@0__:gray &__keyspace@0__:pre \
               &__keyspace@0__:prod &__keyspace@0__:graygate:accept &__redis__:invalidate \
               +get +lrange +smembers +watch +multi +exec +ping +subscribe +role +config|get \
               +config|set +client|id +client|tracking +client|getredir +set +del +scan +pttl";
    redis.cli(&old.split_whitespace().collect::<Vec<_>>());
    let url = format!("redis://old:password@{}", redis.address());
    let gateway = setup(&url, "old").start();
    wait_until("heartbeats", DEADLINE, || gateway.metric(WRITTEN) >= 4.0);
    let line = gateway.wait_for_log("heartbeat-not-indexed");
    assert!(line.contains("NOPERM") && line.contains("ZADD"), "{line}");
    assert_eq!(
        gateway.stderr.count("heartbeat-"),
        1,
        "{:?}",
        gateway.stderr.all()
    );
    assert_eq!(gateway.lists()["error"], serde_json::Value::Null);
    redis.push("gray", &[&"127.0.0.5"]);
    gateway.wait_for_lists("the change", |it| it["gray"][0] == "127.0.0.5");
    assert_eq!(names(&gateway), ["old"]);

    // Where there are many keys it is said that it cannot be found.
    fill(&redis);
    let other = setup(&redis.url(), "off")
        .set("redis.heartbeat", "off")
        .start();
    let (text, good) = run(&other, &["fleet"]);
    let note = format!("no gateway has written the index {INDEX}");
    assert!(good && text.contains(&note), "{text}");
    let digest = gateway.lists()["digest"].as_str().unwrap().to_owned();
    wait_in_vain(&other, &digest, &note);
    redis.cli(&[
        "ACL",
        "SETUSER",
        "old",
        "~graygate:nodes",
        "+@sortedset",
        "+time",
    ]);
    assert!(!indexed(&redis).contains(&"old".to_owned()));
}

#[test]
fn what_was_known_at_the_deadline_is_told() {
    let redis = lists();
    let gateway = setup(&redis.url(), "a").start();
    wait_until("it is listed", DEADLINE, || names(&gateway) == ["a"]);
    let wrong = ["fleet", "wait", "0123456789abcdef", "--timeout", "2s"];
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| run(&gateway, &wrong));
        // Who looks again has seen what the first look found: one node.
        redis.cli(&["CONFIG", "RESETSTAT"]);
        wait_until("it has looked twice", DEADLINE, || {
            times_asked(&redis, "pttl") >= 2
        });
        redis.signal(Signal::SIGSTOP);
        let (text, good) = waiter.join().unwrap();
        redis.signal(Signal::SIGCONT);
        let last =
            "when last seen: 0 of 1 gateways hold 0123456789abcdef, at least 1 required; a holds ";
        assert!(!good && text.contains(last), "{text}");
    });
}

#[test]
fn the_rights_that_the_docs_name_are_enough_for_the_index() {
    let redis = lists();
    redis.allow_as_in_the_docs("graygate", 0);
    redis.cli(&["SET", "gray", "x"]);
    let url = format!("redis://graygate:password@{}", redis.address());
    let mut gateway = setup(&url, "a").start();
    wait_until("heartbeats", DEADLINE, || gateway.metric(WRITTEN) >= 2.0);
    assert_eq!(indexed(&redis), ["a"]);
    assert_eq!(names(&gateway), ["a"]);
    let line = gateway.wait_for_log("key-wrong-type");
    assert!(line.contains("is a string"), "{line}");
    gateway.signal(Signal::SIGTERM);
    gateway.wait_exit();
    assert!(indexed(&redis).is_empty());
    for word in ["NOPERM", "refused", "heartbeat-"] {
        assert_eq!(gateway.stderr.count(word), 0, "{:?}", gateway.stderr.all());
    }
}
