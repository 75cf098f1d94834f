//! The page `/healthz`: whether the gateway can serve; and `/healthz?full`: what it lacks besides.
//!
//! What it lacks is on lines of their own and changes no status: whoever asks in order to send requests here
//! is to do so for as long as they are served.

use crate::admin::degraded::{self, Degraded};
use crate::admin::served;
use crate::admin::view::View;
use crate::upstream::serving::ServiceInForce;

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
    if view.gateway.is_draining() {
        return Err("draining: the gateway is shutting down\n".to_owned());
    }
    let serving = view.gateway.lists.serving();
    let default = serving.default_service();
    if default.pools().settings().takes_rest {
        return of_service(view, default, clients);
    }
    // Nobody is served by the default one: as long as some service serves, there is something to do here.
    let others = serving.services().iter().skip(1);
    let mut outcomes = others.map(|it| of_service(view, it, clients));
    let first = outcomes.next();
    let first = first.unwrap_or_else(|| of_service(view, default, clients));
    first.or_else(|reason| outcomes.find_map(Result::ok).ok_or(reason))
}

/// The same of one service.
fn of_service(view: &View, service: &ServiceInForce, clients: bool) -> Result<String, String> {
    match served::why_not(view, service, clients) {
        None => Ok(format!("ok generation={}\n", service.lists().generation)),
        Some(reason) => Err(format!("{reason}\n")),
    }
}
