//! The order of rules, in which they decide, for as many as there may be.

use ipnet::IpNet;

use super::{Rule, Term};

/// Sorts rules as they compare. Of a million most are about addresses, and to compare those as numbers, side
/// by side in memory, takes a fraction of the time.
pub(in crate::lists) fn sort(rules: &mut [Rule]) {
    rules.sort_by_cached_key(key);
    for same in rules.chunk_by_mut(|one, next| key(one) == key(next)) {
        same.sort_unstable();
    }
}

/// The first of what is compared: whether it excludes, the kind of the first term, and the address and length
/// of a net. Rules that differ in it compare as it does.
fn key(rule: &Rule) -> (bool, u8, [u64; 2], u8) {
    let (kind, bits, length) = match rule.terms.first() {
        None => (0, 0, 0),
        Some(Term::Everybody) => (1, 0, 0),
        Some(Term::Net(IpNet::V4(net))) => (2, net.addr().to_bits().into(), net.prefix_len()),
        Some(Term::Net(IpNet::V6(net))) => (3, net.addr().to_bits(), net.prefix_len()),
        Some(Term::Part(..)) => (4, 0, 0),
        Some(Term::Share { .. }) => (5, 0, 0),
    };
    let halves = [(bits >> 64) as u64, bits as u64];
    (rule.excludes, kind, halves, length)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::lists::selection::tests::rules;

    proptest! {
        #[test]
        fn rules_are_sorted_as_they_compare(rules in vec(rules(), 0..40)) {
            let mut sorted = rules.clone();
            sort(&mut sorted);
            let mut expected = rules;
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
