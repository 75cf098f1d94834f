//! Ports: those that are free, and those on which a process listens.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// An address for a listener whose port must be known before it is there. It is on a host of its
/// own, so that nobody takes the port meanwhile.
pub(crate) fn free_address() -> SocketAddr {
    let own = Ipv4Addr::new(
        127,
        fastrand::u8(1..),
        fastrand::u8(..),
        fastrand::u8(1..255),
    );
    let free = TcpListener::bind((own, 0)).unwrap();
    free.local_addr().unwrap()
}

/// The TCP ports on which process `pid` listens, by IPv4. One that is just being handed from one
/// descriptor to another may be missed, so wait for what is expected.
#[track_caller]
pub(crate) fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let own: Vec<String> = descriptors
        .filter_map(|it| std::fs::read_link(it.ok()?.path()).ok())
        .filter_map(|it| {
            let inode = it.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = table.lines().filter_map(|line| {
        // Number, local address, remote address, state (0A is LISTEN), …, inode at place 9.
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = words.get(1)?.split_once(':')?.1;
        let listens = words[3] == "0A" && own.iter().any(|it| it == words[9]);
        listens.then(|| u16::from_str_radix(port, 16).unwrap())
    });
    sockets.collect()
}
