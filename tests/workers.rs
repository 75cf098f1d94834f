//! Workers: they share the work, nobody starves, and a shortage passes.

mod support;

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Gateway, Origin, Setup, ok, wait_until};

#[test]
fn as_many_threads_serve_as_configured_and_all_of_them_work() {
    for workers in [1, 2, 3] {
        let origin = Origin::named("prod");
        let gateway = Setup::serving(&origin)
            .set("gateway.workers", workers)
            .start();
        let names: Vec<String> = gateway.cpu_ticks_by_worker().into_keys().collect();
        let expected: Vec<String> = (0..workers).map(|at| format!("worker-{at}")).collect();
        assert_eq!(names, expected);

        let mut clients: Vec<Client> = (0..4 * workers).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            client.get("/");
        }
        for worker in 0..workers {
            let active = format!("graygate_connections_active{{worker=\"{worker}\"}}");
            gateway.wait_for_metric(&active, 4.0);
        }
        // As many rounds as it takes until each has used CPU time of its own.
        wait_until("every worker works", DEADLINE, || {
            for client in &mut clients {
                for _ in 0..50 {
                    client.get("/");
                }
            }
            gateway
                .cpu_ticks_by_worker()
                .values()
                .all(|ticks| *ticks > 0)
        });
        let requests = |worker: usize| {
            gateway.metric(&format!(
                "graygate_worker_requests_total{{worker=\"{worker}\"}}"
            ))
        };
        let counts: Vec<f64> = (0..workers).map(requests).collect();
        assert!(counts.iter().all(|it| *it == counts[0]), "{counts:?}");
    }
}

#[test]
fn endless_downloads_and_uploads_do_not_starve_small_requests() {
    const REQUESTS: u64 = 200;
    let origin = Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            match head.method().as_str() {
                "GET" if head.target() == "/endless" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")?;
                    loop {
                        conn.send([b'd'; 256 * 1024])?;
                    }
                }
                "POST" => conn.stream_body(&head, &mut |_| {})?,
                _ => conn.send(ok("small"))?,
            }
        }
        Ok(())
    });
    let gateway = Gateway::by_one_worker(&origin);
    let (moved, done) = (&AtomicU64::new(0), &AtomicBool::new(false));
    let moved_so_far = || moved.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut client = gateway.connect();
            scope.spawn(move || {
                client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
                let mut bytes = vec![0; 256 * 1024];
                while !done.load(Ordering::Relaxed) {
                    let count = client.wire.stream.read(&mut bytes).unwrap();
                    assert!(count > 0, "the download has ended");
                    moved.fetch_add(count as u64, Ordering::Relaxed);
                }
            });
        }
        let mut client = gateway.connect();
        scope.spawn(move || {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n");
            while !done.load(Ordering::Relaxed) {
                client.send([b'u'; 64 * 1024]);
                moved.fetch_add(64 * 1024, Ordering::Relaxed);
            }
        });
        wait_until("the transfers flow", DEADLINE, || moved_so_far() > 64 << 20);
        let before = moved_so_far();
        let mut client = gateway.connect();
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/small").text(), "small");
        }
        let moved_meanwhile = moved_so_far() - before;
        done.store(true, Ordering::Relaxed);
        // Not the time counts, which depends on the machine, but how much went before: a few fair
        // shares of each transfer. Where nobody hands back it is as much as fits between two stalls.
        let for_each = moved_meanwhile / REQUESTS;
        assert!(moved_meanwhile > 0, "the transfers have stalled");
        assert!(
            for_each < 16 << 20,
            "{for_each} bytes for each small request"
        );
    });
}

#[test]
fn connections_are_limited_to_those_for_which_there_are_descriptors() {
    let origin = Origin::named("prod");
    // Even root must not raise the limit again.
    let limited = "ulimit -n 152; [ \"$(id -u)\" -ne 0 ] || \
                   exec setpriv --bounding-set=-sys_resource \"$0\" \"$@\"; exec \"$0\" \"$@\"";
    let setup = Setup::new().one_worker();
    let setup = setup.under(&["sh", "-c", limited]);
    let gateway = setup.lists(&[], &[], &[&origin]).start();
    let warning = gateway.wait_for_log("descriptors-short");
    assert!(
        warning.contains(" allowed=152 max_connections=8 "),
        "{warning}"
    );
    let mut clients: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "prod");
    }
    assert_eq!(gateway.connect().response().status(), 503);
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "prod");
    }
}

#[test]
fn out_of_descriptors_accepting_waits_without_spinning_and_goes_on_when_there_are_some() {
    let origin = Origin::named("prod");
    let gateway = Gateway::serving(&origin);
    let mut served = gateway.connect();
    assert_eq!(served.get("/").text(), "prod");
    let mut waiting = gateway.take_descriptors();
    let (before, start) = (gateway.cpu_ticks(), Instant::now());
    wait_until("half a second has passed", DEADLINE, || {
        start.elapsed() > Duration::from_millis(500)
    });
    // Who was served before is served still, on its kept connection.
    assert_eq!(served.get("/").text(), "prod");
    let spent = gateway.cpu_ticks() - before;
    assert!(spent < 15, "{spent} ticks in half a second of waiting");
    gateway.limit_descriptors(1024);
    assert_eq!(waiting.pop().unwrap().get("/").text(), "prod");
}

#[test]
fn out_of_descriptors_idle_connections_give_way_to_new_ones() {
    let (pre, prod) = (Origin::named("pre"), Origin::named("prod"));
    let setup = Setup::new().one_worker();
    let gateway = setup.lists(&["127.0.0.9"], &[&pre], &[&prod]).start();
    let (mut client, mut listed) = (gateway.connect(), gateway.connect_from("127.0.0.9"));
    assert_eq!(listed.get("/").text(), "pre");
    let _waiting = gateway.take_descriptors();
    assert_eq!(client.get("/").text(), "prod");
    pre.wait_closed(1);
}

#[test]
fn out_of_descriptors_the_pipes_of_giant_answers_that_have_ended_give_way() {
    const GIANTS: usize = 4;
    // More than the kernel takes for a client that does not read.
    const SIZE: usize = 32 << 20;
    let giant = vec![b'g'; SIZE];
    // Each connection ends with its answer, so that none is kept that could give way.
    let origin = Origin::scripted(move |conn| {
        let Some(request) = conn.request()? else {
            return Ok(());
        };
        if request.head.target() != "/giant" {
            return conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine");
        }
        let length = giant.len();
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        ))?;
        conn.send(&giant)
    });
    let gateway = Gateway::by_one_worker(&origin);
    let pipes = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
        let targets = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok());
        targets
            .filter(|it| it.to_string_lossy().starts_with("pipe:"))
            .count()
    };
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "fine");
    let before = pipes();
    let mut giants: Vec<Client> = (0..GIANTS).map(|_| gateway.connect()).collect();
    for giant in &mut giants {
        giant.send("GET /giant HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("each has its pipe", DEADLINE, || {
        pipes() == before + 2 * GIANTS
    });
    for giant in &mut giants {
        assert_eq!(giant.response().content.len(), SIZE);
    }
    origin.wait_closed(1 + GIANTS);
    let _waiting = gateway.take_descriptors();
    // Without them there would be no descriptor for a connection to the peer. On a busy machine a look of
    // the worker may have closed some before, for those that wait.
    let are_all_there = pipes() == before + 2 * GIANTS;
    let text = client.get("/").text();
    assert!(text == "fine" || !are_all_there, "{text}");
    wait_until("none is left", DEADLINE, || pipes() == before);
}

#[test]
fn out_of_descriptors_an_upgrade_waits_and_is_then_refused_before_the_client_is_told() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    const SWITCHED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let origin = Origin::scripted(|conn| {
        while let Some(request) = conn.request()? {
            match request.field("upgrade") {
                None => conn.send(ok("fine"))?,
                Some(_) => conn.send(SWITCHED)?,
            }
        }
        Ok(())
    });
    let setup = Setup::serving(&origin).one_worker();
    let gateway = setup.set("upstream.connect_timeout", "2s").start();
    let (mut client, mut other) = (gateway.connect(), gateway.connect());
    assert_eq!(client.get("/").text(), "fine");
    let limit = gateway.descriptor_limit();
    let _waiting = gateway.take_descriptors();
    client.send(UPGRADE);
    assert_eq!(client.glance(Duration::from_millis(300)), None);
    gateway.limit_descriptors(limit);
    assert_eq!(client.head().status(), 101);
    assert_eq!(other.get("/").text(), "fine");
    gateway.leave_descriptors(0);
    other.send(UPGRADE);
    assert_eq!(
        other.response().text(),
        "503 Service Unavailable: out-of-descriptors\n"
    );
    gateway.wait_for_log("out-of-descriptors");
    origin.wait_closed(1);
}

/// An origin whose answers begin before the bodies of their requests have come.
fn answering_early() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
            conn.stream_body(&head, &mut |_| {})?;
            conn.send("fine")?;
        }
        Ok(())
    })
}

/// The rest of its body needs handles of its own.
#[test]
fn out_of_descriptors_an_upload_that_is_answered_early_waits_for_some() {
    let origin = answering_early();
    let setup = Setup::serving(&origin).one_worker();
    let gateway = setup.set("upstream.connect_timeout", "2s").start();
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "fine");
    let limit = gateway.descriptor_limit();
    let _waiting = gateway.take_descriptors();
    const BEGIN: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbegin";
    client.send(BEGIN);
    assert_eq!(client.glance(Duration::from_millis(300)), None);
    client.send("-end");
    gateway.limit_descriptors(limit);
    assert_eq!(client.response().text(), "fine");
    gateway.leave_descriptors(0);
    client.send(BEGIN);
    assert_eq!(
        client.response().text(),
        "503 Service Unavailable: out-of-descriptors\n"
    );
    gateway.wait_for_access("status=503 error=out-of-descriptors");
}

/// Nobody waits for descriptors on behalf of who has gone.
#[test]
fn out_of_descriptors_who_leaves_is_waited_for_no_longer() {
    let origin = answering_early();
    let setup = Setup::serving(&origin).one_worker();
    let gateway = setup.set("upstream.connect_timeout", "1h").start();
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "fine");
    let _waiting = gateway.take_descriptors();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbegin");
    assert_eq!(client.glance(Duration::from_millis(100)), None);
    client.reset();
    gateway.wait_for_access("attempts=1 status=000 method=POST error=- close=client-gone");
    assert_eq!(gateway.stderr.count(" out-of-descriptors "), 0);
}

#[test]
fn out_of_descriptors_a_request_waits_for_one_as_long_as_connecting_may_take() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        // So that each request needs a new connection.
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine")
    });
    let setup = Setup::serving(&origin).one_worker();
    let gateway = setup.set("upstream.connect_timeout", "2s").start();
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "fine");
    let limit = gateway.descriptor_limit();
    let _waiting = gateway.take_descriptors();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.glance(Duration::from_millis(300)), None);
    gateway.limit_descriptors(limit);
    assert_eq!(client.response().text(), "fine");
    gateway.leave_descriptors(0);
    let response = client.get("/");
    assert_eq!(
        response.text(),
        "503 Service Unavailable: out-of-descriptors\n"
    );
}
