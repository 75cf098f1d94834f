//! One entry as text: an address or a net, a peer of a pool. One parser for each.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::peer::{ListedPeer, Place, USUAL_WEIGHT, write_weight};

/// The canonical form: an address, or `network/length`.
pub fn canonical(net: IpNet) -> String {
    fmt::from_fn(|f| write_net(f, net)).to_string()
}

/// Writes the canonical form.
pub(super) fn write_net(f: &mut fmt::Formatter<'_>, net: IpNet) -> fmt::Result {
    if net.prefix_len() == net.max_prefix_len() {
        fmt::Display::fmt(&net.addr(), f)
    } else {
        fmt::Display::fmt(&net, f)
    }
}

/// Reads an address or a net. Host bits in a net are cleared.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn net_entry(text: &str) -> Result<IpNet, &'static str> {
    read_net(text).map(|net| net.trunc())
}

/// As [`net_entry`], but as it was written, with host bits.
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

/// A peer as its entry names it, in canonical form: with the port only if that stands there, and with the
/// weight only if it is another than an entry without one has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrittenPeer {
    host: Host,
    port: Option<u16>,
    weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Address(IpAddr),
    Name(Arc<str>),
}

impl fmt::Display for WrittenPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Address(address), Some(port)) => SocketAddr::new(*address, port).fmt(f),
            (Host::Address(address), None) => address.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }?;
        write_weight(f, self.weight)
    }
}

/// Why an address is skipped that has no server behind it.
pub(super) const UNREACHABLE: &str = "an address that nobody can connect to";

/// Why a link-local IPv6 address is skipped: it names an interface's neighbour only together with
/// the interface (RFC 4007 section 11), which differs from machine to machine.
pub(super) const LINK_LOCAL: &str =
    "a link-local address, which means nothing without a zone, and zones are not supported";

/// What is wrong with an entry that is skipped.
pub(crate) type WrongEntry = Cow<'static, str>;

/// Reads one entry of a pool: `ip`, `ip:port`, `[v6]:port` or a name with a port or without; attributes may
/// follow.
///
/// # Errors
/// What is wrong with it.
pub fn peer_entry(text: &str, default_port: u16) -> Result<ListedPeer, WrongEntry> {
    read_peer(text, default_port).map(|(_, peer)| peer)
}

/// A pool's entry as it was written, and the address that it means, with the default port if none was
/// written.
pub(super) fn read_peer(
    text: &str,
    default_port: u16,
) -> Result<(WrittenPeer, ListedPeer), WrongEntry> {
    let mut words = text.split_ascii_whitespace();
    let (host, port) = words.next().and_then(host_and_port).ok_or(
        "neither `ip`, `ip:port`, `[v6]:port` nor a name like `app1.internal` or `app1.internal:80`",
    )?;
    if let Host::Address(address) = host
        && let Some(why) = why_unusable(address)
    {
        return Err(why.into());
    }
    let weight = attributes(words)?;
    let meant = port.unwrap_or(default_port);
    if meant == 0 {
        return Err("port 0".into());
    }
    let place = match &host {
        Host::Address(address) => Place::Address(SocketAddr::new(*address, meant)),
        Host::Name(name) => Place::Name(Arc::clone(name), meant),
    };
    Ok((
        WrittenPeer { host, port, weight },
        ListedPeer::new(place, weight),
    ))
}

/// The weights that there are.
pub(super) const WEIGHTS: RangeInclusive<u16> = 1..=1000;

/// What stands behind the server; the weight is all that there is by now.
fn attributes<'a>(words: impl Iterator<Item = &'a str>) -> Result<u16, WrongEntry> {
    let mut weight = None;
    for word in words {
        let value = match word.split_once('=') {
            Some(("weight", value)) => value,
            Some((name, _)) => {
                let name: String = name.chars().take(NAMED_OF_ATTRIBUTE).collect();
                let name = name.escape_default();
                let what = format!("\"{name}\" is unknown; only weight=1 to weight=1000 is read");
                return Err(what.into());
            }
            None => return Err("more than a server and attributes like weight=3".into()),
        };
        let read = decimal(value).filter(|it| WEIGHTS.contains(it) || *it == 0);
        match read {
            Some(0) => return Err(NO_WEIGHT.into()),
            Some(_) if weight.is_some() => return Err("its weight stands twice".into()),
            Some(_) => weight = read,
            None => return Err("a weight is a number from 1 to 1000".into()),
        }
    }
    Ok(weight.unwrap_or(USUAL_WEIGHT))
}

/// So much of the name of an unknown attribute is shown.
const NAMED_OF_ATTRIBUTE: usize = 32;

/// Why a weight of 0 is none: elsewhere it means a server that gets nothing new, and here that is a server
/// that is not listed.
const NO_WEIGHT: &str =
    "weight=0 is no weight: for a server that is to get no more requests, remove the entry";

fn host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
    if let Some((address, port)) = address_and_port(text) {
        return Some((Host::Address(address.to_canonical()), port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(decimal(port)?)),
        None => (text, None),
    };
    Some((Host::Name(canonical_name(name)?), port))
}

/// No name is longer, without a dot at its end (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

/// And no label.
const LONGEST_LABEL: usize = 63;

/// The name of a host in lower case: labels of RFC 1123 section 2.1, and with `_`, since there are such
/// names. A dot at the end stays: it says that no domain is to be tried behind the name.
pub(super) fn canonical_name(text: &str) -> Option<Arc<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(first, last)| is_inner(*first) && is_inner(*last))
            && bytes.len() <= LONGEST_LABEL
            && bytes.iter().all(|&it| is_inner(it) || it == b'-')
    };
    let is_name = name.len() <= LONGEST_NAME && name.split('.').all(is_label);
    (is_name && !is_almost_address(name)).then(|| text.to_ascii_lowercase().into())
}

/// True for what is an address with a fault rather than a name. What ends in a number is an IPv4 address
/// to browsers and to the C library, which reads `010.0.0.1`, `1.2.3` and `0x7f.1`, and no name (WHATWG URL,
/// "ends in a number"). `10.0.0.1O` and `10.0.0.1-5` end in none by that rule.
fn is_almost_address(name: &str) -> bool {
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let (before, last) = match name.rsplit_once('.') {
        Some((before, last)) => (Some(before), last),
        None => (None, name),
    };
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    is_number(last)
        || hexadecimal.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || before.is_some_and(|it| it.split('.').all(is_number))
            && last.starts_with(|it: char| it.is_ascii_digit())
        || digits(name).parse::<Ipv4Addr>().is_ok()
}

/// Letters that look like digits as what they look like; none of them is a hexadecimal digit.
pub(super) fn digits(text: &str) -> String {
    text.replace(['O', 'o'], "0").replace(['l', 'I', 'i'], "1")
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

/// Why no server is at an address, or none that every machine finds there.
pub(crate) fn why_unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if is_unreachable(address) => Some(UNREACHABLE),
        IpAddr::V6(it) if it.is_unicast_link_local() => Some(LINK_LOCAL),
        _ => None,
    }
}

/// Addresses of "this network" (RFC 1122 section 3.2.1.3), of everybody, and of groups.
fn is_unreachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => it.octets()[0] == 0 || it.is_broadcast() || it.is_multicast(),
        IpAddr::V6(it) => it.is_unspecified() || it.is_multicast(),
    }
}

/// No entry that can be read is longer, in bytes: a name with its port and weight has 272 at most, and there
/// is room for blanks around them, and for several terms. Of a longer one a store need not keep more than
/// that it is longer.
pub(crate) const LONGEST_ENTRY: usize = 1024;

/// Why a longer one is skipped.
pub(super) const TOO_LONG: &str = "longer than the 1024 bytes that an entry may have";

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
            ("http://10.0.0.1", None),
        ];
        for (text, expected) in table {
            let peer = peer_entry(text, 8000).ok().map(|it| it.to_string());
            assert_eq!(peer.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_read_and_what_is_almost_an_address_is_none() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), LONGEST_NAME);
        let (longer, with_dot) = (longest.clone() + "b", longest.clone() + ".");
        let long_label = "a".repeat(64);
        let table = [
            ("app1.internal:8080", Some("app1.internal:8080")),
            ("App1.Internal", Some("app1.internal:80")),
            ("localhost", Some("localhost:80")),
            ("app1.internal.:81", Some("app1.internal.:81")),
            (
                "_http._tcp.app-1.internal",
                Some("_http._tcp.app-1.internal:80"),
            ),
            ("3scale", Some("3scale:80")),
            ("10.example", Some("10.example:80")),
            ("1.2.3.4.example", Some("1.2.3.4.example:80")),
            ("0xcafe.example", Some("0xcafe.example:80")),
            (&longest, Some(&*format!("{longest}:80"))),
            (&with_dot, Some(&*format!("{with_dot}:80"))),
            (&longer, None),
            (&long_label, None),
            ("010.0.0.1", None),
            ("10.0.0.256", None),
            ("10.0.0.256:80", None),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("10.0.0.1.", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("0X", None),
            ("app.0x1f", None),
            ("app.08", None),
            ("192.168.1.1O", None),
            ("l0.0.0.l", None),
            ("10.0.0.1-5", None),
            ("10.0.0.1-10.0.0.5", None),
            ("-app.internal", None),
            ("app-.internal", None),
            ("app..internal", None),
            (".internal", None),
            (".", None),
            ("", None),
            ("app1.internal:", None),
            ("app1.internal:0", None),
            ("app1.internal:080", None),
            ("app1.internal:65536", None),
            ("app1:80:80", None),
            ("[app1]:80", None),
            ("app 1", None),
            ("app\u{e9}.internal", None),
            ("*.internal", None),
            ("http://app1.internal", None),
        ];
        for (text, expected) in table {
            let peer = peer_entry(text, 80).ok().map(|it| it.to_string());
            assert_eq!(peer.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_weight_is_read_and_other_attributes_are_named() {
        let read = |text: &str| read_peer(text, 80).map(|(written, _)| written.to_string());
        for (text, expected) in [
            ("192.168.2.1:80 weight=3", "192.168.2.1:80 weight=3"),
            ("192.168.2.1\t  weight=1000 ", "192.168.2.1 weight=1000"),
            ("[2001:db8::1]:80 weight=2", "[2001:db8::1]:80 weight=2"),
            ("2001:db8::1 weight=2", "2001:db8::1 weight=2"),
            ("App1.internal:8080 weight=2", "app1.internal:8080 weight=2"),
            ("10.0.0.1 weight=1", "10.0.0.1"),
        ] {
            let written = read(text).unwrap();
            assert_eq!(written, expected, "{text}");
            assert_eq!(
                read(&written).as_ref(),
                Ok(&written),
                "what is canonical stays so"
            );
        }
        for (text, expected) in [
            ("10.0.0.1 weight=0", NO_WEIGHT),
            (
                "10.0.0.1 weight=1001",
                "a weight is a number from 1 to 1000",
            ),
            ("10.0.0.1 weight=", "a weight is a number from 1 to 1000"),
            ("10.0.0.1 weight=03", "a weight is a number from 1 to 1000"),
            ("10.0.0.1 weight=2.5", "a weight is a number from 1 to 1000"),
            (
                "10.0.0.1 weight=99999",
                "a weight is a number from 1 to 1000",
            ),
            ("10.0.0.1 weight=2 weight=2", "its weight stands twice"),
            (
                "10.0.0.1 backup",
                "more than a server and attributes like weight=3",
            ),
            (
                "10.0.0.1 weight=2 max_fails=3",
                "\"max_fails\" is unknown; only weight=1 to weight=1000 is read",
            ),
            (
                "app1 Weight=2",
                "\"Weight\" is unknown; only weight=1 to weight=1000 is read",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
    }
}
