//! What nobody tells the gateway: that the machine at the other end has vanished.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;
use support::{Gateway, Origin, Setup, wait_for};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Who has answered nothing for so long has vanished.
const VANISHED: Duration = Duration::from_secs(60);

/// The gateway's end of a connection, as /proc/net/tcp has it.
struct End {
    /// Its timer: the kind, and when it fires, in hundredths of a second.
    timer: (u8, u64),
    inode: String,
}

/// The end at the gateway of the connection of which `other` is the other end.
fn end_of(other: &TcpStream) -> Option<End> {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let (here, there) = (
        port(other.peer_addr().unwrap()),
        port(other.local_addr().unwrap()),
    );
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table
        .lines()
        .map(|it| it.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|it| it[1].ends_with(&here) && it[2].ends_with(&there))?;
    let (kind, when) = row[5].split_once(':')?;
    Some(End {
        timer: (
            kind.parse().unwrap(),
            u64::from_str_radix(when, 16).unwrap(),
        ),
        inode: row[9].to_owned(),
    })
}

/// Asserts that the gateway finds out when whoever is at `other` vanishes: in silence, which is when only
/// probes tell, and `while_sending`, the kernel's own time if that is none.
#[track_caller]
fn assert_watched_over(gateway: &Gateway, other: &TcpStream, while_sending: Option<Duration>) {
    /// TCP's own timer for probes.
    const KEEP_ALIVE: u8 = 2;
    let end = wait_for("the timer of probes", || {
        end_of(other).filter(|it| it.timer.0 == KEEP_ALIVE)
    });
    assert!(u128::from(end.timer.1) * 10 <= VANISHED.as_millis());
    // The kernel shows the other limits to the owner of the socket only.
    let wanted = format!("socket:[{}]", end.inode);
    let open = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
    let mut numbers = open.map(|it| it.unwrap());
    let is_it = |path: &Path| fs::read_link(path).is_ok_and(|it| it == Path::new(&wanted));
    let found = numbers.find(|it| is_it(&it.path())).unwrap();
    let number = found.file_name().into_string().unwrap().parse().unwrap();
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).unwrap();
    let socket = SockRef::from(&socket);
    assert_eq!(
        socket
            .tcp_user_timeout()
            .unwrap()
            .filter(|it| !it.is_zero()),
        while_sending
    );
    let (pause, times) = (
        socket.tcp_keepalive_interval().unwrap(),
        socket.tcp_keepalive_retries().unwrap(),
    );
    assert_eq!(pause * times, VANISHED);
}

/// A machine that has lost its power says nothing, and neither does one that has nothing to say: only probes
/// tell.
#[test]
fn a_silent_client_is_probed() {
    let origin = Origin::named("fine");
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    assert_eq!(client.ask(GET).text(), "fine");
    assert_watched_over(&gateway, &client.wire.stream, Some(VANISHED));
}

/// The kernel also ends connections of which nothing is read.
#[test]
fn a_client_that_may_read_nothing_for_longer_has_the_time() {
    let origin = Origin::named("fine");
    let setup = Setup::serving(&origin);
    let gateway = setup.set("gateway.send_timeout", "10m").start();
    let mut client = gateway.connect();
    assert_eq!(client.ask(GET).text(), "fine");
    let limit = Duration::from_secs(600) + VANISHED;
    assert_watched_over(&gateway, &client.wire.stream, Some(limit));
}

/// Both may be silent for as long as `tunnel_timeout`.
#[test]
fn both_ends_of_a_tunnel_are_probed() {
    let peer = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&peer);
    let origin = Origin::scripted(move |conn| {
        conn.head()?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
        *keep.lock().unwrap() = Some(conn.wire.stream.try_clone()?);
        conn.wait_gone()
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    assert_watched_over(&gateway, &client.wire.stream, Some(VANISHED));
    let peer = wait_for("the peer's end", || peer.lock().unwrap().take());
    // It may read nothing for as long, too.
    assert_watched_over(&gateway, &peer, None);
}
