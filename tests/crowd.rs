//! A crowd of thousands of slow and greedy clients: each is cut by a deadline that has a name, costs
//! little until then, and disturbs nobody.
//!
//! `cargo test --test crowd -- --nocapture` prints how much memory each took, and the latency of
//! others beside them; with `--ignored` that of others beside each of some attacks. Alone in its
//! process: it takes much of the machine for a while.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use graygate::memory::buffer;
use socket2::{Domain, Socket, Type};
use support::{DEADLINE, Gateway, LightOrigin, Setup, allow_descriptors, wait_until};

const WORKERS: usize = 2;

/// Connections of each kind in the crowd, where there are descriptors enough.
const EACH: usize = 1250;

/// How the members of the crowd behave.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Opens and says nothing.
    Silent,
    /// Sends a byte a second.
    Dripping,
    /// Sends many requests, and takes nothing of the responses.
    Pipelining,
    /// Asks for more than there is room for, and takes nothing of it.
    Deaf,
}

impl Kind {
    /// In this order their memory can be told apart: what is still on its way when all of a kind
    /// are there comes to little with the first ones.
    const ALL: [Self; 4] = [Self::Silent, Self::Dripping, Self::Pipelining, Self::Deaf];

    fn first_bytes(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::Dripping => b"GET /".to_vec(),
            Self::Pipelining => b"GET /32768 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(32),
            Self::Deaf => b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        }
    }

    /// Connects and says what this kind says first, with so little room that it matters soon who
    /// does not read: a small window, and small segments, which keep the gateway's send buffer
    /// small.
    fn join(self, to: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(1400).unwrap();
        socket.connect_timeout(&to.into(), DEADLINE).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(&self.first_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Memory of the gateway for one of this kind, in bytes, at most.
    ///
    /// Each waits in a coroutine. In a debug build, reading a head touches no more than 12 KiB of its
    /// stack and an exchange 24 (`tests/stack.rs`), and the runtime marks the lowest page; 4 KiB are
    /// for all that is small. Who has sent something holds a buffer, and so does whoever's response
    /// is on its way; of the big buffers for big ones each worker has a number. (Besides, the
    /// kernel holds what was sent and not taken.)
    fn memory(self, each: usize) -> usize {
        const READING: usize = (12 + 4 + 4) * 1024;
        const EXCHANGE: usize = (24 + 4 + 4) * 1024;
        match self {
            Self::Silent => READING,
            Self::Dripping => READING + buffer::SMALL,
            Self::Pipelining => EXCHANGE + 2 * buffer::SMALL,
            Self::Deaf => {
                let big = WORKERS * buffer::MOST_BIG * buffer::BIG;
                EXCHANGE + 2 * buffer::SMALL + big / each
            }
        }
    }
}

/// Requests one after the other until `done`; how long each took. All must be answered in full.
fn normal_requests(gateway: &Gateway, done: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut kept = gateway.connect();
    let mut times = Vec::new();
    while !done(times.len()) {
        let start = Instant::now();
        // Some on a connection of their own.
        let response = match times.len() % 10 {
            0 => gateway.connect_from_another().get("/100"),
            _ => kept.get("/100"),
        };
        assert_eq!((response.status(), response.content.len()), (200, 100));
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

/// Ends the other threads of a test, also when it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn drip(mut streams: Vec<TcpStream>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        for stream in &mut streams {
            // Who was cut goes on as well.
            let _ = stream.write(b"x");
        }
    }
}

#[test]
fn thousands_of_slow_and_greedy_clients_are_cut_in_time_and_disturb_nobody() {
    // Of this process, with those of the gateway's responses; the gateway allows as many.
    let needed = |each: usize| 8 * each + 1000;
    let descriptors = allow_descriptors(needed(EACH) as u64) as usize;
    let each = EACH.min((descriptors - needed(0)) / 8);
    if each < EACH {
        println!("only {each} connections of each kind, for {descriptors} descriptors");
    }
    let origin = LightOrigin::new();
    let gateway = Setup::serving(&origin)
        .set("gateway.workers", WORKERS)
        .set("gateway.max_connections", 4 * each + 100)
        .set("gateway.head_timeout", "10s")
        .set("gateway.send_timeout", "10s")
        // Each of them is to have its line.
        .set("log.own_lines", "unlimited")
        .start();
    let active = || {
        let active = |worker| format!("graygate_connections_active{{worker=\"{worker}\"}}");
        (gateway.metric(&active(0)) + gateway.metric(&active(1))) as usize
    };
    let alone = normal_requests(&gateway, |count| count == 1000);

    let over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let ending = Over(&over);
        let normal = scope.spawn(|| normal_requests(&gateway, |_| over.load(Ordering::Acquire)));
        let (_stop, stopped) = crossbeam_channel::bounded(0);
        let mut crowd = Vec::new();

        for (kind, so_far) in Kind::ALL.into_iter().zip(1..) {
            let before = gateway.rss_kib();
            let join = |_| kind.join(gateway.addr());
            let streams: Vec<TcpStream> = (0..each).map(join).collect();
            wait_until("all are there", DEADLINE, || active() >= so_far * each);
            let taken = (gateway.rss_kib() - before) as usize * 1024 / each;

            println!("{taken:6} bytes for each that is {kind:?}");
            assert!(taken <= kind.memory(each), "{kind:?}: {taken} bytes each");
            match kind {
                Kind::Dripping => {
                    let stopped = stopped.clone();
                    scope.spawn(move || drip(streams, &stopped));
                }
                _ => crowd.extend(streams),
            }
        }

        let closed = |reason: &str| {
            let name = format!("graygate_connections_closed_total{{reason=\"{reason}\"}}");
            gateway.metric(&name) as usize
        };
        wait_until("who waits is cut", 3 * DEADLINE, || {
            let closed = ["head-timeout", "refused", "send-timeout"].map(closed);
            closed == [each, each, 2 * each]
        });
        // As many as were alone, and whoever serves them.
        wait_until("nobody is left", DEADLINE, || active() <= 2);
        drop(ending);
        normal.join().unwrap()
    });

    let lines = gateway.access_lines();
    for (kind, pairs) in [
        (
            Kind::Dripping,
            "status=408 error=head-timeout close=refused",
        ),
        (
            Kind::Pipelining,
            "status=200 target=/32768 close=send-timeout",
        ),
        (Kind::Deaf, "status=200 target=/big close=send-timeout"),
    ] {
        let count = lines.iter().filter(|line| line.has(pairs)).count();
        assert_eq!(count, each, "{kind:?}");
    }
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    println!(
        "p99 of {} requests alone {:?}, of {} beside the crowd {:?}; {} KiB at most",
        alone.len(),
        p99(&alone),
        beside.len(),
        p99(&beside),
        gateway.peak_rss_kib()
    );
    assert!(beside.len() > 100, "only {} requests", beside.len());
    let crowd: usize = Kind::ALL.iter().map(|kind| kind.memory(each) * each).sum();
    assert!(gateway.peak_rss_kib() as usize * 1024 <= crowd + (64 << 20));
}

/// What clients do to make others wait: much work of few bytes, or many of them at once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    None,
    ChunksUp,
    ChunksDown,
    NoWindow,
    OwnAnswers,
    Refusals,
    Trailers,
    Tunnels,
    DrippingHeads,
    /// They are silent until they are parked, and then all ask at once.
    Parked,
}

impl Attack {
    const ALL: [Self; 10] = [
        Self::None,
        Self::ChunksUp,
        Self::ChunksDown,
        Self::NoWindow,
        Self::OwnAnswers,
        Self::Refusals,
        Self::Trailers,
        Self::Tunnels,
        Self::DrippingHeads,
        Self::Parked,
    ];

    fn clients(self) -> usize {
        match self {
            Self::None => 0,
            Self::NoWindow => 300,
            Self::Parked => 1000,
            _ => 200,
        }
    }

    /// What is sent first, and then again and again.
    fn bytes(self) -> (&'static [u8], Vec<u8>) {
        const CHUNKED: &str = "POST /end HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        match self {
            Self::None => (b"", Vec::new()),
            Self::ChunksUp => (CHUNKED.as_bytes(), b"1\r\nx\r\n".repeat(20_000)),
            Self::ChunksDown => (b"GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n", Vec::new()),
            Self::NoWindow => (b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", Vec::new()),
            Self::OwnAnswers => {
                let one = b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
                (b"", one.repeat(1000))
            }
            Self::Refusals => (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Vec::new()),
            Self::Trailers => {
                let trailers: String = (0..90).map(|at| format!("A{at}: b\r\n")).collect();
                let one = format!("{CHUNKED}0\r\n{trailers}Z: 0\r\n\r\n");
                (b"", one.into_bytes().repeat(20))
            }
            Self::Tunnels => (
                b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                b"x".to_vec(),
            ),
            Self::DrippingHeads => (b"GET / HTTP/1.1\r\nHost: a\r\n", b"A: b\r\n".repeat(50)),
            Self::Parked => (b"", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        }
    }

    /// Does it with one thread, until it is over.
    fn run(self, to: SocketAddr, ready: &AtomicBool, over: &AtomicBool) {
        let (first, again) = self.bytes();
        let at_once = match self {
            Self::Tunnels | Self::DrippingHeads => 1,
            _ => usize::MAX,
        };
        let open = || {
            let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(first).unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, 0)
        };
        let mut clients: Vec<(TcpStream, usize)> = (0..self.clients()).map(|_| open()).collect();
        ready.store(true, Ordering::Release);
        let mut bytes = vec![0; 64 * 1024];
        let mut next_storm = Instant::now();
        while !over.load(Ordering::Acquire) {
            let now = Instant::now();
            let sends = !again.is_empty() && (self != Self::Parked || now >= next_storm);
            if sends {
                next_storm = now + Duration::from_millis(1300);
            }
            for client in &mut clients {
                let (stream, at) = client;
                if sends {
                    let end = at.saturating_add(at_once).min(again.len());
                    // Who has no room now is asked again.
                    *at = (*at + stream.write(&again[*at..end]).unwrap_or(0)) % again.len();
                }
                if self != Self::NoWindow && matches!(stream.read(&mut bytes), Ok(0)) {
                    *client = open();
                }
            }
            std::thread::yield_now();
        }
    }
}

/// Times on a machine that others use as well say nothing by themselves, so they are printed and not
/// judged: what must hold on any machine is judged by `tests/turns.rs` and `tests/rounds.rs`, by the work
/// of others that goes before. `cargo test --release --test crowd -- --ignored --nocapture`.
#[test]
#[ignore = "prints times, which depend on the machine"]
fn how_long_others_wait_beside_each_attack() {
    allow_descriptors(8000);
    for workers in [1, 2] {
        for attack in Attack::ALL {
            let (origin, own) = (LightOrigin::new(), LightOrigin::new());
            let gateway = Setup::new()
                .lists(&["127.0.0.5"], &[&own], &[&origin])
                .set("gateway.workers", workers)
                .start();
            let (ready, over) = (AtomicBool::new(false), AtomicBool::new(false));
            let times = std::thread::scope(|scope| {
                scope.spawn(|| attack.run(gateway.addr(), &ready, &over));
                let _ending = Over(&over);
                wait_until("it has begun", 3 * DEADLINE, || {
                    ready.load(Ordering::Acquire)
                });
                let end = Instant::now() + Duration::from_secs(4);
                let mut times = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    let response = gateway.get("127.0.0.5", "/100");
                    assert_eq!((response.status(), response.content.len()), (200, 100));
                    times.push(start.elapsed());
                    std::thread::sleep(Duration::from_millis(2));
                }
                times.sort_unstable();
                times
            });
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            println!(
                "{workers} worker(s), {attack:?} x{}: {} new clients, p50 {:?}, p99 {:?}, at most {:?}",
                attack.clients(),
                times.len(),
                at(50),
                at(99),
                at(100)
            );
        }
    }
}
