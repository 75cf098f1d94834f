//! `Expect: 100-continue` (RFC 9110 section 10.1.1): the peer decides, and the client is told.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Gateway, Origin, Setup, ok};

/// What the gateway says of a client at 127.0.0.1 that asks for `a`.
const OURS: &str = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
    X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn an_expectation_is_passed_on_once_and_the_body_follows_the_peers_consent() {
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            conn.send(CONTINUE)?;
            conn.send(CONTINUE)?;
            let request = conn.body(head)?;
            conn.send(ok(request.content))?;
        }
        Ok(())
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    let length = "Content-Length: 2\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let table = [
        ("Expect: 100-continue\r\n", length, "ab"),
        ("expect: 100-Continue \r\n", length, "ab"),
        (
            "Expect: 100-continue\r\nExpect: 100-continue\r\n",
            length,
            "ab",
        ),
        (
            "Expect: 100-continue,, 100-Continue\r\nExpect:\r\n",
            length,
            "ab",
        ),
        (
            "Connection: Expect\r\nExpect: 100-continue\r\n",
            length,
            "ab",
        ),
        ("Expect: 100-continue\r\n", chunked, "2\r\nab\r\n0\r\n\r\n"),
    ];
    for (expectation, framing, body) in table {
        let begin = "PUT / HTTP/1.1\r\nHost: a\r\n";
        client.send(format!("{begin}{expectation}{framing}\r\n"));
        let told = client.exactly(CONTINUE.len());
        assert_eq!(String::from_utf8_lossy(&told), CONTINUE);
        client.send(body);
        // Neither is the client told twice, nor does its connection end.
        let got = String::from_utf8(client.response().bytes()).unwrap();
        assert_eq!(got, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
        let expected = format!("{begin}{OURS}{framing}Expect: 100-continue\r\n\r\n{body}");
        let received = origin.last().bytes();
        assert_eq!(String::from_utf8_lossy(&received), expected);
    }
}

#[test]
fn an_expectation_without_a_body_is_not_passed_on() {
    let origin = Origin::saying(ok("ab"));
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    for framing in ["", "Content-Length: 0\r\n"] {
        let begin = "PUT / HTTP/1.1\r\nHost: a\r\n";
        let response = client.ask(format!("{begin}Expect: 100-continue\r\n{framing}\r\n"));
        assert_eq!(response.text(), "ab");
        let expected = format!("{begin}{OURS}{framing}\r\n");
        assert_eq!(origin.last().text(), expected);
    }
}

#[test]
fn a_peer_that_does_not_consent_in_time_is_at_fault_and_not_the_client_that_waits() {
    let origin = Origin::mute();
    let gateway = Setup::serving(&origin)
        .set("gateway.body_timeout", "200ms")
        .set("upstream.read_timeout", "100ms")
        .set("upstream.tries", 1)
        .start();
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "504 Gateway Timeout: read-timeout\n");
    origin.wait_closed(1);
    gateway.wait_for_access("status=504 error=read-timeout close=body-unread");
}

#[test]
fn an_answer_before_the_body_is_passed_on_and_both_connections_end() {
    let head = "PUT / HTTP/1.1\r\nHost: a\r\n";
    let framing = "Content-Length: 33\r\n";
    for status in [
        "200 OK",
        "401 Unauthorized",
        "413 Content Too Large",
        "417 Expectation Failed",
    ] {
        let origin = Origin::scripted(move |conn| {
            conn.head()?;
            conn.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nab"))?;
            conn.record()
        });
        let gateway = Gateway::serving(&origin);
        let mut client = gateway.connect();
        client.send(format!("{head}Expect: 100-continue\r\n{framing}\r\n"));
        let got = client.response().bytes();
        let expected =
            format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab");
        assert_eq!(String::from_utf8_lossy(&got), expected);
        // The client cannot take it back, and what it sends now is neither a body nor a request.
        client.send_if_open("GET /inner HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect_close();
        origin.wait_closed(1);
        assert_eq!(origin.accepted(), 1);
        assert_eq!(origin.recorded(0), b"");
        let received = origin.seen(|it| it.heads[0].text());
        let expected = format!("{head}{OURS}{framing}Expect: 100-continue\r\n\r\n");
        assert_eq!(received, expected);
        gateway.wait_for_access("close=body-unread error=-");
    }
}
