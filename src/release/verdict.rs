//! From evidence to an answer: the rules, and what is needed yet. Pure.
//!
//! In this order:
//!
//! - **Incident**: both pools fail far more than usual (`usual`). Nothing is concluded, nothing advances.
//! - **Worse**: M ≥ 1/α, bad units of at least [`CLIENTS`] clients, and a difference of the rates that
//!   matters to anybody ([`DIFFERENCE`]).
//! - **Suspect**: M ≥ 20, or M ≥ 1/α where something else is missing.
//! - **Good enough**: E ≥ 20, or not one bad unit in so many that a rate of `tolerate` would have shown
//!   itself (the rule of three: 3/`tolerate` units).
//!
//! # Few clients
//!
//! What is assigned to a pool are clients. Two testers behind one address are one client, whose broken app is
//! no release that is worse. So where `pre` had fewer than [`FEW`] clients in the last hour, the margin is
//! at least 2, and M alone makes it no more than suspect. What trips then is a *blunt* case: besides M ≥ 1/α,
//! more than a fifth of at least 20 units of `pre` are bad, while `prod` has less than a quarter of that
//! share; and the bad units are those of three clients, or of all that there are. As many bad ones as one
//! client can have (ten count) are left aside, where there are others: the rest has to be plain, too.
//!
//! Bluntness without M would not do, however plain it looks: where a tenth of all requests fails in either
//! version, 43 of 1000 releases have 5 bad ones among their first 20 units. With many clients, on the other
//! hand, M takes no longer than a blunt case.
//!
//! One client that is all of `pre`, or both of two, may still be such that always fail. So how seldom a
//! verdict is wrong is promised for three clients of `pre` and more, and the answer says when there are few.

mod foresight;
mod sentence;
mod usual;

pub(crate) use foresight::Unseen;
pub use usual::Usual;

use super::evidence::{Concern, Counted, Evidence};

/// With evidence of so much to 1 a release goes no further; and so much against its being three times as
/// bad makes it good enough.
const SUSPECT: f64 = 20.0;

/// So many clients must have had bad units.
const CLIENTS: u64 = 3;

/// With fewer clients of `pre` than this, evidence may be about a client instead of about a version.
const FEW: u64 = 5;

/// Smaller differences of the rates of bad units than this are nobody's reason to take a version back.
const DIFFERENCE: f64 = 0.002;

/// So many bad units of a client count where clients are few.
const OF_FEW: u64 = 10;

/// The smallest odds ratio that is held against `pre` where clients are few.
const MARGIN_OF_FEW: f64 = 2.0;

/// A blunt case: so many units…
const BLUNT_UNITS: u64 = 20;

/// … more than this share of them bad…
const BLUNT_RATE: f64 = 0.2;

/// … and less than this part of that share in `prod`.
const BLUNT_PART: f64 = 0.25;

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
    fn ln_bound(&self) -> f64 {
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
    /// As things stand, worse is known in about so many seconds.
    pub known_in: Option<f64>,
    /// About so many units of `pre` are needed yet until it is good enough, where that can be told.
    pub needed: Option<u64>,
}

impl Judged {
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
        verdict: verdict(rules, facts),
        pre,
        prod,
        odds_ratio: odds_ratio(&pre, &prod),
        ln_worse: evidence.ln_worse(),
        ln_bound: rules.ln_bound(),
        ln_tolerable: evidence.ln_tolerable(),
        bad_clients: facts.bad_clients,
        pre_clients: facts.pre_clients,
        known_in: foresight::known_in(rules, facts),
        needed: foresight::needed(rules, facts),
    }
}

fn verdict(rules: &Rules, facts: &Facts) -> Verdict {
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

fn is_good_enough(rules: &Rules, evidence: &Evidence) -> bool {
    let pre = evidence.pre();
    let is_spotless = pre.bad == 0 && pre.units >= units_of_three(rules);
    is_spotless || evidence.ln_tolerable() >= SUSPECT.ln()
}

/// So many units without a bad one show that the rate is tolerable.
fn units_of_three(rules: &Rules) -> u64 {
    (THREE / rules.tolerate).ceil() as u64
}

/// Of the counts as they are.
fn odds_ratio(pre: &Counted, prod: &Counted) -> Option<f64> {
    let good = |it: &Counted| it.units.saturating_sub(it.bad) as f64;
    let (above, below) = (pre.bad as f64 * good(prod), good(pre) * prod.bad as f64);
    (below > 0.0).then_some(above / below)
}

#[cfg(test)]
mod tests;
