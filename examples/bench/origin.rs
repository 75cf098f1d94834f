//! The servers behind the proxies: one thread that listens on two ports, or more.
//!
//! It is made to cost little and the same for all: a small answer is one write, a big one goes by
//! sendfile from memory, and bodies of requests are read to their end, but not copied. Only then are
//! they answered: a proxy that sees an early answer behaves differently.

mod answers;
mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use answers::Answers;
use connection::{Connection, Step};

use crate::poll::Poll;

/// What one connection may move before the others have their turn.
const BUDGET: u64 = 256 << 10;
/// The longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// Pause between two closes of [`Manner::Closes`], on average.
const CLOSE: Duration = Duration::from_millis(10);
/// Looks for a connection that is idle, for each close.
const LOOKS: usize = 32;

/// How a server treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Answers,
    /// It takes connections and requests, and never says anything.
    Hangs,
    /// It answers one of three requests, by chance, with a reset.
    Resets,
    /// It answers, and closes connections that wait for their next request at random moments.
    Closes,
}

/// A running origin with so many servers, until it is dropped.
pub(crate) struct Origin<const N: usize = 2> {
    pub(crate) addresses: [SocketAddr; N],
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Origin {
    pub(crate) fn start() -> io::Result<Self> {
        Self::of([Manner::Answers; 2])
    }
}

impl<const N: usize> Origin<N> {
    pub(crate) fn of(manners: [Manner; N]) -> io::Result<Self> {
        let mut addresses = [SocketAddr::from(([0, 0, 0, 0], 0)); N];
        let mut listeners = Vec::new();
        for (address, manner) in addresses.iter_mut().zip(manners) {
            let listener = listen()?;
            *address = listener.local_addr()?;
            listeners.push((listener, manner));
        }
        let end = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&end);
        let thread = std::thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || serve(&listeners, &until))?;
        Ok(Self {
            addresses,
            end,
            thread: Some(thread),
        })
    }

    /// False when it has ended by itself, so that nothing measured since then counts.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }
}

impl<const N: usize> Drop for Origin<N> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into())?;
    // More than the proxies connect at once.
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn serve(listeners: &[(TcpListener, Manner)], end: &AtomicBool) -> io::Result<()> {
    let answers = Answers::new()?;
    let mut poll = Poll::new()?;
    for (key, (listener, _)) in listeners.iter().enumerate() {
        poll.add(listener, key)?;
    }
    // The listeners have the first keys.
    let mut connections: Vec<Option<Connection>> = listeners.iter().map(|_| None).collect();
    let mut free = Vec::new();
    // Those whose budget is used up.
    let mut again: Vec<usize> = Vec::new();
    let mut scratch = vec![0; MAX_HEAD];
    let mut sink = vec![0; BUDGET as usize];
    let closes = listeners.iter().any(|(_, it)| *it == Manner::Closes);
    let mut close_at = closes.then(Instant::now);
    while !end.load(Ordering::Relaxed) {
        let patience = if again.is_empty() { 50 } else { 0 };
        let count = poll.wait(Duration::from_millis(patience))?;
        let mut turn = std::mem::take(&mut again);
        for at in 0..count {
            let (key, gone) = poll.event(at);
            if let Some((listener, manner)) = listeners.get(key) {
                accept(listener, *manner, &poll, &mut connections, &mut free)?;
            } else if let Some(connection) = &mut connections[key] {
                connection.note_event(gone);
                turn.push(key);
            }
        }
        for key in turn {
            let Some(connection) = &mut connections[key] else {
                continue;
            };
            match connection.advance(&answers, &mut scratch, &mut sink) {
                Ok(Step::Wait) => {}
                Ok(Step::Again) => again.push(key),
                // What a peer does wrong shows at the client.
                Ok(Step::End) | Err(_) => {
                    connections[key] = None;
                    free.push(key);
                }
            }
        }
        if close_at.is_some_and(|it| Instant::now() >= it) {
            close_one(&mut connections, &mut free);
            close_at = Some(Instant::now() + CLOSE.mul_f64(2.0 * fastrand::f64()));
        }
    }
    Ok(())
}

/// Closes one that waits for its next request, which may just be on its way.
fn close_one(connections: &mut [Option<Connection>], free: &mut Vec<usize>) {
    for _ in 0..LOOKS {
        let key = fastrand::usize(..connections.len());
        if connections[key]
            .as_ref()
            .is_some_and(Connection::may_be_closed)
        {
            connections[key] = None;
            free.push(key);
            return;
        }
    }
}

fn accept(
    listener: &TcpListener,
    manner: Manner,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poll.add(&stream, key)?;
        connections[key] = Some(Connection::new(stream, manner));
    }
}
