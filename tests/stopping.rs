//! A stop takes no longer than what is under way: idle connections and silent tunnels end at once, answers
//! and busy tunnels come to their end, up to `drain_timeout`.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Client, Conn, DEADLINE, Gateway, Origin, Setup, wait_until};

/// Longer than a gateway may take that has nothing to do, on a busy machine, too.
const SOON: Duration = Duration::from_secs(5);

/// Asks for this protocol.
fn upgrade(protocol: &str) -> String {
    format!(
        "GET /{protocol} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    )
}

/// How much there is of a download.
const MUCH: usize = 3_000_000;

/// Switches to whatever is asked for, and echoes there; anything else is a download, whose second half comes
/// once it is released.
fn origin() -> Origin {
    Origin::scripted(|conn| {
        while let Some(head) = conn.head()? {
            let Some(protocol) = head.field("upgrade") else {
                let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
                conn.send(length)?;
                conn.send(vec![b'x'; MUCH / 2])?;
                if head.target() == "/slow" {
                    conn.wait_for_release()?;
                }
                conn.send(vec![b'x'; MUCH - MUCH / 2])?;
                continue;
            };
            conn.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            ))?;
            return echo(conn);
        }
        Ok(())
    })
}

/// Echoes; notes how the other side has ended.
fn echo(conn: &mut Conn) -> std::io::Result<()> {
    loop {
        match conn.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => break conn.note("end"),
            Ok(piece) => conn.send(piece)?,
            Err(error) => break conn.note(error.kind().to_string()),
        }
    }
    Ok(())
}

/// A gateway that waits for ever for what is under way.
fn patient(origin: &Origin) -> Setup {
    Setup::serving(origin)
        .set("gateway.drain_timeout", "1h")
        .set("gateway.keepalive_timeout", "1h")
        .set("gateway.pid_file", "pid")
}

/// A tunnel that has carried something.
#[track_caller]
fn tunnel(gateway: &Gateway, protocol: &str) -> Client {
    let mut client = gateway.connect();
    client.send(upgrade(protocol));
    assert_eq!(client.head().status(), 101);
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    client
}

#[track_caller]
fn wait_noted(origin: &Origin, note: &str, count: usize) {
    origin.wait(note, |it| {
        it.notes.iter().filter(|it| *it == note).count() == count
    });
}

#[test]
fn a_gateway_with_nothing_but_idle_connections_and_silent_tunnels_is_gone_at_once() {
    let origin = origin();
    let mut gateway = patient(&origin).start();
    let mut idle: Vec<Client> = (0..100).map(|_| gateway.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status(), 200);
    }
    let mut sockets: Vec<Client> = (0..3).map(|_| tunnel(&gateway, "websocket")).collect();
    let mut raw = tunnel(&gateway, "raw");
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    for client in &mut idle {
        client.expect_close();
    }
    // A WebSocket has an end of its own, so that nobody takes this one for it.
    for client in &mut sockets {
        assert_eq!(client.wire.some(usize::MAX).unwrap(), b"");
    }
    drop(sockets);
    let end = raw.wire.some(usize::MAX).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    wait_noted(&origin, "end", 3);
    wait_noted(&origin, &ErrorKind::ConnectionReset.to_string(), 1);
    let lines = gateway.access_lines();
    let tunnels = lines
        .iter()
        .filter(|it| it.has("status=101 error=- close=draining"));
    assert_eq!(tunnels.count(), 4);
    assert_eq!(gateway.stderr.count("drain-cut"), 0);
}

#[test]
fn a_websocket_whose_sides_say_nothing_to_a_fin_does_not_keep_it() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")?;
        conn.wait_for_release()
    });
    let mut gateway = patient(&origin).start();
    let mut client = gateway.connect();
    client.send(upgrade("websocket"));
    assert_eq!(client.head().status(), 101);
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    gateway.wait_for_access("status=101 error=- close=draining");
}

#[test]
fn a_stop_ends_with_the_last_download() {
    let origin = origin();
    let mut gateway = patient(&origin).start();
    let mut idle: Vec<Client> = (0..100).map(|_| gateway.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status(), 200);
    }
    let mut socket = tunnel(&gateway, "websocket");
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait("the download", |it| it.heads.len() == 102);
    gateway.signal(Signal::SIGTERM);
    for client in &mut idle {
        client.expect_close();
    }
    assert_eq!(socket.wire.some(usize::MAX).unwrap(), b"");
    drop(socket);
    gateway.wait_for_access("status=101 close=draining");
    assert!(gateway.is_running());
    origin.release();
    assert_eq!(slow.response().content.len(), MUCH);
    let begun = Instant::now();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(gateway.stderr.count("drain-cut"), 0);
}

#[test]
fn a_busy_tunnel_goes_on_up_to_drain_timeout() {
    let origin = origin();
    let limit = Duration::from_secs(3);
    let setup = patient(&origin).set("gateway.drain_timeout", "3s");
    let mut gateway = setup.set("gateway.drain_tunnel_timeout", "500ms").start();
    let mut busy = tunnel(&gateway, "websocket");
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    loop {
        busy.send_if_open("ping");
        if !matches!(busy.wire.some(usize::MAX).as_deref(), Ok([_, ..])) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    assert!(limit <= took && took < limit + SOON, "{took:?}");
    wait_noted(&origin, &ErrorKind::ConnectionReset.to_string(), 1);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.wait_for_log(" WARN drain-cut connections=1");
}

#[test]
fn how_long_a_tunnel_may_be_silent_in_a_stop_is_a_setting_and_an_answer_in_that_time_is_passed_on()
{
    let origin = origin();
    let setup = patient(&origin).set("gateway.drain_tunnel_timeout", "1h");
    let mut gateway = setup.start();
    let mut client = tunnel(&gateway, "websocket");
    gateway.signal(Signal::SIGTERM);
    wait_until("it drains", DEADLINE, || {
        gateway.admin_get("/healthz").0 == 503
    });
    assert_eq!(client.glance(Duration::from_secs(2)), None);
    client.send("later");
    assert_eq!(client.exactly(5), b"later");
    assert!(gateway.is_running());
    drop(client);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.wait_for_access("status=101 close=tunnel-ended");
}

#[test]
fn a_tunnel_of_which_one_side_has_ended_waits_for_the_rest() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")?;
        let input = conn.wire.rest()?;
        conn.note("end");
        conn.wait_for_release()?;
        conn.send(input)
    });
    let setup = patient(&origin).set("gateway.drain_tunnel_timeout", "100ms");
    let mut gateway = setup.start();
    let mut client = gateway.connect();
    client.send(upgrade("raw"));
    assert_eq!(client.head().status(), 101);
    client.send("input");
    client.half_close();
    wait_noted(&origin, "end", 1);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(client.glance(Duration::from_secs(1)), None);
    origin.release();
    assert_eq!(client.rest(), b"input");
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.wait_for_access("status=101 close=tunnel-ended");
}

#[test]
fn a_tunnel_with_bytes_on_their_way_to_a_slow_reader_is_not_silent() {
    const WINDOW: usize = 32 * 1024;
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        conn.send(vec![b'x'; 10 * WINDOW])?;
        conn.note("sent");
        conn.wait_for_release()
    });
    let setup = patient(&origin).set("gateway.drain_tunnel_timeout", "100ms");
    let mut gateway = setup.start();
    let mut client = Client::with_small_window("127.0.0.1", gateway.addr(), WINDOW);
    client.send(upgrade("websocket"));
    assert_eq!(client.head().status(), 101);
    wait_noted(&origin, "sent", 1);
    gateway.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_secs(1));
    assert!(gateway.is_running());
    assert_eq!(client.exactly(10 * WINDOW).len(), 10 * WINDOW);
    assert_eq!(client.wire.some(usize::MAX).unwrap(), b"");
    drop(client);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
