//! What an operator sees of peers: the page, the table, metrics, events, and what `status` makes of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    DEADLINE, Gateway, Origin, RefusingPeer, Samples, Setup, ok, peer_on, pool_on, read_metrics,
    run_to_exit, wait_for, wait_until,
};

/// One worker, and peers that are out for so long that a test sees it.
fn setup() -> Setup {
    let setup = Setup::new().one_worker().set("lists.guard_share", 100);
    setup
        .set("upstream.fail_timeout", "60s")
        .set("upstream.max_fails", 2)
}

fn samples(gateway: &Gateway) -> Samples {
    let (status, page) = gateway.admin_get("/metrics");
    assert_eq!(status, 200, "{page}");
    read_metrics(&page)
}

/// A command, for the gateway that is running.
fn command(gateway: &Gateway, arguments: &[&str]) -> Output {
    let setup = Setup::new().set("admin.listen", gateway.admin());
    let ini = setup.write_ini();
    let ini = ["-c", ini.to_str().unwrap()];
    run_to_exit(&[arguments, &ini].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asks until the peer of `prod` at `address` is out, and returns what is shown of it.
fn wait_out(gateway: &Gateway, address: impl std::fmt::Display) -> Value {
    wait_for("it is out", || {
        gateway.get("127.0.0.1", "/");
        Some(peer_on(&gateway.peers(), "prod", &address)).filter(|it| it["state"] == "out")
    })
}

#[test]
fn each_peer_is_shown_with_what_it_has_answered_and_why_it_is_out() {
    let (well, refusing) = (Origin::named("well"), RefusingPeer::new());
    let gateway = setup()
        .lists(&["127.0.0.5"], &[&well], &[&well, &refusing])
        .start();
    let before = peer_on(&gateway.peers(), "prod", &refusing);
    assert_eq!(
        (&before["state"], &before["failed"]),
        (&json!("up"), &json!(0))
    );
    assert_eq!(before["failures"], json!({}));
    assert_eq!(before["latency_median_seconds"], Value::Null);
    let out = wait_out(&gateway, &refusing);
    assert_eq!(out["up"], false);
    assert_eq!(out["reason"], "connect-refused");
    assert_eq!(out["failed"], 2);
    assert_eq!(out["failures"], json!({ "connect-refused": 2 }));
    assert_eq!(
        (&out["answered"], &out["outs_in_a_row"]),
        (&json!(0), &json!(1))
    );
    // Its jitter makes that a tenth longer at most.
    let left = out["left_seconds"].as_f64().unwrap();
    assert!((40.0..=66.1).contains(&left), "{left}");
    let until = humantime::parse_rfc3339(out["until"].as_str().unwrap()).unwrap();
    let until = until
        .duration_since(SystemTime::now())
        .unwrap()
        .as_secs_f64();
    assert!((left - until).abs() < 20.0, "{left} {until}");
    // One of two may be out, so it is not asked.
    assert_eq!(out["asked"], false);

    let requests = well.requests().len();
    // It is counted a moment after the client has seen it.
    let page = wait_for("all answers", || {
        let all = |page: &Value| peer_on(page, "prod", &well)["answered"] == requests;
        Some(gateway.peers()).filter(all)
    });
    let prod = pool_on(&page, "prod");
    assert_eq!(prod["service"], "default");
    assert_eq!((&prod["up"], &prod["asked"]), (&json!(1), &json!(1)));
    let states = json!({ "up": 1, "out": 1, "trial": 0, "starting": 0, "unchecked": 0 });
    assert_eq!(prod["states"], states);
    // What it has answered stands in both pools: it is one server.
    for pool in ["pre", "prod"] {
        let up = peer_on(&page, pool, &well);
        assert_eq!((&up["state"], &up["asked"]), (&json!("up"), &json!(true)));
        assert_eq!((&up["weight"], &up["name"]), (&json!(1), &Value::Null));
        assert_eq!(up["answered"], requests, "{up}");
        let median = up["latency_median_seconds"].as_f64().unwrap();
        let p99 = up["latency_p99_seconds"].as_f64().unwrap();
        assert!(0.0 < median && median <= p99 && p99 < 5.0, "{up}");
    }
}

#[test]
fn what_is_under_way_is_shown_and_so_is_what_a_client_has_given_up() {
    let mute = Origin::mute();
    let gateway = setup().lists(&[], &[], &[&mute]).start();
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    mute.wait("the request", |it| it.requests.len() == 1);
    assert_eq!(peer_on(&gateway.peers(), "prod", &mute)["in_flight"], 1);
    client.reset();
    wait_until("it is given up", DEADLINE, || {
        let shown = peer_on(&gateway.peers(), "prod", &mute);
        shown["in_flight"] == 0 && shown["abandoned"] == 1
    });
    // That is not its fault.
    let shown = peer_on(&gateway.peers(), "prod", &mute);
    assert_eq!(
        (&shown["failed"], &shown["state"]),
        (&json!(0), &json!("up"))
    );
}

#[test]
fn one_that_is_out_and_asked_all_the_same_is_shown_so() {
    let refusing = RefusingPeer::new();
    let gateway = setup().lists(&[], &[], &[&refusing]).start();
    let out = wait_out(&gateway, &refusing);
    assert_eq!((&out["asked"], &out["up"]), (&json!(true), &json!(false)));
    let prod = pool_on(&gateway.peers(), "prod");
    assert_eq!((&prod["up"], &prod["asked"]), (&json!(0), &json!(1)));
    let table = said(&command(&gateway, &["peers"]));
    assert!(table.contains("left, asked all the same "), "{table}");
}

#[test]
fn the_command_shows_a_line_for_each_peer_or_the_page_itself() {
    let (pre, well, refusing) = (
        Origin::named("pre"),
        Origin::named("well"),
        RefusingPeer::new(),
    );
    let gateway = setup().lists(&[], &[&pre], &[&well, &refusing]).start();
    wait_out(&gateway, &refusing);
    let output = command(&gateway, &["peers"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = said(&output);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[0].starts_with(&["SERVICE", "POOL", "ADDRESS", "NAME", "WEIGHT", "STATE"]),
        "{table}"
    );
    let of = |peer: &dyn std::fmt::Display| {
        let address = peer.to_string();
        let found = lines.iter().find(|it| it[2] == address);
        found.unwrap_or_else(|| panic!("{address}: {table}"))
    };
    assert_eq!(
        of(&pre)[..6],
        ["default", "pre", &pre.to_string(), "-", "1", "up"]
    );
    assert_eq!(of(&well)[1], "prod");
    let out = of(&refusing);
    assert_eq!(out[5..7], ["out", "connect-refused,"], "{table}");
    assert!(
        out[8] == "left" && out.ends_with(&["connect-refused:2", "-", "-"]),
        "{table}"
    );

    let output = command(&gateway, &["peers", "--json"]);
    let shown: Value = serde_json::from_str(&said(&output)).unwrap();
    let at = |page: &Value| peer_on(page, "prod", &refusing)["failures"].clone();
    assert_eq!(at(&shown), at(&gateway.peers()));
    assert_eq!(at(&shown), json!({ "connect-refused": 2 }));
    // Where nobody can be asked, the reason.
    gateway.end();
}

#[test]
fn each_peer_has_metrics_for_as_long_as_it_is_listed() {
    let (well, refusing) = (Origin::named("well"), RefusingPeer::new());
    let gateway = setup().lists(&[], &[], &[&well, &refusing]).start();
    let of = |name: &str, peer: &dyn std::fmt::Display| {
        format!("graygate_peer_{name}{{peer=\"{peer}\",pool=\"prod\"}}")
    };
    let attempts = |peer: &dyn std::fmt::Display, outcome: &str| {
        format!(
            "graygate_peer_attempts_total{{outcome=\"{outcome}\",peer=\"{peer}\",pool=\"prod\"}}"
        )
    };
    let before = samples(&gateway);
    for peer in [&well as &dyn std::fmt::Display, &refusing] {
        assert_eq!(before[&of("up", peer)], 1.0);
        assert_eq!(before[&of("in_flight", peer)], 0.0);
        for outcome in ["answered", "failed", "abandoned"] {
            assert_eq!(before[&attempts(peer, outcome)], 0.0);
        }
    }
    assert!(
        !before
            .keys()
            .any(|it| it.starts_with("graygate_peer_latency"))
    );
    wait_out(&gateway, &refusing);
    let requests = well.requests().len() as f64;
    let shown = wait_for("all answers", || {
        let all = |page: &Samples| page[&attempts(&well, "answered")] == requests;
        Some(samples(&gateway)).filter(all)
    });
    assert_eq!(shown[&of("up", &well)], 1.0);
    assert_eq!(shown[&of("up", &refusing)], 0.0);
    assert_eq!(shown[&attempts(&refusing, "failed")], 2.0);
    let latency = |quantile: &str| {
        let name = format!("peer=\"{well}\",pool=\"prod\",quantile=\"{quantile}\"");
        shown[&format!("graygate_peer_latency_seconds{{{name}}}")]
    };
    assert!(0.0 < latency("0.5") && latency("0.5") <= latency("0.99"));
    assert_eq!(shown["graygate_peers{pool=\"prod\",state=\"up\"}"], 1.0);
    assert_eq!(shown["graygate_peers{pool=\"prod\",state=\"out\"}"], 1.0);
    assert_eq!(shown["graygate_peers_asked{pool=\"prod\"}"], 1.0);
    gateway.write_lists(&[], &[], &[&well]);
    wait_until("the other one has gone", DEADLINE, || {
        let page = samples(&gateway);
        let gone = refusing.to_string();
        page["graygate_peers{pool=\"prod\",state=\"out\"}"] == 0.0
            && !page.keys().any(|it| it.contains(&gone))
    });
}

#[test]
fn of_a_thousand_peers_and_more_only_the_first_thousand_have_series() {
    let peers: Vec<String> = (0..1100)
        .map(|it| format!("127.1.{}.{}:9", it / 250, it % 250 + 1))
        .collect();
    let lists = format!("[gray]\n[pre]\n[prod]\n{}\n", peers.join("\n"));
    let gateway = setup().file("lists", &lists).start();
    let page = samples(&gateway);
    let with_series = page
        .keys()
        .filter(|it| it.starts_with("graygate_peer_up{"))
        .count();
    assert_eq!(with_series, 1000);
    assert_eq!(page["graygate_peers_without_series{pool=\"prod\"}"], 100.0);
    assert_eq!(page["graygate_peers{pool=\"prod\",state=\"up\"}"], 1100.0);
    let shown = pool_on(&gateway.peers(), "prod");
    assert_eq!(shown["peers"].as_array().unwrap().len(), 1100);
}

/// An origin that answers with 503 while it is told to.
fn failing_at_will() -> (Origin, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&fails);
    let origin = Origin::answering(move |_| match told.load(Ordering::Acquire) {
        true => b"HTTP/1.1 503 Told So\r\nContent-Length: 0\r\n\r\n".to_vec(),
        false => ok("well"),
    });
    (origin, fails)
}

/// The words of a line of the error log, from the name of its event on.
fn words(line: &str, event: &str) -> Vec<String> {
    let from = line.find(event).unwrap();
    line[from..].split(' ').map(str::to_owned).collect()
}

/// Asks until the error log has a line that contains `text`, and returns it.
fn ask_until_log(gateway: &Gateway, source: &str, text: &str) -> String {
    wait_for(text, || {
        gateway.get(source, "/");
        gateway
            .stderr
            .all()
            .into_iter()
            .find(|it| it.contains(text))
    })
}

#[test]
fn what_happens_to_a_peer_and_to_its_pool_is_told_with_how_the_pool_stands() {
    let ((one, one_fails), (other, other_fails)) = (failing_at_will(), failing_at_will());
    other_fails.store(false, Ordering::Release);
    let setup = setup().set("upstream.fail_statuses", "503");
    let setup = setup
        .set("upstream.fail_timeout", "1s")
        .set("upstream.max_fails", 1);
    let gateway = setup.lists(&[], &[], &[&one, &other]).start();
    let line = ask_until_log(&gateway, "127.0.0.1", "peer-out ");
    assert!(line.contains(" WARN "), "{line}");
    let out = words(&line, "peer-out");
    assert_eq!(
        out[1..4],
        ["pool=prod", &format!("peer={one}"), "why=fail-status"]
    );
    assert!(
        out[4].starts_with("for=1.") && out[4].ends_with('s'),
        "{line}"
    );
    assert_eq!(out[5..], ["times=1", "up=1/2"], "{line}");
    assert_eq!(gateway.stderr.count("pool-out"), 0);

    other_fails.store(true, Ordering::Release);
    let line = ask_until_log(
        &gateway,
        "127.0.0.1",
        &format!("peer-out pool=prod peer={other} "),
    );
    assert!(line.ends_with(" up=0/2"), "{line}");
    // One of two may be out, so one is asked all the same.
    let line = gateway.wait_for_log("pool-out ");
    assert!(line.contains(" ERROR "), "{line}");
    let out = words(&line, "pool-out");
    assert_eq!(out[..3], ["pool-out", "pool=prod", "up=0/2"], "{line}");
    assert!(out[3].starts_with("why=fail-status:"), "{line}");
    assert_eq!(out[4..], ["asked=1", "fallback=none"], "{line}");

    for fails in [&one_fails, &other_fails] {
        fails.store(false, Ordering::Release);
    }
    let line = ask_until_log(&gateway, "127.0.0.1", "peer-back ");
    let back = words(&line, "peer-back");
    assert_eq!(
        (back[1].as_str(), back[3].as_str()),
        ("pool=prod", "why=answered")
    );
    assert!(
        back[4].starts_with("after=") && back[5] == "up=1/2",
        "{line}"
    );
    let line = gateway.wait_for_log("pool-back ");
    let back = words(&line, "pool-back");
    assert_eq!(back[1], "pool=prod", "{line}");
    assert!(["up=1/2", "up=2/2"].contains(&back[2].as_str()), "{line}");
    assert_eq!(gateway.stderr.count("pool-out"), 1);
}

#[test]
fn a_new_version_that_is_all_out_is_told_with_who_answers_instead() {
    let (refusing, prod) = (RefusingPeer::new(), Origin::named("prod"));
    let gateway = setup()
        .lists(&["127.0.0.5"], &[&refusing], &[&prod])
        .start();
    let line = ask_until_log(&gateway, "127.0.0.5", "pool-out ");
    assert!(line.contains(" WARN "), "{line}");
    let line = &line[line.find("pool-out").unwrap()..];
    assert_eq!(
        line,
        "pool-out pool=pre up=0/1 why=connect-refused:1 asked=0 fallback=prod"
    );
    // Of another server nobody knows anything bad yet.
    let other = RefusingPeer::new();
    gateway.write_lists(&["127.0.0.5"], &[&other], &[&prod]);
    gateway.wait_for_log("pool-back pool=pre up=1/1 after=");
    ask_until_log(&gateway, "127.0.0.5", &format!("peer={other} why="));
    wait_until("it is told again", DEADLINE, || {
        gateway.stderr.count("pool-out") == 2
    });
}

/// `graygate status`: its exit code without and with `--strict`, and what it says is lacking.
fn status(gateway: &Gateway) -> (i32, i32, Vec<String>) {
    let output = command(gateway, &["status"]);
    let strict = command(gateway, &["status", "--strict"]);
    let text = said(&output);
    let lacks = text.lines().filter_map(|it| it.strip_prefix("degraded "));
    let lacks = lacks.map(|it| it.trim_start().to_owned()).collect();
    let code = |output: &Output| output.status.code().unwrap();
    (code(&output), code(&strict), lacks)
}

/// Waits until the gateway lacks exactly this, and sees that every place says so.
#[track_caller]
fn wait_lacking(gateway: &Gateway, expected: &[&str]) {
    let first = format!("ok generation={}\n", gateway.lists()["generation"]);
    let lines = expected.iter().map(|it| format!("degraded {it}"));
    let lines: Vec<String> = lines.collect();
    wait_until(&format!("{expected:?}"), DEADLINE, || {
        let (status, text) = gateway.admin_get("/healthz?full");
        let shown = text
            .strip_prefix(&first)
            .map(|it| it.lines().collect::<Vec<_>>());
        let is_so = |shown: Vec<&str>| {
            let all = shown
                .iter()
                .zip(&lines)
                .all(|(it, line)| it.starts_with(line));
            shown.len() == lines.len() && all
        };
        status == 200 && shown.is_some_and(is_so)
    });
    // It serves, and who only asks whether it does hears nothing else.
    assert_eq!(gateway.admin_get("/healthz"), (200, first));
    let (code, strict, lacks) = status(gateway);
    assert_eq!((code, strict), (0, if expected.is_empty() { 0 } else { 2 }));
    assert_eq!(lacks.len(), expected.len(), "{lacks:?}");
    for (line, expected) in lacks.iter().zip(expected) {
        assert!(line.starts_with(expected), "{lacks:?}");
    }
    let page = samples(gateway);
    let shown = page
        .iter()
        .filter(|(name, value)| name.starts_with("graygate_degraded{") && **value > 0.0);
    let mut names: Vec<&str> = expected
        .iter()
        .map(|it| it.split(':').next().unwrap())
        .collect();
    names.dedup();
    assert_eq!(shown.count(), names.len());
    for name in names {
        assert_eq!(
            page[&format!("graygate_degraded{{reason=\"{name}\"}}")],
            1.0
        );
    }
}

/// So few connections that there are descriptors for them wherever tests run.
fn small() -> Setup {
    setup().set("gateway.max_connections", 100)
}

#[test]
fn status_and_health_say_when_a_pool_fails() {
    let [a, b, c] = [(); 3].map(|()| RefusingPeer::new());
    let (well, pre) = (Origin::named("well"), RefusingPeer::new());
    let gateway = small().lists(&["127.0.0.5"], &[&pre], &[&well]).start();
    wait_lacking(&gateway, &[]);
    ask_until_log(&gateway, "127.0.0.5", "peer-out ");
    wait_lacking(&gateway, &["pool-out: pre: 0 of 1 servers are up"]);
    gateway.write_lists(&[], &[], &[&well, &a]);
    gateway.wait_for_lists("other lists", |it| it["generation"] == json!(2));
    wait_out(&gateway, &a);
    // Half of them is no more than half.
    wait_lacking(&gateway, &[]);
    gateway.write_lists(&[], &[], &[&well, &a, &b, &c]);
    gateway.wait_for_lists("other lists", |it| it["generation"] == json!(3));
    for peer in [&b, &c] {
        wait_out(&gateway, peer);
    }
    wait_lacking(&gateway, &["pool-failing: prod: 1 of 4 servers are up"]);
}

#[test]
fn status_and_health_say_when_descriptors_are_short() {
    let well = Origin::named("well");
    let setup = small()
        .lists(&[], &[], &[&well])
        .set("gateway.max_connections", 5000);
    let gateway = setup
        .under(&["sh", "-c", "ulimit -n 400; exec \"$0\" \"$@\""])
        .start();
    let most = gateway.metric("graygate_max_connections");
    let line = format!(
        "descriptors-short: there are descriptors for {most} connections, and max_connections is 5000"
    );
    wait_lacking(&gateway, &[&line]);
}

#[test]
fn status_and_health_say_when_log_lines_were_dropped() {
    let well = Origin::named("well");
    let gateway = small()
        .lists(&[], &[], &[&well])
        .set("log.access", "/dev/full")
        .start();
    wait_lacking(&gateway, &[]);
    gateway.get("127.0.0.1", "/");
    wait_lacking(
        &gateway,
        &["log-dropped: the access log has lost 1 lines since the start, the last one "],
    );
}

#[test]
fn status_and_health_say_when_a_restart_is_pending() {
    let well = Origin::named("well");
    let mut gateway = small().lists(&[], &[], &[&well]).start();
    gateway.edit_ini(|it| it.set("gateway.workers", 2));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded file=");
    wait_lacking(
        &gateway,
        &["restart-pending: only a restart changes gateway.workers"],
    );
    gateway.edit_ini(|it| it.set("gateway.workers", 1));
    gateway.signal(Signal::SIGHUP);
    wait_lacking(&gateway, &[]);
}

#[test]
fn status_and_health_say_that_a_reload_has_failed_until_there_is_a_good_one() {
    let well = Origin::named("well");
    let mut gateway = small().lists(&[], &[], &[&well]).start();
    let good = "graygate_config_last_reload_successful";
    let at = "graygate_config_last_reload_success_timestamp_seconds";
    assert_eq!(gateway.metric(good), 1.0);
    let begun = gateway.metric(at);
    assert!(begun > 1e9, "{begun}");
    gateway.edit_ini(|it| it.set("gateway.max_body", "many"));
    gateway.signal(Signal::SIGHUP);
    let lack = "reload-failed: the settings before it are in force: ";
    wait_lacking(&gateway, &[lack]);
    assert_eq!(gateway.metric(good), 0.0);
    assert_eq!(gateway.metric(at), begun);
    gateway.edit_ini(|it| it.unset("gateway.max_body"));
    gateway.signal(Signal::SIGHUP);
    wait_lacking(&gateway, &[]);
    assert_eq!(gateway.metric(good), 1.0);
    assert!(gateway.metric(at) > begun);
}

#[test]
fn status_and_health_say_when_the_lists_cannot_be_read() {
    let well = Origin::named("well");
    let gateway = small().lists(&[], &[], &[&well]).start();
    gateway.write_lists_text("nonsense\n");
    wait_lacking(&gateway, &["lists-unreadable: "]);
    gateway.write_lists(&[], &[], &[&well]);
    wait_lacking(&gateway, &[]);
}

#[test]
fn status_and_health_say_when_a_name_cannot_be_resolved() {
    let well = Origin::named("well");
    let gateway = small()
        .lists(&[], &[], &[&well, &"nowhere.invalid:81"])
        .start();
    wait_lacking(
        &gateway,
        &["name-unresolved: nowhere.invalid cannot be resolved, for "],
    );
    gateway.write_lists(&[], &[], &[&well]);
    gateway.wait_for_lists("other lists", |it| it["generation"] == json!(2));
    wait_lacking(&gateway, &[]);
}

#[test]
fn a_peer_is_shown_with_its_name_its_weight_and_its_last_check() {
    let origin = Origin::named("well");
    let port = origin.address().port();
    let entry = format!("localhost:{port} weight=3");
    let setup = small()
        .set("health.path", "/is-well")
        .set("health.interval", "1s");
    let gateway = setup.lists(&[], &[], &[&entry]).start();
    let shown = wait_for("a check", || {
        let shown = peer_on(&gateway.peers(), "prod", &origin);
        Some(shown).filter(|it| it["last_check"] != Value::Null)
    });
    assert_eq!(
        (&shown["name"], &shown["weight"]),
        (&json!("localhost"), &json!(3))
    );
    let check = (&shown["last_check"], &shown["last_check_status"]);
    assert_eq!(check, (&json!("ok"), &json!(200)));
    let table = said(&command(&gateway, &["peers"]));
    let expected = format!("{origin} localhost 3 up");
    let lines = table
        .lines()
        .map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
    assert!(
        lines.into_iter().any(|it| it.contains(&expected)),
        "{table}"
    );
}

/// Requests are answers and clients that have gone; attempts are requests for which a peer was asked, and
/// retries.
#[test]
fn the_counters_add_up_whatever_has_happened() {
    let well = Origin::answering(|request| match request.head.target().as_str() {
        "/502" => b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("well"),
    });
    // Every other connection ends without an answer, and so one that was kept may be found closed.
    let flaky = Origin::scripted(|conn| {
        if conn.number % 2 == 1 {
            conn.request()?;
            return Ok(());
        }
        conn.request()?;
        conn.send(ok("flaky"))
    });
    let (refusing, mute) = (RefusingPeer::new(), Origin::mute());
    let setup = small()
        .set("gateway.workers", 2)
        .set("upstream.max_fails", 0);
    let setup = setup.set("upstream.fail_statuses", "502");
    let gateway = setup
        .lists(
            &["127.0.0.5"],
            &[&refusing, &flaky],
            &[&well, &flaky, &refusing],
        )
        .start();
    let (mut sent, mut answers) = (0, 0);
    let mut ask = |source: &str, request: &str| {
        let response = gateway.connect_from(source).ask(request);
        (sent, answers) = (sent + 1, answers + 1);
        response.status()
    };
    for turn in 0..40 {
        for source in ["127.0.0.1", "127.0.0.5"] {
            let body = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
            let request = match turn % 5 {
                0 => "GET /502 HTTP/1.1\r\nHost: a\r\n\r\n",
                1 => body,
                // Refused, in the head and in the body.
                2 if turn % 2 == 0 => "GET / HTTP/1.1\r\n\r\n",
                2 => {
                    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
                }
                _ => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            ask(source, request);
        }
    }
    // Nobody at all, and then somebody who says nothing until the client has gone.
    gateway.write_lists(&["127.0.0.5"], &[], &[&mute]);
    gateway.wait_for_lists("mute", |it| it["generation"] == json!(2));
    let gone = 5;
    for number in 1..=gone {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        mute.wait("the request", |it| it.requests.len() == number);
        client.reset();
    }
    sent += gone;
    let sum = |page: &Samples, family: &str, such: &dyn Fn(&str) -> bool| {
        let of_family = page
            .iter()
            .filter(|(name, _)| name.split('{').next() == Some(family) && such(name));
        of_family.map(|(_, value)| *value).sum::<f64>()
    };
    let all = |_: &str| true;
    let nothing = |name: &str| name.contains("status=\"0xx\"");
    let page = wait_for("all are counted", || {
        let page = samples(&gateway);
        let counted = sum(&page, "graygate_requests_total", &all);
        Some(page).filter(|_| counted == sent as f64)
    });
    assert_eq!(sum(&page, "graygate_requests_total", &nothing), gone as f64);
    assert_eq!(
        sum(&page, "graygate_requests_total", &|it| !nothing(it)),
        answers as f64
    );
    let attempts = sum(&page, "graygate_attempts_total", &all);
    let (first, retries) = (
        page["graygate_requests_attempted_total"],
        sum(&page, "graygate_retries_total", &all),
    );
    assert_eq!(attempts, first + retries, "{first} {retries}");
    // All of it has happened.
    assert!(
        retries > 10.0 && first < sent as f64,
        "{attempts} {first} {retries} {sent}"
    );
    let outcome = |name: &str| {
        let label = format!("outcome=\"{name}\"");
        sum(&page, "graygate_attempts_total", &|it| it.contains(&label))
    };
    for name in ["ok", "connect-refused", "closed-early", "client-gone"] {
        assert!(outcome(name) > 0.0, "{name}");
    }
    let durations = page["graygate_request_duration_seconds_count"];
    assert_eq!(durations, sent as f64);
    assert_eq!(
        sum(&page, "graygate_pool_request_duration_seconds_count", &all),
        durations
    );
}

#[test]
fn who_does_not_serve_is_not_called_degraded_even_by_strict() {
    let gateway = small().lists(&[], &[&"127.0.0.1:9"], &[]).start();
    let (status_of_page, text) = gateway.admin_get("/healthz?full");
    assert_eq!(
        (status_of_page, text.as_str()),
        (503, "no-peers: prod is empty\n")
    );
    let (code, strict, _) = status(&gateway);
    assert_eq!((code, strict), (1, 1));
}

#[test]
fn the_process_is_shown_by_the_names_that_every_program_has() {
    let mute = Origin::mute();
    let begun = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let gateway = small().lists(&[], &[], &[&mute]).start();
    let before = samples(&gateway);
    let open = |page: &Samples| page["process_open_fds"];
    let started = before["process_start_time_seconds"];
    assert!((started - begun).abs() < 5.0, "{started} {begun}");
    assert!(before["process_resident_memory_bytes"] > 1e6);
    assert!(open(&before) > 3.0 && open(&before) < before["process_max_fds"]);
    let fds = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .unwrap()
        .count();
    assert!(
        (open(&before) - fds as f64).abs() <= 4.0,
        "{} {fds}",
        open(&before)
    );
    let mut clients: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    mute.wait("the requests", |it| it.requests.len() == 20);
    let after = samples(&gateway);
    assert!(
        open(&after) >= open(&before) + 40.0,
        "{} {}",
        open(&before),
        open(&after)
    );
    assert!(after["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]);
    // Who looks for restarts takes every other value for one.
    assert_eq!(
        after["process_start_time_seconds"].to_bits(),
        started.to_bits()
    );
}

/// CPU time that the gateway has used, in seconds.
fn cpu(gateway: &Gateway) -> f64 {
    samples(gateway)["process_cpu_seconds_total"]
}

#[test]
fn a_thousand_peers_cost_the_control_plane_next_to_nothing() {
    let peers: Vec<String> = (0..1000)
        .map(|it| format!("127.1.{}.{}:9", it / 250, it % 250 + 1))
        .collect();
    let lists = format!("[gray]\n[pre]\n[prod]\n{}\n", peers.join("\n"));
    let gateway = small().file("lists", &lists).start();
    // The bounds are a hundredfold of what it takes with optimization, and ten times what it takes without.
    let (before, start) = (cpu(&gateway), Instant::now());
    wait_until("three seconds", DEADLINE, || {
        start.elapsed() > Duration::from_secs(3)
    });
    let a_second = (cpu(&gateway) - before) / start.elapsed().as_secs_f64();
    assert!(a_second < 0.05, "{a_second} s of CPU a second");
    let before = cpu(&gateway);
    for _ in 0..5 {
        gateway.peers();
    }
    let a_page = (cpu(&gateway) - before) / 5.0;
    assert!(a_page < 0.5, "{a_page} s of CPU a page");
}
