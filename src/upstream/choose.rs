//! Which peer of a pool is tried next. Pure: chance is a parameter.

use std::net::SocketAddr;

use crate::lists::Peer;

/// A random one of the peers that were not tried yet, each with the same chance. `below` returns a
/// random number below its argument, which is at least 1.
pub(crate) fn choose<'a>(
    peers: &'a [Peer],
    tried: &[SocketAddr],
    mut below: impl FnMut(usize) -> usize,
) -> Option<&'a Peer> {
    if tried.is_empty() {
        return (!peers.is_empty()).then(|| &peers[below(peers.len())]);
    }
    // The list may have changed since the first try, so the tried ones need not be in it.
    let mut untried = peers.iter().filter(|peer| !tried.contains(&peer.address()));
    match untried.clone().count() {
        0 => None,
        count => untried.nth(below(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::PeerList;

    #[test]
    fn every_untried_peer_is_chosen_with_the_same_chance_and_no_tried_one() {
        let list = PeerList::parse(["10.0.0.1", "10.0.0.2", "10.0.0.3"], 80);
        let peers = list.peers();
        let chosen = |tried: &[SocketAddr]| {
            let mut numbers = 0..;
            let mut choose_next = || choose(peers, tried, |below| numbers.next().unwrap() % below);
            let chosen = (0..6).map_while(|_| choose_next());
            chosen.map(Peer::address).collect::<Vec<_>>()
        };
        let all = [0, 1, 2].map(|it| peers[it].address());
        assert_eq!(chosen(&[]), [all, all].concat());
        let rest = [all[0], all[2]];
        assert_eq!(chosen(&all[1..2]), [rest, rest, rest].concat());
        assert_eq!(chosen(&all), []);
        assert_eq!(choose(&[], &[], |_| 0), None);
        assert_eq!(choose(&[], &all, |_| 0), None);
    }
}
