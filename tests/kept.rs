//! Kept connections to servers: how many there are, and whom they serve near the end of their life.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Gateway, Origin, Setup, ok, wait_until};

const CONNECTS: &str = "graygate_upstream_connections_total{kind=\"new\"}";

const IDLE: &str = "graygate_upstream_connections_idle{worker=\"0\"}";

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// A gateway with one worker, whose other settings are as shipped.
fn setup_for(origin: &Origin) -> Setup {
    Setup::serving(origin).set("gateway.workers", 1)
}

/// Waits until so much time has passed.
fn pass(seconds: f64) {
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    wait_until("time passes", 2 * limit + DEADLINE, || {
        begun.elapsed() >= limit
    });
}

#[test]
fn a_request_that_cannot_be_sent_twice_does_not_go_where_its_server_may_be_about_to_close() {
    const KEPT_FOR: f64 = 2.0;
    // It closes within a second of its time: if a request comes meanwhile, at that very moment.
    let origin = Origin::scripted(|conn| {
        let (kept_for, longest) = (Duration::from_secs(2), Duration::from_secs(3));
        let mut answered: Option<Instant> = None;
        conn.wire.stream.set_read_timeout(Some(longest))?;
        while conn.request()?.is_some() {
            if answered.is_some_and(|it| it.elapsed() >= kept_for) {
                return Ok(());
            }
            conn.send(ok("done"))?;
            answered = Some(Instant::now());
        }
        Ok(())
    });
    let gateway = setup_for(&origin).start();
    let ask = |head: &str, body: &str| {
        let mut client = gateway.connect();
        client.send(head);
        if !body.is_empty() {
            // Its head has come without it.
            client.send(&body[..1]);
            client.send(&body[1..]);
        }
        client.response().status()
    };
    for (head, body) in [
        (POST, ""),
        (
            "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "later",
        ),
    ] {
        assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""), 200);
        pass(KEPT_FOR + 0.1);
        assert_eq!(ask(head, body), 200, "{head}");
    }
    // What can be sent twice takes the chance, and is.
    pass(KEPT_FOR + 0.1);
    let stale = "graygate_attempts_total{pool=\"prod\",outcome=\"stale\"}";
    let before = gateway.metric(stale);
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""), 200);
    gateway.wait_for_metric(stale, before + 1.0);
}

/// Says which of its connections it is, and closes each that has been idle for so many milliseconds.
fn closing_after(millis: &Arc<AtomicU64>) -> Origin {
    let millis = Arc::clone(millis);
    Origin::scripted(move |conn| {
        let number = conn.number.to_string();
        let look = Some(Duration::from_millis(10));
        conn.wire.stream.set_read_timeout(look)?;
        let mut since = Instant::now();
        loop {
            let limit = Duration::from_millis(millis.load(Ordering::Relaxed));
            match conn.wire.stream.peek(&mut [0]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) if since.elapsed() >= limit => return Ok(()),
                Err(_) => continue,
            }
            conn.request()?;
            conn.send(ok(&number))?;
            since = Instant::now();
        }
    })
}

#[test]
fn how_long_a_server_keeps_a_connection_is_learnt_from_what_it_keeps_and_what_it_closes() {
    const HOUR: u64 = 3_600_000;
    let kept_for = Arc::new(AtomicU64::new(HOUR));
    let origin = closing_after(&kept_for);
    let gateway = setup_for(&origin).start();
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "0");
    // Nobody knows yet whether it keeps one for so long.
    pass(1.2);
    assert_eq!(client.ask(POST).text(), "1");
    pass(8.0);
    assert_eq!(client.get("/").text(), "1");
    pass(1.5);
    assert_eq!(client.ask(POST).text(), "1");
    kept_for.store(2000, Ordering::Relaxed);
    origin.wait_known_closed(2);
    kept_for.store(HOUR, Ordering::Relaxed);
    assert_eq!(client.get("/").text(), "2");
    pass(0.7);
    assert_eq!(client.ask(POST).text(), "3");
    // Who has just answered goes on.
    wait_until("a connection is used again", DEADLINE, || {
        client.ask(POST).text() == client.ask(POST).text()
    });
}

/// Says which of its connections it is, and `Keep-Alive: ` with what it was asked for.
fn announcing() -> Origin {
    Origin::answering(|request| {
        let said = request.head.target().trim_start_matches('/').to_owned();
        let number = request.connection.to_string();
        let length = number.len();
        let head = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {said}\r\nContent-Length: {length}");
        format!("{head}\r\n\r\n{number}").into()
    })
}

#[test]
fn a_connection_is_not_used_beyond_what_its_server_has_announced_less_a_second() {
    for (said, pause, is_reused) in [
        ("timeout=0", 0.0, false),
        ("timeout=1", 0.0, false),
        ("max=7;timeout=\"1\"", 0.0, false),
        ("timeout=3,max=7", 2.1, false),
        ("timeout=60", 2.1, true),
        ("max=7", 2.1, true),
        ("timeout=soon", 2.1, true),
    ] {
        let origin = announcing();
        let gateway = setup_for(&origin).start();
        let mut client = gateway.connect();
        let target = format!("/{said}");
        assert_eq!(client.get(&target).text(), "0");
        pass(pause);
        let expected = if is_reused { "0" } else { "1" };
        assert_eq!(client.get(&target).text(), expected, "{said}");
    }
}

#[test]
fn a_server_that_has_announced_its_time_is_believed_for_requests_that_cannot_be_sent_twice() {
    let origin = announcing();
    let gateway = setup_for(&origin).start();
    let mut client = gateway.connect();
    let post = POST.replace("/ ", "/timeout=60 ");
    assert_eq!(client.ask(&post).text(), "0");
    pass(1.5);
    assert_eq!(client.ask(&post).text(), "0");
}

/// An origin that answers when so many requests are there at once.
fn crowded(count: usize) -> Origin {
    let barrier = Barrier::new(count);
    Origin::scripted(move |conn| {
        while conn.request()?.is_some() {
            barrier.wait();
            conn.send(ok("done"))?;
        }
        Ok(())
    })
}

/// A request of each client, all at once.
fn ask_all(clients: &mut [Client]) {
    for client in &mut *clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in clients {
        assert_eq!(client.response().status(), 200);
    }
}

fn crowd(gateway: &Gateway, from: &str, count: usize) -> Vec<Client> {
    (0..count).map(|_| gateway.connect_from(from)).collect()
}

#[test]
fn as_many_are_kept_as_were_in_use_at_once_and_the_surplus_goes_by_and_by() {
    const COUNT: usize = 512;
    let origin = crowded(COUNT);
    let setup = setup_for(&origin).set("upstream.keepalive_timeout", "16s");
    let gateway = setup.start();
    let mut clients = crowd(&gateway, "127.0.0.1", COUNT);
    for _ in 0..4 {
        ask_all(&mut clients);
        assert_eq!(gateway.metric(CONNECTS), COUNT as f64);
    }
    gateway.wait_for_metric(IDLE, COUNT as f64);
    let mut seen = Vec::new();
    wait_until("nothing is kept any more", 3 * DEADLINE, || {
        let idle = gateway.metric(IDLE);
        if seen.last() != Some(&idle) {
            seen.push(idle);
        }
        idle == 0.0
    });
    // A quarter of it at a look.
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen[1] >= 0.7 * COUNT as f64, "{seen:?}");
}

#[test]
fn a_number_bounds_what_is_kept() {
    let origin = crowded(32);
    let gateway = setup_for(&origin).set("upstream.keepalive", 8).start();
    let mut clients = crowd(&gateway, "127.0.0.1", 32);
    for round in 1..=3 {
        ask_all(&mut clients);
        // One that an answer had is there again a moment later.
        let least = 32 + (round - 1) * 20;
        assert!(gateway.metric(CONNECTS) >= f64::from(least), "{round}");
    }
    gateway.wait_for_metric(IDLE, 8.0);
}

#[test]
fn all_of_a_worker_are_no_more_than_its_share_and_the_server_with_the_most_gives_way() {
    let (pre, prod) = (crowded(30), crowded(30));
    let setup = Setup::new().set("gateway.workers", 1);
    let setup = setup.set("gateway.max_connections", 40);
    let gateway = setup.lists(&["127.0.0.2"], &[&pre], &[&prod]).start();
    let open = |origin: &Origin| origin.seen(|it| it.accepted - it.closed);
    for (from, busy, other) in [
        ("127.0.0.1", &prod, &pre),
        ("127.0.0.2", &pre, &prod),
        ("127.0.0.1", &prod, &pre),
    ] {
        let mut clients = crowd(&gateway, from, 30);
        ask_all(&mut clients);
        drop(clients);
        wait_until("the surplus is closed", DEADLINE, || {
            open(busy) + open(other) <= 40
        });
        // Nobody has to give up all.
        assert_eq!(open(busy), 30);
        let rest = open(other);
        assert!(
            rest == 0 && other.accepted() == 0 || (5..=10).contains(&rest),
            "{rest}"
        );
        wait_until("the clients are gone", DEADLINE, || {
            gateway.metric("graygate_connections_active{worker=\"0\"}") == 0.0
        });
    }
}

#[test]
fn however_a_request_ends_its_connection_counts_no_longer() {
    const SHARE: usize = 4;
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            match request.head.target().as_str() {
                "/cut" => return conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
                "/early" => return Ok(()),
                "/late" => conn.wait_gone()?,
                "/switch" => {
                    conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")?;
                    conn.send("Upgrade: websocket\r\n\r\n")?;
                    conn.wait_gone()?;
                }
                "/ntlm" => conn.send(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
                )?,
                _ => conn.send(ok("done"))?,
            }
        }
        Ok(())
    });
    let setup = setup_for(&origin).set("gateway.max_connections", SHARE);
    let gateway = setup.start();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for (target, fields, is_answered) in [
        ("cut", "", true),
        ("early", "", true),
        ("late", "", false),
        ("switch", upgrade, true),
        ("ntlm", "", true),
    ] {
        for _ in 0..3 * SHARE {
            let mut client = gateway.connect();
            client.send(format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            match is_answered {
                true => {
                    client.head();
                    drop(client);
                }
                false => {
                    origin.wait("it is there", |it| it.accepted > it.closed);
                    client.reset();
                }
            }
            origin.wait("its connection is over", |it| it.accepted == it.closed);
        }
    }
    let mut client = gateway.connect();
    client.get("/");
    let before = gateway.metric(CONNECTS);
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(gateway.metric(CONNECTS), before);
}
