//! Connections to peers: choosing a peer, connecting, and keeping idle connections for the next request.

pub mod budget;
pub mod changes;
pub mod check;
pub mod choose;
pub(crate) mod events;
mod hash;
pub mod health;
pub mod in_force;
pub mod names;
pub mod peer;
pub mod pool;
pub mod roster;
pub mod watch;
