//! What is found of the releases.

use std::fmt::Display;

use super::page::MetricsPage;
use super::service::ServiceLabel;
use crate::admin::pages::verdict::VerdictSeen;
use crate::release::case::Case;
use crate::release::evidence::{Concern, Counted};
use crate::release::judge::Standing;
use crate::release::rollout::{Course, Rollout};
use crate::upstream::serving::Serving;

/// The two questions, as labels.
const ABOUT: [(&str, Concern); 2] = [("failures", Concern::Failing), ("slowness", Concern::Slow)];

pub(super) fn render(page: &mut MetricsPage, serving: &Serving, standing: &[Standing]) {
    let labelled = |it| {
        let standing: &Standing = it;
        (ServiceLabel::of(serving, &standing.service), standing)
    };
    let all: Vec<(ServiceLabel<'_>, &Standing)> = standing.iter().map(labelled).collect();
    page.family(
        "verdict_state",
        "gauge",
        "1 for what is found of the release, 0 for all else: see /verdict.",
    );
    for (service, standing) in &all {
        let state = VerdictSeen::state(standing);
        for name in VerdictSeen::STATES {
            let labels = service.labels(&[("state", &name)]);
            page.value("verdict_state", &labels, u8::from(name == state));
        }
    }
    page.family(
        "verdict_ln_evidence",
        "gauge",
        "While a release is under way: the natural logarithm of the evidence of all gateways that it is worse; 3 is suspect, 6.9 is worse at alpha = 0.001.",
    );
    each_case(&all, |service, about, concern, case| {
        if let Some(judged) = case.judged(concern) {
            let labels = service.labels(&[("about", &about)]);
            page.value("verdict_ln_evidence", &labels, judged.ln_worse);
        }
    });
    sums(page, &all);
    counted(page, &all);
    page.family(
        "verdict_gateways",
        "gauge",
        "While a release is under way: gateways that add to the evidence, this one included.",
    );
    for (service, standing) in &all {
        if let Some(case) = &standing.case {
            let labels = service.labels(&[]);
            page.value("verdict_gateways", &labels, case.gateways());
        }
    }
}

/// What the evidence is made of, for each odds ratio that is looked for.
fn sums(page: &mut MetricsPage, all: &[(ServiceLabel<'_>, &Standing)]) {
    const NAME: &str = "verdict_ln_sum";
    page.family(
        NAME,
        "gauge",
        "While a release is under way: the natural logarithm of the evidence that the odds of a bad request are so many times as high in pre, of all gateways and of this one alone.",
    );
    each_case(all, |service, about, concern, case| {
        let Some(judged) = case.judged(concern) else {
            return;
        };
        let own = case.evidence(concern).sums();
        for ((odds, sum), own) in judged.sums().zip(own) {
            for (of, sum) in [("all", sum), ("own", own)] {
                let labels = [
                    ("about", &about as &dyn Display),
                    ("odds", &odds),
                    ("of", &of),
                ];
                page.value(NAME, &service.labels(&labels), sum);
            }
        }
    });
}

/// One of the numbers that were counted.
type NumberOf = fn(Counted) -> u64;

/// What the evidence is of, and what it takes yet, of all gateways. The counters of units are of this one
/// alone, and no release has them begin anew.
fn counted(page: &mut MetricsPage, all: &[(ServiceLabel<'_>, &Standing)]) {
    let families: [(&str, &str, NumberOf); 2] = [
        (
            "verdict_counted",
            "While a release is under way: requests that its evidence is of, on all gateways, by pool.",
            |it| it.units,
        ),
        (
            "verdict_counted_bad",
            "Those of them that failed, or were slow, by pool.",
            |it| it.bad,
        ),
    ];
    for (name, help, of) in families {
        page.family(name, "gauge", help);
        each_case(all, |service, about, concern, case| {
            let Some(judged) = case.judged(concern) else {
                return;
            };
            for (pool, counted) in [("pre", judged.pre), ("prod", judged.prod)] {
                let labels = service.labels(&[("about", &about), ("pool", &pool)]);
                page.value(name, &labels, of(counted));
            }
        });
    }
    page.family(
        "verdict_needed",
        "gauge",
        "While a release is under way, and where it can be told: about so many more requests to pre make it good enough.",
    );
    for (service, standing) in all {
        let case = standing.case.as_ref();
        let judged = case.and_then(|it| it.judged(Concern::Failing));
        if let Some(needed) = judged.and_then(|it| it.needed) {
            page.value("verdict_needed", &service.labels(&[]), needed);
        }
    }
}

/// How the rollouts of the releases stand, where there are some.
pub(super) fn rollouts(page: &mut MetricsPage, serving: &Serving, standing: &[Standing]) {
    let labelled = |it| {
        let standing: &Standing = it;
        let rollout = standing.rollout.as_ref()?;
        Some((ServiceLabel::of(serving, &standing.service), rollout))
    };
    let all: Vec<(ServiceLabel<'_>, &Rollout)> = standing.iter().filter_map(labelled).collect();
    page.family(
        "rollout_course",
        "gauge",
        "Where the release has a rollout: 1 for how that stands, 0 for all else: running, paused, done, aborted.",
    );
    for (service, rollout) in &all {
        for course in Course::ALL {
            let name = course.name();
            let labels = service.labels(&[("course", &name)]);
            page.value(
                "rollout_course",
                &labels,
                u8::from(course == rollout.course),
            );
        }
    }
    page.family(
        "rollout_step",
        "gauge",
        "Which step of the rollout is in force, from 1.",
    );
    for (service, rollout) in &all {
        page.value("rollout_step", &service.labels(&[]), rollout.at + 1);
    }
    page.family("rollout_steps", "gauge", "How many steps the rollout has.");
    for (service, rollout) in &all {
        page.value("rollout_steps", &service.labels(&[]), rollout.steps.len());
    }
    page.family(
        "rollout_step_left_seconds",
        "gauge",
        "While the rollout is not over: for how long its step is in force yet, at least, as far as its leader has said.",
    );
    for (service, rollout) in &all {
        if let Some(left) = rollout.left() {
            let labels = service.labels(&[]);
            page.value("rollout_step_left_seconds", &labels, left.as_secs_f64());
        }
    }
}

fn each_case(
    all: &[(ServiceLabel<'_>, &Standing)],
    mut write: impl FnMut(&ServiceLabel<'_>, &str, Concern, &Case),
) {
    for (service, standing) in all {
        if let Some(case) = &standing.case {
            ABOUT
                .iter()
                .for_each(|(about, concern)| write(service, about, *concern, case));
        }
    }
}
