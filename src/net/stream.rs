//! Connections whose waits have deadlines.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use may::io::{CoIo, WaitIo};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::events::{Descriptor, ERROR, GONE, Io, READ, READ_END, WOKEN, WRITE, Wake, Watched};
use super::numbers::WorkerSocket;
use super::{Patience, Turns, clock, news};

/// A connection whose other side has acknowledged neither bytes nor probes for this long is given up.
pub(super) const VANISHED: Duration = Duration::from_secs(60);

/// Has the kernel look, when nothing moves, whether the other side is still there.
pub(super) fn probe(socket: &Socket) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(VANISHED)
        .with_interval(VANISHED / 6);
    socket.set_tcp_keepalive(&probes.with_retries(6))
}

/// What a read would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// It would wait.
    Nothing,
    /// Bytes.
    Bytes,
    /// The end, or an error.
    End,
}

/// What may end a wait besides its own event and deadline. It is noticed at once when it has
/// happened before the wait, else at the next tick of the clock.
#[derive(Clone, Copy)]
pub enum Watch<'a> {
    /// Nothing.
    Nothing,
    /// The other stream was reset, or closed in both directions, by either side, ours included, cleanly
    /// or not. One whose other side has only shut down its sending is not gone.
    Gone(&'a Stream),
    /// The other stream was reset, by either side, or its other side has vanished. A stream that ended
    /// cleanly in both directions does not count.
    Reset(&'a Stream),
    /// Nothing more comes from the other stream: its other side has shut down, or it is gone.
    Ended(&'a Stream),
    /// The other stream has something to read: see [`Stream::is_readable`].
    Readable(&'a Stream),
    /// The flag is set, by another coroutine of this worker: for streams that have no socket of their
    /// own.
    Flag(&'a Rc<Cell<bool>>),
}

impl Watch<'_> {
    /// True when it has happened already.
    #[cfg(test)]
    pub(crate) fn has_happened(self) -> bool {
        self.watched().is_some_and(|it| it.has_happened())
    }

    fn watched(self) -> Option<Watched> {
        let (stream, events) = match self {
            Watch::Nothing => return None,
            Watch::Flag(flag) => return Some(Watched::Flag(Rc::clone(flag))),
            Watch::Gone(stream) => (stream, GONE),
            Watch::Reset(stream) => (stream, ERROR),
            Watch::Ended(stream) => (stream, READ_END | GONE),
            Watch::Readable(stream) => (stream, READ | READ_END | GONE),
        };
        Some(Watched::Events {
            io: Rc::clone(&stream.io),
            // Those of epoll(7) are 32 bits.
            events: events as u32,
        })
    }
}

impl Io {
    pub(super) fn new(socket: WorkerSocket, ready: usize) -> io::Result<Rc<Self>> {
        let registration = CoIo::new(Descriptor(socket.as_raw_fd())).map_err(io::Error::from)?;
        let waker = registration.waker();
        Ok(clock::register(|place| {
            Rc::new(Self {
                registration,
                socket,
                waker,
                ready: Cell::new(ready),
                interrupted: Cell::new(false),
                place,
            })
        }))
    }

    pub(super) fn wait(
        &self,
        events: usize,
        deadline: Option<Instant>,
        watch: Watch<'_>,
        idle: bool,
    ) -> Wake {
        // A deadline that has passed already is noticed at the next tick, like any other: the clock is
        // not read before the first wait.
        let mut waited = false;
        loop {
            // First, so that it is noticed even if this stream is always ready.
            let watched = watch.watched();
            if watched.as_ref().is_some_and(Watched::has_happened) {
                return Wake::Watched;
            }
            // Streams that are always ready have to end, too.
            if clock::are_waits_cut() {
                return Wake::Overdue;
            }
            if self.look() & (events | GONE) != 0 {
                return Wake::Ready;
            }
            if idle && self.interrupted.replace(false) {
                return Wake::Interrupted;
            }
            if waited && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return match self.has_happened(events) {
                    true => Wake::Ready,
                    false => Wake::Overdue,
                };
            }
            waited = true;
            clock::arm(self.place, deadline, watched, idle);
            let woken_by = self.registration.wait_io();
            clock::disarm(self.place);
            if woken_by & WOKEN == 0 {
                news::delivered();
            }
            self.ready.set(self.ready.get() | woken_by);
        }
    }

    /// Whether one of `events` has happened by now; asks the kernel. After a time in which this process was
    /// stopped, or got no CPU, deadlines may be seen to before the events from that time.
    #[cold]
    fn has_happened(&self, events: usize) -> bool {
        if events == 0 {
            return false;
        }
        let mut asked = nix::libc::pollfd {
            fd: self.socket.as_raw_fd(),
            // Those of poll(2) are the same bits as those of epoll(7).
            events: events as nix::libc::c_short,
            revents: 0,
        };
        // SAFETY: one pollfd, to which the pointer leads. With no timeout it does not wait.
        let count = unsafe { nix::libc::poll(&raw mut asked, 1, 0) };
        if count > 0 {
            self.ready
                .set(self.ready.get() | usize::from(asked.revents as u16));
        }
        self.ready.get() & (events | GONE) != 0
    }
}

/// A connection. Belongs to the worker that made it.
pub struct Stream {
    pub(super) io: Rc<Io>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        clock::release(self.io.place);
    }
}

impl Stream {
    /// Connects to `addr`, on a socket of the calling worker.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` at the deadline; `ConnectionAborted` when what is watched happens.
    pub fn connect(addr: SocketAddr, deadline: Instant, watch: Watch<'_>) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        let socket = WorkerSocket::new(socket).map_err(|(_, error)| error)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Registered after connect(): an unconnected socket would report a hang-up.
        let stream = Self {
            io: Io::new(socket, 0)?,
        };
        match stream.io.wait(WRITE, Some(deadline), watch, false) {
            Wake::Ready => {}
            Wake::Watched => return Err(io::ErrorKind::ConnectionAborted.into()),
            Wake::Overdue | Wake::Interrupted => return Err(io::ErrorKind::TimedOut.into()),
        }
        match stream.io.socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Reads what is there into `into`; waits for it first if the socket is known to be empty.
    /// 0 is the end of the stream.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` at the deadline.
    pub fn read(&self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        self.read_after(into, deadline, || {})
    }

    /// As [`Self::read`], for one that takes turns with others.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub fn read_in_turn(
        &self,
        into: &mut [u8],
        deadline: Instant,
        turns: &mut Turns,
    ) -> io::Result<usize> {
        self.read_after(into, deadline, || turns.begin())
    }

    fn read_after(
        &self,
        into: &mut [u8],
        deadline: Instant,
        mut begin: impl FnMut(),
    ) -> io::Result<usize> {
        loop {
            match self.wait_readable(deadline, Watch::Nothing) {
                Wake::Ready => begin(),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            }
            match self.read_now(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// As [`Self::read`], but does not wait.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing is there: the event that woke the caller may have been
    /// about bytes that were read since, here or through a [twin](Self::twin).
    pub(crate) fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.take_now(|socket| {
            let (count, _) = recv(socket, &mut *into, RecvFlags::empty())?;
            Ok(count)
        })?;
        // A short read has emptied the socket. Once the other side has shut down there are no more
        // events, so its end must be read without waiting.
        if count < into.len() && self.io.ready.get() & (READ_END | GONE) == 0 {
            self.io.used_up(READ);
        }
        Ok(count)
    }

    /// Takes bytes without waiting; notes when there are none.
    pub(super) fn take_now(
        &self,
        mut take: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match take(&self.io.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.io.used_up(READ | READ_END | GONE);
                    }
                    return Err(error);
                }
                Ok(count) => return Ok(count),
            }
        }
    }

    /// The address of this side.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let addr = self.io.socket.local_addr().ok()?.as_socket()?;
        // Without the scope of a link-local address, which means nothing to others.
        Some(SocketAddr::new(addr.ip(), addr.port()))
    }

    /// Waits, as an idle connection does, until there is something to read, or the end; can be
    /// interrupted.
    pub(crate) fn wait_idle(&self, deadline: Instant) -> Wake {
        self.wait_interruptible(deadline, Watch::Nothing)
    }

    /// As [`Self::wait_readable`], and can be interrupted.
    pub(crate) fn wait_interruptible(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.io.wait(READ | READ_END, Some(deadline), watch, true)
    }

    /// Waits until there is something to read, or the end.
    pub fn wait_readable(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.io.wait(READ | READ_END, Some(deadline), watch, false)
    }

    /// Waits until the deadline, whatever arrives meanwhile, so that the other side has to wait, too.
    /// Only a connection that is gone is [`Wake::Ready`] at once.
    pub fn pause(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.io.wait(0, Some(deadline), watch, false)
    }

    /// True when, as far as events have told, a read would not wait (bytes, the end, or an error). Costs
    /// no system call; may miss the events since the last poll.
    pub fn is_readable(&self) -> bool {
        self.io.look() & (READ | READ_END | GONE) != 0
    }

    /// True when the connection was reset, or closed in both directions, as far as events have told: see
    /// [`Watch::Gone`].
    pub(crate) fn is_gone(&self) -> bool {
        self.io.look() & GONE != 0
    }

    /// As [`Self::is_readable`], but asks the kernel, and so is never out of date.
    pub fn is_readable_now(&self) -> bool {
        self.peek_now() != Peeked::Nothing
    }

    /// What a read would find; asks the kernel.
    pub(crate) fn peek_now(&self) -> Peeked {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match self.io.socket.peek(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.used_up(READ);
                Peeked::Nothing
            }
            Ok(1..) => Peeked::Bytes,
            Ok(_) | Err(_) => Peeked::End,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` when the other side has used up the `patience`.
    pub fn write_all(&self, bytes: &[u8], patience: &Patience) -> io::Result<()> {
        self.write_both(bytes, &[], patience, false).1
    }

    /// As [`Self::write_all`], but what is watched ends the wait for room.
    ///
    /// # Errors
    /// As of [`Self::write_all`]; `ConnectionAborted` when what is watched happens.
    pub(crate) fn write_all_unless(
        &self,
        bytes: &[u8],
        patience: &Patience,
        watch: Watch<'_>,
    ) -> io::Result<()> {
        self.write_parts(bytes, &[], patience, false, watch).1
    }

    /// Writes `head` and then `body` with as few system calls as the socket allows. Returns how many
    /// bytes were written, error or not (errors are those of [`Stream::write_all`]). With
    /// `until_readable` that may be fewer without an error: when the socket is full and the other side
    /// has sent something, it may be waiting for us to read, so we do not wait for room.
    pub fn write_both(
        &self,
        head: &[u8],
        body: &[u8],
        patience: &Patience,
        until_readable: bool,
    ) -> (usize, io::Result<()>) {
        self.write_parts(head, body, patience, until_readable, Watch::Nothing)
    }

    fn write_parts(
        &self,
        head: &[u8],
        body: &[u8],
        patience: &Patience,
        until_readable: bool,
        watch: Watch<'_>,
    ) -> (usize, io::Result<()>) {
        let (total, mut written) = (head.len() + body.len(), 0);
        while written < total {
            let head_left = &head[written.min(head.len())..];
            let body_left = &body[written.saturating_sub(head.len())..];
            let write = |mut socket: &Socket| match (head_left, body_left) {
                (bytes, []) | ([], bytes) => Ok(send(socket, bytes, SendFlags::NOSIGNAL)?),
                _ => socket.write_vectored(&[IoSlice::new(head_left), IoSlice::new(body_left)]),
            };
            match self.write_some(patience, until_readable, watch, write) {
                Ok(Some(count)) => written += count,
                Ok(None) => break,
                Err(error) => return (written, Err(error)),
            }
            if written < total {
                self.io.used_up(WRITE);
            }
        }
        (written, Ok(()))
    }

    /// Waits until there is room to write, or another of `events`. The kernel reports room only once a
    /// third of its buffer is free, which takes a slow reader a while; so when the patience has run out,
    /// what was taken meanwhile counts as progress.
    fn wait_for_room(&self, events: usize, patience: &Patience, watch: Watch<'_>) -> Wake {
        let mut unsent = None;
        loop {
            let begun = Instant::now();
            let deadline = patience.deadline(begun);
            // A system call, made only by those that wait.
            let before = unsent.unwrap_or_else(|| self.unsent());
            let wake = self.io.wait(events, Some(deadline), watch, false);
            patience.waited_since(begun);
            if wake != Wake::Overdue {
                return wake;
            }
            let at = Instant::now();
            if deadline > at || patience.has_ended(at) {
                return wake;
            }
            let now = self.unsent();
            if !patience.has_heard() && now >= before {
                return wake;
            }
            patience.taken(before.saturating_sub(now));
            unsent = Some(now);
        }
    }

    /// Bytes written that the other side has not acknowledged yet. A system call.
    pub fn unsent(&self) -> usize {
        let mut count: nix::libc::c_int = 0;
        // SAFETY: SIOCOUTQ (tcp(7)), which is TIOCOUTQ, writes one int to where the pointer leads.
        let outcome = unsafe {
            nix::libc::ioctl(
                self.io.socket.as_raw_fd(),
                nix::libc::TIOCOUTQ,
                &raw mut count,
            )
        };
        match outcome {
            0 => usize::try_from(count).unwrap_or_default(),
            _ => 0,
        }
    }

    /// Writes some bytes, once there is room; `None` when the other side has sent something first, with
    /// `until_readable`.
    pub(super) fn write_some(
        &self,
        patience: &Patience,
        until_readable: bool,
        watch: Watch<'_>,
        write: impl Fn(&Socket) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let events = match until_readable {
            true => WRITE | READ | READ_END,
            false => WRITE,
        };
        // Optimistic: a socket has room more often than not, so only a refusal leads to a wait.
        let mut waits = self.io.ready.get() & WRITE == 0;
        loop {
            if waits {
                match self.wait_for_room(events, patience, watch) {
                    Wake::Ready if self.io.ready.get() & (WRITE | GONE) != 0 => {}
                    Wake::Ready => return Ok(None),
                    Wake::Watched => return Err(io::ErrorKind::ConnectionAborted.into()),
                    _ => return Err(io::ErrorKind::TimedOut.into()),
                }
            }
            match write(&self.io.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    patience.moved(count);
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.used_up(WRITE);
                    waits = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Shuts down the sending side: tells the other side that nothing more comes.
    pub fn shutdown_write(&self) {
        // A connection that is gone already need not be told.
        let _ = self.io.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Makes the end of the connection a reset, so that the other side cannot take it for the proper
    /// end of what was sent.
    pub(crate) fn abort(&self) {
        // If it fails, the end is an ordinary one.
        let _ = self.io.socket.set_linger(Some(Duration::ZERO));
    }

    /// Undoes [`Self::abort`].
    pub(crate) fn cancel_abort(&self) {
        // If it fails, the end is a reset, which is the safer mistake.
        let _ = self.io.socket.set_linger(None);
    }

    /// Shuts down the receiving side: whoever waits for bytes (on a twin, too) sees the end. The other
    /// side is not told.
    pub(crate) fn shutdown_read(&self) {
        let _ = self.io.socket.shutdown(std::net::Shutdown::Read);
    }

    /// Ends both directions, so that whoever waits on this connection (a twin, too) sees its end.
    pub(crate) fn shutdown_both(&self) {
        let _ = self.io.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Resets the connection at once, whatever handles there are of it: the other side, and whoever waits
    /// on a twin, sees an error rather than an end, and what was not sent yet is gone (connect(2),
    /// `AF_UNSPEC`).
    pub fn reset(&self) {
        // One that is gone already need not be told.
        let _ = rustix::net::connect_unspec(&self.io.socket);
    }

    /// What others on this worker may do to the connection while somebody else waits on this handle.
    pub(crate) fn grip(&self) -> Grip {
        Grip(Rc::clone(&self.io))
    }

    /// Has the kernel look, when nothing moves for long, whether the other side is still there. Connections
    /// that were accepted have that from their listener.
    pub(crate) fn probe(&self) {
        // If it fails, other limits hold.
        let _ = probe(&self.io.socket);
    }

    /// Takes the connection from its worker, which holds nothing of it then.
    ///
    /// # Errors
    /// When somebody else still watches it, and descriptors run out.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        let io = Rc::clone(&self.io);
        drop(self);
        let socket = match Rc::try_unwrap(io) {
            Ok(Io { socket, .. }) => socket,
            Err(io) => io.socket.twin()?,
        };
        Ok(Detached { socket })
    }

    /// A second handle of the same connection, for a second coroutine of this worker: at most one
    /// may wait on each handle.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn twin(&self) -> io::Result<Self> {
        let socket = self.io.socket.twin()?;
        Detached { socket }.attach()
    }
}

/// A hold on a connection that somebody else on the same worker waits on.
pub(crate) struct Grip(Rc<Io>);

impl Grip {
    /// Ends the wait on the handle that it is of, or the next one, with [`Wake::Interrupted`], if that can be
    /// interrupted.
    pub(crate) fn interrupt(&self) {
        self.0.interrupt();
    }

    /// As [`Stream::reset`].
    pub(crate) fn reset(&self) {
        // One that is gone already need not be told.
        let _ = rustix::net::connect_unspec(&self.0.socket);
    }
}

/// Whether the other side of a stream keeps taking what was written, between one look and the next.
#[derive(Debug, Default)]
pub(crate) struct Uptake(Option<usize>);

impl Uptake {
    /// True when something was taken since the last look; at the first one, when something is still to
    /// be taken. So who has just taken the last of it has one more look's time. `unsent` is what is still
    /// to be taken.
    pub(crate) fn goes_on(&mut self, unsent: usize) -> bool {
        match self.0.replace(unsent) {
            Some(before) => unsent < before,
            None => unsent > 0,
        }
    }
}

/// A connection of a worker on which nobody waits.
pub struct Detached {
    pub(super) socket: WorkerSocket,
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Detached {
    /// Makes the connection one that can be waited on.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(Stream {
            io: Io::new(self.socket, WRITE)?,
        })
    }

    /// The connection for another process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// True when there is something to read, or the end.
    pub fn is_readable_now(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let flags = nix::libc::MSG_PEEK | nix::libc::MSG_DONTWAIT;
        let peeked = self.socket.recv_with_flags(&mut byte, flags);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Stream {
    /// Waits without an event, so that only the deadline or an interruption ends the wait.
    pub(super) fn pause_until(&self, deadline: Instant) {
        self.io.wait(0, Some(deadline), Watch::Nothing, true);
    }
}
