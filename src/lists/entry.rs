//! One entry as text: an address or a net of the gray list, a peer of a pool. One parser for each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::peer::Peer;

/// The canonical form: an address, or `network/length`.
pub fn canonical(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Reads one entry of the gray list. Host bits in a net are cleared.
///
/// # Errors
/// What is wrong with it.
pub fn gray_entry(text: &str) -> Result<IpNet, &'static str> {
    read_net(text).map(|net| net.trunc())
}

/// As [`gray_entry`], but as it was written, with host bits.
pub(super) fn read_net(text: &str) -> Result<IpNet, &'static str> {
    let net = match text.split_once('/') {
        Some((address, length)) => prefixed(address, length),
        None => text.parse().ok().map(|address: IpAddr| address.into()),
    };
    net.map(unmapped)
        .ok_or("neither an IP address nor a net like 10.0.0.0/8")
}

/// An address and a prefix length, each parsed as strictly as an address alone.
fn prefixed(address: &str, length: &str) -> Option<IpNet> {
    IpNet::new(address.parse().ok()?, decimal(length)?).ok()
}

/// The IPv4 form of a net of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2).
pub(super) fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let length = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), length) {
        (Some(address), Some(length)) => Ipv4Net::new(address, length).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// A peer as it was written, in canonical form: with a port only if one was written.
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

/// Why an address is skipped that has no server behind it.
pub(super) const UNREACHABLE: &str = "an address that nobody can connect to";

/// Why a link-local IPv6 address is skipped: it names an interface's neighbour only together with
/// the interface (RFC 4007 section 11), which differs from machine to machine.
pub(super) const LINK_LOCAL: &str =
    "a link-local address, which means nothing without a zone, and zones are not supported";

/// Reads one entry of a pool.
///
/// # Errors
/// What is wrong with it.
pub fn peer_entry(text: &str, default_port: u16) -> Result<Peer, &'static str> {
    read_peer(text, default_port).map(|(_, peer)| peer)
}

/// A pool's entry as it was written, and the address that it means, with the default port if none was
/// written.
pub(super) fn read_peer(text: &str, default_port: u16) -> Result<(Written, Peer), &'static str> {
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
        meant => {
            let peer = Peer::new(SocketAddr::new(address, meant));
            Ok((Written { address, port }, peer))
        }
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

/// The longest entry that can be read, in bytes: an address with its port has 55 at most, and there is
/// room for blanks around it. Of a longer one, a store only needs to know that it is longer.
pub const LONGEST_ENTRY: usize = 1024;

/// A number in its only unambiguous form: digits without leading zeros. Since some read `010` as ten and
/// others as eight, it is not accepted.
pub(super) fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| digits && !is_padded)
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
