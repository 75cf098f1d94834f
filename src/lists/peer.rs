//! One server of a pool.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a server is. Addresses come before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At an address.
    Address(SocketAddr),
    /// At every address of a name, at this port.
    Name(Arc<str>, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The weight of a server whose entry has none.
pub(super) const USUAL_WEIGHT: u16 = 1;

/// One server of a pool, as a list holds it. In a list it is known by its place, and in no list twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedPeer {
    place: Place,
    weight: u16,
}

impl ListedPeer {
    /// A server at `place`.
    pub(super) fn new(place: Place, weight: u16) -> Self {
        Self { place, weight }
    }

    /// Where it is, and what it is called in logs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How much it is asked, compared with the others of its pool: 1 to 1000.
    pub fn weight(&self) -> u16 {
        self.weight
    }
}

/// As an entry, with its port.
impl fmt::Display for ListedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        write_weight(f, self.weight)
    }
}

/// The end of an entry; nothing where it says no more than an entry without it.
pub(super) fn write_weight(f: &mut fmt::Formatter<'_>, weight: u16) -> fmt::Result {
    match weight {
        USUAL_WEIGHT => Ok(()),
        _ => write!(f, " weight={weight}"),
    }
}
