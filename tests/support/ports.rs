//! Ports: those that are free, those on which a process listens, and the connections at others.

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
    let sockets = tcp_sockets(" 0A ").into_iter();
    let listening = sockets.filter(|it| it.state == LISTEN && own.contains(&it.inode));
    listening.map(|it| it.local).collect()
}

/// How many connections whose own side is at `port` have something that was not read.
#[track_caller]
pub(crate) fn unread_at(port: u16) -> usize {
    let sockets = tcp_sockets(&format!(":{port:04X} ")).into_iter();
    let is_unread = |it: &TcpSocket| it.local == port && it.state != LISTEN && it.unread > 0;
    sockets.filter(is_unread).count()
}

/// How many connections were ended by their other side, which is at `port`, and not by their own.
#[track_caller]
pub(crate) fn ended_from(port: u16) -> usize {
    let sockets = tcp_sockets(&format!(":{port:04X} ")).into_iter();
    let is_ended = |it: &TcpSocket| it.remote == port && it.state == CLOSE_WAIT;
    sockets.filter(is_ended).count()
}

/// How many connections have something unread that their other side, which is at `port`, has sent.
#[track_caller]
pub(crate) fn unread_from(port: u16) -> usize {
    let sockets = tcp_sockets(&format!(":{port:04X} ")).into_iter();
    let is_unread = |it: &TcpSocket| it.remote == port && it.unread > 0;
    sockets.filter(is_unread).count()
}

/// How many connections have something that their own side, which is at `port`, has sent and the other
/// side's kernel does not have yet.
#[track_caller]
pub(crate) fn on_the_way_from(port: u16) -> usize {
    let sockets = tcp_sockets(&format!(":{port:04X} ")).into_iter();
    let is_on_the_way = |it: &TcpSocket| it.local == port && it.state != LISTEN && it.unsent > 0;
    sockets.filter(is_on_the_way).count()
}

/// How many connections were ended by their own side, which is at `port`, while the other side may not
/// have heard of it yet: on a busy machine that takes its time, also within the machine.
#[track_caller]
pub(crate) fn ends_on_the_way_from(port: u16) -> usize {
    let sockets = tcp_sockets(&format!(":{port:04X} ")).into_iter();
    let is_on_the_way = |it: &TcpSocket| it.local == port && it.state == FIN_WAIT1;
    sockets.filter(is_on_the_way).count()
}

/// States of sockets (tcp_states.h).
const FIN_WAIT1: u8 = 0x04;
const CLOSE_WAIT: u8 = 0x08;
const LISTEN: u8 = 0x0A;

struct TcpSocket {
    local: u16,
    remote: u16,
    state: u8,
    /// Bytes that the other side has not acknowledged.
    unsent: u64,
    /// Bytes; of one that listens, connections.
    unread: u64,
    inode: String,
}

/// Those by IPv4 whose lines contain `text`: of a busy machine's, which are many, only these are read.
#[track_caller]
fn tcp_sockets(text: &str) -> Vec<TcpSocket> {
    let table = std::fs::read("/proc/net/tcp").unwrap();
    let sockets = memchr::memmem::find_iter(&table, text).filter_map(|at| {
        let start = memchr::memrchr(b'\n', &table[..at]).map_or(0, |it| it + 1);
        let end = memchr::memchr(b'\n', &table[at..]).map_or(table.len(), |it| at + it);
        let line = std::str::from_utf8(&table[start..end]).ok()?;
        // Number, local address, remote address, state, what is unsent and unread, …, inode at place 9.
        let words: Vec<&str> = line.split_whitespace().collect();
        let last = |place: usize| words.get(place)?.split(':').next_back();
        Some(TcpSocket {
            local: u16::from_str_radix(last(1)?, 16).ok()?,
            remote: u16::from_str_radix(last(2)?, 16).ok()?,
            state: u8::from_str_radix(last(3)?, 16).ok()?,
            unsent: u64::from_str_radix(words.get(4)?.split(':').next()?, 16).ok()?,
            unread: u64::from_str_radix(last(4)?, 16).ok()?,
            inode: last(9)?.to_owned(),
        })
    });
    sockets.collect()
}
