//! `graygate verdict`: whether the new version is worse than the old one, as far as the running gateway
//! knows.

use std::fmt::Write;
use std::path::Path;

use crate::admin::pages::Member as _;
use crate::admin::pages::standing::TripShown;
use crate::admin::pages::verdict::{FindingSeen, VerdictPage, VerdictSeen};
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::cli::table;
use crate::lists::ServiceName;

/// What is known of one service, or of all; as JSON, the page `/verdict`.
///
/// # Errors
/// One line: the gateway cannot be asked, does not answer, or has no such service.
pub(crate) fn show(config: &Path, service: Option<&str>) -> Result<Report, String> {
    let mut page: VerdictPage = AdminClient::of(config)?.page()?;
    if let Some(service) = service {
        page.services.retain(|it| it.service == service);
        if page.services.is_empty() {
            return Err(format!("there is no service {service}"));
        }
    }
    Ok(Report::new(text(&page), page.render()))
}

const TITLES: [&str; 10] = [
    "SERVICE", "RELEASE", "ABOUT", "FINDING", "PRE", "PROD", "ODDS", "EVIDENCE", "CLIENTS",
    "GATEWAYS",
];

/// A sentence for each service, and the table.
fn text(page: &VerdictPage) -> String {
    let mut text = String::new();
    let is_named = page.services.len() > 1;
    for service in &page.services {
        let name = match is_named {
            true => format!("{}: ", service.service),
            false => String::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}{}", sentence(service));
        let unseen = service.failing.as_ref().and_then(|it| it.unseen.as_ref());
        // What was taken back gets no clients, so nothing more can be found of it.
        if let Some(unseen) = unseen.filter(|_| !is_taken_back(service)) {
            let _ = writeln!(text, "{name}{unseen}");
        }
    }
    let is_judged = page.services.iter().any(|it| it.failing.is_some());
    if let Some(why) = page.by_itself.as_ref().filter(|_| is_judged) {
        let _ = writeln!(
            text,
            "this gateway judges by what it sees itself, without the others: {why}"
        );
    }
    let rows = page.services.iter().flat_map(rows);
    let rows: Vec<_> = [TITLES.map(str::to_owned)]
        .into_iter()
        .chain(rows)
        .collect();
    if rows.len() > 1 {
        let _ = write!(text, "\n{}", table::text(&rows));
    }
    for service in &page.services {
        for (about, finding) in findings(service) {
            let name = match is_named {
                true => format!("{}, ", service.service),
                false => String::new(),
            };
            add_sums(&mut text, &format!("{name}{about}"), finding);
        }
    }
    text
}

/// What the evidence is made of, where there is some.
fn add_sums(text: &mut String, about: &str, finding: &FindingSeen) {
    let sums = finding.ln_sums.iter().zip(&finding.own_sums);
    if finding.pre_units == 0 || sums.len() == 0 {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "\nS_k of {about}, of all gateways (of this one):");
    for (odds, (all, own)) in finding.odds_ratios.iter().zip(sums) {
        let _ = write!(text, " {odds}: {all:.2} ({own:.2})");
    }
    text.push('\n');
}

/// What a person wants to know.
fn sentence(seen: &VerdictSeen) -> String {
    if let Some(text) = taken_back(seen) {
        return text;
    }
    let Some(failing) = &seen.failing else {
        return match seen.state == VerdictSeen::OFF {
            true => "nothing is counted, since [verdict] mode is off".to_owned(),
            false => "no release is under way, or none that was looked at yet".to_owned(),
        };
    };
    let mut text = failing.text.clone();
    let slow = seen.slow.as_ref();
    if let Some(slow) = slow.filter(|it| matches!(&*it.finding, "worse" | "suspect")) {
        let _ = write!(text, "; {}", slow.text);
    }
    if seen.pre_out {
        text = format!("no server of pre is up; {text}");
    }
    if seen.few_clients && failing.pre_units > 0 {
        let _ = write!(
            text,
            " (pre has few clients, {}: evidence may be about them instead of about the version)",
            seen.pre_clients
        );
    }
    text
}

fn is_taken_back(seen: &VerdictSeen) -> bool {
    seen.tripped.is_some() || seen.state == VerdictSeen::TRIPPED
}

/// Who has taken it back, and by which numbers of then: once it is taken back, nothing more is counted. None
/// where it is not.
fn taken_back(seen: &VerdictSeen) -> Option<String> {
    if !is_taken_back(seen) {
        return None;
    }
    let trip = seen.tripped.as_ref();
    let mut text = "taken back: everybody gets the old version".to_owned();
    if let Some(numbers) = trip.and_then(TripShown::sentence) {
        let _ = write!(text, "; {numbers}");
    }
    if let Some(trip) = trip {
        let option = match seen.service == ServiceName::DEFAULT {
            true => String::new(),
            false => format!(" --service {}", seen.service),
        };
        let words = trip.words();
        let _ = write!(
            text,
            "\ntaken back {words}; to try it again: graygate verdict reset{option}"
        );
    }
    Some(text)
}

/// The rows of a service: of failures, and of slow answers.
fn rows(seen: &VerdictSeen) -> Vec<[String; 10]> {
    let both = findings(seen).into_iter();
    both.map(|(about, it)| row(seen, about, it)).collect()
}

/// What there is to say of failures, and of slow answers.
fn findings(seen: &VerdictSeen) -> Vec<(&'static str, &FindingSeen)> {
    let both = [("failures", &seen.failing), ("slowness", &seen.slow)];
    // Of what was taken back nothing is counted, and zeros would be taken for that.
    let is_over = |it: &FindingSeen| seen.tripped.is_some() && it.pre_units == 0;
    let both = both
        .into_iter()
        .filter_map(|(about, it)| Some((about, it.as_ref().filter(|it| !is_over(it))?)));
    both.collect()
}

fn row(seen: &VerdictSeen, about: &str, finding: &FindingSeen) -> [String; 10] {
    let why = finding.why.as_deref().filter(|it| *it != finding.finding);
    let why = why.map_or_else(String::new, |it| format!(" ({it})"));
    let of = |bad: u64, units: u64| format!("{bad} of {units}");
    let number = |it: f64| match it < 1e6 {
        true => format!("{it:.1}"),
        false => format!("{it:.1e}"),
    };
    [
        seen.service.clone(),
        seen.release.clone().unwrap_or_default(),
        about.to_owned(),
        format!("{}{why}", finding.finding),
        of(finding.pre_bad, finding.pre_units),
        of(finding.prod_bad, finding.prod_units),
        finding.odds_ratio.map_or("-".to_owned(), number),
        match finding.pre_units {
            // It begins with less than 1, which is evidence of nothing.
            0 => "-".to_owned(),
            _ => format!(
                "{} of {}",
                number(finding.evidence),
                number(finding.evidence_needed)
            ),
        },
        finding
            .bad_clients
            .map_or("-".to_owned(), |it| it.to_string()),
        seen.gateways.to_string(),
    ]
}
