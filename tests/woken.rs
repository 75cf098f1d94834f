//! A crowd that is woken at once, through the library: who comes behind it waits for a few of it only.
//!
//! Alone in its process, for the workers.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use graygate::net::{self, Admission, Listener, Turns};
use support::{DEADLINE, wait_until};

/// Connections that get a byte at the same time.
const CROWD: usize = 400;

/// So many of them have their turn in one round: it is worth 1 MiB, and a wake-up costs 32 KiB.
const A_ROUND: usize = 32;

#[test]
fn who_comes_behind_a_crowd_that_was_woken_at_once_waits_for_a_few_of_it_only() {
    net::start(1).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let read = Arc::new(AtomicUsize::new(0));
    let (said, told) = mpsc::channel();
    let of_crowd = Arc::clone(&read);
    let accept = move || {
        let serve = |connection: net::Accepted, _| {
            let (read, said) = (Arc::clone(&of_crowd), said.clone());
            let serve = move || {
                let stream = connection.settle().ok().unwrap().attach().unwrap();
                let (mut byte, mut turns) = ([0], Turns::new());
                let due = Instant::now() + 3 * DEADLINE;
                stream.read(&mut byte, due).unwrap();
                if byte == *b"r" {
                    // The request, which is asked for no turn.
                    said.send(0).unwrap();
                    stream.read(&mut byte, due).unwrap();
                    said.send(read.load(Ordering::Relaxed)).unwrap();
                    return;
                }
                read.fetch_add(1, Ordering::Relaxed);
                while let Ok(1) = stream.read_in_turn(&mut byte, due, &mut turns) {
                    read.fetch_add(1, Ordering::Relaxed);
                    turns.moved(1);
                }
            };
            net::spawn(0, serve).unwrap();
        };
        let accepted = listener.accept_loop(|| Admission::Open, serve, |_| Duration::ZERO);
        accepted.unwrap();
    };
    net::spawn(0, accept).unwrap();

    let connect = |role: &[u8]| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(role).unwrap();
        stream
    };
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(b"t")).collect();
    let so_far = || read.load(Ordering::Relaxed);
    wait_until("all are there", DEADLINE, || so_far() == CROWD);
    let mut asks = connect(b"r");
    told.recv_timeout(DEADLINE).unwrap();

    // All is there before the worker looks.
    let (held, holds) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let hold = move || {
        held.send(()).unwrap();
        released.recv().unwrap();
    };
    net::spawn(0, hold).unwrap();
    holds.recv_timeout(DEADLINE).unwrap();
    for stream in &mut crowd {
        stream.write_all(b"x").unwrap();
    }
    asks.write_all(b"x").unwrap();
    release.send(()).unwrap();

    let before_it = told.recv_timeout(DEADLINE).unwrap() - CROWD;
    assert!(before_it <= 3 * A_ROUND, "{before_it} were before it");
    // All of them have their turn.
    wait_until("all are served", DEADLINE, || so_far() == 2 * CROWD);
}
