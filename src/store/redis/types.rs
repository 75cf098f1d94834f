//! Keys that have a wrong type, and which: a list is a list or a set, a salt is a string.
//!
//! The server only says that a key has the wrong type. The type is asked for (TYPE) when this is first
//! found, and left out if the server does not allow the question.

use redis::RedisResult;

use super::keyring::{KeyOf, KeyPart, Keyring};
use super::link::Link;

/// The keys that have a wrong type, each with what is said of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WrongTypes(Vec<(KeyOf, String)>);

impl WrongTypes {
    /// What is said of a key that has a wrong type.
    pub(crate) fn of_key(&self, key: KeyOf) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(it, _)| *it == key).map(|(_, text)| &**text)
    }

    /// Adds those that were found with another keyring.
    pub(crate) fn add(&mut self, others: Self, from: &Keyring, to: &Keyring) {
        for (of, text) in others.0 {
            if let Some(service) = to.place(&from.services()[of.service].service) {
                self.0.push((KeyOf { service, ..of }, text));
            }
        }
    }

    /// Takes note of a reading of these `services`, whose `wrong` keys have a wrong type, and logs what is
    /// new.
    ///
    /// # Errors
    /// When the server says nothing.
    pub(crate) fn tell(
        &mut self,
        link: &mut Link,
        keyring: &Keyring,
        services: &[usize],
        wrong: &[KeyOf],
    ) -> RedisResult<()> {
        let before = self.0.clone();
        self.ask(link, keyring, services, wrong)?;
        for (key, text) in self.0.iter().filter(|it| !before.contains(it)) {
            let fields = keyring.fields(*key);
            log::error!("key-wrong-type {fields} reason={text:?}");
        }
        Ok(())
    }

    /// Asks for the types of the `wrong` keys of these `services`.
    ///
    /// # Errors
    /// When the server says nothing.
    pub(crate) fn ask(
        &mut self,
        link: &mut Link,
        keyring: &Keyring,
        services: &[usize],
        wrong: &[KeyOf],
    ) -> RedisResult<()> {
        if !self.0.is_empty() {
            self.0.retain(|(it, _)| !services.contains(&it.service));
        }
        for of in wrong {
            let name = keyring.key(*of);
            let kind = match link.ask(redis::cmd("TYPE").arg(name)) {
                Ok(kind) => redis::from_redis_value(kind).unwrap_or_default(),
                // The server does not allow or know the command, or does not have the key.
                Err(error) if error.code().is_some() => String::new(),
                Err(error) => return Err(error),
            };
            self.0.push((*of, said_of(of.part, name, &kind)));
        }
        Ok(())
    }
}

/// What is said of a key of this `kind`, which may have become another one meanwhile.
fn said_of(part: KeyPart, name: &str, kind: &str) -> String {
    match (part, kind) {
        (KeyPart::List(_), "" | "none" | "list" | "set") => {
            format!("the key {name:?} is neither a list nor a set")
        }
        (KeyPart::List(_), kind) => {
            format!("the key {name:?} is a {kind}; it must be a list or a set")
        }
        (_, "" | "none" | "string") => format!("the key {name:?} is no string"),
        (_, kind) => format!("the key {name:?} is a {kind}; it must be a string"),
    }
}
