//! An account of what the store had, from which is told what was changed by hand.

use crate::release::change::{
    FoundLists, ServiceTerms, Unattributed, unattributed, unattributed_by_sight,
};
use crate::release::history::{ChangeRecord, UNATTRIBUTED, next_number};
use crate::release::state::now;
use crate::store::SeenLists;

/// What the store had, as far as the history may not know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenAccount<'a> {
    /// The lists as they came, the earliest first.
    pub(crate) seen: &'a [SeenLists],
    /// There was a history.
    pub(crate) had_history: bool,
    /// The last record then, if that was looked at.
    pub(crate) noted: Option<u64>,
    /// Its turn has come to read lists that are too long to be remembered.
    pub(crate) may_read: bool,
}

/// What has come of noting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noting {
    /// The history ends with what is there: with the record of this number.
    Known(u64),
    /// There is no history, and nothing was changed.
    Nothing,
    /// It does now; with the record of this number.
    Written(u64),
    /// Nobody has changed anything: the store has lost its data.
    Lost,
    /// Somebody is at it right now.
    Again,
    /// Long lists have to be read for it: by one gateway after the other.
    MustRead,
}

/// Why nothing could be noted; each in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotNoted {
    /// It is not allowed, or cannot be done there.
    Refused(String),
    /// The store does not answer.
    Away(String),
}

/// With at least so many entries it takes long to read a list, and gateways do so one after the other.
const MANY: usize = 50_000;

impl SeenAccount<'_> {
    /// A list is too long to be remembered.
    pub(super) fn is_long(&self) -> bool {
        self.seen.last().is_some_and(SeenLists::is_long)
    }

    /// It takes long to read the lists, and others may be at it.
    pub(super) fn waits_for_turn(&self) -> bool {
        let mut lists = self.seen.last().into_iter().flat_map(|it| it.lists.iter());
        !self.may_read && lists.any(|(_, it)| it.count >= MANY)
    }

    /// What there is to say without a look at the lists, where the history has this `last` record.
    pub(super) fn at_once(&self, last: Option<&ChangeRecord>) -> Option<Noting> {
        let latest = self.seen.last().and_then(|it| it.digest);
        match (last, latest) {
            (Some(last), Some(digest)) if last.after == digest.to_string() => {
                Some(Noting::Known(last.number))
            }
            // Whoever empties lists by hand leaves the history as it is.
            (None, _) if self.had_history || self.seen.iter().any(SeenLists::are_empty) => {
                Some(Noting::Lost)
            }
            _ => None,
        }
    }
}

/// The record of what was changed by hand, where what was seen says so, and the rest that was `found`.
pub(super) fn by_hand_by_sight(
    terms: &ServiceTerms,
    found: &FoundLists,
    account: &SeenAccount<'_>,
) -> Option<ChangeRecord> {
    let change = unattributed_by_sight(terms, found, (account.seen, account.noted))?;
    let number = next_number(found.history.first().map_or(0, |it| it.number));
    Some(record_by_hand(terms, number, change))
}

/// The record of what was changed by hand until this was `found`; or what there is to say of it otherwise.
pub(super) fn by_hand_until(
    terms: &ServiceTerms,
    found: &FoundLists,
    account: &SeenAccount<'_>,
) -> Result<ChangeRecord, Noting> {
    let last = found.history.first();
    if let Some(noting) = account.at_once(last) {
        return Err(noting);
    }
    let change = unattributed(terms, found, account.seen);
    let number = next_number(last.map_or(0, |it| it.number));
    let record = change.map(|it| record_by_hand(terms, number, it));
    record.ok_or(match last {
        Some(last) => Noting::Known(last.number),
        None => Noting::Nothing,
    })
}

/// The record of a change that nobody has put his name to.
pub(super) fn record_by_hand(
    terms: &ServiceTerms,
    number: u64,
    change: Unattributed,
) -> ChangeRecord {
    ChangeRecord {
        number,
        id: format!("{:016x}", fastrand::u64(..)),
        at: now(),
        verb: UNATTRIBUTED.to_owned(),
        service: terms.service.to_string(),
        before: change.before,
        after: change.after,
        difference: change.difference,
        undo: change.undo,
        ..ChangeRecord::default()
    }
}
