//! Silent connections wait without a coroutine: they cost next to nothing, and are served, timed out
//! and drained as any other.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Setup, wait_until};

const PARKED: &str = "graygate_connections_parked{worker=\"0\"}";
const ACTIVE: &str = "graygate_connections_active{worker=\"0\"}";

fn start(origin: &Origin, settings: &[(&str, &str)]) -> Gateway {
    let setup = Setup::serving(origin);
    let setup = setup.one_worker();
    let set = |setup: Setup, (key, value): &(&str, &str)| setup.set(key, value);
    settings.iter().fold(setup, set).start()
}

fn parked(gateway: &Gateway) -> f64 {
    gateway.metric(PARKED)
}

fn wait_parked(gateway: &Gateway, count: usize) {
    let what = format!("{count} connections are parked");
    wait_until(&what, DEADLINE, || parked(gateway) == count as f64);
}

#[test]
fn a_parked_connection_goes_on_as_if_nothing_had_happened() {
    let origin = Origin::named("a");
    let gateway = start(&origin, &[]);
    let mut client = gateway.connect();
    for round in 1..=2 {
        assert_eq!(client.get("/").text(), "a");
        wait_parked(&gateway, 1);
        assert_eq!(gateway.metric(ACTIVE), 1.0);
        assert_eq!(gateway.access_lines().len(), round);
    }
    // Half a head, and the rest later.
    client.send("GET / HTTP/1.1\r\nHo");
    wait_parked(&gateway, 0);
    client.send("st: a\r\n\r\n");
    assert_eq!(client.response().text(), "a");
    // An empty line alone is no request, but is not lost either.
    wait_parked(&gateway, 1);
    client.send("\r\n");
    wait_parked(&gateway, 0);
    assert_eq!(client.get("/").text(), "a");
    wait_parked(&gateway, 1);
    drop(client);
    gateway.wait_for_metric(
        "graygate_connections_closed_total{reason=\"client-closed\"}",
        1.0,
    );
    wait_parked(&gateway, 0);
    assert_eq!(gateway.metric(ACTIVE), 0.0);
}

#[test]
fn a_client_that_never_asks_is_parked_too_and_its_time_runs_on() {
    let origin = Origin::named("a");
    let times = [
        ("gateway.head_timeout", "3s"),
        ("gateway.keepalive_timeout", "4s"),
    ];
    let gateway = start(&origin, &times);
    let begun = Instant::now();
    let (mut silent, mut served) = (gateway.connect(), gateway.connect());
    assert_eq!(served.get("/").text(), "a");
    wait_parked(&gateway, 2);
    assert_eq!(silent.rest(), b"");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(served.rest(), b"");
    assert!(begun.elapsed() >= Duration::from_secs(4));
    for close in ["head-timeout", "keepalive-timeout"] {
        let closed = format!("graygate_connections_closed_total{{reason=\"{close}\"}}");
        gateway.wait_for_metric(&closed, 1.0);
    }
    assert_eq!(parked(&gateway), 0.0);
}

#[test]
fn parked_connections_do_not_hold_up_a_drain_and_a_request_at_the_last_moment_is_served() {
    let origin = Origin::named("a");
    let mut gateway = start(&origin, &[]);
    let mut clients: Vec<Client> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "a");
    }
    wait_parked(&gateway, 20);
    // The request and the signal are there before the gateway has a look at either.
    gateway.freeze();
    clients[7].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gateway.signal(Signal::SIGTERM);
    gateway.signal(Signal::SIGCONT);
    let response = clients[7].response();
    assert_eq!(response.text(), "a");
    for client in &mut clients {
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_thousand_silent_connections_take_a_kibibyte_each_at_most() {
    const COUNT: usize = 1000;
    let origin = Origin::named("a");
    let gateway = start(&origin, &[]);
    // What a crowd needs once is there after the first round.
    let mut grown = Vec::new();
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..2 {
        wait_parked(&gateway, crowd.len());
        let before = gateway.rss_kib();
        for _ in 0..COUNT {
            let mut client = gateway.connect();
            assert_eq!(client.get("/").text(), "a");
            crowd.push(client);
        }
        wait_parked(&gateway, crowd.len());
        grown.push(gateway.rss_kib().saturating_sub(before));
    }
    assert!(grown[1] <= COUNT as u64, "{grown:?} KiB");
}
