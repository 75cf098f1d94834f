//! A version of the service: a server that answers which one it is, and fails as often as it is told to.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A server, for as long as this program runs.
pub(crate) struct Version {
    pub(crate) address: SocketAddr,
    fails: Arc<AtomicU32>,
}

impl Version {
    /// Answers with this name.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) fn start(name: &'static str) -> Result<Self, String> {
        let in_words = |error: io::Error| format!("a server: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(in_words)?;
        let address = listener.local_addr().map_err(in_words)?;
        let fails = Arc::new(AtomicU32::new(0));
        let of_server = Arc::clone(&fails);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let fails = Arc::clone(&of_server);
                // A connection that ends is the gateway's affair.
                thread::spawn(move || serve(&stream, name, &fails));
            }
        });
        Ok(Self { address, fails })
    }

    /// From now on, so many of a million answers are 500.
    pub(crate) fn fail(&self, of_a_million: u32) {
        self.fails.store(of_a_million, Ordering::Relaxed);
    }
}

fn serve(stream: &TcpStream, name: &str, fails: &AtomicU32) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        // A head without a body: what the load sends.
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
        }
        let status = match fastrand::u32(..1_000_000) < fails.load(Ordering::Relaxed) {
            true => "500 Broken",
            false => "200 OK",
        };
        let length = name.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}");
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
}
