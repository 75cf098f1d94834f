//! The ini file, and what it means.
//!
//! [`Config::load`] reads the whole file before anything starts: an unknown key, a value
//! without its unit or a line that could be read in two ways is an error that names its line. What
//! comes out needs no further check: nothing required is optional, paths are absolute, every wait
//! has a length. [`KEYS`] lists the keys with their defaults; the shipped `etc/graygate.ini` says
//! the same.
//!
//! [`Config::reload`] says which changes a running gateway takes on. Nothing here opens the
//! files, sockets or users that are named.

mod file;
mod keys;
mod reload;
#[cfg(test)]
mod tests;
mod units;
mod url;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::http::limits::{Limits, MAX_FIELDS};

use self::file::{IniFile, Section};
pub use self::keys::{KEYS, Key};
pub use self::reload::{ReloadTally, Reloads};
use self::units::{Wrong, name};
pub use self::url::{Address, Login, Password, Url};

/// The variable of the environment that goes before `[redis] url`, for passwords that must not
/// stand in a file. Its value is a parameter here: the caller reads the environment.
pub const REDIS_URL_VARIABLE: &str = "GRAYGATE_REDIS_URL";

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The ini file, as an absolute path.
    pub path: PathBuf,
    /// The client side and the process.
    pub gateway: Gateway,
    /// Where the lists come from.
    pub store: Store,
    /// How they come into force.
    pub lists: Lists,
    /// The servers' side.
    pub upstream: Upstream,
    /// The logs.
    pub log: Log,
    /// Where the admin listener listens, if it does.
    pub admin: Option<SocketAddr>,
    /// The names by which it may be asked, beside addresses and `localhost`; in lower case.
    pub admin_hosts: Vec<String>,
    /// The full names of the keys whose values count for nothing, since the environment goes before
    /// them.
    pub masked: Vec<&'static str>,
}

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

/// Sections `[redis]` and `[lists]`: where the lists come from.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are one or two of them")]
pub enum Store {
    /// From a Redis server.
    Redis(Redis),
    /// From a file, by its absolute path.
    File(PathBuf),
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(settings) => settings.url.fmt(f),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// The rest of section `[lists]`: how lists come into force, from whatever source.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists {
    /// Where the copy of the last good lists is kept, if anywhere; absolute.
    pub last_good: Option<PathBuf>,
    /// How old it may be at a start, if that matters.
    pub last_good_max_age: Option<Duration>,
    /// The share of `prod` that one change may remove, in percent, 0 to 100.
    pub guard_share: usize,
    /// When a held change comes into force by itself, if ever.
    pub guard_timeout: Option<Duration>,
}

/// Section `[redis]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// The server; with Sentinels, its host is the name of the master.
    pub url: Url,
    /// The Sentinels to ask where the master is; none: the URL says it.
    pub sentinels: Vec<Url>,
    /// The files with the passwords, which the URLs know, too.
    pub passwords: PasswordFiles,
    /// The files for TLS.
    pub tls: Tls,
    /// The keys of the lists.
    pub keys: Keys,
    /// The key that names the digests of held changes to accept; another than those.
    pub accept_key: String,
    /// How changes are learned of.
    pub notify: Notify,
    /// Between two full checks.
    pub check_interval: Duration,
    /// Between two reads where there are no events.
    pub poll_interval: Duration,
    /// For a connection or an answer.
    pub timeout: Duration,
    /// Of the answer with all lists, in bytes at most.
    pub max_reply: usize,
    /// What the gateways on the same server know of each other.
    pub fleet: Fleet,
}

/// Of section `[redis]`: how this gateway tells the others that it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Between two heartbeats, if there are any.
    pub heartbeat: Option<Duration>,
    /// The name of this gateway: printable, without spaces.
    pub node: String,
    /// What the keys begin with: [`Fleet::key_of`]. No key of the lists is such a key.
    pub node_key: String,
}

impl Fleet {
    /// The key of the heartbeats of `node`.
    pub fn key_of(&self, node: &str) -> String {
        format!("{}:{node}", self.node_key)
    }

    /// The key of the index of all nodes. No key of a heartbeat, since none has this beginning.
    pub fn index_key(&self) -> String {
        format!("{}s", self.node_key)
    }
}

/// Files of section `[redis]` with passwords, by their absolute paths; read at each connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PasswordFiles {
    /// Of the server.
    pub server: Option<PathBuf>,
    /// Of the Sentinels.
    pub sentinels: Option<PathBuf>,
}

/// Files of section `[redis]` for TLS, by their absolute paths; read at each connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// Authorities that may vouch for a server, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The gateway's own certificate and its private key.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name that a server's certificate must hold, where that is not its host's; no Sentinel's.
    pub name: Option<String>,
}

impl Tls {
    fn cert(&self) -> Option<&Path> {
        self.own.as_ref().map(|(cert, _)| cert.as_path())
    }

    fn key(&self) -> Option<&Path> {
        self.own.as_ref().map(|(_, key)| key.as_path())
    }
}

/// The Redis keys of the lists: not empty, each another.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Of the clients that get the new version.
    pub gray: String,
    /// Of the new version's servers.
    pub pre: String,
    /// Of the old version's servers.
    pub prod: String,
}

/// How changes of the lists are learned of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notify {
    /// By events where Redis can be made to send them, else by tracking, else by polling.
    Auto,
    /// By keyspace events.
    Events,
    /// By client tracking in broadcast mode.
    Tracking,
    /// By reading again and again.
    Poll,
}

/// Section `[upstream]`: the servers' side.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The port of peers that are listed without one, never 0.
    pub peer_port: u16,
    /// For a peer to accept.
    pub connect_timeout: Duration,
    /// For a peer to take some of a request.
    pub send_timeout: Duration,
    /// For a response head, and for the next bytes of its body.
    pub read_timeout: Duration,
    /// Attempts for one request, 1 to 10.
    pub tries: usize,
    /// Idle connections that each worker keeps for each peer.
    pub keepalive: usize,
    /// How long they are kept.
    pub keepalive_timeout: Duration,
    /// Whether `prod` answers when no peer of `pre` can.
    pub fallback: bool,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The access log.
    pub access: LogTarget,
    /// The error log.
    pub error: LogTarget,
    /// Lines a second of the access log, for requests of a listener that need no server.
    pub own_lines: Option<u32>,
    /// What the error log leaves out.
    pub level: log::LevelFilter,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, by its absolute path.
    File(PathBuf),
}

/// What is wrong with the configuration, on one line and without a password:
/// `FILE:LINE: [section] key = value: what is wrong; allowed: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(place: &str, Wrong { what, allowed }: &Wrong) -> Self {
        // A path may hold a line feed, too.
        let line = format!("{place}: {what}; allowed: {allowed}");
        Self(line.replace(char::is_control, " "))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file at `path`. `redis_url` is the value of [`REDIS_URL_VARIABLE`], and goes
    /// before the file's unless it is empty.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &Path, redis_url: Option<String>) -> Result<Self, ConfigError> {
        Self::parse(path, &file::read(path)?, redis_url)
    }

    /// As [`Config::load`], with the `text` of the file at `path`, which is not opened.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(path: &Path, text: &str, redis_url: Option<String>) -> Result<Self, ConfigError> {
        let file = IniFile::parse(path, text)?;
        // Absolute, since a daemon may change its folder before a reload.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = path.parent().unwrap_or(Path::new("/"));
        let gateway = Gateway::of(file.section("gateway"), base)?;
        let redis_url = redis_url.filter(|url| !url.is_empty());
        let masked = masked_by(redis_url.as_deref(), file.section("redis"));
        Ok(Self {
            masked,
            store: Store::of(&file, base, redis_url)?,
            lists: Lists::of(file.section("lists"), base)?,
            upstream: Upstream::of(file.section("upstream"))?,
            log: Log::of(file.section("log"), base)?,
            admin: admin_beside(&gateway.listen, &file)?,
            admin_hosts: file.section("admin").get("hosts", units::hosts)?,
            gateway,
            path,
        })
    }

    /// Where the gateway of the file at `path` can be asked, if anywhere. What is wrong in other
    /// sections does not matter: who asks wants to know how a gateway is that has started already.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, or with this key.
    pub fn admin_of(path: &Path) -> Result<Option<SocketAddr>, ConfigError> {
        let text = file::read(path)?;
        let section = file::only("admin", &text);
        let file = IniFile::parse(path, section.as_deref().unwrap_or(&text))?;
        file.section("admin").get("listen", units::address_or_off)
    }
}

/// The keys for which the file says something else than the URL of the environment.
fn masked_by(redis_url: Option<&str>, section: Section<'_>) -> Vec<&'static str> {
    let Some(url) = redis_url else {
        return Vec::new();
    };
    let has_password = Url::read(url).is_ok_and(|it| it.has_password());
    let masks = [
        ("redis.url", section.gives("url", |it| it != url)),
        (
            "redis.password_file",
            has_password && section.gives("password_file", |_| true),
        ),
    ];
    let masked = masks.into_iter().filter(|(_, is_masked)| *is_masked);
    masked.map(|(name, _)| name).collect()
}

/// The admin listener's address, which must leave room for those of `listen`.
fn admin_beside(listen: &[Listen], file: &IniFile<'_>) -> Result<Option<SocketAddr>, ConfigError> {
    let section = file.section("admin");
    let admin = section.get("listen", units::address_or_off)?;
    let in_the_way = |admin: SocketAddr| {
        let mut others = listen.iter().map(|it| it.addr);
        others.find(|other| units::overlap(admin, *other) || takes_both_families(admin, *other))
    };
    let Some((admin, other)) = admin.and_then(|it| Some((it, in_the_way(it)?))) else {
        return Ok(admin);
    };
    let allowed = "an address or a port for each of the two alone".to_owned();
    // The line that can be found is the better one to name.
    Err(if section.has("listen") {
        let what = format!("[gateway] listen has {other}");
        section.wrong("listen", &Wrong { what, allowed })
    } else {
        let what = format!("[admin] listen is {admin}");
        let gateway = file.section("gateway");
        gateway.wrong("listen", &Wrong { what, allowed })
    })
}

/// The admin listener's socket is the kernel's plain one: with `[::]` it takes IPv4, too.
fn takes_both_families(admin: SocketAddr, other: SocketAddr) -> bool {
    let all = admin.is_ipv6() && admin.ip().is_unspecified();
    all && admin.port() == other.port() && admin.port() != 0
}

impl Gateway {
    fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        let duration = |name| section.get(name, units::duration);
        let head_size = |name| section.get(name, units::head_size);
        let listen = section.get("listen", units::listen)?;
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
            raw_target: section.get("raw_target", units::raw_target)?,
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

impl Store {
    fn of(file: &IniFile<'_>, base: &Path, redis_url: Option<String>) -> Result<Self, ConfigError> {
        // All keys are read, so that a wrong one is found even where it is not needed.
        let section = file.section("redis");
        let in_variable = |error: Wrong| ConfigError::new(REDIS_URL_VARIABLE, &error);
        let is_in_variable = redis_url.is_some();
        let url = match redis_url {
            Some(url) => Some(Url::read(&url).map_err(in_variable)?),
            None => section.get("url", Url::read_optional)?,
        };
        let sentinels = sentinels_of(section, url.as_ref())?;
        let passwords = PasswordFiles::of(section, base)?;
        // One in the environment goes before all that the file says.
        let in_file = url.as_ref().filter(|_| !is_in_variable);
        passwords.are_needed_by(section, in_file, &sentinels)?;
        let url = url.map(|it| passwords.for_server(it));
        let url = url.map(|it| match sentinels.is_empty() {
            true => it,
            false => it.without_port(),
        });
        let sentinels = sentinels.into_iter();
        let sentinels: Vec<Url> = sentinels.map(|it| passwords.for_sentinel(it)).collect();
        let tls = Tls::of(section, base)?;
        let keys = Keys::of(section)?;
        let accept_key = section.get("accept_key", name)?;
        if [&keys.gray, &keys.pre, &keys.prod].contains(&&accept_key) {
            let wrong = Wrong {
                what: "it is the key of a list".to_owned(),
                allowed: "a key of its own".to_owned(),
            };
            return Err(section.wrong("accept_key", &wrong));
        }
        let notify = section.get("notify", units::notify)?;
        let check_interval = section.get("check_interval", units::duration)?;
        let poll_interval = section.get("poll_interval", units::duration)?;
        let timeout = section.get("timeout", units::duration)?;
        let max_reply = section.get("max_reply", units::reply_size)?;
        let fleet = Fleet::of(section, &keys, &accept_key)?;
        let lists = file.section("lists").get("file", units::path(base))?;
        match (url, lists) {
            (Some(url), _) => {
                tls.is_needed_by(section, sentinels.iter().chain([&url]))?;
                Ok(Self::Redis(Redis {
                    url,
                    sentinels,
                    passwords,
                    tls,
                    keys,
                    accept_key,
                    notify,
                    check_interval,
                    poll_interval,
                    timeout,
                    max_reply,
                    fleet,
                }))
            }
            (None, Some(path)) => Ok(Self::File(path)),
            (None, None) => Err(file.wrong(
                "no source of the lists",
                "url in [redis] or the variable GRAYGATE_REDIS_URL, or file in [lists]",
            )),
        }
    }
}

fn sentinels_of(section: Section<'_>, url: Option<&Url>) -> Result<Vec<Url>, ConfigError> {
    let sentinels = section.get("sentinels", Url::read_sentinels)?;
    let is_unix = |url: &Url| matches!(url.address(), Address::Unix(_));
    if !sentinels.is_empty() && url.is_some_and(is_unix) {
        let wrong = Wrong {
            what: "the URL of Redis names a socket, and no master".to_owned(),
            allowed: "a URL whose host is the master's name, as redis://mymaster/0".to_owned(),
        };
        return Err(section.wrong("sentinels", &wrong));
    }
    Ok(sentinels)
}

impl Fleet {
    fn of(section: Section<'_>, keys: &Keys, accept_key: &str) -> Result<Self, ConfigError> {
        let fleet = Self {
            heartbeat: section.get("heartbeat", units::heartbeat)?,
            node: section.get("node", units::node)?,
            node_key: section.get("node_key", name)?,
        };
        // A heartbeat must never be taken for a list, nor overwrite one.
        let beginning = fleet.key_of("");
        let others = [keys.gray.as_str(), &keys.pre, &keys.prod, accept_key];
        if let Some(other) = others.iter().find(|it| it.starts_with(&beginning)) {
            let wrong = Wrong {
                what: format!("the key {} begins with it", units::shown(other)),
                allowed: "what no other key begins with".to_owned(),
            };
            return Err(section.wrong("node_key", &wrong));
        }
        let index = fleet.index_key();
        if others.contains(&index.as_str()) {
            let wrong = Wrong {
                what: format!("{} is the index of the nodes", units::shown(&index)),
                allowed: "what with an s behind it is no other key".to_owned(),
            };
            return Err(section.wrong("node_key", &wrong));
        }
        Ok(fleet)
    }
}

impl PasswordFiles {
    fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        let path = |name| section.get(name, units::path(base));
        Ok(Self {
            server: path("password_file")?,
            sentinels: path("sentinel_password_file")?,
        })
    }

    /// A password in two places is one that is changed in one of them.
    fn are_needed_by(
        &self,
        section: Section<'_>,
        url: Option<&Url>,
        sentinels: &[Url],
    ) -> Result<(), ConfigError> {
        let wrong = |key, what: &str, allowed: &str| {
            let (what, allowed) = (what.to_owned(), allowed.to_owned());
            Err(section.wrong(key, &Wrong { what, allowed }))
        };
        if self.server.is_some() && url.is_some_and(Url::has_password) {
            let what = "url has a password, too";
            return wrong("password_file", what, "the password in one of the two");
        }
        if self.sentinels.is_some() && sentinels.iter().all(Url::has_password) {
            let what = match sentinels {
                [] => "there are no sentinels",
                _ => "each of the sentinels has a password in its URL",
            };
            return wrong(
                "sentinel_password_file",
                what,
                "nothing, where none needs it",
            );
        }
        Ok(())
    }

    fn for_server(&self, url: Url) -> Url {
        match &self.server {
            Some(path) => url.with_password_file("password_file", path),
            None => url,
        }
    }

    fn for_sentinel(&self, url: Url) -> Url {
        match &self.sentinels {
            Some(path) => url.with_password_file("sentinel_password_file", path),
            None => url,
        }
    }
}

impl Tls {
    fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        let path = |name| section.get(name, units::path(base));
        let alone = |name, other: &str| {
            let wrong = Wrong {
                what: format!("there is no {other}"),
                allowed: "both tls_cert and tls_key, or neither".to_owned(),
            };
            Err(section.wrong(name, &wrong))
        };
        let ca = path("tls_ca")?;
        let own = match (path("tls_cert")?, path("tls_key")?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return alone("tls_cert", "tls_key"),
            (None, Some(_)) => return alone("tls_key", "tls_cert"),
        };
        let name = section.get("tls_name", units::server_name)?;
        Ok(Self { ca, own, name })
    }

    /// Who has named files for TLS must not send a password without it.
    fn is_needed_by<'a>(
        &self,
        section: Section<'_>,
        mut urls: impl Iterator<Item = &'a Url>,
    ) -> Result<(), ConfigError> {
        if *self == Self::default() || urls.any(Url::is_tls) {
            return Ok(());
        }
        let name = match (&self.ca, &self.own) {
            (Some(_), _) => "tls_ca",
            (None, Some(_)) => "tls_cert",
            (None, None) => "tls_name",
        };
        let wrong = Wrong {
            what: "neither the URL of Redis nor a Sentinel begins with rediss://".to_owned(),
            allowed: "rediss:// where TLS is meant, else nothing for it".to_owned(),
        };
        Err(section.wrong(name, &wrong))
    }
}

impl Lists {
    fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            last_good: section.get("last_good", units::path(base))?,
            last_good_max_age: section.get("last_good_max_age", units::age)?,
            guard_share: section.get("guard_share", units::count(0..=100))?,
            guard_timeout: section.get("guard_timeout", units::duration_or_off)?,
        })
    }
}

impl Keys {
    fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let keys = Self {
            gray: section.get("gray_key", name)?,
            pre: section.get("pre_key", name)?,
            prod: section.get("prod_key", name)?,
        };
        let pairs = [
            ("pre_key", &keys.pre, "gray_key", &keys.gray),
            ("prod_key", &keys.prod, "gray_key", &keys.gray),
            ("prod_key", &keys.prod, "pre_key", &keys.pre),
        ];
        for (key, value, other, taken) in pairs {
            if value == taken {
                let wrong = Wrong {
                    what: format!("{other} has the same value"),
                    allowed: "three keys, each another".to_owned(),
                };
                return Err(section.wrong(key, &wrong));
            }
        }
        Ok(keys)
    }
}

impl Upstream {
    fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let duration = |name| section.get(name, units::duration);
        Ok(Self {
            peer_port: section.get("peer_port", units::port)?,
            connect_timeout: duration("connect_timeout")?,
            send_timeout: duration("send_timeout")?,
            read_timeout: duration("read_timeout")?,
            tries: section.get("tries", units::count(1..=10))?,
            keepalive: section.get("keepalive", units::count(0..=10_000))?,
            keepalive_timeout: duration("keepalive_timeout")?,
            fallback: section.get("fallback", units::switch)?,
        })
    }
}

impl Log {
    fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            access: section.get("access", units::log_target(base))?,
            error: section.get("error", units::log_target(base))?,
            own_lines: section.get("own_lines", units::lines)?,
            level: section.get("level", units::level)?,
        })
    }
}
