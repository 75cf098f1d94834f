//! A relay that passes bytes on, and can fall silent on some of its connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes bytes between its own address and another one. A connection that has fallen silent stays
/// open, as one does whose way was lost: what comes is taken, and goes nowhere.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
}

/// What a client sends, and what is passed on instead.
type Rewriting = (&'static str, &'static str);

#[derive(Debug)]
struct Connection {
    /// What the client has sent so far.
    sent: Mutex<Vec<u8>>,
    silent: AtomicBool,
    rewriting: Option<Rewriting>,
    streams: [TcpStream; 2],
}

impl Relay {
    pub(crate) fn to(target: SocketAddr) -> Self {
        Self::new(target, None)
    }

    /// One that passes another text on than clients send, if that comes in one piece.
    pub(crate) fn rewriting(target: SocketAddr, from: &'static str, to: &'static str) -> Self {
        Self::new(target, Some((from, to)))
    }

    fn new(target: SocketAddr, rewriting: Option<Rewriting>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
        let all = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                let connection = Arc::new(Connection {
                    sent: Mutex::default(),
                    silent: AtomicBool::new(false),
                    rewriting,
                    streams: [client, server],
                });
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Arc::clone(&connection));
                for from in [0, 1] {
                    let connection = Arc::clone(&connection);
                    std::thread::spawn(move || connection.pump(from));
                }
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections on which the client has sent `text` fall silent. Returns how many those are.
    pub(crate) fn silence(&self, text: &str) -> usize {
        let connections = self.connections.lock();
        let connections = connections.unwrap_or_else(PoisonError::into_inner);
        let with_text = |it: &&Arc<Connection>| {
            let sent = it.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let is_old = it.silent.load(Ordering::Relaxed);
            !is_old && sent.windows(text.len()).any(|it| it == text.as_bytes())
        };
        let silenced = connections.iter().filter(with_text);
        silenced
            .map(|it| it.silent.store(true, Ordering::Relaxed))
            .count()
    }
}

impl Connection {
    fn pump(&self, from: usize) {
        let mut bytes = [0; 4096];
        let (mut source, mut sink) = (&self.streams[from], &self.streams[1 - from]);
        while let Ok(count @ 1..) = source.read(&mut bytes) {
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            if from == 0 {
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.extend_from_slice(&bytes[..count]);
            }
            let mut piece = bytes[..count].to_vec();
            if let (0, Some((what, instead))) = (from, self.rewriting)
                && let Some(at) = piece
                    .windows(what.len())
                    .position(|it| it == what.as_bytes())
            {
                piece.splice(at..at + what.len(), instead.bytes());
            }
            if sink.write_all(&piece).is_err() {
                break;
            }
        }
        if !self.silent.load(Ordering::Relaxed) {
            let _ = sink.shutdown(Shutdown::Both);
        }
    }
}
