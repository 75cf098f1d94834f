//! What a process has, as the kernel tells in `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;

/// The state of a socket that listens (tcp_states.h).
const LISTEN: &str = "0A";

/// What a process has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    /// Listening sockets at the proxy's port.
    pub(crate) listening: usize,
    /// The other sides' ports of the connections that came there.
    pub(crate) clients: BTreeSet<u16>,
    /// Connections to the server.
    pub(crate) to_server: usize,
    /// Ends of pipes.
    pub(crate) pipes: usize,
    /// All other descriptors.
    pub(crate) others: usize,
    /// Resident size.
    pub(crate) resident_kib: u64,
}

impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listening,
            to_server,
            pipes,
            others,
            resident_kib,
            ..
        } = self;
        let clients = self.clients.len();
        write!(
            f,
            "{resident_kib} KiB, {clients} clients, {to_server} to the server, {listening} listening, \
             {pipes} pipes, {others} other descriptors"
        )
    }
}

struct Socket {
    local: u16,
    remote: u16,
    listens: bool,
}

/// The TCP sockets of IPv4, by their inodes.
fn sockets() -> io::Result<BTreeMap<String, Socket>> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let lines = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |at: usize| {
            let (_, port) = words.get(at)?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        let socket = Socket {
            local: port(1)?,
            remote: port(2)?,
            listens: *words.get(3)? == LISTEN,
        };
        Some(((*words.get(9)?).to_owned(), socket))
    });
    Ok(lines.collect())
}

impl Owned {
    /// What each of these processes has, of a proxy that listens at the first port and has its server at the
    /// second one. One that has ended has nothing.
    pub(crate) fn of(pids: &[u32], proxy: u16, server: u16) -> io::Result<Vec<Self>> {
        // First the descriptors, so that a connection that begins meanwhile is not taken for something else.
        let descriptors: Vec<Vec<String>> = pids.iter().map(|pid| descriptors(*pid)).collect();
        let sockets = sockets()?;
        let owned = descriptors.iter().zip(pids).map(|(descriptors, pid)| {
            let mut owned = Self {
                resident_kib: resident_kib(*pid),
                ..Self::default()
            };
            for target in descriptors {
                let inode = target.strip_prefix("socket:[");
                let inode = inode.and_then(|it| it.strip_suffix(']'));
                match inode.and_then(|it| sockets.get(it)) {
                    Some(it) if it.local == proxy && it.listens => owned.listening += 1,
                    Some(it) if it.local == proxy => drop(owned.clients.insert(it.remote)),
                    Some(it) if it.remote == server => owned.to_server += 1,
                    _ if target.starts_with("pipe:") => owned.pipes += 1,
                    _ => owned.others += 1,
                }
            }
            owned
        });
        Ok(owned.collect())
    }
}

fn descriptors(pid: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let targets = open.into_iter().flatten().filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        Some(target.to_string_lossy().into_owned())
    });
    targets.collect()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let number = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

/// The processes whose command line has `text` in it, without those that have ended and of which only the
/// outcome is left.
pub(crate) fn processes_of(text: &str) -> BTreeSet<u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|it| it.file_name().to_str()?.parse().ok());
    // The command line of one that has ended is empty.
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let own = std::process::id();
        *pid != own && String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(is_one).collect()
}
