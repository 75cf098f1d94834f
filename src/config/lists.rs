//! Section `[lists]` but its file: how lists come into force, from whatever source.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::file::Section;
use super::units;

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

impl Lists {
    pub(super) fn of(section: Section<'_>, base: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            last_good: section.get("last_good", units::path(base))?,
            last_good_max_age: section.get("last_good_max_age", units::age)?,
            guard_share: section.get("guard_share", units::count(0..=100))?,
            guard_timeout: section.get("guard_timeout", units::duration_or_off)?,
        })
    }
}
