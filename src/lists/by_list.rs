//! A value for each list.

use std::array;
use std::ops::{Index, IndexMut};

use super::ListName;

/// One value for each list. The pools may have another type than gray, as the lists themselves do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByList<G, P = G> {
    /// The value for the clients that get the new version.
    pub gray: G,
    /// The value for the peers of the new version.
    pub pre: P,
    /// The value for the peers of the old version.
    pub prod: P,
}

impl<G, P> ByList<G, P> {
    /// Maps gray's value with `gray`, and the pools' values with `pool`; often the same generic
    /// function, given twice.
    pub(crate) fn map_each<H, Q>(
        self,
        gray: impl FnOnce(G) -> H,
        mut pool: impl FnMut(P) -> Q,
    ) -> ByList<H, Q> {
        ByList {
            gray: gray(self.gray),
            pre: pool(self.pre),
            prod: pool(self.prod),
        }
    }

    /// Each value paired with that of the same list in `other`.
    pub(crate) fn zip<H, Q>(self, other: ByList<H, Q>) -> ByList<(G, H), (P, Q)> {
        ByList {
            gray: (self.gray, other.gray),
            pre: (self.pre, other.pre),
            prod: (self.prod, other.prod),
        }
    }

    /// The same values, borrowed.
    pub(crate) const fn as_ref(&self) -> ByList<&G, &P> {
        ByList {
            gray: &self.gray,
            pre: &self.pre,
            prod: &self.prod,
        }
    }

    /// The same values, borrowed mutably.
    pub(crate) const fn as_mut(&mut self) -> ByList<&mut G, &mut P> {
        ByList {
            gray: &mut self.gray,
            pre: &mut self.pre,
            prod: &mut self.prod,
        }
    }
}

impl<T> ByList<T> {
    /// The results of `make` for each list, in the order of [`ListName::ALL`].
    pub(crate) fn from_fn(make: impl FnMut(ListName) -> T) -> Self {
        let [gray, pre, prod] = ListName::ALL.map(make);
        Self { gray, pre, prod }
    }

    /// Maps each value with `change`.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> ByList<U> {
        let [gray, pre, prod] = [self.gray, self.pre, self.prod].map(change);
        ByList { gray, pre, prod }
    }

    /// Each value with its list, in the order of `ListName::ALL`.
    pub fn iter(&self) -> impl Iterator<Item = (ListName, &T)> {
        ListName::ALL.into_iter().map(|list| (list, &self[list]))
    }
}

impl<T: Copy> ByList<T> {
    /// The same value for each list.
    pub(crate) const fn all(value: T) -> Self {
        Self {
            gray: value,
            pre: value,
            prod: value,
        }
    }
}

impl<T> Index<ListName> for ByList<T> {
    type Output = T;

    fn index(&self, list: ListName) -> &T {
        match list {
            ListName::Gray => &self.gray,
            ListName::Pre => &self.pre,
            ListName::Prod => &self.prod,
        }
    }
}

impl<T> IndexMut<ListName> for ByList<T> {
    fn index_mut(&mut self, list: ListName) -> &mut T {
        match list {
            ListName::Gray => &mut self.gray,
            ListName::Pre => &mut self.pre,
            ListName::Prod => &mut self.prod,
        }
    }
}

impl<T> IntoIterator for ByList<T> {
    type Item = (ListName, T);
    type IntoIter = array::IntoIter<(ListName, T), 3>;

    fn into_iter(self) -> Self::IntoIter {
        let all = [
            (ListName::Gray, self.gray),
            (ListName::Pre, self.pre),
            (ListName::Prod, self.prod),
        ];
        all.into_iter()
    }
}
