//! For how long a worker keeps idle connections to which peers, looked up when it looks through them: a peer
//! of several services as long, and as many of them, as the most generous of these says.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use crate::config::UpstreamSettings;
use crate::lists::PoolName;
use crate::upstream::pool::PoolLimits;
use crate::upstream::serving::Serving;

/// One worker's. What several services have is written down here anew at each look, into memory that stays;
/// where there is only one, nothing is.
#[derive(Default)]
pub(super) struct KeptFor {
    of_default: Option<PoolLimits>,
    of_peers: FxHashMap<SocketAddr, PoolLimits>,
}

impl KeptFor {
    /// Takes note of what is in force; `limits` are those by the settings of a service.
    pub(super) fn note(
        &mut self,
        serving: &Serving,
        limits: impl Fn(&UpstreamSettings) -> PoolLimits,
    ) {
        self.of_peers.clear();
        self.of_default = Some(limits(serving.default_service().pools().rules()));
        if !serving.has_several() {
            return self.of_peers.shrink_to_fit();
        }
        for service in serving.services() {
            let (pools, limits) = (service.pools(), limits(service.pools().rules()));
            for peer in PoolName::ALL.into_iter().flat_map(|it| pools[it].peers()) {
                let known = self.of_peers.entry(peer.address).or_insert(limits);
                known.most = known.most.max(limits.most);
                known.age = known.age.max(limits.age);
            }
        }
    }

    /// What may be kept of connections to the peer at `address`; `None` when no list has it.
    pub(super) fn limits(&self, serving: &Serving, address: SocketAddr) -> Option<PoolLimits> {
        if serving.has_several() {
            return self.of_peers.get(&address).copied();
        }
        let pools = serving.default_service().pools();
        let mut each = PoolName::ALL.into_iter();
        let is_peer = each.any(|it| pools[it].place_of(address).is_some());
        self.of_default.filter(|_| is_peer)
    }
}
