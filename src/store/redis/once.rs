//! Looks at Redis without watching it: for the command line.

use redis::RedisResult;

use super::open_slot::OpenSlot;
use super::place::Finder;
use super::rights::Rights;
use super::standing::StandingQuery;
use super::types::WrongTypes;
use super::{cluster, password, proxies, reading, tls};
use crate::config;
use crate::store::Reading;

/// What was read once.
pub(crate) struct Once {
    /// The lists.
    pub reading: Reading,
    /// What there is to say of lists that cannot be read.
    pub types: WrongTypes,
}

/// Reads the keys once.
///
/// # Errors
/// Why they cannot be read.
pub(crate) fn read(settings: &config::RedisSettings) -> Result<Once, String> {
    let mut finder = Finder::default();
    let mut attempt = || {
        let mut reader = finder.open_at_lists(settings)?;
        let (mut rights, mut question) = (Rights::default(), StandingQuery::default());
        let mut slot = OpenSlot::default();
        let (answer, _) =
            reading::ask(&mut reader, &mut slot, settings, &mut rights, &mut question)?;
        let reading = answer.reading()?;
        let mut types = WrongTypes::default();
        types.ask(&mut reader, &settings.keys, &reading)?;
        Ok(Once { reading, types })
    };
    let outcome: RedisResult<Once> = attempt();
    outcome.map_err(|error| {
        let error = cluster::explained(error, &settings.keys);
        let error = proxies::explained(error, &finder, settings);
        finder.describe(&error)
    })
}

/// Looks at the files with passwords, and at those that are needed for TLS.
///
/// # Errors
/// Which of them cannot be used, and why.
pub(crate) fn check_files(settings: &config::RedisSettings) -> std::io::Result<()> {
    let urls = || settings.sentinels.iter().chain([&settings.url]);
    for url in urls() {
        password::read(url.login())?;
    }
    match urls().any(config::Url::is_tls) {
        true => tls::client_config(&settings.tls).map(drop),
        false => Ok(()),
    }
}
