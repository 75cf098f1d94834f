//! What connections cost that are silent: memory each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::scenarios::Content;

/// After it a proxy has put away what it means to.
const SILENCE: Duration = Duration::from_secs(4);

/// Bytes that each of so many connections takes of the proxy's `memory`, after a request and some
/// silence. Each must then still be good for another request.
pub(crate) fn memory_each(
    address: SocketAddr,
    connections: usize,
    interrupted: &AtomicBool,
    memory: impl Fn() -> Result<u64, String>,
) -> Result<f64, String> {
    let before = memory()?;
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        check(interrupted)?;
        let stream = connect(address).map_err(|it| format!("connecting: {it}"))?;
        ask(&stream).map_err(|it| format!("the first request: {it}"))?;
        streams.push(stream);
    }
    let start = Instant::now();
    while start.elapsed() < SILENCE {
        check(interrupted)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = memory()?;
    for stream in &streams {
        check(interrupted)?;
        ask(stream).map_err(|it| format!("a request after the silence: {it}"))?;
    }
    Ok((after as f64 - before as f64) / connections as f64)
}

fn check(interrupted: &AtomicBool) -> Result<(), String> {
    if interrupted.load(Ordering::Relaxed) {
        return Err("interrupted".to_owned());
    }
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// One request and its answer.
fn ask(mut stream: &TcpStream) -> io::Result<()> {
    let request = Content::Small.request();
    stream.write_all(&request.bytes)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        let end = memchr::memmem::find(&answer, b"\r\n\r\n");
        if end.is_some_and(|it| (answer.len() - it - 4) as u64 >= request.answer) {
            break;
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}
