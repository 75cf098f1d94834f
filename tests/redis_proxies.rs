//! Proxies in front of Redis that know no transactions are named, with what to do.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Output;

use support::{Redis, ScriptedRedis, Setup, run_to_exit, texts};

/// Answers as twemproxy 0.5 does, which closes the connection on what it does not know
/// (`parsed unsupported command` in its log).
fn twemproxy() -> ScriptedRedis {
    cutting(&[
        "MULTI",
        "EXEC",
        "WATCH",
        "CONFIG",
        "SUBSCRIBE",
        "CLIENT",
        "ROLE",
        "INFO",
        "SELECT",
    ])
}

/// Knows what a server knows, but for these commands, on which it closes the connection.
fn cutting(unknown: &'static [&'static str]) -> ScriptedRedis {
    let mut queued = None;
    ScriptedRedis::start_cutting(move |command| {
        if unknown.contains(&command[0]) {
            return None;
        }
        let list = match command[1..] {
            ["gray", ..] => texts(&["127.0.0.5"]),
            ["pre", ..] => texts(&["127.0.3.1:9"]),
            _ => texts(&["127.0.4.1:9"]),
        };
        Some(match (command[0], &mut queued) {
            ("PING", _) => "+PONG".to_owned(),
            ("SELECT", _) => "+OK".to_owned(),
            ("MULTI", none) => {
                *none = Some(Vec::new());
                "+OK".to_owned()
            }
            ("LRANGE" | "SMEMBERS", Some(queued)) => {
                queued.push(list);
                "+QUEUED".to_owned()
            }
            ("LRANGE" | "SMEMBERS", None) => list,
            ("EXEC", queued) => {
                let replies = queued.take().unwrap_or_default();
                format!("*{}\r\n{}", replies.len(), replies.join("\r\n"))
            }
            _ => "-ERR unknown command".to_owned(),
        })
    })
}

#[track_caller]
fn check_lists(ini: &Path) -> Output {
    run_to_exit(&["lists", "check", "-c", ini.to_str().unwrap()])
}

#[test]
fn a_proxy_that_cuts_on_multi_is_named() {
    for notify in ["auto", "events", "tracking", "poll"] {
        let proxy = twemproxy();
        let setup = Setup::new().redis(proxy.url());
        let gateway = setup.set("redis.notify", notify).start();
        let line = gateway.wait_for_log("lists-unreadable");
        for words in [
            "cut on MULTI",
            "twemproxy",
            "url of [redis]",
            "Redis server itself",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
        let error = gateway.lists()["error"].to_string();
        assert!(error.contains("cut on MULTI"), "{error}");
        gateway.wait_for_health(503, "cut on MULTI");
        // Not in other words with each attempt.
        let failures = gateway.metric("graygate_lists_failures_total");
        support::wait_until("more attempts", support::DEADLINE, || {
            gateway.metric("graygate_lists_failures_total") >= failures + 2.0
        });
        assert_eq!(gateway.stderr.count("lists-unreadable"), 1);
        let output = check_lists(&gateway.path("graygate.ini"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cut on MULTI"), "{said}");
    }
}

#[test]
fn a_proxy_that_refuses_multi_is_named() {
    let proxy = ScriptedRedis::start(|command| match command[0] {
        "PING" => "+PONG".to_owned(),
        "LRANGE" | "SMEMBERS" => texts(&[]),
        other => format!("-ERR unsupported command '{other}'"),
    });
    let gateway = Setup::new().redis(proxy.url()).start();
    let line = gateway.wait_for_log("lists-unreadable");
    for words in [
        "MULTI is refused (ERR unsupported command 'MULTI')",
        "twemproxy",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
}

#[test]
fn a_proxy_that_cuts_on_something_else_is_told_to_be_asked_for_less() {
    let proxy = cutting(&["CONFIG", "SUBSCRIBE", "CLIENT"]);
    let gateway = Setup::new().redis(proxy.url()).start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("cut on CONFIG"), "{line}");
    assert!(line.contains("notify = poll"), "{line}");
    // As it says.
    let gateway = Setup::new()
        .redis(proxy.url())
        .set("redis.notify", "poll")
        .start();
    let page = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
    assert_eq!(page["gray"], serde_json::json!(["127.0.0.5"]));

    let proxy = cutting(&["SELECT"]);
    let url = proxy.url().replace("/0", "/5");
    let gateway = Setup::new().redis(url).start();
    let line = gateway.wait_for_log("lists-unreadable");
    assert!(line.contains("cut on SELECT"), "{line}");
}

#[test]
fn a_server_that_goes_away_is_no_proxy() {
    // It lets itself be spoken to once, and then it is gone, or it cuts whatever is said.
    for command in ["PING", "MULTI"] {
        let mut heard = false;
        let proxy = ScriptedRedis::start_cutting(move |words| {
            heard |= words[0] == command;
            match words[0] {
                _ if heard => None,
                "PING" => Some("+PONG".to_owned()),
                _ => Some("-ERR unknown command".to_owned()),
            }
        });
        let gateway = Setup::new().redis(proxy.url()).start();
        let line = gateway.wait_for_log("lists-unreadable");
        assert!(!line.contains("cut on"), "{command}: {line}");
    }
    // A real one is not accused for its connections being ended.
    let redis = Redis::start();
    let gateway = Setup::new().redis(redis.url()).start();
    gateway.wait_for_lists("the lists", |it| it["error"] == serde_json::Value::Null);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    gateway.wait_for_log("lists-unreadable");
    assert_eq!(gateway.stderr.count("cut on"), 0);
}
