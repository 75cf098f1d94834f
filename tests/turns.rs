//! Turns: whoever makes much work of few bytes has others served in between as often as whoever moves
//! many bytes.
//!
//! Counted is how often a turn was over, which no other load on the machine changes.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, LightOrigin, Setup, unread_at, wait_until};

fn start(origin: &LightOrigin) -> Gateway {
    Setup::serving(origin)
        .one_worker()
        .set("gateway.head_timeout", "2m")
        .set("upstream.read_timeout", "10s")
        .start()
}

/// Does `work` with a connection of its own; the turns that were over because of it.
fn turns(gateway: &Gateway, work: impl FnOnce(&mut Client)) -> u64 {
    let over = || gateway.metric("graygate_turns_total{worker=\"0\"}") as u64;
    let requests = || gateway.metric("graygate_worker_requests_total{worker=\"0\"}") as u64;
    let (before, served) = (over(), requests());
    let mut client = gateway.connect();
    work(&mut client);
    drop(client);
    wait_until("it is served", DEADLINE, || requests() > served);
    over() - before
}

#[test]
fn a_body_in_tiny_chunks_takes_turns_by_its_chunks_in_both_directions() {
    const CHUNKS: usize = 50_000;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let head = "POST /end HTTP/1.1\r\nHost: a\r\n";
    let chunk = b"1\r\nx\r\n".to_vec();

    let plain = turns(&gateway, |client| {
        let length = CHUNKS * chunk.len();
        client.send(format!("{head}Content-Length: {length}\r\n\r\n"));
        client.send(chunk.repeat(CHUNKS));
        assert_eq!(client.response().status(), 200);
    });
    let chunks = turns(&gateway, |client| {
        client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
        client.send(chunk.repeat(CHUNKS));
        client.send("0\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    });
    let down = turns(&gateway, |client| {
        let response = client.get(&format!("/chunks/{CHUNKS}"));
        assert_eq!(response.content.len(), CHUNKS);
    });
    assert!(plain < 40, "{plain} turns for the same bytes");
    for turns in [chunks, down] {
        assert!(
            turns as usize > CHUNKS / 300,
            "{turns}, {plain} without chunks"
        );
    }
}

#[test]
fn a_tunnel_takes_turns_by_its_messages() {
    const MESSAGES: usize = 400;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let turns = turns(&gateway, |client| {
        client.send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(client.head().status(), 101);
        for _ in 0..MESSAGES {
            client.send("x");
            assert_eq!(client.exactly(1), b"x");
        }
    });
    // Both directions have theirs.
    assert!(turns as usize > 2 * MESSAGES / 6, "{turns}");
}

#[test]
fn tunnels_that_are_woken_at_once_take_turns() {
    const TUNNELS: usize = 200;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let over = || gateway.metric("graygate_turns_total{worker=\"0\"}") as usize;
    let open = |_| {
        let mut client = gateway.connect();
        client.send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(client.head().status(), 101);
        client
    };
    let mut tunnels: Vec<Client> = (0..TUNNELS).map(open).collect();
    let before = over();
    gateway.signal(Signal::SIGSTOP);
    tunnels.iter_mut().for_each(|it| it.send("x"));
    gateway.signal(Signal::SIGCONT);
    for tunnel in &mut tunnels {
        assert_eq!(tunnel.exactly(1), b"x");
    }
    // The first 32 of them go on at once.
    let turns = over() - before;
    assert!(turns >= TUNNELS - 2 * 32, "{turns}");
}

#[test]
fn a_head_that_drips_takes_turns_by_its_pieces() {
    const PIECES: usize = 50;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let turns = turns(&gateway, |client| {
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\nA: ");
        for _ in 0..PIECES {
            client.send("x");
            // So that each is read by itself.
            let port = gateway.addr().port();
            wait_until("it is read", DEADLINE, || unread_at(port) == 0);
        }
        client.send("\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    });
    assert!(turns as usize >= PIECES / 6, "{turns}");
}

#[test]
fn answers_of_the_gateways_own_take_turns() {
    const REQUESTS: usize = 320;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let turns = turns(&gateway, |client| {
        client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n".repeat(REQUESTS));
        for _ in 0..REQUESTS {
            assert_eq!(client.response().status(), 200);
        }
    });
    assert!(turns as usize >= REQUESTS / 20, "{turns}");
}

/// As `endless_downloads_and_uploads_do_not_starve_small_requests` of `tests/workers.rs`.
#[test]
fn uploads_in_tiny_chunks_let_small_requests_pass() {
    const UPLOADS: usize = 50;
    const REQUESTS: u64 = 100;
    let origin = LightOrigin::new();
    let gateway = start(&origin);
    let (moved, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut uploads: Vec<Client> = (0..UPLOADS).map(|_| begin_upload(&gateway)).collect();
            let chunks = b"1\r\nx\r\n".repeat(20_000);
            let mut offsets = [0; UPLOADS];
            while !over.load(Ordering::Acquire) {
                for (upload, offset) in uploads.iter_mut().zip(&mut offsets) {
                    // Who has no room now is asked again.
                    let count = upload.wire.stream.write(&chunks[*offset..]).unwrap_or(0);
                    *offset = (*offset + count) % chunks.len();
                    moved.fetch_add(count as u64, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        let so_far = || moved.load(Ordering::Relaxed);
        wait_until("the uploads flow", DEADLINE, || so_far() > 16 << 20);
        let mut client = Client::connect(gateway.addr());
        let before = so_far();
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/1").status(), 200);
        }
        let for_each = (so_far() - before) / REQUESTS;
        over.store(true, Ordering::Release);
        assert!(
            for_each < 4 << 20,
            "{for_each} bytes of tiny chunks for each request"
        );
    });
}

fn begin_upload(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send("POST /end HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.wire.stream.set_nonblocking(true).unwrap();
    client
}
