//! Signals: an end that loses nothing, settings and log files that change while requests flow.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    Client, DEADLINE, Gateway, Origin, RefusingPeer, Setup, listening_ports, ok, pipe_at, wait_for,
    wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin that answers at once, but what is asked for under `/late` only once it is released.
fn origin() -> Origin {
    Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/late" {
                conn.wait_for_release()?;
            }
            conn.send(ok("fine"))?;
        }
        Ok(())
    })
}

/// Waits until the gateway drains, which it does a moment after it has said so in the log.
#[track_caller]
fn wait_draining(gateway: &Gateway) {
    wait_until("it drains", DEADLINE, || {
        gateway.admin_get("/healthz").0 == 503
    });
}

#[test]
fn a_signal_to_end_lets_requests_end_and_closes_what_is_idle() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let origin = origin();
        let setup = Setup::new().set("gateway.drain_timeout", "1h");
        let setup = setup.set("gateway.pid_file", "pid");
        let mut gateway = setup.lists(&[], &[], &[&origin]).start();
        let mut idle: Vec<Client> = (0..5).map(|_| gateway.connect()).collect();
        for client in &mut idle[..3] {
            assert_eq!(client.get("/").status(), 200);
        }
        let mut waiting = gateway.connect();
        waiting.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut uploading = gateway.connect();
        uploading.send("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
        origin.wait("both requests", |it| it.heads.len() == 5);
        let open = || -> f64 {
            let open = |worker| format!("graygate_connections_active{{worker=\"{worker}\"}}");
            gateway.metric(&open(0)) + gateway.metric(&open(1))
        };
        wait_until("all connections are open", DEADLINE, || open() == 7.0);

        gateway.signal(signal);
        wait_draining(&gateway);
        for client in &mut idle {
            client.expect_close();
        }
        wait_until("connections are refused", DEADLINE, || {
            Client::try_from("127.0.0.1", gateway.addr()).is_err()
        });
        assert!(gateway.is_running());
        uploading.send("def");
        origin.release();
        for client in [&mut waiting, &mut uploading] {
            let response = client.response();
            assert_eq!(response.text(), "fine");
            assert_eq!(response.field("connection").as_deref(), Some("close"));
            client.expect_close();
        }
        assert_eq!(gateway.wait_exit().code(), Some(0), "{signal}");
        assert_eq!(origin.last().content, b"abcdef");
        assert!(!gateway.path("pid").exists());
        let lines = gateway.access_lines();
        let mut closes: Vec<&str> = lines.iter().map(|it| it.get("close")).collect();
        // Each worker hands over its own lines.
        closes.sort_unstable();
        assert_eq!(closes, ["-", "-", "-", "draining", "draining"]);
        gateway.wait_for_log(" INFO stopped");
    }
}

/// For a gateway that would wait for ever for what is not idle.
fn patient(origin: &Origin) -> Gateway {
    Setup::serving(origin)
        .set("gateway.workers", "1")
        .set("gateway.head_timeout", "1h")
        .set("gateway.keepalive_timeout", "1h")
        .set("gateway.drain_timeout", "1h")
        .start()
}

#[test]
fn an_empty_line_alone_does_not_keep_a_connection_from_being_idle() {
    let origin = origin();
    let mut gateway = patient(&origin);
    let mut other = gateway.connect();
    let mut idle = Vec::new();
    for begin in [
        "",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
    ] {
        for pieces in [&["\r"][..], &["\r\n"], &["\r", "\n"], &["", "\r\n"]] {
            let mut client = gateway.connect();
            client.send(format!("{begin}{}", pieces[0]));
            if !begin.is_empty() {
                assert_eq!(client.response().status(), 200);
            }
            for piece in &pieces[1..] {
                // What was sent before is taken when this is answered, on the only worker.
                assert_eq!(other.get("/").status(), 200);
                client.send(piece);
            }
            idle.push(client);
        }
    }
    assert_eq!(other.get("/").status(), 200);
    gateway.signal(Signal::SIGTERM);
    for client in &mut idle {
        client.expect_close();
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
    for line in gateway.access_lines() {
        assert!(line.has("status=200 error=- close=-"), "{}", line.raw);
    }
}

#[test]
fn a_connection_whose_body_came_beside_its_answer_is_idle_after_it() {
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
            conn.body(head)?;
            conn.send("taken")?;
        }
        Ok(())
    });
    let mut gateway = patient(&origin);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.send("body");
    assert_eq!(client.exactly(5), b"taken");
    gateway.wait_for_access("status=200 close=-");
    gateway.signal(Signal::SIGTERM);
    client.expect_close();
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

/// True while the process is stopped, all of its threads.
fn is_stopped(gateway: &Gateway) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let states = tasks.map(|it| std::fs::read_to_string(it.unwrap().path().join("stat")).unwrap());
    let mut states = states.map(|it| it.rsplit_once(") ").unwrap().1.starts_with('T'));
    states.all(|it| it)
}

#[track_caller]
fn stop(gateway: &Gateway) {
    gateway.signal(Signal::SIGSTOP);
    wait_until("it is stopped", DEADLINE, || is_stopped(gateway));
}

#[test]
fn requests_that_came_before_the_signal_to_end_are_served() {
    let origin = origin();
    let mut gateway = Gateway::serving(&origin);
    let mut clients: Vec<Client> = (0..50).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    // All that follows is there at once when it goes on.
    stop(&gateway);
    for client in &mut clients {
        client.send(GET);
    }
    gateway.signal(Signal::SIGTERM);
    gateway.signal(Signal::SIGCONT);
    for (at, client) in clients.iter_mut().enumerate() {
        let response = client.try_response_to("GET");
        let response = response.unwrap_or_else(|error| panic!("client {at}: {error}"));
        assert_eq!(response.text(), "fine");
    }
    assert!(gateway.wait_exit().success());
    assert_eq!(gateway.access_lines().len(), 100);
}

#[test]
fn a_request_behind_a_response_that_did_not_announce_the_end_is_served() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")?;
        conn.wait_for_release()?;
        conn.send("def")?;
        conn.request()?;
        conn.send(ok("fine"))
    });
    let mut gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.head().field("connection"), None);
    assert_eq!(client.exactly(3), b"abc");
    gateway.signal(Signal::SIGTERM);
    wait_draining(&gateway);
    client.send(GET);
    origin.release();
    assert_eq!(client.exactly(3), b"def");
    let response = client.response();
    assert_eq!(response.text(), "fine");
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    client.expect_close();
    assert!(gateway.wait_exit().success());
    let lines = gateway.access_lines();
    let closes: Vec<&str> = lines.iter().map(|it| it.get("close")).collect();
    assert_eq!(closes, ["-", "draining"]);
}

/// What a client is told whose request takes too long for the end.
const DRAINING: &str = "503 Service Unavailable: draining\n";

/// A gateway with one request that will not end.
fn busy(drain_timeout: &str) -> (Origin, Gateway, Client) {
    let origin = origin();
    let gateway = Setup::serving(&origin)
        .set("gateway.drain_timeout", drain_timeout)
        .start();
    let mut client = gateway.connect();
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the request", |it| it.requests.len() == 1);
    (origin, gateway, client)
}

#[test]
fn a_silent_client_whose_body_nobody_wants_does_not_keep_it_from_ending() {
    let origin = origin();
    let setup = Setup::new().set("gateway.max_body", 10);
    let setup = setup.set("gateway.body_timeout", "1h");
    let setup = setup.set("gateway.drain_timeout", "1h");
    let mut gateway = setup.lists(&[], &[], &[&origin]).start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc");
    assert_eq!(client.response().status(), 413);
    gateway.wait_for_access("status=413 error=body-too-large close=refused");
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [
        (Signal::SIGTERM, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGTERM),
        (Signal::SIGTERM, Signal::SIGINT),
    ] {
        let (_origin, mut gateway, mut client) = busy("1h");
        gateway.signal(first);
        wait_draining(&gateway);
        // These are no reason to hurry.
        gateway.signal(Signal::SIGHUP);
        gateway.signal(Signal::SIGUSR1);
        assert!(client.glance(Duration::from_millis(50)).is_none());
        gateway.signal(second);
        assert_eq!(gateway.wait_exit().code(), Some(0));
        gateway.wait_for_log(" WARN drain-cut connections=1");
        gateway.wait_for_log(" INFO stopped");
        assert_eq!(gateway.stderr.count("drain-cut"), 1);
        assert_eq!(client.response().text(), DRAINING);
        client.expect_close();
    }
}

#[test]
fn what_has_not_ended_within_drain_timeout_is_cut() {
    let (_origin, mut gateway, mut client) = busy("300ms");
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(300));
    gateway.wait_for_log(" WARN drain-cut connections=1");
    gateway.wait_for_log(" INFO stopped");
    assert_eq!(gateway.stderr.count("drain-cut"), 1);
    assert_eq!(client.response().text(), DRAINING);
    client.expect_close();
    // Which is not the peer's fault.
    let lines = gateway.access_lines();
    assert!(lines[0].has("status=503 error=draining close=draining"));
    assert_eq!(gateway.stderr.count("attempt-failed"), 0);
}

#[test]
fn requests_that_come_when_waits_are_cut_end_with_their_connections_at_once() {
    const CLIENTS: usize = 200;
    let origin = Origin::mute();
    let mut gateway = Gateway::by_one_worker(&origin);
    // All is there before the gateway has a look at anything, and two signals make it hurry: most of the
    // requests are still to be read then.
    gateway.freeze();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    let before = gateway.cpu_ticks();
    gateway.signal(Signal::SIGTERM);
    gateway.signal(Signal::SIGINT);
    gateway.signal(Signal::SIGCONT);
    for client in &mut clients {
        let end = client.rest();
        let answer = String::from_utf8_lossy(&end);
        assert!(answer.is_empty() || answer.ends_with(DRAINING), "{answer}");
    }
    let ticks = gateway.cpu_ticks_at_the_end() - before;
    assert_eq!(gateway.wait_exit().code(), Some(0));
    // Who is cut and goes on waiting takes the half second that there is for what is cut.
    assert!(ticks < 15, "{ticks} clock ticks");
}

#[test]
fn what_is_cut_has_no_clean_end_and_leaves_its_line() {
    // It begins to answer, or switches, and that is all.
    let origin = Origin::scripted(|conn| {
        let Some(request) = conn.request()? else {
            return Ok(());
        };
        conn.send(match request.head.target().as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun",
            "/switch" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbegun"
            }
            _ => "HTTP/1.1 200 OK\r\n\r\nbegun",
        })?;
        conn.wait_gone()
    });
    let mut gateway = Setup::serving(&origin)
        .set("gateway.drain_timeout", "300ms")
        .start();
    let requests = [
        "GET /length HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /close HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /close HTTP/1.0\r\n\r\n",
        "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbegun",
        "GET /head HTTP/1.1\r\nHost: a\r\n",
    ];
    let mut clients = requests.map(|request| {
        let mut client = gateway.connect();
        client.send(request);
        client
    });
    for client in &mut clients[..4] {
        client.head();
        let chunked = client.exactly(1) == b"5";
        client.exactly(if chunked { 9 } else { 4 });
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let [length, chunked, close, switch, upload, head] = &mut clients;
    for client in [length, chunked, switch, head] {
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(upload.response().text(), DRAINING);
    // Nothing but a reset tells an old client that more was to come.
    let end = close.wire.some(1).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let mut lines: Vec<String> = gateway
        .access_lines()
        .iter()
        .map(|it| {
            let fields = ["target", "status", "error", "close"];
            fields.map(|name| it.get(name)).join(" ")
        })
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            " 000 - draining",
            "/close 200 draining draining",
            "/close 200 draining draining",
            "/length 200 draining draining",
            "/switch 101 - draining",
            "/upload 503 draining body-unread",
        ]
    );
}

#[test]
fn a_gateway_that_is_killed_leaves_no_clean_end() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nbegun")?;
        conn.wait_gone()
    });
    let mut gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.head();
    client.exactly(5);
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit();
    let end = client.wire.some(1).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_proxy_that_says_nothing_does_not_keep_it_from_ending() {
    let origin = origin();
    let mut gateway = Setup::serving(&origin)
        .set("gateway.listen", "127.0.0.1:0 proxy")
        .one_worker()
        .set("gateway.trusted_proxies", "127.0.0.1")
        .set("gateway.head_timeout", "1h")
        .set("gateway.drain_timeout", "1h")
        .start();
    let mut silent = gateway.connect();
    gateway.wait_for_metric("graygate_connections_total{worker=\"0\"}", 1.0);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    silent.expect_close();
    assert_eq!(gateway.stderr.count("connection-turned-away"), 0);
}

#[test]
fn a_stalled_reader_of_stdout_does_not_keep_it_from_ending() {
    let origin = origin();
    let setup = Setup::serving(&origin).set("log.access", "-");
    let path = setup.path("pipe");
    let pipe = pipe_at(&path);
    // No room for a single line.
    let mut filling = File::options();
    let mut filling = filling
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    while filling.write(&[b'\n'; 512]).is_ok() {}
    let shell = format!("exec \"$0\" \"$@\" >'{}'", path.display());
    let mut gateway = setup.under(&["sh", "-c", &shell]).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    drop(pipe);
}

/// Changes the ini file, and waits until the gateway has read it.
#[track_caller]
fn reload(gateway: &mut Gateway, edit: impl FnOnce(Setup) -> Setup) {
    let before = gateway.stderr.count(" INFO reloaded ");
    gateway.edit_ini(edit);
    gateway.signal(Signal::SIGHUP);
    wait_until("the reload", DEADLINE, || {
        gateway.stderr.count(" INFO reloaded ") > before
    });
}

/// Checks what the access log says of the request number `count`.
#[track_caller]
fn check_last_line(gateway: &Gateway, count: usize, expected: &str) {
    let line = &gateway.wait_for_access_lines(count)[count - 1];
    assert!(line.has(expected), "not {expected}: {}", line.raw);
}

#[test]
fn settings_that_can_change_do_so_for_the_next_request() {
    let (dead, live) = ([RefusingPeer::new(), RefusingPeer::new()], origin());
    let three_fields = "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nX-Forwarded-For: 127.0.0.9\r\n\r\n";
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2000));
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n",
        "a".repeat(2000)
    );
    // Setting, new value, client, request, what the access log says before and after.
    let table: &[(&str, &str, &str, &str, &str, &str)] = &[
        (
            "gateway.max_fields",
            "2",
            "127.0.0.1",
            three_fields,
            "status=200",
            "status=431 error=too-many-fields",
        ),
        (
            "gateway.max_body",
            "2",
            "127.0.0.1",
            body,
            "status=200",
            "status=413 error=body-too-large",
        ),
        (
            "gateway.raw_target",
            "refuse",
            "127.0.0.1",
            "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
            "status=200",
            "status=400 error=bad-target",
        ),
        (
            "gateway.max_line",
            "1k",
            "127.0.0.1",
            &long,
            "status=200",
            "status=414 error=line-too-long",
        ),
        (
            "gateway.max_head",
            "1k",
            "127.0.0.1",
            &large,
            "status=200",
            "status=431 error=head-too-large",
        ),
        (
            "gateway.trusted_proxies",
            "127.0.0.0/8",
            "127.0.0.1",
            three_fields,
            "client=127.0.0.1",
            "client=127.0.0.9",
        ),
        (
            "upstream.tries",
            "1",
            "127.0.0.5",
            GET,
            "attempts=3 status=200",
            "attempts=2 status=200",
        ),
        (
            "upstream.fallback",
            "off",
            "127.0.0.5",
            GET,
            "pool=prod status=200",
            "pool=pre status=502",
        ),
    ];
    for (key, value, source, request, before, after) in table {
        // One worker, so that the lines stand in the order of the requests.
        let mut gateway = Setup::new()
            .one_worker()
            .lists(&["127.0.0.5"], &[&dead[0], &dead[1]], &[&live])
            .start();
        // The same connection before and after the change, and back at the default another one.
        let mut client = gateway.connect_from(source);
        client.ask(request);
        check_last_line(&gateway, 1, before);
        reload(&mut gateway, |it| it.set(key, value));
        assert_eq!(gateway.stderr.count("reload-ignored"), 0, "{key}");
        client.ask(request);
        check_last_line(&gateway, 2, after);
        reload(&mut gateway, |it| it.unset(key));
        gateway.connect_from(source).ask(request);
        check_last_line(&gateway, 3, before);
    }
}

#[test]
fn new_timeouts_hold_for_what_begins_after_the_reload() {
    let origin = origin();
    let setup = Setup::new().set("upstream.read_timeout", "1h");
    let setup = setup.set("gateway.keepalive_timeout", "1h");
    let mut gateway = setup
        .set("gateway.head_timeout", "1h")
        .lists(&[], &[], &[&origin])
        .start();
    let late = "GET /late HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut before = gateway.connect();
    before.send(late);
    origin.wait("the request", |it| it.requests.len() == 1);
    reload(&mut gateway, |it| {
        let it = it.set("upstream.read_timeout", "200ms");
        let it = it.set("gateway.keepalive_timeout", "200ms");
        it.set("gateway.head_timeout", "200ms")
    });
    let mut after = gateway.connect();
    assert_eq!(after.ask(late).status(), 504);
    // Now it is idle.
    after.expect_close();
    let mut half = gateway.connect();
    half.send("GET / HTTP/1.1\r\n");
    assert_eq!(half.response().status(), 408);
    assert!(before.glance(Duration::from_millis(1)).is_none());
    origin.release();
    assert_eq!(before.response().status(), 200);
}

#[test]
fn the_limit_of_connections_can_change() {
    let origin = origin();
    let mut gateway = Gateway::serving(&origin);
    let mut held: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status(), 200);
    }
    reload(&mut gateway, |it| it.set("gateway.max_connections", 3));
    assert_eq!(gateway.connect().response().status(), 503);
    // Those that are there stay.
    for client in &mut held {
        assert_eq!(client.get("/").status(), 200);
    }
    reload(&mut gateway, |it| it.set("gateway.max_connections", 4));
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
}

#[test]
fn settings_that_need_a_restart_are_named_and_keep_their_value() {
    let origin = origin();
    let setup = Setup::new().set("gateway.pid_file", "pid");
    let mut gateway = setup.lists(&["127.0.0.5"], &[], &[&origin]).start();
    let table = [
        ("gateway.workers", "3"),
        ("gateway.pid_file", "other-pid"),
        ("gateway.user", "daemon"),
        ("gateway.group", "daemon"),
    ];
    for round in 1..=2 {
        reload(&mut gateway, |setup| {
            let set = |setup: Setup, (key, value)| setup.set(key, value);
            // The change that is allowed is not lost among the others.
            table
                .into_iter()
                .fold(setup, set)
                .set("gateway.max_body", 1)
        });
        for (key, _) in table {
            let line = format!(" WARN reload-ignored key={key} ");
            assert_eq!(gateway.stderr.count(&line), round, "{key}");
        }
        let ignored = format!("ignored={}", table.len());
        assert_eq!(gateway.stderr.count(&ignored), round);
    }
    let ports = [gateway.addr().port(), gateway.admin().port()].into();
    wait_until("the same ports", DEADLINE, || {
        listening_ports(gateway.pid()) == ports
    });
    assert_eq!(gateway.metric("graygate_workers"), 2.0);
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(gateway.connect().ask(body).status(), 413);
    gateway.wait_for_access("status=413");
    assert!(!gateway.path("other-pid").exists());
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(!gateway.path("pid").exists());
}

#[test]
fn a_bad_file_changes_nothing_and_its_line_is_logged() {
    let origin = origin();
    let mut gateway = Setup::serving(&origin).set("gateway.max_fields", 2).start();
    let good = std::fs::read_to_string(gateway.path("graygate.ini")).unwrap();
    let lines = good.lines().count();
    let three_fields = "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n";
    // Each also lifts the limit, which must not happen.
    let lifted = good.replace("max_fields = 2", "max_fields = 3");
    let behind = |line: &str| (format!("{lifted}{line}\n"), lines + 1);
    let instead = |old: &str, new: &str| {
        let before = lifted.split(old).next().unwrap();
        (lifted.replace(old, new), before.lines().count() + 1)
    };
    let table = [
        behind("nonsense"),
        behind("no_such_key = 1"),
        behind("read_timeout = 1s"),
        instead("max_fields = 3", "max_fields = many"),
        instead("read_timeout = 5s", "read_timeout = 5"),
        instead("[upstream]", "[downstream]"),
    ];
    for (at, (text, line)) in table.iter().enumerate() {
        let place = format!("graygate.ini:{line}: ");
        std::fs::write(gateway.path("graygate.ini"), text).unwrap();
        gateway.signal(Signal::SIGHUP);
        let failed = || {
            gateway
                .stderr
                .all()
                .into_iter()
                .filter(|it| it.contains(" ERROR reload-failed "))
        };
        wait_until("the failure", DEADLINE, || failed().count() == at + 1);
        let said = failed().next_back().unwrap();
        assert!(said.contains(&place), "{text:?}: {said}");
        assert_eq!(gateway.connect().ask(three_fields).status(), 431);
    }
    std::fs::remove_file(gateway.path("graygate.ini")).unwrap();
    gateway.signal(Signal::SIGHUP);
    wait_until("the failure", DEADLINE, || {
        gateway.stderr.count(" ERROR reload-failed ") == table.len() + 1
    });
    assert_eq!(gateway.stderr.count(" INFO reloaded "), 0);
    reload(&mut gateway, |it| it.set("gateway.max_fields", 3));
    assert_eq!(gateway.connect().ask(three_fields).status(), 200);
}

/// Clients that ask without a pause, until they are told to stop.
struct Flow {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Flow {
    /// Each request has a target of its own, and must be answered well.
    fn start(gateway: &Gateway, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..clients).map(|number| {
            let (stop, mut client) = (Arc::clone(&stop), gateway.connect());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let response = client.get(&format!("/{number}/{count}"));
                    assert_eq!(
                        (response.status(), response.text()),
                        (200, "fine".to_owned())
                    );
                    count += 1;
                }
                count
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// Ends it, and returns how many requests were served.
    #[track_caller]
    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let counts = self.threads.into_iter().map(|it| it.join().unwrap());
        counts.sum()
    }
}

#[test]
fn reloads_do_not_disturb_requests() {
    let origin = origin();
    let mut gateway = Gateway::serving(&origin);
    let flow = Flow::start(&gateway, 4);
    for round in 0..20 {
        reload(&mut gateway, |it| it.set("gateway.max_fields", 50 + round));
        std::fs::write(gateway.path("graygate.ini"), "nonsense\n").unwrap();
        gateway.signal(Signal::SIGHUP);
        wait_until("the failure", DEADLINE, || {
            gateway.stderr.count(" ERROR reload-failed ") == round + 1
        });
    }
    let count = flow.end();
    assert!(count > 20, "{count}");
    assert_eq!(gateway.wait_for_access_lines(count).len(), count);
    assert_eq!(origin.requests().len(), count);
}

#[test]
fn no_line_is_lost_or_doubled_when_the_logs_are_rotated() {
    let origin = origin();
    let mut gateway = Setup::serving(&origin)
        .set("log.error", "error.log")
        .start();
    let flow = Flow::start(&gateway, 4);
    let mut names = vec!["access.log".to_owned()];
    for round in 0..10 {
        for log in ["access.log", "error.log"] {
            let old = gateway.path(&format!("{log}.{round}"));
            std::fs::rename(gateway.path(log), old).unwrap();
        }
        names.push(format!("access.log.{round}"));
        gateway.signal(Signal::SIGUSR1);
        wait_until("new files", DEADLINE, || {
            let len = |name: &str| std::fs::metadata(gateway.path(name)).map_or(0, |it| it.len());
            len("access.log") > 0 && len("error.log") > 0
        });
        let error_log = std::fs::read_to_string(gateway.path("error.log")).unwrap();
        assert!(error_log.contains(" INFO logs-reopened\n"), "{error_log}");
    }
    let count = flow.end();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    let text = |name: &String| std::fs::read_to_string(gateway.path(name)).unwrap();
    let text: String = names.iter().map(text).collect();
    let targets: Vec<&str> = text
        .lines()
        .map(|line| {
            line.split(' ')
                .find_map(|it| it.strip_prefix("target="))
                .unwrap()
        })
        .collect();
    assert_eq!(targets.len(), count);
    assert_eq!(targets.iter().collect::<HashSet<_>>().len(), count);
}

#[test]
fn a_log_that_cannot_be_opened_again_stays_open() {
    let origin = origin();
    let gateway = Setup::serving(&origin)
        .set("log.access", "logs/access.log")
        .start();
    std::fs::rename(gateway.path("logs"), gateway.path("moved")).unwrap();
    gateway.signal(Signal::SIGUSR1);
    let said = gateway.wait_for_log("log-reopen-failed log=access ");
    assert!(said.contains("logs/access.log"), "{said}");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    wait_until("the line", DEADLINE, || {
        let log = std::fs::read_to_string(gateway.path("moved/access.log")).unwrap();
        log.lines().count() == 1
    });
    // Every failure is told, however soon it comes after another one; success only if it is one.
    gateway.signal(Signal::SIGUSR1);
    wait_until("the second line", DEADLINE, || {
        gateway.stderr.count("log-reopen-failed log=access ") == 2
    });
    std::fs::create_dir(gateway.path("logs")).unwrap();
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_for_log(" INFO logs-reopened");
    assert_eq!(gateway.stderr.count("logs-reopened"), 1);
    assert!(gateway.path("logs/access.log").exists());
}

#[test]
fn an_error_log_that_cannot_be_opened_again_is_told_on_stderr() {
    let origin = origin();
    let gateway = Setup::serving(&origin)
        .set("log.error", "logs/error.log")
        .start();
    std::fs::rename(gateway.path("logs"), gateway.path("moved")).unwrap();
    gateway.signal(Signal::SIGUSR1);
    let said = gateway.wait_for_log("log-reopen-failed log=error ");
    assert!(said.contains("logs/error.log"), "{said}");
    std::fs::create_dir(gateway.path("logs")).unwrap();
    gateway.signal(Signal::SIGUSR1);
    let text = |name: &str| std::fs::read_to_string(gateway.path(name)).unwrap_or_default();
    wait_until("the new file", DEADLINE, || {
        text("logs/error.log").contains(" INFO logs-reopened\n")
    });
    assert!(!text("moved/error.log").contains("logs-reopened"));
}

#[test]
fn neither_sigpipe_nor_a_reader_that_has_gone_ends_it() {
    let origin = origin();
    let setup = Setup::serving(&origin).set("log.access", "-");
    let path = setup.path("pipe");
    let pipe = pipe_at(&path);
    let shell = format!("exec \"$0\" \"$@\" >'{}'", path.display());
    let mut gateway = setup.under(&["sh", "-c", &shell]).start();
    gateway.signal(Signal::SIGPIPE);
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    drop(pipe);
    let dropped = "graygate_log_dropped_total{log=\"access\"}";
    wait_until("a line is lost", DEADLINE, || {
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
        gateway.metric(dropped) > 0.0
    });
    let said = gateway.wait_for_log("log-write-failed log=access ");
    assert!(said.contains("Broken pipe"), "{said}");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_gateway_that_was_stopped_goes_on_where_it_was() {
    let origin = origin();
    let setup = Setup::serving(&origin).set("upstream.max_fails", 1);
    let gateway = setup.set("upstream.read_timeout", "2s").start();
    let mut idle = gateway.connect();
    assert_eq!(idle.get("/").status(), 200);
    let mut waiting = gateway.connect();
    waiting.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the request", |it| it.requests.len() == 2);
    stop(&gateway);
    let stopped = Instant::now();
    origin.release();
    idle.send(GET);
    // The kernel takes connections meanwhile.
    let mut new = gateway.connect();
    new.send(GET);
    assert!(new.glance(Duration::from_millis(50)).is_none());
    // What has been answered meanwhile has been answered in time.
    wait_until("the answer would be late", DEADLINE, || {
        stopped.elapsed() > Duration::from_millis(2200)
    });
    gateway.signal(Signal::SIGCONT);
    for client in [&mut idle, &mut waiting, &mut new] {
        assert_eq!(client.response().text(), "fine");
        assert_eq!(client.get("/").text(), "fine");
    }
    assert_eq!(gateway.wait_for_access_lines(7).len(), 7);
    assert_eq!(gateway.stderr.count(" peer-out "), 0);
}

#[test]
fn the_pid_file_says_that_it_serves_and_goes_with_it() {
    let origin = origin();
    let mut gateway = Setup::serving(&origin)
        .set("gateway.pid_file", "pid")
        .start();
    // It is written a moment after the line that the harness waits for.
    let pid = wait_for("the process id", || {
        std::fs::read_to_string(gateway.path("pid"))
            .ok()
            .filter(|it| it.ends_with('\n'))
    });
    assert_eq!(pid, format!("{}\n", gateway.pid()));
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(!gateway.path("pid").exists());
}

#[test]
fn a_pid_file_that_cannot_be_made_is_named_and_a_failed_start_leaves_none() {
    for (pid_file, lists, named) in [
        ("missing/pid", "[gray]\n[pre]\n[prod]\n", "missing/pid: "),
        ("pid", "[gray]\n[pre]\n[nonsense]\n", "lists: line 3: "),
    ] {
        let setup = Setup::new()
            .set("gateway.pid_file", pid_file)
            .file("lists", lists);
        let output = setup.start_in_vain();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
        assert!(!setup.path(pid_file).exists());
    }
}

#[test]
fn connections_that_came_before_the_end_are_served() {
    let origin = Origin::named("prod");
    let mut gateway = Gateway::by_one_worker(&origin);
    // One has been accepted and has not spoken yet; many wait in the kernel's queue.
    let mut silent = gateway.connect();
    gateway.wait_for_metric("graygate_connections_active{worker=\"0\"}", 1.0);
    gateway.signal(Signal::SIGSTOP);
    let mut queued: Vec<Client> = (0..100).map(|_| gateway.connect()).collect();
    for client in &mut queued {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gateway.signal(Signal::SIGTERM);
    gateway.signal(Signal::SIGCONT);
    gateway.wait_for_log("draining");
    silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = silent.response();
    assert_eq!(response.text(), "prod");
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    silent.expect_close();
    for client in &mut queued {
        // The first of them may have been served before the gateway knew of its end.
        assert_eq!(client.response().text(), "prod");
        client.expect_close();
    }
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_second_gateway_leaves_the_pid_file_of_the_first_alone() {
    let origin = origin();
    let mut first = Setup::serving(&origin)
        .set("gateway.pid_file", "pid")
        .start();
    let path = first.path("pid");
    let text = || std::fs::read_to_string(&path).unwrap();
    let own = format!("{}\n", first.pid());
    wait_until("the process id", DEADLINE, || text() == own);
    let second = Setup::new().set("gateway.pid_file", path.display());
    let second = second.lists(&[], &[], &[&origin]);
    let output = second.start_in_vain();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let pid = first.pid();
    let path_shown = path.display();
    let expected = format!(
        "graygate: {path_shown}: it belongs to process {pid}, which is running; \
         [gateway] pid_file {path_shown} is in use by another gateway, process {pid}\n"
    );
    assert_eq!(said, expected);
    assert_eq!(text(), own);

    // After a crash, the file is nobody's.
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    assert_eq!(text(), own);
    let second = second.start();
    wait_until("the other process id", DEADLINE, || {
        text() == format!("{}\n", second.pid())
    });
}
