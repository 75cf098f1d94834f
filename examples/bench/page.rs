//! The page of results: prose from `page.md`, and the figures of the run.

use std::fs;
use std::path::Path;

use crate::plots;
use crate::report;
use crate::runs::{Effort, Measured};
use crate::targets;

const NOTES: [&str; 2] = ["<!-- begin: notes -->\n", "<!-- end: notes -->"];

/// Writes the page and its plots into `folder`. The notes on the page that is there stay.
pub(crate) fn write(
    folder: &Path,
    all: &[Measured],
    effort: Effort,
    machine: &[(&'static str, String)],
    command: &str,
) -> Result<(), String> {
    let page = folder.join("benchmarks.md");
    let notes = fs::read_to_string(&page).ok().and_then(|it| notes(&it));
    let pictures = folder.join("benchmarks");
    fs::create_dir_all(&pictures).map_err(|it| format!("a folder for the plots: {it}"))?;
    let plots = plots::draw(all, &pictures);
    let machine: Vec<String> = machine
        .iter()
        .map(|(name, value)| format!("- {name}: {value}"))
        .collect();
    let effort = effort_of(all, effort);
    let text = include_str!("page.md")
        .replace("@COMMAND@", command)
        .replace("@MACHINE@", &machine.join("\n"))
        .replace("@TARGETS@", targets::table(all).markdown().trim())
        .replace("@COUNTED@", targets::counted().markdown().trim())
        .replace("@EFFORT@", &effort)
        .replace("@SCENARIOS@", scenarios(all, &plots).trim())
        // Last, so that nothing is replaced in it.
        .replace("@NOTES@", notes.as_deref().unwrap_or_default().trim());
    fs::write(page, text).map_err(|it| format!("the page: {it}"))
}

/// How much was measured, and of which scenarios less or more.
fn effort_of(all: &[Measured], effort: Effort) -> String {
    let (rounds, seconds) = (effort.rounds, effort.measured.as_secs_f64());
    let mut text = format!(
        "{rounds} rounds, in each of which each proxy has {seconds} s of load, behind 0.3 s that do not \
         count. Tables show medians of the rounds."
    );
    for scenario in all.iter().map(|it| it.scenario) {
        let (fewest, longest) = (scenario.rounds.min(rounds), scenario.measured);
        let (name, longest) = (scenario.name, longest.max(effort.measured).as_secs_f64());
        if fewest < rounds || longest > seconds {
            text.push_str(&format!(" `{name}` has {fewest} rounds of {longest} s."));
        }
    }
    text
}

/// What somebody has written between the marks.
fn notes(page: &str) -> Option<String> {
    let (_, rest) = page.split_once(NOTES[0])?;
    let (notes, _) = rest.split_once(NOTES[1])?;
    Some(notes.to_owned())
}

fn scenarios(all: &[Measured], plots: &[plots::Plot]) -> String {
    let mut text = String::new();
    for measured in all {
        let scenario = measured.scenario;
        text.push_str(&format!("## {}\n\n", measured.title));
        text.push_str(&format!("`--only {}`\n\n", scenario.name));
        for plot in plots.iter().filter(|it| it.scenario == scenario.name) {
            text.push_str(&format!("![{}](benchmarks/{})\n\n", plot.title, plot.file));
        }
        text.push_str(&report::figures(measured).markdown());
        text.push('\n');
        if let Some(remark) = report::remark(measured) {
            text.push_str(&format!("{remark}\n\n"));
        }
        let ratios = report::ratios(measured);
        if !ratios.is_empty() {
            text.push_str(&ratios.markdown());
            text.push('\n');
        }
        for problem in report::problems(measured) {
            text.push_str(&format!("**Error:** {}\n\n", problem.replace('\n', " ")));
        }
    }
    text
}
