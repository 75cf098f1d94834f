//! docs/runbook.md knows every event of the error log, every alarm and every status that clients can see, and
//! nothing that the code does not have; and the alerts of etc/alerts.yml lead to its sections.
//!
//! `UPDATE_DOCS=1 cargo test --test runbook` writes the table of alarms. Everything else on the page is for a
//! person to write.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use graygate::error::{Degradation, Failure, Refusal};
use support::{Origin, Redis, Setup};

const PAGE: &str = "docs/runbook.md";

/// What a section must say.
const PARTS: [&str; 3] = ["\n- **Clients", "\n- **Do:** ", "\n- **Over:** "];

/// Names that are put together when they are logged: where, how, and what the braces stand for. Each of those
/// words is in that file, or in src/error.rs.
const PUT_TOGETHER: &[(&str, &str, &[&str])] = &[
    // One sentence, of whichever log.
    (
        "src/logs/writer.rs",
        "{event}",
        &["log-write-failed", "log-reopen-failed"],
    ),
    // Which of the two depends on what the Sentinels have said.
    (
        "src/store/redis/place.rs",
        "{doubt}",
        &["redis-sentinels-lost", "redis-sentinels-unconfirmed"],
    ),
    // What was refused.
    (
        "src/store/redis/changes.rs",
        "redis-{from}-refused",
        &["events", "tracking"],
    ),
    // By Redis, or by the network.
    (
        "src/fleet/heartbeat.rs",
        "heartbeat-{name}",
        &["refused", "failed"],
    ),
    // Words of src/error.rs, which metrics and pages have as well.
    ("src/proxy/reports.rs", "{name}", &["proxy-not-believed"]),
    ("src/proxy/listeners.rs", "{name}", &["over-capacity"]),
    (
        "src/store/status.rs",
        "{name}",
        &["replica-link-down", "keys-evicted"],
    ),
    (
        "src/store/status.rs",
        "{name}-over",
        &["replica-link-down", "keys-evicted"],
    ),
];

/// Of what is logged at a level that is only known then, this is never above INFO.
const NEVER_SERIOUS: &str = "list-recovered";

/// Written by src/logs/foreign.rs for libraries, whose own level it has.
const OF_LIBRARIES: &str = "dependency-log";

/// How an event is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warn,
    Info,
    /// `log::log!`, with a level that is known only then.
    Either,
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn page() -> String {
    fs::read_to_string(here(PAGE)).unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// What stands between the braces of a name, and around them.
fn filled(pattern: &str, word: &str) -> String {
    let (before, rest) = pattern.split_once('{').unwrap();
    let (_, after) = rest.split_once('}').unwrap();
    format!("{before}{word}{after}")
}

/// Every event that the code logs above DEBUG, with its levels.
fn events() -> BTreeMap<String, BTreeSet<Level>> {
    let mut files = Vec::new();
    sources(&here("src"), &mut files);
    let words = fs::read_to_string(here("src/error.rs")).unwrap();
    let mut unused: Vec<_> = PUT_TOGETHER.iter().collect();
    let mut found: BTreeMap<String, BTreeSet<Level>> = BTreeMap::new();
    let macros = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("log", Level::Either),
    ];
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(here("")).unwrap().to_str().unwrap();
        for (name, level) in macros {
            for rest in code.split(&format!("log::{name}!(")).skip(1) {
                let (_, text) = rest.split_once('"').unwrap();
                let end = text.find([' ', '"', '\\']).unwrap();
                let event = &text[..end];
                if !event.contains('{') {
                    let is_name = event
                        .bytes()
                        .all(|it| it == b'-' || it.is_ascii_lowercase());
                    assert!(is_name && !event.is_empty(), "{shown}: {event:?}");
                    found.entry(event.to_owned()).or_default().insert(level);
                    continue;
                }
                let known = PUT_TOGETHER
                    .iter()
                    .find(|it| (it.0, it.1) == (shown, event));
                let known = known.unwrap_or_else(|| {
                    panic!("{shown} logs {event:?}: name the words in PUT_TOGETHER")
                });
                unused.retain(|it| *it != known);
                for word in known.2 {
                    let literal = format!("\"{word}\"");
                    let is_there = code.contains(&literal) || words.contains(&literal);
                    assert!(is_there, "{shown} has no {word:?}");
                    found.entry(filled(event, word)).or_default().insert(level);
                }
            }
        }
    }
    assert!(unused.is_empty(), "nobody logs these: {unused:?}");
    for (event, level) in of_the_supervisor() {
        found.entry(event).or_default().insert(level);
    }
    found.insert(OF_LIBRARIES.to_owned(), BTreeSet::from([Level::Either]));
    found.insert(NEVER_SERIOUS.to_owned(), BTreeSet::from([Level::Info]));
    assert!(found.len() > 80, "{found:?}");
    found
}

/// The supervisor's events, which it writes by itself: `"name key=`, some way behind their level.
fn of_the_supervisor() -> Vec<(String, Level)> {
    let mut files = vec![here("src/run/supervise.rs")];
    sources(&here("src/run/supervise"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        for (at, _) in code.match_indices('"') {
            let text = &code[at + 1..];
            let Some((name, rest)) = text.split_once(' ') else {
                continue;
            };
            let key = rest.split('=').next().unwrap();
            let is_word = |it: &str| it.bytes().all(|it| it == b'-' || it.is_ascii_lowercase());
            if name.is_empty() || !is_word(name) || key.is_empty() || !is_word(key) {
                continue;
            }
            // What was put together before stands at an error, as all of it has been so far.
            let before = code[..at].lines().rev().take(3);
            let is_info = before.into_iter().any(|it| it.contains("Level::Info"));
            found.push((
                name.to_owned(),
                if is_info { Level::Info } else { Level::Error },
            ));
        }
    }
    assert!(found.len() >= 4, "{found:?}");
    found
}

/// The names of events that are logged as errors or warnings, or that are not.
fn names(serious: bool) -> BTreeSet<String> {
    let all = events().into_iter();
    let wanted = all.filter(|(_, levels)| levels.iter().any(|it| *it != Level::Info) == serious);
    wanted.map(|it| it.0).collect()
}

/// The sections about one name, each with its text.
fn sections(page: &str) -> BTreeMap<&str, &str> {
    let parts = page.split("\n### `").skip(1);
    let sections: Vec<(&str, &str)> = parts
        .map(|part| {
            let (name, text) = part.split_once("`\n").unwrap();
            (name, text.split("\n## ").next().unwrap())
        })
        .collect();
    let count = sections.len();
    let sections = BTreeMap::from_iter(sections);
    assert_eq!(sections.len(), count, "a section is there twice");
    sections
}

/// What stands between the markers of this name.
#[track_caller]
fn table<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page
        .split_once(&format!("<!-- begin: {name} -->\n"))
        .unwrap();
    let (table, _) = rest.split_once(&format!("<!-- end: {name} -->\n")).unwrap();
    table
}

/// The names in the first column, in their order.
fn rows(table: &str) -> Vec<&str> {
    let rows = table
        .lines()
        .skip(2)
        .map(|row| row.split('`').nth(1).unwrap());
    rows.collect()
}

#[test]
fn every_error_and_warning_has_a_section_or_needs_nobody() {
    let page = page();
    let (sections, nobody) = (sections(&page), rows(table(&page, "needs nobody")));
    let places = |event: &str| {
        let rows = nobody.iter().filter(|it| **it == event).count();
        usize::from(sections.contains_key(event)) + rows
    };
    let all = names(true).into_iter();
    let wrong: Vec<String> = all.filter(|it| places(it) != 1).collect();
    assert!(
        wrong.is_empty(),
        "{PAGE} must have these in one place: {wrong:?}"
    );
}

#[test]
fn the_page_has_no_event_that_the_code_does_not_log() {
    let page = page();
    let serious = names(true);
    let alarms: Vec<&str> = Degradation::ALL.iter().map(|it| it.name()).collect();
    for name in sections(&page).into_keys() {
        let is_known = serious.contains(name)
            || alarms.contains(&name)
            || Refusal::ALL.iter().any(|it| it.name() == name);
        assert!(is_known, "nobody says {name:?}");
    }
    for name in rows(table(&page, "needs nobody")) {
        assert!(serious.contains(name), "nobody says {name:?}");
    }
    let told: BTreeSet<String> = rows(table(&page, "info"))
        .iter()
        .map(|it| (*it).to_owned())
        .collect();
    assert_eq!(told, names(false));
}

#[test]
fn every_section_says_its_level_what_clients_notice_what_to_do_and_when_it_is_over() {
    let page = page();
    let events = events();
    for (name, text) in sections(&page) {
        for part in PARTS {
            assert_eq!(text.matches(part).count(), 1, "{name}: {part}");
        }
        let first = text
            .trim_start()
            .split([' ', ',', '.', ';'])
            .next()
            .unwrap();
        // The gravest of them.
        match events.get(name).and_then(|it| it.first()) {
            Some(Level::Error) => assert_eq!(first, "ERROR", "{name}"),
            Some(Level::Warn) => assert_eq!(first, "WARN", "{name}"),
            Some(Level::Either) => assert!(["ERROR", "WARN"].contains(&first), "{name}"),
            Some(Level::Info) | None => assert!(!["ERROR", "WARN"].contains(&first), "{name}"),
        }
    }
}

#[test]
fn every_alarm_leads_to_its_section() {
    let page = page();
    let sections = sections(&page);
    let mut wanted = "| `degraded` | when |\n|---|---|\n".to_owned();
    for alarm in Degradation::ALL {
        let (name, text) = (alarm.name(), alarm.text());
        assert!(
            sections.contains_key(name),
            "{PAGE} has no section {name:?}"
        );
        wanted += &format!("| [`{name}`](#{name}) | {text} |\n");
    }
    let found = table(&page, "alarms");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(here(PAGE), page.replace(found, &wanted)).unwrap();
    } else {
        assert_eq!(found, wanted, "UPDATE_DOCS=1 writes it");
    }
}

#[test]
fn every_5xx_of_the_gateway_is_named() {
    let refusals = Refusal::ALL.iter().filter(|it| it.status() == 503);
    let failures = Failure::ALL.iter().filter(|it| **it != Failure::ClientGone);
    let wanted: Vec<(&str, u16)> = refusals
        .map(|it| (it.name(), it.status()))
        .chain(failures.map(|it| (it.name(), it.status())))
        .collect();
    let page = page();
    let table = table(&page, "statuses");
    let all: BTreeSet<&str> = rows(table).into_iter().collect();
    let names = wanted.iter().map(|it| it.0).collect::<BTreeSet<_>>();
    assert_eq!(all, names);
    for (name, status) in wanted {
        let row = format!("| `{name}` | {status}");
        assert!(table.contains(&row), "{row}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are_and_lead_to_sections() {
    let text = fs::read_to_string(here("etc/alerts.yml")).unwrap();
    let origin = Origin::named("prod");
    let redis = Redis::start();
    redis.push("prod", &[&origin]);
    let setup = Setup::new().redis(redis.url());
    let copy = setup.path("copy");
    let gateway = setup.set("lists.last_good", copy.display()).start();
    gateway.wait_for_metric("graygate_lists_generation", 1.0);
    let (_, metrics) = gateway.admin_get("/metrics");
    let mut count = 0;
    // Comments and names of alerts have other words.
    for line in text.lines().filter(|it| !it.trim_start().starts_with('#')) {
        let words = line.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        for word in words.filter(|it| it.starts_with("graygate_") || it.starts_with("process_")) {
            assert!(metrics.contains(&format!("# TYPE {word} ")), "{word}");
            count += 1;
        }
        // The values of labels, as far as they are words of ours.
        if let Some((_, rest)) = line.split_once("reason=\"") {
            let (reason, _) = rest.split_once('"').unwrap();
            assert!(
                metrics.contains(&format!("reason=\"{reason}\"")),
                "{reason}"
            );
        }
    }
    assert!(count > 15, "{count}");

    let page = page();
    let headings = page.lines().filter(|it| it.starts_with('#'));
    let anchors: Vec<String> = headings.map(anchor).collect();
    let alerts = text.matches("- alert: ").count();
    let links: Vec<&str> = text
        .split("runbook: docs/runbook.md#")
        .skip(1)
        .map(|it| it.lines().next().unwrap())
        .collect();
    assert_eq!(links.len(), alerts);
    for link in links {
        assert!(anchors.iter().any(|it| it == link), "{link}");
    }
    for part in ["\n          summary: ", "\n          severity: "] {
        assert_eq!(text.matches(part).count(), alerts, "{part}");
    }
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.replace(' ', "-");
    kept.chars()
        .filter(|it| it.is_alphanumeric() || "-_".contains(*it))
        .collect()
}
