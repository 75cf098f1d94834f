//! From evidence to an answer: the rules, and what is needed yet. Pure.
//!
//! In this order:
//!
//! - **Incident**: both pools fail far more than usual (`usual`). Nothing is concluded, nothing advances.
//!   That is also said, instead of nothing or good enough, where both fail in plain sight: more than a fifth
//!   of `prod`, and more of `pre` than one would put up with. What is usual need not be known for that, which
//!   takes 500 units of `prod`, and a traffic by which they come.
//! - **Worse**: M ≥ 1/α, bad units of at least three clients, and a difference of the rates that
//!   matters to anybody (0.2 points).
//! - **Suspect**: M ≥ 20, or M ≥ 1/α where something else is missing.
//! - **Good enough**: E ≥ 20, or not one bad unit in so many that a rate of `tolerate` would have shown
//!   itself (the rule of three: 3/`tolerate` units).
//!
//! Where nobody is left on `prod`, there is nothing to compare with: then what fails in plain sight is
//! suspect (`alone`).
//!
//! # Few clients
//!
//! What is assigned to a pool are clients. Two testers behind one address are one client, whose broken app is
//! no release that is worse. So where `pre` had fewer than five clients in the last hour, the margin is
//! at least 2, and M alone makes it no more than suspect. What trips then is a *blunt* case: besides M ≥ 1/α,
//! more than a fifth of at least 20 units of `pre` are bad, while `prod` has less than a quarter of that
//! share; and the bad units are those of three clients, or of all that there are. As many bad ones as one
//! client can have (ten count) are left aside, where there are others: the rest has to be plain, too.
//!
//! Bluntness without M would not do, however plain it looks: where a tenth of all requests fails in either
//! version, 43 of 1000 releases have 5 bad ones among their first 20 units. With many clients, on the other
//! hand, M takes no longer than a blunt case.
//!
//! Nobody can tell a version from the few clients that it has, where most of them always fail. So how seldom
//! a verdict is wrong is promised for five clients of `pre` and more, and the answer says when there are few.

mod alone;
mod foresight;
mod judged;
mod rules;
mod sentence;
mod usual;

pub(crate) use foresight::Unseen;
pub use judged::{Judged, judge};
pub use rules::{Facts, Ground, Lately, PerSecond, Rules, Verdict};
pub use usual::Usual;

#[cfg(test)]
mod tests;
