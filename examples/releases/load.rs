//! Clients: one after another on one connection, each request with its answer and the time of that.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When its last byte was there.
    pub(crate) at: Instant,
    pub(crate) status: u16,
    /// It comes from the version that is named `new`.
    pub(crate) is_new: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// The user `probe`, as often as that goes with this pause.
    Probe(Duration),
    /// The user `public`, likewise.
    Public(Duration),
    /// So many users, at random, so many requests a second, at random moments.
    Crowd { users: u32, a_second: f64 },
}

impl Who {
    fn user(self) -> String {
        match self {
            Self::Probe(_) => "probe".to_owned(),
            Self::Public(_) => "public".to_owned(),
            Self::Crowd { users, .. } => format!("u{}", fastrand::u32(..users)),
        }
    }

    fn pause(self) -> Duration {
        match self {
            Self::Probe(pause) | Self::Public(pause) => pause,
            // Times between events that come at random are exponential.
            Self::Crowd { a_second, .. } => {
                Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / a_second)
            }
        }
    }
}

/// A thread that asks one gateway, until this is dropped.
pub(crate) struct Load {
    answers: Arc<Mutex<Vec<Answered>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to ask.
    pub(crate) fn start(gateway: SocketAddr, who: Who) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (of_thread, until) = (Arc::clone(&answers), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // A connection that was closed is one error, and another one goes on.
                if ask(gateway, who, &of_thread, &until).is_err() {
                    note(&of_thread, 0, false);
                }
            }
        });
        Self {
            answers,
            ends,
            thread: Some(thread),
        }
    }

    /// What was answered since this was last asked for.
    pub(crate) fn take(&self) -> Vec<Answered> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *answers)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn note(answers: &Mutex<Vec<Answered>>, status: u16, is_new: bool) {
    let at = Instant::now();
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.push(Answered { at, status, is_new });
}

fn ask(
    gateway: SocketAddr,
    who: Who,
    answers: &Mutex<Vec<Answered>>,
    ends: &AtomicBool,
) -> io::Result<()> {
    let stream = TcpStream::connect(gateway)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(&stream);
    let mut next = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        next += who.pause();
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-User: {}\r\n\r\n",
            who.user()
        );
        (&stream).write_all(request.as_bytes())?;
        let (status, body) = answer(&mut reader)?;
        note(answers, status, body == b"new");
    }
    Ok(())
}

/// The status and the body.
fn answer(reader: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("http/1.1 ") {
            status = rest.get(..3).and_then(|it| it.parse().ok()).unwrap_or(0);
        } else if let Some(rest) = lower.strip_prefix("content-length:") {
            length = rest
                .trim()
                .parse()
                .map_err(|_| io::ErrorKind::InvalidData)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}
