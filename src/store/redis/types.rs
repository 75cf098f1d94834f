//! Keys that are neither lists nor sets, and what type they have.
//!
//! The server only says that a key has the wrong type. The type is asked for (TYPE) when this is first
//! found, and left out if the server does not allow the question.

use redis::RedisResult;

use super::link::Link;
use crate::lists::{ByList, ListName};
use crate::store::{Fault, Reading};

/// The lists whose keys have a wrong type, each with what is said of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WrongTypes(Vec<(ListName, String)>);

impl WrongTypes {
    /// What is said of a list, if its key has a wrong type.
    pub(crate) fn of(&self, list: ListName) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(it, _)| *it == list).map(|(_, text)| &**text)
    }

    /// Takes note of a reading, and logs what is new.
    ///
    /// # Errors
    /// When the server says nothing.
    pub(crate) fn tell(
        &mut self,
        link: &mut Link,
        keys: &ByList<String>,
        reading: &Reading,
    ) -> RedisResult<()> {
        let before = self.0.clone();
        self.ask(link, keys, reading)?;
        for (list, text) in self.0.iter().filter(|it| !before.contains(it)) {
            let list = list.name();
            log::error!("key-wrong-type list={list} reason={text:?}");
        }
        Ok(())
    }

    /// Asks for the types of keys that are neither lists nor sets.
    ///
    /// # Errors
    /// When the server says nothing.
    pub(crate) fn ask(
        &mut self,
        link: &mut Link,
        keys: &ByList<String>,
        reading: &Reading,
    ) -> RedisResult<()> {
        self.0.clear();
        for (list, entries) in reading.iter() {
            if !matches!(entries, Err(Fault::WrongType)) {
                continue;
            }
            let name = &keys[list];
            let kind = match link.ask(redis::cmd("TYPE").arg(name)) {
                Ok(kind) => redis::from_redis_value(kind).unwrap_or_default(),
                // The server does not allow or know the command.
                Err(error) if error.code().is_some() => String::new(),
                Err(error) => return Err(error),
            };
            let text = match kind.as_str() {
                // It may have become another meanwhile.
                "" | "none" | "list" | "set" => {
                    format!("the key {name:?} is neither a list nor a set")
                }
                kind => format!("the key {name:?} is a {kind}; it must be a list or a set"),
            };
            self.0.push((list, text));
        }
        Ok(())
    }
}
