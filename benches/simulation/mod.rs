//! Releases in a world of clients: who asks when, what fails, and what the gateways make of it.
//!
//! Every request is played. Clients are of unequal diligence, are assigned to a version at random, and some
//! of them are broken: their requests fail in either version. A unit is a client's first request within a
//! second at a gateway, and a client counts until its first bad unit there (until its tenth where clients
//! are few), as `upstream/units.rs` has it; after an hour, and when a gateway has seen an incident end, each
//! counts again there. What is counted is judged by the gateway's own code.

#![allow(dead_code)] // A test needs less of it than the benchmark.

pub(crate) mod world;

use graygate::release::evidence::{Block, Concern, Evidence, Testimony, bad_clients};
use graygate::release::verdict::{self, Facts, PerSecond, Rules, Usual, Verdict};

use world::{Played, World};

/// As they are where the ini file says nothing.
pub(crate) const RULES: Rules = Rules {
    alpha: 0.001,
    tolerate: 0.01,
    margin_list: 2.0,
    margin_percent: 1.0,
};

/// What became of a release.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fate {
    /// How often a gateway has begun anew.
    pub(crate) renewals: u32,
    /// M was ever 20 or more.
    pub(crate) is_suspect: bool,
    /// M was ever 1/alpha or more.
    pub(crate) is_proven: bool,
    /// When it was found worse.
    pub(crate) tripped: Option<Trip>,
}

/// Counted from when the release became worse; in a healthy one, from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trip {
    /// Whole seconds.
    pub(crate) seconds: u32,
    /// Units of `pre`.
    pub(crate) units: u64,
}

/// Plays a release until it is found worse, or its time is over.
pub(crate) fn play(world: &World, random: &mut fastrand::Rng) -> Fate {
    let mut played = Played::new(world, random);
    let mut gateways = vec![Evidence::new(Concern::Failing); world.gateways.count()];
    // Of each gateway, and of all.
    let mut habits = vec![Usual::default(); world.gateways.count()];
    let mut usual = Usual::default();
    let mut fate = Fate::default();
    let mut units_before = 0;
    for second in 0..world.seconds {
        let pre_clients = played.pre_clients();
        let margin = RULES.margin(world.is_list, pre_clients);
        for (at, evidence) in gateways.iter_mut().enumerate() {
            if evidence.is_used_up() || habits[at].has_ended() {
                evidence.renew();
                played.renew(at);
                fate.renewals += 1;
            }
        }
        let blocks = played.second(second, random);
        let mut all = Block::default();
        for ((evidence, habits), played) in gateways.iter_mut().zip(&mut habits).zip(blocks) {
            let block = &played.block;
            habits.add(block, &played.left_out);
            evidence.add_second(block, margin);
            for (all, counted) in [(&mut all.pre, &block.pre), (&mut all.prod, &block.prod)] {
                all.units += counted.units;
                all.bad += counted.bad;
            }
        }
        usual.add(&all, &Block::default());
        if second < world.onset {
            units_before += all.pre.units;
        }
        // No way to take them together makes more of them than this.
        let most: f64 = gateways.iter().map(|it| highest(it).max(0.0)).sum();
        if most < 20.0_f64.ln() {
            continue;
        }
        let testimonies: Vec<Testimony> = gateways
            .iter()
            .enumerate()
            .map(|(at, it)| Testimony::new(*it, played.bad_clients(at)))
            .collect();
        let facts = Facts {
            evidence: Evidence::together(Concern::Failing, &testimonies),
            bad_clients: Some(bad_clients(&testimonies)),
            pre_clients: played.pre_clients(),
            margin,
            per_second: PerSecond {
                pre: world.per_second,
                prod: world.prod_per_second(),
            },
            usual: None,
            lately: usual.lately(),
            // Nobody is saved by an incident here: the statistic alone has to be right.
            is_incident: false,
        };
        let ln_worse = facts.evidence.ln_worse();
        fate.is_suspect |= ln_worse >= 20.0_f64.ln();
        fate.is_proven |= ln_worse >= -RULES.alpha.ln();
        if !fate.is_proven {
            continue;
        }
        if let Verdict::Worse(_) = verdict::judge(&RULES, &facts).verdict {
            fate.tripped = Some(Trip {
                seconds: (second + 1).saturating_sub(world.onset),
                units: facts.evidence.pre().units - units_before,
            });
            break;
        }
    }
    fate
}

/// The highest of its sums.
fn highest(evidence: &Evidence) -> f64 {
    let mut sums = evidence.sums();
    // The last two are the numbers of the stretch and the hour.
    sums.truncate(sums.len() - 2);
    sums.into_iter().fold(f64::MIN, f64::max)
}
