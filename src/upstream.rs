//! Connections to peers: choosing a peer, connecting, and keeping idle connections for the next request.

pub(crate) mod budget;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod check_counts;
pub(crate) mod choose;
pub(crate) mod events;
mod hash;
pub(crate) mod health;
pub mod in_force;
pub(crate) mod names;
mod outage;
pub(crate) mod peer;
pub mod pool;
pub(crate) mod roster;
pub(crate) mod serving;
pub mod units;
pub(crate) mod watch;
