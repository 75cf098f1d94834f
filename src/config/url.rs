//! The address of Redis, which may contain a password.
//!
//! The query of a URL has the same meaning as for other clients. Unknown parts of it are refused by
//! name, and so is anything that contradicts the rest of the URL: a part that is silently ignored could
//! be the one that selects another database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::error::{ConfigError, ValueResult, WrongValue, wrong};

/// The URL of a Redis server or of a Sentinel. Neither [`Debug`](fmt::Debug) nor
/// [`Display`](fmt::Display) shows its user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Written anew from what was parsed, so that nothing else can slip through.
    shown: String,
    address: Address,
    login: Login,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// On a port of a host, with TLS or without it.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// On a socket of the file system.
    Unix(PathBuf),
}

/// Who asks, and which database is meant.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// The ACL user; without one, the server's default user.
    pub user: Option<String>,
    /// The password, if one is asked for.
    pub password: Password,
    /// The database, 0 or more.
    pub db: i64,
}

/// Where the password is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    /// There is none.
    None,
    /// In the URL.
    Text(String),
    /// In a file, which is read at each connection: so a new one needs no restart.
    File {
        /// The key of `[redis]` that names the file.
        key: &'static str,
        /// Its absolute path.
        path: PathBuf,
    },
}

const ALLOWED: &str = "redis://[[user]:password@]host[:port][/db], the same with rediss:// for TLS, or \
     unix:///path, each with ?db=0&user=…&password=…&protocol=2 if need be, and with special characters as in %23";

/// The port of a server, and of a Sentinel, that is named without one.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Url {
    /// The whole URL, secrets and all.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the server listens; with Sentinels, the host is the name of the master.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Who asks, and which database is meant.
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// Whether the URL itself has a password.
    pub(crate) fn has_password(&self) -> bool {
        matches!(self.login.password, Password::Text(_))
    }

    /// Takes the password from a file, unless the URL has one.
    pub(super) fn with_password_file(mut self, key: &'static str, path: &Path) -> Self {
        if !self.has_password() {
            let path = path.to_owned();
            self.login.password = Password::File { key, path };
        }
        self
    }

    /// The form with Sentinels: the host is a master's name, and a port would have no meaning.
    pub(super) fn without_port(mut self) -> Self {
        if let Address::Tcp { host, tls, .. } = &self.address {
            let scheme = scheme(*tls);
            self.shown = format!("{scheme}://{host}/{}", self.login.db);
        }
        self
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.address, Address::Tcp { tls: true, .. })
    }

    /// Parses a URL. The error contains no part of it.
    pub(super) fn read(text: &str) -> ValueResult<Self> {
        Self::read_with(text, PORT)
    }

    fn read_with(text: &str, default_port: u16) -> ValueResult<Self> {
        // In a password it would end the URL early, and result in a wrong host.
        if text.contains('#') {
            return wrong("it has a #", ALLOWED);
        }
        // Other clients take it literally, or refuse it: for them the password would be a different one.
        if has_bad_escape(text) {
            let what = "it has a % without two hexadecimal digits after it; a % itself is %25";
            return wrong(what, ALLOWED);
        }
        let known = ["redis://", "rediss://", "unix://", "redis+unix://"];
        if !known.iter().any(|scheme| text.starts_with(scheme)) {
            return wrong(
                "it does not begin with redis://, rediss:// or unix://",
                ALLOWED,
            );
        }
        // The library is used without its TLS.
        let plain = text.strip_prefix("rediss:");
        let plain_text = plain.map_or_else(|| text.to_owned(), |rest| format!("redis:{rest}"));
        let Some(parsed) = redis::parse_redis_url(&plain_text) else {
            return wrong("it is malformed", ALLOWED);
        };
        let is_tcp = parsed.has_host();
        if is_tcp
            && (parsed.path().contains('@') || parsed.query().is_some_and(|it| it.contains('@')))
        {
            return wrong("it has an @ after the host", ALLOWED);
        }
        let query = Query::read(parsed.query().unwrap_or_default())?;
        let port = parsed.port().unwrap_or(default_port);
        let has_db = is_tcp && !parsed.path().trim_matches('/').is_empty();
        let mut bare = parsed;
        // Otherwise the library would use some of it, and ignore the rest.
        bare.set_query(None);
        let connection = bare.into_connection_info();
        let connection = connection.or_else(|error| wrong(without_detail(&error), ALLOWED))?;
        let settings = connection.redis_settings();
        let db = has_db.then_some(settings.db());
        let (user, password) = (settings.username(), settings.password());
        let login = Login {
            user: either(user.map(str::to_owned), query.user, "user")?,
            password: match either(password.map(str::to_owned), query.password, "password")? {
                Some(password) => Password::Text(password),
                None => Password::None,
            },
            db: either(db, query.db, "database")?.unwrap_or(0),
        };
        if login.db < 0 {
            return wrong("its database is less than 0", ALLOWED);
        }
        let address = match connection.addr() {
            ConnectionAddr::Tcp(host, _) => Address::Tcp {
                host: host.clone(),
                port,
                tls: plain.is_some(),
            },
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return wrong("it is malformed", ALLOWED),
        };
        Ok(Self {
            text: text.to_owned(),
            shown: public_part(&address, login.db),
            address,
            login,
        })
    }

    /// As [`Url::read`]; none when empty.
    pub(super) fn read_optional(text: &str) -> ValueResult<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        Self::read(text).map(Some)
    }

    /// Reads Sentinels, with commas between them; none when empty. Each is a URL, or a host with
    /// or without a port.
    pub(super) fn read_sentinels(text: &str) -> ValueResult<Vec<Self>> {
        const ALLOWED: &str = "host[:port] or redis[s]://[[user]:password@]host[:port], separated by commas, \
             with special characters as in %2C";
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let read = |(at, item): (usize, &str)| {
            let item = item.trim();
            let url = match item.contains("://") {
                true => item.to_owned(),
                false => format!("redis://{item}"),
            };
            let read = Self::read_with(&url, SENTINEL_PORT);
            let url =
                read.or_else(|it| wrong(format!("number {}: {}", at + 1, it.what), ALLOWED))?;
            if matches!(url.address, Address::Unix(_)) || url.login.db != 0 {
                let what = format!("number {}: it is not a host", at + 1);
                return wrong(what, ALLOWED);
            }
            Ok(url)
        };
        text.split(',').enumerate().map(read).collect()
    }
}

/// Whether a % is not followed by two hexadecimal digits.
fn has_bad_escape(text: &str) -> bool {
    let mut behind = text.split('%').skip(1).map(str::as_bytes);
    behind.any(|it| !matches!(it, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// What the query of a URL says.
#[derive(Default)]
struct Query {
    db: Option<i64>,
    user: Option<String>,
    password: Option<String>,
}

impl Query {
    /// Parses the part after the question mark.
    fn read(text: &str) -> ValueResult<Self> {
        let mut query = Self::default();
        for part in text.split('&').filter(|it| !it.is_empty()) {
            // Whatever it is, it is not shown: it could be the rest of a password.
            if !part.contains('=') {
                return wrong("a part of its query has no =", ALLOWED);
            }
            for (name, value) in form_urlencoded::parse(part.as_bytes()) {
                if value.contains(char::REPLACEMENT_CHARACTER) {
                    return wrong("an escape in its query is not UTF-8", ALLOWED);
                }
                query.take(&name, value.into_owned())?;
            }
        }
        Ok(query)
    }

    fn take(&mut self, name: &str, value: String) -> ValueResult<()> {
        match name {
            "db" => {
                let Ok(db) = value.parse() else {
                    return wrong("Invalid database number", ALLOWED);
                };
                once(&mut self.db, db, "database")
            }
            "user" | "username" => once(&mut self.user, value, "user"),
            "pass" | "password" => once(&mut self.password, value, "password"),
            // The lists are the same with both protocols; which one is used is up to the gateway.
            "protocol" if matches!(&*value, "2" | "3" | "resp2" | "resp3") => Ok(()),
            "protocol" => wrong("its protocol is neither 2 nor 3", ALLOWED),
            name => wrong(format!("{} is unknown in its query", named(name)), ALLOWED),
        }
    }
}

/// The value from the rest of the URL, or otherwise from the query; if both have one, they must be
/// equal.
fn either<T: PartialEq>(
    from_url: Option<T>,
    from_query: Option<T>,
    what: &str,
) -> ValueResult<Option<T>> {
    match (from_url, from_query) {
        (Some(one), Some(other)) if one != other => contradiction(what),
        (one, other) => Ok(one.or(other)),
    }
}

/// Puts a value where none is yet, or the same.
fn once<T: PartialEq>(place: &mut Option<T>, value: T, what: &str) -> ValueResult<()> {
    match place {
        Some(before) if *before != value => contradiction(what),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn contradiction<T>(what: &str) -> ValueResult<T> {
    wrong(format!("it names two values for the {what}"), ALLOWED)
}

/// The name of a part of a query, unless it could be anything else.
fn named(name: &str) -> String {
    const LONGEST: usize = 32;
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > LONGEST || !name.bytes().all(plain) {
        return "a name".to_owned();
    }
    format!("`{name}`")
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { db, .. } = self;
        f.debug_struct("Login")
            .field("db", db)
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Whether it has a name rather than an IP address.
    pub(crate) fn is_name(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host.parse::<std::net::IpAddr>().is_err(),
            Self::Unix(_) => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The library's own message, unless it repeats a part of the URL.
fn without_detail(error: &redis::RedisError) -> String {
    match error.detail() {
        None => {
            let words = error.to_string();
            let kind = words.find(" - ").unwrap_or(words.len());
            words[..kind].to_owned()
        }
        Some(_) => "it is malformed".to_owned(),
    }
}

const fn scheme(tls: bool) -> &'static str {
    if tls { "rediss" } else { "redis" }
}

fn public_part(address: &Address, db: i64) -> String {
    match address {
        Address::Tcp { tls, .. } => {
            let scheme = scheme(*tls);
            format!("{scheme}://{address}/{db}")
        }
        Address::Unix(_) => format!("unix://{address}?db={db}"),
    }
}

impl FromStr for Url {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let in_words = |error: WrongValue| ConfigError::new("Redis URL", &error);
        Self::read(text).map_err(in_words)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({:?})", self.shown)
    }
}
