//! Where the lists come from: what `[redis]` and `[lists]` say together.

use std::fmt;
use std::path::PathBuf;

use super::error::ConfigError;
use super::file::{IniFile, Section};
use super::lists;
use super::redis::{self, RedisSettings};
use super::service::ServiceKeys;
use super::url::Url;

/// Sections `[redis]` and `[lists]`: where the lists come from.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are one or two of them")]
pub enum Store {
    /// From a Redis server.
    Redis(RedisSettings),
    /// From a file, by its absolute path.
    File(PathBuf),
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(settings) => settings.url.fmt(f),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Store {
    /// As the sections say; `services` are those of the file, with their keys.
    pub(super) fn of(
        file: &IniFile<'_>,
        redis_url: Option<String>,
        services: Vec<ServiceKeys>,
    ) -> Result<Self, ConfigError> {
        // All keys are parsed, so that a wrong value is found even if it is not needed.
        let redis = RedisSettings::of(file.section("redis"), redis_url, services)?;
        let lists = file.section("lists").get(&lists::FILE)?;
        match (redis, lists) {
            (Some(redis), _) => {
                let urls = redis.sentinels.iter().chain([&redis.url]);
                redis.tls.is_needed_by(file.section("redis"), urls)?;
                Ok(Self::Redis(redis))
            }
            (None, Some(path)) => Ok(Self::File(path)),
            (None, None) => Err(file.wrong(
                "no source for the lists",
                "url in [redis] or the variable GRAYGATE_REDIS_URL, or file in [lists]",
            )),
        }
    }
}

/// The keys for which the file differs from the URL in the environment.
pub(super) fn masked_by(redis_url: Option<&str>, section: Section<'_>) -> Vec<&'static str> {
    let Some(url) = redis_url else {
        return Vec::new();
    };
    let has_password = Url::read(url).is_ok_and(|it| it.has_password());
    let masks = [
        (redis::URL.key, section.gives(&redis::URL, |it| it != url)),
        (
            redis::PASSWORD_FILE.key,
            has_password && section.gives(&redis::PASSWORD_FILE, |_| true),
        ),
    ];
    let masked = masks.into_iter().filter(|(_, is_masked)| *is_masked);
    masked.map(|(key, _)| key.full_name).collect()
}
