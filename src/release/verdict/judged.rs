//! What is found, with its numbers.

use super::rules::{
    FEW, Facts, Rules, Verdict, both_fail_in_plain_sight, fails_in_plain_sight, verdict,
};
use super::{alone, foresight};
use crate::release::evidence::{Concern, Counted, MOST};

/// What is found, and by which numbers. Its `Display` is a sentence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// What is asked.
    pub concern: Concern,
    /// The answer.
    pub verdict: Verdict,
    /// Units of `pre`.
    pub pre: Counted,
    /// Units of `prod`.
    pub prod: Counted,
    /// How many times as high the odds of a bad unit are in `pre`; None without a bad unit in `prod` or
    /// a good one in `pre`.
    pub odds_ratio: Option<f64>,
    /// S_k of all gateways since clients count anew, for each factor of the concern; the rest are 0.
    pub ln_sums: [f64; MOST],
    /// ln M.
    pub ln_worse: f64,
    /// ln 1/α: what ln M has to reach.
    pub ln_bound: f64,
    /// ln E.
    pub ln_tolerable: f64,
    /// Clients behind the bad units of `pre`, where they are counted, and clients of `pre` in the last hour.
    pub bad_clients: Option<u64>,
    /// See there.
    pub pre_clients: u64,
    /// It is known what is usual, and that both pools fail far more.
    pub is_unusual: bool,
    /// `prod` has nothing to compare with.
    pub is_alone: bool,
    /// As things stand, worse is known in about so many seconds.
    pub known_in: Option<f64>,
    /// About so many units of `pre` are needed yet until it is good enough, where that can be told.
    pub needed: Option<u64>,
}

impl Judged {
    /// Each odds ratio that is looked for, with the logarithm of the evidence for it.
    pub(crate) fn sums(&self) -> impl Iterator<Item = (f64, f64)> {
        let factors = self.concern.factors().iter().copied();
        factors.zip(self.ln_sums)
    }

    /// True where evidence may be about a client instead of about the version.
    pub(crate) fn has_few_clients(&self) -> bool {
        self.pre_clients < FEW
    }
}

/// What follows from the facts.
pub fn judge(rules: &Rules, facts: &Facts) -> Judged {
    let evidence = &facts.evidence;
    let (pre, prod) = (evidence.pre(), evidence.prod());
    Judged {
        concern: evidence.concern(),
        verdict: found(rules, facts),
        pre,
        prod,
        odds_ratio: odds_ratio(&pre, &prod),
        ln_sums: evidence.ever(),
        ln_worse: evidence.ln_worse(),
        ln_bound: rules.ln_bound(),
        ln_tolerable: evidence.ln_tolerable(),
        bad_clients: facts.bad_clients,
        pre_clients: facts.pre_clients,
        is_unusual: facts.is_incident,
        is_alone: alone::is_alone(facts),
        known_in: foresight::known_in(rules, facts),
        needed: foresight::needed(rules, facts).filter(|_| !fails_in_plain_sight(facts)),
    }
}

/// What the rules say; and where there is nothing to compare with, what is said of that.
fn found(rules: &Rules, facts: &Facts) -> Verdict {
    match verdict(rules, facts) {
        Verdict::Nothing | Verdict::GoodEnough if both_fail_in_plain_sight(rules, facts) => {
            Verdict::Incident
        }
        Verdict::Nothing | Verdict::GoodEnough if alone::is_suspect(facts) => Verdict::Suspect,
        Verdict::GoodEnough if fails_in_plain_sight(facts) => Verdict::Nothing,
        Verdict::Nothing if alone::is_good_enough(rules, facts) => Verdict::GoodEnough,
        verdict => verdict,
    }
}

/// Of the counts as they are.
fn odds_ratio(pre: &Counted, prod: &Counted) -> Option<f64> {
    let good = |it: &Counted| it.units.saturating_sub(it.bad) as f64;
    let (above, below) = (pre.bad as f64 * good(prod), good(pre) * prod.bad as f64);
    (below > 0.0).then_some(above / below)
}
