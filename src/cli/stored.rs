//! The lists of all services as they are in the store at this moment, whatever a gateway does with them.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ServiceSettings, Store, VerdictMode};
use crate::lists::{ByList, GrayList, ListName, Lists, PeerList, Salt, ServiceName, SharedLists};
use crate::release::state::Trip;
use crate::store::file::text_beside;
use crate::store::redis::{self, KeyOf, Keyring, WrongTypes};
use crate::store::{Fault, Reading, ReleaseReading, ServiceReading, StoredText, format};

/// What the store says of a service.
pub(super) struct StoredReading {
    pub(super) reading: ServiceReading,
    /// What there is to say of keys that cannot be read.
    why: ByList<Option<String>>,
    /// The same of the key of its salt, without which its shares have that of the settings.
    pub(super) why_no_salt: Option<String>,
}

/// The lists of a service, in the store.
pub(super) struct StoredLists {
    pub(super) service: ServiceName,
    /// The service whose gray list it has.
    pub(super) gray_of: Option<ServiceName>,
    /// As a gateway would read them; or which of them cannot be read, and why.
    pub(super) lists: Result<Lists, String>,
    /// What the store says of its release.
    release: Option<ReleaseReading>,
}

impl StoredLists {
    /// Whether a gateway takes its new version to be taken back.
    pub(super) fn is_tripped(&self) -> bool {
        let text = self.release.as_ref().map(|it| &it.tripped);
        let (Some(StoredText::Text(text)), Ok(lists)) = (text, &self.lists) else {
            return false;
        };
        // What does not say of which version it is, is of this one.
        Trip::parse(text).is_none_or(|it| it.version() == lists.version)
    }
}

impl StoredReading {
    /// What a file says.
    pub(super) fn of_file(reading: ServiceReading) -> Self {
        Self {
            reading,
            why: ByList::default(),
            why_no_salt: None,
        }
    }

    /// Why a list cannot be read.
    pub(super) fn in_words(&self, list: ListName, fault: Fault) -> String {
        let title = format::title(&self.reading.service, list.name());
        match &self.why[list] {
            Some(what) => format!("{title}: {}: {what}", fault.name()),
            None => format!("{title}: {}", fault.name()),
        }
    }
}

/// What the configured store has of each service, the default one's first, then in the order of their names,
/// as a gateway shows them.
///
/// # Errors
/// One line: why it cannot be read.
pub(super) fn readings(config: &Config) -> Result<Vec<StoredReading>, String> {
    let mut all: Vec<StoredReading> = match &config.store {
        Store::File(path) => {
            let all = of_file(path, |text| format::parse_services(text, &config.services))?;
            let with_release = |it| StoredReading::of_file(with_release(it, path, config));
            all.into_iter().map(with_release).collect()
        }
        Store::Redis(settings) => {
            let once = redis::read(settings);
            let once = once.map_err(|error| format!("{}: {error}", settings.url))?;
            let keyring = Keyring::new(settings.services.clone());
            let all = once.readings.into_iter();
            all.map(|it| of_redis(it, &keyring, &once.types)).collect()
        }
    };
    let name = |it: &StoredReading| it.reading.service.clone();
    all.sort_by_key(|it| (!name(it).is_default(), name(it)));
    Ok(all)
}

/// What a file says, with what is said of the release beside it, where a gateway looks at that.
fn with_release(mut reading: ServiceReading, lists: &Path, config: &Config) -> ServiceReading {
    let settings = config.services.iter();
    let mut settings = settings.filter(|it| it.name == reading.service);
    if settings.any(|it| it.verdict.mode != VerdictMode::Off) {
        reading.release = Some(ReleaseReading {
            tripped: text_beside(lists, &reading.service, "tripped"),
            ..ReleaseReading::default()
        });
    }
    reading
}

fn of_redis(reading: ServiceReading, keyring: &Keyring, types: &WrongTypes) -> StoredReading {
    let place = keyring.place(&reading.service);
    let why = |key: KeyOf| types.of_key(key).map(str::to_owned);
    StoredReading {
        why: ByList::from_fn(|list| why(KeyOf::list(place?, list))),
        why_no_salt: place.and_then(|it| why(KeyOf::salt(it))),
        reading,
    }
}

/// What a file says, with its path in front of an error.
pub(super) fn of_file(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<Vec<ServiceReading>, format::FileError>,
) -> Result<Vec<ServiceReading>, String> {
    let outcome = format::read(path).and_then(|text| parse(&text));
    outcome.map_err(|error| format!("{}: {error}", path.display()))
}

/// The lists of each service, in the same order.
///
/// # Errors
/// One line: why the store cannot be read.
pub(super) fn all(config: &Config) -> Result<Vec<StoredLists>, String> {
    let readings = readings(config)?;
    let read = readings.into_iter().filter_map(|it| {
        let of_it = |settings: &&Arc<ServiceSettings>| settings.name == it.reading.service;
        Some((config.services.iter().find(of_it)?, it))
    });
    let mut all: Vec<StoredLists> = read.map(|(settings, it)| parsed(settings, it)).collect();
    for at in 0..all.len() {
        let Some(owner) = &all[at].gray_of else {
            continue;
        };
        let owner = all.iter().find(|it| it.service == *owner);
        let gray = match owner.map(|it| &it.lists) {
            Some(Ok(lists)) => Ok(Arc::clone(&lists.gray)),
            Some(Err(what)) => Err(what.clone()),
            None => continue,
        };
        let lists = &mut all[at].lists;
        if let Ok(own) = &*lists {
            *lists = gray.map(|gray| {
                let shared = SharedLists {
                    gray,
                    ..own.shared()
                };
                Lists::new(1, shared)
            });
        }
    }
    Ok(all)
}

fn parsed(settings: &ServiceSettings, stored: StoredReading) -> StoredLists {
    let fault = stored.reading.lists.iter().find_map(|(list, it)| {
        let fault = *it.as_ref().err()?;
        Some(stored.in_words(list, fault))
    });
    let StoredReading { mut reading, .. } = stored;
    let release = reading.release.take();
    let lists = match fault {
        Some(what) => Err(what),
        None => {
            let salt = reading.salt.as_deref();
            let salt = Salt::new(salt.unwrap_or(settings.salt.as_bytes()));
            Ok(lists_of(reading.lists, salt, settings.upstream.peer_port))
        }
    };
    StoredLists {
        service: reading.service,
        gray_of: settings.gray_of.clone(),
        lists,
        release,
    }
}

/// The lists of a reading; those that cannot be read are empty.
pub(super) fn lists_of(reading: Reading, salt: Salt, peer_port: u16) -> Lists {
    let entries = reading.map(Result::unwrap_or_default);
    let gray = |texts| Arc::new(GrayList::parse(texts).with_salt(salt));
    let peers = |texts| Arc::new(PeerList::parse(texts, peer_port));
    Lists::new(1, entries.as_ref().map_each(gray, peers))
}
