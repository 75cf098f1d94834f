//! `graygate status`: asks the admin listener of the running gateway.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::cli::admin_client::Asker;

/// What the running gateway says of itself.
pub struct Report {
    /// A few lines for a person.
    pub text: String,
    /// It can serve requests.
    pub serves: bool,
}

/// Asks the gateway that runs with the ini file at `config`.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub fn ask(config: &Path) -> Result<Report, String> {
    let asker = Asker::of(config)?;
    let (health, word) = asker.get("/healthz")?;
    let lists = asker.page_with("/lists", &[("limit", "0")])?;
    Ok(Report {
        text: text(word.trim_end(), &lists),
        serves: health == 200,
    })
}

/// What always matters, and below it what is out of the ordinary.
fn text(health: &str, lists: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, what: String| {
        let _ = writeln!(text, "{label:<11} {what}");
    };
    line("health", health.to_owned());
    let (source, mode) = (plain(&lists["source"]), plain(&lists["mode"]));
    line("source", format!("{source} ({mode}), {}", age(lists)));
    let generation = plain(&lists["generation"]);
    let (digest, changed) = (plain(&lists["digest"]), plain(&lists["changed_at"]));
    line(
        "generation",
        format!("{generation}, digest {digest}, changed {changed}"),
    );
    // An older gateway has shown the entries alone.
    let count = |list: &str| {
        let count = lists["counts"][list].as_u64();
        count.unwrap_or_else(|| all(&lists[list]).count() as u64)
    };
    let [gray, pre, prod] = ["gray", "pre", "prod"].map(count);
    line("entries", format!("gray {gray}, pre {pre}, prod {prod}"));
    line("error", plain(&lists["error"]));
    for found in all(&lists["findings"]["first"]) {
        // Those of entries are many, and `lists check` tells them.
        if found["list"].is_null() {
            let (finding, text) = (plain(&found["finding"]), plain(&found["text"]));
            line("finding", format!("{finding}: {text}"));
        }
    }
    for kept in all(&lists["kept"]) {
        let (list, fault) = (plain(&kept["list"]), plain(&kept["fault"]));
        line("kept", format!("{list}, since the store has: {fault}"));
    }
    for held in all(&lists["held"]) {
        let [list, reason, digest] = ["list", "reason", "digest"].map(|it| plain(&held[it]));
        let remedy = format!("graygate lists accept {digest}");
        line("held", format!("{list}: {reason}; to let it in: {remedy}"));
    }
    for (list, skipped) in lists["skipped"].as_object().into_iter().flatten() {
        if let Some(first) = all(&skipped["first"]).next() {
            let [entry, reason] = ["entry", "reason"].map(|it| plain(&first[it]));
            let count = plain(&skipped["count"]);
            line(
                "skipped",
                format!("{list}: {count}, first {entry:?}: {reason}"),
            );
        }
    }
    if lists["copy"]["in_force"] == true {
        let written = plain(&lists["copy"]["written"]);
        line("copy", format!("in force, of {written}"));
    }
    if let Some(error) = lists["copy"]["error"].as_str() {
        line("copy", error.to_owned());
    }
    if let Some(error) = lists["heartbeat"]["error"].as_str() {
        let node = plain(&lists["heartbeat"]["node"]);
        line("heartbeat", format!("of {node} fails: {error}"));
    }
    text
}

fn age(lists: &Value) -> String {
    match lists["age_seconds"].as_f64() {
        Some(age) => format!("read {age:.1} s ago"),
        None => "not read yet".to_owned(),
    }
}

fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
