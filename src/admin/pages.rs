//! The pages that are short: `/healthz` and `/config`, and what `/lists` says besides the entries.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::admin::view::View;
use crate::error::{Finding, Refusal};
use crate::fleet::heartbeat::Heartbeat;
use crate::lists::Lists;
use crate::lists::findings::Findings;
use crate::lists::notes::Kind;
use crate::proxy::doubts::Doubted;
use crate::store::gate::guard::{Held, Named};
use crate::store::{Status, StoreFinding, copy};

/// Whether requests can be served; if not, the reason.
pub(super) fn health(view: &View) -> Result<String, String> {
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

/// The ini file, and what has come of reading it again. Values are not shown: some are secret.
pub(super) fn config(view: &View) -> String {
    let config = view.gateway.config.load();
    let reloads = view.reloads.tally();
    let page = json!({
        "file": config.path.to_string_lossy(),
        "pid": std::process::id(),
        "reloads": {
            "ok": reloads.ok,
            "failed": reloads.failed,
            "under_way": reloads.under_way,
        },
        "error": reloads.error,
        "ignored": reloads.ignored,
        "masked": config.masked,
        "max_connections": config.gateway.max_connections,
    });
    format!("{page:#}\n")
}

/// How many there are of each kind, and the first of them.
pub(super) fn findings(
    findings: &Findings,
    of_store: &[StoreFinding],
    doubted: Option<&Doubted>,
) -> serde_json::Value {
    let of_lists = Kind::ALL.map(|kind| (kind.name(), findings.count(kind)));
    let counts = Finding::ALL.iter().map(|kind| {
        let of_kind = of_store.iter().filter(|it| it.finding == *kind);
        let is_of_proxy = *kind == Finding::ProxyNotBelieved && doubted.is_some();
        (kind.name(), of_kind.count() + usize::from(is_of_proxy))
    });
    let counts = counts.filter(|(_, count)| *count > 0).chain(of_lists);
    // What concerns all lists comes first.
    let store = of_store.iter().map(|it| {
        json!({
            "finding": it.finding.name(),
            "list": Value::Null,
            "entry": it.server,
            "text": it.told(),
        })
    });
    let proxies = doubted.map(|it| {
        json!({
            "finding": Finding::ProxyNotBelieved.name(),
            "list": Value::Null,
            "entry": it.proxy.to_string(),
            "text": it.told(Instant::now()),
        })
    });
    let lists = findings.first.iter().map(|it| {
        json!({
            "finding": it.kind.name(),
            "list": it.list.name(),
            "entry": it.entry,
            "text": it.text,
        })
    });
    json!({
        "count": counts.collect::<BTreeMap<_, _>>(),
        "first": store.chain(proxies).chain(lists).collect::<Vec<_>>(),
    })
}

pub(super) fn held(held: &Held) -> Value {
    let named = |it: &Named| json!({ "count": it.count, "first": it.first });
    json!({
        "list": held.list.name(),
        "reason": held.reason.name(),
        "digest": held.digest.to_string(),
        "since": rfc3339(held.since),
        "entries": held.entries,
        "gone": named(&held.gone),
        "new": named(&held.new),
    })
}

pub(super) fn heartbeat(heartbeat: &Heartbeat) -> Value {
    let tally = heartbeat.tally();
    json!({
        "node": heartbeat.node(),
        "written": tally.written,
        "refused": tally.refused,
        "failed": tally.failed,
        "error": tally.error,
    })
}

pub(super) fn copy(copy: &copy::View, in_force: bool) -> Value {
    json!({
        "path": copy.path.to_string_lossy(),
        "written": copy.written.map(rfc3339),
        "age_seconds": age_of(copy),
        "in_force": in_force,
        "error": copy.error,
        "failures": copy.failures,
        "store": copy.store,
        "other": copy.other.as_ref().map(|(store, path)| json!({
            "store": store,
            "path": path.to_string_lossy(),
        })),
    })
}

/// How old the copy is; 0 when it is from the future, since a clock was set.
pub(super) fn age_of(copy: &copy::View) -> Option<f64> {
    let age = |written| SystemTime::now().duration_since(written);
    let age = copy.written.map(|it| age(it).unwrap_or_default());
    age.map(|it| it.as_secs_f64())
}

/// True while nothing has been read since the start.
pub(super) fn copy_is_in_force(lists: &Lists, status: &Status) -> bool {
    lists.are_read() && status.checked.is_none()
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
