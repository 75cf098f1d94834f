//! What happens meanwhile: servers fail in every way and come back, lists change, a name is given to other
//! servers, Redis is restarted, and the gateway is short of descriptors for a while.
//!
//! Of the servers of `prod` no more than two are in trouble within [`SPAN`], so that with `tries = 3` each
//! request comes to a good one. Of `pre` all may be, since `prod` answers for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;

use super::peer::{Mood, Peer};
use crate::support::{Gateway, Redis, Resolver};

/// No request takes longer than this: two servers that hang, on a busy machine.
const SPAN: Duration = Duration::from_secs(4);

const STEP: Duration = Duration::from_millis(50);

/// Pause between two restarts of Redis, and between two shortages.
const RARE: Duration = Duration::from_secs(8);

/// A shortage that nobody feels lasts so much longer.
const UNFELT: Duration = Duration::from_secs(3);

/// The name of the last one that is listed in `prod`, where names can be resolved here.
const NAME: &str = "app.chaos";

/// Servers of a pool that are in its list, of those that there are.
const LISTED: [usize; 2] = [2, 5];
pub(crate) const PEERS: [usize; 2] = [4, 7];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Killed,
    Stopped,
    Turned(Mood),
}

/// Everything that can be the matter with a server, in an order by chance, again and again.
struct Deck(Vec<Kind>);

impl Deck {
    fn draw(&mut self, rng: &mut Rng) -> Kind {
        if self.0.is_empty() {
            // What is harder on the gateway is there twice.
            self.0 = vec![Kind::Killed, Kind::Killed, Kind::Stopped, Kind::Stopped];
            let moods = Mood::TROUBLES.iter();
            self.0.extend(moods.map(|it| Kind::Turned(*it)));
            rng.shuffle(&mut self.0);
        }
        self.0.pop().unwrap()
    }
}

struct Active {
    place: usize,
    kind: Kind,
    until: Instant,
}

/// One of the two pools.
struct Pool<'a> {
    key: &'static str,
    peers: &'a [Peer],
    /// Places of those that are in the list.
    listed: Vec<usize>,
    active: Vec<Active>,
    /// Of each peer, when its last trouble ended.
    ended: Vec<Option<Instant>>,
    /// How many may be in trouble within [`SPAN`].
    most: usize,
    deck: Deck,
}

/// Who makes it all happen.
pub(crate) struct Troubles<'a> {
    rng: Rng,
    redis: Redis,
    names: Option<&'a Resolver>,
    /// Until then the name is not resolved.
    unknown_until: Option<Instant>,
    gateway: &'a Gateway,
    pools: [Pool<'a>; 2],
    /// What has happened how often.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl<'a> Pool<'a> {
    fn new(at: usize, peers: &'a [Peer]) -> Self {
        Self {
            key: ["pre", "prod"][at],
            peers,
            listed: (0..LISTED[at]).collect(),
            active: Vec::new(),
            ended: peers.iter().map(|_| None).collect(),
            most: [peers.len(), 2][at],
            deck: Deck(Vec::new()),
        }
    }

    /// One of those that may get into trouble now.
    fn next(&self, now: Instant, rng: &mut Rng) -> Option<usize> {
        let is_active = |place: usize| self.active.iter().any(|it| it.place == place);
        let was = |place: usize| self.ended[place].is_some_and(|it| now - it < SPAN);
        let of_late = |place: &usize| is_active(*place) || was(*place);
        let all = 0..self.peers.len();
        let is_full = all.clone().filter(of_late).count() >= self.most;
        let may: Vec<usize> = all
            .filter(|it| !is_active(*it) && (was(*it) || !is_full))
            .collect();
        (!may.is_empty()).then(|| may[rng.usize(..may.len())])
    }

    fn begin(&mut self, place: usize, rng: &mut Rng) -> Kind {
        let kind = self.deck.draw(rng);
        let peer = &self.peers[place];
        peer.note_trouble(true);
        match kind {
            Kind::Killed => peer.kill(),
            Kind::Stopped => peer.signal(Signal::SIGSTOP),
            Kind::Turned(mood) => peer.turn(mood),
        }
        let until = Instant::now() + Duration::from_millis(rng.u64(200..3000));
        self.active.push(Active { place, kind, until });
        kind
    }

    /// Ends what is to end by `now`.
    fn end(&mut self, now: Instant) {
        let is_due = |it: &mut Active| it.until <= now;
        for Active { place, kind, .. } in self.active.extract_if(.., is_due) {
            let peer = &self.peers[place];
            match kind {
                Kind::Killed => peer.restart(),
                Kind::Stopped => peer.signal(Signal::SIGCONT),
                Kind::Turned(_) => peer.turn(Mood::Sound),
            }
            peer.note_trouble(false);
            self.ended[place] = Some(Instant::now());
        }
    }

    /// As they stand in the list.
    fn entries(&self, by_name: bool) -> Vec<String> {
        let listed = self.listed.iter();
        let mut entries: Vec<String> = listed.map(|it| self.peers[*it].to_string()).collect();
        if by_name && self.key == "prod" {
            let port = self.peers[0].address.port();
            entries.splice(LISTED[1] - 1.., [format!("{NAME}:{port}")]);
        }
        entries
    }

    /// Another one in the place of one that is listed.
    fn swap(&mut self, place: usize, rng: &mut Rng) {
        let spare: Vec<usize> = (0..self.peers.len())
            .filter(|it| !self.listed.contains(it))
            .collect();
        self.listed[place] = spare[rng.usize(..spare.len())];
    }

    /// All others in the place of those that are listed, as many as there are.
    fn swap_all(&mut self) {
        let others = (0..self.peers.len()).filter(|it| !self.listed.contains(it));
        self.listed = others.collect();
    }
}

impl<'a> Troubles<'a> {
    pub(crate) fn new(
        seed: u64,
        redis: Redis,
        names: Option<&'a Resolver>,
        gateway: &'a Gateway,
        peers: &'a [Peer],
    ) -> Self {
        let (pre, prod) = peers.split_at(PEERS[0]);
        let troubles = Self {
            rng: Rng::with_seed(seed),
            redis,
            names,
            unknown_until: None,
            gateway,
            pools: [Pool::new(0, pre), Pool::new(1, prod)],
            counts: BTreeMap::new(),
        };
        troubles.point_name();
        troubles
    }

    /// The entries of each list at first.
    pub(crate) fn entries(peers: &[Peer], by_name: bool) -> [Vec<String>; 2] {
        let (pre, prod) = peers.split_at(PEERS[0]);
        let pools = [Pool::new(0, pre), Pool::new(1, prod)];
        pools.map(|it| it.entries(by_name))
    }

    /// The name means the last one that is listed in `prod`.
    fn point_name(&self) {
        let prod = &self.pools[1];
        let place = prod.listed[LISTED[1] - 1];
        if let Some(names) = self.names {
            names.set(NAME, &[prod.peers[place].address.ip()]);
        }
    }

    fn count(&mut self, what: impl ToString) {
        *self.counts.entry(what.to_string()).or_default() += 1;
    }

    /// Lets it all happen until then; afterwards everything is as it was.
    pub(crate) fn happen_until(&mut self, until: Instant) {
        let begun = Instant::now();
        let (mut restart_at, mut short_at) = (begun + RARE / 2, begun + RARE);
        let mut short_until = None;
        let (mut limit, mut felt_before) = (0, 0);
        while Instant::now() < until {
            let now = Instant::now();
            self.step(now);
            if now >= restart_at {
                self.restart_redis();
                restart_at = now + RARE;
            }
            let is_unfelt = || self.gateway.stderr.count("accept-failed") == felt_before;
            if short_until.is_some_and(|it| now >= it + UNFELT || now >= it && !is_unfelt()) {
                self.end_shortage(limit);
                short_until = None;
                short_at = now + RARE;
            } else if short_until.is_none() && now >= short_at {
                felt_before = self.gateway.stderr.count("accept-failed");
                limit = self.begin_shortage();
                short_until = Some(now + Duration::from_millis(self.rng.u64(200..800)));
            }
            std::thread::sleep(STEP);
        }
        if short_until.is_some() {
            self.end_shortage(limit);
        }
        let late = Instant::now() + Duration::from_secs(60);
        for (pool, listed) in self.pools.iter_mut().zip(LISTED) {
            pool.end(late);
            pool.listed = (0..listed).collect();
        }
        self.write(0);
        self.write(1);
        self.point_name();
    }

    fn step(&mut self, now: Instant) {
        for pool in &mut self.pools {
            pool.end(now);
        }
        let at = self.rng.usize(..2);
        match self.rng.u8(..30) {
            0..6 => {
                if let Some(place) = self.pools[at].next(now, &mut self.rng) {
                    let kind = self.pools[at].begin(place, &mut self.rng);
                    self.count(format!("{kind:?} in {}", self.pools[at].key));
                }
            }
            6 => {
                // The last one of prod is there by its name.
                let place = self.rng.usize(..[LISTED[0], LISTED[1] - 1][at]);
                self.pools[at].swap(place, &mut self.rng);
                self.write(at);
                self.count(format!("swapped one of {}", self.pools[at].key));
            }
            7 => {
                self.pools[0].swap_all();
                self.write(0);
                self.count("swapped all of pre");
            }
            8 if self.names.is_some() && self.unknown_until.is_none() => {
                self.pools[1].swap(LISTED[1] - 1, &mut self.rng);
                self.point_name();
                self.count("name given to another");
            }
            9 if self.names.is_some() && self.unknown_until.is_none() => {
                let pause = Duration::from_millis(self.rng.u64(500..2000));
                self.unknown_until = Some(now + pause);
                self.names.inspect(|it| it.fail(NAME));
                self.count("name not resolved");
            }
            _ => {}
        }
        if self.unknown_until.is_some_and(|it| now >= it) {
            self.unknown_until = None;
            self.point_name();
        }
    }

    /// Writes a pool's list, in one transaction.
    fn write(&self, at: usize) {
        let pool = &self.pools[at];
        let entries = pool.entries(self.names.is_some());
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("DEL").arg(pool.key).ignore();
        pipe.cmd("RPUSH").arg(pool.key).arg(entries).ignore();
        pipe.exec(&mut self.redis.connect(0)).unwrap();
    }

    fn restart_redis(&mut self) {
        self.redis.kill();
        self.redis.restart();
        self.count("Redis restarted");
    }

    /// The gateway gets hardly a further descriptor from now on, unless it closes one; the limit so far.
    fn begin_shortage(&mut self) -> u64 {
        let limit = self.gateway.descriptor_limit();
        self.gateway.leave_descriptors(self.rng.usize(..4));
        self.count("short of descriptors");
        limit
    }

    fn end_shortage(&mut self, limit: u64) {
        self.gateway.limit_descriptors(limit);
    }
}
