//! The admin listeners at the start: taken while the process may, and opened when there is something to say.

use std::io;
use std::net::{SocketAddr, TcpListener};
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

/// Where the gateway will be asked about itself.
pub(super) struct AdminListeners {
    socket: Option<AdminSocket>,
    listen: Option<TcpListener>,
    metrics: Option<TcpListener>,
    /// What changes over TCP require.
    pub(super) token: Option<Token>,
}

impl AdminListeners {
    /// Takes the addresses, and reads the token.
    pub(super) fn take(settings: &AdminSettings) -> io::Result<Self> {
        let bind = |key: &str, addr: Option<SocketAddr>| {
            addr.map(|it| listener::bind(key, it)).transpose()
        };
        Ok(Self {
            socket: None,
            listen: bind("listen", settings.listen)?,
            metrics: bind("metrics", settings.metrics)?,
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

    /// Where they are.
    pub(super) fn doors(&self) -> io::Result<Doors> {
        let addr = |it: &Option<TcpListener>| it.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Doors {
            socket: self.socket.as_ref().map(|it| it.file.path().to_owned()),
            listen: addr(&self.listen)?,
            metrics: addr(&self.metrics)?,
        })
    }

    /// Answers there from now on. Returns the file that is to be removed at the end.
    pub(super) fn serve(self, view: &Arc<View>) -> io::Result<Option<SocketFile>> {
        if let Some(listener) = self.listen {
            let addr = listener.local_addr()?;
            listener::serve(listener, AdminDoor::Listen(addr), view)?;
        }
        if let Some(listener) = self.metrics {
            listener::serve(listener, AdminDoor::Metrics, view)?;
        }
        let Some(AdminSocket { file, listener }) = self.socket else {
            return Ok(None);
        };
        listener::serve(listener, AdminDoor::Socket, view)?;
        Ok(Some(file))
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
