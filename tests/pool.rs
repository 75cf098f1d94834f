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

use graygate::net::{self, Moment, Stream, Watch};
use graygate::upstream::pool::{Asker, CheckedOut, Leftover, Need, Pool, PoolLimits, Spent};
use support::{DEADLINE, wait_until};

const LONG: Duration = Duration::from_secs(3600);

/// What the other side of a kept connection does.
type Deed = (&'static str, fn(&mut TcpStream));

const DEEDS: [Deed; 2] = [
    ("sends", |peer| peer.write_all(b"x").unwrap()),
    ("ends", |peer| peer.shutdown(Shutdown::Write).unwrap()),
];

fn at_most(most: usize) -> PoolLimits {
    PoolLimits {
        most,
        total: usize::MAX,
        age: LONG,
    }
}

/// Puts a connection into the pool, behind the response to a request of `asker`'s.
fn keep(
    pool: &Pool,
    addr: SocketAddr,
    stream: Stream,
    (leftover, asker): (Leftover, Asker),
    most: usize,
) {
    let in_use = pool.begin(addr, &at_most(most));
    let spent = Spent {
        stream,
        leftover,
        asker,
        in_use,
        answered: Moment::now(),
        announced: None,
    };
    pool.checkin(spent, &at_most(most));
}

fn take(pool: &Pool, addr: SocketAddr, asker: Asker) -> Option<CheckedOut> {
    pool.checkout(addr, asker, Need::Repeatable)
}

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

/// Lets the worker hear something.
fn hear() {
    let before = net::news();
    let (stream, mut peer, _) = connected();
    pass(&stream, &mut peer, b"news", 8);
    assert_ne!(net::news(), before);
}

#[test]
fn one_on_which_something_has_come_is_not_taken_though_the_worker_does_not_know() {
    on_the_worker(|| {
        for (what, act) in DEEDS {
            for leftover in [Leftover::None, Leftover::Body] {
                let pool = Pool::default();
                let (stream, mut peer, addr) = connected();
                let seen = stream.twin().unwrap();
                keep(&pool, addr, stream, (leftover, Asker::Connection(1)), 1);
                // Whatever was heard before: what comes now is not known to the worker.
                hear();
                act(&mut peer);
                wait_until("it is there", DEADLINE, || seen.is_readable_now());
                assert!(
                    pool.evict(Moment::now(), &at_most(1)),
                    "the worker knows already"
                );
                assert!(
                    take(&pool, addr, Asker::Connection(1)).is_none(),
                    "{what}, {leftover:?}"
                );
            }
        }
    });
}

#[test]
fn one_whose_response_spoke_of_a_body_rests_until_the_worker_has_heard_something_even_for_its_own_client()
 {
    on_the_worker(|| {
        let pool = Pool::default();
        let (stream, _peer, addr) = connected();
        keep(
            &pool,
            addr,
            stream,
            (Leftover::Body, Asker::Connection(1)),
            2,
        );
        assert!(take(&pool, addr, Asker::Connection(1)).is_none());
        // Another one is taken meanwhile, though it was used before.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other_addr = listener.local_addr().unwrap();
        let deadline = Instant::now() + DEADLINE;
        let other = || Stream::connect(other_addr, deadline, Watch::Nothing).unwrap();
        let (sound, resting) = (other(), other());
        keep(
            &pool,
            other_addr,
            sound,
            (Leftover::None, Asker::Connection(1)),
            2,
        );
        keep(
            &pool,
            other_addr,
            resting,
            (Leftover::Body, Asker::Connection(1)),
            2,
        );
        assert!(take(&pool, other_addr, Asker::Connection(1)).is_some());
        assert!(take(&pool, other_addr, Asker::Connection(1)).is_none());
        hear();
        assert!(take(&pool, addr, Asker::Connection(1)).is_some());
        assert!(take(&pool, other_addr, Asker::Connection(1)).is_some());
    });
}

#[test]
fn one_whose_response_spoke_of_a_body_serves_its_own_client_at_once_and_others_after_a_second() {
    const OWN: Asker = Asker::Connection(1);
    const OTHERS: [Asker; 2] = [Asker::Connection(2), Asker::Anybody];
    on_the_worker(|| {
        let pool = Pool::default();
        let (stream, _peer, addr) = connected();
        keep(&pool, addr, stream, (Leftover::Body, OWN), 1);
        for _ in 0..3 {
            hear();
            for other in OTHERS {
                assert!(take(&pool, addr, other).is_none());
            }
            let found = take(&pool, addr, OWN).unwrap();
            assert_eq!(found.leftover, Leftover::Doubtful);
            keep(&pool, addr, found.stream, (found.leftover, OWN), 1);
        }
        let begun = Instant::now();
        for other in OTHERS {
            let mut found = None;
            wait_until("others may have it", DEADLINE, || {
                found = take(&pool, addr, other);
                found.is_some()
            });
            assert!(begun.elapsed() > Duration::from_millis(950));
            let found = found.unwrap();
            assert_eq!(found.leftover, Leftover::None);
            keep(&pool, addr, found.stream, (Leftover::None, other), 1);
        }
        // An exchange that went well meanwhile does not show whose response it was.
        let found = take(&pool, addr, OWN).unwrap();
        keep(&pool, addr, found.stream, (Leftover::Answer, OWN), 1);
        std::thread::sleep(Duration::from_millis(1050));
        hear();
        for other in OTHERS {
            assert!(take(&pool, addr, other).is_none());
        }
        // Whom a proxy's request was for is not known, so the next one is another's.
        let found = take(&pool, addr, OWN).unwrap();
        keep(
            &pool,
            addr,
            found.stream,
            (Leftover::Body, Asker::Anybody),
            1,
        );
        hear();
        assert!(take(&pool, addr, Asker::Anybody).is_none());
    });
}

#[test]
fn where_no_more_are_kept_one_that_rests_gives_way_to_one_that_may_serve_anybody() {
    on_the_worker(|| {
        let pool = Pool::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let deadline = Instant::now() + DEADLINE;
        let keep = |leftover, asker| {
            let stream = Stream::connect(addr, deadline, Watch::Nothing).unwrap();
            keep(&pool, addr, stream, (leftover, Asker::Connection(asker)), 2);
            pool.len()
        };
        assert_eq!(keep(Leftover::Answer, 1), 1);
        assert_eq!(keep(Leftover::Answer, 2), 2);
        // The one that has rested longest, and never one for another that rests, too.
        assert_eq!(keep(Leftover::Answer, 3), 2);
        assert_eq!(keep(Leftover::None, 4), 2);
        hear();
        assert!(take(&pool, addr, Asker::Connection(3)).is_some());
        assert!(take(&pool, addr, Asker::Connection(3)).is_none());
        assert!(take(&pool, addr, Asker::Connection(2)).is_some());
        // Never more than there may be.
        assert_eq!(keep(Leftover::None, 4), 1);
        assert_eq!(keep(Leftover::None, 4), 2);
        assert_eq!(keep(Leftover::Answer, 5), 2);
        assert_eq!(keep(Leftover::None, 4), 2);
        assert!(take(&pool, addr, Asker::Connection(5)).is_some());
        assert!(take(&pool, addr, Asker::Connection(5)).is_some());
        assert!(pool.is_empty());
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
            keep(
                &pool,
                addr,
                stream,
                (Leftover::None, Asker::Connection(1)),
                1,
            );
            let taken = take(&pool, addr, Asker::Connection(1));
            assert_eq!(taken.is_some(), is_kept);
        }
    });
}
