//! The gateways on one Redis, as they know of each other.
//!
//! Each writes a key with a time to live ([`heartbeat`]) that says who it is and what it holds
//! ([`node`]), and its name into an index, so that nobody has to search the server for the others
//! ([`nodes`]). Nothing here reads or changes the lists.

pub mod heartbeat;
pub(crate) mod index;
pub mod node;
pub mod nodes;
