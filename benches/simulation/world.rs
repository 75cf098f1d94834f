//! A world of clients, and one second of it after the other.

use std::f64::consts::TAU;

use graygate::release::evidence::{Block, Counted};

/// How the gateways share the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Gateways {
    /// There is one.
    One,
    /// So many, and each client keeps to one of them.
    Sticky(usize),
    /// So many, and each request goes to any of them.
    Spread(usize),
}

impl Gateways {
    /// How many there are.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Sticky(count) | Self::Spread(count) => count,
        }
    }
}

/// How the rate of errors of both versions moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Drift {
    /// It does not.
    None,
    /// Up and down by this part of it, once in so many seconds.
    Swing(f64, f64),
    /// At least this rate in the middle third of the time.
    Outage(f64),
    /// At least this rate for so many seconds, every so many seconds, but not at first.
    Outages(f64, u32, u32),
}

/// A release, and the world that it is in.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// Requests a second to `pre`.
    pub(crate) per_second: f64,
    /// `pre`'s share of all requests and clients.
    pub(crate) share: f64,
    /// All clients.
    pub(crate) clients: usize,
    /// The clients of `pre`, where it is a number and not a share.
    pub(crate) pre_clients: Option<usize>,
    /// The share of clients whose requests always fail.
    pub(crate) broken: f64,
    /// The rate of errors of `prod`, and of a healthy `pre`.
    pub(crate) rate: f64,
    /// How it moves.
    pub(crate) drift: Drift,
    /// The odds of an error in `pre`, in times of those in `prod`, for clients that a list chose.
    pub(crate) odds: f64,
    /// A list chooses, so that the margin is that of lists.
    pub(crate) is_list: bool,
    /// From this second on…
    pub(crate) onset: u32,
    /// … `pre` has at least this rate of errors.
    pub(crate) worse: f64,
    /// How long it is looked at.
    pub(crate) seconds: u32,
    /// Who looks.
    pub(crate) gateways: Gateways,
}

impl World {
    /// Ten a second, a tenth of all, one error in 200, for ten minutes; healthy, and nobody is broken.
    pub(crate) fn healthy() -> Self {
        Self {
            per_second: 10.0,
            share: 0.1,
            clients: 5000,
            pre_clients: None,
            broken: 0.0,
            rate: 0.005,
            drift: Drift::None,
            odds: 1.0,
            is_list: false,
            onset: 0,
            worse: 0.0,
            seconds: 600,
            gateways: Gateways::One,
        }
    }

    /// Requests a second to `prod`.
    pub(crate) fn prod_per_second(&self) -> f64 {
        self.per_second * (1.0 - self.share) / self.share
    }

    /// The rates of errors of `pre` and `prod`.
    fn rates(&self, second: u32, phase: f64) -> (f64, f64) {
        let prod = match self.drift {
            Drift::None => self.rate,
            Drift::Swing(part, period) => {
                self.rate * (1.0 + part * (phase + TAU * f64::from(second) / period).sin())
            }
            Drift::Outage(rate) if (1..2).contains(&(3 * second / self.seconds)) => {
                self.rate.max(rate)
            }
            Drift::Outages(rate, lasts, every) if second >= every && second % every < lasts => {
                self.rate.max(rate)
            }
            Drift::Outage(_) | Drift::Outages(..) => self.rate,
        };
        let prod = prod.min(1.0);
        let pre = prod * self.odds / (1.0 - prod + prod * self.odds);
        match second >= self.onset {
            true => (pre.max(self.worse), prod),
            false => (pre, prod),
        }
    }
}

/// What one gateway knows of a client.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The second of its last unit, counted from 1.
    last: u32,
    /// Its bad units.
    bad: u8,
}

/// Clients of one version at all gateways.
struct Crowd {
    /// By client, and then by gateway.
    known: Vec<Known>,
    /// Bit by client.
    is_broken: Vec<bool>,
    is_seen: Vec<bool>,
    /// Clients that were ever seen.
    seen: u64,
    gateways: Gateways,
    /// The clients that had a bad unit, of each gateway.
    bad: Vec<Vec<u64>>,
}

impl Crowd {
    fn new(clients: usize, world: &World, random: &mut fastrand::Rng) -> Self {
        let gateways = world.gateways.count();
        Self {
            known: vec![Known::default(); clients * gateways],
            is_broken: (0..clients).map(|_| random.f64() < world.broken).collect(),
            is_seen: vec![false; clients],
            seen: 0,
            gateways: world.gateways,
            bad: vec![Vec::new(); gateways],
        }
    }

    /// A request of anybody; some ask far more often than others. The gateway, and whether it was bad and
    /// counts; none where it is no unit.
    fn ask(
        &mut self,
        now: u32,
        rate: f64,
        most_bad: u8,
        random: &mut fastrand::Rng,
    ) -> Option<(usize, bool, bool)> {
        let clients = self.is_seen.len();
        let chance = random.f64();
        let client = ((clients as f64 * chance * chance.sqrt()) as usize).min(clients - 1);
        let gateway = match self.gateways {
            Gateways::One => 0,
            Gateways::Sticky(count) => client % count,
            Gateways::Spread(count) => random.usize(..count),
        };
        if !self.is_seen[client] {
            self.is_seen[client] = true;
            self.seen += 1;
        }
        let known = &mut self.known[client * self.gateways.count() + gateway];
        if known.last == now {
            return None;
        }
        known.last = now;
        let is_bad = self.is_broken[client] || random.f64() < rate;
        let counts = known.bad < most_bad;
        if is_bad && counts {
            if known.bad == 0 {
                self.bad[gateway].push(client as u64);
            }
            known.bad += 1;
        }
        Some((gateway, is_bad, counts))
    }
}

/// A release that is under way.
pub(crate) struct Played<'a> {
    world: &'a World,
    phase: f64,
    pre: Crowd,
    prod: Crowd,
    blocks: Vec<SecondPlayed>,
}

/// What a gateway counts in a second.
#[derive(Clone, Copy, Default)]
pub(crate) struct SecondPlayed {
    pub(crate) block: Block,
    /// Of clients that count no more.
    pub(crate) left_out: Block,
}

impl<'a> Played<'a> {
    /// Assigns the clients.
    pub(crate) fn new(world: &'a World, random: &mut fastrand::Rng) -> Self {
        let of_pre = world.pre_clients.unwrap_or_else(|| {
            let chosen = (0..world.clients).filter(|_| random.f64() < world.share);
            chosen.count().clamp(1, world.clients - 1)
        });
        Self {
            world,
            phase: random.f64() * TAU,
            pre: Crowd::new(of_pre, world, random),
            prod: Crowd::new(world.clients - of_pre, world, random),
            blocks: Vec::new(),
        }
    }

    /// What each gateway counts in this second.
    pub(crate) fn second(&mut self, second: u32, random: &mut fastrand::Rng) -> &[SecondPlayed] {
        let world = self.world;
        let (pre_rate, prod_rate) = world.rates(second, self.phase);
        let most_bad = match self.pre_clients() {
            ..5 => 10,
            _ => 1,
        };
        self.blocks.clear();
        self.blocks
            .resize(world.gateways.count(), SecondPlayed::default());
        let count = |of: [&mut Counted; 2], (is_bad, counts): (bool, bool)| {
            let [block, left_out] = of;
            let counted = if counts { block } else { left_out };
            counted.units += 1;
            counted.bad += u64::from(is_bad);
        };
        for _ in 0..poisson(world.per_second, random) {
            let asked = self.pre.ask(second + 1, pre_rate, most_bad, random);
            if let Some((at, is_bad, counts)) = asked {
                let SecondPlayed { block, left_out } = &mut self.blocks[at];
                count([&mut block.pre, &mut left_out.pre], (is_bad, counts));
            }
        }
        for _ in 0..poisson(world.prod_per_second(), random) {
            let asked = self.prod.ask(second + 1, prod_rate, most_bad, random);
            if let Some((at, is_bad, counts)) = asked {
                let SecondPlayed { block, left_out } = &mut self.blocks[at];
                count([&mut block.prod, &mut left_out.prod], (is_bad, counts));
            }
        }
        &self.blocks
    }

    /// Every client counts again at this gateway.
    pub(crate) fn renew(&mut self, gateway: usize) {
        let count = self.world.gateways.count();
        for crowd in [&mut self.pre, &mut self.prod] {
            let known = crowd.known.iter_mut().skip(gateway).step_by(count);
            known.for_each(|it| it.bad = 0);
            crowd.bad[gateway].clear();
        }
    }

    /// Clients of `pre` so far.
    pub(crate) fn pre_clients(&self) -> u64 {
        self.pre.seen
    }

    /// The hashes of the clients behind the bad units of `pre` that a gateway publishes.
    pub(crate) fn bad_clients(&self, gateway: usize) -> Vec<u64> {
        let all = &self.pre.bad[gateway];
        all[..all.len().min(64)].to_vec()
    }
}

/// How many arrive in a second.
fn poisson(mean: f64, random: &mut fastrand::Rng) -> u32 {
    if mean > 200.0 {
        // The sum of twelve is normal enough.
        let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        return (mean + normal * mean.sqrt()).round() as u32;
    }
    let (mut left, mut arrivals) = (mean, 0);
    loop {
        left += (1.0 - random.f64()).ln();
        if left < 0.0 {
            return arrivals;
        }
        arrivals += 1;
    }
}
