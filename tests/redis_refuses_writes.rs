//! A Redis that refuses to write, and so PING, is read on.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{DEADLINE, Gateway, Origin, Redis, ScriptedRedis, Setup, Site, texts, wait_until};

/// So impatient that it asks for signs of life all the time.
fn impatient(setup: Setup) -> Setup {
    setup
        .set("redis.timeout", "200ms")
        .set("redis.check_interval", "500ms")
        .set("redis.poll_interval", "100ms")
        .set("redis.heartbeat", "100ms")
}

/// Waits until the server was asked for signs of life, and refused them.
#[track_caller]
fn outlast_silence(gateway: &Gateway) {
    let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
    let before = gateway.metric(checks);
    wait_until("some checks", DEADLINE, || {
        gateway.metric(checks) >= before + 3.0
    });
}

#[track_caller]
fn assert_readable(gateway: &Gateway) {
    for event in ["lists-unreadable", "redis-events-refused", "redis-tracking"] {
        assert_eq!(gateway.stderr.count(event), 0, "{event}");
    }
}

#[test]
fn a_redis_that_cannot_save_is_followed_and_its_expiry_rolls_back() {
    for mode in ["events", "tracking", "poll"] {
        let site = Site::with(|it| impatient(it).set("redis.notify", mode));
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        site.redis("PEXPIRE gray 3000");
        site.redis.fail_to_save();
        assert_eq!(site.gateway.get("127.0.0.5", "/").text(), "pre", "{mode}");
        outlast_silence(&site.gateway);
        site.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        assert_readable(&site.gateway);
        assert_eq!(site.gateway.lists()["mode"], mode);
        // The heartbeat is a write.
        site.gateway.wait_for_log("heartbeat-refused");
    }
}

#[test]
fn a_gateway_starts_on_a_redis_that_cannot_save() {
    let (pre, prod) = Origin::pre_and_prod();
    let redis = Redis::start();
    redis.push_peers(&pre, &prod);
    redis.push("gray", &[&"127.0.0.5"]);
    redis.fail_to_save();
    let gateway = impatient(Setup::new().redis(redis.url())).start();
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "prod");
    assert_eq!(gateway.lists()["mode"], "events");
    outlast_silence(&gateway);
    assert_readable(&gateway);
}

#[test]
fn whatever_is_refused_but_the_lists_keeps_no_lists_away() {
    let refusals = [
        "NOREPLICAS Not enough good replicas to write.",
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOPERM this user has no permissions to run the command",
        "ERR unknown command",
        "XYZ in words of its own",
    ];
    for refusal in refusals {
        let mut queued = Vec::new();
        let redis = ScriptedRedis::start(move |command| {
            let list = match command[1..] {
                ["gray", ..] => texts(&["127.0.0.5"]),
                ["pre", ..] => texts(&["127.0.3.1:9"]),
                _ => texts(&["127.0.4.1:9"]),
            };
            match command[0] {
                "MULTI" => "+OK".to_owned(),
                "LRANGE" | "SMEMBERS" => {
                    queued.push(list);
                    "+QUEUED".to_owned()
                }
                "EXEC" => {
                    let replies = std::mem::take(&mut queued);
                    format!("*{}\r\n{}", replies.len(), replies.join("\r\n"))
                }
                _ => format!("-{refusal}"),
            }
        });
        let setup = Setup::new().redis(redis.url()).set("verdict.mode", "off");
        let gateway = impatient(setup).start();
        let page = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
        assert_eq!(page["gray"], serde_json::json!(["127.0.0.5"]), "{refusal}");
        assert_eq!(page["mode"], "poll", "{refusal}");
        let silence = Duration::from_millis(500);
        std::thread::sleep(silence);
        assert_eq!(gateway.stderr.count("lists-unreadable"), 0, "{refusal}");
    }
}
