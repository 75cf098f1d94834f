//! What is usual for a service, and whether both of its pools fail far more than that.
//!
//! The *usual* rate of a pool is a slow average: that of the last hours, where what happened an hour ago
//! counts half as much as what happens now. The *present* rate is the same with a quarter of a minute. A
//! release that has just begun has no usual rate, and is held against that of `prod`. The present rates of
//! both begin with it: compared with a `pre` that is nothing but an outage, a `prod` that was well before
//! would look as if it still were.
//!
//! It is an incident when both present rates are ten times the usual ones (and not below 1 %), unless
//! `prod` has less than a quarter of the share of `pre`: then `prod` is better, whatever else is the matter,
//! and going back helps. During an incident the usual rates learn fifty times more slowly, so that one of
//! two hours does not become usual, but a new level does in the end. So they do before it is known what is
//! usual, while what fails is plain and four times the little that is known: else an outage in the first
//! minutes would be what is usual, and would end by that.
//!
//! # Whose units these are
//!
//! There are two accounts. One has the units that count as evidence, of clients without a bad one as yet: it
//! takes many clients to have many bad ones there. The other has all units. An incident begins where both
//! accounts say so, and lasts for as long as that of all does:
//!
//! - In an outage each client has its bad unit soon, and then nothing is counted of it. The outage goes on.
//! - When all begins anew, whoever always fails has one more bad unit that counts, all of them within
//!   seconds. Nothing has happened.
//! - A scanner makes many bad units, and is one client.

use super::rules::{BLUNT_PART, BLUNT_RATE, Lately, PLAIN_TIMES};
use crate::release::evidence::{Block, Counted};

/// Blocks after which something counts half as much in the usual rate, and in the present one.
const USUAL_HALF_LIFE: f64 = 3600.0;
const PRESENT_HALF_LIFE: f64 = 15.0;

/// So many units make a usual rate, and a present one.
const USUAL_UNITS: f64 = 500.0;
const PRESENT_UNITS: f64 = 10.0;

/// So many make one that an outage may not change as fast, though it is not relied upon yet.
const FIRST_UNITS: f64 = 20.0;

/// So many bad units make an incident, at the least.
const BAD_UNITS: f64 = 3.0;

/// An incident is so many times the usual rate…
const TIMES: f64 = 10.0;

/// … when it begins, so many times that of all units…
const TIMES_OF_ALL: f64 = 3.0;

/// … and at least this.
const LOWEST: f64 = 0.01;

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

/// The usual and the present rates of both pools, on one account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Account {
    usual: [Average; 2],
    present: [Average; 2],
}

impl Account {
    fn begin(&mut self) {
        (self.usual[0], self.present) = Default::default();
    }

    fn add_present(&mut self, block: &Block) {
        for (present, counted) in self.present.iter_mut().zip([&block.pre, &block.prod]) {
            present.add(counted, PRESENT_HALF_LIFE, 1.0);
        }
    }

    fn add_usual(&mut self, block: &Block, speed: f64) {
        for (usual, counted) in self.usual.iter_mut().zip([&block.pre, &block.prod]) {
            usual.add(counted, USUAL_HALF_LIFE, speed);
        }
    }

    fn lately(&self) -> Option<Lately> {
        let [pre, prod] = self.present.map(|it| it.rate(PRESENT_UNITS));
        Some(Lately {
            pre: pre?,
            prod: prod?,
        })
    }

    /// Both pools fail so many times as much as usual, which takes at least so many units of `prod` to know.
    fn both_fail(&self, times: f64, least: f64) -> bool {
        let of_pre = self.usual[0].rate(USUAL_UNITS);
        let of_prod = self.usual[1].rate(least);
        let (Some(lately), Some(of_prod)) = (self.lately(), of_prod) else {
            return false;
        };
        let is_far_above = |rate: f64, usual: f64| rate >= (times * usual).max(LOWEST);
        let are_bad = self.present.iter().all(|it| it.bad >= BAD_UNITS);
        are_bad
            && is_far_above(lately.pre, of_pre.unwrap_or(of_prod))
            && is_far_above(lately.prod, of_prod)
            && lately.prod >= lately.pre * BLUNT_PART
    }

    /// So they do, and it is plain, though hardly anything is known of what is usual.
    fn is_outage_at_first(&self) -> bool {
        let is_plain = self.lately().is_some_and(|it| it.prod > BLUNT_RATE);
        is_plain && self.both_fail(PLAIN_TIMES, FIRST_UNITS)
    }
}

/// The usual and the present rates of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usual {
    /// Of units that count.
    counting: Account,
    /// Of all.
    all: Account,
    /// Blocks until the incident is over.
    left: u32,
    /// It is over since the last block.
    has_ended: bool,
}

impl Usual {
    /// Another release: `pre` is nobody that one knows.
    pub(crate) fn begin(&mut self) {
        self.counting.begin();
        self.all.begin();
        (self.left, self.has_ended) = (0, false);
    }

    /// Takes a block, and what has come in its time from clients that `count_no_more`; one of each second,
    /// those without units as well.
    pub fn add(&mut self, block: &Block, count_no_more: &Block) {
        let mut all = *block;
        all.pre.add(&count_no_more.pre);
        all.prod.add(&count_no_more.prod);
        self.counting.add_present(block);
        self.all.add_present(&all);
        let was = self.is_incident();
        let both_fail = |account: &Account, times| account.both_fail(times, USUAL_UNITS);
        let begins = || both_fail(&self.counting, TIMES) && both_fail(&self.all, TIMES_OF_ALL);
        self.left = match was && both_fail(&self.all, TIMES) || begins() {
            true => QUIET,
            false => self.left.saturating_sub(1),
        };
        self.has_ended = was && !self.is_incident();
        let speed = match self.is_incident() || self.counting.is_outage_at_first() {
            true => IN_AN_INCIDENT,
            false => 1.0,
        };
        self.counting.add_usual(block, speed);
        self.all.add_usual(&all, speed);
    }

    /// True while both pools fail far more than usual, and for a minute after that.
    pub(crate) fn is_incident(&self) -> bool {
        self.left > 0
    }

    /// True after the block with which an incident was over.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What usually fails in `prod` of units that count, where that is known.
    pub(crate) fn of_prod(&self) -> Option<f64> {
        self.counting.usual[1].rate(USUAL_UNITS)
    }

    /// The present rates of units that count, where there are enough of both pools.
    pub fn lately(&self) -> Option<Lately> {
        self.counting.lately()
    }
}
