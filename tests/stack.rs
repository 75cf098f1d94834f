//! The stacks of the gateway's coroutines: on the longest ways of a request so little of them is
//! used that even a panic there (`panics.rs`) leaves half of a stack free.
//!
//! `cargo test --test stack -- --nocapture` prints how deep they were used, and with `--release`
//! how deep those of a release are.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io;

use graygate::net::STACK_SIZE;
use support::{Client, Conn, Gateway, LONGEST_WAY, Origin, RefusingPeer, Setup, Stacks, ok};

/// What `max_head` allows at most, and what `max_fields` does.
const LARGEST: usize = 1024 * 1024;
const FIELDS: usize = 256;

/// `count` fields that fill `room` bytes and mean nothing.
fn filling(count: usize, room: usize) -> String {
    let length = room / count;
    let fields = (0..count).map(|at| {
        let name = format!("x-{at}: ");
        let value = "v".repeat(length - name.len() - 2);
        format!("{name}{value}\r\n")
    });
    fields.collect()
}

/// The largest head, with the most fields, of which a hundred are nominated to be left out.
fn largest(method: &str, target: &str, framing: &str) -> String {
    let nominated: Vec<String> = (0..99).map(|at| format!("x-{at}")).collect();
    let chain = vec!["127.0.0.3"; 60].join(", ");
    let meaning = format!(
        "Host: a\r\nConnection: keep-alive, {}\r\nX-Forwarded-For: 192.0.2.1, {chain}\r\n{framing}",
        nominated.join(", ")
    );
    let meant = meaning.lines().count();
    let begin = format!("{method} {target}?{} HTTP/1.1\r\n", "q".repeat(LARGEST / 2));
    let room = LARGEST - begin.len() - meaning.len() - 2;
    let head = format!("{begin}{meaning}{}\r\n", filling(FIELDS - meant, room));
    assert!(LARGEST - head.len() < FIELDS, "{}", head.len());
    head
}

fn largest_response(framing: &str) -> String {
    let begin = "HTTP/1.1 200 OK\r\n";
    let room = LARGEST - begin.len() - framing.len() - 2;
    let meant = framing.lines().count();
    format!("{begin}{framing}{}\r\n", filling(FIELDS - meant, room))
}

fn trailer() -> String {
    filling(FIELDS, LARGEST - 1024)
}

const BIG: usize = 8 << 20;

/// Answers by the target; see the test.
fn answer(conn: &mut Conn) -> io::Result<()> {
    while let Some(head) = conn.head()? {
        conn.stream_body(&head, &mut |_| {})?;
        let target = head.target();
        match target.split('?').next().unwrap_or_default() {
            "/largest" => {
                let early = format!("HTTP/1.1 103 Early Hints\r\n{}\r\n", filling(200, 100_000));
                conn.send(early)?;
                conn.send(largest_response("Content-Length: 2\r\n"))?;
                conn.send("ok")?;
            }
            "/trailers" => {
                conn.send(largest_response("Transfer-Encoding: chunked\r\n"))?;
                let body = vec![b'c'; BIG];
                for chunk in body.chunks(100_000) {
                    conn.send(format!("{:x}\r\n", chunk.len()))?;
                    conn.send(chunk)?;
                    conn.send("\r\n")?;
                }
                conn.send(format!("0\r\n{}\r\n", trailer()))?;
            }
            "/big" => {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"))?;
                conn.send(vec![b'd'; BIG])?;
            }
            "/cut" => return Ok(()),
            "/torn" => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")?;
                return Ok(());
            }
            "/tunnel" => {
                conn.send(
                    "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
                )?;
                loop {
                    let piece = conn.wire.some(usize::MAX)?;
                    if piece.is_empty() {
                        return Ok(());
                    }
                    conn.send(piece)?;
                }
            }
            _ => conn.send(ok("small"))?,
        }
    }
    Ok(())
}

fn refused(gateway: &Gateway, request: impl AsRef<[u8]>, status: u16) {
    let mut client = gateway.connect();
    client.send_if_open(request);
    let response = client.response();
    assert_eq!(response.status(), status, "{}", response.text());
}

fn refusals(gateway: &Gateway) {
    let begin = "GET / HTTP/1.1\r\nHost: a\r\n";
    refused(gateway, "GET / HTTP/1.1\r\n\r\n", 400);
    refused(gateway, "GET /\r\n\r\n", 400);
    refused(gateway, format!("{begin}a\r\n\r\n"), 400);
    refused(gateway, format!("{begin}Content-Length: x\r\n\r\n"), 400);
    refused(
        gateway,
        format!("{begin}Transfer-Encoding: gzip\r\n\r\n"),
        501,
    );
    refused(
        gateway,
        format!("{begin}{}\r\n", filling(FIELDS, 10_000)),
        431,
    );
    refused(gateway, format!("{begin}{}\r\n", filling(1, LARGEST)), 431);
    refused(gateway, format!("GET /{}", "q".repeat(LARGEST)), 414);
    let chunked = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(gateway, format!("{chunked}5\r\nhello\r\nx\r\n"), 400);
    let extension = format!("5;a=\"{}\"\r\nhello\r\n", "\\\"".repeat(1500));
    refused(
        gateway,
        format!("{chunked}{extension}0\r\na b: 1\r\n\r\n"),
        400,
    );
    let too_large = filling(FIELDS + 1, LARGEST / 2);
    refused(
        gateway,
        format!("{chunked}{extension}0\r\n{too_large}\r\n"),
        431,
    );
    // Begun, and then nothing more.
    let begun = [begin.to_owned(), format!("{chunked}5\r\nhel")];
    let waiting = begun.map(|request| {
        let mut client = gateway.connect();
        client.send(request);
        client
    });
    for mut client in waiting {
        assert_eq!(client.response().status(), 408);
    }
}

fn tunnel(gateway: &Gateway) {
    let mut client = gateway.connect();
    let upgrade = "Connection: Upgrade\r\nUpgrade: echo\r\n";
    client.send(format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n"));
    assert_eq!(client.head().status(), 101);
    let mut sending = client.wire.stream.try_clone().unwrap();
    let bytes = vec![b't'; BIG];
    let sender = std::thread::spawn(move || io::Write::write_all(&mut sending, &bytes).unwrap());
    assert_eq!(client.exactly(BIG).len(), BIG);
    sender.join().unwrap();
}

/// Header of the PROXY protocol, version 2, with as many further values as are taken.
fn proxy_header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x00".to_vec();
    header.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 80]);
    header.extend_from_slice(&[4, 0x0f, 0xf1]);
    header.resize(16 + 4096, 0);
    header
}

#[test]
fn the_longest_ways_of_a_request_use_little_of_the_stack() {
    let origin = Origin::scripted(answer);
    let bad = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
    let (one, two) = (RefusingPeer::new(), RefusingPeer::new());
    let gateway = Setup::new()
        .set("gateway.listen", "127.0.0.1:0, 127.0.0.1:0 proxy")
        .set("gateway.trusted_proxies", "127.0.0.3")
        .set("gateway.max_line", "1m")
        .set("gateway.max_head", "1m")
        .set("gateway.max_fields", FIELDS)
        .set("gateway.head_timeout", "2s")
        .set("gateway.body_timeout", "2s")
        .set("upstream.tries", 10)
        .set("log.level", "debug")
        .lists(&["192.0.2.1"], &[&one, &two, &bad], &[&origin])
        .start();
    let look = |what: &str| {
        let Stacks { deepest, count } = Stacks::of(&gateway.pid().to_string());
        println!("{deepest:6} of {STACK_SIZE} bytes in {count} stacks, after {what}");
        deepest
    };
    // Those of the workers' clocks and of the listeners.
    assert!(look("the start") > 0);

    assert_eq!(gateway.get("127.0.0.1", "/small").text(), "small");
    look("a small request");

    let mut client = gateway.connect();
    client.send(largest("GET", "/largest", ""));
    assert_eq!(client.head().status(), 103);
    assert_eq!(client.response().text(), "ok");
    look("the largest heads");

    client.send(largest(
        "POST",
        "/trailers",
        "Transfer-Encoding: chunked\r\n",
    ));
    client.send(format!("{BIG:x};e=\"{}\"\r\n", "\\\"".repeat(1500)));
    client.send(vec![b'u'; BIG]);
    client.send(format!("\r\n0\r\n{}\r\n", trailer()));
    let response = client.response();
    assert_eq!(
        (response.content.len(), response.trailers.len()),
        (BIG, FIELDS)
    );
    look("big bodies in chunks, with trailers");

    client.send(format!(
        "PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: {BIG}\r\n\r\n"
    ));
    client.send(vec![b'u'; BIG]);
    assert_eq!(client.response().content.len(), BIG);
    look("big bodies of a known length");

    tunnel(&gateway);
    look("a tunnel");

    refusals(&gateway);
    look("refusals");

    // Gray by the word of a trusted proxy, so that `pre` fails three times, and then `prod`.
    let mut gray = gateway.connect_from("127.0.0.3");
    let response = gray.ask(largest("GET", "/largest", ""));
    assert_eq!(response.status(), 103);
    assert_eq!(gray.response().text(), "ok");
    let line = gateway.wait_for_access("client=192.0.2.1 reason=pre-exhausted status=200");
    assert_eq!(line.get("attempts"), "4");
    assert_eq!(gray.ask(largest("GET", "/cut", "")).status(), 502);
    let mut torn = gateway.connect_from("127.0.0.3");
    torn.send(largest("GET", "/torn", ""));
    assert!(torn.try_response_to("GET").is_err());
    look("failed attempts");

    let mut proxied = Client::from("127.0.0.3", gateway.addrs()[1]);
    proxied.send(proxy_header());
    assert_eq!(proxied.ask(largest("GET", "/small", "")).text(), "small");
    let mut malformed = Client::from("127.0.0.3", gateway.addrs()[1]);
    malformed.send("GET / HTTP/1.1\r\n\r\n");
    malformed.expect_close();

    let deepest = look("connections by a proxy");
    assert!(deepest <= LONGEST_WAY, "{deepest} bytes");
}
