//! Where (nearly) everybody has the new version, as in the last step of a rollout: `prod` has nothing to
//! compare with.
//!
//! What fails then is the fault of the version, or of something that both need. So nothing is ever *worse*,
//! and nothing is taken back. But what fails in plain sight is *suspect*, so that people look, nothing is
//! promoted, and a smaller share brings the comparison back. And a version may be *good enough* by its own
//! rate: where the rule of three knows only releases without a single bad unit, this is the same question
//! asked of those that have some, as evidence of 20 to 1 that fewer fail than one would put up with. That is
//! `tolerate`, or three times what usually fails in `prod`, where that is more: three times the usual is
//! what a comparison asks about, too.

use super::rules::{CLIENTS, Facts, Rules, SUSPECT, fails_in_plain_sight};
use crate::release::evidence::{Concern, Counted, TOLERABLE_ODDS};

/// `prod` has less than this part of the units of `pre`.
const PART: f64 = 0.01;

/// Nobody puts up with more than this.
const MOST: f64 = 0.9;

/// True where there is nothing to compare with.
pub(super) fn is_alone(facts: &Facts) -> bool {
    let (pre, prod) = (facts.evidence.pre().units, facts.evidence.prod().units);
    pre > 0 && (prod as f64) < pre as f64 * PART
}

/// What is slow is only ever compared.
fn is_asked(facts: &Facts) -> bool {
    facts.evidence.concern() == Concern::Failing && is_alone(facts)
}

/// True where so much fails that it is plain.
pub(super) fn is_suspect(facts: &Facts) -> bool {
    is_asked(facts)
        && fails_in_plain_sight(facts)
        && facts.bad_clients.is_none_or(|it| it >= CLIENTS)
}

/// True where few enough fail.
pub(super) fn is_good_enough(rules: &Rules, facts: &Facts) -> bool {
    is_asked(facts) && Odds::of(rules, facts).of_units(facts.evidence.pre()) >= SUSPECT.ln()
}

/// About so many units more make it good enough, if they fail as those did that there were.
pub(super) fn needed(rules: &Rules, facts: &Facts) -> Option<u64> {
    let pre = facts.evidence.pre();
    let odds = Odds::of(rules, facts);
    let of_one = odds.of_units(pre) / pre.units as f64;
    let missing = (SUSPECT.ln() - odds.of_units(pre)).max(0.0);
    (is_asked(facts) && of_one > 0.0).then(|| (missing / of_one).ceil() as u64)
}

/// The logarithms of the likelihood ratios of a unit: of a third of what one would put up with, to that.
struct Odds {
    of_bad: f64,
    of_good: f64,
}

impl Odds {
    fn of(rules: &Rules, facts: &Facts) -> Self {
        let usual = facts.usual.unwrap_or_default() * TOLERABLE_ODDS;
        let most = rules.tolerate.max(usual).min(MOST);
        let wanted = most / TOLERABLE_ODDS;
        Self {
            of_bad: (wanted / most).ln(),
            of_good: ((1.0 - wanted) / (1.0 - most)).ln(),
        }
    }

    fn of_units(&self, counted: Counted) -> f64 {
        let good = counted.units.saturating_sub(counted.bad);
        self.of_bad * counted.bad as f64 + self.of_good * good as f64
    }
}
