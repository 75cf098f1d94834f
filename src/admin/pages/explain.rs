//! The page `/explain`: who would serve a client, and why.

use serde_json::Value;

use crate::admin::pages::member::{Member, Page, members};
use crate::route::explain::{Explanation, NearEntry, NearTerm};

/// In the query: the address that the connection comes from.
pub(crate) const IP: &str = "ip";

/// In the query: the method; `GET` where there is none.
pub(crate) const METHOD: &str = "method";

/// In the query: the host, perhaps with a port.
pub(crate) const HOST: &str = "host";

/// In the query: path and query of the request; `/` where there is none.
pub(crate) const REQUEST_PATH: &str = "path";

/// In the query, for each header field: `Name: value`.
pub(crate) const HEADER: &str = "header";

members!(Explanation {
    socket,
    socket_is_trusted_proxy,
    x_forwarded_for,
    doubt,
    client,
    service,
    pool,
    reason,
    refusal,
    status,
    entry,
    bucket,
    force_refused,
    visitor_is_new,
    near,
    near_count,
    generation,
    digest,
    peers,
    peers_count,
    fallback,
    fallback_count,
    states
});

members!(NearEntry {
    entry,
    holds,
    expired,
    terms
});

members!(NearTerm { term, holds, found });

impl Page for Explanation {
    const PATH: &'static str = "/explain";

    fn of(page: &Value) -> Option<Self> {
        Self::read(page)
    }
}

/// The page as text.
pub(crate) fn render(explanation: &Explanation) -> String {
    format!("{:#}\n", explanation.render())
}
