//! A table that stays as small as its content: a new element takes the lowest free place, and the table
//! ends with the highest place that is taken. So the cost of going through it depends on what is open
//! now, not on what was open before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Index, IndexMut};

/// Tables with up to this many places keep their memory.
const KEPT: usize = 1024;

/// Elements by their places.
pub(super) struct Places<T> {
    places: Vec<Option<T>>,
    /// Contains every free place, the lowest first; and stale ones, which are taken again or cut off.
    free: BinaryHeap<Reverse<usize>>,
    taken: usize,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: BinaryHeap::new(),
            taken: 0,
        }
    }
}

impl<T> Places<T> {
    /// Puts in an element, which `make` makes from its place.
    pub(super) fn put(&mut self, make: impl FnOnce(usize) -> T) -> usize {
        let place = loop {
            match self.free.pop() {
                Some(Reverse(place)) if matches!(self.places.get(place), Some(None)) => {
                    break place;
                }
                Some(_) => {}
                None => {
                    self.places.push(None);
                    break self.places.len() - 1;
                }
            }
        };
        self.places[place] = Some(make(place));
        self.taken += 1;
        place
    }

    /// Removes the element at `place`, if there is one.
    pub(super) fn take(&mut self, place: usize) -> Option<T> {
        let thing = self.places.get_mut(place)?.take()?;
        self.taken -= 1;
        self.free.push(Reverse(place));
        while let Some(None) = self.places.last() {
            self.places.pop();
        }
        if self.taken == 0 {
            self.free.clear();
        }
        let needed = self.places.len().max(KEPT);
        if self.places.capacity() > 4 * needed {
            self.places.shrink_to(2 * needed);
            self.free.retain(|Reverse(place)| *place < needed);
            self.free.shrink_to(2 * needed);
        }
        Some(thing)
    }

    /// The element at `place`, if there is one.
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref()
    }

    /// As [`Self::get`], mutable.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// One more than the highest place that is taken.
    pub(super) fn end(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }
}

impl<T> Index<usize> for Places<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        match self.places.get(place) {
            Some(Some(thing)) => thing,
            _ => panic!("nothing is at {place}"),
        }
    }
}

impl<T> IndexMut<usize> for Places<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        match self.places.get_mut(place) {
            Some(Some(thing)) => thing,
            _ => panic!("nothing is at {place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_takes_the_lowest_place_and_the_table_ends_with_the_highest() {
        let mut places = Places::default();
        for at in 0..10 {
            assert_eq!(places.put(|place| place), at);
        }
        for place in [7, 2, 9, 8] {
            assert_eq!(places.take(place), Some(place));
            assert_eq!(places.take(place), None);
        }
        assert_eq!((places.end(), places.iter().count()), (7, 9 - 3));
        assert_eq!([(); 4].map(|()| places.put(|place| place)), [2, 7, 8, 9]);
        assert_eq!(places[8], 8);
    }

    #[test]
    fn a_crowd_leaves_nothing_behind() {
        let mut places = Places::default();
        let last = (0..100_000).map(|_| places.put(|place| place)).last();
        let stays = places.put(|place| place);
        assert_eq!(stays, 100_000);
        for place in 0..100_000 {
            places.take(place);
        }
        assert_eq!((last, places.iter().count()), (Some(99_999), 1));
        // The one that stays has a high place, and the next one has a low one.
        assert_eq!(places.put(|place| place), 0);
        places.take(stays);
        assert_eq!((places.end(), places.is_empty()), (1, false));
        assert!(places.places.capacity() <= 4 * KEPT);
        assert!(
            places.free.capacity() <= 4 * KEPT,
            "{}",
            places.free.capacity()
        );
    }

    #[test]
    fn whatever_comes_and_goes_no_two_have_one_place() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut places, mut taken) = (Places::default(), Vec::new());
        for number in 0..100_000_u32 {
            match random.bool() && !taken.is_empty() {
                true => {
                    let (place, expected) = taken.swap_remove(random.usize(..taken.len()));
                    assert_eq!(places.take(place), Some(expected));
                }
                false => taken.push((places.put(|_| number), number)),
            }
            if number % 5000 == 0 {
                taken
                    .drain(..)
                    .for_each(|(place, _)| assert!(places.take(place).is_some()));
                assert_eq!((places.end(), places.free.len()), (0, 0));
            }
        }
    }
}
