//! The leader: a thread that carries rollouts on, in whichever gateway has the lease. What is to become of a
//! rollout is decided by [`rollout`](super::rollout), and done by the [`ledger`](super::ledger), in one
//! transaction with the lists.
//!
//! Once a second each gateway looks at the state of each release that it knows to have a rollout under way
//! ([`Trips::rolling_out`]); without one, nothing is asked. What others have done is seen by that look, and
//! counted by the monotonic clock of this process.
//!
//! Who has the lease renews it after a third of its time. All of what is in the store is read only when
//! something may be due: the time of a step is over, other lists are in force, the version was taken back,
//! the lists were frozen, or the lease was just taken.
//!
//! A gateway that cannot do what is due (its rights, or Redis) says so once, and neither renews nor takes the
//! lease until another one had the time to take it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::candidacy::{Candidacy, Role};
use super::change::{self, LeaderWord, RolloutVerb, Verb, step_in_words};
use super::evidence::Concern;
use super::judge::Judge;
use super::ledger::{Consent, Done, Ledger, Order, TendedState};
use super::rollout::{
    Circumstances, Course, LEASE, LeaderSays, NextTurn, Opinion, ROLLOUT, Rollout, SeenTurn,
    rollout_in,
};
use super::trips::Trips;
use super::webhook::{NoticeKind, ReleaseNotice, Webhook, node_of};
use crate::config::{Config, Store};
use crate::fleet::nodes::{Heard, Nodes};
use crate::fleet::plain::plain;
use crate::fleet::release::PeersUp;
use crate::lists::{Digest, PoolName, ServiceName};
use crate::process::supervised;
use crate::snapshot::Published;
use crate::upstream::in_force::InForce;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// After a look that has failed.
const AWAY: Duration = Duration::from_secs(2);

/// So long another one may take a lease that this one cannot use: longer than it takes to see that.
const RESIGNED: Duration = LEASE.saturating_add(Duration::from_secs(5));

/// So long nobody is asked again what has spoken against a promotion.
const ASKED_AGAIN: Duration = Duration::from_secs(2);

/// Time for one look at all gateways.
const LIMIT: Duration = Duration::from_secs(3);

/// What a leader knows the rest of the gateway by.
pub(crate) struct LeaderOf {
    pub(crate) in_force: Arc<InForce>,
    pub(crate) config: Arc<Published<Config>>,
    pub(crate) trips: Arc<Trips>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) webhook: Arc<Webhook>,
}

/// Begins to look after rollouts.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(of: LeaderOf) -> io::Result<()> {
    let node: String = plain(&node_of(&of.config.load()))
        .chars()
        .take(80)
        .collect();
    let mut leader = Leader {
        of,
        // Another process of the same gateway is another leader.
        holder: format!("{node}/{:08x}", fastrand::u32(..)),
        begun: Instant::now(),
        services: BTreeMap::new(),
    };
    supervised::spawn("leader", move || {
        loop {
            let config = leader.of.config.load();
            let mut ledgers = BTreeMap::new();
            while Arc::ptr_eq(&leader.of.config.load(), &config) {
                thread::sleep(LOOK);
                leader.turn(&config, &mut ledgers);
            }
        }
    })?;
    Ok(())
}

struct Leader {
    of: LeaderOf,
    /// By what this process is known in a lease.
    holder: String,
    /// Its clock begins here.
    begun: Instant,
    services: BTreeMap<ServiceName, Attended>,
}

/// What is known of a rollout.
#[derive(Default)]
struct Attended {
    candidacy: Candidacy,
    /// What all of it was looked at by: which lists were in force, whether the version was taken back, and
    /// whether the lists were frozen.
    looked: Option<(Digest, bool, bool)>,
    /// How it stood when it was last seen.
    last: Option<Rollout>,
    /// What has spoken against a promotion when it was due.
    against: Option<String>,
    /// When that was asked last, as a time since the beginning.
    asked: Option<Duration>,
    /// Not before this, after something has failed.
    not_before: Option<Instant>,
    /// It could renew its lease, but not do what was due: until then, it leaves that to others.
    resigned: Option<Instant>,
    /// What was said of such a thing.
    told: Option<String>,
}

/// What was seen of a rollout.
struct SeenRollout {
    rollout: Rollout,
    is_frozen: bool,
    role: Role,
    /// What was to be written with that is written.
    is_written: bool,
}

/// What who leads it knows of it.
struct LedRollout {
    fence: u64,
    /// The time of the step is.
    is_over: bool,
    unwritten: Duration,
    /// It has turned since the last look.
    is_news: bool,
}

impl Leader {
    fn turn<'a>(&mut self, config: &'a Config, ledgers: &mut BTreeMap<ServiceName, Ledger<'a>>) {
        let all = self.of.trips.rolling_out();
        // Connections that nobody needs are closed.
        ledgers.retain(|service, _| all.contains(service));
        for service in all {
            let mut attended = self.services.remove(&service).unwrap_or_default();
            if attended.not_before.is_none_or(|it| Instant::now() >= it) {
                let known = ledgers.remove(&service);
                let ledger = known.map_or_else(|| Ledger::of(config, &service), Ok);
                let outcome = ledger.and_then(|mut ledger| {
                    let has_acted = self.attend(config, &service, (&mut ledger, &mut attended))?;
                    ledgers.insert(service.clone(), ledger);
                    Ok(has_acted)
                });
                attended.not_before = outcome.is_err().then(|| Instant::now() + AWAY);
                match outcome {
                    // What could not be done is not yet done.
                    Ok(false) if attended.resigned.is_some() => {}
                    outcome => note(&service, outcome.err(), &mut attended.told),
                }
            }
            self.services.insert(service, attended);
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Looks after one; true if all that was due is done. The error is one line: why that cannot be.
    fn attend(
        &self,
        config: &Config,
        service: &ServiceName,
        (ledger, attended): (&mut Ledger<'_>, &mut Attended),
    ) -> Result<bool, String> {
        let has_resigned = attended.resigned.is_some_and(|it| Instant::now() < it);
        let Some(seen) = self.look(service, (ledger, attended), has_resigned)? else {
            return Ok(false);
        };
        // The lists of a step may have come and gone between two looks.
        let latest = self.of.trips.latest_turn(service);
        latest.iter().for_each(|it| attended.candidacy.saw(it));
        self.of.trips.note_rollout(service, &seen.rollout);
        let last = attended.last.replace(seen.rollout.clone());
        let turn = |it: &Rollout| (it.id.clone(), it.turns);
        let is_news = last.is_none_or(|it| turn(&it) != turn(&seen.rollout));
        if is_news {
            tell(service, &seen.rollout);
        }
        match seen.role {
            Role::Leads { .. } if has_resigned || !seen.is_written => Ok(false),
            Role::Leads {
                fence,
                unwritten,
                is_due,
            } => {
                // What was just renewed is written.
                let left = if is_due { Duration::ZERO } else { unwritten };
                let waited = seen.rollout.waited + unwritten;
                let led = LedRollout {
                    fence,
                    is_over: waited >= seen.rollout.every,
                    unwritten: left,
                    is_news,
                };
                self.carry_on((config, service), (ledger, attended), &seen, &led)
            }
            // All of it is looked at by the next turn, of who leads then.
            Role::Takes | Role::Follows => {
                attended.looked = None;
                let is_running = seen.rollout.course == Course::Running;
                let is_lost = attended.candidacy.seen().is_ahead_of(&seen.rollout);
                if !is_running || !is_lost || has_resigned {
                    return Ok(false);
                }
                // Who leads need not know of that.
                let led = LedRollout {
                    fence: seen.rollout.lease.fence,
                    is_over: false,
                    unwritten: Duration::ZERO,
                    is_news: true,
                };
                self.carry_on((config, service), (ledger, attended), &seen, &led)
            }
        }
    }

    /// Looks at the state alone, and takes or renews the lease, unless it `rests`.
    fn look(
        &self,
        service: &ServiceName,
        (ledger, attended): (&mut Ledger<'_>, &mut Attended),
        rests: bool,
    ) -> Result<Option<SeenRollout>, String> {
        let begun = self.now();
        let (mut seen, mut lease) = (None, None);
        let mut tend = |state: &Map<String, Value>| {
            let Some(mut rollout) = rollout_in(state) else {
                return TendedState::Kept;
            };
            let role = attended.candidacy.look(&rollout, &self.holder, begun);
            seen = Some(SeenRollout {
                rollout: rollout.clone(),
                is_frozen: change::frozen(state).is_some(),
                role,
                is_written: true,
            });
            match role {
                _ if rests || rollout.course.is_over() => TendedState::Kept,
                Role::Takes => {
                    rollout.take(&self.holder);
                    lease = Some(rollout.lease.clone());
                    let mut state = state.clone();
                    state.insert(ROLLOUT.to_owned(), rollout.to_json());
                    TendedState::Changed(state)
                }
                Role::Leads {
                    is_due: true,
                    unwritten,
                    ..
                } => {
                    let against = attended.against.as_deref();
                    let says = self.says(service, &rollout, (unwritten, against));
                    let renewal = rollout.renew(unwritten, says);
                    lease = Some(rollout.lease.clone());
                    TendedState::Renewed(renewal)
                }
                _ => TendedState::Kept,
            }
        };
        let is_written = ledger.tend(&mut tend)?;
        if let Some(lease) = lease.filter(|_| is_written) {
            attended.candidacy.wrote(&lease, begun, self.now());
            if seen.as_ref().is_some_and(|it| it.role == Role::Takes) {
                let (name, fence) = (service.in_log(), lease.fence);
                log::info!("rollout-led {name}fence={fence}");
            }
        }
        Ok(seen.map(|it| SeenRollout { is_written, ..it }))
    }

    /// Does what is due, if something may be.
    fn carry_on(
        &self,
        (config, service): (&Config, &ServiceName),
        (ledger, attended): (&mut Ledger<'_>, &mut Attended),
        seen: &SeenRollout,
        led: &LedRollout,
    ) -> Result<bool, String> {
        let Some(lists) = self.of.in_force.load_of(service) else {
            return Ok(false);
        };
        let rollout = &seen.rollout;
        let (release, opinion) = self.of.judge.opinion(service);
        let goes_on = match opinion {
            Opinion::Good => true,
            Opinion::Open(_) => rollout.without_verdict,
            Opinion::Against(_) => false,
        };
        let may_be_due = rollout.course == Course::Running && led.is_over && goes_on;
        let is_tripped = self.of.trips.of(service).is_some();
        let by = (lists.digest, is_tripped, seen.is_frozen);
        if !may_be_due && attended.looked == Some(by) && !led.is_news {
            return Ok(false);
        }
        let begun = self.now();
        let is_last = rollout.at + 1 == rollout.steps.len();
        let promotes = may_be_due && is_last && rollout.promotes;
        let is_known = attended.looked == Some(by) && !led.is_news;
        if promotes && is_known && attended.asked.is_some_and(|it| begun < it + ASKED_AGAIN) {
            return Ok(false);
        }
        let against = promotes.then(|| self.against_promotion(config, service));
        let against = against.flatten();
        attended.against.clone_from(&against);
        attended.asked = against.is_some().then_some(begun);
        if against.is_some() && is_known {
            // The lists, which may be long, say nothing else than before.
            return Ok(false);
        }
        let word = LeaderWord {
            holder: self.holder.clone(),
            fence: led.fence,
            node: node_of(config),
            seen: attended.candidacy.seen(),
            release,
            opinion,
            unwritten: led.unwritten,
            trip: self.trip(service),
            against_promotion: against,
        };
        let verb = Verb::Rollout(RolloutVerb::CarryOn(word));
        let order = Order::new(verb, rollout.by.clone(), None);
        let done = ledger.perform(&order, &mut |_| Ok(Consent::Yes));
        let done = done.inspect_err(|_| attended.resigned = Some(Instant::now() + RESIGNED))?;
        (attended.looked, attended.resigned) = (Some(by), None);
        if done.number.is_some() {
            if let Some(rollout) = done.change.state.as_ref().and_then(rollout_in) {
                let lease = &rollout.lease;
                attended.candidacy.wrote(lease, begun, self.now());
                attended.candidacy.saw(&rollout);
            }
            let by = done.change.by.as_ref().unwrap_or(&rollout.by);
            self.announce(service, by, &done);
        }
        Ok(true)
    }

    /// What there is to say to people of the rollout that it leads.
    fn says(
        &self,
        service: &ServiceName,
        rollout: &Rollout,
        (unwritten, against): (Duration, Option<&str>),
    ) -> LeaderSays {
        let (_, opinion) = self.of.judge.opinion(service);
        let facts = Circumstances {
            pre: &rollout.pre,
            trip: None,
            frozen: None,
            has_share: true,
            seen: SeenTurn::default(),
            opinion: &opinion,
            unwritten,
        };
        let is_running = rollout.course == Course::Running;
        let case = self.of.judge.case(service);
        let judged = case.as_ref().and_then(|it| it.judged(Concern::Failing));
        LeaderSays {
            verdict: judged.map(ToString::to_string),
            waits_for: match rollout.next(&facts) {
                NextTurn::Wait(why) if is_running => Some(why),
                NextTurn::Finish if rollout.promotes => against.map(str::to_owned),
                _ => None,
            },
        }
    }

    /// Which version was taken back, and why, as far as this gateway knows.
    fn trip(&self, service: &ServiceName) -> Option<(String, String)> {
        let trip = self.of.trips.of(service)?.trip;
        let why = format!(
            "the release in pre was taken back by {}: {}",
            trip.by, trip.why
        );
        Some((trip.pre, why))
    }

    /// A server of `pre` that some gateway does not take for up, or a gateway that does not hold the lists.
    fn against_promotion(&self, config: &Config, service: &ServiceName) -> Option<String> {
        let serving = self.of.in_force.serving();
        let of = serving.of(service)?;
        let peers = of.pools()[PoolName::Pre].peers();
        if peers.iter().any(|it| !it.health.is_up()) {
            return Some("not all servers of pre are up".to_owned());
        }
        let Store::Redis(settings) = &config.store else {
            return None;
        };
        settings.fleet.heartbeat?;
        let digest = of.lists().digest.to_string();
        match Nodes::new(settings).read(Instant::now() + LIMIT) {
            Ok(look) => {
                let lacks_one = |it: &&Heard| {
                    let pre = it.node.as_ref().and_then(|node| node.pre_of(service));
                    pre.is_some_and(PeersUp::lacks_one)
                };
                if let Some(it) = look.heard.iter().find(lacks_one) {
                    return Some(format!("not all servers of pre are up at {}", it.name));
                }
                if let Some(it) = look.without(service, &digest).next() {
                    return Some(format!("{it} does not hold the lists"));
                }
                // It may be cut off, and serve by what it has.
                let silent = look.silent.first();
                silent.map(|it| format!("{} is not heard from", it.name))
            }
            Err(why) => Some(format!("what the gateways hold is not known: {why}")),
        }
    }

    /// Says what was done; people are told of what matters to all.
    fn announce(&self, service: &ServiceName, by: &str, done: &Done) {
        let (number, after) = (done.number.unwrap_or_default(), done.change.after);
        let verb = done.change.verb.unwrap_or("rollout");
        let reason = done.change.reason.as_deref().unwrap_or_default();
        let name = service.in_log();
        log::info!(
            "rollout-carried-on {name}change={number} verb={verb} digest={after} reason={reason:?}"
        );
        let notice = match verb {
            "promote" => ReleaseNotice::promoted(service, false),
            "rollback" => ReleaseNotice::rolled_back(service),
            _ => {
                let rollout = done.change.state.as_ref().and_then(rollout_in);
                let Some(notice) = rollout.and_then(|it| stopped(service, it.course)) else {
                    return;
                };
                notice
            }
        };
        self.of.webhook.tell(notice.by(by, Some(reason)));
    }
}

/// What people are told of a rollout that stands like that, if it has stopped or ended.
fn stopped(service: &ServiceName, course: Course) -> Option<ReleaseNotice> {
    let (kind, sentence) = match course {
        Course::Paused => (
            NoticeKind::RolloutPaused,
            "the rollout is paused, and goes on when somebody says so: `graygate rollout resume`",
        ),
        Course::Aborted => (
            NoticeKind::RolloutAborted,
            "the rollout is aborted; the lists stay as they are",
        ),
        Course::Done => (
            NoticeKind::RolloutDone,
            "the rollout is done: its last step has held",
        ),
        Course::Running => return None,
    };
    Some(ReleaseNotice::new(kind, service, sentence))
}

/// Says how a rollout stands now.
fn tell(service: &ServiceName, rollout: &Rollout) {
    let (name, by, course) = (service.in_log(), &rollout.by, rollout.course.name());
    let (step, why) = (
        step_in_words(rollout),
        rollout.why.as_deref().unwrap_or("-"),
    );
    log::info!("rollout {name}by={by:?} course={course} step={step:?} reason={why:?}");
}

/// Says once that a rollout cannot be looked after, and once that it can be again.
fn note(service: &ServiceName, error: Option<String>, told: &mut Option<String>) {
    let name = service.in_log();
    match &error {
        Some(error) if told.is_none() => log::warn!(
            "rollout-unattended {name}error={error:?} effect=\"this gateway does not carry it on; another one may\""
        ),
        None if told.is_some() => log::info!("rollout-attended {name}"),
        _ => {}
    }
    *told = error;
}
