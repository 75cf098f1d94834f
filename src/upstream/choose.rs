//! Which peer of a pool is asked next. Pure: time and chance are parameters.
//!
//! Of the peers of a pool some are usable at present; [`Usable`] is that part, worked out when the health
//! of a peer changes and not for each request. A peer that is out is left alone, but:
//!
//! - where nobody else could answer, at most a share of the pool is out at once, and never the last one; of
//!   the others that would be out, the least bad are asked, each with the [share](LEAST_SHARE) with which a
//!   peer starts;
//! - a request that has been tried on all usable peers may go to one that is out, rather than fail.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::hash::{mix, of_address};
use super::health::{Health, LEAST_SHARE, PeerState};
use super::roster::Peer;
use crate::config::{self, Balance};
use crate::route::PoolStanding;

/// How often shares that grow are worked out anew.
const STEP: Duration = Duration::from_millis(250);

/// What a weight of 1 is worth, unless so many peers have so great weights that their sum would not fit: a
/// share of a tenth must not vanish.
const SCALE: f64 = 64.0;

/// The most that all weights are worth together. As much again is left for those that are rounded up.
const LARGEST_SUM: f64 = (u32::MAX / 2) as f64;

/// The peers of a pool that may be asked, as of some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usable {
    /// Places in the pool, each with the weights of all up to it.
    peers: Vec<(u32, u32)>,
    /// They all have the same share.
    even: bool,
    /// From when on this is no longer right.
    until: Option<Instant>,
    /// When the first of those that are out may be tried, with any request and with one that may be repeated.
    trials_at: [Option<Instant>; 2],
}

/// What a choice depends on besides the pool.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Peers that it was tried on.
    pub tried: &'a [SocketAddr],
    /// It may be sent a second time, should the first peer not answer.
    pub may_be_risked: bool,
    /// Whom the balance `hash` keeps at one peer.
    pub client: IpAddr,
    /// The worker that asks.
    pub worker: usize,
}

impl Usable {
    /// Those of `peers` that may be asked at `now`. `all_may_be_out` where somebody else can answer.
    pub(crate) fn of(
        peers: &[Peer],
        all_may_be_out: bool,
        now: Instant,
        rules: &config::UpstreamSettings,
    ) -> Self {
        let mut usable = Self::default();
        let (mut out, mut unchecked) = (Vec::new(), 0);
        let mut shares = Vec::with_capacity(peers.len());
        for (place, peer) in peers.iter().enumerate() {
            let state = peer.health.state(now, rules);
            let mut share = peer.health.share(now, rules);
            match state {
                PeerState::Up => {}
                PeerState::Starting { .. } => usable.note_until(now + STEP),
                PeerState::Unchecked => {
                    share = 0.0;
                    unchecked += 1;
                }
                PeerState::Out { .. } | PeerState::Trial { .. } => {
                    share = 0.0;
                    out.push(place);
                }
            }
            shares.push(share);
        }
        if !all_may_be_out {
            let at_most = (peers.len() * rules.max_out / 100).min(peers.len().saturating_sub(1));
            // Whoever has not been checked yet is no help.
            let kept_out = match peers.len() - out.len() - unchecked {
                0 => at_most.min(out.len().saturating_sub(1)),
                _ => at_most,
            };
            // The least bad first. Each is asked once, since other workers may change the answer meanwhile,
            // and a sort that finds no order may panic.
            out.sort_by_cached_key(|place| badness(&peers[*place].health, now, rules));
            let asked = out.len().saturating_sub(kept_out);
            for place in out.drain(..asked) {
                shares[place] = LEAST_SHARE;
            }
        }
        usable.trials_at = [false, true].map(|may_be_risked| {
            let times = out
                .iter()
                .filter_map(|it| peers[*it].health.tried_at(may_be_risked, rules));
            times.min()
        });
        let weights = || {
            peers
                .iter()
                .zip(&shares)
                .map(|(peer, share)| f64::from(peer.weight) * share)
        };
        let scale = SCALE.min(LARGEST_SUM / weights().sum::<f64>());
        let mut sum = 0;
        let mut first = None;
        usable.even = true;
        for (place, (weight, share)) in weights().zip(&shares).enumerate() {
            if *share == 0.0 {
                continue;
            }
            let weight = ((weight * scale) as u32).max(1);
            usable.even &= *first.get_or_insert(weight) == weight;
            sum += weight;
            usable
                .peers
                .push((u32::try_from(place).unwrap_or(u32::MAX), sum));
        }
        usable
    }

    fn note_until(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |it| it.min(at)));
    }

    /// How the pool of `peers`, from which this was made, stands for a request that may be risked, or not.
    pub(crate) fn standing(
        &self,
        peers: &[Peer],
        may_be_risked: bool,
        now: Instant,
    ) -> PoolStanding {
        match self.is_empty() && !self.has_trial(now, may_be_risked) {
            true if peers.is_empty() => PoolStanding::Empty,
            true => PoolStanding::Out,
            false => PoolStanding::Usable,
        }
    }

    /// True when nobody may be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The places, in the pool that this was made from, of those that may be asked.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        self.peers.iter().map(|(place, _)| *place as usize)
    }

    /// How many may be asked.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// True when the one at `place` may be asked.
    pub(crate) fn has(&self, place: usize) -> bool {
        let found = self
            .peers
            .binary_search_by_key(&place, |(it, _)| *it as usize);
        found.is_ok()
    }

    /// True when it has to be worked out anew, though no health has changed.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// True when another one of `peers`, from which this was made, may be asked than those that were `tried`.
    pub(crate) fn has_other(&self, peers: &[Peer], tried: &[SocketAddr]) -> bool {
        let mut places = self.peers.iter().map(|(place, _)| *place as usize);
        places.any(|place| !tried.contains(&peers[place].address))
    }

    /// True when one that is out may be tried with a request that may be risked, or not.
    pub(crate) fn has_trial(&self, now: Instant, may_be_risked: bool) -> bool {
        self.trials_at[usize::from(may_be_risked)].is_some_and(|at| now >= at)
    }

    /// The place in `peers`, from which this was made, of the one to ask; `None` when the request was tried
    /// on all of them. `below` gives a random number below its argument, which is at least 1.
    pub(crate) fn choose(
        &self,
        peers: &[Peer],
        request: &Request<'_>,
        balance: Balance,
        max_fails: u32,
        mut below: impl FnMut(u32) -> u32,
    ) -> Option<usize> {
        if self.peers.is_empty() {
            return None;
        }
        let mut chosen = match balance {
            _ if !request.tried.is_empty() => {
                self.choose_untried(peers, request, balance, max_fails, &mut below)?
            }
            Balance::Random => self.place(self.draw(&mut below)),
            Balance::Least => self.less_busy(peers, &mut below),
            Balance::Hash => self.nearest(peers, request),
        };
        // It will be out as soon as another one has answered what has failed there.
        if request.tried.is_empty() && peers[chosen].health.is_suspect(max_fails) {
            chosen = self.choose_untried(peers, request, balance, max_fails, &mut below)?;
        }
        // Of one that has never answered nobody knows whether it will. What can be sent but once waits with
        // few others for that.
        if !request.is_doubtful_at(&peers[chosen], max_fails) {
            return Some(chosen);
        }
        self.least_doubtful(peers, request, max_fails, below)
    }

    /// By chance, each as often as its weight says: which of those that may be asked.
    #[inline]
    fn draw(&self, below: &mut impl FnMut(u32) -> u32) -> usize {
        match self.even {
            true => below(u32::try_from(self.peers.len()).unwrap_or(u32::MAX)) as usize,
            false => {
                let drawn = below(self.peers.last().map_or(1, |(_, sum)| *sum));
                self.peers.partition_point(|(_, sum)| *sum <= drawn)
            }
        }
    }

    /// The place of one of those that may be asked.
    fn place(&self, at: usize) -> usize {
        self.peers[at].0 as usize
    }

    /// The weight of one of those that may be asked, which is less while it starts.
    fn weight(&self, at: usize) -> u32 {
        let before = at.checked_sub(1).map_or(0, |it| self.peers[it].1);
        self.peers[at].1 - before
    }

    /// Of two by chance the one with fewer requests under way for its weight ("power of two choices",
    /// Mitzenmacher 2001). The first one stays unless the other one has no more than that even with the
    /// request: where there is little to do, chance decides, and one that starts gets its small share.
    fn less_busy(&self, peers: &[Peer], below: &mut impl FnMut(u32) -> u32) -> usize {
        let (one, other) = (self.draw(below), self.draw(below));
        let busy = |at: usize| peers[self.place(at)].health.in_flight();
        let weight = |at: usize| u64::from(self.weight(at));
        let is_better = |other: usize| (busy(other) + 1) * weight(one) <= busy(one) * weight(other);
        self.place(match one != other && is_better(other) {
            true => other,
            false => one,
        })
    }

    /// The one that `hash` keeps the client at: rendezvous hashing with weights (Thaler and Ravishankar
    /// 1998; the weights as of Schindelhauer and Schomaker 2005), so that a peer that goes moves only its
    /// own clients.
    fn nearest(&self, peers: &[Peer], request: &Request<'_>) -> usize {
        let candidates = self.weighed();
        farthest(peers, candidates, request.client).unwrap_or_default()
    }

    /// Each place with its own weight.
    fn weighed(&self) -> impl Iterator<Item = (usize, u32)> {
        let before = std::iter::once(0).chain(self.peers.iter().map(|(_, sum)| *sum));
        let each = self.peers.iter().zip(before);
        each.map(|((place, sum), before)| (*place as usize, sum - before))
    }

    /// Each with its own weight but the tried ones, which need not be here: the list may have changed.
    fn untried(&self, peers: &[Peer], tried: &[SocketAddr]) -> impl Iterator<Item = (usize, u32)> {
        let is_untried = |place: usize| !tried.contains(&peers[place].address);
        self.weighed().filter(move |(place, _)| is_untried(*place))
    }

    /// By chance one that is not in doubt; if all are, the one where the fewest wait.
    #[cold]
    fn least_doubtful(
        &self,
        peers: &[Peer],
        request: &Request<'_>,
        max_fails: u32,
        below: impl FnMut(u32) -> u32,
    ) -> Option<usize> {
        let known = self.untried(peers, request.tried);
        let known = known.filter(|(place, _)| !request.is_doubtful_at(&peers[*place], max_fails));
        draw_of(known, below).or_else(|| {
            let places = self.untried(peers, request.tried).map(|it| it.0);
            places.min_by_key(|place| sent_in_doubt(&peers[*place], request.worker))
        })
    }

    /// One that it was not tried on: of those that are up while there are any, and of these one where
    /// others do not wait in vain just now. What would better be out has a share for others to find out
    /// whether it is back, at the expense of an attempt each.
    #[cold]
    fn choose_untried(
        &self,
        peers: &[Peer],
        request: &Request<'_>,
        balance: Balance,
        max_fails: u32,
        mut below: impl FnMut(u32) -> u32,
    ) -> Option<usize> {
        let is_up = |peer: &Peer| !peer.health.is_out();
        let is_sound = |peer: &Peer| is_up(peer) && !peer.health.is_suspect(max_fails);
        let mut choose = |may_be_asked: &dyn Fn(&Peer) -> bool| {
            let untried = self.untried(peers, request.tried);
            let untried = untried.filter(|(place, _)| may_be_asked(&peers[*place]));
            match balance {
                Balance::Hash => farthest(peers, untried, request.client),
                Balance::Random | Balance::Least => draw_of(untried, &mut below),
            }
        };
        let sound = choose(&is_sound).or_else(|| choose(&is_up));
        sound.or_else(|| choose(&|_| true))
    }
}

/// By chance, each as often as its weight says.
fn draw_of(
    candidates: impl Iterator<Item = (usize, u32)>,
    mut below: impl FnMut(u32) -> u32,
) -> Option<usize> {
    let (mut sum, mut chosen) = (0, None);
    // Each takes the place of the one before with the chance that is due to it among all up to here.
    for (place, weight) in candidates {
        sum += weight;
        if below(sum) < weight {
            chosen = Some(place);
        }
    }
    chosen
}

fn farthest(
    peers: &[Peer],
    candidates: impl Iterator<Item = (usize, u32)>,
    client: IpAddr,
) -> Option<usize> {
    let key = of_address(client);
    let score = |place: usize, weight: u32| {
        let mixed = mix(key ^ peers[place].hash);
        // Above 0 and below 1.
        let unit = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(weight) / -unit.ln()
    };
    let scored = candidates.map(|(place, weight)| (place, score(place, weight)));
    let best = scored.max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.map(|(place, _)| place)
}

impl Request<'_> {
    /// True when it can be sent but once, and nobody knows whether `peer` answers, where as many wait already
    /// as may be lost: any number if peers never go out.
    pub(crate) fn is_doubtful_at(&self, peer: &Peer, max_fails: u32) -> bool {
        !self.may_be_risked
            && !peer.health.is_proven()
            && max_fails > 0
            && sent_in_doubt(peer, self.worker) >= u64::from(max_fails)
    }
}

/// What waits for an answer of `peer`, and what has waited in vain: that makes no room for another one.
fn sent_in_doubt(peer: &Peer, worker: usize) -> u64 {
    let in_flight = peer.health.counts(worker).in_flight.get();
    in_flight + u64::from(peer.health.failures_in_a_row())
}

/// How little is to be hoped of a peer that is out: what has failed its checks last of all, then who went
/// out most often, then who is out for longest.
fn badness(
    health: &Health,
    now: Instant,
    rules: &config::UpstreamSettings,
) -> (bool, u32, Option<Instant>) {
    let (checked, until) = match health.state(now, rules) {
        PeerState::Out { until, .. } => (health.fails_checks(), Some(until)),
        _ => (false, None),
    };
    (checked, health.strikes(), until)
}

/// Of the peers that are out the one to ask when the request was tried on all others: the least bad.
pub(crate) fn last_resort(
    peers: &[Peer],
    tried: &[SocketAddr],
    now: Instant,
    rules: &config::UpstreamSettings,
) -> Option<usize> {
    let untried = peers.iter().enumerate();
    let untried = untried.filter(|(_, peer)| !tried.contains(&peer.address));
    let is_unchecked = |peer: &Peer| peer.health.state(now, rules) == PeerState::Unchecked;
    let known = untried.filter(|(_, peer)| !is_unchecked(peer));
    let least_bad = known.min_by_key(|(_, peer)| badness(&peer.health, now, rules));
    least_bad.map(|(place, _)| place)
}

#[cfg(test)]
mod tests;
