//! `graygate promote`: what speaks against it, besides what the lists say.
//!
//! A verdict of some gateway that doubts the new version, or finds that both fail, by its heartbeat or, of
//! the one that runs here, by its page; a server of `pre` that this one does not take for up, or another
//! gateway by its heartbeat; gateways that do not have the lists that are promoted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::admin::pages::peers::PeersPage;
use crate::admin::pages::verdict::VerdictPage;
use crate::cli::admin_client::AdminClient;
use crate::cli::arguments::VerbFlags;
use crate::cli::report::Report;
use crate::cli::verbs;
use crate::config::{Config, Store};
use crate::fleet::nodes::{FleetLook, Heard, Nodes, Silent};
use crate::fleet::release::PeersUp;
use crate::lists::{Digest, PoolName, ServiceName};
use crate::release::change::{ListsChange, Verb};

/// Time for one look at all gateways.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The findings that speak against a release.
const DOUBTS: [&str; 2] = ["suspect", "worse"];

/// The one that says that both versions fail.
const INCIDENT: &str = "incident";

/// What a finding speaks against, if it does: it is said before whose it is.
fn objection(finding: &str) -> Option<&'static str> {
    match finding {
        INCIDENT => Some("both versions fail, so nothing is known of the new one"),
        it if DOUBTS.contains(&it) => Some("the verdict speaks against it"),
        _ => None,
    }
}

/// Most that are named.
const NAMED: usize = 5;

/// Makes `pre` what everybody gets.
///
/// # Errors
/// One line: what speaks against it, or why nothing was changed.
pub(crate) fn promote(flags: &VerbFlags, swap: bool, force: bool) -> Result<Report, String> {
    let service = verbs::of(flags)?;
    // What speaks against it is looked at once, of the same lists: whoever is asked meanwhile knows it.
    let mut checked: Option<(Digest, Vec<String>)> = None;
    let mut check = |config: &Config, change: &ListsChange| {
        if let Some((_, notes)) = checked.as_ref().filter(|(of, _)| *of == change.before) {
            return Ok(notes.clone());
        }
        let notes = objections(flags, config, &service, change, force)?;
        checked = Some((change.before, notes.clone()));
        Ok(notes)
    };
    verbs::perform_checked(flags, Verb::Promote { swap, force }, &mut check)
}

/// Notes; the error is what speaks against it.
fn objections(
    flags: &VerbFlags,
    config: &Config,
    service: &ServiceName,
    change: &ListsChange,
    force: bool,
) -> Result<Vec<String>, String> {
    let (mut against, mut notes) = (Vec::new(), Vec::new());
    match servers_out(flags, service) {
        Ok(out) => against.extend(out),
        Err(why) => notes.push(format!("how the servers of pre do is not known: {why}")),
    }
    // The only one that is known where there are no heartbeats.
    let mut doubting = doubts_here(flags, service);
    if let Store::Redis(settings) = &config.store {
        match Nodes::new(settings).read(Instant::now() + TIME_LIMIT) {
            Ok(look) => {
                doubting = doubts(&look.heard, service).or(doubting);
                against.extend(servers_out_elsewhere(&look.heard, service));
                against.extend(elsewhere(&look, service, &change.before.to_string()));
                notes.extend(silent(&look.silent));
            }
            Err(why) => notes.push(format!("what the gateways hold is not known: {why}")),
        }
    }
    against.extend(doubting);
    match (against.is_empty(), force) {
        (true, _) => Ok(notes),
        (false, true) => {
            notes.extend(against);
            Ok(notes)
        }
        (false, false) => Err(format!(
            "not promoted: {}; --force promotes all the same",
            against.join("; ")
        )),
    }
}

/// The servers of `pre` that the running gateway does not take for up.
fn servers_out(flags: &VerbFlags, service: &ServiceName) -> Result<Option<String>, String> {
    let page: PeersPage = AdminClient::of(&flags.config)?.page()?;
    let is_meant = |pool: &str, of: &str| pool == PoolName::Pre.name() && of == service.as_str();
    let pools = page
        .pools
        .iter()
        .filter(|it| is_meant(&it.pool, &it.service));
    let out: Vec<String> = pools
        .flat_map(|it| &it.peers)
        .filter(|it| !it.up)
        .map(|it| match &it.reason {
            Some(reason) => format!("{} ({} {reason})", it.address, it.state),
            None => format!("{} ({})", it.address, it.state),
        })
        .collect();
    Ok((!out.is_empty()).then(|| format!("not all servers of pre are up: {}", some(&out))))
}

/// The gateways that say that they do not take all servers of `pre` for up.
fn servers_out_elsewhere(heard: &[Heard], service: &ServiceName) -> Option<String> {
    let lacking: Vec<String> = heard
        .iter()
        .filter_map(|it| {
            let pre = it.node.as_ref()?.pre_of(service)?;
            let PeersUp { up, all } = pre;
            pre.lacks_one()
                .then(|| format!("{} has {up} of {all} up", it.name))
        })
        .collect();
    (!lacking.is_empty()).then(|| format!("not all servers of pre are up: {}", some(&lacking)))
}

/// The gateways that may serve by whatever lists they had.
fn silent(all: &[Silent]) -> Option<String> {
    let names: Vec<String> = all.iter().map(|it| it.name.clone()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "not heard from, so they may have other lists: {}",
            some(&names)
        )
    })
}

/// The gateways that do not have the lists of a service with this digest.
fn elsewhere(look: &FleetLook, service: &ServiceName, digest: &str) -> Option<String> {
    let others: Vec<String> = look.without(service, digest).map(str::to_owned).collect();
    let (some, count, all) = (some(&others), others.len(), look.heard.len());
    (count > 0).then(|| format!("{count} of {all} gateways do not hold the lists: {some}"))
}

/// The gateways whose verdict on the release doubts it, or that find both versions failing. One that says
/// nothing of it knows nothing against it.
fn doubts(heard: &[Heard], service: &ServiceName) -> Option<String> {
    let mut doubting: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in heard {
        let node = it.node.as_ref();
        let verdict = node.and_then(|node| node.verdicts.get(service.as_str()));
        let finding = verdict.map_or("", |it| &*it.finding);
        if let Some(objection) = objection(finding) {
            let says = format!("{} says {finding}", it.name);
            doubting.entry(objection).or_default().push(says);
        }
    }
    let all = doubting.iter();
    let all = all.map(|(objection, who)| format!("{objection}: {}", some(who)));
    let all: Vec<String> = all.collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What the gateway that runs here says of the release, if it does and doubts it. That it cannot be asked, is
/// said elsewhere.
fn doubts_here(flags: &VerbFlags, service: &ServiceName) -> Option<String> {
    let page: VerdictPage = AdminClient::of(&flags.config).ok()?.page().ok()?;
    let mut services = page.services.iter();
    let seen = services.find(|it| it.service == service.as_str())?;
    let state = &seen.state;
    objection(state).map(|objection| format!("{objection}: the gateway here says {state}"))
}

/// The first of them.
fn some(all: &[String]) -> String {
    let more = match all.len() > NAMED {
        true => ", …",
        false => "",
    };
    format!("{}{more}", all[..all.len().min(NAMED)].join(", "))
}
