//! What all gateways had, beside what Redis had.

use std::time::Duration;

use super::model::{InForceSeen, ListsSeen};
use super::watch::{Spell, Timeline};
use super::world::StoreSeen;

/// What Redis has is in force so soon, on a busy machine: far above what it takes.
const SOON: Duration = Duration::from_secs(3);

/// The shares in the order in which they were there, in hundredths of a percent.
pub(crate) fn shares(timeline: &[Spell<ListsSeen>]) -> Vec<u64> {
    timeline.iter().map(|it| it.seen.share()).collect()
}

/// The changes of the lists alone.
fn lists<T>(timeline: &[Spell<T>], lists: impl Fn(&T) -> &ListsSeen) -> Timeline<ListsSeen> {
    let mut all: Timeline<ListsSeen> = Vec::new();
    for spell in timeline {
        let seen = lists(&spell.seen);
        if all.last().is_none_or(|it| it.seen != *seen) {
            all.push(Spell {
                seen: seen.clone(),
                not_before: spell.not_before,
                surely: spell.surely,
            });
        }
    }
    all
}

/// Each list is as it was before or after the change.
fn is_between(seen: &ListsSeen, before: &ListsSeen, after: &ListsSeen) -> bool {
    [before, after].iter().any(|it| it.gray == seen.gray)
        && [before, after].iter().any(|it| it.pre == seen.pre)
        && [before, after].iter().any(|it| it.prod == seen.prod)
}

/// Each gateway has had what Redis has had, in the same order, not before it, and soon: what that was.
#[track_caller]
pub(crate) fn check(
    gateways: &[Timeline<InForceSeen>],
    store: &[Spell<StoreSeen>],
) -> Timeline<ListsSeen> {
    let store = lists(store, |it| &it.lists);
    for (number, of_gateway) in gateways.iter().enumerate() {
        let own = lists(of_gateway, |it: &InForceSeen| &it.lists);
        let mut rest = own.iter().peekable();
        assert_eq!(rest.next().unwrap().seen, store[0].seen, "gateway {number}");
        for pair in store.windows(2) {
            let [before, after] = pair else {
                unreachable!()
            };
            // Where some of it has to be accepted, or to stand, it comes bit by bit.
            while let Some(it) = rest.next_if(|it| it.seen != after.seen) {
                let is_between = is_between(&it.seen, &before.seen, &after.seen);
                assert!(
                    is_between,
                    "gateway {number}: {it:?} on the way to {after:?}"
                );
            }
            let Some(it) = rest.next() else {
                panic!("gateway {number} has never had {after:?}");
            };
            let late = it.not_before.saturating_duration_since(after.surely);
            let is_soon = it.surely >= after.not_before && late < SOON;
            assert!(
                is_soon,
                "gateway {number}, after {late:?}: {it:?} {after:?}"
            );
        }
        assert!(rest.next().is_none(), "gateway {number}: {own:#?}");
    }
    store
}

/// What each gateway had, as if each change had come at once: at some moment between the change in Redis and
/// the end of it here.
pub(crate) fn whole(
    gateways: &[Timeline<InForceSeen>],
    steps: &[Spell<ListsSeen>],
) -> Vec<Timeline<InForceSeen>> {
    let of_gateway = |timeline: &Timeline<InForceSeen>| {
        let own = lists(timeline, |it| &it.lists);
        let mut own = own.iter();
        let spells = steps.iter().map(|step| Spell {
            seen: InForceSeen {
                lists: step.seen.clone(),
                is_tripped: false,
            },
            not_before: step.not_before,
            surely: own.find(|it| it.seen == step.seen).unwrap().surely,
        });
        spells.collect()
    };
    gateways.iter().map(of_gateway).collect()
}
