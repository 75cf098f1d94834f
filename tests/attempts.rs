//! Peers that fail: which other peer is tried, and what the client sees when none is left.

mod support;

use std::fmt::Display;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    Client, DEADLINE, DeafPeer, Gateway, Origin, RefusingPeer, Setup, allow_descriptors,
    ended_from, ok, unread_at, unread_from, wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// A gateway for which 127.0.0.5 is gray.
fn gateway(setup: Setup, pre: &[&dyn Display], prod: &[&dyn Display]) -> Gateway {
    setup.lists(&["127.0.0.5"], pre, prod).start()
}

/// An origin that reads a request and closes without an answer.
fn closing() -> Origin {
    Origin::scripted(|conn| conn.request().map(drop))
}

#[test]
fn refused_connections_lead_to_another_peer_and_none_is_tried_twice() {
    let (dead, live) = (
        [RefusingPeer::new(), RefusingPeer::new()],
        Origin::named("prod"),
    );
    let gateway = gateway(Setup::new(), &[], &[&dead[0], &dead[1], &live]);
    for _ in 0..20 {
        assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    }
    let lines = gateway.wait_for_access_lines(20);
    assert!(
        lines
            .iter()
            .all(|it| ["1", "2", "3"].contains(&it.get("attempts")))
    );
    assert!(lines.iter().any(|it| it.get("attempts") == "3"));
    let name = "graygate_attempts_total{pool=\"prod\",outcome=\"connect-refused\"}";
    assert!(gateway.metric(name) > 0.0);
    gateway.wait_for_metric(
        "graygate_attempts_total{pool=\"prod\",outcome=\"ok\"}",
        20.0,
    );
}

#[test]
fn no_more_peers_are_tried_than_allowed() {
    let dead: Vec<_> = (0..5).map(|_| RefusingPeer::new()).collect();
    let peers: Vec<&dyn Display> = dead.iter().map(|it| it as &dyn Display).collect();
    let gateway = gateway(Setup::new().set("upstream.tries", 2), &[], &peers);
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 502);
    gateway.wait_for_access("attempts=2 status=502 error=connect-refused pool=prod");
}

#[test]
fn gray_clients_are_served_by_prod_when_all_of_pre_is_down_and_that_is_counted() {
    let (dead, live) = (
        [RefusingPeer::new(), RefusingPeer::new()],
        Origin::named("prod"),
    );
    let gateway = gateway(Setup::new(), &[&dead[0], &dead[1]], &[&live]);
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "prod");
    gateway.wait_for_access("pool=prod reason=pre-exhausted attempts=3 status=200 error=-");
    gateway.wait_for_metric("graygate_fallbacks_total{reason=\"pre-exhausted\"}", 1.0);
}

#[test]
fn gray_clients_are_served_by_prod_when_pre_is_empty() {
    let live = Origin::named("prod");
    let gateway = gateway(Setup::new(), &[], &[&live]);
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "prod");
    gateway.wait_for_access("pool=prod reason=pre-empty status=200");
    gateway.wait_for_metric("graygate_fallbacks_total{reason=\"pre-empty\"}", 1.0);
}

#[test]
fn without_fallback_gray_clients_see_that_pre_is_away() {
    let (dead, live) = (RefusingPeer::new(), Origin::named("prod"));
    let setup = || Setup::new().set("upstream.fallback", "off");
    let down = gateway(setup(), &[&dead], &[&live]);
    assert_eq!(down.get("127.0.0.5", "/").status(), 502);
    assert_eq!(down.get("127.0.0.1", "/").text(), "prod");
    let empty = gateway(setup(), &[], &[&live]);
    let response = empty.get("127.0.0.5", "/");
    assert_eq!(
        (response.status(), response.text().contains("no-peers")),
        (503, true)
    );
}

#[test]
fn other_clients_are_never_served_by_pre() {
    let (pre, dead) = (Origin::named("pre"), RefusingPeer::new());
    let down = gateway(Setup::new(), &[&pre], &[&dead]);
    assert_eq!(down.get("127.0.0.1", "/").status(), 502);
    let empty = gateway(Setup::new(), &[&pre], &[]);
    let response = empty.get("127.0.0.1", "/");
    assert_eq!(
        (response.status(), response.text().contains("no-peers")),
        (503, true)
    );
    assert_eq!(pre.accepted(), 0);
}

#[test]
fn timeouts_are_504_and_come_in_time() {
    let (deaf, mute) = (DeafPeer::new(), Origin::mute());
    let limit = Duration::from_millis(300);
    let setup = || {
        let setup = Setup::new().set("upstream.connect_timeout", "300ms");
        setup.set("upstream.read_timeout", "300ms")
    };
    let peers: [(&dyn Display, &str); 2] = [(&deaf, "connect-timeout"), (&mute, "read-timeout")];
    for (peer, error) in peers {
        let gateway = gateway(setup(), &[], &[peer]);
        let start = Instant::now();
        assert_eq!(gateway.get("127.0.0.1", "/").status(), 504, "{error}");
        assert!(
            start.elapsed() >= limit,
            "{error} after {:?}",
            start.elapsed()
        );
        gateway.wait_for_access(&format!("status=504 error={error}"));
    }
}

#[test]
fn a_peer_that_fails_after_the_request_is_replaced_for_idempotent_requests_only() {
    let (bad, good) = (closing(), Origin::named("prod"));
    // One after the other, whatever chance says: the good one is prod.
    let gateway = gateway(Setup::new(), &[&bad], &[&good]);
    let mut client = gateway.connect_from("127.0.0.5");
    assert_eq!(client.ask(GET).text(), "prod");
    let response = client.ask(POST);
    assert_eq!(response.status(), 502);
    assert_eq!(response.text(), "502 Bad Gateway: closed-early\n");
    gateway.wait_for_access("method=POST pool=pre attempts=1 status=502 error=closed-early");
    // The connection was no part of the fault.
    assert_eq!(client.ask(GET).text(), "prod");
    assert_eq!(good.requests().len(), 2);
}

#[test]
fn a_body_is_sent_whole_to_the_peer_behind_a_refused_one() {
    let (dead, live) = (RefusingPeer::new(), Origin::echo());
    let gateway = gateway(Setup::new(), &[&dead], &[&live]);
    let response = gateway.connect_from("127.0.0.5").ask(POST);
    assert!(
        response.text().ends_with("\r\n\r\nhello"),
        "{}",
        response.text()
    );
}

#[test]
fn a_kept_connection_that_the_peer_has_closed_is_replaced_without_an_error() {
    // Closes each connection after one answer, without having said so.
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(ok("fine"))
    });
    let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
    let mut client = gateway.connect();
    for (count, request) in [GET, POST, GET, POST, POST, GET].iter().enumerate() {
        assert_eq!(client.ask(request).text(), "fine");
        origin.wait_known_closed(count + 1);
    }
    assert_eq!(origin.accepted(), 6);
}

#[test]
fn a_kept_connection_that_is_closed_on_the_next_request_is_stale_and_get_is_repeated() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(ok("fine"))?;
        // Closes only when the next request has arrived.
        conn.request().map(drop)
    });
    let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
    let mut client = gateway.connect();
    assert_eq!(client.ask(GET).text(), "fine");
    assert_eq!(client.ask(GET).text(), "fine");
    gateway.wait_for_metric(
        "graygate_attempts_total{pool=\"prod\",outcome=\"stale\"}",
        1.0,
    );
    // This one was received by the peer, so it is not sent again.
    assert_eq!(client.ask(POST).status(), 502);
}

/// The first peer gets all of it, and closes; the next one must get all of it again.
#[test]
fn a_small_body_that_comes_behind_its_head_is_kept_and_sent_again() {
    let part = "x".repeat(4000);
    let (small, large) = (part.repeat(2), part.repeat(3));
    let chunks =
        |content: &str| format!("{:x}\r\n{content}\r\n0\r\nEnd: here\r\n\r\n", content.len());
    let length = |content: &str| format!("Content-Length: {}\r\n", content.len());
    let coding = || "Transfer-Encoding: chunked\r\n".to_owned();
    for (fields, content, body, expected) in [
        (length("hello"), "hello", "hello".to_owned(), 200),
        (length(&small), &small, small.clone(), 200),
        (length(&large), &large, large.clone(), 502),
        (coding(), "hello", chunks("hello"), 200),
        (coding(), &small, chunks(&small), 200),
        (coding(), &large, chunks(&large), 502),
    ] {
        let (bad, good) = (closing(), Origin::answering(|it| ok(&it.content)));
        let gateway = gateway(Setup::new(), &[&bad], &[&good]);
        let mut client = gateway.connect_from("127.0.0.5");
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        bad.wait("the head", |it| it.accepted == 1);
        // In two parts.
        let (first, rest) = body.split_at(body.len() / 2);
        client.send(first);
        client.send(rest);
        let answer = client.response();
        assert_eq!(answer.status(), expected, "{fields}");
        if expected == 200 {
            assert_eq!(answer.text(), content);
            assert_eq!(bad.last().raw, good.last().raw);
            assert_eq!(bad.last().trailers, good.last().trailers);
            gateway.wait_for_access("method=PUT attempts=2 pool=prod status=200");
        }
    }
}

/// An origin that reads some of a body and closes: the rest goes to the next one, behind what it had.
#[test]
fn a_small_body_moves_on_in_the_middle() {
    for (fields, begin, end) in [
        ("Content-Length: 10\r\n", "hello", "world"),
        (
            "Transfer-Encoding: chunked\r\n",
            "7\r\nhellowo\r\n3\r\nr",
            "ld\r\n0\r\n\r\n",
        ),
    ] {
        let bad = Origin::scripted(|conn| {
            conn.head()?;
            conn.wire.exactly(5).map(drop)
        });
        let good = Origin::answering(|it| ok(&it.content));
        let gateway = gateway(Setup::new(), &[&bad], &[&good]);
        let mut client = gateway.connect_from("127.0.0.5");
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        bad.wait("the head", |it| it.heads.len() == 1);
        client.send(begin);
        good.wait("the head", |it| it.heads.len() == 1);
        client.send(end);
        assert_eq!(client.response().text(), "helloworld", "{fields}");
    }
}

/// An origin that closes its first connection on the head of its second request. From then on it asks for
/// bodies where that is expected.
fn closing_on_the_second_head() -> Origin {
    Origin::scripted(|conn| {
        if conn.number == 0 {
            conn.request()?;
            conn.send(ok("first"))?;
            return conn.head().map(drop);
        }
        while let Some(head) = conn.head()? {
            if head.field("expect").is_some() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let request = conn.body(head)?;
            conn.send(ok(request.content))?;
        }
        Ok(())
    })
}

const STALE: &str = "graygate_attempts_total{pool=\"prod\",outcome=\"stale\"}";

#[test]
fn a_request_that_waits_with_its_body_is_repeated_when_its_kept_connection_turns_out_closed() {
    let expect = "Expect: 100-continue\r\n";
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (method, fields, body) in [
        ("POST", format!("{expect}{length}"), "hello"),
        (
            "POST",
            format!("{expect}{chunked}"),
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        // What is harmless need not wait.
        ("PUT", length.to_owned(), "hello"),
        ("PUT", chunked.to_owned(), "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let origin = closing_on_the_second_head();
        let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
        let mut client = gateway.connect();
        assert_eq!(client.ask(GET).text(), "first");
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        origin.wait("both heads", |it| it.heads.len() == 3);
        if fields.starts_with(expect) {
            assert_eq!(client.head().status(), 100);
        }
        client.send(body);
        assert_eq!(client.response().text(), "hello", "{fields}");
        assert_eq!(gateway.metric(STALE), 1.0);
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn a_request_that_does_not_wait_with_its_body_is_not_repeated() {
    for request in [
        // Its body is late, and nothing says that it waits.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
        // There is no more of it than its head.
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let origin = closing_on_the_second_head();
        let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
        let mut client = gateway.connect();
        assert_eq!(client.ask(GET).text(), "first");
        assert_eq!(client.ask(request).text(), "502 Bad Gateway: stale\n");
        assert_eq!(origin.accepted(), 1, "{request}");
    }
}

#[test]
fn a_408_that_ends_a_kept_connection_is_no_answer_to_the_next_request() {
    const CLOSE: &str =
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const KEEP: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    let whole =
        |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let begun = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe".to_owned();
    for (first, farewell, request, expected) in [
        (true, CLOSE, GET.to_owned(), 200),
        (true, CLOSE, whole("PUT"), 200),
        // It cannot be told whether that was acted upon.
        (true, CLOSE, whole("POST"), 502),
        // These are answers.
        (true, CLOSE, begun, 408),
        (true, KEEP, GET.to_owned(), 408),
        (false, CLOSE, GET.to_owned(), 408),
    ] {
        let origin = Origin::scripted(move |conn| {
            if conn.number == 0 {
                if first {
                    conn.request()?;
                    conn.send(ok("first"))?;
                }
                conn.head()?;
                conn.send(farewell)?;
                return conn.wait_gone();
            }
            while conn.request()?.is_some() {
                conn.send(ok("fine"))?;
            }
            Ok(())
        });
        let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
        let mut client = gateway.connect();
        if first {
            assert_eq!(client.ask(GET).text(), "first");
        }
        let status = client.ask(&request).status();
        assert_eq!(status, expected, "{first} {farewell} {request}");
    }
}

#[test]
fn what_the_registry_names_idempotent_is_repeated_and_nothing_else() {
    for (method, is_repeated) in [
        ("PROPFIND", true),
        ("REPORT", true),
        ("SEARCH", true),
        ("QUERY", true),
        ("MKCOL", true),
        ("LOCK", false),
        ("PATCH", false),
        ("query", false),
        ("PURGE", false),
    ] {
        let origin = closing_on_the_second_head();
        let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
        let mut client = gateway.connect();
        assert_eq!(client.ask(GET).text(), "first");
        let answer = client.ask(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"
        ));
        let expected = match is_repeated {
            true => "ok",
            false => "502 Bad Gateway: stale\n",
        };
        assert_eq!(answer.text(), expected, "{method}");
    }
}

/// A worker takes so many events from the kernel by one poll.
const EVENTS: usize = 1024;

/// Sends a request, in two parts, after which the origin says `stray` on the only kept connection, or
/// closes it where that is empty, in such a way that the poll that tells of the request does not tell of
/// that. Returns what was answered, and how many attempts were stale.
fn ask_before_that_is_known(first: &str, rest: &str, stray: &'static str) -> (String, f64) {
    let origin = Origin::scripted(move |conn| {
        while conn.request()?.is_some() {
            conn.send(ok("fine"))?;
            if conn.number == 0 {
                conn.wait_for_release()?;
                conn.send(stray)?;
                match stray {
                    "" => return Ok(()),
                    _ => return conn.wait_gone(),
                }
            }
        }
        Ok(())
    });
    let setup = Setup::new().one_worker();
    let gateway = gateway(setup.set("gateway.head_timeout", "1m"), &[], &[&origin]);
    // Their events fill the poll.
    let mut crowd: Vec<Client> = (0..EVENTS).map(|_| gateway.connect()).collect();
    for member in &mut crowd {
        member.send("GET /");
    }
    let active = "graygate_connections_active{worker=\"0\"}";
    gateway.wait_for_metric(active, crowd.len() as f64);
    wait_until("all begin a head", DEADLINE, || {
        unread_at(gateway.addr().port()) == 0
    });
    let mut client = gateway.connect();
    assert_eq!(client.ask(GET).text(), "fine");

    gateway.freeze();
    client.send(first);
    for member in &mut crowd {
        member.send("x");
    }
    wait_until("all is there", DEADLINE, || {
        unread_at(gateway.addr().port()) == 1 + crowd.len()
    });
    origin.release();
    match stray {
        "" => wait_until("it is closed", DEADLINE, || {
            ended_from(origin.address().port()) == 1
        }),
        _ => wait_until("it is said", DEADLINE, || {
            unread_from(origin.address().port()) == 1
        }),
    }
    gateway.signal(Signal::SIGCONT);
    wait_until("the first part is read", DEADLINE, || {
        unread_at(gateway.addr().port()) == 0
    });
    client.send_if_open(rest);
    let stale = "graygate_attempts_total{pool=\"prod\",outcome=\"stale\"}";
    (client.response().text(), gateway.metric(stale))
}

#[test]
fn what_has_come_on_a_kept_connection_since_the_last_poll_is_no_answer_and_no_request_goes_there() {
    // Of each of its connections, and of the gateway's.
    allow_descriptors(4 * EVENTS as u64);
    const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let line = |method| format!("{method} / HTTP/1.1\r\nHost: a\r\n");
    let length = "Content-Length: 5\r\n\r\nhe";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n";
    for (method, first, rest, stray) in [
        ("GET", "\r\n", "", FORGED),
        ("GET", "\r\n", "", ""),
        ("PUT", length, "llo", FORGED),
        ("DELETE", chunked, "3\r\nllo\r\n0\r\n\r\n", ""),
    ] {
        let outcome = ask_before_that_is_known(&(line(method) + first), rest, stray);
        assert_eq!(outcome, ("fine".to_owned(), 0.0), "{method} {stray}");
    }
}

#[test]
fn responses_that_cannot_be_trusted_are_502_and_their_connection_is_closed() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(40_000));
    let table: &[(&str, &str)] = &[
        ("HTTP/1.1 20 OK\r\n\r\n", "bad-response-head"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "bad-response-head"),
        (
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "bad-response-head",
        ),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
            "bad-response-head",
        ),
        (
            "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n",
            "bad-response-head",
        ),
        ("nonsense\r\n\r\n", "bad-response-head"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "bad-response-framing",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "bad-response-framing",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "bad-response-framing",
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "bad-response-framing",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "unexpected-upgrade",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "bad-response-chunk",
        ),
        (&large, "response-head-too-large"),
    ];
    for (bytes, error) in table {
        let origin = Origin::saying(*bytes);
        let gateway = gateway(Setup::new(), &[], &[&origin]);
        let mut client = gateway.connect();
        let response = client.ask(POST);
        assert_eq!(response.status(), 502, "{error}");
        assert_eq!(response.text(), format!("502 Bad Gateway: {error}\n"));
        gateway.wait_for_access(&format!("status=502 error={error}"));
        let counted = format!("graygate_attempts_total{{pool=\"prod\",outcome=\"{error}\"}}");
        gateway.wait_for_metric(&counted, 1.0);
        origin.wait_closed(1);
    }
}

#[test]
fn bytes_behind_a_response_reach_nobody_and_end_the_connection() {
    let origin = Origin::saying([ok("first"), ok("second")].concat());
    let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
    let mut client = gateway.connect();
    for count in 1..4 {
        assert_eq!(client.ask(GET).text(), "first");
        origin.wait_closed(count);
    }
}

#[test]
fn what_lies_on_a_kept_connection_is_no_response_to_the_next_request() {
    for method in ["GET", "PUT", "POST"] {
        let origin = Origin::scripted(|conn| {
            conn.request()?;
            conn.send(ok("good"))?;
            if conn.number == 0 {
                conn.wait_for_release()?;
                conn.send(ok("forged"))?;
                conn.note("forged");
            }
            conn.wait_gone()
        });
        let gateway = gateway(Setup::new().one_worker(), &[], &[&origin]);
        let mut client = gateway.connect();
        assert_eq!(client.ask(GET).text(), "good");
        // Both are there before the gateway has a look at either.
        gateway.freeze();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        origin.release();
        origin.wait("what is forged is sent", |seen| {
            seen.notes.iter().any(|it| it == "forged")
        });
        gateway.signal(Signal::SIGCONT);
        assert_eq!(client.response().text(), "good", "{method}");
    }
}
