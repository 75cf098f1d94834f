//! One server of a pool.

use std::fmt;
use std::net::SocketAddr;

/// One server of a pool, as in a list. It is identified by its address, and no list contains it twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// A server at `address`.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where to connect to, and its name in logs.
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
