//! Peers that are looked after by health checks (`[health]`), and those whose statuses count as failures.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    DEADLINE, DeafPeer, Gateway, Origin, RefusingPeer, Resolver, Setup, free_address, ok,
    wait_until,
};

/// Settings with checks at a quick pace, that put a peer out at once, and bring it back with its whole share.
fn setup() -> Setup {
    Setup::new()
        .set("health.path", "/healthz")
        .set("health.interval", "100ms")
        .set("health.timeout", "5s")
        .set("health.rise", 1)
        .set("health.fall", 1)
        .set("upstream.slow_start", "off")
}

/// A peer whose checks are answered with a status that the test may change, and all else with its name.
struct Peer {
    status: Arc<AtomicU16>,
    origin: Origin,
}

impl Peer {
    fn new(name: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let own = Arc::clone(&status);
        let origin = Origin::answering(move |request| match request.head.target().as_str() {
            "/healthz" => empty(own.load(Ordering::SeqCst)),
            _ => ok(name),
        });
        Self { status, origin }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// How many requests for `target` there were.
    fn asked(&self, target: &str) -> usize {
        asked(&self.origin, target)
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.origin.fmt(f)
    }
}

fn asked(origin: &Origin, target: &str) -> usize {
    let of_target = |seen: &support::Seen| {
        let heads = seen.heads.iter();
        heads.filter(|it| it.target() == target).count()
    };
    origin.seen(of_target)
}

fn empty(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Waits until `count` more checks have come.
#[track_caller]
fn wait_checked(origin: &Origin, count: usize) {
    let before = asked(origin, "/healthz");
    wait_until(&format!("{count} checks"), DEADLINE, || {
        asked(origin, "/healthz") >= before + count
    });
}

/// Which names `count` requests are answered with, and how often.
fn answers(gateway: &Gateway, count: usize) -> HashMap<String, usize> {
    let mut answers = HashMap::new();
    for _ in 0..count {
        *answers
            .entry(gateway.get("127.0.0.1", "/").text())
            .or_default() += 1;
    }
    answers
}

fn checks(pool: &str, outcome: &str) -> String {
    format!("graygate_health_checks_total{{pool=\"{pool}\",outcome=\"{outcome}\"}}")
}

fn reload(gateway: &mut Gateway, edit: impl FnOnce(Setup) -> Setup) {
    let before = gateway.metric("graygate_reloads_total{outcome=\"ok\"}");
    gateway.edit_ini(edit);
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_metric("graygate_reloads_total{outcome=\"ok\"}", before + 1.0);
}

#[test]
fn nobody_is_checked_unless_a_path_is_set() {
    let peer = Peer::new("prod");
    let gateway = setup()
        .unset("health.path")
        .set("health.check_before_use", "on")
        .lists(&[], &[&peer], &[&peer])
        .start();
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    // Five intervals, in which nothing may come.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(peer.origin.accepted(), 1);
    for outcome in ["ok", "status", "timeout", "refused", "closed", "not-made"] {
        for pool in ["pre", "prod"] {
            let shown = gateway.shown_metric(&checks(pool, outcome));
            assert_eq!(shown, Some(0.0), "{outcome}");
        }
    }
}

#[test]
fn so_many_failed_checks_in_a_row_put_a_peer_out_and_so_many_good_ones_bring_it_back() {
    // Each check waits for its status.
    let (say, said) = crossbeam_channel::unbounded::<u16>();
    let sick = Origin::answering(move |request| match request.head.target().as_str() {
        "/healthz" => said.recv().map_or_else(|_| empty(500), empty),
        _ => ok("sick"),
    });
    let well = Peer::new("well");
    let gateway = setup()
        .set("health.rise", 2)
        .set("health.fall", 3)
        .lists(&[], &[], &[&sick, &well])
        .start();
    let mut count = 0;
    // Says these, and waits for the check after them: then they have been taken down.
    let mut is_checked = |statuses: &[u16]| {
        count += statuses.len();
        statuses.iter().for_each(|it| say.send(*it).unwrap());
        sick.wait("the next check", |it| {
            let checks = it.heads.iter().filter(|it| it.target() == "/healthz");
            checks.count() > count
        });
    };
    is_checked(&[200, 503, 503, 200, 503, 404]);
    assert_eq!(gateway.stderr.count("peer-out"), 0, "never three in a row");
    assert!(answers(&gateway, 40).contains_key("sick"));
    is_checked(&[503]);
    gateway.wait_for_log(&format!(
        "peer-out pool=prod peer={sick} why=check-failed cause=status status=503"
    ));
    assert_eq!(answers(&gateway, 40), [("well".to_owned(), 40)].into());
    let (_, page) = gateway.admin_get("/peers");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let peers = page["pools"][1]["peers"].as_array().unwrap();
    let shown = |peer: &dyn Display, key: &str| {
        let peer = peers.iter().find(|it| it["address"] == peer.to_string());
        peer.unwrap()[key].clone()
    };
    assert_eq!(shown(&sick, "reason"), "check-failed");
    assert_eq!(shown(&sick, "last_check"), "status");
    assert_eq!(shown(&sick, "last_check_status"), 503);
    assert_eq!(shown(&well, "last_check"), "ok");
    assert!(shown(&well, "last_check_age_seconds").as_f64().unwrap() < 10.0);
    is_checked(&[503, 200, 503, 200]);
    assert_eq!(gateway.stderr.count("peer-back"), 0, "never two in a row");
    assert_eq!(answers(&gateway, 20), [("well".to_owned(), 20)].into());
    is_checked(&[399]);
    gateway.wait_for_log(&format!(
        "peer-back pool=prod peer={sick} why=check-succeeded after="
    ));
    assert!(answers(&gateway, 40).contains_key("sick"));
    let [ups, downs] = ["ok", "status"].map(|it| gateway.metric(&checks("prod", it)));
    assert_eq!(downs, 7.0);
    assert!(ups > 5.0, "of the other peer, too: {ups}");
    for event in ["peer-out", "peer-back"] {
        assert_eq!(gateway.stderr.count(event), 1);
    }
}

#[test]
fn a_check_asks_what_the_settings_say_on_a_connection_of_its_own() {
    let [plain, named] = ["plain", "named"].map(Origin::named);
    // Nobody must go by a proxy.
    let nobody = RefusingPeer::new();
    let mut setup = setup()
        .set("health.path", "/live?full=1")
        .set("health pre.host", "app.example:81");
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        setup = setup.environment(name, format!("http://{nobody}"));
    }
    let _gateway = setup.lists(&[], &[&named], &[&plain]).start();
    for (origin, host) in [
        (&plain, plain.to_string()),
        (&named, "app.example:81".to_owned()),
    ] {
        origin.wait("two checks", |it| it.requests.len() >= 2);
        let requests = origin.requests();
        let head = &requests[0].head;
        assert_eq!(head.start_line(), "GET /live?full=1 HTTP/1.1");
        assert_eq!(head.all("host"), [host]);
        let version = env!("CARGO_PKG_VERSION");
        let agent = format!("graygate/{version} (health check)");
        assert_eq!(head.all("user-agent"), [agent]);
        assert_eq!(head.all("connection"), ["close"]);
        assert!(requests[0].content.is_empty());
        assert_ne!(requests[0].connection, requests[1].connection);
    }
}

#[test]
fn the_statuses_that_are_expected_are_those_of_the_settings_and_no_redirect_is_followed() {
    let moved =
        Origin::saying("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    let well = Peer::new("well");
    let gateway = setup()
        .set("health.expect", "201-299, 302")
        .lists(&[], &[], &[&moved, &well])
        .start();
    gateway.wait_for_log(&format!(
        "peer-out pool=prod peer={well} why=check-failed cause=status status=200"
    ));
    wait_checked(&moved, 2);
    assert_eq!(asked(&moved, "/elsewhere"), 0);
    assert_eq!(gateway.stderr.count("peer-out"), 1);
}

#[test]
fn the_cause_of_a_failed_check_is_named() {
    let timed = |bytes: &'static str| {
        Origin::scripted(move |conn| {
            conn.request()?;
            // Each byte is in time, and all of them are not.
            for byte in bytes.bytes() {
                conn.send([byte])?;
                std::thread::sleep(Duration::from_millis(50));
            }
            conn.wait_gone()
        })
    };
    let slow_head = timed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: it goes on and on\r\n\r\n");
    let slow_body = timed("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nit goes on and on and on");
    let closed = Origin::scripted(|conn| conn.request().map(drop));
    let reset = Origin::scripted(|conn| {
        conn.head()?;
        conn.reset_at_end();
        Ok(())
    });
    let cut = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")
    });
    let (mute, deaf, refusing) = (Origin::mute(), DeafPeer::new(), RefusingPeer::new());
    let foreign = Origin::saying("220 mail.example ESMTP\r\n\r\n");
    let field = format!("X: {}\r\n", "x".repeat(1000));
    let large = Origin::saying(format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(17)));
    let table: [(&dyn Display, &str); 11] = [
        // Nobody is at this port.
        (&"[::1]:1", "refused"),
        (&slow_head, "timeout"),
        (&slow_body, "timeout"),
        (&mute, "timeout"),
        (&deaf, "timeout"),
        (&refusing, "refused"),
        (&closed, "closed"),
        (&reset, "closed"),
        (&cut, "closed"),
        (&foreign, "malformed"),
        (&large, "malformed"),
    ];
    let peers = table.map(|(peer, _)| peer);
    let gateway = setup()
        .set("health.timeout", "500ms")
        .lists(&[], &[], &peers)
        .start();
    for (peer, cause) in table {
        gateway.wait_for_log(&format!(
            "peer-out pool=prod peer={peer} why=check-failed cause={cause}"
        ));
        assert!(gateway.metric(&checks("prod", cause)) > 0.0);
    }
}

#[test]
fn a_response_of_any_form_is_understood() {
    let closing = |bytes: &'static str| {
        Origin::scripted(move |conn| {
            conn.request()?;
            conn.send(bytes)
        })
    };
    let forms = [
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and what nobody has asked for",
    ];
    let origins = forms.map(closing);
    let all: Vec<&dyn Display> = origins.iter().map(|it| it as &dyn Display).collect();
    let gateway = setup().lists(&[], &[], &all).start();
    for origin in &origins {
        wait_checked(origin, 3);
    }
    assert_eq!(gateway.stderr.count("peer-out"), 0);
    let ok = gateway.metric(&checks("prod", "ok"));
    assert!(ok >= 12.0, "{ok}");
}

#[test]
fn of_a_body_only_so_much_is_read() {
    // Without an end; what is not taken any more fills the connection.
    let endless = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat();
        loop {
            conn.send(&chunk)?;
        }
    });
    let gateway = setup().lists(&[], &[], &[&endless]).start();
    wait_checked(&endless, 3);
    assert!(gateway.metric(&checks("prod", "ok")) >= 2.0);
    assert_eq!(gateway.stderr.count("peer-out"), 0);
}

#[test]
fn a_gateway_that_is_short_of_descriptors_blames_no_peer() {
    let peer = Peer::new("prod");
    let gateway = setup().lists(&[], &[], &[&peer]).start();
    let limit = gateway.descriptor_limit();
    wait_checked(&peer.origin, 2);
    // A check that is under way at this moment gives its own back.
    wait_until("none is left", DEADLINE, || {
        gateway.leave_descriptors(0);
        gateway.stderr.count("check-not-made pool=prod") >= 3
    });
    gateway.limit_descriptors(limit);
    wait_checked(&peer.origin, 2);
    assert_eq!(gateway.stderr.count("peer-out"), 0);
    assert!(gateway.metric(&checks("prod", "not-made")) >= 3.0);
}

/// Many peers at one port, of which those at 127.9.0.0/16 never answer.
struct Crowd {
    port: u16,
    checks: Arc<Mutex<HashMap<SocketAddr, Vec<Instant>>>>,
}

impl Crowd {
    fn new() -> Self {
        let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let checks = Arc::<Mutex<HashMap<_, Vec<_>>>>::default();
        let own = Arc::clone(&checks);
        std::thread::spawn(move || {
            let mut hung = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.local_addr().unwrap();
                own.lock()
                    .unwrap()
                    .entry(peer)
                    .or_default()
                    .push(Instant::now());
                if peer.to_string().starts_with("127.9.") {
                    hung.push(stream);
                    continue;
                }
                stream
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(&empty(200));
            }
        });
        Self { port, checks }
    }

    fn peers(&self, second: u8, count: u8) -> Vec<SocketAddr> {
        let address = |it: u8| (Ipv4Addr::new(127, second, 0, it), self.port).into();
        (1..=count).map(address).collect()
    }

    fn checks(&self, peer: &SocketAddr) -> Vec<Instant> {
        let checks = self.checks.lock().unwrap();
        checks.get(peer).cloned().unwrap_or_default()
    }
}

#[test]
fn many_hung_peers_do_not_hold_up_the_checks_of_others() {
    let crowd = Crowd::new();
    let (well, hung) = (crowd.peers(8, 100), crowd.peers(9, 60));
    let shown = |peers: &[SocketAddr]| peers.iter().map(|it| it.to_string()).collect::<Vec<_>>();
    let (good, bad) = (shown(&well), shown(&hung));
    let pre: Vec<&dyn Display> = bad.iter().map(|it| it as &dyn Display).collect();
    let prod: Vec<&dyn Display> = good.iter().map(|it| it as &dyn Display).collect();
    // A hung peer takes a thread for two of the intervals of the others: three times as many as there are.
    let gateway = setup()
        .set("health.interval", "500ms")
        .set("health.timeout", "1s")
        .lists(&[], &pre, &prod)
        .start();
    for peer in &hung {
        gateway.wait_for_log(&format!(
            "peer-out pool=pre peer={peer} why=check-failed cause=timeout"
        ));
    }
    let all_known = Instant::now();
    let later = |peer: &SocketAddr| {
        let checks = crowd.checks(peer).into_iter();
        checks.filter(|it| *it > all_known).collect::<Vec<_>>()
    };
    wait_until("ten checks of each good peer", DEADLINE, || {
        well.iter().all(|it| later(it).len() >= 10)
    });
    // As fast as the hung ones alone would let them be, these had been checked four times.
    assert!(all_known.elapsed() < Duration::from_secs(9));
    // And those come in turn, too.
    wait_until("three checks of each hung peer", DEADLINE, || {
        hung.iter().all(|it| crowd.checks(it).len() >= 3)
    });
}

/// `cargo test --test peers_checked -- --ignored --nocapture thousand` prints what they cost.
#[test]
#[ignore = "it takes a minute and a half, and a machine that does nothing else"]
fn a_thousand_peers_of_which_one_in_twenty_hangs_keep_their_interval_and_cost_next_to_nothing() {
    const INTERVAL: f64 = 5.0;
    for (path, hung) in [("", 0), ("/healthz", 0), ("/healthz", 50)] {
        let crowd = Crowd::new();
        let well: Vec<SocketAddr> = (100..104).flat_map(|it| crowd.peers(it, 250)).collect();
        let well = &well[hung..];
        let hung = crowd.peers(9, u8::try_from(hung).unwrap());
        let all: Vec<&dyn Display> = well.iter().chain(&hung).map(|it| it as _).collect();
        let gateway = setup()
            .set("health.path", path)
            .set("health.interval", format!("{INTERVAL}s"))
            .set("health.timeout", "1s")
            .lists(&[], &[], &all)
            .start();
        // The threads that the first checks took, all at once, are let go after a minute.
        std::thread::sleep(Duration::from_secs(10));
        let (begun, before) = (Instant::now(), gateway.cpu_ticks());
        std::thread::sleep(Duration::from_secs(20));
        let passed = begun.elapsed().as_secs_f64();
        let cpu = (gateway.cpu_ticks() - before) as f64 * 10.0 / passed;
        let counted = |peer: &SocketAddr| {
            let checks = crowd.checks(peer).into_iter();
            checks.filter(|it| *it > begun).count()
        };
        let (least, most) = (
            well.iter().map(counted).min(),
            well.iter().map(counted).max(),
        );
        let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        let (hung, threads) = (hung.len(), tasks.count());
        println!(
            "path={path:?} hung={hung}: {cpu:.1} ms of CPU a second, {threads} threads; \
             of those that answer each was checked {least:?} to {most:?} times in {passed:.0} s"
        );
        if !path.is_empty() {
            let wanted = passed / INTERVAL;
            assert!(least.unwrap() as f64 >= (wanted * 0.8).floor());
        }
    }
}

#[test]
fn a_peer_is_checked_by_one_check_at_a_time() {
    let mute = Origin::mute();
    let gateway = setup()
        .set("health.timeout", "1s")
        .set("health pre.path", "/other")
        .lists(&[], &[&mute], &[&mute])
        .start();
    let (mut two, mut count) = (Instant::now(), 0);
    wait_until("six checks, one after the other", DEADLINE, || {
        let open = mute.seen(|it| it.accepted - it.closed);
        if open < 2 {
            two = Instant::now();
        }
        // The end of one is known here a little later than that it is over.
        let overlap = two.elapsed();
        assert!(overlap < Duration::from_millis(500), "{open} at once");
        count = mute.seen(|it| it.closed);
        count >= 6
    });
    assert!(asked(&mute, "/other") > 1 && asked(&mute, "/healthz") > 1);
    assert!(gateway.metric(&checks("pre", "timeout")) > 1.0);
}

#[test]
fn a_new_peer_that_is_checked_first_gets_nothing_before_its_first_success() {
    let (say, said) = crossbeam_channel::unbounded::<u16>();
    let new = Origin::answering(move |request| match request.head.target().as_str() {
        "/healthz" => said.recv().map_or_else(|_| empty(500), empty),
        _ => ok("new"),
    });
    let old = Peer::new("old");
    let gateway = setup()
        .set("health.check_before_use", "on")
        .set("health.rise", 3)
        .lists(&[], &[], &[&old])
        .start();
    assert_eq!(answers(&gateway, 1), [("old".to_owned(), 1)].into());
    gateway.write_lists(&[], &[], &[&old, &new]);
    // At once, not after an interval of its own.
    new.wait("its first check", |it| it.heads.len() == 1);
    assert_eq!(answers(&gateway, 40), [("old".to_owned(), 40)].into());
    // Nor is it a last resort, nor the least bad, once its checks have failed.
    say.send(503).unwrap();
    gateway.wait_for_log(&format!(
        "peer-unchecked pool=prod peer={new} why=check-failed cause=status status=503"
    ));
    assert_eq!(answers(&gateway, 40), [("old".to_owned(), 40)].into());
    old.answer(503);
    gateway.wait_for_log(&format!("peer-out pool=prod peer={old}"));
    assert_eq!(answers(&gateway, 40), [("old".to_owned(), 40)].into());
    say.send(200).unwrap();
    gateway.wait_for_log(&format!("peer-back pool=prod peer={new}"));
    assert_eq!(answers(&gateway, 40), [("new".to_owned(), 40)].into());
}

/// Where all are new, and nobody else can answer, a request waits for their first checks.
#[test]
fn all_of_prod_is_replaced_by_peers_that_are_checked_first_and_no_request_fails() {
    let (say, said) = crossbeam_channel::unbounded::<u16>();
    let new = Origin::answering(move |request| match request.head.target().as_str() {
        "/healthz" => said.recv().map_or_else(|_| empty(500), empty),
        _ => ok("new"),
    });
    let (old, bad) = (Peer::new("old"), Peer::new("bad"));
    bad.answer(503);
    let gateway = setup()
        .set("health.check_before_use", "on")
        .set("upstream.connect_timeout", "20s")
        .set("lists.guard_share", 100)
        .lists(&[], &[], &[&old])
        .start();
    gateway.write_lists(&[], &[], &[&new, &bad]);
    new.wait("its first check", |it| it.heads.len() == 1);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gateway.wait_for_log(&format!("peer-unchecked pool=prod peer={bad}"));
    assert_eq!(client.glance(Duration::from_millis(50)), None);
    say.send(200).unwrap();
    assert_eq!(client.response().text(), "new");
    // Once a check has failed there is nothing to wait for.
    gateway.write_lists(&[], &[], &[&bad]);
    gateway.wait_for_log("lists-published generation=3");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
}

#[test]
fn an_address_that_a_name_has_got_is_checked_first() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let port = free_address().port();
    let at = || SocketAddr::new(free_address().ip(), port);
    let (old, new) = (Origin::named_at(at(), "old"), at());
    let (say, said) = crossbeam_channel::unbounded::<u16>();
    let new = Origin::scripted_at(new, move |conn| {
        while let Some(request) = conn.request()? {
            conn.send(match request.head.target().as_str() {
                "/healthz" => said.recv().map_or_else(|_| empty(500), empty),
                _ => ok("new"),
            })?;
        }
        Ok(())
    });
    resolver.set("app.internal", &[old.address().ip()]);
    let setup = resolver
        .under(setup())
        .set("upstream.resolve_interval", "100ms");
    let gateway = setup
        .set("health.check_before_use", "on")
        .lists(&[], &[], &[&format!("app.internal:{port}")])
        .start();
    gateway.wait_served("127.0.0.1", "old", DEADLINE);
    let both = [&old, &new].map(|it| it.address().ip());
    resolver.set("app.internal", &both);
    new.wait("its first check", |it| it.heads.len() == 1);
    assert_eq!(answers(&gateway, 40), [("old".to_owned(), 40)].into());
    say.send(200).unwrap();
    wait_until("it is used", DEADLINE, || {
        answers(&gateway, 10).contains_key("new")
    });
}

#[test]
fn a_start_with_peers_that_are_checked_first_waits_for_their_checks_and_not_for_ever() {
    let peer = Peer::new("prod");
    let gateway = setup()
        .set("health.check_before_use", "on")
        .lists(&[], &[], &[&peer])
        .start();
    assert_eq!(answers(&gateway, 10), [("prod".to_owned(), 10)].into());
    assert_eq!(gateway.stderr.count("peer-back"), 0, "it was never away");

    let mute = Origin::mute();
    let gateway = setup()
        .set("health.check_before_use", "on")
        .set("health.timeout", "300ms")
        .lists(&["127.0.0.5"], &[&mute], &[&mute])
        .start();
    for client in ["127.0.0.1", "127.0.0.5"] {
        let response = gateway.get(client, "/");
        assert_eq!(response.status(), 503);
        assert!(response.text().contains("none-usable"), "{response:?}");
    }
    gateway.wait_for_access("status=503 error=none-usable attempts=0");
    assert_eq!(asked(&mute, "/"), 0);
    let reason = "none-usable: no server of prod has passed its first health check\n";
    assert_eq!(gateway.admin_get("/healthz"), (503, reason.to_owned()));
}

#[test]
fn gray_clients_are_served_by_prod_while_all_of_pre_waits_for_its_first_check() {
    let (pre, prod) = (Origin::mute(), Peer::new("prod"));
    let gateway = setup()
        .set("health.timeout", "300ms")
        .set("health pre.check_before_use", "on")
        .lists(&["127.0.0.5"], &[&pre], &[&prod])
        .start();
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "prod");
    gateway.wait_for_access("pool=prod reason=pre-out status=200");
}

#[test]
fn a_reload_switches_checks_on_and_off_and_changes_them() {
    let (sick, well) = (Peer::new("sick"), Peer::new("well"));
    sick.answer(503);
    let mut gateway = setup()
        .unset("health.path")
        .lists(&[], &[], &[&sick, &well])
        .start();
    assert!(answers(&gateway, 40).contains_key("sick"));

    reload(&mut gateway, |it| it.set("health.path", "/healthz"));
    let out = format!("peer-out pool=prod peer={sick} why=check-failed");
    gateway.wait_for_log(&out);
    assert_eq!(answers(&gateway, 40), [("well".to_owned(), 40)].into());

    // Other statuses are well.
    reload(&mut gateway, |it| it.set("health.expect", "200,503"));
    wait_until("it is back", DEADLINE, || {
        gateway.stderr.count("peer-back") == 1
    });
    reload(&mut gateway, |it| it.set("health.expect", "200"));
    wait_until("it is out again", DEADLINE, || {
        gateway.stderr.count(&out) == 2
    });

    // Whoever is out by its checks is back without them.
    reload(&mut gateway, |it| it.set("health.path", ""));
    wait_until("it is back again", DEADLINE, || {
        gateway
            .stderr
            .count(&format!("peer-back pool=prod peer={sick}"))
            == 2
    });
    assert!(answers(&gateway, 40).contains_key("sick"));
    let count = sick.asked("/healthz");
    std::thread::sleep(Duration::from_millis(400));
    assert!(sick.asked("/healthz") <= count + 1, "one was under way");
}

#[test]
fn nobody_stays_unchecked_when_a_reload_no_longer_asks_for_that() {
    for (key, value) in [("health.check_before_use", "off"), ("health.path", "")] {
        let mute = Origin::answering(|request| match request.head.target().as_str() {
            "/healthz" => empty(503),
            _ => ok("new"),
        });
        let mut gateway = setup()
            .set("health.check_before_use", "on")
            .set("health.fall", 1000)
            .lists(&[], &[], &[&mute])
            .start();
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
        reload(&mut gateway, |it| it.set(key, value));
        gateway.wait_served("127.0.0.1", "new", DEADLINE);
    }
}

#[test]
fn a_peer_that_has_gone_is_checked_no_more_and_is_new_when_it_comes_again() {
    let (say, said) = crossbeam_channel::unbounded::<u16>();
    let peer = Origin::answering(move |request| match request.head.target().as_str() {
        "/healthz" => said.recv().map_or_else(|_| empty(500), empty),
        _ => ok("gone"),
    });
    let other = Peer::new("other");
    say.send(200).unwrap();
    let gateway = setup()
        .set("health.check_before_use", "on")
        .lists(&[], &[], &[&peer, &other])
        .start();
    // One that is under way ends, and says nothing any more.
    peer.wait("a check after the first", |it| it.heads.len() == 2);
    gateway.write_lists(&[], &[], &[&other]);
    gateway.wait_for_log("lists-published generation=2");
    say.send(503).unwrap();
    wait_checked(&other.origin, 10);
    assert_eq!(gateway.stderr.count("peer-out"), 0);
    let checks_of_it = asked(&peer, "/healthz");
    assert_eq!(checks_of_it, 2);
    // Two seconds after that nobody knows of it any more.
    wait_checked(&other.origin, 20);
    gateway.write_lists(&[], &[], &[&peer, &other]);
    peer.wait("its first check", |it| it.heads.len() == 3);
    assert_eq!(answers(&gateway, 40), [("other".to_owned(), 40)].into());
    say.send(200).unwrap();
    wait_until("it is used", DEADLINE, || {
        answers(&gateway, 10).contains_key("gone")
    });
}

#[test]
fn each_pool_is_checked_in_its_own_way_and_a_peer_of_both_must_be_well_by_both() {
    let both = Origin::answering(|request| match request.head.target().as_str() {
        "/pre" => empty(503),
        "/prod" => empty(200),
        _ => ok("both"),
    });
    let (only_pre, only_prod) = (Origin::named("pre"), Origin::named("prod"));
    let gateway = setup()
        .unset("health.path")
        .set("health pre.path", "/pre")
        .set("health prod.path", "/prod")
        .lists(&[], &[&both, &only_pre], &[&both, &only_prod])
        .start();
    gateway.wait_for_log(&format!(
        "peer-out pool=pre peer={both} why=check-failed cause=status status=503"
    ));
    both.wait("more checks of both", |it| it.heads.len() >= 10);
    assert_eq!(gateway.stderr.count("peer-back"), 0, "it stays out");
    assert_eq!(answers(&gateway, 40), [("prod".to_owned(), 40)].into());
    assert_eq!(
        (asked(&only_pre, "/prod"), asked(&only_prod, "/pre")),
        (0, 0)
    );
    assert!(asked(&only_pre, "/pre") > 0 && asked(&only_prod, "/prod") > 0);
}

#[test]
fn a_peer_of_both_pools_is_checked_once_where_they_check_in_the_same_way() {
    let (both, other) = (Peer::new("both"), Peer::new("other"));
    let gateway = setup().lists(&[], &[&both], &[&both, &other]).start();
    wait_checked(&other.origin, 20);
    let (of_both, of_other) = (both.asked("/healthz"), other.asked("/healthz"));
    assert!(of_both.abs_diff(of_other) < 10, "{of_both} {of_other}");
    assert!(gateway.metric(&checks("pre", "ok")) > 0.0);
}

#[test]
fn failed_checks_of_all_leave_as_many_as_max_out_says() {
    let peers = ["a", "b", "c", "d"].map(Peer::new);
    peers.iter().for_each(|it| it.answer(500));
    let all: Vec<&dyn Display> = peers.iter().map(|it| it as &dyn Display).collect();
    let gateway = setup().lists(&[], &[], &all).start();
    for peer in &peers {
        gateway.wait_for_log(&format!("peer-out pool=prod peer={peer}"));
    }
    let answers = answers(&gateway, 60);
    assert_eq!(answers.values().sum::<usize>(), 60);
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[test]
fn statuses_that_count_as_failures_put_a_peer_out_and_are_passed_on() {
    for (statuses, goes_out) in [("", false), ("500", false), ("502,503", true)] {
        let sick = Origin::saying(empty(503));
        let well = Origin::named("well");
        let gateway = Setup::new()
            .set("upstream.fail_statuses", statuses)
            .set("upstream.max_fails", 2)
            .set("upstream.fail_timeout", "1h")
            .lists(&[], &[], &[&sick, &well])
            .start();
        let mut refused = 0;
        for _ in 0..60 {
            let response = gateway.get("127.0.0.1", "/");
            match response.status() {
                503 => refused += 1,
                status => assert_eq!((status, response.text().as_str()), (200, "well")),
            }
        }
        match goes_out {
            true => {
                gateway.wait_for_log(&format!("peer-out pool=prod peer={sick} why=fail-status"));
                assert_eq!(refused, 2);
            }
            false => {
                assert!(refused > 2, "{refused}");
                assert_eq!(gateway.stderr.count("peer-out"), 0);
            }
        }
        assert_eq!(sick.requests().len(), refused);
    }
}
