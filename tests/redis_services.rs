//! Several services on one Redis: what is read of which, what comes into force together, and what one service
//! has to do with another.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use support::{
    Cluster, DEADLINE, Gateway, LastProcess, Origin, Redis, Setup, poll, upgrade_command,
    upgrade_well, wait_until,
};
use xxhash_rust::xxh64::xxh64;

const SERVICES: [&str; 2] = ["shop", "api"];

/// A host of each service, the default one's first.
const HOSTS: [&str; 3] = ["localhost", "shop.test", "api.test"];

/// A client that is in the gray list of each service, and one that is not.
const GRAY: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";

/// Redis with the lists of the default service and of two others.
struct Site {
    redis: Redis,
    /// Of each service `pre` and `prod`.
    origins: Vec<Origin>,
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let origins = (0..3).flat_map(|_| ["pre", "prod"].map(Origin::named));
        let site = Self {
            redis: Redis::start(),
            origins: origins.collect(),
        };
        site.fill();
        site
    }

    /// Writes all lists.
    #[track_caller]
    fn fill(&self) {
        let prefixes = ["", "shop:", "api:"].into_iter();
        for (prefix, origins) in prefixes.zip(self.origins.chunks(2)) {
            for (pool, origin) in ["pre", "prod"].into_iter().zip(origins) {
                self.redis.push(&format!("{prefix}{pool}"), &[origin]);
            }
            self.redis.push(&format!("{prefix}gray"), &[&GRAY]);
        }
    }

    #[track_caller]
    fn gateway(&self, url: &str, notify: &str) -> Gateway {
        self.gateway_with(url, notify, |it| it)
    }

    #[track_caller]
    fn gateway_with(&self, url: &str, notify: &str, edit: impl FnOnce(Setup) -> Setup) -> Gateway {
        let mut setup = Setup::new().redis(url);
        for service in SERVICES {
            setup = setup.set(
                &format!("service {service}.hosts"),
                format!("{service}.test"),
            );
        }
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("redis.poll_interval", "100ms");
        edit(setup.set("redis.notify", notify)).start()
    }

    /// How many lists were asked for since this was last asked.
    #[track_caller]
    fn lists_read(&self) -> u64 {
        let stats = self.redis.cli(&["INFO", "commandstats"]);
        let stats: String = redis::from_redis_value(stats).unwrap();
        self.redis.cli(&["CONFIG", "RESETSTAT"]);
        let calls = stats.split_once("cmdstat_lrange:calls=").map(|it| it.1);
        let calls = calls.and_then(|it| it.split_once(','));
        calls.map_or(0, |it| it.0.parse().unwrap())
    }
}

/// The pool that serves this client at this service.
#[track_caller]
fn pool(gateway: &Gateway, host: &str, client: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    gateway.connect_from(client).ask(request).text()
}

#[track_caller]
fn wait_for_pool(gateway: &Gateway, host: &str, client: &str, expected: &str) {
    let what = format!("{client} gets {expected} of {host}");
    wait_until(&what, DEADLINE, || pool(gateway, host, client) == expected);
}

#[test]
fn a_change_of_one_service_is_in_force_and_read_alone_where_it_is_announced() {
    for notify in ["events", "tracking", "poll"] {
        let site = Site::start();
        let gateway = site.gateway(&site.redis.url(), notify);
        for host in HOSTS {
            wait_for_pool(&gateway, host, GRAY, "pre");
            wait_for_pool(&gateway, host, OTHER, "prod");
        }
        site.lists_read();
        site.redis.push("shop:gray", &[&OTHER]);
        wait_for_pool(&gateway, "shop.test", OTHER, "pre");
        assert_eq!(pool(&gateway, "api.test", OTHER), "prod");
        assert_eq!(pool(&gateway, "localhost", OTHER), "prod");
        // All three services have nine lists.
        let read = site.lists_read();
        match notify {
            "poll" => assert!(read >= 9, "{read}"),
            _ => assert_eq!(read, 3, "{notify}"),
        }
        site.redis.push("gray", &[&OTHER]);
        wait_for_pool(&gateway, "localhost", OTHER, "pre");
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    }
}

#[test]
fn what_is_written_at_one_moment_is_in_force_at_one_moment_for_all_services() {
    let site = Site::start();
    let gateway = site.gateway(&site.redis.url(), "events");
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
    let mut connection = site.redis.connect(0);
    for round in 0..30 {
        let client = format!("127.0.1.{}", round + 1);
        let mut both = redis::pipe();
        both.atomic();
        // Many others, so that the announcements do not come in one piece.
        for other in 0..200 {
            both.cmd("RPUSH")
                .arg("shop:gray")
                .arg(format!("10.1.{round}.{other}"));
        }
        both.cmd("RPUSH").arg("shop:gray").arg(&client);
        both.cmd("RPUSH").arg("api:gray").arg(&client);
        let writer = thread::spawn(move || {
            let _: redis::Value = both.query(&mut connection).unwrap();
            connection
        });
        loop {
            let seen = ["shop.test", "api.test", "shop.test"];
            let seen = seen.map(|it| pool(&gateway, it, &client) == "pre");
            assert!(seen.is_sorted(), "{seen:?} in round {round}");
            if seen == [true; 3] {
                break;
            }
        }
        connection = writer.join().unwrap();
    }
}

#[test]
fn a_service_whose_list_is_rewritten_all_the_time_holds_up_no_rollback_of_another() {
    let site = Site::start();
    let gateway = site.gateway(&site.redis.url(), "events");
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = site.redis.connect(0);
            while !is_over.load(Ordering::Relaxed) {
                for command in [&["DEL", "api:gray"][..], &["RPUSH", "api:gray", GRAY]] {
                    let mut it = redis::cmd(command[0]);
                    let _: redis::Value = it.arg(&command[1..]).query(&mut connection).unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        site.redis.cli(&["DEL", "shop:gray"]);
        wait_for_pool(&gateway, "shop.test", GRAY, "prod");
        is_over.store(true, Ordering::Relaxed);
    });
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
}

#[test]
fn a_key_that_is_forbidden_or_no_list_affects_that_list_of_that_service() {
    let site = Site::start();
    site.redis.cli(&[
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">secret",
        "+@all",
        "~gray",
        "~pre",
        "~prod",
        "~api:*",
        "~shop:pre",
        "~shop:prod",
        "&*",
    ]);
    let url = site.redis.url().replacen("//", "//gate:secret@", 1);
    let gateway = site.gateway(&url, "events");
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
    let line = gateway.wait_for_log("key-refused");
    assert!(
        line.contains("list=gray service=shop key=\"shop:gray\""),
        "{line}"
    );
    assert_eq!(pool(&gateway, "shop.test", GRAY), "prod");
    site.redis.cli(&["DEL", "api:gray"]);
    site.redis.cli(&["SET", "api:gray", GRAY]);
    let line = gateway.wait_for_log("key-wrong-type");
    assert!(line.contains("list=gray service=api"), "{line}");
    site.redis.push("gray", &[&OTHER]);
    wait_for_pool(&gateway, "localhost", OTHER, "pre");
    assert_eq!(gateway.stderr.count("salt-"), 0, "nobody has a share");
}

/// A salt with which half of the clients include GRAY, or not.
fn salt(includes: bool) -> String {
    let is_in = |salt: &String| {
        let seed = xxh64(salt.as_bytes(), 0);
        xxh64(&[127, 0, 0, 5], seed) % 10_000 < 5_000
    };
    let mut salts = (0..).map(|it| format!("release-{it}"));
    salts.find(|it| is_in(it) == includes).unwrap()
}

#[test]
fn the_salt_of_a_share_is_read_with_the_list_and_followed() {
    for notify in ["events", "tracking", "poll"] {
        let site = Site::start();
        let gateway = site.gateway(&site.redis.url(), notify);
        wait_for_pool(&gateway, "shop.test", GRAY, "pre");
        let mut both = redis::pipe();
        both.atomic().cmd("DEL").arg("shop:gray");
        both.cmd("RPUSH").arg("shop:gray").arg("percent:50");
        both.cmd("SET").arg("shop:salt").arg(salt(false) + "\n");
        let _: redis::Value = both.query(&mut site.redis.connect(0)).unwrap();
        wait_for_pool(&gateway, "shop.test", GRAY, "prod");
        site.redis.cli(&["SET", "shop:salt", &salt(true)]);
        wait_for_pool(&gateway, "shop.test", GRAY, "pre");
        site.redis.cli(&["SET", "shop:salt", &salt(false)]);
        wait_for_pool(&gateway, "shop.test", GRAY, "prod");
        // The last one stays.
        site.redis.cli(&["DEL", "shop:salt"]);
        site.redis.cli(&["SET", "shop:salt", &salt(true)]);
        wait_for_pool(&gateway, "shop.test", GRAY, "pre");
        let wrong = "if redis.call('DEL', KEYS[1]) then redis.call('RPUSH', KEYS[1], 'x') end";
        site.redis.cli(&["EVAL", wrong, "1", "shop:salt"]);
        let line = gateway.wait_for_log("key-wrong-type");
        assert!(line.contains("list=salt service=shop"), "{line}");
        assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
    }
}

/// The text of a salt that would give [`GRAY`] the other version counts where Redis has none.
fn with_other_salt(setup: Setup) -> Setup {
    setup.set("service shop.salt", salt(false))
}

#[test]
fn a_share_keeps_its_salt_while_a_list_without_shares_is_held_whatever_becomes_of_the_key() {
    let site = Site::start();
    let url = site.redis.url();
    let gateway = site.gateway_with(&url, "events", with_other_salt);
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    let push = |entries: &[&str], salt: &[&str]| {
        let mut all = redis::pipe();
        all.atomic().cmd("DEL").arg("shop:gray");
        all.cmd("RPUSH").arg("shop:gray").arg(entries);
        all.cmd(salt[0]).arg(&salt[1..]);
        let _: redis::Value = all.query(&mut site.redis.connect(0)).unwrap();
    };
    push(
        &["percent:50", "10.0.0.1"],
        &["SET", "shop:salt", &salt(true)],
    );
    gateway.wait_for_log("lists-published service=shop generation=2");
    let more = [(); 2].map(|()| Origin::named("pre"));
    let read = |more: &Origin, entries: usize| {
        // What is written afterwards is in force, so all before it was read.
        site.redis.push("shop:pre", &[more]);
        gateway.wait_for_log(&format!("gray=2 pre={entries} "));
        assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
    };
    // With the list, and after it.
    push(&["0.0.0.0/0"], &["DEL", "shop:salt"]);
    gateway.wait_for_log("change-held service=shop list=gray");
    read(&more[0], 2);
    push(&["0.0.0.0/0"], &["SET", "shop:salt", &salt(true)]);
    site.redis.cli(&["DEL", "shop:salt"]);
    read(&more[1], 3);
    // Somebody wants a share without it.
    push(&["percent:50"], &["DEL", "shop:salt"]);
    wait_for_pool(&gateway, "shop.test", GRAY, "prod");
}

#[test]
fn a_salt_that_redis_has_lost_with_the_lists_is_kept_with_them() {
    let mut site = Site::start();
    site.redis.cli(&["DEL", "shop:gray"]);
    site.redis.push("shop:gray", &[&"percent:50"]);
    site.redis.cli(&["SET", "shop:salt", &salt(true)]);
    let gateway = site.gateway_with(&site.redis.url(), "events", with_other_salt);
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    site.redis.kill();
    site.redis.restart();
    gateway.wait_for_log("has none of the lists since it was restarted");
    assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
    // A salt alone is no list, and none is taken yet.
    site.redis.cli(&["SET", "shop:salt", &salt(false)]);
    let failures = || gateway.metric("graygate_lists_failures_total");
    let before = failures();
    wait_until("it is read", DEADLINE, || failures() > before + 1.0);
    assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
    let mut all = redis::pipe();
    all.atomic().cmd("SET").arg("shop:salt").arg(salt(true));
    all.cmd("RPUSH").arg("shop:gray").arg("percent:50");
    for (pool, origin) in ["pre", "prod"].into_iter().zip(&site.origins[2..]) {
        let key = format!("shop:{pool}");
        all.cmd("RPUSH").arg(key).arg(origin.to_string());
    }
    let _: redis::Value = all.query(&mut site.redis.connect(0)).unwrap();
    gateway.wait_for_log("lists-readable");
    assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
}

#[test]
fn a_salt_that_is_forbidden_is_missed_only_by_a_share_and_the_setting_counts() {
    let site = Site::start();
    let keys = [
        "~gray",
        "~pre",
        "~prod",
        "~api:*",
        "~shop:pre",
        "~shop:prod",
        "~shop:gray",
    ];
    let channels = [
        "&__keyspace@0__:gray",
        "&__keyspace@0__:p*",
        "&__keyspace@0__:api:*",
    ];
    let own = ["&__keyspace@0__:shop:gray", "&__keyspace@0__:shop:p*"];
    let user = [
        "ACL",
        "SETUSER",
        "gate",
        "reset",
        "on",
        ">secret",
        "+@all",
        "resetchannels",
    ];
    site.redis
        .cli(&[&user[..], &keys, &channels, &own].concat());
    let url = site.redis.url().replacen("//", "//gate:secret@", 1);
    let gateway = site.gateway(&url, "events");
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    assert_eq!(gateway.stderr.count("salt-"), 0);
    site.redis.push("shop:gray", &[&"percent:50"]);
    let line = gateway.wait_for_log("salt-refused");
    assert!(
        line.contains("key=\"shop:salt\" service=shop error=\"NOPERM"),
        "{line}"
    );
    gateway.wait_for_log("salt-events-refused");
    site.redis.push("shop:gray", &[&OTHER]);
    wait_for_pool(&gateway, "shop.test", OTHER, "pre");
    assert_eq!(gateway.stderr.count("salt-refused"), 1);
}

#[test]
fn a_server_that_was_restarted_without_data_takes_the_lists_of_no_service() {
    let mut site = Site::start();
    let gateway = site.gateway(&site.redis.url(), "events");
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    site.redis.kill();
    site.redis.restart();
    gateway.wait_for_log("has none of the lists since it was restarted");
    for host in HOSTS {
        assert_eq!(pool(&gateway, host, GRAY), "pre");
    }
}

#[test]
fn the_lists_of_all_services_go_with_a_flush_and_what_would_empty_prod_is_held() {
    for (notify, check) in [("events", "200ms"), ("tracking", "1h"), ("poll", "1h")] {
        let site = Site::start();
        let url = site.redis.url();
        let gateway = site.gateway_with(&url, notify, |it| it.set("redis.check_interval", check));
        wait_for_pool(&gateway, "api.test", GRAY, "pre");
        site.redis.cli(&["FLUSHALL"]);
        for host in HOSTS {
            wait_for_pool(&gateway, host, GRAY, "prod");
        }
        site.fill();
        for host in HOSTS {
            wait_for_pool(&gateway, host, GRAY, "pre");
            assert_eq!(pool(&gateway, host, OTHER), "prod");
        }
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0, "{notify}");
    }
}

#[test]
fn one_list_and_its_salt_release_two_services_at_one_moment() {
    let site = Site::start();
    // Nothing of `api`'s own list counts.
    site.redis.push("api:gray", &[&OTHER]);
    site.redis.cli(&["SET", "api:salt", &salt(false)]);
    let url = site.redis.url();
    let gateway = site.gateway_with(&url, "events", |it| it.set("service api.gray", "shop"));
    let is_released = |expected: bool, what: &str| {
        let mut seen = [!expected; 3];
        wait_until(what, DEADLINE, || {
            // One that was asked later is not behind.
            seen = ["shop.test", "api.test", "shop.test"]
                .map(|it| (pool(&gateway, it, GRAY) == "pre") == expected);
            assert!(seen.is_sorted(), "{what}: {seen:?}");
            seen == [true; 3]
        });
        assert_eq!(pool(&gateway, "api.test", OTHER), "prod", "{what}");
    };
    is_released(true, "the list");
    for round in 0..10 {
        site.redis.cli(&["LREM", "shop:gray", "0", GRAY]);
        site.redis.push("shop:gray", &[&"10.0.0.1"]);
        is_released(false, &format!("removed, {round}"));
        site.redis.push("shop:gray", &[&GRAY]);
        is_released(true, &format!("added, {round}"));
    }
    let mut both = redis::pipe();
    both.atomic().cmd("SET").arg("shop:salt").arg(salt(false));
    both.cmd("DEL").arg("shop:gray");
    // Of OTHER nothing is said here, so no share has it.
    both.cmd("RPUSH")
        .arg("shop:gray")
        .arg("127.0.0.5 percent:50");
    let _: redis::Value = both.query(&mut site.redis.connect(0)).unwrap();
    is_released(false, "the first salt");
    for round in 0..5 {
        site.redis.cli(&["SET", "shop:salt", &salt(true)]);
        is_released(true, &format!("a salt that includes it, {round}"));
        site.redis.cli(&["SET", "shop:salt", &salt(false)]);
        is_released(false, &format!("one that does not, {round}"));
    }
}

#[test]
fn services_that_a_reload_brings_while_redis_is_away_come_with_the_next_one() {
    let mut site = Site::start();
    let url = site.redis.url();
    let mut gateway = site.gateway_with(&url, "events", |it| it.set("redis.timeout", "500ms"));
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
    site.redis.kill();
    gateway.wait_for_log("lists-unreadable");
    let other = |it: Setup| {
        let it = it.unset("service api.hosts");
        it.set("service new.hosts", "new.test")
    };
    gateway.edit_ini(other);
    gateway.signal(Signal::SIGHUP);
    let line = gateway.wait_for_log("reload-failed");
    assert!(line.contains("[redis]"), "{line}");
    // Nothing has changed.
    assert_eq!(pool(&gateway, "api.test", GRAY), "pre");
    assert_eq!(pool(&gateway, "new.test", GRAY), "pre");
    site.redis.restart();
    site.fill();
    site.redis.push("new:prod", &[&site.origins[1]]);
    gateway.wait_for_log("lists-readable");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log(" reloaded file=");
    wait_for_pool(&gateway, "new.test", GRAY, "prod");
    assert_eq!(gateway.admin_get("/lists?service=api").0, 404);
    // Whose keys are read from now on, and which are not.
    site.redis.push("new:pre", &[&site.origins[0]]);
    site.redis.push("new:gray", &[&GRAY]);
    wait_for_pool(&gateway, "new.test", GRAY, "pre");
    let listeners = |key: &str| {
        let channel = format!("__keyspace@0__:{key}");
        let said = site.redis.cli(&["PUBSUB", "NUMSUB", &channel]);
        let (_, count): (String, u64) = redis::from_redis_value(said).unwrap();
        count
    };
    assert_eq!(["new:gray", "api:gray"].map(listeners), [1, 0]);
    site.redis.push("shop:gray", &[&OTHER]);
    wait_for_pool(&gateway, "shop.test", OTHER, "pre");
}

#[test]
fn a_list_that_is_too_long_holds_up_no_other_one_and_is_taken_when_it_is_shorter() {
    let site = Site::start();
    let url = site.redis.url();
    let set = |it: Setup| {
        it.set("redis.max_reply", "64k")
            .set("redis.check_interval", "300ms")
    };
    let gateway = site.gateway_with(&url, "events", set);
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    let entries: Vec<String> = (0..6000).map(|at| format!("2001:db8::{at:x}")).collect();
    let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
    site.redis.push("shop:gray", &entries);
    let kept = json!([{"fault": "too-long", "list": "gray"}]);
    let is_kept = |service: &str| {
        let page = gateway.admin_get(&format!("/lists?service={service}")).1;
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        page["kept"] == kept
    };
    wait_until("it is kept", DEADLINE, || is_kept("shop"));
    for (key, host) in [("api:gray", "api.test"), ("gray", "localhost")] {
        site.redis.push(key, &[&OTHER]);
        wait_for_pool(&gateway, host, OTHER, "pre");
    }
    // The other lists of the service, too.
    let moved = Origin::named("moved");
    site.redis.push("shop:pre", &[&moved]);
    site.redis.cli(&["LPOP", "shop:pre"]);
    wait_for_pool(&gateway, "shop.test", GRAY, "moved");
    assert!(!is_kept("api") && is_kept("shop"));
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    assert_eq!(gateway.stderr.count("lists-event-missed"), 0);
    assert_eq!(gateway.stderr.count("fault=too-long"), 1);
    site.redis.cli(&["LTRIM", "shop:gray", "0", "1"]);
    gateway.wait_for_log("list-recovered service=shop list=gray fault=too-long");
    site.redis.cli(&["DEL", "shop:gray"]);
    wait_for_pool(&gateway, "shop.test", GRAY, "prod");
}

/// The services of a cluster, and the hash tags of their keys: two are in one slot, and two in two slots of
/// another master.
const TAGS: [(&str, &str); 4] = [
    ("", "{gg}"),
    ("shop", "{gg}shop:"),
    ("api", "{api}:"),
    ("web", "{web1}:"),
];

/// With these services, and their keys.
fn with_keys(mut setup: Setup, tags: &[(&str, &str)]) -> Setup {
    for (service, tag) in tags {
        let section = match *service {
            "" => "redis".to_owned(),
            other => format!("service {other}"),
        };
        for list in ["gray", "pre", "prod"] {
            setup = setup.set(&format!("{section}.{list}_key"), format!("{tag}{list}"));
        }
        if !service.is_empty() {
            setup = setup.set(&format!("{section}.hosts"), format!("{service}.test"));
            // Elsewhere than the lists.
            setup = setup.set(&format!("{section}.salt_key"), format!("{service}:salt"));
        }
    }
    setup
}

/// A cluster with their lists.
struct ClusterSite {
    cluster: Cluster,
    _origins: Vec<Origin>,
}

impl ClusterSite {
    #[track_caller]
    fn start() -> Self {
        let cluster = Cluster::start();
        let mut origins = Vec::new();
        for (_, tag) in TAGS {
            for pool in ["pre", "prod"] {
                let origin = Origin::named(pool);
                cluster.run(&["RPUSH", &format!("{tag}{pool}"), &origin.to_string()]);
                origins.push(origin);
            }
            cluster.run(&["RPUSH", &format!("{tag}gray"), GRAY]);
        }
        Self {
            cluster,
            _origins: origins,
        }
    }

    #[track_caller]
    fn gateway(&self) -> Gateway {
        self.setup(&TAGS).start()
    }

    /// With these services.
    #[track_caller]
    fn setup(&self, tags: &[(&str, &str)]) -> Setup {
        let setup = Setup::new().redis(self.cluster.servers[2].url());
        let setup = setup.set("redis.accept_key", "{gg}accept");
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("redis.poll_interval", "100ms");
        with_keys(setup.set("redis.timeout", "1s"), tags)
    }

    /// The slot of a key, and the master that has it at first.
    #[track_caller]
    fn place(&self, key: &str) -> (String, usize) {
        let slot = self.cluster.servers[0].cli(&["CLUSTER", "KEYSLOT", key]);
        let slot: usize = redis::from_redis_value(slot).unwrap();
        (slot.to_string(), slot / 5461)
    }
}

/// How many threads of this name there are.
fn threads(gateway: &Gateway, name: &str) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let names = all.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names.filter(|it| it.trim() == name).count()
}

#[test]
fn services_of_a_cluster_may_be_in_several_slots_at_several_servers() {
    let site = ClusterSite::start();
    let (cluster, gateway) = (&site.cluster, site.gateway());
    for host in ["localhost", "shop.test", "api.test", "web.test"] {
        wait_for_pool(&gateway, host, GRAY, "pre");
    }
    assert_eq!(threads(&gateway, "lists-redis"), 2);
    // Both are followed by what is announced.
    for (host, key) in [("api.test", "{api}:gray"), ("shop.test", "{gg}shop:gray")] {
        cluster.run(&["RPUSH", key, OTHER]);
        wait_for_pool(&gateway, host, OTHER, "pre");
    }
    assert_eq!(pool(&gateway, "localhost", OTHER), "prod");
    cluster.run(&["SET", "api:salt", &salt(false)]);
    cluster.run(&["RPUSH", "{api}:gray", "percent:50"]);
    cluster.run(&["LREM", "{api}:gray", "0", GRAY]);
    wait_for_pool(&gateway, "api.test", GRAY, "prod");
    cluster.run(&["SET", "api:salt", &salt(true)]);
    cluster.run(&["RPUSH", "{api}:gray", "10.0.0.1"]);
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
    // A rollback of one is followed, too.
    cluster.run(&["DEL", "{gg}shop:gray"]);
    wait_for_pool(&gateway, "shop.test", GRAY, "prod");
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
}

#[test]
fn the_servers_of_a_service_that_shares_a_list_may_be_in_another_slot_than_that() {
    let site = ClusterSite::start();
    let origins = ["pre", "prod"].map(Origin::named);
    // Nothing of a list of its own counts, wherever it is.
    site.cluster.run(&["RPUSH", "{api}both:gray", OTHER]);
    for (pool, origin) in ["pre", "prod"].into_iter().zip(&origins) {
        let key = format!("{{api}}both:{pool}");
        site.cluster.run(&["RPUSH", &key, &origin.to_string()]);
    }
    assert_ne!(site.place("{api}").1, site.place("{gg}").1);
    let setup = site.setup(&TAGS).set("service both.hosts", "both.test");
    let setup = setup.set("service both.gray", "shop");
    let setup = setup.set("service both.pre_key", "{api}both:pre");
    let gateway = setup.set("service both.prod_key", "{api}both:prod").start();
    for (host, client, expected) in [
        ("shop.test", GRAY, "pre"),
        ("both.test", GRAY, "pre"),
        ("both.test", OTHER, "prod"),
    ] {
        wait_for_pool(&gateway, host, client, expected);
    }
    for round in 0..5 {
        let client = format!("127.0.3.{round}");
        site.cluster.run(&["RPUSH", "{gg}shop:gray", &client]);
        loop {
            let seen = ["shop.test", "both.test", "shop.test"];
            let seen = seen.map(|it| pool(&gateway, it, &client) == "pre");
            assert!(seen.is_sorted(), "{seen:?} in round {round}");
            if seen == [true; 3] {
                break;
            }
        }
    }
    // And its own servers are followed where they are.
    let moved = Origin::named("moved");
    site.cluster
        .run(&["RPUSH", "{api}both:pre", &moved.to_string()]);
    site.cluster.run(&["LPOP", "{api}both:pre"]);
    wait_for_pool(&gateway, "both.test", GRAY, "moved");
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
}

#[test]
fn a_master_of_a_cluster_that_is_away_holds_up_its_own_services_only() {
    let mut site = ClusterSite::start();
    for server in &site.cluster.servers {
        server.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let gateway = site.gateway();
    for host in ["localhost", "shop.test", "api.test", "web.test"] {
        wait_for_pool(&gateway, host, GRAY, "pre");
    }
    let away = site.place("{api}").1;
    assert_eq!(away, site.place("{web1}").1);
    let away = &mut site.cluster.servers[away];
    away.cli(&["SAVE"]);
    away.kill();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("(the lists of api, web)"), "{line}");
    site.cluster.run(&["RPUSH", "{gg}shop:gray", OTHER]);
    wait_for_pool(&gateway, "shop.test", OTHER, "pre");
    site.cluster.run(&["DEL", "{gg}gray"]);
    wait_for_pool(&gateway, "localhost", GRAY, "prod");
    for host in ["api.test", "web.test"] {
        assert_eq!(pool(&gateway, host, GRAY), "pre");
        assert_eq!(pool(&gateway, host, OTHER), "prod");
    }
    let error = gateway.lists()["error"].to_string();
    assert!(error.contains("(the lists of api, web)"), "{error}");
    let away = site.place("{api}").1;
    site.cluster.servers[away].restart();
    site.cluster.run(&["RPUSH", "{api}:gray", OTHER]);
    wait_for_pool(&gateway, "api.test", OTHER, "pre");
    gateway.wait_for_log("lists-readable");
    assert_eq!(pool(&gateway, "web.test", GRAY), "pre");
}

#[test]
fn a_service_whose_slot_moves_is_handed_to_the_watcher_of_the_other_server() {
    let site = ClusterSite::start();
    let (slot, from) = site.place("{api}");
    let to = site.place("{gg}").1;
    assert_ne!(from, to);
    let servers = &site.cluster.servers;
    let (from_id, to_id) = (site.cluster.id(from), site.cluster.id(to));
    let (from, to) = (&servers[from], &servers[to]);
    let set_slot = |server: &Redis, state: &[&str]| {
        server.cli(&[&["CLUSTER", "SETSLOT", &slot][..], state].concat());
    };
    let (host, port) = (
        to.address().ip().to_string(),
        to.address().port().to_string(),
    );
    let migrate = |key: &str| from.cli(&["MIGRATE", &host, &port, key, "0", "5000"]);
    let gateway = site.gateway();
    for host in ["localhost", "shop.test", "api.test", "web.test"] {
        wait_for_pool(&gateway, host, GRAY, "pre");
    }
    set_slot(to, &["IMPORTING", &from_id]);
    set_slot(from, &["MIGRATING", &to_id]);
    migrate("{api}:pre");
    gateway.wait_for_log("redis-slot-open ");
    let late = site.gateway();
    for gateway in [&gateway, &late] {
        for host in ["localhost", "api.test", "web.test"] {
            wait_for_pool(gateway, host, GRAY, "pre");
            assert_eq!(pool(gateway, host, OTHER), "prod");
        }
        // Whose neighbours are followed all the same.
        assert_eq!(pool(gateway, "web.test", OTHER), "prod");
    }
    site.cluster.run(&["RPUSH", "{web1}:gray", OTHER]);
    for gateway in [&gateway, &late] {
        wait_for_pool(gateway, "web.test", OTHER, "pre");
        gateway.wait_for_log("redis-slot-open ");
    }
    migrate("{api}:gray");
    migrate("{api}:prod");
    for server in [to, from] {
        set_slot(server, &["NODE", &to_id]);
    }
    for (at, gateway) in [&gateway, &late].into_iter().enumerate() {
        let client = format!("127.0.1.{at}");
        to.cli(&["RPUSH", "{api}:gray", &client]);
        wait_for_pool(gateway, "api.test", &client, "pre");
        // By an announcement, and by the watcher that there was.
        wait_until("nothing is polled", DEADLINE, || {
            threads(gateway, "lists-redis") == 2
        });
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
        assert_eq!(gateway.stderr.count("lists-event-missed"), 0);
    }
}

#[test]
fn a_slot_that_was_open_when_a_gateway_came_is_polled_no_longer_than_that() {
    let site = ClusterSite::start();
    let (slot, from) = site.place("{api}");
    let to = site.place("{gg}").1;
    let (from_id, to_id) = (site.cluster.id(from), site.cluster.id(to));
    let servers = [&site.cluster.servers[from], &site.cluster.servers[to]];
    let states = [["MIGRATING", &to_id], ["IMPORTING", &from_id]];
    for (server, state) in servers.into_iter().zip(states).rev() {
        server.cli(&[&["CLUSTER", "SETSLOT", &slot][..], &state].concat());
    }
    // So that there is a key that it asks for elsewhere.
    servers[0].cli(&["DEL", "{api}:gray"]);
    let gateway = site.gateway();
    for (host, expected) in [("api.test", "prod"), ("web.test", "pre")] {
        wait_for_pool(&gateway, host, GRAY, expected);
    }
    gateway.wait_for_log("redis-slot-open ");
    for server in servers.into_iter().rev() {
        server.cli(&["CLUSTER", "SETSLOT", &slot, "STABLE"]);
    }
    gateway.wait_for_log("redis-slot-open-over");
    servers[0].cli(&["RPUSH", "{api}:gray", GRAY]);
    wait_for_pool(&gateway, "api.test", GRAY, "pre");
    // From now on only what is announced is read: nothing, for several intervals.
    wait_until("nothing is polled", DEADLINE, || {
        servers[0].cli(&["CONFIG", "RESETSTAT"]);
        thread::sleep(Duration::from_millis(400));
        let stats = servers[0].cli(&["INFO", "commandstats"]);
        let stats: String = redis::from_redis_value(stats).unwrap();
        !stats.contains("cmdstat_lrange:")
    });
    assert_eq!(gateway.stderr.count("lists-event-missed"), 0);
}

#[test]
fn an_upgrade_waits_for_the_lists_of_every_service_that_it_brings() {
    let site = ClusterSite::start();
    for server in &site.cluster.servers {
        // One that is stopped is not taken for dead.
        server.cli(&["CONFIG", "SET", "cluster-node-timeout", "60000"]);
    }
    let own = &site.cluster.servers[site.place("{gg}").1];
    let other = &site.cluster.servers[site.place("{api}").1];
    assert_ne!(own.address(), other.address());
    let setup = site.setup(&TAGS[..2]).redis(own.url());
    let setup = setup.set("redis.timeout", "300ms");
    let mut gateway = setup.set("gateway.pid_file", "pid").start();
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    // One more without any keys: there is nothing to wait for.
    gateway.edit_ini(|it| with_keys(it, &[TAGS[2], ("none", "{api}none:")]));
    let _last = LastProcess(&gateway);
    let (is_over, ask) = (
        AtomicBool::new(false),
        "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
    );
    let failed = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut failed, until) = (Vec::new(), Instant::now() + 6 * DEADLINE);
            while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
                let status = gateway.connect_from(GRAY).ask(ask).status();
                failed.extend(Some(status).filter(|it| *it != 200));
                thread::sleep(Duration::from_millis(5));
            }
            failed
        });
        other.signal(Signal::SIGSTOP);
        let mut upgrade = upgrade_command(&gateway, &[]).spawn().unwrap();
        gateway.wait_for_log("(the lists of api, none)");
        let too_early = poll(Duration::from_millis(500), || upgrade.try_wait().unwrap());
        other.signal(Signal::SIGCONT);
        let output = upgrade.wait_with_output().unwrap();
        let pool = pool(&gateway, "api.test", GRAY);
        is_over.store(true, Ordering::Relaxed);
        assert!(too_early.is_none(), "{too_early:?}");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(pool, "pre");
        asking.join().unwrap()
    });
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn an_upgrade_waits_for_no_lists_that_are_refused_or_not_there() {
    let site = Site::start();
    let user = ["ACL", "SETUSER", "gate", "on", ">secret", "+@all", "&*"];
    let keys = ["~gray", "~pre", "~prod", "~api:*", "~shop:*", "~none:*"];
    site.redis.cli(&[&user[..], &keys].concat());
    let url = site.redis.url().replacen("//", "//gate:secret@", 1);
    let set = |it: Setup| it.set("gateway.pid_file", "pid");
    let mut gateway = site.gateway_with(&url, "events", set);
    wait_for_pool(&gateway, "shop.test", GRAY, "pre");
    gateway.edit_ini(|it| {
        it.set("service none.hosts", "none.test")
            .set("service refused.hosts", "refused.test")
    });
    let _last = LastProcess(&gateway);
    upgrade_well(&gateway);
    let line = gateway.wait_for_log("key-refused");
    assert!(line.contains("service=refused"), "{line}");
    assert_eq!(pool(&gateway, "shop.test", GRAY), "pre");
}

/// What a server has used of the processor.
#[track_caller]
fn cpu_of(redis: &Redis) -> Duration {
    let info = redis.cli(&["INFO", "cpu"]);
    let info: String = redis::from_redis_value(info).unwrap();
    let names = ["used_cpu_sys:", "used_cpu_user:"];
    let lines = info.lines().filter_map(|line| {
        let name = names.iter().find(|it| line.starts_with(**it))?;
        line[name.len()..].trim().parse::<f64>().ok()
    });
    Duration::from_secs_f64(lines.sum())
}

/// What a gateway has used of it, and how often it has checked all lists.
#[track_caller]
fn cpu_and_checks(gateway: &Gateway) -> (Duration, f64) {
    let cpu = gateway.metric("process_cpu_seconds_total");
    let checks = gateway.metric("graygate_lists_refreshes_total{cause=\"check\"}");
    (Duration::from_secs_f64(cpu), checks)
}

/// How long it takes until a change of a service is in force, each of some times: median and longest.
#[track_caller]
fn times_of_changes(gateway: &Gateway, redis: &Redis, service: &str) -> (Duration, Duration) {
    let (key, host) = (format!("{service}:gray"), format!("{service}.test"));
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut writer = redis.connect(0);
    let mut times = Vec::new();
    for at in 0..50 {
        let client = format!("127.0.2.{at}");
        let mut connection = gateway.connect_from(&client);
        assert_eq!(connection.ask(&request).text(), "prod");
        let begun = Instant::now();
        let mut push = redis::cmd("RPUSH");
        let _: redis::Value = push.arg(&key).arg(&client).query(&mut writer).unwrap();
        while connection.ask(&request).text() != "pre" {}
        times.push(begun.elapsed());
    }
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// What it costs a server to execute a write of a key that is nobody's: of those it has many more.
#[track_caller]
fn cost_of_a_write(redis: &Redis) -> Duration {
    const WRITES: u32 = 100_000;
    let mut connection = redis.connect(0);
    let before = cpu_of(redis);
    for start in (0..WRITES).step_by(1000) {
        let mut pipe = redis::pipe();
        for at in start..start + 1000 {
            pipe.cmd("SET")
                .arg(format!("session:{at}"))
                .arg("x")
                .ignore();
        }
        let _: redis::Value = pipe.query(&mut connection).unwrap();
    }
    (cpu_of(redis) - before) / WRITES
}

/// Time, memory and processor of a gateway with a thousand services on one Redis, and of that; prints
/// figures.
#[test]
#[ignore = "prints figures: cargo test --release --test redis_services -- --ignored --nocapture --test-threads=1"]
fn a_thousand_services_on_one_redis() {
    const MANY: usize = 1000;
    let origins = ["pre", "pre", "prod", "prod"].map(Origin::named);
    for notify in ["events", "tracking"] {
        let redis = Redis::start();
        let mut connection = redis.connect(0);
        redis.push_peers(&origins[0], &origins[2]);
        for service in 0..MANY {
            let mut pipe = redis::pipe();
            pipe.cmd("RPUSH").arg(format!("s{service}:gray")).arg(GRAY);
            for at in 1..100 {
                pipe.arg(format!("10.{}.{}.{at}", service / 250, service % 250));
            }
            for (pool, two) in [("pre", &origins[..2]), ("prod", &origins[2..])] {
                pipe.cmd("RPUSH").arg(format!("s{service}:{pool}"));
                for it in two {
                    pipe.arg(it.to_string());
                }
            }
            let _: redis::Value = pipe.query(&mut connection).unwrap();
        }
        let alone = cost_of_a_write(&redis);
        let mut setup = Setup::new().redis(redis.url()).one_worker();
        for service in 0..MANY {
            setup = setup.set(
                &format!("service s{service}.hosts"),
                format!("s{service}.test"),
            );
        }
        let setup = setup.set("log.access", "off").set("redis.notify", notify);
        let setup = setup
            .set("redis.check_interval", "1s")
            .set("redis.heartbeat", "off");
        let (begun, redis_before) = (Instant::now(), cpu_of(&redis));
        let gateway = setup.ready_within(Duration::from_secs(60)).start();
        wait_until("the first reading", Duration::from_secs(120), || {
            pool(&gateway, "s999.test", GRAY) == "pre"
        });
        let (first, redis_first) = (begun.elapsed(), cpu_of(&redis) - redis_before);
        let memory = (gateway.rss_kib(), gateway.peak_rss_kib());
        let (cpu, checks) = cpu_and_checks(&gateway);
        let redis_before = cpu_of(&redis);
        thread::sleep(Duration::from_secs(20));
        let redis_after = cpu_of(&redis);
        let (cpu_after, checks_after) = cpu_and_checks(&gateway);
        let count = checks_after - checks;
        let check = (cpu_after - cpu).div_f64(count);
        let redis_check = (redis_after - redis_before).div_f64(count);
        let change = times_of_changes(&gateway, &redis, "s500");
        let write = cost_of_a_write(&redis);
        println!(
            "{notify}: start with first reading {first:?} (Redis: {redis_first:?} of CPU), memory {} KiB, at its \
             peak {} KiB; a full check: {check:?} of the gateway's CPU, {redis_check:?} of Redis's; a change in \
             force: median {:?}, longest {:?}; a write of another key costs Redis {write:?}, without \
             the gateway {alone:?}",
            memory.0, memory.1, change.0, change.1
        );
    }
    for count in [1, 128, 1000, 4000] {
        let redis = Redis::start();
        let (mut listener, mut tracker) = (redis.connect(0), redis.connect(0));
        let id: i64 = redis::cmd("CLIENT").arg("ID").query(&mut listener).unwrap();
        let mut tracking = redis::cmd("CLIENT");
        tracking
            .arg("TRACKING")
            .arg("ON")
            .arg("REDIRECT")
            .arg(id)
            .arg("BCAST");
        for at in 0..count {
            tracking
                .arg("PREFIX")
                .arg(format!("s{}:{}", at % 1000, at / 1000));
        }
        let begun = Instant::now();
        let _: redis::Value = tracking.query(&mut tracker).unwrap();
        let took = begun.elapsed();
        let write = cost_of_a_write(&redis);
        println!(
            "{count} prefixes: CLIENT TRACKING takes {took:?}, a write of another key {write:?}"
        );
    }
}

/// A service that changes a hundred times a second, beside one with a million entries; prints figures.
#[test]
#[ignore = "prints figures: cargo test --release --test redis_services -- --ignored --nocapture --test-threads=1"]
fn a_service_that_changes_all_the_time_beside_one_with_a_million_entries() {
    let site = Site::start();
    let mut connection = site.redis.connect(0);
    for start in (0..1_000_000_u32).step_by(10_000) {
        let mut push = redis::cmd("RPUSH");
        push.arg("shop:gray");
        for at in start..start + 10_000 {
            // An odd factor: no number comes twice.
            let spread = at.wrapping_mul(2_654_435_761);
            push.arg(std::net::Ipv4Addr::from_bits(spread | 1 << 31).to_string());
        }
        let _: redis::Value = push.query(&mut connection).unwrap();
    }
    for notify in ["events", "tracking"] {
        let gateway = site.gateway(&site.redis.url(), notify);
        wait_until("the first reading", Duration::from_secs(120), || {
            pool(&gateway, "shop.test", GRAY) == "pre"
        });
        let still = (
            gateway.rss_kib(),
            times_of_changes(&gateway, &site.redis, "api").0,
        );
        site.redis.cli(&["DEL", "api:gray"]);
        wait_for_pool(&gateway, "api.test", "127.0.2.1", "prod");
        site.lists_read();
        let (cpu, redis_cpu) = (cpu_and_checks(&gateway).0, cpu_of(&site.redis));
        for at in 0..1000 {
            site.redis
                .push("api:gray", &[&format!("10.{}.{}.1", at / 250, at % 250)]);
            thread::sleep(Duration::from_millis(10));
        }
        let (used, redis_used) = (
            cpu_and_checks(&gateway).0 - cpu,
            cpu_of(&site.redis) - redis_cpu,
        );
        let read = site.lists_read();
        println!(
            "{notify}: a change of the other one is in force after {:?}; a thousand changes, 10 ms apart: {used:?} of \
             the gateway's CPU, {redis_used:?} of Redis's, {read} lists read; memory {} KiB, {} KiB before, at its \
             peak {} KiB",
            still.1,
            gateway.rss_kib(),
            still.0,
            gateway.peak_rss_kib()
        );
        site.redis.cli(&["DEL", "api:gray"]);
        site.redis.push("api:gray", &[&GRAY]);
    }
}
