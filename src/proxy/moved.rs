//! Connections that go on in another process: between two requests, a connection is a descriptor and a few
//! words.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;

/// A connection between two requests.
#[derive(Debug)]
pub(crate) struct MovedConnection {
    /// Its socket.
    pub(crate) socket: OwnedFd,
    /// The address that the ini file names, of the listener that it came to.
    pub(crate) listener: SocketAddr,
    /// What is known of it.
    pub(crate) past: ConnectionPast,
}

/// What is known of a connection that is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionPast {
    /// The address of the socket's other side, or what the PROXY protocol says it is.
    pub(crate) client: IpAddr,
    /// Forwarding fields are believed if the other side is a trusted proxy.
    pub(crate) vouched: bool,
    /// Requests served.
    pub(crate) served: u64,
    /// When the last request ended; before the first one, since when that may come.
    pub(crate) since: Instant,
    /// Bytes of an empty line that have arrived since then.
    pub(crate) line: usize,
    /// The PROXY protocol's header is still to come.
    pub(crate) header_due: bool,
}

/// The process that goes on with connections, instead of their end in a drain; there may be none.
#[derive(Debug, Default)]
pub struct Heir {
    inbox: OnceLock<Sender<Option<MovedConnection>>>,
    is_lost: AtomicBool,
}

impl Heir {
    /// Whatever comes to this inbox goes on elsewhere. There is one upgrade in the life of a process.
    pub(crate) fn appoint(&self, inbox: Sender<Option<MovedConnection>>) {
        // It cannot have been set before.
        let _ = self.inbox.set(inbox);
    }

    /// It has gone, and so has every other one.
    pub(crate) fn is_lost(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// Its inbox, if there is one.
    pub(crate) fn get(&self) -> Option<&Sender<Option<MovedConnection>>> {
        let inbox = self.inbox.get()?;
        (!self.is_lost.load(Ordering::Acquire)).then_some(inbox)
    }
}
