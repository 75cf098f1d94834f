//! Ids for requests that came without one that can be believed: 128 bits, as 32 hexadecimal digits, as
//! nginx's `$request_id` has them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// One worker's ids. No two are the same, and those of other workers and gateways differ as far as
/// chance can see to that; they are no secrets.
pub(super) struct RequestIds {
    seeds: [u64; 2],
    count: Cell<u64>,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The system's randomness, by way of the standard library.
        let seed = |number: u64| RandomState::new().hash_one(number);
        Self {
            seeds: [seed(0), seed(1)],
            count: Cell::new(0),
        }
    }

    /// The next one.
    pub(super) fn next(&self) -> [u8; 32] {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        // Different for every count, since both steps can be undone.
        let low = scramble(self.seeds[0].wrapping_add(count));
        let high = scramble(self.seeds[1] ^ low);
        let mut text = [0; 32];
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        for (place, byte) in text.chunks_exact_mut(2).zip(bytes) {
            place.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        text
    }
}

fn digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value)]
}

/// The last step of SplitMix64, a permutation in which every bit of the result depends on every other one.
fn scramble(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_digits_and_all_different_of_one_worker_and_of_two() {
        let (one, two) = (RequestIds::new(), RequestIds::new());
        let mut all = HashSet::new();
        for id in (0..10_000).flat_map(|_| [one.next(), two.next()]) {
            let is_digit = |it: &u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
            assert!(id.iter().all(is_digit));
            assert!(all.insert(id));
        }
        // As good as no two have their beginning in common.
        let begins: HashSet<&[u8]> = all.iter().map(|id| &id[..12]).collect();
        assert!(begins.len() > 19_990, "{}", begins.len());
    }
}
