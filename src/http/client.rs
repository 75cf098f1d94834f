//! Who the client is: its socket address, or what trusted proxies say of it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{Field, FieldKind, Fields, list};
use crate::error::Doubt;
use crate::http::span::Span;

/// A longer chain of addresses is not believed.
const MAX_CHAIN: usize = 64;

/// The canonical form: an IPv4-mapped IPv6 address becomes the IPv4 address in it.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// True when `address` is one of the proxies that may say who the client is.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Why the address that a trusted proxy names is not believed, and what the proxy said.
    pub doubt: Option<(Doubt, Span)>,
}

/// Who the client is.
///
/// From an untrusted `socket` address it is that address. From a trusted one it is the right-most
/// address in `X-Forwarded-For` that is not itself a trusted proxy, or the left-most if all are. If
/// there is anything but addresses (with or without a port) on the way there, or if the chain is longer
/// than 64, it is not believed: the socket address counts, so that nobody becomes gray by forgery.
pub fn identify(socket: IpAddr, trusted: &[IpNet], fields: &Fields, bytes: &[u8]) -> Client {
    let socket = canonical(socket);
    let mut client = Client {
        address: socket,
        doubt: None,
    };
    if trusted.is_empty() || !is_trusted(socket, trusted) {
        return client;
    }
    let doubted = |doubt, said| Client {
        address: socket,
        doubt: Some((doubt, said)),
    };
    let chain = fields
        .of_kind(FieldKind::ForwardedFor)
        .rev()
        .flat_map(|field| list(field.value, bytes).rev());
    let mut length = 0;
    for element in chain {
        let Some(address) = parse_element(element.of(bytes)) else {
            return doubted(Doubt::MalformedChain, element);
        };
        if length >= MAX_CHAIN {
            return doubted(Doubt::LongChain, element);
        }
        length += 1;
        client.address = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    match length {
        0 => Client {
            address: socket,
            doubt: named_elsewhere(fields, bytes).map(|said| (Doubt::NoChain, said)),
        },
        _ => client,
    }
}

/// What a proxy that does not send `X-Forwarded-For` says of its client.
fn named_elsewhere(fields: &[Field], bytes: &[u8]) -> Option<Span> {
    let names_it = |field: &&Field| match field.kind {
        FieldKind::RealIp => true,
        // The kind also covers `X-Forwarded-Port` and the like.
        FieldKind::Forwarded => field.name.of(bytes).eq_ignore_ascii_case(b"forwarded"),
        _ => false,
    };
    fields.iter().find(names_it).map(|field| field.value)
}

/// The doubt about fields that name a client where the PROXY header does not: they are not to be
/// believed.
pub(crate) fn unnamed(fields: &Fields) -> Option<(Doubt, Span)> {
    let mut chain = fields.of_kind(FieldKind::ForwardedFor);
    chain.next().map(|it| (Doubt::UnnamedClient, it.value))
}

/// An element of `X-Forwarded-For`: an address, or one with a port as some gateways write it,
/// `192.0.2.1:51234` and `[2001:db8::1]:443`. Without brackets, a colon is part of an IPv6 address.
fn parse_element(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address.parse().ok()?)
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                let address = address.parse().ok()?;
                is_port(port).then_some(IpAddr::V4(address))?
            }
            _ => text.parse().ok()?,
        },
    };
    Some(canonical(address))
}

/// A port that a client may have: 1 to 65535, without leading zeros.
fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|it| it.is_ascii_digit()) && !text.starts_with('0');
    is_number && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(socket: &str, chain: &[&str]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let bytes = chain.concat();
        let mut at = 0;
        let mut fields = Fields::default();
        for value in chain {
            let value = Span::new(at, at + value.len());
            at += value.of(bytes.as_bytes()).len();
            fields.push(Field {
                name: Span::default(),
                value,
                kind: FieldKind::ForwardedFor,
                is_as_written: true,
            });
        }
        let client = identify(socket.parse().unwrap(), &trusted, &fields, bytes.as_bytes());
        match client.doubt {
            Some((doubt, said)) => {
                let said = said.of(bytes.as_bytes()).escape_ascii();
                format!("{} {}: {said}", client.address, doubt.name())
            }
            None => client.address.to_string(),
        }
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
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["2.2.2.2:51234"], "2.2.2.2"),
            ("10.0.0.1", &["2.2.2.2:1, 10.9.9.9:65535"], "2.2.2.2"),
            ("10.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &["[::ffff:2.2.2.2]:443"], "2.2.2.2"),
            // There is no telling where a port would begin.
            ("10.0.0.1", &["2001:db8::7:443"], "2001:db8::7:443"),
            (
                "10.0.0.1",
                &["2.2.2.2, unknown"],
                "10.0.0.1 malformed-chain: unknown",
            ),
            ("10.0.0.1", &["garbage, 2.2.2.2"], "2.2.2.2"),
            (
                "10.0.0.1",
                &["\u{ff}"],
                "10.0.0.1 malformed-chain: \\xc3\\xbf",
            ),
            ("10.0.0.1", &[&long], "1.2.3.4"),
            (
                "10.0.0.1",
                &[&long_trusted],
                "10.0.0.1 long-chain: 10.2.3.4",
            ),
        ];
        for (socket, chain, expected) in table {
            assert_eq!(client(socket, chain), *expected, "{socket} {chain:?}");
        }
    }

    #[test]
    fn an_address_with_anything_but_a_port_is_none() {
        for element in [
            "2.2.2.2:",
            "2.2.2.2:0",
            "2.2.2.2:080",
            "2.2.2.2:65536",
            "2.2.2.2:-1",
            "2.2.2.2:+1",
            "2.2.2.2:1 ",
            "2.2.2.2: 1",
            "2.2.2.2 :1",
            "2.2.2.2:1:1",
            "2.2.2.2:a",
            "2.2.2.02:1",
            "2.2.2:1",
            ":1",
            "[2.2.2.2]",
            "[2.2.2.2]:1",
            "[::1]1",
            "[::1]:",
            "[::1]:0",
            "[::1]:65536",
            "[::1]:1:1",
            "[::1]]",
            "[::1",
            "[]:1",
            "[::1%eth0]:1",
            "[[::1]:1]",
            "::1]:1",
            "\"2.2.2.2:1\"",
            "2.2.2.2:\u{661}",
        ] {
            assert_eq!(parse_element(element.as_bytes()), None, "{element}");
        }
    }
}
