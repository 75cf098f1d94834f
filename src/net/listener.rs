//! Listening sockets, and accepted connections that no worker has yet.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::events::{Io, READ, Wake};
use super::numbers::WorkerSocket;
use super::stream::{Detached, Stream, VANISHED, Watch};
use super::{coroutines, rounds, stream};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// Most bytes that the kernel holds for a client besides those in flight, which the client's receive
/// window bounds. Without a limit the kernel would hold megabytes for a client that reads nothing, and
/// some hundreds of such clients use up the memory for all connections (tcp(7), tcp_mem): then the
/// kernel drops what arrives for others, which has to be sent again.
const UNSENT: u32 = 512 * 1024;

/// A connection that belongs to no worker yet.
pub struct Accepted {
    socket: Socket,
}

impl Accepted {
    /// A connection that another process has accepted.
    ///
    /// # Errors
    /// When it is no such thing.
    pub(crate) fn elsewhere(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The worker that can take the connection without another descriptor.
    pub(crate) fn natural_worker(&self) -> usize {
        self.socket.as_raw_fd() as usize % coroutines::workers()
    }

    /// Makes the connection one of the calling worker's.
    ///
    /// # Errors
    /// When descriptors run out; the connection is given back.
    pub fn settle(self) -> Result<Detached, (Self, io::Error)> {
        match WorkerSocket::new(self.socket) {
            Ok(socket) => Ok(Detached { socket }),
            Err((socket, error)) => Err((Self { socket }, error)),
        }
    }

    /// Lets the client read nothing for so long: to the kernel that looks as if it had
    /// [vanished](VANISHED).
    pub(crate) fn tolerate(&self, silence: Duration) {
        if silence > VANISHED {
            // After the gateway's own limit, which tells why. If it fails, the client has less time.
            let limit = silence.saturating_add(VANISHED);
            let _ = self.socket.set_tcp_user_timeout(Some(limit));
        }
    }

    /// Writes `bytes` as far as they fit at once, and closes: for an answer to a connection that
    /// gets no session.
    pub(crate) fn refuse(self, bytes: &[u8]) {
        if self.socket.set_nonblocking(true).is_ok() {
            // The client may have gone already.
            let _ = (&self.socket).write(bytes);
            let _ = self.socket.shutdown(std::net::Shutdown::Write);
            // Closing with unread bytes would reset the connection, and the answer might be lost. But
            // not much time is spent on that.
            let mut unread = [std::mem::MaybeUninit::uninit(); 2048];
            let mut reads = 0..16;
            while reads.next().is_some() && matches!(self.socket.recv(&mut unread), Ok(1..)) {}
        }
    }
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everybody.
    Open,
    /// Whoever is waiting already: nobody would accept them later.
    Last,
    /// Nobody: another process accepts who is waiting.
    Closed,
}

/// What accepted connections inherit.
fn set_up(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    stream::probe(socket)?;
    socket.set_tcp_user_timeout(Some(VANISHED))
}

/// A listening socket.
pub struct Listener {
    socket: Socket,
    addr: SocketAddr,
}

impl Listener {
    /// Listens on `addr`. IPv6 addresses serve IPv6 only, so that `0.0.0.0:80` and `[::]:80` can be used
    /// side by side. Accepted connections inherit what is set here: no delay, a limit to what waits to
    /// be sent, TCP keep-alive probes, and an end to connections whose other side has vanished.
    ///
    /// # Errors
    /// The kernel's, for instance when the address is in use.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::bind_beside(addr, &[])
    }

    /// As [`Self::bind`], where these other sockets of the same user may be in the way and are about to be
    /// closed: for a moment they and this one are allowed to listen on the same port.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub(crate) fn bind_beside(addr: SocketAddr, others: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let domain = Domain::for_address(addr);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_up(&socket)?;
        let shared = SharedPort::of(&socket, others)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        drop(shared);
        Self::listen(socket)
    }

    /// Goes on with a socket that another process has listened with. What waits there to be accepted is
    /// accepted by whoever comes first.
    ///
    /// # Errors
    /// The kernel's, for instance when it is no such socket.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // That process may have been of an older version.
        set_up(&socket)?;
        Self::listen(socket)
    }

    fn listen(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        let addr = SockRef::from(&socket)
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("not an internet address"))?;
        Ok(Self { socket, addr })
    }

    /// The socket.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When there is none left.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts on the calling worker, in a loop: `serve` gets each connection; `failed` gets each error
    /// and returns how long to pause. Returns, and closes the socket, as `admission` says, which is asked
    /// after each `super::interrupt_idle`.
    ///
    /// # Errors
    /// When the socket cannot be registered with the worker.
    pub fn accept_loop(
        self,
        admission: impl Fn() -> Admission,
        serve: impl Fn(Accepted, SocketAddr),
        failed: impl Fn(io::Error) -> Duration,
    ) -> io::Result<()> {
        let socket = WorkerSocket::new(self.socket).map_err(|(_, error)| error)?;
        let io = Io::new(socket, READ)?;
        // Frees the place in the clock's table, whatever ends the loop.
        let listener = Stream { io };
        let mut accepted = 0;
        let ends = || admission() != Admission::Open;
        loop {
            match admission() {
                Admission::Open => {
                    if listener.io.wait(READ, None, Watch::Nothing, true) != Wake::Ready {
                        continue;
                    }
                }
                Admission::Last => {}
                Admission::Closed => return Ok(()),
            }
            match listener.io.socket.accept() {
                Ok((socket, addr)) => {
                    if let Some(addr) = addr.as_socket() {
                        serve(Accepted { socket }, addr);
                    }
                    accepted += 1;
                    if accepted % ACCEPTS_IN_A_ROW == 0 {
                        rounds::next_round();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ends() {
                        return Ok(());
                    }
                    listener.io.used_up(READ);
                }
                // The connections left in the queue would wait in vain.
                Err(_) if ends() => return Ok(()),
                Err(error) => {
                    listener.pause_until(Instant::now() + failed(error));
                }
            }
        }
    }
}

/// Sockets that may listen on the same port, for as long as this lives. Otherwise nobody may take connections
/// away from a gateway, not even another one.
pub(crate) struct SharedPort<'a>(Vec<SockRef<'a>>);

impl<'a> SharedPort<'a> {
    /// Of a `new` socket and `others`; of none if there are no others.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn of(new: &'a Socket, others: &'a [BorrowedFd<'_>]) -> io::Result<Self> {
        let mut shared = Self(Vec::new());
        if others.is_empty() {
            return Ok(shared);
        }
        let all = others.iter().map(SockRef::from);
        for socket in all.chain([SockRef::from(new)]) {
            socket.set_reuse_port(true)?;
            shared.0.push(socket);
        }
        Ok(shared)
    }
}

impl Drop for SharedPort<'_> {
    fn drop(&mut self) {
        for socket in &self.0 {
            // It was possible to set it.
            let _ = socket.set_reuse_port(false);
        }
    }
}

/// Connections accepted in a row before the worker's other connections get their turn.
const ACCEPTS_IN_A_ROW: usize = 64;
