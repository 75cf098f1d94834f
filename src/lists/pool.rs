//! The names of the pools.

/// The two pools of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolName {
    /// The new version.
    Pre,
    /// The old version.
    Prod,
}

impl PoolName {
    /// Every pool, in the order in which they are shown.
    pub(crate) const ALL: [Self; 2] = [Self::Pre, Self::Prod];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Prod => "prod",
        }
    }
}
