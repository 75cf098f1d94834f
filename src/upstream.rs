//! The way to the peers: choosing one, connecting, and keeping connections for the next request.

pub(crate) mod choose;
pub mod peer;
pub mod pool;
