//! Which of the keys the server allows to read.
//!
//! One refused command makes the whole transaction fail. Since each list is judged by itself, a list
//! whose key is forbidden is left out of the transactions that follow, until it is tried again; and so is
//! a salt. Each refusal is logged once, in the server's words.

use std::collections::HashSet;

use redis::RedisError;

use super::errors::describe;
use super::keyring::{KeyOf, KeyPart, Keyring};

/// What was refused, and what was logged about it.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    forbidden: HashSet<KeyOf>,
    told: HashSet<KeyOf>,
}

impl Rights {
    /// Whether to ask for it.
    pub(crate) fn allow(&self, key: KeyOf) -> bool {
        !self.forbidden.contains(&key)
    }

    /// The server does not allow to read a key.
    pub(crate) fn refused(&mut self, of: KeyOf, keyring: &Keyring, error: &RedisError) {
        self.forbidden.insert(of);
        if !self.told.insert(of) {
            return;
        }
        let (key, error) = (keyring.key(of), describe(error));
        match of.part {
            KeyPart::List(_) => {
                let fields = keyring.fields(of);
                log::error!("key-refused {fields} key={key:?} error={error:?}");
            }
            KeyPart::Salt => tell_salt(of, keyring, &error),
        }
    }

    /// These keys, which were asked for, were read.
    pub(crate) fn read(&mut self, keys: &[KeyOf]) {
        for key in keys {
            self.told.remove(key);
        }
    }

    /// From now on each key is asked for again.
    pub(crate) fn try_again(&mut self) {
        self.forbidden.clear();
    }
}

/// Logs that a salt does not count.
pub(crate) fn tell_salt(of: KeyOf, keyring: &Keyring, error: &str) {
    let (key, service) = (keyring.key(of), keyring.service_field(of.service));
    log::warn!("salt-refused key={key:?}{service} error={error:?} instead=\"the setting salt\"");
}
