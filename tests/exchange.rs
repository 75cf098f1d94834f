//! Requests and responses on one connection: order, reuse, framing, interim responses.

mod support;

use support::{Client, DEADLINE, Gateway, Origin, Request, Setup, ok};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Answers with the target.
fn by_target() -> Origin {
    Origin::answering(|request: &Request| ok(request.head.target()))
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    for at in 0..10 {
        let target = format!("/{at}");
        assert_eq!(client.ask(get(&target)).text(), target);
    }
    assert_eq!(origin.accepted(), 1);
    gateway.wait_for_metric("graygate_connections_total{worker=\"0\"}", 1.0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    let targets: Vec<String> = (0..20).map(|at| format!("/{at}")).collect();
    client.send(targets.iter().map(|it| get(it)).collect::<String>());
    for target in targets {
        assert_eq!(client.response().text(), target);
    }
}

#[test]
fn a_body_is_never_taken_for_the_next_request() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let smuggled = get("/smuggled");
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PURGE"] {
        let mut client = gateway.connect();
        let length = smuggled.len();
        client.send(format!(
            "{method} /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{smuggled}{}",
            get("/next")
        ));
        // This origin answers HEAD with a body, which must not reach the client.
        assert_eq!(client.response_to(method).status(), 200, "{method}");
        assert_eq!(client.response().text(), "/next", "{method}");
        assert_eq!(
            origin.requests().iter().rev().nth(1).unwrap().head.method(),
            method
        );
    }
    assert!(
        origin
            .requests()
            .iter()
            .all(|it| it.head.target() != "/smuggled")
    );
}

#[test]
fn the_connection_ends_when_the_client_asks_for_it_or_speaks_http_1_0() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let table = [
        ("HTTP/1.1", "Connection: close\r\n", None, Some("close")),
        ("HTTP/1.1", "Connection: X, Close\r\n", None, Some("close")),
        ("HTTP/1.0", "", None, Some("close")),
        (
            "HTTP/1.0",
            "Connection: keep-alive\r\n",
            Some(()),
            Some("keep-alive"),
        ),
        ("HTTP/1.1", "", Some(()), None),
    ];
    for (version, field, stays, said) in table {
        let mut client = gateway.connect();
        let request = format!("GET / {version}\r\nHost: a\r\n{field}\r\n");
        let response = client.ask(&request);
        assert_eq!(response.field("connection").as_deref(), said, "{request:?}");
        match stays {
            Some(()) => assert_eq!(client.ask(&request).status(), 200),
            None => client.expect_close(),
        }
    }
}

#[test]
fn a_client_that_has_shut_down_its_side_gets_the_whole_response() {
    let content = "x".repeat(3_000_000);
    let origin = Origin::saying(ok(&content));
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send(get("/"));
    client.half_close();
    assert_eq!(client.response().text(), content);
    client.expect_close();
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    for byte in get("/slow").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().text(), "/slow");
}

#[test]
fn as_many_fields_as_allowed_pass_and_one_more_does_not() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let with = |count: usize| {
        let fields: String = (1..count).map(|at| format!("X-{at}: {at}\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    assert_eq!(gateway.connect().ask(with(100)).status(), 200);
    assert_eq!(origin.last().head.fields().len(), 100 + 4);
    assert_eq!(gateway.connect().ask(with(101)).status(), 431);
}

const EXPECTING: &str =
    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn a_client_that_waits_to_continue_is_told_so_by_the_peer_once() {
    let origin = Origin::scripted(|conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        assert_eq!(head.field("expect").as_deref(), Some("100-continue"));
        conn.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
        let request = conn.body(head)?;
        conn.send(ok(request.content))
    });
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send(EXPECTING);
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_client_that_does_not_wait_to_continue_is_served_too() {
    let origin = Origin::echo();
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send(format!("{EXPECTING}hello"));
    assert!(client.response().text().ends_with("\r\n\r\nhello"));
    // The head first, the body without having been asked for.
    client.send(EXPECTING);
    origin.wait("the second head", |seen| seen.heads.len() == 2);
    client.send("again");
    assert!(client.response().text().ends_with("\r\n\r\nagain"));
}

#[test]
fn a_refusal_before_the_body_reaches_the_client_and_ends_the_connection() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        // One that keeps its connection reads on.
        conn.send(
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
        )?;
        conn.wait_gone()
    });
    let gateway = Gateway::by_one_worker(&origin);
    let sending = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun";
    for request in [EXPECTING, sending] {
        let mut client = gateway.connect();
        client.send(request);
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (413, "big"));
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        client.expect_close();
        gateway.wait_for_access("status=413 close=body-unread");
    }
    origin.wait_closed(2);
}

#[test]
fn interim_responses_are_passed_on_but_not_to_http_1_0() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    client.send(get("/"));
    let hints = client.head();
    assert_eq!(
        (hints.status(), hints.field("link").as_deref()),
        (103, Some("</a>"))
    );
    assert_eq!(client.head().status(), 102);
    assert_eq!(client.response().text(), "ok");
    let old = gateway.connect().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.status(), old.text().as_str()), (200, "ok"));
}

#[test]
fn trailers_of_a_request_arrive_without_those_that_must_not_trail() {
    let origin = by_target();
    let gateway = Gateway::by_one_worker(&origin);
    let response = gateway.connect().ask(
        "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Sum: 1\r\nContent-Length: 5\r\nAuthorization: x\r\nX-Forwarded-For: 1.1.1.1\r\nHost: b\r\n\r\n",
    );
    assert_eq!(response.text(), "/t");
    let request = origin.last();
    assert_eq!(request.content, b"abc");
    assert_eq!(request.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
}

/// The answers of an upgrade that comes to nothing.
#[test]
fn an_upgrade_that_the_peer_declines_is_an_ordinary_exchange() {
    let origin = Origin::saying(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Content-Length: 2\r\n\r\nno",
    );
    let gateway = Gateway::by_one_worker(&origin);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.ask(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c, websocket\r\nHTTP2-Settings: x\r\n\r\n",
        );
        assert_eq!((response.status(), response.text().as_str()), (426, "no"));
        assert_eq!(origin.last().field("upgrade").as_deref(), Some("websocket"));
        assert_eq!(origin.last().field("http2-settings"), None);
    }
}

fn tunnel_to(origin: &Origin, setup: Setup) -> (Gateway, Client) {
    let gateway = setup.lists(&[], &[], &[origin]).start();
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly");
    assert_eq!(client.head().status(), 101);
    (gateway, client)
}

fn echo_tunnel() -> Origin {
    Origin::scripted(|conn| {
        conn.head()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi",
        )?;
        loop {
            let piece = conn.wire.some(usize::MAX)?;
            if piece.is_empty() || piece == b"end" {
                return Ok(());
            }
            conn.send(piece)?;
        }
    })
}

#[test]
fn a_tunnel_carries_bytes_both_ways_from_the_first_and_ends_with_either_side() {
    let origin = echo_tunnel();
    let (gateway, mut client) = tunnel_to(&origin, Setup::new());
    assert_eq!(client.exactly(7), b"hiearly");
    client.send("more");
    assert_eq!(client.exactly(4), b"more");
    client.send("end");
    client.expect_close();
    // It might go on sending.
    drop(client);
    gateway.wait_for_access("status=101 close=tunnel-ended");
    let (_gateway, mut client) = tunnel_to(&origin, Setup::new());
    assert_eq!(client.exactly(7), b"hiearly");
    drop(client);
    origin.wait_closed(2);
}

#[test]
fn a_silent_tunnel_ends() {
    let origin = echo_tunnel();
    let setup = Setup::new().set("gateway.tunnel_timeout", "200ms");
    let (_gateway, mut client) = tunnel_to(&origin, setup);
    assert_eq!(client.exactly(7), b"hiearly");
    client.expect_close();
    origin.wait_closed(1);
}

#[test]
fn a_browsers_thirty_fields_arrive_in_order_and_byte_for_byte() {
    let origin = Origin::named("prod");
    let gateway = Gateway::by_one_worker(&origin);
    let fields: Vec<String> = (0..29)
        .map(|at| {
            format!(
                "X-Field-{at}: value; of=\"{at}\", \u{e4}\t{}",
                "v".repeat(at + 1)
            )
        })
        .collect();
    let head = format!(
        "GET /a%2e?b=%00 HTTP/1.1\r\nHost: test\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    assert_eq!(gateway.connect().ask(head).status(), 200);
    let received = origin.last().text();
    assert!(
        received.starts_with("GET /a%2e?b=%00 HTTP/1.1\r\nHost: test\r\n"),
        "{received}"
    );
    assert!(received.contains(&fields.join("\r\n")), "{received}");
}

#[test]
fn a_websocket_echoes_through_the_gateway() {
    let origin = Origin::scripted(|conn| {
        let stream = conn.wire.stream.try_clone()?;
        let mut socket = tungstenite::accept(stream).map_err(std::io::Error::other)?;
        while let Ok(message) = socket.read() {
            if message.is_close() || socket.send(message).is_err() {
                break;
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let stream = std::net::TcpStream::connect(gateway.addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://test/echo", stream).unwrap();
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.send(tungstenite::Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), text);
    }
}
