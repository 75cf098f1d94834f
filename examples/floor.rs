//! The floor under the cost of a proxy: one thread that copies bytes both ways between each
//! connection that it accepts and one connection to an origin, and knows no HTTP.
//!
//! `floor LISTEN ORIGIN...`, all of them `address:port`; connections go to the origins in turn.
//!
//! A request costs it one read and one write each way, and its share of an epoll wait. What is read
//! is written at once. Only where a side takes no more does the interest in events change: no more is
//! read from the other side until the rest is written. It has no timeouts and no limits, so it is a
//! measure and nothing to put before a server.

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::{env, io};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown, sockopt};

/// Large, since the cost of a big body falls with it; there is only one.
const BUFFER: usize = 256 * 1024;
const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Result<Vec<SocketAddr>, _> = env::args().skip(1).map(|it| it.parse()).collect();
    let addresses = addresses?;
    let [listen, origins @ ..] = &addresses[..] else {
        return Err("floor LISTEN ORIGIN...".into());
    };
    if origins.is_empty() {
        return Err("floor: no origin".into());
    }
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let mut forwarder = Forwarder::new(origins.to_vec())?;
    let watched = EventData::new_u64(LISTENER);
    epoll::add(&forwarder.epoll, &listener, watched, EventFlags::IN)?;
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&forwarder.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => forwarder.accept(&listener)?,
                key => forwarder.serve(key, event.flags),
            }
        }
        // Not sooner: an event of the same batch may still name them.
        forwarder.free.append(&mut forwarder.ended);
    }
}

/// One of the two connections of a pair.
struct Side {
    socket: OwnedFd,
    /// What it has not taken yet of what the other side sent.
    pending: Vec<u8>,
    /// It sends no more.
    ended: bool,
    interest: EventFlags,
}

impl Side {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            pending: Vec::new(),
            ended: false,
            interest: EventFlags::IN,
        }
    }
}

/// The key of a side in epoll is twice the place of its pair, and one more for the origin's side.
struct Forwarder {
    epoll: OwnedFd,
    origins: Vec<SocketAddr>,
    accepted: usize,
    pairs: Vec<Option<[Side; 2]>>,
    free: Vec<usize>,
    ended: Vec<usize>,
    buffer: Vec<u8>,
}

impl Forwarder {
    fn new(origins: Vec<SocketAddr>) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            origins,
            accepted: 0,
            pairs: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    /// Accepts what waits. An origin that cannot be reached ends the program.
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let client = match accept_with(listener, flags) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // It blocks, but on one machine no longer than the call itself takes.
            let origin = TcpStream::connect(self.origins[self.accepted % self.origins.len()])?;
            self.accepted += 1;
            origin.set_nonblocking(true)?;
            let sides = [client, origin.into()];
            let place = self.free.pop().unwrap_or_else(|| {
                self.pairs.push(None);
                self.pairs.len() - 1
            });
            for (at, socket) in sides.iter().enumerate() {
                sockopt::set_tcp_nodelay(socket, true)?;
                let key = EventData::new_u64((2 * place + at) as u64);
                epoll::add(&self.epoll, socket, key, EventFlags::IN)?;
            }
            self.pairs[place] = Some(sides.map(Side::new));
        }
    }

    fn serve(&mut self, key: u64, flags: EventFlags) {
        let (place, at) = (key as usize / 2, key as usize % 2);
        // It may have ended by an event of the same batch.
        let Some(pair) = &mut self.pairs[place] else {
            return;
        };
        let outcome = advance(pair, at, flags, &mut self.buffer)
            .and_then(|goes_on| watch(&self.epoll, place, pair).map(|()| goes_on));
        if !matches!(outcome, Ok(true)) {
            self.pairs[place] = None;
            self.ended.push(place);
        }
    }
}

/// False when both sides have ended and all is written.
fn advance(
    pair: &mut [Side; 2],
    at: usize,
    flags: EventFlags,
    buffer: &mut [u8],
) -> Result<bool, Errno> {
    if flags.contains(EventFlags::OUT) {
        flush(pair, at)?;
    }
    let other = 1 - at;
    let may_read = pair[other].pending.is_empty() && !pair[at].ended;
    if may_read && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
        match read(&pair[at].socket, &mut *buffer) {
            Ok(0) => {
                pair[at].ended = true;
                shutdown(&pair[other].socket, Shutdown::Write)?;
            }
            Ok(count) => send(&mut pair[other], &buffer[..count])?,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(!pair.iter().all(|it| it.ended && it.pending.is_empty()))
}

/// Writes, and keeps what is not taken.
fn send(side: &mut Side, bytes: &[u8]) -> Result<(), Errno> {
    let taken = match write(&side.socket, bytes) {
        Err(Errno::AGAIN | Errno::INTR) => 0,
        outcome => outcome?,
    };
    side.pending.extend_from_slice(&bytes[taken..]);
    Ok(())
}

fn flush(pair: &mut [Side; 2], at: usize) -> Result<(), Errno> {
    let pending = std::mem::take(&mut pair[at].pending);
    send(&mut pair[at], &pending)
}

/// Makes the interest of both sides what it should be, with a system call only where it changes.
fn watch(epoll: &OwnedFd, place: usize, pair: &mut [Side; 2]) -> Result<(), Errno> {
    for at in [0, 1] {
        let mut wanted = EventFlags::empty();
        if !pair[at].ended && pair[1 - at].pending.is_empty() {
            wanted |= EventFlags::IN;
        }
        if !pair[at].pending.is_empty() {
            wanted |= EventFlags::OUT;
        }
        let side = &mut pair[at];
        if wanted != side.interest {
            let key = EventData::new_u64((2 * place + at) as u64);
            epoll::modify(epoll, &side.socket, key, wanted)?;
            side.interest = wanted;
        }
    }
    Ok(())
}
