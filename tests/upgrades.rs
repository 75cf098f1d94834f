//! Upgrades (RFC 9110 section 7.8): nothing is tunnelled before both sides have agreed to it.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Gateway, Origin, ok, wait_until};

const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// What the gateway says of a client at 127.0.0.1 that asks for `a`.
const OURS: &str = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
    X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

const ASKING: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[test]
fn a_switch_that_nobody_asked_for_is_not_passed_on_and_its_connection_is_closed() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: HTTP/2.0, h2c/1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web socket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
    ];
    let origin = Origin::saying(format!("{SWITCHING}tunnelled"));
    let gateway = Gateway::trying_once(&origin);
    for (at, request) in requests.iter().enumerate() {
        let mut client = gateway.connect();
        let response = client.ask(request);
        assert_eq!(response.status(), 502, "{request}");
        assert_eq!(response.field("upgrade"), None, "{request}");
        let body = match request.starts_with("HEAD") {
            true => "",
            false => "502 Bad Gateway: unexpected-upgrade\n",
        };
        assert_eq!(response.text(), body, "{request}");
        origin.wait_closed(at + 1);
        assert_eq!(origin.accepted(), at + 1, "{request}");
        let received = origin.last();
        assert_eq!(received.head.all("upgrade"), [""; 0], "{request}");
        assert_eq!(received.head.all("connection"), [""; 0], "{request}");
    }
}

#[test]
fn a_switch_to_what_was_not_asked_for_is_not_passed_on() {
    for fields in [
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: web\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, other\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: other\r\n",
        "Connection: Upgrade\r\nUpgrade: \r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let switching = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let origin = Origin::saying(format!("{switching}tunnelled"));
        let gateway = Gateway::trying_once(&origin);
        let response = gateway.connect().ask(ASKING);
        let said = "502 Bad Gateway: unexpected-upgrade\n";
        assert_eq!(response.text(), said, "{fields}");
        origin.wait_closed(1);
    }
    // Names are compared without their case, and one of several is enough.
    let origin = Origin::saying(SWITCHING);
    let gateway = Gateway::trying_once(&origin);
    let mut client = gateway.connect();
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x, WebSocket\r\n\r\n");
    assert_eq!(client.head().status(), 101);
}

#[test]
fn an_upgrade_is_asked_of_the_peer_without_what_is_of_the_clients_hop() {
    // What the client sends, and what the peer is asked for: in the order of the list.
    let table = [
        (
            "Upgrade: websocket\r\nConnection: upgrade\r\n",
            "Upgrade: websocket\r\n",
        ),
        (
            "Connection: keep-alive, Upgrade\r\nUpgrade: a/1,b\r\n",
            "Upgrade: a/1,b\r\n",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: x\r\n",
            "Upgrade: websocket\r\n",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: h2c,b\r\n",
            "Upgrade: a,b\r\n",
        ),
    ];
    for (sent, asked) in table {
        let origin = Origin::saying(ok(""));
        let gateway = Gateway::trying_once(&origin);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n");
        assert_eq!(gateway.connect().ask(request).status(), 200);
        let expected =
            format!("GET / HTTP/1.1\r\nHost: a\r\n{OURS}Connection: Upgrade\r\n{asked}\r\n");
        assert_eq!(origin.last().text(), expected);
    }
}

#[test]
fn what_the_client_sends_early_is_held_until_the_peer_has_switched() {
    for at_once in [true, false] {
        let origin = Origin::scripted(|conn| {
            let Some(head) = conn.head()? else {
                return Ok(());
            };
            conn.note("asked");
            conn.wait_for_release()?;
            // Whatever were going to come has had its time: a failure here is never by chance.
            let patience = Some(Duration::from_millis(100));
            conn.wire.stream.set_read_timeout(patience)?;
            if let Ok(piece) = conn.wire.some(usize::MAX) {
                conn.note(format!("before the switch: {}", piece.escape_ascii()));
            }
            conn.wire.stream.set_read_timeout(None)?;
            conn.send(format!("{SWITCHING}hello"))?;
            assert_eq!(head.method(), "GET");
            conn.record()
        });
        let gateway = Gateway::trying_once(&origin);
        let mut client = gateway.connect();
        // What looks like a request is none once the protocol is another.
        let early = "GET /early HTTP/1.1\r\nHost: a\r\n\r\n";
        if at_once {
            client.send(format!("{ASKING}{early}"));
        } else {
            client.send(ASKING);
        }
        origin.wait("the head", |it| it.notes.iter().any(|it| it == "asked"));
        if !at_once {
            client.send(early);
        }
        origin.release();
        let expected = format!("{SWITCHING}hello");
        let got = client.exactly(expected.len());
        assert_eq!(String::from_utf8_lossy(&got), expected);
        client.send("more");
        let tunnelled = format!("{early}more");
        origin.wait("all that the client has sent", |it| {
            it.recorded
                .first()
                .is_some_and(|it| it == tunnelled.as_bytes())
        });
        origin.seen(|it| {
            let early = it.notes.iter().find(|it| it.contains("before"));
            assert_eq!(early, None);
            assert_eq!(it.heads.len(), 1);
        });
        let line = "status=101 error=-";
        drop(client);
        gateway.wait_for_access(line);
    }
}

#[test]
fn what_follows_an_upgrade_that_is_declined_is_the_next_request() {
    let declined =
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno";
    for answer in [String::from_utf8(ok("no")).unwrap(), declined.to_owned()] {
        let status = &answer[9..12];
        let said = answer.clone();
        let origin = Origin::answering(move |request| match request.head.target().as_str() {
            "/" => said.clone().into_bytes(),
            target => ok(target),
        });
        let gateway = Gateway::trying_once(&origin);
        let mut client = gateway.connect();
        client.send(format!("{ASKING}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status().to_string(), status);
        assert_eq!(response.text(), "no");
        assert_eq!(client.response().text(), "/next");
        // Nobody knows what the peer takes the bytes on its connection for.
        assert_eq!(origin.accepted(), 2);
        origin.wait_closed(1);
    }
}

/// Takes what follows the head of a request that asks for an upgrade for the next request, whatever the
/// head says of a body, as uvicorn with httptools does.
fn careless() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            let target = head.target();
            match head.all("upgrade").is_empty() {
                true => drop(conn.body(head)?),
                false => conn.note("asked to upgrade"),
            }
            conn.send(ok(target))?;
        }
        Ok(())
    })
}

#[test]
fn the_body_of_an_upgrade_is_not_the_begin_of_the_next_clients_request() {
    const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: foo\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX: ";
    let length = smuggled.len();
    let chunk = format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n");
    for (framing, body) in [
        (format!("Content-Length: {length}\r\n"), smuggled),
        ("Transfer-Encoding: chunked\r\n".to_owned(), &*chunk),
    ] {
        for at_once in [true, false] {
            let origin = careless();
            let gateway = Gateway::trying_once(&origin);
            let mut attacker = gateway.connect();
            let head = format!("POST /attack HTTP/1.1\r\nHost: a\r\n{UPGRADE}{framing}\r\n");
            if at_once {
                attacker.send(format!("{head}{body}"));
            } else {
                attacker.send(head);
                origin.wait("the head", |it| !it.heads.is_empty());
                attacker.send(body);
            }
            assert_eq!(attacker.response().text(), "/attack");
            assert_eq!(gateway.connect().get("/victim").text(), "/victim");
            origin.seen(|it| {
                let targets: Vec<_> = it.heads.iter().map(|it| it.target()).collect();
                assert_eq!(targets, ["/attack", "/victim"], "{framing}");
                assert_eq!(it.heads[0].all("upgrade"), [""; 0], "{framing}");
                assert_eq!(it.heads[0].all("connection"), [""; 0], "{framing}");
            });
        }
    }
}

#[test]
fn a_connection_on_which_an_upgrade_was_asked_and_not_granted_serves_nobody_again() {
    for method in ["GET", "POST", "OPTIONS"] {
        for length in ["", "Content-Length: 0\r\n"] {
            let origin = careless();
            let gateway = Gateway::trying_once(&origin);
            let mut client = gateway.connect();
            let response = client.ask(format!(
                "{method} /asking HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n{length}\r\n"
            ));
            assert_eq!(response.text(), "/asking", "{method} {length}");
            origin.seen(|it| assert_eq!(it.notes, ["asked to upgrade"]));
            origin.wait_closed(1);
            assert_eq!(gateway.connect().get("/other").text(), "/other");
            assert_eq!(client.get("/own").text(), "/own");
            assert_eq!(origin.accepted(), 2, "{method} {length}");
        }
    }
}

#[test]
fn what_follows_an_upgrade_that_is_declined_is_refused_when_it_is_no_request() {
    let origin = Origin::saying(ok("no"));
    let gateway = Gateway::trying_once(&origin);
    let mut client = gateway.connect();
    client.send([ASKING.as_bytes(), b"\x81\x05hello"].concat());
    assert_eq!(client.response().text(), "no");
    let response = client.response();
    assert_eq!(response.text(), "400 Bad Request: bad-request-line\n");
    client.expect_close();
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_required_upgrade_to_what_is_not_spoken_here_is_not_named() {
    let origin = Origin::saying(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nno",
    );
    let got = Gateway::trying_once(&origin).connect().get("/").bytes();
    let expected = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

#[test]
fn a_tunnel_does_not_keep_the_lists_of_its_begin() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(SWITCHING)?;
        conn.wait_gone()
    });
    let gateway = Gateway::trying_once(&origin);
    let mut tunnels = Vec::new();
    for round in 1..8 {
        let mut client = gateway.connect();
        client.send(ASKING);
        assert_eq!(client.head().status(), 101);
        tunnels.push(client);
        gateway.write_lists(&[&format!("10.0.0.{round}")], &[], &[&origin]);
        gateway.wait_for_metric("graygate_lists_generation", f64::from(round + 1));
    }
    // A worker lets go at its next request, or look at its clock.
    gateway.wait_for_metric("graygate_lists_snapshots", 1.0);
}

#[test]
fn the_end_of_one_side_does_not_cut_what_the_other_is_still_taking() {
    const LENGTH: usize = 3_400_000;
    // Sends much and ends; then hears the client's last word.
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(SWITCHING)?;
        conn.send(vec![b'x'; LENGTH])?;
        conn.wire.stream.shutdown(std::net::Shutdown::Write)?;
        let said = conn.wire.some(100)?;
        conn.note(String::from_utf8_lossy(&said));
        Ok(())
    });
    let gateway = Gateway::trying_once(&origin);
    let mut client = Client::with_small_window("127.0.0.1", gateway.addr(), 8 * 1024);
    client.send(ASKING);
    assert_eq!(client.head().status(), 101);
    // So slowly that there is more than the time between the end and the cut.
    let begun = Instant::now();
    let mut got = 0;
    wait_until(
        "far longer than a half-closed tunnel is let",
        DEADLINE,
        || {
            got += client.wire.some(4 * 1024).unwrap().len();
            begun.elapsed() > Duration::from_secs(4)
        },
    );
    assert!(got < LENGTH, "too fast to prove anything: {got}");
    while got < LENGTH {
        let piece = client.wire.some(usize::MAX).unwrap();
        assert!(!piece.is_empty(), "cut after {got}");
        got += piece.len();
    }
    client.send("thanks");
    origin.wait("the client's last word", |seen| {
        seen.notes.iter().any(|it| it == "thanks")
    });
}
