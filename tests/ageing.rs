//! A gateway that has run for long: what it has comes from what is open now, not from what has been.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Client, DEADLINE, Gateway, Origin, Setup, ok, wait_until};

/// Descriptors that the gateway may have: so few that a search which only goes up is soon at the limit.
const LIMIT: u64 = 600;

/// Connections that are open at once, on each side.
const AT_ONCE: usize = 24;

/// The highest number of a socket: what the gateway was started with is none.
fn highest_socket(gateway: &Gateway) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
    let sockets = open.filter_map(|it| {
        let it = it.ok()?;
        let target = std::fs::read_link(it.path()).ok()?;
        let is_socket = target.to_str()?.starts_with("socket:");
        is_socket.then(|| it.file_name().to_str()?.parse().ok())?
    });
    sockets.max().unwrap()
}

/// An origin that ends each connection with its answer.
fn closing_origin() -> Origin {
    Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    })
}

/// A gateway that has at most `limit` descriptors.
fn limited(limit: u64, workers: usize, origin: &Origin) -> Gateway {
    // Even root must not raise the limit again.
    let command = format!(
        "ulimit -n {limit}; [ \"$(id -u)\" -ne 0 ] || \
         exec setpriv --bounding-set=-sys_resource \"$0\" \"$@\"; exec \"$0\" \"$@\""
    );
    let setup = Setup::new().set("gateway.workers", workers);
    let setup = setup.under(&["sh", "-c", &command]);
    setup.lists(&[], &[], &[origin]).start()
}

/// One request on a connection of its own, that both sides close.
fn short_connection(gateway: &Gateway) -> u16 {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    Client::connect(gateway.addr()).ask(request).status()
}

#[test]
fn short_connections_never_run_out_of_descriptor_numbers() {
    const CONNECTIONS: usize = 12_000;
    let origin = closing_origin();
    for workers in [2, 4] {
        let gateway = limited(LIMIT, workers, &origin);
        let left = AtomicUsize::new(CONNECTIONS);
        let take = |count: usize| count.checked_sub(1);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                        .is_ok()
                    {
                        assert_eq!(short_connection(&gateway), 200, "with {workers} workers");
                    }
                });
            }
        });
        assert_eq!(gateway.stderr.count("attach-failed"), 0);
    }
}

#[test]
fn descriptor_numbers_come_down_again_after_a_crowd() {
    let origin = closing_origin();
    let gateway = limited(LIMIT, 2, &origin);
    assert_eq!(short_connection(&gateway), 200);
    let before = highest_socket(&gateway);
    let mut crowd: Vec<Client> = (0..160).map(|_| gateway.connect()).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").text(), "ok");
    }
    let crowded = highest_socket(&gateway);
    // What the connection before them had may have been open still.
    assert!(crowded >= before + 150, "{before}, then {crowded}");
    // One of them stays, with a high number.
    let mut last = crowd.pop().unwrap();
    drop(crowd);
    let active = || {
        let of = |worker| format!("graygate_connections_active{{worker=\"{worker}\"}}");
        gateway.metric(&of(0)) + gateway.metric(&of(1))
    };
    wait_until("the others are gone", DEADLINE, || active() == 1.0);
    for _ in 0..100 {
        assert_eq!(short_connection(&gateway), 200);
    }
    assert_eq!(last.get("/").text(), "ok");
    drop(last);
    wait_until("the last one is gone", DEADLINE, || active() == 0.0);
    let after = highest_socket(&gateway);
    assert!(after <= before + 8, "{before}, now {after}");
}

#[test]
fn at_the_limit_every_worker_uses_what_there_is_and_recovers() {
    let origin = Origin::named("prod");
    for workers in [2, 4] {
        let gateway = limited(1024, workers, &origin);
        let mut clients: Vec<Client> = (0..4 * workers).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "prod");
        }
        let mut waiting = gateway.take_descriptors();
        // Who was served before is served still, on its kept connection.
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "prod");
        }
        drop(clients);
        let mut last = waiting.pop().unwrap();
        assert_eq!(last.get("/").text(), "prod");
        drop(waiting);
        for _ in 0..8 * workers {
            assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
        }
    }
}

#[test]
fn idle_connections_to_peers_and_what_logs_have_to_write_are_shown() {
    let origin = Origin::named("prod");
    let setup = Setup::new().one_worker();
    let setup = setup.set("upstream.keepalive_timeout", "2s");
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let idle = "graygate_upstream_connections_idle{worker=\"0\"}";
    assert_eq!(gateway.shown_metric(idle), Some(0.0));
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "prod");
    gateway.wait_for_metric(idle, 1.0);
    gateway.wait_for_metric(idle, 0.0);
    for log in ["access", "error"] {
        let queued = format!("graygate_log_queued_bytes{{log=\"{log}\"}}");
        assert!(gateway.shown_metric(&queued).is_some());
        gateway.wait_for_metric(&queued, 0.0);
    }
}

#[test]
fn large_heads_leave_no_memory_behind() {
    const CLIENTS: usize = 8;
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            if request.head.target() == "/late" {
                conn.wait_for_release()?;
            }
            conn.send(ok("done"))?;
        }
        Ok(())
    });
    let setup = Setup::new().one_worker();
    let setup = setup
        .set("gateway.max_head", "1m")
        .set("gateway.max_line", "1k");
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "done");
    }
    let before = gateway.rss_kib();
    let large = "x".repeat(1_000_000);
    for client in &mut clients {
        client.send(format!(
            "GET /late HTTP/1.1\r\nHost: a\r\nX-Large: {large}\r\n\r\n"
        ));
    }
    // All of them at once.
    origin.wait("all requests", |it| it.requests.len() == 2 * CLIENTS);
    origin.release();
    for client in &mut clients {
        assert_eq!(client.response().text(), "done");
    }
    let mut grown = 0;
    wait_until("the memory is given back", DEADLINE, || {
        grown = gateway.rss_kib().saturating_sub(before);
        grown < 4 * 1024
    });
}
