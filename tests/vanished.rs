//! What nobody tells the gateway: a client that has vanished, and that there is no memory for another one.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{Client, DEADLINE, Gateway, Origin, Setup, allow_descriptors, wait_for, wait_until};

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

/// The memory that a process has, in KiB, used or not.
fn address_space(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmPeak:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

#[test]
fn where_there_is_no_memory_for_a_connection_the_others_are_served() {
    /// For far more than the gateway has room for, each with a stack of 256 KiB.
    const CROWD: usize = 1500;
    /// More than the start needs, which is also what it needs most of.
    const ROOM: u64 = 16 * 1024;
    allow_descriptors(2 * CROWD as u64);
    let origin = Origin::named("fine");
    let begin = |wrapper: &[&str]| Setup::serving(&origin).under(wrapper).start();
    let unlimited = begin(&[]);
    assert_eq!(unlimited.get("127.0.0.1", "/").text(), "fine");
    let limit = address_space(unlimited.pid()) + ROOM;
    let mut gateway = begin(&[
        "sh",
        "-c",
        &format!("ulimit -v {limit}; exec \"$0\" \"$@\""),
    ]);
    let mut first = gateway.connect();
    assert_eq!(first.ask(GET).text(), "fine");
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| gateway.connect()).collect();
    // Each needs a stack while its head comes.
    crowd
        .iter_mut()
        .for_each(|it| it.send_if_open("GET / HTTP/1.1\r\n"));
    let refused = "graygate_refusals_total{reason=\"over-capacity\"}";
    wait_until("some are refused", DEADLINE, || {
        gateway.metric(refused) > 0.0
    });
    assert_eq!(first.ask(GET).text(), "fine");
    assert_eq!(gateway.metric("graygate_panics_total"), 0.0);
    drop(crowd);
    wait_until("there is room again", DEADLINE, || {
        gateway.get("127.0.0.1", "/").status() == 200
    });
    assert!(gateway.is_running());
}
