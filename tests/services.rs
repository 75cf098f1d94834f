//! Several services behind one gateway: each has its own hosts and paths, lists, peers, settings and
//! counters.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fmt::Display;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use support::{
    Client, DEADLINE, Gateway, Origin, RefusingPeer, Response, Setup, lists_text, ok, wait_until,
};

/// The lists of a service, as a lists file has them.
fn section(service: &str, gray: &[&str], pre: &[&dyn Display], prod: &[&dyn Display]) -> String {
    let text = lists_text(gray, pre, prod);
    match service {
        "default" => text,
        _ => text.replace('[', &format!("[{service} ")),
    }
}

fn get(gateway: &Gateway, source: &str, host: &str, path: &str) -> Response {
    gateway.connect_from(source).ask(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn each_service_has_its_own_peers_settings_counters_and_lines() {
    let (usual, shop, shop_pre) = (
        Origin::named("default"),
        Origin::named("shop"),
        Origin::named("shop-pre"),
    );
    let (mute, dead) = (Origin::mute(), RefusingPeer::new());
    let lists = [
        section("default", &[], &[], &[&usual]),
        section("shop", &["127.0.0.5"], &[&shop_pre], &[&shop]),
        section("slow", &[], &[], &[&mute]),
        section("dead", &["127.0.0.5"], &[&dead], &[&usual]),
    ];
    let gateway = Setup::new()
        .set("service shop.hosts", "shop.example.com, *.shop.example.com")
        .set("service slow.paths", "/slow/")
        .set("service slow.read_timeout", "100ms")
        .set("service slow.tries", 1)
        .set("service dead.hosts", "dead.example.com")
        .set("service dead.tries", 1)
        .file("lists", &lists.concat())
        .start();
    let text = |source, host, path| get(&gateway, source, host, path).text();
    assert_eq!(text("127.0.0.1", "a", "/"), "default");
    assert_eq!(text("127.0.0.5", "a", "/"), "default");
    for host in [
        "shop.example.com",
        "SHOP.example.com:8080",
        "www.shop.example.com",
    ] {
        assert_eq!(text("127.0.0.1", host, "/x"), "shop");
        assert_eq!(text("127.0.0.5", host, "/x"), "shop-pre");
    }
    let begun = Instant::now();
    assert_eq!(get(&gateway, "127.0.0.1", "a", "/slow/x").status(), 504);
    // All others have five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(text("127.0.0.5", "dead.example.com", "/"), "default");

    let line = gateway.wait_for_access("service=slow pool=prod error=read-timeout status=504");
    assert_eq!(line.get("attempts"), "1");
    gateway.wait_for_access("service=dead pool=prod reason=pre-exhausted status=200");
    gateway.wait_for_access("service=default pool=prod reason=unlisted status=200");
    gateway.wait_for_access("service=shop pool=pre reason=listed status=200");
    gateway.wait_for_log("attempt-failed service=slow pool=prod ");

    let by_service = [
        ("default", "prod", "2xx", 2.0),
        ("shop", "pre", "2xx", 3.0),
        ("shop", "prod", "2xx", 3.0),
        ("slow", "prod", "5xx", 1.0),
        ("dead", "prod", "2xx", 1.0),
        ("dead", "pre", "2xx", 0.0),
    ];
    for (service, pool, class, count) in by_service {
        let labels = format!("service=\"{service}\",pool=\"{pool}\",status=\"{class}\"");
        gateway.wait_for_metric(&format!("graygate_requests_total{{{labels}}}"), count);
    }
    let samples = [
        (
            "attempts_total",
            "service=\"dead\",pool=\"pre\",outcome=\"connect-refused\"",
            1.0,
        ),
        (
            "attempts_total",
            "service=\"shop\",pool=\"pre\",outcome=\"ok\"",
            3.0,
        ),
        (
            "fallbacks_total",
            "service=\"dead\",reason=\"pre-exhausted\"",
            1.0,
        ),
        (
            "fallbacks_total",
            "service=\"shop\",reason=\"pre-exhausted\"",
            0.0,
        ),
        ("peers", "service=\"shop\",pool=\"pre\",state=\"up\"", 1.0),
        ("lists_entries", "service=\"shop\",list=\"gray\"", 1.0),
        ("lists_generation", "service=\"slow\"", 1.0),
    ];
    for (name, labels, value) in samples {
        assert_eq!(
            gateway.metric(&format!("graygate_{name}{{{labels}}}")),
            value,
            "{name} {labels}"
        );
    }
    let never =
        "graygate_attempts_total{service=\"shop\",pool=\"pre\",outcome=\"connect-refused\"}";
    assert_eq!(
        gateway.shown_metric(never),
        None,
        "most of a page would be zeros"
    );
    gateway.wait_for_metric("graygate_request_duration_seconds_count", 10.0);

    let peers = gateway.peers();
    let pools = peers["pools"].as_array().unwrap();
    let named = pools
        .iter()
        .map(|it| format!("{} {}", it["service"], it["pool"]));
    let named: Vec<String> = named.map(|it| it.replace('"', "")).collect();
    let expected = [
        "default pre",
        "default prod",
        "dead pre",
        "dead prod",
        "shop pre",
        "shop prod",
    ];
    assert_eq!(named[..6], expected);

    // Of one service, at the page and by the command.
    let only = |path: &str| {
        let (status, text) = gateway.admin_get(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    for (at, service) in [(0, "default"), (4, "shop")] {
        let page = only(&format!("/peers?service={service}"));
        let pools = page["pools"].as_array().unwrap();
        let named = pools.iter().map(|it| (&it["service"], &it["pool"]));
        assert!(named.eq([
            (&json!(service), &json!("pre")),
            (&json!(service), &json!("prod"))
        ]));
        let addresses = |pool: &serde_json::Value| {
            let peers = pool["peers"].as_array().unwrap().iter();
            peers.map(|it| it["address"].clone()).collect::<Vec<_>>()
        };
        let all = peers["pools"].as_array().unwrap()[at..at + 2].iter();
        assert!(all.map(addresses).eq(pools.iter().map(addresses)));
        let shown = peers_command(&gateway, &["--service", service]);
        let lines = shown.1.lines().skip(1);
        assert!(shown.0 && shown.1.lines().count() > 1, "{shown:?}");
        assert!(
            lines.into_iter().all(|it| it.starts_with(service)),
            "{shown:?}"
        );
        let json = peers_command(&gateway, &["--service", service, "--json"]).1;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["pools"].as_array().unwrap().len(), 2);
    }
    let refused = [
        ("none", 404, "there is no service none"),
        ("a b", 400, "\"a b\" is no name of a service"),
    ];
    for (name, status, text) in refused {
        let path = format!("/peers?service={}", name.replace(' ', "%20"));
        assert_eq!(gateway.admin_get(&path), (status, format!("{text}\n")));
        let (succeeded, said) = peers_command(&gateway, &["--service", name]);
        assert!(!succeeded && said.contains(text), "{said}");
    }
    // What else is in a query never meant anything here.
    assert_eq!(only("/peers?x=y")["pools"], only("/peers")["pools"]);
}

/// Whether `graygate peers` has succeeded, and what it has said.
fn peers_command(gateway: &Gateway, more: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .arg("peers")
        .args(more)
        .arg("-c")
        .arg(gateway.path("graygate.ini"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn health_checks_are_counted_by_service_and_those_of_the_default_one_as_ever() {
    let (usual, shop) = (Origin::named("default"), Origin::named("shop"));
    let refusing = RefusingPeer::new();
    let lists = [
        section("default", &[], &[], &[&usual]),
        section("shop", &[], &[&refusing], &[&shop]),
        section("unchecked", &[], &[], &[&shop]),
    ];
    let gateway = Setup::new()
        .set("health.path", "/")
        .set("health.interval", "100ms")
        .set("service shop.hosts", "shop.example.com")
        .set("service unchecked.hosts", "unchecked.example.com")
        .set("service unchecked health.path", "")
        .file("lists", &lists.concat())
        .start();
    let counted =
        |labels: &str| gateway.shown_metric(&format!("graygate_health_checks_total{{{labels}}}"));
    let some = |labels: &str| counted(labels).is_some_and(|it| it > 0.0);
    for labels in [
        "pool=\"prod\",outcome=\"ok\"",
        "service=\"shop\",pool=\"prod\",outcome=\"ok\"",
        "service=\"shop\",pool=\"pre\",outcome=\"refused\"",
    ] {
        wait_until(labels, DEADLINE, || some(labels));
    }
    // Nobody of the default service refuses.
    assert_eq!(counted("pool=\"pre\",outcome=\"refused\""), Some(0.0));
    let (_, page) = gateway.admin_get("/metrics");
    let lines = page
        .lines()
        .filter(|it| it.starts_with("graygate_health_checks_total"));
    let (of_others, of_default): (Vec<_>, Vec<_>) = lines.partition(|it| it.contains("service="));
    assert!(
        of_others
            .iter()
            .all(|it| it.contains("{service=\"shop\",pool=")),
        "{of_others:?}"
    );
    assert_eq!(of_default.len(), of_others.len());
}

/// Names and labels of the last version without services: `NAME LABEL=VALUE,VALUE LABEL=VALUE`.
const BEFORE_SERVICES: &str = include_str!("released/metrics-1");

/// As a sample is written, and the names of its labels.
fn samples_of(line: &str) -> (Vec<String>, Vec<&str>) {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let labels: Vec<(&str, &str)> = words.filter_map(|it| it.split_once('=')).collect();
    let mut all = vec![String::new()];
    for (label, values) in &labels {
        let with = |before: &String| {
            let comma = if before.is_empty() { "" } else { "," };
            let each = values.split(',');
            let each = each.map(|it| format!("{before}{comma}{label}=\"{it}\""));
            each.collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    let braces = |it: String| match it.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{it}}}"),
    };
    let samples = all.into_iter().map(braces).collect();
    (samples, labels.into_iter().map(|it| it.0).collect())
}

#[test]
fn without_services_metrics_are_what_they_were_before_there_were_any() {
    let origin = Origin::named("prod");
    let lists = Setup::new().lists(&["127.0.0.5"], &[&origin], &[&origin]);
    let gateway = lists.start();
    let (_, page) = gateway.admin_get("/metrics");
    let shown = page.lines().filter(|it| !it.starts_with('#'));
    let shown = shown.map(|it| it.rsplit_once(' ').unwrap().0);
    let shown: Vec<&str> = shown.collect();
    let before = BEFORE_SERVICES
        .replace("PEER", &origin.to_string())
        .replace("LISTEN", &gateway.addr().to_string())
        .replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert!(before.lines().count() > 60);
    for line in before.lines() {
        let (samples, labels) = samples_of(line);
        for sample in &samples {
            let count = shown.iter().filter(|it| *it == sample).count();
            assert_eq!(count, 1, "{sample}");
        }
        // Values may have been added since, but no labels.
        let name = line.split(' ').next().unwrap();
        let of_name = shown.iter().filter(|it| it.split('{').next() == Some(name));
        for sample in of_name {
            let own = sample
                .split_once('{')
                .map_or("", |it| it.1.trim_end_matches('}'));
            let own = own.split(',').filter_map(|it| Some(it.split_once('=')?.0));
            assert!(own.eq(labels.iter().copied()), "{sample}");
        }
    }
}

#[test]
fn what_is_no_services_is_refused_where_the_default_one_does_not_take_it() {
    let (shop, usual) = (Origin::named("shop"), Origin::named("default"));
    let lists = [
        section("default", &[], &[], &[&usual]),
        section("shop", &[], &[], &[&shop]),
    ];
    let gateway = Setup::new()
        .set("gateway.default_service", "off")
        .set("service shop.hosts", "shop.example.com")
        .set("service shop.paths", "/v2")
        .file("lists", &lists.concat())
        .start();
    assert_eq!(
        get(&gateway, "127.0.0.1", "shop.example.com", "/v2/x").text(),
        "shop"
    );
    for (host, path, status, error) in [
        ("a", "/", 421, "unknown-host"),
        ("shop.example.com", "/v20", 404, "unknown-path"),
    ] {
        assert_eq!(get(&gateway, "127.0.0.1", host, path).status(), status);
        gateway.wait_for_access(&format!("service=- status={status} error={error} pool=-"));
        gateway.wait_for_metric(
            &format!("graygate_refusals_total{{reason=\"{error}\"}}"),
            1.0,
        );
    }
    gateway.wait_for_metric(
        "graygate_requests_total{service=\"default\",pool=\"none\",status=\"4xx\"}",
        2.0,
    );
    assert!(usual.requests().is_empty());
}

#[test]
fn a_reload_adds_and_takes_away_a_service_while_requests_of_others_run_and_none_of_these_fails() {
    let (usual, shop) = (Origin::named("default"), Origin::named("shop"));
    let held = Origin::scripted(|conn| {
        conn.request()?;
        conn.note("asked");
        conn.wait_for_release()?;
        conn.send(ok("held"))
    });
    let of_default = section("default", &[], &[], &[&usual]);
    let of_both = of_default.clone() + &section("shop", &["127.0.0.5"], &[&held], &[&shop]);
    let mut gateway = Setup::new().file("lists", &of_default).start();
    let (addr, done) = (gateway.addr(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _done = Done(&done);
        let ask = || {
            let (mut client, mut names) = (Client::connect(addr), Vec::new());
            while !done.load(Ordering::Relaxed) {
                let mut ask = |host| client.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                assert_eq!(ask("other.example.com").text(), "default");
                let response = ask("shop.example.com");
                assert_eq!(response.status(), 200, "{}", response.text());
                names.push(response.text());
                names.dedup();
            }
            names
        };
        let running = [scope.spawn(ask), scope.spawn(ask)];
        let served = |gateway: &Gateway, name: &str| {
            let now = || get(gateway, "127.0.0.1", "shop.example.com", "/").text() == name;
            wait_until(name, DEADLINE, now);
        };
        served(&gateway, "default");
        gateway.write_lists_text(&of_both);
        gateway.edit_ini(|it| it.set("service shop.hosts", "shop.example.com"));
        gateway.signal(Signal::SIGHUP);
        served(&gateway, "shop");
        let mut under_way = gateway.connect_from("127.0.0.5");
        under_way.send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n");
        held.wait("asked", |it| it.notes.iter().any(|it| it == "asked"));
        gateway.write_lists_text(&of_default);
        gateway.edit_ini(|it| it.unset("service shop.hosts"));
        gateway.signal(Signal::SIGHUP);
        served(&gateway, "default");
        held.release();
        assert_eq!(
            under_way.response().text(),
            "held",
            "it goes on as it began"
        );
        done.store(true, Ordering::Relaxed);
        for thread in running {
            // When each of them has begun, and how often it has asked, is its own affair.
            let names = thread.join().unwrap();
            let expected = ["default", "shop", "default"].map(str::to_owned);
            let mut parts = expected.windows(names.len());
            assert!(parts.any(|it| it == names), "{names:?}");
        }
    });
    // What counts all requests has not become less, and nothing is left of the service.
    let all = gateway.wait_for_access_lines(10).len() as f64;
    assert!(gateway.metric("graygate_request_duration_seconds_count") >= all - 1.0);
    let gone = "graygate_requests_total{service=\"shop\",pool=\"prod\",status=\"2xx\"}";
    assert_eq!(gateway.shown_metric(gone), None);
    gateway.wait_for_metric("graygate_lists_snapshots", 1.0);
}

/// Ends those who ask also when the test has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Memory and time of a gateway with a thousand services; prints figures.
#[test]
#[ignore = "prints figures: cargo test --test services -- --ignored --nocapture"]
fn a_thousand_services() {
    let origin = Origin::named("a");
    for count in [0, 1000] {
        let mut lists = section("default", &[], &[], &[&origin]);
        let mut setup = Setup::new().one_worker();
        for number in 0..count {
            let name = format!("s{number}");
            lists += &section(&name, &["192.0.2.0/24"], &[], &[&origin]);
            let hosts = format!("{name}.example.com");
            setup = setup.set(&format!("service {name}.hosts"), hosts);
        }
        let begun = Instant::now();
        let gateway = setup.set("log.access", "off").file("lists", &lists).start();
        let started = begun.elapsed();
        let memory = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()));
            let status = status.unwrap();
            let line = status.lines().find(|it| it.starts_with("VmRSS"));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        let before = memory();
        let mut client = gateway.connect();
        let mut time = |spread: usize| {
            let begun = Instant::now();
            for number in 0..5000 {
                let host = number % spread;
                client.ask(format!(
                    "GET / HTTP/1.1\r\nHost: s{host}.example.com\r\n\r\n"
                ));
            }
            begun.elapsed() / 5000
        };
        let (one, all) = (time(1), time(1000));
        let page = gateway.admin_get("/metrics").1.len();
        println!(
            "services={count} start={started:?} memory_kb={before} after_requests_kb={} \
            request_to_one={one:?} request_to_all={all:?} metrics_bytes={page}",
            memory()
        );
    }
}
