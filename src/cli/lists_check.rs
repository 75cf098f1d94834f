//! `graygate lists check`: what is likely to be a mistake in the lists of a file, or of the store,
//! without asking the gateway.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use crate::admin::pages::Member as _;
use crate::admin::pages::standing::{FindingsFound, SkippedShown};
use crate::cli::fleet;
use crate::cli::report::Report;
use crate::config::{Config, RedisSettings, Store};
use crate::lists::findings::{self, Findings};
use crate::lists::notes::FindingKind;
use crate::lists::{AdmittedUntil, Family, GrayList, ListName, Lists};
use crate::run;
use crate::store::gate::guard::HoldReason;
use crate::store::{Reading, format, redis};
use crate::upstream::names::Unresolved;

/// The default of `[upstream] peer_port`.
const PEER_PORT: u16 = 80;

/// Checks the lists in `file`, or else in the store of the ini file at `config`, which also names
/// trusted proxies and the port of peers.
///
/// # Errors
/// One line: what cannot be read.
pub(crate) fn check(file: Option<&Path>, config: &Path) -> Result<Report, String> {
    let loaded = match run::load(config) {
        // A lists file can be checked on a machine without a gateway.
        Err(_) if file.is_some() && !config.exists() => None,
        outcome => Some(outcome?),
    };
    let (port, trusted) = match &loaded {
        Some(config) => (
            config.default_service().upstream.peer_port,
            &*config.gateway.trusted_proxies,
        ),
        None => (PEER_PORT, &[][..]),
    };
    let none = redis::WrongTypes::default;
    let (reading, types) = match (file, loaded.as_ref().map(|it: &Config| &it.store)) {
        (Some(path), _) => (read_file(path)?, none()),
        (None, Some(Store::File(path))) => (read_file(path)?, none()),
        (None, Some(Store::Redis(settings))) => {
            let once = redis::read(settings);
            let once = once.map_err(|error| format!("{}: {error}", settings.url))?;
            (once.reading, once.types)
        }
        (None, None) => return Err("nothing to check".to_owned()),
    };
    // Whoever follows another store does not matter for a file.
    let fleet = match loaded.as_ref().map(|it| &it.store) {
        Some(Store::Redis(settings)) if file.is_none() => Some(settings),
        _ => None,
    };
    Ok(report(reading, &types, port, trusted, fleet))
}

fn read_file(path: &Path) -> Result<Reading, String> {
    let read = format::read(path).and_then(|text| format::parse_leniently(&text));
    read.map_err(|error| format!("{}: {error}", path.display()))
}

fn report(
    reading: Reading,
    types: &redis::WrongTypes,
    port: u16,
    trusted: &[ipnet::IpNet],
    fleet: Option<&RedisSettings>,
) -> Report {
    let mut text = String::new();
    let mut faults = Vec::new();
    for (list, entries) in reading.iter() {
        let Err(fault) = entries else { continue };
        faults.push(json!({ "list": list.name(), "fault": fault.name() }));
        // Writing to a String cannot fail.
        let _ = match types.of(list) {
            Some(what) => writeln!(text, "{}: {}: {what}", list.name(), fault.name()),
            None => writeln!(text, "{}: {}", list.name(), fault.name()),
        };
    }
    let entries = reading.map(Result::unwrap_or_default);
    let lists = Lists::parse(1, entries.as_ref(), port);
    let findings = findings::findings(&lists, trusted, SystemTime::now());
    tell_skipped(&mut text, &lists, &findings);
    tell_findings(&mut text, &findings);
    let held = tell_held(&mut text, &lists);
    let (behind, note) = tell_behind(&mut text, &lists, fleet);
    let skipped: usize = ListName::ALL
        .iter()
        .map(|it| lists.skipped(*it).count)
        .sum();
    // An almost valid entry is both a finding and skipped, but counts once.
    let remarks = faults.len() + held.len() + behind.len() + skipped + findings.total()
        - findings.count(FindingKind::Almost);
    if remarks == 0 {
        let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
        text = format!("nothing to report: gray {gray}, pre {pre}, prod {prod}\n");
    }
    let by_list = |of: &dyn Fn(ListName) -> Value| {
        let all = ListName::ALL.into_iter();
        Value::Object(all.map(|it| (it.name().to_owned(), of(it))).collect())
    };
    let found = FindingsFound::of(&findings, &[], None, &Unresolved::default());
    let json = json!({
        "remarks": remarks,
        "counts": by_list(&|it| lists.len(it).into()),
        "kept": faults,
        "skipped": by_list(&|it| SkippedShown::of(&lists, it).render()),
        "findings": found.render(),
        "held": held,
        "behind": behind,
    });
    let report = Report::new(text, json).noting(note.into_iter().collect());
    match remarks {
        0 => report,
        1 => report.but("1 entry to look at".to_owned()),
        count => report.but(format!("{count} entries to look at")),
    }
}

fn tell_skipped(text: &mut String, lists: &Lists, findings: &Findings) {
    for list in ListName::ALL {
        let skipped = lists.skipped(list);
        for it in &skipped.first {
            let mut almost = findings.first.iter();
            // A finding says more about those.
            if !almost
                .any(|of| (of.kind, of.list, &of.entry) == (FindingKind::Almost, list, &it.entry))
            {
                let _ = writeln!(
                    text,
                    "{}: skipped: {}: {}",
                    list.name(),
                    it.entry,
                    it.reason
                );
            }
        }
        more(
            text,
            list.name(),
            "skipped",
            skipped.count - skipped.first.len(),
        );
    }
}

fn tell_findings(text: &mut String, findings: &Findings) {
    for it in &findings.first {
        let (list, kind) = (it.list.name(), it.kind.name());
        let times = match (it.kind, it.count + 1) {
            (FindingKind::Duplicate, times) => format!(" ({times} times)"),
            _ => String::new(),
        };
        let _ = writeln!(text, "{list}: {kind}: {}: {}{times}", it.entry, it.text);
    }
    // The almost valid ones are among the skipped entries.
    for kind in FindingKind::ALL
        .into_iter()
        .filter(|it| *it != FindingKind::Almost)
    {
        let of_kind = findings.first.iter().filter(|it| it.kind == kind);
        let named: usize = of_kind.map(|it| it.count).sum();
        more(text, "all", kind.name(), findings.count(kind) - named);
    }
}

/// Reports which entries the guard lets in only after confirmation; returns them as members.
fn tell_held(text: &mut String, lists: &Lists) -> Vec<Value> {
    let reason = HoldReason::AdmitsEverybody.name();
    let remark = "such a change is held until somebody confirms it";
    let mut told = Vec::new();
    for what in held(&lists.gray) {
        let _ = writeln!(text, "gray: {reason}: {what}: {remark}");
        told.push(json!({ "list": ListName::Gray.name(), "reason": reason, "text": what }));
    }
    told
}

/// Reports which gateways of the fleet skip entries of `gray`, since they are of a version that knows
/// addresses only. With their names, why they may not be all.
fn tell_behind(
    text: &mut String,
    lists: &Lists,
    fleet: Option<&RedisSettings>,
) -> (Vec<String>, Option<String>) {
    let rules = lists.gray.rules();
    let (Some(first), Some(settings)) = (rules.first(), fleet) else {
        return (Vec::new(), None);
    };
    match fleet::behind(settings) {
        Ok(behind) => {
            for node in &behind {
                let _ = writeln!(
                    text,
                    "gray: not-understood: {first}: is skipped by the gateway {node}, as are all entries but \
                     addresses ({}): it needs an upgrade",
                    rules.len()
                );
            }
            (behind, None)
        }
        Err(why) => {
            let note =
                format!("note: whether all gateways understand these entries is unknown: {why}");
            (Vec::new(), Some(note))
        }
    }
}

/// What admits everybody, once if it is both families'.
fn held(gray: &GrayList) -> Vec<String> {
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let held = Family::ALL.into_iter().zip(all);
    let held = held.filter(|(family, _)| gray.admission(*family) > AdmittedUntil::Never);
    let held = held.map(|(family, net)| {
        let mut rules = gray.admitting_rules(family);
        match rules.find(|(_, is_enough)| *is_enough) {
            _ if gray.has(&net) => net.to_string(),
            Some((rule, _)) => rule.to_string(),
            None => {
                let count = gray.nets_of(family).count() + gray.admitting_rules(family).count();
                format!("{}, by {count} entries together", family.name())
            }
        }
    });
    let mut held: Vec<String> = held.collect();
    held.dedup();
    held
}

fn more(text: &mut String, list: &str, kind: &str, count: usize) {
    if count > 0 {
        let _ = writeln!(text, "{list}: {kind}: {count} more");
    }
}
