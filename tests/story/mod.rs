//! A whole release: gateways on one Redis, servers of both versions, clients that ask all the time, people
//! who are told, and what was in force when.

pub(crate) mod crowd;
pub(crate) mod fleet;
pub(crate) mod model;
pub(crate) mod watch;
pub(crate) mod world;
