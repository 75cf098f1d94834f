//! A connection to a server that may be somebody's own serves one client connection only: whoever was
//! authenticated by NTLM or Negotiate was so for the connection.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use nix::sys::signal::Signal;
use support::{
    Client, DEADLINE, Gateway, Origin, Response, Setup, ok, on_the_way_from, wait_until,
};

const PINNED: &str = "graygate_upstream_connections_pinned{worker=\"0\"}";
const PARKED: &str = "graygate_connections_parked{worker=\"0\"}";

fn setup() -> Setup {
    // One worker, so that a kept connection is found again.
    Setup::new().one_worker()
}

fn gateway(origin: &Origin) -> Gateway {
    setup().lists(&[], &[], &[origin]).start()
}

fn unauthorized(challenges: &str) -> Vec<u8> {
    format!("HTTP/1.1 401 Unauthorized\r\n{challenges}Content-Length: 3\r\n\r\nwho").into()
}

/// Authenticates connections as IIS does by NTLM: with the third message of the handshake the
/// connection is that user's, and what comes on it needs no credentials.
fn iis() -> Origin {
    Origin::scripted(|conn| {
        let (mut challenged, mut user) = (false, None);
        while let Some(request) = conn.request()? {
            if request.head.target() == "/close" {
                return Ok(());
            }
            let credentials = request.head.field("authorization").unwrap_or_default();
            let answer = match (credentials.strip_prefix("NTLM "), &user) {
                (Some("1"), _) => {
                    challenged = true;
                    unauthorized("WWW-Authenticate: NTLM 2\r\n")
                }
                (Some(name), _) if challenged => {
                    (challenged, user) = (false, Some(name.to_owned()));
                    ok(name)
                }
                (None, Some(name)) => ok(name),
                _ => unauthorized("WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n"),
            };
            conn.send(answer)?;
        }
        Ok(())
    })
}

fn ask(client: &mut Client, line: &str, credentials: &str) -> Response {
    let credentials = match credentials {
        "" => String::new(),
        credentials => format!("Authorization: {credentials}\r\n"),
    };
    client.ask(format!("{line} HTTP/1.1\r\nHost: a\r\n{credentials}\r\n"))
}

/// Authenticates the client from the begin.
#[track_caller]
fn log_in(client: &mut Client, name: &str) {
    assert_eq!(ask(client, "GET /", "").status(), 401);
    assert_eq!(ask(client, "GET /", "NTLM 1").status(), 401);
    let response = ask(client, "GET /", &format!("NTLM {name}"));
    assert_eq!(response.text(), name);
}

#[test]
fn what_one_client_has_authenticated_serves_no_other_and_its_own_requests_stay_on_it() {
    let origin = iis();
    let gateway = gateway(&origin);
    let mut alice = gateway.connect();
    log_in(&mut alice, "alice");
    assert_eq!(alice.get("/").text(), "alice");
    let mut other = gateway.connect();
    assert_eq!(other.get("/").status(), 401);
    let mut bob = gateway.connect();
    log_in(&mut bob, "bob");
    for _ in 0..3 {
        assert_eq!(alice.get("/").text(), "alice");
        assert_eq!(ask(&mut bob, "POST /", "").text(), "bob");
        assert_eq!(other.get("/").status(), 401);
    }
    assert_eq!(origin.accepted(), 3);
    gateway.wait_for_metric(PINNED, 3.0);
    // It goes with its client, and nobody finds it.
    drop(alice);
    gateway.wait_for_metric(PINNED, 2.0);
    origin.wait_closed(1);
    assert_eq!(gateway.connect().get("/").status(), 401);
    drop((bob, other));
    gateway.wait_for_metric(PINNED, 0.0);
    origin.wait_closed(4);
}

/// Whether the connection that served `first`, which is answered with `status` and `fields`, serves
/// another client next; the first one finds it again in any case.
#[track_caller]
fn is_shared_after(first: &str, status: u16, fields: &str) -> bool {
    let answer = format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: 0\r\n\r\n");
    let origin = Origin::answering(move |request| match request.head.target().as_str() {
        "/first" => answer.clone().into(),
        _ => ok(request.connection.to_string()),
    });
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    let response = client.ask(format!("GET /first HTTP/1.1\r\nHost: a\r\n{first}\r\n"));
    assert_eq!(response.status(), status);
    let mut other = gateway.connect();
    let is_shared = other.get("/").text() == "0";
    assert_eq!(client.get("/").text(), "0", "{first}{status} {fields}");
    gateway.wait_for_metric(PINNED, f64::from(u8::from(!is_shared)));
    is_shared
}

#[test]
fn a_challenge_or_credentials_of_such_a_scheme_keep_the_connection_from_others() {
    for (first, status, fields) in [
        ("", 401, "WWW-Authenticate: NTLM\r\n"),
        ("", 401, "www-authenticate: negotiate\r\n"),
        (
            "",
            401,
            "WWW-Authenticate: Basic realm=\"a\", NEGOTIATE\r\n",
        ),
        (
            "",
            401,
            "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: Digest realm=\"b, c\"\r\n\
             WWW-Authenticate: Ntlm\r\n",
        ),
        ("", 407, "Proxy-Authenticate: NTLM\r\n"),
        ("Authorization: NTLM TlRMTVNTUAAB\r\n", 200, ""),
        ("authorization: negotiate YII=\r\n", 403, ""),
        ("Proxy-Authorization: Negotiate YII=\r\n", 200, ""),
        (
            "Authorization: Negotiate YII=\r\n",
            200,
            "Persistent-Auth: false\r\n",
        ),
    ] {
        let is_shared = is_shared_after(first, status, fields);
        assert!(!is_shared, "{first}{status} {fields}");
    }
    for (first, status, fields) in [
        ("", 401, "WWW-Authenticate: Basic realm=\"NTLM\"\r\n"),
        ("", 401, "WWW-Authenticate: Bearer\r\n"),
        ("Authorization: Basic TlRMTQ==\r\n", 200, ""),
        ("X-Authorization: NTLM TlR\r\n", 200, ""),
        ("", 200, "X: NTLM\r\n"),
    ] {
        let is_shared = is_shared_after(first, status, fields);
        assert!(is_shared, "{first}{status} {fields}");
    }
}

#[test]
fn an_old_client_has_its_own_as_long_as_it_stays() {
    let origin = iis();
    let gateway = gateway(&origin);
    let ask = |client: &mut Client, fields: &str| {
        client.send(format!("GET / HTTP/1.0\r\nHost: a\r\n{fields}\r\n"));
        client.response().text()
    };
    let mut client = gateway.connect();
    let stays = "Connection: keep-alive\r\n";
    ask(&mut client, &format!("{stays}Authorization: NTLM 1\r\n"));
    let third = format!("{stays}Authorization: NTLM eve\r\n");
    assert_eq!(ask(&mut client, &third), "eve");
    gateway.wait_for_metric(PINNED, 1.0);
    assert_eq!(ask(&mut client, ""), "eve");
    client.expect_close();
    origin.wait_closed(1);
    gateway.wait_for_metric(PINNED, 0.0);
}

#[test]
fn a_handshake_goes_on_over_upgrades_that_are_not_granted_yet() {
    let origin = iis();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    for (credentials, status) in [("", 401), ("NTLM 1", 401), ("NTLM eve", 200), ("", 200)] {
        let fields = match credentials {
            "" => String::new(),
            credentials => format!("Authorization: {credentials}\r\n"),
        };
        let response = client.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
        ));
        assert_eq!(response.status(), status, "{credentials}");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_parked_client_finds_its_own_again() {
    let origin = iis();
    let gateway = gateway(&origin);
    let mut alice = gateway.connect();
    log_in(&mut alice, "alice");
    for _ in 0..2 {
        gateway.wait_for_metric(PARKED, 1.0);
        assert_eq!(gateway.metric(PINNED), 1.0);
        assert_eq!(alice.get("/").text(), "alice");
    }
    assert_eq!(origin.accepted(), 1);
    gateway.wait_for_metric(PARKED, 1.0);
    drop(alice);
    gateway.wait_for_metric(PINNED, 0.0);
    origin.wait_closed(1);
}

#[test]
fn one_that_its_server_has_closed_is_let_go_while_the_client_is_silent() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(unauthorized("WWW-Authenticate: NTLM\r\n"))?;
        conn.wait_for_release()
    });
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    assert_eq!(client.get("/").status(), 401);
    gateway.wait_for_metric(PARKED, 1.0);
    origin.release();
    gateway.wait_for_metric(PINNED, 0.0);
    assert_eq!(gateway.metric(PARKED), 1.0);
    // The handshake begins anew.
    assert_eq!(client.get("/").status(), 401);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_request_whose_own_connection_ends_is_asked_for_credentials_again_or_fails() {
    let origin = iis();
    let gateway = gateway(&origin);
    let mut alice = gateway.connect();
    // It is closed when the request has arrived there. So it is not known whether it was acted upon.
    log_in(&mut alice, "alice");
    let failed = ask(&mut alice, "POST /close", "").text();
    assert_eq!(failed, "502 Bad Gateway: stale\n");
    // What can be repeated goes on a connection that nobody was authenticated on.
    assert_eq!(alice.get("/").status(), 401);
    log_in(&mut alice, "alice");
    assert_eq!(origin.accepted(), 2);
    assert_eq!(alice.get("/close").status(), 502);
    assert_eq!(ask(&mut alice, "GET /", "NTLM alice").status(), 401);
}

#[test]
fn what_lies_on_it_is_no_answer_to_its_client_either() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send(unauthorized("WWW-Authenticate: NTLM\r\n"))?;
        if conn.number == 0 {
            conn.wait_for_release()?;
            conn.send(ok("forged"))?;
            conn.note("forged");
        }
        conn.wait_gone()
    });
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    assert_eq!(client.get("/").status(), 401);
    origin.release();
    origin.wait("what is forged", |it| {
        it.notes.iter().any(|it| it == "forged")
    });
    wait_until("it is there", DEADLINE, || {
        on_the_way_from(origin.address().port()) == 0
    });
    assert_eq!(client.get("/").text(), "who");
    origin.wait_closed(1);
}

#[test]
fn it_is_closed_when_the_lists_send_its_client_elsewhere() {
    let (old, new, pre) = (iis(), iis(), Origin::named("pre"));
    let setup = setup().set("lists.guard_share", 100);
    let gateway = setup.lists(&[], &[&pre], &[&old]).start();
    let mut alice = gateway.connect();
    log_in(&mut alice, "alice");
    // Another server beside it changes nothing.
    gateway.write_lists(&[], &[&pre], &[&old, &new]);
    gateway.wait_for_metric("graygate_lists_generation", 2.0);
    assert_eq!(alice.get("/").text(), "alice");
    // It is in no list any more.
    gateway.write_lists(&[], &[&pre], &[&new]);
    gateway.wait_for_metric("graygate_lists_generation", 3.0);
    assert_eq!(alice.get("/").status(), 401);
    old.wait_closed(1);
    log_in(&mut alice, "alice");
    // The client is gray.
    gateway.write_lists(&["127.0.0.1"], &[&pre], &[&new]);
    gateway.wait_for_metric("graygate_lists_generation", 4.0);
    assert_eq!(alice.get("/").text(), "pre");
    new.wait_closed(1);
    gateway.wait_for_metric(PINNED, 0.0);
}

#[test]
fn a_handshake_with_prod_ends_there_while_pre_is_down() {
    let (dead, prod) = (support::RefusingPeer::new(), iis());
    let gateway = setup().lists(&["127.0.0.1"], &[&dead], &[&prod]).start();
    let mut alice = gateway.connect();
    log_in(&mut alice, "alice");
    assert_eq!(alice.get("/").text(), "alice");
    gateway.wait_for_access("pool=prod reason=pre-exhausted attempts=1 status=200");
    assert_eq!(prod.accepted(), 1);
}

#[test]
fn the_end_of_the_gateway_closes_them_after_what_is_under_way() {
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/late" {
                conn.wait_for_release()?;
            }
            conn.send(unauthorized("WWW-Authenticate: Negotiate\r\n"))?;
        }
        conn.note("closed");
        Ok(())
    });
    let mut gateway = gateway(&origin);
    let (mut idle, mut busy) = (gateway.connect(), gateway.connect());
    for client in [&mut idle, &mut busy] {
        assert_eq!(client.get("/").status(), 401);
    }
    busy.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("it is under way", |it| it.heads.len() == 3);
    gateway.signal(Signal::SIGTERM);
    idle.expect_close();
    origin.wait("the idle one", |it| {
        it.notes.iter().any(|it| it == "closed")
    });
    origin.release();
    assert_eq!(busy.response().status(), 401);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

/// Knows of no such authentication but under `/challenge` and `/last`; says which connection it is.
fn indifferent() -> Origin {
    Origin::answering(|request| {
        let number = request.connection.to_string();
        match &*request.head.target() {
            "/challenge" => unauthorized("WWW-Authenticate: NTLM\r\n"),
            "/last" => format!(
                "HTTP/1.1 200 OK\r\nWWW-Authenticate: Negotiate YII=\r\nContent-Length: {}\r\n\r\n{number}",
                number.len()
            )
            .into(),
            _ => ok(number),
        }
    })
}

#[test]
fn a_clients_word_alone_holds_no_more_connections_than_the_pool_does() {
    let origin = indifferent();
    let setup = setup().set("upstream.keepalive", 2);
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let mut clients: Vec<_> = (0..5).map(|_| gateway.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(ask(client, "GET /", "NTLM x").text(), number.to_string());
    }
    // The oldest ones have gone.
    origin.wait_closed(3);
    gateway.wait_for_metric(PINNED, 2.0);
    assert_eq!(clients[4].get("/").text(), "4");
    assert_eq!(clients[3].get("/").text(), "3");
    // Their clients are served as before.
    assert_eq!(clients[0].get("/").text(), "5");
}

#[test]
fn one_whose_server_has_named_the_scheme_outlives_those_that_only_clients_have_pinned() {
    for (target, credentials) in [("/challenge", ""), ("/last", "Negotiate YII=")] {
        let origin = indifferent();
        let setup = setup().set("upstream.keepalive", 1);
        let setup = setup.set("upstream.keepalive_timeout", "1s");
        let gateway = setup.lists(&[], &[], &[&origin]).start();
        let mut named = gateway.connect();
        ask(&mut named, &format!("GET {target}"), credentials);
        assert_eq!(ask(&mut named, "GET /", "NTLM x").text(), "0");
        let mut claims = gateway.connect();
        assert_eq!(ask(&mut claims, "GET /", "NTLM x").text(), "1");
        // Though its client stays.
        origin.wait_closed(1);
        gateway.wait_for_metric(PINNED, 1.0);
        assert_eq!(named.get("/").text(), "0", "{target}");
        assert_eq!(claims.get("/").text(), "2");
    }
}

/// Answers before it has read the body, which it takes for the next request.
fn hasty() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            conn.send(ok(head.target()))?;
        }
        Ok(())
    })
}

#[test]
fn what_came_behind_an_early_answer_is_not_the_begin_of_another_clients_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX: ";
    // Whom the connection is authenticated for changes nothing.
    let ntlm = "Authorization: NTLM x\r\n";
    for (from, fields, own) in [
        ("127.0.0.1", "", "/smuggled"),
        ("127.0.0.1", ntlm, "/smuggled"),
        // On a connection of a proxy's even the next request may be another's.
        ("127.0.0.7", "", "/own"),
        ("127.0.0.7", ntlm, "/own"),
    ] {
        let origin = hasty();
        let setup = setup().set("gateway.trusted_proxies", "127.0.0.7");
        let gateway = setup.lists(&[], &[], &[&origin]).start();
        let mut attacker = gateway.connect_from(from);
        let length = smuggled.len();
        attacker.send(format!(
            "POST /first HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n"
        ));
        assert_eq!(attacker.response().text(), "/first");
        attacker.send(smuggled);
        gateway.wait_for_access("target=/first");
        let mut other = gateway.connect();
        assert_eq!(other.get("/other").text(), "/other");
        attacker.send("GET /own HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(attacker.response().text(), own, "{from} {fields}");
        assert_eq!(other.get("/other").text(), "/other");
    }
}

#[test]
fn an_upgrade_that_is_not_granted_ends_the_connection_of_a_proxys_request_whatever_its_credentials()
{
    for (from, next) in [("127.0.0.1", "0"), ("127.0.0.7", "1")] {
        let origin = Origin::answering(|request| ok(request.connection.to_string()));
        let setup = setup().set("gateway.trusted_proxies", "127.0.0.7");
        let gateway = setup.lists(&[], &[], &[&origin]).start();
        let mut client = gateway.connect_from(from);
        let first = client.ask(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\
             Authorization: NTLM x\r\n\r\n",
        );
        assert_eq!(first.text(), "0");
        assert_eq!(client.get("/").text(), next, "{from}");
    }
}
