//! What was changed without a verb: told from what the last record leaves, and from what was seen in the
//! store before.

use std::collections::HashSet;

use super::basis::{FoundLists, STAGE, ServiceTerms, parsed};
use super::tell;
use crate::lists::{ByList, Digest, ListName, Lists};
use crate::release::history::{Before, ChangedList, INLINE};
use crate::store::{Entries, SeenList, SeenLists};

/// What was changed by hand.
#[derive(Debug, PartialEq)]
pub(crate) struct Unattributed {
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) difference: Vec<String>,
    /// What undoes it, as far as that is known, and not too much.
    pub(crate) undo: Option<Before>,
}

/// What was changed since the last record; nothing if that is what was `found`. What was
/// `seen` is what the store had, the earliest first.
pub(crate) fn unattributed(
    terms: &ServiceTerms,
    found: &FoundLists,
    seen: &[SeenLists],
) -> Option<Unattributed> {
    let texts = found.lists.as_ref().map(|it| &it.entries);
    let lists = Lists::new(1, parsed(texts, found.salt.as_deref(), terms));
    let now = lists.digest.to_string();
    let last = found.history.first().map(|it| it.after.clone());
    if last.as_ref() == Some(&now) {
        return None;
    }
    let store_now = StoreNow {
        found,
        digests: ByList {
            gray: lists.gray.digest(),
            pre: lists.pre.digest(ListName::Pre),
            prod: lists.prod.digest(ListName::Prod),
        },
    };
    if terms.gray_of.is_some() {
        // Whoever has changed its gray list is in the other service's history.
        let base = seen.first().filter(|it| store_now.has_other_peers(it))?;
        let before = last.or_else(|| store_now.digest_of_peers(base, terms))?;
        return Some(store_now.since(base, before, now));
    }
    let is = |it: &SeenLists, digest: &str| it.digest.is_some_and(|it| it.to_string() == digest);
    let change = match last {
        Some(last) => match seen.iter().rev().find(|it| is(it, &last)) {
            Some(base) => store_now.since(base, last, now),
            None => Unattributed::unseen(last, now),
        },
        // The history begins with what was here when this gateway came.
        None => match seen
            .first()
            .and_then(|it| Some((it, it.digest?.to_string())))
        {
            Some((base, before)) if before != now => store_now.since(base, before, now),
            _ => return None,
        },
    };
    Some(change)
}

impl Unattributed {
    /// It is only known that it was.
    pub(crate) fn unseen(before: String, after: String) -> Self {
        Self {
            before,
            after,
            difference: vec!["nobody has seen what was there before".to_owned()],
            undo: None,
        }
    }
}

/// What there is now.
struct StoreNow<'a> {
    found: &'a FoundLists,
    digests: ByList<Digest>,
}

impl StoreNow<'_> {
    /// The servers of a service are others than they were.
    fn has_other_peers(&self, base: &SeenLists) -> bool {
        let is_other = |list: ListName| {
            let before = base.lists[list].digest;
            before.is_some_and(|it| it != self.digests[list])
        };
        is_other(ListName::Pre) || is_other(ListName::Prod)
    }

    /// The digest of these servers, with the gray list of now.
    fn digest_of_peers(&self, base: &SeenLists, terms: &ServiceTerms) -> Option<String> {
        let texts = ByList {
            gray: &self.found.lists.gray.entries,
            pre: base.lists.pre.texts.as_ref()?,
            prod: base.lists.prod.texts.as_ref()?,
        };
        let lists = parsed(texts, self.found.salt.as_deref(), terms);
        Some(Lists::new(1, lists).digest.to_string())
    }

    /// What was changed since these lists were there.
    fn since(&self, base: &SeenLists, before: String, after: String) -> Unattributed {
        let mut difference = Vec::new();
        let mut undo = Some(Before {
            stage: self.found.state.get(STAGE).cloned(),
            ..Before::default()
        });
        for list in ListName::ALL {
            let now = &self.found.lists[list].entries;
            let changed = match (&base.lists[list], &base.lists[list].texts) {
                (it, _) if self.is_same(it, list) => Some(ChangedList::same(now)),
                (_, Some(texts)) => Some(changed(&mut difference, list, texts, now)),
                (SeenList { count, .. }, None) => {
                    difference.push(format!("- {} of {count} entries", list.name()));
                    difference.push(format!("+ {} of {} entries", list.name(), now.len()));
                    None
                }
            };
            match (changed, &mut undo) {
                (Some(changed), Some(undo)) => undo.lists[list] = changed,
                _ => undo = None,
            }
        }
        if let Some(salt) = &base.salt
            && *salt != self.found.salt
        {
            difference.push("+ salt another one".to_owned());
            if let Some(undo) = &mut undo {
                let text = |it: &Vec<u8>| String::from_utf8_lossy(it).into_owned();
                undo.salt = Some(salt.as_ref().map(text));
            }
        }
        let fits = |it: &Before| it.to_json().to_string().len() <= INLINE;
        Unattributed {
            before,
            after,
            difference,
            undo: undo.filter(fits),
        }
    }

    /// It is what it was, or another service's.
    fn is_same(&self, before: &SeenList, list: ListName) -> bool {
        before.digest.is_none_or(|it| it == self.digests[list])
    }
}

/// What was changed of a list, in lines, and what undoes that.
fn changed(
    lines: &mut Vec<String>,
    list: ListName,
    before: &Entries,
    now: &Entries,
) -> ChangedList {
    let (old, new): (HashSet<&[u8]>, HashSet<&[u8]>) =
        (before.into_iter().collect(), now.into_iter().collect());
    let gone: Vec<&[u8]> = before.into_iter().filter(|it| !new.contains(it)).collect();
    let come: Vec<&[u8]> = now.into_iter().filter(|it| !old.contains(it)).collect();
    tell(lines, list, '-', &gone);
    tell(lines, list, '+', &come);
    ChangedList::of(before, &gone, &come)
}
