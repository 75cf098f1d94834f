//! What a store has of the lists of a service, for whoever keeps an account of that: whether it comes into
//! force or not, and without what would be too much to remember.

use super::gate::door::ParsedReading;
use super::{Entries, ServiceReading};
use crate::lists::{ByList, Digest, ListName, Lists, ServiceName, SharedLists};

/// The entries of a list are remembered as they were written up to this size, in bytes.
const REMEMBERED: usize = 64 * 1024;

/// What a store has of the lists of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenLists {
    pub(crate) lists: ByList<SeenList>,
    /// Of all lists; none where not all of them can be read, or the gray list is another service's.
    pub(crate) digest: Option<Digest>,
    /// The salt of the shares, if the gray list has some: what the store has, if that has one.
    pub(crate) salt: Option<Option<Vec<u8>>>,
}

/// A list in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenList {
    /// None where it cannot be read, or is another service's.
    pub(crate) digest: Option<Digest>,
    /// How many entries it has.
    pub(crate) count: usize,
    /// These entries, unless they are too many.
    pub(crate) texts: Option<Entries>,
}

/// Whoever wants to know what the lists in a store are.
pub(crate) trait ListsWatch: Send + Sync {
    /// These lists of a service are in the store, and others than when it was last read.
    fn saw(&self, service: &ServiceName, seen: SeenLists);

    /// Whatever is read from now on is in another store.
    fn forget(&self);
}

impl SeenLists {
    /// What was read, before it is parsed.
    pub(super) fn of(reading: &ServiceReading) -> Self {
        let lists = ByList::from_fn(|list| match &reading.lists[list] {
            Ok(entries) => SeenList {
                digest: None,
                count: entries.len(),
                texts: is_short(entries).then(|| entries.clone()),
            },
            Err(_) => SeenList::default(),
        });
        Self {
            lists,
            digest: None,
            salt: Some(reading.salt.clone()),
        }
    }

    /// The same, with what it comes to; `shares_gray`: its gray list is another service's.
    pub(super) fn add(&mut self, read: &ParsedReading, shares_gray: bool) {
        let ByList { gray, pre, prod } = read;
        let gray = gray.as_ref().ok().filter(|_| !shares_gray);
        let (pre, prod) = (pre.as_ref().ok(), prod.as_ref().ok());
        if !gray.is_some_and(|it| it.has_shares()) {
            self.salt = None;
        }
        if shares_gray {
            self.lists.gray = SeenList::default();
        }
        self.lists.gray.digest = gray.map(|it| it.digest());
        self.lists.pre.digest = pre.map(|it| it.digest(ListName::Pre));
        self.lists.prod.digest = prod.map(|it| it.digest(ListName::Prod));
        if let (Some(gray), Some(pre), Some(prod)) = (gray, pre, prod) {
            let shared = SharedLists {
                gray: gray.clone(),
                pre: pre.clone(),
                prod: prod.clone(),
            };
            self.digest = Some(Lists::new(1, shared).digest);
        }
    }

    /// A list is too long to be remembered.
    pub(crate) fn is_long(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|(_, it)| it.digest.is_some() && it.texts.is_none())
    }

    /// There is nothing at all: somebody has emptied the lists, or the store has lost them.
    pub(crate) fn are_empty(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.all(|(_, it)| it.digest.is_some() && it.count == 0)
    }
}

fn is_short(entries: &Entries) -> bool {
    let bytes = entries.into_iter().map(<[u8]>::len);
    entries.len() <= REMEMBERED && bytes.sum::<usize>() <= REMEMBERED
}
