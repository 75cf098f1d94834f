//! So many short connections, closed on both sides, as fast as they go: through one gateway, to several
//! servers.
//!
//! The kernel keeps each end that closed first for a minute (TIME_WAIT), with its port: so there are
//! several addresses on both sides, each pair of which has 28,000 ports (ip_local_port_range). And an end
//! whose connection was closed more than a second ago is used again on the loopback (tcp_tw_reuse=2, the
//! default).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::children::free_address;
use crate::sample::Series;
use crate::site::{self, Gateway};
use crate::tally::{Outcome, Tallies};
use crate::{QUIET, page, say};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// Clients at once.
const CLIENTS: usize = 16;

/// Addresses on each side of the gateway.
const ADDRESSES: u8 = 8;

/// Servers for each address, each with a thread.
const THREADS: usize = 2;

/// Samples are taken so often.
const ROUNDS: u64 = 20;

/// The page, and whether all is well.
pub(crate) fn run(
    program: &Path,
    workers: usize,
    count: u64,
    interrupted: &AtomicBool,
) -> Result<(String, bool), String> {
    let (start, scratch) = (Instant::now(), site::scratch()?);
    let servers = servers().map_err(|it| format!("the servers: {it}"))?;
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let lists = scratch.path().join("lists");
    let text = format!("[gray]\n[pre]\n[prod]\n{}\n", names.join("\n"));
    std::fs::write(&lists, text).map_err(|it| format!("the lists: {it}"))?;
    let port = free_address()?.port();
    let listen = (1..=ADDRESSES)
        .map(|at| SocketAddr::from(([127, 0, 4, at], port)))
        .collect();
    let source = format!("file = {}\n", lists.display());
    let gateway = Gateway::start(program, scratch.path(), workers, listen, &source)?;
    let (tallies, mut series) = (Tallies::new(1), Series::of_gateway(&gateway));
    for round in 0..ROUNDS {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let share = count * (round + 1) / ROUNDS - count * round / ROUNDS;
        series.begin(&gateway)?;
        load(&gateway, share, &tallies, interrupted, || {
            series.take_busy(&gateway)
        })?;
        std::thread::sleep(QUIET);
        series.take_idle(&gateway)?;
        gateway.rotate();
        let (seconds, requests) = (start.elapsed().as_secs(), tallies.requests());
        let failed = tallies.failed();
        say(&format!(
            "{seconds:5} s: {requests} connections, {failed} failed"
        ));
    }
    let command = format!(
        "scripts/soak --connections {count} --workers {workers}: {} s",
        start.elapsed().as_secs()
    );
    Ok(page::of(&command, &[series], &tallies))
}

/// `count` connections; takes a sample when half of them are done.
fn load(
    gateway: &Gateway,
    count: u64,
    tallies: &Tallies,
    interrupted: &AtomicBool,
    sample: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let to = gateway.listen[client % gateway.listen.len()];
            let begun = &begun;
            scope.spawn(move || {
                let mut right = 0;
                while begun.fetch_add(1, Ordering::Relaxed) < count
                    && !interrupted.load(Ordering::Relaxed)
                {
                    match connection(to) {
                        Ok(()) => right += 1,
                        Err(wrong) => tallies.of(0).note("short", Outcome::Wrong(wrong)),
                    }
                }
                tallies
                    .of(0)
                    .note("short, by client", Outcome::Right(right));
            });
        }
        while begun.load(Ordering::Relaxed) < count / 2 && !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        sample()
    })
}

/// One request on a connection of its own; what is wrong with it, if anything.
fn connection(to: SocketAddr) -> Result<(), String> {
    let mut answer = [0; 512];
    let mut length = 0;
    let mut ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(REQUEST)?;
        while length < answer.len() {
            match stream.read(&mut answer[length..])? {
                0 => break,
                count => length += count,
            }
        }
        Ok(())
    };
    ask().map_err(|it| it.to_string())?;
    let answer = &answer[..length];
    match answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nok") {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(answer).into_owned()),
    }
}

/// Starts the servers, which end with this program.
fn servers() -> std::io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for at in 1..=ADDRESSES {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 3, at], 0)))?;
        addresses.push(listener.local_addr()?);
        for _ in 0..THREADS {
            let listener = listener.try_clone()?;
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A gateway that goes away in the middle shows by its client.
                    let _ = serve(stream);
                }
            });
        }
    }
    Ok(addresses)
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut head, mut length) = ([0; 2048], 0);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[length..])? {
            0 => return Ok(()),
            count => length += count,
        }
    }
    stream.write_all(ANSWER)
}
