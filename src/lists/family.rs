//! The two families of addresses, and the addresses that clients have.

use ipnet::IpNet;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The number of addresses that clients of this family can have.
    pub(super) fn clients(self) -> u128 {
        let [first, last] = match self {
            Self::V4 => [CLIENTS_V4.0, CLIENTS_V4.1].map(u128::from),
            Self::V6 => [CLIENTS_V6.0, CLIENTS_V6.1],
        };
        last - first + 1
    }

    /// True for a net of this family.
    pub(super) fn is_of(self, net: &IpNet) -> bool {
        matches!(
            (self, net),
            (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_))
        )
    }
}

/// The addresses of clients: all but groups and what is reserved, 224.0.0.0/3 (RFC 5771, RFC 1112
/// section 4).
pub(super) const CLIENTS_V4: (u32, u32) = (0, 0xdfff_ffff);

/// The addresses of clients: 2000::/3, the whole public internet (RFC 4291 section 2.4). Local addresses
/// besides these do not count.
pub(super) const CLIENTS_V6: (u128, u128) = (1 << 125, (1 << 126) - 1);
