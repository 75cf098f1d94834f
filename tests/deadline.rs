//! `[upstream] deadline`: the time for a request with all that it is tried. And the times that it stands
//! beside: the head of a response has `read_timeout`, silence within it `stall_timeout`.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Client, DeafPeer, Gateway, Origin, Setup, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const LIMIT: Duration = Duration::from_millis(500);

fn gateway(peers: &[&dyn Display]) -> Gateway {
    gateway_within("500ms", peers)
}

fn gateway_within(limit: &str, peers: &[&dyn Display]) -> Gateway {
    let setup = Setup::new().set("upstream.deadline", limit);
    setup.lists(&[], &[], peers).start()
}

/// The answer, and that it has come in time.
#[track_caller]
fn answer_in_time(gateway: &Gateway, request: &str) -> String {
    let begun = Instant::now();
    let answer = gateway.connect().ask(request);
    let passed = begun.elapsed();
    assert!(passed >= LIMIT && passed < 4 * LIMIT, "{passed:?}");
    assert_eq!(answer.status(), 504);
    answer.text()
}

#[test]
fn what_has_no_head_in_time_is_504_and_nobody_else_is_asked() {
    let (deaf, mute) = (DeafPeer::new(), Origin::mute());
    let peers: [&dyn Display; 2] = [&deaf, &mute];
    for peer in peers {
        let gateway = gateway(&[peer]);
        assert_eq!(
            answer_in_time(&gateway, GET),
            "504 Gateway Timeout: deadline\n"
        );
        gateway.wait_for_access("attempts=1 status=504 error=deadline close=-");
        gateway.wait_for_metric(
            "graygate_attempts_total{pool=\"prod\",outcome=\"deadline\"}",
            1.0,
        );
    }
}

#[test]
fn the_time_is_one_for_all_attempts() {
    let mutes = [Origin::mute(), Origin::mute(), Origin::mute()];
    let setup = Setup::new().set("upstream.deadline", "500ms");
    let gateway = setup
        .set("upstream.read_timeout", "200ms")
        .lists(&["127.0.0.1"], &[&mutes[0], &mutes[1]], &[&mutes[2]])
        .start();
    assert_eq!(
        answer_in_time(&gateway, GET),
        "504 Gateway Timeout: deadline\n"
    );
    gateway.wait_for_access("attempts=3 status=504 error=deadline");
}

#[test]
fn a_request_that_does_not_come_in_time_is_504_and_its_server_is_not_to_blame() {
    let origin = Origin::mute();
    let gateway = gateway(&[&origin]);
    let half = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    for _ in 0..4 {
        assert_eq!(
            answer_in_time(&gateway, half),
            "504 Gateway Timeout: deadline\n"
        );
    }
    assert_eq!(gateway.stderr.count(" peer-out "), 0);
}

/// Where the deadline is the shortest time, nothing else would show that a server hangs.
#[test]
fn a_server_that_has_had_all_the_time_and_not_answered_has_failed() {
    let (mute, good) = (Origin::mute(), Origin::named("good"));
    // Long enough for the good one on a busy machine.
    let gateway = gateway_within("2s", &[&mute, &good]);
    let mut client = gateway.connect();
    let answers = (0..40).map(|_| client.ask(GET).status());
    assert_eq!(answers.filter(|it| *it == 504).count(), 3);
    gateway.wait_for_log(" why=deadline ");
}

/// Begins its response, and goes on without an end.
fn dripping(head: &'static str, piece: &'static str) -> Origin {
    Origin::scripted(move |conn| {
        conn.request()?;
        conn.send(head)?;
        loop {
            conn.send(piece)?;
            sleep(Duration::from_millis(20));
        }
    })
}

/// What comes, and whether its end is a reset.
fn all_of(client: &mut Client) -> (String, bool) {
    let mut all = Vec::new();
    loop {
        match client.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => all.extend_from_slice(&piece),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                return (String::from_utf8(all).unwrap(), true);
            }
        }
    }
    (String::from_utf8(all).unwrap(), false)
}

#[test]
fn a_response_that_is_not_complete_in_time_is_cut_so_that_the_client_sees_it() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let until_close = "HTTP/1.0 200 OK\r\n\r\n";
    for (head, piece, request, resets) in [
        (length, "x", GET, false),
        (chunked, "1\r\nx\r\n", GET, false),
        // Its client tells the end of the response by that of the connection.
        (until_close, "x", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", true),
    ] {
        let origin = dripping(head, piece);
        let gateway = gateway(&[&origin]);
        let begun = Instant::now();
        let mut client = gateway.connect();
        client.send(request);
        let (all, is_reset) = all_of(&mut client);
        assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
        assert!(all.contains(" 200 ") || is_reset, "{all}");
        assert!(!all.ends_with("0\r\n\r\n"));
        assert_eq!(is_reset, resets, "{head}");
        gateway.wait_for_access("status=200 error=deadline close=response-cut");
        origin.wait_closed(1);
        assert_eq!(gateway.stderr.count(" peer-out "), 0);
    }
}

#[test]
fn a_response_whose_client_does_not_take_it_in_time_is_cut() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")?;
        conn.send(vec![b'x'; 50_000_000])
    });
    let gateway = gateway(&[&origin]);
    let mut client = Client::with_small_window("127.0.0.1", gateway.addr(), 4096);
    client.send(GET);
    gateway.wait_for_access("status=200 error=deadline close=response-cut");
    origin.wait_closed(1);
}

/// Both bodies flow, and neither ends.
#[test]
fn an_upload_beside_its_response_is_cut_in_time() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.wire.some(usize::MAX)?;
            conn.send("1\r\nx\r\n")?;
        }
    });
    let gateway = gateway(&[&origin]);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    let mut out = client.wire.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        while io::Write::write_all(&mut out, b"x").is_ok() {
            sleep(Duration::from_millis(10));
        }
    });
    gateway.wait_for_access("status=200 error=deadline");
    origin.wait_closed(1);
    // What it still sends is read for a while, so that it sees what was answered.
    let _ = client.wire.stream.shutdown(std::net::Shutdown::Both);
    sending.join().unwrap();
}

#[test]
fn a_tunnel_has_no_deadline_and_another_request_on_a_connection_has_its_own() {
    let switching = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")?;
        loop {
            let piece = conn.wire.some(usize::MAX)?;
            conn.send(piece)?;
        }
    });
    let tunnelling = gateway(&[&switching]);
    let mut client = tunnelling.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    sleep(2 * LIMIT);
    client.send("still here");
    assert_eq!(client.exactly(10), b"still here");

    let origin = Origin::answering(|_| {
        sleep(LIMIT / 2);
        ok("fine")
    });
    let gateway = gateway(&[&origin]);
    let mut client = gateway.connect();
    for _ in 0..4 {
        assert_eq!(client.ask(GET).text(), "fine");
    }
}

/// Answers after `read_timeout`, and counts what it is asked.
fn slow(count: &Arc<AtomicUsize>) -> Origin {
    let count = Arc::clone(count);
    Origin::scripted(move |conn| {
        conn.request()?;
        count.fetch_add(1, Ordering::SeqCst);
        conn.wait_gone()
    })
}

#[test]
fn after_read_timeout_only_what_asks_for_no_change_is_sent_to_another_peer() {
    for (method, expected) in [
        ("GET", 3),
        ("HEAD", 3),
        ("OPTIONS", 3),
        ("DELETE", 1),
        ("PUT", 1),
        ("POST", 1),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let peers = [slow(&count), slow(&count), slow(&count)];
        let gateway = Setup::new()
            .set("upstream.read_timeout", "200ms")
            .lists(&[], &[], &[&peers[0], &peers[1], &peers[2]])
            .start();
        let mut client = gateway.connect();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.response_to(method).status(), 504);
        gateway.wait_for_access(&format!(
            "method={method} attempts={expected} status=504 error=read-timeout"
        ));
        assert_eq!(count.load(Ordering::SeqCst), expected, "{method}");
    }
}

#[test]
fn events_may_be_silent_for_longer_than_read_timeout_but_not_than_stall_timeout() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..3 {
            sleep(Duration::from_millis(600));
            conn.send("6\r\nevent\n\r\n")?;
        }
        conn.wait_gone()
    });
    let gateway = Setup::serving(&origin)
        .set("upstream.read_timeout", "200ms")
        .set("upstream.stall_timeout", "1200ms")
        .start();
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    for _ in 0..3 {
        assert_eq!(client.exactly(11), b"6\r\nevent\n\r\n");
    }
    client.expect_close();
    gateway.wait_for_access("status=200 error=response-stalled close=response-cut");
}

/// Streams of events are silent together when there is no event.
#[test]
fn silence_within_responses_is_no_failure_of_the_peer() {
    const STREAMS: usize = 6;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let silent = || {
        Origin::scripted(move |conn| {
            conn.request()?;
            conn.send(head)?;
            conn.wait_gone()
        })
    };
    let peers = [silent(), silent()];
    let gateway = Setup::new()
        .set("upstream.read_timeout", "200ms")
        .set("upstream.stall_timeout", "300ms")
        .set("upstream.max_fails", 1)
        .lists(&[], &[], &[&peers[0], &peers[1]])
        .start();
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.head().status(), 200);
    }
    clients.iter_mut().for_each(Client::expect_close);
    let stalled = "graygate_attempts_total{pool=\"prod\",outcome=\"response-stalled\"}";
    gateway.wait_for_metric(stalled, STREAMS as f64);
    assert_eq!(gateway.stderr.count(" peer-out "), 0);
}

/// Yesterday one time was for both.
#[test]
fn who_had_set_a_long_read_timeout_keeps_it_within_a_response() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
        sleep(Duration::from_secs(1));
        conn.send("late")
    });
    let gateway = Setup::serving(&origin)
        .set("upstream.stall_timeout", "100ms")
        .set("upstream.read_timeout", "5s")
        .start();
    assert_eq!(gateway.connect().ask(GET).text(), "late");
}
