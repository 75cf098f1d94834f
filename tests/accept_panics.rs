//! A panic where connections are accepted, through the library: it costs that connection, not the
//! address, and a drain does not wait for it.
//!
//! Alone in its process: the hook for panics is everybody's, and so are the workers.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use graygate::config::LogTarget;
use graygate::net;
use graygate::proxy::listeners;

use support::{DEADLINE, GatewayInside, PanicLog, wait_until};

const INI: &str = "
[gateway]
listen = 127.0.0.1:0
workers = 2
[lists]
file = lists
";

#[test]
fn a_panic_while_accepting_costs_that_connection_and_no_drain_waits_for_it() {
    let log = PanicLog::install();
    // One worker's count is missing: whoever would be the second worker's is a panic.
    let inside = GatewayInside::start_with(INI, &LogTarget::Off, |it| {
        it.connections.pop();
    });
    let (gateway, addr) = (&inside.gateway, inside.addr);
    // A second start says how many there are, and does not change it.
    assert_eq!(net::start(300).unwrap(), 2);

    let ask = || {
        let mut client = TcpStream::connect(addr).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        // Whoever is closed on may be reset while writing or reading.
        let _ = client.write_all(request);
        let _ = client.read_to_string(&mut answer);
        (client, answer)
    };
    let panics = || gateway.metrics.sum(|it| &it.panics);
    // Numbers of descriptors that are held alternate between the workers.
    let mut held = Vec::new();
    let mut answered_after = false;
    wait_until("a panic, and an answer after it", DEADLINE, || {
        let before = panics();
        let (client, answer) = ask();
        held.push(client);
        answered_after |= before > 0 && answer.starts_with("HTTP/1.1 503 ");
        answered_after
    });
    wait_until("it is in the log", DEADLINE, || !log.lines().is_empty());
    drop(held);

    let (done, drained) = std::sync::mpsc::channel();
    let draining = Arc::clone(gateway);
    std::thread::spawn(move || {
        let left = listeners::drain(&draining, Duration::from_secs(3600), || false);
        done.send(left).unwrap();
    });
    assert_eq!(drained.recv_timeout(DEADLINE), Ok(0));
}
