//! A reload takes on where the lists come from, and how: the new source is read before anything changes, the
//! lists of the old one serve until then, and no request fails because of it.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fmt::Display;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Redis, Setup, wait_until};

/// Gray and prod of a Redis.
fn redis_with(prod: &Origin) -> Redis {
    let redis = Redis::start();
    redis.push("prod", &[prod]);
    redis
}

/// A gateway that follows it, and takes other servers without asking anybody.
#[track_caller]
fn following(redis: &Redis) -> Setup {
    Setup::new()
        .redis(redis.url())
        .set("lists.guard_share", 100)
}

/// How many lines of the log have this.
fn count(gateway: &Gateway, text: &str) -> usize {
    gateway.stderr.count(text)
}

#[track_caller]
fn reload(gateway: &Gateway, outcome: &str) -> String {
    let word = match outcome {
        "ok" => " reloaded file=",
        _ => " reload-failed ",
    };
    let before = count(gateway, word);
    gateway.signal(Signal::SIGHUP);
    wait_until(&format!("a reload that is {outcome}"), DEADLINE, || {
        count(gateway, word) > before
    });
    let lines = gateway.stderr.all();
    lines.into_iter().rfind(|it| it.contains(word)).unwrap()
}

#[track_caller]
fn set(gateway: &mut Gateway, name: &str, value: impl Display, outcome: &str) -> String {
    gateway.edit_ini(|it| it.set(name, value));
    reload(gateway, outcome)
}

fn served_by(gateway: &Gateway) -> String {
    gateway.get("127.0.0.1", "/").text()
}

#[track_caller]
fn wait_served_by(gateway: &Gateway, name: &str) {
    wait_until(&format!("{name} serves"), DEADLINE, || {
        served_by(gateway) == name
    });
}

/// Shows that a change of the lists there is followed.
#[track_caller]
fn is_followed(gateway: &Gateway, redis: &Redis, entry: &str) {
    redis.push("gray", &[&entry]);
    gateway.wait_for_lists(entry, |it| it["gray"].to_string().contains(entry));
}

/// Clients that ask all the time: every answer is a 200.
struct Load {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Load {
    fn on(gateway: &Gateway) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let addr = gateway.addr();
        let threads = (0..4).map(|number| {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || {
                let (mut client, mut served) = (Client::connect(addr), 0);
                while !ends.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        client = Client::from_another(addr);
                    }
                    assert_eq!(client.get("/").status(), 200);
                    served += 1;
                }
                served
            })
        });
        Self {
            threads: threads.collect(),
            ends,
        }
    }

    #[track_caller]
    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().unwrap() > 0);
        }
    }
}

#[test]
fn another_redis_takes_the_place_of_the_old_one_under_load() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let (first, second) = (redis_with(&one), redis_with(&two));
    let mut gateway = following(&first).start();
    wait_served_by(&gateway, "one");
    let load = Load::on(&gateway);
    let generation = gateway.lists()["generation"].as_u64().unwrap();
    set(&mut gateway, "redis.url", second.url(), "ok");
    assert_eq!(count(&gateway, "reload-ignored"), 0);
    wait_served_by(&gateway, "two");
    assert_eq!(
        gateway.lists()["generation"].as_u64().unwrap(),
        generation + 1
    );
    let source = gateway.lists()["source"].to_string();
    assert!(source.contains(&second.address().to_string()), "{source}");
    is_followed(&gateway, &second, "10.1.1.1");
    // Nobody follows the old one.
    first.push("gray", &[&"10.2.2.2"]);
    is_followed(&gateway, &second, "10.1.1.2");
    assert!(!gateway.lists()["gray"].to_string().contains("10.2.2.2"));
    wait_until("the old connections are closed", DEADLINE, || {
        let clients: String = redis::from_redis_value(first.cli(&["CLIENT", "LIST"])).unwrap();
        // But for the one that asks.
        clients.lines().count() <= 1
    });
    load.end();
}

#[test]
fn a_redis_that_does_not_answer_changes_nothing_and_a_later_try_succeeds() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let (first, mut second) = (redis_with(&one), redis_with(&two));
    second.kill();
    let mut gateway = following(&first).set("redis.timeout", "500ms").start();
    wait_served_by(&gateway, "one");
    let load = Load::on(&gateway);
    gateway.edit_ini(|it| it.set("gateway.max_body", "1k"));
    let line = set(&mut gateway, "redis.url", second.url(), "failed");
    assert!(line.contains("[redis] "), "{line}");
    // One that is silent.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let line = set(&mut gateway, "redis.url", url, "failed");
    assert!(begun.elapsed() < Duration::from_secs(4), "{line}");
    is_followed(&gateway, &first, "10.1.1.1");
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n";
    let mut client = gateway.connect();
    client.send(request);
    client.send("x".repeat(2000));
    assert_eq!(client.response().status(), 200);
    second.restart();
    second.push("prod", &[&two]);
    set(&mut gateway, "redis.url", second.url(), "ok");
    wait_served_by(&gateway, "two");
    load.end();
}

#[test]
fn a_new_password_is_read_also_where_only_the_content_of_its_file_has_changed() {
    let one = Origin::named("one");
    let redis = redis_with(&one);
    redis.cli(&["CONFIG", "SET", "requirepass", "first"]);
    let setup = following(&redis).file("password", "first\n");
    let gateway = setup.set("redis.password_file", "password").start();
    wait_served_by(&gateway, "one");
    reload(&gateway, "ok");
    assert_eq!(count(&gateway, "store-changed"), 0, "nothing has changed");
    fs::write(gateway.path("password"), "wrong\n").unwrap();
    let line = reload(&gateway, "failed");
    assert!(line.contains("password"), "{line}");
    let url = format!("redis://:first@{}", redis.address());
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut ask = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        let _: redis::Value = command.arg(&words[1..]).query(&mut connection).unwrap();
    };
    ask(&["RPUSH", "gray", "10.1.1.1"]);
    gateway.wait_for_lists("the old connection", |it| it["gray"][0] == "10.1.1.1");
    ask(&["CONFIG", "SET", "requirepass", "second"]);
    fs::write(gateway.path("password"), "second\n").unwrap();
    reload(&gateway, "ok");
    assert_eq!(count(&gateway, "store-changed"), 1);
    ask(&["RPUSH", "gray", "10.1.1.2"]);
    gateway.wait_for_lists("the new connection", |it| {
        it["gray"].as_array().unwrap().len() == 2
    });
}

#[test]
fn the_keys_the_intervals_and_the_way_of_learning_change() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let redis = redis_with(&one);
    redis.push("prod:2", &[&two]);
    let mut gateway = following(&redis).start();
    wait_served_by(&gateway, "one");
    set(&mut gateway, "redis.prod_key", "prod:2", "ok");
    wait_served_by(&gateway, "two");
    gateway.edit_ini(|it| it.set("redis.notify", "poll"));
    set(&mut gateway, "redis.poll_interval", "50ms", "ok");
    gateway.wait_for_lists("polling", |it| it["mode"] == "poll");
    is_followed(&gateway, &redis, "10.1.1.1");
}

#[test]
fn lists_move_from_a_file_to_redis_and_back() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let redis = redis_with(&two);
    let setup = Setup::serving(&one).set("lists.guard_share", 100);
    let mut gateway = setup.set("lists.last_good", "copy").start();
    wait_served_by(&gateway, "one");
    let load = Load::on(&gateway);
    set(&mut gateway, "redis.url", redis.url(), "ok");
    wait_served_by(&gateway, "two");
    is_followed(&gateway, &redis, "10.1.1.1");
    // The copy is the new store's, and the old one's is set aside.
    wait_until("the copy of the other store", DEADLINE, || {
        let text = fs::read_to_string(gateway.path("copy")).unwrap_or_default();
        text.contains("\"redis\"") && text.contains("10.1.1.1")
    });
    gateway.write_lists(&["10.3.3.3"], &[], &[&one]);
    assert_eq!(served_by(&gateway), "two");
    gateway.edit_ini(|it| it.unset("redis.url"));
    reload(&gateway, "ok");
    wait_served_by(&gateway, "one");
    gateway.write_lists(&["10.4.4.4"], &[], &[&one]);
    gateway.wait_for_lists("the file", |it| it["gray"][0] == "10.4.4.4");
    redis.push("gray", &[&"10.5.5.5"]);
    gateway.write_lists_text("nonsense\n");
    gateway.edit_ini(|it| it.set("lists.file", "other"));
    let line = reload(&gateway, "failed");
    assert!(line.contains("[lists] file: "), "{line}");
    load.end();
}

#[test]
fn a_redis_without_servers_is_not_taken_and_a_change_that_is_too_large_is_held() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let (first, empty, second) = (redis_with(&one), Redis::start(), redis_with(&two));
    let mut gateway = Setup::new().redis(first.url()).start();
    wait_served_by(&gateway, "one");
    let line = set(&mut gateway, "redis.url", empty.url(), "failed");
    assert!(line.contains("prod is empty in "), "{line}");
    set(&mut gateway, "redis.url", second.url(), "ok");
    gateway.wait_for_lists("held", |it| it["held"][0]["list"] == "prod");
    assert_eq!(served_by(&gateway), "one");
    // What is held there goes with it.
    set(&mut gateway, "redis.url", first.url(), "ok");
    gateway.wait_for_lists("nothing held", |it| {
        it["held"].as_array().unwrap().is_empty()
    });
    assert_eq!(served_by(&gateway), "one");
}

#[test]
fn the_heartbeat_gets_another_name_and_goes_elsewhere() {
    let one = Origin::named("one");
    let redis = redis_with(&one);
    let setup = following(&redis).set("redis.node", "a");
    let mut gateway = setup.set("redis.heartbeat", "100ms").start();
    let has = |name: &str| {
        let key = format!("graygate:node:{name}");
        redis.cli(&["EXISTS", &key]) == redis::Value::Int(1)
    };
    wait_until("the first name", DEADLINE, || has("a"));
    set(&mut gateway, "redis.node", "b", "ok");
    assert_eq!(count(&gateway, "store-changed"), 0);
    wait_until("the second name", DEADLINE, || has("b") && !has("a"));
    assert_eq!(gateway.lists()["heartbeat"]["node"], "b");
    set(&mut gateway, "redis.heartbeat", "off", "ok");
    wait_until("no name", DEADLINE, || !has("b"));
    assert_eq!(count(&gateway, "heartbeat-name-taken"), 0);
}

#[test]
fn the_copy_is_kept_elsewhere() {
    let one = Origin::named("one");
    let redis = redis_with(&one);
    let mut gateway = following(&redis).set("lists.last_good", "copy").start();
    wait_until("the copy", DEADLINE, || gateway.path("copy").exists());
    set(&mut gateway, "lists.last_good", "moved", "ok");
    wait_until("the copy there", DEADLINE, || {
        gateway.path("moved").exists()
    });
    set(&mut gateway, "lists.last_good", "", "ok");
    assert!(gateway.lists()["copy"].is_null());
}

#[test]
fn servers_without_a_port_get_another_one() {
    let one = Origin::named("one");
    let redis = Redis::start();
    redis.push("prod", &[&one.address().ip()]);
    let mut gateway = following(&redis).set("upstream.peer_port", 9).start();
    gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
    set(
        &mut gateway,
        "upstream.peer_port",
        one.address().port(),
        "ok",
    );
    wait_served_by(&gateway, "one");
}

#[test]
fn a_hundred_reloads_in_a_row_leave_nothing_behind_and_fail_nothing() {
    let one = Origin::named("one");
    let redis = redis_with(&one);
    let listen = support::free_address();
    let mut gateway = following(&redis).set("gateway.listen", listen).start();
    wait_served_by(&gateway, "one");
    let load = Load::on(&gateway);
    let threads = |gateway: &Gateway| {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid()));
        tasks.unwrap().count()
    };
    let second = support::free_address();
    let turn = |gateway: &mut Gateway, number: usize| {
        let first = gateway.addr();
        gateway.edit_ini(|it| {
            let it = it.set("redis.check_interval", format!("{}s", 10 + number % 2));
            match number % 2 {
                0 => it.set("gateway.listen", first),
                _ => it.set("gateway.listen", format!("{first}, {second}")),
            }
        });
        reload(gateway, "ok");
    };
    // The address is known by now.
    (0..10).for_each(|number| turn(&mut gateway, number));
    let (before, begun) = (threads(&gateway), gateway.rss_kib());
    let descriptors = gateway.descriptors();
    (0..100).for_each(|number| turn(&mut gateway, number));
    wait_until("as many threads as before", DEADLINE, || {
        threads(&gateway) <= before
    });
    wait_until("as many descriptors as before", DEADLINE, || {
        // The clients' connections come and go.
        gateway.descriptors() <= descriptors + 8
    });
    let end = gateway.rss_kib();
    assert!(end < begun + 8 * 1024, "{begun} KiB, and then {end}");
    load.end();
}

#[test]
fn a_storm_of_signals_is_one_reload_after_the_other_and_the_last_state_is_in_force() {
    let one = Origin::named("one");
    let redis = redis_with(&one);
    let mut gateway = following(&redis).start();
    wait_served_by(&gateway, "one");
    let load = Load::on(&gateway);
    for number in 0..300 {
        if number % 30 == 0 {
            gateway.edit_ini(|it| it.set("redis.check_interval", format!("{}s", 10 + number)));
        }
        gateway.signal(Signal::SIGHUP);
    }
    gateway.edit_ini(|it| it.set("gateway.max_connections", 77));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_metric("graygate_max_connections", 77.0);
    is_followed(&gateway, &redis, "10.1.1.1");
    load.end();
    gateway.end();
}

#[test]
fn a_stop_does_not_wait_for_a_reload_whose_redis_is_silent() {
    let one = Origin::named("one");
    let first = redis_with(&one);
    let mut gateway = following(&first).set("redis.timeout", "4s").start();
    wait_served_by(&gateway, "one");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    gateway.edit_ini(|it| it.set("redis.url", url));
    gateway.signal(Signal::SIGHUP);
    let (_connection, _) = silent.accept().unwrap();
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
