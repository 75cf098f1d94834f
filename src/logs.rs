//! Records and their writers: one thread a log, whoever logs never waits ([`writer`]), and what a line of the
//! access log says ([`access`]).

pub mod access;
pub(crate) mod foreign;
pub mod writer;
