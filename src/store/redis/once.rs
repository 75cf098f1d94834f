//! Looks at Redis without watching it: for the command line.

use std::collections::HashMap;

use redis::{RedisError, RedisResult};

use super::cluster::Division;
use super::extras::{ExtraReply, Extras};
use super::keyring::{KeyOf, Keyring, KeysQuery};
use super::link::Link;
use super::open_slot::OpenSlot;
use super::place::Finder;
use super::reading::{KeysReply, ServicePart};
use super::rights::Rights;
use super::standing::StandingQuery;
use super::types::WrongTypes;
use super::{cluster, password, proxies, reading, tls};
use crate::config;
use crate::store::{Fault, Reading, ReleaseReading, ServiceReading};

/// What was read once.
pub(crate) struct Once {
    /// What was read of each service, in the order of the settings.
    pub readings: Vec<ServiceReading>,
    /// What there is to say of keys that cannot be read.
    pub types: WrongTypes,
}

/// Reads the keys once.
///
/// # Errors
/// Why they cannot be read.
pub(crate) fn read(settings: &config::RedisSettings) -> Result<Once, String> {
    let all = Keyring::new(settings.services.clone());
    let mut finder = Finder::default();
    let mut found = vec![None; all.len()];
    let mut types = WrongTypes::default();
    // Each server of a cluster is asked for those that it has.
    let mut left = vec![all.services().to_vec()];
    while let Some(services) = left.pop() {
        let keyring = Keyring::new(services);
        let mut division = Division::default();
        let outcome = attempt(settings, &keyring, &mut finder, &mut division);
        let (readings, wrong) = outcome.map_err(|error| {
            let error = cluster::explained(error, &keyring);
            let error = proxies::explained(error, &finder, settings);
            finder.describe(&error)
        })?;
        types.add(wrong, &keyring, &all);
        for reading in readings {
            if let Some(at) = all.place(&reading.service) {
                found[at] = Some(reading);
            }
        }
        let others = division.elsewhere.into_iter().map(|(_, places)| places);
        let keys = |it: usize| keyring.services()[it].clone();
        left.extend(others.map(|it| it.into_iter().map(keys).collect()));
    }
    let readings = found.into_iter().flatten().collect();
    Ok(Once { readings, types })
}

/// Reads what one server has of the services.
fn attempt(
    settings: &config::RedisSettings,
    keyring: &Keyring,
    finder: &mut Finder,
    division: &mut Division,
) -> RedisResult<(Vec<ServiceReading>, WrongTypes)> {
    let mut reader = finder.open_at_lists(settings, keyring, division)?;
    let here = &division.here;
    let mut rights = Rights::default();
    let mut extras = Extras::default();
    let together = [(0, here.clone())];
    let mut answers = ask(
        &mut reader,
        settings,
        keyring,
        &together,
        (&mut rights, &mut extras),
    );
    if let Err(error) = &answers
        && error.code() == Some("CROSSSLOT")
        && here.len() > 1
    {
        let slots: Vec<_> = keyring.by_slot(here).into_iter().collect();
        answers = ask(
            &mut reader,
            settings,
            keyring,
            &slots,
            (&mut rights, &mut extras),
        );
    }
    let answers = answers?;
    let asked = (keyring, &here[..]);
    let aside = extras.read_elsewhere(&mut reader, settings, asked, &mut rights)?;
    let (mut readings, mut wrong) = (Vec::new(), Vec::new());
    for part in answers.iter().flat_map(KeysReply::parts) {
        let service = part.service;
        let (lists, salt) = part.reading(keyring, &rights)?;
        wrong.extend(wrong_of(service, &lists));
        let salt = match salt {
            Some(Err(error)) if error.code().is_some() => None,
            Some(reply) => Some(reply?),
            None => aside.get(&KeyOf::salt(service)).cloned(),
        };
        if matches!(salt, Some(ExtraReply::WrongType)) {
            wrong.push(KeyOf::salt(service));
        }
        let release = release_of(&part, &aside, keyring, &mut extras)?;
        let keys = &keyring.services()[service];
        readings.push(ServiceReading {
            service: keys.service.clone(),
            gray_of: keys.gray_of.clone(),
            salt: extras.take(service, salt, keyring),
            release,
            ..ServiceReading::settled(lists)
        });
    }
    let mut types = WrongTypes::default();
    types.ask(&mut reader, keyring, here, &wrong)?;
    Ok((readings, types))
}

/// What was read of the release of a service, with its lists or `aside`.
fn release_of(
    part: &ServicePart<'_>,
    aside: &HashMap<KeyOf, ExtraReply>,
    keyring: &Keyring,
    extras: &mut Extras,
) -> RedisResult<Option<ReleaseReading>> {
    let mut here: HashMap<KeyOf, RedisResult<ExtraReply>> = part.release().collect();
    let mut text = |of: KeyOf| {
        let reply = match here.remove(&of) {
            Some(Err(error)) if error.code().is_some() => None,
            Some(reply) => Some(reply?),
            None => aside.get(&of).cloned(),
        };
        Ok::<_, RedisError>(extras.text(of, reply, keyring))
    };
    let of_release = keyring.of_release(part.service).next();
    of_release
        .map(|_| {
            Ok(ReleaseReading {
                tripped: text(KeyOf::tripped(part.service))?,
                state: text(KeyOf::release(part.service))?,
                lost: part.is_empty(),
            })
        })
        .transpose()
}

/// Asks for each of these groups of services in a transaction; again where salts turn out to be needed.
fn ask(
    reader: &mut Link,
    settings: &config::RedisSettings,
    keyring: &Keyring,
    groups: &[(u16, Vec<usize>)],
    (rights, extras): (&mut Rights, &mut Extras),
) -> RedisResult<Vec<KeysReply>> {
    let mut answers = Vec::new();
    for (_, services) in groups {
        let (mut slot, mut question) = (OpenSlot::default(), StandingQuery::default());
        let query = KeysQuery {
            settings,
            keyring,
            services,
        };
        let mut ask = |extras: &mut Extras| {
            reading::ask(reader, &mut slot, &query, (rights, extras), &mut question)
        };
        let (mut answer, _) = ask(extras)?;
        if extras.are_missing(answer.bytes(), keyring) {
            (answer, _) = ask(extras)?;
        }
        answers.push(answer);
    }
    Ok(answers)
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
