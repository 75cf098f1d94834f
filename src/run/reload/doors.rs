//! The admin listeners at a reload: new ones are there before anything else changes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::listeners::explained;
use crate::admin::listener;
use crate::admin::socket::AdminSocket;
use crate::admin::token::Token;
use crate::admin::view::{Doors, View};
use crate::config::AdminSettings;
use crate::run::doors::{self, OpenDoor, OpenDoors, OpenSocketDoor};
use crate::run::open_socket::OpenSocket;
use crate::run::sockets::{ADMIN_LISTEN, ADMIN_METRICS, ADMIN_SOCKET, Sockets};

/// What becomes of something.
enum DoorChange<T> {
    None,
    To(Option<T>),
}

impl<T> DoorChange<T> {
    fn map<U>(self, change: impl FnOnce(T) -> io::Result<U>) -> io::Result<DoorChange<U>> {
        Ok(match self {
            Self::None => DoorChange::None,
            Self::To(new) => DoorChange::To(new.map(change).transpose()?),
        })
    }

    fn replaces(self, old: &mut Option<T>) {
        if let Self::To(new) = self {
            *old = new;
        }
    }
}

/// What `[admin]` is to be from now on, and not yet in force.
pub(super) struct NewDoors {
    listen: DoorChange<TcpListener>,
    metrics: DoorChange<TcpListener>,
    socket: DoorChange<AdminSocket>,
    token: DoorChange<Token>,
    /// The same sockets.
    shared: Vec<OpenSocket>,
    /// Of the kinds that change.
    replaced: Vec<&'static str>,
    shown: Doors,
    /// A token that cannot be read any more.
    pub(super) keeps_token: bool,
}

/// As [`NewDoors`], where all that can fail has been done.
pub(super) struct ServedDoors {
    listen: DoorChange<OpenDoor>,
    metrics: DoorChange<OpenDoor>,
    socket: DoorChange<OpenSocketDoor>,
    token: DoorChange<Token>,
    shared: Vec<OpenSocket>,
    replaced: Vec<&'static str>,
    shown: Doors,
}

impl NewDoors {
    /// Binds what is not there yet, and reads the token.
    ///
    /// # Errors
    /// What is not possible, and why.
    pub(super) fn open(
        current: &AdminSettings,
        new: &AdminSettings,
        sockets: &Sockets,
        view: &View,
    ) -> io::Result<Self> {
        let (token, keeps_token) = new_token(current, new, view)?;
        let mut doors = Self {
            listen: DoorChange::None,
            metrics: DoorChange::None,
            socket: DoorChange::None,
            token,
            shared: Vec::new(),
            replaced: Vec::new(),
            shown: Doors::clone(&view.doors.load()),
            keeps_token,
        };
        if new.listen != current.listen {
            let bound = bind("listen", ADMIN_LISTEN, new.listen, sockets)?;
            doors.shown.listen = doors.note(ADMIN_LISTEN, new.listen, bound.as_ref())?;
            doors.listen = DoorChange::To(bound);
        }
        if new.metrics != current.metrics {
            let bound = bind("metrics", ADMIN_METRICS, new.metrics, sockets)?;
            doors.shown.metrics = doors.note(ADMIN_METRICS, new.metrics, bound.as_ref())?;
            doors.metrics = DoorChange::To(bound);
        }
        let path = |it: &AdminSettings| it.socket.as_ref().map(|it| it.path.clone());
        if path(new) != path(current) {
            let made = new.socket.as_ref().map(|it| doors::take_socket(it, None));
            let made = made.transpose()?.flatten();
            doors.replaced.push(ADMIN_SOCKET);
            doors.shown.socket = made.as_ref().map(|it| it.file.path().to_owned());
            if let Some(made) = &made {
                let asked = made.file.path().to_string_lossy().into_owned();
                let socket = made.listener.try_clone()?.into();
                doors.share(ADMIN_SOCKET, asked, socket);
            }
            doors.socket = DoorChange::To(made);
        }
        Ok(doors)
    }

    fn share(&mut self, kind: &'static str, asked: String, socket: OwnedFd) {
        self.shared.push(OpenSocket {
            kind,
            asked,
            socket,
        });
    }

    /// Notes what takes the place of a socket; returns its address.
    fn note(
        &mut self,
        kind: &'static str,
        asked: Option<SocketAddr>,
        listener: Option<&TcpListener>,
    ) -> io::Result<Option<SocketAddr>> {
        self.replaced.push(kind);
        let Some((asked, listener)) = asked.zip(listener) else {
            return Ok(None);
        };
        self.share(kind, asked.to_string(), listener.try_clone()?.into());
        listener.local_addr().map(Some)
    }

    /// Answers at those that are new.
    ///
    /// # Errors
    /// That is not possible; nothing has changed then.
    pub(super) fn serve(self, view: &Arc<View>) -> io::Result<ServedDoors> {
        Ok(ServedDoors {
            listen: self.listen.map(|it| doors::serve_pages(it, view))?,
            metrics: self.metrics.map(|it| doors::serve_metrics(it, view))?,
            socket: self.socket.map(|it| doors::serve_socket(it, view))?,
            token: self.token,
            shared: self.shared,
            replaced: self.replaced,
            shown: self.shown,
        })
    }
}

impl ServedDoors {
    /// Ends those in whose place they are.
    pub(super) fn bring_into_force(self, open: &mut OpenDoors, sockets: &mut Sockets, view: &View) {
        let replaced = &self.replaced;
        sockets.admin.retain(|it| !replaced.contains(&it.kind));
        sockets.admin.extend(self.shared);
        if !self.replaced.is_empty() {
            log::info!("admin-moved {}", doors::shown(&self.shown));
        }
        view.doors.store(Arc::new(self.shown));
        if let DoorChange::To(token) = self.token {
            view.token.store(token.map(Arc::new));
        }
        self.listen.replaces(&mut open.listen);
        self.metrics.replaces(&mut open.metrics);
        self.socket.replaces(&mut open.socket);
    }
}

/// Binds an address, or goes on with the socket that is there for something else.
fn bind(
    key: &str,
    kind: &str,
    addr: Option<SocketAddr>,
    sockets: &Sockets,
) -> io::Result<Option<TcpListener>> {
    let Some(addr) = addr else {
        return Ok(None);
    };
    let inherited = sockets.at(addr).transpose()?;
    let is_new = inherited.is_none();
    let others = sockets.in_the_way_of(addr);
    match listener::bind(key, addr, inherited) {
        Err(error) if is_new && error.kind() == io::ErrorKind::AddrInUse && !others.is_empty() => {
            listener::bind_beside(key, addr, &others)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match sockets.bound_by_supervisor(kind, addr) {
                Some(socket) => listener::bind(key, addr, Some(socket?)),
                None => Err(error),
            }
        }
        bound => bound,
    }
    .map(Some)
    .map_err(explained)
}

/// Reads the token anew. One in the same file that only root may read stays, and true is returned if it may
/// be another one by now.
fn new_token(
    current: &AdminSettings,
    new: &AdminSettings,
    view: &View,
) -> io::Result<(DoorChange<Token>, bool)> {
    let Some(path) = new.token_file.as_deref() else {
        return Ok((DoorChange::To(None), false));
    };
    match doors::read_token(path) {
        Ok(token) => Ok((DoorChange::To(Some(token)), false)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_same(current, path) => {
            let before = view.token.load();
            let is_other = before.as_ref().is_none_or(|it| it.is_replaced(path));
            Ok((DoorChange::None, is_other))
        }
        Err(error) => Err(error),
    }
}

fn is_same(current: &AdminSettings, path: &Path) -> bool {
    current.token_file.as_ref() == Some(&PathBuf::from(path))
}
