//! `graygate config`: every setting, and where its value comes from.

use std::path::Path;

use serde_json::json;

use crate::admin::pages::config::ConfigPage;
use crate::admin::pages::settings::{self, SettingShown, WaitingValue};
use crate::admin::pages::{Member as _, Page};
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::cli::table;
use crate::run;

/// What is in force in the gateway that runs with the ini file at `config`.
///
/// # Errors
/// One line: it cannot be asked, or does not show its settings to this user.
pub(crate) fn in_force(config: &Path) -> Result<Report, String> {
    let asker = AdminClient::of(config)?;
    let page: ConfigPage = asker.page()?;
    let Some(settings) = page.settings else {
        let what = "the settings are not shown there: ask as root or in the gateway's group, by [admin] socket, \
                    or set [admin] expose = full; `graygate config --file` says what the file says";
        return Err(asker.failed(ConfigPage::PATH, what));
    };
    let pid = page.pid.map(|it| it.to_string()).unwrap_or_default();
    let title = format!("# in force in process {pid}, by {}\n", page.file);
    let json = json!({ "file": page.file, "pid": page.pid, "settings": settings.render() });
    let report = Report::new(title + &text(&settings), json);
    let failed = page
        .error
        .map(|it| format!("note: the last reload has failed: {it}"));
    Ok(report.noting(failed.into_iter().collect()))
}

/// What the ini file at `config` says, whatever a gateway does.
///
/// # Errors
/// One line: what is wrong with it.
pub(crate) fn of_file(config: &Path) -> Result<Report, String> {
    let config = run::load(config)?;
    let (file, settings) = (
        config.path.display().to_string(),
        SettingShown::all(&config),
    );
    let json = json!({ "file": file, "pid": null, "settings": settings.render() });
    let title = format!("# by {file}, in the environment of this command\n");
    Ok(Report::new(title + &text(&settings), json))
}

/// A line for each key, and one more for each value that waits for a restart.
fn text(settings: &[SettingShown]) -> String {
    let titles = ["KEY", "FROM", "VALUE"].map(str::to_owned);
    let mut rows = vec![titles];
    for it in settings {
        rows.push([it.key.clone(), from(it), value(it)]);
        if let Some(waiting) = &it.after_restart {
            rows.push(row_of_waiting(&it.key, waiting));
        }
    }
    table::text(&rows)
}

fn from(setting: &SettingShown) -> String {
    let origin = origin(&setting.origin, setting.line, setting.variable.as_deref());
    match setting.origin == settings::MACHINE {
        true => "the machine".to_owned(),
        false => origin,
    }
}

fn value(setting: &SettingShown) -> String {
    let place = setting.line.map(|it| format!("line {it}"));
    let place = place.unwrap_or_else(|| settings::DEFAULT.to_owned());
    let written = setting
        .written
        .as_deref()
        .map(|it| format!("{place}: {}", or_empty(it)));
    let remarks: Vec<&str> = [written.as_deref(), setting.note.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    match remarks.is_empty() {
        true => or_empty(&setting.value).to_owned(),
        false => format!("{} ({})", or_empty(&setting.value), remarks.join("; ")),
    }
}

fn row_of_waiting(key: &str, waiting: &WaitingValue) -> [String; 3] {
    let from = origin(&waiting.origin, waiting.line, waiting.variable.as_deref());
    let value = format!("{} (waits for a restart)", or_empty(&waiting.value));
    [key.to_owned(), from, value]
}

fn origin(name: &str, line: Option<u64>, variable: Option<&str>) -> String {
    match (line, variable) {
        (Some(line), _) => format!("line {line}"),
        (None, Some(variable)) => variable.to_owned(),
        (None, None) => name.to_owned(),
    }
}

fn or_empty(value: &str) -> &str {
    if value.is_empty() { "(empty)" } else { value }
}
