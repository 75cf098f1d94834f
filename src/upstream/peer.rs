//! Connecting to one peer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pool::Pool;
use crate::error::Failure;
use crate::net::{self, Stream, Watch};

/// Connects to `peer` within `limit`; gives up when `downstream` is gone. When descriptors have run
/// out, the idle connections of `pool` give way.
///
/// # Errors
/// The failure's name, with the kernel's word for the log.
pub fn connect(
    peer: SocketAddr,
    limit: Duration,
    downstream: &Stream,
    pool: &Pool,
) -> Result<Stream, (Failure, io::Error)> {
    let deadline = Instant::now() + limit;
    let connect = || Stream::connect(peer, deadline, Watch::Gone(downstream));
    let outcome = match connect() {
        Err(error) if net::is_out_of_descriptors(&error) && pool.clear() => connect(),
        outcome => outcome,
    };
    outcome.map_err(|error| {
        let failure = match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
            io::ErrorKind::TimedOut => Failure::ConnectTimeout,
            io::ErrorKind::ConnectionAborted => Failure::ClientGone,
            _ => Failure::ConnectFailed,
        };
        (failure, error)
    })
}
