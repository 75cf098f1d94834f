//! The page `/verdict`: of every service whether its new version is worse than the old one, as far as is
//! known, and by which numbers.

use serde_json::Value;

use crate::admin::pages::member::{Member, Page, object};
use crate::admin::pages::standing::TripShown;
use crate::admin::view::View;
use crate::config::{Store, VerdictMode};
use crate::release::case::Case;
use crate::release::evidence::{Concern, Counted};
use crate::release::judge::Standing;
use crate::release::rollout::Rollout;
use crate::release::verdict::{Ground, Judged, Verdict};

object! {
    /// What the page says.
    pub(crate) struct VerdictPage {
        /// Why this gateway judges by what it sees itself, though there may be others on its Redis.
        by_itself: Option<String>,
        services: Vec<VerdictSeen>,
    }
}

object! {
    /// Of one service.
    pub(crate) struct VerdictSeen {
        service: String,
        /// `off`, `observe` or `enforce`; what is done about failures, and about slowness.
        mode: String,
        slow_mode: String,
        /// `off`, `idle` (no release is under way), `tripped`, or what was found.
        state: String,
        /// Which release: the digest of `pre`, and the epoch.
        release: Option<String>,
        /// When it has begun here.
        since: Option<String>,
        /// Times the odds that are not held against `pre` now.
        margin: Option<f64>,
        /// How many gateways add to it, this one included.
        gateways: u64,
        /// Clients of `pre` in the last hour, counted up to 5.
        pre_clients: u64,
        /// They are so few that evidence may be about them instead of about the version.
        few_clients: bool,
        /// Not one server of `pre` is up, so next to nothing is counted of it.
        pre_out: bool,
        /// What its rollout is at, if it has one.
        rollout: Option<RolloutSeen>,
        /// Of failures, and of slow answers.
        failing: Option<FindingSeen>,
        slow: Option<FindingSeen>,
        /// That it was taken back: by whom, and by which numbers of then.
        tripped: Option<TripShown>,
    }
}

object! {
    /// A rollout, under way or over.
    pub(crate) struct RolloutSeen {
        /// `running`, `paused`, `done` or `aborted`; since when, and why.
        course: String,
        since: String,
        why: Option<String>,
        /// Which step is in force, from 1, of how many; its share of the clients.
        step: u64,
        steps: u64,
        percent: f64,
        /// How long each step is in force at least, and this one yet.
        every_seconds: f64,
        left_seconds: Option<f64>,
        /// What the next step, or the end, waits for, as its leader has said of late.
        waits_for: Option<String>,
        promote: bool,
        without_verdict: bool,
        /// The gateway that carries it on.
        leader: Option<String>,
        by: String,
        started: String,
        reason: Option<String>,
    }
}

impl RolloutSeen {
    fn of(rollout: &Rollout) -> Self {
        Self {
            course: rollout.course.name().to_owned(),
            since: rollout.since.clone(),
            why: rollout.why.clone(),
            step: rollout.at as u64 + 1,
            steps: rollout.steps.len() as u64,
            percent: f64::from(rollout.steps[rollout.at]) / 100.0,
            every_seconds: rollout.every.as_secs_f64(),
            left_seconds: rollout.left().map(|it| it.as_secs_f64()),
            waits_for: rollout.says.waits_for.clone(),
            promote: rollout.promotes,
            without_verdict: rollout.without_verdict,
            leader: rollout.leader().map(str::to_owned),
            by: rollout.by.clone(),
            started: rollout.started.clone(),
            reason: rollout.reason.clone(),
        }
    }
}

object! {
    /// What was found, and by which numbers: those of all gateways.
    pub(crate) struct FindingSeen {
        /// `nothing`, `good-enough`, `incident`, `suspect` or `worse`.
        finding: String,
        /// `worse`, `blunt` or `slow`, where it is worse.
        why: Option<String>,
        /// In words.
        text: String,
        /// What would not be found within an hour at the present traffic, in words.
        unseen: Option<String>,
        /// Units, and bad ones.
        pre_units: u64,
        pre_bad: u64,
        prod_units: u64,
        prod_bad: u64,
        pre_rate: f64,
        prod_rate: f64,
        odds_ratio: Option<f64>,
        /// Evidence that it is worse; what makes it suspect is 20.
        evidence: f64,
        ln_evidence: f64,
        /// The odds ratios that are looked for, as times the margin; and the logarithm of the evidence for
        /// each of them, since the release began or an hour or an incident was over.
        odds_ratios: Vec<f64>,
        ln_sums: Vec<f64>,
        /// What makes it worse: 1/alpha.
        evidence_needed: f64,
        /// The logarithm of the evidence that it is less than three times as bad.
        ln_tolerable: f64,
        /// Clients behind bad units of `pre`, counted up to 64 on each gateway.
        bad_clients: Option<u64>,
        /// As things stand, it is known to be worse in about so many seconds.
        known_in_seconds: Option<f64>,
        /// About so many units of `pre` more make it good enough.
        units_needed: Option<u64>,
        /// What this gateway has seen alone: `ln_sums`; the same of the last minutes; and how often these
        /// have begun anew.
        own_sums: Vec<f64>,
        own_pre_units: u64,
        own_prod_units: u64,
    }
}

impl Page for VerdictPage {
    const PATH: &'static str = "/verdict";

    fn of(page: &Value) -> Option<Self> {
        Self::read(page)
    }
}

/// The page as text.
pub(crate) fn render(view: &View) -> String {
    let standing = view.judge.standing();
    let page = VerdictPage {
        by_itself: by_itself(view),
        services: standing
            .iter()
            .map(|it| VerdictSeen {
                tripped: view.trips.of(&it.service).map(TripShown::of),
                ..VerdictSeen::of(it)
            })
            .collect(),
    };
    format!("{:#}\n", page.render())
}

fn by_itself(view: &View) -> Option<String> {
    match &view.gateway.config.load().store {
        Store::File(_) => None,
        Store::Redis(settings) if settings.fleet.heartbeat.is_none() => {
            Some("[redis] heartbeat is off".to_owned())
        }
        Store::Redis(_) => view.judge.trouble(),
    }
}

impl VerdictSeen {
    /// Nobody wants to know.
    pub(crate) const OFF: &'static str = "off";
    /// No release is under way.
    pub(crate) const IDLE: &'static str = "idle";

    /// It was taken back.
    pub(crate) const TRIPPED: &'static str = "tripped";

    /// Every state, for metrics.
    pub(crate) const STATES: [&'static str; 8] = [
        Self::OFF,
        Self::IDLE,
        Verdict::Nothing.name(),
        Verdict::GoodEnough.name(),
        Verdict::Incident.name(),
        Verdict::Suspect.name(),
        Verdict::Worse(Ground::Failing).name(),
        Self::TRIPPED,
    ];

    /// In which of the states it is: the worse one of both findings counts.
    pub(crate) fn state(standing: &Standing) -> &'static str {
        let Some(case) = &standing.case else {
            return match standing.settings.is_on() {
                true => Self::IDLE,
                false => Self::OFF,
            };
        };
        let failing = case.judged(Concern::Failing).map(|it| it.verdict);
        let slow = case.judged(Concern::Slow).map(|it| it.verdict);
        match (failing, slow) {
            _ if standing.is_tripped => Self::TRIPPED,
            (Some(worse @ Verdict::Worse(_)), _) | (_, Some(worse @ Verdict::Worse(_))) => {
                worse.name()
            }
            (failing, _) => failing.unwrap_or(Verdict::Nothing).name(),
        }
    }

    fn of(standing: &Standing) -> Self {
        let settings = &standing.settings;
        let slow_mode = match settings.is_on() {
            true => settings.slow,
            false => VerdictMode::Off,
        };
        let common = Self {
            service: standing.service.to_string(),
            mode: settings.mode.name().to_owned(),
            slow_mode: slow_mode.name().to_owned(),
            state: Self::state(standing).to_owned(),
            rollout: standing.rollout.as_ref().map(RolloutSeen::of),
            ..Self::default()
        };
        let Some(case) = &standing.case else {
            return common;
        };
        let failing = case.judged(Concern::Failing);
        let begun = humantime::format_rfc3339_millis(case.begun());
        Self {
            release: Some(case.release().to_owned()),
            since: Some(begun.to_string()),
            margin: Some(case.margin()),
            gateways: case.gateways() as u64,
            pre_clients: failing.map_or(0, |it| it.pre_clients),
            pre_out: standing.is_out,
            few_clients: failing.is_none_or(Judged::has_few_clients),
            failing: failing.map(|it| FindingSeen::of(it, case)),
            slow: case
                .judged(Concern::Slow)
                .map(|it| FindingSeen::of(it, case)),
            ..common
        }
    }
}

impl FindingSeen {
    fn of(judged: &Judged, case: &Case) -> Self {
        /// Beyond this, the logarithm tells.
        const MOST: f64 = 1e300;
        let amount = |logarithm: f64| logarithm.exp().min(MOST);
        let (pre, prod) = (judged.pre, judged.prod);
        let why = match judged.verdict {
            Verdict::Worse(ground) => Some(ground.name().to_owned()),
            _ => None,
        };
        let own = case.evidence(judged.concern);
        let units = |it: Counted| it.units;
        Self {
            finding: judged.verdict.name().to_owned(),
            why,
            text: judged.to_string(),
            unseen: case.unseen(judged.concern).map(str::to_owned),
            pre_units: pre.units,
            pre_bad: pre.bad,
            prod_units: prod.units,
            prod_bad: prod.bad,
            pre_rate: pre.rate(),
            prod_rate: prod.rate(),
            odds_ratio: judged.odds_ratio,
            evidence: amount(judged.ln_worse),
            ln_evidence: judged.ln_worse,
            odds_ratios: judged.sums().map(|(odds, _)| odds).collect(),
            ln_sums: judged.sums().map(|(_, sum)| sum).collect(),
            evidence_needed: (amount(judged.ln_bound) * 1e6).round() / 1e6,
            ln_tolerable: judged.ln_tolerable,
            bad_clients: judged.bad_clients,
            known_in_seconds: judged.known_in,
            units_needed: judged.needed,
            own_sums: own.sums(),
            own_pre_units: units(own.pre()),
            own_prod_units: units(own.prod()),
        }
    }
}
