//! Section `[health]`: checks of servers. `[health pre]` and `[health prod]` hold for one pool, and go before
//! it key by key.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConfigError, ValueResult, wrong};
use super::file::{IniFile, Section};
use super::key::settings;
use super::units;
use crate::http::h1::head::is_authority;
use crate::lists::PoolName;

settings! {
    [health]
    PATH: Option<String> = path, "", reload, |it, _| path(it),
        "Path that health checks ask each server for, by GET, as /healthz; empty: no checks.";
    INTERVAL: Duration = interval, "5s", reload, |it, _| interval(it),
        "Time between two checks of a server, 100ms or more; by chance up to a tenth more or less.";
    TIMEOUT: Duration = timeout, "1s", reload, |it, _| units::duration(it),
        "Time for a check as a whole.";
    RISE: u32 = rise, "2", reload, |it, _| units::count(it, 1..=1000),
        "Checks in a row that bring a server back, 1 to 1000.";
    FALL: u32 = fall, "3", reload, |it, _| units::count(it, 1..=1000),
        "Failed checks in a row that put a server out, 1 to 1000.";
    EXPECT: Vec<RangeInclusive<u16>> = expect, "200-399", reload, |it, _| expect(it),
        "Statuses of a server that is well, separated by commas, as 200-299,304.";
    HOST: Option<String> = host, "", reload, |it, _| host(it),
        "Host that checks name; empty: the server's address and port.";
    CHECK_BEFORE_USE: bool = check_before_use, "off", reload, |it, _| units::switch(it),
        "Send no request to a new server before its first check has succeeded: on or off.";
}

/// How the servers of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    /// What they are asked for.
    pub path: String,
    /// Between two checks of one peer, more or less.
    pub interval: Duration,
    /// For a check as a whole.
    pub timeout: Duration,
    /// Successes in a row that bring a peer back, at least 1.
    pub rise: u32,
    /// Failures in a row that put a peer out, at least 1.
    pub fall: u32,
    /// Statuses of a peer that is well.
    pub expect: Vec<RangeInclusive<u16>>,
    /// The Host, if it is not the peer's own address.
    pub host: Option<String>,
    /// A new peer is asked nothing before its first check has succeeded.
    pub before_use: bool,
}

impl Checks {
    /// As `section` says; `None` when it names no path.
    fn of(section: Section<'_>) -> Result<Option<Arc<Self>>, ConfigError> {
        // All of it is read, so that what is wrong shows before the checks are switched on.
        let (interval, timeout) = (section.get(&INTERVAL)?, section.get(&TIMEOUT)?);
        let (rise, fall) = (section.get(&RISE)?, section.get(&FALL)?);
        let (expect, host) = (section.get(&EXPECT)?, section.get(&HOST)?);
        let before_use = section.get(&CHECK_BEFORE_USE)?;
        let checks = section.get(&PATH)?.map(|path| Self {
            path,
            interval,
            timeout,
            rise,
            fall,
            expect,
            host,
            before_use,
        });
        Ok(checks.map(Arc::new))
    }
}

/// Section `[health]`, and those of the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSettings {
    pre: Option<Arc<Checks>>,
    prod: Option<Arc<Checks>>,
}

impl HealthSettings {
    pub(super) fn of(file: &IniFile<'_>) -> Result<Self, ConfigError> {
        // Also what both pools have of their own must be right.
        Checks::of(file.section("health"))?;
        Ok(Self {
            pre: Checks::of(file.section_before(["health pre", "health"]))?,
            prod: Checks::of(file.section_before(["health prod", "health"]))?,
        })
    }

    /// Those of one service, whose section this is; `None` when it has none of its own.
    pub(super) fn of_service(
        file: &IniFile<'_>,
        section: &str,
    ) -> Result<Option<Self>, ConfigError> {
        let both = format!("{section} health");
        let (pre, prod) = (format!("{both} pre"), format!("{both} prod"));
        if [&both, &pre, &prod]
            .iter()
            .all(|it| file.line_of(it).is_none())
        {
            return Ok(None);
        }
        Checks::of(file.section_before([&both, "health"]))?;
        Ok(Some(Self {
            pre: Checks::of(file.section_before([&pre, &both, "health pre", "health"]))?,
            prod: Checks::of(file.section_before([&prod, &both, "health prod", "health"]))?,
        }))
    }

    /// How the peers of `pool` are checked, if they are.
    pub(crate) fn of_pool(&self, pool: PoolName) -> Option<&Arc<Checks>> {
        match pool {
            PoolName::Pre => self.pre.as_ref(),
            PoolName::Prod => self.prod.as_ref(),
        }
    }

    /// True when new peers of `pool` are checked before they are used.
    pub(crate) fn is_before_use(&self, pool: PoolName) -> bool {
        self.of_pool(pool).is_some_and(|it| it.before_use)
    }
}

/// A path with its query (RFC 3986 sections 3.3 and 3.4); none when empty.
fn path(text: &str) -> ValueResult<Option<String>> {
    let is_part =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte);
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('/') || !text.bytes().all(is_part) {
        let allowed = "a path, with a query if need be, as /healthz or /live?full=1; or nothing";
        return wrong("it is no path of a URL", allowed);
    }
    Ok(Some(text.to_owned()))
}

fn interval(text: &str) -> ValueResult<Duration> {
    const LEAST: Duration = Duration::from_millis(100);
    match units::duration(text)? {
        time if time < LEAST => wrong("it is less than 100ms", "a time from 100ms on, as 5s"),
        time => Ok(time),
    }
}

/// Ranges of final statuses.
fn expect(text: &str) -> ValueResult<Vec<RangeInclusive<u16>>> {
    let status = |text: &str| match units::digits::<u16>(text) {
        Some(Ok(status)) if (200..600).contains(&status) => Some(status),
        _ => None,
    };
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (status(first.trim())?, status(last.trim())?);
        (first <= last).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(|item| range(item.trim())).collect();
    ranges.map_or_else(
        || {
            let allowed =
                "statuses from 200 to 599 and ranges of them, separated by commas, as 200-299,304";
            wrong("it is no list of statuses", allowed)
        },
        Ok,
    )
}

/// A name or an address, with a port if need be; none when empty.
fn host(text: &str) -> ValueResult<Option<String>> {
    if !text.is_empty() && !is_authority(text.as_bytes()) {
        return wrong(
            "it is no host",
            "a name or an address, with a port if need be, as app.example.net or 10.0.0.1:8080; or nothing",
        );
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
