//! The command line: one file a command.
//!
//! Commands that concern a running gateway ask its admin listener (`admin_client`); the others read the
//! ini file and look for themselves. Each returns the text to print, or one line that says why it could not
//! be done; arguments and exit codes are `main.rs`'s.

pub mod accept;
pub(crate) mod admin_client;
pub mod check;
pub mod demo;
pub mod explain;
pub mod fleet;
pub mod lists;
pub mod lists_check;
pub mod peers;
pub mod reload;
pub mod status;
mod table;
