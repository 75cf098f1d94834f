//! The page `/healthz`: whether the gateway can serve; and `/healthz?full`: what it lacks besides.
//!
//! What it lacks is on lines of their own and changes no status: whoever asks in order to send requests here
//! is to do so for as long as they are served.

use std::time::Instant;

use crate::admin::degraded::{self, Degraded};
use crate::admin::view::View;
use crate::error::{Failure, Refusal};
use crate::lists::PoolName;

/// Where the page is.
pub(crate) const PATH: &str = "/healthz";

/// In the query, for all that is to be said.
pub(crate) const FULL: &str = "full";

/// What the lines begin with that tell what the gateway lacks.
const DEGRADED: &str = "degraded ";

/// The page with all that is to be said, to whoever may see `clients` or not: of a gateway that can serve, or
/// of one that cannot.
pub(crate) fn render_full(view: &View, clients: bool) -> Result<String, String> {
    let lacks: String = degraded::all(view, clients).iter().map(line).collect();
    match render(view, clients) {
        Ok(text) => Ok(text + &lacks),
        Err(text) => Err(text + &lacks),
    }
}

fn line(degraded: &Degraded) -> String {
    let name = degraded.what.name();
    let text = degraded.text.replace(char::is_control, " ");
    format!("{DEGRADED}{name}: {text}\n")
}

/// What the page says first, and what the gateway lacks.
pub(crate) fn read(page: &str) -> (&str, Vec<&str>) {
    let mut lines = page.lines();
    let first = lines.next().unwrap_or_default();
    (
        first,
        lines.filter_map(|it| it.strip_prefix(DEGRADED)).collect(),
    )
}

/// Whether requests can be served; if not, the reason, to whoever may see `clients` or not.
pub(crate) fn render(view: &View, clients: bool) -> Result<String, String> {
    let lists = view.publisher.lists();
    let reason = if view.gateway.is_draining() {
        "draining: the gateway is shutting down".to_owned()
    } else if !lists.are_read() {
        let error = view.store_error(clients);
        let why = error.unwrap_or_else(|| "not yet".to_owned());
        format!(
            "{}: no lists have been read: {why}",
            Refusal::NoLists.name()
        )
    } else if lists.prod.is_empty() {
        format!("{}: prod is empty", Refusal::NoPeers.name())
    } else if let Some(reason) = nobody_of_prod(view) {
        reason
    } else {
        return Ok(format!("ok generation={}\n", lists.generation));
    };
    Err(format!("{reason}\n"))
}

/// Why nobody of `prod` may be asked, though servers are listed. Those that are out are asked all the same.
fn nobody_of_prod(view: &View) -> Option<String> {
    let pools = view.gateway.lists.pools();
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
