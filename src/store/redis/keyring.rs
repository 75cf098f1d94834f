//! The keys of the services that are read together, and which of them is what. Pure.

use std::collections::{BTreeMap, HashMap};

use redis::Cmd;

use super::keys::{are_apart, slot};
use crate::config::{self, ServiceKeys};
use crate::lists::{ListName, ServiceName};

/// What of a service is in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyPart {
    /// One of its lists.
    List(ListName),
    /// The salt of its shares.
    Salt,
    /// That its new version was taken back.
    Tripped,
    /// The state of its release.
    Release,
}

impl KeyPart {
    /// True for a list.
    pub(crate) const fn is_list(self) -> bool {
        matches!(self, Self::List(_))
    }

    /// True for what is known of its release.
    pub(crate) const fn is_of_release(self) -> bool {
        matches!(self, Self::Tripped | Self::Release)
    }
}

/// What is in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyOf {
    /// The place of the service in the [`Keyring`].
    pub(crate) service: usize,
    /// What of it.
    pub(crate) part: KeyPart,
}

impl KeyOf {
    pub(crate) const fn list(service: usize, list: ListName) -> Self {
        let part = KeyPart::List(list);
        Self { service, part }
    }

    pub(crate) const fn salt(service: usize) -> Self {
        let part = KeyPart::Salt;
        Self { service, part }
    }

    pub(crate) const fn tripped(service: usize) -> Self {
        let part = KeyPart::Tripped;
        Self { service, part }
    }

    pub(crate) const fn release(service: usize) -> Self {
        let part = KeyPart::Release;
        Self { service, part }
    }

    /// How many commands read it.
    pub(crate) const fn count(self) -> usize {
        match self.part {
            KeyPart::List(_) => 2,
            KeyPart::Salt | KeyPart::Tripped | KeyPart::Release => 1,
        }
    }

    /// The commands by which it is read. A list is asked for as a list and as a set: the wrong one of the two
    /// is an error of that command only, and costs the server nothing.
    pub(crate) fn commands(self, key: &str) -> Vec<Cmd> {
        match self.part {
            KeyPart::List(_) => {
                let (mut as_list, mut as_set) = (redis::cmd("LRANGE"), redis::cmd("SMEMBERS"));
                as_list.arg(key).arg(0).arg(-1);
                as_set.arg(key);
                vec![as_list, as_set]
            }
            KeyPart::Salt | KeyPart::Tripped | KeyPart::Release => {
                let mut get = redis::cmd("GET");
                get.arg(key);
                vec![get]
            }
        }
    }
}

/// The keys of some services, each known by its place.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    services: Vec<ServiceKeys>,
    places: HashMap<ServiceName, usize>,
}

impl Keyring {
    pub(crate) fn new(services: Vec<ServiceKeys>) -> Self {
        let places = services.iter().enumerate();
        let places = places.map(|(at, it)| (it.service.clone(), at));
        Self {
            places: places.collect(),
            services,
        }
    }

    /// The places of all services.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.services.len()).collect()
    }

    /// How many services there are.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn services(&self) -> &[ServiceKeys] {
        &self.services
    }

    pub(crate) fn place(&self, service: &ServiceName) -> Option<usize> {
        self.places.get(service).copied()
    }

    /// The key itself.
    pub(crate) fn key(&self, of: KeyOf) -> &str {
        let keys = &self.services[of.service];
        match of.part {
            KeyPart::List(list) => &keys.lists[list],
            KeyPart::Salt => &keys.salt,
            KeyPart::Tripped => keys.tripped.as_deref().unwrap_or_default(),
            KeyPart::Release => keys.release.as_deref().unwrap_or_default(),
        }
    }

    /// What is read of the release of a service.
    pub(crate) fn of_release(&self, service: usize) -> impl Iterator<Item = KeyOf> {
        let keys = &self.services[service];
        let tripped = keys.tripped.as_ref().map(|_| KeyOf::tripped(service));
        let release = keys.release.as_ref().map(|_| KeyOf::release(service));
        let both = [tripped, release].into_iter().flatten();
        both.filter(|_| keys.has_verdict)
    }

    /// The lists of a service that are read for it: not a gray list that is another one's.
    pub(crate) fn lists(&self, service: usize) -> impl Iterator<Item = KeyOf> {
        let has_gray = self.has_gray(service);
        let lists = ListName::ALL.into_iter();
        let lists = lists.filter(move |it| has_gray || *it != ListName::Gray);
        lists.map(move |it| KeyOf::list(service, it))
    }

    /// The lists of all services that are read for them.
    pub(crate) fn all_lists(&self) -> impl Iterator<Item = KeyOf> {
        (0..self.len()).flat_map(|it| self.lists(it))
    }

    /// True unless its gray list and its salt are another one's.
    pub(crate) fn has_gray(&self, service: usize) -> bool {
        self.services[service].gray_of.is_none()
    }

    /// The keys of all that may be read, lists first.
    pub(crate) fn everything(&self) -> impl Iterator<Item = KeyOf> {
        let salts = (0..self.len()).filter(|it| self.has_gray(*it));
        let releases = (0..self.len()).flat_map(|it| self.of_release(it));
        self.all_lists()
            .chain(salts.map(KeyOf::salt))
            .chain(releases)
    }

    /// What is in a key, in words.
    pub(crate) fn words(&self, of: KeyOf) -> String {
        let service = &self.services[of.service].service;
        let what = part_name(of.part);
        match service.is_default() {
            true => what.to_owned(),
            false => format!("{what} of {service}"),
        }
    }

    /// The same as fields of a line of the log.
    pub(crate) fn fields(&self, of: KeyOf) -> String {
        let what = part_name(of.part);
        format!("list={what}{}", self.service_field(of.service))
    }

    /// The field that names a service, with a blank before it; nothing for the default one.
    pub(crate) fn service_field(&self, service: usize) -> String {
        let service = &self.services[service].service;
        match service.is_default() {
            true => String::new(),
            false => format!(" service={service}"),
        }
    }

    /// The slot of a cluster where the lists of a service are, if they are in one.
    pub(crate) fn slot(&self, service: usize) -> u16 {
        // Its own gray list may be another one's.
        slot(self.services[service].lists.pre.as_bytes())
    }

    /// True if a cluster has this key of a service in another slot than its lists.
    pub(crate) fn is_apart(&self, of: KeyOf) -> bool {
        slot(self.key(of).as_bytes()) != self.slot(of.service)
    }

    /// The names of all services.
    pub(crate) fn names(&self) -> Vec<ServiceName> {
        self.services.iter().map(|it| it.service.clone()).collect()
    }

    /// These services by the slots of a cluster that they are in.
    pub(crate) fn by_slot(&self, services: &[usize]) -> BTreeMap<u16, Vec<usize>> {
        let mut all: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for service in services {
            all.entry(self.slot(*service)).or_default().push(*service);
        }
        all
    }

    /// These services, and all that are in the same slots.
    pub(crate) fn with_their_slots(&self, services: &[usize]) -> Vec<usize> {
        let slots = self.by_slot(services);
        let mut all = self.all();
        all.retain(|it| slots.contains_key(&self.slot(*it)));
        all
    }

    /// A service whose lists are in several slots of a cluster.
    pub(crate) fn scattered(&self) -> Option<usize> {
        let slots = |at: usize| self.lists(at).map(|it| slot(self.key(it).as_bytes()));
        (0..self.len()).find(|at| slots(*at).any(|it| it != self.slot(*at)))
    }

    /// The services whose lists are meant for a cluster, as hash tags show, but are in several slots.
    pub(crate) fn apart(&self) -> Vec<usize> {
        let is_apart = |at: &usize| {
            let keys: Vec<&str> = self.lists(*at).map(|it| self.key(it)).collect();
            are_apart(&keys)
        };
        self.all().into_iter().filter(is_apart).collect()
    }
}

/// Which keys are to be read.
pub(crate) struct KeysQuery<'a> {
    pub(crate) settings: &'a config::RedisSettings,
    pub(crate) keyring: &'a Keyring,
    /// The services, in the order of their places.
    pub(crate) services: &'a [usize],
}

impl KeysQuery<'_> {
    /// True when it is about all services.
    pub(crate) fn is_about_all(&self) -> bool {
        self.services.len() == self.keyring.len()
    }
}

const fn part_name(part: KeyPart) -> &'static str {
    match part {
        KeyPart::List(list) => list.name(),
        KeyPart::Salt => "salt",
        KeyPart::Tripped => "tripped",
        KeyPart::Release => "release",
    }
}
