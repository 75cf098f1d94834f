//! `--json`: one JSON value on standard output, whatever happens, with the members' names of the admin pages.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use graygate::cli::command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Redis, Setup, run_to_exit, wait_until};
use tempfile::TempDir;

/// What a command says in JSON, with its exit code.
#[track_caller]
fn answer(ini: &Path, arguments: &[&str]) -> (Value, i32) {
    let more = ["--json", "-c", ini.to_str().unwrap()];
    let output = run_to_exit(&[arguments, &more].concat());
    let code = output.status.code().unwrap();
    let value = serde_json::from_slice(&output.stdout);
    let value = value.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let complaint = String::from_utf8(output.stderr).unwrap();
    let complaint: Vec<&str> = complaint.lines().collect();
    // Why it failed is said to people as well, on the other stream.
    match code {
        0 => assert!(complaint.is_empty(), "{complaint:?}"),
        _ => assert!(complaint.last().unwrap().starts_with("graygate: ")),
    }
    (value, code)
}

/// The same of a command that succeeds.
#[track_caller]
fn good(ini: &Path, arguments: &[&str]) -> Value {
    let (value, code) = answer(ini, arguments);
    assert_eq!(code, 0, "{value}");
    value
}

fn members(of: &Value) -> BTreeSet<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn page(gateway: &Gateway, path: &str) -> Value {
    let (status, text) = gateway.admin_get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

struct Standing {
    redis: Redis,
    gateway: Gateway,
}

impl Standing {
    fn new() -> Self {
        let redis = Redis::start();
        redis.push("gray", &[&"127.0.0.5"]);
        redis.push("pre", &[&"127.0.1.1"]);
        redis.push("prod", &[&"127.0.2.1", &"127.0.2.2:81"]);
        let gateway = Setup::new()
            .redis(redis.url())
            .one_worker()
            .set("redis.node", "one")
            .set("redis.heartbeat", "200ms")
            .set("gateway.pid_file", "pid")
            .start();
        Self { redis, gateway }
    }

    fn ini(&self) -> std::path::PathBuf {
        self.gateway.path("graygate.ini")
    }
}

#[test]
fn every_command_with_an_answer_takes_it() {
    let mut without = Vec::new();
    let mut left = vec![command()];
    while let Some(of) = left.pop() {
        left.extend(of.get_subcommands().cloned());
        let is_group = of.is_subcommand_required_set();
        if !is_group && !of.get_arguments().any(|it| it.get_long() == Some("json")) {
            without.push(of.get_name().to_owned());
        }
    }
    without.sort();
    // They serve, or print what is no answer.
    assert_eq!(without, ["completions", "demo", "man", "origin", "run"]);
}

#[test]
fn what_a_gateway_says_has_the_members_of_its_pages() {
    let site = Standing::new();
    let (ini, gateway) = (site.ini(), &site.gateway);
    let status = good(&ini, &["status"]);
    let (lists, config) = (page(gateway, "/lists"), page(gateway, "/config"));
    let health = format!("ok generation={}", lists["generation"]);
    assert_eq!(status["health"], health.as_str());
    assert_eq!(status["serves"], true);
    let first = status["degraded"].as_array().unwrap().first().cloned();
    if let Some(first) = first {
        assert_eq!(members(&first), BTreeSet::from(["reason", "text"]));
    }
    let mut named = members(&lists);
    for entries in ["gray", "pre", "prod", "written"] {
        assert!(named.remove(entries), "{entries}");
    }
    assert_eq!(members(&status["lists"]), named);
    assert_eq!(status["lists"]["digest"], lists["digest"]);
    assert_eq!(members(&status["config"]), members(&config));
    assert_eq!(status["upgrades"], page(gateway, "/upgrades"));

    let shown = good(&ini, &["lists", "show"]);
    for name in [
        "gray",
        "written",
        "digest",
        "generation",
        "counts",
        "source",
    ] {
        assert_eq!(shown[name], lists[name], "{name}");
    }
    let explained = good(&ini, &["explain", "127.0.0.5"]);
    assert_eq!(explained, page(gateway, "/explain?ip=127.0.0.5"));
    let peers = good(&ini, &["peers"]);
    assert_eq!(peers["pools"][0]["pool"], "pre");
    assert_eq!(members(&peers), members(&page(gateway, "/peers")));
}

#[test]
fn what_the_store_says_has_the_same_names() {
    let site = Standing::new();
    let ini = site.ini();
    let stored = good(&ini, &["lists", "show", "--offline"]);
    assert_eq!(stored["gray"], json!(["127.0.0.5"]));
    let written = json!({ "pre": ["127.0.1.1"], "prod": ["127.0.2.1", "127.0.2.2:81"] });
    assert_eq!(stored["written"], written);
    assert_eq!(stored["digest"], site.gateway.lists()["digest"]);
    let explained = good(&ini, &["explain", "127.0.0.5", "--offline"]);
    assert_eq!(explained["pool"], "pre");
    assert_eq!(explained["generation"], Value::Null);

    let checked = good(&ini, &["lists", "check"]);
    assert_eq!(checked["remarks"], 0);
    assert_eq!(checked["counts"], json!({ "gray": 1, "pre": 1, "prod": 2 }));
    site.redis.push("gray", &[&"127.0.0.x", &"10.0.0.1/8"]);
    let (checked, code) = answer(&ini, &["lists", "check"]);
    assert_eq!((code, &checked["remarks"]), (1, &json!(2)));
    let skipped = &checked["skipped"]["gray"];
    assert_eq!(skipped["first"][0]["entry"], "127.0.0.x");
    let found = checked["findings"]["first"].as_array().unwrap();
    assert!(
        found.iter().any(|it| it["finding"] == "host-bits"),
        "{found:?}"
    );
    // The page says the same of the same lists.
    let same = |it: &Value| it["findings"]["count"]["host-bits"] == 1;
    let page = site.gateway.wait_for_lists("they are read", same);
    assert_eq!(page["skipped"], checked["skipped"]);
}

#[test]
fn a_difference_is_an_answer_with_a_reason_and_can_be_accepted() {
    let site = Standing::new();
    let ini = site.ini();
    let same = good(&ini, &["lists", "diff"]);
    assert_eq!(same["same"], true);
    assert_eq!(
        same["only_store"],
        json!({ "gray": [], "pre": [], "prod": [] })
    );
    // All of prod is another one: that is held.
    site.redis.push("other", &[&"127.0.2.9"]);
    site.redis.cli(&["RENAME", "other", "prod"]);
    let is_held = |it: &Value| !it["held"].as_array().unwrap().is_empty();
    let lists = site.gateway.wait_for_lists("it is held", is_held);
    let (different, code) = answer(&ini, &["lists", "diff"]);
    assert_eq!((code, &different["same"]), (1, &json!(false)));
    assert_eq!(different["only_store"]["prod"], json!(["127.0.2.9"]));
    let gone = json!(["127.0.2.1", "127.0.2.2:81"]);
    assert_eq!(different["only_gateway"]["prod"], gone);
    assert_eq!(different["gateway"]["digest"], lists["digest"]);
    assert_eq!(different["held"], lists["held"]);

    let digest = lists["held"][0]["digest"].as_str().unwrap();
    for outcome in ["accepted", "in force already"] {
        let accepted = good(&ini, &["lists", "accept", digest]);
        assert_eq!(accepted["outcome"], outcome);
        assert_eq!(accepted["list"], "prod");
        assert_eq!(accepted["digest"], digest);
        assert_eq!(accepted["generation"], site.gateway.lists()["generation"]);
    }
    let (refused, code) = answer(&ini, &["lists", "accept", "0123456789abcdef"]);
    assert_eq!(code, 1);
    assert!(refused["error"].as_str().unwrap().contains("is not held"));
}

#[test]
fn the_fleet_is_shown_with_what_each_gateway_says_about_itself() {
    let site = Standing::new();
    let ini = site.ini();
    let heard = || good(&ini, &["fleet"])["nodes"][0].clone();
    wait_until("it is heard of", DEADLINE, || heard()["node"] == "one");
    let (node, digest) = (heard(), site.gateway.lists()["digest"].clone());
    assert_eq!(
        (&node["state"], &node["digest"]),
        (&json!("heard"), &digest)
    );
    assert!(node["heard_seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(node["pid"], site.gateway.pid());
    let waited = good(&ini, &["fleet", "wait", digest.as_str().unwrap()]);
    let expected = json!({ "digest": digest, "holding": 1, "note": null });
    assert_eq!(waited, expected);
    let nothing = ["fleet", "wait", "0123456789abcdef", "--timeout", "1ms"];
    let (refused, code) = answer(&ini, &nothing);
    assert_eq!(code, 1);
    assert!(refused["error"].as_str().unwrap().contains("one holds"));
}

#[test]
fn a_check_a_reload_and_an_upgrade_say_what_has_come_of_them() {
    let mut site = Standing::new();
    let ini = site.ini();
    let checked = good(&ini, &["-t"]);
    assert_eq!(
        (&checked["file"], &checked["good"]),
        (&json!(ini), &json!(true))
    );
    assert!(checked["warnings"].is_array());
    site.gateway
        .edit_ini(|it| it.set("gateway.head_timeout", "9s"));
    let reloaded = good(&ini, &["reload"]);
    assert_eq!(reloaded["in_force"], true);
    assert_eq!(reloaded["pid"], site.gateway.pid());
    let config = page(&site.gateway, "/config");
    for name in ["file", "ignored", "masked"] {
        assert_eq!(reloaded[name], config[name], "{name}");
    }
    fs::write(&ini, "[gateway]\nworkers = x\n").unwrap();
    for arguments in [&["-t"][..], &["reload"]] {
        let (refused, code) = answer(&ini, arguments);
        assert_eq!(code, 1);
        assert!(refused["error"].as_str().unwrap().contains("workers = x"));
    }
    site.gateway.edit_ini(|it| it);
    let upgraded = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["upgrade", "--json", "-c", ini.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
    let said: Value = serde_json::from_slice(&upgraded.stdout).unwrap();
    let pid = fs::read_to_string(site.gateway.path("pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    assert_ne!(pid.as_raw().cast_unsigned(), site.gateway.pid());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(said["pid"], pid.as_raw());
    assert!(
        said["outcome"].as_str().unwrap().starts_with("upgraded"),
        "{said}"
    );
}

#[test]
fn what_fails_is_an_error_in_json_too() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("none.ini");
    for arguments in [
        &["-t"][..],
        &["status"],
        &["reload"],
        &["upgrade"],
        &["leave"],
        &["config"],
        &["config", "--file"],
        &["peers"],
        &["explain", "127.0.0.1"],
        &["explain", "127.0.0.1", "--offline"],
        &["lists", "show"],
        &["lists", "show", "--offline"],
        &["lists", "diff"],
        &["lists", "check"],
        &["lists", "accept", "0123456789abcdef"],
        &["fleet"],
        &["fleet", "wait", "0123456789abcdef"],
    ] {
        let (refused, code) = answer(&missing, arguments);
        assert_eq!(code, 1, "{arguments:?}");
        assert_eq!(
            members(&refused),
            BTreeSet::from(["error"]),
            "{arguments:?}"
        );
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains("none.ini"), "{error}");
    }
}
