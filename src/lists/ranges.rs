//! A set of addresses as sorted borders: where it begins, where it ends, and so on in turn. An
//! address is in the set when the number of borders up to it is odd.
//!
//! What a search in a million costs is the waiting for memory. [`Blocks`] are searched from the top:
//! above the borders stands every `N`th of them, above those again every `N`th, until `N` are left.
//! A search counts through one block of `N` on each level, without a branch that depends on the
//! address; a block is a few cache lines that lie side by side, so that it waits two or three times.
//!
//! [`Halves`] are for many IPv4 addresses. The upper half of one says which borders there are with
//! that half, and of these only the lower halves are kept. With every 32nd of them, where there are
//! many, what is read beside the lower halves is small enough to be in a cache, so that a search
//! waits once. In the same run that took 57 to 107 ns where blocks took 133 to 159 (random entries,
//! or all of them within one net of 8 bits, or within 128 of 16; all on a busy machine).

/// An address as a number.
pub(super) trait Address: Copy + Ord {
    /// The next address, if there is one.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// The borders of the set of what any of these ranges covers; each is its first and its last
/// address. They are given sorted by their first address, and are nested or disjoint.
fn borders<A: Address>(ranges: impl Iterator<Item = (A, A)>) -> Vec<A> {
    let mut borders: Vec<A> = Vec::with_capacity(2 * ranges.size_hint().0);
    // The last address that is covered so far.
    let mut covered: Option<A> = None;
    for (first, last) in ranges {
        if covered.is_some_and(|covered| last <= covered) {
            continue;
        }
        // A range that begins where another ends goes on with it.
        if borders.pop_if(|end| *end == first).is_none() {
            borders.push(first);
        }
        // Behind the last address of all there is no border.
        borders.extend(last.next());
        covered = Some(last);
    }
    borders
}

/// A set of IPv4 addresses.
#[derive(Debug)]
pub(super) enum V4Ranges {
    /// Fits into the nearest caches, and is made in no time.
    Short(Blocks<u32, 32>),
    Long(Halves),
}

impl V4Ranges {
    /// The set of what any of these ranges covers, which are given as for [`borders`].
    pub(super) fn new(ranges: impl Iterator<Item = (u32, u32)>) -> Self {
        /// As long as the borders take less than the index of the halves by far.
        const SHORT: usize = 8192;
        let borders = borders(ranges);
        match borders.len() {
            0..=SHORT => Self::Short(Blocks::of(borders)),
            _ => Self::Long(Halves::of(&borders)),
        }
    }

    /// True when `address` is in the set.
    pub(super) fn contain(&self, address: u32) -> bool {
        match self {
            Self::Short(blocks) => blocks.contain(address),
            Self::Long(halves) => halves.contain(address),
        }
    }
}

/// A set of addresses.
#[derive(Debug)]
pub(super) struct Blocks<A, const N: usize> {
    /// From the top; the last one holds the borders.
    levels: Box<[Box<[A]>]>,
}

impl<A: Address, const N: usize> Blocks<A, N> {
    /// The set of what any of these ranges covers, which are given as for [`borders`].
    pub(super) fn new(ranges: impl Iterator<Item = (A, A)>) -> Self {
        Self::of(borders(ranges))
    }

    fn of(borders: Vec<A>) -> Self {
        let mut levels = vec![borders.into_boxed_slice()];
        while let Some(below) = levels.last().filter(|it| it.len() > N) {
            levels.push(below.iter().copied().step_by(N).collect());
        }
        levels.reverse();
        Self {
            levels: levels.into_boxed_slice(),
        }
    }

    /// True when `address` is in the set.
    pub(super) fn contain(&self, address: A) -> bool {
        let mut at = 0;
        for level in &self.levels {
            let start = at * N;
            let rest = &level[start..];
            // Of a fixed length wherever possible: such a loop becomes a few wide instructions.
            let up_to = match rest.first_chunk::<N>() {
                Some(block) => count(block, address),
                None => count(rest, address),
            };
            match (start + up_to).checked_sub(1) {
                Some(last) => at = last,
                None => return false,
            }
        }
        // A set begins at an even place and ends at an odd one.
        at % 2 == 0
    }
}

#[inline(always)]
fn count<A: Address>(borders: &[A], address: A) -> usize {
    borders.iter().map(|it| usize::from(*it <= address)).sum()
}

/// How many lower halves are looked through one by one: a cache line of them.
const LINE: usize = 32;

/// A set of IPv4 addresses.
#[derive(Debug)]
pub(super) struct Halves {
    /// For each upper half where its borders begin, and at the end of all where they end.
    index: Box<[u32]>,
    /// The lower halves of the borders.
    lower: Box<[u16]>,
    /// Every [`LINE`]th of them.
    steps: Box<[u16]>,
}

impl Halves {
    fn of(borders: &[u32]) -> Self {
        let upper_end = |upper: u64| borders.partition_point(|it| u64::from(*it) < upper << 16);
        let mut index = Vec::with_capacity(0x1_0001);
        let mut at = 0;
        for upper in 0..=0xffff_u64 {
            index.push(at as u32);
            // Most have none.
            if borders
                .get(at)
                .is_some_and(|it| u64::from(*it) >> 16 == upper)
            {
                at = upper_end(upper + 1);
            }
        }
        index.push(at as u32);
        let lower: Box<[u16]> = borders.iter().map(|it| *it as u16).collect();
        Self {
            index: index.into_boxed_slice(),
            steps: lower.iter().copied().step_by(LINE).collect(),
            lower,
        }
    }

    fn contain(&self, address: u32) -> bool {
        let (upper, half) = ((address >> 16) as usize, address as u16);
        let (mut start, mut end) = (self.index[upper] as usize, self.index[upper + 1] as usize);
        if end - start > 2 * LINE {
            let first = start.div_ceil(LINE);
            let steps = &self.steps[first..end.div_ceil(LINE)];
            let next = first + steps.partition_point(|it| *it <= half);
            end = end.min(next * LINE);
            start = start.max(next.saturating_sub(1) * LINE);
        }
        // Sums of 16 bits are a few wide instructions, and the number of terms is small.
        let below = self.lower[start..end].iter();
        let up_to: u16 = below.map(|it| u16::from(*it <= half)).sum();
        (start + usize::from(up_to)) % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With many borders of one upper half, and none or few of others.
        #[test]
        fn any_borders_are_searched_by_halves_as_by_blocks(
            few in btree_set(any::<u32>(), 0..50),
            many in btree_set(0..0x2_0000_u32, 0..500),
            dense in 0..400_u32,
            upper in prop_oneof![Just(0_u32), Just(0xfffe), 0..0xfffe_u32],
        ) {
            let many = many.into_iter().chain((0..dense).map(|it| 5 * it));
            let all = few.into_iter().chain(many.map(|it| (upper << 16) + it));
            let borders: std::collections::BTreeSet<u32> = all.collect();
            let borders: Vec<u32> = borders.into_iter().collect();
            let halves = Halves::of(&borders);
            let blocks = Blocks::<u32, 32>::of(borders.clone());
            let near = borders.iter().flat_map(|it| [it.wrapping_sub(1), *it, it.wrapping_add(1)]);
            for address in near.chain([0, u32::MAX]) {
                let expected = borders.partition_point(|it| *it <= address) % 2 == 1;
                prop_assert_eq!(halves.contain(address), expected, "{:x}", address);
                prop_assert_eq!(blocks.contain(address), expected, "{:x}", address);
            }
        }
    }
}
