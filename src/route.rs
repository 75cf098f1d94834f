//! The decision: who is served by whom ([`decide`](fn@decide)), and the same with its reasons, for
//! people ([`explain`]). Before it, which service a request belongs to ([`ServiceTable`]).

mod decide;
pub mod explain;
mod services;
mod wish;

pub(crate) use self::decide::grant;
pub use self::decide::{DecidingEntry, Decision, PoolStanding, Reason, Service, decide};
pub use self::services::{ServiceTable, UnknownService};
pub(crate) use self::wish::wish;
