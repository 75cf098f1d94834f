//! A listening socket that this gateway has, as others are told of it.

use std::os::fd::OwnedFd;

/// A listening socket.
pub(super) struct OpenSocket {
    pub(super) kind: &'static str,
    /// The address or the path that the ini file names.
    pub(super) asked: String,
    pub(super) socket: OwnedFd,
}
