//! Downloads that do not end, beside what is measured: each a thread that takes what comes.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

const SINK: usize = 1 << 20;

/// Running downloads, until they are dropped.
pub(crate) struct Downloads {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Bytes so far, of each.
    received: Vec<Arc<AtomicU64>>,
}

impl Downloads {
    pub(crate) fn start(address: SocketAddr, count: usize) -> io::Result<Self> {
        let mut all = Self {
            end: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            received: Vec::new(),
        };
        for _ in 0..count {
            let received = Arc::new(AtomicU64::new(0));
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            stream.write_all(b"GET /endless HTTP/1.1\r\nHost: www.example.com\r\n\r\n")?;
            let (end, so_far) = (Arc::clone(&all.end), Arc::clone(&received));
            all.received.push(received);
            all.threads.push(std::thread::spawn(move || {
                let mut sink = vec![0; SINK];
                while !end.load(Ordering::Relaxed) {
                    // With this flag the kernel does not copy.
                    match recv(&stream, &mut sink[..], RecvFlags::TRUNC) {
                        Ok((_, 0)) => return,
                        Ok((_, count)) => so_far.fetch_add(count as u64, Ordering::Relaxed),
                        Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => 0,
                        Err(_) => return,
                    };
                }
            }));
        }
        Ok(all)
    }

    /// Bytes so far, of each; an error when one has ended.
    pub(crate) fn received(&self) -> Result<Vec<u64>, String> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err("a download ended".to_owned());
        }
        let counts = self.received.iter().map(|it| it.load(Ordering::Relaxed));
        Ok(counts.collect())
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
