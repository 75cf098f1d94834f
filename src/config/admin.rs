//! Section `[admin]`.

use std::net::SocketAddr;

use super::error::{ConfigError, ValueResult, WrongValue, shown, wrong};
use super::file::IniFile;
use super::gateway::{self, Listen};
use super::key::settings;
use super::units::{address, overlap};

settings! {
    [admin]
    LISTEN: Option<SocketAddr> = listen, "127.0.0.1:9180", restart, |it, _| address_or_off(it),
        "Address of the admin listener, or off. It has no passwords.";
    HOSTS: Vec<String> = hosts, "", reload, |it, _| hosts(it),
        "Names, separated by commas, by which it may be requested, besides IP addresses and localhost.";
}

/// The admin listener's address, which must not conflict with those of `listen`.
pub(super) fn listen_beside(
    listen: &[Listen],
    file: &IniFile<'_>,
) -> Result<Option<SocketAddr>, ConfigError> {
    let section = file.section("admin");
    let admin = section.get(&LISTEN)?;
    let in_the_way = |admin: SocketAddr| {
        let mut others = listen.iter().map(|it| it.addr);
        others.find(|other| overlap(admin, *other) || takes_both_families(admin, *other))
    };
    let Some((admin, other)) = admin.and_then(|it| Some((it, in_the_way(it)?))) else {
        return Ok(admin);
    };
    let allowed = "different addresses or ports for the two".to_owned();
    // The error should name a line that is in the file.
    Err(if section.has(&LISTEN) {
        let what = format!("[gateway] listen has {other}");
        section.wrong(&LISTEN.key, &WrongValue { what, allowed })
    } else {
        let what = format!("[admin] listen is {admin}");
        let section = file.section("gateway");
        section.wrong(&gateway::LISTEN.key, &WrongValue { what, allowed })
    })
}

/// The admin listener has an ordinary socket: with `[::]` it accepts IPv4, too.
fn takes_both_families(admin: SocketAddr, other: SocketAddr) -> bool {
    let all = admin.is_ipv6() && admin.ip().is_unspecified();
    all && admin.port() == other.port() && admin.port() != 0
}

/// An address with a port, or `off`.
pub(super) fn address_or_off(text: &str) -> ValueResult<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    let allowed = "off, or an IP address with a port, such as 127.0.0.1:9180 or [::1]:9180";
    address(text).map(Some).or_else(|what| wrong(what, allowed))
}

/// Names of hosts, in lower case; none when empty.
pub(super) fn hosts(text: &str) -> ValueResult<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let read = |item: &str| {
        let name = item.trim().trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(plain) {
            let what = format!("`{}` is not the name of a host", shown(item.trim()));
            return wrong(
                what,
                "names without a port, separated by commas, such as gw-1.example.net",
            );
        }
        Ok(name)
    };
    text.split(',').map(read).collect()
}
