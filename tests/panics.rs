//! A panic in a coroutine, through the library: it ends that coroutine only, its report with a
//! backtrace fits on the stack with much to spare, and the worker serves on.
//!
//! Alone in its process: the hook is everybody's, and every stack is looked at.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graygate::net::{self, Admission, Listener, Patience, STACK_SIZE, Stream};

use support::{DEADLINE, LONGEST_WAY, PanicLog, Stacks, wait_until};

/// Calls itself until so many bytes of the stack below `top` are used, and then `end`.
#[inline(never)]
fn descend(top: usize, bytes: usize, end: fn()) -> u8 {
    let frame = black_box([1_u8; 512]);
    if top.saturating_sub(frame.as_ptr() as usize) < bytes {
        black_box(descend(top, bytes, end));
    } else {
        end();
    }
    // Used behind the call, so that the frame stays.
    black_box(frame)[0]
}

/// Runs `end` in a coroutine that has used `bytes` of its stack.
fn spawn_deep(bytes: usize, end: fn()) {
    let task = move || {
        let top = 0_u8;
        descend(black_box(&raw const top) as usize, bytes, end);
    };
    net::spawn(0, task).unwrap();
}

/// Sends back what comes, on the worker where the panics are.
fn serve() -> SocketAddr {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let accept = move || {
        let serve = |connection: net::Accepted, _| {
            let serve = move || echo(&connection.settle().ok().unwrap().attach().unwrap());
            net::spawn(0, serve).unwrap();
        };
        let accepted = listener.accept_loop(|| Admission::Open, serve, |_| Duration::ZERO);
        accepted.unwrap();
    };
    net::spawn(0, accept).unwrap();
    addr
}

fn echo(stream: &Stream) {
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut bytes, Instant::now() + DEADLINE) {
        let patience = Patience::new(DEADLINE);
        stream.write_all(&bytes[..count], &patience).unwrap();
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

fn is_served(client: &mut TcpStream) {
    let mut answer = [0; 5];
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

/// Ways that were gone down without a panic.
static WAYS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_panic_with_a_backtrace_ends_its_coroutine_only_and_leaves_half_of_the_stack_free() {
    const PANICS: usize = 20;
    let log = PanicLog::install();
    net::start(1).unwrap();
    let addr = serve();
    let mut client = connect(addr);

    let deepest = |what: &str| {
        let Stacks { deepest, .. } = Stacks::of("self");
        println!("{deepest:6} of {STACK_SIZE} bytes, after {what}");
        deepest
    };
    // Each report has the name and the place of a caller.
    let is_report = |line: &&String| {
        line.contains(" ERROR panic place=tests/panics.rs:")
            && line.contains("descend\\n             at ./tests/panics.rs:")
    };
    let mut panics = 0;
    let mut panic_deep = |bytes: usize| {
        for _ in 0..PANICS {
            spawn_deep(bytes, || panic!("on purpose"));
        }
        panics += PANICS;
        wait_until("every panic is reported", DEADLINE, || {
            log.lines().iter().filter(is_report).count() == panics
        });
        // Who was served before is served still, and so is who comes now.
        is_served(&mut client);
        is_served(&mut connect(addr));
    };

    deepest("the start");
    panic_deep(0);
    deepest("panics");
    spawn_deep(LONGEST_WAY, || {
        WAYS.fetch_add(1, Ordering::Release);
    });
    wait_until("the way is gone", DEADLINE, || {
        WAYS.load(Ordering::Acquire) == 1
    });
    let way = deepest("a long way");
    // Or this would prove nothing.
    assert!((LONGEST_WAY..LONGEST_WAY + 16 * 1024).contains(&way));
    panic_deep(LONGEST_WAY);
    let deepest = deepest("panics after a long way");
    assert!(
        way < deepest && deepest <= STACK_SIZE / 2,
        "{deepest} bytes"
    );
}
