//! Clients that are slow on purpose: each is cut by a deadline that has a name, and costs little
//! until then.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Origin, Setup, ok, wait_until};

/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(400);

#[test]
fn a_body_that_drips_is_cut_although_it_never_stalls() {
    let origin = Origin::answering(|request| ok(request.content.len().to_string()));
    // At a byte every few milliseconds.
    for (rate, is_cut) in [("100k", true), ("off", false), ("1", false)] {
        let gateway = Setup::serving(&origin)
            .set("gateway.body_timeout", "400ms")
            .set("gateway.min_rate", rate)
            .start();
        let length = if is_cut { 100_000 } else { 200 };
        let mut client = gateway.connect();
        let mut drip = client.wire.stream.try_clone().unwrap();
        let start = Instant::now();
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ));
        let dripping = std::thread::spawn(move || {
            let mut left = length;
            wait_until("all is sent, or refused", 2 * DEADLINE, || {
                left -= 1;
                drip.write_all(b"x").is_err() || left == 0
            });
        });
        let response = client.response();
        assert!(start.elapsed() >= SHORT, "{rate}: {:?}", start.elapsed());
        let (status, text) = match is_cut {
            true => (408, "408 Request Timeout: body-timeout\n"),
            false => (200, "200"),
        };
        assert_eq!((response.status(), &*response.text()), (status, text));
        dripping.join().unwrap();
    }
}

/// Sends pieces of ten bytes, ten of them a second, until that is the whole body or the connection breaks.
fn trickle(mut to: std::net::TcpStream, chunked: bool, pieces: usize) {
    let send = |to: &mut std::net::TcpStream, bytes: &[u8]| to.write_all(bytes).is_ok();
    for _ in 0..pieces {
        std::thread::sleep(Duration::from_millis(100));
        let sent = match chunked {
            true => send(&mut to, b"a\r\n0123456789\r\n"),
            false => send(&mut to, b"0123456789"),
        };
        if !sent {
            return;
        }
    }
    if chunked {
        send(&mut to, b"0\r\n\r\n");
    }
}

#[test]
fn a_trickle_passes_where_little_is_announced_and_is_bounded_all_the_same() {
    let origin = Origin::answering(|request| ok(request.content.len().to_string()));
    type Case<'a> = (
        &'a str,
        &'a str,
        &'a str,
        usize,
        &'a str,
        std::ops::Range<f64>,
    );
    // The time and the rate, how the body is framed, how many pieces it has, what is answered, and after how
    // many seconds. A hundredth of the last rate is more than the trickle, with six seconds to spare.
    let table = [
        (
            "1s",
            "1000",
            "Transfer-Encoding: chunked",
            30,
            "200",
            3.0..9.0,
        ),
        ("1s", "1000", "Content-Length: 300", 30, "200", 3.0..9.0),
        ("1s", "1000", "Content-Length: 70000", 7000, "408", 1.0..9.0),
        (
            "300ms",
            "100k",
            "Transfer-Encoding: chunked",
            7000,
            "408",
            1.0..9.0,
        ),
        (
            "300ms",
            "100k",
            "Content-Length: 60000",
            6000,
            "408",
            1.0..9.0,
        ),
    ];
    let check = |(time, rate, framing, pieces, expected, when): Case<'_>| {
        let gateway = Setup::serving(&origin)
            .set("gateway.body_timeout", time)
            .set("gateway.min_rate", rate)
            .start();
        let mut client = gateway.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let drip = client.wire.stream.try_clone().unwrap();
        let chunked = framing.starts_with('T');
        let begun = Instant::now();
        let dripping = std::thread::spawn(move || trickle(drip, chunked, pieces));
        let response = client.response();
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(response.status().to_string(), expected, "{rate} {framing}");
        assert!(when.contains(&took), "{rate} {framing}: {took} s");
        drop(client);
        dripping.join().unwrap();
    };
    let check = &check;
    std::thread::scope(|scope| table.map(|case| scope.spawn(move || check(case))).map(drop));
}

#[test]
fn a_client_that_takes_its_response_in_drops_is_cut() {
    const LENGTH: usize = 64 << 20;
    let origin = Origin::scripted(|conn| {
        while conn.request()?.is_some() {
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
            ))?;
            for _ in 0..LENGTH >> 16 {
                conn.send([b'x'; 1 << 16])?;
            }
        }
        Ok(())
    });
    let gateway = Setup::serving(&origin)
        .set("gateway.send_timeout", "400ms")
        .set("gateway.min_rate", "10m")
        .start();
    let mut slow = support::Client::with_small_window("127.0.0.9", gateway.addr(), 4096);
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // A kilobyte every few milliseconds: room is made again and again, but never much.
    let mut drop = [0; 1024];
    let start = Instant::now();
    wait_until("the gateway gives up", DEADLINE, || {
        !matches!(slow.wire.stream.read(&mut drop), Ok(1..))
    });
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    gateway.wait_for_access("client=127.0.0.9 status=200 close=send-timeout");
    origin.wait_closed(1);
    // Who takes it as fast as he can is not cut.
    assert_eq!(gateway.get("127.0.0.1", "/").content.len(), LENGTH);
}

#[test]
fn an_empty_line_does_not_prolong_the_idle_time_and_costs_nothing_meanwhile() {
    const IDLE: Duration = Duration::from_secs(6);
    const CLIENTS: usize = 400;
    const LESS_THAN_A_PAGE_EACH: u64 = 1 << 10;
    let origin = Origin::named("prod");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let cases = [
        ("", "head", "keepalive", "head-timeout"),
        (post, "keepalive", "head", "keepalive-timeout"),
    ];
    let check = |(begin, idle, other, close): (&str, &str, &str, &str)| {
        let gateway = Setup::serving(&origin)
            .one_worker()
            .set(&format!("gateway.{idle}_timeout"), "6s")
            .set(&format!("gateway.{other}_timeout"), "1h")
            .start();
        let start = Instant::now();
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
        if !begin.is_empty() {
            for client in &mut clients {
                assert_eq!(client.ask(begin).status(), 200);
            }
        }
        let ready = Instant::now();
        // Each piece comes late, and has been taken when the next one comes.
        for piece in ["", "\r", "\n"] {
            let before = gateway.rss_kib();
            for client in &mut clients {
                client.send(piece);
            }
            assert_eq!(clients[0].glance(IDLE / 4), None, "{close}");
            let grown = gateway.rss_kib().saturating_sub(before);
            // Reading takes stack at the first time, but nothing that a request would not.
            let is_small = begin.is_empty() || grown < LESS_THAN_A_PAGE_EACH;
            assert!(is_small, "{close}: {grown} KiB");
        }
        for client in &mut clients {
            client.expect_close();
        }
        let took = (start.elapsed(), ready.elapsed());
        // From the last piece on it would be half as much again.
        let is_in_time = took.0 >= IDLE && took.1 < IDLE * 3 / 2;
        assert!(is_in_time, "{close}: {took:?}");
        let closed = format!("graygate_connections_closed_total{{reason=\"{close}\"}}");
        gateway.wait_for_metric(&closed, CLIENTS as f64);
        let lines = gateway.access_lines();
        let asked = if begin.is_empty() { 0 } else { CLIENTS };
        assert_eq!(lines.len(), asked, "{close}");
        assert!(lines.iter().all(|it| it.has("status=200 close=-")));
    };
    std::thread::scope(|scope| cases.map(|case| scope.spawn(move || check(case))).map(drop));
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_cut() {
    // So much lies in the kernel that it takes far longer than the deadline until there is room.
    const LENGTH: usize = 12 << 20;
    let origin = Origin::answering(|_| ok(vec![b'x'; LENGTH]));
    let gateway = Setup::serving(&origin)
        .set("gateway.send_timeout", "400ms")
        .set("gateway.min_rate", "1k")
        .start();
    let mut client = Client::with_small_window("127.0.0.1", gateway.addr(), 8 * 1024);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = Instant::now();
    let mut got = 0;
    wait_until("some times the deadline is over", DEADLINE, || {
        got += client.wire.some(4 * 1024).unwrap().len();
        begun.elapsed() > 5 * SHORT
    });
    assert!(got < LENGTH / 2, "too fast to prove anything: {got}");
    while got < LENGTH {
        got += client.wire.some(usize::MAX).unwrap().len();
    }
    gateway.wait_for_access("status=200 error=- close=-");
}
