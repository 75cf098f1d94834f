//! The salts of the services' shares.
//!
//! A salt is a key with a text, and decides whom a share of clients has. It is read in the transaction of
//! the lists, so that a release that sets it and pushes its share comes into force whole. But it is asked
//! for only where the gray list has a share: whoever has none needs no key, and no right, more than before.
//! A salt that a cluster has elsewhere is read just after the lists, on a connection of its own.
//!
//! While a salt cannot be read, the setting counts, as it does where there is no such key. One of a wrong
//! type is a slip: then the last one that was read stays. And whoever is in a share that is in force stays in
//! it, whatever becomes of the key, where nobody has asked for that:
//! - while lists are not taken, for what the server is (it has lost its data), a salt is not taken either;
//! - while the list that Redis has is without shares, and is held or kept back, the one in force keeps its
//!   salt: a key that belongs to the other list says nothing of this one.
//!
//! A salt that was evicted is followed as a removal, as a list is, and said to be (`doubts`).

use std::collections::{BTreeSet, HashMap};

use memchr::memmem;
use redis::{RedisError, RedisResult, Value};

use super::cluster;
use super::keyring::{KeyOf, Keyring};
use super::keys::slot;
use super::link::Link;
use super::rights::{Rights, tell_salt};
use crate::config;

/// The longest salt, in bytes.
const LONGEST: usize = 1024;

/// What an entry of a gray list has that is, or may be, a share.
const SHARE: &[u8] = b"percent:";

/// What a server says of a salt.
#[derive(Clone, Debug, Hash)]
pub(crate) enum SaltReply {
    /// The text, if there is the key.
    Text(Option<Vec<u8>>),
    /// It is no string.
    WrongType,
}

impl SaltReply {
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

/// What is known of the salts.
#[derive(Default)]
pub(crate) struct Salts {
    /// The services whose gray list has a share.
    wanted: BTreeSet<usize>,
    /// Those whose salt is in another slot of a cluster than their lists.
    elsewhere: BTreeSet<usize>,
    /// Those whose salt was said to be too long.
    told: BTreeSet<usize>,
    /// What was read last.
    last: HashMap<usize, Vec<u8>>,
    /// A connection to the server of a cluster that has one, if that is not the one with the lists.
    aside: Option<Link>,
}

impl Salts {
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
        let is_asked = self.wanted.contains(&service) && !self.elsewhere.contains(&service);
        is_asked.then(|| KeyOf::salt(service))
    }

    /// The services whose salts are read.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = usize> {
        self.wanted.iter().copied()
    }

    /// Whether the server's refusal of a salt says that the key is elsewhere in a cluster: then it is asked
    /// for there from now on.
    pub(crate) fn is_elsewhere(&mut self, service: usize, error: &RedisError) -> bool {
        let codes = ["MOVED", "ASK", "TRYAGAIN", "CROSSSLOT", "CLUSTERDOWN"];
        let is_elsewhere = error.code().is_some_and(|it| codes.contains(&it));
        if is_elsewhere {
            self.elsewhere.insert(service);
        }
        is_elsewhere
    }

    /// A cluster does not read these keys in one transaction: true if that may be for the salts among them,
    /// which are read elsewhere from now on.
    pub(crate) fn are_across(&mut self, keys: &[KeyOf], keyring: &Keyring) -> bool {
        let before = self.elsewhere.len();
        for key in keys.iter().filter(|it| **it == KeyOf::salt(it.service)) {
            if slot(keyring.key(*key).as_bytes()) != keyring.slot(key.service) {
                self.elsewhere.insert(key.service);
            }
        }
        self.elsewhere.len() > before
    }

    /// Another server may have them together.
    pub(crate) fn meet(&mut self) {
        self.elsewhere.clear();
        self.aside = None;
    }

    /// Reads those of these `services` that are not with their lists.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) fn read_elsewhere(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        (keyring, services): (&Keyring, &[usize]),
        rights: &mut Rights,
    ) -> RedisResult<HashMap<usize, SaltReply>> {
        let mut found = HashMap::new();
        for service in services {
            let of = KeyOf::salt(*service);
            let is_elsewhere = self.wanted.contains(service) && self.elsewhere.contains(service);
            if !is_elsewhere || !rights.allow(of) {
                continue;
            }
            let get = |link: &mut Link| match link.ask(redis::cmd("GET").arg(keyring.key(of)))? {
                Value::Nil => Ok(None),
                text => Ok(Some(redis::from_redis_value(text)?)),
            };
            let reply = cluster::follow_aside(reader, &mut self.aside, settings, get);
            match SaltReply::of(reply) {
                Ok(reply) => {
                    rights.read(&[of]);
                    found.insert(*service, reply);
                }
                Err(error) if error.code().is_some() => rights.refused(of, keyring, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What counts as the salt of a service after this `reply`; none where there was no answer.
    pub(crate) fn take(
        &mut self,
        service: usize,
        reply: Option<SaltReply>,
        keyring: &Keyring,
    ) -> Option<Vec<u8>> {
        let salt = match reply {
            Some(SaltReply::WrongType) => return self.last.get(&service).cloned(),
            Some(SaltReply::Text(Some(text))) => trimmed(text),
            Some(SaltReply::Text(None)) | None => None,
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
