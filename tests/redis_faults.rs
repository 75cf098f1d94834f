//! While Redis is away, slow, wrong or silent, the lists in force stay and requests are served.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    DEADLINE, Gateway, Origin, Redis, ScriptedRedis, Setup, Site, run_to_exit, texts, wait_until,
};

const READABLE: &str = "graygate_lists_readable";
const FAILURES: &str = "graygate_lists_failures_total";

/// What is done to a site, and its name.
type Deed = (&'static str, fn(&mut Site));

/// A site with 127.0.0.5 gray, and other settings.
#[track_caller]
fn gray_site(edit: impl FnOnce(Setup) -> Setup) -> Site {
    let site = Site::with(edit);
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    site
}

/// A gateway that gives Redis so little time that its silence is soon noticed.
fn impatient(setup: Setup) -> Setup {
    setup
        .set("redis.timeout", "200ms")
        .set("redis.check_interval", "1h")
}

/// The lines of the error log that say that something is wrong with Redis, without their time.
fn complaints(gateway: &Gateway) -> Vec<String> {
    let lines = gateway.stderr.all().into_iter();
    lines
        .filter_map(|line| line.split_once(' ').map(|(_, rest)| rest.to_owned()))
        .filter(|line| line.starts_with("ERROR") || line.starts_with("WARN"))
        .filter(|line| line.contains(" lists-") || line.contains(" redis-"))
        .collect()
}

/// Waits until these lists, and no others, keep their last good value for this reason.
#[track_caller]
fn wait_kept(gateway: &Gateway, kept: &[(&str, &str)]) {
    let kept = kept.iter();
    let kept: Vec<Value> = kept
        .map(|(list, fault)| json!({ "list": list, "fault": fault }))
        .collect();
    gateway.wait_for_lists(&format!("kept is {kept:?}"), |it| it["kept"] == json!(kept));
}

/// Gives the key another value in one step, so that nothing between the two can be read.
#[track_caller]
fn replace(redis: &Redis, key: &str, command: &[&str]) {
    let (name, arguments) = command.split_first().unwrap();
    redis.cli(&[&[*name, "replacement"], arguments].concat());
    redis.cli(&["RENAME", "replacement", key]);
}

#[track_caller]
fn flags(redis: &Redis) -> String {
    let flags = redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
    let [_, flags]: [String; 2] = redis::from_redis_value(flags).unwrap();
    flags
}

#[test]
fn redis_that_does_not_answer_at_the_start_means_503_until_it_does() {
    for (silent, why) in [(false, "refused"), (true, "timed out")] {
        let mut redis = Redis::stopped();
        if silent {
            redis.restart();
            redis.signal(Signal::SIGSTOP);
        }
        let gateway = impatient(Setup::new().redis(redis.url())).start();
        let response = gateway.get("127.0.0.1", "/");
        assert_eq!(response.status(), 503, "{response:?}");
        assert!(response.text().ends_with(": no-lists\n"), "{response:?}");
        gateway.wait_for_access("pool=- status=503 error=no-lists");
        gateway.wait_for_health(503, why);
        let line = gateway.wait_for_log("lists-unreadable");
        assert!(line.contains(why), "{line}");
        assert_eq!(gateway.metric(READABLE), 0.0);

        match silent {
            true => redis.signal(Signal::SIGCONT),
            false => redis.restart(),
        }
        let (pre, prod) = Origin::pre_and_prod();
        redis.push_peers(&pre, &prod);
        redis.push("gray", &[&"127.0.0.5"]);
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        gateway.wait_served("127.0.0.6", "prod", DEADLINE);
        gateway.wait_for_health(200, "ok");
        gateway.wait_for_log("lists-readable");
        gateway.wait_for_metric(READABLE, 1.0);
    }
}

#[test]
fn killing_redis_costs_no_request_and_bringing_it_back_applies_its_lists() {
    let mut site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_share", "100")
    });
    let other = Origin::named("other prod");
    let done = AtomicBool::new(false);
    let (served, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let addr = site.gateway.addr();
    let ask_until_done = || {
        let connect = || support::Client::from("127.0.0.5", addr);
        let mut client = connect();
        while !done.load(Ordering::Relaxed) {
            client.send_if_open("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.try_response_to("GET");
            if response.is_ok_and(|it| it.status() == 200) {
                served.fetch_add(1, Ordering::Relaxed);
            } else {
                failed.fetch_add(1, Ordering::Relaxed);
                client = connect();
            }
        }
    };
    let more_are_served = || {
        let enough = served.load(Ordering::Relaxed) + 200;
        wait_until("requests go on", DEADLINE, || {
            served.load(Ordering::Relaxed) >= enough
        });
    };
    std::thread::scope(|scope| {
        // Whatever fails here, the clients must end.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for _ in 0..4 {
            scope.spawn(ask_until_done);
        }
        more_are_served();
        site.redis.kill();
        site.gateway.wait_for_metric(READABLE, 0.0);
        more_are_served();
        site.redis.restart();
        site.redis.push("prod", &[&other]);
        site.redis.push("pre", &[&site.pre]);
        site.redis.push("gray", &[&"127.0.0.5"]);
        site.gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        site.gateway
            .wait_served("127.0.0.6", "other prod", DEADLINE);
        more_are_served();
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {served:?} requests");
    let lists = site.gateway.lists();
    assert_eq!(lists["prod"], json!([other.to_string()]), "{lists}");
    // The end of a connection and the refusal of another are two reasons, each told once.
    let mut reasons = complaints(&site.gateway);
    reasons.sort();
    let told = reasons.len();
    reasons.dedup();
    assert_eq!(reasons.len(), told, "{:?}", site.gateway.stderr.all());
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn silence_of_redis_is_noticed_soon_and_the_lists_stay() {
    for notify in ["auto", "poll"] {
        let site = gray_site(|setup| {
            let setup = impatient(setup).set("redis.poll_interval", "50ms");
            setup.set("redis.notify", notify)
        });
        let lists = site.gateway.lists();
        site.redis.signal(Signal::SIGSTOP);
        wait_until(
            &format!("silence is noticed with notify = {notify}"),
            Duration::from_secs(3),
            || site.gateway.metric(READABLE) == 0.0,
        );
        for (client, pool) in [("127.0.0.5", "pre"), ("127.0.0.6", "prod")] {
            assert_eq!(site.gateway.get(client, "/").text(), pool, "{notify}");
        }
        let page = site
            .gateway
            .wait_for_lists("the error", |it| it["error"] != Value::Null);
        assert_eq!(page["error"], "timed out", "{notify}");
        for key in ["generation", "digest", "gray", "pre", "prod"] {
            assert_eq!(page[key], lists[key], "{notify}: {key}");
        }
        site.redis.signal(Signal::SIGCONT);
        site.redis("RPUSH gray 127.0.0.7");
        site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
        site.gateway.wait_for_metric(READABLE, 1.0);
    }
}

#[test]
fn a_redis_that_still_loads_its_data_changes_nothing_until_it_has() {
    let redis = Redis::start_with_options(&[
        "--rdbcompression",
        "no",
        // Ten milliseconds for each key, and an ear for clients meanwhile.
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let padding = "x".repeat(2000);
    for at in 0..100 {
        redis.cli(&["SET", &format!("padding {at}"), &padding]);
    }
    redis.push("gray", &[&"127.0.0.5"]);
    let mut site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
    let generation = site.gateway.lists()["generation"].clone();
    site.redis("SAVE");
    site.redis.kill();
    // This waits until it is loaded.
    site.redis.restart();
    // The heartbeat is refused, too, maybe before.
    wait_until("the log tells of the lists", DEADLINE, || {
        let told = |it: &String| it.contains("lists-unreadable") && it.contains("LOADING");
        site.gateway.stderr.all().iter().any(told)
    });
    site.gateway.wait_for_metric(READABLE, 1.0);
    assert_eq!(site.gateway.lists()["generation"], generation);
    assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre");
    site.redis("RPUSH gray 127.0.0.7");
    site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
}

#[test]
fn a_wrong_password_is_told_once_and_not_shown() {
    let redis = Redis::start_with_password(Some("second-sesame"));
    let url = format!("redis://:first-sesame@{}/0", redis.address());
    let gateway = Setup::new().redis(url).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    gateway.wait_for_access("status=503 error=no-lists");
    gateway.wait_for_health(503, "authentication failed");
    wait_until("some attempts", DEADLINE, || {
        gateway.metric(FAILURES) >= 4.0
    });
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("authentication failed"), "{line}");
    assert_eq!(complaints(&gateway).len(), 1);
    assert_shown_nowhere(&gateway, "-sesame");

    // Once it is the right one, nobody has to start the gateway again.
    let prod = Origin::named("prod");
    redis.push("prod", &[&prod]);
    redis.cli(&["CONFIG", "SET", "requirepass", "first-sesame"]);
    gateway.wait_served("127.0.0.1", "prod", DEADLINE);
    assert_shown_nowhere(&gateway, "-sesame");
}

/// Checks that no text that a person reads holds `secret`.
#[track_caller]
fn assert_shown_nowhere(gateway: &Gateway, secret: &str) {
    let setup = Setup::new().set("admin.listen", gateway.admin());
    let status = run_to_exit(&["status", "-c", setup.write_ini().to_str().unwrap()]);
    let texts = [
        gateway.stderr.all().join("\n"),
        gateway.stdout.all().join("\n"),
        gateway.admin_get("/lists").1,
        gateway.admin_get("/healthz").1,
        gateway.admin_get("/metrics").1,
        format!("{status:?}"),
    ];
    for text in texts {
        assert!(!text.contains(secret), "{secret} in: {text}");
    }
}

#[test]
fn a_missing_password_is_told_once() {
    let redis = Redis::start_with_password(Some("a-secret"));
    let url = format!("redis://{}/0", redis.address());
    let gateway = Setup::new().redis(url).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    gateway.wait_for_health(503, "NOAUTH");
    wait_until("some attempts", DEADLINE, || {
        gateway.metric(FAILURES) >= 4.0
    });
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("NOAUTH"), "{line}");
    assert_eq!(complaints(&gateway).len(), 1);

    let prod = Origin::named("prod");
    redis.push("prod", &[&prod]);
    redis.cli(&["CONFIG", "SET", "requirepass", ""]);
    gateway.wait_served("127.0.0.1", "prod", DEADLINE);
}

#[test]
fn silence_at_a_check_is_not_taken_for_a_refusal() {
    let site = Site::with(|setup| impatient(setup).set("redis.check_interval", "50ms"));
    site.wait_refreshes("check", 1);
    site.redis.signal(Signal::SIGSTOP);
    site.gateway.wait_for_log("lists-unreadable");
    site.redis.signal(Signal::SIGCONT);
    site.gateway.wait_for_log("lists-readable");
    assert_eq!(site.gateway.stderr.count("redis-events-refused"), 0);
    assert_eq!(site.gateway.stderr.count("lists-mode"), 1);
}

#[test]
fn the_password_in_the_environment_goes_before_the_file_and_is_not_shown() {
    let redis = Redis::start_with_password(Some("right-sesame"));
    let in_file = format!("redis://:wrong-sesame@{}/0", redis.address());
    let url = redis.url();
    let mut site = Site::on(redis, |setup| {
        let setup = setup.set("redis.url", in_file);
        setup.environment("GRAYGATE_REDIS_URL", url)
    });
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    assert_eq!(site.gateway.metric(FAILURES), 0.0);
    site.redis.kill();
    site.gateway.wait_for_metric(READABLE, 0.0);
    assert_shown_nowhere(&site.gateway, "-sesame");
}

#[test]
fn a_key_of_another_type_keeps_its_list_and_the_others_change() {
    let site = gray_site(|setup| setup.set("redis.check_interval", "1h"));
    let (pre, prod) = (site.pre.to_string(), site.prod.to_string());
    let table: [(&str, &[&str], &str); 3] = [
        ("gray", &["SET", "127.0.0.6"], "127.0.0.5"),
        ("pre", &["HSET", &prod, "1"], &pre),
        ("prod", &["ZADD", "1", &pre], &prod),
    ];
    for (at, (key, wrong, right)) in table.into_iter().enumerate() {
        replace(&site.redis, key, wrong);
        wait_kept(&site.gateway, &[(key, "wrong-type")]);
        let kept = format!("graygate_lists_kept{{list=\"{key}\",fault=\"wrong-type\"}}");
        site.gateway.wait_for_metric(&kept, 1.0);
        site.gateway
            .wait_for_log(&format!("list-kept list={key} fault=wrong-type"));
        assert_eq!(site.gateway.lists()[key], json!([right]));
        for (client, pool) in [("127.0.0.5", "pre"), ("127.0.0.6", "prod")] {
            assert_eq!(site.gateway.get(client, "/").text(), pool, "{key}");
        }

        let (other, entry) = match key {
            "gray" => ("pre", "127.0.0.1:9"),
            _ => ("gray", "127.0.0.7"),
        };
        site.redis.push(other, &[&entry]);
        site.gateway.wait_for_lists("the other list", |it| {
            it[other].as_array().unwrap().contains(&json!(entry))
        });
        site.redis.cli(&["LREM", other, "0", entry]);

        replace(&site.redis, key, &["RPUSH", right]);
        wait_kept(&site.gateway, &[]);
        site.gateway
            .wait_for_log(&format!("list-recovered list={key} fault=wrong-type"));
        assert_eq!(site.gateway.shown_metric(&kept), None);
        assert_eq!(site.gateway.stderr.count("list-kept"), at + 1, "{key}");
    }
}

/// A site whose gateway is a user of its own, with the right to every key so far.
#[track_caller]
fn site_of_a_user(edit: impl FnOnce(Setup) -> Setup) -> Site {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "app", "on", ">secret", "+@all", "&*"]);
    allow(&redis, &["gray", "pre", "prod"]);
    let url = format!("redis://app:secret@{}/0", redis.address());
    Site::on(redis, |setup| edit(setup.set("redis.url", url)))
}

/// From now on the user may read these lists, and no others.
#[track_caller]
fn allow(redis: &Redis, keys: &[&str]) {
    let keys: Vec<String> = keys.iter().map(|it| format!("~{it}")).collect();
    let mut command = vec!["ACL", "SETUSER", "app", "resetkeys", "~graygate:*"];
    command.extend(keys.iter().map(String::as_str));
    redis.cli(&command);
}

#[test]
fn a_key_that_may_not_be_read_keeps_its_list_and_the_others_change() {
    let site = site_of_a_user(|setup| setup.set("redis.check_interval", "300ms"));
    let (pre, prod) = (site.pre.to_string(), site.prod.to_string());
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let all = ["gray", "pre", "prod"];
    let rights = [("gray", "127.0.0.5"), ("pre", &pre), ("prod", &prod)];
    for (at, (key, right)) in rights.into_iter().enumerate() {
        let others: Vec<&str> = all.into_iter().filter(|it| *it != key).collect();
        allow(&site.redis, &others);
        wait_kept(&site.gateway, &[(key, "forbidden")]);
        let kept = format!("graygate_lists_kept{{list=\"{key}\",fault=\"forbidden\"}}");
        site.gateway.wait_for_metric(&kept, 1.0);
        let line = site
            .gateway
            .wait_for_log(&format!("key-refused list={key} key={key:?}"));
        assert!(line.contains("ERROR") && line.contains("NOPERM"), "{line}");
        site.gateway
            .wait_for_log(&format!("list-kept list={key} fault=forbidden"));

        // Theirs is announced, and read at once; so is this one's, which changes nothing.
        let (other, entry) = match key {
            "gray" => ("pre", "127.0.0.1:9"),
            _ => ("gray", "127.0.0.7"),
        };
        site.redis.push(key, &[&"127.0.0.8"]);
        site.redis.push(other, &[&entry]);
        let page = site.gateway.wait_for_lists("the other list", |it| {
            it[other].as_array().unwrap().contains(&json!(entry))
        });
        assert_eq!(page[key], json!([right]), "{page}");
        site.redis.cli(&["LREM", other, "0", entry]);
        site.wait_refreshes("check", 2);

        // It is tried again at each check.
        allow(&site.redis, &all);
        wait_kept(&site.gateway, &[]);
        let page = site.gateway.lists();
        assert_eq!(page[key].as_array().unwrap().len(), 2, "{page}");
        site.redis.cli(&["LREM", key, "0", "127.0.0.8"]);
        site.gateway
            .wait_for_lists("as before", |it| it[key] == json!([right]));
        assert_eq!(site.gateway.stderr.count("key-refused"), at + 1, "{key}");
    }
    assert_eq!(site.gateway.metric(FAILURES), 0.0);
    // What was refused had been announced.
    assert_eq!(site.gateway.lists()["missed_events"], 0);
}

#[test]
fn a_key_that_may_not_be_read_does_not_keep_an_emptied_list_from_settling() {
    let site = site_of_a_user(|setup| {
        let setup = setup.set("redis.notify", "poll");
        setup.set("redis.poll_interval", "50ms")
    });
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    allow(&site.redis, &["pre", "prod"]);
    wait_kept(&site.gateway, &[("gray", "forbidden")]);
    site.redis("DEL pre");
    site.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    // Also where nothing may be queued.
    site.redis("CONFIG SET maxmemory 1");
    site.redis("DEL prod");
    let held = |it: &Value| it["held"][0]["reason"] == "empties-prod";
    site.gateway.wait_for_lists("prod is held", held);
    assert_eq!(site.gateway.metric(FAILURES), 0.0);
}

#[test]
fn where_no_key_may_be_read_the_error_names_the_list() {
    let site = site_of_a_user(|setup| setup.set("redis.check_interval", "300ms"));
    let lists = site.gateway.lists();
    allow(&site.redis, &[]);
    let line = site.gateway.wait_for_log("lists-unreadable");
    assert!(
        line.contains("NOPERM") && line.contains("(reading gray)"),
        "{line}"
    );
    assert_eq!(site.gateway.lists()["prod"], lists["prod"]);
    allow(&site.redis, &["gray", "pre", "prod"]);
    site.gateway.wait_for_log("lists-readable");
    site.redis("RPUSH gray 127.0.0.5");
    site.gateway.wait_served("127.0.0.5", "pre", DEADLINE);
}

#[test]
fn garbage_is_skipped_counted_and_named() {
    let site = gray_site(|setup| setup.set("redis.check_interval", "1h"));
    let table: [(&str, &[&str], &str); 3] = [
        ("gray", &["127.0.0.1-9", "", "127.0.0.256"], "127.0.0.1-9"),
        ("pre", &["pre.example:0", "10.0.0.1:0"], "pre.example:0"),
        ("prod", &["a\nb\u{1b}"], r"a\nb\x1b"),
    ];
    for (key, garbage, first) in table {
        let before = site.gateway.lists();
        let garbage: Vec<&dyn std::fmt::Display> = garbage.iter().map(|it| it as _).collect();
        site.redis.push(key, &garbage);
        let skipped = format!("graygate_lists_skipped{{list=\"{key}\"}}");
        site.gateway.wait_for_metric(&skipped, garbage.len() as f64);
        let page = site.gateway.lists();
        assert_eq!(page["skipped"][key]["count"], garbage.len());
        assert_eq!(page["skipped"][key]["first"][0]["entry"], first);
        for same in ["generation", "gray", "pre", "prod", "kept"] {
            assert_eq!(page[same], before[same], "{key}: {same}");
        }
        let line = site.gateway.wait_for_log(&format!(
            "entries-skipped list={key} count={}",
            garbage.len()
        ));
        assert!(line.contains(&first.escape_default().to_string()), "{line}");
        for (client, pool) in [("127.0.0.5", "pre"), ("127.0.0.6", "prod")] {
            assert_eq!(site.gateway.get(client, "/").text(), pool, "{key}");
        }
    }
}

#[test]
fn a_list_of_nothing_but_garbage_keeps_its_value() {
    let site = gray_site(|setup| setup.set("redis.check_interval", "1h"));
    let (pre, prod) = (site.pre.to_string(), site.prod.to_string());
    for (key, right) in [("gray", "127.0.0.5"), ("pre", &pre), ("prod", &prod)] {
        replace(&site.redis, key, &["RPUSH", "gar bage", "more!"]);
        wait_kept(&site.gateway, &[(key, "all-skipped")]);
        let kept = format!("graygate_lists_kept{{list=\"{key}\",fault=\"all-skipped\"}}");
        site.gateway.wait_for_metric(&kept, 1.0);
        site.gateway
            .wait_for_log(&format!("list-kept list={key} fault=all-skipped"));
        assert_eq!(site.gateway.lists()[key], json!([right]));
        for (client, pool) in [("127.0.0.5", "pre"), ("127.0.0.6", "prod")] {
            assert_eq!(site.gateway.get(client, "/").text(), pool, "{key}");
        }
        let page = site.gateway.lists();
        assert_eq!(page["skipped"][key]["count"], 2, "{key}: {page}");

        replace(&site.redis, key, &["RPUSH", right]);
        wait_kept(&site.gateway, &[]);
        assert_eq!(site.gateway.lists()["skipped"][key]["count"], 0, "{key}");
    }
}

#[test]
fn a_flush_is_found_by_the_check_and_prod_is_held() {
    for flush in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1"] {
        let site = gray_site(|setup| setup.set("redis.check_interval", "300ms"));
        site.redis(flush);
        site.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        let page = site
            .gateway
            .wait_for_lists("prod is held", |it| it["held"] != json!([]));
        assert_eq!(page["held"][0]["reason"], "empties-prod", "{flush}");
        assert_eq!(page["kept"], json!([]), "{flush}");
        assert_eq!(page["mode"], "events", "{flush}");
        assert_eq!(page["missed_events"], 1, "{flush}");
        assert_eq!(page["gray"], json!([]), "{flush}");
        assert_eq!(page["pre"], json!([]), "{flush}");
        assert_eq!(page["prod"], json!([site.prod.to_string()]), "{flush}");
        site.gateway
            .wait_for_log("change-held list=prod reason=empties-prod");
        site.gateway.wait_for_health(200, "ok");
        site.wait_refreshes("check", 3);
        // Found once, however often it is seen again.
        assert_eq!(site.gateway.lists()["missed_events"], 1, "{flush}");

        let new = Origin::named("new prod");
        site.redis.push("prod", &[&new, &site.prod]);
        site.redis.push("pre", &[&site.pre]);
        site.redis.push("gray", &[&"127.0.0.5"]);
        site.wait_served("127.0.0.5", "pre");
        site.wait_served("127.0.0.6", "new prod");
        site.gateway
            .wait_for_lists("nothing is held", |it| it["held"] == json!([]));
        site.gateway.wait_for_log("change-forgotten list=prod");
        assert_eq!(site.gateway.stderr.count("change-held"), 1, "{flush}");
    }
}

#[test]
fn notifications_are_switched_on_beside_those_of_others() {
    // The last one is not covered by A.
    for theirs in ["", "Ex", "E$l", "Kg", "Em"] {
        let redis = Redis::start_with_options(&["--notify-keyspace-events", theirs]);
        let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        let now = flags(&site.redis);
        let covered = |flag: char| now.contains(flag) || "g$lshzxetd".contains(flag);
        assert!(now.contains('K') && now.contains('A'), "{theirs:?}: {now}");
        assert!(theirs.chars().all(covered), "{theirs:?}: {now}");
        assert_eq!(now.contains('E'), theirs.contains('E'), "{theirs:?}: {now}");
    }
}

#[test]
fn notifications_that_somebody_switches_off_are_on_again_after_the_next_check() {
    let site = gray_site(|setup| setup.set("redis.check_interval", "300ms"));
    site.redis
        .cli(&["CONFIG", "SET", "notify-keyspace-events", ""]);
    wait_until("the flags are back", DEADLINE, || {
        let now = flags(&site.redis);
        now.contains('K') && now.contains('A')
    });
    let events = site.refreshes("event");
    wait_until("an event is heard", DEADLINE, || {
        site.redis("RPUSH gray 127.0.0.7");
        site.refreshes("event") > events
    });
    wait_until("both times are told", DEADLINE, || {
        site.gateway.stderr.count("redis-events-enabled") == 2
    });
    assert_eq!(site.gateway.lists()["mode"], "events");
}

#[test]
fn where_notifications_cannot_be_switched_on_the_lists_are_polled() {
    // Users who may only read, may use no channel (the default of Redis 7), or may not subscribe.
    // The user `default` stays for the test.
    const READ: &str = "~gray ~pre ~prod +@read +@connection +@transaction";
    let no_config = format!("{READ} &* +subscribe -client");
    let no_channel = format!("{READ} resetchannels +subscribe +config");
    let no_subscribe = format!("{READ} &* +config");
    for rights in [no_config, no_channel, no_subscribe] {
        let redis = Redis::start();
        let mut command = vec!["ACL", "SETUSER", "app", "on", ">secret"];
        command.extend(rights.split(' '));
        redis.cli(&command);
        let url = format!("redis://app:secret@{}/0", redis.address());
        let site = Site::on(redis, |setup| {
            let setup = setup.set("redis.url", url);
            let setup = setup.set("redis.check_interval", "1h");
            setup.set("redis.poll_interval", "50ms")
        });
        site.gateway
            .wait_for_lists("poll", |it| it["mode"] == "poll");
        for (command, pool) in [("RPUSH gray 127.0.0.5", "pre"), ("DEL gray", "prod")] {
            site.redis(command);
            site.wait_served("127.0.0.5", pool);
        }
        site.wait_refreshes("check", 3);
        for (step, instead) in [("events", "tracking"), ("tracking", "poll")] {
            let said = format!("redis-{step}-refused");
            let line = site.gateway.wait_for_log(&said);
            assert!(line.contains("WARN"), "{line}");
            // In the server's own words.
            assert!(line.contains("NOPERM"), "{line}");
            assert!(line.ends_with(&format!("instead={instead}")), "{line}");
            assert_eq!(site.gateway.stderr.count(&said), 1);
        }
        assert_eq!(site.gateway.metric(FAILURES), 0.0, "{rights:?}");
        assert_eq!(site.gateway.lists()["missed_events"], 0);
    }
}

#[test]
fn notifications_that_are_on_already_are_used_even_where_config_is_refused() {
    let redis = Redis::start_with_options(&[
        "--notify-keyspace-events",
        "KA",
        "--rename-command",
        "CONFIG",
        "",
    ]);
    let site = Site::on(redis, |setup| {
        let setup = setup.set("redis.notify", "events");
        setup.set("redis.poll_interval", "1h")
    });
    assert_eq!(site.gateway.lists()["mode"], "poll");
    let line = site.gateway.wait_for_log("redis-events-refused");
    assert!(
        line.contains("ERROR") && line.ends_with("instead=poll"),
        "{line}"
    );
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    assert_eq!(site.refreshes("check"), 0);
}

#[test]
fn a_change_right_after_the_connection_was_lost_is_applied() {
    let lose: [Deed; 3] = [
        ("subscription", |site| site.redis("CLIENT KILL TYPE pubsub")),
        ("reader", |site| site.redis("CLIENT KILL TYPE normal")),
        ("server", |site| {
            site.redis.kill();
            site.redis.restart();
            site.redis.push("pre", &[&site.pre]);
            site.redis.push("prod", &[&site.prod]);
        }),
    ];
    for (what, lose) in lose {
        let mut site = gray_site(|setup| setup.set("redis.check_interval", "1h"));
        lose(&mut site);
        site.redis("RPUSH gray 127.0.0.7");
        site.gateway.wait_served("127.0.0.7", "pre", DEADLINE);
        assert_eq!(site.refreshes("reconnect"), 1, "{what}");
        assert_eq!(site.refreshes("check"), 0, "{what}");
        site.redis("RPUSH gray 127.0.0.8");
        site.wait_served("127.0.0.8", "pre");
    }
}

#[test]
fn a_connection_that_is_lost_again_and_again_is_back_in_a_moment_each_time() {
    const LOSSES: u32 = 8;
    let site = Site::with(|setup| setup.set("redis.check_interval", "1h"));
    let begun = Instant::now();
    for at in 0..LOSSES {
        site.redis("CLIENT KILL TYPE pubsub");
        site.redis(&format!("RPUSH gray 127.0.1.{at}"));
        site.wait_served(&format!("127.0.1.{at}"), "pre");
    }
    // Pauses that double would be as many seconds in all, and half of that more.
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(1) * LOSSES, "{taken:?}");
    assert_eq!(site.refreshes("reconnect"), u64::from(LOSSES));
}

#[test]
fn waiting_for_redis_takes_no_cpu_time() {
    let leave: [Deed; 2] = [
        ("killed", |site| site.redis.kill()),
        ("silent", |site| site.redis.signal(Signal::SIGSTOP)),
    ];
    for (what, leave) in leave {
        let mut site = Site::with(impatient);
        leave(&mut site);
        site.gateway.wait_for_metric(READABLE, 0.0);
        let (ticks, failures) = (site.gateway.cpu_ticks(), site.gateway.metric(FAILURES));
        // What is measured is time itself.
        let start = Instant::now();
        wait_until("a second passes", DEADLINE, || {
            start.elapsed() > Duration::from_secs(1)
        });
        // A hundred of them are a second.
        let ticks = site.gateway.cpu_ticks() - ticks;
        assert!(ticks < 20, "{what}: {ticks} ticks");
        let failures = site.gateway.metric(FAILURES) - failures;
        assert!(failures < 10.0, "{what}: {failures} attempts");
    }
}

#[test]
fn a_redis_whose_memory_is_used_up_is_read_on() {
    let site = gray_site(|setup| setup.set("redis.check_interval", "1h"));
    // Writing is refused from here on, and so is queuing, but not to remove or to rename.
    site.redis.push("prepared", &[&"127.0.0.6"]);
    site.redis("CONFIG SET maxmemory 1");
    site.redis("RENAME prepared gray");
    site.wait_served("127.0.0.6", "pre");
    site.wait_served("127.0.0.5", "prod");
    site.redis("DEL gray");
    site.wait_served("127.0.0.6", "prod");
    assert_eq!(complaints(&site.gateway), Vec::<String>::new());
}

#[test]
fn lists_that_change_while_they_are_read_one_by_one_are_read_again() {
    // It may queue nothing, since its memory is used up. All lists change just after the first was
    // read, as its WATCH says.
    let (mut queued, mut changed, mut touched) = (None, false, false);
    let redis = ScriptedRedis::start(move |command| match (command[0], &mut queued) {
        ("MULTI", _) => {
            queued = Some(0);
            "+OK".to_owned()
        }
        ("EXEC", _) => match (queued.take(), std::mem::take(&mut touched)) {
            (Some(0), true) => "*-1".to_owned(),
            (Some(0), false) => "*0".to_owned(),
            _ => "-EXECABORT Transaction discarded because of previous errors.".to_owned(),
        },
        (_, Some(count)) => {
            *count += 1;
            "-OOM command not allowed when used memory > 'maxmemory'.".to_owned()
        }
        ("LRANGE", None) => {
            let now = if changed { 2 } else { 1 };
            touched |= !std::mem::replace(&mut changed, true);
            match command[1] {
                "gray" => texts(&[&format!("127.0.0.{now}")]),
                list => texts(&[&format!("127.0.{}.{now}:9", list.len())]),
            }
        }
        ("SMEMBERS", None) => "-WRONGTYPE no set".to_owned(),
        ("PING" | "WATCH", None) => "+OK".to_owned(),
        _ => "-ERR unknown command".to_owned(),
    });
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", "poll")
        .set("redis.poll_interval", "1h")
        .start();
    let page = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
    let lists = [&page["gray"], &page["pre"], &page["prod"]];
    let new = [
        json!(["127.0.0.2"]),
        json!(["127.0.3.2:9"]),
        json!(["127.0.4.2:9"]),
    ];
    assert_eq!(lists, new.each_ref());
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
}

const TOO_LONG: [(&str, &str); 3] = [
    ("gray", "too-long"),
    ("pre", "too-long"),
    ("prod", "too-long"),
];

#[test]
fn a_reply_that_is_to_be_endless_is_refused_when_that_is_announced() {
    let endless = Arc::new(AtomicBool::new(false));
    let (asked, now_endless) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&endless));
    let count = Arc::clone(&asked);
    let mut in_transaction = false;
    let redis = ScriptedRedis::start(move |command| match command[0] {
        "MULTI" => {
            in_transaction = true;
            "+OK".to_owned()
        }
        "EXEC" => {
            in_transaction = false;
            count.fetch_add(1, Ordering::Relaxed);
            let list = |entry: &str| format!("\r\n{}\r\n-WRONGTYPE no set", texts(&[entry]));
            let prod = match now_endless.load(Ordering::Relaxed) {
                true => format!("\r\n*1\r\n$99000000000\r\n{}", "x".repeat(1 << 20)),
                false => list("127.0.2.1:9"),
            };
            format!("*6{}{}{prod}", list("127.0.0.5"), list("127.0.1.1:9"))
        }
        _ if in_transaction => "+QUEUED".to_owned(),
        "PING" => "+PONG".to_owned(),
        _ => "-ERR unknown command".to_owned(),
    });
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", "poll")
        .set("redis.poll_interval", "100ms")
        .set("redis.check_interval", "3s")
        .set("redis.heartbeat", "off")
        .set("redis.timeout", "1s")
        .set("verdict.mode", "off")
        .start();
    let before = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
    endless.store(true, Ordering::Relaxed);
    wait_kept(&gateway, &TOO_LONG);
    let first = asked.load(Ordering::Relaxed);
    let page = gateway.lists();
    let error =
        "too long: the lists have more than the 268435456 bytes of max_reply (reading prod)";
    assert_eq!(page["error"], error);
    for same in ["generation", "digest", "gray", "pre", "prod"] {
        assert_eq!(page[same], before[same], "{same}");
    }
    // Each try costs the server as much: the next one is with the next check.
    let begun = Instant::now();
    wait_until("another try", DEADLINE, || {
        asked.load(Ordering::Relaxed) > first
    });
    assert!(begun.elapsed() > Duration::from_secs(2));
    gateway.wait_for_metric(FAILURES, 2.0);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 1);
    assert_eq!(gateway.stderr.count("fault=too-long"), 3);

    endless.store(false, Ordering::Relaxed);
    wait_kept(&gateway, &[]);
    gateway.wait_for_log("list-recovered list=prod fault=too-long");
    assert_eq!(gateway.lists()["error"], Value::Null);
}

#[test]
fn lists_that_are_longer_than_allowed_stay_as_they_are_until_they_are_shorter() {
    for is_full in [false, true] {
        let site = gray_site(|setup| {
            let setup = setup.set("redis.max_reply", "64k");
            setup.set("redis.check_interval", "300ms")
        });
        let entries: Vec<String> = (0..6000).map(|at| format!("2001:db8::{at:x}")).collect();
        let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
        site.redis.push("gray", &entries);
        if is_full {
            // Each list is read for itself then.
            site.redis("CONFIG SET maxmemory 1");
        }
        wait_kept(&site.gateway, &TOO_LONG);
        let error =
            "too long: the lists have more than the 65536 bytes of max_reply (reading gray)";
        assert_eq!(site.gateway.lists()["error"], error);
        site.wait_served("127.0.0.5", "pre");
        let before = site.gateway.metric(FAILURES);
        wait_until("another try", DEADLINE, || {
            site.gateway.metric(FAILURES) > before
        });
        assert_eq!(site.gateway.stderr.count("lists-unreadable"), 1);
        assert_eq!(site.gateway.stderr.count("fault=too-long"), 3);
        site.redis("LTRIM gray 0 0");
        wait_kept(&site.gateway, &[]);
        assert_eq!(site.gateway.lists()["gray"], json!(["127.0.0.5"]));
    }
}

#[test]
fn an_entry_that_is_longer_than_any_address_is_skipped_and_not_kept_in_memory() {
    let site = gray_site(|setup| setup);
    let before = site.gateway.peak_rss_kib();
    // It begins like one.
    let long = format!("127.0.0.6{}", " ".repeat(24 << 20));
    for _ in 0..2 {
        site.redis.push("gray", &[&long]);
    }
    site.redis("RPUSH gray 127.0.0.7");
    site.wait_served("127.0.0.7", "pre");
    site.wait_served("127.0.0.6", "prod");
    let skipped = site.gateway.lists()["skipped"]["gray"].clone();
    assert_eq!(skipped["count"], 2);
    assert_eq!(
        skipped["first"][0]["reason"],
        "longer than the 1024 bytes that an entry may have"
    );
    let more = site.gateway.peak_rss_kib().saturating_sub(before);
    assert!(more < 20_000, "{more} KiB");
}
