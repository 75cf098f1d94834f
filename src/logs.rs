//! Records and their writers: one thread a log, whoever logs never waits ([`writer`]), and what a
//! line of the access log says ([`access`]). Events of the error log go through the `log` crate
//! ([`events`]), some a second at most (`throttle`).

pub mod access;
pub mod events;
mod foreign;
pub(crate) mod throttle;
pub mod writer;
