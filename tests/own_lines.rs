//! A client cannot fill the disk by the access log: what it sends takes so much room in a line, and
//! requests that need no server have so many lines a second.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Setup, wait_until};

/// Lines a second.
const LIMIT: usize = 20;

/// Answered by the gateway itself, and the connection stays.
const OWN: &str = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";

const SERVED: &str = "GET /served HTTP/1.1\r\nHost: a\r\n\r\n";

fn dropped(gateway: &Gateway) -> Vec<usize> {
    let of = |addr| format!("graygate_own_lines_dropped_total{{listen=\"{addr}\"}}");
    let addrs = gateway.addrs().iter();
    addrs.map(|it| gateway.metric(&of(it)) as usize).collect()
}

#[test]
fn lines_of_own_answers_are_limited_and_the_others_all_there() {
    const ROUNDS: usize = 100;
    let origin = Origin::named("x");
    let mut gateway = Setup::serving(&origin)
        .set("gateway.listen", "127.0.0.1:0, 127.0.0.1:0")
        .set("log.own_lines", LIMIT)
        .start();
    let begun = Instant::now();
    // On both workers.
    let mut flood = [gateway.connect(), gateway.connect()];
    for _ in 0..ROUNDS {
        for client in &mut flood {
            client.send(OWN.repeat(3) + SERVED);
            (0..4).for_each(|_| assert_eq!(client.response().status(), 200));
        }
    }
    // Lines have the time of the moment when they are written.
    let seconds = begun.elapsed().as_secs() as usize + 2;
    // Another listener has lines of its own.
    let mut other = Client::connect(gateway.addrs()[1]);
    assert_eq!(other.ask(OWN).status(), 200);
    let sent = 6 * ROUNDS;
    let reported = dropped(&gateway);
    assert_eq!(reported[1], 0);
    gateway.wait_for_log("own-lines-dropped ");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.wait_for_log(" stopped");

    let lines = gateway.access_lines();
    let count = |target: &str, attempts: &str| {
        let fits = |pairs: &str| lines.iter().filter(|it| it.has(pairs)).count();
        fits(&format!("target={target} attempts={attempts}"))
    };
    assert_eq!(count("/served", "1"), 2 * ROUNDS, "a line is missing");
    let own = count("/", "0");
    assert_eq!(own + reported[0], sent + 1, "lines and dropped ones");
    assert!(own <= LIMIT * seconds + 1, "{own} lines in {seconds} s");
    assert!(own > LIMIT, "{own} lines only");

    let said = gateway.stderr.all();
    let said = said.iter().filter(|it| it.contains("own-lines-dropped "));
    let told: Vec<usize> = said
        .map(|line| {
            assert!(
                line.contains(&format!(" listen={} ", gateway.addr())),
                "{line}"
            );
            line.rsplit_once("lines=").unwrap().1.parse().unwrap()
        })
        .collect();
    assert_eq!(told.iter().sum::<usize>(), reported[0], "{told:?}");
    assert!(told.len() <= 2 + seconds / 10, "told too often: {told:?}");
}

#[test]
fn requests_that_end_without_an_answer_have_no_more_lines_than_others() {
    let origin = Origin::named("x");
    let gateway = Setup::serving(&origin).set("log.own_lines", 1).start();
    let begun = Instant::now();
    for _ in 0..30 {
        // The client goes away within its head.
        gateway.connect().send("GET /gone HTTP/1.1\r\n");
    }
    let closed = "graygate_connections_closed_total{reason=\"client-gone\"}";
    wait_until("all are gone", DEADLINE, || gateway.metric(closed) == 30.0);
    let limit = begun.elapsed().as_secs() as usize + 2;
    let left = 30 - dropped(&gateway)[0];
    assert!((1..=limit).contains(&left), "{left} lines");
}

#[test]
fn without_a_limit_every_request_has_its_line() {
    let origin = Origin::named("x");
    let gateway = Setup::serving(&origin)
        .set("log.own_lines", "unlimited")
        .start();
    let mut client = gateway.connect();
    client.send(OWN.repeat(1500));
    (0..1500).for_each(|_| assert_eq!(client.response().status(), 200));
    gateway.wait_for_access_lines(1500);
    assert_eq!(dropped(&gateway), [0]);
}

#[test]
fn what_a_client_sends_takes_so_much_room_in_a_line_whatever_its_bytes() {
    let origin = Origin::named("x");
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send(
        [
            b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: ",
            &[0xff; 4000][..],
            b"\r\n\r\n",
        ]
        .concat(),
    );
    assert_eq!(client.response().status(), 200);
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(line.get("user_agent"), r"\xFF".repeat(128));
}
