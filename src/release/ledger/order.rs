//! What is to be done, for whom, and what whoever asks for it says to what it comes to.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::release::change::{
    self, Drawn, FoundLists, ListsChange, ServiceTerms, Unattributed, Verb,
};
use crate::release::history::{ChangeRecord, next_number};
use crate::release::ledger::account::record_by_hand;
use crate::release::rollout::Renewal;
use crate::release::state::{now, readable};

/// What is to be done, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) verb: Verb,
    pub(crate) by: String,
    pub(crate) reason: Option<String>,
    /// What no other record has.
    pub(super) id: String,
    drawn: Drawn,
}

impl Order {
    pub(crate) fn new(verb: Verb, by: String, reason: Option<String>) -> Self {
        let digits = || format!("{:016x}", fastrand::u64(..));
        let drawn = Drawn {
            now: SystemTime::now(),
            epoch: digits(),
            salt: digits(),
            by: by.clone(),
            at: now(),
            reason: reason.clone(),
        };
        Self {
            verb,
            by,
            reason,
            id: digits(),
            drawn,
        }
    }

    /// The record of a change of these lists.
    pub(super) fn record(
        &self,
        change: &ListsChange,
        terms: &ServiceTerms,
        number: u64,
    ) -> ChangeRecord {
        ChangeRecord {
            number,
            id: self.id.clone(),
            at: now(),
            by: change.by.clone().unwrap_or_else(|| self.by.clone()),
            verb: change.verb.unwrap_or(self.verb.name()).to_owned(),
            reason: change.reason.clone().or_else(|| self.reason.clone()),
            service: terms.service.to_string(),
            difference: change.difference.clone(),
            before: change.before.to_string(),
            after: change.after.to_string(),
            confirmed: change.confirmed.iter().map(ToString::to_string).collect(),
            is_aside: false,
            undo: Some(change.undo.clone()),
        }
    }
}

/// The record of what was changed without a verb since the `last` one, if the lists are others than it left.
pub(super) fn by_hand(
    last: Option<&ChangeRecord>,
    change: &ListsChange,
    terms: &ServiceTerms,
) -> Option<ChangeRecord> {
    let (last, found) = (last?, change.before.to_string());
    (last.after != found).then(|| {
        let before = last.after.clone();
        let mut unseen = Unattributed::unseen(before, found);
        if let Some(owner) = &terms.gray_of {
            let line = format!("gray is that of {owner}, whose history says who has changed that");
            unseen.difference.push(line);
        }
        record_by_hand(terms, next_number(last.number), unseen)
    })
}

/// What whoever asks for a change says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Write it.
    Yes,
    /// Leave it.
    No,
}

/// Hears whoever asks for a change, about what it comes to. The error is one line.
pub(crate) type Hear<'a> = &'a mut dyn FnMut(&ListsChange) -> Result<Consent, String>;

/// What is to be written by whoever looks at the state of a release alone.
#[derive(Clone, Debug)]
pub(crate) enum TendedState {
    /// Nothing.
    Kept,
    /// It is to be this one.
    Changed(Map<String, Value>),
    /// Beside it, that a lease was renewed.
    Renewed(Renewal),
}

/// What is made of the state of a release.
pub(crate) type Tend<'a> = &'a mut dyn FnMut(&Map<String, Value>) -> TendedState;

/// What was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) change: ListsChange,
    /// Its number in the history, if it was written.
    pub(crate) number: Option<u64>,
    /// What there is to say besides.
    pub(crate) notes: Vec<String>,
}

/// What the order makes of what was found, and what whoever gave it says to that.
pub(super) fn heard(
    order: &Order,
    terms: &ServiceTerms,
    found: &FoundLists,
    hear: Hear<'_>,
) -> Result<(ListsChange, Consent), String> {
    let change = change::make(&order.verb, terms, found, &order.drawn)?;
    if change.is_none() {
        return Ok((change, Consent::No));
    }
    if let Some(state) = &change.state {
        readable(&found.state, state)?;
    }
    let answer = hear(&change)?;
    Ok((change, answer))
}
