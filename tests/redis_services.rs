//! Several services on one Redis: what is read of which, what comes into force together, and what one service
//! has to do with another.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::{Cluster, DEADLINE, Gateway, Origin, Redis, Setup, wait_until};
use xxhash_rust::xxh64::xxh64;

const SERVICES: [&str; 2] = ["shop", "api"];

/// A client that is in the gray list of each service, and one that is not.
const GRAY: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";

/// Redis with the lists of the default service and of two others.
struct Site {
    redis: Redis,
    _origins: Vec<Origin>,
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let redis = Redis::start();
        let mut origins = Vec::new();
        for prefix in ["", "shop:", "api:"] {
            for pool in ["pre", "prod"] {
                let origin = Origin::named(pool);
                redis.push(&format!("{prefix}{pool}"), &[&origin]);
                origins.push(origin);
            }
            redis.push(&format!("{prefix}gray"), &[&GRAY]);
        }
        Self {
            redis,
            _origins: origins,
        }
    }

    #[track_caller]
    fn gateway(&self, url: &str, notify: &str) -> Gateway {
        let mut setup = Setup::new().redis(url);
        for service in SERVICES {
            setup = setup.set(
                &format!("service {service}.hosts"),
                format!("{service}.test"),
            );
        }
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("redis.poll_interval", "100ms");
        setup.set("redis.notify", notify).start()
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
        for host in ["localhost", "shop.test", "api.test"] {
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
    for host in ["localhost", "shop.test", "api.test"] {
        assert_eq!(pool(&gateway, host, GRAY), "pre");
    }
}

/// The services in two slots of a cluster, of two of its masters, and the server that has the one of `api`.
const TAGS: [(&str, &str); 3] = [("", "{gg}"), ("shop", "{gg}shop:"), ("api", "{api}:")];

#[test]
fn services_of_a_cluster_may_be_in_several_slots_at_several_servers() {
    let cluster = Cluster::start();
    let mut origins = Vec::new();
    let mut setup = Setup::new().redis(cluster.servers[2].url());
    for (service, tag) in TAGS {
        for pool in ["pre", "prod"] {
            let origin = Origin::named(pool);
            cluster.run(&["RPUSH", &format!("{tag}{pool}"), &origin.to_string()]);
            origins.push(origin);
        }
        cluster.run(&["RPUSH", &format!("{tag}gray"), GRAY]);
        let section = match service {
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
    let setup = setup.set("redis.accept_key", "{gg}accept");
    let setup = setup.set("redis.check_interval", "1h");
    let gateway = setup.set("redis.timeout", "1s").start();
    for host in ["localhost", "shop.test", "api.test"] {
        wait_for_pool(&gateway, host, GRAY, "pre");
    }
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
