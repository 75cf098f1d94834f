//! Section `[redis]`: the server with the lists, how it is reached, and what its keys are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Reading, Wrong, shown, wrong};
use super::file::Section;
use super::units::{self, bytes, duration_or_off, name, one_of, optional_name};
use super::url::{Address, Url};

/// The variable of the environment that goes before `[redis] url`, for passwords that must not
/// stand in a file. Its value is a parameter here: the caller reads the environment.
pub const REDIS_URL_VARIABLE: &str = "GRAYGATE_REDIS_URL";

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
    pub(super) fn cert(&self) -> Option<&Path> {
        self.own.as_ref().map(|(cert, _)| cert.as_path())
    }

    pub(super) fn key(&self) -> Option<&Path> {
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

impl Redis {
    /// What the section says; none without a URL, once every key has been read.
    pub(super) fn of(
        section: Section<'_>,
        base: &Path,
        redis_url: Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
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
        let notify = section.get("notify", notify)?;
        let check_interval = section.get("check_interval", units::duration)?;
        let poll_interval = section.get("poll_interval", units::duration)?;
        let timeout = section.get("timeout", units::duration)?;
        let max_reply = section.get("max_reply", reply_size)?;
        let fleet = Fleet::of(section, &keys, &accept_key)?;
        let Some(url) = url else { return Ok(None) };
        Ok(Some(Self {
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
            heartbeat: section.get("heartbeat", heartbeat)?,
            node: section.get("node", node)?,
            node_key: section.get("node_key", name)?,
        };
        // A heartbeat must never be taken for a list, nor overwrite one.
        let beginning = fleet.key_of("");
        let others = [keys.gray.as_str(), &keys.pre, &keys.prod, accept_key];
        if let Some(other) = others.iter().find(|it| it.starts_with(&beginning)) {
            let wrong = Wrong {
                what: format!("the key {} begins with it", shown(other)),
                allowed: "what no other key begins with".to_owned(),
            };
            return Err(section.wrong("node_key", &wrong));
        }
        let index = fleet.index_key();
        if others.contains(&index.as_str()) {
            let wrong = Wrong {
                what: format!("{} is the index of the nodes", shown(&index)),
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
        let name = section.get("tls_name", server_name)?;
        Ok(Self { ca, own, name })
    }

    /// Who has named files for TLS must not send a password without it.
    pub(super) fn is_needed_by<'a>(
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

/// How changes of the lists are learned of.
fn notify(text: &str) -> Reading<Notify> {
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
fn heartbeat(text: &str) -> Reading<Option<Duration>> {
    const LEAST: Duration = Duration::from_millis(100);
    match duration_or_off(text)? {
        Some(time) if time < LEAST => wrong(
            "it is less than 100ms",
            "off, or a time from 100ms on, as 2s",
        ),
        time => Ok(time),
    }
}

/// The name of a gateway; the host's when empty.
pub(super) fn node(text: &str) -> Reading<String> {
    const LONGEST: usize = 128;
    if text.is_empty() {
        let host = nix::unistd::gethostname().unwrap_or_default();
        return Ok(node_of_host(&host.to_string_lossy()));
    }
    if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let allowed = "1 to 128 printable ASCII characters, no spaces; or nothing: the host's name";
        return wrong("it is no name of a gateway", allowed);
    }
    Ok(text.to_owned())
}

/// Whatever the host is called, it does not keep a gateway from starting.
fn node_of_host(host: &str) -> String {
    let fits = |it: char| if it.is_ascii_graphic() { it } else { '_' };
    let name: String = host.chars().map(fits).collect();
    if name.is_empty() {
        return "localhost".to_owned();
    }
    name
}

/// The name of a server as a certificate holds it; none when empty.
fn server_name(text: &str) -> Reading<Option<String>> {
    if rustls::pki_types::ServerName::try_from(text).is_err() && !text.is_empty() {
        return wrong(
            "it is no name of a host",
            "a host's name or an IP address, as redis.example, without a port",
        );
    }
    optional_name(text)
}

/// The size of an answer of Redis: 64 KiB to 4 GiB.
fn reply_size(text: &str) -> Reading<usize> {
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
