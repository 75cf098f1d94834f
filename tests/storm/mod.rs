//! Three gateways on one Redis, all of which may fail at any moment, and a model of what a release may go
//! through meanwhile. The model reads what Redis was told, by `MONITOR`, so that no write escapes it.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

pub(crate) mod clients;
pub(crate) mod clock;
pub(crate) mod desk;
pub(crate) mod driver;
pub(crate) mod forwarder;
pub(crate) mod model;
pub(crate) mod monitor;
pub(crate) mod node;
pub(crate) mod server;
pub(crate) mod version;

/// So many gateways.
pub(crate) const NODES: usize = 3;
