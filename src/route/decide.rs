//! The decision: which pool serves a request.
//!
//! Pure: who asks and the lists in, the pool and the reason out. No clock, no socket.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::error::Refusal;
use crate::http::subject::Subject;
use crate::lists::{GrayList, Lists, PeerList, PoolName, Scratch, Selected, Selection};
use crate::metrics::REASONS;

/// Why a pool was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An entry of the gray list covers the client or the request.
    Listed,
    /// No entry of the gray list does.
    Unlisted,
    /// An entry of the gray list with `!` does.
    Excluded,
    /// A tester has asked for the pool.
    Forced,
    /// A trusted proxy has marked the request with the pool.
    Marked,
    /// The client is gray, but the new version was taken back.
    Tripped,
    /// The client is gray, but `pre` has no peer.
    PreEmpty,
    /// The client is gray, but every peer of `pre` is out.
    PreOut,
    /// The client is gray, but every attempt on `pre` failed.
    PreExhausted,
}

impl Reason {
    /// Every one, in the order in which they are shown.
    pub(crate) const ALL: [Self; REASONS] = [
        Self::Listed,
        Self::Unlisted,
        Self::Excluded,
        Self::Forced,
        Self::Marked,
        Self::Tripped,
        Self::PreEmpty,
        Self::PreOut,
        Self::PreExhausted,
    ];

    /// The place of this one.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The pools that it can be the reason of when a request is decided on.
    pub(crate) const fn pools(self) -> &'static [PoolName] {
        match self {
            Self::Listed => &[PoolName::Pre],
            Self::Unlisted | Self::Excluded | Self::Tripped | Self::PreEmpty | Self::PreOut => {
                &[PoolName::Prod]
            }
            Self::Forced | Self::Marked => &PoolName::ALL,
            // It is found out later.
            Self::PreExhausted => &[],
        }
    }

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::Excluded => "excluded",
            Self::Forced => "forced",
            Self::Marked => "marked",
            Self::Tripped => "tripped",
            Self::PreEmpty => "pre-empty",
            Self::PreOut => "pre-out",
            Self::PreExhausted => "pre-exhausted",
        }
    }
}

/// A pool, and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pool to try.
    pub pool: PoolName,
    /// Why this pool.
    pub reason: Reason,
    /// What of the gray list has decided, if anything of it has.
    pub entry: Option<DecidingEntry>,
}

impl Decision {
    /// One in which no entry of the gray list has a part.
    pub(crate) const fn without_entry(pool: PoolName, reason: Reason) -> Self {
        Self {
            pool,
            reason,
            entry: None,
        }
    }
}

/// What of a gray list decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidingEntry {
    /// An address or a net; which one is for [`explain`](super::explain) to find out.
    Address,
    /// Another entry.
    Rule(Selected),
}

/// Whether a pool can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolStanding {
    /// It has no peer.
    Empty,
    /// All its peers are out.
    Out,
    /// A peer may be asked.
    Usable,
}

impl PoolStanding {
    /// That of a pool by its list alone: how its peers are is not known.
    pub(crate) fn by_list(list: &PeerList) -> Self {
        match list.is_empty() {
            true => Self::Empty,
            false => Self::Usable,
        }
    }
}

/// Whom a request may reach.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// Its lists.
    pub lists: &'a Lists,
    /// How `pre` stands.
    pub pre: PoolStanding,
    /// How `prod` stands.
    pub prod: PoolStanding,
    /// Gray clients are served by `prod` while `pre` is empty or out.
    pub fallback: bool,
    /// The version in `pre` was taken back: only testers get it.
    pub tripped: bool,
}

/// Which pool of `service` serves `subject`. The wall clock is `now`; it is needed if
/// [entries have an end](crate::lists::GrayList::expires).
///
/// # Errors
/// When no lists were read yet, or nobody could serve the client.
// Inlined: what becomes of a client by a list of addresses alone is a look-up and two comparisons.
#[inline]
pub fn decide(
    subject: &Subject<'_>,
    service: &Service<'_>,
    now: Option<SystemTime>,
    scratch: &mut Scratch,
) -> Result<Decision, Refusal> {
    if !service.lists.are_read() {
        return Err(Refusal::NoLists);
    }
    let gray = &service.lists.gray;
    match gray.selection() {
        None => grant_read(by_address(subject.client, gray), service),
        Some(selection) => {
            let wanted = by_any_entry(subject, gray, selection, now, scratch);
            grant_read(wanted, service)
        }
    }
}

/// By which pool a list wants a client to be served, by its addresses and nets alone.
#[inline]
fn by_address(client: IpAddr, gray: &GrayList) -> Decision {
    match gray.contains(client) {
        true => Decision {
            pool: PoolName::Pre,
            reason: Reason::Listed,
            entry: Some(DecidingEntry::Address),
        },
        false => Decision::without_entry(PoolName::Prod, Reason::Unlisted),
    }
}

/// The same by all entries of a list that has others, too, its `selection`.
// Out of line: where a list has addresses only, a decision goes without the frame of this.
#[inline(never)]
fn by_any_entry(
    subject: &Subject<'_>,
    gray: &GrayList,
    selection: &Selection,
    now: Option<SystemTime>,
    scratch: &mut Scratch,
) -> Decision {
    let mut look = selection.look_at(subject, gray.salt(), now, scratch);
    let decided = |pool, reason, entry| Decision {
        pool,
        reason,
        entry: Some(DecidingEntry::Rule(entry)),
    };
    if let Some(entry) = look.exclusion() {
        return decided(PoolName::Prod, Reason::Excluded, entry);
    }
    let by_address = by_address(subject.client, gray);
    match by_address.pool {
        PoolName::Pre => by_address,
        PoolName::Prod => match look.admission() {
            Some(entry) => decided(PoolName::Pre, Reason::Listed, entry),
            None => by_address,
        },
    }
}

/// Which pool of `service` serves a request that the `wanted` one is to serve: `prod` serves for `pre` where
/// that cannot, if it may.
///
/// # Errors
/// As [`decide`].
pub(crate) fn grant(wanted: Decision, service: &Service<'_>) -> Result<Decision, Refusal> {
    match service.lists.are_read() {
        true => grant_read(wanted, service),
        false => Err(Refusal::NoLists),
    }
}

/// The same once lists were read.
#[inline]
fn grant_read(wanted: Decision, service: &Service<'_>) -> Result<Decision, Refusal> {
    let Service { pre, prod, .. } = *service;
    let Decision { pool, reason, .. } = wanted;
    let (pool, reason) = match (pool, pre) {
        (PoolName::Pre, PoolStanding::Empty) if service.fallback => {
            (PoolName::Prod, Reason::PreEmpty)
        }
        (PoolName::Pre, _)
            if service.tripped && reason != Reason::Forced && prod != PoolStanding::Empty =>
        {
            (PoolName::Prod, Reason::Tripped)
        }
        // Whoever could be asked at last is better than nobody.
        (PoolName::Pre, PoolStanding::Out) if service.fallback && prod != PoolStanding::Empty => {
            (PoolName::Prod, Reason::PreOut)
        }
        _ => (pool, reason),
    };
    let standing = match pool {
        PoolName::Pre => pre,
        PoolName::Prod => prod,
    };
    if standing == PoolStanding::Empty {
        return Err(Refusal::NoPeers);
    }
    Ok(Decision {
        pool,
        reason,
        ..wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::http::h1::head::RequestHead;
    use crate::lists::lists_of;

    #[test]
    fn gray_clients_get_pre_and_all_others_prod() {
        use PoolName::{Pre, Prod};
        use PoolStanding::{Empty, Out, Usable};
        use Reason::{Listed, PreEmpty, PreOut, Unlisted};
        let read = lists_of(&["10.0.0.1"], &[], &[]);
        let gray = IpAddr::from([10, 0, 0, 1]);
        let other = IpAddr::from([10, 0, 0, 10]);
        let by_pre = Ok((Pre, Listed));
        let by_prod = Ok((Prod, Unlisted));
        let nobody = Err(Refusal::NoPeers);
        // `pre`, `prod`, fallback; then who serves a gray client, and another one.
        let table = [
            (Usable, Usable, true, by_pre, by_prod),
            (Usable, Out, true, by_pre, by_prod),
            (Usable, Empty, true, by_pre, nobody),
            (Out, Usable, true, Ok((Prod, PreOut)), by_prod),
            (Out, Out, true, Ok((Prod, PreOut)), by_prod),
            (Out, Empty, true, by_pre, nobody),
            (Empty, Usable, true, Ok((Prod, PreEmpty)), by_prod),
            (Empty, Out, true, Ok((Prod, PreEmpty)), by_prod),
            (Empty, Empty, true, nobody, nobody),
            (Usable, Usable, false, by_pre, by_prod),
            (Usable, Out, false, by_pre, by_prod),
            (Usable, Empty, false, by_pre, nobody),
            (Out, Usable, false, by_pre, by_prod),
            (Out, Out, false, by_pre, by_prod),
            (Out, Empty, false, by_pre, nobody),
            (Empty, Usable, false, nobody, by_prod),
            (Empty, Out, false, nobody, by_prod),
            (Empty, Empty, false, nobody, nobody),
        ];
        for (pre, prod, fallback, of_gray, of_other) in table {
            for (client, expected) in [(gray, of_gray), (other, of_other)] {
                let entry = (client == gray).then_some(DecidingEntry::Address);
                let expected = expected.map(|(pool, reason)| Decision {
                    pool,
                    reason,
                    entry,
                });
                let head = RequestHead::default();
                let subject = Subject::new(client, &head, &[]);
                let service = Service {
                    lists: &read,
                    pre,
                    prod,
                    fallback,
                    tripped: false,
                };
                assert_eq!(
                    decide(&subject, &service, None, &mut Scratch::default()),
                    expected,
                    "{client} {pre:?} {prod:?}"
                );
                // Whoever has said by whom it is to be served.
                let (pool, listed) = match client == gray {
                    true => (Pre, Listed),
                    false => (Prod, Unlisted),
                };
                for reason in [Reason::Forced, Reason::Marked] {
                    let granted = grant(
                        Decision {
                            pool,
                            reason,
                            entry,
                        },
                        &service,
                    );
                    let by_list = |it: Decision| match it.reason == reason {
                        true => Decision {
                            reason: listed,
                            ..it
                        },
                        false => it,
                    };
                    assert_eq!(
                        granted.map(by_list),
                        expected,
                        "{reason:?} {pre:?} {prod:?}"
                    );
                }
                let unread = Service {
                    lists: &Lists::unread(),
                    ..service
                };
                let decided = decide(&subject, &unread, None, &mut Scratch::default());
                assert_eq!(decided, Err(Refusal::NoLists));
            }
        }
    }

    #[test]
    fn a_version_that_was_taken_back_is_for_testers_only() {
        use PoolName::{Pre, Prod};
        use PoolStanding::{Empty, Out, Usable};
        let read = lists_of(&["10.0.0.1"], &[], &[]);
        let taken_back = Ok((Prod, Reason::Tripped));
        let pre_empty = Ok((Prod, Reason::PreEmpty));
        let nobody = Err(Refusal::NoPeers);
        // `pre`, `prod`, fallback; then who serves a gray client, and a tester of `pre`.
        let table = [
            (Usable, Usable, true, taken_back, Ok((Pre, Reason::Forced))),
            (Usable, Usable, false, taken_back, Ok((Pre, Reason::Forced))),
            (Usable, Out, true, taken_back, Ok((Pre, Reason::Forced))),
            (
                Usable,
                Empty,
                true,
                Ok((Pre, Reason::Listed)),
                Ok((Pre, Reason::Forced)),
            ),
            (Out, Usable, true, taken_back, Ok((Prod, Reason::PreOut))),
            (Out, Usable, false, taken_back, Ok((Pre, Reason::Forced))),
            (Empty, Usable, true, pre_empty, pre_empty),
            (Empty, Usable, false, taken_back, nobody),
            (Empty, Empty, false, nobody, nobody),
        ];
        for (pre, prod, fallback, of_gray, of_tester) in table {
            let service = Service {
                lists: &read,
                pre,
                prod,
                fallback,
                tripped: true,
            };
            let short = |it: Decision| (it.pool, it.reason);
            let head = RequestHead::default();
            let decided = |client: [u8; 4]| {
                let subject = Subject::new(client.into(), &head, &[]);
                decide(&subject, &service, None, &mut Scratch::default()).map(short)
            };
            let case = format!("{pre:?} {prod:?} {fallback}");
            assert_eq!(decided([10, 0, 0, 1]), of_gray, "{case}");
            let by_prod = match prod {
                Empty => nobody,
                _ => Ok((Prod, Reason::Unlisted)),
            };
            assert_eq!(decided([10, 0, 0, 2]), by_prod, "{case}");
            let wished = |pool, reason| grant(Decision::without_entry(pool, reason), &service);
            assert_eq!(wished(Pre, Reason::Forced).map(short), of_tester, "{case}");
            let marked = of_gray.map(|(pool, reason)| match reason {
                Reason::Listed => (pool, Reason::Marked),
                _ => (pool, reason),
            });
            assert_eq!(wished(Pre, Reason::Marked).map(short), marked, "{case}");
        }
    }
}
