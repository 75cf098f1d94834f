//! The same lists on Redis 6, on the system's Redis and on Valkey, learned of in every way.
//! `scripts/redis-servers` fetches those that the system has not got.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;
use support::{DEADLINE, Origin, Redis, Setup, Site, run_to_exit};

/// The servers and their versions, as far as they matter.
const SERVERS: [(&str, &str); 3] = [
    ("redis-6-6.2.5.1", "redis_version:6.2."),
    ("redis-server", "redis_version:7."),
    ("valkey-9.1.2.post2", "valkey_version:9."),
];

/// The program of a server.
#[track_caller]
fn program(name: &str) -> PathBuf {
    if name == "redis-server" {
        return name.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("redis-servers").join(name);
    let path_shown = path.display();
    assert!(
        path.exists(),
        "{path_shown} is missing: run scripts/redis-servers"
    );
    path
}

/// Changes the lists in several ways, each of which has to be in force at once. Returns the peer
/// that is in `prod` at the end.
#[track_caller]
fn follow_the_lists(site: &Site, what: &str) -> Origin {
    for (command, pool) in [
        ("RPUSH gray 127.0.0.5", "pre"),
        ("DEL gray", "prod"),
        ("SADD gray 127.0.0.5", "pre"),
        ("RENAME gray other", "prod"),
        ("RENAME other gray", "pre"),
        ("PEXPIRE gray 50", "prod"),
    ] {
        site.redis(command);
        site.wait_served("127.0.0.5", pool);
    }
    let new = Origin::named("new prod");
    site.redis(&format!("LSET prod 0 {new}"));
    site.wait_served("127.0.0.6", "new prod");
    let page = site.gateway.lists();
    assert_eq!(page["missed_events"], 0, "{what}");
    assert_eq!(page["error"], json!(null), "{what}");
    new
}

#[test]
fn every_server_tells_of_changes_in_every_way() {
    for (name, version) in SERVERS {
        let program = program(name);
        for (options, notify, mode) in [
            (&[][..], "auto", "events"),
            (&["--rename-command", "CONFIG", ""], "auto", "tracking"),
            (&[], "tracking", "tracking"),
            (&[], "poll", "poll"),
        ] {
            let redis = Redis::start_program(&program, options);
            let server = redis.cli(&["INFO", "server"]);
            let server: String = redis::from_redis_value(server).unwrap();
            assert!(server.contains(version), "{name}: {server}");
            let site = Site::on(redis, |setup| {
                let setup = setup.set("redis.notify", notify);
                let poll = if mode == "poll" { "50ms" } else { "1h" };
                let setup = setup.set("redis.poll_interval", poll);
                let setup = setup.set("redis.check_interval", "1h");
                // The only server of prod is replaced.
                setup.set("lists.guard_share", "100")
            });
            let what = format!("{name} with notify = {notify}");
            let page = site.gateway.lists();
            assert_eq!(page["mode"], mode, "{what}");
            let _prod = follow_the_lists(&site, &what);
            let checked = site.refreshes("check") > 0;
            assert_eq!(checked, mode == "poll", "{what}");
            if mode == "tracking" {
                site.redis("RPUSH gray 127.0.0.5");
                site.wait_served("127.0.0.5", "pre");
                site.redis("FLUSHALL");
                site.wait_served("127.0.0.5", "new prod");
            }
        }
    }
}

#[test]
fn on_every_server_the_rights_that_the_docs_name_are_enough() {
    for (name, _) in SERVERS {
        let redis = Redis::start_program(&program(name), &[]);
        redis.allow_as_in_the_docs("graygate", 0);
        let (pre, prod) = Origin::pre_and_prod();
        redis.push_peers(&pre, &prod);
        let url = format!("redis://graygate:password@{}/0", redis.address());
        for mode in ["events", "tracking"] {
            let setup = Setup::new()
                .redis(&url)
                .set("redis.check_interval", "300ms");
            let setup = setup.set("redis.notify", mode);
            let mut gateway = setup.set("redis.timeout", "200ms").start();
            gateway.wait_served("127.0.0.5", "prod", DEADLINE);
            gateway.wait_for_lists(mode, |it| it["mode"] == mode);
            for _ in 0..2 {
                redis.cli(&["RPUSH", "gray", "127.0.0.5"]);
                gateway.wait_served("127.0.0.5", "pre", DEADLINE);
                // An empty list has to settle, which is a matter of WATCH.
                redis.cli(&["DEL", "gray"]);
                gateway.wait_served("127.0.0.5", "prod", DEADLINE);
            }
            let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
            support::wait_until("a check", DEADLINE, || gateway.metric(checks) > 0.0);
            assert_eq!(gateway.lists()["error"], json!(null), "{name}");
            // Its heartbeat, too, and who asks for it as the same user.
            let ini = gateway.path("graygate.ini");
            let fleet = || run_to_exit(&["fleet", "-c", ini.to_str().unwrap()]);
            support::wait_until("it is listed", DEADLINE, || {
                let said = String::from_utf8(fleet().stdout).unwrap();
                said.lines().any(|line| line.contains(&format!(" {mode} ")))
            });
            assert_eq!(gateway.stderr.count("refused"), 0, "{name}");
            gateway.signal(Signal::SIGTERM);
            gateway.wait_exit();
            let keys = redis.cli(&["KEYS", "graygate:node:*"]);
            assert_eq!(keys, redis::Value::Array(Vec::new()), "{name}");
        }
        // Nothing was refused, not even what the gateway can do without.
        let log = redis.cli(&["ACL", "LOG"]);
        assert_eq!(log, redis::Value::Array(Vec::new()), "{name}: {log:?}");
    }
}

#[test]
fn every_server_says_that_it_has_not_synced_or_has_lost_its_master() {
    for (name, _) in SERVERS {
        let program = program(name);
        let mut master = Redis::start_program(&program, &["--repl-diskless-sync-delay", "0"]);
        let (pre, prod) = Origin::pre_and_prod();
        master.push_peers(&pre, &prod);
        master.push("gray", &[&"127.0.0.5"]);
        let (host, port) = (master.address().ip(), master.address().port());
        let options = ["--replicaof", &host.to_string(), &port.to_string()];
        let mut replica = Redis::start_program(&program, &options);
        support::wait_until("it has its master's lists", DEADLINE, || {
            let length = replica.try_cli(&["LLEN", "prod"]);
            length.is_ok_and(|it| it == redis::Value::Int(1))
        });
        let setup = Setup::new().redis(replica.url());
        let setup = setup.set("redis.check_interval", "300ms");
        let gateway = setup.set("redis.timeout", "1s").start();
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        // Empty, and with nobody to sync with.
        master.signal(Signal::SIGSTOP);
        replica.kill();
        replica.restart();
        gateway.wait_for_lists(name, |it| it["kept"][0]["fault"] == "unsynced");
        assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre", "{name}");
        master.signal(Signal::SIGCONT);
        gateway.wait_for_lists(name, |it| it["error"] == json!(null));
        assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre", "{name}");
        master.kill();
        let is_found =
            |it: &serde_json::Value| it["findings"]["first"][0]["finding"] == "replica-link-down";
        gateway.wait_for_lists(name, is_found);
        // It says so to a new connection, too, and that it had the data.
        replica.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        replica.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let reconnects = "graygate_lists_refreshes_total{cause=\"reconnect\"}";
        let before = gateway.metric(reconnects);
        support::wait_until("another connection", DEADLINE, || {
            gateway.metric(reconnects) > before
        });
        let page = gateway.wait_for_lists(name, is_found);
        assert_eq!(page["kept"], json!([]), "{name}");
        assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre", "{name}");
    }
}
