//! The pages: each is a type that renders and parses itself, so that a member's name is in one place,
//! whether a gateway writes it or the command line reads it.

pub(crate) mod config;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod lists;
mod member;
pub(crate) mod peers;
pub(crate) mod settings;
pub(crate) mod standing;
pub(crate) mod upgrades;
pub(crate) mod verdict;

pub(crate) use self::member::{Member, Page};
