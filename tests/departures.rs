//! Clients that leave while their answer is awaited: the peer is told, and no other one is asked.
//! Clients that have only nothing more to say are served.

mod support;

use std::time::{Duration, Instant};

use support::{Gateway, Origin, Setup, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Far above the time in which an end belongs to the request before it.
const LATER: Duration = Duration::from_millis(500);

/// Reads a request, and says nothing until it is left alone.
fn mute() -> Origin {
    Origin::scripted(|conn| {
        conn.head()?;
        conn.wait_gone()
    })
}

/// Four peers for a client on the gray list: all that an exchange could try.
fn gateway(peers: &[Origin; 4], read_timeout: &str) -> Gateway {
    let setup = Setup::new().set("upstream.read_timeout", read_timeout);
    let [first, rest @ ..] = peers;
    let rest = [&rest[0] as &dyn std::fmt::Display, &rest[1], &rest[2]];
    setup.lists(&["127.0.0.5"], &[first], &rest).start()
}

fn heads(peers: &[Origin]) -> usize {
    peers
        .iter()
        .map(|it| it.seen(|seen| seen.heads.len()))
        .sum()
}

#[test]
fn a_client_that_resets_ends_the_wait_for_its_answer_and_no_other_peer_is_asked() {
    let peers = [mute(), mute(), mute(), mute()];
    let gateway = gateway(&peers, "1h");
    let mut client = gateway.connect_from("127.0.0.5");
    client.send(GET);
    peers[0].wait("the head", |seen| seen.heads.len() == 1);
    client.reset();
    peers[0].wait_closed(1);
    gateway.wait_for_access("client=127.0.0.5 attempts=1 close=client-gone");
    assert_eq!(heads(&peers), 1);
}

#[test]
fn a_client_that_ends_its_side_long_after_its_request_has_no_other_peer_asked() {
    let peers = [mute(), mute(), mute(), mute()];
    let gateway = gateway(&peers, "2s");
    let mut client = gateway.connect_from("127.0.0.5");
    let sent = Instant::now();
    client.send(GET);
    peers[0].wait("the head", |seen| seen.heads.len() == 1);
    wait_until("it is no part of the request", LATER * 2, || {
        sent.elapsed() > LATER
    });
    client.half_close();
    // Whether it is still there nobody can tell, so it is answered.
    assert_eq!(
        client.response().text(),
        "504 Gateway Timeout: read-timeout\n"
    );
    gateway.wait_for_access("client=127.0.0.5 pool=pre attempts=1 status=504");
    assert_eq!(heads(&peers), 1);
}

#[test]
fn a_client_that_ends_its_side_with_its_request_is_served_by_another_peer() {
    let peers = [mute(), mute(), mute(), Origin::named("last")];
    let gateway = gateway(&peers, "300ms");
    let mut client = gateway.connect_from("127.0.0.5");
    client.send_with_end(GET);
    assert_eq!(client.response().text(), "last");
}

#[test]
fn a_client_that_stays_has_every_peer_asked() {
    let peers = [mute(), mute(), mute(), mute()];
    let gateway = gateway(&peers, "300ms");
    let mut client = gateway.connect_from("127.0.0.5");
    assert_eq!(client.ask(GET).status(), 504);
    assert_eq!(heads(&peers), 4);
}
