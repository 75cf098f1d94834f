//! What is said of what the judge finds: lines of the log, what people are told, and the numbers.

use serde_json::{Value, json};

use crate::lists::ServiceName;
use crate::release::case::{Case, Turned};
use crate::release::evidence::Concern;
use crate::release::verdict::{Judged, Verdict};
use crate::release::webhook::{NoticeKind, ReleaseNotice};
use crate::upstream::serving::ServiceInForce;

/// The numbers, for programs.
pub(super) fn numbers_of(judged: &Judged, case: &Case) -> Value {
    let (pre, prod) = (judged.pre, judged.prod);
    json!({
        "pre_units": pre.units,
        "pre_bad": pre.bad,
        "prod_units": prod.units,
        "prod_bad": prod.bad,
        "ln_evidence": judged.ln_worse,
        "clients": judged.bad_clients,
        "gateways": case.gateways(),
        "text": judged.to_string(),
    })
}

/// What people are told of what was found, if anything.
pub(super) fn notice(service: &ServiceName, case: &Case, judged: &Judged) -> Option<ReleaseNotice> {
    let (kind, found) = match judged.verdict {
        Verdict::Suspect => (NoticeKind::Suspect, "pre is likely worse than prod"),
        Verdict::Worse(_) => (
            NoticeKind::Worse,
            "pre is worse than prod, and was not taken back",
        ),
        Verdict::GoodEnough => (NoticeKind::Good, "pre is good enough"),
        Verdict::Nothing | Verdict::Incident => return None,
    };
    let notice = ReleaseNotice::new(kind, service, format!("{found}. {judged}"));
    Some(notice.of(case.release(), numbers_of(judged, case)))
}

pub(super) fn tell_of_beginning(service: &ServiceInForce, case: &Case) {
    let (name, release, margin) = (service.name().in_log(), case.release(), case.margin());
    let settings = &service.pools().settings().verdict;
    let (mode, slow) = (settings.mode.name(), settings.slow.name());
    log::info!("verdict-begun {name}release={release} mode={mode} slow={slow} margin={margin}");
}

pub(super) fn tell_of_renewal(service: &ServiceInForce, case: &Case) {
    let (name, release) = (service.name().in_log(), case.release());
    log::info!("verdict-renewed {name}release={release}");
}

/// Says what has turned.
pub(super) fn tell(service: &ServiceInForce, case: &Case, turn: &Turned) {
    let judged = &turn.judged;
    let (name, release) = (service.name().in_log(), case.release());
    let (numbers, sentence) = (numbers(judged, case), judged.to_string());
    match judged.verdict {
        Verdict::Nothing => {}
        Verdict::Suspect => {
            log::warn!("verdict-suspect {name}release={release} {numbers} text={sentence:?}");
        }
        Verdict::Worse(ground) => {
            let why = ground.name();
            log::error!(
                "verdict-worse {name}release={release} why={why} {numbers} text={sentence:?}"
            );
        }
        Verdict::Incident => {
            log::warn!("verdict-incident {name}release={release} {numbers} text={sentence:?}");
        }
        Verdict::GoodEnough => {
            log::info!("verdict-good {name}release={release} {numbers} text={sentence:?}");
        }
    }
}

/// The numbers, as they stand in a line of the log.
fn numbers(judged: &Judged, case: &Case) -> String {
    let about = match judged.concern {
        Concern::Failing => "failures",
        Concern::Slow => "slowness",
    };
    let (pre, prod) = (judged.pre, judged.prod);
    format!(
        "about={about} pre={}/{} prod={}/{} ln_evidence={:.2} of={:.2} clients={} gateways={}",
        pre.bad,
        pre.units,
        prod.bad,
        prod.units,
        judged.ln_worse,
        judged.ln_bound,
        judged
            .bad_clients
            .map_or("-".to_owned(), |it| it.to_string()),
        case.gateways(),
    )
}
