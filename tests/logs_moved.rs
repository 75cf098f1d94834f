//! A reload moves logs to other targets, without losing a line, or changes nothing.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Setup, wait_until};

#[track_caller]
fn ask(client: &mut Client, path: &str) {
    assert_eq!(client.get(path).status(), 200);
}

/// Lines in a file that contain `text`.
fn count(gateway: &Gateway, file: &str, text: &str) -> usize {
    let log = std::fs::read_to_string(gateway.path(file)).unwrap_or_default();
    log.lines().filter(|it| it.contains(text)).count()
}

#[track_caller]
fn wait_for(gateway: &Gateway, file: &str, text: &str, expected: usize) {
    wait_until(
        &format!("{expected} lines with {text} in {file}"),
        DEADLINE,
        || count(gateway, file, text) == expected,
    );
}

#[track_caller]
fn reload(gateway: &mut Gateway, key: &str, value: &str) {
    gateway.edit_ini(|it| it.set(key, value));
    gateway.signal(Signal::SIGHUP);
}

#[test]
fn the_access_log_goes_elsewhere_and_no_line_is_lost() {
    let origin = Origin::named("prod");
    let mut gateway = Setup::serving(&origin).one_worker().start();
    let mut client = gateway.connect();
    let mut ask_ten = |path: &str| (0..10).for_each(|_| ask(&mut client, path));
    ask_ten("/1");
    reload(&mut gateway, "log.access", "other/access.log");
    wait_until("the other file", DEADLINE, || {
        gateway.path("other/access.log").exists()
    });
    gateway.wait_for_log(" reloaded ");
    ask_ten("/2");
    wait_for(&gateway, "access.log", "target=\"/1\"", 10);
    wait_for(&gateway, "other/access.log", "target=\"/2\"", 10);
    assert_eq!(count(&gateway, "access.log", "target=\"/2\""), 0);
    assert_eq!(count(&gateway, "other/access.log", "target=\"/1\""), 0);

    // The other one is reopened when files are rotated.
    let old = gateway.path("other/access.log.1");
    std::fs::rename(gateway.path("other/access.log"), &old).unwrap();
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_for_log(" logs-reopened");
    ask_ten("/3");
    wait_for(&gateway, "other/access.log", "target=\"/3\"", 10);

    let socket = UnixDatagram::bind(gateway.path("socket")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    for (target, count) in [
        ("off", 2),
        ("syslog:server=unix:socket", 3),
        ("access.log", 4),
    ] {
        reload(&mut gateway, "log.access", target);
        wait_until(target, DEADLINE, || {
            gateway.stderr.count(" reloaded ") == count
        });
        ask_ten(&format!("/{target}"));
    }
    wait_for(&gateway, "access.log", "target=\"/access.log\"", 10);
    let mut messages = [0; 4096];
    for _ in 0..10 {
        let length = socket.recv(&mut messages).unwrap();
        let message = String::from_utf8_lossy(&messages[..length]).into_owned();
        assert!(
            message.contains("target=\"/syslog:server=unix:socket\""),
            "{message}"
        );
    }
    for file in ["access.log", "other/access.log"] {
        assert_eq!(count(&gateway, file, "target=\"/off\""), 0);
    }
    assert_eq!(
        gateway.metric("graygate_log_dropped_total{log=\"access\"}"),
        0.0
    );
}

#[test]
fn the_error_log_goes_elsewhere_with_its_next_event() {
    let origin = Origin::named("prod");
    let mut gateway = Setup::serving(&origin).start();
    reload(&mut gateway, "log.error", "error.log");
    gateway.wait_for_log(" log-moved log=error");
    wait_for(&gateway, "error.log", " reloaded ", 1);
    assert_eq!(gateway.stderr.count(" reloaded "), 0);
    gateway.signal(Signal::SIGUSR1);
    wait_for(&gateway, "error.log", " logs-reopened", 1);
}

#[test]
fn a_target_that_cannot_be_opened_changes_nothing_at_all() {
    let origin = Origin::named("prod");
    let mut gateway = Setup::serving(&origin).one_worker().start();
    gateway.edit_ini(|it| {
        it.set("log.error", "error.log")
            .set("log.access", "missing/folder/access.log")
            .set("log.format", "json")
    });
    gateway.signal(Signal::SIGHUP);
    let line = gateway.wait_for_log(" reload-failed ");
    assert!(
        line.contains("[log] access: ") && line.contains("missing/folder"),
        "{line}"
    );
    ask(&mut gateway.connect(), "/");
    gateway.wait_for_access("target=/");
    assert_eq!(gateway.stderr.count(" log-moved "), 0);
}
