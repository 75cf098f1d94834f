//! Connections that go on in another process: between two requests, a connection is a descriptor and a few
//! words.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// A connection between two requests.
#[derive(Debug)]
pub struct MovedConnection {
    /// Its socket.
    pub(crate) socket: OwnedFd,
    /// The address that the ini file names, of the listener that it came to.
    pub(crate) listener: SocketAddr,
    /// What is known of it.
    pub(crate) past: ConnectionPast,
}

/// What is known of a connection that is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionPast {
    /// The address of the socket's other side, or what the PROXY protocol says it is.
    pub(crate) client: IpAddr,
    /// Forwarding fields are believed if the other side is a trusted proxy.
    pub(crate) vouched: bool,
    /// Requests served.
    pub(crate) served: u64,
    /// When the last request ended; before the first one, since when that may come.
    pub(crate) since: Instant,
    /// Bytes of an empty line that have arrived since then.
    pub(crate) line: usize,
}
