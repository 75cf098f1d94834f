//! The decision: which pool serves a client, and which of its peers.
//!
//! Pure: the client and the lists in, the pool and the reason out. No clock, no socket; chance
//! is a parameter.

use std::net::{IpAddr, SocketAddr};

use crate::error::Refusal;
// Part of a decision.
use crate::lists::Lists;
pub use crate::lists::PoolName;

/// Why a pool was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An entry of the gray list covers the client.
    Listed,
    /// No entry of the gray list covers the client.
    Unlisted,
    /// The client is gray, but `pre` has no peer.
    PreEmpty,
    /// The client is gray, but every attempt on `pre` failed.
    PreExhausted,
}

impl Reason {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::PreEmpty => "pre-empty",
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
}

/// Which pool serves `client`. With `fallback`, gray clients are served by `prod` while `pre` is
/// empty.
///
/// # Errors
/// When no lists were read yet, or nobody could serve the client.
pub fn decide(client: IpAddr, lists: &Lists, fallback: bool) -> Result<Decision, Refusal> {
    if !lists.are_read() {
        return Err(Refusal::NoLists);
    }
    let (pool, reason) = match lists.gray.contains(client) {
        true if lists.pre.is_empty() && fallback => (PoolName::Prod, Reason::PreEmpty),
        true => (PoolName::Pre, Reason::Listed),
        false => (PoolName::Prod, Reason::Unlisted),
    };
    let peers = match pool {
        PoolName::Pre => &lists.pre,
        PoolName::Prod => &lists.prod,
    };
    if peers.is_empty() {
        return Err(Refusal::NoPeers);
    }
    Ok(Decision { pool, reason })
}

/// Any of the peers that was not tried yet, each with the same chance. `below` gives a random
/// number below its argument, which is at least 1.
pub fn pick(
    peers: &[SocketAddr],
    tried: &[SocketAddr],
    mut below: impl FnMut(usize) -> usize,
) -> Option<SocketAddr> {
    if tried.is_empty() {
        return (!peers.is_empty()).then(|| peers[below(peers.len())]);
    }
    // The list may have changed since the first try, so the tried ones need not be in it.
    let mut untried = peers.iter().filter(|peer| !tried.contains(peer));
    match untried.clone().count() {
        0 => None,
        count => untried.nth(below(count)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lists::{GrayList, PeerList};

    fn lists(gray: &[&str], pre: &[&str], prod: &[&str]) -> Lists {
        let peers = |entries: &[&str]| Arc::new(PeerList::parse(entries, 80));
        Lists::new(1, Arc::new(GrayList::parse(gray)), peers(pre), peers(prod))
    }

    #[test]
    fn gray_clients_get_pre_and_all_others_prod() {
        use PoolName::{Pre, Prod};
        use Reason::{Listed, PreEmpty, Unlisted};
        let full = lists(&["10.0.0.1"], &["10.0.1.1"], &["10.0.2.1"]);
        let no_pre = lists(&["10.0.0.1"], &[], &["10.0.2.1"]);
        let no_prod = lists(&["10.0.0.1"], &["10.0.1.1"], &[]);
        let gray = IpAddr::from([10, 0, 0, 1]);
        let other = IpAddr::from([10, 0, 0, 10]);
        let table = [
            (gray, &full, true, Ok((Pre, Listed))),
            (other, &full, true, Ok((Prod, Unlisted))),
            (gray, &no_pre, true, Ok((Prod, PreEmpty))),
            (gray, &no_pre, false, Err(Refusal::NoPeers)),
            (other, &no_pre, true, Ok((Prod, Unlisted))),
            (gray, &no_prod, true, Ok((Pre, Listed))),
            (other, &no_prod, true, Err(Refusal::NoPeers)),
            (gray, &Lists::unread(), true, Err(Refusal::NoLists)),
        ];
        for (client, lists, fallback, expected) in table {
            let expected = expected.map(|(pool, reason)| Decision { pool, reason });
            assert_eq!(decide(client, lists, fallback), expected, "{client}");
        }
    }

    #[test]
    fn every_untried_peer_is_picked_with_the_same_chance_and_no_tried_one() {
        let list = PeerList::parse(["10.0.0.1", "10.0.0.2", "10.0.0.3"], 80);
        let peers = list.peers();
        let picked = |tried: &[SocketAddr]| {
            let mut numbers = 0..;
            let mut pick_next = || pick(peers, tried, |below| numbers.next().unwrap() % below);
            (0..6).map_while(|_| pick_next()).collect::<Vec<_>>()
        };
        assert_eq!(picked(&[]), [peers, peers].concat());
        let rest = [peers[0], peers[2]];
        assert_eq!(picked(&peers[1..2]), [rest, rest, rest].concat());
        assert_eq!(picked(peers), []);
        assert_eq!(pick(&[], &[], |_| 0), None);
        assert_eq!(pick(&[], peers, |_| 0), None);
    }
}
