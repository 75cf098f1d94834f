//! Connections to peers: choosing a peer, connecting, and keeping idle connections for the next request.

pub(crate) mod choose;
pub mod peer;
pub mod pool;
