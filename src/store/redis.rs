//! The lists in Redis: three keys a service, read in one transaction, watched by events or tracking
//! (`watcher`), and what is read beside the lists (`extras`).
//!
//! There are two connections (`link`), both to the same server, even where a name resolves to several
//! (`place`); two for each server of a cluster that has lists (`cluster`, `watchers`). The heartbeat has one
//! more.

mod accept_key;
mod changes;
pub(crate) mod cluster;
pub(crate) mod errors;
mod extras;
mod info;
mod keyring;
mod keys;
mod last_change;
pub(crate) mod link;
mod once;
mod open_slot;
mod origin;
mod pace;
mod password;
pub(crate) mod place;
mod proxies;
mod reading;
pub(crate) mod reply;
mod rights;
mod standing;
mod tls;
pub(crate) mod transaction;
mod types;
mod unsettled;
mod watcher;
mod watchers;

pub(crate) use self::cluster::Division;
pub(crate) use self::keyring::{KeyOf, Keyring};
pub(crate) use self::once::check_files;
pub(crate) use self::once::read;
pub(crate) use self::types::WrongTypes;
pub(crate) use self::watcher::start;
