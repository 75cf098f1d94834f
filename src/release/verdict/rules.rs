//! The rules: facts in, verdict out. What they are, and why, is told in the module above.

use crate::release::evidence::{Concern, Counted, Evidence};

/// With evidence of so much to 1 a release goes no further; and so much against its being three times as
/// bad makes it good enough.
pub(super) const SUSPECT: f64 = 20.0;

/// So many clients must have had bad units.
pub(super) const CLIENTS: u64 = 3;

/// With fewer clients of `pre` than this, evidence may be about a client instead of about a version.
pub(super) const FEW: u64 = 5;

/// Smaller differences of the rates of bad units than this are nobody's reason to take a version back.
pub(super) const DIFFERENCE: f64 = 0.002;

/// So many bad units of a client count where clients are few.
const OF_FEW: u64 = 10;

/// The smallest odds ratio that is held against `pre` where clients are few.
const MARGIN_OF_FEW: f64 = 2.0;

/// A blunt case: so many units…
const BLUNT_UNITS: u64 = 20;

/// … more than this share of them bad…
pub(super) const BLUNT_RATE: f64 = 0.2;

/// … and less than this part of that share in `prod`.
pub(super) const BLUNT_PART: f64 = 0.25;

/// What fails in plain sight is so many times what is usual.
pub(super) const PLAIN_TIMES: f64 = 4.0;

/// The rule of three: no event in n trials leaves rates up to about 3/n possible (at 95 %).
const THREE: f64 = 3.0;

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The probability that a release which is not worse is ever found worse; above 0, below 1.
    pub alpha: f64,
    /// The rate of bad units that one would put up with; above 0.
    pub tolerate: f64,
    /// The odds ratio that is not held against `pre` where a list chooses its clients…
    pub margin_list: f64,
    /// … and where a hash of everybody does.
    pub margin_percent: f64,
}

impl Rules {
    /// The margin of a block.
    pub fn margin(&self, is_list: bool, pre_clients: u64) -> f64 {
        let margin = match is_list {
            true => self.margin_list,
            false => self.margin_percent,
        };
        match pre_clients < FEW {
            true => margin.max(MARGIN_OF_FEW),
            false => margin,
        }
    }

    /// ln 1/α.
    pub(super) fn ln_bound(&self) -> f64 {
        -self.alpha.ln()
    }
}

/// Units a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerSecond {
    /// Those of `pre`.
    pub pre: f64,
    /// Those of `prod`.
    pub prod: f64,
}

/// The share of bad units at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lately {
    /// Of those of `pre`.
    pub pre: f64,
    /// Of those of `prod`.
    pub prod: f64,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Of all gateways, since the release (or its step) began.
    pub evidence: Evidence,
    /// How many clients are behind the bad units of `pre`; None where nobody counts them (slow ones).
    pub bad_clients: Option<u64>,
    /// How many clients `pre` had in the last hour.
    pub pre_clients: u64,
    /// The margin of the blocks that come now.
    pub margin: f64,
    /// Units at present, of all gateways.
    pub per_second: PerSecond,
    /// How things are at present, where there is enough to tell.
    pub lately: Option<Lately>,
    /// What usually fails in `prod`, where that is known.
    pub usual: Option<f64>,
    /// Both pools fail far more than usual.
    pub is_incident: bool,
}

/// What is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing can be said yet.
    Nothing,
    /// Good enough for the next step.
    GoodEnough,
    /// Both pools fail; nothing is concluded.
    Incident,
    /// Likely worse: no further, but not back either.
    Suspect,
    /// Worse, and why.
    Worse(Ground),
}

impl Verdict {
    /// As pages and metrics have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::GoodEnough => "good-enough",
            Self::Incident => "incident",
            Self::Suspect => "suspect",
            Self::Worse(_) => "worse",
        }
    }

    /// Whether the finding of this name speaks against a next step.
    pub(crate) fn is_against(name: &str) -> bool {
        let against = [Self::Incident, Self::Suspect, Self::Worse(Ground::Failing)];
        against.iter().any(|it| it.name() == name)
    }
}

/// Why a release is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// More of it fails.
    Failing,
    /// Few clients, but so much of it fails that it is plain.
    Blunt,
    /// More of it is slow.
    Slow,
}

impl Ground {
    /// As the key of a trip and the log have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failing => "worse",
            Self::Blunt => "blunt",
            Self::Slow => "slow",
        }
    }
}

/// What follows from the facts.
pub(super) fn verdict(rules: &Rules, facts: &Facts) -> Verdict {
    if facts.is_incident {
        return Verdict::Incident;
    }
    let ln_worse = facts.evidence.ln_worse();
    if ln_worse >= rules.ln_bound() {
        return worse(facts).map_or(Verdict::Suspect, Verdict::Worse);
    }
    if ln_worse >= SUSPECT.ln() {
        return Verdict::Suspect;
    }
    match is_good_enough(rules, &facts.evidence) {
        true => Verdict::GoodEnough,
        false => Verdict::Nothing,
    }
}

/// Why `pre` is worse, given that M is large enough.
fn worse(facts: &Facts) -> Option<Ground> {
    let evidence = &facts.evidence;
    let are_few = facts.pre_clients < FEW;
    // Where there are fewer, all of them.
    let clients = match are_few {
        true => CLIENTS.min(facts.pre_clients.max(1)),
        false => CLIENTS,
    };
    if facts.bad_clients.is_some_and(|it| it < clients) {
        return None;
    }
    // Long after the beginning, what happens now hardly shows in the rates of all.
    let ever = (evidence.pre().rate(), evidence.prod().rate());
    let lately = facts.lately.map_or(ever, |it| (it.pre, it.prod));
    if ![ever, lately]
        .iter()
        .any(|(pre, prod)| pre - prod >= DIFFERENCE)
    {
        return None;
    }
    match evidence.concern() {
        Concern::Slow => Some(Ground::Slow),
        Concern::Failing if !are_few => Some(Ground::Failing),
        Concern::Failing => is_blunt(facts).then_some(Ground::Blunt),
    }
}

/// True when so much fails, whoever is left aside, that it is plain.
fn is_blunt(facts: &Facts) -> bool {
    let (pre, prod) = (facts.evidence.pre(), facts.evidence.prod());
    let others = facts.pre_clients.saturating_sub(1);
    let left_aside = OF_FEW * others.min(1);
    let ever = Counted {
        bad: pre.bad.saturating_sub(left_aside),
        ..pre
    };
    let is_plain = |pre: f64, prod: f64| pre > BLUNT_RATE && prod < pre * BLUNT_PART;
    // What happens at present does not tell whose it is, but each client counts only so often.
    let are_all = pre.bad > OF_FEW * others;
    let is_plain_now = facts.lately.is_some_and(|it| is_plain(it.pre, it.prod));
    pre.units >= BLUNT_UNITS && (is_plain(ever.rate(), prod.rate()) || are_all && is_plain_now)
}

/// True where so much of `pre` fails that nobody would go on with it, however `prod` does.
pub(super) fn fails_in_plain_sight(facts: &Facts) -> bool {
    let pre = facts.evidence.pre();
    let bound = BLUNT_RATE.max(facts.usual.unwrap_or_default() * PLAIN_TIMES);
    facts.evidence.concern() == Concern::Failing && pre.units >= BLUNT_UNITS && pre.rate() > bound
}

/// True where so much of `prod` fails that it is plain, and of `pre` more than one would put up with: then
/// both fail, also before it is known what is usual. Of a version that does well while the old one is down,
/// it is not true.
pub(super) fn both_fail_in_plain_sight(rules: &Rules, facts: &Facts) -> bool {
    let (pre, prod) = (facts.evidence.pre(), facts.evidence.prod());
    let are_enough = pre.units.min(prod.units) >= BLUNT_UNITS;
    if facts.evidence.concern() != Concern::Failing || !are_enough {
        return false;
    }
    // An outage that is over says nothing of what there is now; with little traffic, that is not known.
    let ever = Lately {
        pre: pre.rate(),
        prod: prod.rate(),
    };
    let Lately { pre, prod } = facts.lately.unwrap_or(ever);
    let usual = facts.usual.unwrap_or_default() * PLAIN_TIMES;
    prod > BLUNT_RATE.max(usual) && pre > rules.tolerate.max(usual) && prod >= pre * BLUNT_PART
}

fn is_good_enough(rules: &Rules, evidence: &Evidence) -> bool {
    let pre = evidence.pre();
    let is_spotless = pre.bad == 0 && pre.units >= units_of_three(rules);
    is_spotless || evidence.ln_tolerable() >= SUSPECT.ln()
}

/// So many units without a bad one show that the rate is tolerable.
pub(super) fn units_of_three(rules: &Rules) -> u64 {
    (THREE / rules.tolerate).ceil() as u64
}
