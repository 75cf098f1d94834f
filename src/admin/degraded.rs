//! What a gateway that serves lacks: the same words in `/healthz?full`, in `graygate status` and in the
//! metric `graygate_degraded`.

use std::time::{Duration, Instant};

use crate::admin::served;
use crate::admin::view::View;
use crate::error::Degradation;
use crate::lists::PoolName;
use crate::process;
use crate::process::figures;
use crate::upstream::events::Up;

/// What was so long ago has been seen.
const MEMORY: Duration = Duration::from_secs(3600);

/// What one thing is, in words.
pub(super) struct Degraded {
    pub(super) what: Degradation,
    pub(super) text: String,
}

/// All of it, in the order of [`Degradation::ALL`], to whoever may see `clients` or not.
pub(super) fn all(view: &View, clients: bool) -> Vec<Degraded> {
    let found = Degradation::ALL.iter().flat_map(|what| {
        let texts = found(view, *what, clients).into_iter();
        texts.map(|text| Degraded { what: *what, text })
    });
    found.collect()
}

fn found(view: &View, what: Degradation, clients: bool) -> Vec<String> {
    match what {
        Degradation::PoolOut => pools(view, |up| up.up == 0),
        Degradation::ServiceUnserved => unserved(view, clients),
        Degradation::PoolFailing => pools(view, |up| up.up > 0 && 2 * up.up < up.all),
        Degradation::DescriptorsShort => descriptors(view).into_iter().collect(),
        Degradation::LogDropped => logs(view),
        Degradation::ReloadFailed => reload(view).into_iter().collect(),
        Degradation::RestartPending => restart(view).into_iter().collect(),
        Degradation::ListsUnreadable => view.store_error(clients).into_iter().collect(),
        Degradation::NameUnresolved => names(view).into_iter().collect(),
    }
}

/// Services that cannot be served. Of the default one `/healthz` itself says so, where it serves anybody.
fn unserved(view: &View, clients: bool) -> Vec<String> {
    let serving = view.gateway.lists.serving();
    let others = serving.services().iter().skip(1);
    let unserved = others.filter_map(|it| {
        let reason = served::why_not(view, it, clients)?;
        Some(format!("{}: {reason}", it.name()))
    });
    unserved.collect()
}

/// The pools with peers that are so.
fn pools(view: &View, is_so: impl Fn(Up) -> bool) -> Vec<String> {
    let serving = view.gateway.lists.serving();
    let services = serving.services().iter().map(|it| it.pools());
    let up = services.flat_map(|it| PoolName::ALL.map(|pool| (it, pool, Up::of(it[pool].peers()))));
    let so = up.filter(|(.., up)| up.all > 0 && is_so(*up));
    so.map(|(pools, pool, up)| {
        let service = match pools.service() {
            service if service.is_default() => String::new(),
            service => format!("{service} "),
        };
        let (pool, up, all) = (pool.name(), up.up, up.all);
        format!("{service}{pool}: {up} of {all} servers are up")
    })
    .collect()
}

fn descriptors(view: &View) -> Option<String> {
    let most = view.gateway.config.load().gateway.max_connections;
    if let Some(asked) = process::connections_in_vain() {
        return Some(format!(
            "there are descriptors for {most} connections, and max_connections is {asked}"
        ));
    }
    let (open, allowed) = (figures::open_descriptors()?, figures::max_descriptors()?);
    let is_near = open.saturating_mul(10) >= allowed.saturating_mul(9);
    is_near.then(|| format!("{open} of {allowed} descriptors are open"))
}

fn logs(view: &View) -> Vec<String> {
    let logs = [
        ("access", &view.gateway.access_log),
        ("error", &view.error_log),
    ];
    let lost = logs.into_iter().filter_map(|(name, log)| {
        let ago = log.since_dropped().filter(|it| *it < MEMORY)?;
        let (lines, seconds) = (log.dropped(), ago.as_secs());
        Some(format!(
            "the {name} log has lost {lines} lines since the start, the last one {seconds} s ago"
        ))
    });
    lost.collect()
}

fn reload(view: &View) -> Option<String> {
    let error = view.reloads.state().error?;
    Some(format!("the settings before it are in force: {error}"))
}

fn restart(view: &View) -> Option<String> {
    let ignored = view.reloads.state().ignored;
    let keys = ignored.join(", ");
    (!keys.is_empty()).then(|| format!("only a restart changes {keys}"))
}

fn names(view: &View) -> Option<String> {
    let unresolved = view.gateway.lists.names().unresolved(Instant::now());
    let (name, text) = unresolved.first.first()?;
    Some(match unresolved.count {
        1 => format!("{name} {text}"),
        count => format!("{count} names; {name} {text}"),
    })
}
