//! Things that are reused instead of being made anew: as many as were needed lately.
//!
//! What was used last is reused first, so that what is no longer needed collects at the front, and is
//! freed bit by bit ([`FreeList::trim`]). Once there are enough of them, taking and giving back allocate
//! nothing.

/// Things for reuse.
#[derive(Debug)]
pub(crate) struct FreeList<T> {
    kept: Vec<T>,
    /// How many of them were not needed since the last [`FreeList::trim`].
    unused: usize,
    /// How many are kept even when they are not needed.
    least: usize,
    /// How many are kept at most.
    most: usize,
}

impl<T> FreeList<T> {
    /// An empty one that keeps `most` at most, and `least` of them even when they are not needed.
    pub(crate) const fn new(least: usize, most: usize) -> Self {
        Self {
            kept: Vec::new(),
            unused: 0,
            least,
            most,
        }
    }

    /// The one that was given last, if there is one.
    pub(crate) fn take(&mut self) -> Option<T> {
        let taken = self.kept.pop();
        self.unused = self.unused.min(self.kept.len());
        taken
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps `thing` for reuse, unless there are enough.
    pub(crate) fn give(&mut self, thing: T) {
        if self.kept.len() < self.most {
            self.kept.push(thing);
        }
    }

    /// Frees half of those that were not needed since the last call, but keeps `least`; true while there
    /// is more to free.
    pub(crate) fn trim(&mut self) -> bool {
        let spare = self.kept.len().saturating_sub(self.least);
        self.kept.drain(..self.unused.div_ceil(2).min(spare));
        self.unused = self.kept.len();
        self.unused > self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(least: usize, most: usize) -> FreeList<usize> {
        let mut list = FreeList::new(least, most);
        (0..most).for_each(|number| list.give(number));
        list
    }

    #[test]
    fn what_was_given_last_is_taken_first_and_no_more_is_kept_than_allowed() {
        let mut list = full(0, 3);
        list.give(3);
        let taken = [(); 4].map(|()| list.take());
        assert_eq!(taken, [Some(2), Some(1), Some(0), None]);
        taken.into_iter().flatten().for_each(|it| list.give(it));
        assert_eq!(list.take(), Some(0));
    }

    #[test]
    fn half_of_what_nobody_needs_goes_at_each_look_except_for_a_few() {
        let mut list = full(8, 100);
        // What was there before the first look may have been needed.
        let mut left = Vec::new();
        while list.trim() {
            left.push(list.kept.len());
        }
        assert_eq!(left, [100, 50, 25, 12]);
        assert_eq!(list.kept, [92, 93, 94, 95, 96, 97, 98, 99]);
        assert!(!list.trim());
        assert_eq!(list.kept.len(), 8);
    }

    #[test]
    fn what_is_needed_between_two_looks_stays() {
        let mut list = full(0, 100);
        list.trim();
        for _ in 0..20 {
            let crowd: Vec<_> = (0..60).map_while(|_| list.take()).collect();
            assert_eq!(crowd.len(), 60);
            crowd.into_iter().for_each(|it| list.give(it));
            assert!(list.trim());
        }
        assert_eq!(list.kept.len(), 60);
    }
}
