//! An address at which the gateway listens, as its connections know it: they outlive it when a reload
//! removes it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Listen;
use crate::logs::access::OwnLines;

/// An address at which the gateway listens, or has listened.
#[derive(Debug)]
pub struct Listening {
    /// As the ini file has it.
    asked: SocketAddr,
    /// Connections begin with a PROXY protocol header.
    proxy: AtomicBool,
    /// It is there no more: what has come to it ends with the next answer.
    is_removed: AtomicBool,
    /// The limit of lines for requests that need no server.
    own_lines: OwnLines,
}

impl Listening {
    /// As the ini file asks for it; `addr` has the port that the kernel chose where 0 was asked for.
    pub(crate) fn new(listen: Listen, addr: SocketAddr) -> Self {
        Self {
            asked: listen.addr,
            proxy: AtomicBool::new(listen.proxy),
            is_removed: AtomicBool::new(false),
            own_lines: OwnLines::new(addr),
        }
    }

    /// The address that the ini file names.
    pub(crate) fn asked(&self) -> SocketAddr {
        self.asked
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.own_lines.listen()
    }

    /// Connections begin with a PROXY protocol header.
    pub(crate) fn expects_proxy(&self) -> bool {
        self.proxy.load(Ordering::Acquire)
    }

    /// Whether those that come from now on do.
    pub(crate) fn expect_proxy(&self, expects: bool) {
        self.proxy.store(expects, Ordering::Release);
    }

    /// It is there no more.
    pub(crate) fn remove(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// The limit of lines for requests that need no server.
    pub(crate) fn own_lines(&self) -> &OwnLines {
        &self.own_lines
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // After that nobody asks any more.
        self.own_lines.tell_rest();
    }
}
