//! A release: whether the new version is worse than the old one, and what follows from it.
//!
//! The question is asked all the time, often with little traffic, and the answer may take the new version
//! out of service. So it has to be right however often one looks. `evidence` is the statistic: an exact
//! test of `pre` against `prod` within the same seconds, which may be looked at after every request;
//! `verdict` are the rules by which evidence becomes an answer, and the answer in words. Both are pure: no
//! clock, no I/O, no thread.
//!
//! `trips` is what was taken back, by whichever gateway or person, and holds it. `state` is what the store
//! says of a release beside its lists, and `reset` begins that anew.

pub(crate) mod case;
pub(crate) mod evidence;
pub(crate) mod judge;
mod others;
pub(crate) mod reset;
pub(crate) mod state;
pub(crate) mod trips;
pub(crate) mod verdict;
