//! The receiver of the webhook: it takes every message, and counts them by what they are about.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::{self, Client};

type Counts = Mutex<BTreeMap<String, u64>>;

/// It listens for as long as this program runs.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

impl Receiver {
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let counts = Arc::<Counts>::default();
        let of_thread = Arc::clone(&counts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // What is not taken comes once more.
                let _ = take(stream, &of_thread);
            }
        });
        Ok(Self { address, counts })
    }

    /// So many messages about this `event`.
    pub(crate) fn count(&self, event: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(event).copied().unwrap_or_default()
    }
}

fn take(stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut sender = Client::of_gateway(stream)?;
    let head = sender.head()?;
    let length = client::field(&head, "content-length").and_then(|it| it.parse().ok());
    sender.exactly(length.unwrap_or_default())?;
    if let Some(event) = client::field(&head, "x-graygate-event") {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(event).or_default() += 1;
    }
    sender.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}
