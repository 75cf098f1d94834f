//! `host:NAME`: names, addresses, and `*.example.com`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::words::{Pattern, Wrong};
use crate::lists::entry::canonical_name;

const HOST: Wrong = "host: is followed by a name like shop.example.com, *.example.com, or an address, without a port";

/// The text of a host in its canonical form, or of a piece of one beside a wildcard.
pub(super) fn host(pattern: &Pattern) -> Result<String, Wrong> {
    let text = &pattern.text;
    if pattern.open_start || pattern.open_end {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
        let is_piece = text.bytes().all(is_part) && !text.contains("..");
        let text = text.to_ascii_lowercase();
        return is_piece.then_some(text).ok_or(HOST);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| HOST)?;
        return Ok(format!("[{address}]"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address as a host is in brackets, like host:[2001:db8::1]");
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let name = canonical_name(name).filter(|it| !it.ends_with('.'));
    name.map(|it| String::from(&*it)).ok_or(HOST)
}
