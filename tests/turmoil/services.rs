//! The services of the model, where their lists are, and which of them a request is for.

use super::requests::Asked;

/// The services in the order of the ini file.
pub(crate) const SERVICES: [&str; 5] = ["default", "shop", "api", "wiki", "pop"];

/// It comes and goes.
pub(crate) const GUEST: &str = "pop";

/// It has the gray list of `shop`, and its salt.
pub(crate) const SHARER: &str = "api";

/// What the ini file says of those that stay.
pub(crate) const SETTINGS: [(&str, &str); 6] = [
    ("service shop.hosts", "shop.test"),
    ("service api.hosts", "shop.test"),
    ("service api.paths", "/api/"),
    ("service api.gray", "shop"),
    ("service wiki.paths", "/wiki/"),
    ("service wiki.salt", "of the settings"),
];

pub(crate) const GUEST_SETTINGS: &str = "[service pop]\nhosts = *.pop.test\n";

/// The service whose gray list this one has.
pub(crate) fn owner(service: &'static str) -> &'static str {
    match service {
        SHARER => "shop",
        own => own,
    }
}

/// The salt where Redis has none.
pub(crate) fn salt_set(service: &str) -> &'static str {
    match service {
        "wiki" => "of the settings",
        _ => "",
    }
}

/// The key in Redis of a list, or of `salt`.
pub(crate) fn key(service: &str, list: &str) -> String {
    match (service, list) {
        ("default", "salt") => "graygate:salt".to_owned(),
        ("default", list) => list.to_owned(),
        _ => format!("{service}:{list}"),
    }
}

/// The lists that are a service's own.
pub(crate) fn lists(service: &'static str) -> &'static [&'static str] {
    match owner(service) == service {
        true => &["gray", "pre", "prod"],
        false => &["pre", "prod"],
    }
}

/// Which service a request is for.
pub(crate) fn service_of(asked: &Asked, has_guest: bool) -> &'static str {
    let host = asked.host_name();
    let is_below = |path: &str| asked.path == path || asked.path.starts_with(&format!("{path}/"));
    if host == "shop.test" && is_below("/api") {
        "api"
    } else if host == "shop.test" {
        "shop"
    } else if host.ends_with(".pop.test") && has_guest {
        GUEST
    } else if is_below("/wiki") {
        "wiki"
    } else {
        "default"
    }
}
