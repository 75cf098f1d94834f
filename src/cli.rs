//! The command line: one file a command.
//!
//! Commands about a running gateway ask it by its admin socket, or over TCP (`admin_client`); the others
//! read the ini file and check for themselves. Each returns a `report`: what to print, as text and
//! as JSON; or one line that says why it failed.
//! `arguments` is what can be written there, `dispatch` does it; `exit` has the exit codes.

mod accept;
mod admin_client;
mod arguments;
mod asked;
mod check;
mod config;
mod confirmation;
mod curl;
mod demo;
mod dispatch;
mod exit;
mod explain;
mod fleet;
mod fleet_wait;
mod history;
mod lists;
mod lists_check;
mod lists_diff;
mod manual;
mod notify;
mod peers;
mod promote;
mod reload;
mod report;
mod rollout;
mod status;
mod stored;
mod table;
mod upgrade;
mod verbs;
mod verdict;
mod waiting;

pub use self::arguments::command;
pub use self::dispatch::main;
pub use self::exit::Exit;
