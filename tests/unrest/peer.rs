//! A server in a process of its own, so that it can be killed and stopped.
//!
//! The process is this test program, which finds in its environment that it is to be a server. It is told by
//! its standard input how to behave, and ends with that.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;

use crate::support::{DEADLINE, StrictReader, StrictRequest, free_address, wait_until};

/// Names the address at which a process of this program is to be a server.
const VARIABLE: &str = "CHAOS_PEER";

/// What was begun in trouble has ended then: closing connections, mostly.
const LINGERS: Duration = Duration::from_millis(200);

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Sound,
    ResetsOnAccept,
    ResetsAfterRequest,
    ResetsInHead,
    ResetsInBody,
    /// Closes connections after a while, also when a request may be on its way.
    Closes,
    /// Takes a while for everything, within the gateway's patience.
    IsSlow,
    /// Takes longer than that for the head.
    IsLate,
}

impl Mood {
    const ALL: [Self; 8] = [
        Self::Sound,
        Self::ResetsOnAccept,
        Self::ResetsAfterRequest,
        Self::ResetsInHead,
        Self::ResetsInBody,
        Self::Closes,
        Self::IsSlow,
        Self::IsLate,
    ];

    /// Those that are trouble.
    pub(crate) const TROUBLES: &[Self] = Self::ALL.split_first().unwrap().1;

    fn number(self) -> u8 {
        let at = Self::ALL.iter().position(|it| *it == self).unwrap();
        u8::try_from(at).unwrap()
    }
}

/// A server, until it is dropped.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    child: Mutex<Child>,
    /// From when to when it was in trouble.
    troubles: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Peer {
    /// One on a host of its own.
    pub(crate) fn start(port: u16) -> Self {
        let address = SocketAddr::new(free_address().ip(), port);
        Self {
            address,
            child: Mutex::new(spawn(address)),
            troubles: Mutex::default(),
        }
    }

    pub(crate) fn turn(&self, mood: Mood) {
        let mut child = self.child.lock().unwrap();
        let input = child.stdin.as_mut().unwrap();
        input.write_all(&[b'0' + mood.number(), b'\n']).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.lock().unwrap().id();
        kill(Pid::from_raw(id.cast_signed()), signal).unwrap();
    }

    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn restart(&self) {
        *self.child.lock().unwrap() = spawn(self.address);
    }

    /// It is in trouble from now on, or no more.
    pub(crate) fn note_trouble(&self, begins: bool) {
        let now = Instant::now();
        let mut troubles = self.troubles.lock().unwrap();
        match troubles.last_mut() {
            Some((_, end)) if !begins => *end = Some(now),
            _ => troubles.push((now, None)),
        }
    }

    /// Whether it was in trouble at some time since then, or feels it still.
    pub(crate) fn was_in_trouble(&self, since: Instant) -> bool {
        let troubles = self.troubles.lock().unwrap();
        let last = troubles.last();
        last.is_some_and(|(_, end)| end.is_none_or(|it| it + LINGERS >= since))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(address: SocketAddr) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_server_in_a_process_of_its_own"])
        .env(VARIABLE, address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let child = command.spawn().unwrap();
    wait_until("a server listens", DEADLINE, || {
        TcpStream::connect(address).is_ok()
    });
    child
}

/// [`Mood`] of this process, by its number.
static MOOD: AtomicU8 = AtomicU8::new(0);

fn mood() -> Mood {
    Mood::ALL[usize::from(MOOD.load(Ordering::Relaxed))]
}

/// Is a server until the end of the process, if the environment says so.
pub(crate) fn serve_if_asked() {
    let Ok(address) = std::env::var(VARIABLE) else {
        return;
    };
    let listener = TcpListener::bind(&address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let address = address.clone();
            let _ = stream.map(|it| std::thread::spawn(move || serve(it, &address)));
        }
    });
    for line in io::stdin().lock().lines() {
        let number = line.ok().and_then(|it| it.parse().ok());
        MOOD.store(number.unwrap_or_default(), Ordering::Relaxed);
    }
    std::process::exit(0);
}

fn serve(stream: TcpStream, name: &str) {
    if mood() == Mood::ResetsOnAccept {
        return reset(&stream);
    }
    stream.set_nodelay(true).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let mut reader = StrictReader::new(stream);
    while let Ok(request) = reader.request() {
        if answer(&mut answers, &request, name).is_err() {
            return;
        }
        if mood() == Mood::Closes {
            // Long enough for the gateway to have kept it.
            std::thread::sleep(Duration::from_millis(fastrand::u64(1..50)));
            return;
        }
    }
}

/// The end of the connection is a reset, once nothing holds it any more.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Answers a request: a body with a length, in chunks, or the length of the request's.
fn answer(stream: &mut TcpStream, request: &StrictRequest, name: &str) -> io::Result<()> {
    let target = String::from_utf8_lossy(&request.target).into_owned();
    let mut parts = target.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let length: usize = parts.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    let body = match kind {
        "count" => request.content.len().to_string().into_bytes(),
        _ => vec![b'a'; length],
    };
    let is_chunked = kind == "chunked";
    let framing = match is_chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", body.len()),
    };
    let head = format!("HTTP/1.1 200 OK\r\nX-Peer: {name}\r\n{framing}\r\n\r\n").into_bytes();
    let body = match is_chunked {
        _ if request.method == b"HEAD" => Vec::new(),
        true => {
            let size = format!("{:x}\r\n", body.len()).into_bytes();
            [&size, &body[..], b"\r\n0\r\n\r\n"].concat()
        }
        false => body,
    };
    let cut = || io::Error::from(io::ErrorKind::ConnectionReset);
    match mood() {
        Mood::ResetsAfterRequest => {
            reset(stream);
            Err(cut())
        }
        Mood::ResetsInHead => {
            stream.write_all(&head[..head.len() / 2])?;
            pause(5);
            reset(stream);
            Err(cut())
        }
        Mood::ResetsInBody if !body.is_empty() => {
            stream.write_all(&[&head, &body[..body.len() / 2]].concat())?;
            pause(5);
            reset(stream);
            Err(cut())
        }
        Mood::IsSlow => {
            pause(100);
            stream.write_all(&head)?;
            for piece in body.chunks(body.len().div_ceil(4).max(1)) {
                pause(20);
                stream.write_all(piece)?;
            }
            Ok(())
        }
        Mood::IsLate => {
            pause(1500);
            stream.write_all(&[head, body].concat())
        }
        _ => stream.write_all(&[head, body].concat()),
    }
}
