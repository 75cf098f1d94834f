//! The evidence of several gateways, taken together.
//!
//! Their data are disjoint, so their evidence multiplies: ten gateways with a tenth of the traffic each see
//! together what one would have seen. But a client that fails at several of them, as a broken app behind a
//! balancer does, is one client, and must not count as several.
//!
//! # The rule
//!
//! Two gateways are *related* when they name a common client behind the bad units of `pre`, and so are
//! those that others relate: where A shares one with B and B with C, these three are a group. Of a group,
//! those that share nothing may be added up (A and C), those that do must not (A and B). So for each
//! gateway a set is made that has it, and whoever else of the group shares nothing with any that are in
//! the set already: {A, C}, {B}, {C, A}. Each of these sets would be good evidence alone; which one is best,
//! must not be asked, since the best of several is more than evidence. What counts is their mean, for the
//! mean of e-values is an e-value whatever they have to do with each other, and the only way to merge
//! them that always is (Vovk and Wang, "E-values: calibration, combination and applications",
//! <https://arxiv.org/abs/1912.06116>). In logarithms that is the strongest of them, less at most the
//! logarithm of their number: of two gateways that share a client, only the stronger one counts.
//!
//! Different groups share nothing: they multiply.
//!
//! So do their stretches and hours, which need not begin at the same time: each of the combinations of them
//! that there ever are is an e-process, and the sum of their numbers, which grows with each new one, tells
//! its weight.

/// The groups of gateways, and for each group the sets of those that share nothing with each other.
pub(super) fn sets(shares: &[Vec<bool>]) -> Vec<Vec<Vec<usize>>> {
    let of_group = |group: Vec<usize>| {
        let sets = group.iter().map(|first| apart(*first, &group, shares));
        sets.collect()
    };
    groups(shares).into_iter().map(of_group).collect()
}

/// Those of `group` that share nothing with each other: `first`, and then in their order.
fn apart(first: usize, group: &[usize], shares: &[Vec<bool>]) -> Vec<usize> {
    let mut set = vec![first];
    for other in group {
        if *other != first && !set.iter().any(|it| shares[*it][*other]) {
            set.push(*other);
        }
    }
    set
}

/// The groups of those who share something, directly or by way of others.
fn groups(shares: &[Vec<bool>]) -> Vec<Vec<usize>> {
    let mut is_taken = vec![false; shares.len()];
    let mut groups = Vec::new();
    for first in 0..shares.len() {
        if is_taken[first] {
            continue;
        }
        is_taken[first] = true;
        let (mut group, mut next) = (vec![first], 0);
        while let Some(&one) = group.get(next) {
            for (other, taken) in is_taken.iter_mut().enumerate() {
                if !*taken && shares[one][other] {
                    *taken = true;
                    group.push(other);
                }
            }
            next += 1;
        }
        group.sort_unstable();
        groups.push(group);
    }
    groups
}
