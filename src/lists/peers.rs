//! A pool: the addresses of its servers.
//!
//! An entry may leave its port to the settings. It is kept as it was written, and that is what a list
//! is known by (its digest, and the last-good copy): lists are the same wherever they are read,
//! whatever the port is there. Beside that stands what it means here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sha2::{Digest as _, Sha256};

use super::{Content, Digest, ListName, Remarks, Skipped, decimal, parse_all};
use crate::lists::findings as lint;

/// A peer as its entry names it, in canonical form: with the port only if that stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    address: IpAddr,
    port: Option<u16>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// The peers of a pool.
#[derive(Clone, Debug)]
pub struct PeerList {
    peers: Box<[SocketAddr]>,
    written: Box<[Written]>,
    content: Content,
    remarks: Remarks,
}

impl Default for PeerList {
    fn default() -> Self {
        Self::parse::<&[u8]>([], 0)
    }
}

impl PeerList {
    /// Reads entries: `ip`, `ip:port` or `[v6]:port`; without a port it is `default_port`.
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>, default_port: u16) -> Self {
        let (mut peers, mut all_written) = (Vec::new(), Vec::new());
        let read = |text: &str, notes: &mut lint::Notes| {
            let (written, peer) = read_peer(text, default_port)?;
            if peer.is_ipv6()
                && let Some(told) = lint::address_or_port(text, peer)
            {
                notes.add(lint::Kind::AddressOrPort, || told);
            }
            peers.push(peer);
            all_written.push(written);
            Ok(())
        };
        let almost = |text: &str| lint::almost_peer(text, default_port);
        let mut remarks = parse_all(texts, read, almost);
        peers.sort_unstable();
        remarks.notes.dedup(&mut peers, SocketAddr::to_string);
        all_written.sort_unstable();
        all_written.dedup();
        let mut content = Sha256::new();
        for written in &all_written {
            content.update(format!("{written}\n"));
        }
        Self {
            peers: peers.into_boxed_slice(),
            written: all_written.into_boxed_slice(),
            content: content.finalize().into(),
            remarks,
        }
    }

    /// The peers, sorted and without repetition.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// The entries as they were written, sorted and without repetition. Two of them may be one peer.
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A hash of these peers alone, as those of `list`.
    pub fn digest(&self, list: ListName) -> Digest {
        Digest::of(&[(list, self.content())])
    }

    /// The digest that these peers had before entries were kept as they were written: with the port of
    /// the settings. Somebody may have noted it.
    pub fn digest_with_ports(&self, list: ListName) -> Digest {
        let mut content = Sha256::new();
        for peer in &self.peers {
            content.update(format!("{peer}\n"));
        }
        Digest::of(&[(list, &content.finalize().into())])
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.remarks.skipped
    }

    /// What there is to be said of the entries.
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// These entries, with what could not be read of another list, and what was said of it.
    pub fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            remarks: other.remarks.clone(),
            ..self.clone()
        }
    }
}

/// Why an address is skipped that has no server behind it.
pub(super) const UNREACHABLE: &str = "an address that nobody can connect to";

/// Why a link-local IPv6 address is skipped: it names an interface's neighbour only together with
/// the interface (RFC 4007 section 11), which differs from machine to machine.
pub(super) const LINK_LOCAL: &str =
    "a link-local address, which means nothing without a zone, and zones are not read";

/// Reads one entry of a pool.
///
/// # Errors
/// What is wrong with it.
pub fn peer_entry(text: &str, default_port: u16) -> Result<SocketAddr, &'static str> {
    read_peer(text, default_port).map(|(_, peer)| peer)
}

/// An entry as it is written, and what it means where peers without a port have the default one.
fn read_peer(text: &str, default_port: u16) -> Result<(Written, SocketAddr), &'static str> {
    let (address, port) =
        address_and_port(text).ok_or("neither `ip`, `ip:port` nor `[v6]:port`")?;
    let address = address.to_canonical();
    if is_unreachable(address) {
        return Err(UNREACHABLE);
    }
    if matches!(address, IpAddr::V6(it) if it.is_unicast_link_local()) {
        return Err(LINK_LOCAL);
    }
    match port.unwrap_or(default_port) {
        0 => Err("port 0"),
        meant => Ok((Written { address, port }, SocketAddr::new(address, meant))),
    }
}

fn address_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse() {
        return Some((address, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(decimal(rest.strip_prefix(':')?)?),
        };
        return Some((address.into(), port));
    }
    let (address, port) = text.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    Some((address.into(), Some(decimal(port)?)))
}

/// Addresses of "this network" (RFC 1122 section 3.2.1.3), of everybody, and of groups.
fn is_unreachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => it.octets()[0] == 0 || it.is_broadcast() || it.is_multicast(),
        IpAddr::V6(it) => it.is_unspecified() || it.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_a_port_of_their_own_or_the_default_one() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:81", Some("10.0.0.1:81")),
            ("::1", Some("[::1]:8000")),
            ("[::1]", Some("[::1]:8000")),
            ("[::1]:81", Some("[::1]:81")),
            ("::ffff:10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.1:", None),
            ("10.0.0.1:080", None),
            ("10.0.0.1:+80", None),
            ("10.0.0.1:80:80", None),
            ("010.0.0.1:80", None),
            ("[::1]:080", None),
            ("[::1]80", None),
            ("[10.0.0.1]:80", None),
            ("::1]:80", None),
            ("2001:db8::1:80", Some("[2001:db8::1:80]:8000")),
            ("[2001:db8::1%2]:80", None),
            ("[fe80::1%2]:80", None),
            ("[fe80::1]:80", None),
            ("fe80::1", None),
            ("0.0.0.1:80", None),
            ("0.255.255.255", None),
            ("255.255.255.255:80", None),
            ("::ffff:0.0.0.1", None),
            ("[::ffff:255.255.255.255]:80", None),
            ("[ff02::1]:80", None),
            ("255.255.255.254:80", Some("255.255.255.254:80")),
            ("0.0.0.0", None),
            ("[::]:80", None),
            ("224.0.0.1", None),
            ("localhost", None),
            ("http://10.0.0.1", None),
        ];
        for (text, expected) in table {
            let peer = peer_entry(text, 8000).ok().map(|it| it.to_string());
            assert_eq!(peer.as_deref(), expected, "{text}");
        }
    }
}
