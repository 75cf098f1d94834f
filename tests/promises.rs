//! What the gateway is for, each promise once, with real Redis servers and real sockets. The finer
//! points have files of their own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Gateway, Origin, Pattern, Redis, Setup, wait_until};

/// A change in Redis must be in force so soon; far above what it takes, far below any check.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Four origins, a Redis that lists them, and a gateway that learns of changes by events alone.
struct Site {
    redis: Redis,
    gateway: Gateway,
    _origins: [Origin; 4],
}

fn site() -> Site {
    let origins = ["pre", "pre", "prod", "prod"].map(Origin::named);
    let redis = Redis::start();
    redis.push("pre", &[&origins[0], &origins[1]]);
    redis.push("prod", &[&origins[2], &origins[3]]);
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.check_interval", "1h")
        .set("gateway.trusted_proxies", "127.0.0.99")
        .start();
    Site {
        redis,
        gateway,
        _origins: origins,
    }
}

#[test]
fn a_push_to_redis_moves_exactly_that_client_and_its_removal_moves_it_back() {
    let Site { redis, gateway, .. } = &site();
    gateway.wait_served("127.0.0.5", "prod", AT_ONCE);
    redis.cli(&["LPUSH", "gray", "127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", AT_ONCE);
    for other in ["127.0.0.1", "127.0.0.50", "127.0.0.4"] {
        assert_eq!(gateway.get(other, "/").text(), "prod", "{other}");
    }
    redis.cli(&["LREM", "gray", "0", "127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "prod", AT_ONCE);
}

#[test]
fn an_address_on_the_list_does_not_admit_one_that_begins_with_it() {
    let Site { redis, gateway, .. } = &site();
    redis.cli(&["LPUSH", "gray", "192.168.1.1"]);
    let pool_of = |client: &str| {
        let mut proxy = gateway.connect_from("127.0.0.99");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
        proxy.ask(request).text()
    };
    wait_until("192.168.1.1 is gray", AT_ONCE, || {
        pool_of("192.168.1.1") == "pre"
    });
    for other in ["192.168.1.10", "192.168.1.11", "192x168.1.1", "2.168.1.1"] {
        assert_eq!(pool_of(other), "prod", "{other}");
    }
}

#[test]
fn killing_redis_costs_no_request_and_bringing_it_back_applies_its_lists() {
    let Site {
        mut redis,
        gateway,
        _origins,
    } = site();
    let gateway = Arc::new(gateway);
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let gateway = Arc::clone(&gateway);
            std::thread::spawn(move || {
                let mut client = gateway.connect_from("127.0.0.5");
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get("/");
                    assert_eq!(response.status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more_are_served = || {
        let before = served.load(Ordering::Relaxed);
        wait_until("requests go on", DEADLINE, || {
            served.load(Ordering::Relaxed) > before + 500
        });
    };
    more_are_served();
    redis.kill();
    gateway.wait_for_metric("graygate_lists_readable", 0.0);
    more_are_served();
    redis.restart();
    redis.push("prod", &[&_origins[2]]);
    redis.push("pre", &[&_origins[0]]);
    redis.cli(&["LPUSH", "gray", "127.0.0.5"]);
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    more_are_served();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let lists = gateway.lists();
    assert_eq!(lists["prod"].as_array().unwrap().len(), 1, "{lists}");
}

fn gateway_for(origin: &Origin) -> Gateway {
    Setup::new().lists(&[], &[], &[origin]).start()
}

#[test]
fn a_browsers_thirty_fields_arrive_in_order_and_byte_for_byte() {
    let origin = Origin::named("prod");
    let gateway = gateway_for(&origin);
    let fields: Vec<String> = (0..29)
        .map(|at| {
            format!(
                "X-Field-{at}: value; of=\"{at}\", \u{e4}\t{}",
                "v".repeat(at + 1)
            )
        })
        .collect();
    let head = format!(
        "GET /a%2e?b=%00 HTTP/1.1\r\nHost: test\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    assert_eq!(gateway.connect().ask(head).status(), 200);
    let received = origin.last().text();
    assert!(
        received.starts_with("GET /a%2e?b=%00 HTTP/1.1\r\nHost: test\r\n"),
        "{received}"
    );
    assert!(received.contains(&fields.join("\r\n")), "{received}");
}

#[test]
fn a_chunked_upload_arrives_whole() {
    let origin = Origin::named("prod");
    let gateway = gateway_for(&origin);
    let content = Pattern::new(1).bytes(100_000);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut rest = &content[..];
    for size in (1..).map(|at| at * 37) {
        let (chunk, behind) = rest.split_at(rest.len().min(size));
        client.send(format!("{:X}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
        rest = behind;
        if chunk.is_empty() {
            break;
        }
    }
    assert_eq!(client.response().status(), 200);
    assert!(origin.last().content == content);
}

#[test]
fn head_and_304_have_no_body_and_pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| match request.head.target().as_str() {
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n".to_vec(),
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        target => support::ok(target),
    });
    let gateway = gateway_for(&origin);
    let mut client = gateway.connect();
    let request =
        |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(
        request("HEAD", "/head")
            + &request("GET", "/304")
            + &request("GET", "/1")
            + &request("GET", "/2"),
    );
    let head = client.response_to("HEAD");
    assert_eq!(head.field("content-length").as_deref(), Some("5"));
    assert_eq!(client.response().status(), 304);
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
}

#[test]
fn a_websocket_echoes_through_the_gateway() {
    let origin = Origin::scripted(|conn| {
        let stream = conn.wire.stream.try_clone()?;
        let mut socket = tungstenite::accept(stream).map_err(std::io::Error::other)?;
        while let Ok(message) = socket.read() {
            if message.is_close() || socket.send(message).is_err() {
                break;
            }
        }
        Ok(())
    });
    let gateway = gateway_for(&origin);
    let stream = std::net::TcpStream::connect(gateway.addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://test/echo", stream).unwrap();
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.send(tungstenite::Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), text);
    }
}

const GIB: u64 = 1 << 30;

/// Runs `transfer` while the resident size of the gateway is watched.
fn size_stays_flat(gateway: &Gateway, transfer: impl FnOnce() + Send) {
    let before = gateway.rss_kib();
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        scope.spawn(|| {
            transfer();
            done.store(true, Ordering::Release);
        });
        let mut most = before;
        let start = Instant::now();
        while !done.load(Ordering::Acquire) && start.elapsed() < 20 * DEADLINE {
            most = most.max(gateway.rss_kib());
            std::thread::yield_now();
        }
        most
    });
    assert!(most < before + 8 * 1024, "from {before} to {most} KiB");
}

#[test]
fn a_gibibyte_passes_in_both_directions_in_a_few_buffers() {
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            if head.method() == "POST" {
                let mut pattern = Pattern::new(2);
                conn.stream_body(&head, &mut |piece| pattern.check(piece))?;
                conn.send(support::ok(pattern.length().to_string()))?;
            } else {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n"))?;
                let mut pattern = Pattern::new(3);
                while pattern.length() < GIB {
                    let left = GIB - pattern.length();
                    conn.send(pattern.next(left))?;
                }
            }
        }
        Ok(())
    });
    let gateway = gateway_for(&origin);
    let client: &mut Client = &mut gateway.connect();
    assert_eq!(
        client
            .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            .text(),
        "0"
    );
    size_stays_flat(&gateway, || {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head();
        let mut pattern = Pattern::new(3);
        let framing = head.response_framing("GET");
        let check = &mut |piece: &[u8]| pattern.check(piece);
        client.wire.stream_body(framing, check).unwrap();
        assert_eq!(pattern.length(), GIB);
    });
    let client: &mut Client = &mut gateway.connect();
    size_stays_flat(&gateway, || {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n"
        ));
        let mut pattern = Pattern::new(2);
        while pattern.length() < GIB {
            let left = GIB - pattern.length();
            client.send(pattern.next(left));
        }
        assert_eq!(client.response().text(), GIB.to_string());
    });
}
