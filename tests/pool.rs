//! Kept connections to peers, through the library: whoever takes one gets none on which anything has
//! come, and one that is sound is not thrown away.
//!
//! Alone in its process, for the workers. While a test's coroutine does not wait, its worker learns of
//! nothing that happens, so that the kernel knows more than the worker.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use graygate::net::{self, Stream, Watch};
use graygate::upstream::pool::{Certainty, Pool};
use support::{DEADLINE, wait_until};

const LONG: Duration = Duration::from_secs(3600);

/// What the other side of a kept connection does.
type Deed = (&'static str, fn(&mut TcpStream));

const DEEDS: [Deed; 2] = [
    ("sends", |peer| peer.write_all(b"x").unwrap()),
    ("ends", |peer| peer.shutdown(Shutdown::Write).unwrap()),
];

/// Runs `task` on the worker, to its end.
#[track_caller]
fn on_the_worker(task: impl FnOnce() + Send + 'static) {
    net::start(1).unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    let task = move || {
        task();
        ended.send(()).unwrap();
    };
    net::spawn(0, task).unwrap();
    // A task that panics, which has been said, has no end.
    end.recv_timeout(DEADLINE).unwrap();
}

/// A connection of the calling worker's, its other side, and the address of that.
fn connected() -> (Stream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let stream = Stream::connect(addr, deadline, Watch::Nothing).unwrap();
    (stream, listener.accept().unwrap().0, addr)
}

/// Takes `bytes`, which the other side sends, into room of so many bytes.
fn pass(stream: &Stream, peer: &mut TcpStream, bytes: &[u8], room: usize) {
    peer.write_all(bytes).unwrap();
    let mut into = vec![0; room];
    let count = stream.read(&mut into, Instant::now() + DEADLINE).unwrap();
    assert_eq!(&into[..count], &bytes[..room.min(bytes.len())]);
}

/// Lets the worker poll; all that has happened then is known.
fn poll() {
    let before = net::polls().last;
    let (stream, mut peer, _) = connected();
    while net::polls().last == before {
        net::note_poll();
        pass(&stream, &mut peer, b"news", 8);
    }
    net::take_in_events();
}

#[test]
fn one_that_became_idle_after_the_last_poll_is_not_taken_when_something_has_come_since() {
    on_the_worker(|| {
        for (what, act) in DEEDS {
            for certainty in [Certainty::LastPoll, Certainty::Now] {
                let pool = Pool::default();
                let (stream, mut peer, addr) = connected();
                net::take_in_events();
                act(&mut peer);
                wait_until("it is there", DEADLINE, || stream.is_readable_now());
                assert!(!stream.is_readable(), "the worker knows already");
                pool.checkin(addr, stream, 1);
                assert!(pool.evict(Instant::now(), LONG), "it is kept");
                let taken = pool.checkout(addr, certainty);
                assert!(taken.is_none(), "{what}, {certainty:?}");
            }
        }
    });
}

#[test]
fn one_that_was_idle_before_the_last_poll_is_taken_by_what_that_told_if_that_is_enough() {
    on_the_worker(|| {
        for (what, act) in DEEDS {
            for (certainty, is_taken) in [(Certainty::LastPoll, true), (Certainty::Now, false)] {
                let pool = Pool::default();
                let (stream, mut peer, addr) = connected();
                let seen = stream.twin().unwrap();
                pool.checkin(addr, stream, 1);
                poll();
                act(&mut peer);
                wait_until("it is there", DEADLINE, || seen.is_readable_now());
                let taken = pool.checkout(addr, certainty);
                assert_eq!(taken.is_some(), is_taken, "{what}, {certainty:?}");

                // What a poll has told is known without asking.
                let Some(stream) = taken else { continue };
                poll();
                assert!(stream.is_readable(), "{what}");
                pool.checkin(addr, stream, 1);
                assert!(pool.checkout(addr, Certainty::LastPoll).is_none());
            }
        }
    });
}

#[test]
fn one_whose_bytes_were_all_taken_is_kept_though_the_worker_does_not_know() {
    on_the_worker(|| {
        for (bytes, is_kept) in [(&b"all"[..], true), (b"all, and more", false)] {
            let pool = Pool::default();
            let (stream, mut peer, addr) = connected();
            pass(&stream, &mut peer, bytes, 3);
            assert!(stream.is_readable(), "as far as the worker knows");
            pool.checkin(addr, stream, 1);
            let taken = pool.checkout(addr, Certainty::LastPoll);
            assert_eq!(taken.is_some(), is_kept);
        }
    });
}
