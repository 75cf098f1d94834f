//! Answers of the gateway's own: short, with a length, without a word about the program, and
//! counted by their reason.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;

use support::{DeafPeer, Gateway, Origin, RefusingPeer, Setup};

/// The bytes of an answer.
fn answer(line: &str, name: &str, connection: &str, to_head: bool) -> String {
    let body = format!("{line}: {name}\n");
    let length = body.len();
    let body = if to_head { "" } else { &body };
    format!(
        "HTTP/1.1 {line}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         {connection}\r\n{body}"
    )
}

#[test]
fn an_answer_has_a_length_a_short_text_and_nothing_else_and_is_counted_by_reason() {
    let (refusing, deaf, mute) = (RefusingPeer::new(), DeafPeer::new(), Origin::mute());
    let closing = Origin::scripted(|conn| conn.request().map(drop));
    let wrong = Origin::saying("nonsense\r\n\r\n");
    let attempts = "graygate_attempts_total{pool=\"prod\",outcome=";
    let refusals = "graygate_refusals_total{reason=";
    // Who is listed, the answer, and the counter without its name.
    let table: [(&[&dyn Display], &str, &str, &str); 6] = [
        (&[&refusing], "502 Bad Gateway", "connect-refused", attempts),
        (&[&deaf], "504 Gateway Timeout", "connect-timeout", attempts),
        (&[&mute], "504 Gateway Timeout", "read-timeout", attempts),
        (&[&closing], "502 Bad Gateway", "closed-early", attempts),
        (&[&wrong], "502 Bad Gateway", "bad-response-head", attempts),
        (&[], "503 Service Unavailable", "no-peers", refusals),
    ];
    for (peers, line, name, counter) in table {
        let gateway = Setup::new()
            .set("upstream.connect_timeout", "200ms")
            .set("upstream.read_timeout", "200ms")
            .set("upstream.tries", 1)
            .lists(&[], &[], peers)
            .start();
        // Such an answer is no reason to end a connection; the client's wish is.
        let requests = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                "",
                true,
            ),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "Connection: keep-alive\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                "Connection: close\r\n",
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", "Connection: close\r\n", false),
        ];
        let mut client = gateway.connect();
        for (request, connection, stays) in requests {
            let got = client.ask(request).bytes();
            let expected = answer(line, name, connection, request.starts_with("HEAD"));
            assert_eq!(String::from_utf8_lossy(&got), expected, "{request}");
            if !stays {
                client.expect_close();
                client = gateway.connect();
            }
        }
        gateway.wait_for_metric(&format!("{counter}\"{name}\"}}"), 6.0);
        gateway.wait_for_access(&format!("error={name}"));
    }
}

#[test]
fn an_options_that_may_go_no_further_is_answered_here() {
    let origin = Origin::named("prod");
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    for target in ["*", "/x"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        let allow = "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";
        let expected = answer("200 OK", "max-forwards", allow, false);
        let got = client.ask(request).bytes();
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }
    // The connection stays, and nothing has gone on.
    assert_eq!(client.get("/").text(), "prod");
    assert_eq!(origin.requests().len(), 1);
    gateway.wait_for_metric("graygate_refusals_total{reason=\"max-forwards\"}", 2.0);
    gateway.wait_for_access("status=200 error=max-forwards close=-");
}
