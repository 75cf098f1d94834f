//! Requests in the chunked coding that are unusual, and requests that stop in the middle.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{DEADLINE, Gateway, Origin, Setup, Wire, ok, wait_until};

/// What the gateway says of a client at 127.0.0.1 that asks for `a`.
const OURS: &str = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
    X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

/// The chunks of a body that is dear to frame and next to nothing in content.
const CHUNKS: usize = 1_000_000;

/// More memory than this is not for frames.
const SOME_KIB: u64 = 16 << 10;

/// Reads the chunks of a body of `x`es to their end, and tells how many have come so far.
fn count_to_end(wire: &mut Wire, mut so_far: impl FnMut(usize)) -> io::Result<()> {
    let (mut count, mut tail) = (0, Vec::new());
    while !tail.ends_with(END) {
        let piece = wire.some(usize::MAX)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        count += memchr::memchr_iter(b'x', &piece).count();
        so_far(count);
        // The end may come in two pieces.
        tail.extend_from_slice(&piece[piece.len().saturating_sub(END.len())..]);
        tail.drain(..tail.len().saturating_sub(END.len()));
    }
    Ok(())
}

const END: &[u8] = b"0\r\n\r\n";

#[test]
fn a_million_chunks_of_one_byte_up_take_no_memory() {
    static ARRIVED: AtomicUsize = AtomicUsize::new(0);
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        count_to_end(&mut conn.wire, |count| {
            ARRIVED.store(count, Ordering::Relaxed)
        })?;
        conn.send(ok("thanks"))
    });
    let gateway = Gateway::serving(&origin);
    let before = gateway.rss_kib();
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = "1\r\nx\r\n".repeat(CHUNKS / 100);
    for at in 1..=100 {
        client.send(&chunks);
        // No deadline is for all of it, since machines differ.
        wait_until("these chunks have arrived", DEADLINE, || {
            ARRIVED.load(Ordering::Relaxed) == CHUNKS / 100 * at
        });
        let grown = gateway.rss_kib().saturating_sub(before);
        assert!(grown < SOME_KIB, "{grown} KiB more");
    }
    client.send(END);
    assert_eq!(client.response().text(), "thanks");
}

#[test]
fn a_million_chunks_of_one_byte_down_take_no_memory() {
    let origin = Origin::scripted(|conn| {
        let chunks = "1\r\nx\r\n".repeat(CHUNKS / 100);
        while let Some(request) = conn.request()? {
            if request.head.target() == "/small" {
                conn.send(ok(""))?;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..100 {
                conn.send(&chunks)?;
            }
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    });
    let gateway = Gateway::serving(&origin);
    assert_eq!(gateway.get("127.0.0.1", "/small").status(), 200);
    let before = gateway.rss_kib();
    let mut client = gateway.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    let mut last = 0;
    let look = |count| {
        last = count;
        let grown = gateway.rss_kib().saturating_sub(before);
        assert!(grown < SOME_KIB, "{grown} KiB more");
    };
    count_to_end(&mut client.wire, look).unwrap();
    assert_eq!(last, CHUNKS);
    assert_eq!(client.get("/small").status(), 200);
}

#[test]
fn chunk_extensions_are_dropped_up_to_4_kib_in_all() {
    let origin = Origin::saying(ok(""));
    let gateway = Gateway::serving(&origin);
    let long = "x".repeat(4000);
    let many = format!("1;{}\r\na\r\n", "x".repeat(500)).repeat(8);
    let table = [
        (
            "1;a\r\nx\r\n0;b=c\r\n\r\n".to_owned(),
            "1\r\nx\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "001;a=\"b;\\\"c\";d\r\nx\r\n000\r\n\r\n".to_owned(),
            "1\r\nx\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "1;a=\"\u{e4}\t\"\r\nx\r\n0\r\n\r\n".to_owned(),
            "1\r\nx\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "000000000000000A\r\n0123456789\r\n0\r\n\r\n".to_owned(),
            "a\r\n0123456789\r\n0\r\n\r\n".to_owned(),
        ),
        (
            format!("1;{long}\r\nx\r\n0\r\n\r\n"),
            "1\r\nx\r\n0\r\n\r\n".to_owned(),
        ),
        (
            format!("{many}0\r\n\r\n"),
            format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(8)),
        ),
    ];
    let head = "PUT / HTTP/1.1\r\nHost: a\r\n";
    let coding = "Transfer-Encoding: chunked\r\n\r\n";
    for (body, passed) in table {
        let mut client = gateway.connect();
        client.send(format!("{head}{coding}{body}"));
        assert_eq!(client.response().status(), 200, "{body:.100}");
        let received = origin.last().bytes();
        let expected = format!("{head}{OURS}{coding}{passed}");
        assert_eq!(String::from_utf8_lossy(&received), expected);
    }
}

#[test]
fn a_size_with_blanks_behind_it_is_read_in_a_response_and_refused_in_a_request() {
    let body = "5  \r\nhello\r\n1;a \t\r\n!\r\n0    \r\nX: 1\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let origin = Origin::saying(format!("{head}{body}"));
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let got = client.get("/").bytes();
        let expected = format!("{head}5\r\nhello\r\n1\r\n!\r\n0\r\nX: 1\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }
    assert_eq!(origin.accepted(), 1);
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ));
    let refusal = "400 Bad Request: bad-chunk\n";
    assert_eq!(client.response().text(), refusal);
}

#[test]
fn an_endless_response_may_have_an_extension_in_every_chunk() {
    // Far more of them in the whole body than one chunk may have, written as some servers do.
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            let line = match request.head.target().as_str() {
                "/long" => format!("1;{}\r\nx\r\n", "e".repeat(5000)),
                _ => "1 ; chunk-signature = \"0123456789abcdef\";\tb\r\nx\r\n".to_owned(),
            };
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..10 {
                conn.send(line.repeat(100))?;
            }
            conn.send("0; end\r\n\r\n")?;
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.text(), "x".repeat(1000));
        // What is of the other hop is gone.
        let bytes = String::from_utf8_lossy(&response.bytes()).into_owned();
        assert!(!bytes.contains(';'), "{bytes:.200}");
    }
    // The line of one chunk is bounded.
    let mut client = gateway.connect();
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    // How much of it was passed on before is a matter of time.
    let failed = "graygate_attempts_total{pool=\"prod\",outcome=\"bad-response-chunk\"}";
    wait_until("the response is cut", DEADLINE, || {
        gateway.metric(failed) == 1.0
    });
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_request_that_stops_in_its_body_is_given_up_and_never_completed() {
    // What is sent, and what of it the peer gets before the end of the connection.
    let length = "Content-Length: 10\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let table = [
        (length, "", ""),
        (length, "hello", "hello"),
        (length, "123456789", "123456789"),
        (chunked, "", ""),
        (chunked, "5", ""),
        (chunked, "5\r\n", ""),
        (chunked, "5\r\nhello", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r\n", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r\n0", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r\n0\r\nX: y\r\n", "5\r\nhello\r\n"),
        (chunked, "5\r\nhello\r\n0\r\n\r", "5\r\nhello\r\n"),
    ];
    for resets in [false, true] {
        let origin = Origin::recording();
        // No deadline may do it in the client's place.
        let gateway = Setup::serving(&origin)
            .set("gateway.body_timeout", "1h")
            .set("upstream.read_timeout", "1h")
            .start();
        for (at, (framing, body, passed)) in table.into_iter().enumerate() {
            let of = format!("{framing:?} {body:?}, resets: {resets}");
            let head = "POST / HTTP/1.1\r\nHost: a\r\n";
            let mut client = gateway.connect();
            client.send(format!("{head}{framing}{body}"));
            let expected = format!("{head}{OURS}{framing}{passed}");
            origin.wait(&of, |it| {
                it.recorded
                    .get(at)
                    .is_some_and(|it| it == expected.as_bytes())
            });
            match resets {
                true => client.reset(),
                false => {
                    client.half_close();
                    client.expect_close();
                }
            }
            origin.wait_closed(at + 1);
            assert_eq!(origin.accepted(), at + 1, "{of}");
            let received = origin.recorded(at);
            assert_eq!(String::from_utf8_lossy(&received), expected, "{of}");
            let lines = gateway.wait_for_access_lines(at + 1);
            assert!(
                lines[at].has("status=000 close=body-cut"),
                "{}",
                lines[at].raw
            );
        }
    }
}
