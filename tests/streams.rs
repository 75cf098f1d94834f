//! Streams, through the library: what they say they have done is what they have done.
//!
//! Alone in its process, for the workers.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use graygate::net::{self, Accepted, Listener, Patience};
use support::DEADLINE;

/// Accepts one connection on a worker, and runs `serve` with it.
fn serve_one(serve: impl Fn(Accepted) + Clone + Send + 'static) -> TcpStream {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let accept = move || {
        let serve = |connection: Accepted, _| {
            let serve = serve.clone();
            net::spawn(0, move || serve(connection)).unwrap();
        };
        let accepted = listener.accept_loop(|| false, serve, |_| Duration::ZERO);
        accepted.unwrap();
    };
    net::spawn(0, accept).unwrap();
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

#[test]
fn what_was_written_before_the_time_was_over_is_told() {
    net::start(1).unwrap();
    let (said, told) = std::sync::mpsc::channel();
    // The other side reads nothing until this has given up.
    let mut client = serve_one(move |connection| {
        let stream = connection.settle().ok().unwrap().attach().unwrap();
        let patience = Patience::new(Duration::from_millis(200));
        let (head, body) = (vec![b'h'; 100], vec![b'b'; 64 << 20]);
        let (written, outcome) = stream.write_both(&head, &body, &patience, false);
        let error = outcome.unwrap_err().kind();
        said.send((written, error)).unwrap();
    });
    let (written, error) = told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(error, ErrorKind::TimedOut);
    assert!(written > 100, "{written}");
    let mut arrived = Vec::new();
    client.read_to_end(&mut arrived).unwrap();
    assert_eq!(arrived.len(), written);
}
