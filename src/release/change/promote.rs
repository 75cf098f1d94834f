//! `promote`: what is in `pre` is what everybody gets.

use super::basis::{Edit, WantedChange, Work};
use super::stage::without_release;
use crate::lists::ListName;
use crate::store::Entries;

fn all(entries: &Entries) -> Edit {
    Edit::All(entries.into_iter().map(<[u8]>::to_vec).collect())
}

pub(super) fn promote(work: &Work<'_>, swap: bool, force: bool) -> Result<WantedChange, String> {
    let (lists, found) = (&work.lists, &work.found.lists);
    if lists.pre.is_empty() {
        return Err("pre has no server: there is nothing to promote".to_owned());
    }
    if let Some(trip) = work.trip().filter(|_| !force) {
        return Err(format!("{trip}; --force promotes it all the same"));
    }
    let is_same = lists.pre.digest(ListName::Prod) == lists.prod.digest(ListName::Prod);
    if is_same && swap && found.gray.entries.is_empty() {
        return Ok(WantedChange {
            notes: vec!["pre and prod are the same".to_owned()],
            ..WantedChange::default()
        });
    }
    let mut wanted = WantedChange::default();
    wanted.edits.prod = all(&found.pre.entries);
    wanted.edits.pre = match swap {
        true => all(&found.prod.entries),
        false => Edit::emptied(),
    };
    match &work.terms.gray_of {
        None if found.gray.entries.is_empty() => {}
        None => wanted.edits.gray = Edit::emptied(),
        Some(owner) => {
            let note = format!("gray stays as it is: it is the list of {owner}");
            wanted.notes.push(note);
        }
    }
    if wanted.edits.gray != Edit::None
        && let Some(others) = others_of_gray(work)
    {
        let ask = format!("gray is emptied for {others} as well");
        wanted.asks.push(ask);
    }
    let mut state = work.next_state();
    without_release(&mut state);
    wanted.state = Some(state);
    Ok(wanted)
}

/// The services that have the gray list of this one, in words.
pub(super) fn others_of_gray(work: &Work<'_>) -> Option<String> {
    let others = work.terms.shared_by.iter().map(ToString::to_string);
    let others: Vec<String> = others.collect();
    (!others.is_empty()).then(|| others.join(", "))
}
