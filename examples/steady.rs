//! Clients that keep their connections while something is done to the gateway, for `scripts/test-packages`.
//! It needs nothing but the standard library, so that one call of `rustc` makes it.
//!
//! `steady ADDRESS BUSY IDLE FILE` asks at ADDRESS on so many connections without a rest, and on so many
//! others now and then, until FILE is gone. Then it prints one line, as `requests=8 failed=0 closed=0`, and
//! fails unless the last two are 0. A request has failed when its answer is not a whole one with status 200, and a
//! connection is closed when that was not the client's doing.

#![allow(clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for an answer: more than the gateway's own.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two requests of a busy connection, so that many of them fit onto a small machine.
const BREATH: Duration = Duration::from_millis(2);

/// Between two requests of an idle connection, at least and at most, in milliseconds.
const REST: (u64, u64) = (200, 4000);

const BODY: &[u8] = b"the body of a request";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [address, busy, idle, file] = words[..]
        && let (Ok(busy), Ok(idle)) = (busy.parse(), idle.parse())
    {
        return load(address, busy, idle, Path::new(file));
    }
    eprintln!("usage: steady ADDRESS BUSY IDLE FILE");
    ExitCode::from(2)
}

/// Reads a head; returns it, and the length of what follows.
fn head(reader: &mut impl BufRead) -> io::Result<(String, u64)> {
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let begin = text.len();
        if reader.read_line(&mut text)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = text[begin..].trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok((text, length));
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            let value = value.trim().parse();
            length = value.map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        }
    }
}

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
}

/// What the clients of a run share.
struct Run {
    address: String,
    file: PathBuf,
    tally: Tally,
}

impl Run {
    fn goes_on(&self) -> bool {
        self.file.exists()
    }

    /// Counts, and says the first few of them.
    fn note(&self, counter: &AtomicU64, what: &str, why: &dyn std::fmt::Display) {
        if counter.fetch_add(1, Ordering::Relaxed) < 10 {
            eprintln!("steady: {what}: {why}");
        }
    }
}

fn load(address: &str, busy: u64, idle: u64, file: &Path) -> ExitCode {
    let run = Arc::new(Run {
        address: address.to_owned(),
        file: file.to_owned(),
        tally: Tally::default(),
    });
    let clients: Vec<_> = (0..busy + idle)
        .map(|number| {
            let run = Arc::clone(&run);
            let builder = thread::Builder::new().stack_size(256 << 10);
            builder.spawn(move || client(&run, number, number < busy))
        })
        .collect();
    let mut has_failed = false;
    for client in clients {
        has_failed |= client.map(thread::JoinHandle::join).is_err();
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let tally = &run.tally;
    let (requests, failed, closed) = (of(&tally.requests), of(&tally.failed), of(&tally.closed));
    println!("requests={requests} failed={failed} closed={closed}");
    match (requests, failed, closed, has_failed) {
        (1.., 0, 0, false) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// One connection after the other, of which there should be but one.
fn client(run: &Run, number: u64, is_busy: bool) {
    while run.goes_on() {
        match TcpStream::connect(&run.address) {
            Ok(connection) => keep(run, &connection, number, is_busy),
            Err(error) => {
                run.note(&run.tally.failed, "no connection", &error);
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Asks on one connection until the run is over, or the connection.
fn keep(run: &Run, connection: &TcpStream, number: u64, is_busy: bool) {
    let mut reader = BufReader::new(connection);
    let mut count = number;
    while run.goes_on() {
        let rest = match is_busy {
            true => BREATH,
            false => a_rest(count.wrapping_mul(31).wrapping_add(number)),
        };
        if let Err(error) = rest_on(run, connection, &mut reader, rest) {
            return run.note(&run.tally.closed, "closed between two requests", &error);
        }
        count += 1;
        match ask(connection, &mut reader, count) {
            Ok(false) => _ = run.tally.requests.fetch_add(1, Ordering::Relaxed),
            Ok(true) => {
                run.tally.requests.fetch_add(1, Ordering::Relaxed);
                return run.note(&run.tally.closed, "closed", &"Connection: close");
            }
            Err(error) => {
                run.note(&run.tally.closed, "closed within a request", &error);
                return run.note(&run.tally.failed, "failed", &error);
            }
        }
    }
}

/// By no chance that needs a crate, and different for each connection.
fn a_rest(seed: u64) -> Duration {
    let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(REST.0 + mixed % (REST.1 - REST.0))
}

/// Waits for `rest`, or the end of the run.
///
/// # Errors
/// When the connection is closed meanwhile, or something comes on it.
fn rest_on(
    run: &Run,
    connection: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    rest: Duration,
) -> io::Result<()> {
    let end = Instant::now() + rest;
    while run.goes_on() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        connection.set_read_timeout(Some(left.min(Duration::from_millis(200))))?;
        match reader.fill_buf().map(<[u8]>::len) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Err(io::Error::other("an answer to nothing")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends a request, each third with a body, and reads its answer. True when the connection then ends.
fn ask(
    mut connection: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    count: u64,
) -> io::Result<bool> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = match count % 3 {
        0 => format!(
            "PUT /{count} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        ),
        _ => format!("GET /{count} HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
    .into_bytes();
    if count.is_multiple_of(3) {
        request.extend_from_slice(BODY);
    }
    connection.write_all(&request)?;
    let (head, length) = head(reader)?;
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if !head.starts_with("HTTP/1.1 200 ") || body.len() as u64 != length {
        let line = head.lines().next().unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        return Err(io::Error::other(format!("{line:?} {body:?}")));
    }
    Ok(head.to_ascii_lowercase().contains("\r\nconnection: close"))
}
