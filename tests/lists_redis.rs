//! Lists in Redis, as they change: each change comes into force without a restart, and as a whole.
//! Almost everywhere here the next full check is an hour away, so that an event must have done it.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{DEADLINE, Origin, Redis, Setup, Site, wait_until};

#[test]
fn adding_moves_exactly_that_client_and_removing_moves_it_back() {
    // Both commands leave another entry, so that each is one event.
    for (add, remove) in [
        ("LPUSH gray 127.0.0.5", "LREM gray 0 127.0.0.5"),
        ("SADD gray 127.0.0.5", "SREM gray 127.0.0.5"),
    ] {
        let redis = Redis::start();
        redis.cli(&[add.split(' ').next().unwrap(), "gray", "10.0.0.1"]);
        let others = [Origin::named("pre"), Origin::named("prod")];
        redis.push("pre", &[&others[0]]);
        redis.push("prod", &[&others[1]]);
        let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
        site.gateway
            .wait_for_lists("events", |it| it["mode"] == "events");
        assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "prod");

        site.redis(add);
        site.wait_served("127.0.0.5", "pre");
        for other in ["127.0.0.1", "127.0.0.4", "127.0.0.50", "127.0.0.51"] {
            assert_eq!(
                site.gateway.get(other, "/").text(),
                "prod",
                "{add}: {other}"
            );
        }
        site.redis(remove);
        site.wait_served("127.0.0.5", "prod");
        let causes = ["start", "event", "check", "reconnect"];
        let counts = causes.map(|cause| site.refreshes(cause));
        assert_eq!(counts, [1, 2, 0, 0], "{add}: {causes:?}");
    }
}

#[test]
fn an_entry_does_not_admit_an_address_that_begins_with_it() {
    for add in ["LPUSH", "SADD"] {
        let site = Site::with(|setup| {
            let setup = setup.set("redis.check_interval", "1h");
            setup.set("gateway.trusted_proxies", "127.0.0.1")
        });
        let pool_of = |client: &str| {
            let field = format!("X-Forwarded-For: {client}");
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            site.gateway.connect().ask(request).text()
        };
        site.redis(&format!("{add} gray 192.168.1.1"));
        wait_until("192.168.1.1 is gray", support::DEADLINE, || {
            pool_of("192.168.1.1") == "pre"
        });
        for other in ["192.168.1.10", "192.168.1.100", "192.168.1.2", "2.168.1.1"] {
            assert_eq!(pool_of(other), "prod", "{add}: {other}");
        }
    }
}

#[test]
fn whatever_command_changes_a_key_it_is_noticed() {
    let site = Site::by_events();
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
        ("LINSERT gray AFTER 127.0.0.6 127.0.0.5", "pre"),
        ("LTRIM gray 0 0", "prod"),
        ("SUNIONSTORE gray some", "pre"),
        ("SREM gray 127.0.0.5", "prod"),
        ("SMOVE some gray 127.0.0.5", "pre"),
        ("UNLINK gray", "prod"),
        ("RPUSH gray 127.0.0.5", "pre"),
        ("MOVE gray 1", "prod"),
    ] {
        site.redis(command);
        let served = || site.gateway.get("127.0.0.5", "/").text() == pool;
        wait_until(
            &format!("{pool} after {command}"),
            support::DEADLINE,
            served,
        );
    }
    assert_eq!(site.refreshes("check"), 0);
    assert_eq!(site.refreshes("reconnect"), 0);
}

#[test]
fn peers_change_by_events_too() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_share", "100")
    });
    let (new_pre, new_prod) = (Origin::named("new pre"), Origin::named("new prod"));
    site.redis("SADD gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    for (key, new, client) in [
        ("pre", &new_pre, "127.0.0.5"),
        ("prod", &new_prod, "127.0.0.6"),
    ] {
        site.redis(&format!("LSET {key} 0 {new}"));
        site.wait_served(client, &format!("new {key}"));
    }
}

#[test]
fn a_transaction_is_one_generation_and_never_seen_by_halves() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_share", "100")
    });
    let others = [Origin::named("pre"), Origin::named("prod")];
    let mut connection = site.redis.connect(0);
    let mut swap = |gray: &str, pre: &Origin, prod: &Origin| {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for (key, entry) in [
            ("gray", gray.to_owned()),
            ("pre", pre.to_string()),
            ("prod", prod.to_string()),
        ] {
            transaction.cmd("DEL").arg(key).ignore();
            transaction.cmd("RPUSH").arg(key).arg(entry).ignore();
        }
        transaction.exec(&mut connection).unwrap();
    };
    let digest_with = |gray: &str| {
        let page = site
            .gateway
            .wait_for_lists("the transaction", |it| it["gray"] == json!([gray]));
        page["digest"].as_str().unwrap().to_owned()
    };
    let before = site.gateway.lists()["generation"].as_u64().unwrap();
    swap("127.0.0.5", &others[0], &others[1]);
    let one = digest_with("127.0.0.5");
    assert_eq!(site.gateway.lists()["generation"], before + 1);
    swap("127.0.0.6", &site.pre, &site.prod);
    let other = digest_with("127.0.0.6");
    assert_eq!(site.gateway.lists()["generation"], before + 2);

    let published = || site.gateway.stderr.count("lists-published");
    let enough = published() + 20;
    wait_until("20 more generations", 3 * support::DEADLINE, || {
        for _ in 0..20 {
            swap("127.0.0.5", &others[0], &others[1]);
            swap("127.0.0.6", &site.pre, &site.prod);
        }
        swap("127.0.0.5", &others[0], &others[1]);
        digest_with("127.0.0.5");
        swap("127.0.0.6", &site.pre, &site.prod);
        digest_with("127.0.0.6");
        published() >= enough
    });
    let lines = site.gateway.stderr.all().into_iter();
    // The first generation is the one from before this test's transactions.
    for line in lines.filter(|it| it.contains("lists-published")).skip(1) {
        let whole = line.contains(&one) || line.contains(&other);
        assert!(whole, "neither {one} nor {other}: {line}");
    }
}

#[test]
fn no_request_meets_the_empty_moment_between_del_and_rpush() {
    let site = Site::by_events();
    site.redis("SADD gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let mut connection = site.redis.connect(0);
    let mut send = |command: &str, more: &[&str]| {
        let mut command = redis::cmd(command);
        command.arg("pre").arg(more);
        command.exec(&mut connection).unwrap();
    };
    let pre = site.pre.to_string();
    let done = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = site.gateway.connect_from("127.0.0.5");
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(client.get("/").text());
            }
            answers
        });
        let enough = site.refreshes("event") + 40;
        let start = Instant::now();
        while site.refreshes("event") < enough && start.elapsed() < 3 * support::DEADLINE {
            for _ in 0..50 {
                send("DEL", &[]);
                send("RPUSH", &[&pre]);
            }
        }
        done.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    let strays = answers.iter().filter(|it| *it != "pre").count();
    assert_eq!(strays, 0, "of {} answers", answers.len());
    assert!(answers.len() > 100, "{} answers only", answers.len());
}

#[test]
fn a_storm_of_pushes_makes_few_readings_and_its_last_entry_is_in_force() {
    const PUSHES: u64 = 10_000;
    let site = Site::by_events();
    let mut connection = site.redis.connect(0);
    let (start, mut pushed) = (Instant::now(), 0);
    while pushed < PUSHES {
        let mut pipe = redis::pipe();
        for at in pushed..pushed + 100 {
            let entry = format!("10.0.{}.{}", at % 5000 / 250, at % 250);
            pipe.cmd("LPUSH").arg("gray").arg(entry).ignore();
        }
        // How long it takes to read a long list, in a build without optimization, is not asked.
        pipe.cmd("LTRIM").arg("gray").arg(0).arg(499).ignore();
        pipe.exec(&mut connection).unwrap();
        pushed += 100;
        // 10,000 a second.
        let due = start + Duration::from_micros(100 * pushed);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    site.redis("LPUSH gray 127.0.0.5");
    // How soon is what the benchmark of the same storm tells (tests/propagation.rs).
    site.wait_served("127.0.0.5", "pre");
    let readings = site.refreshes("event");
    // After the first ones, two readings are at least 25 ms apart.
    let most = start.elapsed().as_millis() as u64 / 25 + 10;
    assert!(
        (1..=most).contains(&readings),
        "{readings} readings, {most} at most"
    );
}

#[test]
fn changes_one_by_one_are_each_in_force_in_a_moment() {
    let site = Site::by_events();
    let mut lags: Vec<Duration> = Vec::new();
    let mut client = site.gateway.connect_from("127.0.0.5");
    for at in 0..100 {
        let (command, pool) = match at % 2 {
            0 => ("LPUSH", "pre"),
            _ => ("LPOP", "prod"),
        };
        let arguments: &[&str] = match pool {
            "pre" => &["gray", "127.0.0.5"],
            _ => &["gray"],
        };
        // Another entry stays, so that the list is not emptied.
        if at == 0 {
            site.redis("RPUSH gray 10.0.0.1");
        }
        site.redis.cli(&[&[command], arguments].concat());
        let start = Instant::now();
        while client.get("/").text() != pool {
            assert!(start.elapsed() < support::DEADLINE, "{command} {at}");
        }
        lags.push(start.elapsed());
    }
    lags.sort();
    // How soon is what the benchmark tells (tests/propagation.rs). None waits for a pause between readings,
    // which are up to 100 ms, or for a check, which is an hour away.
    let (median, most) = (lags[50], lags[95]);
    assert!(median < Duration::from_millis(100), "{median:?}: {lags:?}");
    assert!(most < Duration::from_secs(1), "{most:?}: {lags:?}");
}

#[test]
fn another_database_is_another_set_of_lists() {
    let (redis, pre, prod) = (Redis::start(), Origin::named("pre"), Origin::named("prod"));
    let mut third = redis.connect(3);
    for (key, entry) in [("pre", &pre), ("prod", &prod)] {
        let mut push = redis::cmd("RPUSH");
        push.arg(key).arg(entry.to_string());
        push.exec(&mut third).unwrap();
    }
    let setup = Setup::new().set("redis.check_interval", "1h");
    let gateway = setup.redis(redis.url_of(3)).start();
    gateway.wait_served("127.0.0.5", "prod", support::DEADLINE);
    redis.cli(&["LPUSH", "gray", "127.0.0.6"]);
    let mut push = redis::cmd("LPUSH");
    push.arg("gray").arg("127.0.0.5");
    push.exec(&mut third).unwrap();
    gateway.wait_served("127.0.0.5", "pre", support::DEADLINE);
    // What was sent to the other database came first, so it would have been noticed first.
    let lists = gateway.lists();
    assert_eq!(lists["gray"], json!(["127.0.0.5"]));
    assert_eq!(lists["mode"], "events");
    assert_eq!(lists["source"], redis.url_of(3));
}

#[test]
fn keys_may_have_other_names() {
    let (redis, pre, prod) = (Redis::start(), Origin::named("pre"), Origin::named("prod"));
    // Brackets, stars and question marks would mean something else in a pattern.
    let keys = ["shop[1]:gray*", "shop[1]:pre?", "{shop} prod"];
    redis.push(keys[1], &[&pre]);
    redis.push(keys[2], &[&prod]);
    redis.push("gray", &[&"127.0.0.6"]);
    let setup = Setup::new().set("redis.check_interval", "1h");
    let gateway = setup
        .redis(redis.url())
        .set("redis.gray_key", keys[0])
        .set("redis.pre_key", keys[1])
        .set("redis.prod_key", keys[2])
        .set("lists.guard_share", "100")
        .start();
    gateway.wait_served("127.0.0.5", "prod", support::DEADLINE);
    redis.push(keys[0], &[&"127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", support::DEADLINE);
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    for (key, client) in [(keys[1], "127.0.0.5"), (keys[2], "127.0.0.6")] {
        let new = Origin::named("new");
        redis.cli(&["LSET", key, "0", &new.to_string()]);
        gateway.wait_served(client, "new", support::DEADLINE);
    }
}

#[test]
fn polling_needs_no_events_and_asks_for_none() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.notify", "poll");
        let setup = setup.set("redis.poll_interval", "50ms");
        setup.set("redis.check_interval", "1h")
    });
    site.redis("LPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    site.redis("LREM gray 0 127.0.0.5");
    site.wait_served("127.0.0.5", "prod");
    assert_eq!(site.gateway.lists()["mode"], "poll");
    assert_eq!(site.refreshes("event"), 0);
    // Counted a moment after they are in force.
    wait_until("two checks", DEADLINE, || site.refreshes("check") >= 2);
    let flags = site.redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
    let flags: Vec<String> = redis::from_redis_value(flags).unwrap();
    assert_eq!(flags[1], "");
}

#[test]
fn a_transaction_that_empties_one_list_is_not_seen_by_halves() {
    let site = Site::with(|setup| setup.set("lists.guard_share", 100));
    let other = Origin::named("other prod");
    let mut transaction = redis::pipe();
    transaction.atomic();
    transaction.cmd("DEL").arg("pre").arg("prod").ignore();
    transaction
        .cmd("RPUSH")
        .arg("prod")
        .arg(other.to_string())
        .ignore();
    transaction
        .cmd("RPUSH")
        .arg("gray")
        .arg("127.0.0.6")
        .ignore();
    let mut connection = site.redis.connect(0);
    let mut client = site.gateway.connect_from("127.0.0.6");
    assert_eq!(client.get("/").text(), "prod");
    transaction.exec(&mut connection).unwrap();
    // With the old `pre` it would be served by that.
    wait_until("it is served by what replaces `prod`", DEADLINE, || {
        let answer = client.get("/").text();
        assert!(["prod", "other prod"].contains(&&*answer), "{answer}");
        answer == "other prod"
    });
    // A list that is never settled does not keep the others from changing.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = site.redis.connect(0);
            let pre = site.pre.to_string();
            let mut run = |command: &str, more: &[&str]| {
                let mut command = redis::cmd(command);
                command.arg("pre").arg(more).exec(&mut connection).unwrap();
            };
            while !done.load(Ordering::Relaxed) {
                run("RPUSH", &[&pre]);
                run("DEL", &[]);
            }
        });
        site.redis("RPUSH gray 127.0.0.7");
        let gray = |page: &serde_json::Value| page["gray"].as_array().unwrap().len() == 2;
        let page = site.gateway.wait_for_lists("the other list", gray);
        done.store(true, Ordering::Relaxed);
        page
    });
}

#[test]
fn an_empty_pool_that_is_touched_is_not_believed_and_keeps_the_others_back_for_a_moment_only() {
    let site = Site::by_events();
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let pre = site.pre.to_string();
    let (done, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Nobody ever sees an entry in it: only the server knows that it was touched.
        scope.spawn(|| {
            let mut connection = site.redis.connect(0);
            let mut touch = redis::pipe();
            touch.atomic();
            touch.cmd("RPUSH").arg("pre").arg(&pre).ignore();
            touch.cmd("DEL").arg("pre").ignore();
            let mut last = Instant::now();
            while !done.load(Ordering::Relaxed) {
                touch.exec(&mut connection).unwrap();
                let gap = last.elapsed().as_millis() as u64;
                longest.fetch_max(gap, Ordering::Relaxed);
                last = Instant::now();
            }
        });
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        site.gateway
            .wait_for_lists("it is unsettled", |it| it["kept"] != json!([]));
        let start = Instant::now();
        site.redis("RPUSH gray 127.0.0.6");
        // Nothing tells that it is settled, so this comes by the bound alone.
        site.gateway.wait_for_lists("the other list", |it| {
            it["gray"] == json!(["127.0.0.5", "127.0.0.6"])
        });
        wait_until("it would have settled twice", DEADLINE, || {
            start.elapsed() > Duration::from_secs(2)
        });
        let page = site.gateway.lists();
        let settles = longest.load(Ordering::Relaxed) > 900;
        assert!(page["pre"] == json!([pre]) || settles, "{page}");
        // A rollback settles by itself, whatever is done to another key.
        site.redis("DEL gray");
        site.gateway
            .wait_for_lists("the rollback", |it| it["gray"] == json!([]));
    });
    site.redis("RPUSH gray 127.0.0.5");
    site.gateway
        .wait_for_lists("gray again", |it| it["gray"] == json!(["127.0.0.5"]));
    site.wait_served("127.0.0.5", "prod");
}

/// A server whose gray list has so many entries, all different.
#[track_caller]
fn long_list(count: u32) -> Redis {
    let redis = Redis::start();
    let entry = |at: u32| format!("{}/31", Ipv4Addr::from_bits((10 << 24) + 2 * at));
    let entries: Vec<String> = (0..count).map(entry).collect();
    let mut push = redis::cmd("RPUSH");
    let push = push.arg("gray").arg(entries);
    push.exec(&mut redis.connect(0)).unwrap();
    redis
}

#[test]
fn a_check_that_finds_nothing_new_does_not_parse_the_lists_again() {
    let site = Site::on(long_list(30_000), |setup| {
        let setup = setup.set("redis.notify", "poll");
        setup.set("redis.poll_interval", "50ms")
    });
    let cost = |before_each: &dyn Fn()| {
        let before = site.gateway.cpu_ticks();
        for _ in 0..10 {
            before_each();
            site.wait_refreshes("check", 1);
        }
        site.gateway.cpu_ticks() - before
    };
    let same = cost(&|| {});
    // The same entries, but the server says them in another order.
    let other = cost(&|| site.redis("LMOVE gray gray LEFT RIGHT"));
    // In CPU time, whatever else the machine does.
    assert!(2 * same < other, "{same} ticks, {other} for another order");
}

#[test]
fn what_a_long_list_takes_while_it_is_read_is_given_back() {
    let site = Site::on(long_list(200_000), |setup| {
        let setup = setup.set("redis.notify", "poll");
        setup.set("redis.poll_interval", "20ms")
    });
    let filled = site.gateway.rss_kib();
    for _ in 0..5 {
        let before = site.refreshes("check");
        site.redis("LMOVE gray gray LEFT RIGHT");
        // A busy machine takes seconds for each.
        wait_until("it is read again", 6 * DEADLINE, || {
            site.refreshes("check") > before
        });
    }
    // The reply alone has more than 4 MiB, and its entries as many again. It may be read at any moment,
    // but not at all times.
    wait_until("what was read has no memory", DEADLINE, || {
        site.gateway.rss_kib().saturating_sub(filled) < 4096
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
