//! Section `[redis]`: the server with the lists, how to reach it, and the names of its keys.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ValueResult, WrongValue, shown, wrong};
use super::file::Section;
use super::key::{Key, Setting, settings};
use super::service::ServiceKeys;
use super::units::{self, bytes, duration_or_off, name, one_of, optional_name};
use super::url::{Address, Url};
use crate::lists::{ByList, ListName};

settings! {
    [redis]
    URL: Option<Url> = url, "", secret, |it, _| Url::read_optional(it),
        "Server: redis://[[user]:password@]host[:port][/db], rediss://… with TLS, or unix:///path[?db=0].";
    SENTINELS: Vec<Url> = sentinels, "", secret, |it, _| Url::read_sentinels(it),
        "Sentinels: host[:26379] or redis[s]://…, separated by commas; the host in url is then the master's name.";
    PASSWORD_FILE: Option<PathBuf> = password_file, "", reload, |it, base| units::path(it, base),
        "File with the password of the server and nothing else, read at each connection; empty: as the URL says.";
    SENTINEL_PASSWORD_FILE: Option<PathBuf> = sentinel_password_file, "", reload, |it, base| units::path(it, base),
        "The same for Sentinels that have none in their URLs.";
    TLS_CA: Option<PathBuf> = tls_ca, "", reload, |it, base| units::path(it, base),
        "PEM file of the certificate authorities to trust, or the server's own certificate; empty: the system's.";
    TLS_CERT: Option<PathBuf> = tls_cert, "", reload, |it, base| units::path(it, base),
        "PEM file of the gateway's own certificate, for a server that asks for one; empty: none.";
    TLS_KEY: Option<PathBuf> = tls_key, "", reload, |it, base| units::path(it, base),
        "PEM file of its private key, readable by the user in [gateway].";
    TLS_NAME: Option<String> = tls_name, "", reload, |it, _| server_name(it),
        "Name that the server's certificate must have; empty: the host in url, or what the Sentinels say.";
    GRAY_KEY: String = gray_key, "gray", reload, |it, _| name(it),
        "Key of the clients that get the new version.";
    PRE_KEY: String = pre_key, "pre", reload, |it, _| name(it),
        "Key of the new version's servers.";
    PROD_KEY: String = prod_key, "prod", reload, |it, _| name(it),
        "Key of the old version's servers.";
    SALT_KEY: String = salt_key, "graygate:salt", reload, |it, _| name(it),
        "Key of the salt of the shares (percent:) on the list of clients; a new one makes others gray.";
    TRIPPED_KEY: String = tripped_key, "graygate:tripped", reload, |it, _| name(it),
        "Key that says that a new version was taken back, and which: clients of the list get the old one while it is there.";
    RELEASE_KEY: String = release_key, "graygate:release", reload, |it, _| name(it),
        "Key with the state of the release: where its evidence begins, who has frozen it, a rollout.";
    HISTORY_KEY: String = history_key, "graygate:history", reload, |it, _| name(it),
        "Key, a stream, with what was changed, by whom and why.";
    ACCEPT_KEY: String = accept_key, "graygate:accept", reload, |it, _| name(it),
        "Key, a string or a set, that names the digests of held changes to accept.";
    NOTIFY: Notify = notify, "auto", reload, |it, _| notify(it),
        "How to learn of changes: events (keyspace events), tracking (client tracking), poll, or auto: the first that works.";
    CHECK_INTERVAL: Duration = check_interval, "10s", reload, |it, _| units::duration(it),
        "Time between two full checks of the lists, events or not.";
    POLL_INTERVAL: Duration = poll_interval, "1s", reload, |it, _| units::duration(it),
        "Time between two reads of the lists if there are no events.";
    TIMEOUT: Duration = timeout, "2s", reload, |it, _| units::duration(it),
        "Time for Redis to accept a connection or to answer.";
    MAX_REPLY: usize = max_reply, "256m", reload, |it, _| reply_size(it),
        "Longest reply with all lists, 64k to 4g; above that the lists stay as they are. A million IPv6 entries take 46m.";
    HEARTBEAT: Option<Duration> = heartbeat, "2s", reload, |it, _| heartbeat(it),
        "Time between two heartbeats, 100ms or more, by which `graygate fleet` knows this gateway; or off.";
    NODE: String = node, "", reload, |it, _| node(it),
        "Name of this gateway, unique among those on the same Redis; empty: the host's.";
    NODE_KEY: String = node_key, "graygate:node", reload, |it, _| name(it),
        "Prefix of the heartbeats' keys: a colon and the name follow it; with an s appended, it is the key of their index.";
}

/// The environment variable that takes precedence over `[redis] url`, for passwords that must not be in
/// a file. Its value is a parameter here: the caller reads the environment.
pub(crate) const REDIS_URL_VARIABLE: &str = "GRAYGATE_REDIS_URL";

/// Section `[redis]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisSettings {
    /// The server; with Sentinels, its host is the name of the master.
    pub url: Url,
    /// The Sentinels to ask where the master is; none: the URL says it.
    pub sentinels: Vec<Url>,
    /// The files with the passwords, which the URLs know, too.
    pub passwords: PasswordFiles,
    /// The files for TLS.
    pub tls: Tls,
    /// The keys of all services, in the order of [`super::Config::services`]: those of the default service,
    /// which are not empty and all different, are the first.
    pub services: Vec<ServiceKeys>,
    /// The key with the digests of held changes to accept; different from those.
    pub accept_key: String,
    /// How the gateway learns of changes.
    pub notify: Notify,
    /// Between two full checks.
    pub check_interval: Duration,
    /// Between two reads if there are no events.
    pub poll_interval: Duration,
    /// For a connection or an answer.
    pub timeout: Duration,
    /// The longest answer with all lists, in bytes.
    pub max_reply: usize,
    /// What the gateways on the same server know of each other.
    pub fleet: FleetSettings,
}

/// Part of section `[redis]`: how this gateway makes itself known to others.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// Between two heartbeats, if there are any.
    pub heartbeat: Option<Duration>,
    /// The name of this gateway: printable, without spaces.
    pub node: String,
    /// What the keys begin with: `FleetSettings::key_of`. No key of the lists is such a key.
    pub node_key: String,
}

impl FleetSettings {
    /// The key of the heartbeats of `node`.
    pub(crate) fn key_of(&self, node: &str) -> String {
        format!("{}:{node}", self.node_key)
    }

    /// The key of the index of all nodes. It cannot be the key of a heartbeat, since none begins like
    /// this.
    pub(crate) fn index_key(&self) -> String {
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
    /// The name that the server's certificate must have, if that is not its host's; not for Sentinels.
    pub name: Option<String>,
}

/// How changes of the lists are learned of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notify {
    /// By events if Redis sends them or can be configured to, otherwise by tracking, otherwise by
    /// polling.
    Auto,
    /// By keyspace events.
    Events,
    /// By client tracking in broadcast mode.
    Tracking,
    /// By polling.
    Poll,
}

impl RedisSettings {
    /// What the section says; `None` without a URL, but only after every key has been parsed.
    pub(super) fn of(
        section: Section<'_>,
        redis_url: Option<String>,
        services: Vec<ServiceKeys>,
    ) -> Result<Option<Self>, ConfigError> {
        let in_variable = |error: WrongValue| ConfigError::new(REDIS_URL_VARIABLE, &error);
        let is_in_variable = redis_url.is_some();
        let url = match redis_url {
            Some(url) => Some(Url::read(&url).map_err(in_variable)?),
            None => section.get(&URL)?,
        };
        let sentinels = sentinels_of(section, url.as_ref())?;
        let passwords = PasswordFiles::of(section)?;
        // One in the environment takes precedence over the whole file.
        let in_file = url.as_ref().filter(|_| !is_in_variable);
        passwords.are_needed_by(section, in_file, &sentinels)?;
        let url = url.map(|it| passwords.for_server(it));
        let url = url.map(|it| match sentinels.is_empty() {
            true => it,
            false => it.without_port(),
        });
        let sentinels = sentinels.into_iter();
        let sentinels: Vec<Url> = sentinels.map(|it| passwords.for_sentinel(it)).collect();
        let tls = Tls::of(section)?;
        let keys = list_keys(section)?;
        let accept_key = accept_key(section, &keys)?;
        let notify = section.get(&NOTIFY)?;
        let check_interval = section.get(&CHECK_INTERVAL)?;
        let poll_interval = section.get(&POLL_INTERVAL)?;
        let timeout = section.get(&TIMEOUT)?;
        let max_reply = section.get(&MAX_REPLY)?;
        let fleet = FleetSettings::of(section, &keys, &accept_key)?;
        let Some(url) = url else { return Ok(None) };
        Ok(Some(Self {
            url,
            sentinels,
            passwords,
            tls,
            services,
            accept_key,
            notify,
            check_interval,
            poll_interval,
            timeout,
            max_reply,
            fleet,
        }))
    }
}

fn sentinels_of(section: Section<'_>, url: Option<&Url>) -> Result<Vec<Url>, ConfigError> {
    let sentinels = section.get(&SENTINELS)?;
    let is_unix = |url: &Url| matches!(url.address(), Address::Unix(_));
    if !sentinels.is_empty() && url.is_some_and(is_unix) {
        let wrong = WrongValue {
            what: "the URL of Redis names a socket, not a master".to_owned(),
            allowed: "a URL whose host is the master's name, such as redis://mymaster/0".to_owned(),
        };
        return Err(section.wrong(&SENTINELS.key, &wrong));
    }
    Ok(sentinels)
}

impl FleetSettings {
    pub(super) fn of(
        section: Section<'_>,
        keys: &ByList<String>,
        accept_key: &str,
    ) -> Result<Self, ConfigError> {
        let fleet = Self {
            heartbeat: section.get(&HEARTBEAT)?,
            node: section.get(&NODE)?,
            node_key: section.get(&NODE_KEY)?,
        };
        // A heartbeat must never be taken for a list, nor overwrite one.
        let beginning = fleet.key_of("");
        let lists = keys.iter().map(|(_, key)| key.as_str());
        let others: Vec<&str> = lists.chain([accept_key]).collect();
        if let Some(other) = others.iter().find(|it| it.starts_with(&beginning)) {
            let wrong = WrongValue {
                what: format!("the key {} begins with it", shown(other)),
                allowed: "a prefix that no other key begins with".to_owned(),
            };
            return Err(section.wrong(&NODE_KEY.key, &wrong));
        }
        let index = fleet.index_key();
        if others.contains(&index.as_str()) {
            let wrong = WrongValue {
                what: format!("{} is the index of the nodes", shown(&index)),
                allowed: "a prefix that is not another key once an s is appended".to_owned(),
            };
            return Err(section.wrong(&NODE_KEY.key, &wrong));
        }
        Ok(fleet)
    }
}

impl PasswordFiles {
    fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            server: section.get(&PASSWORD_FILE)?,
            sentinels: section.get(&SENTINEL_PASSWORD_FILE)?,
        })
    }

    /// A password in two places will sooner or later be changed in only one of them.
    fn are_needed_by(
        &self,
        section: Section<'_>,
        url: Option<&Url>,
        sentinels: &[Url],
    ) -> Result<(), ConfigError> {
        let wrong = |key: &Key, what: &str, allowed: &str| {
            let (what, allowed) = (what.to_owned(), allowed.to_owned());
            Err(section.wrong(key, &WrongValue { what, allowed }))
        };
        if self.server.is_some() && url.is_some_and(Url::has_password) {
            let what = "url has a password, too";
            return wrong(
                &PASSWORD_FILE.key,
                what,
                "the password in only one of the two",
            );
        }
        if self.sentinels.is_some() && sentinels.iter().all(Url::has_password) {
            let what = match sentinels {
                [] => "there are no sentinels",
                _ => "each of the sentinels has a password in its URL",
            };
            return wrong(
                &SENTINEL_PASSWORD_FILE.key,
                what,
                "nothing, if no Sentinel needs it",
            );
        }
        Ok(())
    }

    fn for_server(&self, url: Url) -> Url {
        match &self.server {
            Some(path) => url.with_password_file(PASSWORD_FILE.key.name, path),
            None => url,
        }
    }

    fn for_sentinel(&self, url: Url) -> Url {
        match &self.sentinels {
            Some(path) => url.with_password_file(SENTINEL_PASSWORD_FILE.key.name, path),
            None => url,
        }
    }
}

impl Tls {
    fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let alone = |key: &Key, other: &Key| {
            let wrong = WrongValue {
                what: format!("there is no {}", other.name),
                allowed: "both tls_cert and tls_key, or neither".to_owned(),
            };
            Err(section.wrong(key, &wrong))
        };
        let ca = section.get(&TLS_CA)?;
        let own = match (section.get(&TLS_CERT)?, section.get(&TLS_KEY)?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return alone(&TLS_CERT.key, &TLS_KEY.key),
            (None, Some(_)) => return alone(&TLS_KEY.key, &TLS_CERT.key),
        };
        let name = section.get(&TLS_NAME)?;
        Ok(Self { ca, own, name })
    }

    /// If files for TLS are named, no password must be sent without TLS.
    pub(super) fn is_needed_by<'a>(
        &self,
        section: Section<'_>,
        mut urls: impl Iterator<Item = &'a Url>,
    ) -> Result<(), ConfigError> {
        if *self == Self::default() || urls.any(Url::is_tls) {
            return Ok(());
        }
        let key = match (&self.ca, &self.own) {
            (Some(_), _) => TLS_CA.key,
            (None, Some(_)) => TLS_CERT.key,
            (None, None) => TLS_NAME.key,
        };
        let wrong = WrongValue {
            what: "neither the URL of Redis nor a Sentinel begins with rediss://".to_owned(),
            allowed: "rediss:// if TLS is meant, otherwise none of its keys".to_owned(),
        };
        Err(section.wrong(&key, &wrong))
    }
}

/// The Redis keys of the lists: all different.
pub(super) fn list_keys(section: Section<'_>) -> Result<ByList<String>, ConfigError> {
    let keys = ByList {
        gray: section.get(&GRAY_KEY)?,
        pre: section.get(&PRE_KEY)?,
        prod: section.get(&PROD_KEY)?,
    };
    for (list, key) in keys.iter() {
        let mut before = keys.iter().take_while(|(it, _)| *it != list);
        if let Some((other, _)) = before.find(|(_, it)| *it == key) {
            let wrong = WrongValue {
                what: format!("{} has the same value", setting_of(other).key.name),
                allowed: "three different keys".to_owned(),
            };
            return Err(section.wrong(&setting_of(list).key, &wrong));
        }
    }
    Ok(keys)
}

/// The key in the file that names the Redis key of a list.
pub(super) const fn setting_of(list: ListName) -> &'static Setting<String> {
    match list {
        ListName::Gray => &GRAY_KEY,
        ListName::Pre => &PRE_KEY,
        ListName::Prod => &PROD_KEY,
    }
}

/// The key with what is accepted: none of the lists'.
pub(super) fn accept_key(
    section: Section<'_>,
    lists: &ByList<String>,
) -> Result<String, ConfigError> {
    let accept_key = section.get(&ACCEPT_KEY)?;
    if lists.iter().any(|(_, key)| *key == accept_key) {
        let wrong = WrongValue {
            what: "it is the key of a list".to_owned(),
            allowed: "a key of its own".to_owned(),
        };
        return Err(section.wrong(&ACCEPT_KEY.key, &wrong));
    }
    Ok(accept_key)
}

/// How changes of the lists are learned of.
fn notify(text: &str) -> ValueResult<Notify> {
    one_of(
        text,
        &[
            ("auto", Notify::Auto),
            ("events", Notify::Events),
            ("tracking", Notify::Tracking),
            ("poll", Notify::Poll),
        ],
    )
}

/// A time between two heartbeats, or none for `off`.
fn heartbeat(text: &str) -> ValueResult<Option<Duration>> {
    const LEAST: Duration = Duration::from_millis(100);
    match duration_or_off(text)? {
        Some(time) if time < LEAST => wrong(
            "it is less than 100ms",
            "off, or a time of at least 100ms, such as 2s",
        ),
        time => Ok(time),
    }
}

/// The name of a gateway; the host's name if empty.
pub(super) fn node(text: &str) -> ValueResult<String> {
    const LONGEST: usize = 128;
    if text.is_empty() {
        let host = nix::unistd::gethostname().unwrap_or_default();
        return Ok(node_of_host(&host.to_string_lossy()));
    }
    if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let allowed = "1 to 128 printable ASCII characters, no spaces; or nothing: the host's name";
        return wrong("it is not a valid name of a gateway", allowed);
    }
    Ok(text.to_owned())
}

/// No host name, however odd, keeps a gateway from starting.
fn node_of_host(host: &str) -> String {
    let fits = |it: char| if it.is_ascii_graphic() { it } else { '_' };
    let name: String = host.chars().map(fits).collect();
    if name.is_empty() {
        return "localhost".to_owned();
    }
    name
}

/// The name of a server as in its certificate; `None` if empty.
fn server_name(text: &str) -> ValueResult<Option<String>> {
    if rustls::pki_types::ServerName::try_from(text).is_err() && !text.is_empty() {
        return wrong(
            "it is not the name of a host",
            "the name or the IP address of a host, such as redis.example, without a port",
        );
    }
    optional_name(text)
}

/// The size of an answer of Redis: 64 KiB to 4 GiB.
fn reply_size(text: &str) -> ValueResult<usize> {
    let range = 64 << 10..=4 << 30;
    let fits = |bytes: u64| {
        usize::try_from(bytes)
            .ok()
            .filter(|_| range.contains(&bytes))
    };
    bytes(text)
        .and_then(|bytes| fits(bytes).ok_or("it is out of range"))
        .or_else(|what| wrong(what, "bytes, or a number with k, m or g, from 64k to 4g"))
}
