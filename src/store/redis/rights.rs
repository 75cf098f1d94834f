//! Which of the lists' keys the server allows to read.
//!
//! One refused command makes the whole transaction fail. Since each list is judged by itself, a list
//! whose key is forbidden is left out of the transactions that follow, until it is tried again. Each
//! refusal is logged once, in the server's words.

use redis::RedisError;

use super::errors::describe;
use crate::lists::ListName;

/// What was refused, and what was logged about it.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    forbidden: Vec<ListName>,
    told: Vec<ListName>,
}

impl Rights {
    /// The lists to ask for.
    pub(crate) fn allowed(&self) -> Vec<ListName> {
        let is_allowed = |list: &ListName| !self.forbidden.contains(list);
        ListName::ALL.into_iter().filter(is_allowed).collect()
    }

    /// The server does not allow to read `key`.
    pub(crate) fn refused(&mut self, list: ListName, key: &str, error: &RedisError) {
        if !self.forbidden.contains(&list) {
            self.forbidden.push(list);
        }
        if !self.told.contains(&list) {
            self.told.push(list);
            let (list, error) = (list.name(), describe(error));
            log::error!("key-refused list={list} key={key:?} error={error:?}");
        }
    }

    /// The lists that were asked for were read.
    pub(crate) fn read(&mut self) {
        self.told.retain(|list| self.forbidden.contains(list));
    }

    /// From now on each list is asked for again.
    pub(crate) fn try_again(&mut self) {
        self.forbidden.clear();
    }
}
