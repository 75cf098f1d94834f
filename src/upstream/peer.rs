//! Connecting to one peer.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::error::Failure;
use crate::net::{self, Stream, Watch};

/// Connects to `peer` until the `deadline`; gives up when what is watched happens: that the `client` is gone.
///
/// # Errors
/// The kernel's; `failure_of` names them.
pub(crate) fn connect(
    peer: SocketAddr,
    deadline: Instant,
    client: Watch<'_>,
) -> io::Result<Stream> {
    Stream::connect(peer, deadline, client)
}

/// The name of an error of [`connect`].
pub(crate) fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
        io::ErrorKind::AddrNotAvailable => Failure::OutOfPorts,
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        io::ErrorKind::ConnectionAborted => Failure::ClientGone,
        _ if net::is_out_of_descriptors(error) => Failure::OutOfDescriptors,
        _ => Failure::ConnectFailed,
    }
}
