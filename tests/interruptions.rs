//! A process that is stopped and goes on (a debugger, a machine that pauses) has not failed, and
//! nothing but the gateway's own events stands in its error log.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use support::{DEADLINE, Gateway, Origin, Redis, Setup, wait_until};

/// Workers, each of which waits for news when the process is stopped.
const WORKERS: usize = 4;

/// What is behind the value that `text` begins with: a word, or quoted by Rust's rules.
fn behind_value(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Some(text.split_once(' ').map_or("", |(_, rest)| rest));
    };
    let mut escaped = false;
    let end = quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let rest = &quoted[end + 1..];
    rest.strip_prefix(' ')
        .or_else(|| rest.is_empty().then_some(""))
}

/// True for `time LEVEL event key=value …`, the form of the error log.
fn is_event(line: &str) -> bool {
    let is_name = |text: &str, also: char| {
        let fits = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == also;
        !text.is_empty() && text.chars().all(fits)
    };
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (time, level, event, mut rest) = (word(), word(), word(), word());
    while !rest.is_empty() {
        let Some((key, value)) = rest.split_once('=') else {
            return false;
        };
        let Some(behind) = behind_value(value).filter(|_| is_name(key, '_')) else {
            return false;
        };
        rest = behind;
    }
    humantime::parse_rfc3339(time).is_ok()
        && ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level)
        && is_name(event, '-')
}

#[test]
fn the_form_of_an_event_is_known() {
    for (line, expected) in [
        ("2026-01-02T03:04:05.678Z INFO stopped", true),
        (
            "2026-01-02T03:04:05.678Z WARN a-b c=d e=\"f \\\" g\" h_i=1",
            true,
        ),
        (
            "2026-01-02T03:04:05.678Z ERROR select error = Os { code: 4 }",
            false,
        ),
        ("2026-01-02T03:04:05.678Z ERROR a b", false),
        ("2026-01-02T03:04:05.678Z ERROR a b=\"c\"d", false),
        ("thread panicked", false),
    ] {
        assert_eq!(is_event(line), expected, "{line}");
    }
}

fn is_stopped(gateway: &Gateway) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

/// Stops the gateway and lets it go on, again and again; nothing of it may stand in the error log.
fn check_pauses(setup: Setup, source: &str) {
    let mut gateway = setup
        .set("gateway.workers", WORKERS)
        .set("log.level", "debug")
        .start();
    gateway.wait_served(source, "x", DEADLINE);
    for _ in 0..5 {
        gateway.signal(Signal::SIGSTOP);
        wait_until("it is stopped", DEADLINE, || is_stopped(&gateway));
        gateway.signal(Signal::SIGCONT);
        // Each worker has one of them.
        let mut clients: Vec<_> = (0..WORKERS).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "x");
        }
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.wait_for_log(" stopped");
    let lines = gateway.stderr.all();
    let foreign = lines.iter().filter(|line| !is_event(line));
    assert_eq!(foreign.collect::<Vec<_>>(), [""; 0]);
    let alarming = |line: &&String| line.contains(" ERROR ") || line.contains("Interrupted");
    assert_eq!(lines.iter().find(alarming), None);
    assert_eq!(gateway.stdout.all(), [""; 0]);
}

#[test]
fn a_pause_of_the_process_is_nobodys_error() {
    let origin = Origin::named("x");
    check_pauses(Setup::serving(&origin), "127.0.0.1");
}

#[test]
fn nor_is_it_one_of_redis() {
    let (origin, redis) = (Origin::named("x"), Redis::start());
    redis.push("prod", &[&origin]);
    check_pauses(Setup::new().redis(redis.url()), "127.0.0.1");
}
