//! `graygate rollout`: beginning one, and how it stands. What becomes of it afterwards is the affair of the
//! gateways ([`crate::release::leader`]).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::arguments::VerbFlags;
use crate::cli::lists::named;
use crate::cli::report::Report;
use crate::cli::verbs;
use crate::lists::ServiceName;
use crate::release::change::{self, RolloutPlan, RolloutVerb, ShareBy, Verb, step_in_words};
use crate::release::ledger::{Ledger, TendedState};
use crate::release::rollout::{Course, LeaderSays, Rollout, rollout_in};
use crate::run;

/// The longest time of a step.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was said of a rollout.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn plan(
    steps: &str,
    every: Duration,
    by: Option<ShareBy>,
) -> Result<RolloutPlan, String> {
    if every.is_zero() || every > LONGEST {
        return Err("--every is a time above 0, and of 30 days at most".to_owned());
    }
    Ok(RolloutPlan {
        steps: change::steps(steps).map_err(|why| format!("--steps {steps:?}: {why}"))?,
        by,
        every,
        promotes: false,
        without_verdict: false,
    })
}

/// Begins one.
///
/// # Errors
/// One line: why nothing was changed.
pub(crate) fn start(flags: &VerbFlags, plan: RolloutPlan) -> Result<Report, String> {
    let (config, service) = (run::load(&flags.config)?, verbs::of(flags)?);
    let settings = config.services.iter().find(|it| it.name == service);
    if settings.is_some_and(|it| !it.verdict.is_on()) {
        return Err(format!(
            "gateways do not look at the release of {service}, since it has [verdict] mode = off"
        ));
    }
    verbs::perform(flags, Verb::Rollout(RolloutVerb::Start(plan)))
}

/// How it stands.
///
/// # Errors
/// One line: why that is not known.
pub(crate) fn status(config: &Path, service: Option<&str>) -> Result<Report, String> {
    let config = run::load(config)?;
    let service: ServiceName = service.map(named).transpose()?.unwrap_or_default();
    let mut state = None;
    Ledger::of(&config, &service)?.tend(&mut |it| {
        state = Some(it.clone());
        TendedState::Kept
    })?;
    let rollout = state.as_ref().and_then(rollout_in);
    let frozen = state.as_ref().and_then(change::frozen);
    let Some(rollout) = rollout else {
        let json = json!({ "service": service.as_str(), "rollout": null, "frozen": frozen });
        let also = frozen.map_or_else(String::new, |it| format!("{it}\n"));
        return Ok(Report::new(format!("there is no rollout\n{also}"), json));
    };
    let mut json = json!({ "service": service.as_str(), "rollout": rollout.to_json() });
    let left = rollout.left().map(|it| it.as_secs_f64());
    (json["left_seconds"], json["leader"]) = (json!(left), json!(rollout.leader()));
    json["frozen"] = json!(frozen);
    Ok(Report::new(in_lines(&rollout, frozen.is_some()), json))
}

fn in_lines(rollout: &Rollout, is_frozen: bool) -> String {
    let (course, step) = (rollout.course.name(), step_in_words(rollout));
    let (by, started, since) = (&rollout.by, &rollout.started, &rollout.since);
    let mut text = format!("{course} since {since}: {step}\n");
    // Writing to a String cannot fail.
    if let Some(why) = &rollout.why {
        let _ = writeln!(text, "{why}");
    }
    if rollout.course == Course::Done && rollout.promotes && rollout.why.is_none() {
        text.push_str("pre was promoted: its servers are prod now\n");
    }
    if let Some(left) = rollout.left() {
        add_prospect(&mut text, rollout, left);
    }
    if rollout.course == Course::Paused {
        text.push_str(match is_frozen {
            true => "the lists are frozen: `graygate thaw`, and then `graygate rollout resume`, has it go on\n",
            false => "`graygate rollout resume` has it go on\n",
        });
    }
    let _ = match &rollout.reason {
        Some(reason) => writeln!(text, "started by {by} at {started}: {reason}"),
        None => writeln!(text, "started by {by} at {started}"),
    };
    text
}

/// What comes next, and when.
fn add_prospect(text: &mut String, rollout: &Rollout, left: Duration) {
    let next = match (rollout.at + 1 < rollout.steps.len(), rollout.promotes) {
        (true, _) => "the next step",
        (false, true) => "the promotion",
        (false, false) => "the end",
    };
    let LeaderSays { verdict, waits_for } = &rollout.says;
    let is_due = left.is_zero();
    let left =
        humantime::format_duration(Duration::from_secs(left.as_millis().div_ceil(1000) as u64));
    let then = match rollout.without_verdict {
        true => "",
        false => ", when the verdict is good enough",
    };
    // Writing to a String cannot fail.
    let _ = match (rollout.course, waits_for) {
        (Course::Running, _) if rollout.waited < rollout.every => {
            writeln!(text, "{next} in {left}{then}")
        }
        (Course::Running, Some(why)) => writeln!(text, "{next} waits: {why}"),
        (Course::Running, None) => writeln!(text, "{next} is due"),
        _ if is_due => writeln!(text, "{next} as soon as it goes on{then}"),
        _ => writeln!(text, "{next} {left} after it goes on{then}"),
    };
    if let Some(verdict) = verdict
        && !waits_for.as_ref().is_some_and(|it| it.contains(verdict))
    {
        let _ = writeln!(text, "the verdict: {verdict}");
    }
    let _ = match (rollout.leader(), rollout.course) {
        (Some(node), _) => writeln!(text, "carried on by {node}"),
        (None, Course::Running) => writeln!(text, "carried on by no gateway yet"),
        (None, _) => Ok(()),
    };
}
