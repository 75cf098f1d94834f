//! Which of the keys the server allows to read.
//!
//! One refused command makes the whole transaction fail. Since each list is judged by itself, a list
//! whose key is forbidden is left out of the transactions that follow, until it is tried again; and so is
//! a salt, or what is known of a release. Each refusal is logged once, in the server's words.
//!
//! In the same way a list is left out that is so long that an answer with it is longer than `max_reply`,
//! where there are several services: the others are none of its business.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::RedisError;

use super::errors::describe;
use super::keyring::{KeyOf, KeyPart, Keyring};
use crate::store::Fault;

/// Lists that are too long are read again with the next check, and after this time at the latest: that
/// they were shortened is not announced meanwhile.
pub(crate) const MOST_UNTRIED: Duration = Duration::from_secs(60);

/// What was refused, and what was logged about it; and what is too long.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    forbidden: HashSet<KeyOf>,
    told: HashSet<KeyOf>,
    /// Lists that are too long, and when they are asked for again.
    lengthy: HashMap<KeyOf, Instant>,
    /// One of them was found since that was last asked.
    has_left_out: bool,
}

impl Rights {
    /// Whether to ask for it.
    pub(crate) fn allow(&self, key: KeyOf) -> bool {
        let waits = |it: &Instant| Instant::now() < *it;
        !self.forbidden.contains(&key) && !self.lengthy.get(&key).is_some_and(waits)
    }

    /// Why a list is not asked for.
    pub(crate) fn fault(&self, list: KeyOf) -> Fault {
        match self.lengthy.contains_key(&list) {
            true => Fault::TooLong,
            false => Fault::Forbidden,
        }
    }

    /// From now on, until the next check, this list is not asked for: it is too long.
    pub(crate) fn leave_out(&mut self, list: KeyOf, check_interval: Duration) {
        let again = Instant::now() + check_interval.min(MOST_UNTRIED);
        self.lengthy.insert(list, again);
        self.has_left_out = true;
    }

    /// Whether a list was left out since this was last asked: then the others can be read at once.
    pub(crate) fn take_left_out(&mut self) -> bool {
        std::mem::take(&mut self.has_left_out)
    }

    /// When a list that is too long is asked for again.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.lengthy.values().min().copied()
    }

    /// The server does not allow to read a key.
    pub(crate) fn refused(&mut self, of: KeyOf, keyring: &Keyring, error: &RedisError) {
        self.forbidden.insert(of);
        self.lengthy.remove(&of);
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
            KeyPart::Tripped | KeyPart::Release => tell_release(of, keyring, &error),
        }
    }

    /// These keys, which were asked for, were read.
    pub(crate) fn read(&mut self, keys: &[KeyOf]) {
        for key in keys {
            self.told.remove(key);
            self.lengthy.remove(key);
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

/// Logs that what a key says of the release of a service does not count.
pub(crate) fn tell_release(of: KeyOf, keyring: &Keyring, error: &str) {
    let (key, fields) = (keyring.key(of), keyring.fields(of));
    log::warn!("release-refused {fields} key={key:?} error={error:?}");
}
