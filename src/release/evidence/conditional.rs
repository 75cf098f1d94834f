//! The exact conditional likelihood of a block: Fisher's noncentral hypergeometric distribution.
//!
//! Its normalising sum has up to min(n, m) + 1 terms, which are log-concave. So it is summed from its highest
//! term in both directions by the ratio of neighbours, until what is left cannot change the sum. That takes
//! a number of terms that grows with the square root of the block's size, and nothing overflows.

use std::f64::consts::PI;

use super::counted::Block;

/// Terms below this share of the sum are left out.
const NEGLIGIBLE: f64 = 1e-18;

/// The factorials whose logarithm is taken as it is; beyond, Stirling's series has all digits.
const SMALL: usize = 64;

/// How likely the bad units of a block are where they are, given how many there are.
pub(super) struct Conditional {
    /// Units of `pre`, bad units of both, units of both, as numbers to calculate with.
    n: f64,
    m: f64,
    total: f64,
    /// Bad units of `pre`.
    x: f64,
    /// The fewest and most bad units that `pre` can have, given the others.
    low: f64,
    high: f64,
    /// ln C(n,j) C(N-n, m-j) / C(N,m), but for what depends on j.
    ln_common: f64,
}

impl Conditional {
    /// None where nothing can be learnt: no bad units, nothing else than bad ones, or only one pool.
    pub(super) fn of(block: &Block) -> Option<Self> {
        let (pre, prod) = (&block.pre, &block.prod);
        let n = pre.units as f64;
        let total = n + prod.units as f64;
        let x = pre.bad.min(pre.units) as f64;
        let m = x + prod.bad.min(prod.units) as f64;
        let (low, high) = ((m - (total - n)).max(0.0), n.min(m));
        if low == high {
            return None;
        }
        let ln_common = ln_factorial(n) + ln_factorial(total - n) + ln_factorial(m)
            - ln_factorial(total)
            + ln_factorial(total - m);
        Some(Self {
            n,
            m,
            total,
            x,
            low,
            high,
            ln_common,
        })
    }

    /// ln L(ψ): how much better odds of ψ explain the block than equal ones.
    pub(super) fn ln_likelihood(&self, odds: f64) -> f64 {
        if odds == 1.0 {
            return 0.0;
        }
        self.x * odds.ln() - self.ln_mean(odds)
    }

    /// ln of the mean of ψ^j where the odds are equal.
    fn ln_mean(&self, odds: f64) -> f64 {
        let top = self.mode(odds);
        let (mut up, mut down) = (1.0, 1.0);
        let mut sum = 1.0;
        let mut at = top;
        while at < self.high && up > NEGLIGIBLE * sum {
            up *= self.step(at, odds);
            sum += up;
            at += 1.0;
        }
        at = top;
        while at > self.low && down > NEGLIGIBLE * sum {
            at -= 1.0;
            down /= self.step(at, odds);
            sum += down;
        }
        self.ln_probability(top) + top * odds.ln() + sum.ln()
    }

    /// The ratio of the term after `at` to the one at `at`.
    fn step(&self, at: f64, odds: f64) -> f64 {
        let rest = self.total - self.n - self.m;
        odds * ((self.n - at) * (self.m - at)) / ((at + 1.0) * (rest + at + 1.0))
    }

    /// Where the terms are highest: the last j at which the ratio to the one before is not below 1, which
    /// is the smaller root of (ψ-1) j² - (ψ(n+m+2) + N-n-m) j + ψ(n+1)(m+1).
    fn mode(&self, odds: f64) -> f64 {
        let linear = odds * (self.n + self.m + 2.0) + self.total - self.n - self.m;
        let last = odds * (self.n + 1.0) * (self.m + 1.0);
        let root = (linear * linear - 4.0 * (odds - 1.0) * last)
            .max(0.0)
            .sqrt();
        (2.0 * last / (linear + root))
            .floor()
            .clamp(self.low, self.high)
    }

    /// ln of the probability of `at` bad units in `pre` where the odds are equal.
    fn ln_probability(&self, at: f64) -> f64 {
        let parts = ln_factorial(at)
            + ln_factorial(self.n - at)
            + ln_factorial(self.m - at)
            + ln_factorial(self.total - self.n - self.m + at);
        self.ln_common - parts
    }
}

/// ln of a whole number's factorial.
fn ln_factorial(of: f64) -> f64 {
    const FACTORIALS: [f64; SMALL] = {
        let mut all = [1.0; SMALL];
        let mut at = 1;
        while at < SMALL {
            all[at] = all[at - 1] * at as f64;
            at += 1;
        }
        all
    };
    if let Some(small) = FACTORIALS.get(of as usize) {
        return small.ln();
    }
    let square = of * of;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * square)) / square) / of;
    of * of.ln() - of + 0.5 * (2.0 * PI * of).ln() + series
}
