//! The steps of a request's way that are measured, each by itself: in time by `paths.rs`, in
//! instructions by `instructions.rs`. A step takes the calls that the gateway makes, in its order, and
//! memory that was used before, as in the steady state of a connection.

// Each benchmark uses a part of this.
#![allow(dead_code, unused_imports)]

mod heads;
mod lists;
mod others;
mod pool;
mod units;

pub(crate) use heads::{RequestStep, ResponseStep, Size};
pub(crate) use lists::{DecideStep, Family, LookUpStep};
pub(crate) use others::browser_head;
pub(crate) use pool::{PoolStep, on_a_worker};
pub(crate) use units::UnitStep;
