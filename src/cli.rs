//! The command line: one file a command.
//!
//! Commands about a running gateway ask it by its admin socket, or over TCP (`admin_client`); the others
//! read the ini file and check for themselves. Each returns the text to print, or one line that says why it
//! failed.
//! `arguments` is what can be written there, `dispatch` does it; `exit` has the exit codes.

pub mod accept;
pub(crate) mod admin_client;
mod arguments;
pub mod check;
pub mod demo;
mod dispatch;
mod exit;
pub mod explain;
pub mod fleet;
pub mod lists;
pub mod lists_check;
mod manual;
pub mod peers;
pub mod reload;
pub mod status;
mod table;
pub mod upgrade;

pub use self::arguments::command;
pub use self::dispatch::main;
pub use self::exit::Exit;
