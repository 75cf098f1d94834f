//! Peers that misbehave: what cannot be trusted is not passed on, and a connection with anything
//! wrong about it is never used again.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::time::{Duration, Instant};

use support::{
    Client, Conn, DEADLINE, Gateway, Origin, Response, Setup, ok, on_the_way_from, wait_until,
};

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The gateway's own answer to a request that a peer could not serve.
fn distrust(failure: &str) -> String {
    let body = format!("502 Bad Gateway: {failure}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// What stands behind a response that is not trusted, and must reach nobody.
const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";

/// Whole responses with these fields and a body of one byte.
fn fields(sections: &[&str]) -> Vec<String> {
    let response = |fields: &&str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\na");
    sections.iter().map(response).collect()
}

/// Failures, and responses that lead to each.
fn untrusted() -> Vec<(&'static str, Vec<String>)> {
    let lines = |lines: &[&str]| {
        let response = |line: &&str| format!("{line}\r\nContent-Length: 1\r\n\r\na");
        lines.iter().map(response).collect::<Vec<_>>()
    };
    let all = |responses: &[&str]| responses.iter().map(|it| (*it).to_owned()).collect();
    let digits = format!("Content-Length: {}", "9".repeat(400));
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(4100));
    vec![
        (
            "bad-response-head",
            [
                lines(&[
                    "HTTP/1.1 20 OK",
                    "HTTP/1.1 2000 OK",
                    "HTTP/1.1 099 OK",
                    "HTTP/1.1 -20 OK",
                    "HTTP/1.1 2x0 OK",
                    "HTTP/1.1  200 OK",
                    "HTTP/1.1\t200 OK",
                    "HTTP/1.1 200",
                    "HTTP/1.1",
                    "HTTP/1.1 ",
                    "HTTP/1.2 200 OK",
                    "HTTP/2.0 200 OK",
                    "HTTP/2 200",
                    "HTTP/0.9 200 OK",
                    "http/1.1 200 OK",
                    "ICY 200 OK",
                    " HTTP/1.1 200 OK",
                    "\r\nHTTP/1.1 200 OK",
                    "HTTP/1.1 200 O\0K",
                    "HTTP/1.1 200 O\rK",
                    "HTTP/1.1 200 OK\r\n folded",
                ]),
                fields(&[
                    "A: b\r\n c",
                    "A: b\r\n\tc",
                    "A: b\r\n ",
                    " A: b",
                    "A: b\0",
                    "A\0: b",
                    "A: b\rc",
                    "A: b\x1b[31m",
                    "A : b",
                    "A B: c",
                    ": b",
                    "no colon",
                    "Content-Length : 1",
                    "Content-Length:\r\n 1",
                    "Transfer-Encoding : chunked",
                    "Transfer-Encoding:\r\n chunked",
                    "Transfer-Encoding: \x0bchunked",
                    "Transfer-Encoding: chunked\0",
                    "Connection: close;x",
                ]),
                all(&[
                    "HTTP/1.1 200 OK\nContent-Length: 1\n\na",
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\n\r\na",
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\na",
                    "\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                    "nonsense\r\n\r\n",
                    "\x16\x03\x01\x02\0\r\n\r\n",
                ]),
            ]
            .concat(),
        ),
        (
            "bad-response-framing",
            [
                fields(&[
                    "Content-Length: 1\r\nContent-Length: 1",
                    "Content-Length: 1\r\ncontent-length: 2",
                    "Content-Length: 1, 1",
                    "Content-Length: 1,",
                    "Content-Length: +1",
                    "Content-Length: -1",
                    "Content-Length: 0x1",
                    "Content-Length: 1 1",
                    "Content-Length: 1_0",
                    "Content-Length: x",
                    "Content-Length:",
                    "Content-Length: 9223372036854775808",
                    "Content-Length: 18446744073709551617",
                    &digits,
                    "Content-Length: 1\r\nTransfer-Encoding: chunked",
                    "Transfer-Encoding: chunked\r\nContent-Length: 1",
                    "Transfer-Encoding: xchunked",
                    "Transfer-Encoding: identity",
                    "Transfer-Encoding: gzip, chunked",
                    "Transfer-Encoding: chunked, x",
                    "Transfer-Encoding: \"chunked\"",
                    "Transfer-Encoding: chunked;x",
                    "Transfer-Encoding: ,chunked",
                    "Transfer-Encoding: chunked,",
                    "Transfer-Encoding:",
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                ]),
                all(&[
                    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    // What has no body is held to the same, and an interim response to more.
                    "HTTP/1.1 103 Early\r\nContent-Length: 1\r\n\r\n",
                    "HTTP/1.1 103 Early\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
                    "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "HTTP/1.1 101 Switching\r\nContent-Length: 5\r\n\r\n",
                    "HTTP/1.1 204 No Content\r\nContent-Length: 1, 1\r\n\r\n",
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n",
                ]),
            ]
            .concat(),
        ),
        (
            "bad-response-chunk",
            [
                "xyz\r\n",
                "+1\r\na\r\n0\r\n\r\n",
                "0x1\r\na\r\n0\r\n\r\n",
                " 1\r\na\r\n0\r\n\r\n",
                " 1\r\na\r\n0\r\n\r\n",
                "\r\n0\r\n\r\n",
                "00000000000000001\r\na\r\n0\r\n\r\n",
                "1\na\r\n0\r\n\r\n",
                "1\r\nab\r\n0\r\n\r\n",
                "1\r\na\n0\r\n\r\n",
                "1;\r\na\r\n0\r\n\r\n",
                "1;a\0\r\na\r\n0\r\n\r\n",
                "0\r\nA : b\r\n\r\n",
                "0\r\n A: b\r\n\r\n",
                "0\r\nA: b\n\r\n",
                &extension,
            ]
            .map(chunked)
            .to_vec(),
        ),
    ]
}

#[test]
fn what_cannot_be_trusted_is_not_passed_on_and_its_connection_is_closed() {
    let cases = untrusted();
    let responses: Vec<String> = cases.iter().flat_map(|(_, all)| all.clone()).collect();
    let origin = Origin::scripted(move |conn| {
        let Some(request) = conn.request()? else {
            return Ok(());
        };
        let at: usize = request.head.target()[1..].parse().unwrap();
        conn.send(format!("{}{FORGED}", responses[at]))?;
        // It is for the gateway to close.
        conn.wait_gone()
    });
    let gateway = Gateway::trying_once(&origin);
    let mut client = gateway.connect();
    let mut at = 0;
    for (failure, responses) in cases {
        for response in &responses {
            let got = client.ask(format!("POST /{at} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let expected = distrust(failure);
            let of = text(response.as_bytes());
            assert_eq!(text(&got.bytes()), text(expected.as_bytes()), "{of:.200}");
            at += 1;
            origin.wait_closed(at);
            assert_eq!(origin.accepted(), at, "{of:.200}");
        }
        let counted = format!("graygate_attempts_total{{pool=\"prod\",outcome=\"{failure}\"}}");
        gateway.wait_for_metric(&counted, responses.len() as f64);
        let line = format!("status=502 error={failure} close=- attempts=1");
        gateway.wait_for_access(&line);
    }
}

#[test]
fn a_response_head_without_an_end_is_given_up_at_its_limit() {
    type Script = fn(&mut Conn) -> io::Result<()>;
    let table: [(&str, Script); 4] = [
        ("response-head-too-large", |conn| {
            conn.send("HTTP/1.1 200 OK\r\n")?;
            loop {
                conn.send("X: y\r\n".repeat(100))?;
            }
        }),
        ("response-head-too-large", |conn| {
            conn.send("HTTP/1.1 200 OK\r\nX: ")?;
            loop {
                conn.send([b'x'; 1000])?;
            }
        }),
        ("response-head-too-large", |conn| {
            conn.send("HTTP/1.1 200 ")?;
            loop {
                conn.send([b'x'; 1000])?;
            }
        }),
        ("response-head-too-large", |conn| {
            loop {
                conn.send([b'x'; 1000])?;
            }
        }),
    ];
    for (at, (failure, endless)) in table.into_iter().enumerate() {
        let origin = Origin::scripted(move |conn| {
            conn.request()?;
            endless(conn)
        });
        let gateway = Gateway::trying_once(&origin);
        let got = gateway.connect().ask("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            text(&got.bytes()),
            text(distrust(failure).as_bytes()),
            "{at}"
        );
        origin.wait_closed(1);
        assert_eq!(origin.accepted(), 1);
    }
}

/// What an origin sends where no body may be, as the rest of the segment or later.
#[test]
fn what_follows_a_response_reaches_nobody_and_its_connection_is_not_used_again() {
    // Method, response, and what the client gets of it.
    let table = [
        (
            "HEAD",
            "200 OK\r\nContent-Length: 6\r\n\r\n",
            "200 OK\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            "HEAD",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "200 OK\r\n\r\n",
        ),
        (
            "GET",
            "204 No Content\r\nContent-Length: 6\r\n\r\n",
            "204 No Content\r\n\r\n",
        ),
        (
            "GET",
            "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "204 No Content\r\n\r\n",
        ),
        (
            "GET",
            "304 Not Modified\r\nContent-Length: 6\r\n\r\n",
            "304 Not Modified\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            "GET",
            "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "304 Not Modified\r\n\r\n",
        ),
        (
            "GET",
            "200 OK\r\nContent-Length: 2\r\n\r\nab",
            "200 OK\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        ),
    ];
    for (method, said, passed) in table {
        for (follows, at_once) in [
            ("forged", true),
            (FORGED, true),
            ("\r\n", true),
            (FORGED, false),
        ] {
            let of = format!("{method} {said:?} and {follows:?}, at once: {at_once}");
            let origin = Origin::scripted(move |conn| {
                while let Some(request) = conn.request()? {
                    match request.head.target().as_str() {
                        "/first" if at_once => conn.send(format!("HTTP/1.1 {said}{follows}"))?,
                        "/first" => {
                            conn.send(format!("HTTP/1.1 {said}"))?;
                            conn.wait_for_release()?;
                            conn.send(follows)?;
                            conn.note("sent");
                        }
                        _ => conn.send(ok(conn.number.to_string()))?,
                    }
                }
                Ok(())
            });
            let gateway = Gateway::trying_once(&origin);
            let mut client = gateway.connect();
            client.send(format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.response_to(method);
            let expected = format!("HTTP/1.1 {passed}");
            assert_eq!(text(&response.bytes()), text(expected.as_bytes()), "{of}");
            if at_once {
                origin.wait_closed(1);
            } else {
                origin.release();
                origin.wait("what follows", |it| it.notes.iter().any(|it| it == "sent"));
                wait_until("it is there", DEADLINE, || {
                    on_the_way_from(origin.address().port()) == 0
                });
            }
            // The second connection has the number 1.
            assert_eq!(client.get("/second").text(), "1", "{of}");
            origin.wait_closed(1);
            assert_eq!(origin.accepted(), 2, "{of}");
        }
    }
}

/// An origin that says this on its first connection, and closes it.
fn saying_once(bytes: &'static str) -> Origin {
    Origin::scripted(move |conn| {
        conn.request()?;
        conn.send(bytes)
    })
}

#[test]
fn interim_responses_are_passed_on_to_the_byte_and_unasked_ones_to_continue_are_not() {
    let origin = saying_once(
        "HTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
         Content-Length: 0\r\nX-Graygate: 1\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n\
         HTTP/1.1 199 \r\nKeep-Alive: 5\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
    );
    let gateway = Gateway::trying_once(&origin);
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                   HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 199 \r\n\r\n";
    for (version, expected) in [
        ("1.1", format!("{interim}{last}Connection: close\r\n\r\nab")),
        ("1.0", format!("{last}Connection: close\r\n\r\nab")),
    ] {
        let mut client = gateway.connect();
        client.send(format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(text(&client.rest()), text(expected.as_bytes()));
    }
}

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

/// Takes the interim responses of an answer, which all are `hint`; returns how many came, and what
/// follows.
fn skip_hints(client: &mut Client, hint: &str) -> (usize, Response) {
    let mut count = 0;
    loop {
        let response = client.response();
        if response.status() >= 200 {
            return (count, response);
        }
        assert_eq!(text(&response.bytes()), text(hint.as_bytes()));
        count += 1;
    }
}

#[test]
fn every_interim_response_is_passed_on_and_of_a_flood_the_surplus_is_dropped() {
    for (count, passed) in [(17, 17..=17), (1000, 1000..=1000), (100_000, 4000..=99_999)] {
        // A second attempt would be seen: all peers say the same.
        let said = [HINT.repeat(count).as_bytes(), &ok("done")].concat();
        let peers = [(); 3].map(|()| Origin::saying(said.clone()));
        let [a, b, c] = &peers;
        let gateway = Setup::new().lists(&[], &[], &[a, b, c]).start();
        let mut client = gateway.connect();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
        let (got, last) = skip_hints(&mut client, HINT);
        assert!(passed.contains(&got), "{got} of {count}");
        assert_eq!((last.status(), &*last.text()), (200, "done"), "{count}");
        let asked: usize = peers.iter().map(|it| it.requests().len()).sum();
        assert_eq!(asked, 1, "{count}");
        gateway.wait_for_access("attempts=1 status=200 error=- close=-");
        if got < count {
            gateway.wait_for_log("interim-dropped peer=");
        }
    }
}

#[test]
fn interim_responses_renew_the_time_in_which_the_answer_must_come() {
    const STEPS: usize = 15;
    let step = Duration::from_millis(100);
    let origin = Origin::scripted(move |conn| {
        conn.request()?;
        for _ in 0..STEPS {
            // Nobody else tells the time to the gateway.
            std::thread::sleep(step);
            conn.send(HINT)?;
        }
        conn.send(ok("at last"))
    });
    // Much longer than a step, and shorter than all of them.
    let gateway = Setup::serving(&origin)
        .set("upstream.read_timeout", "1s")
        .start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (got, last) = skip_hints(&mut client, HINT);
    assert_eq!((got, &*last.text()), (STEPS, "at last"));
    // Nor does a client of HTTP/1.0 wait less, which does not see them.
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "at last");
}

/// What is read at once of interim responses that each count for 64 bytes.
const READ_AT_ONCE: usize = (16 << 20) / 64;

/// More than all that nobody could mean, and that for longer than the server's time.
#[test]
fn a_flood_of_interim_responses_makes_no_failure_of_a_success_nor_another_attempt() {
    const PROCESSING: &str = "HTTP/1.1 102 P\r\n\r\n";
    let peers = [(); 3].map(|()| {
        Origin::scripted(|conn| {
            conn.request()?;
            conn.send(PROCESSING.repeat(READ_AT_ONCE))?;
            for _ in 0..75 {
                // Slower than they are read, if nothing slows the reading down.
                std::thread::sleep(Duration::from_millis(20));
                conn.send(PROCESSING.repeat(1000))?;
            }
            conn.send(ok("done"))
        })
    });
    let [a, b, c] = &peers;
    let setup = Setup::new().set("upstream.read_timeout", "1s");
    let gateway = setup.lists(&[], &[], &[a, b, c]).start();
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    let (_, last) = skip_hints(&mut client, PROCESSING);
    assert_eq!((last.status(), &*last.text()), (200, "done"));
    let asked: usize = peers.iter().map(|it| it.requests().len()).sum();
    assert_eq!(asked, 1);
    gateway.wait_for_access("method=PUT attempts=1 status=200 error=- close=-");
}

#[test]
fn an_endless_flood_of_interim_responses_waits_for_its_pace_and_others_are_served_meanwhile() {
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    /// Three seconds by the pace of 2 MiB a second.
    const MORE: usize = 3 * (2 << 20) / 64;
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            while request.head.method() == "POST" {
                conn.send(CONTINUE.repeat(1000))?;
            }
            conn.send(ok("fine"))?;
        }
        Ok(())
    });
    let setup = Setup::new().one_worker();
    let setup = setup.set("upstream.read_timeout", "1s");
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let mut flooded = gateway.connect();
    flooded.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    let received = "graygate_bytes_total{side=\"upstream\",direction=\"received\"}";
    let read = || gateway.metric(received) as usize / CONTINUE.len();
    let (begun, mut others) = (Instant::now(), 0);
    // It ends neither by `read_timeout` nor by what has come.
    while read() < READ_AT_ONCE + MORE {
        assert_eq!(gateway.connect().get("/").text(), "fine");
        assert_eq!(flooded.glance(Duration::from_millis(1)), None);
        assert!(begun.elapsed() < 6 * DEADLINE, "it is not read on");
        others += 1;
    }
    let paced = begun.elapsed();
    assert!(paced > Duration::from_millis(2500), "in {paced:?}");
    assert!(others > 5, "only {others}");
    // A client that is gone ends it.
    flooded.reset();
    gateway.wait_for_access("method=POST attempts=1 status=000 error=- close=client-gone");
}

/// It has to be minutes by default, and is seconds here.
#[test]
fn a_flood_that_goes_on_beyond_all_patience_is_given_up_and_no_other_peer_is_asked() {
    let peers = [(); 3].map(|()| {
        Origin::scripted(|conn| {
            conn.request()?;
            // Large ones, which are read in less time than many small ones.
            let large = format!("HTTP/1.1 102 P\r\nX: {}\r\n\r\n", "x".repeat(30_000));
            let large = large.repeat(8);
            loop {
                conn.send(&large)?;
            }
        })
    });
    let [a, b, c] = &peers;
    // Pauses of six seconds.
    let setup = Setup::new().set("upstream.read_timeout", "10ms");
    let gateway = setup.lists(&[], &[], &[a, b, c]).start();
    let mut client = gateway.connect();
    // Of what changes nothing, which may go to another one where a peer has not begun in time.
    client.send("QUERY /flooded HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    let (begun, mut last) = (Instant::now(), client.head());
    while last.status() == 102 {
        assert!(begun.elapsed() < 12 * DEADLINE, "it is read on");
        last = client.head();
    }
    assert_eq!(last.status(), 504);
    gateway.wait_for_access("method=QUERY status=504 error=interim-flood");
    let asked: usize = peers.iter().map(|it| it.requests().len()).sum();
    // On a busy machine a peer may begin later than its time is.
    assert_eq!(asked, 1 + gateway.stderr.count("failure=read-timeout"));
}

/// Reads to the end of the connection. True when it was orderly.
fn end_of(client: &mut Client) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    loop {
        match client.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => return (got, true),
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                return (got, false);
            }
        }
    }
}

#[test]
fn a_body_without_an_end_of_its_own_becomes_chunked_for_a_client_that_knows_chunks() {
    for said in ["HTTP/1.1 200 OK\r\n\r\nab", "HTTP/1.0 200 OK\r\n\r\nab"] {
        let origin = saying_once(said);
        let gateway = Gateway::trying_once(&origin);
        let get = |version: &str| {
            let mut client = gateway.connect();
            client.send(format!(
                "GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n"
            ));
            end_of(&mut client)
        };
        let head = "HTTP/1.1 200 OK\r\n";
        let close = "Connection: close\r\n\r\n";
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n{close}2\r\nab\r\n0\r\n\r\n");
        assert_eq!(get("1.1"), (chunked.into_bytes(), true), "{said:?}");
        assert_eq!(get("1.0"), (format!("{head}{close}ab").into_bytes(), true));
    }
}

/// Nothing that a client could take for the end of the response stands behind what was cut.
#[test]
fn a_body_that_is_cut_short_or_turns_out_malformed_has_no_end() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\nab";
    let trailer = format!("\r\n0\r\nX: {}\r\n\r\n", "a".repeat(40_000));
    // What the peer says, what it says later, and the failure.
    let table = [
        ("Content-Length: 5\r\n\r\nab", "", "response-cut"),
        (chunked, "", "response-cut"),
        (chunked, "\r", "response-cut"),
        (chunked, "\r\n", "response-cut"),
        (chunked, "\r\n5\r\n", "response-cut"),
        (chunked, "\r\n0\r\n", "response-cut"),
        (chunked, "\r\n0\r\nX: y\r\n", "response-cut"),
        (chunked, "\n0\r\n\r\n", "bad-response-chunk"),
        (chunked, "\r\n0\n\n", "bad-response-chunk"),
        (chunked, "\r\n0\r\nX : y\r\n\r\n", "bad-response-chunk"),
        (chunked, &trailer, "bad-response-chunk"),
    ];
    for (said, then, failure) in table {
        let of = format!("{said:?}, then {then:.20?}");
        let (said, then) = (said.to_owned(), then.to_owned());
        let is_chunked = said == chunked;
        let origin = Origin::scripted(move |conn| {
            conn.request()?;
            conn.send(format!("HTTP/1.1 200 OK\r\n{said}"))?;
            conn.wait_for_release()?;
            conn.send(&then)
        });
        let gateway = Gateway::trying_once(&origin);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status(), 200, "{of}");
        let content: &[u8] = if is_chunked { b"2\r\nab" } else { b"ab" };
        assert_eq!(client.exactly(content.len()), content, "{of}");
        origin.release();
        let (rest, _) = end_of(&mut client);
        assert!(rest.is_empty() || rest == b"\r\n", "{of}: {rest:?}");
        gateway.wait_for_access(&format!("status=200 error={failure} close=response-cut"));
        origin.wait_closed(1);
    }
}
