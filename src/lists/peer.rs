//! One server of a pool.

use std::fmt;
use std::net::SocketAddr;

/// One server of a pool, as a list holds it. In a list it is known by its address, and in no list twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// A server at `address`.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where to connect to, and what it is called in logs.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Its address.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
