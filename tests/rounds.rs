//! Rounds, through the library: what others wait for who ask for little does not grow with the number
//! of those who ask for much.
//!
//! Alone in its process, for the workers.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use graygate::net::{self, Admission, Listener, Patience, Stream, Watch};
use support::DEADLINE;

/// Coroutines that always have more to do.
const GREEDY: usize = 500;

/// A byte there and back.
const EXCHANGES: usize = 300;

#[test]
fn a_crowd_that_always_has_more_to_do_lets_others_wait_for_a_few_of_it_only() {
    net::start(1).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let accept = move || {
        let echo = |connection: net::Accepted, _| {
            let echo = move || {
                let (stream, patience) = (
                    connection.settle().ok().unwrap().attach().unwrap(),
                    Patience::new(DEADLINE),
                );
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte, Instant::now() + DEADLINE) {
                    stream.write_all(&byte, &patience).unwrap();
                }
            };
            net::spawn(0, echo).unwrap();
        };
        let accepted = listener.accept_loop(|| Admission::Open, echo, |_| Duration::ZERO);
        accepted.unwrap();
    };
    net::spawn(0, accept).unwrap();

    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..GREEDY {
        let over = Arc::clone(&over);
        let greedy = move || {
            while !over.load(Ordering::Relaxed) {
                net::yield_turn();
            }
        };
        net::spawn(0, greedy).unwrap();
    }
    let (said, told) = mpsc::channel();
    let exchange = move || {
        let stream = Stream::connect(addr, Instant::now() + DEADLINE, Watch::Nothing).unwrap();
        let patience = Patience::new(DEADLINE);
        let one = || {
            let before = net::turns_over(0);
            stream.write_all(b"x", &patience).unwrap();
            let read = stream.read(&mut [0], Instant::now() + DEADLINE);
            assert_eq!(read.unwrap(), 1);
            net::turns_over(0) - before
        };
        let mut turns: Vec<u64> = (0..EXCHANGES).map(|_| one()).collect();
        turns.sort_unstable();
        said.send(turns).unwrap();
    };
    net::spawn(0, exchange).unwrap();
    let turns = told.recv_timeout(3 * DEADLINE).unwrap();
    over.store(true, Ordering::Relaxed);
    // Two rounds, or three; where the kernel is late with a byte, it may be more of them.
    let median = turns[EXCHANGES / 2];
    assert!((1..=40).contains(&median), "{turns:?}");
}
