//! Why a service cannot be served, if it cannot.

use std::time::Instant;

use crate::admin::view::View;
use crate::error::{Failure, Refusal};
use crate::lists::PoolName;
use crate::upstream::serving::{Pools, ServiceInForce};

/// The reason, to whoever may see `clients` or not.
pub(super) fn why_not(view: &View, service: &ServiceInForce, clients: bool) -> Option<String> {
    let lists = service.lists();
    if !lists.are_read() {
        let error = view.store_error(clients);
        let why = error.unwrap_or_else(|| "not yet".to_owned());
        let no_lists = Refusal::NoLists.name();
        return Some(format!("{no_lists}: no lists have been read: {why}"));
    }
    if lists.prod.is_empty() {
        return Some(format!("{}: prod is empty", Refusal::NoPeers.name()));
    }
    nobody_of_prod(service.pools())
}

/// Why nobody of `prod` may be asked, though servers are listed. Those that are out are asked all the same.
fn nobody_of_prod(pools: &Pools) -> Option<String> {
    let peers = pools[PoolName::Prod].peers();
    if peers.is_empty() {
        let no_peers = Refusal::NoPeers.name();
        return Some(format!("{no_peers}: no name in prod has an address"));
    }
    let usable = pools.usable(PoolName::Prod, Instant::now());
    // Requests wait for the end of a first check.
    let is_served = !usable.is_empty() || peers.iter().any(|it| it.health.awaits_first_check());
    let none_usable = Failure::NoneUsable.name();
    (!is_served)
        .then(|| format!("{none_usable}: no server of prod has passed its first health check"))
}
