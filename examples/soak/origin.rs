//! The servers: what they do is what the target of a request says, so that each client knows what must
//! come. Each connection has a thread.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crate::client::{self, Client};

/// How a server misbehaves, whatever it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Sound,
    /// Nobody listens.
    Away,
    Closes,
    Resets,
    /// Takes requests and says nothing, for longer than the gateway waits.
    Stalls,
    /// Answers that it cannot: a version that is broken.
    Fails,
}

impl Mood {
    const ALL: [Self; 6] = [
        Self::Sound,
        Self::Away,
        Self::Closes,
        Self::Resets,
        Self::Stalls,
        Self::Fails,
    ];

    /// Those of a flaky server, whose requests can be sent to another one.
    const FLAKY: usize = 5;
}

/// Longer than `read_timeout`.
const STALL: Duration = Duration::from_millis(1300);

/// A server, until it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mood: AtomicU8,
    ended: AtomicBool,
}

impl Shared {
    fn mood(&self) -> Mood {
        Mood::ALL[usize::from(self.mood.load(Ordering::Relaxed))]
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Origin {
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            mood: AtomicU8::new(0),
            ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let listener = listen(address)?;
        std::thread::spawn(move || accept(address, listener, &of_thread));
        Ok(Self { address, shared })
    }

    /// Another mood of a flaky server, from now on.
    pub(crate) fn turn(&self, at: usize) {
        self.be(Mood::ALL[at % Mood::FLAKY]);
    }

    /// This mood, from now on.
    pub(crate) fn be(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(address: SocketAddr, listener: TcpListener, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    while !shared.ended.load(Ordering::Relaxed) {
        match (&listener, shared.mood()) {
            (_, Mood::Away) => listener = None,
            // The port may be in use for a moment.
            (None, _) => listener = listen(address).ok(),
            (Some(listener), _) => {
                while let Ok((stream, _)) = listener.accept() {
                    let shared = Arc::clone(shared);
                    let serve = move || {
                        // Whoever goes away in the middle has its reasons.
                        let _ = stream
                            .set_nonblocking(false)
                            .and_then(|()| serve(stream, &shared));
                    };
                    // Without a thread the connection is closed.
                    let small = std::thread::Builder::new().stack_size(128 * 1024);
                    let _ = small.spawn(serve);
                }
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    // Kept by the gateway for longer than a client waits.
    let mut peer = Client::of_gateway(stream)?;
    loop {
        let head = peer.head()?;
        match shared.mood() {
            Mood::Sound => {}
            Mood::Away | Mood::Closes => return Ok(()),
            Mood::Resets => {
                peer.reset();
                return Ok(());
            }
            Mood::Stalls => {
                std::thread::sleep(STALL);
                return Ok(());
            }
            Mood::Fails => {
                peer.send("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
        }
        if !answer(&mut peer, &head)? {
            return Ok(());
        }
    }
}

/// Answers a request; false when the connection ends with that.
fn answer(peer: &mut Client, head: &str) -> io::Result<bool> {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut parts = target.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let length = parts.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    let whole = |more: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'a'; length]].concat()
    };
    match kind {
        "plain" => peer.send(whole(""))?,
        "closed" => peer.send(whole("Connection: close\r\n"))?,
        "chunked" => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in vec![b'a'; length].chunks(3000) {
                write!(bytes, "{:x}\r\n", piece.len())?;
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            peer.send(bytes)?;
        }
        "until-close" => {
            peer.send("HTTP/1.1 200 OK\r\n\r\n")?;
            peer.send(vec![b'a'; length])?;
        }
        "count" => {
            let count = match client::field(head, "content-length") {
                Some(length) => peer.exactly(length.parse().map_err(io::Error::other)?)?,
                None => peer.chunks()?,
            };
            let count = count.len().to_string();
            let length = count.len();
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{count}"
            ))?;
        }
        "tunnel" => {
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: soak\r\n\r\n",
            )?;
            loop {
                let bytes = peer.some()?;
                if bytes.is_empty() {
                    return Ok(false);
                }
                peer.send(bytes)?;
            }
        }
        "late" => {
            std::thread::sleep(Duration::from_millis(50));
            peer.send(whole(""))?;
        }
        "trickle" => {
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))?;
            for _ in 0..length.div_ceil(100) {
                peer.send([b'a'; 100])?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "half" => {
            let framing = match target {
                "/half/length" => "Content-Length: 1000",
                _ => "Transfer-Encoding: chunked",
            };
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n1f4\r\nhalf"))?;
            if target == "/half/length" {
                client::reset(&peer.stream);
            }
        }
        _ => client::reset(&peer.stream),
    }
    Ok(matches!(
        kind,
        "plain" | "chunked" | "count" | "late" | "trickle"
    ))
}
