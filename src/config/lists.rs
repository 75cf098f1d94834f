//! Section `[lists]` except its file: how lists come into force, whatever their source.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::file::Section;
use super::key::settings;
use super::units;

settings! {
    [lists]
    FILE: Option<PathBuf> = file, "", reload, |it, base| units::path(it, base),
        "Lists file, used when no Redis URL is set.";
    LAST_GOOD: Option<PathBuf> = last_good, "/var/lib/graygate/lists", reload, |it, base| units::path(it, base),
        "Copy of the lists in force, for a start with Redis down; empty: none.";
    LAST_GOOD_MAX_AGE: Option<Duration> = last_good_max_age, "unlimited", reload, |it, _| units::age(it),
        "Age above which that copy is not used, such as 12h or 30d, at least a few check_intervals; or unlimited.";
    GUARD_SHARE: usize = guard_share, "50", reload, |it, _| units::count(it, 0..=100),
        "Share of prod's servers, in percent, that one change may remove, 0 to 100; more is held.";
    GUARD_TIMEOUT: Option<Duration> = guard_timeout, "off", reload, |it, _| units::duration_or_off(it),
        "Time after which a held change that still stands comes into force; or off.";
}

/// The rest of section `[lists]`: how lists come into force, from whatever source.
#[derive(Clone, Debug, PartialEq)]
pub struct ListsSettings {
    /// Where the copy of the last good lists is kept, if anywhere; absolute.
    pub last_good: Option<PathBuf>,
    /// How old it may be at the start, if that is limited.
    pub last_good_max_age: Option<Duration>,
    /// The share of `prod` that one change may remove, in percent, 0 to 100.
    pub guard_share: usize,
    /// When a held change comes into force by itself, if ever.
    pub guard_timeout: Option<Duration>,
}

impl ListsSettings {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            last_good: section.get(&LAST_GOOD)?,
            last_good_max_age: section.get(&LAST_GOOD_MAX_AGE)?,
            guard_share: section.get(&GUARD_SHARE)?,
            guard_timeout: section.get(&GUARD_TIMEOUT)?,
        })
    }
}
