//! docs/http.md, docs/peers.md and docs/security.md say what the code does: their tables of names are
//! rendered from the code, and every test that they name exists. Links between pages lead somewhere, and
//! files that are named exist.
//!
//! `UPDATE_DOCS=1 cargo test --test documentation` writes the tables.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use graygate::config::KEYS;
use graygate::error::{
    AdminRefusal, Checked, Close, Doubt, Failure, Refusal, Retry, StoreFindingKind, WrongForce,
};
use graygate::lists::FindingKind;

use graygate::http::h1::head::{Parsed, RequestHead, Scanner};
use graygate::http::limits::Limits;
use graygate::http::query::decode;
use graygate::http::subject::Subject;

/// The rules of the checklist, each of which has its row.
const RULES: usize = 48;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What is said of a limit: its key, and the names under which what is above it ends.
type Limit = (&'static str, &'static str, &'static [&'static str]);

const LIMITS: &[Limit] = &[
    ("gateway", "max_line", &[Refusal::LineTooLong.name()]),
    (
        "gateway",
        "max_head",
        &[
            Refusal::HeadTooLarge.name(),
            Refusal::TrailerTooLarge.name(),
            Failure::ResponseHeadTooLarge.name(),
        ],
    ),
    (
        "gateway",
        "max_fields",
        &[
            Refusal::TooManyFields.name(),
            Refusal::TrailerTooLarge.name(),
            Failure::ResponseHeadTooLarge.name(),
        ],
    ),
    ("gateway", "max_body", &[Refusal::BodyTooLarge.name()]),
    ("gateway", "max_discard", &[Close::BodyUnread.name()]),
    (
        "gateway",
        "max_connections",
        &[Refusal::OverCapacity.name()],
    ),
    ("gateway", "head_timeout", &[Refusal::HeadTimeout.name()]),
    ("gateway", "body_timeout", &[Refusal::BodyTimeout.name()]),
    ("gateway", "send_timeout", &[Close::SendTimeout.name()]),
    (
        "gateway",
        "min_rate",
        &[Refusal::BodyTimeout.name(), Close::SendTimeout.name()],
    ),
    (
        "gateway",
        "keepalive_timeout",
        &[Close::KeepaliveTimeout.name()],
    ),
    ("gateway", "tunnel_timeout", &[Close::TunnelEnded.name()]),
    ("gateway", "tunnel_grace", &[Close::TakenBack.name()]),
    ("gateway", "drain_tunnel_timeout", &[Close::Draining.name()]),
    (
        "upstream",
        "connect_timeout",
        &[Failure::ConnectTimeout.name()],
    ),
    ("upstream", "send_timeout", &[Failure::SendTimeout.name()]),
    ("upstream", "read_timeout", &[Failure::ReadTimeout.name()]),
    (
        "upstream",
        "stall_timeout",
        &[Failure::ResponseStalled.name()],
    ),
    ("upstream", "deadline", &[Failure::Deadline.name()]),
];

fn limits() -> String {
    let mut table = "| key | default | | above it |\n|---|---|---|---|\n".to_owned();
    for (section, name, above) in LIMITS {
        let mut keys = KEYS.iter();
        let key = keys
            .find(|it| (it.section, it.name) == (*section, *name))
            .unwrap();
        let above: Vec<String> = above.iter().map(|it| format!("`{it}`")).collect();
        let (default, text, above) = (key.default, key.text, above.join(", "));
        writeln!(
            table,
            "| `[{section}] {name}` | {default} | {text} | {above} |"
        )
        .unwrap();
    }
    table
}

fn refusals() -> String {
    let mut table =
        "| name | status | when | the client's connection | access log |\n|---|---|---|---|---|\n"
            .to_owned();
    for refusal in Refusal::ALL {
        let (connection, log) = match refusal {
            Refusal::UnknownHost
            | Refusal::UnknownPath
            | Refusal::NoLists
            | Refusal::NoPeers
            | Refusal::MaxForwards => ("stays", "`error=`"),
            // There is no request yet that a line could tell of.
            Refusal::OverCapacity => ("`over-capacity`", "the error log: `over-capacity`"),
            _ => ("`refused`", "`error=`, `close=refused`"),
        };
        let (name, status, text) = (refusal.name(), refusal.status(), refusal.text());
        writeln!(
            table,
            "| `{name}` | {status} | {text} | {connection} | {log} |"
        )
        .unwrap();
    }
    table
}

fn service_keys() -> String {
    let mut table = "| key | default | |\n|---|---|---|\n".to_owned();
    for key in KEYS.of_services() {
        let default = if key.default.is_empty() {
            "(none)"
        } else {
            key.default
        };
        writeln!(table, "| {} | {default} | {} |", key.name, key.text).unwrap();
    }
    table
}

fn verdict_keys() -> String {
    let mut table = "| key | default | |\n|---|---|---|\n".to_owned();
    for key in KEYS.iter().filter(|it| it.section == "verdict") {
        let default = if key.default.is_empty() {
            "(none)"
        } else {
            key.default
        };
        writeln!(table, "| {} | {default} | {} |", key.name, key.text).unwrap();
    }
    table
}

fn failures() -> String {
    let mut table =
        "| name | status | when | another attempt | error log |\n|---|---|---|---|---|\n"
            .to_owned();
    for failure in Failure::ALL {
        let retry = match failure.retry() {
            Retry::Always => "yes",
            Retry::IfSafe => {
                "if the method is safe and its body is [still there](peers.md#what-is-tried-again)"
            }
            Retry::IfIdempotent => {
                "if the method is idempotent and its body is [still there](peers.md#what-is-tried-again)"
            }
            Retry::UnlessAwaited => {
                "if the method is idempotent or a body waits for `100 Continue`, and none has begun to flow"
            }
            Retry::Never => "no",
        };
        let status = match (failure, failure.retry()) {
            (Failure::ClientGone, _) => "none".to_owned(),
            (Failure::OutOfDescriptors | Failure::InterimFlood, _) => failure.status().to_string(),
            (_, Retry::Never) => format!("{}, or cut once it has begun", failure.status()),
            _ => failure.status().to_string(),
        };
        let log = match failure {
            Failure::Stale | Failure::ClientGone | Failure::Draining => "no",
            _ => "yes",
        };
        let (name, text) = (failure.name(), failure.text());
        writeln!(table, "| `{name}` | {status} | {text} | {retry} | {log} |").unwrap();
    }
    table
}

fn doubts() -> String {
    let mut table = "| reason | when |\n|---|---|\n".to_owned();
    for doubt in Doubt::ALL {
        writeln!(table, "| `{}` | {} |", doubt.name(), doubt.text()).unwrap();
    }
    table
}

fn forces() -> String {
    let mut table = "| reason | when |\n|---|---|\n".to_owned();
    for wrong in WrongForce::ALL {
        writeln!(table, "| `{}` | {} |", wrong.name(), wrong.text()).unwrap();
    }
    table
}

/// A request of one line and fields, what is asked of it, and its name.
const READS: &[(&str, &str, &str)] = &[
    ("X-A: 1 | x-a: 2", "header", "X-A"),
    ("X-A:", "header", "X-A"),
    ("X-A: \t a  b \t", "header", "X-A"),
    ("X-A: \"a\", b", "header", "X-A"),
    ("X-A: \u{ff}", "header", "X-A"),
    ("X_A: 1", "header", "X-A"),
    ("Cookie: a=1; a=2", "cookie", "a"),
    ("Cookie: b=1 | Cookie: a=2 | Cookie: a=3", "cookie", "a"),
    ("Cookie: A=1", "cookie", "a"),
    ("Cookie: a=\"1\"", "cookie", "a"),
    ("Cookie: a=1;b=2", "cookie", "b"),
    ("Cookie: b=1 ;\ta = 2 3 ;", "cookie", "a"),
    ("Cookie: ;;a=1;;", "cookie", "a"),
    ("Cookie: a=1, b=2", "cookie", "a"),
    ("Cookie: a=1, b=2", "cookie", "b"),
    ("Cookie: b=\"x; a=1; y\"", "cookie", "a"),
    ("Cookie: a", "cookie", "a"),
    ("Cookie: a=", "cookie", "a"),
    ("Cookie: a==1=", "cookie", "a"),
    ("Cookie: =1", "cookie", "a"),
    ("Cookie: a=%31+", "cookie", "a"),
    ("Cookie: a=\u{ff}", "cookie", "a"),
    ("GET /?a=1&a=2", "query", "a"),
    ("GET /?A=1", "query", "a"),
    ("GET /?a", "query", "a"),
    ("GET /?a=", "query", "a"),
    ("GET /?a==1", "query", "a"),
    ("GET /?&&b&a=1&", "query", "a"),
    ("GET /?%61=%41+%2B%26", "query", "a"),
    ("GET /?a=%4&b", "query", "a"),
    ("GET /?a=%zz%%41", "query", "a"),
    ("GET /?a=%FF", "query", "a"),
    ("GET /?a=1;b=2", "query", "a"),
    ("GET /?a=1?b=2", "query", "a"),
    ("GET http://h?a=1", "query", "a"),
    ("GET /", "query", "a"),
    ("GET /a%20b/?c=/d", "path", ""),
    ("GET //a/./../b;c", "path", ""),
    ("GET http://h/p?q", "path", ""),
    ("GET http://h?q", "path", ""),
    ("OPTIONS *", "path", ""),
    ("Host: Shop.example:8080", "host", ""),
    ("Host: shop.example.", "host", ""),
    ("Host: [2001:db8::1]:80", "host", ""),
    ("GET http://b:81/", "host", ""),
    ("get /", "method", ""),
];

/// What is read of such a request.
fn read(request: &str, asked: &str, name: &str) -> String {
    let parts: Vec<&str> = request.split(" | ").collect();
    let (line, fields) = match parts[0].split_once(": ") {
        _ if parts[0].ends_with(':') => ("GET /", &parts[..]),
        Some(_) => ("GET /", &parts[..]),
        None => (parts[0], &parts[1..]),
    };
    let host = match asked {
        "host" if !fields.is_empty() => String::new(),
        _ => "Host: a\r\n".to_owned(),
    };
    let fields: String = fields.iter().map(|it| format!("{it}\r\n")).collect();
    let text = format!("{line} HTTP/1.1\r\n{host}{fields}\r\n");
    // A letter above ASCII stands for a byte.
    let bytes: Vec<u8> = text.chars().map(|it| u8::try_from(it).unwrap()).collect();
    let (mut head, mut scanner) = (RequestHead::default(), Scanner::default());
    const LIMITS: Limits = Limits {
        line: 1000,
        head: 1000,
        fields: 10,
    };
    let parsed = head.parse(&bytes, &mut scanner, &LIMITS);
    assert_eq!(parsed, Ok(Parsed::Complete), "{text:?}");
    let subject = Subject::new([127, 0, 0, 1].into(), &head, &bytes);
    let decoded = |text: &[u8]| decode(text, &mut Vec::new()).to_vec();
    let found = match asked {
        "header" => subject.header(name).map(<[u8]>::to_vec),
        "cookie" => subject.cookie(name.as_bytes()).map(<[u8]>::to_vec),
        "query" => {
            let mut all = subject.parameters();
            let found = all.find(|(it, _)| decoded(it) == name.as_bytes());
            found.map(|(_, value)| decoded(value))
        }
        "path" => Some(subject.path().to_vec()),
        "host" => Some(subject.host().to_vec()),
        "method" => Some(subject.method().to_vec()),
        _ => unreachable!("{asked}"),
    };
    match found {
        None => "nothing".to_owned(),
        Some(found) if found.is_empty() => "an empty value".to_owned(),
        // Quotes are no escapes here.
        Some(found) => format!(
            "`{}`",
            found.escape_ascii().to_string().replace("\\\"", "\"")
        ),
    }
}

fn reads() -> String {
    let mut table =
        "| what is sent | the term asks for | what is read |\n|---|---|---|\n".to_owned();
    for (request, asked, name) in READS {
        let read = read(request, asked, name);
        let parts = request.split(" | ").map(|it| {
            let shown = it.replace('\t', "\\t").replace('\u{ff}', "\\xff");
            format!("`{shown}`")
        });
        let sent = parts.collect::<Vec<_>>().join(", then ");
        let name = match *name {
            "" => String::new(),
            name => format!(" `{name}`"),
        };
        writeln!(table, "| {sent} | {asked}{name} | {read} |").unwrap();
    }
    table
}

fn closes() -> String {
    let mut table = "| name | when | error log |\n|---|---|---|\n".to_owned();
    for close in Close::ALL {
        let log = match close {
            Close::UntrustedProxy | Close::BadProxyHeader => "`connection-turned-away`",
            Close::Panic => "`panic`",
            _ => "-",
        };
        writeln!(table, "| `{}` | {} | {log} |", close.name(), close.text()).unwrap();
    }
    table
}

/// What stands between the markers of this name, with its place in `text`.
#[track_caller]
fn section<'a>(text: &'a str, name: &str) -> (usize, &'a str) {
    let [begin, end] = ["begin", "end"].map(|it| format!("<!-- {it}: {name} -->\n"));
    let start = text.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
    let length = text[start..]
        .find(&end)
        .unwrap_or_else(|| panic!("no {end}"));
    (start, &text[start..start + length])
}

fn admin_refusals() -> String {
    let mut table = "| reason | status | when |\n|---|---|---|\n".to_owned();
    for why in AdminRefusal::ALL {
        let (name, status, text) = (why.name(), why.status(), why.text());
        writeln!(table, "| `{name}` | {status} | {text} |").unwrap();
    }
    table
}

#[test]
fn the_tables_say_what_the_code_does() {
    let tables = [
        ("docs/http.md", "limits", limits()),
        ("docs/http.md", "refusals", refusals()),
        ("docs/http.md", "failures", failures()),
        ("docs/http.md", "closes", closes()),
        ("docs/http.md", "doubts", doubts()),
        ("docs/gray.md", "forces", forces()),
        ("docs/gray.md", "reads", reads()),
        ("docs/security.md", "admin refusals", admin_refusals()),
        ("docs/settings.md", "service-keys", service_keys()),
        ("docs/settings.md", "verdict-keys", verdict_keys()),
    ];
    let mut stale = Vec::new();
    for (name, of, table) in tables {
        let file = here(name);
        let mut text = fs::read_to_string(&file).unwrap();
        let (start, found) = section(&text, of);
        if found == table {
            continue;
        }
        let end = start + found.len();
        text.replace_range(start..end, &table);
        stale.push(format!("{name}, {of}:\n{table}"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(file, text).unwrap();
        }
    }
    assert!(
        stale.is_empty() || std::env::var_os("UPDATE_DOCS").is_some(),
        "the docs are out of date (UPDATE_DOCS=1 writes them); wanted for {}",
        stale.join("\n")
    );
}

/// True when `code` has a test of this name.
fn has_test(code: &str, name: &str) -> bool {
    let Some(at) = code.find(&format!("fn {name}(")) else {
        return false;
    };
    // Nothing but attributes and comments stands between.
    let before = code[..at].trim_end();
    let lines = before.lines().rev().map(str::trim);
    let mut own = lines.take_while(|it| it.starts_with("#[") || it.starts_with("//"));
    own.any(|it| it == "#[test]")
}

/// `refusals::name` is a test in tests/refusals.rs, `http/h1/chunked::name` one in src/http/h1/chunked.rs.
#[track_caller]
fn check_test(reference: &str) -> &'static str {
    let (file, name) = reference
        .split_once("::")
        .unwrap_or_else(|| panic!("no file: {reference}"));
    for place in ["tests", "src"] {
        let code = fs::read_to_string(here(&format!("{place}/{file}.rs"))).unwrap_or_default();
        if has_test(&code, name) {
            return place;
        }
    }
    panic!("no such test: {reference}")
}

#[test]
fn every_rule_names_tests_that_exist_and_one_of_them_is_end_to_end() {
    let text = fs::read_to_string(here("docs/http.md")).unwrap();
    let (_, table) = section(&text, "rules");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let numbers: Vec<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    let all: Vec<String> = (1..=RULES).map(|it| it.to_string()).collect();
    assert_eq!(numbers, all);
    for row in rows {
        let [number, told, tests] = row[..] else {
            panic!("not three columns: {row:?}");
        };
        assert!(!told.is_empty(), "rule {number}");
        let references = tests.split(',').map(|it| it.trim().trim_matches('`'));
        let places: Vec<&str> = references.map(check_test).collect();
        assert!(places.contains(&"tests"), "rule {number}: {tests}");
    }
}

#[test]
fn every_threat_names_tests_that_exist() {
    check_tests_of("docs/security.md", "threats");
}

#[test]
fn what_clients_notice_of_an_upgrade_names_tests_that_exist() {
    check_tests_of("docs/upgrade.md", "clients");
}

/// The last column of this table names tests, of which one is end-to-end.
#[track_caller]
fn check_tests_of(page: &str, name: &str) {
    let text = fs::read_to_string(here(page)).unwrap();
    let (_, table) = section(&text, name);
    for row in table.lines().skip(2) {
        let tests = row.trim_matches('|').rsplit('|').next().unwrap();
        let references = tests.split(',').map(|it| it.trim().trim_matches('`'));
        let places: Vec<&str> = references.map(check_test).collect();
        assert!(places.contains(&"tests"), "{row}");
    }
}

#[test]
fn every_reason_that_the_text_names_is_one() {
    let text = fs::read_to_string(here("docs/http.md")).unwrap();
    let (_, rules) = section(&text, "rules");
    let names: Vec<&str> = [
        Refusal::ALL.iter().map(|it| it.name()).collect::<Vec<_>>(),
        Failure::ALL.iter().map(|it| it.name()).collect(),
        Close::ALL.iter().map(|it| it.name()).collect(),
    ]
    .concat();
    for row in rules.lines().skip(2) {
        let told = row.split('|').nth(2).unwrap();
        // Between backticks, and in the form of a reason: `many-lengths`.
        for word in told.split('`').skip(1).step_by(2) {
            let is_reason = word.contains('-')
                && word
                    .bytes()
                    .all(|it| it == b'-' || it.is_ascii_lowercase() || it.is_ascii_digit());
            assert!(!is_reason || names.contains(&word), "{word} in {row}");
        }
    }
    assert!(names.contains(&"many-lengths"));
}

#[test]
fn what_is_found_of_the_store_stands_in_the_docs() {
    let text = include_str!("../docs/lists.md");
    for finding in StoreFindingKind::ALL {
        let row = format!("| `{}` | {} |", finding.name(), finding.text());
        assert!(text.contains(&row), "{row}");
    }
}

#[test]
fn what_is_found_of_entries_stands_in_the_docs() {
    let text = include_str!("../docs/lists.md");
    for finding in FindingKind::ALL {
        let row = format!("| `{}` | {} |", finding.name(), finding.text());
        assert!(text.contains(&row), "{row}");
    }
}

#[test]
fn what_health_checks_can_be_told_and_come_to_stands_in_the_docs() {
    let text = include_str!("../docs/peers.md");
    for outcome in Checked::ALL {
        let row = format!("| `{}` | {} |", outcome.name(), outcome.text());
        assert!(text.contains(&row), "{row}");
    }
    for key in KEYS.iter().filter(|it| it.section == "health") {
        let default = match key.default {
            "" => "(none)",
            default => default,
        };
        let row = format!("| `{}` | {default} |", key.name);
        assert!(text.contains(&row), "{row}");
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

#[test]
fn links_between_pages_lead_to_what_is_there() {
    let pages = fs::read_dir(here("docs")).unwrap();
    let pages = pages.map(|it| it.unwrap().path());
    let pages = pages.filter(|it| it.extension().is_some_and(|it| it == "md"));
    for page in pages.chain([here("README.md"), here("README.zh-CN.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1);
        let links = links.filter_map(|it| it.split_once(')')).map(|it| it.0);
        for link in links.filter(|it| !it.contains("://")) {
            let shown = format!("{}: {link}", page.display());
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.with_file_name(path),
            };
            assert!(target.exists(), "{shown}");
            if !heading.is_empty() {
                let text = fs::read_to_string(target).unwrap();
                let mut headings = text.lines().filter(|it| it.starts_with('#'));
                assert!(headings.any(|it| anchor(it) == heading), "{shown}");
            }
        }
    }
}

#[test]
fn what_the_architecture_names_is_there() {
    let text = fs::read_to_string(here("docs/architecture.md")).unwrap();
    let words = text.split('`').skip(1).step_by(2);
    let folders = ["src/", "tests/", "scripts/", "etc/"];
    let paths = words.filter(|it| folders.iter().any(|folder| it.starts_with(folder)));
    let missing: Vec<&str> = paths.filter(|it| !here(it).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // `Exchange::run` in `src/proxy/exchange.rs`
    let parts: Vec<&str> = text.split('`').collect();
    let named_in = parts
        .windows(3)
        .filter(|it| it[1] == " in " && it[2].ends_with(".rs"));
    let mut count = 0;
    for place in named_in {
        let code = fs::read_to_string(here(place[2])).unwrap();
        let name = place[0].rsplit("::").next().unwrap();
        let has_it = code.contains(name.trim_end_matches('!'));
        assert!(has_it, "{} has no {name}", place[2]);
        count += 1;
    }
    assert!(count > 9, "{count}");
}

#[test]
fn comments_fit_into_110_columns() {
    let mut folders = vec![here("src"), here("tests")];
    let mut wide = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let code = fs::read_to_string(&path).unwrap();
                let comments = code.lines().enumerate().filter(|(_, line)| {
                    line.trim_start().starts_with("//") && line.chars().count() > 110
                });
                wide.extend(comments.map(|(at, _)| format!("{}:{}", path.display(), at + 1)));
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}
