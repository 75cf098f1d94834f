//! The lists of several services that change at random, and a model of what may be in force. The model
//! decides by code of its own, so that a fault of the gateway's cannot hide behind the same fault here.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

pub(crate) mod chance;
pub(crate) mod driver;
pub(crate) mod entries;
pub(crate) mod explained;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod requests;
pub(crate) mod services;
pub(crate) mod traffic;
