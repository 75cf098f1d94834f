//! Bodies on their way through: every framing, both directions, whole or visibly not whole.

mod support;

use std::io;
use std::time::Duration;

use support::{Client, Conn, DEADLINE, Gateway, Origin, Pattern, Setup, ok, wait_until};

/// An origin that answers one request of each connection with these bytes, and closes it.
fn closing(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes = bytes.into();
    Origin::scripted(move |conn| {
        if conn.request()?.is_some() {
            conn.send(&bytes)?;
        }
        Ok(())
    })
}

/// One chunk of a chunked body.
fn chunk(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_response_of_a_given_length_arrives_whole() {
    // Around the sizes where a body is copied, written as it lies, needs a bigger buffer, or a pipe.
    for length in [
        0, 1, 8191, 8192, 8193, 16_384, 32_769, 65_536, 131_072, 163_841, 1_000_003, 1_048_577,
        5_000_011,
    ] {
        let content = Pattern::new(1).bytes(length);
        let origin = Origin::saying(ok(&content));
        let gateway = Gateway::serving(&origin);
        let mut client = gateway.connect();
        for _ in 0..2 {
            let response = client.get("/");
            let shown = response.field("Content-Length");
            assert_eq!(shown, Some(length.to_string()));
            assert_eq!(response.field("Transfer-Encoding"), None);
            assert!(response.content == content, "{length} bytes differ");
        }
        assert_eq!(origin.accepted(), 1, "{length}: the connection was kept");
    }
}

#[test]
fn a_large_upload_takes_its_own_bytes_and_the_next_request_follows_it() {
    // Around the sizes from which a body goes by a pipe, and that a pipe has.
    for length in [131_072, 163_840, 163_841, 1_048_576, 3_000_017] {
        let origin = Origin::saying(ok("taken"));
        let gateway = Setup::serving(&origin)
            .set("gateway.max_body", length)
            .start();
        let content = Pattern::new(5).bytes(length);
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut client = gateway.connect();
        client.send([head.as_bytes(), &content, next.as_bytes()].concat());
        assert_eq!(client.response_to("PUT").text(), "taken");
        assert_eq!(client.response().text(), "taken");
        let requests = origin.requests();
        assert!(requests[0].content == content, "{length} bytes differ");
        assert_eq!(requests[1].head.target(), "/next");
    }
}

#[test]
fn a_chunked_response_arrives_with_its_trailers_and_without_its_extensions() {
    let mut bytes = CHUNKED.as_bytes().to_vec();
    bytes.extend_from_slice(b"5;note=\"x\"\r\nhello\r\n00001\r\n \r\nA\r\n0123456789\r\n");
    // A trailer must not say what was decided by the head.
    bytes.extend_from_slice(b"0\r\nX-Sum: 1\r\nContent-Type: text/html\r\nx-late:2\r\n\r\n");
    let origin = Origin::saying(bytes);
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(
            response.field("Transfer-Encoding").as_deref(),
            Some("chunked")
        );
        assert_eq!(response.field("Content-Length"), None);
        assert_eq!(response.text(), "hello 0123456789");
        let trailers = [("X-Sum", "1"), ("x-late", "2")];
        let trailers = trailers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(response.trailers, trailers);
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_response_that_ends_with_its_connection_becomes_chunked_and_the_client_stays() {
    let content = Pattern::new(2).bytes(100_000);
    for version in ["1.0", "1.1"] {
        let mut bytes = format!("HTTP/{version} 200 OK\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&content);
        let origin = closing(bytes);
        let gateway = Gateway::serving(&origin);
        let mut client = gateway.connect();
        for _ in 0..2 {
            let response = client.get("/");
            let coding = response.field("Transfer-Encoding");
            assert_eq!(coding.as_deref(), Some("chunked"));
            assert_eq!(response.field("Connection"), None);
            assert!(response.content == content, "the content differs");
        }
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn an_http10_client_gets_a_chunked_response_plain_up_to_the_end_of_the_connection() {
    let mut bytes = CHUNKED.as_bytes().to_vec();
    bytes.extend(chunk(b"hello "));
    bytes.extend(chunk(b"world"));
    bytes.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    let origin = Origin::saying(bytes);
    let gateway = Gateway::serving(&origin);
    for wish in ["", "Connection: keep-alive\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.0\r\nHost: a\r\n{wish}\r\n"));
        let head = client.head();
        assert_eq!(head.field("Transfer-Encoding"), None);
        assert_eq!(head.field("Content-Length"), None);
        assert_eq!(head.field("Connection").as_deref(), Some("close"));
        // An orderly end: a reset would mean that something is missing.
        assert_eq!(client.wire.rest().unwrap(), b"hello world");
    }
    let line = gateway.wait_for_access("status=200");
    assert_eq!(line.get("close"), "response-end");
}

#[test]
fn a_chunked_upload_of_odd_chunks_in_odd_segments_arrives_with_the_same_content() {
    let origin = Origin::saying(ok("thanks"));
    let gateway = Gateway::serving(&origin);
    let sizes = [1, 7, 8191, 8192, 8193, 1, 32_769, 65_536, 100_001, 2];
    let mut pattern = Pattern::new(3);
    let mut content = Vec::new();
    let mut body = Vec::new();
    for (at, size) in sizes.into_iter().enumerate() {
        let start = content.len();
        while content.len() < start + size {
            let left = start + size - content.len();
            content.extend_from_slice(pattern.next(left as u64));
        }
        // Capital digits, leading zeros and an extension mean nothing.
        let line = match at % 3 {
            0 => format!("{size:X}\r\n"),
            1 => format!("000{size:x}\r\n"),
            _ => format!("{size:x};a=b\r\n"),
        };
        body.extend_from_slice(line.as_bytes());
        body.extend_from_slice(&content[start..]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    let head = "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = gateway.connect();
    for segment in [1009, 4096, 65_537, usize::MAX] {
        client.send(head);
        for piece in body.chunks(segment) {
            client.send(piece);
        }
        let response = client.response();
        assert_eq!((response.status(), response.text()), (200, "thanks".into()));
        let request = origin.last();
        assert_eq!(
            request.field("Transfer-Encoding").as_deref(),
            Some("chunked")
        );
        assert_eq!(request.field("Content-Length"), None);
        assert!(request.content == content, "segments of {segment} differ");
        assert_eq!(request.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    }
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn an_upload_of_a_given_length_arrives_with_that_length() {
    let origin = Origin::saying(ok("thanks"));
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    for length in [0, 1, 8192, 8193, 1_000_003] {
        let content = Pattern::new(4).bytes(length);
        client.send(format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.send(&content);
        assert_eq!(client.response().status(), 200);
        let request = origin.last();
        assert_eq!(request.field("Content-Length"), Some(length.to_string()));
        assert_eq!(request.field("Transfer-Encoding"), None);
        assert!(request.content == content, "{length} bytes differ");
    }
}

#[test]
fn a_post_without_framing_has_no_body_and_what_follows_is_the_next_request() {
    let origin = Origin::answering(|request| ok(request.head.method()));
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "POST");
    assert_eq!(client.response().text(), "GET");
    let post = &origin.requests()[0];
    assert_eq!(post.field("Transfer-Encoding"), None);
    assert_eq!(post.field("Content-Length"), None);
}

#[test]
fn responses_without_a_body_keep_their_length_only_where_it_informs() {
    // Method, what the origin says, and the length that the client is told.
    let table = [
        ("HEAD", "200 OK\r\nContent-Length: 5", Some("5")),
        ("HEAD", "404 No\r\nContent-Length: 5", Some("5")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", None),
        ("HEAD", "200 OK", None),
        ("GET", "304 Not Modified\r\nContent-Length: 7", Some("7")),
        ("GET", "304 Not Modified", None),
        ("GET", "204 No Content", None),
        ("GET", "204 No Content\r\nContent-Length: 0", None),
        ("DELETE", "204 No Content\r\nContent-Length: 7", None),
    ];
    for (method, said, length) in table {
        let answer = format!("HTTP/1.1 {said}\r\n\r\n");
        let origin = Origin::answering(move |request| match request.head.target().as_str() {
            "/bodiless" => answer.clone().into_bytes(),
            _ => ok("next"),
        });
        let gateway = Gateway::by_one_worker(&origin);
        let mut client = gateway.connect();
        let response = client.ask(format!("{method} /bodiless HTTP/1.1\r\nHost: a\r\n\r\n"));
        let expected: u16 = said[..3].parse().unwrap();
        assert_eq!(response.status(), expected, "{method} {said}");
        let shown = response.field("Content-Length");
        assert_eq!(shown.as_deref(), length, "{method} {said}");
        assert_eq!(response.field("Transfer-Encoding"), None);
        // Not a byte of a body stands before the next response, on either side.
        assert_eq!(client.get("/next").text(), "next", "{method} {said}");
        assert_eq!(origin.accepted(), 1, "{method} {said}");
    }
}

#[test]
fn many_responses_whose_body_must_not_come_take_one_connection() {
    for (method, said) in [
        ("HEAD", "200 OK\r\nContent-Length: 5"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("GET", "304 Not Modified\r\nContent-Length: 7"),
        ("GET", "204 No Content\r\nContent-Length: 7"),
    ] {
        let origin = Origin::answering(move |_| format!("HTTP/1.1 {said}\r\n\r\n").into());
        let gateway = Gateway::by_one_worker(&origin);
        let mut client = gateway.connect();
        for _ in 0..20 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            client.response_to(method);
        }
        assert_eq!(origin.accepted(), 1, "{method} {said}");
    }
}

#[test]
fn clients_that_send_many_heads_leave_the_others_a_connection_to_reuse() {
    const KEPT: usize = 2;
    let origin = Origin::answering(|request| match request.head.method().as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec(),
        _ => ok("ok"),
    });
    let setup = Setup::serving(&origin);
    let setup = setup.set("upstream.keepalive", KEPT);
    let gateway = setup.one_worker().start();
    let mut client = gateway.connect();
    client.get("/");
    let others: Vec<_> = (0..2 * KEPT).map(|_| gateway.connect()).collect();
    for mut other in others {
        other.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        other.response_to("HEAD");
        // By then its connection is kept, and after this one it still serves nobody else for a second.
        other.get("/");
    }
    let before = origin.accepted();
    for _ in 0..20 {
        client.get("/");
    }
    let anew = origin.accepted() - before;
    assert!(anew <= 1, "{anew} connections for 20 requests");
}

#[test]
fn a_body_that_must_not_come_is_never_taken_for_the_next_response() {
    for (method, said) in [
        ("HEAD", "200 OK\r\nContent-Length: 44"),
        ("GET", "304 Not Modified\r\nContent-Length: 44"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
    ] {
        let origin = Origin::scripted(move |conn| {
            while let Some(request) = conn.request()? {
                if request.head.target() == "/next" {
                    conn.send(ok("fine"))?;
                    continue;
                }
                conn.send(format!("HTTP/1.1 {said}\r\n\r\n"))?;
                conn.send(ok("forged"))?;
            }
            Ok(())
        });
        let gateway = Gateway::by_one_worker(&origin);
        for round in 0..200 {
            let mut client = gateway.connect();
            let both = format!(
                "{method} / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
            );
            client.send(both);
            client.response_to(method);
            let next = client.response().text();
            assert_eq!(next, "fine", "{method} {said}: round {round}");
        }
    }
}

#[test]
fn a_body_that_must_not_come_and_is_late_is_not_the_answer_to_another_clients_request() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n";
    // On a connection of a proxy's even the next request may be another's.
    for (from, fields) in [
        ("127.0.0.1", ""),
        ("127.0.0.7", ""),
        ("127.0.0.7", "Authorization: NTLM x\r\n"),
    ] {
        let origin = Origin::scripted(|conn| {
            while let Some(request) = conn.request()? {
                if request.head.method() == "HEAD" {
                    conn.send(HEAD)?;
                    // By then the next request has come, wherever that is.
                    conn.wait_for_release()?;
                    conn.send(ok("forged"))?;
                    continue;
                }
                conn.note("next");
                conn.send(ok("fine"))?;
            }
            Ok(())
        });
        let setup = Setup::serving(&origin);
        let setup = setup.set("gateway.trusted_proxies", "127.0.0.7");
        let gateway = setup.one_worker().start();
        let mut client = gateway.connect_from(from);
        client.send(format!("HEAD / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.response_to("HEAD");
        let mut other = gateway.connect();
        let next = match from {
            "127.0.0.1" => &mut other,
            _ => &mut client,
        };
        assert_eq!(next.get("/next").text(), "fine", "{from} {fields}");
        origin.release();
        assert_eq!(next.get("/next").text(), "fine", "{from}");
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn an_answer_for_which_a_late_body_was_taken_is_not_the_answer_to_another_clients_request() {
    let origin = Origin::scripted(|conn| {
        let mut owed = false;
        while let Some(request) = conn.request()? {
            match &*request.head.target() {
                "/head" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n")?,
                // The body comes now, and the answer takes its time.
                "/slow" => {
                    conn.send(ok("forged"))?;
                    owed = true;
                }
                _ if owed => conn.send(ok("the answer to /slow"))?,
                _ => conn.send(ok("fine"))?,
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response_to("HEAD");
    assert_eq!(client.get("/slow").text(), "forged");
    // For longer than a connection rests behind a HEAD.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(gateway.connect().get("/next").text(), "fine");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_peer_that_has_sent_a_body_that_must_not_come_gets_a_connection_for_each_such_response() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    for late in [false, true] {
        let origin = Origin::scripted(move |conn| {
            while let Some(request) = conn.request()? {
                match (&*request.head.target(), request.head.method().as_str()) {
                    ("/bad", _) if late => {
                        conn.send(HEAD)?;
                        conn.wait_for_release()?;
                        conn.send("no")?;
                        conn.note("late");
                    }
                    ("/bad", _) => conn.send(format!("{HEAD}no"))?,
                    (_, "HEAD") => conn.send(HEAD)?,
                    _ => conn.send(ok("fine"))?,
                }
            }
            Ok(())
        });
        let gateway = Gateway::by_one_worker(&origin);
        let mut client = gateway.connect();
        let mut head = |target: &str| {
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.response_to("HEAD").status(), 200);
        };
        head("/");
        head("/");
        head("/bad");
        assert_eq!(origin.accepted(), 1);
        if late {
            origin.release();
            origin.wait("the body", |it| it.notes.iter().any(|it| it == "late"));
        }
        for count in 2..5 {
            head("/");
            origin.wait_closed(count);
        }
        // Other responses are trusted as before.
        assert_eq!(client.get("/").text(), "fine");
        assert_eq!(client.get("/").text(), "fine");
        assert_eq!(origin.accepted(), 5);
    }
}

#[test]
fn max_body_refuses_a_length_before_the_origin_and_a_chunked_body_at_its_limit() {
    let origin = Origin::saying(ok("thanks"));
    let setup = Setup::serving(&origin);
    let gateway = setup.set("gateway.max_body", 10).start();
    let refused = |client: &mut Client| {
        let response = client.response();
        assert_eq!(response.status(), 413);
        assert_eq!(response.text(), "413 Content Too Large: body-too-large\n");
        assert_eq!(response.field("Connection").as_deref(), Some("close"));
        client.half_close();
        client.expect_close();
    };
    let head = |framing: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");

    let mut client = gateway.connect();
    client.send(head("Content-Length: 11"));
    refused(&mut client);
    assert_eq!(origin.accepted(), 0);

    let mut client = gateway.connect();
    client.send(head("Transfer-Encoding: chunked"));
    client.send("5\r\n01234\r\n");
    client.send("6\r\n012345\r\n0\r\n\r\n");
    refused(&mut client);
    origin.wait_closed(1);
    assert_eq!(origin.requests().len(), 0, "a cut request looked whole");

    // Exactly the limit is let through. The framing does not count.
    let mut client = gateway.connect();
    client.send(head("Content-Length: 10") + "0123456789");
    assert_eq!(client.response().status(), 200);
    client.send(head("Transfer-Encoding: chunked"));
    client.send("5;extension=yes\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.last().content, b"0123456789");
}

/// Reads to the end of the stream: what still came, and what the end was.
fn end_of(client: &mut Client) -> (Vec<u8>, io::Result<()>) {
    let mut rest = Vec::new();
    loop {
        match client.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => return (rest, Ok(())),
            Ok(piece) => rest.extend_from_slice(&piece),
            Err(error) => return (rest, Err(error)),
        }
    }
}

#[test]
fn a_response_that_is_cut_short_is_seen_to_be_cut_short() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n4\r\ncut!\r\n";
    let inside = "Transfer-Encoding: chunked\r\n\r\n8\r\ncut!";
    let length = "Content-Length: 8\r\n\r\ncut!";
    let endless = "X-Length: none\r\n\r\ncut!";
    // What the origin sends, what it sends later, whether it ends with a reset, and the client's
    // version.
    let table = [
        (chunked, "", false, 1),
        (chunked, "", true, 1),
        (chunked, "no chunk", false, 1),
        (inside, "", false, 1),
        (length, "", false, 1),
        (endless, "", true, 1),
        (chunked, "", false, 0),
        (chunked, "no chunk", false, 0),
        (inside, "", false, 0),
        (length, "", false, 0),
        (endless, "", true, 0),
    ];
    for (said, then, resets, minor) in table {
        let case = format!("{said:?}, then {then:?}, reset: {resets}, HTTP/1.{minor}");
        let origin = Origin::scripted(move |conn| {
            conn.request()?;
            conn.send(format!("HTTP/1.1 200 OK\r\n{said}"))?;
            conn.wait_for_release()?;
            conn.send(then)?;
            if resets {
                conn.reset_at_end();
            }
            Ok(())
        });
        let gateway = Gateway::serving(&origin);
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.status(), 200, "{case}");
        // What has come is passed on at once, and the end only after it.
        let chunked = head.field("Transfer-Encoding").is_some();
        let expected: &[u8] = match chunked {
            true => b"4\r\ncut!",
            false => b"cut!",
        };
        assert_eq!(client.exactly(expected.len()), expected, "{case}");
        origin.release();
        let (rest, end) = end_of(&mut client);
        assert!(rest == b"" || rest == b"\r\n", "{case}: {rest:?}");
        if let Err(error) = &end {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{case}");
        }
        // Nothing but the end of the connection tells such a client that this is not the end.
        let by_end = !chunked && head.field("Content-Length").is_none();
        assert!(end.is_err() || !by_end, "{case}: an orderly end");
        let line = gateway.wait_for_access("status=200");
        assert_eq!(line.get("close"), "response-cut", "{case}");
    }
}

#[test]
fn a_client_that_vanishes_cancels_its_exchange() {
    type Script = fn(&mut Conn) -> io::Result<()>;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let waits: Script = |conn| {
        conn.head()?;
        conn.wait_gone()
    };
    let stops: Script = |conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        conn.wait_gone()
    };
    let goes_on: Script = |conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            conn.send([b'x'; 10_000])?;
        }
    };
    // When, the reason that is logged, what the client sends, what the origin does, whether the
    // client waits for a response head, and whether it resets. (A client that only closes is seen
    // to be gone when it is written to.)
    let table = [
        ("before the head", "client-gone", get, waits, false, true),
        (
            "inside a silent response",
            "client-gone",
            get,
            stops,
            true,
            true,
        ),
        ("inside a response", "client-gone", get, goes_on, true, true),
        (
            "inside a response, by FIN",
            "client-gone",
            get,
            goes_on,
            true,
            false,
        ),
        ("inside its body", "body-cut", half, waits, false, true),
        (
            "inside its body, by FIN",
            "body-cut",
            half,
            waits,
            false,
            false,
        ),
        (
            "inside chunks, by FIN",
            "body-cut",
            chunked,
            waits,
            false,
            false,
        ),
    ];
    for (when, close, request, script, answered, resets) in table {
        let origin = Origin::scripted(script);
        // No deadline may do it in the client's place.
        let gateway = Setup::serving(&origin)
            .set("upstream.read_timeout", "1h")
            .set("gateway.body_timeout", "1h")
            .set("gateway.send_timeout", "1h")
            .start();
        let mut client = gateway.connect();
        client.send(request);
        origin.wait(&format!("a head, {when}"), |seen| seen.heads.len() == 1);
        if answered {
            assert_eq!(client.head().status(), 200, "{when}");
        }
        match resets {
            true => client.reset(),
            false => drop(client),
        }
        origin.wait_closed(1);
        assert_eq!(origin.accepted(), 1, "{when}");
        let line = &gateway.wait_for_access_lines(1)[0];
        assert_eq!(line.get("close"), close, "{when}");
    }
}

#[test]
fn of_a_giant_answer_that_is_cut_nothing_gets_into_another_one() {
    const LENGTH: u64 = 8 << 20;
    // The first one is cut by its client, the second one by its origin.
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            let seed: u64 = request.head.target()[1..].parse().unwrap();
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
            ))?;
            let mut pattern = Pattern::new(seed);
            let end = if seed == 2 { LENGTH / 2 } else { LENGTH };
            while pattern.length() < end {
                let left = end - pattern.length();
                conn.send(pattern.next(left))?;
                conn.note("piece");
            }
            if end < LENGTH {
                return Ok(());
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let asked = |client: &mut Client, seed: u64| {
        client.send(format!("GET /{seed} HTTP/1.1\r\nHost: a\r\n\r\n"));
        (client.head().response_framing("GET"), Pattern::new(seed))
    };
    let mut leaves = Client::with_small_window("127.0.0.1", gateway.addr(), 4096);
    let (_, mut pattern) = asked(&mut leaves, 1);
    pattern.check(&leaves.wire.some(64 * 1024).unwrap());
    // Until nothing moves any more, so that something is on its way within the gateway.
    let pieces = || origin.seen(|seen| seen.notes.len());
    let mut before = 0;
    wait_until("the flow stands", DEADLINE, || {
        std::mem::replace(&mut before, pieces()) == before && before > 0
    });
    leaves.reset();
    gateway.wait_for_access("status=200 close=client-gone");

    let mut client = gateway.connect();
    let (framing, mut pattern) = asked(&mut client, 2);
    let cut = client
        .wire
        .stream_body(framing, &mut |piece| pattern.check(piece));
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(pattern.length(), LENGTH / 2);
    gateway.wait_for_access("error=response-cut");

    let mut client = gateway.connect();
    for seed in [3, 4] {
        let (framing, mut pattern) = asked(&mut client, seed);
        let check = &mut |piece: &[u8]| pattern.check(piece);
        client.wire.stream_body(framing, check).unwrap();
        assert_eq!(pattern.length(), LENGTH);
    }
}

const GIB: u64 = 1 << 30;

/// The gateway's resident size while a body passes.
struct Memory<'a> {
    gateway: &'a Gateway,
    before: u64,
    next: u64,
}

impl<'a> Memory<'a> {
    /// Starts behind a first request, so that what every worker needs anyway is there.
    fn of(gateway: &'a Gateway) -> Self {
        let before = gateway.rss_kib();
        Self {
            gateway,
            before,
            next: 0,
        }
    }

    /// Looks again every 16 MiB of the body.
    fn look(&mut self, passed: u64) {
        if passed >= self.next {
            self.next = passed + (16 << 20);
            let grown = self.gateway.rss_kib().saturating_sub(self.before);
            assert!(grown < 16 << 10, "{grown} KiB more, at byte {passed}");
        }
    }
}

#[test]
fn a_gigabyte_down_needs_no_memory() {
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            let length = match request.head.target().as_str() {
                "/big" => GIB,
                _ => 1,
            };
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))?;
            let mut pattern = Pattern::new(5);
            while pattern.length() < length {
                let left = length - pattern.length();
                conn.send(pattern.next(left))?;
            }
        }
        Ok(())
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    assert_eq!(client.get("/small").content.len(), 1);
    let mut memory = Memory::of(&gateway);
    let mut pattern = Pattern::new(5);
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let framing = client.head().response_framing("GET");
    let check = &mut |piece: &[u8]| {
        pattern.check(piece);
        memory.look(pattern.length());
    };
    client.wire.stream_body(framing, check).unwrap();
    assert_eq!(pattern.length(), GIB);
}

#[test]
fn a_gigabyte_up_in_chunks_needs_no_memory() {
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            let mut pattern = Pattern::new(6);
            conn.stream_body(&head, &mut |piece| pattern.check(piece))?;
            conn.send(ok(pattern.length().to_string()))?;
        }
        Ok(())
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(head);
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "0");
    let mut memory = Memory::of(&gateway);
    let mut pattern = Pattern::new(6);
    client.send(head);
    while pattern.length() < GIB {
        let left = GIB - pattern.length();
        client.send(chunk(pattern.next(left)));
        memory.look(pattern.length());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), GIB.to_string());
}

#[test]
fn all_that_came_before_a_cut_arrives_at_a_client_that_reads_late() {
    // The kernel holds so much for a client that does not read.
    const PART: usize = 400_000;
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n")?;
        conn.send([b'x'; PART])
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // By then the gateway has closed.
    gateway.wait_for_access("status=200 error=response-cut close=response-cut");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.rest().len(), PART);
}

#[test]
fn a_malformed_trailer_is_no_clean_end_for_an_old_client_either() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno colon\r\n\r\n",
    );
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status(), 502, "{}", response.text());
    origin.wait_closed(1);
}

#[test]
fn a_trailer_of_one_message_is_not_that_of_another() {
    let with_trailer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n";
    let origin = Origin::scripted(move |conn| {
        while let Some(request) = conn.request()? {
            match request.head.target().as_str() {
                "/trailer" => conn.send(with_trailer)?,
                "/close" => return conn.send("HTTP/1.1 200 OK\r\n\r\nto the end"),
                _ => conn.send(ok("ok"))?,
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let upload = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\na\r\n0\r\nX-T: 1\r\n\r\n"
        )
    };
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    a\r\nto the end\r\n0\r\n\r\n";
    // A trailer of the request itself, of another client's request, of another's response.
    let got = gateway.connect().ask(upload("/close")).bytes();
    assert_eq!(String::from_utf8_lossy(&got), expected);
    let get = "GET /trailer HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    for before in [upload("/"), get] {
        assert_eq!(gateway.connect().ask(before).status(), 200);
        let got = gateway.connect().get("/close").bytes();
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }
    assert_eq!(gateway.metric("graygate_panics_total"), 0.0);
}
