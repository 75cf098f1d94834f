//! Section `[gateway]`: the client side and the process.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Reading, Wrong, wrong};
use super::file::Section;
use super::units::{self, address, one_of, overlap};
use crate::http::limits::{Limits, MAX_FIELDS};

/// Section `[gateway]`: the client side and the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Addresses to serve, at least one.
    pub listen: Vec<Listen>,
    /// Worker threads, 1 to 256.
    pub workers: usize,
    /// Connections that are active at most.
    pub max_connections: usize,
    /// Limits of heads, in bytes and fields.
    pub limits: Limits,
    /// A target's path and query may have bytes from 0x80 on.
    pub raw_target: bool,
    /// Limit of a request's body in bytes, if there is one.
    pub max_body: Option<u64>,
    /// Bytes of a request's body that are read and dropped after its final answer, at most.
    pub max_discard: Option<u64>,
    /// For a whole request head.
    pub head_timeout: Duration,
    /// For the next bytes of a request body.
    pub body_timeout: Duration,
    /// For the client to take some of a response.
    pub send_timeout: Duration,
    /// Bytes a second that the client has to reach in bodies, both ways, while it is waited for.
    pub min_rate: Option<NonZeroU64>,
    /// For the next request on a connection.
    pub keepalive_timeout: Duration,
    /// For the next bytes of an upgraded connection, from either side.
    pub tunnel_timeout: Duration,
    /// For open requests to end when the gateway stops.
    pub drain_timeout: Duration,
    /// Networks whose word on the client's address is taken; mapped addresses as IPv4.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Where the process id is written, if anywhere; absolute.
    pub pid_file: Option<PathBuf>,
    /// The user to become, if any.
    pub user: Option<String>,
    /// The group to become; without one, the user's own.
    pub group: Option<String>,
}

/// An address to serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listen {
    /// The address; port 0 is any free one.
    pub addr: SocketAddr,
    /// Connections come from trusted proxies only and begin with a PROXY protocol header.
    pub proxy: bool,
}

impl Gateway {
    pub(super) fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        let duration = |name| section.get(name, units::duration);
        let head_size = |name| section.get(name, units::head_size);
        let listen = section.get("listen", listen)?;
        let trusted_proxies = section.get("trusted_proxies", units::networks)?;
        if listen.iter().any(|it: &Listen| it.proxy) && trusted_proxies.is_empty() {
            let wrong = Wrong {
                what: "a listener with `proxy`, and nobody who may connect to it".to_owned(),
                allowed: "addresses or CIDRs of the proxies in trusted_proxies".to_owned(),
            };
            return Err(section.wrong("listen", &wrong));
        }
        let user = section.get("user", units::optional_name)?;
        let group = section.get("group", units::optional_name)?;
        if user.is_none() && group.is_some() {
            let wrong = Wrong {
                what: "a group to become, and no user".to_owned(),
                allowed: "a user in user, too, or no group".to_owned(),
            };
            return Err(section.wrong("group", &wrong));
        }
        Ok(Self {
            listen,
            workers: section.get("workers", units::workers)?,
            max_connections: section.get("max_connections", units::count(1..=1_000_000))?,
            limits: Limits {
                line: head_size("max_line")?,
                head: head_size("max_head")?,
                fields: section.get("max_fields", units::count(1..=MAX_FIELDS))?,
            },
            raw_target: section.get("raw_target", raw_target)?,
            max_body: section.get("max_body", units::body_size)?,
            max_discard: section.get("max_discard", units::body_size)?,
            head_timeout: duration("head_timeout")?,
            body_timeout: duration("body_timeout")?,
            send_timeout: duration("send_timeout")?,
            min_rate: section.get("min_rate", units::rate)?,
            keepalive_timeout: duration("keepalive_timeout")?,
            tunnel_timeout: duration("tunnel_timeout")?,
            drain_timeout: duration("drain_timeout")?,
            trusted_proxies,
            pid_file: section.get("pid_file", units::path(base))?,
            user,
            group,
        })
    }
}

/// Addresses with ports, at least one and each one once.
/// `proxy` behind an address: connections begin with a PROXY protocol header.
fn listen(text: &str) -> Reading<Vec<Listen>> {
    const ALLOWED: &str = "IP addresses with a port, separated by commas, as 0.0.0.0:80 or [::]:80; \
                           behind each, `proxy` or nothing";
    let mut all: Vec<Listen> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let bare = item
            .strip_suffix("proxy")
            .filter(|bare| bare.ends_with([' ', '\t']));
        let addr = address(bare.unwrap_or(item).trim()).or_else(|what| wrong(what, ALLOWED))?;
        match all.iter().find(|it| overlap(it.addr, addr)) {
            Some(it) if it.addr == addr => {
                return wrong(format!("{addr} stands there twice"), ALLOWED);
            }
            Some(Listen { addr: other, .. }) => {
                return wrong(
                    format!("{other} and {addr} are in each other's way"),
                    ALLOWED,
                );
            }
            None => {}
        }
        let proxy = bare.is_some();
        all.push(Listen { addr, proxy });
    }
    Ok(all)
}

/// Whether something that is out of the ordinary passes.
fn raw_target(text: &str) -> Reading<bool> {
    one_of(text, &[("pass", true), ("refuse", false)])
}
