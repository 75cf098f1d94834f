//! `graygate config`: every setting that is in force, and where its value comes from.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;

use graygate::config::KEYS;
use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Redis, Setup, run_to_exit, wait_until};

#[track_caller]
fn run(ini: &Path, arguments: &[&str]) -> Output {
    run_to_exit(&[&["config"][..], arguments, &["-c", ini.to_str().unwrap()]].concat())
}

/// What it says, in JSON.
#[track_caller]
fn answer(ini: &Path, arguments: &[&str]) -> Value {
    let output = run(ini, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What it says, as text.
#[track_caller]
fn text(ini: &Path, arguments: &[&str]) -> String {
    let output = run(ini, arguments);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says of one key.
#[track_caller]
fn setting(answer: &Value, key: &str) -> Value {
    let mut all = answer["settings"].as_array().unwrap().iter();
    let found = all.find(|it| it["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}")).clone()
}

fn ini(gateway: &Gateway) -> std::path::PathBuf {
    gateway.path("graygate.ini")
}

/// The line of the ini file on which a key stands.
#[track_caller]
fn line_of(ini: &Path, key: &str) -> usize {
    let text = fs::read_to_string(ini).unwrap();
    let mut lines = text.lines();
    1 + lines
        .position(|it| it.starts_with(&format!("{key} =")))
        .unwrap()
}

/// The words of the line that begins with this key.
#[track_caller]
fn words<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = text
        .lines()
        .map(|it| it.split_whitespace().collect::<Vec<_>>());
    lines.find(|it| it.first() == Some(&key)).unwrap()
}

#[test]
fn every_key_has_its_value_and_says_whether_the_file_or_nobody_gave_it() {
    let gateway = Setup::serving(&"127.0.0.1:9")
        .set("gateway.head_timeout", "9s")
        .set("upstream.read_timeout", "7s")
        .set("log.level", "debug")
        .start();
    let ini = ini(&gateway);
    let all = answer(&ini, &[]);
    let keys: Vec<&str> = all["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["key"].as_str().unwrap())
        .collect();
    let expected: Vec<&str> = KEYS.iter().map(|it| it.full_name).collect();
    assert_eq!(keys, expected);
    assert_eq!(
        (&all["pid"], &all["file"]),
        (&json!(gateway.pid()), &json!(ini))
    );

    let given = setting(&all, "gateway.head_timeout");
    assert_eq!(
        (&given["value"], &given["origin"]),
        (&json!("9s"), &json!("file"))
    );
    assert_eq!(given["line"], line_of(&ini, "head_timeout"));
    let left = setting(&all, "gateway.body_timeout");
    assert_eq!(
        (&left["value"], &left["origin"]),
        (&json!("30s"), &json!("default"))
    );
    assert_eq!((&left["line"], &left["note"]), (&Value::Null, &Value::Null));
    // One that another one overrules says so.
    let note = &setting(&all, "upstream.stall_timeout")["note"];
    assert_eq!(note, "read_timeout is longer, and counts");

    let text = text(&ini, &[]);
    assert!(
        text.starts_with(&format!("# in force in process {}, by ", gateway.pid())),
        "{text}"
    );
    let line = line_of(&ini, "head_timeout").to_string();
    assert_eq!(
        words(&text, "gateway.head_timeout"),
        ["gateway.head_timeout", "line", &line, "9s"]
    );
    assert_eq!(
        words(&text, "gateway.body_timeout"),
        ["gateway.body_timeout", "default", "30s"]
    );
    assert_eq!(
        words(&text, "redis.url"),
        ["redis.url", "default", "(empty)"]
    );
}

#[test]
fn what_the_machine_makes_of_a_value_is_told_with_what_was_written() {
    let redis = Redis::start();
    let gateway = Setup::new()
        .redis(redis.url())
        .unset("gateway.workers")
        .set("gateway.max_connections", 100_000)
        .under(&["sh", "-c", "ulimit -n 1000; exec \"$0\" \"$@\""])
        .start();
    let ini = ini(&gateway);
    let all = answer(&ini, &[]);
    let most = setting(&all, "gateway.max_connections");
    let allowed: u64 = most["value"].as_str().unwrap().parse().unwrap();
    assert!((100..500).contains(&allowed), "{allowed}");
    let line = line_of(&ini, "max_connections");
    assert_eq!(most["origin"], "machine");
    assert_eq!(
        (&most["written"], &most["line"]),
        (&json!("100000"), &json!(line))
    );
    assert!(
        most["note"].as_str().unwrap().contains("ulimit -n"),
        "{most}"
    );

    let cpus = std::thread::available_parallelism().unwrap().get();
    let workers = setting(&all, "gateway.workers");
    assert_eq!(
        (&workers["value"], &workers["written"]),
        (&json!(cpus.to_string()), &json!("auto"))
    );
    assert_eq!(
        (&workers["origin"], &workers["line"]),
        (&json!("machine"), &Value::Null)
    );
    let host = nix::unistd::gethostname().unwrap();
    assert_eq!(setting(&all, "redis.node")["value"], host.to_str().unwrap());

    let text = text(&ini, &[]);
    let row = format!(
        "{allowed} (line {line}: 100000; the limit of descriptors (ulimit -n) allows no more)"
    );
    assert!(text.contains(&row), "{text}");
    assert!(
        text.contains(&format!("{cpus} (default: auto; one for each CPU)")),
        "{text}"
    );
}

#[test]
fn secrets_are_never_shown_and_the_environment_is_named() {
    let redis = Redis::start_with_password(Some("hunter2"));
    let url = redis.url();
    let shown = url.replace(":hunter2@", "");
    assert_ne!(shown, url);
    let gateway = Setup::new()
        .redis("redis://:hunter3@127.0.0.1:1/5")
        .set("redis.accept_key", "redis://:hunter4@h")
        .environment("GRAYGATE_REDIS_URL", &url)
        .start();
    let ini = ini(&gateway);
    let all = answer(&ini, &[]);
    let given = setting(&all, "redis.url");
    assert_eq!(given["value"], shown.as_str());
    assert_eq!(
        (&given["origin"], &given["variable"]),
        (&json!("environment"), &json!("GRAYGATE_REDIS_URL"))
    );
    assert_eq!(
        words(&text(&ini, &[]), "redis.url"),
        ["redis.url", "GRAYGATE_REDIS_URL", &shown]
    );
    // By the file alone, the other one.
    let of_file = answer(&ini, &["--file"]);
    let given = setting(&of_file, "redis.url");
    assert_eq!(given["value"], "redis://127.0.0.1:1/5");
    assert_eq!(
        (&given["origin"], &given["line"]),
        (&json!("file"), &json!(line_of(&ini, "url")))
    );
    let page = gateway.admin_get("/config").1;
    for said in [
        all.to_string(),
        text(&ini, &[]),
        of_file.to_string(),
        text(&ini, &["--file"]),
        page,
    ] {
        assert!(!said.contains("hunter"), "{said}");
    }
}

#[test]
fn a_value_that_waits_for_a_restart_stands_beside_the_one_in_force() {
    let mut gateway = Setup::serving(&"127.0.0.1:9")
        .set("gateway.workers", 1)
        .set("gateway.head_timeout", "9s")
        .set("gateway.pid_file", "pid")
        .start();
    let ini = ini(&gateway);
    let reload = || {
        let output = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    };
    let before = line_of(&ini, "workers");
    gateway.edit_ini(|it| {
        it.set("gateway.workers", 2)
            .set("gateway.head_timeout", "8s")
            .set("gateway.body_timeout", "31s")
    });
    reload();
    let all = answer(&ini, &[]);
    let workers = setting(&all, "gateway.workers");
    assert_eq!(
        (&workers["value"], &workers["line"]),
        (&json!("1"), &json!(before))
    );
    let line = line_of(&ini, "workers");
    let waiting = json!({ "value": "2", "origin": "file", "line": line, "variable": null });
    assert_eq!(workers["after_restart"], waiting);
    let changed = setting(&all, "gateway.head_timeout");
    assert_eq!(
        (&changed["value"], &changed["after_restart"]),
        (&json!("8s"), &Value::Null)
    );
    let text = text(&ini, &[]);
    let rows: Vec<String> = text
        .lines()
        .map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|it| it.starts_with("gateway.workers "))
        .collect();
    let expected = [
        format!("gateway.workers line {before} 1"),
        format!("gateway.workers line {line} 2 (waits for a restart)"),
    ];
    assert_eq!(rows, expected);
    // What is written as it was waits no longer.
    gateway.edit_ini(|it| it.set("gateway.workers", 1));
    reload();
    assert_eq!(
        setting(&answer(&ini, &[]), "gateway.workers")["after_restart"],
        Value::Null
    );
}

/// What `-t` says, as text, and of the keys that wait for a restart.
#[track_caller]
fn test_of(ini: &Path) -> (String, Value) {
    let said = |more: &[&str]| {
        let output = run_to_exit(&[&["-t", "-c", ini.to_str().unwrap()], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let answer: Value = serde_json::from_str(&said(&["--json"])).unwrap();
    (said(&[]), answer["after_restart"].clone())
}

#[test]
fn a_test_of_the_file_tells_which_changed_keys_wait_for_a_restart_if_a_gateway_runs_with_it() {
    let mut gateway = Setup::serving(&"127.0.0.1:9")
        .set("gateway.workers", 1)
        .set("gateway.pid_file", "pid")
        .set("admin.socket", "admin.sock")
        .start();
    let ini = ini(&gateway);
    let good = format!("{}: the configuration is good", ini.display());
    let nothing = (format!("{good}\n"), json!([]));
    assert_eq!(test_of(&ini), nothing);
    // Before any reload, and whatever a reload would change.
    gateway.edit_ini(|it| {
        it.set("gateway.workers", 2)
            .set("gateway.head_timeout", "8s")
            .set("log.level", "debug")
    });
    let workers = (
        format!("{good}; in the gateway that runs, only a restart changes gateway.workers\n"),
        json!(["gateway.workers"]),
    );
    assert_eq!(test_of(&ini), workers);
    let reload = || {
        let output = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    };
    reload();
    assert_eq!(test_of(&ini), workers);
    // It is found though it does not listen yet where the file says, or its pid file has another name.
    gateway.edit_ini(|it| {
        it.set("admin.socket", "other.sock")
            .set("admin.listen", "off")
    });
    assert_eq!(test_of(&ini), workers);
    gateway.edit_ini(|it| {
        it.set("admin.socket", "admin.sock")
            .set("gateway.pid_file", "other.pid")
    });
    let (_, both) = test_of(&ini);
    assert_eq!(both, json!(["gateway.workers", "gateway.pid_file"]));
    // What is written as it was waits no longer.
    gateway.edit_ini(|it| it.set("gateway.workers", 1).set("gateway.pid_file", "pid"));
    assert_eq!(test_of(&ini), nothing);
    // Another file is not the one that it runs with, though it names the same socket.
    let other = gateway.path("other.ini");
    let text = fs::read_to_string(&ini).unwrap();
    fs::write(&other, text.replace("workers = 1", "workers = 2")).unwrap();
    assert_eq!(test_of(&other).1, Value::Null);
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("nobody runs with it", DEADLINE, || {
        test_of(&ini) == (nothing.0.clone(), Value::Null)
    });
}

#[test]
fn a_bad_file_and_the_failed_reload_are_told() {
    let mut gateway = Setup::serving(&"127.0.0.1:9")
        .set("gateway.pid_file", "pid")
        .start();
    let ini = ini(&gateway);
    gateway.edit_ini(|it| it.set("gateway.workers", "x"));
    let output = run(&ini, &["--file"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("workers = x"));
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("it has failed", DEADLINE, || {
        gateway.admin_get("/config").1.contains("workers = x")
    });
    let output = run(&ini, &[]);
    assert!(output.status.success(), "{output:?}");
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(
        note.starts_with("graygate: note: the last reload has failed: "),
        "{note}"
    );
}

#[test]
fn who_may_not_see_clients_does_not_see_settings() {
    let gateway = Setup::serving(&"127.0.0.1:9")
        .set("admin.expose", "status")
        .set("admin.socket", "off")
        .start();
    let page: Value = serde_json::from_str(&gateway.admin_get("/config").1).unwrap();
    assert_eq!(page["settings"], Value::Null);
    assert_eq!(page["pid"], gateway.pid());
    // The command is told how.
    let asking = Setup::serving(&"127.0.0.1:9")
        .set("admin.socket", "off")
        .set("admin.listen", gateway.admin());
    let output = run(&asking.write_ini(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("expose = full") && said.contains("--file"),
        "{said}"
    );
}

#[test]
fn a_section_of_a_pool_is_shown_where_the_file_has_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let ini = folder.path().join("graygate.ini");
    let text =
        "[redis]\nurl = redis://127.0.0.1\n[health]\npath = /up\n[health pre]\npath = /pre-up\n";
    fs::write(&ini, text).unwrap();
    let all = answer(&ini, &["--file"]);
    let of_pool = setting(&all, "health pre.path");
    assert_eq!(
        (&of_pool["value"], &of_pool["line"]),
        (&json!("/pre-up"), &json!(6))
    );
    assert_eq!(setting(&all, "health.path")["line"], 4);
    let names = all["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["section"].as_str().unwrap());
    assert_eq!(names.filter(|it| it.starts_with("health p")).count(), 1);
}

#[test]
fn a_service_is_shown_with_what_its_sections_say_and_a_reload_adds_and_takes_away_services() {
    let redis = Redis::start();
    let mut gateway = Setup::new()
        .redis(redis.url())
        .set("admin.socket", "admin.sock")
        .set("gateway.pid_file", "pid")
        .set("service shop.hosts", "shop.example.com, *.shop.example.com")
        .set("service shop.read_timeout", "7s")
        .set("service shop health pre.path", "/up")
        .start();
    let ini = ini(&gateway);
    let of_services = |answer: &Value| {
        let all = answer["settings"].as_array().unwrap().iter();
        let shown = all.filter(|it| it["section"].as_str().unwrap().starts_with("service "));
        let shown = shown.map(|it| {
            assert_eq!(it["origin"], "file", "{it}");
            let (section, name) = (
                it["section"].as_str().unwrap(),
                it["name"].as_str().unwrap(),
            );
            assert_eq!(it["key"], format!("{section}.{name}"));
            (
                format!("{section}.{name}"),
                it["value"].as_str().unwrap().to_owned(),
            )
        });
        let mut shown: Vec<(String, String)> = shown.collect();
        shown.sort();
        shown
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [
        pair("service shop health pre.path", "/up"),
        pair("service shop.hosts", "shop.example.com, *.shop.example.com"),
        pair("service shop.read_timeout", "7s"),
    ];
    for arguments in [&[][..], &["--file"]] {
        assert_eq!(of_services(&answer(&ini, arguments)), expected);
    }
    let timeouts: Vec<usize> = {
        let text = fs::read_to_string(&ini).unwrap();
        let lines = (1..).zip(text.lines());
        lines
            .filter(|(_, it)| it.starts_with("read_timeout ="))
            .map(|(at, _)| at)
            .collect()
    };
    let line = setting(&answer(&ini, &[]), "service shop.read_timeout")["line"].as_u64();
    assert!(timeouts.contains(&usize::try_from(line.unwrap()).unwrap()));
    let good = format!("{}: the configuration is good", ini.display());
    let count = |ini: &Path| {
        let output = run_to_exit(&["-t", "--json", "-c", ini.to_str().unwrap()]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["services"].clone()
    };
    assert_eq!(
        test_of(&ini).0,
        format!("{good}, with 1 service and the default one\n")
    );
    assert_eq!(count(&ini), 2);

    let reload = || {
        let output = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    };
    gateway.edit_ini(|it| {
        it.unset("service shop.hosts")
            .unset("service shop.read_timeout")
            .unset("service shop health pre.path")
            .set("service a.paths", "/a")
            .set("service b.paths", "/b")
            .set("service b.gray", "a")
            .set("gateway.default_service", "off")
    });
    assert_eq!(
        test_of(&ini).0,
        format!("{good}, with 2 services and no default one\n")
    );
    reload();
    let expected = [
        pair("service a.paths", "/a"),
        pair("service b.gray", "a"),
        pair("service b.paths", "/b"),
    ];
    assert_eq!(of_services(&answer(&ini, &[])), expected);

    // What is wrong with one is said, and those before it stay.
    gateway.edit_ini(|it| it.set("service b.paths", "/b, /a/"));
    let output = run_to_exit(&["-t", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("[service a] paths on line "), "{said}");
    assert!(
        !run_to_exit(&["reload", "-c", ini.to_str().unwrap()])
            .status
            .success()
    );
    assert_eq!(of_services(&answer(&ini, &[])), expected);
}

#[test]
fn keys_of_services_that_lie_apart_in_a_cluster_are_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let ini = folder.path().join("graygate.ini");
    let text = "[gateway]\nuser =\npid_file =\n[log]\naccess = off\nerror = off\n[lists]\nlast_good =\n\
                [admin]\nsocket = off\nlisten = off\n[redis]\nurl = redis://127.0.0.1\n";
    let shop =
        "[service shop]\nhosts = a\ngray_key = {s}:gray\npre_key = {s}:pre\nprod_key = {s}:prod\n";
    let shared = "[service api]\nhosts = b\ngray = shop\npre_key = {a}:pre\nprod_key = {a}:prod\n";
    let warnings = |services: &str| {
        fs::write(&ini, format!("{text}{services}")).unwrap();
        let output = run_to_exit(&["-t", "--json", "-c", ini.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["warnings"].clone()
    };
    assert_eq!(warnings(&format!("{shop}{shared}")), json!([]));
    let said = warnings(&format!("{shop}{}", shared.replace("{a}:prod", "{b}:prod")));
    let said = said[0].as_str().unwrap();
    assert!(
        said.starts_with("[service api] pre_key, prod_key: {a}:pre and {b}:prod have hash tags"),
        "{said}"
    );
    let said = warnings(&shop.replace("{s}:gray", "{t}:gray"));
    let said = said[0].as_str().unwrap();
    assert!(
        said.starts_with("[service shop] gray_key, pre_key, prod_key: {t}:gray, "),
        "{said}"
    );
}
