//! The way from one gateway to Redis: it can be cut, so that connections are reset, or hang, so that bytes
//! are held and arrive when it is well again.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    Hung,
    Cut,
}

/// Which process of which gateway a connection of Redis is of, by its address. Each gateway has a host of its
/// own, so that nobody else has one of these.
pub(crate) type Writers = Arc<Mutex<HashMap<SocketAddr, Writer>>>;

/// A process of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) node: usize,
    /// The how many-th of its processes.
    pub(crate) process: u32,
}

pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    writer: Writer,
    open: Vec<Weak<[TcpStream; 2]>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while it hangs; true if it is open then.
    fn is_open(&self) -> bool {
        let state = self.state();
        let state = self.changed.wait_while(state, |it| it.way == Way::Hung);
        state.unwrap_or_else(PoisonError::into_inner).way == Way::Open
    }

    fn pump(&self, streams: &[TcpStream; 2], from: usize) {
        let mut bytes = [0; 16 * 1024];
        let (mut source, mut sink) = (&streams[from], &streams[1 - from]);
        while let Ok(count @ 1..) = source.read(&mut bytes) {
            if !self.is_open() || sink.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // An end travels no faster than bytes.
        let _ = self.is_open();
        let _ = sink.shutdown(Shutdown::Both);
    }
}

impl Forwarder {
    /// One for this node, from a free address to `target`.
    pub(crate) fn start(node: usize, target: SocketAddr, writers: &Writers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                way: Way::Open,
                writer: Writer { node, process: 0 },
                open: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let (own, writers) = (Arc::clone(&shared), Arc::clone(writers));
        let host = Ipv4Addr::new(127, 77, 0, 1 + u8::try_from(node).unwrap());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                // Whoever was ended meanwhile is forgotten.
                if !own.is_open() {
                    reset(&client);
                    continue;
                }
                let Ok(server) = connect_from(host, target) else {
                    reset(&client);
                    continue;
                };
                let mut state = own.state();
                let from = server.local_addr().unwrap();
                writers.lock().unwrap().insert(from, state.writer);
                let streams = Arc::new([client, server]);
                state.open.retain(|it| it.strong_count() > 0);
                state.open.push(Arc::downgrade(&streams));
                drop(state);
                for from in [0, 1] {
                    let (own, streams) = (Arc::clone(&own), Arc::clone(&streams));
                    std::thread::spawn(move || own.pump(&streams, from));
                }
            }
        });
        Self { address, shared }
    }

    /// From now on it is like that.
    pub(crate) fn set(&self, way: Way) {
        let mut state = self.shared.state();
        state.way = way;
        if way == Way::Cut {
            for streams in state.open.drain(..).filter_map(|it| it.upgrade()) {
                streams.iter().for_each(reset);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Connections from now on are those of the next process.
    pub(crate) fn of_process(&self, process: u32) {
        self.shared.state().writer.process = process;
    }
}

fn connect_from(host: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((host, 0)).into())?;
    socket.connect_timeout(&target.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
