//! Memory that one request needs.

use std::net::SocketAddr;

use super::logged_head::LoggedHead;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::chunked::Trailer;
use crate::http::h1::head::{RequestHead, ResponseHead};
use crate::lists::Scratch;

/// Memory that one request needs, reused from request to request so that a request allocates
/// nothing.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) request: RequestHead,
    pub(super) request_options: ConnectionOptions,
    /// What the gray list has asked of the request.
    pub(super) scratch: Scratch,
    /// The head for the peer, with a small body.
    pub(super) to_peer: Vec<u8>,
    /// The protocols that the client asks for.
    pub(super) asked: Vec<u8>,
    /// What is to be written next to the peer.
    pub(super) pending: Vec<u8>,
    pub(super) response: ResponseHead,
    pub(super) response_options: ConnectionOptions,
    /// What is to be written next to the client.
    pub(super) to_client: Vec<u8>,
    pub(super) trailer: Trailer,
    /// Peers tried.
    pub(super) tried: Vec<SocketAddr>,
    /// What the access log says of the request.
    pub(super) logged: LoggedHead,
}

impl Workspace {
    /// How much memory it has for what is written and noted.
    pub(super) fn bytes(&self) -> usize {
        let written = [&self.to_peer, &self.asked, &self.pending, &self.to_client];
        written.map(Vec::capacity).iter().sum::<usize>()
            + self.logged.capacity()
            + self.scratch.capacity()
    }
}
