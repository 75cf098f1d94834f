//! The addresses of clients at a reload: new ones are there before anything else changes, and what has come
//! in by one that is removed is served to its end.

use std::io;
use std::sync::Arc;

use crate::config::Listen;
use crate::proxy::listeners::{self, Entrance};
use crate::proxy::{Gateway, Listening};
use crate::run::sockets::{LISTEN, Sockets};

/// What `[gateway] listen` is to be from now on. Until it is brought into force, nothing has changed.
pub(super) struct NewListeners {
    /// As in the ini file.
    entrances: Vec<Entrance>,
    /// Those among them that nobody accepts at yet.
    added: Vec<Entrance>,
    /// Those that stay, and whether proxies connect there from now on.
    kept: Vec<(Arc<Listening>, bool)>,
    removed: Vec<Arc<Listening>>,
}

impl NewListeners {
    /// Binds what is not there yet.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub(super) fn open(sockets: &Sockets, listen: &[Listen]) -> io::Result<Self> {
        let mut before: Vec<&Entrance> = sockets.entrances.iter().collect();
        let mut new = Self {
            entrances: Vec::new(),
            added: Vec::new(),
            kept: Vec::new(),
            removed: Vec::new(),
        };
        for it in listen {
            let mut places = before.iter();
            let entrance = match places.position(|old| old.listening().asked() == it.addr) {
                Some(place) => {
                    let entrance = before.swap_remove(place).again()?;
                    new.kept.push((Arc::clone(entrance.listening()), it.proxy));
                    entrance
                }
                None => {
                    let entrance = open_one(sockets, *it)?;
                    new.added.push(entrance.again()?);
                    entrance
                }
            };
            new.entrances.push(entrance);
        }
        let removed = before.iter().map(|it| Arc::clone(it.listening()));
        new.removed = removed.collect();
        Ok(new)
    }

    /// Accepts at those that are new.
    ///
    /// # Errors
    /// That is not possible; nothing has changed then.
    pub(super) fn serve(&mut self, gateway: &Arc<Gateway>) -> io::Result<()> {
        let added = std::mem::take(&mut self.added);
        let new: Vec<_> = added.iter().map(|it| Arc::clone(it.listening())).collect();
        listeners::serve(gateway, added).inspect_err(|_| {
            // Which then fails for the same reason, and they end with the next connection.
            let _ = listeners::remove(gateway, &new);
        })?;
        for listening in new {
            log::info!("listener-added listen={}", listening.addr());
        }
        Ok(())
    }

    /// Before the settings are replaced: whoever connects from now on is no proxy, whose address would have
    /// to be trusted.
    pub(super) fn expect_fewer_proxies(&self) {
        for (listening, _) in self.kept.iter().filter(|(_, proxy)| !proxy) {
            listening.expect_proxy(false);
        }
    }

    /// Once the settings are replaced: the rest.
    pub(super) fn bring_into_force(self, gateway: &Gateway, sockets: &mut Sockets) {
        for (listening, _) in self.kept.iter().filter(|(_, proxy)| *proxy) {
            listening.expect_proxy(true);
        }
        for listening in &self.removed {
            log::info!("listener-removed listen={}", listening.addr());
        }
        if let Err(error) = listeners::remove(gateway, &self.removed) {
            // They end with the next connection.
            let error = error.to_string();
            log::error!("listener-late error={error:?}");
        }
        sockets.entrances = self.entrances;
    }
}

/// Binds an address, or goes on with the socket that is there for something else.
fn open_one(sockets: &Sockets, listen: Listen) -> io::Result<Entrance> {
    if let Some(socket) = sockets.at(listen.addr) {
        return Entrance::open(listen, Some(socket?));
    }
    let bound = Entrance::open(listen, None);
    let others = sockets.in_the_way_of(listen.addr);
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !others.is_empty() => {
            Entrance::open_beside(listen, &others)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match sockets.bound_by_supervisor(LISTEN, listen.addr) {
                Some(socket) => Entrance::open(listen, Some(socket?)),
                None => Err(error),
            }
        }
        bound => bound,
    }
    .map_err(explained)
}

/// Says what can be done about it, if it is because of rights that the gateway has given up.
pub(super) fn explained(error: io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "root's rights, which this takes, were given up at the start; `graygate upgrade`, started by root, \
             brings it into force without refusing a connection"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {why}"))
}
