//! What a verb makes of the lists of a service: the texts of a store in, what is to be written out. Pure.
//!
//! A change is made of texts, so that what it does not concern stays as it was written, in its order. It is
//! judged by what gateways read in them: an entry in another spelling is the same entry, and a change that
//! the guard of the gateways would hold is to be confirmed by whoever asks for it.
//!
//! Not here: where lists are kept, clocks and chance, and who is asked.

mod back;
mod basis;
mod entries;
mod promote;
mod rollout;
mod stage;
mod unattributed;

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::fleet::plain::printable;
use crate::fleet::release::ReleaseTurn;
use crate::lists::{ByList, Digest, ListName, ListedPeer, Lists, PoolName};
use crate::release::history::{Before, ChangedList};
use crate::release::rollout::{Course, rollout_in};
use crate::release::state::ReleaseState;
use crate::store::Entries;
use crate::store::gate::guard::{Guarded, HoldReason};

pub(crate) use self::basis::{Drawn, Edit, FoundList, FoundLists, ServiceTerms, frozen, parsed};
use self::basis::{FROZEN, RESET, SETS, STAGE, WantedChange, Work, parts};
pub(crate) use self::rollout::{LeaderWord, RolloutPlan, RolloutVerb, step_in_words, steps};
pub(crate) use self::stage::{ShareBy, share};
pub(crate) use self::unattributed::{Unattributed, unattributed, unattributed_by_sight};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// These entries are gray.
    Admit(Vec<String>),
    /// These are no entries of the gray list.
    Remove(Vec<String>),
    /// The share of the release, in hundredths of a percent; and by what it is told who is in it, if that is
    /// said.
    Stage(u16, Option<ShareBy>),
    /// `prod` is what `pre` is; `pre` is nothing, or what `prod` was.
    Promote {
        /// The latter.
        swap: bool,
        /// Whatever speaks against it.
        force: bool,
    },
    /// The release is taken back; or the lists are what they were before a change.
    Rollback(Option<u64>),
    /// The last change is taken back.
    Undo,
    /// Nobody changes anything.
    Freeze,
    /// Everybody may again.
    Thaw,
    /// What was taken back may be tried again, and its evidence begins anew.
    Reset,
    /// The share grows by itself.
    Rollout(RolloutVerb),
}

impl Verb {
    /// As it is written.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Admit(_) => "admit",
            Self::Remove(_) => "remove",
            Self::Stage(..) => "stage",
            Self::Promote { .. } => "promote",
            Self::Rollback(_) => "rollback",
            Self::Undo => "undo",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Reset => "reset",
            Self::Rollout(_) => "rollout",
        }
    }

    /// It makes lists what they are to be, and nothing else.
    pub(crate) const fn is_of_lists(&self) -> bool {
        matches!(
            self,
            Self::Admit(_)
                | Self::Remove(_)
                | Self::Stage(..)
                | Self::Promote { .. }
                | Self::Rollback(_)
                | Self::Undo
        )
    }

    /// How much of the history it has to know.
    pub(crate) const fn needs_back_to(&self) -> BackTo {
        match self {
            Self::Rollback(Some(number)) => BackTo::Number(*number),
            Self::Undo | Self::Rollback(None) => BackTo::Change,
            _ => BackTo::Last,
        }
    }
}

/// How far back the history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackTo {
    /// The last record.
    Last,
    /// The last that is about lists.
    Change,
    /// The one of this number.
    Number(u64),
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct ListsChange {
    pub(crate) edits: ByList<Edit>,
    /// The list is written as a set, if at all.
    pub(crate) are_sets: ByList<bool>,
    pub(crate) salt: Option<Option<Vec<u8>>>,
    pub(crate) state: Option<Map<String, Value>>,
    /// Nothing is taken back any more.
    pub(crate) untrips: bool,
    /// What goes (`-`) and what comes (`+`), in lines.
    pub(crate) difference: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// Why it is to be confirmed, in lines.
    pub(crate) asks: Vec<String>,
    /// The digests by which gateways let in at once what their guard would hold, or what would have to
    /// settle.
    pub(crate) accept: Vec<Digest>,
    /// The same where gateways would hold some of it otherwise, so that somebody has confirmed it.
    pub(crate) confirmed: Vec<Digest>,
    /// The digests of the lists before and after.
    pub(crate) before: Digest,
    pub(crate) after: Digest,
    /// What undoes it.
    pub(crate) undo: Before,
    /// What becomes of the release, as gateways hold it.
    pub(crate) turn: ReleaseTurn,
    /// As which verb it is in the history, and why, where the order does not say so.
    pub(crate) verb: Option<&'static str>,
    pub(crate) reason: Option<String>,
    /// Who it is in the history, where that is not whoever has ordered it.
    pub(crate) by: Option<String>,
    /// The number of the change that it takes back, where the order does not say which.
    pub(crate) takes_back: Option<u64>,
}

impl ListsChange {
    /// True when there is nothing to be done.
    pub(crate) fn is_none(&self) -> bool {
        let edits = self.edits.iter().all(|(_, it)| *it == Edit::None);
        edits && self.salt.is_none() && self.state.is_none() && !self.untrips
    }
}

/// True if a list that is not there was a set, as the state of the release has it.
pub(crate) fn was_set(state: &Map<String, Value>, list: ListName) -> bool {
    let sets = state.get(SETS).and_then(Value::as_array);
    sets.is_some_and(|all| all.iter().any(|it| it.as_str() == Some(list.name())))
}

/// What this verb makes of what was found.
///
/// # Errors
/// One line: why it is refused.
pub(crate) fn make(
    verb: &Verb,
    terms: &ServiceTerms,
    found: &FoundLists,
    drawn: &Drawn,
) -> Result<ListsChange, String> {
    if let Some(frozen) = frozen(&found.state)
        && *verb != Verb::Thaw
        // It has to know that, and changes no lists then.
        && !matches!(verb, Verb::Rollout(RolloutVerb::CarryOn(_)))
    {
        return Err(format!("{frozen}; `graygate thaw` ends that"));
    }
    let texts = found.lists.as_ref().map(|it| &it.entries);
    let work = Work {
        terms,
        found,
        lists: Lists::new(1, parsed(texts, found.salt.as_deref(), terms)),
        drawn,
    };
    let mut wanted = match verb {
        Verb::Admit(entries) => entries::admit(&work, entries)?,
        Verb::Remove(entries) => entries::remove(&work, entries)?,
        Verb::Stage(share, by) => stage::stage(&work, *share, by.as_ref())?,
        Verb::Promote { swap, force } => promote::promote(&work, *swap, *force)?,
        Verb::Rollback(to) => back::rollback(&work, *to)?,
        Verb::Undo => back::undo(&work)?,
        Verb::Freeze => freeze(&work),
        Verb::Thaw => thaw(&work),
        Verb::Reset => reset(&work),
        Verb::Rollout(verb) => rollout::rollout(&work, verb)?,
    };
    if needs_another_version(verb) && has_same_servers(&work.lists) {
        wanted.asks.push(SAME_SERVERS.to_owned());
    }
    match verb {
        Verb::Promote { .. } => rollout::ended(&work, &mut wanted, Course::Done, "promoted"),
        Verb::Rollback(_) => rollout::ended(&work, &mut wanted, Course::Aborted, "rolled back"),
        Verb::Stage(..) => rollout::note_share(&work, &mut wanted),
        _ => {}
    }
    Ok(judged(work, wanted))
}

/// Where `pre` is `prod`, whoever compares the two finds nothing, and nobody gets anything else.
const SAME_SERVERS: &str = "pre has the very servers of prod, so there is no other version: \
                            give it servers or ports of its own";

/// True where the verb makes no sense without one.
fn needs_another_version(verb: &Verb) -> bool {
    match verb {
        Verb::Stage(share, _) => *share > 0,
        Verb::Promote { .. } | Verb::Rollout(RolloutVerb::Start(_)) => true,
        _ => false,
    }
}

fn has_same_servers(lists: &Lists) -> bool {
    let places = |pool: PoolName| lists.pool(pool).peers().iter().map(ListedPeer::place);
    !lists.pre.is_empty() && places(PoolName::Pre).eq(places(PoolName::Prod))
}

fn freeze(work: &Work<'_>) -> WantedChange {
    let Drawn { by, at, reason, .. } = work.drawn;
    let mut state = work.found.state.clone();
    // Gateways that have not got these lists yet take them, and no more.
    let lists = work.lists.digest.of_service(&work.terms.service);
    let lists = lists.to_string();
    let frozen = json!({ "by": by, "at": at, "reason": reason, "lists": lists });
    state.insert(FROZEN.to_owned(), frozen);
    let owner = work.terms.gray_of.iter();
    let of_owner = |it| format!("gray is the list of {it}, and is frozen by --service {it} alone");
    WantedChange {
        state: Some(state),
        more: vec!["+ frozen".to_owned()],
        notes: owner.map(of_owner).collect(),
        ..WantedChange::default()
    }
}

fn thaw(work: &Work<'_>) -> WantedChange {
    let mut state = work.found.state.clone();
    if state.remove(FROZEN).is_none() {
        return WantedChange {
            notes: vec!["the lists are not frozen".to_owned()],
            ..WantedChange::default()
        };
    }
    let is_paused = rollout_in(&state).is_some_and(|it| it.course == Course::Paused);
    let note = "the rollout stays paused; `graygate rollout resume` has it go on";
    WantedChange {
        state: Some(state),
        more: vec!["- frozen".to_owned()],
        notes: is_paused.then(|| note.to_owned()).into_iter().collect(),
        ..WantedChange::default()
    }
}

fn reset(work: &Work<'_>) -> WantedChange {
    let Drawn {
        epoch,
        by,
        at,
        reason,
        ..
    } = work.drawn;
    let mut state = work.next_state();
    // So that gateways can say who it was.
    let note = json!({ "epoch": epoch, "at": at, "by": by, "reason": reason });
    state.insert(RESET.to_owned(), note);
    let untrips = work.found.tripped.is_some();
    let mut more = vec![format!("+ epoch {epoch}")];
    let mut notes = Vec::new();
    match (untrips, work.trip()) {
        (true, trip) => {
            more.insert(0, "- tripped".to_owned());
            notes.extend(trip);
        }
        (false, _) => notes.push("nothing was taken back; evidence begins anew".to_owned()),
    }
    WantedChange {
        state: Some(state),
        untrips,
        more,
        notes,
        ..WantedChange::default()
    }
}

/// What is wanted, with all that follows from it.
fn judged(work: Work<'_>, wanted: WantedChange) -> ListsChange {
    let Work {
        terms,
        found,
        lists: old,
        drawn: Drawn { now, .. },
    } = work;
    let after = ByList::from_fn(|list| wanted.edits[list].apply(&found.lists[list].entries));
    let salt = match &wanted.salt {
        None => found.salt.as_deref(),
        Some(salt) => salt.as_deref(),
    };
    let is_same = wanted.edits.iter().all(|(_, it)| *it == Edit::None) && wanted.salt.is_none();
    let new = match is_same {
        true => old.clone(),
        false => Lists::new(2, parsed(after.as_ref(), salt, terms)),
    };
    let (objections, accept) = held(terms, (&old, &new), *now);
    let confirmed = match objections.is_empty() {
        true => Vec::new(),
        false => accept.clone(),
    };
    let (mut difference, undo) = compared(found, &wanted, &after);
    let state = with_sets(wanted.state, found, &wanted.edits, &after);
    let turn = turn(&found.state, state.as_ref());
    difference.extend(wanted.more);
    ListsChange {
        edits: wanted.edits,
        are_sets: ByList::from_fn(|list| found.lists[list].is_set),
        salt: wanted.salt,
        state,
        untrips: wanted.untrips,
        difference,
        notes: wanted.notes,
        asks: wanted.asks.into_iter().chain(objections).collect(),
        accept,
        confirmed,
        before: old.digest,
        after: new.digest,
        undo,
        turn,
        verb: wanted.verb,
        reason: wanted.reason,
        by: wanted.by,
        takes_back: wanted.takes_back,
    }
}

/// What the guard of the gateways would hold of it, in words; and the digests that let it in at once.
fn held(
    terms: &ServiceTerms,
    (old, new): (&Lists, &Lists),
    now: SystemTime,
) -> (Vec<String>, Vec<Digest>) {
    let (mut objections, mut accept) = (Vec::new(), Vec::new());
    let of_prod = Guarded::objection(&*old.prod, &*new.prod, terms.guard_share, now);
    if let Some(reason) = of_prod {
        accept.push(Guarded::digest(&*new.prod).of_service(&terms.service));
        objections.push(in_words(ListName::Prod, reason).to_owned());
    }
    let of_gray = Guarded::objection(&*old.gray, &*new.gray, terms.guard_share, now);
    if let Some(reason) = of_gray.filter(|_| terms.gray_of.is_none()) {
        accept.push(Guarded::digest(&*new.gray).of_service(&terms.service));
        objections.push(in_words(ListName::Gray, reason).to_owned());
    }
    if old.digest != new.digest {
        // As a whole, these lists are meant: nothing has to settle.
        accept.push(new.digest.of_service(&terms.service));
    }
    (objections, accept)
}

/// What goes from the lists and what comes to them, in lines; and what undoes that.
fn compared(
    found: &FoundLists,
    wanted: &WantedChange,
    after: &ByList<Entries>,
) -> (Vec<String>, Before) {
    let mut undo = Before {
        salt: (wanted.salt.is_some()).then(|| {
            let salt = found.salt.as_deref();
            salt.map(|it| String::from_utf8_lossy(it).into_owned())
        }),
        stage: found.state.get(STAGE).cloned(),
        ..Before::default()
    };
    let mut lines = Vec::new();
    for list in ListName::ALL {
        let (before, after) = (&found.lists[list].entries, &after[list]);
        if wanted.edits[list] == Edit::None {
            undo.lists[list] = ChangedList::same(before);
            continue;
        }
        let [gone, come] = parts(&wanted.edits[list], before, after);
        tell(&mut lines, list, '-', &gone);
        tell(&mut lines, list, '+', &come);
        undo.lists[list] = ChangedList::of(before, &gone, &come);
    }
    (lines, undo)
}

/// What gateways hold of a release that was in this state, and is in the next one, if there is one.
fn turn(before: &Map<String, Value>, next: Option<&Map<String, Value>>) -> ReleaseTurn {
    let held = |it: &Map<String, Value>| ReleaseState::of_json(&Value::Object(it.clone())).held();
    let before = held(before);
    let after = next.map_or_else(|| before.clone(), held);
    ReleaseTurn { before, after }
}

/// A key that has no entries has no type either: what it was is noted in the state.
fn with_sets(
    wanted: Option<Map<String, Value>>,
    found: &FoundLists,
    edits: &ByList<Edit>,
    after: &ByList<Entries>,
) -> Option<Map<String, Value>> {
    let is_empty_set = |list: &ListName| {
        let is_set = found.lists[*list].is_set;
        is_set && after[*list].is_empty()
    };
    let sets: Vec<&str> = ListName::ALL
        .iter()
        .filter(|it| is_empty_set(it))
        .map(|it| it.name())
        .collect();
    let are_known = ListName::ALL
        .iter()
        .all(|it| edits[*it] == Edit::None || was_set(&found.state, *it) == is_empty_set(it));
    if are_known && wanted.is_none() {
        return None;
    }
    let mut state = wanted.unwrap_or_else(|| found.state.clone());
    match sets.is_empty() {
        true => state.remove(SETS),
        false => state.insert(SETS.to_owned(), json!(sets)),
    };
    Some(state)
}

const fn in_words(list: ListName, reason: HoldReason) -> &'static str {
    match (list, reason) {
        (_, HoldReason::EmptiesProd) => "prod is left without a server",
        (_, HoldReason::RemovesPeers) => "many servers of prod go at once",
        (_, HoldReason::AdmitsEverybody) => "practically everybody becomes gray",
    }
}

/// How many entries of a list are named that go, or that come.
const NAMED: usize = 20;

/// How much of an entry is shown, in characters.
const SHOWN: usize = 200;

fn tell(lines: &mut Vec<String>, list: ListName, sign: char, entries: &[&[u8]]) {
    for entry in entries.iter().take(NAMED) {
        let shown = printable(&String::from_utf8_lossy(entry), SHOWN);
        lines.push(format!("{sign} {} {shown}", list.name()));
    }
    if entries.len() > NAMED {
        let more = entries.len() - NAMED;
        lines.push(format!("{sign} {} … and {more} more", list.name()));
    }
}

#[cfg(test)]
mod tests;
