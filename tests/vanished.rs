//! What nobody tells the gateway: that a client has vanished.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{Client, Gateway, Origin, wait_for};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The timer of the gateway's end of the connection of `client`, as /proc/net/tcp has it: its kind, and when
/// it fires, in hundredths of a second.
fn timer(gateway: &Gateway, client: &Client) -> Option<(u8, u64)> {
    let port = |port: u16| format!(":{port:04X}");
    let (here, there) = (
        port(gateway.addr().port()),
        port(client.wire.stream.local_addr().unwrap().port()),
    );
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table
        .lines()
        .map(|it| it.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|it| it[1].ends_with(&here) && it[2].ends_with(&there))?;
    let (kind, when) = row[5].split_once(':')?;
    let when = u64::from_str_radix(when, 16).unwrap();
    Some((kind.parse().unwrap(), when))
}

/// A machine that has lost its power says nothing, and neither does one that has nothing to say: only probes
/// tell.
#[test]
fn a_silent_client_is_probed() {
    /// TCP's own timer for that.
    const KEEP_ALIVE: u8 = 2;
    let origin = Origin::named("fine");
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    assert_eq!(client.ask(GET).text(), "fine");
    let when = wait_for("the timer", || {
        timer(&gateway, &client).filter(|it| it.0 == KEEP_ALIVE)
    });
    assert!(when.1 <= 60 * 100, "{when:?}");
}
