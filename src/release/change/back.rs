//! `rollback` and `undo`: what was there before.

use super::basis::{Edit, STAGE, WantedChange, Work, parsed, parts};
use super::stage::without_share;
use crate::lists::{ByList, ListName, Lists};
use crate::release::history::{Before, ChangeRecord, ChangedList};
use crate::store::Entries;

/// Above this many entries a list is not written anew where some of it will do.
const FEW: usize = 1000;

/// The release is taken back: nobody is gray; or, right after a promotion, by the lists of before.
pub(super) fn rollback(work: &Work<'_>, to: Option<u64>) -> Result<WantedChange, String> {
    if let Some(number) = to {
        return to_number(work, number);
    }
    let last = work.found.history.iter().find(|it| it.is_of_lists());
    if let Some(last) = last
        && last.verb == "promote"
        && last.after == work.lists.digest.to_string()
    {
        return promoted_back(work, last);
    }
    emptied(work)
}

/// The lists of before a promotion, without the share of the release: its clients may have been everybody,
/// and it is what is taken back.
fn promoted_back(work: &Work<'_>, promotion: &ChangeRecord) -> Result<WantedChange, String> {
    let before = kept(promotion)?;
    let mut wanted = WantedChange {
        takes_back: Some(promotion.number),
        ..restored(work, promotion, before)
    };
    let share = before.stage.as_ref().and_then(|it| it["share"].as_str());
    let (Some(share), None) = (share, &work.terms.gray_of) else {
        return Ok(wanted);
    };
    if let Edit::All(new) | Edit::Some { new, .. } = &mut wanted.edits.gray {
        new.retain(|it| it != share.as_bytes());
        if new.is_empty() && work.found.lists.gray.entries.is_empty() {
            wanted.edits.gray = Edit::None;
        }
    }
    if let Some(state) = &mut wanted.state {
        without_share(state);
    }
    let number = promotion.number;
    wanted.notes.push(format!(
        "nobody gets pre by {share}; `graygate rollback --to {number}` brings that as well"
    ));
    Ok(wanted)
}

/// Nobody is gray.
pub(super) fn emptied(work: &Work<'_>) -> Result<WantedChange, String> {
    work.must_own_gray()?;
    let mut wanted = WantedChange {
        notes: standing_promotion(work).into_iter().collect(),
        ..WantedChange::default()
    };
    if work.found.lists.gray.entries.is_empty() {
        let note = "gray is empty: whoever holds these lists gives pre to nobody; `graygate rollback --to N` \
                    takes back what an earlier change has done, by the numbers of `graygate history`";
        wanted.notes.push(note.to_owned());
        return Ok(wanted);
    }
    wanted.edits.gray = Edit::emptied();
    let mut state = work.next_state();
    without_share(&mut state);
    wanted.state = Some(state);
    Ok(wanted)
}

/// That what was promoted stays, where there is no other new version that could be meant; as far back as the
/// history was read.
fn standing_promotion(work: &Work<'_>) -> Option<String> {
    let moves = ["promote", "rollback", "undo"];
    let mut records = work.found.history.iter();
    let last = records.find(|it| it.is_of_lists() && moves.contains(&&*it.verb))?;
    (last.verb == "promote" && work.lists.pre.is_empty()).then(|| {
        format!(
            "prod stays what {} has made it; `graygate rollback --to {}` takes that back, and all that came since",
            last.in_words(),
            last.number
        )
    })
}

/// The last change is taken back, whoever has made it.
pub(super) fn undo(work: &Work<'_>) -> Result<WantedChange, String> {
    let last = work.found.history.iter().find(|it| it.is_of_lists());
    let last = last.ok_or("the history has no change: there is nothing to undo")?;
    if last.after != work.lists.digest.to_string() {
        return Err(format!(
            "the lists were changed by hand after {}; `graygate rollback --to {}` has them as they were before it",
            last.in_words(),
            last.number
        ));
    }
    let before = kept(last)?;
    Ok(WantedChange {
        takes_back: Some(last.number),
        ..restored(work, last, before)
    })
}

/// What a record keeps of the lists of before.
fn kept(record: &ChangeRecord) -> Result<&Before, String> {
    let before = record.undo.as_ref();
    before.ok_or_else(|| {
        let which = record.in_words();
        format!("the history does not have the lists of before {which}")
    })
}

fn said(record: &ChangeRecord) -> Vec<String> {
    vec![format!("as before {}", record.in_words())]
}

/// The lists, the salt and the share as they were before the last change.
fn restored(work: &Work<'_>, record: &ChangeRecord, before: &Before) -> WantedChange {
    let edits = ByList::from_fn(|list| match &before.lists[list] {
        ChangedList::All(entries) => whole(work, list, entries),
        ChangedList::Some { gone, come } => Edit::Some {
            gone: bytes(come),
            new: bytes(gone),
        },
        ChangedList::Same => Edit::None,
    });
    finished(work, edits, before.salt.clone(), before, said(record))
}

fn bytes(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().map(|it| it.as_bytes().to_vec()).collect()
}

/// A list has these entries again, unless it has them already.
fn whole(work: &Work<'_>, list: ListName, entries: &[String]) -> Edit {
    let new: Entries = entries.iter().collect();
    let old = &work.found.lists[list];
    let is_same = match old.is_set {
        // Its order means nothing.
        true => {
            let sorted = |entries: &Entries| {
                let mut all: Vec<Vec<u8>> = entries.into_iter().map(<[u8]>::to_vec).collect();
                all.sort_unstable();
                all
            };
            sorted(&old.entries) == sorted(&new)
        }
        false => old.entries == new,
    };
    match is_same {
        true => Edit::None,
        false => Edit::All(bytes(entries)),
    }
}

fn finished(
    work: &Work<'_>,
    edits: ByList<Edit>,
    salt: Option<Option<String>>,
    before: &Before,
    notes: Vec<String>,
) -> WantedChange {
    let mut wanted = WantedChange {
        edits,
        notes,
        ..WantedChange::default()
    };
    let salt = salt.map(|it| it.map(String::into_bytes));
    if let Some(salt) = salt.filter(|it| *it != work.found.salt) {
        wanted.salt = Some(salt);
        wanted.more.push("+ salt the one of before".to_owned());
    }
    let mut state = work.next_state();
    match &before.stage {
        Some(stage) => state.insert(STAGE.to_owned(), stage.clone()),
        None => state.remove(STAGE),
    };
    wanted.state = Some(state);
    wanted
}

/// The lists of before a change, whatever has come since.
fn to_number(work: &Work<'_>, number: u64) -> Result<WantedChange, String> {
    let history = &work.found.history;
    let at = history.iter().position(|it| it.number == number);
    let at = at.ok_or_else(|| no_such(history, number))?;
    let record = &history[at];
    let rewound = Rewound::by(work, &history[..=at]);
    let before = match &record.undo {
        // It was not about lists.
        None if !record.is_of_lists() => &Before {
            stage: work.found.state.get(STAGE).cloned(),
            ..Before::default()
        },
        _ => kept(record)?,
    };
    rewound.must_be_known(work, record)?;
    let edits = ByList::from_fn(|list| as_edit(work, list, &rewound.lists[list]));
    let notes = said(record);
    Ok(finished(work, edits, rewound.salt, before, notes))
}

fn no_such(history: &[ChangeRecord], number: u64) -> String {
    let has = match (history.last(), history.first()) {
        (Some(oldest), Some(newest)) => format!("it has {} to {}", oldest.number, newest.number),
        _ => "it is empty".to_owned(),
    };
    format!("the history has no change {number}; {has}")
}

/// What the lists become when changes are taken back, the newest first.
struct Rewound<'a> {
    lists: ByList<Entries>,
    /// The salt, if it was changed.
    salt: Option<Option<String>>,
    /// The last of the changes has all that was there before it.
    is_whole: bool,
    /// The last change that does not know what was there before, and of which list that is known still.
    gap: Option<&'a ChangeRecord>,
    are_known: ByList<bool>,
}

impl<'a> Rewound<'a> {
    fn by(work: &Work<'_>, changes: &'a [ChangeRecord]) -> Self {
        let mut rewound = Self {
            lists: work.found.lists.as_ref().map(|it| it.entries.clone()),
            salt: None,
            is_whole: false,
            gap: None,
            are_known: ByList::all(true),
        };
        for change in changes {
            match &change.undo {
                Some(before) => rewound.take_back(before),
                // A record that does not know what was there before says nothing of what was changed by it.
                None if change.is_of_lists() => {
                    (rewound.are_known, rewound.gap) = (ByList::all(false), Some(change));
                }
                None => {}
            }
        }
        rewound
    }

    fn take_back(&mut self, before: &Before) {
        if let Some(salt) = &before.salt {
            self.salt = Some(salt.clone());
        }
        for list in ListName::ALL {
            match &before.lists[list] {
                ChangedList::All(entries) => {
                    (self.lists[list], self.are_known[list]) = (entries.iter().collect(), true);
                }
                ChangedList::Some { gone, come } => {
                    let edit = Edit::Some {
                        gone: bytes(come),
                        new: bytes(gone),
                    };
                    self.lists[list] = edit.apply(&self.lists[list]);
                }
                ChangedList::Same => {}
            }
        }
        self.is_whole = before.is_whole();
    }

    /// That this is what was there before the last of the changes, or why that is not known.
    fn must_be_known(&self, work: &Work<'_>, last: &ChangeRecord) -> Result<(), String> {
        if let Some(gap) = self.gap
            && self.are_known.iter().any(|(_, it)| !it)
        {
            kept(gap)?;
        }
        if self.is_whole && self.gap.is_none() {
            return Ok(());
        }
        let salt = match &self.salt {
            Some(salt) => salt.as_deref().map(str::as_bytes),
            None => work.found.salt.as_deref(),
        };
        let lists = parsed(self.lists.as_ref(), salt, work.terms);
        match Lists::new(1, lists).digest.to_string() == last.before {
            true => Ok(()),
            false => Err(format!(
                "the history does not have the lists of before {}: they were changed by hand since",
                last.in_words()
            )),
        }
    }
}

/// What makes a list have these entries.
fn as_edit(work: &Work<'_>, list: ListName, entries: &Entries) -> Edit {
    let old = &work.found.lists[list].entries;
    let texts = || -> Vec<String> {
        let texts = entries.into_iter();
        texts
            .map(|it| String::from_utf8_lossy(it).into_owned())
            .collect()
    };
    if old.len().min(entries.len()) <= FEW {
        return whole(work, list, &texts());
    }
    let all = Edit::All(entries.into_iter().map(<[u8]>::to_vec).collect());
    let [gone, new] = parts(&all, old, entries);
    if gone.is_empty() && new.is_empty() {
        return Edit::None;
    }
    let owned = |texts: Vec<&[u8]>| texts.into_iter().map(<[u8]>::to_vec).collect();
    Edit::Some {
        gone: owned(gone),
        new: owned(new),
    }
}
