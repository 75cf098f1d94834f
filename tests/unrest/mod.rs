//! Clients that go on and on, servers that fail in every way, and what must be true of it all at the end.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

pub(crate) mod accounts;
pub(crate) mod clients;
pub(crate) mod peer;
pub(crate) mod troubles;
