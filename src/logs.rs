//! The logs: writers, one thread for each log, so that whoever logs never waits ([`writer`]), a syslog
//! server as one of their targets (`syslog`), and the lines of the access log ([`access`]). Events of the
//! error log go through the `log` crate ([`events`]); frequent ones are limited in number (`throttle`).

pub mod access;
pub mod events;
mod foreign;
pub(crate) mod local_time;
pub(crate) mod syslog;
pub(crate) mod throttle;
pub mod writer;
