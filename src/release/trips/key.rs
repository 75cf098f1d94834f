//! What becomes of the key of a trip, by what it has and what the store has in `pre` at that moment. Pure.

use crate::lists::{Digest, ListName, PeerList};
use crate::release::state::Trip;

/// What follows for a gateway that has a trip which the store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyTurn {
    /// It writes it.
    Write,
    /// The key has this very trip, of which it could not be known that it was written.
    Written,
    /// The key has another gateway's, of the same version.
    Before,
    /// What the key has is of the version that the store has in `pre`, and this trip is not. It holds where
    /// it was found, for as long as its version is in force there.
    Leave,
}

/// What follows for `trip`, where the key has this `text`, and the store has `pre`. A gateway that `lags` is
/// about to see what is there, and leaves an empty key alone as well; one that does not follow the store (its
/// lists are frozen, or held) has to write: what it has taken back may be in force elsewhere, too.
pub(super) fn turn_of(
    text: Option<&[u8]>,
    pre: Option<Digest>,
    trip: &Trip,
    lags: bool,
) -> KeyTurn {
    let is_in_pre = pre.is_some_and(|it| it.to_string() == trip.pre);
    let Some(text) = text else {
        return match lags && !is_in_pre {
            true => KeyTurn::Leave,
            false => KeyTurn::Write,
        };
    };
    match Trip::parse(text) {
        Some(it) if it.pre == trip.pre => match (&it.by, &it.at) == (&trip.by, &trip.at) {
            true => KeyTurn::Written,
            false => KeyTurn::Before,
        },
        // It is over, as is what is about another version that is not in `pre`.
        Some(_) if is_in_pre => KeyTurn::Write,
        Some(it) if pre.is_some_and(|pre| pre.to_string() == it.pre) || lags => KeyTurn::Leave,
        Some(_) => KeyTurn::Write,
        // A person's word is about what he sees in `pre`.
        None if is_in_pre => KeyTurn::Write,
        None => KeyTurn::Leave,
    }
}

/// The digest of what a store has in `pre`. It is of the entries as they were written: of whatever port those
/// without one are.
pub(super) fn digest_of<E: AsRef<[u8]>>(entries: impl IntoIterator<Item = E>) -> Digest {
    const ANY_PORT: u16 = 80;
    PeerList::parse(entries, ANY_PORT).digest(ListName::Pre)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(entry: &str) -> Digest {
        digest_of([entry])
    }

    fn trip(of: Digest, by: &str) -> Trip {
        Trip {
            by: by.to_owned(),
            at: "2026-11-25T19:16:26.123Z".to_owned(),
            ..Trip::by_hand(b"", "default", of, "")
        }
    }

    #[test]
    fn the_trip_of_what_is_in_pre_and_a_word_about_it_are_left_by_who_has_found_another_one() {
        use KeyTurn::{Before, Leave, Write, Written};
        let [old, new, third] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(digest);
        let own = trip(old, "gw-1");
        let json = |of, by| Some(trip(of, by).to_json().to_string());
        let stop = || Some("stop".to_owned());
        let cases = [
            // The key, what is in pre; and what follows at once, and for one that does not lag.
            (None, Some(old), Write, Write),
            (None, Some(new), Leave, Write),
            (None, None, Leave, Write),
            (json(old, "gw-1"), Some(old), Written, Written),
            (json(old, "gw-2"), Some(new), Before, Before),
            (json(new, "gw-2"), Some(new), Leave, Leave),
            (json(new, "gw-2"), Some(old), Write, Write),
            (json(third, "gw-2"), Some(new), Leave, Write),
            (stop(), Some(old), Write, Write),
            (stop(), Some(new), Leave, Leave),
        ];
        for (key, pre, at_once, later) in cases {
            let turn = |lags| turn_of(key.as_deref().map(str::as_bytes), pre, &own, lags);
            assert_eq!(
                (turn(true), turn(false)),
                (at_once, later),
                "{key:?} {pre:?}"
            );
        }
    }

    #[test]
    fn the_digest_of_pre_is_that_of_its_lists_whatever_the_port_of_the_settings() {
        for entry in ["10.0.0.1", "10.0.0.1:8080", "a.example weight=3"] {
            let list = PeerList::parse([entry], 8080);
            assert_eq!(digest(entry), list.digest(ListName::Pre), "{entry}");
        }
    }
}
