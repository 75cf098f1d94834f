//! What the log says of findings.

use crate::lists::lint::{Findings, Kind};

/// Tells what is found `now`, in other lists or by other settings, and was not `before`: one line for
/// each kind, with the first.
pub fn tell(before: &Findings, now: &Findings) {
    for kind in Kind::ALL {
        let mut new = now.first.iter().filter(|it| it.kind == kind);
        let Some(first) = new.find(|it| !before.first.contains(it)) else {
            continue;
        };
        log::warn!(
            "lists-finding finding={} count={} list={} entry={:?} text={:?}",
            kind.name(),
            now.count(kind),
            first.list.name(),
            first.entry,
            first.text
        );
    }
}
