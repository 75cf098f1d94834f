//! The decision: who is served by whom ([`decide`](fn@decide)), and the same with its reasons, for
//! people ([`explain`]).

mod decide;
pub mod explain;

pub use self::decide::{Decision, PoolStanding, Reason, Service, decide};
