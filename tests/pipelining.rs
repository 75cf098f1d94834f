//! Several requests on one connection: where one ends and the next begins, whatever the client
//! does about the answers.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{DEADLINE, Gateway, Origin, Setup, ok, wait_until};

fn by_target() -> Origin {
    Origin::answering(|request| match request.head.method().as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => ok(request.head.target()),
    })
}

/// What the gateway says of a client at 127.0.0.1 that asks for `a`.
const OURS: &str = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
    X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

#[test]
fn a_body_is_taken_whole_with_any_method_and_what_follows_is_the_next_request() {
    let origin = by_target();
    let gateway = Gateway::serving(&origin);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let size = inner.len();
    let framings = [
        (format!("Content-Length: {size}\r\n"), inner.to_owned()),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("{size:x}\r\n{inner}\r\n0\r\n\r\n"),
        ),
        // No framing, no body: what follows the head is a request.
        (String::new(), String::new()),
        ("Content-Length: 0\r\n".to_owned(), String::new()),
    ];
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n";
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PURGE"] {
        for (field, body) in &framings {
            let begin = format!("{method} /outer HTTP/1.1\r\nHost: a\r\n");
            let before = origin.requests().len();
            let mut client = gateway.connect();
            client.send(format!("{begin}{field}\r\n{body}{next}\r\n"));
            assert_eq!(client.response_to(method).status(), 200, "{begin}{field}");
            assert_eq!(client.response().text(), "/next", "{begin}{field}");
            let received: Vec<u8> = origin.requests()[before..]
                .iter()
                .flat_map(|it| it.bytes())
                .collect();
            let expected = format!("{begin}{OURS}{field}\r\n{body}{next}{OURS}\r\n");
            assert_eq!(String::from_utf8_lossy(&received), expected);
        }
    }
}

#[test]
fn one_empty_line_before_a_request_is_ignored_and_a_second_refused_however_they_are_cut() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let mut other = gateway.connect();
    let get = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    for (before, refusal) in [
        ("\r\n", None),
        ("\r\n\r\n", Some("bad-request-line")),
        ("\r\r\n", Some("bad-request-line")),
        ("\r", Some("bad-request-line")),
        ("\n", Some("bare-lf")),
        ("\r\n\n", Some("bare-lf")),
    ] {
        // Each bit is a cut before a byte, or between it and the request.
        for cuts in 0_usize..2 << before.len() {
            for begin in ["", post] {
                let of = format!("{before:?}, cut at {cuts:b}, behind {begin:?}");
                let mut client = gateway.connect();
                let (mut piece, mut is_begun) = (begin.to_owned(), begin.is_empty());
                for at in 0..=before.len() {
                    if cuts & (1 << at) != 0 {
                        client.send_if_open(std::mem::take(&mut piece));
                        if !std::mem::replace(&mut is_begun, true) {
                            assert_eq!(client.response().text(), "/first", "{of}");
                        }
                        // What was sent is taken when this is answered, on the only worker.
                        assert_eq!(other.get("/other").text(), "/other");
                    }
                    piece.push_str(before.get(at..=at).unwrap_or(get));
                }
                client.send_if_open(piece);
                if !is_begun {
                    assert_eq!(client.response().text(), "/first", "{of}");
                }
                let response = client.response();
                match refusal {
                    None => assert_eq!(response.text(), "/next", "{of}"),
                    Some(name) => {
                        let text = format!("400 Bad Request: {name}\n");
                        assert_eq!(response.text(), text, "{of}");
                        client.half_close();
                        client.expect_close();
                    }
                }
            }
        }
    }
    let asked = |it: &&support::Request| it.head.target() == "/next";
    assert_eq!(origin.requests().iter().filter(asked).count(), 2 * 8);
}

#[test]
fn a_client_that_ends_its_side_with_the_request_gets_every_response() {
    let origin = by_target();
    let gateway = Gateway::serving(&origin);
    let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let put = "PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let chunks =
        "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    for requests in [
        vec![get],
        vec![put],
        vec![chunks],
        vec![get, put, chunks, get],
    ] {
        let before = origin.requests().len();
        let mut client = gateway.connect();
        client.send_with_end(requests.concat());
        for request in &requests {
            let target = request.split(' ').nth(1).unwrap();
            assert_eq!(client.response().text(), target);
        }
        client.expect_close();
        assert_eq!(origin.requests().len(), before + requests.len());
    }
}

#[test]
fn a_client_that_pipelines_and_does_not_read_costs_bounded_memory_and_gets_all_answers_later() {
    // Of both, requests and responses, there is more than the kernel takes and than may be held.
    const REQUESTS: usize = 300;
    const SIZE: usize = 60_000;
    const SOME_KIB: u64 = 8 << 10;
    let origin = Origin::answering(|request| {
        let mut content = request.head.target();
        content.push_str(&" ".repeat(2 * SIZE));
        ok(content)
    });
    let gateway = Setup::serving(&origin)
        .set("gateway.send_timeout", "1h")
        .set("gateway.min_rate", "off")
        .set("upstream.read_timeout", "1h")
        .start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 200);
    let before = gateway.rss_kib();
    let check_memory = || {
        let grown = gateway.rss_kib().saturating_sub(before);
        assert!(grown < SOME_KIB, "{grown} KiB more");
    };
    let mut client = gateway.connect();
    let mut writing = client.wire.stream.try_clone().unwrap();
    writing.set_write_timeout(None).unwrap();
    let body = "x".repeat(SIZE);
    let request = |at: usize| {
        format!("PUT /{at} HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n{body}")
    };
    let sending = std::thread::spawn({
        let requests: Vec<String> = (0..REQUESTS).map(request).collect();
        move || {
            requests
                .iter()
                .try_for_each(|it| writing.write_all(it.as_bytes()))
        }
    });
    // Neither the gateway nor the peer gets on: for so many looks, nothing more was asked.
    let (mut last, mut unchanged) = (0, 0);
    wait_until("the gateway takes no more", 2 * DEADLINE, || {
        let seen = origin.seen(|it| it.requests.len());
        unchanged = if seen == last { unchanged + 1 } else { 0 };
        last = seen;
        seen > 1 && unchanged == 100
    });
    assert!(last < REQUESTS, "all was served");
    check_memory();
    for at in 0..REQUESTS {
        let content = client.response().content;
        assert!(content.starts_with(format!("/{at} ").as_bytes()), "{at}");
    }
    sending.join().unwrap().unwrap();
    check_memory();
}

#[test]
fn answers_of_the_gateways_own_without_end_leave_others_their_turn() {
    let origin = Origin::named("prod");
    let gateway = Gateway::by_one_worker(&origin);
    let request = "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    let mut greedy = gateway.connect();
    let mut sending = greedy.wire.stream.try_clone().unwrap();
    let done = AtomicBool::new(false);
    let mut beside = std::thread::scope(|scope| {
        scope.spawn(move || while sending.write_all(request.repeat(500).as_bytes()).is_ok() {});
        scope.spawn(|| {
            let mut taken = 0;
            while !done.load(Ordering::Relaxed) {
                taken += greedy.wire.some(1 << 16).unwrap().len();
            }
            assert!(taken > 0);
            greedy.wire.stream.shutdown(std::net::Shutdown::Both)
        });
        let answered = || gateway.metric("graygate_refusals_total{reason=\"max-forwards\"}");
        wait_until("it is busy", DEADLINE, || answered() > 1000.0);
        let mut client = gateway.connect();
        let beside = (0..50).map(|_| {
            let before = answered();
            assert_eq!(client.get("/").text(), "prod");
            answered() - before
        });
        let beside: Vec<f64> = beside.collect();
        done.store(true, Ordering::Relaxed);
        beside
    });
    // Who gets no turn waits each time; a pause of the machine, or of who counts, comes now and then.
    beside.sort_by(f64::total_cmp);
    let median = beside[beside.len() / 2];
    println!("{median} answers beside one request");
    assert!(median < 5_000.0, "{beside:?}");
}
