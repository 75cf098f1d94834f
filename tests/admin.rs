//! The admin listener: what it says of the gateway is right, and nobody can keep it from saying it.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant, SystemTime};

use graygate::error::{
    AdminRefusal, Checked, Close, Degradation, Doubt, Failure, Refusal, WrongForce,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    Client, DEADLINE, Gateway, Origin, Redis, RefusingPeer, Response, Samples, Setup,
    listening_ports, ok, read_metrics, wait_until,
};

/// What the admin listener allows for a request, and again for its answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// A gateway with one peer of the old version, and nobody gray.
fn gateway() -> Gateway {
    let setup = Setup::serving(&"127.0.0.1:9");
    setup.set("lists.guard_share", 100).start()
}

fn samples(gateway: &Gateway) -> Samples {
    let (status, page) = gateway.admin_get("/metrics");
    assert_eq!(status, 200, "{page}");
    read_metrics(&page)
}

#[test]
fn health_is_good_while_requests_can_be_served_and_otherwise_says_why_not() {
    let gateway = gateway();
    let healthy = (200, "ok generation=1\n".to_owned());
    assert_eq!(gateway.admin_get("/healthz"), healthy);

    let redis = RefusingPeer::new();
    let unread = Setup::new().redis(format!("redis://{redis}")).start();
    let (status, said) = unread.admin_get("/healthz");
    let reason = "no-lists: no lists have been read: ";
    assert!(status == 503 && said.starts_with(reason), "{status} {said}");
    assert_eq!(unread.get("127.0.0.1", "/").status(), 503);

    let empty = Setup::new().lists(&[], &[&"127.0.0.1:9"], &[]).start();
    let reason = (503, "no-peers: prod is empty\n".to_owned());
    assert_eq!(empty.admin_get("/healthz"), reason);
    empty.write_lists(&[], &[], &[&"127.0.0.1:9"]);
    let healthy = (200, "ok generation=2\n".to_owned());
    wait_until("prod has a peer", DEADLINE, || {
        empty.admin_get("/healthz") == healthy
    });
}

#[test]
fn health_is_bad_while_the_gateway_drains() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.wait_for_release()?;
        conn.send(ok("late"))
    });
    let mut gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the request", |it| it.requests.len() == 1);
    gateway.signal(Signal::SIGTERM);
    let reason = (503, "draining: the gateway is shutting down\n".to_owned());
    wait_until("it drains", DEADLINE, || {
        gateway.admin_get("/healthz") == reason
    });
    assert_eq!(gateway.admin_get("/lists").0, 200);
    origin.release();
    assert_eq!(client.response().text(), "late");
    assert!(gateway.wait_exit().success());
}

#[test]
fn lists_are_shown_as_they_are_in_force() {
    let redis = Redis::start_with_password(Some("tell-nobody"));
    redis.push(
        "gray",
        &[
            &"172.16.5.9/12",
            &"10.0.0.1",
            &"::ffff:10.0.0.1",
            &"2001:DB8::1",
            &"not an address",
            &"\u{1b}[31m",
        ],
    );
    redis.push("pre", &[&"[::1]", &"127.0.0.1:81", &"127.0.0.1:0"]);
    redis.push("prod", &[&"127.0.0.2", &"127.0.0.1:9000", &"127.0.0.1:82"]);
    let setup = Setup::new().redis(redis.url());
    let gateway = setup.set("upstream.peer_port", 8000).start();
    let lists = gateway.wait_for_lists("they are read", |it| it["generation"] == json!(1));
    assert_eq!(
        lists["gray"],
        json!(["10.0.0.1", "172.16.0.0/12", "2001:db8::1"])
    );
    assert_eq!(lists["pre"], json!(["127.0.0.1:81", "[::1]:8000"]));
    let prod = ["127.0.0.1:82", "127.0.0.1:9000", "127.0.0.2:8000"];
    assert_eq!(lists["prod"], json!(prod));
    let neither =
        "neither an IP address, a net like 10.0.0.0/8, nor a term like header:X-User=alice";
    assert_eq!(
        lists["skipped"],
        json!({
            "gray": { "count": 2, "first": [
                { "entry": "not an address", "reason": neither },
                { "entry": r"\x1b[31m", "reason": "a control character in an entry" },
            ] },
            "pre": { "count": 1, "first": [{ "entry": "127.0.0.1:0", "reason": "port 0" }] },
            "prod": { "count": 0, "first": [] },
        })
    );
    assert_eq!(lists["error"], Value::Null);
    assert_eq!(lists["kept"], json!([]));
    assert_eq!(lists["mode"], "events");
    let address = redis.address().to_string();
    let source = lists["source"].as_str().unwrap();
    assert!(source.contains(&address), "{source}");

    // A list of garbage does not come into force, and is named.
    redis.cli(&["DEL", "pre"]);
    redis.cli(&["RPUSH", "pre", "garbage!"]);
    // Between the two, the list has been found empty.
    let kept = json!([{ "list": "pre", "fault": "all-skipped" }]);
    let lists = gateway.wait_for_lists("pre is kept", |it| it["kept"] == kept);
    assert_eq!(lists["pre"], json!(["127.0.0.1:81", "[::1]:8000"]));
    assert_eq!(lists["generation"], 1);
}

#[test]
fn no_page_and_no_log_shows_the_password() {
    let redis = Redis::start_with_password(Some("tell-nobody"));
    redis.push("prod", &[&"127.0.0.1:9"]);
    let wrong = redis.url().replace("tell-nobody", "wrong-one");
    for (url, secret, is_read) in [
        (redis.url(), "tell-nobody", true),
        (wrong, "wrong-one", false),
    ] {
        let gateway = Setup::new().redis(url).start();
        gateway.wait_for_lists("an outcome", |it| match is_read {
            true => it["generation"] == json!(1),
            false => it["error"] != Value::Null,
        });
        for page in ["/healthz", "/lists", "/metrics"] {
            let (_, said) = gateway.admin_get(page);
            assert!(!said.contains(secret), "{page}: {said}");
        }
        assert_eq!(gateway.stderr.count(secret), 0, "{:?}", gateway.stderr);
    }
}

#[test]
fn the_age_of_the_lists_is_the_time_since_they_were_read() {
    let gateway = gateway();
    let age = || gateway.lists()["age_seconds"].as_f64().unwrap();
    let since = Instant::now();
    let first = age();
    wait_until("the lists grow older", DEADLINE, || age() > first + 0.2);
    assert!(since.elapsed() >= Duration::from_millis(200));
    let written = Instant::now();
    let wall = SystemTime::now();
    gateway.write_lists(&[], &[], &[&"127.0.0.1:8"]);
    let lists = gateway.wait_for_lists("the change", |it| it["generation"] == json!(2));
    let age = lists["age_seconds"].as_f64().unwrap();
    assert!(age < written.elapsed().as_secs_f64(), "{age}");
    let changed = humantime::parse_rfc3339(lists["changed_at"].as_str().unwrap()).unwrap();
    // It is shown in whole milliseconds.
    assert!(changed + Duration::from_millis(1) >= wall && changed <= SystemTime::now());
}

#[test]
fn the_digest_is_the_same_where_the_lists_are_and_nowhere_else() {
    let digest = |gray: &[&str], pre: &[&str], prod: &[&str]| {
        let peers = |list: &[&str]| list.join("\n");
        let (gray, pre, prod) = (peers(gray), peers(pre), peers(prod));
        let text = format!("[gray]\n{gray}\n[pre]\n{pre}\n[prod]\n{prod}\n");
        let gateway = Setup::new().file("lists", &text).start();
        gateway.lists()["digest"].as_str().unwrap().to_owned()
    };
    let one = digest(
        &["10.0.0.1", "10.1.0.0/16"],
        &["127.0.0.1:81", "127.0.0.1:82"],
        &["127.0.0.1"],
    );
    // Another order, repetition, other spellings.
    let same = digest(
        &["10.1.2.3/16", "::ffff:10.0.0.1", "10.0.0.1/32", "10.0.0.1"],
        &["127.0.0.1:82", "127.0.0.1:81"],
        &[" 127.0.0.1", "127.0.0.1"],
    );
    assert_eq!(one, same);
    let swapped = digest(
        &["10.0.0.1", "10.1.0.0/16"],
        &["127.0.0.1"],
        &["127.0.0.1:81", "127.0.0.1:82"],
    );
    let less = digest(
        &["10.0.0.1"],
        &["127.0.0.1:81", "127.0.0.1:82"],
        &["127.0.0.1"],
    );
    assert!(one != swapped && one != less && swapped != less);
}

#[test]
fn metrics_are_well_formed_in_every_state() {
    let unread = Setup::new()
        .redis(format!("redis://{}", RefusingPeer::new()))
        .start();
    let page = samples(&unread);
    assert_eq!(page["graygate_lists_generation"], 0.0);
    assert_eq!(page["graygate_lists_readable"], 0.0);
    // There is no age of what was never read.
    assert!(!page.contains_key("graygate_lists_age_seconds"));

    let gateway = gateway();
    samples(&gateway);
    for (request, status) in [("GET / HTTP/1.1\r\n\r\n", 400), ("GET /\r\n\r\n", 400)] {
        assert_eq!(gateway.connect().ask(request).status(), status);
    }
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
    samples(&gateway);
}

/// What passes between one client and the gateway, added up.
#[derive(Default)]
struct Traffic {
    received: usize,
    sent: usize,
}

impl Traffic {
    /// Sends `request` on `client` and reads the response.
    #[track_caller]
    fn ask(&mut self, client: &mut Client, request: &str) -> Response {
        let response = client.ask(request);
        self.received += request.len();
        self.sent += response.head.raw.len() + response.raw.len();
        response
    }
}

/// The response of the test's origin to a request for `target`; `/404` is answered with 404.
fn answer_to(target: &str) -> Vec<u8> {
    let status = &target[1..];
    // It keeps connections for longer than a slow test takes.
    let fields = "X-Origin: yes\r\nKeep-Alive: timeout=600\r\nContent-Length: 3";
    format!("HTTP/1.1 {status} Said So\r\n{fields}\r\n\r\nabc").into()
}

/// The fixed part of a page: without what depends on time, or on how far a log's writer has got; and
/// without what tests/peers_seen.rs looks at, peer by peer.
fn counted(mut page: Samples) -> Samples {
    let timed = [
        "graygate_request_duration_seconds_bucket{le=",
        "graygate_request_duration_seconds_sum",
        "graygate_pool_request_duration_seconds_bucket{le=",
        "graygate_pool_request_duration_seconds_sum{",
        "graygate_upstream_duration_seconds_bucket{le=",
        "graygate_upstream_duration_seconds_sum{",
        "graygate_lists_age_seconds",
        "graygate_log_queued_bytes{",
        "graygate_config_last_reload_success_timestamp_seconds",
        "graygate_peer_",
        // By the second: see tests/units.rs and tests/verdict.rs.
        "graygate_verdict_",
        "process_",
    ];
    page.retain(|name, _| !timed.iter().any(|it| name.starts_with(it)));
    page
}

/// What is there from the start, with 0: every label of a set that is known.
fn known_labels() -> Samples {
    let mut names = Vec::new();
    for pool in ["pre", "prod"] {
        let outcomes = Failure::ALL.iter().map(|it| it.name());
        let outcomes = outcomes.chain(["ok", "abandoned"]);
        names.extend(
            outcomes.map(|it| format!("attempts_total{{outcome=\"{it}\",pool=\"{pool}\"}}")),
        );
        let states = ["up", "unchecked", "out", "trial", "starting"];
        names.extend(states.map(|it| format!("peers{{pool=\"{pool}\",state=\"{it}\"}}")));
        let checks = Checked::ALL.iter().map(|it| it.name());
        names.extend(
            checks.map(|it| format!("health_checks_total{{outcome=\"{it}\",pool=\"{pool}\"}}")),
        );
    }
    for (pool, reasons) in [
        ("pre", &["listed", "forced", "marked"][..]),
        (
            "prod",
            &[
                "unlisted",
                "excluded",
                "forced",
                "marked",
                "tripped",
                "pre-empty",
                "pre-out",
            ],
        ),
    ] {
        names.extend(
            reasons
                .iter()
                .map(|it| format!("decisions_total{{pool=\"{pool}\",reason=\"{it}\"}}")),
        );
    }
    let mut reasons = |family: &str, all: Vec<&str>| {
        let of_family = all.iter().map(|it| format!("{family}{{reason=\"{it}\"}}"));
        names.extend(of_family);
    };
    let refusals = Refusal::ALL.iter().map(|it| it.name());
    reasons("refusals_total", refusals.collect());
    let doubts = Doubt::ALL.iter().map(|it| it.name());
    reasons("proxies_not_believed_total", doubts.collect());
    let wrong = WrongForce::ALL.iter().map(|it| it.name());
    reasons("forces_refused_total", wrong.collect());
    let closes = Close::ALL.iter().map(|it| it.name());
    reasons("connections_closed_total", closes.collect());
    let refusals = AdminRefusal::ALL.iter().map(|it| it.name());
    reasons("admin_refusals_total", refusals.collect());
    let lacks = Degradation::ALL.iter().map(|it| it.name());
    reasons("degraded", lacks.collect());
    let zeros = names.into_iter().map(|it| (format!("graygate_{it}"), 0.0));
    zeros.collect()
}

#[test]
fn every_label_of_a_known_set_is_there_from_the_start() {
    let page = samples(&gateway());
    for name in known_labels().into_keys() {
        assert!(page.contains_key(&name), "{name}");
    }
}

#[test]
fn every_counter_counts_what_has_happened_and_nothing_else() {
    let answering = || Origin::answering(|request| answer_to(&request.head.target()));
    let (pre, prod, mute) = (answering(), answering(), Origin::mute());
    let dead = RefusingPeer::new();
    let setup = Setup::new().one_worker();
    let setup = setup.set("lists.guard_share", 100);
    let setup = setup.set("gateway.max_connections", 100);
    let gateway = setup.lists(&["127.0.0.5"], &[&pre], &[&prod]).start();
    let lists_are = |generation: u64| {
        gateway.wait_for_lists("the lists", |it| it["generation"] == json!(generation));
    };
    let mut traffic = Traffic::default();
    let mut once = |source: &str, target: &str, status: u16| {
        let mut client = gateway.connect_from(source);
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let response = traffic.ask(&mut client, &request);
        assert_eq!(response.status(), status, "{source} {target}");
        client.expect_close();
    };
    for (source, target, status, times) in [
        ("127.0.0.5", "/200", 200, 2),
        ("127.0.0.5", "/301", 301, 1),
        ("127.0.0.1", "/200", 200, 3),
        ("127.0.0.1", "/404", 404, 2),
        ("127.0.0.1", "/500", 500, 1),
    ] {
        for _ in 0..times {
            once(source, target, status);
        }
    }
    gateway.write_lists(&["127.0.0.5"], &[&dead], &[&prod]);
    lists_are(2);
    once("127.0.0.5", "/200", 200);
    gateway.write_lists(&["127.0.0.5"], &[], &[&prod]);
    lists_are(3);
    once("127.0.0.5", "/200", 200);
    gateway.write_lists(&["127.0.0.5"], &[], &[&dead]);
    lists_are(4);
    once("127.0.0.1", "/200", 502);
    // One version that cannot be used, and the same lists again.
    gateway.write_lists_text("nonsense\n");
    gateway.wait_for_lists("the failure", |it| it["error"] != Value::Null);
    gateway.write_lists(&["127.0.0.5"], &[], &[&mute]);
    lists_are(5);
    // Gives up while it waits for its answer.
    let request = "GET /200 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = gateway.connect();
    client.send(request);
    mute.wait("the request", |it| it.requests.len() == 1);
    client.reset();
    traffic.received += request.len();
    gateway.write_lists(&["127.0.0.5"], &[&pre], &[&prod]);
    lists_are(6);
    let mut client = gateway.connect();
    let no_host = "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(traffic.ask(&mut client, no_host).status(), 400);
    client.expect_close();
    // This one leaves between two requests, the last one stays.
    let upload = "POST /200 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..2 {
        let mut client = gateway.connect();
        for _ in 0..2 {
            assert_eq!(traffic.ask(&mut client, upload).status(), 200);
        }
    }
    let mut stays = gateway.connect();
    assert_eq!(traffic.ask(&mut stays, request).status(), 200);

    let origins = [&pre, &prod, &mute];
    let upstream_sent: usize = origins
        .iter()
        .flat_map(|it| it.requests())
        .map(|it| it.head.raw.len() + it.raw.len())
        .sum();
    let upstream_received: usize = [&pre, &prod]
        .iter()
        .flat_map(|it| it.requests())
        .map(|it| answer_to(&it.head.target()).len())
        .sum();
    let table: &[(&str, usize)] = &[
        ("requests_total{pool=\"pre\",status=\"0xx\"}", 0),
        ("requests_total{pool=\"pre\",status=\"1xx\"}", 0),
        ("requests_total{pool=\"pre\",status=\"2xx\"}", 2),
        ("requests_total{pool=\"pre\",status=\"3xx\"}", 1),
        ("requests_total{pool=\"pre\",status=\"4xx\"}", 0),
        ("requests_total{pool=\"pre\",status=\"5xx\"}", 0),
        ("requests_total{pool=\"prod\",status=\"0xx\"}", 1),
        ("requests_total{pool=\"prod\",status=\"1xx\"}", 0),
        ("requests_total{pool=\"prod\",status=\"2xx\"}", 10),
        ("requests_total{pool=\"prod\",status=\"3xx\"}", 0),
        ("requests_total{pool=\"prod\",status=\"4xx\"}", 2),
        ("requests_total{pool=\"prod\",status=\"5xx\"}", 2),
        ("requests_total{pool=\"none\",status=\"0xx\"}", 0),
        ("requests_total{pool=\"none\",status=\"1xx\"}", 0),
        ("requests_total{pool=\"none\",status=\"2xx\"}", 0),
        ("requests_total{pool=\"none\",status=\"3xx\"}", 0),
        ("requests_total{pool=\"none\",status=\"4xx\"}", 1),
        ("requests_total{pool=\"none\",status=\"5xx\"}", 0),
        ("worker_requests_total{worker=\"0\"}", 19),
        ("request_duration_seconds_count", 19),
        ("pool_request_duration_seconds_count{pool=\"pre\"}", 3),
        ("pool_request_duration_seconds_count{pool=\"prod\"}", 15),
        ("pool_request_duration_seconds_count{pool=\"none\"}", 1),
        ("upstream_duration_seconds_count{pool=\"pre\"}", 3),
        ("upstream_duration_seconds_count{pool=\"prod\"}", 13),
        // One was served by prod without a try on pre, and one was refused.
        ("requests_attempted_total", 18),
        ("decisions_total{pool=\"pre\",reason=\"listed\"}", 4),
        ("decisions_total{pool=\"prod\",reason=\"unlisted\"}", 13),
        ("decisions_total{pool=\"prod\",reason=\"pre-empty\"}", 1),
        ("retries_total{pool=\"pre\"}", 0),
        // After the one that pre has refused.
        ("retries_total{pool=\"prod\"}", 1),
        ("retries_denied_total{pool=\"pre\"}", 0),
        ("retries_denied_total{pool=\"prod\"}", 0),
        ("attempts_total{outcome=\"ok\",pool=\"pre\"}", 3),
        (
            "attempts_total{outcome=\"connect-refused\",pool=\"pre\"}",
            1,
        ),
        ("attempts_total{outcome=\"ok\",pool=\"prod\"}", 13),
        (
            "attempts_total{outcome=\"connect-refused\",pool=\"prod\"}",
            1,
        ),
        ("attempts_total{outcome=\"client-gone\",pool=\"prod\"}", 1),
        ("fallbacks_total{reason=\"pre-empty\"}", 1),
        ("fallbacks_total{reason=\"pre-out\"}", 0),
        ("fallbacks_total{reason=\"pre-exhausted\"}", 1),
        ("refusals_total{reason=\"no-host\"}", 1),
        ("connections_total{worker=\"0\"}", 17),
        ("connections_active{worker=\"0\"}", 1),
        // Silent once all is said.
        ("connections_parked{worker=\"0\"}", 1),
        ("connections_closed_total{reason=\"connection-close\"}", 12),
        ("connections_closed_total{reason=\"client-gone\"}", 1),
        ("connections_closed_total{reason=\"client-closed\"}", 2),
        ("connections_closed_total{reason=\"refused\"}", 1),
        // The one to prod went when prod was in no list.
        ("upstream_connections_total{kind=\"new\"}", 4),
        ("upstream_connections_total{kind=\"reused\"}", 13),
        // At the worker's next look.
        ("upstream_connections_idle{worker=\"0\"}", 1),
        ("upstream_connections_pinned{worker=\"0\"}", 0),
        (
            "bytes_total{direction=\"received\",side=\"downstream\"}",
            traffic.received,
        ),
        (
            "bytes_total{direction=\"sent\",side=\"downstream\"}",
            traffic.sent,
        ),
        (
            "bytes_total{direction=\"received\",side=\"upstream\"}",
            upstream_received,
        ),
        (
            "bytes_total{direction=\"sent\",side=\"upstream\"}",
            upstream_sent,
        ),
        ("panics_total", 0),
        ("lists_generation", 6),
        ("lists_snapshots", 1),
        ("lists_entries{list=\"gray\"}", 1),
        ("lists_entries{list=\"pre\"}", 1),
        ("lists_entries{list=\"prod\"}", 1),
        ("tripped", 0),
        ("lists_skipped{list=\"gray\"}", 0),
        ("lists_skipped{list=\"pre\"}", 0),
        ("lists_skipped{list=\"prod\"}", 0),
        ("lists_findings{finding=\"duplicate\"}", 0),
        ("lists_findings{finding=\"in-both-pools\"}", 0),
        ("lists_findings{finding=\"trusted-proxy-is-gray\"}", 0),
        ("lists_findings{finding=\"almost\"}", 0),
        ("lists_findings{finding=\"host-bits\"}", 0),
        ("lists_findings{finding=\"address-or-port\"}", 0),
        ("lists_findings{finding=\"replica-link-down\"}", 0),
        ("lists_findings{finding=\"keys-evicted\"}", 0),
        ("lists_findings{finding=\"name-unresolved\"}", 0),
        ("lists_findings{finding=\"weights-differ\"}", 0),
        ("lists_findings{finding=\"unreachable\"}", 0),
        ("lists_findings{finding=\"never-sent\"}", 0),
        ("lists_findings{finding=\"expired\"}", 0),
        ("lists_findings{finding=\"shares-differ\"}", 0),
        ("lists_findings{finding=\"other-term\"}", 0),
        ("names{state=\"resolved\"}", 0),
        ("names{state=\"kept\"}", 0),
        ("names{state=\"unresolved\"}", 0),
        ("name_lookups_total{outcome=\"resolved\"}", 0),
        ("name_lookups_total{outcome=\"failed\"}", 0),
        ("lists_findings{finding=\"proxy-not-believed\"}", 0),
        ("lists_refreshes_total{cause=\"start\"}", 1),
        ("lists_refreshes_total{cause=\"event\"}", 5),
        ("lists_refreshes_total{cause=\"check\"}", 0),
        ("lists_refreshes_total{cause=\"reconnect\"}", 0),
        ("lists_missed_events_total", 0),
        ("lists_refreshes_total{cause=\"copy\"}", 0),
        ("lists_refreshes_total{cause=\"accepted\"}", 0),
        ("lists_held{list=\"gray\"}", 0),
        ("lists_held{list=\"prod\"}", 0),
        ("lists_failures_total", 1),
        ("lists_readable", 1),
        ("lists_mode{mode=\"file\"}", 1),
        ("turns_total{worker=\"0\"}", 0),
        ("log_dropped_total{log=\"access\"}", 0),
        ("log_dropped_total{log=\"error\"}", 0),
        ("reloads_total{outcome=\"ok\"}", 0),
        ("reloads_total{outcome=\"failed\"}", 0),
        ("workers", 1),
        ("config_last_reload_successful", 1),
        ("max_connections", 100),
        ("peers{pool=\"pre\",state=\"up\"}", 1),
        ("peers{pool=\"prod\",state=\"up\"}", 1),
        ("tripped", 0),
        ("webhook_total{result=\"delivered\"}", 0),
        ("webhook_total{result=\"retried\"}", 0),
        ("webhook_total{result=\"failed\"}", 0),
        ("webhook_total{result=\"dropped\"}", 0),
        ("peers_asked{pool=\"pre\"}", 1),
        ("peers_asked{pool=\"prod\"}", 1),
        ("peers_without_series{pool=\"pre\"}", 0),
        ("peers_without_series{pool=\"prod\"}", 0),
    ];
    let own_lines = format!("own_lines_dropped_total{{listen=\"{}\"}}", gateway.addr());
    let build = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let mut expected = known_labels();
    let counts = [(own_lines.as_str(), 0), (&build, 1)];
    for (name, value) in table.iter().chain(&counts) {
        expected.insert(format!("graygate_{name}"), *value as f64);
    }
    // The end of a connection is counted a moment after the client has seen it.
    let closes = || counted(samples(&gateway));
    let start = Instant::now();
    wait_until("the counters, or a look at them", 2 * DEADLINE, || {
        closes() == expected || start.elapsed() > DEADLINE
    });
    let differing: Vec<_> = closes()
        .into_iter()
        .filter(|(name, value)| expected.get(name) != Some(value))
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|(name, _)| !closes().contains_key(*name))
        .collect();
    assert!(
        differing.is_empty() && missing.is_empty(),
        "{differing:?}, missing {missing:?}"
    );
}

#[test]
fn durations_are_counted_where_they_belong() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.wait_for_release()?;
        conn.send(ok("late"))
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the request", |it| it.requests.len() == 1);
    let least = Instant::now();
    wait_until("half a second", DEADLINE, || {
        least.elapsed() > Duration::from_millis(500)
    });
    origin.release();
    assert_eq!(client.response().text(), "late");
    gateway.wait_for_metric("graygate_request_duration_seconds_count", 1.0);
    let most = start.elapsed().as_secs_f64();
    let page = samples(&gateway);
    let sum = page["graygate_request_duration_seconds_sum"];
    assert!((0.5..=most).contains(&sum), "{sum}, not up to {most}");
    let bucket = |le: &str| page[&format!("graygate_request_duration_seconds_bucket{{le={le:?}}}")];
    assert_eq!(
        (bucket("0.5"), bucket("10"), bucket("+Inf")),
        (0.0, 1.0, 1.0)
    );
}

#[test]
fn what_is_asked_of_the_admin_listener_is_not_counted_as_the_gateways_traffic() {
    let gateway = gateway();
    let before = counted(samples(&gateway));
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        Client::connect(gateway.admin()).ask(request);
    }
    assert_eq!(counted(samples(&gateway)), before);
    assert_eq!(before["graygate_connections_total{worker=\"0\"}"], 0.0);
    // The line of a later request is the first.
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
    assert_eq!(gateway.wait_for_access_lines(1).len(), 1);
}

#[test]
fn every_request_gets_one_answer_and_the_connection_ends() {
    let gateway = gateway();
    let long_target = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(4 * 1024)
    );
    let long_field = format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(8192));
    let many_fields = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let healthy = "ok generation=1\n";
    let table: &[(&str, u16, &str)] = &[
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            200,
            healthy,
        ),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200, healthy),
        (
            "GET /healthz?now HTTP/1.1\r\nHost: localhost\r\n\r\n",
            200,
            healthy,
        ),
        (
            "GET /healthz/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
            "there are /healthz, ",
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
            "there are /healthz, ",
        ),
        (
            "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
            "there are ",
        ),
        (
            "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
            405,
            "method-not-allowed\n",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            405,
            "method-not-allowed\n",
        ),
        ("nonsense\r\n\r\n", 400, "bad-request-line\n"),
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nA b\r\n\r\n",
            400,
            "bad-field\n",
        ),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400, "no-host\n"),
        ("GET /healthz HTTP/1.1\n\n", 400, "bare-lf\n"),
        ("GET /healthz HTTP/3.0\r\n\r\n", 505, "bad-version\n"),
        (&long_target, 414, "line-too-long\n"),
        (&long_field, 431, "head-too-large\n"),
        (&many_fields, 431, "too-many-fields\n"),
    ];
    for (request, status, body) in table {
        let of = &request[..request.len().min(60)];
        let mut client = Client::connect(gateway.admin());
        // What follows is not answered.
        client.send_if_open(format!(
            "{request}GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.status(), *status, "{of}");
        assert!(response.text().starts_with(body), "{of}: {response:?}");
        let allow = (*status == 405).then(|| "GET, HEAD".to_owned());
        assert_eq!(response.field("allow"), allow, "{of}");
        assert_eq!(
            response.field("connection").as_deref(),
            Some("close"),
            "{of}"
        );
        assert_eq!(response.field("cache-control").as_deref(), Some("no-store"));
        client.expect_close();
    }
    assert_eq!(gateway.admin_get("/healthz").0, 200);
}

#[test]
fn every_page_has_its_type() {
    let gateway = gateway();
    for (page, kind) in [
        ("/healthz", "text/plain; charset=utf-8"),
        ("/lists", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let head = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = Client::connect(gateway.admin()).ask(head);
        assert_eq!(response.field("content-type").as_deref(), Some(kind));
    }
}

#[test]
fn head_is_answered_without_a_body() {
    let gateway = gateway();
    for (request, status) in [
        ("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("HEAD /lists HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nA b\r\n\r\n",
            400,
        ),
    ] {
        let mut client = Client::connect(gateway.admin());
        let response = client.ask(request);
        assert_eq!(response.status(), status, "{request}");
        let length = response.field("content-length").unwrap();
        assert_ne!(length, "0", "{request}");
        client.expect_close();
    }
}

#[test]
fn a_client_that_does_not_get_on_is_cut_when_its_time_is_over() {
    let gateway = gateway();
    for begin in ["", "GET /healthz HTTP/1.1\r\n"] {
        let start = Instant::now();
        let mut client = Client::connect(gateway.admin());
        client.send(begin);
        let response = client.response();
        assert_eq!(response.status(), 408, "{begin:?}");
        assert_eq!(response.text(), "head-timeout\n");
        assert!(start.elapsed() >= TIME_LIMIT, "{:?}", start.elapsed());
        client.expect_close();
    }
    // One that has gone needs no answer.
    let mut client = Client::connect(gateway.admin());
    client.send("GET /healthz");
    client.half_close();
    client.expect_close();
}

#[test]
fn silent_clients_do_not_keep_others_waiting() {
    let gateway = gateway();
    // Far more than are served at the same time; one half has begun a request.
    let silent: Vec<Client> = (0..100)
        .map(|at| {
            let mut client = Client::connect(gateway.admin());
            client.send_if_open(["", "GET /healthz"][at % 2]);
            client
        })
        .collect();
    let start = Instant::now();
    assert_eq!(gateway.admin_get("/healthz").0, 200);
    assert!(start.elapsed() < TIME_LIMIT, "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn a_client_that_reads_slowly_is_cut_when_the_time_for_its_answer_is_over() {
    // More than the kernel takes for a client that does not read it.
    let gray: String = (0..130_000)
        .map(|at| {
            format!(
                "2001:db8:1111:2222:3333:4444:{:x}:{:x}\n",
                at >> 16 | 0x1000,
                at & 0xffff
            )
        })
        .collect();
    let gateway = gateway();
    gateway.write_lists_text(&format!("[gray]\n{gray}[pre]\n[prod]\n127.0.0.1:9\n"));
    wait_until("the large list", 6 * DEADLINE, || {
        gateway.metric("graygate_lists_generation") == 2.0
    });
    let mut client = Client::with_small_window("127.0.0.1", gateway.admin(), 4096);
    client.send("GET /lists HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    let length: usize = head.field("content-length").unwrap().parse().unwrap();
    let (start, mut read) = (Instant::now(), 0);
    // Each look takes a little, so that something is written all the time.
    wait_until("the time is over", DEADLINE, || {
        read += client.wire.some(1024).unwrap().len();
        start.elapsed() > TIME_LIMIT + Duration::from_secs(1)
    });
    read += client.rest().len();
    assert!(read < length, "all {length} bytes came");
}

#[test]
fn without_an_admin_listener_the_gateway_serves_and_nothing_else_listens() {
    let origin = Origin::named("prod");
    let gateway = Setup::serving(&origin).set("admin.listen", "off").start();
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    gateway.wait_for_log(" admin=off ");
    let only = [gateway.addr().port()].into();
    wait_until("one port", DEADLINE, || {
        listening_ports(gateway.pid()) == only
    });
}

/// DNS rebinding: a page's own name is made to mean this listener, so that a browser on this machine
/// takes what is here for the page's.
#[test]
fn only_who_asks_for_an_address_or_an_own_name_is_served() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let setup = Setup::serving(&old);
    let setup = setup.set("admin.hosts", "gw-1.example.net, GW-2");
    let token = "0123456789abcdef";
    let setup = setup.file("token", token).set("admin.token_file", "token");
    let mut gateway = setup.start();
    gateway.write_lists(&[], &[], &[&new]);
    let page = gateway.wait_for_lists("held", |it| it["held"] != json!([]));
    let digest = page["held"][0]["digest"].as_str().unwrap().to_owned();
    let accept = format!("/lists/accept?digest={digest}");
    let ask = |gateway: &Gateway, method: &str, target: &str, host: &str| {
        let field = format!("X-Graygate-Command: accept\r\nAuthorization: Bearer {token}");
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n");
        Client::connect(gateway.admin()).ask(head)
    };
    let port = gateway.admin().port();
    let foreign = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "gw-3".to_owned(),
    ];
    let pages = [
        "/healthz",
        "/lists",
        "/config",
        "/peers",
        "/explain?ip=192.0.2.1",
        "/metrics",
        "/x",
    ];
    for host in &foreign {
        for target in pages {
            let response = ask(&gateway, "GET", target, host);
            assert_eq!(response.status(), 403, "{host} {target}");
            assert!(
                response.text().starts_with("foreign-host: "),
                "{host} {target}"
            );
        }
        let response = ask(&gateway, "POST", &accept, host);
        assert_eq!(response.status(), 403, "{host}");
    }
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "old");
    let line = gateway.wait_for_log("admin-refused reason=foreign-host");
    assert!(
        line.contains("host=\"evil.example\" target=\"/healthz\" from=127."),
        "{line}"
    );
    let count = gateway.metric("graygate_admin_refusals_total{reason=\"foreign-host\"}");
    assert_eq!(count, (foreign.len() * (pages.len() + 1)) as f64);
    let own = [
        "localhost".to_owned(),
        format!("127.0.0.1:{port}"),
        "[::1]:80".to_owned(),
        "gw-1.example.net".to_owned(),
        format!("gw-2:{port}"),
    ];
    for host in &own {
        for target in &pages[..6] {
            assert_eq!(
                ask(&gateway, "GET", target, host).status(),
                200,
                "{host} {target}"
            );
        }
    }
    // Other names hold with a reload.
    gateway.edit_ini(|it| it.set("admin.hosts", "gw-3"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded file=");
    assert_eq!(ask(&gateway, "GET", "/healthz", "gw-3").status(), 200);
    assert_eq!(ask(&gateway, "GET", "/healthz", "gw-2").status(), 403);
    assert_eq!(ask(&gateway, "POST", &accept, "localhost").status(), 200);
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "new");
}
