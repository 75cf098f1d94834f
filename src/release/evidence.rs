//! Evidence that `pre` is worse than `prod`: blocks in, numbers out. Pure.
//!
//! # The statistic
//!
//! A *block* is what both pools answered within the same second: n units of `pre` and N - n of `prod`,
//! of which x and m - x were bad. Given n, N and m, x has Fisher's noncentral hypergeometric
//! distribution, whatever share of all requests fails in that second. So
//!
//! ```text
//! L(ψ) = ψ^x / Σ_j [ C(n,j) C(N-n, m-j) / C(N,m) ] ψ^j
//! ```
//!
//! is the exact likelihood ratio of "the odds of a bad unit are ψ times as high in `pre`" to "they are
//! equal". Where they are equal, E\[L\] = 1, however high they are and however they drift: an outage of
//! both pools proves nothing. With a *margin* ψ₀, R(k) = L(ψ₀ k) / L(ψ₀) has E\[R\] ≤ 1 for every true odds
//! ratio up to ψ₀, since L(ψ₀ k) / L(ψ₀) grows with x, and x with the odds.
//!
//! A block is one second; where traffic is low, as many as it takes until both pools together have `ENOUGH`
//! units, ten at the most ([`Evidence::add_second`]). In a second with units of one pool only nothing is
//! compared, and with ten gateways that each have one unit a second, that would be nearly all of them. What
//! ends a block is a number of units, whosever they are: given that, each division among the pools is as
//! likely as in a second. But what drifts within a block is taken for the same, so it is not longer than it
//! has to be.
//!
//! The product of the R of all blocks is thus an *e-process*, and so is the mean M of such products for
//! several k: by Ville's inequality, the probability that M *ever* reaches 1/α is at most α where `pre` is
//! not worse than the margin allows. That is what makes it safe to look all the time.
//!
//! # What comes late
//!
//! Every bad unit of a healthy release is evidence for it. After hours there is so much of that, that a
//! defect which appears then would have to last for minutes to outweigh it. So there is, for each k, a
//! second product that begins anew with each *stretch* of `STRETCH` blocks, and M is
//!
//! ```text
//! M = 3/4 mean_k Π R(k), since the beginning, + 1/4 w_j mean_k Π R(k), in the stretch j
//! ```
//!
//! with w₀ = 1/2 and w_j = 1/(2 j (j+1)), which are 1 in sum. Each stretch is an e-process of its own, and so
//! is the sum of all of them by their weights, of which M is a part. It costs 1/8 of the evidence in the
//! first stretch, and a defect after a day is seen nearly as soon as one in the first minute.
//!
//! # Who has been used up
//!
//! A client counts until its first bad unit. After hours or days that leaves few, and in the end nobody. So
//! evidence is [renewed](Evidence::renew) every hour, and with it the clients: each counts again, and M
//! begins anew as another e-process of its own, with a smaller weight each time (4/5 for the first one,
//! and 1/(5 h (h+1)) for the h-th after it).
//!
//! An outage of both pools uses up nearly everybody within seconds. So evidence is renewed when an *incident*
//! is over, too: without that, a defect that comes then would not be seen before the hour is over. When
//! that is, depends on what both pools have answered; that does no harm. The h-th renewal is a stopping
//! time: whoever decides it knows what was, and not what comes. From there on its product begins with 1,
//! and each block multiplies it by something of which the mean, given all that was before, is at most 1. So
//! each of these products reaches a number c with probability at most 1/c, whatever has made it begin, and
//! the h-th counts only if it reaches 1/(α w_h), with a weight w_h that is fixed beforehand. All of them
//! together do so with probability at most Σ α w_h = α, however much they depend on each other: as they do,
//! since clients that always fail do so after each renewal again. Nothing is gained by renewing often, and
//! the weights say what it costs: after one incident every five minutes for a day, e^13 times the evidence.
//!
//! # Good enough
//!
//! In the same way the product of 1/L(3) is evidence *against* three times the odds: see
//! `Evidence::ln_tolerable`.
//!
//! Sources: Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for
//! optional stopping" (<https://arxiv.org/abs/2106.02693>); Lindon and Malek, "Anytime-valid inference for
//! multinomial count data" (<https://arxiv.org/abs/2011.03567>); Fog, "Sampling methods for Wallenius' and
//! Fisher's noncentral hypergeometric distributions"
//! (<https://en.wikipedia.org/wiki/Fisher%27s_noncentral_hypergeometric_distribution>).
//!
//! # What it relies on
//!
//! - Which pool serves a client does not depend on whether its requests fail.
//! - Whether a request is a unit is decided when it arrives.
//! - A client counts until its first bad unit. What always fails, fails in either version.
//!
//! Everything is kept as logarithms, so that nothing overflows, whatever is added.

mod conditional;
mod counted;
mod gateways;

use std::collections::BTreeSet;

pub use counted::{Block, Counted};

use conditional::Conditional;

/// At most so many odds ratios are looked for at once.
pub(super) const MOST: usize = 8;

/// So many seconds are a stretch: five minutes.
const STRETCH: u32 = 300;

/// So many units of both pools are a block…
pub(super) const ENOUGH: u64 = 16;

/// … or so many seconds.
pub(super) const LONGEST: u32 = 10;

/// Nobody has had more of them.
const LAST_STRETCH: f64 = 1e9;

/// So many stretches are an hour, after which evidence is renewed if nothing else has done so.
const HOUR: u64 = 12;

/// What counts for the time until the first renewal, among all.
const OF_FIRST: f64 = 0.8;

/// What the product since the beginning counts for, and those of the stretches together.
const OF_ALL: f64 = 0.75;
const OF_STRETCHES: f64 = 1.0 - OF_ALL;

/// Good enough is to have less than this many times the odds.
pub(super) const TOLERABLE_ODDS: f64 = 3.0;

/// What is asked about `pre`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// Does more of it fail?
    Failing,
    /// Is more of it slow?
    Slow,
}

impl Concern {
    /// How many times the margin the odds in `pre` might be: what is looked for.
    pub(crate) const fn factors(self) -> &'static [f64] {
        match self {
            Self::Failing => &[1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0],
            Self::Slow => &[1.5, 2.0, 3.0, 5.0, 10.0],
        }
    }
}

/// A block that is not complete.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct OpenBlock {
    block: Block,
    margin: f64,
    seconds: u32,
}

/// What the blocks so far say. Begun anew for each release.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    concern: Concern,
    pre: Counted,
    prod: Counted,
    /// S_k = Σ ln R(k) since it was renewed for each factor of the concern; the rest are 0.
    sums: [f64; MOST],
    /// The same in the present stretch.
    recent: [f64; MOST],
    /// The number of the stretch, from 0; of several gateways, the sum of their numbers.
    stretch: u64,
    /// Seconds of the stretch.
    seconds: u32,
    /// The block that is not complete.
    open: OpenBlock,
    /// How often it was renewed; of several gateways, by all of them.
    renewed: u64,
    /// Σ ln 1/L(3).
    tolerable: f64,
}

impl Evidence {
    /// Without any blocks.
    pub fn new(concern: Concern) -> Self {
        Self {
            concern,
            pre: Counted::default(),
            prod: Counted::default(),
            sums: [0.0; MOST],
            recent: [0.0; MOST],
            stretch: 0,
            seconds: 0,
            open: OpenBlock::default(),
            renewed: 0,
            tolerable: 0.0,
        }
    }

    /// What a gateway has said of its own evidence: see [`Self::sums`]. None where no blocks could have led
    /// to these numbers, so that nonsense from elsewhere proves nothing.
    pub(crate) fn from_numbers(
        concern: Concern,
        pre: Counted,
        prod: Counted,
        sums: &[f64],
        tolerable: f64,
    ) -> Option<Self> {
        let factors = concern.factors();
        let (ever, rest) = sums.split_at_checked(factors.len())?;
        let (recent, rest) = rest.split_at_checked(factors.len())?;
        let [stretch, renewed] = rest else {
            return None;
        };
        let counts_add_up = pre.bad <= pre.units && prod.bad <= prod.units;
        let is_number = |it: &f64| (0.0..=LAST_STRETCH).contains(it);
        if !counts_add_up || !is_number(stretch) || !is_number(renewed) {
            return None;
        }
        // No block says more than that all of its bad units happen to be on one side. NaN is in no range.
        let (x, m) = (pre.bad as f64, pre.bad as f64 + prod.bad as f64);
        let slack = 1e-6 * (1.0 + m);
        let is_possible = |sum: f64, factor: f64| {
            let (lowest, highest) = (-m * factor.ln(), x * factor.ln());
            (lowest - slack..=highest + slack).contains(&sum)
        };
        let are_possible = [ever, recent]
            .iter()
            .all(|sums| sums.iter().zip(factors).all(|(it, k)| is_possible(*it, *k)));
        if !are_possible || !is_possible(-tolerable, TOLERABLE_ODDS) {
            return None;
        }
        let mut evidence = Self {
            pre,
            prod,
            stretch: *stretch as u64,
            renewed: *renewed as u64,
            tolerable,
            ..Self::new(concern)
        };
        evidence.sums[..ever.len()].copy_from_slice(ever);
        evidence.recent[..recent.len()].copy_from_slice(recent);
        Some(evidence)
    }

    /// Adds a second, where `margin` times the odds would not be held against `pre`. A margin may change from
    /// one second to the next, but must not depend on what is in it; the largest one of a block holds.
    pub fn add_second(&mut self, second: &Block, margin: f64) {
        self.count(second);
        let open = &mut self.open;
        open.block.pre.add(&second.pre);
        open.block.prod.add(&second.prod);
        open.margin = open.margin.max(margin);
        open.seconds += 1;
        let units = open.block.pre.units + open.block.prod.units;
        // It begins with its first unit.
        if units == 0 || units >= ENOUGH || open.seconds >= LONGEST {
            let complete = std::mem::take(open);
            self.weigh(&complete.block, complete.margin, complete.seconds);
        }
    }

    /// Adds a block of one second, however little is in it.
    pub fn add(&mut self, block: &Block, margin: f64) {
        self.count(block);
        self.weigh(block, margin, 1);
    }

    fn count(&mut self, block: &Block) {
        self.pre.add(&block.pre);
        self.prod.add(&block.prod);
    }

    /// What a complete block says.
    fn weigh(&mut self, block: &Block, margin: f64, seconds: u32) {
        if self.seconds >= STRETCH {
            (self.recent, self.seconds) = ([0.0; MOST], 0);
            self.stretch += 1;
        }
        self.seconds += seconds;
        let Some(conditional) = Conditional::of(block) else {
            return;
        };
        let margin = margin.max(1.0);
        let at_margin = conditional.ln_likelihood(margin);
        for (at, factor) in self.concern.factors().iter().enumerate() {
            let ln_ratio = conditional.ln_likelihood(margin * factor) - at_margin;
            self.sums[at] += ln_ratio;
            self.recent[at] += ln_ratio;
        }
        self.tolerable -= conditional.ln_likelihood(TOLERABLE_ODDS);
    }

    /// True when it is to be renewed, together with the clients that are counted.
    pub fn is_used_up(&self) -> bool {
        self.stretch >= HOUR - 1 && self.seconds >= STRETCH
    }

    /// From now on every client counts again. What is known of its being tolerable stays, and so do the
    /// counts.
    pub fn renew(&mut self) {
        *self = Self {
            pre: self.pre,
            prod: self.prod,
            tolerable: self.tolerable,
            renewed: self.renewed + 1,
            ..Self::new(self.concern)
        };
    }

    /// What is asked.
    pub(crate) fn concern(&self) -> Concern {
        self.concern
    }

    /// All units of `pre`.
    pub fn pre(&self) -> Counted {
        self.pre
    }

    /// All units of `prod`.
    pub fn prod(&self) -> Counted {
        self.prod
    }

    /// What others have to be told of it, besides the counts and `Self::ln_tolerable`: for each factor of
    /// the concern S_k since it was renewed, then the same in the present stretch; the number of the stretch,
    /// and how often it was renewed.
    pub fn sums(&self) -> Vec<f64> {
        let factors = self.concern.factors().len();
        let (ever, recent) = (&self.sums[..factors], &self.recent[..factors]);
        let numbers = [self.stretch as f64, self.renewed as f64];
        [ever, recent, &numbers].concat()
    }

    /// S_k since it was renewed, for each factor of the concern; the rest are 0. What several gateways
    /// have seen together has those of all.
    pub(super) fn ever(&self) -> [f64; MOST] {
        self.sums
    }

    /// ln M: at 0 nothing speaks against `pre`; ln 1000 is reached by at most one of a thousand releases that
    /// are not worse than the margin allows.
    pub fn ln_worse(&self) -> f64 {
        let factors = self.concern.factors().len();
        let ever = OF_ALL.ln() + ln_mean_exp(&self.sums[..factors]);
        let of_stretch = OF_STRETCHES * weight(self.stretch, 0.5);
        let recent = of_stretch.ln() + ln_mean_exp(&self.recent[..factors]);
        let (low, high) = (ever.min(recent), ever.max(recent));
        weight(self.renewed, OF_FIRST).ln() + high + (low - high).exp().ln_1p()
    }

    /// ln E: evidence that `pre` has less than three times the odds of `prod`. ln 20 is reached by at most
    /// one of twenty releases that are three times as bad or worse.
    pub(crate) fn ln_tolerable(&self) -> f64 {
        self.tolerable
    }
}

/// What one gateway has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Testimony {
    evidence: Evidence,
    /// In their order.
    bad_clients: Vec<u64>,
}

impl Testimony {
    /// With hashes of the clients behind the bad units of `pre`, which are the same on all gateways.
    pub fn new(evidence: Evidence, mut bad_clients: Vec<u64>) -> Self {
        bad_clients.sort_unstable();
        Self {
            evidence,
            bad_clients,
        }
    }

    fn shares_with(&self, other: &Self) -> bool {
        let others = &other.bad_clients;
        let mut ours = self.bad_clients.iter();
        ours.any(|it| others.binary_search(it).is_ok())
    }
}

/// How many clients are behind the bad units of `pre`, at all gateways.
pub fn bad_clients(gateways: &[Testimony]) -> u64 {
    let all = gateways.iter().flat_map(|it| &it.bad_clients);
    all.collect::<BTreeSet<_>>().len() as u64
}

impl Evidence {
    /// What several gateways have seen of one release, taken together. Those that were asked something
    /// else are left out. The counts are those of all.
    pub fn together(concern: Concern, testimonies: &[Testimony]) -> Self {
        let of_concern = testimonies
            .iter()
            .filter(|it| it.evidence.concern == concern);
        let parts: Vec<&Testimony> = of_concern.collect();
        let mut all = Self::new(concern);
        for part in &parts {
            all.pre.add(&part.evidence.pre);
            all.prod.add(&part.evidence.prod);
            all.stretch = all.stretch.saturating_add(part.evidence.stretch);
            all.renewed = all.renewed.saturating_add(part.evidence.renewed);
        }
        let shares: Vec<Vec<bool>> = parts
            .iter()
            .map(|one| parts.iter().map(|it| one.shares_with(it)).collect())
            .collect();
        for sets in gateways::sets(&shares) {
            let product_of =
                |set: Vec<usize>| product(concern, set.iter().map(|it| &parts[*it].evidence));
            let sets: Vec<Self> = sets.into_iter().map(product_of).collect();
            let mean = |sum: &dyn Fn(&Self) -> f64| {
                let sums: Vec<f64> = sets.iter().map(sum).collect();
                ln_mean_exp(&sums)
            };
            for at in 0..MOST {
                all.sums[at] += mean(&|it| it.sums[at]);
                all.recent[at] += mean(&|it| it.recent[at]);
            }
            all.tolerable += mean(&|it| it.tolerable);
        }
        all
    }
}

/// Adds up the sums of gateways that share nothing.
fn product<'a>(concern: Concern, gateways: impl Iterator<Item = &'a Evidence>) -> Evidence {
    let mut all = Evidence::new(concern);
    for evidence in gateways {
        for at in 0..MOST {
            all.sums[at] += evidence.sums[at];
            all.recent[at] += evidence.recent[at];
        }
        all.tolerable += evidence.tolerable;
    }
    all
}

/// The weight of the one with this number, of which the first has so much; all of them are 1 in sum.
fn weight(number: u64, of_first: f64) -> f64 {
    let number = number as f64;
    match number > 0.0 {
        true => (1.0 - of_first) / (number * (number + 1.0)),
        false => of_first,
    }
}

/// ln of the mean of the exponentials.
fn ln_mean_exp(logarithms: &[f64]) -> f64 {
    let highest = logarithms.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logarithms.iter().map(|it| (it - highest).exp()).sum();
    highest + (sum / logarithms.len() as f64).ln()
}

#[cfg(test)]
mod tests;
