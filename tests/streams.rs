//! Streams, through the library: what they say they have done is what they have done.
//!
//! Alone in its process, for the workers.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::{Barrier, Once};
use std::time::{Duration, Instant};

use graygate::net::{self, Accepted, Admission, Listener, Patience, Wake, Watch};
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
        let accepted = listener.accept_loop(|| Admission::Open, serve, |_| Duration::ZERO);
        accepted.unwrap();
    };
    net::spawn(0, accept).unwrap();
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

fn start_workers() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        net::start(1).unwrap();
    });
}

#[test]
fn what_was_written_before_the_time_was_over_is_told() {
    start_workers();
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

/// Both sides have ended theirs, and what was said is still on its way (LAST_ACK): most of it is lost by a
/// reset, so that the end behind it must not arrive either.
#[test]
fn a_reset_of_what_has_ended_in_both_directions_is_no_clean_end() {
    const MUCH: usize = 4 << 20;
    start_workers();
    let (said, told) = std::sync::mpsc::channel();
    let mut client = serve_one(move |connection| {
        let stream = connection.settle().ok().unwrap().attach().unwrap();
        let until = Instant::now() + DEADLINE;
        assert_eq!(stream.read(&mut [0; 16], until).unwrap(), 0);
        let patience = Patience::new(Duration::from_millis(200));
        let (written, outcome) = stream.write_both(&vec![b'x'; MUCH], &[], &patience, false);
        assert!(written < MUCH, "{outcome:?}");
        stream.shutdown_write();
        let other = stream.twin().unwrap();
        stream.reset();
        drop((stream, other));
        said.send(written).unwrap();
    });
    client.shutdown(Shutdown::Write).unwrap();
    let written = told.recv_timeout(DEADLINE).unwrap();
    let mut arrived = Vec::new();
    let end = client.read_to_end(&mut arrived).map_err(|it| it.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(arrived.len() < written);
}

/// As of a stream within another connection, that its other side has given up.
#[test]
fn a_flag_that_is_watched_ends_a_wait_whether_it_was_set_before_or_is_set_meanwhile() {
    start_workers();
    let (said, told) = std::sync::mpsc::channel();
    let client = serve_one(move |connection| {
        let stream = connection.settle().ok().unwrap().attach().unwrap();
        let flag = Rc::new(Cell::new(false));
        let of_other = Rc::clone(&flag);
        let other = net::spawn_beside(move || of_other.set(true)).unwrap();
        let mut wakes = Vec::new();
        for _ in 0..2 {
            let until = Instant::now() + DEADLINE;
            wakes.push(stream.wait_readable(until, Watch::Flag(&flag)));
        }
        other.join().unwrap();
        flag.set(false);
        let soon = Instant::now() + Duration::from_millis(1);
        wakes.push(stream.wait_readable(soon, Watch::Flag(&flag)));
        said.send(wakes).unwrap();
    });
    let wakes = told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(wakes, [Wake::Watched, Wake::Watched, Wake::Overdue]);
    drop(client);
}

/// Whoever is stopped, or gets no CPU for a while, has not looked.
#[test]
fn what_has_come_before_anybody_could_look_has_come_in_time_though_the_time_is_over() {
    start_workers();
    let (said, told) = std::sync::mpsc::channel();
    let (bell, rung) = std::sync::mpsc::channel();
    let waits = |limit: Duration, after: fn()| {
        let (said, bell) = (said.clone(), bell.clone());
        move |connection: Accepted| {
            let stream = connection.settle().ok().unwrap().attach().unwrap();
            let (begun, mut byte) = (Instant::now(), [0]);
            bell.send(()).unwrap();
            let read = stream.read(&mut byte, begun + limit);
            said.send((limit, read.map_err(|it| it.kind()))).unwrap();
            after();
        }
    };
    let mut late = serve_one(waits(Duration::from_secs(1), || {}));
    // Its byte is there together with a tick of the clock, before which it holds the worker up.
    let hold_up = || {
        NOTHING_IS_LOOKED_AT.wait();
        std::thread::sleep(Duration::from_millis(1100));
    };
    let busy = serve_one(waits(DEADLINE, hold_up));
    (0..2).for_each(|_| rung.recv_timeout(DEADLINE).unwrap());
    let mut of_busy = busy.try_clone().unwrap();
    net::spawn(0, move || {
        of_busy.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(60));
    })
    .unwrap();
    NOTHING_IS_LOOKED_AT.wait();
    late.write_all(b"x").unwrap();
    for _ in 0..2 {
        let (limit, read) = told.recv_timeout(DEADLINE).unwrap();
        assert_eq!(read, Ok(1), "{limit:?}");
    }
    drop(busy.shutdown(Shutdown::Both));
}

static NOTHING_IS_LOOKED_AT: Barrier = Barrier::new(2);
