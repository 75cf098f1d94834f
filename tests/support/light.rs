//! An origin for thousands of connections: one thread, sockets that never block.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

/// The end of `/big`, which is never reached.
const ENDLESS: u64 = 1 << 40;

/// Answers `/big` without end and `/LENGTH` with so many bytes, as far as they are taken, and lets
/// little lie in the kernel. It displays as its address.
pub(crate) struct LightOrigin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl fmt::Display for LightOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl LightOrigin {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Accepted sockets inherit both.
        socket.set_send_buffer_size(32 * 1024).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(4096).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stopping);
        std::thread::spawn(move || serve(&listener, &stopped));
        Self { address, stopping }
    }
}

impl Drop for LightOrigin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

fn serve(listener: &TcpListener, stopping: &AtomicBool) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let event = |flags, fd: RawFd| EpollEvent::new(flags, fd as u64);
    let accepting = listener.as_raw_fd();
    epoll
        .add(listener, event(EpollFlags::EPOLLIN, accepting))
        .unwrap();
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    let mut conns: HashMap<RawFd, LightConn> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    while !stopping.load(Ordering::Acquire) {
        // An interrupted wait is one without news.
        let count = epoll
            .wait(&mut events, EpollTimeout::from(100_u8))
            .unwrap_or(0);
        for happened in &events[..count] {
            let fd = happened.data() as RawFd;
            if fd != accepting {
                let goes_on = conns.get_mut(&fd).is_none_or(|conn| conn.go_on().is_ok());
                if !goes_on {
                    // Closing takes it out of the epoll set.
                    conns.remove(&fd);
                }
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                let fd = stream.as_raw_fd();
                epoll.add(&stream, event(both, fd)).unwrap();
                conns.insert(fd, LightConn::new(stream));
            }
        }
    }
}

struct LightConn {
    stream: TcpStream,
    /// What has come, and what is to be done with it.
    received: Vec<u8>,
    takes: Takes,
    head: Vec<u8>,
    content: u64,
    /// The content is chunks of one byte each.
    chunked: bool,
    tail: &'static [u8],
}

/// What comes next from the other side.
#[derive(Clone, Copy)]
enum Takes {
    Head,
    /// So much of a body.
    Body(u64),
    /// A body in chunks, in which no chunk ends with a zero.
    Chunks,
    /// Bytes to send back.
    Echo,
}

const CHUNK: &[u8] = b"1\r\nx\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl LightConn {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            takes: Takes::Head,
            head: Vec::new(),
            content: 0,
            chunked: false,
            tail: b"",
        }
    }

    /// Reads and writes as far as it goes; an error is the end.
    fn go_on(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.take(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        loop {
            let is_done = self.head.is_empty() && self.content == 0 && self.tail.is_empty();
            if is_done && !self.take_request() {
                return Ok(());
            }
            match self.write() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.takes {
            Takes::Head => self.received.extend_from_slice(bytes),
            Takes::Echo => self.head.extend_from_slice(bytes),
            Takes::Body(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                if *left == 0 {
                    self.takes = Takes::Head;
                }
            }
            Takes::Chunks => {
                self.received.extend_from_slice(bytes);
                match memchr::memmem::find(&self.received, LAST_CHUNK) {
                    Some(at) => {
                        drop(self.received.drain(..at + LAST_CHUNK.len()));
                        self.takes = Takes::Head;
                    }
                    // Its begin may have come.
                    None => drop(self.received.drain(..self.received.len().saturating_sub(4))),
                }
            }
        }
    }

    fn take_request(&mut self) -> bool {
        if !matches!(self.takes, Takes::Head) {
            return false;
        }
        let Some(end) = memchr::memmem::find(&self.received, b"\r\n\r\n") else {
            return false;
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap();
        let number = |text: &str| text.parse().ok();
        let field = |name: &str| head.lines().find_map(|it| it.strip_prefix(name));
        let behind = std::mem::take(&mut self.received);
        self.takes = match field("Content-Length: ").and_then(number) {
            Some(length) if length > 0 => Takes::Body(length),
            _ if field("Transfer-Encoding: ").is_some() => Takes::Chunks,
            _ if target == "/echo" => Takes::Echo,
            _ => Takes::Head,
        };
        let chunks = target.strip_prefix("/chunks");
        self.chunked = chunks.is_some();
        self.content = match chunks {
            Some(count) => CHUNK.len() as u64 * count.get(1..).and_then(number).unwrap_or(ENDLESS),
            None if matches!(self.takes, Takes::Body(_) | Takes::Chunks) => 0,
            None => number(&target[1..]).unwrap_or(ENDLESS),
        };
        self.tail = if self.chunked { LAST_CHUNK } else { b"" };
        self.head = match (chunks, self.takes) {
            (_, Takes::Echo) => {
                self.content = 0;
                "HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into()
            }
            (Some(_), _) => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            (None, _) => {
                let length = self.content;
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into()
            }
        };
        // What came with the head is judged by what the head says.
        self.take(&behind);
        true
    }

    fn write(&mut self) -> io::Result<()> {
        // An answer follows its request's body.
        if matches!(self.takes, Takes::Body(_) | Takes::Chunks) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while !self.head.is_empty() {
            let count = self.stream.write(&self.head)?;
            self.head.drain(..count);
        }
        while self.content > 0 {
            let piece = match self.chunked {
                true => &CHUNK.repeat(2048)[..],
                false => &[b'x'; 16 * 1024],
            };
            // Chunks go on where they were cut.
            let period = CHUNK.len() as u64;
            let cut = match self.chunked {
                true => ((period - self.content % period) % period) as usize,
                false => 0,
            };
            let length = (piece.len() - cut).min(usize::try_from(self.content).unwrap());
            self.content -= self.stream.write(&piece[cut..cut + length])? as u64;
        }
        while !self.tail.is_empty() {
            let count = self.stream.write(self.tail)?;
            self.tail = &self.tail[count..];
        }
        Ok(())
    }
}
