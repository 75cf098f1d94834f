//! The names by which the admin listener may be requested.
//!
//! A web page can make a browser on this machine, or in this network, send requests to any address, by
//! resolving its own name to that address (DNS rebinding); the browser then takes the answer for the
//! page's. In that case `Host` has the page's name. So requests are served only for what cannot be a
//! page's name: IP addresses, `localhost`, and the names in `[admin] hosts`.

use std::net::{IpAddr, Ipv6Addr};

/// True when a request with this `Host` (RFC 9110 section 7.2) may be served, where the listener is known
/// by `names`, too, which are in lower case.
pub(super) fn is_own(host: &[u8], names: &[String]) -> bool {
    let Some(name) = std::str::from_utf8(host).ok().and_then(without_port) else {
        return false;
    };
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or(address);
        let address = address.split('%').next().unwrap_or(address);
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // A dot at the end marks a fully qualified name.
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || names.contains(&name)
}

fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(_) => host.find(']')? + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let digits = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = port.strip_prefix(':').is_some_and(digits);
    (port.is_empty() || is_port).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_own() {
        let names = ["gw-1.example.net".to_owned(), "gw_1".to_owned()];
        for (host, own) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9180", true),
            ("10.0.0.7:", true),
            ("[::1]", true),
            ("[::1]:9180", true),
            ("[fe80::1%25eth0]:9180", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("localhost.", true),
            ("gw-1.example.net:9180", true),
            ("GW-1.Example.NET.", true),
            ("gw_1", true),
            ("", false),
            (":9180", false),
            ("evil.example", false),
            ("evil.example:9180", false),
            ("localhost.evil.example", false),
            ("evil.localhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80:80", false),
            ("127.0.0.1@evil.example", false),
            ("127.1", false),
            ("2130706433", false),
            ("0x7f000001", false),
            ("::1", false),
            ("[::1", false),
            ("[127.0.0.1]", false),
            ("[evil.example]", false),
            ("[::1]evil.example", false),
            ("localhost..", false),
            ("example.net", false),
        ] {
            assert_eq!(is_own(host.as_bytes(), &names), own, "{host}");
        }
        assert!(!is_own(b"\xff", &names));
        assert!(!is_own(b"gw_1", &[]));
    }
}
