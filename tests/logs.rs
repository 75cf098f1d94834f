//! The logs: one line a request that says what happened, which no client can forge, and for which
//! no request ever waits.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use support::{
    AccessLine, Client, DEADLINE, Gateway, Lines, Origin, Redis, RefusingPeer, Setup,
    listening_ports, pipe_at, wait_for, wait_until,
};

const KEYS: [&str; 18] = [
    "time",
    "client",
    "pool",
    "reason",
    "peer",
    "attempts",
    "status",
    "received",
    "sent",
    "request_time",
    "upstream_time",
    "generation",
    "method",
    "target",
    "host",
    "user_agent",
    "error",
    "close",
];

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// One worker, so that the lines stand in the order of the requests.
fn setup() -> Setup {
    Setup::new().one_worker()
}

/// Checks what is measured in a line, and returns the rest of it, without quotes.
#[track_caller]
fn stable(line: &AccessLine, since: SystemTime) -> String {
    let raw = &line.raw;
    assert_eq!(line.keys(), KEYS, "{raw}");
    let time = humantime::parse_rfc3339(line.get("time")).unwrap();
    // It is shown in whole milliseconds.
    let millisecond = Duration::from_millis(1);
    assert!(
        time + millisecond >= since && time <= SystemTime::now(),
        "{raw}"
    );
    let seconds = |key: &str| {
        let (whole, micros) = line.get(key).split_once('.').unwrap();
        assert_eq!(micros.len(), 6, "{raw}");
        Duration::new(
            whole.parse().unwrap(),
            micros.parse::<u32>().unwrap() * 1000,
        )
    };
    let total = seconds("request_time");
    assert!(total <= since.elapsed().unwrap() + millisecond, "{raw}");
    let tried = line.get("attempts") != "0";
    assert_eq!(tried, line.get("upstream_time") != "-", "{raw}");
    assert!(!tried || seconds("upstream_time") <= total, "{raw}");
    let measured = ["time", "request_time", "upstream_time"];
    let keys = line.keys().into_iter();
    let pairs = keys
        .filter(|key| !measured.contains(key))
        .map(|key| format!("{key}={}", line.get(key)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Checks that the gateway's only access line so far says this.
#[track_caller]
fn check_only_line(gateway: &Gateway, since: SystemTime, expected: &str) {
    let lines = gateway.wait_for_access_lines(1);
    assert_eq!(lines.len(), 1);
    assert_eq!(stable(&lines[0], since), expected);
}

#[test]
fn a_served_request_is_told_with_all_that_it_was() {
    let (pre, prod) = Origin::pre_and_prod();
    let host = "shop.example";
    let get = format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x/1 (y)\r\n\r\n");
    let absolute = format!("GET http://{host}/a HTTP/1.1\r\nHost: b\r\nUser-Agent: y\r\n\r\n");
    let head = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let upload = format!(
        "PUT /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"
    );
    let http10 = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let table = [
        (&get, "/a?b=c", "x/1 (y)", "-"),
        (&absolute, "http://shop.example/a", "y", "-"),
        (&head, "/", "", "-"),
        (&upload, "/up", "", "-"),
        (&http10, "/", "", "connection-close"),
    ];
    for (source, pool, reason, origin) in [
        ("127.0.0.5", "pre", "listed", &pre),
        ("127.0.0.1", "prod", "unlisted", &prod),
    ] {
        for (request, target, agent, close) in table {
            let since = SystemTime::now();
            let gateway = setup().lists(&["127.0.0.5"], &[&pre], &[&prod]).start();
            let mut client = gateway.connect_from(source);
            let response = client.ask(request);
            assert_eq!(response.status(), 200);
            let (received, sent) = (request.len(), response.head.raw.len() + response.raw.len());
            let method = request.split(' ').next().unwrap();
            check_only_line(
                &gateway,
                since,
                &format!(
                    "client={source} pool={pool} reason={reason} peer={origin} attempts=1 \
                     status=200 received={received} sent={sent} generation=1 method={method} \
                     target={target} host={host} user_agent={agent} error=- close={close}"
                ),
            );
        }
    }
}

#[test]
fn a_refused_request_is_told_as_far_as_it_was_understood() {
    let origin = Origin::named("prod");
    let table = [
        (
            "GET / HTTP/1.1\r\n\r\n",
            "no-host",
            "generation=0 method=GET target=/ host=",
        ),
        (
            "nonsense\r\n\r\n",
            "bad-request-line",
            "generation=0 method=nonsense target= host=",
        ),
        (
            "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "bad-length",
            "generation=1 method=PUT target=/x host=a",
        ),
    ];
    for (request, error, understood) in table {
        let since = SystemTime::now();
        let gateway = setup().lists(&[], &[], &[&origin]).start();
        let response = gateway.connect().ask(request);
        assert_eq!(response.status(), 400);
        let (received, sent) = (request.len(), response.head.raw.len() + response.raw.len());
        check_only_line(
            &gateway,
            since,
            &format!(
                "client=127.0.0.1 pool=- reason=- peer=- attempts=0 status=400 \
                 received={received} sent={sent} {understood} user_agent= error={error} \
                 close=refused"
            ),
        );
    }
}

#[test]
fn attempts_and_the_peer_of_the_last_one_are_told() {
    let (dead, dead_too) = (RefusingPeer::new(), RefusingPeer::new());
    let live = Origin::named("prod");
    let table: [(&[&dyn std::fmt::Display], _, _, _); 2] = [
        (
            &[&live],
            "pool=prod reason=pre-exhausted status=200 error=-",
            200,
            live.to_string(),
        ),
        // Of prod, the other peer that refuses is tried too, and the one before not again.
        (
            &[&dead, &dead_too],
            "pool=prod reason=pre-exhausted status=502 error=connect-refused",
            502,
            dead_too.to_string(),
        ),
    ];
    for (prod, expected, status, peer) in table {
        let gateway = setup().lists(&["127.0.0.5"], &[&dead], prod).start();
        assert_eq!(gateway.get("127.0.0.5", "/").status(), status);
        let line = gateway.wait_for_access(expected);
        assert!(line.has(&format!("attempts=2 peer={peer}")), "{}", line.raw);
    }

    // Which peer is the first is chance, so in the end one was the third, if none is ever left alone.
    let dead = [RefusingPeer::new(), RefusingPeer::new()];
    let gateway = setup()
        .set("upstream.max_fails", 0)
        .lists(&[], &[], &[&dead[0], &dead[1], &live])
        .start();
    let mut client = gateway.connect();
    wait_until("a third attempt", DEADLINE, || {
        assert_eq!(client.ask(GET).status(), 200);
        gateway.access_lines().iter().any(|it| it.has("attempts=3"))
    });
    for line in gateway.access_lines() {
        assert!(
            line.has(&format!("peer={live} status=200 error=-")),
            "{}",
            line.raw
        );
    }
}

#[test]
fn a_client_that_vanishes_leaves_a_line() {
    let mute = Origin::mute();
    let (get, put) = (
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\n",
    );
    let half = format!("{put}Content-Length: 10\r\n\r\nabc");
    let table = [
        (
            get,
            "status=000 attempts=1 method=GET error=- close=client-gone",
        ),
        (
            &half,
            "status=000 attempts=1 method=PUT error=- close=body-cut",
        ),
        // Inside the head, of which nothing is known yet but its length.
        (
            put,
            "status=000 attempts=0 method=- error=- close=client-gone",
        ),
    ];
    for (request, expected) in table {
        let gateway = setup().lists(&[], &[], &[&mute]).start();
        let heads = mute.seen(|it| it.heads.len());
        let mut client = gateway.connect();
        client.send(request);
        if request != put {
            mute.wait("the head", |it| it.heads.len() > heads);
        } else {
            gateway.wait_for_metric("graygate_connections_active{worker=\"0\"}", 1.0);
        }
        if request == get {
            client.reset();
        } else {
            client.half_close();
            assert_eq!(client.rest(), b"");
        }
        let line = gateway.wait_for_access(expected);
        let received = format!("received={} sent=0", request.len());
        assert!(line.has(&received), "{}", line.raw);
    }
}

#[test]
fn a_response_that_was_cut_is_told() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    });
    let gateway = setup().lists(&[], &[], &[&origin]).start();
    let mut client = gateway.connect();
    client.send(GET);
    let head = client.head();
    let length = head.raw.len() + client.rest().len();
    let line = gateway.wait_for_access("status=200 error=response-cut close=response-cut");
    assert!(line.has(&format!("sent={length}")), "{}", line.raw);
}

/// The access log's text, which must be printable ASCII in whole lines, taken apart.
#[track_caller]
fn printable_lines(text: &[u8]) -> Vec<AccessLine> {
    let strange = text.iter().find(|it| !matches!(it, b' '..=b'~' | b'\n'));
    assert_eq!(strange, None, "{}", text.escape_ascii());
    let text = std::str::from_utf8(text).unwrap();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a cut line: {text}"
    );
    let parse = |line: &str| {
        let parsed = AccessLine::parse(line);
        let parsed = parsed.filter(|it| it.keys() == KEYS);
        parsed.unwrap_or_else(|| panic!("no access line: {line:?}"))
    };
    text.lines().map(parse).collect()
}

#[test]
fn nothing_that_a_client_sends_can_forge_or_break_a_line() {
    let origin = Origin::named("prod");
    let gateway = setup().lists(&[], &[], &[&origin]).start();
    let table: &[(&[u8], &str, &str)] = &[
        // As far as HTTP lets it through, it is escaped; the rest is refused, and not shown.
        (
            b"GET /\"' HTTP/1.1\r\nHost: a\r\nUser-Agent: a\" error=forged \"b\\\xe4\xff\r\n\r\n",
            "target",
            r"/\x22'",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\" error=forged \"b\\\xe4\xff\r\n\r\n",
            "user_agent",
            r"a\x22 error=forged \x22b\x5C\xE4\xFF",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\tb\r\n\r\n",
            "user_agent",
            r"a\x09b",
        ),
        (b"GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n", "target", r"/\x5C"),
        (b"GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", "error", "bad-host"),
        (
            b"GET / HTTP/1.1\r\nHost: a\x1bb\r\n\r\n",
            "error",
            "bad-field",
        ),
        (
            b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
            "status",
            "400",
        ),
        (
            b"GET /\xe4\x85\xa0\xff?\xc2\x9b HTTP/1.1\r\nHost: a\r\n\r\n",
            "target",
            r"/\xE4\x85\xA0\xFF?\xC2\x9B",
        ),
        (b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", "status", "400"),
        (b"GET /\nx HTTP/1.1\r\nHost: a\r\n\r\n", "status", "400"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\rb\r\n\r\n",
            "error",
            "bad-field",
        ),
        (b"G\"T / HTTP/1.1\r\nHost: a\r\n\r\n", "method", "-"),
    ];
    for (at, (request, key, value)) in table.iter().enumerate() {
        let of = request.escape_ascii();
        gateway.connect().ask(request);
        let lines = gateway.wait_for_access_lines(at + 1);
        assert_eq!(lines.len(), at + 1, "{of}");
        assert_eq!(lines[at].get(key), *value, "{of}: {}", lines[at].raw);
    }
    printable_lines(&std::fs::read(gateway.path("access.log")).unwrap());
}

#[test]
fn no_noise_in_a_request_breaks_a_line() {
    let origin = Origin::named("prod");
    let gateway = setup()
        .lists(&[], &[], &[&origin])
        .set("gateway.head_timeout", "1s")
        .start();
    let mut noise = fastrand::Rng::with_seed(1);
    let odd = b"\r\n\x1b\"\\\xff\0\t =\x7f%";
    for count in 1..=300 {
        let mut request =
            b"GET /target HTTP/1.1\r\nHost: host.example\r\nUser-Agent: some agent\r\n\r\n"
                .to_vec();
        for _ in 0..noise.usize(1..4) {
            let (at, byte) = (noise.usize(..request.len() - 4), noise.usize(..odd.len()));
            request[at] = odd[byte];
        }
        let mut client = gateway.connect();
        client.send(&request);
        // An answer is all that is asked for; a head without its end is cut by the FIN.
        client.half_close();
        let _ = client.try_response_to("GET");
        drop(client);
        gateway.wait_for_metric("graygate_connections_active{worker=\"0\"}", 0.0);
        let total = gateway.metric("graygate_worker_requests_total{worker=\"0\"}");
        assert!(total >= f64::from(count), "{}", request.escape_ascii());
    }
    let total = gateway.metric("graygate_worker_requests_total{worker=\"0\"}") as usize;
    gateway.wait_for_access_lines(total);
    let lines = printable_lines(&std::fs::read(gateway.path("access.log")).unwrap());
    assert_eq!(lines.len(), total);
}

#[test]
fn the_access_log_goes_where_it_is_told() {
    let origin = Origin::named("prod");
    for (target, on_stdout, on_stderr) in [
        ("off", 0, 0),
        ("-", 3, 0),
        ("stdout", 3, 0),
        ("stderr", 0, 3),
    ] {
        let mut gateway = Setup::serving(&origin).set("log.access", target).start();
        for _ in 0..3 {
            assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
        }
        gateway.signal(Signal::SIGTERM);
        assert!(gateway.wait_exit().success());
        for (stream, count) in [(&gateway.stdout, on_stdout), (&gateway.stderr, on_stderr)] {
            // The reader of the stream may lag behind.
            wait_until(target, DEADLINE, || stream.count("status=200") == count);
        }
        assert_eq!(gateway.stdout.all().len(), on_stdout);
        let names: Vec<_> = std::fs::read_dir(gateway.path("")).unwrap().collect();
        // The ini file and the lists.
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

/// A gateway whose access log goes into a pipe that nobody reads until it is opened at the path.
fn stalled(setup: Setup, origin: &Origin) -> (Gateway, PathBuf, File) {
    let setup = setup.set("log.access", "-").lists(&[], &[], &[origin]);
    let path = setup.path("pipe");
    let pipe = pipe_at(&path);
    let shell = format!("exec \"$0\" \"$@\" >'{}'", path.display());
    (setup.under(&["sh", "-c", &shell]).start(), path, pipe)
}

#[test]
fn a_stall_under_light_traffic_costs_nothing() {
    let origin = Origin::named("prod");
    // Each worker hands over its lines at each of its ticks, however few they are.
    let (gateway, path, pipe) = stalled(Setup::new().set("gateway.workers", 8), &origin);
    let mut clients: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
    for at in 0..3_000 {
        assert_eq!(clients[at % 8].ask(GET).status(), 200);
    }
    let read = Lines::of(File::open(path).unwrap());
    drop(pipe);
    wait_until("every line", DEADLINE, || read.all().len() == 3_000);
    let dropped = "graygate_log_dropped_total{log=\"access\"}";
    assert_eq!(gateway.shown_metric(dropped), Some(0.0));
}

#[test]
fn a_reader_of_the_log_that_stalls_costs_lines_and_no_requests() {
    let origin = Origin::named("prod");
    let (mut gateway, path, pipe) = stalled(setup(), &origin);
    let dropped = || gateway.metric("graygate_log_dropped_total{log=\"access\"}") as usize;
    // Long lines fill the queue sooner.
    let request = format!(
        "GET /{0} HTTP/1.1\r\nHost: {1}\r\nUser-Agent: {0}\r\n\r\n",
        "a".repeat(600),
        "b".repeat(250)
    );
    let many = request.repeat(50);
    let mut client = gateway.connect();
    let mut requests = 0;
    while dropped() == 0 {
        client.send(&many);
        for _ in 0..50 {
            assert_eq!(client.response().status(), 200);
        }
        requests += 50;
        assert!(requests < 50_000, "the queue takes everything");
    }
    assert!(requests > 2_000, "only {requests} lines were held");
    // Nothing has changed for those who are served.
    let start = Instant::now();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    assert!(start.elapsed() < Duration::from_secs(2));
    requests += 1;
    drop(client);

    // Once it reads again, every line is there or was counted.
    let read = Lines::of(File::open(path).unwrap());
    drop(pipe);
    wait_until("what was held is written", DEADLINE, || {
        assert_eq!(gateway.get("127.0.0.1", "/end").status(), 200);
        requests += 1;
        read.count("target=\"/end\"") > 0
    });
    let lost = dropped();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    let mut lines = Vec::new();
    wait_until("every line", DEADLINE, || {
        lines = read.all();
        lines.len() + lost >= requests
    });
    assert_eq!(lines.len() + lost, requests);
    printable_lines((lines.join("\n") + "\n").as_bytes());
}

#[test]
fn a_full_disk_costs_lines_and_no_requests_and_is_said_once() {
    let origin = Origin::named("prod");
    let gateway = Setup::serving(&origin)
        .set("log.access", "/dev/full")
        .start();
    let start = Instant::now();
    for requests in 1..=20 {
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
        let dropped = "graygate_log_dropped_total{log=\"access\"}";
        gateway.wait_for_metric(dropped, f64::from(requests));
    }
    let said = gateway.wait_for_log("log-write-failed log=access");
    assert!(said.contains("No space left on device"), "{said}");
    // Not more than every ten seconds.
    let most = 1 + start.elapsed().as_secs() as usize / 10;
    assert!(gateway.stderr.count("log-write-failed") <= most);
}

#[test]
fn trouble_with_the_access_log_stands_in_the_error_log() {
    let origin = Origin::named("prod");
    let setup = Setup::new().set("log.access", "/dev/full");
    let setup = setup.set("log.error", "error.log");
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    wait_for("a line in the error log", || {
        let log = std::fs::read_to_string(gateway.path("error.log")).unwrap();
        log.contains(" ERROR log-write-failed log=access ")
            .then_some(())
    });
}

/// A gateway that does not say when it is ready where the harness could read it.
struct Silent {
    child: Child,
    addr: std::net::SocketAddr,
    /// Keeps the folder.
    _setup: Setup,
}

impl Silent {
    #[track_caller]
    fn start(setup: Setup) -> Self {
        let setup = setup
            .set("gateway.pid_file", "pid")
            .set("admin.listen", "off");
        let child = setup.spawn();
        let pid = setup.path("pid");
        wait_until("the pid file", DEADLINE, || {
            std::fs::read_to_string(&pid).is_ok_and(|it| it.ends_with('\n'))
        });
        let port = wait_for("its port", || listening_ports(child.id()).pop_first());
        let addr = ([127, 0, 0, 1], port).into();
        Self {
            child,
            addr,
            _setup: setup,
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_error_log_that_cannot_be_written_costs_no_requests() {
    let (origin, dead) = (Origin::named("pre"), RefusingPeer::new());
    let setup = Setup::new().set("log.error", "/dev/full");
    let mut gateway = Silent::start(setup.lists(&["127.0.0.5"], &[&origin], &[&dead]));
    let stderr = Lines::of(gateway.child.stderr.take().unwrap());
    for _ in 0..10 {
        assert_eq!(
            Client::from("127.0.0.5", gateway.addr).get("/").status(),
            200
        );
        // This one is reported, in vain.
        assert_eq!(
            Client::from("127.0.0.1", gateway.addr).get("/").status(),
            502
        );
    }
    // The last place that is left.
    wait_until("a word on stderr", DEADLINE, || {
        stderr.count("log-write-failed log=error") > 0
    });
}

#[test]
fn every_line_is_whole_or_the_last_before_the_disk_was_full() {
    let origin = Origin::named("prod");
    // The disk is full at some KiB, until the limit is lifted.
    let shell = "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" \"$@\"";
    let setup = setup().lists(&[], &[], &[&origin]);
    let mut gateway = setup.under(&["sh", "-c", shell]).start();
    let dropped = || gateway.metric("graygate_log_dropped_total{log=\"access\"}") as usize;
    let mut client = gateway.connect();
    let mut requests = 0;
    wait_until("the disk is full", DEADLINE, || {
        client.send(GET.repeat(7));
        for _ in 0..7 {
            assert_eq!(client.response().status(), 200);
        }
        requests += 7;
        dropped() > 0
    });
    let pid = gateway.pid().to_string();
    let lifted = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(lifted.unwrap().success());
    for _ in 0..5 {
        assert_eq!(client.ask(GET).status(), 200);
        requests += 1;
    }
    drop(client);
    gateway.wait_for_metric("graygate_connections_active{worker=\"0\"}", 0.0);
    let lost = dropped();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    let text = std::fs::read_to_string(gateway.path("access.log")).unwrap();
    let is_whole = |line: &&str| {
        AccessLine::parse(line)
            .is_some_and(|it| it.keys() == KEYS && it.get("client") == "127.0.0.1")
    };
    let whole = text.lines().filter(is_whole).count();
    assert!(text.lines().count() - whole <= 1, "{text}");
    assert_eq!(whole + lost, requests, "{text}");
}

#[test]
fn the_level_decides_what_is_said_and_can_be_changed() {
    let setup = Setup::new().set("gateway.max_fields", 10);
    let setup = setup.set("lists.guard_share", 100);
    let mut gateway = setup.lists(&[], &[], &[&"127.0.0.1:9"]).start();
    let table = [
        ("error", false, false),
        ("warn", true, false),
        ("info", true, true),
        ("debug", true, true),
    ];
    for (round, (level, warns, informs)) in (1..).zip(table) {
        // Something to be seen from outside, since the level may hide the reload itself.
        let fields = 10 + round;
        gateway.edit_ini(|it| {
            let it = it.set("log.level", level);
            it.set("gateway.max_fields", fields)
        });
        gateway.signal(Signal::SIGHUP);
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(fields - 1)
        );
        wait_until("the reload", DEADLINE, || {
            gateway.connect().ask(&many).status() == 502
        });
        // A piece of information, a warning, and last an error.
        let dead = RefusingPeer::new();
        gateway.write_lists(&[], &[], &[&dead]);
        let generation = round + 1;
        gateway.wait_for_lists("the new peer", |it| it["generation"] == generation);
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
        gateway.write_lists_text("nonsense\n");
        wait_until("the error", DEADLINE, || {
            gateway.stderr.count(" ERROR lists-unreadable ") == round
        });
        // The lines keep their order, so what was said before stands there too.
        let warning = format!(" WARN attempt-failed pool=prod peer={dead} ");
        assert_eq!(
            gateway.stderr.count(&warning),
            usize::from(warns),
            "{level}"
        );
        let information = format!(" INFO lists-published generation={generation} ");
        let informed = gateway.stderr.count(&information);
        assert_eq!(informed, usize::from(informs), "{level}");
    }
}

#[test]
fn what_stands_in_redis_cannot_forge_a_line_of_the_error_log() {
    let redis = Redis::start();
    redis.push("prod", &[&"127.0.0.1:9"]);
    let forged = "x\n2026-01-01T00:00:00.000Z ERROR forged \u{1b}[31m\"";
    redis.cli(&["RPUSH", "gray", "10.0.0.1", forged]);
    let gateway = Setup::new().redis(redis.url()).start();
    let line = gateway.wait_for_log("entries-skipped list=gray count=1");
    assert!(line.contains("forged"), "{line}");
    assert!(line.bytes().all(|it| matches!(it, b' '..=b'~')), "{line:?}");
    assert_eq!(gateway.stderr.count("forged"), 1);
}

/// Checks that the gateway has refused to start with one line, and returns that.
#[track_caller]
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_log_that_cannot_be_opened_is_named_at_the_start() {
    for key in ["log.access", "log.error"] {
        for (target, named) in [
            ("missing/folder/a.log", "missing/folder: "),
            ("lists/a.log", "lists/a.log: "),
            ("./folder", "folder: "),
            ("/proc/a.log", "/proc/a.log: "),
        ] {
            let setup = Setup::serving(&"127.0.0.1:9")
                .set("gateway.pid_file", "pid")
                .set(key, target);
            std::fs::create_dir(setup.path("folder")).unwrap();
            let said = complaint(&setup.start_in_vain());
            assert!(said.contains(named), "{key} = {target}: {said}");
            assert!(!setup.path("pid").exists());
        }
    }
}

#[test]
fn a_log_folder_that_is_missing_is_made() {
    let setup = Setup::serving(&"127.0.0.1:9");
    let gateway = setup.set("log.access", "logs/access.log").start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
    wait_until("a line", DEADLINE, || {
        let log = File::open(gateway.path("logs/access.log")).unwrap();
        BufReader::new(log).lines().count() == 1
    });
}
