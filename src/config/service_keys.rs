//! Where the lists of all services are in Redis: each key is of one list of one service, so that no push is
//! ever for two of them, and no heartbeat or answer overwrites a list.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{ConfigError, WrongValue, shown};
use super::file::{IniFile, Section};
use super::key::Setting;
use super::redis::{self, FleetSettings};
use super::service::{self, KeyPlace, ServiceKeys, ServiceSettings};
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
        }];
        let names: Vec<String> = services.iter().map(|it| it.section()).collect();
        for (service, name) in services.iter().zip(&names).skip(1) {
            all.push(book.keys_of(service, file.section(name))?);
        }
        Self::share(&mut all);
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

    /// A key that must be no other.
    fn add(
        &mut self,
        key: &str,
        section: Section<'a>,
        setting: &Setting<String>,
    ) -> Result<(), ConfigError> {
        let node = || KeyPlace::of(self.redis, &redis::NODE_KEY);
        let wrong = if let Some(other) = self.used.get(key) {
            format!("{other} has the same value")
        } else if key.starts_with(&self.fleet.key_of("")) {
            format!("it begins like the heartbeats of the nodes: {}", node())
        } else if key == self.fleet.index_key() {
            format!("it is the index of the nodes: {}", node())
        } else {
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
        })
    }
}
