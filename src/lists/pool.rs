//! What the pools are called.

use std::net::SocketAddr;

use super::Pools;

/// The two pools of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolName {
    /// The new version.
    Pre,
    /// The old version.
    Prod,
}

impl PoolName {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Prod => "prod",
        }
    }

    /// The peers of this pool.
    pub fn peers(self, pools: &Pools) -> &[SocketAddr] {
        match self {
            Self::Pre => pools.pre.peers(),
            Self::Prod => pools.prod.peers(),
        }
    }
}
