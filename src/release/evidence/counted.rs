//! What is counted: units, and how many of them were bad.

/// What one pool answered: units, and how many of them were bad. A unit is a client's first finished
/// request within a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub units: u64,
    /// Those that were bad (or slow).
    pub bad: u64,
}

impl Counted {
    /// The share of bad ones; 0 without any units.
    pub(crate) fn rate(&self) -> f64 {
        match self.units {
            0 => 0.0,
            units => self.bad as f64 / units as f64,
        }
    }

    /// Adds what was counted elsewhere.
    pub(in crate::release) fn add(&mut self, other: &Self) {
        self.units = self.units.saturating_add(other.units);
        self.bad = self.bad.saturating_add(other.bad);
    }
}

/// What both pools answered within the same second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    /// The new version.
    pub pre: Counted,
    /// The old version.
    pub prod: Counted,
}
