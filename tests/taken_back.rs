//! What was held or has waited, and was taken back in Redis by a transaction that also empties `pre`,
//! is what Redis no longer has: it comes into force by nobody's word, and by no time.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Origin, Redis, Setup, Site, run_to_exit, wait_until};

/// How long something that only settles has to stand.
const SETTLE: Duration = graygate::store::gate::guard::SETTLE;

/// What may pass until the gateway has seen what Redis has.
const SEEN: Duration = Duration::from_millis(300);

/// Sends commands of words without spaces as one transaction.
#[track_caller]
fn transaction(redis: &Redis, commands: &[&str]) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for command in commands {
        let mut words = command.split(' ');
        pipe.cmd(words.next().unwrap());
        for word in words {
            pipe.arg(word);
        }
        pipe.ignore();
    }
    pipe.exec(&mut redis.connect(0)).unwrap();
}

fn wait_for_time(what: &str, at: Instant) {
    wait_until(what, DEADLINE, || Instant::now() >= at);
}

/// True when `list` keeps its value for this reason.
fn keeps(page: &Value, list: &str, fault: &str) -> bool {
    let kept = page["kept"].as_array().unwrap();
    kept.contains(&json!({ "list": list, "fault": fault }))
}

fn held(page: &Value) -> Option<&str> {
    page["held"][0]["reason"].as_str()
}

/// Until the emptied `pre` is in force, `check` holds for what the gateway has and does.
#[track_caller]
fn until_pre_is_empty(gateway: &Gateway, check: impl Fn(&Value)) {
    wait_until("pre is empty", DEADLINE, || {
        let page = gateway.lists();
        check(&page);
        page["pre"] == json!([])
    });
}

/// Runs a try whose steps have to follow each other soon, until they do.
#[track_caller]
fn in_time(attempt: impl Fn() -> bool) {
    wait_until("a try in time", 6 * DEADLINE, attempt);
}

#[test]
fn a_held_change_that_was_taken_back_does_not_come_into_force_by_its_time() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    in_time(|| {
        let site = Site::with(|setup| {
            let setup = setup.set("redis.check_interval", "1h");
            setup.set("lists.guard_timeout", "1500ms")
        });
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        // All of `prod` counts as lost after a second.
        let start = Instant::now();
        site.redis("DEL prod");
        site.gateway
            .wait_for_lists("one is held", |it| held(it) == Some("empties-prod"));
        site.redis("RPUSH gray 0.0.0.0/0");
        site.gateway.wait_for_lists("both are held", |it| {
            it["held"].as_array().unwrap().len() == 2
        });
        let due = start + SETTLE + TIMEOUT;
        wait_for_time("it is soon due", due - SETTLE + SEEN);
        let push = format!("RPUSH prod {}", site.prod);
        transaction(&site.redis, &[&push, "LREM gray 0 0.0.0.0/0", "DEL pre"]);
        if Instant::now() + SEEN > due {
            return false;
        }
        until_pre_is_empty(&site.gateway, |page| {
            assert_eq!(page["gray"], json!(["127.0.0.5"]), "{page}");
            assert_eq!(page["prod"], json!([site.prod.to_string()]), "{page}");
            assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
        });
        wait_for_time("it is past", due);
        assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
        assert_eq!(site.gateway.stderr.count("change-accepted"), 0);
        true
    });
}

#[test]
fn what_had_to_stand_and_was_replaced_does_not_come_into_force_nor_what_waited_with_it() {
    in_time(|| {
        let others = [Origin::named("prod"), Origin::named("prod")];
        let redis = Redis::start();
        redis.push("prod", &[&others[0], &others[1]]);
        let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        let before = site.gateway.lists();
        site.redis("DEL prod");
        site.gateway
            .wait_for_lists("it was found empty", |it| keeps(it, "prod", "unsettled"));
        let read = site.refreshes("event");
        // Most of it, so that it has to stand; and what comes now waits for that.
        let start = Instant::now();
        let half = format!("RPUSH prod {} {}", others[0], others[1]);
        transaction(&site.redis, &[&half, "RPUSH gray 127.0.0.7"]);
        site.gateway.wait_for_lists("both wait", |it| {
            let wait = keeps(it, "prod", "unsettled") && keeps(it, "gray", "withheld");
            wait && it["refreshes"]["event"].as_u64() > Some(read)
        });
        wait_for_time("it has almost stood", start + SETTLE - 2 * SEEN);
        let rest = format!("RPUSH prod {}", site.prod);
        transaction(&site.redis, &[&rest, "LREM gray 0 127.0.0.7", "DEL pre"]);
        if start.elapsed() + SEEN > SETTLE {
            return false;
        }
        until_pre_is_empty(&site.gateway, |page| {
            for same in ["gray", "prod"] {
                assert_eq!(page[same], before[same], "{page}");
            }
        });
        // That is the only change.
        let generation = before["generation"].as_u64().unwrap();
        let page = site.gateway.lists();
        assert_eq!(page["generation"], generation + 1, "{page}");
        true
    });
}

#[test]
fn a_held_change_that_was_taken_back_is_accepted_by_nobody() {
    for way in ["command", "key"] {
        let site = Site::by_events();
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        let new = Origin::named("new");
        site.redis(&format!("LSET prod 0 {new}"));
        let page = site
            .gateway
            .wait_for_lists("it is held", |it| held(it) == Some("removes-peers"));
        let digest = page["held"][0]["digest"].as_str().unwrap();
        let back = format!("LSET prod 0 {}", site.prod);
        transaction(&site.redis, &[&back, "DEL pre"]);
        site.gateway.wait_for_lists("pre was found empty", |it| {
            it["pre"] == json!([]) || keeps(it, "pre", "unsettled")
        });
        match way {
            "command" => {
                let socket = site.gateway.path("admin.sock");
                let setup = Setup::new().set("admin.socket", socket.display());
                let ini = setup.write_ini();
                let ini = ini.to_str().unwrap();
                let output = run_to_exit(&["lists", "accept", digest, "-c", ini]);
                assert_eq!(output.status.code(), Some(1), "{output:?}");
            }
            _ => site.redis(&format!("SET graygate:accept {digest}")),
        }
        until_pre_is_empty(&site.gateway, |page| {
            assert_eq!(page["prod"], json!([site.prod.to_string()]), "{page}");
            assert_eq!(page["held"], json!([]), "{page}");
        });
        assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
        assert_eq!(new.accepted(), 0);
    }
}

#[test]
fn a_held_change_that_redis_still_has_is_accepted_while_others_wait() {
    let site = Site::by_events();
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let new = Origin::named("new");
    let change = format!("LSET prod 0 {new}");
    transaction(&site.redis, &[&change, "RPUSH gray 127.0.0.7", "DEL pre"]);
    let page = site
        .gateway
        .wait_for_lists("it is held", |it| held(it) == Some("removes-peers"));
    let digest = page["held"][0]["digest"].as_str().unwrap();
    site.redis(&format!("SET graygate:accept {digest}"));
    site.wait_served("127.0.0.6", "new");
    // It comes alone, and the others after it.
    let page = site.gateway.wait_for_lists("nothing waits", |page| {
        let is_whole = page["gray"] == json!(["127.0.0.5", "127.0.0.7"]);
        is_whole && page["pre"] == json!([]) && page["kept"] == json!([])
    });
    assert_eq!(page["held"], json!([]));
}
