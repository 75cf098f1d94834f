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
//! The product of the R of all blocks is thus an *e-process*, and so is the mean M of such products for
//! several k: by Ville's inequality, the probability that M *ever* reaches 1/α is at most α where `pre` is
//! not worse than the margin allows. That is what makes it safe to look all the time.
//!
//! In the same way the product of 1/L(3) is evidence *against* three times the odds: see
//! [`Evidence::ln_tolerable`].
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
mod gateways;

pub(crate) use gateways::{Testimony, bad_clients};

use conditional::Conditional;

/// At most so many odds ratios are looked for at once.
const MOST: usize = 8;

/// Good enough is to have less than this many times the odds.
pub(super) const TOLERABLE_ODDS: f64 = 3.0;

/// What one pool answered: units, and how many of them were bad. A unit is a client's first finished
/// request within a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// All of them.
    pub(crate) units: u64,
    /// Those that were bad (or slow).
    pub(crate) bad: u64,
}

impl Counted {
    /// The share of bad ones; 0 without any units.
    pub(crate) fn rate(&self) -> f64 {
        match self.units {
            0 => 0.0,
            units => self.bad as f64 / units as f64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.units = self.units.saturating_add(other.units);
        self.bad = self.bad.saturating_add(other.bad);
    }
}

/// What both pools answered within the same second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The new version.
    pub(crate) pre: Counted,
    /// The old version.
    pub(crate) prod: Counted,
}

/// What is asked about `pre`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concern {
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

/// What the blocks so far say. Begun anew for each release.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Evidence {
    concern: Concern,
    pre: Counted,
    prod: Counted,
    /// Σ ln R for each factor of the concern; the rest are 0.
    sums: [f64; MOST],
    /// Σ ln 1/L(3).
    tolerable: f64,
}

impl Evidence {
    /// Without any blocks.
    pub(crate) fn new(concern: Concern) -> Self {
        Self {
            concern,
            pre: Counted::default(),
            prod: Counted::default(),
            sums: [0.0; MOST],
            tolerable: 0.0,
        }
    }

    /// What a gateway has said of its own evidence. None where no blocks could have led to these numbers,
    /// so that nonsense from elsewhere proves nothing.
    pub(crate) fn from_numbers(
        concern: Concern,
        pre: Counted,
        prod: Counted,
        sums: &[f64],
        tolerable: f64,
    ) -> Option<Self> {
        let factors = concern.factors();
        let is_whole = sums.len() == factors.len();
        let counts_add_up = pre.bad <= pre.units && prod.bad <= prod.units;
        if !is_whole || !counts_add_up {
            return None;
        }
        // No block says more than that all of its bad units happen to be on one side. NaN is in no range.
        let (x, m) = (pre.bad as f64, pre.bad as f64 + prod.bad as f64);
        let slack = 1e-6 * (1.0 + m);
        let is_possible = |sum: f64, factor: f64| {
            let (lowest, highest) = (-m * factor.ln(), x * factor.ln());
            (lowest - slack..=highest + slack).contains(&sum)
        };
        let are_possible = sums.iter().zip(factors).all(|(it, k)| is_possible(*it, *k))
            && is_possible(-tolerable, TOLERABLE_ODDS);
        let mut all = [0.0; MOST];
        all[..sums.len()].copy_from_slice(sums);
        are_possible.then_some(Self {
            concern,
            pre,
            prod,
            sums: all,
            tolerable,
        })
    }

    /// Adds a block, where `margin` times the odds would not be held against `pre`. A margin may change
    /// from one block to the next, but must not depend on what is in the block.
    pub(crate) fn add(&mut self, block: &Block, margin: f64) {
        self.pre.add(&block.pre);
        self.prod.add(&block.prod);
        let Some(conditional) = Conditional::of(block) else {
            return;
        };
        let margin = margin.max(1.0);
        let at_margin = conditional.ln_likelihood(margin);
        for (sum, factor) in self.sums.iter_mut().zip(self.concern.factors()) {
            *sum += conditional.ln_likelihood(margin * factor) - at_margin;
        }
        self.tolerable -= conditional.ln_likelihood(TOLERABLE_ODDS);
    }

    /// What is asked.
    pub(crate) fn concern(&self) -> Concern {
        self.concern
    }

    /// All units of `pre`.
    pub(crate) fn pre(&self) -> Counted {
        self.pre
    }

    /// All units of `prod`.
    pub(crate) fn prod(&self) -> Counted {
        self.prod
    }

    /// S_k, one for each factor of the concern.
    pub(crate) fn sums(&self) -> &[f64] {
        &self.sums[..self.concern.factors().len()]
    }

    /// ln M: at 0 nothing speaks against `pre`; ln 1000 is reached by at most one of a thousand releases that
    /// are not worse than the margin allows.
    pub(crate) fn ln_worse(&self) -> f64 {
        ln_mean_exp(self.sums())
    }

    /// ln E: evidence that `pre` has less than three times the odds of `prod`. ln 20 is reached by at most
    /// one of twenty releases that are three times as bad or worse.
    pub(crate) fn ln_tolerable(&self) -> f64 {
        self.tolerable
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
