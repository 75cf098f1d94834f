//! Where the lists of all services are in Redis: each key is of one list of one service, so that no push is
//! ever for two of them, and no heartbeat or answer overwrites a list.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{ConfigError, WrongValue, shown};
use super::file::{IniFile, Section};
use super::key::Setting;
use super::redis::{self, FleetSettings};
use super::service::{self, KeyPlace, ServiceKeys, ServiceSettings};
use super::verdict::VerdictMode;
use crate::lists::{ByList, ListName, ServiceName};

impl ServiceKeys {
    /// The keys of all these services, in their order.
    pub(super) fn all(
        file: &IniFile<'_>,
        services: &[Arc<ServiceSettings>],
    ) -> Result<Vec<Self>, ConfigError> {
        let redis = file.section("redis");
        let lists = redis::list_keys(redis)?;
        let accept = redis::accept_key(redis, &lists)?;
        let fleet = FleetSettings::of(redis, &lists, &accept)?;
        let mut book = KeyBook {
            file,
            redis,
            fleet: &fleet,
            used: HashMap::new(),
        };
        for list in ListName::ALL {
            book.note(&lists[list], KeyPlace::of(redis, redis::setting_of(list)));
        }
        book.note(&accept, KeyPlace::of(redis, &redis::ACCEPT_KEY));
        let salt = redis.get(&redis::SALT_KEY)?;
        match redis.has(&redis::SALT_KEY) {
            true => book.add(&salt, redis, &redis::SALT_KEY)?,
            // Files from before there was such a key may have something else there, and no shares.
            false => book.note(&salt, KeyPlace::of(redis, &redis::SALT_KEY)),
        }
        let mut all = vec![Self {
            service: ServiceName::default(),
            gray_of: None,
            lists,
            salt,
            tripped: None,
            release: None,
            has_verdict: services.first().is_some_and(|it| has_verdict(it)),
            history: None,
        }];
        let names: Vec<String> = services.iter().map(|it| it.section()).collect();
        for (service, name) in services.iter().zip(&names).skip(1) {
            all.push(book.keys_of(service, file.section(name))?);
        }
        Self::share(&mut all);
        let sections = names.iter().skip(1).map(|it| file.section(it));
        let sections: Vec<Section<'_>> = std::iter::once(redis).chain(sections).collect();
        // Those that are given come before the defaults, which must be in the way of no other key.
        for is_given in [true, false] {
            for (keys, section) in all.iter_mut().zip(&sections) {
                book.add_release(keys, *section, is_given)?;
            }
        }
        Ok(all)
    }

    /// Gives those that share another's gray list the keys of that.
    fn share(all: &mut [Self]) {
        let own = |it: &Self| (it.lists.gray.clone(), it.salt.clone());
        let by_name: HashMap<ServiceName, (String, String)> =
            all.iter().map(|it| (it.service.clone(), own(it))).collect();
        for keys in all {
            let other = keys.gray_of.as_ref().and_then(|it| by_name.get(it));
            if let Some((gray, salt)) = other {
                (keys.lists.gray, keys.salt) = (gray.clone(), salt.clone());
            }
        }
    }
}

/// The last word of the default keys of a release, in the order of the settings.
const RELEASE: [&str; 3] = ["tripped", "release", "history"];

/// Every key so far, with what it is for.
struct KeyBook<'a> {
    file: &'a IniFile<'a>,
    redis: Section<'a>,
    fleet: &'a FleetSettings,
    used: HashMap<String, KeyPlace<'a>>,
}

impl<'a> KeyBook<'a> {
    /// A key that is not looked at; of two equal ones the first is kept.
    fn note(&mut self, key: &str, place: KeyPlace<'a>) {
        self.used.entry(key.to_owned()).or_insert(place);
    }

    /// What else this key is, if it is something.
    fn clash(&self, key: &str) -> Option<String> {
        let node = || KeyPlace::of(self.redis, &redis::NODE_KEY);
        if let Some(other) = self.used.get(key) {
            return Some(format!("{other} has the same value"));
        }
        if key.starts_with(&self.fleet.key_of("")) {
            return Some(format!(
                "it begins like the heartbeats of the nodes: {}",
                node()
            ));
        }
        let is_index = key == self.fleet.index_key();
        is_index.then(|| format!("it is the index of the nodes: {}", node()))
    }

    /// The keys of the release of a service: either those that the file gives, or the others. Files from
    /// before there were such keys may have something else under their default names: then there are none.
    fn add_release(
        &mut self,
        keys: &mut ServiceKeys,
        section: Section<'a>,
        given: bool,
    ) -> Result<(), ConfigError> {
        let settings = match keys.service.is_default() {
            true => [
                &redis::TRIPPED_KEY,
                &redis::RELEASE_KEY,
                &redis::HISTORY_KEY,
            ],
            false => [
                &service::TRIPPED_KEY,
                &service::RELEASE_KEY,
                &service::HISTORY_KEY,
            ],
        };
        let name = &keys.service;
        let places = [&mut keys.tripped, &mut keys.release, &mut keys.history];
        for ((place, setting), what) in places.into_iter().zip(settings).zip(RELEASE) {
            if section.has(setting) != given {
                continue;
            }
            let key = match given || name.is_default() {
                true => section.get(setting)?,
                false => format!("{name}:{what}"),
            };
            if given {
                self.add(&key, section, setting)?;
            } else if self.clash(&key).is_some() {
                continue;
            } else {
                self.note(&key, KeyPlace::of(section, setting));
            }
            *place = Some(key);
        }
        Ok(())
    }

    /// A key that must be no other.
    fn add(
        &mut self,
        key: &str,
        section: Section<'a>,
        setting: &Setting<String>,
    ) -> Result<(), ConfigError> {
        let Some(wrong) = self.clash(key) else {
            self.note(key, KeyPlace::of(section, setting));
            return Ok(());
        };
        let allowed = "a key of its own".to_owned();
        if section.has(setting) {
            let what = wrong;
            return Err(section.wrong(&setting.key, &WrongValue { what, allowed }));
        }
        let (name, key) = (setting.key.name, shown(key));
        let what = format!("its {name} is {key} by default, and {wrong}");
        Err(self.file.wrong_section(section.name(), &what, &allowed))
    }

    /// The keys of a service; those of what it shares are not its own, and are empty.
    fn keys_of(
        &mut self,
        service: &ServiceSettings,
        section: Section<'a>,
    ) -> Result<ServiceKeys, ConfigError> {
        let mut own = |setting: &Setting<String>, what: &str| {
            let key = match section.has(setting) {
                true => section.get(setting)?,
                false => format!("{}:{what}", service.name),
            };
            self.add(&key, section, setting)?;
            Ok(key)
        };
        let is_shared = service.gray_of.is_some();
        let (gray, salt) = match is_shared {
            true => Default::default(),
            false => (
                own(&service::GRAY_KEY, "gray")?,
                own(&service::SALT_KEY, "salt")?,
            ),
        };
        Ok(ServiceKeys {
            service: service.name.clone(),
            gray_of: service.gray_of.clone(),
            lists: ByList {
                gray,
                pre: own(&service::PRE_KEY, "pre")?,
                prod: own(&service::PROD_KEY, "prod")?,
            },
            salt,
            tripped: None,
            release: None,
            has_verdict: has_verdict(service),
            history: None,
        })
    }
}

/// Whether what is known of the release of a service is looked at.
fn has_verdict(service: &ServiceSettings) -> bool {
    service.verdict.mode != VerdictMode::Off
}
