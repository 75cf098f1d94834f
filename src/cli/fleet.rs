//! `graygate fleet`: the gateways on one Redis, and what they hold.
//!
//! Only Redis is asked: each gateway writes a key with a time to live there (see
//! `crate::fleet::heartbeat`), and its name into an index. Clocks are not compared: the time since a
//! gateway's last heartbeat follows from the time to live that its key has left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::report::Report;
use crate::cli::table;
use crate::config::{RedisSettings, Store};
use crate::fleet::node::{GRAMMAR, Node};
use crate::fleet::nodes::{FleetLook, Heard, Nodes, Silent};
use crate::lists::ServiceName;
use crate::run;

/// Time for one look at all gateways.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Most gateways that are named because they do not hold what they should.
pub(super) const NAMED: usize = 20;

/// The gateways on the Redis of the file at `config`, as a table.
///
/// # Errors
/// One line: why Redis cannot be asked.
pub(crate) fn list(config: &Path) -> Result<Report, String> {
    let settings = settings(config)?;
    let look = Nodes::new(&settings).read(Instant::now() + TIME_LIMIT);
    let look = look.map_err(|error| format!("{}: {error}", settings.url))?;
    let report = Report::new(table(&look), members(&look));
    let mut notes = notes(look.note.as_deref());
    notes.extend(
        differences(&look.heard)
            .iter()
            .map(|it| format!("note: {it}")),
    );
    Ok(report.noting(notes))
}

/// Why an answer may be incomplete, if it may.
pub(super) fn notes(note: Option<&str>) -> Vec<String> {
    note.map(|it| format!("note: {it}")).into_iter().collect()
}

/// All that is known, as members: those of the heartbeats, and how each gateway stands.
fn members(look: &FleetLook) -> Value {
    let heard = look.heard.iter().map(|heard| {
        let node = heard.node.as_ref().map(Node::members);
        let state = if node.is_some() {
            "heard"
        } else {
            "not-understood"
        };
        let mut node = node.unwrap_or_else(|| json!({ "node": heard.name }));
        node["state"] = state.into();
        node["heard_seconds"] = heard.ago().map(|it| it.as_secs_f64()).into();
        node
    });
    let silent = look.silent.iter().map(|silent| {
        let seconds = silent.expired.map(|it| it.as_secs_f64());
        json!({ "node": silent.name, "state": "silent", "silent_seconds": seconds })
    });
    let mut nodes: Vec<Value> = heard.chain(silent).collect();
    nodes.sort_by(|one, other| one["node"].as_str().cmp(&other["node"].as_str()));
    json!({ "nodes": nodes, "note": look.note, "differences": differences(&look.heard) })
}

/// What is taken back, and in what the gateways differ that are heard: the lists of services, and what
/// entries they understand.
fn differences(heard: &[Heard]) -> Vec<String> {
    let nodes: Vec<&Node> = heard.iter().filter_map(|it| it.node.as_ref()).collect();
    let mut services: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for node in &nodes {
        for (service, it) in &node.services {
            // The first that has it, to be named.
            let digest = it.digest.as_deref().unwrap_or("no lists");
            let digests = services.entry(service).or_default();
            digests.entry(digest).or_insert(&node.name);
        }
    }
    for (service, digests) in &mut services {
        let lacks = |it: &&&Node| !it.services.contains_key(*service);
        if let Some(node) = nodes.iter().find(lacks) {
            digests.insert("no such service", &node.name);
        }
    }
    let differing = services.iter().filter(|(_, digests)| digests.len() > 1);
    let differing = differing.map(|(service, digests)| {
        let digests = digests.iter().take(NAMED);
        let each = digests.map(|(digest, node)| format!("{node} has {digest}"));
        let each: Vec<String> = each.collect();
        format!(
            "the gateways differ in service {service}: {}",
            each.join(", ")
        )
    });
    let of_default = nodes.iter().filter(|it| it.tripped.is_some());
    let of_default = of_default.map(|it| (ServiceName::DEFAULT, &*it.name));
    let of_others = nodes.iter().flat_map(|node| {
        let tripped = node.services.iter().filter(|(_, it)| it.tripped.is_some());
        tripped.map(|(service, _)| (&**service, &*node.name))
    });
    let mut tripped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (service, node) in of_default.chain(of_others) {
        tripped.entry(service).or_default().push(node);
    }
    let tripped = tripped.into_iter().map(|(service, on)| {
        let of = match service {
            ServiceName::DEFAULT => String::new(),
            service => format!(" of {service}"),
        };
        let (count, all) = (on.len(), nodes.len());
        let shown: Vec<&str> = on.into_iter().take(NAMED).collect();
        format!(
            "pre{of} is taken back on {count} of {all} gateways: {}",
            shown.join(", ")
        )
    });
    let tripped: Vec<String> = tripped.collect();
    let releases = differing_releases(&nodes);
    let used = nodes.iter().max_by_key(|it| it.entries_used);
    let behind = nodes.iter().filter_map(|node| {
        let used = used.filter(|it| it.entries_used > node.entries)?;
        Some(format!(
            "{} understands no entries but addresses, and skips others that {} has",
            node.name, used.name
        ))
    });
    let differing = tripped.into_iter().chain(differing).chain(releases);
    differing.chain(behind.take(NAMED)).collect()
}

/// Where gateways hold different things of a release beside its lists. Who says nothing of that is not
/// compared.
fn differing_releases(nodes: &[&Node]) -> Vec<String> {
    let mut held: BTreeMap<ServiceName, BTreeMap<String, &str>> = BTreeMap::new();
    for node in nodes {
        let others = node.services.keys().filter_map(|it| ServiceName::parse(it));
        for service in others.chain([ServiceName::default()]) {
            if let Some(release) = node.release_of(&service) {
                // The first that has it, to be named.
                let of_service = held.entry(service).or_default();
                of_service.entry(release.in_words()).or_insert(&node.name);
            }
        }
    }
    let differing = held.into_iter().filter(|(_, it)| it.len() > 1);
    let differing = differing.map(|(service, it)| {
        let of = match service.is_default() {
            true => String::new(),
            false => format!(" of {service}"),
        };
        let each = it.iter().take(NAMED);
        let each = each.map(|(release, node)| format!("{node} has {release}"));
        let each: Vec<String> = each.collect();
        format!(
            "the gateways differ in the release{of}: {}",
            each.join("; ")
        )
    });
    differing.collect()
}

/// The gateways on this Redis that skip entries of `gray` which are more than addresses, as far as they are
/// heard.
///
/// # Errors
/// One line: why that is not known.
pub(crate) fn behind(settings: &RedisSettings) -> Result<Vec<Node>, String> {
    let look = Nodes::new(settings).read(Instant::now() + TIME_LIMIT)?;
    let nodes = look.heard.into_iter().filter_map(|it| it.node);
    let behind = nodes.filter(|it| it.entries < GRAMMAR);
    Ok(behind.collect())
}

/// The Redis of the file at `config`.
///
/// # Errors
/// One line: what is wrong with the file, or that the lists come from another place.
pub(super) fn settings(config: &Path) -> Result<RedisSettings, String> {
    match run::load(config)?.store {
        Store::Redis(settings) => Ok(settings),
        Store::File(_) => Err(
            "the lists come from a file; only gateways that share a Redis form a fleet".to_owned(),
        ),
    }
}

/// What is held, of whichever service: `prod`, `shop:gray`.
pub(super) fn held(node: &Node) -> Vec<String> {
    let services = node.services.iter().flat_map(|(service, it)| {
        let held = it.held.iter();
        held.map(move |list| format!("{service}:{list}"))
    });
    node.held.iter().cloned().chain(services).collect()
}

const TITLES: [&str; 8] = [
    "NODE",
    "VERSION",
    "DIGEST",
    "GENERATION",
    "AGE",
    "MODE",
    "HELD",
    "HEARD",
];

/// A line for each gateway, below a line of titles.
fn table(look: &FleetLook) -> String {
    let heard = look.heard.iter().map(row);
    let mut rows: Vec<[String; 8]> = heard.chain(look.silent.iter().map(row_of_silent)).collect();
    rows.sort_by(|one, other| one[0].cmp(&other[0]));
    rows.insert(0, TITLES.map(str::to_owned));
    let found: BTreeMap<&str, String> = look.heard.iter().filter_map(findings).collect();
    if found.is_empty() {
        return table::text(&rows);
    }
    // A release is under way.
    let with_finding = |(at, row): (usize, [String; 8])| {
        let finding = match at {
            0 => "VERDICT".to_owned(),
            _ => found
                .get(&*row[0])
                .cloned()
                .unwrap_or_else(|| "-".to_owned()),
        };
        let mut cells = row.into_iter().chain([finding]);
        std::array::from_fn::<_, 9, _>(|_| cells.next().unwrap_or_default())
    };
    let rows: Vec<_> = rows.into_iter().enumerate().map(with_finding).collect();
    table::text(&rows)
}

/// What a gateway finds of the releases that are under way there: `suspect`, `shop:worse`.
fn findings(heard: &Heard) -> Option<(&str, String)> {
    let node = heard.node.as_ref()?;
    let is_taken_back = |service: &str| match service {
        ServiceName::DEFAULT => node.tripped.is_some(),
        service => node
            .services
            .get(service)
            .is_some_and(|it| it.tripped.is_some()),
    };
    let shown = node.verdicts.iter().map(|(service, it)| {
        let found = match is_taken_back(service) {
            true => "tripped",
            false => &it.finding,
        };
        match &**service {
            ServiceName::DEFAULT => found.to_owned(),
            service => format!("{service}:{found}"),
        }
    });
    let shown: Vec<String> = shown.collect();
    (!shown.is_empty()).then(|| (&*heard.name, shown.join(",")))
}

fn row(heard: &Heard) -> [String; 8] {
    let none = || "-".to_owned();
    let ago = heard.ago();
    let ago = ago.map_or_else(none, |it| format!("{:.1}s ago", it.as_secs_f64()));
    let name = heard.name.clone();
    let Some(node) = heard.node.clone() else {
        let text = "not understood".to_owned();
        return [name, text, none(), none(), none(), none(), none(), ago];
    };
    let held = match held(&node).as_slice() {
        [] => none(),
        held => held.join(","),
    };
    [
        name,
        node.version,
        node.digest.unwrap_or_else(none),
        node.generation.to_string(),
        node.age_seconds.map_or_else(none, |it| format!("{it:.1}s")),
        node.mode,
        held,
        ago,
    ]
}

/// Of a known gateway that is not heard from: it has gone, or is cut off, or Redis accepts no heartbeats.
fn row_of_silent(silent: &Silent) -> [String; 8] {
    let none = || "-".to_owned();
    let ago = silent.expired;
    let ago = ago.map_or_else(none, |it| format!("not for {:.1}s", it.as_secs_f64()));
    let (name, text) = (silent.name.clone(), "silent".to_owned());
    [name, text, none(), none(), none(), none(), none(), ago]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fleet::node::NodeService;
    use crate::fleet::release::NodeRelease;

    pub(in crate::cli) const OLD: &str = "00000000000000aa";
    pub(in crate::cli) const NEW: &str = "00000000000000bb";

    /// A heartbeat of a gateway of that name.
    pub(in crate::cli) fn heard(name: &str, digest: Option<&str>, left_ms: u64) -> Heard {
        let node = Node {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            digest: digest.map(str::to_owned),
            generation: 2,
            age_seconds: Some(0.04),
            mode: "events".to_owned(),
            held: Vec::new(),
            tripped: None,
            release: None,
            pre: None,
            services: BTreeMap::new(),
            entries: 2,
            entries_used: 1,
            verdicts: BTreeMap::new(),
            instance: "i".to_owned(),
            pid: 1,
            started_at: String::new(),
            ttl_ms: 6000,
        };
        Heard {
            name: name.to_owned(),
            node: Some(node),
            left: Some(Duration::from_millis(left_ms)),
        }
    }

    #[test]
    fn a_table_has_a_line_for_each() {
        let unknown = Heard {
            name: "b".to_owned(),
            node: None,
            left: None,
        };
        let mut held = heard("gateway-1", Some(NEW), 5000);
        if let Some(node) = &mut held.node {
            node.held = vec!["gray".to_owned(), "prod".to_owned()];
        }
        let expected = "\
NODE       VERSION         DIGEST            GENERATION  AGE   MODE    HELD       HEARD
a          silent          -                 -           -     -       -          not for 2.5s
b          not understood  -                 -           -     -       -          -
gateway-1  0.1.0           00000000000000bb  2           0.0s  events  gray,prod  1.0s ago
";
        let silent = Silent {
            name: "a".to_owned(),
            expired: Some(Duration::from_millis(2500)),
        };
        let look = FleetLook {
            heard: vec![unknown, held],
            silent: vec![silent],
            note: None,
        };
        assert_eq!(table(&look), expected);
    }

    #[test]
    fn a_gateway_that_holds_another_state_of_the_release_is_named() {
        let with = |name: &str, is_frozen: bool| {
            let mut heard = heard(name, Some(NEW), 5000);
            let release = NodeRelease {
                epoch: "e".to_owned(),
                is_frozen,
                rollout: None,
            };
            heard.node.as_mut().unwrap().release = Some(release);
            heard
        };
        // One that says nothing of it differs from nobody.
        let old = heard("old", Some(NEW), 5000);
        let same = [with("a", true), with("b", true), old];
        assert_eq!(differences(&same), Vec::<String>::new());
        assert_eq!(
            differences(&[with("a", true), with("b", true), with("c", false)]),
            ["the gateways differ in the release: c has epoch e; a has epoch e, frozen"]
        );
    }

    #[test]
    fn it_is_said_where_gateways_differ_in_a_service_or_in_what_they_understand() {
        let with = |name: &str, digest: Option<&str>| {
            let mut heard = heard(name, Some(NEW), 5000);
            let service = NodeService {
                digest: digest.map(str::to_owned),
                held: vec!["prod".to_owned()],
                tripped: None,
                ..NodeService::default()
            };
            if let Some(node) = &mut heard.node {
                node.services.insert("shop".to_owned(), service);
            }
            heard
        };
        let same = [with("a", Some(OLD)), with("b", Some(OLD))];
        assert_eq!(differences(&same), Vec::<String>::new());
        assert_eq!(held(same[0].node.as_ref().unwrap()), ["shop:prod"]);
        let mut old = heard("c", Some(NEW), 5000);
        let mut new = with("b", Some(NEW));
        old.node.as_mut().unwrap().entries = 1;
        new.node.as_mut().unwrap().entries_used = 2;
        assert_eq!(
            differences(&[with("a", Some(OLD)), new, old]),
            [
                "the gateways differ in service shop: a has 00000000000000aa, \
                 b has 00000000000000bb, c has no such service",
                "c understands no entries but addresses, and skips others that b has",
            ]
        );
    }
}
