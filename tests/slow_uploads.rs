//! Final answers that come while the client is still sending, to clients that read nothing until they
//! have sent everything.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, Instant};

use support::{Client, Conn, Gateway, Head, Origin, RefusingPeer, Setup, ok};

/// Once it is answered, a client was left so long; then its next byte broke the connection.
const ONCE: Duration = Duration::from_secs(2);

const PIECE: usize = 1000;
const PIECES: usize = 6;

/// Answers at the head, says that it closes, and does.
fn closing() -> Origin {
    Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    })
}

/// Answers at the head, and closes without having said so.
fn leaving() -> Origin {
    Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    })
}

/// Answers at the head, and reads on.
fn reading_on() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            if head.method() == "GET" {
                conn.send(ok("next"))?;
                continue;
            }
            conn.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")?;
            conn.body(head)?;
        }
        Ok(())
    })
}

/// Sends a body slowly, and never reads meanwhile.
#[track_caller]
fn upload(client: &mut Client, chunked: bool) {
    upload_behind(client, "PUT / HTTP/1.1\r\nHost: a", chunked);
}

/// As [`upload`], behind this begin of a head.
#[track_caller]
fn upload_behind(client: &mut Client, head: &str, chunked: bool) {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", PIECE * PIECES),
    };
    client.send(format!("{head}\r\n{framing}\r\n\r\n"));
    let begun = Instant::now();
    for _ in 0..PIECES {
        std::thread::sleep(ONCE / 4);
        if chunked {
            client.send(format!("{PIECE:x}\r\n"));
        }
        client.send([b'x'; PIECE]);
        if chunked {
            client.send("\r\n");
        }
    }
    assert!(begun.elapsed() > ONCE);
    if chunked {
        client.send("0\r\n\r\n");
    }
}

fn gateway(setup: Setup, peers: &[&dyn Display]) -> Gateway {
    setup.lists(&[], &[], peers).start()
}

#[test]
fn a_client_that_only_writes_gets_the_answer_of_a_peer_that_reads_no_further() {
    let check = |origin: Origin, status: u16, chunked: bool| {
        let gateway = gateway(Setup::new(), &[&origin]);
        let mut client = gateway.connect();
        upload(&mut client, chunked);
        let response = client.response();
        assert_eq!((response.status(), &*response.text()), (status, "no"));
        client.expect_close();
        gateway.wait_for_access(&format!("status={status} error=- close=body-unread"));
        assert_eq!(origin.accepted(), 1);
    };
    std::thread::scope(|scope| {
        for chunked in [false, true] {
            scope.spawn(move || check(closing(), 401, chunked));
            scope.spawn(move || check(leaving(), 403, chunked));
        }
    });
}

#[test]
fn a_peer_that_refuses_and_keeps_its_connection_gets_the_whole_body_and_both_connections_stay() {
    let check = |chunked| {
        let origin = reading_on();
        let gateway = gateway(Setup::new().one_worker(), &[&origin]);
        let mut client = gateway.connect();
        upload(&mut client, chunked);
        let response = client.response();
        assert_eq!((response.status(), &*response.text()), (413, "no"));
        assert_eq!(response.field("connection"), None);
        assert_eq!(client.get("/").text(), "next");
        assert_eq!(origin.requests()[0].content.len(), PIECE * PIECES);
        assert_eq!(origin.accepted(), 1);
    };
    std::thread::scope(|scope| {
        [false, true]
            .map(|it| scope.spawn(move || check(it)))
            .map(drop)
    });
}

#[test]
fn a_client_that_only_writes_gets_the_gateways_own_answer() {
    let (dead, live) = (RefusingPeer::new(), Origin::named("prod"));
    let check = |setup: Setup, peers: &[&dyn Display], chunked, expected: &str| {
        let gateway = gateway(setup, peers);
        let mut client = gateway.connect();
        upload(&mut client, chunked);
        let response = client.response();
        let text = response.text();
        assert_eq!(text, format!("{expected}\n"));
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        client.expect_close();
        let error = expected.rsplit(' ').next().unwrap();
        let line = gateway.wait_for_access(&format!("status={} error={error}", response.status()));
        assert!(
            ["refused", "body-unread"].contains(&line.get("close")),
            "{}",
            line.raw
        );
    };
    std::thread::scope(|scope| {
        for chunked in [false, true] {
            scope.spawn(move || {
                check(
                    Setup::new(),
                    &[],
                    chunked,
                    "503 Service Unavailable: no-peers",
                );
            });
            let dead = &dead;
            scope.spawn(move || {
                check(
                    Setup::new(),
                    &[dead],
                    chunked,
                    "502 Bad Gateway: connect-refused",
                );
            });
            let live = &live;
            scope.spawn(move || {
                let setup = Setup::new().set("gateway.max_body", 2 * PIECE + 1);
                let expected = "413 Content Too Large: body-too-large";
                check(setup, &[live], chunked, expected);
            });
        }
    });
}

#[test]
fn a_client_that_only_writes_gets_a_refusal_of_its_head_where_the_end_of_its_body_is_known() {
    let origin = Origin::named("prod");
    let setup = Setup::new().set("gateway.raw_target", "refuse");
    let gateway = gateway(setup, &[&origin]);
    let table = [
        ("TRACE / HTTP/1.1\r\nHost: a", "method-not-allowed"),
        ("PUT x HTTP/1.1\r\nHost: a", "bad-target"),
        ("PUT /ü HTTP/1.1\r\nHost: a", "bad-target"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nHost: b", "many-hosts"),
        ("PUT / HTTP/1.1\r\nHost: a/b", "bad-host"),
        ("PUT / HTTP/1.1\r\nA: b", "no-host"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nConnection: (", "bad-field"),
    ];
    std::thread::scope(|scope| {
        for ((head, reason), chunked) in table.iter().flat_map(|it| [(it, false), (it, true)]) {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.connect();
                upload_behind(&mut client, head, chunked);
                let text = client.response().text();
                assert!(text.ends_with(&format!(": {reason}\n")), "{text}");
                client.expect_close();
                gateway.wait_for_access(&format!("error={reason} close=refused"));
            });
        }
    });
    assert_eq!(origin.accepted(), 0);
}

/// Sends the head of a long upload, reads the answer, and then writes until that fails.
#[track_caller]
fn write_on(gateway: &Gateway, length: usize, piece: &[u8], pause: Duration) -> (usize, Duration) {
    let mut client = gateway.connect();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    assert_eq!(client.response().status(), 503);
    let (begun, mut sent) = (Instant::now(), 0);
    while sent < length && client.wire.stream.write_all(piece).is_ok() {
        sent += piece.len();
        std::thread::sleep(pause);
    }
    (sent, begun.elapsed())
}

#[test]
fn what_is_dropped_of_a_body_is_bounded_in_bytes_in_silence_and_in_pace() {
    const MIB: usize = 1 << 20;
    let setup = || {
        let setup = Setup::new().set("gateway.max_discard", "8m");
        setup.set("gateway.body_timeout", "1s")
    };
    // So much is announced that it is not even begun with: the client has a moment.
    let gateway_of = |setup| gateway(setup, &[]);
    let piece = vec![b'x'; MIB];
    let pause = Duration::from_millis(100);
    let (_, took) = write_on(&gateway_of(setup()), 1 << 30, b"x", pause);
    assert!(took > ONCE / 2 && took < 3 * ONCE, "{took:?}");
    // As much as is allowed is read to its end.
    let (sent, _) = write_on(&gateway_of(setup()), 8 * MIB, &piece, Duration::ZERO);
    assert_eq!(sent, 8 * MIB);
    // A silent client is let go in time,
    let (sent, _) = write_on(&gateway_of(setup()), MIB, b"x", 2 * ONCE);
    assert!(sent < 10, "{sent}");
    // and so is one that drips where much is to come.
    let rate = setup().set("gateway.min_rate", "100k");
    let (_, took) = write_on(&gateway_of(rate), MIB, b"x", Duration::from_millis(20));
    assert!(took < 3 * ONCE, "{took:?}");
    // Of a body of unknown length no more is read, either.
    let gateway = gateway_of(setup());
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n", &piece[..], b"\r\n"].concat();
    let mut sent = 0;
    while client.wire.stream.write_all(&chunk).is_ok() {
        sent += MIB;
        assert!(sent < 64 * MIB, "it is read for ever");
    }
}

/// Answers at the head with more than the kernel holds for a client, and then does what `script` says.
fn answering_at_length(
    fields: &'static str,
    script: impl Fn(&mut Conn, Head) -> std::io::Result<()> + Send + Sync + 'static,
) -> Origin {
    Origin::scripted(move |conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        let mut out = conn.wire.stream.try_clone()?;
        let answer = format!("HTTP/1.1 413 No\r\n{fields}\r\n");
        let answering = std::thread::spawn(move || {
            out.write_all(answer.as_bytes())?;
            let content = match answer.contains("chunked") {
                true => format!("{LONG_ANSWER:x}\r\n"),
                false => String::new(),
            };
            out.write_all(content.as_bytes())?;
            out.write_all(&vec![b'y'; LONG_ANSWER])?;
            match content.is_empty() {
                true => Ok(()),
                false => out.write_all(b"\r\n0\r\n\r\n"),
            }
        });
        script(conn, head)?;
        answering.join().unwrap()
    })
}

/// More than the buffers on the way of an answer hold.
const LONG_ANSWER: usize = 8_000_000;

/// More than those on the way of an upload hold.
const LONG_UPLOAD: usize = 24_000_000;

#[test]
fn a_client_that_only_writes_gets_a_long_answer_whole() {
    let check = |name: &str, origin: Origin| {
        let setup = Setup::new().set("gateway.send_timeout", "1s");
        let gateway = gateway(setup, &[&origin]);
        let mut client = gateway.connect();
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG_UPLOAD}\r\n\r\n"
        ));
        // For longer than a client may take nothing.
        let begun = Instant::now();
        for _ in 0..20 {
            client.send(vec![b'x'; LONG_UPLOAD / 20]);
            std::thread::sleep(ONCE / 10);
        }
        assert!(begun.elapsed() >= 2 * ONCE);
        let response = client.response();
        let got = (response.status(), response.content.len());
        assert_eq!(got, (413, LONG_ANSWER), "{name}");
    };
    // One that reads no further, with an answer of either kind, and one that takes it all.
    let closing = |fields| answering_at_length(fields, |conn, _| conn.wait_gone());
    let reading_on = answering_at_length("Content-Length: 8000000\r\n", |conn, head| {
        conn.stream_body(&head, &mut |_| {}).map(drop)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let fields = "Connection: close\r\nContent-Length: 8000000\r\n";
            check("closing", closing(fields));
        });
        scope.spawn(|| {
            let fields = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
            check("closing, in chunks", closing(fields));
        });
        scope.spawn(|| check("reading on", reading_on));
    });
}
