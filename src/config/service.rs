//! Services: sections `[service NAME]` with what belongs to them, `[service NAME health]` and those of its
//! pools, and `[service NAME verdict]`. What they do not say holds as `[upstream]`, `[health]` and
//! `[verdict]` have it.
//!
//! The first service is the default one, which the other sections are about. Those of the file follow in its
//! order. No two of them have the same host and path, so that it is never a matter of their order which one a
//! request belongs to.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, ValueResult, WrongValue, shown, wrong};
use super::file::{IniFile, Section};
use super::gateway::DEFAULT_SERVICE;
use super::key::{Key, KeyTable, Setting, service_part, settings};
use super::units::{self, name};
use super::{HealthSettings, UpstreamSettings, VerdictSettings};
use crate::lists::{ByList, ServiceName};

settings! {
    [service]
    HOSTS: Vec<HostPattern> = hosts, "", reload, |it, _| hosts(it),
        "Hosts of the service, separated by commas, such as shop.example.com, *.shop.example.com, 10.0.0.1 or [::1]; empty: all.";
    PATHS: Vec<String> = paths, "", reload, |it, _| paths(it),
        "What its paths begin with, separated by commas, such as /api, /v2: whole segments; empty: all. It needs hosts or paths.";
    GRAY: Option<String> = gray, "", reload, |it, _| units::optional_name(it),
        "Service whose gray list and salt it shares, or default, so that both are released together; empty: its own.";
    GRAY_KEY: String = gray_key, "NAME:gray", reload, |it, _| name(it),
        "Redis key of its clients that get the new version.";
    PRE_KEY: String = pre_key, "NAME:pre", reload, |it, _| name(it),
        "Redis key of its new version's servers.";
    PROD_KEY: String = prod_key, "NAME:prod", reload, |it, _| name(it),
        "Redis key of its old version's servers.";
    SALT_KEY: String = salt_key, "NAME:salt", reload, |it, _| name(it),
        "Redis key of the salt of its shares (percent:).";
    TRIPPED_KEY: String = tripped_key, "NAME:tripped", reload, |it, _| name(it),
        "Redis key that says that its new version was taken back.";
    RELEASE_KEY: String = release_key, "NAME:release", reload, |it, _| name(it),
        "Redis key with the state of its release.";
    HISTORY_KEY: String = history_key, "NAME:history", reload, |it, _| name(it),
        "Redis key, a stream, with what was changed of it.";
    SALT: String = salt, "", reload, |it, _| Ok(it.to_owned()),
        "Salt of its shares where Redis has none; a new one makes others gray.";
}

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
    /// How the new version is compared with the old one.
    pub verdict: VerdictSettings,
}

/// The default service of an empty file.
impl Default for ServiceSettings {
    fn default() -> Self {
        let of = |file: IniFile<'_>| {
            Ok::<_, ConfigError>(Self {
                name: ServiceName::default(),
                hosts: Vec::new(),
                paths: Vec::new(),
                takes_rest: true,
                gray_of: None,
                salt: String::new(),
                upstream: UpstreamSettings::of(file.section("upstream"))?,
                health: HealthSettings::of(&file)?,
                verdict: VerdictSettings::of(&file)?,
            })
        };
        let no_keys = KeyTable {
            once: &[],
            service: &[],
        };
        let shipped = IniFile::parse(Path::new(""), "", no_keys).and_then(of);
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
    /// The key that says that `pre` was taken back. These three are its own even where it shares a gray list;
    /// `None` where a file from before there were such keys has something else under the default name.
    pub tripped: Option<String>,
    /// The key with the state of its release.
    pub release: Option<String>,
    /// Whether these two are looked at.
    pub has_verdict: bool,
    /// The key, a stream, with what was changed.
    pub history: Option<String>,
}

/// The most hosts times paths of one service.
const MOST_PLACES: usize = 10_000;

impl ServiceSettings {
    /// All services: the default one, and those of the file. `default` is the first of them.
    pub(super) fn all(file: &IniFile<'_>, default: Self) -> Result<Vec<Arc<Self>>, ConfigError> {
        let health = default.health.clone();
        let mut all = vec![default];
        for section in file.sections() {
            match service_part(section) {
                Some((name, "")) => {
                    // The file has no section with another name.
                    let name = ServiceName::parse(name).unwrap_or_default();
                    all.push(Self::of(file, section, name, &health)?);
                }
                Some((name, _)) if file.line_of(&section_of(name)).is_none() => {
                    let what = format!("there is no [{}]", section_of(name));
                    let allowed =
                        "the checks and the verdict of a service that has a section of its own";
                    return Err(file.wrong_section(section, &what, allowed));
                }
                _ => {}
            }
        }
        let [default, others @ ..] = &*all else {
            return Ok(Vec::new());
        };
        if others.is_empty() && !default.takes_rest {
            let wrong = WrongValue {
                what: "there is no [service NAME], so nothing would be served".to_owned(),
                allowed: "on, or a section for a service".to_owned(),
            };
            return Err(file.section("gateway").wrong(&DEFAULT_SERVICE.key, &wrong));
        }
        share_gray(file, &all)?;
        are_apart(file, &all)?;
        Ok(all.into_iter().map(Arc::new).collect())
    }

    fn of(
        file: &IniFile<'_>,
        name: &str,
        service: ServiceName,
        health: &HealthSettings,
    ) -> Result<Self, ConfigError> {
        let section = own_section(file, name);
        let (hosts, paths) = (section.get(&HOSTS)?, section.get(&PATHS)?);
        if hosts.is_empty() && paths.is_empty() {
            let what = "it has neither hosts nor paths";
            let allowed = "at least one of the two: what is no service's is the default one's";
            return Err(file.wrong_section(name, what, allowed));
        }
        if hosts.len() * paths.len() > MOST_PLACES {
            let wrong = WrongValue {
                what: format!("{} hosts with {} paths each", hosts.len(), paths.len()),
                allowed: format!("at most {MOST_PLACES} of both together; several services"),
            };
            return Err(section.wrong(&PATHS.key, &wrong));
        }
        let gray_of = section.get(&GRAY)?.map(|it| match &*it {
            ServiceName::DEFAULT => Ok(ServiceName::default()),
            other => ServiceName::parse(other).ok_or_else(|| unknown_gray(section, other)),
        });
        Ok(Self {
            name: service,
            hosts,
            paths,
            takes_rest: false,
            gray_of: gray_of.transpose()?,
            salt: section.get(&SALT)?,
            upstream: UpstreamSettings::of(section)?,
            health: HealthSettings::of_service(file, name)?.unwrap_or_else(|| health.clone()),
            verdict: VerdictSettings::of_service(file, name)?,
        })
    }

    /// The name of its section.
    pub(super) fn section(&self) -> String {
        section_of(self.name.as_str())
    }
}

/// The name of the section of a service.
fn section_of(service: &str) -> String {
    format!("service {service}")
}

/// The section of a service, before that for all.
fn own_section<'a>(file: &'a IniFile<'_>, name: &'a str) -> Section<'a> {
    file.section_before([name, "upstream"])
}

/// Each shared list is one that there is, of a service that has one of its own.
fn share_gray(file: &IniFile<'_>, all: &[ServiceSettings]) -> Result<(), ConfigError> {
    let by_name: HashMap<&ServiceName, &ServiceSettings> =
        all.iter().map(|it| (&it.name, it)).collect();
    for service in all {
        let Some(other) = &service.gray_of else {
            continue;
        };
        let name = service.section();
        let section = own_section(file, &name);
        let refused = |key: &Key, what: String, allowed: &str| {
            let allowed = allowed.to_owned();
            Err(section.wrong(key, &WrongValue { what, allowed }))
        };
        let Some(found) = by_name.get(other) else {
            return Err(unknown_gray(section, other.as_str()));
        };
        if *other == service.name {
            let allowed = "another service, or nothing: then it has a list of its own";
            return refused(&GRAY.key, "that is the service itself".to_owned(), allowed);
        }
        if let Some(third) = &found.gray_of {
            let place = KeyPlace::of(file.section(&found.section()), &GRAY).to_string();
            let what =
                format!("{other} has no list of its own, but shares that of {third} ({place})");
            return refused(
                &GRAY.key,
                what,
                "a service that has its own list, or default",
            );
        }
        for (key, line) in [
            (&GRAY_KEY.key, section.line(&GRAY_KEY)),
            (&SALT_KEY.key, section.line(&SALT_KEY)),
            (&SALT.key, section.line(&SALT)),
        ] {
            if line.is_some() {
                let gray = KeyPlace::of(section, &GRAY);
                let what = format!("{gray} says that the list and its salt are those of {other}");
                return refused(key, what, "either gray, or a list and a salt of its own");
            }
        }
    }
    Ok(())
}

fn unknown_gray(section: Section<'_>, name: &str) -> ConfigError {
    let wrong = WrongValue {
        what: format!("there is no service {}", shown(name)),
        allowed: "the name of a [service NAME] with its own list, default, or nothing".to_owned(),
    };
    section.wrong(&GRAY.key, &wrong)
}

/// No two services have one host and one path.
fn are_apart(file: &IniFile<'_>, all: &[ServiceSettings]) -> Result<(), ConfigError> {
    let mut places: HashMap<(Option<&HostPattern>, &str), &ServiceSettings> = HashMap::new();
    for service in all.iter().filter(|it| !it.name.is_default()) {
        let hosts: Vec<_> = match &*service.hosts {
            [] => vec![None],
            hosts => hosts.iter().map(Some).collect(),
        };
        let paths: Vec<&str> = match &*service.paths {
            [] => vec!["/"],
            paths => paths.iter().map(String::as_str).collect(),
        };
        for host in hosts {
            for path in &paths {
                let before = match places.entry((host, path)) {
                    Entry::Vacant(free) => {
                        free.insert(service);
                        continue;
                    }
                    Entry::Occupied(taken) => *taken.get(),
                };
                let setting = |it: &ServiceSettings| match it.hosts.is_empty() {
                    true => PATHS.key,
                    false => HOSTS.key,
                };
                let names = (service.section(), before.section());
                let key = setting(before);
                let other = file.section(&names.1);
                let other = KeyPlace::at(other.name(), key.name, other.written(&key).1).to_string();
                let host =
                    host.map_or_else(|| "requests of any host".to_owned(), ToString::to_string);
                let wrong = WrongValue {
                    what: format!("{host} with paths from {path} on: {other} has that, too"),
                    allowed: "each host and path in one service".to_owned(),
                };
                return Err(own_section(file, &names.0).wrong(&setting(service), &wrong));
            }
        }
    }
    Ok(())
}

/// A key and where it is given, as an error about another key names it.
pub(super) struct KeyPlace<'a> {
    section: &'a str,
    key: &'static str,
    line: Option<usize>,
}

impl<'a> KeyPlace<'a> {
    pub(super) const fn at(section: &'a str, key: &'static str, line: Option<usize>) -> Self {
        Self { section, key, line }
    }

    pub(super) fn of<T>(section: Section<'a>, setting: &Setting<T>) -> Self {
        Self::at(section.name(), setting.key.name, section.line(setting))
    }
}

impl fmt::Display for KeyPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { section, key, line } = self;
        match line {
            Some(line) => write!(f, "[{section}] {key} on line {line}"),
            None => write!(f, "[{section}] {key} by default"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Parts of a list that is separated by commas, each once; none when it is empty.
fn each_once<T: Clone + Hash + Eq>(
    text: &str,
    allowed: &str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> ValueResult<Vec<T>> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    if text.is_empty() {
        return Ok(found);
    }
    for item in text.split(',').map(str::trim) {
        let read = read(item).or_else(|what| wrong(format!("{}: {what}", shown(item)), allowed))?;
        if !known.insert(read.clone()) {
            return wrong(format!("{} is given twice", shown(item)), allowed);
        }
        found.push(read);
    }
    Ok(found)
}

fn hosts(text: &str) -> ValueResult<Vec<HostPattern>> {
    let allowed = "hosts without ports, separated by commas, such as shop.example.com, *.shop.example.com, 10.0.0.1 \
                   or [2001:db8::1]";
    each_once(text, allowed, host)
}

/// A host or a suffix of hosts, as they are compared: in lower case, without a dot at the end.
fn host(text: &str) -> Result<HostPattern, &'static str> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    if let Some(inner) = bare.strip_prefix('[') {
        let address = inner
            .strip_suffix(']')
            .and_then(|it| it.parse::<Ipv6Addr>().ok());
        let address = address.ok_or("it is not an IPv6 address in brackets, without a port")?;
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address is in brackets");
    }
    if bare.contains(':') {
        return Err("it has a port: services are told apart by hosts only");
    }
    if bare == "*" {
        return Err("for all hosts, leave hosts out");
    }
    let (name, is_suffix) = bare
        .strip_prefix("*.")
        .map_or((bare, false), |it| (it, true));
    if !name.is_ascii() {
        return Err("write it in ASCII, as it is sent (xn--…)");
    }
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(match name.contains('*') {
            true => "a star stands for the labels at the beginning only, as in *.example.com",
            false => "it is not the name of a host",
        });
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|it| it.is_ascii_digit()) {
        return match name.parse::<Ipv4Addr>() {
            Ok(_) if !is_suffix => Ok(HostPattern::Exact(name.to_owned())),
            _ => Err("it is not an IPv4 address"),
        };
    }
    Ok(match is_suffix {
        true => HostPattern::Suffix(format!(".{name}")),
        false => HostPattern::Exact(name.to_owned()),
    })
}

fn paths(text: &str) -> ValueResult<Vec<String>> {
    let allowed =
        "what paths begin with, separated by commas, such as /api, /v2; a comma in one as %2C";
    each_once(text, allowed, path)
}

/// What paths begin with; a slash at its end makes no difference, so it has none.
fn path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("it does not begin with /");
    }
    if text.contains('?') {
        return Err("services are told apart by paths only, not by queries");
    }
    if text.contains('#') {
        return Err("no request has a fragment");
    }
    if text.ends_with('*') {
        return Err("a path holds for all that begin with it, without a star");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("write it as it is sent, with %20 for a blank and so on");
    }
    if text.contains("//") {
        return Err("it has an empty segment");
    }
    let bare = text.strip_suffix('/').filter(|it| !it.is_empty());
    Ok(bare.unwrap_or(text).to_owned())
}
