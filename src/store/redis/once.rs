//! Looks at Redis without watching it: for the command line.

use redis::RedisResult;

use super::errors::io_error;
use super::keyring::{KeyOf, Keyring, KeysQuery};
use super::link::Link;
use super::open_slot::OpenSlot;
use super::place::Finder;
use super::rights::Rights;
use super::salts::{SaltReply, Salts};
use super::standing::StandingQuery;
use super::types::WrongTypes;
use super::{cluster, password, proxies, reading, tls};
use crate::config;
use crate::store::{Fault, Reading, ServiceReading};

/// What was read once.
pub(crate) struct Once {
    /// The lists of the default service.
    pub reading: Reading,
    /// What was read of the others, in the order of the settings.
    pub others: Vec<ServiceReading>,
    /// What there is to say of keys that cannot be read.
    pub types: WrongTypes,
}

/// Reads the keys once.
///
/// # Errors
/// Why they cannot be read.
pub(crate) fn read(settings: &config::RedisSettings) -> Result<Once, String> {
    let keyring = Keyring::new(settings.services.clone());
    let mut finder = Finder::default();
    let outcome = attempt(settings, &keyring, &mut finder);
    outcome.map_err(|error| {
        let error = cluster::explained(error, &keyring);
        let error = proxies::explained(error, &finder, settings);
        finder.describe(&error)
    })
}

fn attempt(
    settings: &config::RedisSettings,
    keyring: &Keyring,
    finder: &mut Finder,
) -> RedisResult<Once> {
    let mut reader = finder.open_at_lists(settings, keyring)?;
    let (mut rights, mut question) = (Rights::default(), StandingQuery::default());
    let (mut slot, mut salts) = (OpenSlot::default(), Salts::default());
    let services = keyring.all();
    let query = KeysQuery {
        settings,
        keyring,
        services: &services,
    };
    let mut ask = |reader: &mut Link, salts: &mut Salts, rights: &mut Rights| {
        reading::ask(reader, &mut slot, &query, (rights, salts), &mut question)
    };
    let (mut answer, _) = ask(&mut reader, &mut salts, &mut rights)?;
    if salts.are_missing(answer.bytes(), keyring) {
        (answer, _) = ask(&mut reader, &mut salts, &mut rights)?;
    }
    let asked = (keyring, &services[..]);
    let aside = salts.read_elsewhere(&mut reader, settings, asked, &mut rights)?;
    let (mut readings, mut wrong) = (Vec::new(), Vec::new());
    for part in answer.parts() {
        let service = part.service;
        let (lists, salt) = part.reading(keyring)?;
        wrong.extend(wrong_of(service, &lists));
        let salt = match salt {
            Some(Err(error)) if error.code().is_some() => None,
            Some(reply) => Some(reply?),
            None => aside.get(&service).cloned(),
        };
        if matches!(salt, Some(SaltReply::WrongType)) {
            wrong.push(KeyOf::salt(service));
        }
        let keys = &keyring.services()[service];
        readings.push(ServiceReading {
            service: keys.service.clone(),
            gray_of: keys.gray_of.clone(),
            salt: salts.take(service, salt, keyring),
            ..ServiceReading::settled(lists)
        });
    }
    let mut types = WrongTypes::default();
    types.ask(&mut reader, keyring, &services, &wrong)?;
    let mut readings = readings.into_iter();
    let first = readings.next().map(|it| it.lists);
    Ok(Once {
        reading: first.ok_or_else(|| io_error("there is no service"))?,
        others: readings.collect(),
        types,
    })
}

/// The lists of a service that have a wrong type.
pub(crate) fn wrong_of(service: usize, lists: &Reading) -> Vec<KeyOf> {
    let wrong = lists
        .iter()
        .filter(|(_, it)| matches!(it, Err(Fault::WrongType)));
    wrong.map(|(list, _)| KeyOf::list(service, list)).collect()
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
