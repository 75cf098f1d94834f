//! Memory that one request needs.

use std::net::SocketAddr;

use super::logged_head::LoggedHead;
use crate::http::fields::ConnectionOptions;
use crate::http::h1::chunked::Trailer;
use crate::http::h1::head::{RequestHead, ResponseHead};
use crate::lists::{PoolName, Scratch};

/// The mark in the head for a peer.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// Where it begins.
    pub(super) at: usize,
    /// The pool that it names.
    pub(super) pool: PoolName,
}

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
    /// The mark in it, if there is one.
    pub(super) mark: Option<Mark>,
    /// The protocols that the client asks for.
    pub(super) asked: Vec<u8>,
    /// The head of a request that may become a tunnel to `pre`, as it was received.
    pub(super) asking: Vec<u8>,
    /// What is to be written next to the peer.
    pub(super) pending: Vec<u8>,
    pub(super) response: ResponseHead,
    pub(super) response_options: ConnectionOptions,
    /// What is to be written next to the client.
    pub(super) to_client: Vec<u8>,
    /// Lines of the gateway's own for the head of the response.
    pub(super) added: Vec<u8>,
    pub(super) trailer: Trailer,
    /// Peers tried.
    pub(super) tried: Vec<SocketAddr>,
    /// What the access log says of the request.
    pub(super) logged: LoggedHead,
}

impl Workspace {
    /// How much memory it has for what is written and noted.
    pub(super) fn bytes(&self) -> usize {
        let written = [
            &self.to_peer,
            &self.asked,
            &self.asking,
            &self.pending,
            &self.to_client,
            &self.added,
        ];
        written.map(Vec::capacity).iter().sum::<usize>()
            + self.logged.capacity()
            + self.scratch.capacity()
    }

    /// Has the mark in the head for the peer name `pool`, if there is one. Returns by how much the head has
    /// grown.
    #[inline]
    pub(super) fn mark_with(&mut self, pool: PoolName) -> isize {
        match self.mark {
            Some(mark) if mark.pool != pool => self.mark_anew(mark, pool),
            _ => 0,
        }
    }

    #[cold]
    fn mark_anew(&mut self, mark: Mark, pool: PoolName) -> isize {
        let (old, new) = (mark.pool.name(), pool.name());
        let place = mark.at..mark.at + old.len();
        self.to_peer.splice(place, new.bytes());
        self.mark = Some(Mark { pool, ..mark });
        new.len().cast_signed() - old.len().cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_changed_in_its_place_as_often_as_need_be() {
        let head = |pool: &str| format!("GET / HTTP/1.1\r\nX-Graygate-Pool: {pool}\r\n\r\nbody");
        let text = head("pre");
        let at = text.find("pre").unwrap();
        let pool = PoolName::Pre;
        let mut workspace = Workspace {
            to_peer: text.into_bytes(),
            mark: Some(Mark { at, pool }),
            ..Workspace::default()
        };
        for (pool, grown) in [
            (PoolName::Pre, 0),
            (PoolName::Prod, 1),
            (PoolName::Prod, 0),
            (PoolName::Pre, -1),
        ] {
            assert_eq!(workspace.mark_with(pool), grown);
            assert_eq!(workspace.to_peer, head(pool.name()).as_bytes());
        }
        let mut without = Workspace::default();
        assert_eq!(without.mark_with(PoolName::Prod), 0);
        assert!(without.to_peer.is_empty());
    }
}
