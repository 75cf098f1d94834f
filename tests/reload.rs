//! `graygate reload`: it returns with the outcome, and touches no other process.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Redis, Setup, free_address, run_to_exit, wait_until};

/// A gateway that can be told to reload.
#[track_caller]
fn gateway() -> Gateway {
    start(Setup::serving(&"127.0.0.1:9").set("admin.listen", free_address()))
}

/// Starts a gateway, and waits until its pid file says that it serves.
#[track_caller]
fn start(setup: Setup) -> Gateway {
    let gateway = setup.set("gateway.pid_file", "pid").start();
    wait_until("the pid file", DEADLINE, || {
        fs::read_to_string(gateway.path("pid")).is_ok_and(|it| it.ends_with('\n'))
    });
    gateway
}

fn reload_with(gateway: &Gateway, ini: &str) -> Output {
    let ini = gateway.path(ini);
    run_to_exit(&["reload", "-c", ini.to_str().unwrap()])
}

/// A reload that succeeds; returns what it says.
#[track_caller]
fn done(gateway: &Gateway) -> String {
    let output = reload_with(gateway, "graygate.ini");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a reload that fails.
#[track_caller]
fn failed(gateway: &Gateway, ini: &str) -> String {
    let output = reload_with(gateway, ini);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    let line = said.trim_end().strip_prefix("graygate: ");
    line.unwrap().to_owned()
}

/// What `/config` says, but for the settings themselves, at which tests/settings.rs looks.
#[track_caller]
fn page(gateway: &Gateway) -> Value {
    let (status, body) = gateway.admin_get("/config");
    assert_eq!(status, 200, "{body}");
    let mut page: Value = serde_json::from_str(&body).unwrap();
    let settings = page.as_object_mut().unwrap().remove("settings");
    assert!(settings.is_some_and(|it| it.is_array()));
    page
}

/// Reloads so far, good ones and bad ones.
#[track_caller]
fn counts(gateway: &Gateway) -> (Value, Value) {
    let reloads = &page(gateway)["reloads"];
    (reloads["ok"].clone(), reloads["failed"].clone())
}

#[test]
fn the_page_and_the_metrics_say_what_the_reloads_have_come_to() {
    let mut gateway = gateway();
    gateway.edit_ini(|it| it.set("gateway.max_connections", 77));
    assert_eq!(
        done(&gateway),
        format!("reloaded (pid {})\n", gateway.pid())
    );
    let mut expected = json!({
        "file": gateway.path("graygate.ini"),
        "pid": gateway.pid(),
        "reloads": { "ok": 1, "failed": 0, "under_way": false },
        "error": null,
        "masked": [],
        "ignored": [],
        "max_connections": 77,
        "supervisor": null,
        "admin": page(&gateway)["admin"],
    });
    assert_eq!(page(&gateway), expected);

    gateway.edit_ini(|it| it.set("gateway.workers", 3).set("gateway.user", "nobody"));
    let said = done(&gateway);
    let ignored = "; only a restart changes gateway.workers, gateway.user\n";
    assert!(said.ends_with(ignored), "{said}");
    expected["reloads"]["ok"] = json!(2);
    expected["ignored"] = json!(["gateway.workers", "gateway.user"]);
    assert_eq!(page(&gateway), expected);

    // Here the file is good, for the gateway might have a URL in its environment.
    gateway.edit_ini(|it| it.unset("lists.file"));
    let said = failed(&gateway, "graygate.ini");
    let pid = gateway.pid();
    let error = page(&gateway)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("no source for the lists"), "{error}");
    assert_eq!(said, format!("process {pid} keeps its settings: {error}"));
    expected["reloads"]["failed"] = json!(1);
    expected["error"] = json!(error);
    assert_eq!(page(&gateway), expected);
    let metric = |outcome: &str| {
        gateway.shown_metric(&format!("graygate_reloads_total{{outcome={outcome:?}}}"))
    };
    assert_eq!((metric("ok"), metric("failed")), (Some(2.0), Some(1.0)));

    gateway.edit_ini(|it| {
        it.set("lists.file", "lists")
            .unset("gateway.max_connections")
    });
    let set_back = |it: Setup| it.set("gateway.workers", 2).set("gateway.user", "");
    gateway.edit_ini(set_back);
    done(&gateway);
    let page = page(&gateway);
    assert_eq!(
        (&page["error"], &page["ignored"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn a_bad_file_is_told_with_its_line_and_the_gateway_is_not_bothered() {
    let mut gateway = gateway();
    gateway.edit_ini(|it| it.set("gateway.max_body", "many"));
    let said = failed(&gateway, "graygate.ini");
    let place = format!("{}:", gateway.path("graygate.ini").display());
    assert!(said.starts_with(&place), "{said}");
    assert!(said.contains("[gateway] max_body = many: "), "{said}");
    assert_eq!(counts(&gateway), (json!(0), json!(0)));
}

#[test]
fn a_url_in_the_environment_of_the_gateway_alone_is_no_obstacle() {
    let redis = Redis::start();
    let setup = Setup::new().unset("lists.file");
    let setup = setup.set("admin.listen", free_address());
    let gateway = start(setup.environment("GRAYGATE_REDIS_URL", redis.url()));
    done(&gateway);
    assert_eq!(counts(&gateway), (json!(1), json!(0)));
}

#[test]
fn where_nobody_can_be_asked_the_outcome_is_left_to_the_log() {
    for admin in ["off", "127.0.0.1:0"] {
        let setup = Setup::serving(&"127.0.0.1:9").set("admin.socket", "off");
        let gateway = start(setup.set("admin.listen", admin));
        let said = done(&gateway);
        let told = format!("told to reload (pid {}); ", gateway.pid());
        assert!(said.starts_with(&told), "{said}");
        assert!(said.contains("error log"), "{said}");
        gateway.wait_for_log(" INFO reloaded ");
    }
}

#[test]
fn the_word_of_another_gateway_is_not_taken() {
    let by_tcp = || {
        let setup = Setup::serving(&"127.0.0.1:9").set("admin.listen", free_address());
        start(setup.set("admin.socket", "off"))
    };
    let (mut gateway, other) = (by_tcp(), by_tcp());
    let setup_other = other.admin();
    gateway.edit_ini(|it| it.set("admin.listen", setup_other));
    let said = failed(&gateway, "graygate.ini");
    let told = format!("process {} was told to reload; ", gateway.pid());
    assert!(said.starts_with(&told), "{said}");
    let instead = format!("process {} answers instead", other.pid());
    assert!(said.ends_with(&instead), "{said}");
    // It cannot have that address.
    gateway.wait_for_log(" ERROR reload-failed ");
    assert_eq!(counts(&other), (json!(0), json!(0)));
}

#[test]
fn one_that_moves_where_it_is_asked_is_found_there_and_a_failure_is_told_by_the_old_place() {
    let tcp_only = Setup::serving(&"127.0.0.1:9").set("admin.socket", "off");
    let mut gateway = start(tcp_only.set("admin.listen", free_address()));
    let moved = free_address();
    gateway.edit_ini(|it| it.set("admin.listen", moved));
    let reloaded = format!("reloaded (pid {})\n", gateway.pid());
    assert_eq!(done(&gateway), reloaded);
    // From the one to the other.
    gateway.edit_ini(|it| it.set("admin.listen", "off").set("admin.socket", "a.sock"));
    assert_eq!(done(&gateway), reloaded);
    assert!(gateway.path("a.sock").exists());
    gateway.edit_ini(|it| it.set("admin.socket", "b.sock"));
    assert_eq!(done(&gateway), reloaded);
    assert!(gateway.path("b.sock").exists() && !gateway.path("a.sock").exists());
    gateway.edit_ini(|it| it.set("admin.socket", "nowhere/deep/c.sock"));
    let said = failed(&gateway, "graygate.ini");
    let kept = format!("process {} keeps its settings: ", gateway.pid());
    assert!(said.starts_with(&kept), "{said}");
    assert!(said.contains("[admin] socket: "), "{said}");
    assert!(gateway.path("b.sock").exists());
}

#[test]
fn a_gateway_that_runs_with_another_file_is_not_told() {
    let gateway = gateway();
    let ini = gateway.path("graygate.ini");
    fs::copy(&ini, gateway.path("copy.ini")).unwrap();
    let said = failed(&gateway, "copy.ini");
    let expected = format!(
        "process {} runs with another file, {}",
        gateway.pid(),
        ini.display()
    );
    assert_eq!(said, expected);
    assert_eq!(counts(&gateway), (json!(0), json!(0)));

    // By another name it is the same one.
    std::os::unix::fs::symlink(&ini, gateway.path("link.ini")).unwrap();
    let output = reload_with(&gateway, "link.ini");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_is_written_into_the_pid_file_is_not_believed() {
    let gateway = gateway();
    let pid_file = gateway.path("pid");
    let reloaded = format!("reloaded (pid {})\n", gateway.pid());
    for text in ["1\n", "graygate\n", ""] {
        fs::write(&pid_file, text).unwrap();
        assert_eq!(done(&gateway), reloaded, "{text:?}");
    }
    // The lock is on the file that was there.
    fs::remove_file(&pid_file).unwrap();
    assert_eq!(done(&gateway), reloaded);
    fs::write(&pid_file, "1\n").unwrap();
    assert_eq!(done(&gateway), reloaded);
}

#[test]
fn without_a_gateway_nobody_is_signalled() {
    let mut gateway = gateway();
    let pid_file = gateway.path("other-pid");
    gateway.edit_ini(|it| it.set("gateway.pid_file", pid_file.display().to_string()));
    // It stays for as long as nobody signals it.
    let mut cat = Command::new("cat");
    let mut other = cat.stdin(Stdio::piped()).spawn().unwrap();
    let other_pid = other.id();
    let own_pid = std::process::id();
    for text in [&other_pid.to_string(), "0", "-1", "graygate", ""] {
        fs::write(&pid_file, text).unwrap();
        let line = failed(&gateway, "graygate.ini");
        let expected = format!("not running: no gateway holds {}", pid_file.display());
        assert_eq!(line, expected);
    }
    let locked = fs::File::open(&pid_file).unwrap();
    locked.lock().unwrap();
    let line = failed(&gateway, "graygate.ini");
    let expected = format!(
        "not running: {} is locked by process {own_pid}, which is not a gateway",
        pid_file.display()
    );
    assert_eq!(line, expected);
    drop(locked);
    assert_eq!(other.try_wait().unwrap(), None);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());

    fs::remove_file(&pid_file).unwrap();
    let line = failed(&gateway, "graygate.ini");
    let expected = format!("not running: there is no {}", pid_file.display());
    assert_eq!(line, expected);
    let empty: &dyn Display = &"";
    gateway.edit_ini(|it| it.set("gateway.pid_file", empty));
    let line = failed(&gateway, "graygate.ini");
    assert!(line.contains("[gateway] pid_file is empty"), "{line}");
    assert_eq!(counts(&gateway), (json!(0), json!(0)));
}

#[test]
fn what_other_trusted_proxies_make_a_likely_mistake_is_told_once() {
    let mut gateway = start(
        Setup::new()
            .lists(&["10.0.0.0/8"], &[], &[&"127.0.0.1:9"])
            .set("admin.listen", free_address()),
    );
    assert_eq!(gateway.stderr.count("lists-finding"), 0);
    gateway.edit_ini(|it| it.set("gateway.trusted_proxies", "10.0.0.1"));
    done(&gateway);
    let line = gateway.wait_for_log("lists-finding");
    let said = "finding=trusted-proxy-is-gray count=1 list=gray entry=\"10.0.0.0/8\" \
                text=\"covers a trusted proxy (10.0.0.1)\"";
    assert!(line.contains("WARN") && line.contains(said), "{line}");
    gateway.edit_ini(|it| it.set("gateway.max_connections", 77));
    done(&gateway);
    gateway.wait_for_log("reloaded file");
    assert_eq!(gateway.stderr.count("lists-finding"), 1);
}
