//! `graygate lists check`: what is likely to be a mistake in the lists of a file, or of the store,
//! without asking the gateway; and which gateways on the store would not understand them.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value, json};

use crate::admin::pages::Member as _;
use crate::admin::pages::standing::{FindingsFound, SkippedShown};
use crate::cli::fleet;
use crate::cli::lists::{named, unknown};
use crate::cli::report::Report;
use crate::cli::stored::{self, StoredReading};
use crate::config::{Config, RedisSettings, ServiceSettings, Store};
use crate::fleet::node::Node;
use crate::lists::findings::{self, Findings};
use crate::lists::notes::FindingKind;
use crate::lists::{AdmittedUntil, Family, GrayList, ListName, Lists, Salt, ServiceName};
use crate::run;
use crate::store::format;
use crate::store::gate::guard::HoldReason;
use crate::upstream::names::Unresolved;

/// The default of `[upstream] peer_port`.
const PEER_PORT: u16 = 80;

/// Checks the lists in `file`, or else in the store of the ini file at `config`, which also names
/// trusted proxies, services and the port of peers: those of one service, or of all.
///
/// # Errors
/// One line: what cannot be read.
pub(crate) fn check(
    file: Option<&Path>,
    config: &Path,
    service: Option<&str>,
) -> Result<Report, String> {
    let one = service.map(named).transpose()?;
    let loaded = match run::load(config) {
        // A lists file can be checked on a machine without a gateway.
        Err(_) if file.is_some() && !config.exists() => None,
        outcome => Some(outcome?),
    };
    let services = loaded.as_ref().map(|it| &*it.services);
    let of_file = match (file, loaded.as_ref().map(|it| &it.store)) {
        (Some(path), _) => Some(path),
        (None, Some(Store::File(path))) => Some(path.as_path()),
        (None, _) => None,
    };
    let mut readings = match (of_file, &loaded) {
        (Some(path), _) => {
            let all = stored::of_file(path, |text| format::parse_leniently(text, services))?;
            all.into_iter().map(StoredReading::of_file).collect()
        }
        (None, Some(config)) => stored::readings(config)?,
        (None, None) => return Err("nothing to check".to_owned()),
    };
    if let Some(one) = &one {
        let names = readings.iter().map(|it| it.reading.service.as_str());
        let error = unknown(one, "what is checked", names);
        readings.retain(|it| it.reading.service == *one);
        if readings.is_empty() {
            return Err(error);
        }
    }
    let mut all = Vec::new();
    for reading in readings {
        let name = &reading.reading.service;
        let settings = services.and_then(|all| all.iter().find(|it| it.name == *name));
        all.push(CheckedService::of(
            reading,
            settings.map(|it| &**it),
            loaded.as_ref(),
        ));
    }
    // Whoever follows another store does not matter for a file.
    let note = match (of_file, loaded.as_ref().map(|it| &it.store)) {
        (None, Some(Store::Redis(settings))) => tell_behind(settings, &mut all),
        _ => None,
    };
    Ok(report(all, one.is_some()).noting(note.into_iter().collect()))
}

/// What there is to say of the lists of a service.
struct CheckedService {
    service: ServiceName,
    text: String,
    remarks: usize,
    counts: [usize; 3],
    /// Entries of `gray` that are more than addresses, and the first of them.
    rules: usize,
    first_rule: Option<String>,
    members: Map<String, Value>,
}

impl CheckedService {
    fn of(
        stored: StoredReading,
        settings: Option<&ServiceSettings>,
        config: Option<&Config>,
    ) -> Self {
        let service = stored.reading.service.clone();
        let mut text = String::new();
        let mut faults = Vec::new();
        for (list, entries) in stored.reading.lists.iter() {
            let Err(fault) = entries else { continue };
            faults.push(json!({ "list": list.name(), "fault": fault.name() }));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", stored.in_words(list, *fault));
        }
        if let Some(what) = &stored.why_no_salt {
            let title = format::title(&service, "salt");
            faults.push(json!({ "list": "salt", "fault": "wrong-type" }));
            let _ = writeln!(text, "{title}: wrong-type: {what}");
        }
        let port = settings.map_or(PEER_PORT, |it| it.upstream.peer_port);
        let lists = stored::lists_of(stored.reading.lists, Salt::default(), port);
        let trusted = config.map_or(&[][..], |it| &it.gateway.trusted_proxies);
        let findings = findings::findings(&lists, trusted, SystemTime::now());
        let title = |list: &str| format::title(&service, list);
        tell_skipped(&mut text, &title, &lists, &findings);
        tell_findings(&mut text, &title, &findings);
        let held = tell_held(&mut text, &title, &lists);
        let counts = ListName::ALL.map(|list| lists.len(list));
        let skipped = ListName::ALL.iter().map(|it| lists.skipped(*it).count);
        // An almost valid entry is both a finding and skipped, but counts once.
        let remarks = faults.len() + held.len() + skipped.sum::<usize>() + findings.total()
            - findings.count(FindingKind::Almost);
        let by_list = |of: &dyn Fn(ListName) -> Value| {
            let all = ListName::ALL.into_iter();
            Value::Object(all.map(|it| (it.name().to_owned(), of(it))).collect())
        };
        let found = FindingsFound::of(&findings, &[], None, &Unresolved::default());
        let members = [
            ("remarks", json!(remarks)),
            ("counts", by_list(&|it| lists.len(it).into())),
            ("kept", json!(faults)),
            (
                "skipped",
                by_list(&|it| SkippedShown::of(&lists, it).render()),
            ),
            ("findings", found.render()),
            ("held", json!(held)),
            ("behind", json!([])),
        ];
        let members = members.map(|(name, it)| (name.to_owned(), it)).into_iter();
        Self {
            text,
            remarks,
            counts,
            rules: lists.gray.rules().len(),
            first_rule: lists.gray.rules().first().map(ToString::to_string),
            members: members.collect(),
            service,
        }
    }

    /// Takes note of gateways that understand addresses only. One without this service has nothing of it.
    fn tell_behind(&mut self, nodes: &[Node]) {
        let Some(first) = &self.first_rule else {
            return;
        };
        let title = format::title(&self.service, ListName::Gray.name());
        let has = |node: &&Node| {
            let service = &self.service;
            service.is_default() || node.services.contains_key(service.as_str())
        };
        let mut behind = Vec::new();
        for node in nodes.iter().filter(has) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                self.text,
                "{title}: not-understood: {first}: is skipped by the gateway {}, as are all entries but \
                 addresses ({}): it needs an upgrade",
                node.name, self.rules
            );
            behind.push(json!(node.name));
        }
        self.remarks += behind.len();
        for (name, value) in [("remarks", json!(self.remarks)), ("behind", json!(behind))] {
            self.members.insert(name.to_owned(), value);
        }
    }

    fn with_name(self, names: bool) -> Map<String, Value> {
        let mut members = self.members;
        if names {
            members.insert("service".to_owned(), json!(self.service.as_str()));
        }
        members
    }
}

/// Reports which gateways of the fleet skip entries of `gray`, as those of a version do that knows addresses
/// only; says why they may not be all. Nobody is asked where there are only addresses, which all understand.
fn tell_behind(settings: &RedisSettings, all: &mut [CheckedService]) -> Option<String> {
    if all.iter().all(|it| it.first_rule.is_none()) {
        return None;
    }
    let behind = match fleet::behind(settings) {
        Ok(behind) => behind,
        Err(why) => {
            let unknown = "whether all gateways understand these entries is unknown";
            return Some(format!("note: {unknown}: {why}"));
        }
    };
    for it in all {
        it.tell_behind(&behind);
    }
    None
}

fn report(all: Vec<CheckedService>, one: bool) -> Report {
    let remarks: usize = all.iter().map(|it| it.remarks).sum();
    let mut text: String = all.iter().map(|it| &*it.text).collect();
    if remarks == 0 {
        let sum = |list: usize| all.iter().map(|it| it.counts[list]).sum::<usize>();
        let [gray, pre, prod] = [0, 1, 2].map(sum);
        let services = match all.len() {
            1 => String::new(),
            count => format!(" in {count} services"),
        };
        text = format!("nothing to report: gray {gray}, pre {pre}, prod {prod}{services}\n");
    }
    let mut all = all.into_iter();
    let mut members = all.next().map(|it| it.with_name(one)).unwrap_or_default();
    let others: Vec<Value> = all.map(|it| Value::Object(it.with_name(true))).collect();
    if !others.is_empty() {
        members.insert("services".to_owned(), json!(others));
    }
    members.insert("remarks".to_owned(), json!(remarks));
    let report = Report::new(text, Value::Object(members));
    match remarks {
        0 => report,
        1 => report.but("1 entry to look at".to_owned()),
        count => report.but(format!("{count} entries to look at")),
    }
}

/// How a list is named in a line.
type Title<'a> = &'a dyn Fn(&str) -> String;

fn tell_skipped(text: &mut String, title: Title<'_>, lists: &Lists, findings: &Findings) {
    for list in ListName::ALL {
        let skipped = lists.skipped(list);
        for it in &skipped.first {
            let mut almost = findings.first.iter();
            // A finding says more about those.
            if !almost
                .any(|of| (of.kind, of.list, &of.entry) == (FindingKind::Almost, list, &it.entry))
            {
                let (list, entry, reason) = (title(list.name()), &it.entry, &it.reason);
                let _ = writeln!(text, "{list}: skipped: {entry}: {reason}");
            }
        }
        let left = skipped.count - skipped.first.len();
        more(text, &title(list.name()), "skipped", left);
    }
}

fn tell_findings(text: &mut String, title: Title<'_>, findings: &Findings) {
    for it in &findings.first {
        let (list, kind) = (title(it.list.name()), it.kind.name());
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
        let left = findings.count(kind) - named;
        more(text, &title("all"), kind.name(), left);
    }
}

/// Reports which entries the guard lets in only after confirmation; returns them as members.
fn tell_held(text: &mut String, title: Title<'_>, lists: &Lists) -> Vec<Value> {
    let reason = HoldReason::AdmitsEverybody.name();
    let remark = "such a change is held until somebody confirms it";
    let mut told = Vec::new();
    for what in held(&lists.gray, SystemTime::now()) {
        let _ = writeln!(
            text,
            "{}: {reason}: {what}: {remark}",
            title(ListName::Gray.name())
        );
        told.push(json!({ "list": ListName::Gray.name(), "reason": reason, "text": what }));
    }
    told
}

/// What admits everybody, once if it is both families'.
fn held(gray: &GrayList, now: SystemTime) -> Vec<String> {
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let held = Family::ALL.into_iter().zip(all);
    let held = held.filter(|(family, _)| gray.admission(*family, now) > AdmittedUntil::Never);
    let held = held.map(|(family, net)| {
        let mut rules = gray.admitting_rules(family, now);
        match rules.find(|(_, is_enough)| *is_enough) {
            _ if gray.has(&net) => net.to_string(),
            Some((rule, _)) => rule.to_string(),
            None => {
                let count =
                    gray.nets_of(family).count() + gray.admitting_rules(family, now).count();
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
