//! What a service manager, above all systemd, is told about the gateway (sd_notify(3)): that it is ready,
//! what it waits for, and that it lives. Whoever has a supervisor tells that instead, which passes it on: the
//! manager listens to the process that it has started.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

/// Where the manager listens: a path, or `@` and a name in the abstract namespace.
pub(crate) const MANAGER: &str = "NOTIFY_SOCKET";

/// Within how many microseconds it wants to hear of the process, again and again.
pub(crate) const WATCHDOG: &str = "WATCHDOG_USEC";

/// Of which process.
pub(crate) const WATCHED: &str = "WATCHDOG_PID";

/// How long a manager may be too busy to be told something.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It is not ready: why.
    Waits(String),
    /// It serves by lists.
    Ready,
    /// It reads its ini file anew.
    Reloading,
    /// It has read it.
    Reloaded,
    /// It lives.
    Turns,
    /// It finishes what is under way, and ends.
    Ends,
    /// Another process is the gateway from now on.
    Successor(u32),
}

impl Notice {
    /// As the manager is told.
    fn lines(&self) -> String {
        match self {
            Self::Waits(what) => format!("STATUS={}", on_one_line(what)),
            Self::Ready => "READY=1\nSTATUS=serving".to_owned(),
            Self::Reloading => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
                let now = now.map_or(0, |it| it.num_microseconds());
                format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the settings again")
            }
            Self::Reloaded => "READY=1\nSTATUS=serving".to_owned(),
            Self::Turns => "WATCHDOG=1".to_owned(),
            Self::Ends => "STOPPING=1\nSTATUS=finishing what is under way".to_owned(),
            Self::Successor(pid) => format!("MAINPID={pid}"),
        }
    }
}

fn on_one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// Who listens.
#[derive(Clone)]
pub(crate) struct Notices {
    tell: Arc<dyn Fn(Notice) + Send + Sync>,
    /// How often it wants to hear that the process lives, at least.
    watchdog: Option<Duration>,
}

impl Notices {
    /// The manager that has started this process, or the one before it; or nobody.
    pub(crate) fn to_manager() -> Self {
        let address = ManagerAddress::known();
        let manager = address
            .as_ref()
            .and_then(|it| Manager::at(it.socket.as_ref()));
        match (manager, address) {
            (Some(manager), Some(address)) => Self {
                tell: Arc::new(move |notice| manager.tell(&notice)),
                watchdog: address.watchdog(),
            },
            _ => Self {
                tell: Arc::new(|_| {}),
                watchdog: None,
            },
        }
    }

    /// Somebody who passes it on.
    pub(crate) fn to(tell: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self {
            tell: Arc::new(tell),
            watchdog: watchdog_usec().map(Duration::from_micros),
        }
    }

    /// Says it.
    pub(crate) fn tell(&self, notice: Notice) {
        (self.tell)(notice);
    }

    /// How often [`Notice::Turns`] is to be said, if it is: twice in the time that the manager allows.
    pub(crate) fn pace(&self) -> Option<Duration> {
        self.watchdog.map(|it| it / 2)
    }
}

/// Where a manager is, and what it wants: what a process that it has not started itself has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManagerAddress {
    /// As in [`MANAGER`].
    pub(crate) socket: String,
    /// As in [`WATCHDOG`].
    pub(crate) watchdog_usec: Option<u64>,
}

/// The process's, as its environment is.
static MANAGER_OF_PREDECESSOR: OnceLock<ManagerAddress> = OnceLock::new();

impl ManagerAddress {
    /// The manager of this process, if it has one.
    pub(crate) fn known() -> Option<Self> {
        let own = || {
            Some(Self {
                socket: env::var(MANAGER).ok()?,
                watchdog_usec: watchdog_usec(),
            })
        };
        MANAGER_OF_PREDECESSOR.get().cloned().or_else(own)
    }

    /// This process takes over from another one, whose manager is its own from now on.
    pub(crate) fn adopt(self) {
        // There is one predecessor.
        let _ = MANAGER_OF_PREDECESSOR.set(self);
    }

    fn watchdog(&self) -> Option<Duration> {
        self.watchdog_usec.map(Duration::from_micros)
    }
}

fn watchdog_usec() -> Option<u64> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_own =
        env::var_os(WATCHED).is_none() || number(WATCHED) == Some(u64::from(std::process::id()));
    number(WATCHDOG).filter(|it| is_own && *it > 0)
}

/// The manager's socket.
struct Manager {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Manager {
    fn at(name: &OsStr) -> Option<Self> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        // Nothing waits for a manager for long.
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self {
            socket,
            to: to.ok()?,
        })
    }

    fn tell(&self, notice: &Notice) {
        let _ = self
            .socket
            .send_to_addr(notice.lines().as_bytes(), &self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_when_it_began_by_the_clock_that_the_manager_looks_at() {
        let lines = Notice::Reloading.lines();
        let mut lines = lines.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"));
        let now = lines
            .next()
            .unwrap()
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap();
        assert!(now.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn what_it_waits_for_is_on_one_line() {
        let waits = Notice::Waits("a\nREADY=1".to_owned());
        assert_eq!(waits.lines(), "STATUS=a READY=1");
    }
}
