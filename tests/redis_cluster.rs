//! A real Redis Cluster: the lists are followed to whatever server has them.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    Cluster, DEADLINE, Gateway, OWNER, Origin, Redis, Relay, SLOT, Setup, run_to_exit, wait_until,
};

/// The master of another slot, which a gateway is told to begin with.
const SEED: usize = 2;

const REPLICA: usize = 3;

/// A failover takes a cluster some seconds, and some more where the first election has failed.
const FAILOVER: Duration = Duration::from_secs(60);

/// A cluster with lists, of which 127.0.0.5 is gray.
struct Site {
    cluster: Cluster,
    origins: [Origin; 2],
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let cluster = Cluster::start();
        let origins = ["pre", "prod"].map(Origin::named);
        for (key, entry) in [
            ("{gg}pre", origins[0].to_string()),
            ("{gg}prod", origins[1].to_string()),
            ("{gg}gray", "127.0.0.5".to_owned()),
        ] {
            cluster.run(&["RPUSH", key, &entry]);
        }
        Self { cluster, origins }
    }

    /// A gateway that is told of one server, with keys of one slot; its heartbeats have others.
    #[track_caller]
    fn gateway(&self, seed: usize, edit: impl FnOnce(Setup) -> Setup) -> Gateway {
        self.gateway_that(seed, "127.0.0.5", edit)
    }

    /// The same, where this client is gray.
    #[track_caller]
    fn gateway_that(&self, seed: usize, gray: &str, edit: impl FnOnce(Setup) -> Setup) -> Gateway {
        let setup = one_slot(Setup::new().redis(self.cluster.servers[seed].url()));
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("redis.timeout", "1s");
        let gateway = edit(setup).start();
        gateway.wait_served(gray, "pre", DEADLINE);
        gateway
    }

    /// Changes are in force far sooner than by a check.
    #[track_caller]
    fn follows(&self, gateway: &Gateway) {
        const SOON: Duration = Duration::from_secs(3);
        self.cluster.run(&["RPUSH", "{gg}gray", "127.0.0.6"]);
        gateway.wait_served("127.0.0.6", "pre", SOON);
        self.cluster.run(&["LREM", "{gg}gray", "0", "127.0.0.6"]);
        gateway.wait_served("127.0.0.6", "prod", SOON);
    }

    fn server(&self, at: usize) -> &Redis {
        &self.cluster.servers[at]
    }

    /// Begins to move the slot of the lists, which is open from now on: from the first of these servers to
    /// the second.
    #[track_caller]
    fn open_slot(&self) -> (&Redis, &Redis) {
        let (from, to) = (self.server(OWNER), self.server(SEED));
        set_slot(to, &["IMPORTING", &self.cluster.id(OWNER)]);
        set_slot(from, &["MIGRATING", &self.cluster.id(SEED)]);
        (from, to)
    }
}

/// Tells a server of the state of the lists' slot.
#[track_caller]
fn set_slot(server: &Redis, state: &[&str]) {
    let slot = SLOT.to_string();
    let command = ["CLUSTER", "SETSLOT", &slot];
    server.cli(&[&command, state].concat());
}

/// One that learns of changes in this way.
fn notified(setup: Setup, notify: &str) -> Setup {
    let setup = setup.set("redis.notify", notify);
    setup.set("redis.poll_interval", "100ms")
}

fn one_slot(setup: Setup) -> Setup {
    let keys = ["gray", "pre", "prod"].into_iter();
    keys.fold(setup, |setup, list| {
        setup.set(&format!("redis.{list}_key"), format!("{{gg}}{list}"))
    })
}

/// The path of the ini file of a running gateway, with the place of its admin socket; it stays as long as its
/// folder.
fn ini(gateway: &Gateway) -> (Setup, String) {
    let text = std::fs::read_to_string(gateway.path("graygate.ini")).unwrap();
    let socket = format!("socket = {}", gateway.path("admin.sock").display());
    let text = text.replace("socket = admin.sock", &socket);
    let setup = Setup::new().file("other.ini", &text);
    let path = setup.path("other.ini").to_str().unwrap().to_owned();
    (setup, path)
}

#[track_caller]
fn run(arguments: &[&str]) -> String {
    let output = run_to_exit(arguments);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    said
}

#[test]
fn lists_of_one_slot_are_followed_wherever_a_gateway_begins() {
    let site = Site::start();
    for (notify, seed) in [
        ("auto", SEED),
        ("auto", REPLICA),
        ("auto", OWNER),
        ("tracking", SEED),
        ("poll", 1),
    ] {
        let gateway = site.gateway(seed, |it| {
            notified(it, notify).set("redis.node", format!("gw-{notify}-{seed}"))
        });
        let page = gateway.lists();
        let mode = if notify == "auto" { "events" } else { notify };
        assert_eq!(page["mode"], mode);
        let owner = site.server(OWNER).address().to_string();
        assert_eq!(page["server"], json!(owner), "{notify} {seed}");
        site.follows(&gateway);
        // Its heartbeat is where its key belongs.
        let key = format!("graygate:node:gw-{notify}-{seed}");
        wait_until("a heartbeat", DEADLINE, || {
            site.cluster.run(&["EXISTS", &key]) == redis::Value::Int(1)
        });
        for event in ["lists-unreadable", "heartbeat-", "MOVED", "CROSSSLOT"] {
            assert_eq!(gateway.stderr.count(event), 0, "{event} {notify} {seed}");
        }
    }
}

#[test]
fn every_command_follows_the_lists() {
    let site = Site::start();
    let gateway = site.gateway(SEED, |it| it);
    let (_folder, ini) = ini(&gateway);
    assert_eq!(run(&["-t", "-c", &ini]).lines().count(), 1);
    let shown = run(&["lists", "show", "--offline", "-c", &ini]);
    assert!(shown.contains("[gray]\n127.0.0.5\n"), "{shown}");
    run(&["lists", "diff", "-c", &ini]);
    run(&["lists", "check", "-c", &ini]);
    let explained = run(&["explain", "127.0.0.5", "--offline", "-c", &ini]);
    assert!(explained.contains("pre"), "{explained}");
}

#[test]
fn a_fleet_is_found_whose_heartbeats_are_on_all_servers() {
    let site = Site::start();
    let names = ["a", "b", "c", "d"];
    let mut gateways = Vec::new();
    for (at, name) in names.iter().enumerate() {
        gateways.push(site.gateway(at, |it| {
            it.set("redis.node", name).set("redis.heartbeat", "300ms")
        }));
    }
    let (_folder, ini) = ini(&gateways[SEED]);
    let digest = gateways[0].lists()["digest"].as_str().unwrap().to_owned();
    let wait = [
        "fleet",
        "wait",
        &digest,
        "--nodes",
        "4",
        "--timeout",
        "20s",
        "-c",
        &ini,
    ];
    run(&wait);
    let listed = run(&["fleet", "-c", &ini]);
    let found: Vec<&str> = listed
        .lines()
        .skip(1)
        .filter_map(|it| it.split(' ').next())
        .collect();
    assert_eq!(found, names, "{listed}");
    // They take their keys with them, wherever these are.
    for gateway in &mut gateways {
        assert_eq!(gateway.stderr.count("heartbeat-"), 0);
        gateway.signal(nix::sys::signal::Signal::SIGTERM);
        gateway.wait_exit();
    }
    for name in names {
        let key = format!("graygate:node:{name}");
        assert_eq!(
            site.cluster.run(&["EXISTS", &key]),
            redis::Value::Int(0),
            "{name}"
        );
    }
}

#[test]
fn a_held_change_is_accepted_by_a_key_of_another_slot() {
    let site = Site::start();
    let gateway = site.gateway(SEED, |it| it.set("redis.check_interval", "500ms"));
    site.cluster.run(&["DEL", "{gg}prod"]);
    let page = gateway.wait_for_lists("prod is held", |it| it["held"] != json!([]));
    let digest = page["held"][0]["digest"].as_str().unwrap();
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    site.cluster.run(&["SET", "graygate:accept", digest]);
    gateway.wait_for_log("change-accepted list=prod");
    assert_eq!(gateway.stderr.count("accept-key-refused"), 0);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
}

#[test]
fn a_trip_is_everybodys_where_its_keys_are_in_the_slot_of_the_lists_and_says_so_where_not() {
    let site = Site::start();
    let failing = Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    site.cluster.run(&["RPUSH", "{gg}gray", "10.1.0.0/16"]);
    let enforcing = |node: &str, edit: &dyn Fn(Setup) -> Setup| {
        site.gateway(SEED, |it| {
            let it = it.set("redis.node", node).set("verdict.mode", "enforce");
            let it = it.set("gateway.trusted_proxies", "127.0.0.0/30");
            edit(it.set("upstream.max_fails", 0))
        })
    };
    let together = |it: Setup| {
        let it = it.set("redis.tripped_key", "{gg}tripped");
        it.set("redis.release_key", "{gg}release")
    };
    // Of a change elsewhere the server of the lists says nothing.
    let apart = enforcing("apart", &|it| it.set("redis.check_interval", "500ms"));
    let (one, other) = (enforcing("one", &together), enforcing("other", &together));
    let serves = |gateway: &Gateway, name: &str| gateway.wait_served("127.0.0.5", name, DEADLINE);
    // A key elsewhere is read where it is: by hand, it holds.
    site.cluster.run(&["SET", "graygate:tripped", "stop"]);
    serves(&apart, "prod");
    serves(&one, "pre");
    site.cluster.run(&["DEL", "graygate:tripped"]);
    serves(&apart, "pre");
    // What a gateway finds is written with what it knows of the lists, or not at all.
    site.cluster
        .run(&["RPUSH", "{gg}pre", &failing.to_string()]);
    site.cluster
        .run(&["LREM", "{gg}pre", "0", &site.origins[0].to_string()]);
    for gateway in [&apart, &one, &other] {
        gateway.wait_for_lists("the failing one", |it| {
            it["pre"]["count"] == 1 || it["generation"] != 0
        });
    }
    apart.load_both_until("taken back", |it| it.metric("graygate_tripped") == 1.0);
    let line = apart.wait_for_log("trip-unwritten");
    assert!(
        line.contains("give tripped_key, release_key and the lists one hash tag"),
        "{line}"
    );
    serves(&apart, "prod");
    assert_eq!(one.metric("graygate_tripped"), 0.0);
    one.load_both_until("taken back", |it| it.metric("graygate_tripped") == 1.0);
    one.wait_for_log("trip-written");
    serves(&other, "prod");
    // Deleted, it begins anew for both.
    site.cluster.run(&["DEL", "{gg}tripped"]);
    other.wait_for_log("trip-reset");
    wait_until("another epoch is written", DEADLINE, || {
        site.cluster.run(&["EXISTS", "{gg}release"]) == redis::Value::Int(1)
    });
    for gateway in [&apart, &one, &other] {
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    }
    assert_eq!(one.stderr.count("epoch-unwritten"), 0);
}

#[test]
fn a_failover_is_followed_whether_it_was_asked_for_or_not() {
    let mut site = Site::start();
    // It knows the other servers by the one that it begins with, which will be away.
    let gateway = site.gateway(OWNER, |it| it);
    let fast = site.gateway(SEED, |it| it.set("redis.check_interval", "300ms"));
    fail_over_to(site.server(REPLICA));
    wait_for_role(site.server(OWNER), "slave");
    for gateway in [&gateway, &fast] {
        // A replica hears of what is changed, too, and says where that was.
        site.follows(gateway);
        assert_eq!(
            gateway.lists()["server"],
            json!(site.server(REPLICA).address().to_string())
        );
        let line = gateway.wait_for_log("redis-moved");
        assert!(
            line.contains(&format!(
                "to={:?}",
                site.server(REPLICA).address().to_string()
            )),
            "{line}"
        );
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    }
    site.cluster.servers[REPLICA].kill();
    wait_for_role(site.server(OWNER), "master");
    for gateway in [&gateway, &fast] {
        let address = json!(site.server(OWNER).address().to_string());
        gateway.wait_for_lists("it is there", |it| {
            it["server"] == address && it["error"] == json!(null)
        });
        site.follows(gateway);
    }
    // Also where the server of the URL is the one that is away.
    let replica = site.server(REPLICA).address();
    site.cluster.servers[REPLICA].restart();
    wait_for_role(site.server(REPLICA), "slave");
    site.cluster.wait_for_sync(REPLICA);
    site.cluster.servers[OWNER].kill();
    wait_for_role(site.server(REPLICA), "master");
    gateway.wait_for_lists("the last one", |it| {
        it["server"] == json!(replica.to_string()) && it["error"] == json!(null)
    });
    site.follows(&gateway);
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
}

#[test]
fn a_server_that_has_left_the_cluster_keeps_nobody_from_the_others() {
    let site = Site::start();
    // Its URL names one that will know of nobody, and answers.
    let gateway = site.gateway(REPLICA, |it| it);
    site.server(REPLICA).cli(&["CLUSTER", "RESET", "HARD"]);
    site.server(OWNER)
        .cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    site.server(OWNER)
        .cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let owner = json!(site.server(OWNER).address().to_string());
    gateway.wait_for_lists("it is back", |it| {
        it["refreshes"]["reconnect"] != 0 && it["server"] == owner && it["error"] == json!(null)
    });
    site.follows(&gateway);
}

/// Makes a master of a replica. The cluster gives that up when it takes it too long.
#[track_caller]
fn fail_over_to(redis: &Redis) {
    let mut asked: Option<Instant> = None;
    wait_until("it is a master", FAILOVER, || {
        if asked.is_none_or(|it| it.elapsed() > Duration::from_secs(6)) {
            redis.cli(&["CLUSTER", "FAILOVER"]);
            asked = Some(Instant::now());
        }
        format!("{:?}", redis.cli(&["ROLE"])).contains("master")
    });
}

#[track_caller]
fn wait_for_role(redis: &Redis, role: &str) {
    wait_until(&format!("it is a {role}"), FAILOVER, || {
        let said = redis.try_cli(&["ROLE"]);
        said.is_ok_and(|it| format!("{it:?}").contains(role))
    });
}

#[test]
fn a_slot_that_moves_key_by_key_is_followed_and_rolls_nobody_back() {
    for notify in ["events", "tracking", "poll"] {
        let site = Site::start();
        let gateway = site.gateway(OWNER, |it| notified(it, notify));
        let (from, to) = site.open_slot();
        let (host, port) = (
            to.address().ip().to_string(),
            to.address().port().to_string(),
        );
        for key in ["{gg}gray", "{gg}prod", "{gg}pre"] {
            from.cli(&["MIGRATE", &host, &port, key, "0", "5000"]);
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                assert_eq!(
                    gateway.get("127.0.0.5", "/").text(),
                    "pre",
                    "{key} {notify}"
                );
                assert_eq!(
                    gateway.get("127.0.0.6", "/").text(),
                    "prod",
                    "{key} {notify}"
                );
            }
        }
        // All of them are there, and the slot is not yet.
        assert_eq!(gateway.stderr.count("redis-moved"), 0, "{notify}");
        asking(to, &["RPUSH", "{gg}gray", "127.0.0.7"]);
        gateway.wait_served("127.0.0.7", "pre", DEADLINE);
        for server in [to, from] {
            set_slot(server, &["NODE", &site.cluster.id(SEED)]);
        }
        let address = json!(to.address().to_string());
        gateway.wait_for_lists("it has moved", |it| {
            it["server"] == address && it["error"] == json!(null)
        });
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0, "{notify}");
        site.follows(&gateway);
        site.cluster.run(&["DEL", "{gg}gray"]);
        gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        assert_eq!(
            site.origins[1].to_string(),
            gateway.lists()["prod"][0].as_str().unwrap()
        );
    }
}

#[test]
fn a_slot_that_stays_open_is_read_on_key_by_key() {
    for notify in ["events", "tracking", "poll"] {
        let site = Site::start();
        let gateway = site.gateway(OWNER, |it| notified(it, notify));
        let (from, to) = site.open_slot();
        // No key has moved. The rollback is one all the same, and what is written next is at the
        // other server.
        from.cli(&["DEL", "{gg}gray"]);
        gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        asking(to, &["RPUSH", "{gg}gray", "127.0.0.8"]);
        gateway.wait_served("127.0.0.8", "pre", DEADLINE);
        // So does a gateway begin, and a command.
        let other = site.gateway_that(SEED, "127.0.0.8", |it| it);
        let (_folder, ini) = ini(&other);
        let shown = run(&["lists", "show", "--offline", "-c", &ini]);
        assert!(shown.contains("[gray]\n127.0.0.8\n"), "{shown}");
        asking(to, &["DEL", "{gg}gray"]);
        gateway.wait_served("127.0.0.8", "prod", DEADLINE);
        other.wait_served("127.0.0.8", "prod", DEADLINE);
        // The resharding is called off.
        for server in [from, to] {
            set_slot(server, &["STABLE"]);
        }
        gateway.wait_for_log("redis-slot-open-over");
        site.follows(&gateway);
        for gateway in [&gateway, &other] {
            for event in ["redis-moved", "lists-unreadable", "lists-event-missed"] {
                assert_eq!(gateway.stderr.count(event), 0, "{event} {notify}");
            }
            assert_eq!(gateway.stderr.count("redis-slot-open "), 1, "{notify}");
        }
    }
}

#[test]
fn an_ask_is_followed_once_and_the_next_command_begins_at_the_owner_again() {
    let site = Site::start();
    let gateway = site.gateway(OWNER, |it| {
        it.set("redis.check_interval", "300ms")
            .set("redis.accept_key", "{gg}accept")
    });
    let (from, _) = site.open_slot();
    from.cli(&["DEL", "{gg}prod"]);
    let page = gateway.wait_for_lists("prod is held", |it| it["held"] != json!([]));
    let digest = page["held"][0]["digest"].as_str().unwrap();
    // The key that accepts is asked for, which is at neither.
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    let before = gateway.metric(checks);
    wait_until("some checks", DEADLINE, || {
        gateway.metric(checks) > before + 2.0
    });
    // Called off at the owner; the other one is forgotten.
    set_slot(from, &["STABLE"]);
    from.cli(&["SET", "{gg}accept", digest]);
    gateway.wait_for_log("change-accepted list=prod");
}

#[test]
fn a_key_of_a_slot_that_is_open_at_its_owner_alone_was_removed_by_nobody() {
    let site = Site::start();
    let gateway = site.gateway(OWNER, |it| it.set("redis.check_interval", "300ms"));
    let from = site.server(OWNER);
    set_slot(from, &["MIGRATING", &site.cluster.id(SEED)]);
    from.cli(&["DEL", "{gg}gray"]);
    let line = gateway.wait_for_log("lists-unreadable");
    let fix = format!("redis-cli --cluster fix {}", from.address());
    assert!(line.contains(&fix), "{line}");
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    // As that does it.
    set_slot(from, &["STABLE"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.stderr.count("redis-moved"), 0);
    site.follows(&gateway);
}

/// Runs a command on a server whose slot is yet to come.
#[track_caller]
fn asking(redis: &Redis, command: &[&str]) {
    let mut pipe = redis::pipe();
    pipe.cmd("ASKING").ignore();
    pipe.cmd(command[0]).arg(&command[1..]).ignore();
    pipe.exec(&mut redis.connect(0)).unwrap();
}

#[test]
fn a_redirection_without_a_host_leads_to_the_one_that_has_answered() {
    for (kind, shown) in [("hostname", "?"), ("unknown-endpoint", "")] {
        let site = Site::start();
        let (seed, owner) = (site.server(SEED), site.server(OWNER).address());
        seed.cli(&["CONFIG", "SET", "cluster-preferred-endpoint-type", kind]);
        let said = seed.try_cli(&["GET", "{gg}gray"]).unwrap_err();
        let moved = format!("{SLOT} {shown}:{}", owner.port());
        assert_eq!(said.detail(), Some(moved.as_str()));
        // Nobody is there: the host is another one, in truth.
        let there = SocketAddr::new(seed.address().ip(), owner.port());
        let setup = || one_slot(Setup::new().redis(seed.url()));
        let gateway = setup().start();
        let line = gateway.wait_for_log("lists-unreadable");
        assert!(line.contains(&there.to_string()), "{line}");
        assert!(line.contains("set cluster-announce-hostname"), "{line}");
        let _relay = Relay::at(there, owner);
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        assert_eq!(gateway.lists()["server"], json!(there.to_string()));
        site.follows(&gateway);
    }
}

#[test]
fn keys_of_several_slots_are_refused_with_what_to_write() {
    let cluster = Cluster::start();
    let words = [
        "Redis Cluster",
        "gray_key = {gg}gray",
        "pre_key = {gg}pre",
        "prod_key = {gg}prod",
        "accept_key = {gg}accept",
    ];
    // Elsewhere, and all on one server, which says so in other words.
    for (seed, keys) in [
        (0, ["gray", "pre", "prod"]),
        (0, ["pre", "prod", "{gg}gray"]),
    ] {
        let setup = Setup::new().redis(cluster.servers[seed].url());
        let lists = ["gray", "pre", "prod"].into_iter().zip(keys);
        let setup = lists.fold(setup, |setup, (list, key)| {
            setup.set(&format!("redis.{list}_key"), key)
        });
        let gateway = setup.start();
        let line = gateway.wait_for_log("lists-unreadable");
        for words in words {
            assert!(line.contains(words), "{words}: {line}");
        }
        let failures = gateway.metric("graygate_lists_failures_total");
        wait_until("more attempts", DEADLINE, || {
            gateway.metric("graygate_lists_failures_total") >= failures + 2.0
        });
        assert_eq!(gateway.stderr.count("lists-unreadable"), 1);
        let ini = gateway.path("graygate.ini");
        let output = run_to_exit(&["lists", "check", "-c", ini.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("gray_key = {gg}gray"), "{said}");
    }
    // Without a question to the server, -t knows who means a cluster by the tags.
    for (prod, is_told) in [("prod", true), ("{gg}prod", false)] {
        let setup = one_slot(Setup::new().redis(cluster.servers[0].url()));
        let setup = setup.set("redis.prod_key", prod);
        let output = run_to_exit(&["-t", "-c", setup.write_ini().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("are in several slots"), is_told, "{said}");
    }
    // It has no other database, either.
    let setup = one_slot(Setup::new().redis(cluster.servers[0].url_of(5)));
    let gateway = setup.start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("database 0 alone"), "{line}");
    assert!(line.contains("ends with /0"), "{line}");
}

#[test]
fn a_rollout_is_carried_on_where_its_keys_share_a_hash_tag_and_refused_where_not() {
    let site = Site::start();
    let words = "rollout start --steps 1,2,3 --every 1s --without-verdict -c";
    let start: Vec<&str> = words.split(' ').collect();
    let status = ["rollout", "status", "-c"];
    {
        let scattered = site.gateway(SEED, |it| it);
        let (_folder, path) = ini(&scattered);
        let output = run_to_exit(&[&start[..], &[&path]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(why.contains("release_key = {gg}release"), "{why}");
    }
    let gateway = site.gateway(SEED, |it| {
        let keys = ["salt", "tripped", "release", "history"].into_iter();
        keys.fold(it, |it, key| {
            it.set(&format!("redis.{key}_key"), format!("{{gg}}{key}"))
        })
    });
    let (_folder, path) = ini(&gateway);
    let output = run_to_exit(&[&start[..], &[&path]].concat());
    assert!(output.status.success(), "{output:?}");
    wait_until("it is done", DEADLINE, || {
        let output = run_to_exit(&[&status[..], &[&path]].concat());
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("done since")
    });
    let gray = site.cluster.run(&["LRANGE", "{gg}gray", "0", "-1"]);
    let gray: Vec<String> = redis::from_redis_value(gray).unwrap();
    assert_eq!(gray, ["127.0.0.5", "percent:3"]);
    assert_eq!(gateway.stderr.count("rollout-unattended"), 0);
}
