//! The counters as Prometheus text (exposition format 0.0.4).
//!
//! The workers' counters are added up here, while they go on counting; so the sums of two metrics
//! may differ by the requests of this moment. Every label of a known set is there from the start, with 0,
//! so that a first one is seen as an increase.

mod checks;
mod page;
mod peers;
mod process;
mod requests;
mod service;
mod units;
mod verdict;

use std::time::{Instant, SystemTime};

use page::{Labels, MetricsPage, Select};
use service::ServiceLabel;

use crate::admin::degraded;
use crate::admin::pages::standing::{age_of, copy_is_in_force};
use crate::admin::view::View;
use crate::error::{AdminRefusal, Close, Degradation, StoreFindingKind};
use crate::fleet::heartbeat::HeartbeatCounts;
use crate::lists::notes::FindingKind;
use crate::lists::{ListName, Lists, ServiceName};
use crate::metrics::Metrics;
use crate::net;
use crate::release::webhook::WebhookResult;
use crate::store::{Cause, copy};
use crate::upstream::names;
use crate::upstream::serving::{CountedRequests, Serving};

/// The whole page.
pub(super) fn render(view: &View) -> String {
    let mut page = MetricsPage::new();
    let metrics = &view.gateway.metrics;
    let serving = view.gateway.lists.serving();
    let counted = view.gateway.lists.counted_requests();
    requests::render(&mut page, metrics, &serving, &counted);
    units::render(&mut page, &serving);
    connections(&mut page, metrics, &counted);
    peers::render(&mut page, &view.gateway);
    checks::render(&mut page, &serving);
    lists(&mut page, view, &serving);
    let standing = view.judge.standing();
    verdict::render(&mut page, &serving, &standing);
    verdict::rollouts(&mut page, &serving, &standing);
    page.family(
        "webhook_total",
        "counter",
        "Messages that people were told by, by result: delivered, retried (an attempt), failed (given up), dropped (no room).",
    );
    for result in WebhookResult::ALL {
        let count = view.webhook.counted(result);
        page.value("webhook_total", &[("result", &result.name())], count);
    }
    let reloads = view.reloads.state();
    page.family(
        "reloads_total",
        "counter",
        "Readings of the ini file while running, by outcome.",
    );
    for (outcome, count) in [("ok", reloads.ok), ("failed", reloads.failed)] {
        page.value("reloads_total", &[("outcome", &outcome)], count);
    }
    page.single(
        "config_last_reload_successful",
        "gauge",
        "1 if the file was taken on when it was last read, by a reload or the start; 0 if that was not possible.",
        u8::from(reloads.error.is_none()),
    );
    let taken_on = reloads.taken_on.duration_since(SystemTime::UNIX_EPOCH);
    page.single(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the file was last taken on, by a reload or the start, in seconds since 1970.",
        taken_on.unwrap_or_default().as_secs_f64(),
    );
    let access_dropped = view.gateway.access_log.dropped();
    let error_dropped = view.error_log.dropped();
    page.family(
        "log_dropped_total",
        "counter",
        "Log lines that were dropped because nobody took them in time.",
    );
    page.value("log_dropped_total", &[("log", &"access")], access_dropped);
    page.value("log_dropped_total", &[("log", &"error")], error_dropped);
    page.family(
        "log_queued_bytes",
        "gauge",
        "Bytes of log lines that wait for their writer.",
    );
    for (log, queue) in [
        ("access", &view.gateway.access_log),
        ("error", &view.error_log),
    ] {
        page.value("log_queued_bytes", &[("log", &log)], queue.queued());
    }
    page.family(
        "admin_refusals_total",
        "counter",
        "Requests that the admin listener refused, by reason.",
    );
    for refusal in AdminRefusal::ALL {
        let count = view.refused.count(*refusal);
        page.value(
            "admin_refusals_total",
            &[("reason", &refusal.name())],
            count,
        );
    }
    page.family(
        "own_lines_dropped_total",
        "counter",
        "Access lines above own_lines that were dropped, of requests that needed no server, by listener.",
    );
    for listening in view.gateway.listening.load().iter() {
        let lines = listening.own_lines();
        let labels: Labels<'_> = &[("listen", &lines.listen())];
        page.value("own_lines_dropped_total", labels, lines.dropped());
    }
    page.single(
        "workers",
        "gauge",
        "Worker threads.",
        metrics.workers().len(),
    );
    page.family(
        "degraded",
        "gauge",
        "1 for what the gateway lacks though it serves, by reason: see /healthz?full.",
    );
    let lacks = degraded::all(view, false);
    for what in Degradation::ALL {
        let is_so = lacks.iter().any(|it| it.what == *what);
        page.value("degraded", &[("reason", &what.name())], u8::from(is_so));
    }
    page.single(
        "max_connections",
        "gauge",
        "Downstream connections that may be open: as configured, or as there are descriptors for.",
        view.gateway.config.load().gateway.max_connections,
    );
    process::render(&mut page);
    page.into_text()
}

fn connections(page: &mut MetricsPage, metrics: &Metrics, counted: &CountedRequests) {
    page.family(
        "connections_total",
        "counter",
        "Downstream connections that were accepted, by worker.",
    );
    by_worker(page, metrics, "connections_total", |it| &it.connections);
    page.family(
        "connections_active",
        "gauge",
        "Downstream connections that are open, by worker.",
    );
    by_worker(page, metrics, "connections_active", |it| &it.active);
    page.family(
        "connections_parked",
        "gauge",
        "Open downstream connections that are silent and wait without a coroutine, by worker.",
    );
    by_worker(page, metrics, "connections_parked", |it| &it.parked);
    page.family("worker_requests_total", "counter", "Requests by worker.");
    for (at, worker) in metrics.workers().iter().enumerate() {
        let of_others = counted.by_worker.get(at).copied().unwrap_or_default();
        let count = worker.of_default.all_requests().wrapping_add(of_others);
        page.value("worker_requests_total", &[("worker", &at)], count);
    }
    page.family(
        "turns_total",
        "counter",
        "Waits of connections with more to do for the turns of others, by worker.",
    );
    for worker in 0..metrics.workers().len() {
        page.value(
            "turns_total",
            &[("worker", &worker)],
            net::turns_over(worker),
        );
    }
    page.family(
        "connections_closed_total",
        "counter",
        "Downstream connections that have ended, by reason.",
    );
    for close in Close::ALL {
        let count = metrics.sum(|it| &it.closes[close.index()]);
        page.value(
            "connections_closed_total",
            &[("reason", &close.name())],
            count,
        );
    }
    page.family(
        "upstream_connections_total",
        "counter",
        "Connections to peers that requests have used: new ones, and idle ones again.",
    );
    let connects = metrics.sum(|it| &it.upstream_connects);
    let reuses = metrics.sum(|it| &it.upstream_reuses);
    page.value("upstream_connections_total", &[("kind", &"new")], connects);
    page.value("upstream_connections_total", &[("kind", &"reused")], reuses);
    page.family(
        "upstream_connections_idle",
        "gauge",
        "Connections to peers that are kept for requests to come, by worker, as of a second ago at most.",
    );
    by_worker(page, metrics, "upstream_connections_idle", |it| {
        &it.upstream_idle
    });
    page.family(
        "upstream_connections_pinned",
        "gauge",
        "Connections to peers that are kept for one client connection only, as NTLM needs it, by worker.",
    );
    by_worker(page, metrics, "upstream_connections_pinned", |it| {
        &it.upstream_pinned
    });
    page.family(
        "bytes_total",
        "counter",
        "Bytes of messages, heads and bodies, by side and direction.",
    );
    let table: [(&str, &str, Select); 4] = [
        ("downstream", "received", |it| &it.downstream_received),
        ("downstream", "sent", |it| &it.downstream_sent),
        ("upstream", "received", |it| &it.upstream_received),
        ("upstream", "sent", |it| &it.upstream_sent),
    ];
    for (side, direction, counter) in table {
        let labels: Labels<'_> = &[("side", &side), ("direction", &direction)];
        page.value("bytes_total", labels, metrics.sum(counter));
    }
    page.family(
        "panics_total",
        "counter",
        "Faults of the gateway's own that ended one connection.",
    );
    page.value("panics_total", &[], metrics.sum(|it| &it.panics));
}

fn by_worker(page: &mut MetricsPage, metrics: &Metrics, name: &str, of: Select) {
    for (at, worker) in metrics.workers().iter().enumerate() {
        page.value(name, &[("worker", &at)], of(worker).get());
    }
}

/// The services that may be asked for, as samples name them, with their lists.
fn named(serving: &Serving) -> Vec<(&ServiceName, ServiceLabel<'_>, &Lists)> {
    let services = serving.services().iter();
    // That nobody has lists of the default one is no alarm where it serves nobody.
    let used = services.filter(|it| !it.name().is_default() || it.pools().settings().takes_rest);
    let named = used.map(|it| {
        let label = ServiceLabel::of(serving, it.name());
        (it.name(), label, &**it.lists())
    });
    named.collect()
}

fn lists(page: &mut MetricsPage, view: &View, serving: &Serving) {
    let (lists, status) = (view.publisher.lists(), view.publisher.status());
    page.family(
        "lists_generation",
        "gauge",
        "Counts the snapshots of the lists; 0: nothing was read yet.",
    );
    let services = named(serving);
    for (_, service, lists) in &services {
        page.value("lists_generation", &service.labels(&[]), lists.generation);
    }
    page.family(
        "lists_age_seconds",
        "gauge",
        "Time since the lists were last read in full.",
    );
    if let Some(checked) = status.checked {
        page.value("lists_age_seconds", &[], checked.elapsed().as_secs_f64());
    }
    page.family(
        "lists_snapshots",
        "gauge",
        "Snapshots of the lists in memory: the one in force, and those that are still in use.",
    );
    page.value("lists_snapshots", &[], view.gateway.lists.kept());
    page.family("lists_entries", "gauge", "Entries in force, by list.");
    for (_, service, lists) in &services {
        for list in ListName::ALL {
            let name = list.name();
            let labels = service.labels(&[("list", &name)]);
            page.value("lists_entries", &labels, lists.len(list));
        }
    }
    page.family(
        "lists_skipped",
        "gauge",
        "Entries that cannot be read, by list.",
    );
    for (_, service, lists) in &services {
        for list in ListName::ALL {
            let name = list.name();
            let labels = service.labels(&[("list", &name)]);
            page.value("lists_skipped", &labels, lists.skipped(list).count);
        }
    }
    page.family(
        "lists_findings",
        "gauge",
        "Likely mistakes in the lists, and what is out of the ordinary with their store, by finding.",
    );
    for (service, label, lists) in &services {
        let findings = view.publisher.findings(lists);
        for kind in FindingKind::ALL {
            let (name, count) = (kind.name(), findings.count(kind));
            // A thousand services would fill the page with zeros.
            if count > 0 || service.is_default() {
                let labels = label.labels(&[("finding", &name)]);
                page.value("lists_findings", &labels, count);
            }
        }
    }
    for kind in StoreFindingKind::ALL {
        let of_kind = status.findings.iter().filter(|it| it.finding == *kind);
        let others = match kind {
            StoreFindingKind::ProxyNotBelieved => {
                usize::from(view.gateway.doubts.recent(Instant::now()).is_some())
            }
            StoreFindingKind::NameUnresolved => {
                view.gateway.lists.names().unresolved(Instant::now()).count
            }
            _ => 0,
        };
        let count = of_kind.count() + others;
        page.value("lists_findings", &[("finding", &kind.name())], count);
    }
    page.family(
        "tripped",
        "gauge",
        "1 while the new version is taken back: clients that pre would serve get prod.",
    );
    for (service, label, _) in &services {
        let is_tripped = view.trips.of(service).is_some();
        page.value("tripped", &label.labels(&[]), u8::from(is_tripped));
    }
    page.family(
        "lists_kept",
        "gauge",
        "1 for each list that keeps its last good value, with the fault.",
    );
    for (service, list, fault) in status.faults() {
        let (list, fault) = (list.name(), fault.name());
        let service = ServiceLabel::of(serving, service);
        let labels = service.labels(&[("list", &list), ("fault", &fault)]);
        page.value("lists_kept", &labels, 1);
    }
    page.family(
        "lists_held",
        "gauge",
        "1 for each guarded list of which a change waits to be accepted.",
    );
    for (service, label, _) in &services {
        let of_service = status.of(service).held;
        for list in [ListName::Gray, ListName::Prod] {
            let held = of_service.iter().any(|it| it.list == list);
            if held || service.is_default() {
                let list = list.name();
                let labels = label.labels(&[("list", &list)]);
                page.value("lists_held", &labels, u8::from(held));
            }
        }
    }
    if let Some(copy) = view.publisher.copy() {
        last_good_copy(page, &copy, copy_is_in_force(&lists, &status));
    }
    page.family(
        "lists_refreshes_total",
        "counter",
        "Readings of the lists, and changes without one (copy, accepted), by cause.",
    );
    for cause in Cause::ALL {
        let count = status.refreshes[cause as usize];
        page.value("lists_refreshes_total", &[("cause", &cause.name())], count);
    }
    page.family(
        "lists_missed_events_total",
        "counter",
        "Changes of the lists that were found by a check, and should have been announced.",
    );
    page.value("lists_missed_events_total", &[], status.missed_events);
    page.family(
        "lists_failures_total",
        "counter",
        "Attempts to read the lists that have failed.",
    );
    page.value("lists_failures_total", &[], status.failures);
    page.family(
        "lists_readable",
        "gauge",
        "1 while the lists can be read from their source.",
    );
    page.value(
        "lists_readable",
        &[],
        u8::from(status.error.is_none() && status.checked.is_some()),
    );
    page.family(
        "lists_mode",
        "gauge",
        "1 for the way in which changes are noticed.",
    );
    page.value("lists_mode", &[("mode", &status.mode.name())], 1);
    if let Some(heartbeat) = &*view.heartbeat.load() {
        heartbeats(page, &heartbeat.counts());
    }
    names(page, &view.gateway.lists.names().counts());
}

fn names(page: &mut MetricsPage, counts: &names::NameCounts) {
    let name = "names";
    page.family(
        name,
        "gauge",
        "Names in the lists, by what is known of them: kept are the last addresses of one that cannot be resolved.",
    );
    for (state, count) in [
        ("resolved", counts.resolved),
        ("kept", counts.kept),
        ("unresolved", counts.unresolved),
    ] {
        page.value(name, &[("state", &state)], count);
    }
    let name = "name_lookups_total";
    page.family(
        name,
        "counter",
        "Answers of the system's resolver, by outcome.",
    );
    for (outcome, count) in [("resolved", counts.answers), ("failed", counts.failures)] {
        page.value(name, &[("outcome", &outcome)], count);
    }
}

fn heartbeats(page: &mut MetricsPage, counts: &HeartbeatCounts) {
    let name = "fleet_heartbeats_total";
    page.family(name, "counter", "Heartbeats in Redis, by outcome.");
    for (outcome, count) in [
        ("written", counts.written),
        ("refused", counts.refused),
        ("failed", counts.failed),
    ] {
        page.value(name, &[("outcome", &outcome)], count);
    }
}

fn last_good_copy(page: &mut MetricsPage, copy: &copy::CopyView, in_force: bool) {
    page.family(
        "lists_copy_age_seconds",
        "gauge",
        "Time since the lists of the last-good copy were known to be good.",
    );
    if let Some(age) = age_of(copy) {
        page.value("lists_copy_age_seconds", &[], age);
    }
    page.family(
        "lists_copy_failures_total",
        "counter",
        "Attempts to write the last-good copy that have failed.",
    );
    page.value("lists_copy_failures_total", &[], copy.failures);
    page.family(
        "lists_copy_in_force",
        "gauge",
        "1 while the lists in force are those of the last-good copy.",
    );
    page.value("lists_copy_in_force", &[], u8::from(in_force));
}
