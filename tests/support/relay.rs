//! A relay that passes bytes on, and can fall silent on some of its connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Passes bytes between its own address and another one. A connection that has fallen silent stays
/// open, as one does whose way was lost: what comes is taken, and goes nowhere.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
    is_cut: Arc<AtomicBool>,
    lost: Arc<Mutex<Option<&'static str>>>,
    kept: Arc<Mutex<KeptBack>>,
}

/// See [`Relay::keep_back`].
#[derive(Debug, Default)]
struct KeptBack {
    text: Option<&'static str>,
    is_waiting: bool,
}

/// What a client sends, and what is passed on instead.
type Rewriting = (&'static str, &'static str);

#[derive(Debug)]
struct Connection {
    /// What the client has sent so far.
    sent: Mutex<Vec<u8>>,
    silent: AtomicBool,
    /// How long what the server sends is kept back, in milliseconds.
    delay: AtomicU64,
    rewriting: Option<Rewriting>,
    /// Shared by all: see [`Relay::lose_reply_to`].
    lost: Arc<Mutex<Option<&'static str>>>,
    kept: Arc<Mutex<KeptBack>>,
    streams: [TcpStream; 2],
}

impl Relay {
    pub(crate) fn to(target: SocketAddr) -> Self {
        Self::new("127.0.0.1:0".parse().unwrap(), target, None)
    }

    /// One that passes another text on than clients send, if that comes in one piece.
    pub(crate) fn rewriting(target: SocketAddr, from: &'static str, to: &'static str) -> Self {
        let own = "127.0.0.1:0".parse().unwrap();
        Self::new(own, target, Some((from, to)))
    }

    /// One that has this address of its own.
    pub(crate) fn at(own: SocketAddr, target: SocketAddr) -> Self {
        Self::new(own, target, None)
    }

    fn new(own: SocketAddr, target: SocketAddr, rewriting: Option<Rewriting>) -> Self {
        let listener = TcpListener::bind(own).unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
        let is_cut = Arc::new(AtomicBool::new(false));
        let lost: Arc<Mutex<Option<&str>>> = Arc::default();
        let (all, refuses) = (Arc::clone(&connections), Arc::clone(&is_cut));
        let lost_here = Arc::clone(&lost);
        let kept: Arc<Mutex<KeptBack>> = Arc::default();
        let kept_here = Arc::clone(&kept);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                if refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let connection = Arc::new(Connection {
                    sent: Mutex::default(),
                    silent: AtomicBool::new(false),
                    delay: AtomicU64::new(0),
                    rewriting,
                    lost: Arc::clone(&lost_here),
                    kept: Arc::clone(&kept_here),
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
            is_cut,
            lost,
            kept,
        }
    }

    /// What the server replies to the next client that sends `text` never comes: its connection ends.
    pub(crate) fn lose_reply_to(&self, text: &'static str) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// What the next client sends with `text` in it waits here until [`Relay::pass_on`].
    pub(crate) fn keep_back(&self, text: &'static str) {
        let text = Some(text);
        let is_waiting = false;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = KeptBack { text, is_waiting };
    }

    /// It waits here.
    pub(crate) fn keeps_back(&self) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.is_waiting
    }

    /// What waits here goes on.
    pub(crate) fn pass_on(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = KeptBack::default();
    }

    /// Ends all connections, and those that are made from now on; or passes bytes on again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
        if is_cut {
            let ends = |it: &TcpStream| drop(it.shutdown(Shutdown::Both));
            let all = self.with_text("");
            all.iter().flat_map(|it| &it.streams).for_each(ends);
        }
    }

    /// That has come to pass.
    pub(crate) fn has_lost_reply(&self) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.is_none()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections on which the client has sent `text` fall silent. Returns how many those are.
    pub(crate) fn silence(&self, text: &str) -> usize {
        let silence = |it: &Connection| !it.silent.swap(true, Ordering::Relaxed);
        let connections = self.with_text(text).into_iter();
        connections.filter(|it| silence(it)).count()
    }

    /// What the server sends on these connections comes so much later.
    pub(crate) fn delay(&self, text: &str, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        for connection in self.with_text(text) {
            connection.delay.store(millis, Ordering::Relaxed);
        }
    }

    fn with_text(&self, text: &str) -> Vec<Arc<Connection>> {
        let connections = self.connections.lock();
        let connections = connections.unwrap_or_else(PoisonError::into_inner);
        let all = connections.iter().filter(|it| it.has_sent(text));
        all.cloned().collect()
    }
}

impl Connection {
    fn has_sent(&self, text: &str) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        text.is_empty() || sent.windows(text.len()).any(|it| it == text.as_bytes())
    }

    /// True once, for the first connection whose client has sent what is not to be replied to.
    fn loses_reply(&self) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let text = lost.take_if(|text| self.has_sent(text));
        text.is_some()
    }

    /// Waits for as long as what was sent is kept back, if it is.
    fn wait_to_pass_on(&self) {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept().text.take_if(|text| self.has_sent(text)).is_none() {
            return;
        }
        kept().is_waiting = true;
        while kept().is_waiting {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

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
                drop(sent);
                self.wait_to_pass_on();
            }
            if from == 1 && self.loses_reply() {
                self.streams
                    .iter()
                    .for_each(|it| drop(it.shutdown(Shutdown::Both)));
                break;
            }
            if from == 1 {
                let delay = self.delay.load(Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(delay));
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
