//! Peers that answer before they have read the whole request: both bodies flow at once, an answer
//! that ends the matter reaches the client, and nobody waits for what will not come.

mod support;

use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use support::{Client, DEADLINE, Gateway, Origin, Pattern, Setup, ok};

/// Answers at once, and sends every byte of the body back as it comes.
fn echo() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let mut out = conn.wire.stream.try_clone()?;
            let mut outcome = Ok(());
            conn.stream_body(&head, &mut |piece| {
                use std::io::Write;
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                outcome = out.write_all(&chunk);
            })?;
            outcome?;
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    })
}

#[test]
fn each_piece_of_an_upload_is_answered_before_the_next_is_sent() {
    let origin = echo();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    for (framing, begin, end) in [
        ("Content-Length: 12", "", ""),
        ("Transfer-Encoding: chunked", "4\r\n", "\r\n"),
    ] {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        assert_eq!(client.head().status(), 200, "{framing}");
        for piece in ["one ", "two ", "end."] {
            client.send(format!("{begin}{piece}{end}"));
            let expected = format!("4\r\n{piece}\r\n");
            assert_eq!(client.exactly(expected.len()), expected.as_bytes());
        }
        if !begin.is_empty() {
            client.send("0\r\n\r\n");
        }
        assert_eq!(client.exactly(5), b"0\r\n\r\n");
    }
    // The connections stay on both sides.
    assert_eq!(origin.accepted(), 1);
    for _ in 0..2 {
        let line = gateway.wait_for_access("status=200 error=- close=-");
        assert!(
            line.get("received").parse::<u64>().unwrap() >= 60,
            "{}",
            line.raw
        );
    }
}

#[test]
fn a_large_body_is_echoed_while_it_is_sent() {
    const LENGTH: u64 = 64 << 20;
    let origin = echo();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    let mut out = client.wire.stream.try_clone().unwrap();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        let mut pattern = Pattern::new(7);
        while pattern.length() < LENGTH {
            let left = LENGTH - pattern.length();
            out.write_all(pattern.next(left)).unwrap();
        }
    });
    let mut pattern = Pattern::new(7);
    let framing = client.head().response_framing("POST");
    client
        .wire
        .stream_body(framing, &mut |piece| pattern.check(piece))
        .unwrap();
    assert_eq!(pattern.length(), LENGTH);
    sending.join().unwrap();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nnext");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn a_peer_that_answers_while_it_takes_nothing_gets_every_byte_of_a_large_body() {
    const LENGTH: usize = 64 << 20;
    let (held_up, is_held_up) = std::sync::mpsc::channel();
    let is_held_up = Mutex::new(is_held_up);
    let (checked, is_checked) = std::sync::mpsc::channel();
    let origin = Origin::scripted(move |conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        is_held_up.lock().unwrap().recv().unwrap();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")?;
        let mut pattern = Pattern::new(3);
        conn.stream_body(&head, &mut |piece| pattern.check(piece))?;
        checked.send(pattern.length()).unwrap();
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    let out = &mut client.wire.stream.try_clone().unwrap();
    let body = Pattern::new(3).bytes(LENGTH);
    let mut unsent = &body[..];
    // Until all buffers on the way are full, those of the gateway included.
    out.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while let Ok(count @ 1..) = out.write(unsent) {
        unsent = &unsent[count..];
    }
    assert!(!unsent.is_empty(), "nothing is held up");
    held_up.send(()).unwrap();
    assert_eq!(client.response().text(), "early");
    out.set_write_timeout(None).unwrap();
    out.write_all(unsent).unwrap();
    assert_eq!(is_checked.recv_timeout(DEADLINE).unwrap(), LENGTH as u64);
}

#[test]
fn a_client_at_fault_after_the_answer_has_begun_ends_the_exchange() {
    let origin = echo();
    let gateway = Gateway::by_one_worker(&origin);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n";
    for (at, (then, expected)) in [
        ("nonsense", "status=200 error=bad-chunk close=refused"),
        (
            "0\r\nno colon\r\n\r\n",
            "status=200 error=bad-trailer close=refused",
        ),
        ("", "status=200 error=- close=body-cut"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = gateway.connect();
        client.send(head);
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.exactly(9), b"4\r\nfine\r\n");
        match then {
            "" => client.half_close(),
            then => client.send(then),
        }
        // No end is invented, neither for the client nor for the peer.
        assert!(!client.rest().ends_with(b"0\r\n\r\n"), "{expected}");
        gateway.wait_for_access(expected);
        origin.wait_closed(at + 1);
    }
}

#[test]
fn a_client_at_fault_does_not_end_an_answer_that_ends_with_its_connection() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nbegun")?;
        conn.wait_gone()
    });
    let gateway = Gateway::by_one_worker(&origin);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n";
    for (then, expected) in [
        ("nonsense", "status=200 error=bad-chunk close=refused"),
        ("", "status=200 error=- close=body-cut"),
    ] {
        let mut client = gateway.connect();
        client.send(head);
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.exactly(10), b"5\r\nbegun\r\n");
        match then {
            "" => client.half_close(),
            then => client.send(then),
        }
        assert_eq!(client.rest().escape_ascii().to_string(), "", "{expected}");
        gateway.wait_for_access(expected);
    }
}

#[test]
fn a_body_that_stalls_after_the_answer_has_begun_is_cut_in_time() {
    let origin = echo();
    let gateway = Setup::serving(&origin)
        .set("gateway.body_timeout", "300ms")
        .start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfine");
    assert_eq!(client.head().status(), 200);
    client.rest();
    gateway.wait_for_access("status=200 error=body-timeout close=refused");
    origin.wait_closed(1);
}

#[test]
fn a_whole_answer_of_a_peer_that_closes_then_ends_the_connection_before_the_end_of_the_body() {
    let origin = Origin::scripted(move |conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nenough")?;
        conn.wait_gone()
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun");
    assert_eq!(client.response().text(), "enough");
    client.expect_close();
    gateway.wait_for_access("status=200 error=- close=body-unread");
    origin.wait_closed(1);
}

/// Sends a large body as far as it is taken, and reads the answer.
fn upload(client: &mut Client, length: usize) -> (u16, String) {
    client.send_if_open(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.send_if_open(vec![b'x'; length]);
    let response = client.response();
    (response.status(), response.text())
}

#[test]
fn an_answer_is_not_lost_when_the_peer_closes_on_the_body() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        // What it has not read makes the end of the connection a reset.
        conn.send(
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
        )
    });
    let gateway = Gateway::by_one_worker(&origin);
    for round in 0..100 {
        let mut client = gateway.connect();
        let answer = upload(&mut client, 2_000_000);
        assert_eq!(answer, (413, "big".to_owned()), "round {round}");
    }
}

#[test]
fn a_small_body_is_sent_again_where_the_method_allows_it() {
    // Closes each connection on its second request, which it has read.
    let origin = Origin::scripted(|conn| {
        let Some(request) = conn.request()? else {
            return Ok(());
        };
        conn.send(ok(request.content))?;
        conn.request().map(drop)
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    let put = |body: &str| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{body}");
    for body in ["one", "two", "six"] {
        assert_eq!(client.ask(put(body)).text(), body);
    }
    // One that comes later than its head has been taken from the client when that fails, and is kept.
    client.send(put(""));
    origin.wait("the head", |seen| seen.heads.len() == 6);
    client.send("ten");
    assert_eq!(client.response().text(), "ten");
    // A large one is not.
    let length = 9000;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    origin.wait("the head", |seen| seen.heads.len() == 8);
    client.send("x".repeat(length));
    assert_eq!(client.response().text(), "502 Bad Gateway: stale\n");
}

#[test]
fn a_peer_that_will_close_reads_the_body_to_its_end() {
    let origin = Origin::scripted(|conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        let request = conn.body(head)?;
        conn.send(format!("got {}", request.content.len()))
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.send([b'x'; 2000]);
    assert_eq!(client.exactly(13), b"8\r\ngot 2000\r\n".get(..13).unwrap());
    gateway.wait_for_access("status=200 error=-");
}

#[test]
fn a_peer_that_has_answered_without_a_body_may_go_on_reading() {
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            let first = head.method() == "POST";
            if first {
                conn.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")?;
            }
            let request = conn.body(head)?;
            if !first {
                conn.send(ok(request.head.target()))?;
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    let response = client.response();
    assert_eq!(
        (response.status(), response.field("connection")),
        (202, None)
    );
    client.send("defGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "/next");
    assert_eq!(origin.requests()[0].content, b"abcdef");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn an_answer_that_came_with_an_interim_one_is_passed_on_at_once() {
    for (fields, interim, passed) in [
        ("Expect: 100-continue\r\n", "100 Continue", 100),
        ("", "103 Early Hints", 103),
    ] {
        let origin = Origin::scripted(move |conn| {
            conn.head()?;
            conn.send(format!(
                "HTTP/1.1 {interim}\r\n\r\nHTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"
            ))?;
            conn.wait_gone()
        });
        // No deadline may do it.
        let gateway = Setup::serving(&origin)
            .set("gateway.body_timeout", "1h")
            .start();
        let mut client = gateway.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 10\r\n\r\n"
        ));
        assert_eq!(client.head().status(), passed);
        let response = client.response();
        assert_eq!((response.status(), &*response.text()), (413, "no"));
    }
}

#[test]
fn a_large_answer_before_the_end_of_the_body_arrives_whole_also_when_the_client_is_to_go() {
    // As much as the kernel takes at once for a client that does not read.
    const LENGTH: usize = 500_000;
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send(format!(
            "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))?;
        conn.send(vec![b'x'; LENGTH])?;
        conn.wait_gone()
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9999\r\n\r\nabc");
    gateway.wait_for_metric("graygate_requests_total{pool=\"prod\",status=\"4xx\"}", 1.0);
    // What comes now must not make the end of the connection a reset.
    client.send_if_open([b'y'; 500]);
    let response = client.response();
    assert_eq!((response.status(), response.content.len()), (413, LENGTH));
}

#[test]
fn what_was_taken_of_a_body_is_never_sent_again_in_part_nor_taken_for_a_request() {
    // It accepts, and never reads; its small window makes the first write wait.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.set_recv_buffer_size(1024).unwrap();
    deaf.set_tcp_mss(100).unwrap();
    deaf.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    deaf.listen(16).unwrap();
    let pre = deaf.local_addr().unwrap().as_socket().unwrap();
    let prod = Origin::named("prod");
    let gateway = Setup::new()
        .one_worker()
        .set("gateway.max_head", "1m")
        .set("upstream.send_timeout", "200ms")
        .set("upstream.read_timeout", "300ms")
        .lists(&["127.0.0.5"], &[&pre], &[&prod])
        .start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let field = "y".repeat(400_000);
    // The second one so that, were the bytes that were taken before the retry not counted, what
    // looks like a request would stand where the next one begins.
    let aligned = 18_000 + smuggled.len();
    for length in [aligned, aligned, aligned, 9_000_000, 12_000] {
        let mut client = gateway.connect_from("127.0.0.5");
        // In one write, so that the body is there when the head is served.
        client.send_if_open(format!(
            "PUT /a HTTP/1.1\r\nHost: a\r\nX: {field}\r\nContent-Length: {length}\r\n\r\n{}{smuggled}",
            "x".repeat(9000)
        ));
        // The client ends inside its body, if it was not refused before.
        let _ = client.wire.stream.shutdown(std::net::Shutdown::Write);
        let answers = client.rest();
        assert!(!answers.ends_with(b"prod"), "{}", answers.escape_ascii());
    }
    let heads = prod.seen(|it| it.heads.iter().map(|it| it.target()).collect::<Vec<_>>());
    assert!(heads.iter().all(|it| it != "/smuggled"), "{heads:?}");
    assert!(prod.requests().is_empty(), "{heads:?}");
}

#[test]
fn what_one_peer_has_had_enough_of_the_next_one_gets() {
    // It resets each connection at once.
    let resets = Origin::scripted(|conn| {
        conn.reset_at_end();
        Ok(())
    });
    let prod = Origin::answering(|request| ok(request.content.len().to_string()));
    let gateway = Setup::new()
        .lists(&["127.0.0.5"], &[&resets], &[&prod])
        .start();
    for _ in 0..300 {
        let mut client = gateway.connect_from("127.0.0.5");
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
        client.send_if_open("abc");
        let response = client.response();
        // The body may have been taken from the client before the reset was seen.
        let told = (response.status(), response.text());
        let whole = told == (200, "3".to_owned());
        assert!(whole || told.0 == 502, "{told:?}");
    }
}

#[test]
fn an_answer_without_a_length_is_not_ended_by_a_peer_that_takes_nothing_of_the_body() {
    // It has begun to answer, and does not read.
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nbegun")?;
        conn.wait_for_release()
    });
    let gateway = Setup::serving(&origin)
        .set("gateway.send_timeout", "300ms")
        .set("upstream.send_timeout", "300ms")
        .start();
    for (version, begun) in [("1.1", "5\r\nbegun\r\n"), ("1.0", "begun")] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"
        ));
        let mut upload = client.wire.stream.try_clone().unwrap();
        let got = std::thread::scope(|scope| {
            scope.spawn(move || upload.write_all(&vec![b'x'; 50_000_000]));
            client.head();
            client.rest()
        });
        assert_eq!(String::from_utf8_lossy(&got), begun);
        gateway.wait_for_access("status=200 error=send-timeout close=response-cut");
    }
    gateway.wait_for_log("failure=send-timeout");
}

#[test]
fn an_answer_that_goes_on_arrives_whole_though_its_peer_takes_nothing_of_the_body_meanwhile() {
    const LENGTH: usize = 50_000_000;
    const PIECES: usize = 30;
    // It answers for longer than it may take nothing, and then reads on, or not.
    let origin = Origin::scripted(|conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {PIECES}\r\n\r\n"
        ))?;
        for _ in 0..PIECES {
            std::thread::sleep(Duration::from_millis(100));
            conn.send("x")?;
        }
        match head.target().as_str() {
            "/reads-on" => conn.body(head).map(drop),
            _ => conn.wait_for_release(),
        }
    });
    let gateway = Setup::serving(&origin)
        .set("gateway.send_timeout", "2s")
        .set("upstream.send_timeout", "2s")
        .start();
    for target in ["/reads-on", "/reads-no-further"] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
        ));
        let mut upload = client.wire.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || upload.write_all(&vec![b'x'; LENGTH]));
        let response = client.response();
        assert_eq!((response.status(), response.content.len()), (200, PIECES));
        sending.join().unwrap().unwrap();
        let close = match target {
            "/reads-on" => "-",
            _ => "body-unread",
        };
        gateway.wait_for_access(&format!("status=200 error=- close={close}"));
    }
    assert_eq!(origin.requests()[0].content.len(), LENGTH);
}
