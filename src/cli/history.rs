//! `graygate history`: what was done to the lists of a service, by whom and why.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::lists::named;
use crate::cli::report::Report;
use crate::cli::table;
use crate::logs::local_time::LocalTimeText;
use crate::release::history::{ChangeRecord, KEPT, UNATTRIBUTED};
use crate::release::ledger::Ledger;
use crate::run;

const TITLES: [&str; 7] = ["N", "TIME", "BY", "VERB", "LISTS", "DIFFERENCE", "REASON"];

/// The last changes, the newest first.
///
/// # Errors
/// One line: why they cannot be read.
pub(crate) fn list(config: &Path, service: Option<&str>, last: usize) -> Result<Report, String> {
    let all = records(config, service, last)?;
    let rows = all.iter().map(row);
    let rows: Vec<_> = [TITLES.map(str::to_owned)]
        .into_iter()
        .chain(rows)
        .collect();
    let text = match all.is_empty() {
        true => "the history is empty\n".to_owned(),
        false => table::text(&rows),
    };
    let changes: Vec<Value> = all.iter().map(|it| Value::Object(it.members())).collect();
    Ok(Report::new(text, json!({ "changes": changes })))
}

/// The change of this number.
///
/// # Errors
/// One line: there is none, or the history cannot be read.
pub(crate) fn show(config: &Path, service: Option<&str>, number: u64) -> Result<Report, String> {
    let all = records(config, service, 2 * KEPT)?;
    let Some(record) = all.iter().find(|it| it.number == number) else {
        return Err(match (all.last(), all.first()) {
            (Some(oldest), Some(newest)) => format!(
                "the history has no change {number}; it has {} to {}",
                oldest.number, newest.number
            ),
            _ => format!("the history has no change {number}; it is empty"),
        });
    };
    let lines = [
        ("change", record.number.to_string()),
        ("time", format!("{} ({})", local(&record.at), record.at)),
        ("by", who(record)),
        ("verb", record.verb.clone()),
        (
            "reason",
            record.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("service", record.service.clone()),
        ("before", record.before.clone()),
        ("after", record.after.clone()),
    ];
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<10}{value}\n"))
        .collect();
    for line in &record.difference {
        text.push_str(line);
        text.push('\n');
    }
    Ok(Report::new(text, Value::Object(record.members())))
}

fn records(config: &Path, service: Option<&str>, most: usize) -> Result<Vec<ChangeRecord>, String> {
    let config = run::load(config)?;
    let service = service.map(named).transpose()?.unwrap_or_default();
    Ledger::of(&config, &service)?.history(most)
}

fn who(record: &ChangeRecord) -> String {
    match record.verb == UNATTRIBUTED || record.by.is_empty() {
        true => "-".to_owned(),
        false => record.by.clone(),
    }
}

/// The time here, as far as the text is a time.
fn local(at: &str) -> String {
    match humantime::parse_rfc3339_weak(at) {
        Ok(time) => String::from_utf8_lossy(LocalTimeText::default().iso8601(time)).into_owned(),
        Err(_) => at.to_owned(),
    }
}

/// So many lines of a difference are in the table.
const LINES: usize = 2;

/// And so many characters of a text: `history show` has all.
const SHOWN: usize = 60;

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn row(record: &ChangeRecord) -> [String; 7] {
    let reason = record.reason.clone().unwrap_or_default();
    // What has become of a rollout is in the reason as well.
    let is_said = |it: &&String| reason.starts_with("rollout: ") && it.starts_with("+ rollout ");
    let lines = record.difference.iter().filter(|it| !is_said(it));
    let lines: Vec<&str> = lines.map(String::as_str).collect();
    let mut difference = cut(&lines[..lines.len().min(LINES)].join(", "));
    if lines.len() > LINES {
        difference.push_str(&format!(", … ({} lines)", lines.len()));
    }
    let or_none = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    [
        record.number.to_string(),
        local(&record.at),
        who(record),
        record.verb.clone(),
        record.after.clone(),
        or_none(difference),
        or_none(cut(&reason)),
    ]
}
