//! Services: sections `[service NAME]`, and what the other sections say of the default one.

use std::path::Path;

use super::{ConfigError, HealthSettings, IniFile, KEYS, UpstreamSettings};
use crate::lists::{ByList, ServiceName};

/// The settings of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// Its name.
    pub name: ServiceName,
    /// The hosts that are its own; none: all that no other service has.
    pub hosts: Vec<HostPattern>,
    /// What the paths of its requests begin with; none: all that no other service of its hosts has.
    pub paths: Vec<String>,
    /// It gets what is no service's by host and path: the default one, unless that is switched off.
    pub takes_rest: bool,
    /// The service whose gray list and salt it shares, if it has none of its own.
    pub gray_of: Option<ServiceName>,
    /// The salt of its shares where the store has none.
    pub salt: String,
    /// How its peers are asked.
    pub upstream: UpstreamSettings,
    /// How they are checked.
    pub health: HealthSettings,
}

/// The default service of an empty file.
impl Default for ServiceSettings {
    fn default() -> Self {
        let of = |file: IniFile| {
            Ok::<_, ConfigError>(Self {
                name: ServiceName::default(),
                hosts: Vec::new(),
                paths: Vec::new(),
                takes_rest: true,
                gray_of: None,
                salt: String::new(),
                upstream: UpstreamSettings::of(file.section("upstream"))?,
                health: HealthSettings::of(&file)?,
            })
        };
        let shipped = IniFile::parse(Path::new(""), "", KEYS).and_then(of);
        shipped.unwrap_or_else(|it| unreachable!("an empty file is wrong: {it}"))
    }
}

/// Hosts of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This one, in lower case, without a dot at its end.
    Exact(String),
    /// `*.example.com`: all that end in this, which begins with a dot.
    Suffix(String),
}

/// Where the lists of a service are in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceKeys {
    /// The service.
    pub service: ServiceName,
    /// The service whose gray list and salt it shares ([`ServiceSettings::gray_of`]): those two keys are that
    /// one's then, and are read for it alone.
    pub gray_of: Option<ServiceName>,
    /// The keys of its lists.
    pub lists: ByList<String>,
    /// The key of the salt of its shares.
    pub salt: String,
}
