//! Graygate.
pub mod buffer;
pub mod error;
pub mod http;
pub mod metrics;
pub mod net;
pub mod snapshot;
