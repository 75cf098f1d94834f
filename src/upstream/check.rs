//! Active health checks: the control plane asks each peer, every now and then, how it is.
//!
//! One thread (`health-checks`) knows which peers there are and when each is due ([`schedule`]), and hands
//! what is due to a few others ([`crew`]), each of which makes one check after the other ([`ask`]). What
//! checks find out is written into the peer's [`Health`](super::health::Health), which workers read.
//!
//! A peer is checked by one check at a time, and once for the pools that check it in the same way; where they
//! check it in two ways it must be well by both. A peer of several services is checked as the first of them
//! says that has checks for it: the default one first, then in the order of the ini file. Peers whose last
//! check has timed out take a part of the crew only, so that many that hang do not hold up the checks of the
//! others. Without checks none of the threads but the first is there, and that one sleeps.

mod ask;
mod crew;
mod job;
mod schedule;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, never, select};

use self::crew::Crew;
use self::job::Ended;
use self::schedule::{CheckNews, Consequence, Schedule};
use super::events::{self, NamedPool, Up};
use super::health::{LastCheck, Why};
use super::in_force::InForce;
use super::serving::Serving;
use crate::error::Checked;
use crate::lists::PoolName;
use crate::logs::throttle::Throttle;
use crate::process::supervised;

/// Beyond the time for a check, for all first checks to end before the doors are opened.
const FIRST_CHECKS: Duration = Duration::from_millis(500);

/// Checks that are due, and those that have ended, are seen to together, so often.
const TURN: Duration = Duration::from_millis(20);

/// The checks of a gateway.
pub(crate) struct Checker {
    in_force: Arc<InForce>,
}

impl Checker {
    /// Starts the thread that checks the peers in force as the settings of their services say.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(in_force: Arc<InForce>) -> io::Result<Self> {
        let (bell, rung) = bounded(1);
        in_force.ring(bell);
        let checker = Self {
            in_force: Arc::clone(&in_force),
        };
        supervised::spawn("health-checks", move || {
            Checking::new(&in_force).follow(&rung);
        })?;
        Ok(checker)
    }

    /// Waits until no peer needs its first check any more, and at most as long as one takes.
    pub(crate) fn wait_for_first(&self) {
        let serving = self.in_force.serving();
        let settings = serving.services().iter().map(|it| it.pools().settings());
        let checks = settings.flat_map(|it| {
            let of_pool = |pool| it.health.of_pool(pool);
            PoolName::ALL.into_iter().filter_map(of_pool)
        });
        let limits = checks.filter(|it| it.before_use).map(|it| it.timeout);
        let Some(limit) = limits.max() else { return };
        let until = Instant::now() + limit + FIRST_CHECKS;
        let is_waiting = || {
            let serving = self.in_force.serving();
            serving.peers().any(|it| it.health.awaits_first_check())
        };
        while is_waiting() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The thread that checks.
struct Checking<'a> {
    in_force: &'a InForce,
    schedule: Schedule,
    crew: Crew,
    ended: Receiver<Ended>,
    /// Of events that say so.
    not_made: Throttle,
}

impl<'a> Checking<'a> {
    fn new(in_force: &'a InForce) -> Self {
        let (crew, ended) = Crew::new();
        Self {
            in_force,
            schedule: Schedule::default(),
            crew,
            ended,
            not_made: Throttle::default(),
        }
    }

    fn follow(&mut self, rung: &Receiver<()>) {
        self.take_note();
        let nobody = never();
        loop {
            while let Ok(ended) = self.ended.try_recv() {
                self.has_ended(ended);
            }
            let now = Instant::now();
            while let Some(job) = self.schedule.next(now, self.crew.room()) {
                self.crew.make(job);
            }
            self.crew.look(now);
            // Only where others wait for it is the end of a check worth a turn of its own.
            let ended = match self.schedule.has_ready() {
                true => &self.ended,
                false => &nobody,
            };
            let timer = self.wakes_at(now).map_or_else(never, at);
            select! {
                recv(ended) -> ended => if let Ok(ended) = ended {
                    self.has_ended(ended);
                },
                recv(rung) -> ring => match ring {
                    Ok(()) => self.take_note(),
                    // The gateway has ended.
                    Err(_) => return,
                },
                recv(timer) -> _ => {}
            }
        }
    }

    /// When there is something to do again: not at each check by itself, since a turn costs more than that.
    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let running = self.crew.is_running().then_some(now);
        let due = running.into_iter().chain(self.schedule.wakes_at());
        let due = due.min().map(|it| it.max(now + TURN));
        due.into_iter().chain(self.crew.wakes_at()).min()
    }

    /// Takes note of the peers and settings in force.
    fn take_note(&mut self) {
        let serving = self.in_force.serving();
        let back = self
            .schedule
            .update(&serving, Instant::now(), fastrand::f64);
        for (service, pool, peer) in back {
            let told = Consequence {
                service,
                pool,
                news: Some(CheckNews::Back),
            };
            report(&serving, peer, &told, "not-checked", "");
        }
    }

    fn has_ended(&mut self, ended: Ended) {
        self.crew.has_ended();
        let (target, answer, now) = (ended.target, ended.answer, Instant::now());
        let last = LastCheck {
            at: now,
            outcome: answer.outcome,
            status: answer.status,
        };
        let told = self.schedule.has_ended(target, last, fastrand::f64());
        let Some(told) = told else { return };
        let serving = self.in_force.serving();
        // It may have gone just now, and its counts with it.
        if let Some(service) = serving.of(&told.service) {
            service.pools().note_check(told.pool, answer.outcome);
        }
        if let Some(error) = answer.error
            && let Some(unsaid) = self.not_made.turn(now)
        {
            let pool = NamedPool(&told.service, told.pool);
            let (peer, error) = (target.peer, error.to_string());
            log::warn!("check-not-made {pool} peer={peer} error={error:?} unsaid={unsaid}");
        }
        let status = answer.status.filter(|_| answer.outcome == Checked::Status);
        let status = status.map_or(String::new(), |it| format!(" status={it}"));
        let cause = format!(" cause={}{status}", answer.outcome.name());
        let why = match told.news {
            Some(CheckNews::Back) => "check-succeeded",
            _ => Why::Check.name(),
        };
        report(&serving, target.peer, &told, why, &cause);
    }
}

fn report(serving: &Serving, peer: SocketAddr, told: &Consequence, why: &str, cause: &str) {
    let Some(news) = told.news else { return };
    // It may have gone just now, with its service or without.
    let Some(service) = serving.of(&told.service) else {
        return;
    };
    let pools = service.pools();
    let (pool, peers) = (
        NamedPool(&told.service, told.pool),
        pools[told.pool].peers(),
    );
    let Some(place) = pools[told.pool].place_of(peer) else {
        return;
    };
    let (name, up) = (events::named(&peers[place]), Up::of(peers));
    match news {
        CheckNews::Out => {
            log::warn!("peer-out {pool} peer={peer}{name} why={why}{cause} {up}")
        }
        CheckNews::Unchecked => {
            log::warn!("peer-unchecked {pool} peer={peer}{name} why={why}{cause} {up}");
        }
        CheckNews::Back => {
            let after = peers[place].health.out_for(Instant::now()).as_secs_f64();
            log::info!("peer-back {pool} peer={peer}{name} why={why} after={after:.1}s {up}");
        }
    }
}
