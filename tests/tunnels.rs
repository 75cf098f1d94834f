//! How tunnels end: whatever the cause, both sides are free at once, and nobody can take what was cut
//! for all that there was.

mod support;

use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Client, Conn, DEADLINE, Gateway, Origin, Setup};

const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

/// Longer than the other side of a half-closed tunnel was once left alone.
const LONG: Duration = Duration::from_secs(3);

/// Much shorter than any limit.
const AT_ONCE: Duration = Duration::from_secs(8);

/// An origin that switches, and then does what `script` says.
fn switching(script: impl Fn(&mut Conn) -> std::io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::scripted(move |conn| {
        conn.head()?;
        conn.send(SWITCHING)?;
        script(conn)
    })
}

/// A tunnel through a gateway with this limit.
fn tunnel(origin: &Origin, limit: &str) -> (Gateway, Client) {
    let setup = Setup::new().set("gateway.tunnel_timeout", limit);
    // None of these is for tunnels.
    let setup = setup.set("gateway.send_timeout", "200ms");
    let setup = setup.set("upstream.send_timeout", "200ms");
    let setup = setup.set("gateway.drain_timeout", "200ms");
    let gateway = setup.lists(&[], &[], &[origin]).start();
    let mut client = gateway.connect();
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    (gateway, client)
}

/// Notes how the other side has ended the connection, and what came before.
fn note_end(conn: &mut Conn) {
    note_slow_end(conn, Duration::ZERO);
}

/// As [`note_end`], of a side that pauses for so long after each piece.
fn note_slow_end(conn: &mut Conn, pause: Duration) {
    let mut count = 0;
    let end = loop {
        match conn.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => break "end".to_owned(),
            Ok(piece) => count += piece.len(),
            Err(error) => break error.kind().to_string(),
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    };
    conn.note(format!("{count} bytes, then {end}"));
}

/// Writes and never reads, until that fails; says how.
#[track_caller]
fn write_until_it_fails(client: &mut Client) -> ErrorKind {
    let out = &mut client.wire.stream;
    loop {
        match out.write_all(&[b'x'; 64 * 1024]) {
            Ok(()) => {}
            Err(error) => return error.kind(),
        }
    }
}

#[track_caller]
fn assert_reset(kind: ErrorKind) {
    let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(resets.contains(&kind), "{kind}");
}

/// Reads to the end: what came, and how it ended.
fn end_of(client: &mut Client) -> (Vec<u8>, Option<ErrorKind>) {
    let mut got = Vec::new();
    loop {
        match client.wire.some(usize::MAX) {
            Ok(piece) if piece.is_empty() => return (got, None),
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => return (got, Some(error.kind())),
        }
    }
}

#[test]
fn a_client_that_only_writes_learns_at_once_that_the_origin_is_gone() {
    let resets = switching(|conn| {
        conn.wait_for_release()?;
        conn.reset_at_end();
        Ok(())
    });
    // What it has not read makes the end a reset.
    let leaves_unread = switching(|conn| conn.wait_for_release());
    for origin in [resets, leaves_unread] {
        let (gateway, mut client) = tunnel(&origin, "1h");
        // Until all buffers on the way are full, so that it is told of no more room.
        let out = &mut client.wire.stream;
        out.set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        while out.write_all(&[b'x'; 64 * 1024]).is_ok() {}
        out.set_write_timeout(Some(DEADLINE)).unwrap();
        origin.release();
        let begun = Instant::now();
        assert_reset(write_until_it_fails(&mut client));
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        gateway.wait_for_access("status=101 error=- close=tunnel-ended");
    }
}

#[test]
fn an_origin_that_takes_nothing_is_cut_after_the_tunnels_limit_and_its_client_with_it() {
    let origin = switching(|conn| {
        conn.wait_for_release()?;
        note_end(conn);
        Ok(())
    });
    let (gateway, mut client) = tunnel(&origin, "1s");
    let begun = Instant::now();
    assert_reset(write_until_it_fails(&mut client));
    let took = begun.elapsed();
    // The limits of HTTP do not hold here.
    assert!(Duration::from_secs(1) < took && took < AT_ONCE, "{took:?}");
    gateway.wait_for_access("status=101 close=tunnel-ended");
    origin.release();
    let reset = ErrorKind::ConnectionReset.to_string();
    origin.wait("a reset", |it| {
        it.notes.iter().any(|it| it.ends_with(&reset))
    });
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_tunnels_limit_and_its_origin_with_it() {
    let origin = switching(|conn| {
        let kind = loop {
            if let Err(error) = conn.send([b'x'; 64 * 1024]) {
                break error.kind();
            }
        };
        conn.note(kind.to_string());
        Ok(())
    });
    let (_gateway, mut client) = tunnel(&origin, "1s");
    let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].map(|it| it.to_string());
    origin.wait("a reset", |it| {
        it.notes.iter().any(|it| resets.contains(it))
    });
    assert_eq!(end_of(&mut client).1, Some(ErrorKind::ConnectionReset));
}

#[test]
fn an_origin_learns_at_once_that_its_client_was_reset() {
    let origin = switching(|conn| {
        note_end(conn);
        Ok(())
    });
    let (_gateway, mut client) = tunnel(&origin, "1h");
    client.send("ab");
    client.reset();
    let reset = ErrorKind::ConnectionReset.to_string();
    origin.wait("a reset", |it| {
        it.notes.iter().any(|it| it.ends_with(&reset))
    });
}

#[test]
fn a_client_that_has_ended_its_side_gets_all_that_the_origin_says_later() {
    let origin = switching(|conn| {
        note_end(conn);
        std::thread::sleep(LONG);
        conn.send("the output")
    });
    let (gateway, mut client) = tunnel(&origin, "1h");
    client.send("the input");
    client.half_close();
    origin.wait("the client's end", |it| {
        it.notes.iter().any(|it| it == "9 bytes, then end")
    });
    assert_eq!(end_of(&mut client), (b"the output".to_vec(), None));
    gateway.wait_for_access("status=101 error=- close=tunnel-ended");
}

#[test]
fn an_origin_that_has_ended_its_side_gets_all_that_the_client_says_later() {
    let origin = switching(|conn| {
        conn.send("hello")?;
        conn.wire.stream.shutdown(std::net::Shutdown::Write)?;
        note_end(conn);
        Ok(())
    });
    let (_gateway, mut client) = tunnel(&origin, "1h");
    assert_eq!(end_of(&mut client), (b"hello".to_vec(), None));
    std::thread::sleep(LONG);
    client.send("at last");
    drop(client);
    origin.wait("the client's last word", |it| {
        it.notes.iter().any(|it| it == "7 bytes, then end")
    });
}

#[test]
fn a_half_closed_tunnel_that_stays_silent_is_cut_by_a_reset_and_never_by_a_clean_end() {
    let origin = switching(|conn| {
        conn.send("some of the output")?;
        note_end(conn);
        // Until it is reset.
        conn.wait_for_release()
    });
    let (gateway, mut client) = tunnel(&origin, "500ms");
    client.half_close();
    let (got, end) = end_of(&mut client);
    assert_eq!(got, b"some of the output");
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    gateway.wait_for_access("status=101 close=tunnel-ended");
    origin.release();
}

#[test]
fn a_tunnel_that_the_gateways_own_end_cuts_is_reset_on_both_sides() {
    let origin = switching(|conn| {
        conn.send("begun")?;
        note_end(conn);
        Ok(())
    });
    let (gateway, mut client) = tunnel(&origin, "1h");
    assert_eq!(client.exactly(5), b"begun");
    gateway.signal(Signal::SIGTERM);
    let (got, end) = end_of(&mut client);
    assert_eq!((got, end), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    let reset = ErrorKind::ConnectionReset.to_string();
    origin.wait("a reset", |it| {
        it.notes.iter().any(|it| it.ends_with(&reset))
    });
    gateway.wait_for_access("status=101 error=- close=draining");
}

/// Does not fit into the buffers on the way, the other side's being small.
const MUCH: usize = 14_000_000;

/// Smaller than what waits for its reader when both ends have been said.
const SMALL_WINDOW: usize = 32 * 1024;

#[test]
fn all_that_an_origin_says_before_it_closes_reaches_a_slow_client_that_has_ended_its_side() {
    let origin = switching(|conn| {
        note_end(conn);
        conn.send(vec![b'x'; MUCH])
    });
    let gateway = Gateway::serving(&origin);
    let mut client = Client::with_small_window("127.0.0.1", gateway.addr(), SMALL_WINDOW);
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    client.half_close();
    let (got, end) = end_of(&mut client);
    assert_eq!((got.len(), end), (MUCH, None));
    gateway.wait_for_access("status=101 error=- close=tunnel-ended");
}

#[test]
fn all_that_a_client_says_before_it_closes_reaches_a_slow_origin_that_has_ended_its_side() {
    let origin = switching(|conn| {
        let stream = &conn.wire.stream;
        socket2::SockRef::from(stream).set_recv_buffer_size(SMALL_WINDOW)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        note_slow_end(conn, Duration::from_millis(2));
        Ok(())
    });
    let (_gateway, mut client) = tunnel(&origin, "1h");
    assert_eq!(end_of(&mut client), (Vec::new(), None));
    client.send(vec![b'x'; MUCH]);
    drop(client);
    origin.wait("all of it", |it| {
        it.notes
            .iter()
            .any(|it| *it == format!("{MUCH} bytes, then end"))
    });
}

#[test]
fn a_half_closed_tunnel_whose_origin_is_reset_is_cut_although_the_client_takes_nothing() {
    let origin = switching(|conn| {
        note_end(conn);
        conn.wire.stream.set_nonblocking(true)?;
        // Until all buffers on the way are full, so that the gateway waits for the client.
        let mut refused_since = Instant::now();
        while refused_since.elapsed() < Duration::from_millis(300) {
            match conn.wire.stream.write(&[b'x'; 64 * 1024]) {
                Ok(1..) => refused_since = Instant::now(),
                Ok(0) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        conn.reset_at_end();
        Ok(())
    });
    let (gateway, mut client) = tunnel(&origin, "1h");
    client.half_close();
    gateway.wait_for_access("status=101 error=- close=tunnel-ended");
    assert_eq!(end_of(&mut client).1, Some(ErrorKind::ConnectionReset));
}
