//! A set of addresses as sorted borders: where it begins, where it ends, and so on in turn. An
//! address is in the set when the number of borders up to it is odd.
//!
//! The cost of a search among a million is the waiting for memory: one access outside the caches takes
//! as long as everything else together. So [`Ranges`] has an index that fits into the caches, and looks
//! at the borders themselves only if the index does not suffice.
//!
//! A *node* of the index covers some consecutive borders. It divides the range from the first to the
//! last of them into *slots* of the same length, so many that few borders are in each; that is, it
//! strips their common prefix and goes by the bits after it. The next 16 bits of each border in a slot,
//! its *head*, are stored separately, next to those of its neighbours. A slot with too many borders has
//! a node of its own.
//!
//! - Borders whose heads are smaller than that of the address are below it, and those whose heads are
//!   larger are above. If no border of a slot has any bits after its head, the slot is *exact*: then
//!   those with the same head are not above, and the borders themselves are not needed. That is usually
//!   so for IPv4, and for nets and clusters of IPv6.
//! - Otherwise borders with the same head are compared themselves. That costs another wait for memory,
//!   which is inevitable for a random listed address of 128 bits, and for addresses close to it: a
//!   million of them are 16 MB to distinguish, wherever they are kept. It overlaps with the wait for the
//!   heads, since the borders are prefetched where they would be if they were spread evenly.

use std::collections::VecDeque;

use crate::memory::advice::{prefetch, put_in_large_pages};

/// An address as a number.
pub(super) trait AddressNumber: Copy + Ord {
    /// The next address, if there is one.
    fn next(self) -> Option<Self>;

    /// How far it is from `first` to here, unless this is below.
    fn offset_from(self, first: Self) -> Option<Self>;

    /// How many bits it takes to write this number.
    fn width(self) -> u32;

    /// This number without its `shift` lowest bits, or the largest there is.
    fn without(self, shift: u32) -> u32;

    /// The 16 bits above the `shift` lowest.
    fn head(self, shift: u32) -> u16;

    /// True when the `shift` lowest bits are 0.
    fn is_bare(self, shift: u32) -> bool;

    /// As a count.
    fn number(self) -> u128;
}

macro_rules! address {
    ($number:ty) => {
        impl AddressNumber for $number {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn offset_from(self, first: Self) -> Option<Self> {
                self.checked_sub(first)
            }

            fn width(self) -> u32 {
                <$number>::BITS - self.leading_zeros()
            }

            fn without(self, shift: u32) -> u32 {
                u32::try_from(self >> shift).unwrap_or(u32::MAX)
            }

            fn head(self, shift: u32) -> u16 {
                (self >> shift) as u16
            }

            fn is_bare(self, shift: u32) -> bool {
                self >> shift << shift == self
            }

            fn number(self) -> u128 {
                self.into()
            }
        }
    };
}

address!(u32);
address!(u128);

/// The borders of the set of what any of these ranges covers; each is its first and its last
/// address. They are given sorted by their first address, and are nested or disjoint.
fn borders<A: AddressNumber>(ranges: impl Iterator<Item = (A, A)>) -> Vec<A> {
    let mut borders: Vec<A> = Vec::with_capacity(2 * ranges.size_hint().0);
    // The last address that is covered so far.
    let mut covered: Option<A> = None;
    for (first, last) in ranges {
        if covered.is_some_and(|covered| last <= covered) {
            continue;
        }
        // A range that begins where another ends continues it.
        if borders.pop_if(|end| *end == first).is_none() {
            borders.push(first);
        }
        // After the very last address there is no border.
        borders.extend(last.next());
        covered = Some(last);
    }
    borders
}

/// How many addresses from `first` to `last`, which must not be the whole number range, lie between
/// these borders.
fn count_within<A: AddressNumber>(borders: &[A], first: A, last: A) -> u128 {
    let [first, last] = [first, last].map(AddressNumber::number);
    let ranges = borders.chunks(2).map(|range| {
        let start = range[0].number().max(first);
        // The last range may have no end.
        let end = range
            .get(1)
            .map_or(last + 1, |it| it.number().min(last + 1));
        end.saturating_sub(start)
    });
    ranges.sum()
}

/// A slot with more borders than this gets a node of its own. The heads of this many are counted without
/// a branch that depends on the address, and take two cache lines.
const CROWD: usize = 64;

/// A node has at most as many slots as it has borders, divided by this.
const THIN: usize = 8;

/// The deepest nesting of nodes.
///
/// A slot has an eighth, at the most, of the length of its node, so that without this limit borders
/// at distances that grow eightfold could be nested 42 deep. With it a search reads at most six
/// nodes, and then, in a slot that is crowded all the same, takes a binary search of its heads and
/// one of its borders.
///
/// It bounds the memory, too. On one level no border is in two nodes, and a node has more than
/// [`CROWD`]: with its slots it takes at most 48/65 + 4/8 + 4/65 < 1.4 bytes a border, on all levels
/// 8, beside 2 for the head. That is what lists take which are made for it; others take 3 in all.
/// Made for it, a search is slower than a binary search alone: some half more with ten random bits
/// set in each of a million addresses.
const LEVELS: usize = 6;

/// In a slot: there is a node of that number. Without it: where its borders begin.
const NODE: u32 = 1 << 31;

/// In a slot without a node: it is exact.
const EXACT: u32 = 1 << 30;

/// A set of addresses.
#[derive(Debug)]
pub(super) struct Ranges<A> {
    /// How many addresses of the clients are in it.
    clients: u128,
    /// None where all slots are exact.
    borders: Box<[A]>,
    /// Of each border, as seen from the node that it is in.
    heads: Box<[u16]>,
    /// The first one is the top. None when there are few borders.
    nodes: Box<[IndexNode<A>]>,
    /// Of all nodes, one after the other.
    slots: Box<[u32]>,
}

/// A node of the index.
#[derive(Debug)]
struct IndexNode<A> {
    /// The first of them.
    first: A,
    /// A slot has 2^`shift` addresses.
    shift: u32,
    /// Where the borders begin and end.
    start: u32,
    end: u32,
    /// Where its slots begin. Behind the last of them is one more, which has the end of the borders.
    slots: u32,
    count: u32,
}

impl<A: AddressNumber> Ranges<A> {
    /// The set of what any of these ranges covers, each its first and its last address. They are
    /// given sorted by their first address, and are nested or disjoint. Clients have addresses from the
    /// first to the last of `clients`, which are not all that there are.
    pub(super) fn new(ranges: impl Iterator<Item = (A, A)>, clients: (A, A)) -> Self {
        let borders = borders(ranges);
        Self {
            clients: count_within(&borders, clients.0, clients.1),
            ..Self::of(borders)
        }
    }

    /// How many addresses of the clients are in the set.
    pub(super) fn clients(&self) -> u128 {
        self.clients
    }

    fn of(borders: Vec<A>) -> Self {
        let mut ranges = Self {
            clients: 0,
            heads: Box::default(),
            nodes: Box::default(),
            slots: Box::default(),
            borders: borders.into_boxed_slice(),
        };
        // More than that have no index: of a million entries there are two million.
        if ranges.borders.len() > CROWD && ranges.borders.len() < EXACT as usize {
            ranges.index();
        }
        ranges
    }

    fn index(&mut self) {
        let mut heads = vec![0; self.borders.len()];
        let (mut nodes, mut slots) = (Vec::new(), Vec::new());
        let mut all_exact = true;
        // Nodes to be made, in the order of their numbers: the borders, and the level.
        let mut crowds = VecDeque::from([(0..self.borders.len(), 1)]);
        while let Some((crowd, level)) = crowds.pop_front() {
            let borders = &self.borders[crowd.clone()];
            let first = borders[0];
            let offset = |border: &A| border.offset_from(first).unwrap_or(first);
            let length = borders.last().map_or(first, offset);
            // Eight, at least.
            let most = (borders.len() / THIN) as u32;
            let least = length
                .width()
                .saturating_sub(u32::BITS - most.leading_zeros());
            let shift = least + u32::from(length.without(least) >= most);
            let node = IndexNode {
                first,
                shift,
                start: crowd.start as u32,
                end: crowd.end as u32,
                slots: slots.len() as u32,
                count: length.without(shift) + 1,
            };
            let mut rest = borders.iter().map(offset).peekable();
            let mut at = crowd.start;
            for slot in 0..node.count {
                let (start, mut is_exact) = (at, true);
                while let Some(offset) = rest.next_if(|it| it.without(shift) <= slot) {
                    heads[at] = offset.head(node.head_shift());
                    is_exact &= offset.is_bare(node.head_shift());
                    at += 1;
                }
                if at - start > CROWD && level < LEVELS {
                    let number = nodes.len() + 1 + crowds.len();
                    slots.push(NODE | number as u32);
                    crowds.push_back((start..at, level + 1));
                } else {
                    slots.push(start as u32 | if is_exact { EXACT } else { 0 });
                    all_exact &= is_exact;
                }
            }
            slots.push(node.end);
            nodes.push(node);
        }
        if all_exact {
            self.borders = Box::default();
        }
        put_in_large_pages(&self.borders);
        put_in_large_pages(&heads);
        self.heads = heads.into_boxed_slice();
        self.nodes = nodes.into_boxed_slice();
        self.slots = slots.into_boxed_slice();
    }

    /// True when `address` is in the set.
    pub(super) fn contain(&self, address: A) -> bool {
        // A set begins at an even place and ends at an odd one.
        self.up_to(address) % 2 == 1
    }

    /// How many borders there are up to `address`.
    // Out of line: with the search in it, `GrayList::contains` would be too long to be inlined in turn.
    #[inline(never)]
    fn up_to(&self, address: A) -> usize {
        let Some(mut node) = self.nodes.first() else {
            return self.borders.partition_point(|it| *it <= address);
        };
        loop {
            let Some(offset) = address.offset_from(node.first) else {
                return node.start as usize;
            };
            let slot = offset.without(node.shift);
            if slot >= node.count {
                return node.end as usize;
            }
            let at = (node.slots + slot) as usize;
            let (slot, next) = (self.slots[at], self.slots[at + 1]);
            if let Some(below) = self.node(slot) {
                node = below;
                continue;
            }
            let (start, end) = (self.start(slot), self.start(next));
            let (heads, head) = (&self.heads[start..end], offset.head(node.head_shift()));
            if slot & EXACT == 0 {
                self.prefetch_near(start + ((heads.len() * usize::from(head)) >> u16::BITS));
            }
            let up_to = start + count(heads, |it| it <= head);
            if slot & EXACT != 0 {
                return up_to;
            }
            let below = start + count(heads, |it| it < head);
            return below + count(&self.borders[below..up_to], |it| it <= address);
        }
    }

    /// Prefetches the borders around one.
    fn prefetch_near(&self, at: usize) {
        // Two cache lines, of four borders each, are most of what a slot has as a rule.
        prefetch(&self.borders, at.saturating_sub(3));
        prefetch(&self.borders, at + 2);
    }

    fn node(&self, slot: u32) -> Option<&IndexNode<A>> {
        let has_node = slot & NODE != 0;
        has_node.then(|| &self.nodes[(slot ^ NODE) as usize])
    }

    /// Where the borders of a slot begin.
    fn start(&self, slot: u32) -> usize {
        self.node(slot).map_or(slot & !EXACT, |node| node.start) as usize
    }
}

impl<A> IndexNode<A> {
    /// Of an address, as seen from the node, the head is above so many bits.
    fn head_shift(&self) -> u32 {
        self.shift.saturating_sub(u16::BITS)
    }
}

/// How many of these, which are sorted, are up to something.
#[inline(always)]
fn count<T: Copy>(sorted: &[T], is_up_to: impl Fn(T) -> bool) -> usize {
    match sorted.len() {
        // Sums of 16 bits are a few wide instructions for heads, and no load waits for another.
        0..=CROWD => sorted
            .iter()
            .map(|it| u16::from(is_up_to(*it)))
            .sum::<u16>()
            .into(),
        _ => sorted.partition_point(|it| is_up_to(*it)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Searches for the borders, what is next to them, and what is far from them.
    fn search<A: AddressNumber + std::fmt::LowerHex>(
        borders: &[A],
        more: impl IntoIterator<Item = A>,
        below: impl Fn(A) -> Option<A>,
    ) {
        let ranges = Ranges::of(borders.to_vec());
        let near = |it: &A| [below(*it), Some(*it), it.next()];
        for address in borders.iter().flat_map(near).flatten().chain(more) {
            let expected = borders.partition_point(|it| *it <= address);
            assert_eq!(ranges.up_to(address), expected, "{address:x}");
        }
        assert!(ranges.nodes.len() <= LEVELS * borders.len().div_ceil(CROWD));
        let memory = size_of_val(&*ranges.nodes) + size_of_val(&*ranges.slots);
        assert!(memory * 10 <= LEVELS * borders.len() * 14, "{memory} bytes");
    }

    fn search_v6(borders: &BTreeSet<u128>) {
        let borders: Vec<u128> = borders.iter().copied().collect();
        search(&borders, [0, 1 << 64, u128::MAX], |it| it.checked_sub(1));
    }

    fn search_v4(borders: &BTreeSet<u32>) {
        let borders: Vec<u32> = borders.iter().copied().collect();
        search(&borders, [0, 1 << 16, u32::MAX], |it| it.checked_sub(1));
    }

    /// Numbers close to each other, as far apart as `shift` says, from somewhere on, around.
    fn clump() -> impl Strategy<Value = Vec<u128>> {
        let start = prop_oneof![
            Just(0),
            Just(0_u128.wrapping_sub(200)),
            Just((1 << 127) - 100),
            any::<u128>(),
            (0..4_u128).prop_map(|it| it << 112),
        ];
        let steps = vec(0..4_u8, 0..300);
        (start, steps, 0..128_u32).prop_map(|(start, steps, shift)| {
            let far = steps.into_iter().scan(0_u128, |sum, step| {
                *sum += u128::from(step);
                Some(*sum << shift)
            });
            far.map(|it| start.wrapping_add(it)).collect()
        })
    }

    proptest! {
        #[test]
        fn any_clumps_are_searched_as_one_looks_through_them(
            clumps in vec(clump(), 0..6),
            random in vec(any::<u128>(), 0..100),
        ) {
            let all: BTreeSet<u128> = clumps.into_iter().flatten().chain(random).collect();
            search_v6(&all);
            search_v4(&all.iter().map(|it| *it as u32).collect());
            search_v4(&all.iter().map(|it| (*it >> 96) as u32).collect());
        }

        /// So that many have the same head, and many slots have none.
        #[test]
        fn any_few_bits_are_searched_as_one_looks_through_them(
            bits in vec(0..128_u32, 1..24),
            picks in vec(any::<u32>(), 0..800),
        ) {
            let spread = |pick: u32| {
                let chosen = bits.iter().enumerate().filter(|(at, _)| pick >> at & 1 == 1);
                chosen.fold(0_u128, |sum, (_, bit)| sum | 1 << bit)
            };
            search_v6(&picks.into_iter().map(spread).collect());
        }
    }

    #[test]
    fn addresses_are_counted_once_and_only_where_clients_are() {
        let count =
            |ranges: &[(u32, u32)], clients| Ranges::new(ranges.iter().copied(), clients).clients();
        for (ranges, clients, expected) in [
            (&[][..], (0, 9), 0),
            (&[(0, u32::MAX)], (0, 9), 10),
            (
                &[(0, u32::MAX)],
                (5, u32::MAX - 1),
                u128::from(u32::MAX) - 5,
            ),
            (&[(3, 5), (4, 4), (6, 20)], (0, 9), 7),
            (&[(3, 5), (8, 8)], (4, 100), 3),
            (&[(3, 5), (100, u32::MAX)], (4, 100), 3),
            (&[(3, 5), (u32::MAX, u32::MAX)], (6, 100), 0),
        ] {
            assert_eq!(
                count(ranges, clients),
                expected,
                "{ranges:?} in {clients:?}"
            );
        }
        // Where the borders themselves are not kept, too.
        let odd: Vec<_> = (0..1000).map(|it| (2 * it + 1, 2 * it + 1)).collect();
        assert_eq!(count(&odd, (0, 999)), 500);
        let all = Ranges::new([(0, u128::MAX)].into_iter(), (1 << 125, (1 << 126) - 1));
        assert_eq!(all.clients(), 1 << 125);
    }

    /// Crowds within crowds, deeper than nodes go.
    #[test]
    fn borders_that_are_made_to_be_far_down_are_found() {
        // All but 127 bits are the same.
        search_v6(&BTreeSet::from([u128::MAX - 1, u128::MAX]));
        search_v6(&BTreeSet::from([0, 1]));
        search_v6(&(0..128).map(|it| 1 << it).collect());
        // Three quarters of each power of two, and what is close to them.
        let close = (0..128_u32).flat_map(|it| (0..40_u128).map(move |low| (3 << it >> 2) + low));
        search_v6(&close.collect());
        // In the first slot of the first slot, and so on, as many as make a crowd there.
        let nested = (0..15_u32).flat_map(|level| {
            let bits = 128 - 8 * level;
            (0..200_u128).map(move |it| it << (bits - 8))
        });
        let nested: BTreeSet<u128> = nested.collect();
        search_v6(&nested);
        search_v6(&nested.iter().map(|it| u128::MAX - it).collect());
        // Of the heads of the lowest level many are the same.
        let low = (0..3000_u128).map(|it| it * it);
        search_v6(&low.chain((17..128).map(|it| 1 << it)).collect());
    }

    #[test]
    fn dense_borders_are_found_however_many_there_are() {
        for count in [0, 1, 63, 64, 65, 66, 129, 511, 1024, 70_000] {
            for step in [1, 2, 5, 1000] {
                search_v4(&(0..count).map(|it| it * step).collect());
                search_v4(&(0..count).map(|it| u32::MAX - it * step).collect());
                let v6 = (0..count).map(|it| u128::from(it * step) << 64);
                search_v6(&v6.collect());
            }
        }
    }
}
