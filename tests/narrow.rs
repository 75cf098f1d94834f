//! Connections that take little at a time: in a network namespace whose packets are those of an
//! Ethernet, since the loopback's take a whole head at once.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use socket2::{Domain, Socket, Type};
use support::{DEADLINE, Setup, run_in_namespace, wait_until};

/// How the loopback is set up.
const ETHERNET: &str = "mtu 1500 up";

/// A listener whose connections have room for a few kilobytes.
fn narrow_listener() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(16).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_connection_that_has_not_taken_a_whole_request_gets_no_other() {
    run_in_namespace(ETHERNET, "answered_before_the_head_was_taken");
}

#[test]
#[ignore = "runs in a namespace of its own; see above"]
fn answered_before_the_head_was_taken() {
    let (listener, address) = narrow_listener();
    let (read_on, may_read_on) = mpsc::channel();
    // Answers the begin of a request, and takes the rest when it is told to.
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
                .unwrap();
            streams.push(stream);
            if streams.len() == 1 {
                may_read_on.recv().unwrap();
                let mut first = streams[0].try_clone().unwrap();
                std::thread::spawn(move || {
                    let mut rest = Vec::new();
                    let _ = first.read_to_end(&mut rest);
                    assert!(!rest.windows(7).any(|it| it == b"/victim"));
                });
            }
        }
    });
    let gateway = Setup::serving(&address)
        .one_worker()
        .set("gateway.max_head", "1m")
        .set("gateway.max_line", "1k")
        .set("upstream.send_timeout", "300ms")
        .set("upstream.tries", 1)
        .start();
    let big = "A".repeat(900_000);
    let mut attacker = gateway.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {big}\r\n\r\n");
    assert_eq!(attacker.ask(head).text(), "early");
    read_on.send(()).unwrap();
    let answer = gateway.connect().get("/victim");
    assert_eq!(answer.text(), "early");
    let new = "graygate_upstream_connections_total{kind=\"new\"}";
    wait_until("each has a connection of its own", DEADLINE, || {
        gateway.metric(new) == 2.0
    });
}
