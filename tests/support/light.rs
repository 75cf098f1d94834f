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
    received: Vec<u8>,
    head: Vec<u8>,
    content: u64,
}

impl LightConn {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            head: Vec::new(),
            content: 0,
        }
    }

    /// Reads and writes as far as it goes; an error is the end.
    fn go_on(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        loop {
            if self.head.is_empty() && self.content == 0 && !self.take_request() {
                return Ok(());
            }
            match self.write() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_request(&mut self) -> bool {
        let Some(end) = memchr::memmem::find(&self.received, b"\r\n\r\n") else {
            return false;
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap();
        let target = std::str::from_utf8(&target[1..]).unwrap();
        self.content = target.parse().unwrap_or(ENDLESS);
        self.head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            self.content
        )
        .into();
        true
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.head.is_empty() {
            let count = self.stream.write(&self.head)?;
            self.head.drain(..count);
        }
        while self.content > 0 {
            let piece = [b'x'; 16 * 1024];
            let length = piece.len().min(self.content.try_into().unwrap());
            self.content -= self.stream.write(&piece[..length])? as u64;
        }
        Ok(())
    }
}
