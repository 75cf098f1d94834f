//! What the gateway refuses: the client is told, nothing passes, and the log and the counters
//! say why.

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use graygate::error::Refusal;
use support::{AccessLine, Client, Gateway, Origin, Response, Setup, wait_until};

/// Stands behind every refused request, and must never be taken for one.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A deadline short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);

/// A reason, the status that goes with it, and requests that are refused with it.
type Case = (&'static str, u16, Vec<Vec<u8>>);

/// Whole requests out of a request line, for what is wrong with that.
fn lines(lines: &[&str]) -> Vec<Vec<u8>> {
    let request = |line: &&str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    lines.iter().map(request).collect()
}

/// Whole requests out of a field section, for what is wrong with that.
fn fields(sections: &[&str]) -> Vec<Vec<u8>> {
    let request = |fields: &&str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
    sections.iter().map(request).collect()
}

/// As [`fields`], with a Host.
fn more_fields(sections: &[&str]) -> Vec<Vec<u8>> {
    let request =
        |fields: &&str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    sections.iter().map(request).collect()
}

/// Heads that are refused; max_line, max_head, max_body are 1 KiB, 2 KiB, 1 KiB and max_fields 10.
fn bad_heads() -> Vec<Case> {
    let long_target = format!("GET /{} HTTP/1.1", "a".repeat(1024));
    let long_method = format!("{} / HTTP/1.1", "M".repeat(33));
    let long_field = format!("X: {}", "a".repeat(2048));
    let many_fields = ["X: y"; 10].join("\r\n");
    let digits = format!("Content-Length: {}", "9".repeat(400));
    let raw = |requests: &[&[u8]]| requests.iter().map(|it| it.to_vec()).collect();
    let mut too_long = lines(&[&long_target]);
    // It is refused although its end has not come.
    too_long.push(vec![b'G'; 1100]);
    vec![
        (
            "bad-request-line",
            400,
            [
                lines(&[
                    "GET  / HTTP/1.1",
                    "GET /  HTTP/1.1",
                    "GET / HTTP/1.1 x",
                    "GET\t/ HTTP/1.1",
                    "GET /\tHTTP/1.1",
                    "GET / HTTP/1.1 ",
                    "GET /a b HTTP/1.1",
                    "GET /",
                    "GET / FTP/1.1",
                    "GET / http/1.1",
                    " GET / HTTP/1.1",
                    " / HTTP/1.1",
                    "\x16\x03\x01\x02",
                ]),
                raw(&[
                    b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                ]),
            ]
            .concat(),
        ),
        ("bad-method", 400, lines(&["G@T / HTTP/1.1", &long_method])),
        (
            "method-not-allowed",
            405,
            lines(&["CONNECT a:443 HTTP/1.1", "TRACE / HTTP/1.1"]),
        ),
        (
            "bad-target",
            400,
            [
                lines(&[
                    "GET /a#b HTTP/1.1",
                    "GET a HTTP/1.1",
                    "GET  HTTP/1.1",
                    "GET a:80 HTTP/1.1",
                    "GET * HTTP/1.1",
                    "POST * HTTP/1.1",
                    "OPTIONS ** HTTP/1.1",
                    "GET /\x7f HTTP/1.1",
                    "GET /\x01 HTTP/1.1",
                    "GET /\0 HTTP/1.1",
                    "GET http://u@a/ HTTP/1.1",
                    "GET http:///a HTTP/1.1",
                    "GET http://a:b/ HTTP/1.1",
                    "GET http://a,b/ HTTP/1.1",
                    "GET http:/a HTTP/1.1",
                    "GET ftp://a/ HTTP/1.1",
                ]),
                raw(&[
                    b"GET http://\xe4/ HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"GET http://a:\xb2/ HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"GET \xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"GET /\xe4#\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
                ]),
            ]
            .concat(),
        ),
        (
            "bad-version",
            505,
            lines(&[
                "GET / HTTP/2.0",
                "GET / HTTP/1.2",
                "GET / HTTP/0.9",
                "GET / HTTP/1.10",
                "GET / HTTP/01.1",
                "PRI * HTTP/2.0",
            ]),
        ),
        ("line-too-long", 414, too_long),
        ("head-too-large", 431, more_fields(&[&long_field])),
        ("too-many-fields", 431, more_fields(&[&many_fields])),
        (
            "bad-field",
            400,
            [
                more_fields(&[
                    ": x",
                    "no colon",
                    "A B: c",
                    "A : b",
                    "A\t: b",
                    "A(: b",
                    "A\0: b",
                    "A\r: b",
                    "A: b\r\n folded",
                    "A: b\r\n\tfolded",
                    "A: b\r\n ",
                    "A: b\0c",
                    "A: b\rc",
                    "A: b\r",
                    "A: b\x1b[31m",
                    "A: b\x7f",
                    "Content-Length : 5",
                    "Content-Length:\r\n 5",
                    "Transfer-Encoding : chunked",
                    "Transfer-Encoding:\r\n chunked",
                    "Transfer-Encoding: chunked\r\n ",
                    "Transfer-Encoding: \x0bchunked",
                    "Transfer-Encoding: \x0cchunked",
                    "Transfer-Encoding: chunked\0",
                    "Connection: close;x",
                ]),
                fields(&[" A: b\r\nHost: a", "\tA: b\r\nHost: a"]),
            ]
            .concat(),
        ),
        (
            "bare-lf",
            400,
            raw(&[
                b"GET / HTTP/1.1\nHost: a\n\n",
                b"GET / HTTP/1.1\r\nHost: a\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\n\n",
                b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ]),
        ),
        (
            "no-host",
            400,
            [
                fields(&["A: b"]),
                raw(&[b"GET http://a/ HTTP/1.1\r\nX-Host: a\r\n\r\n"]),
            ]
            .concat(),
        ),
        (
            "many-hosts",
            400,
            [
                fields(&["Host: a\r\nHost: a", "Host: a\r\nhost: b"]),
                raw(&[
                    b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
                    b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                ]),
            ]
            .concat(),
        ),
        (
            "bad-host",
            400,
            fields(&[
                "Host:",
                "Host: a,b",
                "Host: a/b",
                "Host: u@a",
                "Host: a:b",
                "Host: a:65536",
                "Host: a:-1",
                "Host: a:+80",
                "Host: a:80:80",
                "Host: a:80 ,",
                "Host: :80",
                "Host: a b",
                "Host: a\tb",
                "Host: a?b",
                "Host: a#b",
                "Host: a\\b",
                "Host: \"a\"",
                "Host: a%2",
                "Host: [::1",
                "Host: [::g]",
                "Host: [::1]80",
                "Host: [a]",
                "Host: http://a",
            ]),
        ),
        (
            "length-and-coding",
            400,
            more_fields(&[
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\nContent-Length: 0",
            ]),
        ),
        (
            "many-lengths",
            400,
            more_fields(&[
                "Content-Length: 5\r\nContent-Length: 5",
                "Content-Length: 5\r\nContent-Length: 6",
                "Content-Length: 5\r\nA: b\r\ncontent-length: 5",
                "Content-Length: 5, 5",
                "Content-Length: 5,5",
                "Content-Length: 5, 6",
                "Content-Length: 5,",
                "Content-Length: ,5",
            ]),
        ),
        (
            "bad-length",
            400,
            more_fields(&[
                "Content-Length: +5",
                "Content-Length: -1",
                "Content-Length: 0x5",
                "Content-Length: 5 5",
                "Content-Length: 5_0",
                "Content-Length: 5;",
                "Content-Length: \"5\"",
                "Content-Length: 5.0",
                "Content-Length: 5e0",
                "Content-Length: \u{665}",
                "Content-Length:",
                "Content-Length: 9223372036854775808",
                "Content-Length: 18446744073709551621",
                &digits,
            ]),
        ),
        (
            "bad-coding",
            400,
            more_fields(&[
                "Transfer-Encoding: \"chunked\"",
                "Transfer-Encoding: chunked;x",
                "Transfer-Encoding: ,chunked",
                "Transfer-Encoding: chunked,",
                "Transfer-Encoding: chunked chunked",
                "Transfer-Encoding: 'chunked';",
                "Transfer-Encoding: chunked\u{a0}",
                "Transfer-Encoding:",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
            ]),
        ),
        (
            "unknown-coding",
            501,
            more_fields(&[
                "Transfer-Encoding: xchunked",
                "Transfer-Encoding: identity",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding: chunked, x",
                "Transfer-Encoding: chunked, chunked",
                "Transfer-Encoding: chunkedchunked",
            ]),
        ),
        (
            "coding-on-http10",
            400,
            raw(&[
                b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
                b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]),
        ),
        (
            "body-too-large",
            413,
            more_fields(&[
                "Content-Length: 1025",
                "Content-Length: 9223372036854775807",
            ]),
        ),
        (
            "bad-expect",
            417,
            more_fields(&[
                "Expect: 200-ok",
                "Expect: 100-continue, x",
                "Expect: 100-continue;x",
                "Expect: 100-continue\r\nExpect: x",
                "Expect: , x",
            ]),
        ),
    ]
}

/// Bodies that are refused, under the limits of [`bad_heads`].
fn bad_bodies() -> Vec<Case> {
    let large = format!("401\r\n{}\r\n0\r\n\r\n", "a".repeat(1025));
    let in_all = format!("{}0\r\n\r\n", "2\r\naa\r\n".repeat(513));
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(4100));
    // Each is small, and what counts is all of them.
    let extensions = format!("1;{}\r\na\r\n", "x".repeat(500)).repeat(9);
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(2048));
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(11));
    let all = |bodies: &[&str]| bodies.iter().map(|it| it.as_bytes().to_vec()).collect();
    vec![
        (
            "bad-chunk",
            400,
            all(&[
                "+1\r\na\r\n0\r\n\r\n",
                "-1\r\na\r\n0\r\n\r\n",
                "-0\r\n\r\n",
                "0x1\r\na\r\n0\r\n\r\n",
                "1_0\r\na\r\n0\r\n\r\n",
                " 1\r\na\r\n0\r\n\r\n",
                "1 \r\na\r\n0\r\n\r\n",
                "1\t\r\na\r\n0\r\n\r\n",
                "1 1\r\na\r\n0\r\n\r\n",
                "g\r\na\r\n0\r\n\r\n",
                "\r\n0\r\n\r\n",
                "00000000000000001\r\na\r\n0\r\n\r\n",
                "10000000000000001\r\na\r\n0\r\n\r\n",
                "1\na\r\n0\r\n\r\n",
                "1\ra\r\n0\r\n\r\n",
                "1\r\nab\r\n0\r\n\r\n",
                "1\r\na\n0\r\n\r\n",
                "1\r\na\r0\r\n\r\n",
                "1\r\na0\r\n\r\n",
                "0\n\n",
                "0\r\n\n",
                "0\r\nA: b\n\r\n",
                "1;\r\na\r\n0\r\n\r\n",
                "1;;a\r\na\r\n0\r\n\r\n",
                "1;a;\r\na\r\n0\r\n\r\n",
                "1 ;a\r\na\r\n0\r\n\r\n",
                "1; a\r\na\r\n0\r\n\r\n",
                "1;a=\r\na\r\n0\r\n\r\n",
                "1;=a\r\na\r\n0\r\n\r\n",
                "1;a=\"b\r\na\r\n0\r\n\r\n",
                "1;a\0\r\na\r\n0\r\n\r\n",
                "1;a\x1b\r\na\r\n0\r\n\r\n",
                "1;a=\"\x01\"\r\na\r\n0\r\n\r\n",
                "1;a\na\r\n0\r\n\r\n",
                "1;a\ra\r\n0\r\n\r\n",
                &extension,
                &extensions,
            ]),
        ),
        (
            "bad-trailer",
            400,
            all(&[
                "0\r\nno colon\r\n\r\n",
                "0\r\nA : b\r\n\r\n",
                "0\r\n: b\r\n\r\n",
                "0\r\n A: b\r\n\r\n",
                "0\r\nA: b\r\n folded\r\n\r\n",
                "0\r\nA: \0\r\n\r\n",
                "0\r\nA: b\rc\r\n\r\n",
            ]),
        ),
        ("trailer-too-large", 431, all(&[&trailer, &trailers])),
        ("body-too-large", 413, all(&[&large, &in_all])),
    ]
}

/// What is refused because of time or number, each with a test of its own below.
const BY_CIRCUMSTANCE: [&str; 3] = ["head-timeout", "body-timeout", "over-capacity"];

/// What is no fault of the client's; see `own_answers`.
const ANSWERED: [&str; 1] = ["max-forwards"];

/// What no client can cause: it is the operator's fault or the gateway's own.
const NOT_BY_CLIENTS: [&str; 2] = ["no-lists", "no-peers"];

/// What only a gateway without a default service refuses; see the tests of services.
const BY_SERVICES: [&str; 2] = ["unknown-host", "unknown-path"];

#[test]
fn every_refusal_has_a_case_in_this_file() {
    let others = [
        &BY_CIRCUMSTANCE[..],
        &ANSWERED,
        &BY_SERVICES,
        &NOT_BY_CLIENTS,
    ];
    let mut covered: Vec<&str> = others.concat();
    let cases = bad_heads().into_iter().chain(bad_bodies());
    covered.extend(cases.map(|(name, ..)| name));
    for refusal in Refusal::ALL {
        assert!(covered.contains(&refusal.name()), "{}", refusal.name());
    }
}

fn limited(origin: &Origin) -> Setup {
    Setup::serving(origin)
        .set("gateway.max_line", "1k")
        .set("gateway.max_head", "2k")
        .set("gateway.max_fields", "10")
        .set("gateway.max_body", "1k")
}

fn refusals(name: &str) -> String {
    format!("graygate_refusals_total{{reason=\"{name}\"}}")
}

/// Checks that `response` is the gateway's own, for this reason, and that the connection ends.
#[track_caller]
fn check_refusal(client: &mut Client, response: &Response, name: &str, status: u16, of: &str) {
    assert_eq!(response.status(), status, "{name}: {of}");
    let text = response.text();
    assert!(text.starts_with(&status.to_string()), "{text}");
    assert!(text.ends_with(&format!(": {name}\n")), "{text} to {of}");
    assert!(text.len() < 100, "{text}");
    let length = text.len().to_string();
    assert_eq!(response.field("content-length"), Some(length), "{of}");
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert_eq!(
        response.field("content-type").as_deref(),
        Some("text/plain")
    );
    assert_eq!(response.field("allow").is_some(), status == 405, "{of}");
    // Who the gateway is, and in which version, is nobody's business.
    assert_eq!(response.field("server"), None);
    client.expect_close();
}

/// Checks the access line of a refused request.
#[track_caller]
fn check_line(line: &AccessLine, response: &Response, name: &str) {
    let status = response.status();
    let expected = format!("error={name} close=refused status={status} client=127.0.0.1");
    assert!(line.has(&expected), "{expected}: {}", line.raw);
    let sent = response.head.raw.len() + response.raw.len();
    assert_eq!(line.get("sent"), sent.to_string(), "{}", line.raw);
}

#[test]
fn a_bad_head_is_refused_by_name_and_reaches_no_peer() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin).start();
    let mut count = 0;
    for (name, status, requests) in bad_heads() {
        for (at, request) in requests.iter().enumerate() {
            let of = request.escape_ascii().to_string();
            let mut client = gateway.connect();
            client.send([request, SMUGGLED].concat());
            let response = client.response();
            check_refusal(&mut client, &response, name, status, &of);
            gateway.wait_for_metric(&refusals(name), (at + 1) as f64);
            count += 1;
            let lines = gateway.wait_for_access_lines(count);
            assert_eq!(lines.len(), count, "{of}");
            check_line(&lines[count - 1], &response, name);
            assert!(lines[count - 1].has("pool=- peer=- attempts=0"), "{of}");
        }
    }
    let refused = "graygate_connections_closed_total{reason=\"refused\"}";
    gateway.wait_for_metric(refused, count as f64);
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_bad_body_is_refused_by_name_and_never_ends_at_the_peer() {
    let origin = Origin::recording();
    let gateway = limited(&origin).start();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n";
    let passed_on = "POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\n\
        X-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
        Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n";
    let mut count = 0;
    for (name, status, bodies) in bad_bodies() {
        let mut of_this_name = 0;
        for (body, whole) in bodies.iter().flat_map(|it| [(it, true), (it, false)]) {
            let of = format!("whole={whole} {}", body.escape_ascii());
            let mut client = gateway.connect();
            let rest = [body, SMUGGLED].concat();
            let connections = origin.accepted();
            if whole {
                client.send([head.as_bytes(), &rest].concat());
            } else {
                client.send(head);
                // One of before may come only now, of which nothing was passed on.
                origin.wait("what is good so far", |it| {
                    let mut new = it.recorded.iter().skip(connections);
                    new.any(|it| it == passed_on.as_bytes())
                });
                client.send(rest);
            }
            let response = client.response();
            check_refusal(&mut client, &response, name, status, &of);
            (count, of_this_name) = (count + 1, of_this_name + 1);
            gateway.wait_for_metric(&refusals(name), f64::from(of_this_name));
            let lines = gateway.wait_for_access_lines(count);
            check_line(&lines[count - 1], &response, name);
        }
    }
    // Every exchange is given up, and none looks complete. What came whole may have been judged
    // before anything of it was passed on.
    origin.wait_closed(origin.accepted());
    for connection in 0..origin.accepted() {
        let bytes = origin.recorded(connection);
        let text = bytes.escape_ascii();
        let begins = bytes.starts_with(passed_on.as_bytes()) || bytes.is_empty();
        assert!(begins, "{text}");
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "{text}");
        assert_eq!(memchr::memmem::find(&bytes, b"smuggled"), None, "{text}");
    }
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin).start();
    for request in [
        "HEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut client = gateway.connect();
        let response = client.ask(request);
        assert_eq!(response.status(), 400, "{request}");
        assert_ne!(response.field("content-length").as_deref(), Some("0"));
        client.expect_close();
    }
}

#[test]
fn what_is_pipelined_behind_a_refused_request_is_never_served() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin).start();
    let mut client = gateway.connect();
    let good = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    let bad = b"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello".as_slice();
    client.send([good, bad, SMUGGLED].concat());
    assert_eq!(client.response().text(), "prod");
    let response = client.response();
    check_refusal(&mut client, &response, "many-lengths", 400, "/bad");
    // Nor is what comes only now, while the gateway waits for the client to go.
    client.send_if_open(SMUGGLED);
    drop(client);
    let refused = "graygate_connections_closed_total{reason=\"refused\"}";
    gateway.wait_for_metric(refused, 1.0);
    let targets: Vec<String> = origin.seen(|it| it.heads.iter().map(|it| it.target()).collect());
    assert_eq!(targets, ["/good"]);
    assert_eq!(gateway.wait_for_access_lines(2).len(), 2);
}

#[test]
fn a_head_that_drips_is_refused_when_its_time_is_over() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin)
        .set("gateway.max_head", "1m")
        .set("gateway.head_timeout", format!("{}ms", SHORT.as_millis()))
        .start();
    let mut client = gateway.connect();
    let mut drip = client.wire.stream.try_clone().unwrap();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    // Each byte comes long before the deadline, which must not move because of it.
    let dripping = std::thread::spawn(move || {
        wait_until("the gateway closes", 2 * support::DEADLINE, || {
            drip.write_all(b"x").is_err()
        });
    });
    let response = client.response();
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    check_refusal(&mut client, &response, "head-timeout", 408, "a drip");
    // A client that does not stop is not listened to for ever.
    dripping.join().unwrap();
    gateway.wait_for_metric(&refusals("head-timeout"), 1.0);
    check_line(
        &gateway.wait_for_access_lines(1)[0],
        &response,
        "head-timeout",
    );
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_body_that_stalls_is_refused_when_its_time_is_over() {
    let origin = Origin::mute();
    let gateway = limited(&origin)
        .set("gateway.body_timeout", format!("{}ms", SHORT.as_millis()))
        .start();
    let table = [
        "Content-Length: 10\r\n\r\n",
        "Content-Length: 10\r\n\r\n123456789",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    ];
    for (at, request) in table.iter().enumerate() {
        let mut client = gateway.connect();
        let start = Instant::now();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{request}"));
        let response = client.response();
        assert!(start.elapsed() >= SHORT, "{request}: {:?}", start.elapsed());
        check_refusal(&mut client, &response, "body-timeout", 408, request);
        gateway.wait_for_metric(&refusals("body-timeout"), (at + 1) as f64);
        let lines = gateway.wait_for_access_lines(at + 1);
        check_line(&lines[at], &response, "body-timeout");
    }
    origin.wait_closed(table.len());
    assert!(origin.requests().is_empty());
}

/// Checks that the connection ends without a byte, no sooner than after `least`.
#[track_caller]
fn check_silent_close(gateway: &Gateway, client: &mut Client, since: Instant, reason: &str) {
    client.expect_close();
    assert!(since.elapsed() >= SHORT, "{:?}", since.elapsed());
    let closed = format!("graygate_connections_closed_total{{reason=\"{reason}\"}}");
    wait_until(&closed, support::DEADLINE, || gateway.metric(&closed) > 0.0);
    assert_eq!(gateway.metric(&refusals("head-timeout")), 0.0);
}

#[test]
fn an_idle_connection_is_closed_without_a_word_after_keepalive_timeout() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin)
        .set("gateway.head_timeout", "1h")
        .set(
            "gateway.keepalive_timeout",
            format!("{}ms", SHORT.as_millis()),
        )
        .start();
    let mut client = gateway.connect();
    let start = Instant::now();
    assert_eq!(client.get("/").status(), 200);
    check_silent_close(&gateway, &mut client, start, "keepalive-timeout");
    let lines = gateway.wait_for_access_lines(1);
    assert!(lines[0].has("error=- close=-"), "{}", lines[0].raw);
    assert_eq!(lines.len(), 1, "silence is no request");
}

#[test]
fn a_new_connection_that_sends_no_request_is_closed_without_a_word_after_head_timeout() {
    let origin = Origin::named("prod");
    // The one empty line that a client may send first is no request yet.
    for sent in ["", "\r\n"] {
        let gateway = limited(&origin)
            .set("gateway.head_timeout", format!("{}ms", SHORT.as_millis()))
            .set("gateway.keepalive_timeout", "1h")
            .start();
        let start = Instant::now();
        let mut client = gateway.connect();
        client.send(sent);
        check_silent_close(&gateway, &mut client, start, "head-timeout");
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
        // The line of a later request is the first.
        assert_eq!(gateway.wait_for_access_lines(1).len(), 1, "{sent:?}");
    }
}

#[test]
fn connections_over_the_limit_are_refused_until_one_has_ended() {
    let origin = Origin::named("prod");
    let gateway = limited(&origin).set("gateway.max_connections", 2).start();
    let mut held: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status(), 200);
    }
    for refused in 1..=3 {
        let mut client = gateway.connect();
        // It need not ask to be told.
        let response = client.response();
        check_refusal(&mut client, &response, "over-capacity", 503, "a third one");
        gateway.wait_for_metric(&refusals("over-capacity"), f64::from(refused));
    }
    let closed = "graygate_connections_closed_total{reason=\"over-capacity\"}";
    gateway.wait_for_metric(closed, 3.0);
    gateway.wait_for_log(" over-capacity client=127.0.0.1 connections=2 ");
    // Those within the limit are not disturbed.
    for client in &mut held {
        assert_eq!(client.get("/").status(), 200);
    }
    held.pop();
    gateway.wait_for_metric(
        "graygate_connections_closed_total{reason=\"client-closed\"}",
        1.0,
    );
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    assert_eq!(held[0].get("/").status(), 200);
}
