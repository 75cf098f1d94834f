//! The admin listeners at the start: taken while the process may, and opened when there is something to say.

use std::io::{self, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use socket2::Socket;

use crate::admin::door::AdminDoor;
use crate::admin::listener;
use crate::admin::socket::{AdminSocket, SocketFile};
use crate::admin::token::Token;
use crate::admin::view::{Doors, View};
use crate::config::{AdminSettings, AdminSocketPath};
use crate::process::Identity;
use crate::run::folders;
use crate::run::open_socket::OpenSocket;
use crate::run::sockets::{ADMIN_LISTEN, ADMIN_METRICS, ADMIN_SOCKET};

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
        if let (Some(AdminSocket { file, .. }), Some(owner)) = (&self.socket, owner) {
            let shown = file.path().display();
            let failed = |error| io::Error::other(format!("[admin] socket: {shown}: {error}"));
            return file.give_to_group_of(owner).map_err(failed);
        }
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
        let (listen, metrics) = (self.listen, self.metrics);
        let mut open = OpenDoors {
            listen: listen.map(|it| serve_pages(it, view)).transpose()?,
            metrics: metrics.map(|it| serve_metrics(it, view)).transpose()?,
            socket: None,
            left: None,
        };
        if let Some(socket) = self.socket {
            open.socket = Some(serve_socket(socket, view)?);
        }
        Ok(open)
    }
}

/// One that answers for as long as this is there.
pub(super) struct OpenDoor {
    _open: PipeWriter,
}

/// The Unix socket, while it answers.
pub(super) struct OpenSocketDoor {
    _open: PipeWriter,
    /// To be removed at the end.
    file: SocketFile,
}

/// Answers at `[admin] listen`.
pub(super) fn serve_pages(listener: TcpListener, view: &Arc<View>) -> io::Result<OpenDoor> {
    let door = AdminDoor::Listen(listener.local_addr()?);
    serve(listener, door, view)
}

/// Answers at `[admin] metrics`.
pub(super) fn serve_metrics(listener: TcpListener, view: &Arc<View>) -> io::Result<OpenDoor> {
    serve(listener, AdminDoor::Metrics, view)
}

/// Answers at `[admin] socket`.
pub(super) fn serve_socket(socket: AdminSocket, view: &Arc<View>) -> io::Result<OpenSocketDoor> {
    let OpenDoor { _open } = serve(socket.listener, AdminDoor::Socket, view)?;
    Ok(OpenSocketDoor {
        _open,
        file: socket.file,
    })
}

fn serve(listener: impl Into<Socket>, door: AdminDoor, view: &Arc<View>) -> io::Result<OpenDoor> {
    let (end, open) = io::pipe()?;
    listener::serve(listener, door, view, end)?;
    Ok(OpenDoor { _open: open })
}

/// The admin listeners, while they answer.
pub(super) struct OpenDoors {
    pub(super) listen: Option<OpenDoor>,
    pub(super) metrics: Option<OpenDoor>,
    pub(super) socket: Option<OpenSocketDoor>,
    /// To be removed at the end, if no successor has a use for it.
    left: Option<SocketFile>,
}

impl OpenDoors {
    /// Leaves them to another process.
    pub(super) fn leave(&mut self) {
        (self.listen, self.metrics) = (None, None);
        if let Some(mut socket) = self.socket.take() {
            socket.file.leave();
            self.left = Some(socket.file);
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

pub(super) fn read_token(path: &Path) -> io::Result<Token> {
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
pub(super) fn take_socket(
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
