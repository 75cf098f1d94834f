//! A release: whether the new version is worse than the old one, and taking it back; and how it is moved
//! forward and back by whoever releases it.
//!
//! The question is asked all the time, often with little traffic, and the answer may take the new version
//! out of service. So it has to be right however often one looks. `evidence` is the statistic: an exact
//! test of `pre` against `prod` within the same seconds, which may be looked at after every request;
//! `verdict` are the rules by which evidence becomes an answer, and the answer in words. Both are pure: no
//! clock, no I/O, no thread.
//!
//! `trips` is what was taken back, by whichever gateway or person, and holds it. `state` is what the store
//! says of a release beside its lists. `webhook` tells people.
//!
//! `rollout` is a release that goes from one share to the next by itself: what becomes of it; `candidacy` is
//! which gateway may carry it on; both pure. `leader` does so in a gateway.
//!
//! `change` is what a verb makes of the lists of a service, `ledger` brings that into the store whole or not
//! at all, and `history` is what it writes there about it. `scribe` has it write there, too, what somebody
//! has changed without a verb.

mod candidacy;
pub(crate) mod case;
pub(crate) mod change;
pub mod evidence;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod leader;
pub(crate) mod ledger;
mod others;
mod replaced;
pub(crate) mod rollout;
pub(crate) mod scribe;
pub(crate) mod state;
pub(crate) mod trips;
pub mod verdict;
pub(crate) mod webhook;
