//! The admin listeners at the start: taken while the process may, and opened when there is something to say.

use std::io::{self, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::admin::door::AdminDoor;
use crate::admin::listener;
use crate::admin::socket::{AdminSocket, SocketFile};
use crate::admin::token::Token;
use crate::admin::view::{Doors, View};
use crate::config::{AdminSettings, AdminSocketPath};
use crate::process::Identity;
use crate::run::folders;
use crate::run::open_socket::OpenSocket;
use crate::run::upgrade::{ADMIN_LISTEN, ADMIN_METRICS, ADMIN_SOCKET};

/// Where the gateway will be asked about itself.
pub(super) struct AdminListeners {
    socket: Option<AdminSocket>,
    listen: Option<TcpListener>,
    metrics: Option<TcpListener>,
    /// What changes over TCP require.
    pub(super) token: Option<Token>,
}

impl AdminListeners {
    /// Takes the addresses, and reads the token. `inherited` has the sockets of a gateway that this one
    /// succeeds, by their kind and what the ini file calls them.
    pub(super) fn take(
        settings: &AdminSettings,
        mut inherited: impl FnMut(&str, &str) -> Option<OwnedFd>,
    ) -> io::Result<Self> {
        let mut bind = |key: &str, kind: &str, addr: Option<SocketAddr>| {
            let bind = |it: SocketAddr| listener::bind(key, it, inherited(kind, &it.to_string()));
            addr.map(bind).transpose()
        };
        let listen = bind("listen", ADMIN_LISTEN, settings.listen)?;
        let metrics = bind("metrics", ADMIN_METRICS, settings.metrics)?;
        let path = settings.socket.as_ref().map(|it| &it.path);
        let socket = path.and_then(|path| {
            let socket = inherited(ADMIN_SOCKET, &path.to_string_lossy())?;
            // Whose file is gone cannot be reached.
            AdminSocket::adopt(path, socket).ok()
        });
        Ok(Self {
            socket,
            listen,
            metrics,
            token: settings.token_file.as_deref().map(read_token).transpose()?,
        })
    }

    /// Makes the socket for this user, if there is to be one. The error log is open: one that the ini file
    /// does not name is gone without if need be.
    pub(super) fn take_socket(
        &mut self,
        settings: &AdminSettings,
        owner: Option<&Identity>,
    ) -> io::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let socket = settings.socket.as_ref();
        self.socket = socket
            .map(|it| take_socket(it, owner))
            .transpose()?
            .flatten();
        Ok(())
    }

    pub(super) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// What a successor can go on with.
    pub(super) fn share(&self, settings: &AdminSettings) -> io::Result<Vec<OpenSocket>> {
        let tcp = [
            (ADMIN_LISTEN, settings.listen, &self.listen),
            (ADMIN_METRICS, settings.metrics, &self.metrics),
        ];
        let mut doors = Vec::new();
        for (kind, asked, listener) in tcp {
            if let (Some(asked), Some(listener)) = (asked, listener) {
                doors.push(OpenSocket {
                    kind,
                    asked: asked.to_string(),
                    socket: listener.try_clone()?.into(),
                });
            }
        }
        if let Some(AdminSocket { file, listener }) = &self.socket {
            doors.push(OpenSocket {
                kind: ADMIN_SOCKET,
                asked: file.path().to_string_lossy().into_owned(),
                socket: listener.try_clone()?.into(),
            });
        }
        Ok(doors)
    }

    /// Where they are.
    pub(super) fn doors(&self) -> io::Result<Doors> {
        let addr = |it: &Option<TcpListener>| it.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Doors {
            socket: self.socket.as_ref().map(|it| it.file.path().to_owned()),
            listen: addr(&self.listen)?,
            metrics: addr(&self.metrics)?,
        })
    }

    /// Answers there from now on.
    pub(super) fn serve(self, view: &Arc<View>) -> io::Result<OpenDoors> {
        let (end, open) = io::pipe()?;
        if let Some(listener) = self.listen {
            let addr = listener.local_addr()?;
            listener::serve(listener, AdminDoor::Listen(addr), view, end.try_clone()?)?;
        }
        if let Some(listener) = self.metrics {
            listener::serve(listener, AdminDoor::Metrics, view, end.try_clone()?)?;
        }
        let mut file = None;
        if let Some(socket) = self.socket {
            file = Some(socket.file);
            listener::serve(socket.listener, AdminDoor::Socket, view, end)?;
        }
        Ok(OpenDoors {
            file,
            open: Some(open),
        })
    }
}

/// The admin listeners, while they answer.
pub(super) struct OpenDoors {
    /// To be removed at the end.
    file: Option<SocketFile>,
    /// They answer for as long as this is there.
    open: Option<PipeWriter>,
}

impl OpenDoors {
    /// Leaves them to another process.
    pub(super) fn leave(&mut self) {
        self.open = None;
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }
}

/// The admin listeners as they stand in the log.
pub(super) fn shown(doors: &Doors) -> String {
    let addr = |it: Option<SocketAddr>| it.map_or("off".to_owned(), |it| it.to_string());
    let (listen, metrics) = (addr(doors.listen), addr(doors.metrics));
    let socket = doors.socket.as_deref().unwrap_or(Path::new("off"));
    format!("admin={listen} socket={socket:?} metrics={metrics}")
}

fn read_token(path: &Path) -> io::Result<Token> {
    let failed = |error: io::Error| {
        let what = format!("[admin] token_file: {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    };
    Token::read(path).map_err(failed)
}

/// For everybody to look at: who may connect is decided by the socket.
const SOCKET_FOLDER_MODE: u32 = 0o755;

/// Makes the socket, and its folder if there is none, which then belongs to `owner`, so that the file can be
/// removed at the end.
fn take_socket(
    socket: &AdminSocketPath,
    owner: Option<&Identity>,
) -> io::Result<Option<AdminSocket>> {
    let path = &socket.path;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = folders::make_or_give(folder, SOCKET_FOLDER_MODE, owner);
    match made.and_then(|()| AdminSocket::bind(path, owner)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if socket.is_named => {
            let what = format!("[admin] socket: {}: {error}", path.display());
            Err(io::Error::new(error.kind(), what))
        }
        Err(error) => {
            log::warn!(
                "admin-socket-failed path={path:?} error={:?} remedy=\"name another one, or off, as [admin] socket\"",
                error.to_string()
            );
            Ok(None)
        }
    }
}
