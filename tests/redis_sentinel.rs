//! Redis behind Sentinels: the master is found, and left when it is none any more.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    DEADLINE, Gateway, Origin, Redis, RefusingPeer, Sentinel, Setup, run_to_exit, wait_until,
};

/// A failover takes Sentinel some seconds.
const FAILOVER: Duration = Duration::from_secs(30);

/// A master, its replica and a Sentinel, with lists.
struct Group {
    master: Redis,
    replica: Redis,
    sentinel: Sentinel,
    _pre: Origin,
    prod: Origin,
}

impl Group {
    #[track_caller]
    fn start(password: Option<&str>) -> Self {
        let [master, replica] = [(); 2].map(|()| {
            let mut redis = Redis::stopped();
            let host = redis.address().ip().to_string();
            // All addresses of the loopback reach each other, so it would be known by another.
            let announced = ["--replica-announce-ip", &host];
            redis.set_options(&[&announced[..], &["--repl-diskless-sync-delay", "0"]].concat());
            redis.restart();
            redis
        });
        let (pre, prod) = Origin::pre_and_prod();
        master.push_peers(&pre, &prod);
        follow(&replica, &master);
        let sentinel = Sentinel::watching("mymaster", master.address(), password);
        sentinel.wait_for_replicas(1);
        Self {
            master,
            replica,
            sentinel,
            _pre: pre,
            prod,
        }
    }

    /// A gateway that asks `sentinels`.
    #[track_caller]
    fn gateway(&self, sentinels: &str, edit: impl FnOnce(Setup) -> Setup) -> Gateway {
        let setup = Setup::new().redis("redis://mymaster/0");
        let setup = setup.set("redis.sentinels", sentinels);
        // What a server of other lists brings is the subject here.
        let setup = setup.set("lists.guard_share", 100);
        let setup = setup.set("redis.check_interval", "300ms");
        let gateway = edit(setup.set("redis.timeout", "1s")).start();
        gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        gateway
    }
}

const HEARTBEATS: &str = "graygate_fleet_heartbeats_total{outcome=\"written\"}";

#[track_caller]
fn follow(replica: &Redis, master: &Redis) {
    let (host, port) = (master.address().ip(), master.address().port());
    replica.cli(&["REPLICAOF", &host.to_string(), &port.to_string()]);
    wait_until("the replica has its master's lists", DEADLINE, || {
        let length = replica.cli(&["LLEN", "prod"]);
        redis::from_redis_value::<u64>(length).unwrap() > 0
    });
}

#[track_caller]
fn wait_for_role(redis: &Redis, role: &str) {
    wait_until(&format!("it is a {role}"), FAILOVER, || {
        // A Sentinel ends connections when it gives a role.
        let said = redis.try_cli(&["ROLE"]);
        said.is_ok_and(|it| format!("{it:?}").contains(role))
    });
}

#[test]
fn a_killed_master_is_replaced_and_the_new_ones_lists_are_read() {
    let mut group = Group::start(None);
    let dead = RefusingPeer::new();
    let sentinels = format!("{dead}, {}", group.sentinel);
    let gateway = group.gateway(&sentinels, |it| it);
    let line = gateway.wait_for_log("redis-master");
    assert!(
        line.ends_with(&group.master.address().to_string()),
        "{line}"
    );
    assert_eq!(gateway.lists()["mode"], "events");
    assert_eq!(gateway.lists()["source"], "redis://mymaster/0");
    group.master.push("gray", &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);

    group.master.kill();
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    wait_for_role(&group.replica, "master");
    group.replica.push("gray", &[&"127.0.0.6"]);
    gateway.wait_served("127.0.0.6", "pre", DEADLINE);
    assert_eq!(gateway.lists()["mode"], "events");
    let told = format!("redis-master address={}", group.replica.address());
    gateway.wait_for_log(&told);

    // The heartbeats go there, too.
    let keys = || group.replica.cli(&["KEYS", "graygate:node:*"]);
    let beats = gateway.metric(HEARTBEATS);
    wait_until("a heartbeat", DEADLINE, || {
        gateway.metric(HEARTBEATS) > beats
    });
    assert_ne!(keys(), redis::Value::Array(Vec::new()));

    // The old one comes back, empty, and becomes a replica; nobody reads it.
    let generation = gateway.lists()["generation"].clone();
    group.master.restart();
    wait_for_role(&group.master, "slave");
    group.replica.push("gray", &[&"127.0.0.7"]);
    gateway.wait_served("127.0.0.7", "pre", DEADLINE);
    let now = gateway.lists()["generation"].as_u64().unwrap();
    assert_eq!(now, generation.as_u64().unwrap() + 1);
    assert_eq!(gateway.stderr.count("redis-master"), 2);
    assert_eq!(gateway.get("127.0.0.8", "/").text(), "prod");
    drop(group.prod);
}

#[test]
fn a_master_that_becomes_a_replica_is_left() {
    let group = Group::start(None);
    let gateway = group.gateway(&group.sentinel.to_string(), |it| it);
    let failover = group
        .sentinel
        .try_ask(&["SENTINEL", "FAILOVER", "mymaster"]);
    failover.unwrap();
    wait_for_role(&group.replica, "master");
    wait_for_role(&group.master, "slave");
    let told = format!("redis-master address={}", group.replica.address());
    wait_until("the new master is read", FAILOVER, || {
        gateway.stderr.count(&told) > 0
    });
    group.replica.push("gray", &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
}

#[test]
fn a_replica_that_a_sentinel_takes_for_the_master_is_not_read() {
    let group = Group::start(None);
    // It watches the replica as if that were a master, and cannot know better for a while.
    let wrong = Sentinel::watching("other", group.replica.address(), None);
    let setup = Setup::new().redis("redis://other/0");
    let setup = setup.set("redis.sentinels", &wrong);
    let gateway = setup.set("redis.timeout", "1s").start();
    let line = gateway.wait_for_log("lists-unreadable");
    let replica = group.replica.address();
    let words = format!("{wrong}: {replica} is a slave, not a master");
    assert!(line.contains(&words), "{line}");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
}

/// A Sentinel that takes the server at `address` for the master of that name, whatever it says.
#[track_caller]
fn stale(address: SocketAddr) -> Sentinel {
    let sentinel = Sentinel::watching("mymaster", address, None);
    never_down(&sentinel);
    sentinel
}

/// Has a Sentinel go on with the master that it knows.
#[track_caller]
fn never_down(sentinel: &Sentinel) {
    let never = ["SENTINEL", "SET", "mymaster", "down-after-milliseconds"];
    sentinel
        .try_ask(&[&never[..], &["3600000"]].concat())
        .unwrap();
}

#[test]
fn a_sentinel_that_names_no_master_holds_nobody_up_at_the_start() {
    let group = Group::start(None);
    never_down(&group.sentinel);
    let dead = RefusingPeer::new();
    for wrong in [dead.address(), group.replica.address()].map(stale) {
        let sentinels = format!("{wrong}, {}", group.sentinel);
        let gateway = group.gateway(&sentinels, |it| it);
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
        // Nor the heartbeat, which asks for itself.
        let beats = gateway.metric(HEARTBEATS);
        wait_until("a heartbeat", DEADLINE, || {
            gateway.metric(HEARTBEATS) > beats
        });
    }
}

#[test]
fn a_stale_sentinel_that_is_left_alone_for_a_while_takes_nobody_off_the_master() {
    let group = Group::start(None);
    never_down(&group.sentinel);
    let wrong = stale(group.replica.address());
    let sentinels = format!("{wrong}, {}", group.sentinel);
    let gateway = group.gateway(&sentinels, |it| it);
    group.master.push("gray", &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);

    group.sentinel.signal(Signal::SIGSTOP);
    let line = gateway.wait_for_log("redis-sentinels-unconfirmed");
    let replica = group.replica.address();
    let words = format!("{wrong}: {replica} is a slave, not a master");
    assert!(line.contains("WARN") && line.contains(&words), "{line}");
    assert!(line.contains(&format!("{}: timed out", group.sentinel)));
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    let before = gateway.metric(checks);
    wait_until("some checks", 2 * DEADLINE, || {
        gateway.metric(checks) >= before + 3.0
    });
    group.master.push("gray", &[&"127.0.0.6"]);
    gateway.wait_served("127.0.0.6", "pre", DEADLINE);

    group.sentinel.signal(Signal::SIGCONT);
    group.master.cli(&["DEL", "gray"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    let before = gateway.metric(checks);
    wait_until("some checks", 2 * DEADLINE, || {
        gateway.metric(checks) >= before + 2.0
    });
    assert_eq!(gateway.stderr.count("redis-sentinels-unconfirmed"), 1);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    assert_eq!(gateway.stderr.count("redis-master"), 1);
}

#[test]
fn a_master_that_becomes_a_replica_without_a_word_is_left_at_the_next_check() {
    let group = Group::start(None);
    let gateway = group.gateway(&group.sentinel.to_string(), |it| it);
    // A Sentinel would end the connections, and name another master.
    group.sentinel.signal(Signal::SIGSTOP);
    let generation = gateway.lists()["generation"].clone();
    group.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    group.replica.cli(&["DEL", "pre", "prod"]);
    group.replica.push("prod", &[&"127.0.0.1:9"]);
    follow(&group.master, &group.replica);
    let line = gateway.wait_for_log("is a slave, not a master");
    assert!(line.contains("lists-unreadable"), "{line}");
    // Its lists may have been read once more before that, but not since.
    let now = gateway.lists()["generation"].as_u64().unwrap();
    assert!(now <= generation.as_u64().unwrap() + 2);
    group.sentinel.signal(Signal::SIGCONT);
}

#[test]
fn another_master_of_the_name_is_found_at_the_next_check() {
    let group = Group::start(None);
    let gateway = group.gateway(&group.sentinel.to_string(), |it| it);
    let other = Redis::start();
    let prod = Origin::named("other prod");
    other.push("prod", &[&prod]);
    let (host, port) = (
        other.address().ip().to_string(),
        other.address().port().to_string(),
    );
    // The old one goes on, and all connections to it.
    let ask = |words: &[&str]| drop(group.sentinel.try_ask(words).unwrap());
    ask(&["SENTINEL", "REMOVE", "mymaster"]);
    ask(&["SENTINEL", "MONITOR", "mymaster", &host, &port, "1"]);
    gateway.wait_served("127.0.0.5", "other prod", DEADLINE);
    gateway.wait_for_log("another server is the master now");
}

#[test]
fn while_no_sentinel_answers_the_master_is_read_on_and_that_is_said_once() {
    let group = Group::start(None);
    let gateway = group.gateway(&group.sentinel.to_string(), |it| it);
    group.sentinel.signal(Signal::SIGSTOP);
    let line = gateway.wait_for_log("redis-sentinels-lost");
    assert!(
        line.contains("WARN") && line.contains("timed out"),
        "{line}"
    );
    group.master.push("gray", &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    let before = gateway.metric(checks);
    wait_until("some checks", 2 * DEADLINE, || {
        gateway.metric(checks) >= before + 3.0
    });
    assert_eq!(gateway.stderr.count("redis-sentinels-lost"), 1);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    group.sentinel.signal(Signal::SIGCONT);
}

#[test]
fn sentinels_that_cannot_help_are_each_told_with_the_reason_and_no_secret() {
    let group = Group::start(Some("right-secret"));
    let (dead, silent) = (
        RefusingPeer::new(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let silent = silent.local_addr().unwrap();
    let (host, own) = (group.sentinel.address(), group.master.address());
    let sentinels =
        format!("{dead},{silent},redis://:wrong-secret@{host},{own},:right-secret@{host}");
    let setup = Setup::new().redis("redis://nobody/0");
    let setup = setup.set("redis.sentinels", sentinels);
    let start = Instant::now();
    let gateway = setup.set("redis.timeout", "300ms").start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(start.elapsed() < Duration::from_secs(3), "{line}");
    for (sentinel, why) in [
        (dead.address(), "Connection refused"),
        (silent, "timed out"),
        (host, "authentication failed"),
        (own, "unknown command"),
        (host, "it does not know that master"),
    ] {
        assert!(
            line.contains(&format!("{sentinel}: ")),
            "{sentinel}: {line}"
        );
        assert!(line.contains(why), "{why}: {line}");
    }
    let failures = "graygate_lists_failures_total";
    wait_until("some attempts", DEADLINE, || {
        gateway.metric(failures) >= 3.0
    });
    assert_eq!(gateway.stderr.count("lists-unreadable"), 1);
    let admin = Setup::new().set("admin.listen", gateway.admin());
    let status = run_to_exit(&["status", "-c", admin.write_ini().to_str().unwrap()]);
    let shown = [
        gateway.stderr.all().join("\n"),
        gateway.admin_get("/lists").1,
        gateway.admin_get("/healthz").1,
        format!("{status:?}"),
    ];
    assert!(!shown.concat().contains("-secret"), "{shown:?}");

    // The password of a Sentinel is its own, and the name is that of the master.
    let sentinels = format!("redis://:right-secret@{host}");
    group.gateway(&sentinels, |it| it);
}

#[test]
fn verbs_and_rollouts_go_on_at_the_new_master() {
    let mut group = Group::start(None);
    let sentinels = group.sentinel.to_string();
    let gateway = group.gateway(&sentinels, |it| it);
    let text = std::fs::read_to_string(gateway.path("graygate.ini")).unwrap();
    let socket = format!("socket = {}", gateway.path("admin.sock").display());
    let setup = Setup::new().file("desk.ini", &text.replace("socket = admin.sock", &socket));
    let ini = setup.path("desk.ini").to_str().unwrap().to_owned();
    let run = |words: &str| {
        run_to_exit(&[&words.split(' ').collect::<Vec<_>>()[..], &["-c", &ini]].concat())
    };
    let done = |words: &str| {
        let output = run(words);
        assert!(output.status.success(), "{output:?}");
    };
    done("rollout start --steps 1,2 --every 5s --without-verdict");
    gateway.wait_for_log("rollout-led");
    wait_until("the replica has it", DEADLINE, || {
        let exists = group.replica.cli(&["EXISTS", "graygate:release:lease"]);
        exists == redis::Value::Int(1)
    });
    group.master.kill();
    wait_for_role(&group.replica, "master");
    wait_until("a verb finds it", FAILOVER, || {
        run("admit 127.0.0.7").status.success()
    });
    gateway.wait_served("127.0.0.7", "pre", FAILOVER);
    wait_until("it is done", FAILOVER, || {
        let output = run("rollout status");
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("done since")
    });
    let gray: Vec<String> =
        redis::from_redis_value(group.replica.cli(&["LRANGE", "gray", "0", "-1"])).unwrap();
    assert_eq!(gray, ["127.0.0.7", "percent:2"]);
}
