//! Section `[gateway]`: the client side and the process.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::error::{ConfigError, ValueResult, WrongValue, wrong};
use super::file::Section;
use super::key::settings;
use super::units::{self, address, one_of, overlap};
use crate::http::limits::{self, Limits};

settings! {
    [gateway]
    LISTEN: Vec<Listen> = listen, "0.0.0.0:80", reload, |it, _| listen(it),
        "Addresses to listen on, separated by commas, such as [::]:80; `proxy` after one: PROXY protocol.";
    WORKERS: usize = workers, "auto", restart, |it, _| units::workers(it),
        "Threads that serve connections, 1 to 256; auto: one per CPU.";
    MAX_CONNECTIONS: usize = max_connections, "10000", reload, |it, _| units::count(it, 1..=1_000_000),
        "Largest number of active client connections, 1 to 1000000; 503 above that.";
    MAX_LINE: usize = max_line, "8k", reload, |it, _| units::head_size(it),
        "Longest request line, in bytes, 1k to 1m; 414 above that.";
    MAX_HEAD: usize = max_head, "32k", reload, |it, _| units::head_size(it),
        "Largest head of a message, in bytes, 1k to 1m; 431 above that.";
    MAX_FIELDS: usize = max_fields, "100", reload, |it, _| units::count(it, 1..=limits::MAX_FIELDS),
        "Largest number of header fields of a message, 1 to 256; 431 above that.";
    RAW_TARGET: bool = raw_target, "pass", reload, |it, _| raw_target(it),
        "Bytes above 0x7f in a target, which curl, old browsers and crawlers send: pass them unchanged, or refuse with 400.";
    MAX_BODY: Option<u64> = max_body, "unlimited", reload, |it, _| units::body_size(it),
        "Largest body of a request, in bytes, or unlimited; 413 above that.";
    MAX_DISCARD: Option<u64> = max_discard, "256m", reload, |it, _| units::body_size(it),
        "Bytes of a body that are still read after the final answer, so that the client gets to see it; or unlimited.";
    HEAD_TIMEOUT: Duration = head_timeout, "10s", reload, |it, _| units::duration(it),
        "Time for the whole head of a request to arrive.";
    BODY_TIMEOUT: Duration = body_timeout, "30s", reload, |it, _| units::duration(it),
        "Longest silence of a client within the body of its request.";
    SEND_TIMEOUT: Duration = send_timeout, "30s", reload, |it, _| units::duration(it),
        "Longest time in which a client reads nothing of its response.";
    MIN_RATE: Option<NonZeroU64> = min_rate, "500", reload, |it, _| units::rate(it),
        "Least rate of a client in a large body, in bytes a second, on top of the two timeouts above (a small one or a stream: a hundredth); or off.";
    KEEPALIVE_TIMEOUT: Duration = keepalive_timeout, "75s", reload, |it, _| units::duration(it),
        "Longest silence of a client between two requests.";
    TUNNEL_TIMEOUT: Duration = tunnel_timeout, "1h", reload, |it, _| units::duration(it),
        "Longest silence on an upgraded connection (WebSocket), and longest time in which a side reads nothing.";
    TUNNEL_GRACE: Option<Duration> = tunnel_grace, "30s", reload, |it, _| units::duration_or_off(it),
        "Time in which upgraded connections (WebSocket) to pre are ended, one by one, when pre is taken back from their clients; or off.";
    DRAIN_TIMEOUT: Duration = drain_timeout, "30s", reload, |it, _| units::duration(it),
        "Time for open requests to finish when the gateway stops.";
    DRAIN_TUNNEL_TIMEOUT: Duration = drain_tunnel_timeout, "1s", reload, |it, _| units::duration(it),
        "Longest silence on an upgraded connection (WebSocket) when the gateway stops; then it ends.";
    UPGRADE_TIMEOUT: Duration = upgrade_timeout, "30s", reload, |it, _| units::duration(it),
        "Time for a new process to be ready at an upgrade; otherwise this one serves on.";
    TRUSTED_PROXIES: Vec<IpNet> = trusted_proxies, "", reload, |it, _| units::networks(it),
        "Addresses or CIDRs, separated by commas, whose X-Forwarded-For is believed.";
    REQUEST_ID: bool = request_id, "off", reload, |it, _| units::switch(it),
        "An X-Request-Id for every request, of a trusted proxy or made, in the access log and for the server: on or off.";
    DEFAULT_SERVICE: bool = default_service, "on", reload, |it, _| units::switch(it),
        "Requests that no [service NAME] has go by the lists of [redis]: on; or off: 421 for such hosts, 404 for such paths.";
    PID_FILE: Option<PathBuf> = pid_file, "/run/graygate.pid", restart, |it, base| units::path(it, base),
        "File for the process id; empty: none.";
    USER: Option<String> = user, "nobody", restart, |it, _| units::optional_name(it),
        "User to become once the ports are open; empty: stay as started.";
    GROUP: Option<String> = group, "", restart, |it, _| units::optional_name(it),
        "Group to become; empty: the user's own.";
}

/// Section `[gateway]`: the client side and the process.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySettings {
    /// Addresses to serve, at least one.
    pub listen: Vec<Listen>,
    /// Worker threads, 1 to 256.
    pub workers: usize,
    /// Most active connections.
    pub max_connections: usize,
    /// Limits of heads, in bytes and fields.
    pub limits: Limits,
    /// A target's path and query may contain bytes from 0x80 on.
    pub raw_target: bool,
    /// Limit of a request's body in bytes, if there is one.
    pub max_body: Option<u64>,
    /// Most bytes of a request's body that are read and dropped after its final answer.
    pub max_discard: Option<u64>,
    /// For a whole request head.
    pub head_timeout: Duration,
    /// For the next bytes of a request body.
    pub body_timeout: Duration,
    /// For the client to take some of a response.
    pub send_timeout: Duration,
    /// The rate, in bytes a second, that the client has to reach in bodies, in both directions, while it
    /// is waited for.
    pub min_rate: Option<NonZeroU64>,
    /// For the next request on a connection.
    pub keepalive_timeout: Duration,
    /// For the next bytes of an upgraded connection, from either side.
    pub tunnel_timeout: Duration,
    /// For the upgraded connections to `pre` of clients that are served by `prod` by now, if they end.
    pub tunnel_grace: Option<Duration>,
    /// For open requests to end when the gateway stops.
    pub drain_timeout: Duration,
    /// For the next bytes of an upgraded connection, from either side, when the gateway stops.
    pub drain_tunnel_timeout: Duration,
    /// For a successor to be ready.
    pub upgrade_timeout: Duration,
    /// Networks of proxies that are believed about the client's address; mapped addresses as IPv4.
    pub trusted_proxies: Vec<IpNet>,
    /// Each request gets an id.
    pub request_id: bool,
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

impl GatewaySettings {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let listen = section.get(&LISTEN)?;
        let trusted_proxies = section.get(&TRUSTED_PROXIES)?;
        if listen.iter().any(|it: &Listen| it.proxy) && trusted_proxies.is_empty() {
            let wrong = WrongValue {
                what: "a listener with `proxy` to which nobody may connect".to_owned(),
                allowed: "addresses or CIDRs of the proxies in trusted_proxies".to_owned(),
            };
            return Err(section.wrong(&LISTEN.key, &wrong));
        }
        let user = section.get(&USER)?;
        let group = section.get(&GROUP)?;
        if user.is_none() && group.is_some() {
            let wrong = WrongValue {
                what: "a group without a user".to_owned(),
                allowed: "a user as well, or no group".to_owned(),
            };
            return Err(section.wrong(&GROUP.key, &wrong));
        }
        Ok(Self {
            listen,
            workers: section.get(&WORKERS)?,
            max_connections: section.get(&MAX_CONNECTIONS)?,
            limits: Limits {
                line: section.get(&MAX_LINE)?,
                head: section.get(&MAX_HEAD)?,
                fields: section.get(&MAX_FIELDS)?,
            },
            raw_target: section.get(&RAW_TARGET)?,
            max_body: section.get(&MAX_BODY)?,
            max_discard: section.get(&MAX_DISCARD)?,
            head_timeout: section.get(&HEAD_TIMEOUT)?,
            body_timeout: section.get(&BODY_TIMEOUT)?,
            send_timeout: section.get(&SEND_TIMEOUT)?,
            min_rate: section.get(&MIN_RATE)?,
            keepalive_timeout: section.get(&KEEPALIVE_TIMEOUT)?,
            tunnel_timeout: section.get(&TUNNEL_TIMEOUT)?,
            tunnel_grace: section.get(&TUNNEL_GRACE)?,
            drain_timeout: section.get(&DRAIN_TIMEOUT)?,
            drain_tunnel_timeout: section.get(&DRAIN_TUNNEL_TIMEOUT)?,
            upgrade_timeout: section.get(&UPGRADE_TIMEOUT)?,
            trusted_proxies,
            request_id: section.get(&REQUEST_ID)?,
            pid_file: section.get(&PID_FILE)?,
            user,
            group,
        })
    }
}

/// Addresses with ports, at least one and each one once. `proxy` after an address: connections begin
/// with a PROXY protocol header.
fn listen(text: &str) -> ValueResult<Vec<Listen>> {
    const ALLOWED: &str = "IP addresses with a port, separated by commas, such as 0.0.0.0:80 or [::]:80; \
                           each may be followed by `proxy`";
    let mut all: Vec<Listen> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let bare = item
            .strip_suffix("proxy")
            .filter(|bare| bare.ends_with([' ', '\t']));
        let addr = address(bare.unwrap_or(item).trim()).or_else(|what| wrong(what, ALLOWED))?;
        match all.iter().find(|it| overlap(it.addr, addr)) {
            Some(it) if it.addr == addr => {
                return wrong(format!("{addr} is given twice"), ALLOWED);
            }
            Some(Listen { addr: other, .. }) => {
                return wrong(format!("{other} and {addr} conflict"), ALLOWED);
            }
            None => {}
        }
        let proxy = bare.is_some();
        all.push(Listen { addr, proxy });
    }
    Ok(all)
}

/// Whether something unusual is passed on.
fn raw_target(text: &str) -> ValueResult<bool> {
    one_of(text, &[("pass", true), ("refuse", false)])
}
