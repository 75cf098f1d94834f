//! The sockets and threads of the admin listeners, off the request path.
//!
//! Heads are read by the project's own HTTP code under its own limits, each connection serves one
//! request, and when there are too many at a time the oldest gives way, so that no client can block the
//! others.

use std::collections::VecDeque;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::admin::answer::{Body, PageResponse, refused};
use crate::admin::door::AdminDoor;
use crate::admin::pages::lists;
use crate::admin::requests;
use crate::admin::view::View;
use crate::error::{Refusal, reason_phrase};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::Limits;
use crate::memory::advice;
use crate::net::SharedPort;
use crate::process::supervised;

/// Limits of a request head. A listener of its own, so they need not be tuned.
const LIMITS: Limits = Limits {
    line: 4 * 1024,
    head: 8 * 1024,
    fields: 64,
};

/// Time for a whole request, and again for its answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Requests served at the same time.
const AT_ONCE: usize = 16;

/// When that many are being served, the oldest gives way to a new one, but not before this time: a
/// client that makes progress needs far less.
const PATIENCE: Duration = Duration::from_millis(100);

/// Listens on `addr`, the value of this key, or goes on with the socket that another process has listened
/// there with.
///
/// # Errors
/// The kernel's, with the address.
pub(crate) fn bind(
    key: &str,
    addr: SocketAddr,
    inherited: Option<OwnedFd>,
) -> io::Result<TcpListener> {
    let inherited = inherited.map(TcpListener::from);
    let listener = inherited.map_or_else(|| TcpListener::bind(addr), Ok);
    listener.map_err(|error| named(key, addr, &error))
}

/// As [`bind`], where these sockets are in the way and are about to be closed.
///
/// # Errors
/// As [`bind`].
pub(crate) fn bind_beside(
    key: &str,
    addr: SocketAddr,
    others: &[BorrowedFd<'_>],
) -> io::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        let shared = SharedPort::of(&socket, others)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        drop(shared);
        Ok(socket.into())
    };
    bind().map_err(|error| named(key, addr, &error))
}

/// As many as the standard library has.
const BACKLOG: i32 = 128;

fn named(key: &str, addr: SocketAddr, error: &io::Error) -> io::Error {
    let what = format!("cannot listen on {addr} ([admin] {key}): {error}");
    io::Error::new(error.kind(), what)
}

/// Waits for a connection; false once the other end of `end` is closed: what waits is another process's then.
fn is_open(listener: &Socket, end: &PipeReader) -> bool {
    let mut both = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(end, PollFlags::IN),
    ];
    // An error is told by the accept that follows.
    let _ = poll(&mut both, None);
    both[1].revents().is_empty()
}

/// Serves `listener`, as this door allows, until the other end of `end` is closed.
///
/// # Errors
/// When its thread cannot be started.
pub(crate) fn serve(
    listener: impl Into<Socket>,
    door: AdminDoor,
    view: &Arc<View>,
    end: PipeReader,
) -> io::Result<()> {
    let (listener, view) = (listener.into(), Arc::clone(view));
    listener.set_nonblocking(true)?;
    let (done, slots) = crossbeam_channel::bounded(AT_ONCE);
    for _ in 0..AT_ONCE {
        // There is room for exactly so many.
        let _ = done.send(());
    }
    supervised::spawn("admin", move || {
        let mut served = VecDeque::new();
        while is_open(&listener, &end) {
            let stream = match listener.accept() {
                Ok((stream, _)) => Arc::new(stream),
                // At an upgrade, another process was faster.
                Err(error) if is_no_end(&error) => continue,
                Err(error) => {
                    log::error!("admin-accept-failed error={:?}", error.to_string());
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            take_slot(&slots, &mut served);
            served.push_back(Served {
                since: Instant::now(),
                stream: Arc::downgrade(&stream),
            });
            let (view, slot) = (Arc::clone(&view), Slot(done.clone()));
            let serve = move || {
                // The slot is returned last.
                let (_slot, stream) = (slot, stream);
                // The client has gone.
                let _ = attend(&view, door, &stream);
            };
            let thread = std::thread::Builder::new().name("admin-request".to_owned());
            let started = advice::room_for_thread().and_then(|()| thread.spawn(serve));
            if let Err(error) = started {
                log::error!("admin-thread-failed error={:?}", error.to_string());
            }
        }
    })?;
    Ok(())
}

/// A connection for which there may be a thread.
struct Served {
    since: Instant,
    stream: Weak<Socket>,
}

/// Waits for the right to serve one more request; ends the oldest connection if none comes free.
fn take_slot(slots: &Receiver<()>, served: &mut VecDeque<Served>) {
    served.retain(|it| it.stream.strong_count() > 0);
    let oldest = served.front();
    let patience = oldest.map_or(PATIENCE, |it| PATIENCE.saturating_sub(it.since.elapsed()));
    if slots.recv_timeout(patience).is_ok() {
        return;
    }
    if let Some(stream) = served.pop_front().and_then(|it| it.stream.upgrade()) {
        // Its thread, which reads or writes, finds the connection closed.
        let _ = stream.shutdown(Shutdown::Both);
    }
    // Never an error: the caller holds a sender.
    let _ = slots.recv();
}

/// The right to serve one request; given back however that ends.
struct Slot(Sender<()>);

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Reads one request, and answers it.
fn attend(view: &View, door: AdminDoor, mut stream: &Socket) -> io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    let (mut bytes, mut scanner) = (Vec::new(), Scanner::default());
    let mut head = RequestHead::default();
    let answer = loop {
        match head.parse(&bytes, &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => {
                // Whoever comes by a Unix socket has no address.
                let from = stream.peer_addr().ok().and_then(|it| it.as_socket());
                break requests::answer_to(view, door, &head, &bytes, from);
            }
            Ok(Parsed::Incomplete) => {}
            Err(refusal) => break refused(refusal),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break refused(Refusal::HeadTimeout);
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if is_no_end(&error) => {}
            Err(error) => return Err(error),
        }
    };
    // A refused head has not been parsed.
    let is_head = bytes.starts_with(b"HEAD ");
    send(stream, answer, is_head)?;
    stream.shutdown(Shutdown::Write)?;
    drain(stream, deadline)
}

/// Writes `answer`, to a HEAD without its body.
fn send(stream: &Socket, answer: PageResponse, is_head: bool) -> io::Result<()> {
    let PageResponse {
        status,
        kind,
        allow,
        mut body,
    } = answer;
    let more = match status {
        401 => "WWW-Authenticate: Bearer realm=\"graygate\"\r\n".to_owned(),
        405 => format!("Allow: {allow}\r\n"),
        _ => String::new(),
    };
    let length = body.len()?;
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        reason_phrase(status),
    );
    let kept = match &body {
        Body::Lists(page) => Some(page.kept()),
        Body::Text(_) => None,
    };
    let timed = DeadlineWriter {
        stream,
        deadline: Instant::now() + TIME_LIMIT,
        kept,
    };
    let mut out = BufWriter::with_capacity(BUFFER, timed);
    out.write_all(head.as_bytes())?;
    if !is_head {
        body.write(&mut out)?;
    }
    out.flush()
}

/// Room for what is about to be written, in bytes.
const BUFFER: usize = 16 * 1024;

/// Writes as the stream does, but the time is limited as a whole and not for each piece.
struct DeadlineWriter<'a> {
    stream: &'a Socket,
    deadline: Instant,
    /// Released in time, however long the stream takes nothing.
    kept: Option<lists::ListsBeingRead>,
}

impl Write for DeadlineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            let left = self.deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let kept_until = self.kept.as_ref().and_then(|it| it.let_go(now));
            let pause = kept_until.map_or(left, |until| left.min(until - now));
            self.stream.set_write_timeout(Some(pause))?;
            match self.stream.write(bytes) {
                Err(error) if is_no_end(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether to try again, within the deadline. A signal such as SIGHUP may have been delivered to this
/// thread; with a time limit, the kernel does not restart the call.
fn is_no_end(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

/// Reads what else was sent, since closing with unread bytes would reset the connection before the
/// answer is read.
fn drain(mut stream: &Socket, deadline: Instant) -> io::Result<()> {
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_no_end(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::lists::Lists;
    use crate::upstream::in_force::InForce;

    #[test]
    fn a_client_that_takes_nothing_does_not_keep_lists_that_were_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Socket::from(listener.accept().unwrap().0);
        let in_force = Arc::new(InForce::new(1));
        let until = Instant::now() + Duration::from_millis(50);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut timed = DeadlineWriter {
                    stream: &stream,
                    deadline: Instant::now() + Duration::from_secs(3600),
                    kept: Some(lists::ListsBeingRead::new(
                        &in_force,
                        &crate::lists::ServiceName::default(),
                        in_force.load(),
                        until,
                    )),
                };
                in_force.store(Lists::unread());
                while timed.write(&[0; 4096]).is_ok() {}
            });
            while Instant::now() < until || in_force.kept() > 1 {
                assert!(until.elapsed() < Duration::from_secs(10), "still kept");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!writer.is_finished());
            // With what it has not read: the writer meets a reset.
            drop(client);
        });
    }
}
