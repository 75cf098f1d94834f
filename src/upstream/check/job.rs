//! One check, from the thread that schedules to one that makes it, and back.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ask::{CheckClient, CheckOutcome};
use crate::lists::PoolName;

/// A peer, in one of the ways in which the pools check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CheckTarget {
    pub(super) peer: SocketAddr,
    /// The first pool that checks in this way.
    pub(super) way: PoolName,
}

/// A check to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) target: CheckTarget,
    pub(super) asker: Arc<CheckClient>,
}

/// A check that was made.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) target: CheckTarget,
    pub(super) answer: CheckOutcome,
}
