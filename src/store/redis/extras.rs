//! What of a service is read beside its lists: the salt of its shares, and what is known of its release. None
//! of it ever disturbs the lists: what may not be read, is of a wrong type, or in another slot of a cluster,
//! is left out, and that is said once.
//!
//! All of it is read in the transaction of the lists, so that a release that sets a salt and pushes its share
//! comes into force whole. What a cluster has elsewhere is read just after the lists, on a connection of its
//! own.
//!
//! A salt is a key with a text, and decides whom a share of clients has. It is asked for only where the gray
//! list has a share: whoever has none needs no key, and no right, more than before. While a salt cannot be
//! read, the setting counts, as it does where there is no such key. One of a wrong type is a slip: then the
//! last one that was read stays. And whoever is in a share that is in force stays in it, whatever becomes of
//! the key, where nobody has asked for that:
//! - while lists are not taken, for what the server is (it has lost its data), a salt is not taken either;
//! - while the list that Redis has is without shares, and is held or kept back, the one in force keeps its
//!   salt: a key that belongs to the other list says nothing of this one.
//!
//! A salt that was evicted is followed as a removal, as a list is, and said to be (`doubts`).
//!
//! What is known of a release (`tripped`, `release`) is asked for where the service has a verdict. It is
//! asked for ahead of the lists: so it is found without a look through these, which may be long.

use std::collections::{BTreeSet, HashMap, HashSet};

use memchr::memmem;
use redis::{RedisError, RedisResult, Value};

use super::cluster;
use super::keyring::{KeyOf, KeyPart, Keyring};
use super::keys::slot;
use super::link::Link;
use super::rights::{Rights, tell_release, tell_salt};
use crate::config;
use crate::store::StoredText;
use crate::store::reading::{LONGEST_TEXT, NO_STATE, is_state};

/// The longest salt, in bytes.
const LONGEST: usize = 1024;

/// What an entry of a gray list has that is, or may be, a share.
const SHARE: &[u8] = b"percent:";

/// What a server says of such a key.
#[derive(Clone, Debug, Hash)]
pub(crate) enum ExtraReply {
    /// The text, if there is the key.
    Text(Option<Vec<u8>>),
    /// It is no string.
    WrongType,
}

impl ExtraReply {
    /// From the reply to GET.
    ///
    /// # Errors
    /// The reply, if it is an error, and no wrong type.
    pub(crate) fn of(reply: RedisResult<Option<Vec<u8>>>) -> RedisResult<Self> {
        match reply {
            Ok(text) => Ok(Self::Text(text)),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Self::WrongType),
            Err(error) => Err(error),
        }
    }

    /// There is the key.
    pub(crate) const fn is_there(&self) -> bool {
        !matches!(self, Self::Text(None))
    }
}

/// What is known of them.
#[derive(Default)]
pub(crate) struct Extras {
    /// The services whose gray list has a share.
    wanted: BTreeSet<usize>,
    /// What is in another slot of a cluster than the lists of its service.
    elsewhere: HashSet<KeyOf>,
    /// Those whose salt was said to be too long.
    told: BTreeSet<usize>,
    /// What of a release was said to be no text.
    told_wrong: HashSet<KeyOf>,
    /// What was read last.
    last: HashMap<usize, Vec<u8>>,
    /// A connection to the server of a cluster that has one, if that is not the one with the lists.
    aside: Option<Link>,
}

impl Extras {
    /// Looks for shares in the lists of services, as they were received; true if there are new ones, so
    /// that their salts are yet to be read.
    pub(crate) fn are_missing<'a>(
        &mut self,
        lists: impl Iterator<Item = (usize, &'a [u8])>,
        keyring: &Keyring,
    ) -> bool {
        let mut are_missing = false;
        for (service, bytes) in lists.filter(|(it, _)| keyring.has_gray(*it)) {
            match memmem::find(bytes, SHARE) {
                Some(_) => are_missing |= self.wanted.insert(service),
                None => drop(self.wanted.remove(&service)),
            }
        }
        are_missing
    }

    /// The key to ask for together with the lists of a service, if there is one.
    pub(crate) fn with_lists(&self, service: usize) -> Option<KeyOf> {
        let salt = self.wanted.contains(&service).then(|| KeyOf::salt(service));
        salt.filter(|it| !self.elsewhere.contains(it))
    }

    /// The keys to ask for ahead of the lists of a service.
    pub(crate) fn ahead(&self, service: usize, keyring: &Keyring) -> impl Iterator<Item = KeyOf> {
        let keys = keyring.of_release(service);
        keys.filter(|it| !self.elsewhere.contains(it))
    }

    /// All that is read of these services beside their lists.
    fn of_services(&self, services: &[usize], keyring: &Keyring) -> Vec<KeyOf> {
        let of = |service: &usize| {
            let salt = self.wanted.contains(service).then(|| KeyOf::salt(*service));
            keyring.of_release(*service).chain(salt)
        };
        services.iter().flat_map(of).collect()
    }

    /// The services whose salts are read.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = usize> {
        self.wanted.iter().copied()
    }

    /// Whether the server's refusal says that a key is elsewhere in a cluster: then it is asked for there
    /// from now on.
    pub(crate) fn is_elsewhere(&mut self, of: KeyOf, error: &RedisError) -> bool {
        let codes = ["MOVED", "ASK", "TRYAGAIN", "CROSSSLOT", "CLUSTERDOWN"];
        let is_elsewhere = error.code().is_some_and(|it| codes.contains(&it));
        if is_elsewhere {
            self.elsewhere.insert(of);
        }
        is_elsewhere
    }

    /// A cluster does not read these keys in one transaction: true if that may be for those among them that
    /// are no lists, and which are read elsewhere from now on.
    pub(crate) fn are_across(&mut self, keys: &[KeyOf], keyring: &Keyring) -> bool {
        let before = self.elsewhere.len();
        for key in keys.iter().filter(|it| !it.part.is_list()) {
            if slot(keyring.key(*key).as_bytes()) != keyring.slot(key.service) {
                self.elsewhere.insert(*key);
            }
        }
        self.elsewhere.len() > before
    }

    /// All of it may be read together with the lists.
    pub(crate) fn are_together(&self) -> bool {
        self.elsewhere.is_empty()
    }

    /// Another server may have them together.
    pub(crate) fn meet(&mut self) {
        self.elsewhere.clear();
        self.aside = None;
    }

    /// Reads what of these `services` is not with their lists.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) fn read_elsewhere(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        (keyring, services): (&Keyring, &[usize]),
        rights: &mut Rights,
    ) -> RedisResult<HashMap<KeyOf, ExtraReply>> {
        let mut found = HashMap::new();
        // As a rule there is nothing.
        if self.elsewhere.is_empty() {
            return Ok(found);
        }
        for of in self.of_services(services, keyring) {
            if !self.elsewhere.contains(&of) || !rights.allow(of) {
                continue;
            }
            let get = |link: &mut Link| match link.ask(redis::cmd("GET").arg(keyring.key(of)))? {
                Value::Nil => Ok(None),
                text => Ok(Some(redis::from_redis_value(text)?)),
            };
            let reply = cluster::follow_aside(reader, &mut self.aside, settings, get);
            match ExtraReply::of(reply) {
                Ok(reply) => {
                    rights.read(&[of]);
                    found.insert(of, reply);
                }
                Err(error) if error.code().is_some() => rights.refused(of, keyring, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The text that a key has after this `reply`; none where there was no answer.
    pub(crate) fn text(
        &mut self,
        of: KeyOf,
        reply: Option<ExtraReply>,
        keyring: &Keyring,
    ) -> StoredText {
        let error = match reply {
            None => return StoredText::Unknown,
            Some(ExtraReply::WrongType) => "it is no string",
            Some(ExtraReply::Text(Some(text))) if text.len() > LONGEST_TEXT => {
                "it is longer than 64 KiB"
            }
            Some(ExtraReply::Text(Some(text)))
                if of.part == KeyPart::Release && !is_state(&text) =>
            {
                NO_STATE
            }
            Some(ExtraReply::Text(text)) => {
                self.told_wrong.remove(&of);
                return text.map_or(StoredText::Absent, StoredText::Text);
            }
        };
        if self.told_wrong.insert(of) {
            tell_release(of, keyring, error);
        }
        StoredText::Unknown
    }

    /// What counts as the salt of a service after this `reply`; none where there was no answer.
    pub(crate) fn take(
        &mut self,
        service: usize,
        reply: Option<ExtraReply>,
        keyring: &Keyring,
    ) -> Option<Vec<u8>> {
        let salt = match reply {
            Some(ExtraReply::WrongType) => return self.last.get(&service).cloned(),
            Some(ExtraReply::Text(Some(text))) => trimmed(text),
            Some(ExtraReply::Text(None)) | None => None,
        };
        match salt {
            Some(salt) if salt.len() > LONGEST => {
                if self.told.insert(service) {
                    let error = "it is longer than 1024 bytes";
                    tell_salt(KeyOf::salt(service), keyring, error);
                }
                self.last.remove(&service);
                None
            }
            Some(salt) => {
                self.told.remove(&service);
                self.last.insert(service, salt.clone());
                Some(salt)
            }
            None => {
                self.last.remove(&service);
                None
            }
        }
    }
}

/// A text without the line's end that an editor or `echo` has left.
fn trimmed(mut text: Vec<u8>) -> Option<Vec<u8>> {
    if text.ends_with(b"\n") {
        text.pop();
        if text.ends_with(b"\r") {
            text.pop();
        }
    }
    Some(text)
}
