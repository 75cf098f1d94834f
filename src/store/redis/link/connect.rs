//! Reaching the other side: one of the addresses of its host.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::resolver::resolve;
use super::stream::left;
use crate::config::Address;

/// Connects to the first of the host's addresses that accepts, and says which.
pub(super) fn connect(
    address: &Address,
    until: Instant,
) -> io::Result<(Socket, Option<SocketAddr>)> {
    let (host, port) = match address {
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::unix(path)?, left(until)?)?;
            return Ok((socket, None));
        }
        Address::Tcp { host, port, .. } => (host, *port),
    };
    let addresses = resolve(host, port, until)?;
    let mut complaints = Vec::new();
    for (at, peer) in addresses.iter().enumerate() {
        // One that does not answer must leave time for the others.
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match left(until).and_then(|left| connect_to(*peer, left / others)) {
            Ok(socket) => return Ok((socket, Some(*peer))),
            Err(error) if !address.is_name() => return Err(error),
            Err(error) => complaints.push(format!("{peer}: {error}")),
        }
    }
    // In the same order each time, so that the log says it once.
    complaints.sort();
    Err(io::Error::other(match complaints.is_empty() {
        true => "the host has no address".to_owned(),
        false => complaints.join(", "),
    }))
}

/// Connects to this one address.
pub(super) fn connect_to(address: SocketAddr, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.connect_timeout(&address.into(), limit)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}
