//! Section `[admin]`: where the gateway may be asked about itself, and what is answered there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ValueResult, WrongValue, shown, wrong};
use super::file::{IniFile, Section};
use super::gateway::{self, Listen};
use super::key::{Setting, settings};
use super::units::{self, address, one_of, overlap};

settings! {
    [admin]
    SOCKET: Option<PathBuf> = socket, "/run/graygate/admin.sock", reload, |it, base| socket(it, base),
        "Unix socket for root and the gateway's group, by which everything is served and the command line asks; or off.";
    LISTEN: Option<SocketAddr> = listen, "127.0.0.1:9180", reload, |it, _| address_or_off(it),
        "Address at which the pages can be read, or off; one that is not loopback requires token_file.";
    EXPOSE: Expose = expose, "status", reload, |it, _| one_of(it, &[("status", Expose::Status), ("full", Expose::Full)]),
        "What listen shows: status, which is all but lists of clients, or full.";
    TOKEN_FILE: Option<PathBuf> = token_file, "", reload, |it, base| units::path(it, base),
        "File with the token that changes by way of listen require, and reading where it is not loopback; empty: none, and no changes.";
    METRICS: Option<SocketAddr> = metrics, "off", reload, |it, _| address_or_off(it),
        "Address, any one, that serves /metrics and /healthz and nothing else, or off.";
    HOSTS: Vec<String> = hosts, "", reload, |it, _| hosts(it),
        "Names, separated by commas, by which listen and metrics may be requested, besides IP addresses and localhost.";
}

/// Section `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// The Unix socket that serves everything, if there is to be one.
    pub socket: Option<AdminSocketPath>,
    /// Where the pages can be read over TCP, if anywhere.
    pub listen: Option<SocketAddr>,
    /// How much of them.
    pub expose: Expose,
    /// Where the token is that changes over TCP require.
    pub token_file: Option<PathBuf>,
    /// Where `/metrics` and `/healthz` alone can be read, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The names by which `listen` and `metrics` may be requested, besides addresses and `localhost`; in
    /// lower case.
    pub hosts: Vec<String>,
}

/// Where the Unix socket is.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSocketPath {
    /// Absolute.
    pub path: PathBuf,
    /// The ini file says so. If not, the gateway goes without where it cannot be made.
    pub is_named: bool,
}

/// What is shown over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    /// No lists of clients.
    Status,
    /// Everything.
    Full,
}

impl Expose {
    /// As in the ini file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Full => "full",
        }
    }
}

impl AdminSettings {
    /// The section by itself.
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let is_named = section.has(&SOCKET);
        let socket = section.get(&SOCKET)?;
        Ok(Self {
            socket: socket.map(|path| AdminSocketPath { path, is_named }),
            listen: section.get(&LISTEN)?,
            expose: section.get(&EXPOSE)?,
            token_file: section.get(&TOKEN_FILE)?,
            metrics: section.get(&METRICS)?,
            hosts: section.get(&HOSTS)?,
        })
    }

    /// The section beside `listen` of `[gateway]`, whose addresses must not be in the way of these.
    pub(super) fn beside(listen: &[Listen], file: &IniFile<'_>) -> Result<Self, ConfigError> {
        let section = file.section("admin");
        let settings = Self::of(section)?;
        for (setting, addr) in [(&LISTEN, settings.listen), (&METRICS, settings.metrics)] {
            if let Some(addr) = addr {
                keep_apart(setting, addr, listen, file)?;
            }
        }
        if let (Some(listen), Some(metrics)) = (settings.listen, settings.metrics)
            && (are_in_the_way(listen, metrics) || are_in_the_way(metrics, listen))
        {
            let what = format!("[admin] listen is {listen}");
            let allowed = "different addresses or ports for the two".to_owned();
            return Err(section.wrong(&METRICS.key, &WrongValue { what, allowed }));
        }
        let is_open = settings.listen.is_some_and(|it| !is_loopback(it));
        if is_open && settings.token_file.is_none() {
            let what =
                "other machines could read what it serves, and [admin] token_file is not set";
            let allowed = "127.0.0.1 or [::1] with a port, or a token_file besides; \
                           for /metrics and /healthz alone, [admin] metrics";
            let (what, allowed) = (what.to_owned(), allowed.to_owned());
            return Err(section.wrong(&LISTEN.key, &WrongValue { what, allowed }));
        }
        Ok(settings)
    }
}

/// Whether only this machine can reach an address.
pub(crate) fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// An admin address must not conflict with those of `[gateway]`.
fn keep_apart(
    setting: &Setting<Option<SocketAddr>>,
    admin: SocketAddr,
    listen: &[Listen],
    file: &IniFile<'_>,
) -> Result<(), ConfigError> {
    let mut others = listen.iter().map(|it| it.addr);
    let Some(other) = others.find(|other| are_in_the_way(admin, *other)) else {
        return Ok(());
    };
    let section = file.section("admin");
    let allowed = "different addresses or ports for the two".to_owned();
    // The error should name a line that is in the file.
    Err(if section.has(setting) {
        let what = format!("[gateway] listen has {other}");
        section.wrong(&setting.key, &WrongValue { what, allowed })
    } else {
        let what = format!("[admin] {} is {admin}", setting.key.name);
        let section = file.section("gateway");
        section.wrong(&gateway::LISTEN.key, &WrongValue { what, allowed })
    })
}

/// An admin listener has an ordinary socket: with `[::]` it accepts IPv4, too.
fn are_in_the_way(admin: SocketAddr, other: SocketAddr) -> bool {
    let all = admin.is_ipv6() && admin.ip().is_unspecified();
    let takes_both_families = all && admin.port() == other.port() && admin.port() != 0;
    overlap(admin, other) || takes_both_families
}

/// The longest path of a Unix socket, in bytes (unix(7): 108 with the zero at its end).
const LONGEST_PATH: usize = 107;

/// The path of a Unix socket, or `off`.
fn socket(text: &str, base: &Path) -> ValueResult<Option<PathBuf>> {
    if text == "off" {
        return Ok(None);
    }
    const ALLOWED: &str =
        "off, or the path of a Unix socket, at most 107 bytes long as an absolute path";
    let path = units::path(text, base)?;
    match &path {
        Some(path) if path.as_os_str().len() > LONGEST_PATH => {
            wrong("the path is too long for a Unix socket", ALLOWED)
        }
        Some(path) if path.file_name().is_none() || text.ends_with('/') => {
            wrong("it is a folder", ALLOWED)
        }
        _ => Ok(path),
    }
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
