//! Requests to the admin listeners: which page they are for, and who may have it.
//!
//! What may be had depends on where it is asked for ([`door`](super::door)). Over TCP, only requests for an
//! address, for `localhost` or for a configured name are served ([`host`]). What changes something also
//! requires a header field that no web page can send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::admin::answer::{Body, PageResponse, READING, forbidden};
use crate::admin::door::{AdminDoor, AdminRights, Pages};
use crate::admin::pages::config::{self, ConfigPage};
use crate::admin::pages::explain::{
    HEADER, HOST, IP, METHOD, REQUEST_PATH, render as explain_page,
};
use crate::admin::pages::lists::{self, ListsPage};
use crate::admin::pages::peers::{self, PeersPage};
use crate::admin::pages::upgrades::{self, UpgradesPage};
use crate::admin::pages::verdict::{self, VerdictPage};
use crate::admin::pages::{Page, health};
use crate::admin::query::{NO_SERVICE, service, unknown};
use crate::admin::view::View;
use crate::admin::{host, metrics};
use crate::error::AdminRefusal;
use crate::http::h1::head::RequestHead;
use crate::http::subject::Subject;
use crate::lists::{PoolName, ServiceName};
use crate::route::explain::{Candidate, Explanation, Question, RoutingRules, explain};
use crate::store::By;
use crate::store::gate::guard::HeldChange;
use crate::upstream::roster::Peer;
use crate::upstream::serving::ServiceInForce;

/// Who may change something here sends this field with [`COMMAND_ACCEPT`]. A web page in a browser
/// on this machine can reach the listener, too, but may not send such a field to another origin.
pub(crate) const COMMAND_FIELD: &str = "X-Graygate-Command";

/// The value of [`COMMAND_FIELD`] that goes with `/lists/accept`.
pub(crate) const COMMAND_ACCEPT: &str = "accept";

/// Where a held change is accepted; `?digest=` names it.
pub(crate) const ACCEPT_PATH: &str = "/lists/accept";

/// What is answered to a request, and whether whoever sent it may have it.
pub(super) fn answer_to(
    view: &View,
    door: AdminDoor,
    head: &RequestHead,
    bytes: &[u8],
    from: Option<SocketAddr>,
) -> PageResponse {
    let answer = judge(view, door, head, bytes).and_then(|rights| page(view, rights, head, bytes));
    answer.unwrap_or_else(|why| {
        let host = value(head, bytes, "Host").unwrap_or_default();
        view.refused.note(why, host, head.target.of(bytes), from);
        forbidden(why)
    })
}

/// What whoever sent the request may have.
fn judge(
    view: &View,
    door: AdminDoor,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<AdminRights, AdminRefusal> {
    let admin = &view.gateway.config.load().admin;
    // A request without a Host is not from a browser.
    let host = value(head, bytes, "Host").filter(|_| door.is_open_to_browsers());
    if host.is_some_and(|it| !host::is_own(it, &admin.hosts)) {
        return Err(AdminRefusal::ForeignHost);
    }
    let authorization = value(head, bytes, "Authorization");
    let token = view.token.load();
    door.rights(admin.expose, token.as_deref(), authorization)
}

fn page(
    view: &View,
    rights: AdminRights,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<PageResponse, AdminRefusal> {
    let mut parts = head.target.of(bytes).splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or_default();
    let (query, method) = (parts.next(), head.method.of(bytes));
    if rights.pages == Pages::All && path == ACCEPT_PATH.as_bytes() {
        if method != b"POST" {
            return Ok(PageResponse::method_not_allowed("POST"));
        }
        rights.change?;
        if !is_command(head, bytes) {
            return Err(AdminRefusal::NoCommand);
        }
        return Ok(accept(view, query.unwrap_or_default()));
    }
    if !matches!(method, b"GET" | b"HEAD") {
        return Ok(PageResponse::method_not_allowed(READING));
    }
    if let Some(figures) = figures(view, rights, path, query) {
        return Ok(figures);
    }
    if rights.pages == Pages::Figures {
        let text = "there are /healthz and /metrics\n";
        return Ok(PageResponse::text(404, text));
    }
    let (is, query) = (
        |page: &str| path == page.as_bytes(),
        query.unwrap_or_default(),
    );
    Ok(match path {
        _ if is(ListsPage::PATH) => lists_of(view, query, rights.clients),
        // Asked for one address after the other, it would show the list.
        _ if is(Explanation::PATH) && !rights.clients => return Err(AdminRefusal::ClientsHidden),
        _ if is(Explanation::PATH) => explained(view, query),
        _ if is(PeersPage::PATH) => peers_of(view, query),
        _ if is(ConfigPage::PATH) => PageResponse::json(config::render(view, rights.clients)),
        _ if is(VerdictPage::PATH) => PageResponse::json(verdict::render(view)),
        _ if is(UpgradesPage::PATH) => PageResponse::json(upgrades::render(view)),
        _ => PageResponse::text(
            404,
            "there are /healthz, /lists, /peers, /verdict, /explain, /config, /upgrades and /metrics\n",
        ),
    })
}

/// The pages that every listener has.
fn figures(
    view: &View,
    rights: AdminRights,
    path: &[u8],
    query: Option<&[u8]>,
) -> Option<PageResponse> {
    if path == b"/metrics" {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        return Some(PageResponse::page(200, kind, metrics::render(view)));
    }
    let health = match query == Some(health::FULL.as_bytes()) {
        _ if path != health::PATH.as_bytes() => return None,
        true => health::render_full(view, rights.clients),
        false => health::render(view, rights.clients),
    };
    Some(match health {
        Ok(text) => PageResponse::text(200, text),
        Err(text) => PageResponse::text(503, text),
    })
}

/// Who would serve a request: `?ip=ADDRESS`, with `&method=`, `&host=`, `&path=`, and `&header=Name:%20value`
/// for each header field.
fn explained(view: &View, query: &[u8]) -> PageResponse {
    let (mut socket, mut headers) = (None, Vec::new());
    let (mut method, mut host, mut path) = (None, None, None);
    for (key, value) in form_urlencoded::parse(query) {
        match &*key {
            IP => socket = value.parse().ok(),
            HEADER => headers.push(value.into_owned()),
            METHOD => method = Some(value),
            HOST => host = Some(value),
            REQUEST_PATH => path = Some(value),
            name => {
                let example = "/explain?ip=192.0.2.1&header=Name:%20value";
                return PageResponse::text(400, format!("{}\n", unknown(name, example)));
            }
        }
    }
    let Some(socket) = socket else {
        return PageResponse::text(400, "an address is required: /explain?ip=192.0.2.1\n");
    };
    let config = view.gateway.config.load();
    let serving = view.gateway.lists.serving();
    let find = |subject: &Subject<'_>| {
        let place = serving.find(subject)?;
        Ok(candidate(&serving.services()[place]))
    };
    let rules = RoutingRules {
        trusted_proxies: &config.gateway.trusted_proxies,
        gray: &config.gray,
        find: &find,
    };
    let asked = Question::from(socket, &headers);
    let question = Question {
        method: method.as_deref().unwrap_or(asked.method),
        host: host.as_deref().unwrap_or(asked.host),
        path: path.as_deref().unwrap_or(asked.path),
        ..asked
    };
    match explain(&question, &rules) {
        Ok(explanation) => PageResponse::json(explain_page(&explanation)),
        Err(error) => PageResponse::text(400, format!("{error}\n")),
    }
}

/// A service as it is now.
fn candidate(service: &ServiceInForce) -> Candidate {
    let (pools, now) = (service.pools(), Instant::now());
    let standing = |pool| {
        let usable = pools.usable(pool, now);
        usable.standing(pools[pool].peers(), true, now)
    };
    let state = |it: &Peer| {
        let state = it.health.state(now, pools.rules()).name();
        (it.address.to_string(), state.to_owned())
    };
    Candidate {
        name: service.name().clone(),
        lists: Arc::clone(service.lists()),
        fallback: pools.rules().fallback,
        tripped: service.is_tripped(),
        pre: standing(PoolName::Pre),
        prod: standing(PoolName::Prod),
        states: Some(PoolName::ALL.map(|pool| pools[pool].peers().iter().map(state).collect())),
    }
}

/// The first value of a field.
fn value<'a>(head: &RequestHead, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = head.fields.iter();
    let field = fields.find(|it| it.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
    field.map(|it| it.value.of(bytes))
}

/// Whether this is no request that a web page can send: a browser adds the origin of the page to
/// whatever that may send.
fn is_command(head: &RequestHead, bytes: &[u8]) -> bool {
    let from_page = value(head, bytes, "Origin").is_some();
    !from_page && value(head, bytes, COMMAND_FIELD) == Some(COMMAND_ACCEPT.as_bytes())
}

/// The lists of the service that the query names.
fn lists_of(view: &View, query: &[u8], shows_clients: bool) -> PageResponse {
    let asked =
        service(query).and_then(|it| Ok((it.unwrap_or_default(), lists::PartAsked::of(query)?)));
    let (service, part) = match asked {
        Ok(asked) => asked,
        Err(what) => return PageResponse::text(400, format!("{what}\n")),
    };
    if view.gateway.lists.load_of(&service).is_none() {
        return no_service(&service);
    }
    let page = lists::PageWriter::new(view, &service, part, shows_clients);
    let body = Body::Lists(Box::new(page));
    let answer = PageResponse::json(String::new());
    PageResponse { body, ..answer }
}

/// The servers of the service that the query names, or of all. Other parts of the query mean nothing here.
fn peers_of(view: &View, query: &[u8]) -> PageResponse {
    match service(query) {
        Ok(None) => PageResponse::json(peers::render(view)),
        Ok(Some(service)) => match peers::render_of(view, &service) {
            Some(page) => PageResponse::json(page),
            None => no_service(&service),
        },
        Err(what) => PageResponse::text(400, format!("{what}\n")),
    }
}

fn no_service(service: &ServiceName) -> PageResponse {
    PageResponse::text(404, format!("{NO_SERVICE}{service}\n"))
}

/// Accepts the held change that the query names.
fn accept(view: &View, query: &[u8]) -> PageResponse {
    let digest = query.strip_prefix(b"digest=");
    let digest = digest.and_then(|it| std::str::from_utf8(it).ok());
    let Some(digest) = digest.filter(|it| is_digest(it)) else {
        return PageResponse::text(400, "it takes ?digest= with 16 hexadecimal digits\n");
    };
    match view.publisher.accept(digest, By::Command) {
        Ok(accepted) => {
            let (list, generation) = (accepted.list.name(), accepted.generation);
            let service = accepted.service.in_log();
            let text =
                format!("accepted {service}list={list} digest={digest} generation={generation}\n");
            PageResponse::text(200, text)
        }
        Err(held) => PageResponse::text(409, format!("{}\n", no_such_change(digest, &held))),
    }
}

/// Whether `text` has the form of a digest, as it is displayed.
fn is_digest(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 16 && text.bytes().all(digit)
}

fn no_such_change(digest: &str, held: &[(ServiceName, HeldChange)]) -> String {
    let shown = |(service, it): &(ServiceName, HeldChange)| {
        let (list, reason) = (it.list.name(), it.reason.name());
        let service = service.in_log();
        format!("{} ({service}list={list} reason={reason})", it.digest)
    };
    let held: Vec<String> = held.iter().map(shown).collect();
    match held.as_slice() {
        [] => format!("{digest} is not held; nothing is"),
        held => format!(
            "{digest} is not held, or cannot be confirmed at present; held: {}",
            held.join(", ")
        ),
    }
}
