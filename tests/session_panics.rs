//! Panics inside sessions, through the library: whatever a session is about, only its connection
//! ends, what is shared with others is as it was, and the log tells of it once.
//!
//! No file could set the timeouts of this test: a deadline that no clock can have is a panic where
//! it is computed. Alone in its process: the hook for panics is everybody's, and so is the worker.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use graygate::config::{self, LogTarget};
use graygate::error::Close;

use support::{Client, Conn, DEADLINE, GatewayInside, Origin, PanicLog, ok, wait_until};

/// No deadline is as late as that.
const NEVER: Duration = Duration::MAX;

/// More than the kernel takes for who does not read.
const BIG: usize = 64 << 20;

/// What the wrong deadlines are the cause of, but for those of sessions.
const INI: &str = "
[gateway]
listen = 127.0.0.1:0
workers = 1
head_timeout = 1h
body_timeout = 1h
min_rate = off
send_timeout = 1h
keepalive_timeout = 1h
tunnel_timeout = 1h
[upstream]
read_timeout = 1h
send_timeout = 1h
[lists]
file = lists
";

/// A gateway within this process, with one worker. With what it was started with nobody panics.
struct Served {
    inside: GatewayInside,
    log: PanicLog,
    access: tempfile::NamedTempFile,
}

impl Served {
    fn start() -> Self {
        let log = PanicLog::install();
        let access = tempfile::NamedTempFile::new().unwrap();
        let target = LogTarget::File(access.path().to_owned());
        Self {
            inside: GatewayInside::start(INI, &target),
            log,
            access,
        }
    }

    /// From now on, requests go to `origin`.
    fn send_to(&self, origin: &Origin) {
        self.inside.send_to(origin);
    }

    /// From now on, `change` is in force besides what is sound.
    fn set(&self, change: impl FnOnce(&mut config::GatewaySettings)) {
        let mut config = self.inside.config.clone();
        change(&mut config.gateway);
        self.inside.gateway.config.store(config);
    }

    fn connect(&self) -> Client {
        self.inside.connect()
    }

    fn slow_reader(&self) -> Client {
        Client::with_small_window("127.0.0.1", self.inside.addr, 4096)
    }

    /// Panics that were counted, and connections that have ended by one.
    fn panics(&self) -> (u64, u64) {
        let metrics = &self.inside.gateway.metrics;
        let closes = metrics.sum(|it| &it.closes[Close::Panic.index()]);
        (metrics.sum(|it| &it.panics), closes)
    }

    /// Connections that are open, by both counts.
    fn open(&self) -> (u64, usize) {
        let gateway = &self.inside.gateway;
        let active = gateway.metrics.sum(|it| &it.active);
        (active, gateway.open_connections())
    }

    /// A request and its exact answer, on `client`.
    #[track_caller]
    fn check_echo(&self, client: &mut Client, target: &str) {
        let get = format!("GET {target} HTTP/1.1\r\nHost: a\r\n");
        let response = client.ask(format!("{get}\r\n"));
        let forwarded = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
            X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n";
        assert_eq!(response.text(), format!("{get}{forwarded}"));
    }

    /// Checks that a way of a request ends in a panic, one that is reported from within `function`,
    /// and in nothing else. `way` is given what waits for the panic.
    #[track_caller]
    fn check(&self, what: &str, function: &str, way: impl FnOnce(&dyn Fn())) {
        let origin = echo();
        let (panics, open) = (self.panics(), self.open());
        let (reports, lines) = (self.log.lines().len(), self.access_lines().len());
        // Two others of the same worker: one is idle, one in the middle of a request and a response.
        self.set(|_| {});
        self.send_to(&origin);
        let mut idle = self.connect();
        self.check_echo(&mut idle, "/before");
        let mut busy = self.connect();
        busy.send("POST /pieces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(busy.head().status(), 200);
        check_piece(&mut busy, "3\r\none\r\n");
        let expected = (panics.0 + 1, panics.1 + 1);
        way(&|| {
            wait_until(what, DEADLINE, || self.panics().0 == expected.0);
        });
        self.set(|_| {});
        self.send_to(&origin);
        let still_open = (open.0 + 2, open.1 + 2);
        wait_until(&format!("the end of a panic {what}"), DEADLINE, || {
            (self.panics(), self.open()) == (expected, still_open)
        });
        check_piece(&mut busy, "3\r\ntwo\r\n");
        self.check_echo(&mut idle, "/after");
        for at in 0..10 {
            self.check_echo(&mut self.connect(), &format!("/new/{at}"));
        }
        // The connections to the peer are sound, too.
        assert!(origin.accepted() <= 3, "{}", origin.accepted());
        busy.send("0\r\n\r\n");
        assert_eq!(busy.exactly(5), b"0\r\n\r\n");
        drop((idle, busy));
        wait_until("the others are gone", DEADLINE, || self.open() == open);
        assert_eq!(self.panics(), expected, "{what}");
        let log = || self.log.lines();
        wait_until("the error log", DEADLINE, || log().len() > reports);
        let log = log();
        assert_eq!(log.len(), reports + 1, "{what}: {:#?}", &log[reports..]);
        let report = &log[reports];
        assert!(report.contains(" ERROR panic place="), "{report}");
        // A frame that was inlined is named with its types.
        let is_in = |end: &str| report.contains(&format!("{function}{end}"));
        assert!(is_in("\\n ") || is_in("<"), "{report}");
        assert!(report.contains("at ./src/proxy/"), "{report}");
        // Each request has its line, and so has one that has only begun.
        let begun = usize::from(function != "wait_for_request");
        let mut requests = Vec::new();
        wait_until(
            &format!("the access log of a panic {what}"),
            DEADLINE,
            || {
                requests = self.access_lines().split_off(lines);
                let of_panics = requests.iter().filter(|it| it.ends_with(" close=panic"));
                requests.len() >= 13 + begun && of_panics.count() == begun
            },
        );
    }

    fn access_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.access.path()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }
}

/// Answers with the request as it came; what is sent to `/pieces`, piece by piece.
fn echo() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            if head.target() != "/pieces" {
                let request = conn.body(head)?;
                conn.send(ok(request.bytes()))?;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let mut out = conn.wire.stream.try_clone()?;
            conn.stream_body(&head, &mut |piece| {
                let begin = format!("{:x}\r\n", piece.len());
                let _ = out.write_all(&[begin.as_bytes(), piece, b"\r\n"].concat());
            })?;
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    })
}

#[track_caller]
fn check_piece(client: &mut Client, piece: &str) {
    client.send(piece);
    assert_eq!(client.exactly(piece.len()), piece.as_bytes());
}

/// Says `head` as soon as it is asked, and then as much of nothing as is taken.
fn flooding(head: &'static str) -> Origin {
    Origin::scripted(move |conn| {
        conn.head()?;
        conn.send(head)?;
        conn.send(vec![b'd'; BIG])?;
        conn.wait_gone()
    })
}

/// Says `answer` as soon as it is asked, and reads nothing more until it is released.
fn deaf(answer: &'static str) -> Origin {
    Origin::scripted(move |conn: &mut Conn| {
        conn.head()?;
        conn.send(answer)?;
        conn.wait_for_release()?;
        conn.wait_gone()
    })
}

/// Sends without end, until it is not taken any more.
fn flood(client: &Client) -> std::thread::JoinHandle<()> {
    let mut out = client.wire.stream.try_clone().unwrap();
    std::thread::spawn(move || while out.write_all(&[b'u'; 1 << 16]).is_ok() {})
}

/// Reads to the end: what came, and whether the end was a reset.
fn to_the_end(client: &mut Client) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    match client.wire.stream.read_to_end(&mut all) {
        Ok(_) => (all, false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (all, true),
        Err(error) => panic!("the connection did not end: {error}"),
    }
}

const CHUNKED_PUT: &str =
    "PUT /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n";
const LONG_PUT: &str = "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\nbegun";
const UPGRADE: &str = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn a_panic_in_a_session_ends_its_connection_and_nothing_else() {
    let served = Served::start();
    waiting_and_reading(&served);
    answering(&served);
    uploading(&served);
    tunnelling(&served);
}

fn waiting_and_reading(served: &Served) {
    served.check("before the first request", "wait_for_request", |_| {
        served.set(|it| it.head_timeout = NEVER);
        served.connect().expect_close();
    });
    served.check("within a head", "read_head", |_| {
        let mut client = served.connect();
        served.check_echo(&mut client, "/first");
        served.set(|it| it.head_timeout = NEVER);
        client.send("GET /half HTTP/1.1\r\nHo");
        client.expect_close();
    });
    served.check("between two requests", "wait_for_request", |_| {
        let origin = Origin::scripted(|conn| {
            conn.request()?;
            conn.wait_for_release()?;
            conn.send(ok("whole"))?;
            conn.request()?;
            conn.send(ok("again"))?;
            conn.wait_gone()
        });
        served.send_to(&origin);
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait("the request", |it| it.requests.len() == 1);
        served.set(|it| it.keepalive_timeout = NEVER);
        origin.release();
        assert_eq!(client.response().text(), "whole");
        client.expect_close();
        // The connection to the peer was kept before that, and stays.
        served.set(|_| {});
        let mut client = served.connect();
        assert_eq!(client.get("/").text(), "again");
        assert_eq!(origin.accepted(), 1);
    });
}

fn answering(served: &Served) {
    let get = "GET /down HTTP/1.1\r\nHost: a\r\n\r\n";
    let old = "GET /down HTTP/1.0\r\nHost: a\r\n\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
    for (request, head) in [
        (get, length),
        (get, until_close),
        (old, until_close),
        // Here the second coroutine waits for the body meanwhile.
        (CHUNKED_PUT, length),
        (CHUNKED_PUT, until_close),
    ] {
        let what = format!("while {head:?} is written, to {request:?}");
        served.check(&what, "relay_response_body", |panicked| {
            let origin = flooding(head);
            served.send_to(&origin);
            served.set(|it| it.send_timeout = NEVER);
            let mut client = served.slow_reader();
            client.send(request);
            panicked();
            origin.wait_closed(1);
            let (answer, is_reset) = to_the_end(&mut client);
            let is_begin = answer.starts_with(b"HTTP/1.1 200 OK\r\n") || answer.is_empty();
            assert!(is_begin, "{:?}", answer.get(..99));
            assert!(!answer.ends_with(b"0\r\n\r\n"));
            // Nothing else would show that something is missing.
            assert!(is_reset || request != old, "a plain end");
        });
    }
}

fn uploading(served: &Served) {
    for (answer, whole) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nenough", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin", false),
        ("HTTP/1.1 200 OK\r\n\r\nbegin", false),
    ] {
        let what = format!("in an upload beside {answer:?}");
        served.check(&what, "send", |panicked| {
            let origin = deaf(answer);
            served.send_to(&origin);
            served.set(|it| it.send_timeout = NEVER);
            let mut client = served.connect();
            client.send(LONG_PUT);
            assert_eq!(client.head().status(), 200);
            let flooding = flood(&client);
            if whole {
                assert_eq!(client.exactly(6), b"enough");
            }
            panicked();
            let (rest, _) = to_the_end(&mut client);
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
            origin.release();
            origin.wait_closed(1);
            let _ = client.wire.stream.shutdown(Shutdown::Both);
            flooding.join().unwrap();
        });
    }
}

fn tunnelling(served: &Served) {
    served.check("in a tunnel, towards the peer", "carry", |panicked| {
        let origin = deaf(SWITCHED);
        served.send_to(&origin);
        served.set(|it| it.tunnel_timeout = NEVER);
        let mut client = served.connect();
        client.send(UPGRADE);
        assert_eq!(client.head().status(), 101);
        let flooding = flood(&client);
        panicked();
        to_the_end(&mut client);
        origin.release();
        origin.wait_closed(1);
        flooding.join().unwrap();
    });
    served.check("in a tunnel, towards the client", "one_way", |panicked| {
        let origin = flooding(SWITCHED);
        served.send_to(&origin);
        served.set(|it| it.tunnel_timeout = NEVER);
        let mut client = served.slow_reader();
        client.send(UPGRADE);
        panicked();
        origin.wait_closed(1);
        to_the_end(&mut client);
    });
}
