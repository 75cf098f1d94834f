//! The way to the peers: connecting, and keeping connections for the next request.

pub mod peer;
pub mod pool;
