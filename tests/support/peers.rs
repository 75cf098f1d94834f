//! Addresses that no origin answers on, and what the gateway shows of peers.

use std::fmt::{self, Display};
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// An address that refuses connections for as long as this lives: bound, so that nobody else
/// gets the port, but not listening. It displays as its address.
#[derive(Debug)]
pub(crate) struct RefusingPeer {
    address: SocketAddr,
    socket: Socket,
}

impl RefusingPeer {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for RefusingPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// An address that lets every connection attempt hang: its accept queue is full, so the system
/// drops what else arrives. It displays as its address.
#[derive(Debug)]
pub(crate) struct DeafPeer {
    address: SocketAddr,
    listener: TcpListener,
    queued: Vec<Socket>,
}

impl DeafPeer {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        // The queue takes one more than its size; what is behind that hangs as the gateway will.
        for _ in 0..4 {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address.into());
            queued.push(client);
        }
        Self {
            address,
            listener: socket.into(),
            queued,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for DeafPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The pool of this name on a page of `/peers`.
pub(crate) fn pool_on(page: &Value, name: &str) -> Value {
    let mut pools = page["pools"].as_array().unwrap().iter();
    pools.find(|it| it["pool"] == name).unwrap().clone()
}

/// The one peer at this address on a page of `/peers`.
#[track_caller]
pub(crate) fn peer_on(page: &Value, pool: &str, address: impl Display) -> Value {
    let (pool, address) = (pool_on(page, pool), address.to_string());
    let mut peers = pool["peers"].as_array().unwrap().iter();
    let found = peers.find(|it| it["address"] == address.as_str());
    found.unwrap_or_else(|| panic!("{address}: {page}")).clone()
}
