//! Who the client is: its socket address, or what trusted proxies say of it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{Field, Kind, list};

/// A longer chain of addresses is not believed.
const MAX_CHAIN: usize = 64;

/// IPv4-mapped IPv6 addresses are the IPv4 address that they carry.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// True when `address` is one of the proxies that may say who the client is.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The client's address.
///
/// From an untrusted `socket` address it is that address. From a trusted one it is the right-most
/// address in `X-Forwarded-For` that is not itself a trusted proxy, or the left-most if all are.
/// A chain that has anything but addresses up to there, or that is longer than 64, is not
/// believed: the socket address stands, so that nobody becomes gray by forgery.
pub fn address(socket: IpAddr, trusted: &[IpNet], fields: &[Field], bytes: &[u8]) -> IpAddr {
    let socket = canonical(socket);
    if trusted.is_empty() || !is_trusted(socket, trusted) {
        return socket;
    }
    let chain = fields
        .iter()
        .rev()
        .filter(|field| field.kind == Kind::ForwardedFor)
        .flat_map(|field| list(field.value, bytes).rev());
    let mut client = socket;
    for (count, element) in chain.enumerate() {
        let Some(address) = parse_address(element.of(bytes)) else {
            return socket;
        };
        if count >= MAX_CHAIN {
            return socket;
        }
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let in_brackets = text
        .strip_prefix(b"[")
        .and_then(|text| text.strip_suffix(b"]"));
    let bare = std::str::from_utf8(in_brackets.unwrap_or(text)).ok()?;
    let address = match in_brackets {
        Some(_) => IpAddr::V6(bare.parse().ok()?),
        None => bare.parse().ok()?,
    };
    Some(canonical(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Span;

    fn client(socket: &str, chain: &[&str]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let bytes = chain.concat();
        let mut at = 0;
        let fields: Vec<Field> = chain
            .iter()
            .map(|value| {
                let value = Span::new(at, at + value.len());
                at += value.of(bytes.as_bytes()).len();
                Field {
                    name: Span::default(),
                    value,
                    kind: Kind::ForwardedFor,
                }
            })
            .collect();
        address(socket.parse().unwrap(), &trusted, &fields, bytes.as_bytes()).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_vouch() {
        let long = ["1.2.3.4, "].repeat(65).concat();
        let long_trusted = ["10.2.3.4, "].repeat(65).concat();
        let table: &[(&str, &[&str], &str)] = &[
            ("1.1.1.1", &["2.2.2.2"], "1.1.1.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["2.2.2.2"], "2.2.2.2"),
            ("::ffff:10.0.0.1", &["2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1", &["3.3.3.3, 2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1", &["3.3.3.3", "2.2.2.2, 10.9.9.9"], "2.2.2.2"),
            ("10.0.0.1", &["fd00::1, 10.9.9.9"], "fd00::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1", &["2.2.2.2, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["garbage, 2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1", &["2.2.2.2:80"], "10.0.0.1"),
            ("10.0.0.1", &["[2.2.2.2]"], "10.0.0.1"),
            ("10.0.0.1", &["\u{ff}"], "10.0.0.1"),
            ("10.0.0.1", &[&long], "1.2.3.4"),
            ("10.0.0.1", &[&long_trusted], "10.0.0.1"),
        ];
        for (socket, chain, expected) in table {
            assert_eq!(client(socket, chain), *expected, "{socket} {chain:?}");
        }
    }
}
