//! Addresses that a gateway asks for which has given up root's rights: a reload has brought new ones.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use super::Parent;
use crate::config::Config;
use crate::net::Listener;
use crate::process::handover::Message;
use crate::run::load;
use crate::run::sockets::{ADMIN_LISTEN, ADMIN_METRICS, LISTEN};

impl Parent {
    /// Answers the gateway `pid`. Only what the ini file names is bound, as it is read here: whoever may have
    /// got hold of the gateway cannot write the file.
    pub(super) fn bind_for(&self, pid: Pid, kind: String, asked: String) {
        let Some(child) = self.current.as_ref().filter(|it| it.pid == pid) else {
            return;
        };
        let bound = load(&self.path).and_then(|config| {
            let addr = named(&config, &kind, &asked).ok_or("the ini file does not name it")?;
            let others = child.doors.iter().map(|it| it.2.as_fd());
            bind(addr, others).map_err(|error| error.to_string())
        });
        match bound {
            Ok(socket) => {
                let door = (kind.clone(), asked.clone(), socket);
                child.send(&Message::Door { kind, asked }, std::slice::from_ref(&door));
            }
            Err(reason) => child.send(&Message::Refused { reason }, &[]),
        }
    }
}

fn named(config: &Config, kind: &str, asked: &str) -> Option<SocketAddr> {
    let asked: SocketAddr = asked.parse().ok()?;
    let is_named = match kind {
        LISTEN => config.gateway.listen.iter().any(|it| it.addr == asked),
        ADMIN_LISTEN => config.admin.listen == Some(asked),
        ADMIN_METRICS => config.admin.metrics == Some(asked),
        _ => false,
    };
    is_named.then_some(asked)
}

/// Binds an address, which one of `others` may be in the way of that is about to be closed.
fn bind<'a>(addr: SocketAddr, others: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<OwnedFd> {
    let listener = match Listener::bind(addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let port =
                |it: &BorrowedFd<'_>| socket2::SockRef::from(it).local_addr().ok()?.as_socket();
            let others: Vec<_> = others
                .filter(|it| port(it).is_some_and(|it| it.port() == addr.port()))
                .collect();
            match others.is_empty() {
                true => Err(error),
                false => Listener::bind_beside(addr, &others),
            }
        }
        bound => bound,
    };
    listener?.share()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_ini_file_are_bound_and_only_for_what_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ini");
        let text = "[gateway]\nlisten = 127.0.0.1:80, 127.0.0.2:81\n\
                    [lists]\nfile = lists\n\
                    [admin]\nlisten = 127.0.0.1:82\nmetrics = 127.0.0.1:83\n";
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path, None).unwrap();
        let asked = |kind, asked| named(&config, kind, asked).is_some();
        assert!(asked(LISTEN, "127.0.0.1:80") && asked(LISTEN, "127.0.0.2:81"));
        assert!(asked(ADMIN_LISTEN, "127.0.0.1:82") && asked(ADMIN_METRICS, "127.0.0.1:83"));
        for other in ["127.0.0.1:82", "127.0.0.1:22", "0.0.0.0:80", "80", ""] {
            assert!(!asked(LISTEN, other), "{other}");
        }
        assert!(!asked(ADMIN_METRICS, "127.0.0.1:82"));
        assert!(!asked("other", "127.0.0.1:80"));
    }
}
