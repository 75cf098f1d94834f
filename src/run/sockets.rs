//! What the gateway listens with, for those who need it besides whoever accepts: a reload, and a successor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::open_socket::OpenSocket;
use super::supervisor::Supervisor;
use crate::proxy::listeners::Entrance;

/// The kinds of sockets.
pub(super) const LISTEN: &str = "gateway.listen";
pub(super) const ADMIN_LISTEN: &str = "admin.listen";
pub(super) const ADMIN_METRICS: &str = "admin.metrics";
pub(super) const ADMIN_SOCKET: &str = "admin.socket";

/// All that listens.
pub(super) struct Sockets {
    /// Those of clients, in the order of the ini file.
    pub(super) entrances: Vec<Entrance>,
    pub(super) admin: Vec<OpenSocket>,
    /// A successor may go on with them.
    pub(super) are_promised: bool,
    /// It may have rights that this process has given up.
    supervisor: Option<Arc<Supervisor>>,
}

impl Sockets {
    /// Another descriptor of each.
    pub(super) fn all(&self) -> io::Result<Vec<OpenSocket>> {
        let clients = self.entrances.iter().map(|it| {
            Ok(OpenSocket {
                kind: LISTEN,
                asked: it.listening().asked().to_string(),
                socket: it.share()?,
            })
        });
        let admin = self.admin.iter().map(|it| {
            Ok(OpenSocket {
                kind: it.kind,
                asked: it.asked.clone(),
                socket: it.socket.try_clone()?,
            })
        });
        clients.chain(admin).collect()
    }

    /// A descriptor of the socket that listens at this address, whoever accepts there.
    pub(super) fn at(&self, addr: SocketAddr) -> Option<io::Result<OwnedFd>> {
        // Each 0 is another port.
        if addr.port() == 0 {
            return None;
        }
        let mut entrances = self.entrances.iter();
        if let Some(entrance) = entrances.find(|it| it.listening().addr() == addr) {
            return Some(entrance.share());
        }
        let asked = addr.to_string();
        let admin = self.admin.iter().find(|it| it.asked == asked);
        admin.map(|it| it.socket.try_clone())
    }

    /// A socket for an address that this process has no right to, if it has a supervisor.
    pub(super) fn bound_by_supervisor(
        &self,
        kind: &str,
        addr: SocketAddr,
    ) -> Option<io::Result<OwnedFd>> {
        let supervisor = self.supervisor.as_ref().filter(|it| !it.is_gone())?;
        Some(supervisor.bind(kind, addr))
    }

    /// The sockets that may keep another one from being bound to this address.
    pub(super) fn in_the_way_of(&self, addr: SocketAddr) -> Vec<BorrowedFd<'_>> {
        let clients = self.entrances.iter();
        let clients = clients.map(|it| (it.listening().addr(), it.as_fd()));
        let admin = self.admin.iter();
        let admin = admin.filter_map(|it| Some((it.asked.parse().ok()?, it.socket.as_fd())));
        let all = clients.chain(admin);
        let same_port = all.filter(|(asked, _): &(SocketAddr, _)| asked.port() == addr.port());
        same_port.map(|(_, socket)| socket).collect()
    }
}

/// [`Sockets`], of which an upgrade and a reload each need the whole for as long as they last.
#[derive(Clone)]
pub(super) struct SharedSockets(Arc<Mutex<Sockets>>);

impl SharedSockets {
    pub(super) fn new(
        entrances: Vec<Entrance>,
        admin: Vec<OpenSocket>,
        supervisor: Option<Arc<Supervisor>>,
    ) -> Self {
        Self(Arc::new(Mutex::new(Sockets {
            entrances,
            admin,
            are_promised: false,
            supervisor,
        })))
    }

    /// For an upgrade, which waits for the end of a reload.
    pub(super) fn locked(&self) -> MutexGuard<'_, Sockets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a reload; `None` during an upgrade, and after one.
    pub(super) fn unless_upgrading(&self) -> Option<MutexGuard<'_, Sockets>> {
        self.tried().filter(|it| !it.are_promised)
    }

    /// Closes them: nobody will need them any more, and whoever connects is to be refused. An upgrade that is
    /// under way keeps them.
    pub(super) fn close(&self) {
        if let Some(mut sockets) = self.tried() {
            sockets.entrances.clear();
            sockets.admin.clear();
        }
    }

    fn tried(&self) -> Option<MutexGuard<'_, Sockets>> {
        match self.0.try_lock() {
            Ok(sockets) => Some(sockets),
            Err(TryLockError::Poisoned(sockets)) => Some(sockets.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
