//! The address of Redis, which may hold a password.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::ConfigError;
use super::units::{Reading, Wrong, wrong};

/// The URL of a Redis server. Neither [`Debug`](fmt::Debug) nor [`Display`](fmt::Display) shows
/// its user or password; only [`Url::as_str`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Written anew from what was understood, so that nothing else can slip through.
    shown: String,
}

const ALLOWED: &str = "redis://[[user]:password@]host[:port][/db] or \
     unix:///path[?db=0&user=…&pass=…], with special characters as in %23";

impl Url {
    /// The whole URL, secrets and all, for the connection.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reads a URL. What is wrong is said without any part of it.
    pub(super) fn read(text: &str) -> Reading<Self> {
        // In a password it would end the URL early, and leave a wrong host.
        if text.contains('#') {
            return wrong("it has a #", ALLOWED);
        }
        if text.starts_with("rediss:") {
            return wrong("TLS is not supported", ALLOWED);
        }
        let known = ["redis://", "unix://", "redis+unix://"];
        if !known.iter().any(|scheme| text.starts_with(scheme)) {
            return wrong("it does not begin with redis:// or unix://", ALLOWED);
        }
        let Some(parsed) = redis::parse_redis_url(text) else {
            return wrong("it is malformed", ALLOWED);
        };
        let is_tcp = parsed.has_host();
        if is_tcp
            && (parsed.path().contains('@') || parsed.query().is_some_and(|it| it.contains('@')))
        {
            return wrong("it has an @ behind the host", ALLOWED);
        }
        let connection = parsed.into_connection_info();
        let connection = connection.or_else(|error| wrong(without_detail(&error), ALLOWED))?;
        if connection.redis_settings().db() < 0 {
            return wrong("its database is less than 0", ALLOWED);
        }
        Ok(Self {
            text: text.to_owned(),
            shown: public_part(&connection),
        })
    }

    /// As [`Url::read`]; none when empty.
    pub(super) fn read_optional(text: &str) -> Reading<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        Self::read(text).map(Some)
    }
}

/// The library's own words, unless they repeat a part of the URL.
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

fn public_part(connection: &ConnectionInfo) -> String {
    let db = connection.redis_settings().db();
    match connection.addr() {
        ConnectionAddr::Tcp(host, port) if host.contains(':') => {
            format!("redis://[{host}]:{port}/{db}")
        }
        ConnectionAddr::Unix(path) => format!("unix://{}?db={db}", path.display()),
        address => format!("redis://{address}/{db}"),
    }
}

impl FromStr for Url {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let in_words = |error: Wrong| ConfigError::new("Redis URL", &error);
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
