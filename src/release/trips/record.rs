//! What the history says of a version that was taken back: by which gateway, why, and on what numbers. Pure.

use sha2::{Digest as _, Sha256};

use crate::fleet::plain::sentence;
use crate::lists::ServiceName;
use crate::release::history::ChangeRecord;
use crate::release::state::Trip;

/// So many of the newest records are looked through for one that is there already.
pub(super) const LOOKED_AT: usize = 50;

const VERB: &str = "trip";

/// The record of a `trip`, where the `newest` ones are these, the newest first; none where it is among them.
/// Of a history that has none, these lists are what it begins with.
pub(super) fn record(
    service: &ServiceName,
    trip: &Trip,
    newest: &[ChangeRecord],
    lists: &str,
) -> Option<ChangeRecord> {
    let id = id(trip);
    if newest.iter().any(|it| it.id == id) {
        return None;
    }
    let last = newest.first();
    // It changes no lists: what they were changed to before, and by whom, is to be seen as without it.
    let lists = last.map_or(lists, |it| &it.after);
    let reason = match &trip.reason {
        Some(reason) => format!("{}: {reason}", trip.why),
        None => trip.why.clone(),
    };
    let found = trip.numbers["text"].as_str().map(sentence);
    let numbers = (!trip.numbers.is_null()).then(|| format!("numbers {}", trip.numbers));
    let lines = [Some(format!("+ tripped {}", trip.pre)), found.or(numbers)];
    Some(ChangeRecord {
        number: last.map_or(0, |it| it.number).saturating_add(1),
        id,
        // When it was, and not when the store could be told.
        at: trip.at.clone(),
        by: trip.by.clone(),
        verb: VERB.to_owned(),
        reason: Some(reason),
        service: service.to_string(),
        difference: lines.into_iter().flatten().collect(),
        before: lists.to_owned(),
        after: lists.to_owned(),
        ..ChangeRecord::default()
    })
}

/// The same for whoever writes this trip, and however often: the store may lose it.
fn id(trip: &Trip) -> String {
    let hash = Sha256::new()
        .chain_update(&trip.by)
        .chain_update("\n")
        .chain_update(&trip.at)
        .chain_update("\n")
        .chain_update(&trip.pre)
        .finalize();
    hash.iter().take(8).map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::Digest;

    #[test]
    fn a_history_with_the_largest_number_goes_on() {
        let pre = Digest::parse("0123456789abcdef").unwrap();
        let trip = Trip::by_hand(b"stop", "default", pre, "");
        let newest = ChangeRecord {
            number: u64::MAX,
            ..ChangeRecord::default()
        };
        let record = record(&ServiceName::default(), &trip, &[newest], "").unwrap();
        assert_eq!(record.number, u64::MAX);
    }
}
