//! What every kind of list can say of itself, and what follows for one of them at the door: whether it can be
//! used as it was read, passes its gate, has yet to settle, or waits for others.

use std::sync::Arc;

use super::guard::{Gate, GuardRules, Guarded, Timestamp};
use crate::lists::{GrayList, PeerList, ServiceName, Skipped};
use crate::store::Fault;

/// What every kind of list can say about its entries.
pub(super) trait Listed: Sized {
    fn is_empty(&self) -> bool;
    fn skipped(&self) -> &Skipped;
    fn with_skipped_of(&self, other: &Self) -> Self;
}

impl Listed for GrayList {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn skipped(&self) -> &Skipped {
        self.skipped()
    }

    fn with_skipped_of(&self, other: &Self) -> Self {
        self.with_skipped_of(other)
    }
}

impl Listed for PeerList {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn skipped(&self) -> &Skipped {
        self.skipped()
    }

    fn with_skipped_of(&self, other: &Self) -> Self {
        self.with_skipped_of(other)
    }
}

/// The value of a guarded list from now on, and the fault for which it keeps its old one, if any.
pub(super) fn pass<L: Guarded + Listed>(
    gate: &mut Gate<L>,
    rules: Option<GuardRules>,
    in_force: &Arc<L>,
    read: Result<Arc<L>, Fault>,
    now: Timestamp,
) -> (Arc<L>, Option<Fault>) {
    match legible(in_force, read) {
        Ok(list) => {
            let passed = match rules {
                None => Some(list),
                Some(rules) => gate.judge(rules, in_force, list, now),
            };
            (passed.unwrap_or_else(|| Arc::clone(in_force)), None)
        }
        Err((kept, fault)) => {
            gate.doubt();
            (kept, Some(fault))
        }
    }
}

/// True when a list that is `in_force` has no entries any more.
pub(super) fn becomes_empty<L: Listed>(
    (in_force, read): (&Arc<L>, &Result<Arc<L>, Fault>),
) -> bool {
    let is_empty = |it: &Arc<L>| it.is_empty() && it.skipped().count == 0;
    !in_force.is_empty() && read.as_ref().is_ok_and(is_empty)
}

/// A list that was read, unless it is unsettled.
pub(super) fn if_settled<L>((read, is_unsettled): (Result<L, Fault>, bool)) -> Result<L, Fault> {
    match is_unsettled {
        true => Err(Fault::Unsettled),
        false => read,
    }
}

/// Keeps the `current` list instead of a `new` one that differs and has no fault of its own.
pub(super) fn keep_back<L: Guarded>(
    ((new, current), fault): ((&mut Arc<L>, &Arc<L>), &mut Option<Fault>),
) -> Option<Arc<L>> {
    let keeps = fault.is_none() && is_other(&**new, &**current);
    keeps.then(|| {
        *fault = Some(Fault::Withheld);
        std::mem::replace(new, Arc::clone(current))
    })
}

/// The list that was `withheld`, if any, otherwise the `current` one.
pub(super) fn over<L>((current, withheld): (Arc<L>, Option<Arc<L>>)) -> Arc<L> {
    withheld.unwrap_or(current)
}

/// Takes the change that a gate of this service holds, by the digest as it is displayed.
pub(super) fn accept<L: Guarded>(
    gate: &mut Gate<L>,
    service: &ServiceName,
    digest: &str,
) -> Option<Arc<L>> {
    if service.is_default() {
        return gate.accept(digest);
    }
    let content = gate.held()?.digest;
    let is_meant = content.of_service(service).to_string() == digest;
    is_meant
        .then(|| gate.accept(&content.to_string()))
        .flatten()
}

pub(super) fn is_other<L: Guarded>(one: &L, other: &L) -> bool {
    one.digest() != other.digest()
}

/// The list that was read, or the one that is kept in its place, with what is wrong.
pub(super) fn legible<L: Listed>(
    in_force: &Arc<L>,
    read: Result<Arc<L>, Fault>,
) -> Result<Arc<L>, (Arc<L>, Fault)> {
    match read {
        // The old list is kept, but with what is wrong with the new entries.
        Ok(list) if list.is_empty() && list.skipped().count > 0 => {
            Err((Arc::new(in_force.with_skipped_of(&list)), Fault::AllSkipped))
        }
        Ok(list) => Ok(list),
        Err(fault) => Err((Arc::clone(in_force), fault)),
    }
}
