//! Logs that go to a syslog server: what its messages are, and that nobody waits for it.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{AccessLine, DEADLINE, Gateway, Origin, Setup, poll};

const DROPPED: &str = "graygate_log_dropped_total{log=\"access\"}";

/// A server that only receives.
trait Server {
    fn next(&self) -> String;
}

impl Server for UnixDatagram {
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = vec![0; 65536];
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = self.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

impl Server for UdpSocket {
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = vec![0; 65536];
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = self.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

fn setup(access: &str) -> Setup {
    Setup::new().one_worker().set("log.access", access)
}

fn at(path: &Path) -> UnixDatagram {
    UnixDatagram::bind(path).unwrap()
}

#[track_caller]
fn ask(gateway: &Gateway, path: &str) {
    assert_eq!(gateway.get("127.0.0.1", path).status(), 200);
}

/// The line in a message with this priority and this name behind its time.
#[track_caller]
fn line_in(message: &str, priority: u32, name: &str) -> AccessLine {
    let rest = message.strip_prefix(&format!("<{priority}>"));
    let rest = rest.unwrap_or_else(|| panic!("{message}"));
    // `Nov 29 16:19:43 `
    let (time, rest) = rest.split_at("Nov 29 16:19:43 ".len());
    assert!(time.is_ascii() && time.split(':').count() == 3, "{message}");
    let line = rest
        .strip_prefix(name)
        .unwrap_or_else(|| panic!("{message}"));
    AccessLine::parse(line).unwrap_or_else(|| panic!("{message}"))
}

#[test]
fn each_line_is_a_message_as_nginx_sends_it() {
    let origin = Origin::named("prod");
    let host = nix::unistd::gethostname().unwrap();
    let host = host.to_str().unwrap();
    for (parameters, priority, name) in [
        ("", 190, format!("{host} graygate: ")),
        (
            ",facility=local3,severity=notice,tag=gray_2,nohostname",
            157,
            "gray_2: ".to_owned(),
        ),
    ] {
        let setup = setup(&format!("syslog:server=unix:socket{parameters}"));
        let server = at(&setup.path("socket"));
        let gateway = setup.lists(&[], &[], &[&origin]).start();
        for path in ["/1", "/2"] {
            ask(&gateway, path);
            let line = line_in(&server.next(), priority, &name);
            assert!(line.has(&format!("target={path} status=200 pool=prod")));
        }
    }
}

#[test]
fn a_server_is_told_over_udp_in_the_form_of_rfc_5424_too() {
    let (origin, server) = (
        Origin::named("prod"),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let address = server.local_addr().unwrap();
    let gateway = setup(&format!("syslog:server={address},rfc=5424,facility=daemon"))
        .set("log.format", "$request_uri $status")
        .lists(&[], &[], &[&origin])
        .start();
    ask(&gateway, "/x");
    let message = server.next();
    let words: Vec<&str> = message.split(' ').collect();
    let host = nix::unistd::gethostname().unwrap();
    let pid = gateway.pid().to_string();
    assert_eq!(words[0], "<30>1", "{message}");
    assert!(humantime::parse_rfc3339(words[1]).is_ok(), "{message}");
    let rest = [
        host.to_str().unwrap(),
        "graygate",
        &pid,
        "-",
        "-",
        "/x",
        "200",
    ];
    assert_eq!(words[2..], rest, "{message}");
}

#[test]
fn events_of_the_error_log_have_their_own_severity() {
    let setup = Setup::new()
        .set(
            "log.error",
            "syslog:server=unix:socket,facility=daemon,nohostname",
        )
        .set("gateway.max_connections", 1_000_000)
        .lists(&[], &[], &[]);
    let server = at(&setup.path("socket"));
    let mut child = setup.spawn();
    let mut warned = false;
    loop {
        let message = server.next();
        warned |= message.starts_with("<28>") && message.contains(" WARN descriptors-short ");
        if message.contains(" ready ") {
            assert!(
                message.starts_with("<30>") && message.contains(" graygate: "),
                "{message}"
            );
            assert!(message.contains(" INFO ready "), "{message}");
            break;
        }
    }
    assert!(warned);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    while !server.next().contains(" INFO stopped") {}
    assert!(child.wait().unwrap().success());
}

#[test]
fn lines_for_a_server_that_is_away_are_counted_and_it_may_come_back() {
    let origin = Origin::named("prod");
    let setup = setup("syslog:server=unix:socket").lists(&[], &[], &[&origin]);
    let warnings = setup.warnings();
    assert!(
        warnings.contains("[log] access: the syslog server cannot be reached"),
        "{warnings}"
    );
    let socket = setup.path("socket");
    let gateway = setup.start();
    for _ in 0..3 {
        ask(&gateway, "/lost");
    }
    gateway.wait_for_metric(DROPPED, 3.0);
    gateway.wait_for_log(" ERROR log-write-failed log=access ");
    for path in ["/first", "/anew"] {
        let server = at(&socket);
        ask(&gateway, path);
        assert!(server.next().contains(&format!("target=\"{path}\"")));
        drop(server);
        std::fs::remove_file(&socket).unwrap();
    }
    gateway.wait_for_metric(DROPPED, 3.0);
}

#[test]
fn lines_for_a_port_at_which_nobody_listens_are_counted() {
    let origin = Origin::named("prod");
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = setup(&format!("syslog:server={address}"))
        .lists(&[], &[], &[&origin])
        .start();
    ask(&gateway, "/first");
    // What nobody has got is only known with the next one.
    let told = poll(DEADLINE, || {
        ask(&gateway, "/next");
        (gateway.metric(DROPPED) >= 2.0).then_some(())
    });
    assert!(told.is_some());
    gateway.wait_for_log(" ERROR log-write-failed log=access ");
}

#[test]
fn a_server_that_does_not_read_costs_lines_and_no_requests() {
    let origin = Origin::named("prod");
    let setup = setup("syslog:server=unix:socket");
    let server = at(&setup.path("socket"));
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let mut client = gateway.connect();
    let mut count = 0_u32;
    let lost = poll(DEADLINE, || {
        for _ in 0..200 {
            assert_eq!(client.get("/").status(), 200);
            count += 1;
        }
        (gateway.metric(DROPPED) > 0.0).then_some(())
    });
    assert!(lost.is_some(), "{count} requests");
    gateway.wait_for_log(" ERROR log-write-failed log=access ");
    // It goes on where it has room again.
    let after = poll(DEADLINE, || {
        assert_eq!(client.get("/after").status(), 200);
        server.next().contains("target=\"/after\"").then_some(())
    });
    assert!(after.is_some());
}

#[test]
fn a_line_that_is_too_long_for_a_message_is_cut() {
    let origin = Origin::named("prod");
    let setup = setup("syslog:server=unix:socket").set("log.format", "escape=none $http_x$status");
    let server = at(&setup.path("socket"));
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let long = "x".repeat(20_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    assert_eq!(gateway.connect().ask(request).status(), 200);
    let message = server.next();
    assert_eq!(message.len(), 8192);
    assert!(message.ends_with("xxx"));
}
