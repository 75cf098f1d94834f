//! The command line: one file a command.
//!
//! Commands about a running gateway ask it by its admin socket, or over TCP (`admin_client`); the others
//! read the ini file and check for themselves. Each returns the text to print, or one line that says why it
//! failed.
//! Arguments and exit codes are in `main.rs`.

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
pub mod upgrade;
