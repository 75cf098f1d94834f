//! What was changed without a verb: told from what the last record leaves, and from what was seen in the
//! store before.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::basis::{FoundLists, STAGE, ServiceTerms, parsed};
use super::tell;
use crate::lists::{ByList, Digest, ListName, Lists};
use crate::release::history::{Before, ChangeRecord, ChangedList, INLINE};
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
    let digests = ByList {
        gray: lists.gray.digest(),
        pre: lists.pre.digest(ListName::Pre),
        prod: lists.prod.digest(ListName::Prod),
    };
    let store_now = StoreNow {
        salt: &found.salt,
        state: &found.state,
        lists: ByList::from_fn(|list| ListNow {
            digest: digests[list],
            count: found.lists[list].entries.len(),
            texts: Some(&found.lists[list].entries),
        }),
    };
    if terms.gray_of.is_some() {
        // Whoever has changed its gray list is in the other service's history.
        let base = seen.first().filter(|it| store_now.has_other_peers(it))?;
        let before = last.or_else(|| digest_of_peers(found, base, terms))?;
        return Some(store_now.since(base, before, now));
    }
    let change = match last {
        Some(last) => match seen.iter().rev().find(|it| has_digest(it, &last)) {
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

/// The same without a look at the lists, where one is too long to be remembered: what there is, is what was
/// `seen` last. Nothing where that is not enough to tell.
///
/// A verb may have changed the lists since they were seen. Then the last record is not the one that was
/// `noted`; or, where none was, there is one of what the verb has found: that was seen last. Whoever has
/// changed them by hand is told of next.
pub(crate) fn unattributed_by_sight(
    terms: &ServiceTerms,
    found: &FoundLists,
    (seen, noted): (&[SeenLists], Option<u64>),
) -> Option<Unattributed> {
    let latest = seen.last().filter(|it| it.is_long())?;
    let now = latest.digest?.to_string();
    let is_about = |it: &ChangeRecord| it.before == now || it.after == now;
    let is_new = match (found.history.first(), noted) {
        (Some(last), Some(noted)) => last.number != noted,
        _ => found.history.iter().any(is_about),
    };
    if terms.gray_of.is_some() || is_new {
        return None;
    }
    let base = match found.history.first() {
        Some(last) => seen.iter().rev().find(|it| has_digest(it, &last.after)),
        None => seen.first(),
    };
    let base = base.filter(|it| it.digest != latest.digest)?;
    let before = base.digest?.to_string();
    let mut lists = ByList::<Option<ListNow<'_>>>::default();
    for (list, it) in latest.lists.iter() {
        lists[list] = Some(ListNow {
            digest: it.digest?,
            count: it.count,
            texts: it.texts.as_ref(),
        });
    }
    let store_now = StoreNow {
        salt: &found.salt,
        state: &found.state,
        lists: ByList {
            gray: lists.gray?,
            pre: lists.pre?,
            prod: lists.prod?,
        },
    };
    // What was short can be taken back, whatever there is now: by what is to be read.
    let needs_texts = |list: ListName| {
        let is_long = store_now.lists[list].texts.is_none();
        let before = &base.lists[list];
        is_long && before.texts.is_some() && !store_now.is_same(before, list)
    };
    let is_enough = !ListName::ALL.into_iter().any(needs_texts);
    is_enough.then(|| store_now.since(base, before, now))
}

fn has_digest(seen: &SeenLists, digest: &str) -> bool {
    seen.digest.is_some_and(|it| it.to_string() == digest)
}

/// The digest of these servers, with the gray list of now.
fn digest_of_peers(found: &FoundLists, base: &SeenLists, terms: &ServiceTerms) -> Option<String> {
    let texts = ByList {
        gray: &found.lists.gray.entries,
        pre: base.lists.pre.texts.as_ref()?,
        prod: base.lists.prod.texts.as_ref()?,
    };
    let lists = parsed(texts, found.salt.as_deref(), terms);
    Some(Lists::new(1, lists).digest.to_string())
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
    salt: &'a Option<Vec<u8>>,
    state: &'a Map<String, Value>,
    lists: ByList<ListNow<'a>>,
}

/// A list that there is now.
struct ListNow<'a> {
    digest: Digest,
    count: usize,
    /// None where nobody has them any more.
    texts: Option<&'a Entries>,
}

impl StoreNow<'_> {
    /// The servers of a service are others than they were.
    fn has_other_peers(&self, base: &SeenLists) -> bool {
        let is_other = |list: ListName| {
            let before = base.lists[list].digest;
            before.is_some_and(|it| it != self.lists[list].digest)
        };
        is_other(ListName::Pre) || is_other(ListName::Prod)
    }

    /// What was changed since these lists were there.
    fn since(&self, base: &SeenLists, before: String, after: String) -> Unattributed {
        let mut difference = Vec::new();
        let mut undo = Some(Before {
            stage: self.state.get(STAGE).cloned(),
            ..Before::default()
        });
        for list in ListName::ALL {
            let (before, now) = (&base.lists[list], &self.lists[list]);
            let changed = match (&before.texts, now.texts) {
                _ if self.is_same(before, list) => {
                    // It is too long to be in the record.
                    Some(now.texts.map_or(ChangedList::Same, ChangedList::same))
                }
                (Some(texts), Some(now)) => Some(changed(&mut difference, list, texts, now)),
                _ => {
                    difference.push(format!("- {} of {} entries", list.name(), before.count));
                    difference.push(format!("+ {} of {} entries", list.name(), now.count));
                    None
                }
            };
            match (changed, &mut undo) {
                (Some(changed), Some(undo)) => undo.lists[list] = changed,
                _ => undo = None,
            }
        }
        if let Some(salt) = &base.salt
            && salt != self.salt
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
        before.digest.is_none_or(|it| it == self.lists[list].digest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::ServiceName;

    fn terms() -> ServiceTerms {
        ServiceTerms {
            service: ServiceName::default(),
            gray_of: None,
            shared_by: Vec::new(),
            salt: String::new(),
            peer_port: 80,
            guard_share: 50,
        }
    }

    fn digest(number: u64) -> Digest {
        Digest::parse(&format!("{number:016x}")).unwrap()
    }

    /// What was seen where the gray list, which is too long unless it is `short`, has this digest.
    fn seen(gray: u64, short: Option<&str>) -> SeenLists {
        let peers = |number: u64| SeenList {
            digest: Some(digest(number)),
            count: 1,
            texts: Some(["10.0.0.1"].iter().collect()),
        };
        SeenLists {
            lists: ByList {
                gray: SeenList {
                    digest: Some(digest(gray)),
                    count: 1_000_000 + gray as usize,
                    texts: short.map(|it| [it].iter().collect()),
                },
                pre: peers(1),
                prod: peers(2),
            },
            digest: Some(digest(gray)),
            salt: None,
        }
    }

    fn record(before: u64, after: u64) -> ChangeRecord {
        ChangeRecord {
            before: digest(before).to_string(),
            after: digest(after).to_string(),
            ..ChangeRecord::default()
        }
    }

    fn by_sight(history: Vec<ChangeRecord>, seen: &[SeenLists]) -> Option<[String; 2]> {
        by_sight_since(None, history, seen)
    }

    fn by_sight_since(
        noted: Option<u64>,
        history: Vec<ChangeRecord>,
        seen: &[SeenLists],
    ) -> Option<[String; 2]> {
        let found = FoundLists {
            history,
            ..FoundLists::default()
        };
        let change = unattributed_by_sight(&terms(), &found, (seen, noted))?;
        assert_eq!(change.difference.len(), 2);
        Some([change.before, change.after])
    }

    #[test]
    fn long_lists_need_not_be_read_where_it_was_seen_what_they_are_since_the_last_record() {
        let [one, two, three] = [1, 2, 3].map(|it| seen(it, None));
        let change = |before, after| Some([before, after].map(|it| digest(it).to_string()));
        let both = [one.clone(), two.clone()];
        assert_eq!(by_sight(Vec::new(), &both), change(1, 2));
        assert_eq!(
            by_sight(vec![record(9, 1), record(8, 9)], &both),
            change(1, 2)
        );
        let all = [one.clone(), two.clone(), three];
        assert_eq!(by_sight(vec![record(1, 2)], &all), change(2, 3));
        // Nobody has seen what there was.
        assert_eq!(by_sight(vec![record(8, 9)], &both), None);
        // A verb has found what was seen, and made something else of it.
        assert_eq!(by_sight(vec![record(2, 1)], &both), None);
        assert_eq!(by_sight(vec![record(9, 1), record(2, 9)], &both), None);
        // Or was there before.
        assert_eq!(by_sight(vec![record(9, 1), record(8, 2)], &both), None);
        // But it is known that nobody has said anything since.
        let numbered = |number| ChangeRecord {
            number,
            ..record(2, 1)
        };
        let since = |noted, number| by_sight_since(Some(noted), vec![numbered(number)], &both);
        assert_eq!([since(4, 4), since(4, 5)], [change(1, 2), None]);
        // It is what it was.
        assert_eq!(
            by_sight(Vec::new(), &[one.clone(), two.clone(), one.clone()]),
            None
        );
        // What was short is told in full, and can be taken back.
        let short = seen(7, Some("10.0.0.1"));
        assert_eq!(by_sight(Vec::new(), &[short.clone(), two]), None);
        // A short one is no trouble.
        assert_eq!(by_sight(Vec::new(), &[one, short]), None);
    }
}
