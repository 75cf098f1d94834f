//! Connecting to one peer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::Failure;
use crate::net::{Stream, Watch};

/// Connects to `peer` within `limit`; gives up when `downstream` is gone.
///
/// # Errors
/// The failure's name, with the kernel's word for the log.
pub fn connect(
    peer: SocketAddr,
    limit: Duration,
    downstream: &Stream,
) -> Result<Stream, (Failure, io::Error)> {
    let deadline = Instant::now() + limit;
    Stream::connect(peer, deadline, Watch::Gone(downstream)).map_err(|error| {
        let failure = match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
            io::ErrorKind::TimedOut => Failure::ConnectTimeout,
            io::ErrorKind::ConnectionAborted => Failure::ClientGone,
            _ => Failure::ConnectFailed,
        };
        (failure, error)
    })
}
