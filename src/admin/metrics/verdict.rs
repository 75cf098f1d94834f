//! What is found of the releases.

use super::page::MetricsPage;
use super::service::ServiceLabel;
use crate::admin::pages::verdict::VerdictSeen;
use crate::release::case::Case;
use crate::release::evidence::Concern;
use crate::release::judge::Standing;
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
