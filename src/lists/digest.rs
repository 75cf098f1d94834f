//! The digest of lists: a hash of their content.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::name::ListName;
use super::service::ServiceName;

/// A hash of the content of lists: the first 64 bits of a SHA-256 of all entries in their sorted,
/// canonical form, as they were written: without a port if none was written, whatever a gateway's
/// settings add. Displayed as 16 hexadecimal digits. Equal for equal content in gateways of the same
/// version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

/// The SHA-256 of one list's entries.
pub(super) type ContentHash = [u8; 32];

impl Digest {
    pub(super) fn of(lists: &[(ListName, &ContentHash)]) -> Self {
        let mut hash = Sha256::new();
        for (list, content) in lists {
            hash.update([*list as u8]);
            hash.update(content);
        }
        let first = hash.finalize().first_chunk().copied();
        Self(u64::from_be_bytes(first.unwrap_or_default()))
    }

    /// The digest by which a change of this content is accepted in a service: another one in each, since the
    /// same may be wrong in one and right in another. That of the default service is the content's.
    pub(crate) fn of_service(self, service: &ServiceName) -> Self {
        if service.is_default() {
            return self;
        }
        let hash = Sha256::new()
            .chain_update(self.0.to_be_bytes())
            .chain_update(service.as_str());
        let first = hash.finalize().first_chunk().copied();
        Self(u64::from_be_bytes(first.unwrap_or_default()))
    }
}

impl Digest {
    /// The digest as a number that is never 0.
    pub(crate) const fn number(self) -> u64 {
        match self.0 {
            0 => 1,
            number => number,
        }
    }

    /// The digest that is displayed like this.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_digit = |it: u8| it.is_ascii_digit() || matches!(it, b'a'..=b'f');
        let is_one = text.len() == 16 && text.bytes().all(is_digit);
        let number = is_one.then(|| u64::from_str_radix(text, 16).ok())?;
        number.map(Self)
    }

    /// The digest of both.
    pub(crate) fn with(self, other: &Self) -> Self {
        let hash = Sha256::new()
            .chain_update(self.0.to_be_bytes())
            .chain_update(other.0.to_be_bytes());
        let first = hash.finalize().first_chunk().copied();
        Self(u64::from_be_bytes(first.unwrap_or_default()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
