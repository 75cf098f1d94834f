//! Ids for visitors who have none: random, so that nobody can tell another one's from their own, or choose
//! one that is in a share.

use std::cell::Cell;

use sha2::{Digest, Sha256};

use crate::http::visitor::VisitorId;

/// One worker's ids: a secret of its own and a counter, hashed, so that none of them says anything about the
/// next one, and no request has to ask the kernel.
pub(super) struct VisitorIds {
    secret: [u8; 32],
    count: Cell<u64>,
}

impl VisitorIds {
    pub(super) fn new() -> Self {
        let mut secret = [0; 32];
        // Fewer than 256 bytes come as a whole, or not at all (getrandom(2)).
        let filled = rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut secret[..], rustix::rand::GetRandomFlags::empty())
        });
        if filled != Ok(secret.len()) {
            // As the standard library's hash maps do.
            panic!("no randomness from the kernel: {filled:?}");
        }
        Self {
            secret,
            count: Cell::new(0),
        }
    }

    /// The next one.
    pub(super) fn next(&self) -> VisitorId {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        let hash = Sha256::new()
            .chain_update(self.secret)
            .chain_update(count.to_le_bytes())
            .finalize();
        let first = hash.first_chunk().copied().unwrap_or_default();
        VisitorId::of(u64::from_le_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_in_every_bit_from_each_other_and_from_another_workers() {
        let (one, two) = (VisitorIds::new(), VisitorIds::new());
        let mut all = HashSet::new();
        let mut ones = [0_u32; 64];
        const EACH: u32 = 5000;
        for id in (0..EACH).flat_map(|_| [one.next(), two.next()]) {
            assert!(all.insert(*id.text()));
            let text = std::str::from_utf8(id.text()).unwrap();
            let number = u64::from_str_radix(text, 16).unwrap();
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += (number >> bit & 1) as u32;
            }
        }
        // Of 10,000 throws of a coin, within six standard deviations of 50.
        for (bit, ones) in ones.iter().enumerate() {
            assert!(ones.abs_diff(EACH) < 300, "bit {bit}: {ones}");
        }
    }
}
