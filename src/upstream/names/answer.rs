//! What the system's resolver says of a name. It may take as long as it likes.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::lists::why_unusable;

/// The addresses of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NameAddresses {
    /// Those that can be used, at least one, sorted and without repetition.
    pub(super) addresses: Vec<IpAddr>,
    /// The others, and why they cannot.
    pub(super) skipped: Vec<(IpAddr, &'static str)>,
}

/// Asks for the addresses of `name`.
///
/// # Errors
/// Why there is none.
pub(super) fn ask(name: &str) -> Result<NameAddresses, String> {
    let found = (name, 0).to_socket_addrs();
    let found = found.map_err(|error| error.to_string())?;
    sort(found.map(|it| it.ip()).collect(), has_route)
}

/// Why an address is skipped that has a companion of the other family.
const NO_ROUTE: &str = "this machine has no route to it";

/// A name of both families is asked for where one of them may not be in use: then half of its addresses
/// would be servers that never answer.
fn sort(found: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Result<NameAddresses, String> {
    let mut answer = NameAddresses::default();
    for address in found.iter().map(IpAddr::to_canonical) {
        match why_unusable(address) {
            Some(why) => answer.skipped.push((address, why)),
            None => answer.addresses.push(address),
        }
    }
    answer.addresses.sort_unstable();
    answer.addresses.dedup();
    if answer.addresses.iter().any(IpAddr::is_ipv4) && answer.addresses.iter().any(IpAddr::is_ipv6)
    {
        let is_reached = |it: &IpAddr| has_route(*it);
        let (reached, others): (Vec<_>, Vec<_>) =
            answer.addresses.iter().copied().partition(is_reached);
        if !reached.is_empty() {
            answer.addresses = reached;
            let others = others.into_iter().map(|it| (it, NO_ROUTE));
            answer.skipped.extend(others);
        }
    }
    answer.skipped.sort_unstable();
    answer.skipped.dedup();
    match (&answer.addresses[..], &answer.skipped[..]) {
        ([], []) => Err("it has no address".to_owned()),
        ([], [(address, why), ..]) => Err(format!("{address} is {why}")),
        _ => Ok(answer),
    }
}

/// True unless the kernel knows no way to `address`. Nothing is sent.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Any port but 0.
    let to = SocketAddr::new(address, 9);
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(to).is_ok())
}

/// Addresses for the log: the first of them, and how many others there are.
pub(super) fn shown(addresses: &[IpAddr]) -> String {
    let mut text = String::new();
    for (at, address) in addresses.iter().take(SHOWN).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{address}", if at == 0 { "" } else { "," });
    }
    if let Some(more @ 1..) = addresses.len().checked_sub(SHOWN) {
        let _ = write!(text, ",+{more}");
    }
    text
}

/// So many are named.
const SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_that_nobody_can_connect_to_are_left_out_and_named() {
        let found = [
            "10.0.0.2",
            "0.0.0.0",
            "::ffff:10.0.0.1",
            "10.0.0.2",
            "224.0.0.1",
            "fe80::1",
        ];
        let answer = sort(addresses(&found), |_| true).unwrap();
        assert_eq!(answer.addresses, addresses(&["10.0.0.1", "10.0.0.2"]));
        let skipped: Vec<_> = answer.skipped.iter().map(|it| it.0).collect();
        assert_eq!(skipped, addresses(&["0.0.0.0", "224.0.0.1", "fe80::1"]));
        let none = sort(addresses(&["0.0.0.0"]), |_| true).unwrap_err();
        assert_eq!(none, "0.0.0.0 is an address that nobody can connect to");
        assert_eq!(sort(Vec::new(), |_| true).unwrap_err(), "it has no address");
    }

    #[test]
    fn a_family_without_a_route_is_left_out_where_the_other_one_has_one() {
        let both = || addresses(&["10.0.0.1", "2001:db8::1"]);
        let answer = sort(both(), |it| it.is_ipv4()).unwrap();
        assert_eq!(answer.addresses, addresses(&["10.0.0.1"]));
        assert_eq!(answer.skipped, [(addresses(&["2001:db8::1"])[0], NO_ROUTE)]);
        // Routes may come back, and there is nothing better.
        assert_eq!(sort(both(), |_| false).unwrap().addresses, both());
        let one = sort(addresses(&["2001:db8::1"]), |_| false).unwrap();
        assert_eq!(one.addresses, addresses(&["2001:db8::1"]));
    }

    #[test]
    fn many_addresses_are_shown_by_the_first_of_them() {
        let many: Vec<IpAddr> = (0..18).map(|it| IpAddr::from([10, 0, 0, it])).collect();
        assert_eq!(shown(&many[..2]), "10.0.0.0,10.0.0.1");
        assert!(shown(&many).ends_with(",10.0.0.15,+2"));
    }
}
