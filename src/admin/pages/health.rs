//! The page `/healthz`: whether the gateway can serve.

use crate::admin::view::View;
use crate::error::Refusal;

/// Where the page is.
pub(crate) const PATH: &str = "/healthz";

/// Whether requests can be served; if not, the reason.
pub(crate) fn render(view: &View) -> Result<String, String> {
    let lists = view.publisher.lists();
    let reason = if view.gateway.is_draining() {
        "draining: the gateway is shutting down".to_owned()
    } else if !lists.are_read() {
        let error = view.publisher.status().error;
        let why = error.unwrap_or_else(|| "not yet".to_owned());
        format!(
            "{}: no lists have been read: {why}",
            Refusal::NoLists.name()
        )
    } else if lists.prod.is_empty() {
        format!("{}: prod is empty", Refusal::NoPeers.name())
    } else {
        return Ok(format!("ok generation={}\n", lists.generation));
    };
    Err(format!("{reason}\n"))
}
