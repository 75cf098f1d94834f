//! What was confirmed with the last change of a service's lists that a command has made, as its history says.
//! Gateways that hear of the change when it is made are told so at that time; one that was away, or did not
//! run, finds the change later, and would hold it until somebody confirms it again.
//!
//! It is the last change of the lists: what was changed since, nobody has confirmed. Pure.

/// So many of the newest records are looked through for one that has changed the lists.
pub(super) const LOOKED_AT: usize = 5;

/// What a record says of that.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordedChange {
    /// The digests of the lists before and after.
    pub(super) before: String,
    pub(super) after: String,
    /// Those that were confirmed, in one text.
    pub(super) confirmed: String,
}

/// The digests that were confirmed with the last change among the `newest` records, the newest first, as they
/// are displayed.
pub(super) fn confirmed_last(newest: impl IntoIterator<Item = RecordedChange>) -> Vec<String> {
    let mut newest = newest.into_iter();
    // A version that was taken back, a freeze: what was confirmed before is the last still.
    let last = newest.find(|it| it.before != it.after).unwrap_or_default();
    let words = last.confirmed.split_ascii_whitespace();
    words.map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_is_that_of_the_last_change_of_lists() {
        let record = |before: &str, after: &str, confirmed: &str| RecordedChange {
            before: before.to_owned(),
            after: after.to_owned(),
            confirmed: confirmed.to_owned(),
        };
        let freeze = record("b", "b", "");
        let promotion = record("a", "b", "0A 0b");
        let other = record("b", "c", "");
        for (newest, expected) in [
            (vec![], &[][..]),
            (vec![freeze.clone(), promotion.clone()], &["0a", "0b"]),
            (vec![other, promotion], &[]),
            (vec![freeze], &[]),
        ] {
            assert_eq!(confirmed_last(newest), expected);
        }
    }
}
