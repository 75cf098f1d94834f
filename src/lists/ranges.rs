//! A set of addresses as sorted borders: where it begins, where it ends, and so on in turn. An
//! address is in the set when the number of borders up to it is odd.
//!
//! The borders are searched from the top: above them stands every `N`th of them, above those again
//! every `N`th, until `N` are left. A search counts through one block of `N` on each level, without a
//! branch that depends on the address; a block is a few cache lines that lie side by side, so that
//! a search in a million waits for memory two or three times.

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

/// A set of addresses.
#[derive(Debug)]
pub(super) struct Ranges<A, const N: usize> {
    /// From the top; the last one holds the borders.
    levels: Box<[Box<[A]>]>,
}

impl<A: Address, const N: usize> Ranges<A, N> {
    /// The set of what any of these ranges covers; each is its first and its last address. They are
    /// given sorted by their first address, and are nested or disjoint.
    pub(super) fn new(ranges: impl Iterator<Item = (A, A)>) -> Self {
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
