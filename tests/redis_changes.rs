//! How the gateway learns of changes: by events, by client tracking, by polling; and how it notices
//! that it no longer does.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{DEADLINE, Gateway, Redis, Relay, Setup, Site, wait_until};

const MISSED: &str = "graygate_lists_missed_events_total";

/// A server that refuses CONFIG, so that only tracking tells of changes.
fn without_config() -> Redis {
    Redis::start_with_options(&["--rename-command", "CONFIG", ""])
}

/// A site that learns of changes by tracking alone.
#[track_caller]
fn by_tracking(edit: impl FnOnce(Setup) -> Setup) -> Site {
    let site = Site::on(without_config(), |setup| {
        let setup = setup.set("redis.check_interval", "1h");
        edit(setup.set("redis.poll_interval", "1h"))
    });
    let wait = |it: &serde_json::Value| it["mode"] == "tracking";
    site.gateway.wait_for_lists("tracking", wait);
    site
}

/// A gateway on `site`'s Redis by way of a relay.
#[track_caller]
fn behind_a_relay(site: &Site, edit: impl FnOnce(Setup) -> Setup) -> (Relay, Gateway) {
    let relay = Relay::to(site.redis.address());
    let setup = Setup::new().redis(format!("redis://{}/0", relay.address()));
    let setup = setup.set("redis.check_interval", "1h");
    let gateway = edit(setup.set("redis.timeout", "300ms")).start();
    gateway.wait_served("127.0.0.200", "prod", DEADLINE);
    (relay, gateway)
}

#[test]
fn where_config_is_refused_every_change_is_learned_of_by_tracking() {
    let site = by_tracking(|setup| setup);
    let line = site.gateway.wait_for_log("redis-events-refused");
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("unknown command"), "{line}");
    assert!(line.ends_with("instead=tracking"), "{line}");
    site.redis("RPUSH one 127.0.0.5");
    site.redis("SADD some 127.0.0.5 127.0.0.7");
    for (command, pool) in [
        ("RPUSH gray 127.0.0.5", "pre"),
        ("DEL gray", "prod"),
        ("RENAME one gray", "pre"),
        ("RENAME gray one", "prod"),
        ("COPY one gray", "pre"),
        ("PEXPIRE gray 100", "prod"),
        ("LMOVE one gray LEFT LEFT", "pre"),
        ("LSET gray 0 127.0.0.6", "prod"),
        ("SUNIONSTORE gray some", "pre"),
        ("SREM gray 127.0.0.5", "prod"),
        ("SMOVE some gray 127.0.0.5", "pre"),
        ("MOVE gray 1", "prod"),
    ] {
        site.redis(command);
        let served = || site.gateway.get("127.0.0.5", "/").text() == pool;
        wait_until(&format!("{pool} after {command}"), DEADLINE, served);
    }
    assert_eq!(site.refreshes("check"), 0);
    assert_eq!(site.refreshes("reconnect"), 0);
    assert_eq!(
        site.gateway
            .metric("graygate_lists_mode{mode=\"tracking\"}"),
        1.0
    );
    assert_eq!(site.gateway.stderr.count("refused"), 1);
}

#[test]
fn tracking_can_be_asked_for_and_changes_no_setting_of_the_server() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.notify", "tracking");
        setup.set("redis.check_interval", "1h")
    });
    assert_eq!(site.gateway.lists()["mode"], "tracking");
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let flags = site.redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
    let [_, flags]: [String; 2] = redis::from_redis_value(flags).unwrap();
    assert_eq!(flags, "");
}

#[test]
fn with_tracking_a_flush_is_announced() {
    for flush in ["FLUSHALL", "FLUSHDB"] {
        let site = by_tracking(|setup| setup);
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        site.redis(flush);
        site.wait_served("127.0.0.5", "prod");
        let page = site.gateway.lists();
        assert_eq!(page["prod"], json!([site.prod.to_string()]), "{flush}");
        assert_eq!(page["missed_events"], 0, "{flush}");
        assert_eq!(site.refreshes("check"), 0, "{flush}");
    }
}

#[test]
fn keys_that_begin_with_one_another_are_tracked_and_others_cause_no_reading() {
    let redis = without_config();
    let (pre, prod) = (
        support::Origin::named("pre"),
        support::Origin::named("prod"),
    );
    redis.push("list:pre", &[&pre]);
    redis.push("list:pre:prod", &[&prod]);
    let setup = Setup::new().redis(redis.url());
    let gateway = setup
        .set("redis.check_interval", "1h")
        .set("redis.poll_interval", "1h")
        .set("redis.gray_key", "list")
        .set("redis.pre_key", "list:pre")
        .set("redis.prod_key", "list:pre:prod")
        .set("lists.guard_share", 100)
        .start();
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.lists()["mode"], "tracking");
    let readings = || gateway.metric("graygate_lists_refreshes_total{cause=\"event\"}");
    for other in ["list:", "lis", "list:pr", "list:pre:prod:2", "gray"] {
        redis.cli(&["RPUSH", other, "127.0.0.5"]);
    }
    assert_eq!(readings(), 0.0);
    redis.cli(&["RPUSH", "list", "127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    for (key, client) in [("list:pre", "127.0.0.5"), ("list:pre:prod", "127.0.0.6")] {
        let new = support::Origin::named("new");
        redis.cli(&["LSET", key, "0", &new.to_string()]);
        gateway.wait_served(client, "new", DEADLINE);
    }
    assert_eq!(readings(), 3.0);
}

#[test]
fn tracking_is_asked_for_again_after_its_subscription_was_ended() {
    let site = by_tracking(|setup| setup);
    site.redis("CLIENT KILL TYPE pubsub");
    site.gateway.wait_for_log("lists-readable");
    assert_eq!(site.gateway.lists()["mode"], "tracking");
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    assert_eq!(site.refreshes("check"), 0);
}

#[test]
fn tracking_that_is_only_promised_is_not_relied_on() {
    let redis = without_config();
    let relay = Relay::rewriting(redis.address(), "$2\r\nON\r\n", "$3\r\nOFF\r\n");
    let site = Site::on(redis, |setup| {
        let setup = setup.set("redis.url", format!("redis://{}/0", relay.address()));
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("redis.poll_interval", "50ms")
    });
    assert_eq!(site.gateway.lists()["mode"], "poll");
    let line = site.gateway.wait_for_log("redis-tracking-refused");
    assert!(
        line.contains("GETREDIR") && line.ends_with("instead=poll"),
        "{line}"
    );
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
}

#[test]
fn a_server_without_the_setting_for_events_is_tracked_or_polled() {
    // A server has no setting of another name, and says so with an empty answer.
    let unknown = ("notify-keyspace-events", "no-setting-of-any-kind");
    let site_on = |redis: Redis, notify: &str| {
        let relay = Relay::rewriting(redis.address(), unknown.0, unknown.1);
        let site = Site::on(redis, |setup| {
            let setup = setup.set("redis.url", format!("redis://{}/0", relay.address()));
            let setup = setup.set("redis.notify", notify);
            let setup = setup.set("redis.check_interval", "1h");
            setup.set("redis.poll_interval", "50ms")
        });
        (site, relay)
    };
    for (options, notify, mode, level, instead) in [
        (&[][..], "auto", "tracking", "WARN", "tracking"),
        (
            &["--rename-command", "CLIENT", ""],
            "auto",
            "poll",
            "WARN",
            "tracking",
        ),
        (&[], "events", "poll", "ERROR", "poll"),
    ] {
        let (site, _relay) = site_on(Redis::start_with_options(options), notify);
        assert_eq!(site.gateway.lists()["mode"], mode, "{notify}");
        let line = site.gateway.wait_for_log("redis-events-refused");
        assert!(line.contains(level), "{line}");
        assert!(
            line.contains("does not know notify-keyspace-events"),
            "{line}"
        );
        assert!(line.ends_with(&format!("instead={instead}")), "{line}");
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        assert_eq!(site.gateway.stderr.count("redis-events-refused"), 1);
        assert_eq!(site.gateway.stderr.count("lists-unreadable"), 0);
    }
}

#[test]
fn a_subscription_that_has_fallen_silent_is_noticed_while_the_reader_works() {
    let site = Site::by_events();
    for notify in ["events", "tracking"] {
        let (relay, gateway) = behind_a_relay(&site, |it| it.set("redis.notify", notify));
        assert_eq!(gateway.lists()["mode"], notify);
        let start = Instant::now();
        assert_eq!(relay.silence("SUBSCRIBE"), 1, "{notify}");
        let line = gateway.wait_for_log("lists-unreadable");
        assert!(line.contains("timed out"), "{line}");
        assert!(start.elapsed() < Duration::from_secs(3), "{notify}");
        gateway.wait_for_log("lists-readable");
        site.redis("RPUSH gray 127.0.0.9");
        gateway.wait_served("127.0.0.9", "pre", DEADLINE);
        site.redis("DEL gray");
        assert_eq!(gateway.metric(MISSED), 0.0, "{notify}");
    }
}

#[test]
fn a_reader_that_has_fallen_silent_is_noticed_before_it_is_needed() {
    let site = Site::by_events();
    let (relay, gateway) = behind_a_relay(&site, |it| it);
    let start = Instant::now();
    assert_eq!(relay.silence("LRANGE"), 1);
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("timed out"), "{line}");
    assert!(start.elapsed() < Duration::from_secs(3));
    gateway.wait_for_log("lists-readable");
    site.redis("RPUSH gray 127.0.0.9");
    gateway.wait_served("127.0.0.9", "pre", DEADLINE);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 1);
    // The old subscription has ended with its thread.
    wait_until("one thread listens", DEADLINE, || {
        threads(&gateway, "lists-events") == 1
    });
}

/// How many threads of this name the gateway has.
fn threads(gateway: &Gateway, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let names = tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names.filter(|it| it.trim_end() == name).count()
}

#[test]
fn a_change_that_is_not_announced_is_found_counted_and_makes_checks_frequent() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "3s");
        setup.set("redis.poll_interval", "50ms")
    });
    // Of SWAPDB there is no event.
    let mut other = site.redis.connect(1);
    for (key, entry) in [
        ("gray", "127.0.0.5".to_owned()),
        ("pre", site.pre.to_string()),
        ("prod", site.prod.to_string()),
    ] {
        let mut push = redis::cmd("RPUSH");
        push.arg(key).arg(entry).exec(&mut other).unwrap();
    }
    site.redis("SWAPDB 0 1");
    site.gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    site.gateway.wait_for_metric(MISSED, 1.0);
    assert_eq!(site.gateway.lists()["missed_events"], 1);
    let line = site.gateway.wait_for_log("lists-event-missed");
    assert!(
        line.contains("WARN") && line.ends_with("mode=events"),
        "{line}"
    );
    // As often as with polling; so many would take ten seconds and more.
    let start = Instant::now();
    site.wait_refreshes("check", 4);
    assert!(start.elapsed() < Duration::from_secs(5));
    // An announcement brings the trust back.
    site.redis("RPUSH gray 127.0.0.6");
    site.wait_served("127.0.0.6", "pre");
    let (checks, start) = (site.refreshes("check"), Instant::now());
    wait_until("a second passes", DEADLINE, || {
        start.elapsed() > Duration::from_secs(1)
    });
    let checks = site.refreshes("check") - checks;
    assert!(checks <= 2, "{checks}");
    assert_eq!(site.gateway.metric(MISSED), 1.0);
}

#[test]
fn changes_that_are_announced_just_after_a_check_has_found_them_are_not_missed_ones() {
    for notify in ["events", "tracking"] {
        let site = Site::by_events();
        let (relay, gateway) = behind_a_relay(&site, |it| {
            let it = it.set("redis.notify", notify);
            it.set("redis.check_interval", "1ms")
        });
        relay.delay("SUBSCRIBE", Duration::from_millis(5));
        for at in 0..50 {
            let entry = format!("10.0.0.{at}");
            site.redis.cli(&["RPUSH", "gray", &entry]);
            gateway.wait_for_lists("the entry", |it| {
                it["gray"].as_array().unwrap().contains(&json!(entry))
            });
        }
        let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
        wait_until("a check", DEADLINE, || gateway.metric(checks) > 0.0);
        assert_eq!(gateway.metric(MISSED), 0.0, "{notify}");
    }
}

#[test]
fn no_number_of_changes_puts_the_check_off() {
    let site = Site::with(|setup| setup.set("redis.check_interval", "500ms"));
    // So long that a reading takes longer than the next change takes to be announced.
    let many: Vec<String> = (0..5000_u32)
        .map(|it| format!("10.1.{}.{}", it >> 8, it & 255))
        .collect();
    let mut connection = site.redis.connect(0);
    redis::cmd("SADD")
        .arg("gray")
        .arg(&many)
        .exec(&mut connection)
        .unwrap();
    // Changes of sets are still announced; whatever else belongs to A is missed at the check.
    site.redis("CONFIG SET notify-keyspace-events Ks");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !is_over.load(Ordering::Relaxed) && begun.elapsed() < 2 * DEADLINE {
                let mut changes = redis::pipe();
                for _ in 0..50 {
                    changes.cmd("SADD").arg("gray").arg("10.0.0.1");
                    changes.cmd("SREM").arg("gray").arg("10.0.0.1");
                }
                changes.exec(&mut connection).unwrap();
            }
        });
        wait_until("a check amid changes", DEADLINE, || {
            site.gateway.stderr.count("redis-events-enabled") == 2
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_was_refused_is_tried_again_now_and_then() {
    let redis = Redis::start();
    let rights = "on >secret ~gray ~pre ~prod ~graygate:* +@read +@connection +@transaction +set";
    let user = |rights: &str| {
        let mut command = vec!["ACL", "SETUSER", "app"];
        command.extend(rights.split(' '));
        redis.cli(&command);
    };
    user(&format!("{rights} resetchannels -client"));
    let url = format!("redis://app:secret@{}/0", redis.address());
    let setup = Setup::new().redis(url).set("redis.check_interval", "300ms");
    let gateway = setup.set("redis.poll_interval", "50ms").start();
    gateway.wait_for_lists("poll", |it| it["mode"] == "poll");
    user("&* +subscribe +config");
    gateway.wait_for_lists("events", |it| it["mode"] == "events");
    for step in ["events", "tracking"] {
        assert_eq!(
            gateway.stderr.count(&format!("redis-{step}-refused")),
            1,
            "{step}"
        );
    }
    assert_eq!(
        gateway.metric("graygate_lists_refreshes_total{cause=\"reconnect\"}"),
        0.0
    );
}

#[test]
fn with_tracking_too_a_change_that_is_not_announced_in_time_is_counted() {
    let site = Site::by_events();
    let (relay, gateway) = behind_a_relay(&site, |it| {
        let it = it.set("redis.notify", "tracking");
        it.set("redis.check_interval", "300ms")
            .set("redis.timeout", "5s")
    });
    assert_eq!(gateway.lists()["mode"], "tracking");
    relay.delay("SUBSCRIBE", Duration::from_secs(2));
    site.redis("RPUSH gray 127.0.0.5");
    gateway.wait_for_metric(MISSED, 1.0);
    let line = gateway.wait_for_log("lists-event-missed");
    assert!(line.ends_with("mode=tracking"), "{line}");
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
}

#[test]
fn changes_that_were_announced_before_the_check_that_finds_them_are_not_missed_ones() {
    let site = Site::by_events();
    let (relay, gateway) = behind_a_relay(&site, |it| it.set("redis.check_interval", "1ms"));
    // The reader always waits: half the time for what comes before the reading of a check.
    relay.delay("LRANGE", Duration::from_millis(50));
    for at in 0..20 {
        let entry = format!("10.0.0.{at}");
        site.redis.cli(&["RPUSH", "gray", &entry]);
        gateway.wait_for_lists("the entry", |it| {
            it["gray"].as_array().unwrap().contains(&json!(entry))
        });
    }
    assert_eq!(gateway.metric(MISSED), 0.0);
}

#[test]
fn a_new_connection_is_trusted_again() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "3s");
        setup.set("redis.poll_interval", "50ms")
    });
    let mut other = site.redis.connect(1);
    let mut push = redis::cmd("RPUSH");
    let push = push.arg("prod").arg(site.prod.to_string());
    push.exec(&mut other).unwrap();
    site.redis("SWAPDB 0 1");
    site.gateway.wait_for_metric(MISSED, 1.0);
    site.wait_refreshes("check", 4);
    site.redis("CLIENT KILL TYPE pubsub");
    wait_until("a new connection", DEADLINE, || {
        site.refreshes("reconnect") == 1
    });
    let (checks, start) = (site.refreshes("check"), Instant::now());
    wait_until("a second passes", DEADLINE, || {
        start.elapsed() > Duration::from_secs(1)
    });
    let checks = site.refreshes("check") - checks;
    assert!(checks <= 2, "{checks}");
}

#[test]
fn a_change_right_after_a_missed_one_does_not_wait_for_as_long_as_an_announcement_was_waited_for() {
    /// An announcement that does not come is waited for twice as long.
    const SOON: Duration = Duration::from_millis(100);

    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "300ms");
        setup.set("redis.poll_interval", "300ms")
    });
    let mut other = site.redis.connect(1);
    for (key, peer) in [("pre", &site.pre), ("prod", &site.prod)] {
        let mut push = redis::cmd("RPUSH");
        push.arg(key)
            .arg(peer.to_string())
            .exec(&mut other)
            .unwrap();
    }
    // The two databases differ in who is gray.
    site.redis("RPUSH gray 10.0.0.1");
    let is_read = |it: &serde_json::Value| it["gray"] == json!(["10.0.0.1"]);
    site.gateway.wait_for_lists("gray", is_read);
    let mut writer = site.redis.connect(0);
    let mut took = Vec::new();
    // On a busy machine a change may be late for other reasons, but not each time.
    for round in 1..=8 {
        let source = format!("127.0.0.{}", 10 + round);
        let mut client = site.gateway.connect_from(&source);
        assert_eq!(client.get("/").text(), "prod");
        // Of SWAPDB there is no event.
        site.redis("SWAPDB 0 1");
        site.gateway.wait_for_metric(MISSED, f64::from(round));
        let start = Instant::now();
        let mut push = redis::cmd("RPUSH");
        push.arg("gray").arg(&source).exec(&mut writer).unwrap();
        wait_until("the change is in force", DEADLINE, || {
            client.get("/").text() == "pre"
        });
        took.push(start.elapsed());
        if start.elapsed() < SOON {
            return;
        }
    }
    panic!("{took:?}");
}
