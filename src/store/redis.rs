//! The lists in Redis: three keys, read in one transaction, watched by events or tracking (`watcher`).
//!
//! Two connections (`link`) to one and the same server, also where a name means several (`place`), or a
//! cluster has many (`cluster`); the heartbeat has another one of its own.

mod accept_key;
mod changes;
pub(crate) mod cluster;
pub(crate) mod errors;
mod keys;
pub(crate) mod link;
mod open_slot;
mod pace;
mod password;
pub(crate) mod place;
mod proxies;
pub(crate) mod reading;
mod reply;
mod rights;
mod standing;
mod tls;
mod types;
mod watcher;

pub use self::keys::are_apart;
pub use self::types::WrongTypes;
pub use self::watcher::{Once, check_files, read, start};
