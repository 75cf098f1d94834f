//! Servers to which no connection can be made at all, be it for the network or for the gateway's own ports:
//! in a network namespace.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{Gateway, Origin, Setup, free_address, ok, run_in_namespace};

/// How the loopback is set up.
const LOOPBACK: &str = "up";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn attempts(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!(
        "graygate_attempts_total{{pool=\"prod\",outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn a_server_to_which_no_way_leads_is_left_alone_and_others_answer() {
    run_in_namespace(LOOPBACK, "no_way_leads_there");
}

#[test]
#[ignore = "runs in a namespace of its own; see above"]
fn no_way_leads_there() {
    // There is no network but the loopback's.
    let (away, good) = ("198.51.100.7:80", Origin::named("good"));
    let alone = Setup::new().lists(&[], &[], &[&away]).start();
    let answer = alone.connect().ask(GET);
    assert_eq!(answer.text(), "502 Bad Gateway: connect-failed\n");
    let line = alone.wait_for_log("attempt-failed ");
    assert!(
        line.contains("failure=connect-failed error=\"Network is unreachable"),
        "{line}"
    );

    let gateway = Setup::new().lists(&[], &[], &[&away, &good]).start();
    let mut client = gateway.connect();
    for _ in 0..40 {
        // Whatever the method: nobody has got it.
        assert_eq!(
            client
                .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                .text(),
            "good"
        );
    }
    assert_eq!(attempts(&gateway, "connect-failed"), 3.0);
    gateway.wait_for_log(&format!(
        "peer-out pool=prod peer={away} why=connect-failed"
    ));
}

#[test]
fn a_gateway_without_ports_asks_where_it_has_some_and_blames_nobody() {
    run_in_namespace(LOOPBACK, "no_port_is_left");
}

#[test]
#[ignore = "runs in a namespace of its own; see above"]
fn no_port_is_left() {
    const PORTS: u16 = 4;
    // On an address of its own each.
    let slow = || {
        Origin::scripted_at(free_address(), |conn| {
            while let Some(request) = conn.request()? {
                if request.head.target() == "/slow" {
                    conn.wait_for_release()?;
                }
                conn.send(ok("answered"))?;
            }
            Ok(())
        })
    };
    let (one, other) = (slow(), slow());
    let gateway = Setup::new()
        .one_worker()
        .set("upstream.read_timeout", "1m")
        .lists(&["127.0.0.5"], &[&one], &[&other])
        .start();
    let alone = Setup::serving(&one).start();
    let mut holding: Vec<_> = (0..PORTS)
        .map(|_| gateway.connect_from("127.0.0.5"))
        .collect();
    let (mut gray, mut client) = (gateway.connect_from("127.0.0.5"), alone.connect());
    // Connections to one address have so many, and to another address as many again.
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(range, format!("50000 {}", 50_000 + PORTS - 1)).unwrap();
    for client in &mut holding {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    one.wait("all ports are in use", |it| {
        it.requests.len() == usize::from(PORTS)
    });
    for _ in 0..10 {
        assert_eq!(gray.ask(GET).text(), "answered");
    }
    gateway
        .wait_for_access("client=127.0.0.5 pool=prod reason=pre-exhausted attempts=2 status=200");
    let name = "graygate_attempts_total{pool=\"pre\",outcome=\"out-of-ports\"}";
    assert_eq!(gateway.metric(name), 10.0);
    assert_eq!(gateway.stderr.count(" peer-out "), 0);
    // Where nobody else can answer.
    assert_eq!(
        client.ask(GET).text(),
        "503 Service Unavailable: out-of-ports\n"
    );
    assert_eq!(alone.stderr.count(" peer-out "), 0);
    one.release();
    for client in &mut holding {
        assert_eq!(client.response().text(), "answered");
    }
}
