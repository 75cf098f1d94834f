//! What is to be expected: when it will be known that a release is worse, how much is needed until it is good
//! enough, and what cannot be seen in useful time.
//!
//! At present rates, how fast does the evidence grow? A bad unit of `pre` adds about ln k less what it
//! costs, and one of `prod` only costs: ln of the mean of the odds over the units of its block. So it is
//! where bad units are few in a block; where they are many, evidence grows faster than is said here.
//! A block with units of one pool only counts for nothing; where traffic is low, it takes some seconds. With
//! several gateways it is as if one had all of it, which is a little too hopeful.

use super::alone;
use super::rules::{DIFFERENCE, Facts, PerSecond, Rules, SUSPECT, units_of_three};
use crate::release::evidence::{Concern, ENOUGH, LONGEST, TOLERABLE_ODDS};

/// What takes longer than this is of no use, in seconds.
const USEFUL: f64 = 3600.0;

/// Nothing is foretold beyond this, in seconds.
const FAR: f64 = 24.0 * 3600.0;

/// So many units of `prod` tell its rate.
const KNOWN_UNITS: u64 = 100;

/// Above this a number of arrivals is about its mean.
const MANY: f64 = 30.0;

/// As things stand, worse is known in about so many seconds.
pub(super) fn known_in(rules: &Rules, facts: &Facts) -> Option<f64> {
    let evidence = &facts.evidence;
    let missing = rules.ln_bound() - evidence.ln_worse();
    let is_open = evidence.ln_worse() > 0.0 && missing > 0.0 && !facts.is_incident;
    let (pre, prod) = (evidence.pre().rate(), evidence.prod().rate());
    let factors = evidence.concern().factors().iter();
    let growth = factors
        .map(|it| Growth::of(*it, facts.margin, facts.per_second).at(pre, prod))
        .fold(f64::MIN, f64::max);
    let seconds = missing / growth;
    (is_open && growth > 0.0 && seconds < FAR).then_some(seconds)
}

/// About so many units of `pre` are needed yet until it is good enough.
pub(super) fn needed(rules: &Rules, facts: &Facts) -> Option<u64> {
    let evidence = &facts.evidence;
    let pre = evidence.pre();
    let spotless = (pre.bad == 0).then(|| units_of_three(rules).saturating_sub(pre.units));
    let of_tolerable = Growth::of(TOLERABLE_ODDS, 1.0, facts.per_second);
    let growth = -of_tolerable.at(pre.rate(), evidence.prod().rate());
    let missing = (SUSPECT.ln() - evidence.ln_tolerable()).max(0.0);
    let seconds = missing / growth;
    let proven =
        (growth > 0.0 && seconds < FAR).then(|| (seconds * facts.per_second.pre).ceil() as u64);
    let alone = alone::needed(rules, facts);
    spotless.into_iter().chain(proven).chain(alone).min()
}

/// What would not be found in useful time. Its `Display` is a sentence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unseen {
    /// What is asked.
    pub(crate) concern: Concern,
    /// Units at present.
    pub(crate) per_second: PerSecond,
    /// The share of bad units of `prod`.
    pub(crate) prod_rate: f64,
    /// Lower shares of bad units of `pre` than this are not found within an hour; None where none is.
    pub(crate) below: Option<f64>,
}

impl Unseen {
    /// At the present traffic; None while little is known of `prod`.
    pub(crate) fn at_present(rules: &Rules, facts: &Facts) -> Option<Self> {
        let prod = facts.evidence.prod();
        (prod.units >= KNOWN_UNITS).then(|| Self {
            concern: facts.evidence.concern(),
            per_second: facts.per_second,
            prod_rate: prod.rate(),
            below: visible(rules, facts, prod.rate()),
        })
    }
}

/// The lowest share of bad units of `pre` that would be found within an hour.
fn visible(rules: &Rules, facts: &Facts, prod_rate: f64) -> Option<f64> {
    let factors = facts.evidence.concern().factors();
    let needed = (rules.ln_bound() + (factors.len() as f64).ln()) / USEFUL;
    let lowest = factors
        .iter()
        .map(|it| Growth::of(*it, facts.margin, facts.per_second))
        .filter(|it| it.of_pre > 0.0)
        .map(|it| (needed + it.of_prod * prod_rate) / it.of_pre)
        .fold(f64::MAX, f64::min)
        .max(prod_rate + DIFFERENCE);
    (lowest <= 1.0).then_some(lowest)
}

/// How much ln R(k) grows in a second where everything fails: by units of `pre`, and how much it shrinks by
/// those of `prod`.
struct Growth {
    of_pre: f64,
    of_prod: f64,
}

impl Growth {
    fn of(factor: f64, margin: f64, per_second: PerSecond) -> Self {
        let PerSecond { pre, prod } = per_second;
        // Seconds of a block.
        let length = (ENOUGH as f64 / (pre + prod)).clamp(1.0, f64::from(LONGEST));
        let (pre, prod) = (pre * length, prod * length);
        // ln of the mean of the odds over a block of so many units.
        let cost = |of_pre: f64, of_prod: f64| {
            let share = of_pre / (of_pre + of_prod);
            let mean = |odds: f64| 1.0 + (odds - 1.0) * share;
            (mean(margin * factor) / mean(margin)).ln()
        };
        Self {
            of_pre: pre / length * (factor.ln() - over_arrivals(prod, |it| cost(1.0 + pre, it))),
            of_prod: prod / length * over_arrivals(pre, |it| cost(it, 1.0 + prod)),
        }
    }

    /// Where these shares fail.
    fn at(&self, pre_rate: f64, prod_rate: f64) -> f64 {
        self.of_pre * pre_rate - self.of_prod * prod_rate
    }
}

/// The mean over what arrives by chance in a second (Poisson).
fn over_arrivals(rate: f64, of: impl Fn(f64) -> f64) -> f64 {
    if rate > MANY {
        return of(rate);
    }
    let (mut probability, mut sum) = ((-rate).exp(), 0.0);
    // Beyond, what is left does not change a digit that is shown.
    let last = (rate + 6.0 * rate.sqrt() + 6.0) as u32;
    for arrivals in 0..=last {
        sum += probability * of(f64::from(arrivals));
        probability *= rate / f64::from(arrivals + 1);
    }
    sum
}
