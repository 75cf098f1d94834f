//! `[log] sample`: some lines stand for others, and say so; errors are all there.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use nix::sys::signal::Signal;
use support::{AccessLine, Gateway, Origin, Setup};

fn origin() -> Origin {
    Origin::answering(|request| {
        let (status, length) = match request.head.target().as_str() {
            "/moved" => ("301 Moved Permanently", 0),
            "/same" => ("304 Not Modified", 0),
            "/missing" | "/last" => ("404 Not Found", 0),
            "/cut" => ("200 OK", 1),
            _ => ("200 OK", 0),
        };
        let close = if length > 0 {
            "Connection: close\r\n"
        } else {
            ""
        };
        format!("HTTP/1.1 {status}\r\n{close}Content-Length: {length}\r\n\r\n").into_bytes()
    })
}

/// The lines before that of `/last`, by their targets.
fn lines_of(gateway: &Gateway, target: &str) -> Vec<AccessLine> {
    let lines = gateway.access_lines();
    let found = lines.into_iter().filter(|it| it.get("target") == target);
    found.collect()
}

#[track_caller]
fn ask(gateway: &Gateway, path: &str, times: usize) {
    let mut client = gateway.connect();
    for _ in 0..times {
        client.get(path);
    }
}

#[test]
fn one_of_so_many_lines_is_written_and_says_so_and_errors_always_are() {
    let origin = origin();
    let gateway = Setup::new()
        .one_worker()
        .set("log.sample", "2xx:10, 3xx:2, 304:1000000")
        .lists(&[], &[], &[&origin])
        .start();
    ask(&gateway, "/", 2000);
    ask(&gateway, "/moved", 200);
    ask(&gateway, "/same", 200);
    ask(&gateway, "/missing", 50);
    for _ in 0..3 {
        let mut client = gateway.connect();
        client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
        client.rest();
    }
    let refused = gateway.connect().ask("nonsense\r\n\r\n");
    assert_eq!(refused.status(), 400);
    ask(&gateway, "/last", 1);
    gateway.wait_for_access("target=/last");
    // Some six times as far from what is expected as chance would take them in a hundred runs.
    for (target, sample, expected) in [("/", "10", 120..=280), ("/moved", "2", 60..=140)] {
        let lines = lines_of(&gateway, target);
        assert!(expected.contains(&lines.len()), "{target}: {}", lines.len());
        assert!(lines.iter().all(|it| it.get("sample") == sample));
    }
    assert_eq!(lines_of(&gateway, "/same").len(), 0);
    for (target, count) in [("/missing", 50), ("/cut", 3), ("/last", 1)] {
        let lines = lines_of(&gateway, target);
        assert_eq!(lines.len(), count, "{target}");
        assert!(lines.iter().all(|it| !it.keys().contains(&"sample")));
    }
    gateway.wait_for_access("error=bad-request-line");
    let requests = "graygate_requests_total{pool=\"prod\",status=\"2xx\"}";
    gateway.wait_for_metric(requests, 2003.0);
}

#[test]
fn a_reload_changes_what_is_sampled() {
    let origin = origin();
    let mut gateway = Setup::new()
        .one_worker()
        .set("log.sample", "2xx:1000000")
        .lists(&[], &[], &[&origin])
        .start();
    ask(&gateway, "/before", 20);
    gateway.edit_ini(|it| it.set("log.sample", ""));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log(" reloaded ");
    ask(&gateway, "/after", 20);
    ask(&gateway, "/last", 1);
    gateway.wait_for_access("target=/last");
    assert_eq!(lines_of(&gateway, "/before").len(), 0);
    assert_eq!(lines_of(&gateway, "/after").len(), 20);
}
