//! `graygate fleet` and `graygate fleet wait DIGEST`: the gateways on one Redis, and what they hold.
//!
//! Only Redis is asked: each gateway writes a key with a time to live there (see
//! `crate::fleet::heartbeat`), and its name into an index. Clocks are not compared: the time since a
//! gateway's last heartbeat follows from the time to live that its key has left.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::report::Report;
use crate::cli::table;
use crate::config::{RedisSettings, Store};
use crate::fleet::node::{GRAMMAR, Node};
use crate::fleet::nodes::{FleetLook, Heard, Nodes, Silent};
use crate::run;

/// Time for one look at all gateways.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The pause between two looks of a wait: shortest, longest. A look that takes long is followed by a
/// longer pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A look that begins has at least this time.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// Most gateways that are named because they do not hold what they should.
const NAMED: usize = 20;

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

/// Waits until every gateway holds the lists with this digest, and there are at least `at_least` of
/// them. Returns one line that says so.
///
/// # Errors
/// One line: which gateways do not hold them after the `limit`, or why that is unknown.
pub(crate) fn wait(
    config: &Path,
    digest: &str,
    limit: Duration,
    at_least: usize,
) -> Result<Report, String> {
    if digest.len() != 16 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{digest:?} is not a digest: 16 hexadecimal digits"));
    }
    if limit > LONGEST_WAIT {
        let most = humantime::format_duration(LONGEST_WAIT);
        return Err(format!("the timeout is too long; at most {most}"));
    }
    let settings = settings(config)?;
    let until = Instant::now() + limit;
    let mut nodes = Nodes::new(&settings);
    let mut watch = AwaitedNodes::new(digest.to_ascii_lowercase(), at_least);
    loop {
        let began = Instant::now();
        let complaint = match nodes.read(until.max(began + LAST_LOOK)) {
            Ok(FleetLook { heard, note, .. }) => {
                watch.look(heard, began, Instant::now());
                match (watch.complaint(), note) {
                    (None, note) => {
                        let text = format!("{}\n", watch.success());
                        let (digest, holding) = (&watch.digest, watch.seen.len());
                        let json = json!({ "digest": digest, "holding": holding, "note": note });
                        let report = Report::new(text, json);
                        return Ok(report.noting(notes(note.as_deref())));
                    }
                    (Some(complaint), Some(note)) => format!("{complaint}; {note}"),
                    (Some(complaint), None) => complaint,
                }
            }
            Err(error) => match watch.last() {
                // At least what is known is said.
                Some(last) => format!("{}: {error}; when last seen: {last}", settings.url),
                None => format!("{}: {error}", settings.url),
            },
        };
        let now = Instant::now();
        if now >= until {
            let limit = humantime::format_duration(limit);
            return Err(format!("not within {limit}: {complaint}"));
        }
        let pause = (began.elapsed() * 4).clamp(PAUSE.0, PAUSE.1);
        std::thread::sleep(pause.min(until - now));
    }
}

/// Why an answer may be incomplete, if it may.
fn notes(note: Option<&str>) -> Vec<String> {
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

/// In what the gateways differ that are heard: the lists of services, and what entries they understand.
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
    let used = nodes.iter().max_by_key(|it| it.entries_used);
    let behind = nodes.iter().filter_map(|node| {
        let used = used.filter(|it| it.entries_used > node.entries)?;
        Some(format!(
            "{} understands no entries but addresses, and skips others that {} has",
            node.name, used.name
        ))
    });
    differing.chain(behind.take(NAMED)).collect()
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

fn settings(config: &Path) -> Result<RedisSettings, String> {
    match run::load(config)?.store {
        Store::Redis(settings) => Ok(settings),
        Store::File(_) => Err(
            "the lists come from a file; only gateways that share a Redis form a fleet".to_owned(),
        ),
    }
}

/// What a gateway that is waited for was when it was last seen.
struct LastSeen {
    heard: Heard,
    /// Its key does not expire before this.
    expires: Option<Instant>,
    /// Its key has expired since: it may serve, but Redis does not hear of it.
    lost: bool,
}

/// The gateways that are waited for. One that shuts down cleanly is not waited for any
/// more; one whose key expires meanwhile is, since it may serve old lists.
struct AwaitedNodes {
    digest: String,
    at_least: usize,
    seen: BTreeMap<String, LastSeen>,
}

impl AwaitedNodes {
    fn new(digest: String, at_least: usize) -> Self {
        Self {
            digest,
            at_least: at_least.max(1),
            seen: BTreeMap::new(),
        }
    }

    /// Takes in a look at all keys, that was made between `began` and `ended`.
    fn look(&mut self, heard: Vec<Heard>, began: Instant, ended: Instant) {
        self.seen.retain(|name, seen| {
            let is_there = heard.iter().any(|it| it.name == *name);
            // Nobody but the gateway itself deletes a key that has time to live.
            let deleted = !is_there && !seen.lost && seen.expires.is_some_and(|it| ended < it);
            seen.lost = !is_there;
            !deleted
        });
        for heard in heard {
            let expires = heard.left.map(|left| began + left);
            let seen = LastSeen {
                heard,
                expires,
                lost: false,
            };
            self.seen.insert(seen.heard.name.clone(), seen);
        }
    }

    fn holds(&self, seen: &LastSeen) -> bool {
        let node = seen.heard.node.as_ref();
        !seen.lost && node.is_some_and(|it| it.holds(&self.digest))
    }

    /// What is still missing, if something is.
    fn complaint(&self) -> Option<String> {
        let (all, digest) = (self.seen.len(), &self.digest);
        let lacking: Vec<&LastSeen> = self.seen.values().filter(|it| !self.holds(it)).collect();
        let holding = all - lacking.len();
        if lacking.is_empty() && holding >= self.at_least {
            return None;
        }
        let mut text = format!("{holding} of {all} gateways hold {digest}");
        if holding < self.at_least {
            // Writing to a String cannot fail.
            let _ = write!(text, ", at least {} required", self.at_least);
        }
        let nodes = || self.seen.values().filter_map(|it| it.heard.node.as_ref());
        let awaited = AwaitedLists {
            service: nodes().find_map(|it| it.service_of(digest)),
            entries: nodes().map(|it| it.entries_used).max().unwrap_or_default(),
        };
        for seen in lacking.iter().take(NAMED) {
            let _ = write!(text, "; {}", shortcoming(seen, &awaited));
        }
        if lacking.len() > NAMED {
            let _ = write!(text, "; and {} more", lacking.len() - NAMED);
        }
        Some(text)
    }

    /// What was known when they were last seen, if they were.
    fn last(&self) -> Option<String> {
        let complaint = || self.complaint().unwrap_or_else(|| self.success());
        (!self.seen.is_empty()).then(complaint)
    }

    fn success(&self) -> String {
        match self.seen.len() {
            1 => format!("the only gateway holds {}", self.digest),
            all => format!("all {all} gateways hold {}", self.digest),
        }
    }
}

/// What is waited for, as far as some gateway has it already.
struct AwaitedLists<'a> {
    /// The service whose lists these are, if that is not the default one.
    service: Option<&'a str>,
    /// The grammar of the entries that are in force somewhere.
    entries: u64,
}

/// Why one gateway does not count.
fn shortcoming(seen: &LastSeen, awaited: &AwaitedLists<'_>) -> String {
    let name = &seen.heard.name;
    let Some(node) = &seen.heard.node else {
        return format!("{name} has a heartbeat that is not understood");
    };
    let of_service = awaited.service.map(|it| (it, node.services.get(it)));
    let (generation, digest, whose) = match of_service {
        None => (node.generation, &node.digest, String::new()),
        Some((service, Some(it))) => (it.generation, &it.digest, format!(" of {service}")),
        Some((service, None)) => (0, &None, format!(" of {service}, which it does not know")),
    };
    let holds = match digest {
        Some(digest) => format!("holds {digest}{whose} (generation {generation}"),
        None => format!("has no lists{whose} (generation 0"),
    };
    let behind = match node.entries < awaited.entries {
        true => ", it understands no entries but addresses",
        false => "",
    };
    let held = match held(node).as_slice() {
        [] => String::new(),
        held => format!(", held: {}", held.join(" ")),
    };
    let heard = match seen.heard.ago() {
        _ if seen.lost => "no longer heard from".to_owned(),
        Some(ago) => format!("heard from {:.1}s ago", ago.as_secs_f64()),
        None => "its key never expires".to_owned(),
    };
    format!("{name} {holds}{held}{behind}, {heard})")
}

/// What is held, of whichever service: `prod`, `shop:gray`.
fn held(node: &Node) -> Vec<String> {
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
    table::text(&rows)
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
mod tests {
    use super::*;
    use crate::fleet::node::NodeService;

    const OLD: &str = "00000000000000aa";
    const NEW: &str = "00000000000000bb";

    fn heard(name: &str, digest: Option<&str>, left_ms: u64) -> Heard {
        let node = Node {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            digest: digest.map(str::to_owned),
            generation: 2,
            age_seconds: Some(0.04),
            mode: "events".to_owned(),
            held: Vec::new(),
            services: BTreeMap::new(),
            entries: 2,
            entries_used: 1,
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

    /// What is said after some looks, each so many milliseconds after the start.
    fn complaint(at_least: usize, looks: &[(u64, &[Heard])]) -> Option<String> {
        let mut watch = AwaitedNodes::new(NEW.to_owned(), at_least);
        let start = Instant::now();
        for (ms, heard) in looks {
            let at = start + Duration::from_millis(*ms);
            watch.look(heard.to_vec(), at, at);
        }
        watch.complaint()
    }

    #[test]
    fn all_must_hold_it_and_so_many_as_are_wanted() {
        let (a, b) = (heard("a", Some(NEW), 5000), heard("b", Some(NEW), 5000));
        let old = heard("b", Some(OLD), 4500);
        let unread = heard("c", None, 4500);
        assert_eq!(complaint(0, &[(0, &[a.clone(), b.clone()])]), None);
        assert_eq!(complaint(2, &[(0, &[a.clone(), b.clone()])]), None);
        assert_eq!(
            complaint(
                1,
                &[
                    (0, std::slice::from_ref(&old)),
                    (1, std::slice::from_ref(&b))
                ]
            ),
            None
        );
        for (at_least, heard, said) in [
            (
                0,
                &[][..],
                "0 of 0 gateways hold 00000000000000bb, at least 1 required",
            ),
            (
                3,
                &[a.clone(), b],
                "2 of 2 gateways hold 00000000000000bb, at least 3 required",
            ),
            (
                1,
                &[a.clone(), old],
                "1 of 2 gateways hold 00000000000000bb; \
                 b holds 00000000000000aa (generation 2, heard from 1.5s ago)",
            ),
            (
                1,
                &[a.clone(), unread],
                "1 of 2 gateways hold 00000000000000bb; \
                 c has no lists (generation 0, heard from 1.5s ago)",
            ),
            (
                1,
                &[
                    a,
                    Heard {
                        name: "d".to_owned(),
                        node: None,
                        left: None,
                    },
                ],
                "1 of 2 gateways hold 00000000000000bb; d has a heartbeat that is not understood",
            ),
        ] {
            assert_eq!(complaint(at_least, &[(0, heard)]).as_deref(), Some(said));
        }
    }

    #[test]
    fn one_that_ends_is_not_waited_for_and_one_that_falls_silent_is() {
        let a = || heard("a", Some(NEW), 5000);
        let old = || heard("b", Some(OLD), 300);
        let before: (u64, &[Heard]) = (0, &[a(), old()]);
        // Deleted, while it had time to live.
        assert_eq!(complaint(1, &[before, (299, &[a()])]), None);
        let lost = "1 of 2 gateways hold 00000000000000bb; \
                    b holds 00000000000000aa (generation 2, no longer heard from)";
        for looks in [
            &[before, (300, &[a()])][..],
            &[before, (300, &[a()]), (301, &[a()])],
        ] {
            assert_eq!(complaint(1, looks).as_deref(), Some(lost));
        }
        // It is heard from again.
        let again = heard("b", Some(NEW), 300);
        assert_eq!(
            complaint(1, &[before, (300, &[a()]), (900, &[a(), again])]),
            None
        );
        // One that held it and is silent is not known to.
        let held = heard("b", Some(NEW), 300);
        assert!(complaint(1, &[(0, &[a(), held]), (400, &[a()])]).is_some());
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
    fn it_is_said_where_gateways_differ_in_a_service_or_in_what_they_understand() {
        let with = |name: &str, digest: Option<&str>| {
            let mut heard = heard(name, Some(NEW), 5000);
            let service = NodeService {
                digest: digest.map(str::to_owned),
                held: vec!["prod".to_owned()],
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
