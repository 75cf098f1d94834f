//! What is usual for a service, and whether both of its pools fail far more than that.
//!
//! The *usual* rate of a pool is a slow average: that of the last hours, where what happened an hour ago
//! counts half as much as what happens now. The *present* rate is the same with a quarter of a minute. A
//! release that has just begun has no usual rate, and is held against that of `prod`.
//!
//! It is an incident while both present rates are ten times the usual ones (and not below 1 %), unless
//! `prod` has less than a quarter of the share of `pre`: then `prod` is better, whatever else is the matter,
//! and going back helps. During an incident the usual rates learn fifty times more slowly, so that one of
//! two hours does not become usual, but a new level does in the end.

use super::rules::{BLUNT_PART, Lately};
use crate::release::evidence::{Block, Counted};

/// Blocks after which something counts half as much in the usual rate, and in the present one.
const USUAL_HALF_LIFE: f64 = 3600.0;
const PRESENT_HALF_LIFE: f64 = 15.0;

/// So many units make a usual rate, and a present one.
const USUAL_UNITS: f64 = 500.0;
const PRESENT_UNITS: f64 = 10.0;

/// So many bad units make an incident, at the least.
const BAD_UNITS: f64 = 3.0;

/// An incident is so many times the usual rate…
const TIMES: f64 = 10.0;

/// … which is taken to be at least this.
const LOWEST: f64 = 0.001;

/// How fast the usual rates learn meanwhile.
const IN_AN_INCIDENT: f64 = 0.02;

/// An incident is over after so many blocks without one.
const QUIET: u32 = 60;

/// An average over the last blocks, of which older ones count less.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Average {
    units: f64,
    bad: f64,
}

impl Average {
    /// With a speed of 0.1 it moves as far in ten blocks as otherwise in one.
    fn add(&mut self, counted: &Counted, half_life: f64, speed: f64) {
        let kept = (-speed / half_life).exp2();
        self.units = self.units * kept + counted.units as f64 * speed;
        self.bad = self.bad * kept + counted.bad as f64 * speed;
    }

    /// The share of bad units, where there are so many.
    fn rate(&self, least: f64) -> Option<f64> {
        (self.units >= least).then(|| self.bad / self.units)
    }
}

/// The usual and the present rates of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usual {
    usual: [Average; 2],
    present: [Average; 2],
    /// Blocks until the incident is over.
    left: u32,
}

impl Usual {
    /// Another release: `pre` is nobody that one knows.
    pub(crate) fn begin(&mut self) {
        (self.usual[0], self.present[0]) = Default::default();
        self.left = 0;
    }

    /// Takes a block; one of each second, those without units as well.
    pub fn add(&mut self, block: &Block) {
        let counted = [&block.pre, &block.prod];
        for (present, counted) in self.present.iter_mut().zip(counted) {
            present.add(counted, PRESENT_HALF_LIFE, 1.0);
        }
        self.left = match self.both_fail() {
            true => QUIET,
            false => self.left.saturating_sub(1),
        };
        let speed = match self.is_incident() {
            true => IN_AN_INCIDENT,
            false => 1.0,
        };
        for (usual, counted) in self.usual.iter_mut().zip(counted) {
            usual.add(counted, USUAL_HALF_LIFE, speed);
        }
    }

    /// True while both pools fail far more than usual, and for a minute after that.
    pub(crate) fn is_incident(&self) -> bool {
        self.left > 0
    }

    /// The present rates, where there are enough units of both pools.
    pub fn lately(&self) -> Option<Lately> {
        let [pre, prod] = self.present.map(|it| it.rate(PRESENT_UNITS));
        Some(Lately {
            pre: pre?,
            prod: prod?,
        })
    }

    /// What usually fails in `prod`, where that is known.
    pub fn of_prod(&self) -> Option<f64> {
        self.usual[1].rate(USUAL_UNITS)
    }

    fn both_fail(&self) -> bool {
        let [of_pre, of_prod] = self.usual.map(|it| it.rate(USUAL_UNITS));
        let (Some(lately), Some(of_prod)) = (self.lately(), of_prod) else {
            return false;
        };
        let is_far_above = |rate: f64, usual: f64| rate >= TIMES * usual.max(LOWEST);
        let are_bad = self.present.iter().all(|it| it.bad >= BAD_UNITS);
        are_bad
            && is_far_above(lately.pre, of_pre.unwrap_or(of_prod))
            && is_far_above(lately.prod, of_prod)
            && lately.prod >= lately.pre * BLUNT_PART
    }
}
