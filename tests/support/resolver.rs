//! A name server, and a gateway that asks it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::free_address;
use super::setup::Setup;

/// What is said of a name. Of others it is said that they do not exist.
#[derive(Clone, Debug)]
enum Reply {
    Addresses(Vec<IpAddr>),
    /// SERVFAIL.
    Failure,
    Silence,
}

#[derive(Default)]
struct Zone {
    replies: HashMap<String, Reply>,
    /// Nothing is said at all.
    is_silent: bool,
    pause: Duration,
    asked: HashMap<String, usize>,
}

/// A name server on a loopback address of its own.
pub(crate) struct Resolver {
    zone: Arc<Mutex<Zone>>,
    dir: TempDir,
}

impl Resolver {
    /// One that knows no name; none where the system's files cannot be replaced for one process, and the
    /// port of name servers not be had: that needs root.
    pub(crate) fn start() -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            return None;
        }
        let own = free_address().ip();
        let socket = UdpSocket::bind((own, 53)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "resolv.conf",
            &format!("nameserver {own}\noptions timeout:4 attempts:2\n"),
        );
        write("nsswitch.conf", "hosts: files dns\n");
        write("hosts", "127.0.0.1 localhost\n");
        let zone = Arc::new(Mutex::<Zone>::default());
        let asked = Arc::clone(&zone);
        std::thread::spawn(move || serve(&socket, &asked));
        Some(Self { zone, dir })
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        lock(&self.zone)
    }

    /// From now on `name` has these addresses.
    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr]) {
        let reply = Reply::Addresses(addresses.to_vec());
        self.zone().replies.insert(name.to_owned(), reply);
    }

    /// From now on `name` is not resolved, which is said at once.
    pub(crate) fn fail(&self, name: &str) {
        self.zone().replies.insert(name.to_owned(), Reply::Failure);
    }

    /// From now on nothing is said of `name`.
    pub(crate) fn hang(&self, name: &str) {
        self.zone().replies.insert(name.to_owned(), Reply::Silence);
    }

    /// From now on, or no longer, nothing is said at all.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.zone().is_silent = is_silent;
    }

    /// Each answer takes so long.
    pub(crate) fn take(&self, pause: Duration) {
        self.zone().pause = pause;
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.zone().asked.get(name).copied().unwrap_or_default()
    }

    /// How often any was.
    pub(crate) fn asked_in_all(&self) -> usize {
        self.zone().asked.values().sum()
    }

    /// A gateway that asks this server, by files of its own in the place of the system's.
    pub(crate) fn under(&self, setup: Setup) -> Setup {
        let bind = |name: &str| {
            let own = self.dir.path().join(name);
            format!("mount --bind {} /etc/{name} && ", own.display())
        };
        let mut script = ["resolv.conf", "nsswitch.conf", "hosts"]
            .into_iter()
            .filter(|name| Path::new("/etc").join(name).exists())
            .map(bind)
            .collect::<String>();
        script.push_str("exec \"$0\" \"$@\"");
        setup.under(&["unshare", "-m", "sh", "-c", &script])
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends with the test's process.
fn serve(socket: &UdpSocket, zone: &Arc<Mutex<Zone>>) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let query = query[..length].to_vec();
        let (socket, zone) = (socket.try_clone().unwrap(), Arc::clone(zone));
        let pause = lock(&zone).pause;
        match pause.is_zero() {
            true => reply(&socket, &zone, &query, from),
            false => drop(std::thread::spawn(move || {
                std::thread::sleep(pause);
                reply(&socket, &zone, &query, from);
            })),
        }
    }
}

/// RFC 1035 section 4: the head, the question, and an answer for each address of the type that is asked for.
fn reply(socket: &UdpSocket, zone: &Mutex<Zone>, query: &[u8], to: SocketAddr) {
    const A: u16 = 1;
    const AAAA: u16 = 28;
    let mut at = 12;
    let mut name = String::new();
    while query[at] != 0 {
        let label = &query[at + 1..=at + usize::from(query[at])];
        name.push_str(if name.is_empty() { "" } else { "." });
        name.push_str(std::str::from_utf8(label).unwrap());
        at += 1 + label.len();
    }
    let question = &query[12..at + 5];
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let found = {
        let mut zone = lock(zone);
        if kind == A {
            *zone.asked.entry(name.clone()).or_default() += 1;
        }
        match zone.is_silent {
            true => Some(Reply::Silence),
            false => zone.replies.get(&name).cloned(),
        }
    };
    let (code, addresses) = match found {
        Some(Reply::Silence) => return,
        Some(Reply::Failure) => (2, Vec::new()),
        None => (3, Vec::new()),
        Some(Reply::Addresses(all)) => {
            let is_asked =
                |it: &IpAddr| (kind == A && it.is_ipv4()) || (kind == AAAA && it.is_ipv6());
            (0, all.into_iter().filter(is_asked).collect())
        }
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses {
        let bytes = match address {
            IpAddr::V4(it) => it.octets().to_vec(),
            IpAddr::V6(it) => it.octets().to_vec(),
        };
        // The name of the question, of this type, in the class of the internet, for no time.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()]);
        answer.extend(bytes);
    }
    // The gateway may be gone.
    let _ = socket.send_to(&answer, to);
}
