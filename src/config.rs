//! The ini file, and what it means.
//!
//! `Config::load` reads the whole file before anything starts: an unknown key, a value without its
//! unit or a line that could be read in two ways is an error that names its line. The result needs no
//! further checks: nothing required is optional, paths are absolute, and no time limit is missing.
//! [`KEYS`] lists the keys with their defaults; the shipped `etc/graygate.ini` says the same.
//!
//! [`Config::reload`] says which changes a running gateway applies. Nothing here opens the files or
//! sockets, or looks up the users, that are named.

mod admin;
mod error;
mod file;
mod gateway;
mod gray;
mod health;
mod in_force;
mod key;
mod lists;
mod log;
mod log_format;
mod redis;
mod reload;
mod sampling;
mod service;
mod service_keys;
mod store;
mod syslog;
#[cfg(test)]
mod tests;
mod units;
mod upstream;
mod url;
mod verdict;
mod webhook;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::admin::is_loopback;
pub use self::admin::{AdminSettings, AdminSocketPath, Expose};
pub use self::error::ConfigError;
use self::file::IniFile;
pub use self::gateway::{GatewaySettings, Listen};
pub use self::gray::{Exposed, GraySettings};
pub(crate) use self::health::Checks;
pub use self::health::HealthSettings;
pub use self::key::{Key, KeyTable};
pub use self::lists::ListsSettings;
pub use self::log::{LogSettings, LogTarget};
pub use self::log_format::{CustomFormat, FieldName, LogFormat};
pub(crate) use self::log_format::{Escape, FormatPiece, Variable};
pub(crate) use self::redis::REDIS_URL_VARIABLE;
pub use self::redis::{FleetSettings, Notify, PasswordFiles, RedisSettings, Tls};
pub(crate) use self::reload::Reloads;
pub use self::sampling::Sampling;
pub use self::service::{HostPattern, ServiceKeys, ServiceSettings};
pub use self::store::Store;
pub use self::syslog::SyslogTarget;
pub(crate) use self::syslog::{SyslogForm, SyslogServer};
pub use self::upstream::{Balance, Keepalive, UpstreamSettings};
pub use self::url::{Address, Url};
pub(crate) use self::url::{Login, Password};
pub use self::verdict::{UnitKey, VerdictMode, VerdictSettings};
pub use self::webhook::{WebhookFormat, WebhookSettings, WebhookUrl};
use self::written::WrittenKeys;
pub(crate) use self::written::{ValueOrigin, WrittenValue};
use crate::lists::ServiceName;

/// Where the ini file is, unless the command line names another.
pub(crate) const DEFAULT_PATH: &str = "/etc/graygate/graygate.ini";

/// Every key, in the order of the shipped file: those of sections that there are once, and those of services.
pub const KEYS: KeyTable = KeyTable {
    once: &[
        gateway::KEYS,
        redis::KEYS,
        lists::KEYS,
        gray::KEYS,
        upstream::KEYS,
        health::KEYS,
        verdict::KEYS,
        log::KEYS,
        admin::KEYS,
    ],
    service: service::KEYS,
};

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The ini file, as an absolute path.
    pub path: PathBuf,
    /// The client side and the process.
    pub gateway: GatewaySettings,
    /// Where the lists come from.
    pub store: Store,
    /// How they come into force.
    pub lists: ListsSettings,
    /// What besides them says who is served by whom, and what is told of that.
    pub gray: GraySettings,
    /// The services; the first is the default one, which the sections `[upstream]` and `[health]` are about.
    pub services: Vec<Arc<ServiceSettings>>,
    /// Where people are told what becomes of a release, if anywhere.
    pub webhook: Option<WebhookSettings>,
    /// The logs.
    pub log: LogSettings,
    /// Where the gateway may be asked about itself, and what is answered there.
    pub admin: AdminSettings,
    /// The full names of the keys whose values have no effect, since the environment takes precedence.
    pub masked: Vec<&'static str>,
    /// Every key as it was written, and where.
    written: WrittenKeys,
}

impl Config {
    /// Reads the file at `path`. `redis_url` is the value of `REDIS_URL_VARIABLE`, and takes precedence
    /// over the file's unless it is empty.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn load(path: &Path, redis_url: Option<String>) -> Result<Self, ConfigError> {
        Self::parse(path, &file::read(path)?, redis_url)
    }

    /// As `Config::load`, with the `text` of the file at `path`, which is not opened.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(path: &Path, text: &str, redis_url: Option<String>) -> Result<Self, ConfigError> {
        let file = IniFile::parse(path, text, KEYS)?;
        // Absolute, since a daemon may change its working directory before a reload.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let gateway = GatewaySettings::of(file.section("gateway"))?;
        let redis_url = redis_url.filter(|url| !url.is_empty());
        let masked = store::masked_by(redis_url.as_deref(), file.section("redis"));
        let services = ServiceSettings::all(
            &file,
            ServiceSettings {
                name: ServiceName::default(),
                hosts: Vec::new(),
                paths: Vec::new(),
                takes_rest: file.section("gateway").get(&gateway::DEFAULT_SERVICE)?,
                gray_of: None,
                salt: gray::salt(file.section("gray"))?,
                upstream: UpstreamSettings::of(file.section("upstream"))?,
                health: HealthSettings::of(&file)?,
                verdict: VerdictSettings::of(&file)?,
            },
        )?;
        let keys = ServiceKeys::all(&file, &services)?;
        Ok(Self {
            services,
            masked,
            written: WrittenKeys::of(&file, KEYS, redis_url.as_deref()),
            store: Store::of(&file, redis_url, keys)?,
            lists: ListsSettings::of(file.section("lists"))?,
            gray: GraySettings::of(file.section("gray"))?,
            webhook: verdict::webhook(file.section("verdict"))?,
            log: LogSettings::of(file.section("log"))?,
            admin: AdminSettings::beside(&gateway.listen, &file)?,
            gateway,
            path,
        })
    }

    /// The service that is always there.
    pub fn default_service(&self) -> &ServiceSettings {
        &self.services[0]
    }

    /// Section `[admin]` of the file at `path`. Mistakes in other sections do not matter: the caller wants
    /// to ask a gateway that has started already.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, or with this section.
    pub(crate) fn admin_of(path: &Path) -> Result<AdminSettings, ConfigError> {
        let text = file::read(path)?;
        let section = file::only("admin", &text, KEYS);
        let file = IniFile::parse(path, section.as_deref().unwrap_or(&text), KEYS)?;
        AdminSettings::of(file.section("admin"))
    }
}
