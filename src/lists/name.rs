//! The names of the lists.

/// The names of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListName {
    /// The clients that get the new version.
    Gray,
    /// The peers of the new version.
    Pre,
    /// The peers of the old version.
    Prod,
}

impl ListName {
    /// Every list, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Gray, Self::Pre, Self::Prod];

    /// The name in files, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Pre => "pre",
            Self::Prod => "prod",
        }
    }
}
