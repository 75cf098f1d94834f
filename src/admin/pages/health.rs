//! The page `/healthz`: whether the gateway can serve; and `/healthz?full`: what it lacks besides.
//!
//! What it lacks is on lines of their own and changes no status: whoever asks in order to send requests here
//! is to do so for as long as they are served.

use crate::admin::degraded::{self, Degraded};
use crate::admin::view::View;
use crate::error::Refusal;

/// Where the page is.
pub(crate) const PATH: &str = "/healthz";

/// In the query, for all that is to be said.
pub(crate) const FULL: &str = "full";

/// What the lines begin with that tell what the gateway lacks.
const DEGRADED: &str = "degraded ";

/// The page with all that is to be said: of a gateway that can serve, or of one that cannot.
pub(crate) fn render_full(view: &View) -> Result<String, String> {
    let lacks: String = degraded::all(view).iter().map(line).collect();
    match render(view) {
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
