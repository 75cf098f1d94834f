//! The judge: a thread that takes a block a second from what workers have counted, adds it to the evidence on
//! each service's release, hears what other gateways have told of theirs, and says what it finds.
//!
//! What is known of a release is a [`Case`]; here are the services and the clock, and in `telling` what is
//! said. A restart and an upgrade begin anew, since clients who have had their bad unit are known to the
//! workers alone; what other gateways know goes on.

mod telling;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use self::telling::{notice, numbers_of, tell, tell_of_beginning, tell_of_renewal};
use super::case::{Case, Habits, Second, version_of};
use super::evidence::{Block, Counted};
use super::others::{self, Others};
use super::rollout::{Opinion, Rollout};
use super::state::Trip;
use super::trips::Trips;
use super::verdict::{Ground, Judged, Verdict};
use super::webhook::{ReleaseNotice, Webhook};
use crate::config::{Config, Store, VerdictMode, VerdictSettings};
use crate::fleet::node::NodeVerdict;
use crate::fleet::release::PeersUp;
use crate::lists::{PoolName, ServiceName};
use crate::process::supervised;
use crate::snapshot::Published;
use crate::upstream::in_force::InForce;
use crate::upstream::serving::{Pools, ServiceInForce};
use crate::upstream::units::{PreClients, SeenUnits, UnitCount, UnitCounts, Units};

/// A block.
const BLOCK: Duration = Duration::from_secs(1);

/// Clients of `pre` are counted up to here.
const MANY: u64 = 5;

/// So long after the beginning of a release, gateways know who else judges it: what they find is told by one
/// of them, and not before that.
const ACQUAINTED: Duration = Duration::from_secs(4);

/// So long after something was counted others are heard, whatever has become of the lists.
const LISTENING: Duration = Duration::from_secs(10);

/// Nothing faster than this is slow.
const NOT_SLOW: Duration = Duration::from_millis(50);

/// What is known of the releases of all services.
pub(crate) struct Judge {
    in_force: Arc<InForce>,
    config: Arc<Published<Config>>,
    trips: Arc<Trips>,
    /// People are told of what is found.
    webhook: Arc<Webhook>,
    /// Rung when others should hear of it.
    bell: Sender<()>,
    others: Others,
    begun: Instant,
    docket: Mutex<BTreeMap<ServiceName, Entry>>,
}

/// What is known of a service.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Tells the service from one that had its name before.
    service_id: u64,
    seen: SeenUnits,
    habits: Habits,
    /// The release that is under way, and since when.
    case: Option<Case>,
    begun: Option<Instant>,
    /// When anything had been counted of it last.
    counted: Option<Instant>,
    /// What others were told last, as far as is known here.
    rung: Option<NodeVerdict>,
    /// What people are to be told.
    untold: Vec<UntoldNotice>,
}

impl Entry {
    /// Nobody judges it any more. True when others should hear of that.
    fn close(&mut self) -> bool {
        (self.case, self.counted) = (None, None);
        self.untold.clear();
        self.rung.take().is_some()
    }

    /// Adds a block to the case of this release, which begins with it if it is another one.
    fn take_block(
        &mut self,
        service: &ServiceInForce,
        units: &Units,
        release: String,
        (now, wall): (Instant, SystemTime),
    ) {
        let lists = service.lists();
        let settings = &service.pools().settings().verdict;
        let is_list = !lists.gray.is_of_everybody();
        let counts = units.take(&mut self.seen);
        match &mut self.case {
            Some(case) if case.release() == release => {
                case.take(second(units, &counts), settings, is_list, &mut self.habits);
                if case.is_used_up(&self.habits) {
                    units.begin(lists.version);
                    case.renew();
                    tell_of_renewal(service, case);
                }
            }
            other => {
                if let Some(before) = other.as_ref()
                    && version_of(before.release()) == version_of(&release)
                {
                    // The same version in another step: all clients count again.
                    units.begin(lists.version);
                }
                let case = Case::new(release, wall, settings, is_list, &mut self.habits);
                tell_of_beginning(service, &case);
                self.begun = Some(now);
                *other = Some(case);
            }
        }
    }
}

/// What people are told by one gateway, once it is known by which.
#[derive(Clone, Debug)]
struct UntoldNotice {
    due: Instant,
    /// The version that it is about.
    version: String,
    /// The release, which ends with a reset, too.
    release: String,
    notice: ReleaseNotice,
}

/// A release as it stands, for pages and metrics.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Whose it is.
    pub(crate) service: ServiceName,
    /// The settings that it is judged by.
    pub(crate) settings: VerdictSettings,
    /// It was taken back.
    pub(crate) is_tripped: bool,
    /// Not one server of the new version is up.
    pub(crate) is_out: bool,
    /// Its rollout, if there is one.
    pub(crate) rollout: Option<Rollout>,
    /// What is known; none where none is under way, or nobody wants to know.
    pub(crate) case: Option<Case>,
}

impl Judge {
    /// Begins to judge what is in force.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(
        in_force: Arc<InForce>,
        config: Arc<Published<Config>>,
        trips: Arc<Trips>,
        webhook: Arc<Webhook>,
        bell: Sender<()>,
    ) -> io::Result<Arc<Self>> {
        let judge = Arc::new(Self {
            in_force,
            config: Arc::clone(&config),
            trips,
            webhook,
            bell,
            others: Others::default(),
            begun: Instant::now(),
            docket: Mutex::default(),
        });
        let own = Arc::clone(&judge);
        supervised::spawn("judge", move || {
            let mut next = Instant::now() + BLOCK;
            loop {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                own.turn(now, SystemTime::now());
                // After a pause of the machine, there is one long block, not many without anything.
                next = (next + BLOCK).max(now);
            }
        })?;
        let own = Arc::clone(&judge);
        let is_needed = move || own.is_release_under_way();
        let own = Arc::clone(&judge);
        others::start(config, is_needed, move |heard| own.others.hear(heard))?;
        Ok(judge)
    }

    /// What others are told, by service.
    pub(crate) fn told(&self) -> BTreeMap<String, NodeVerdict> {
        let (serving, docket) = (self.in_force.serving(), self.docket());
        let cases = docket.iter().filter_map(|(service, entry)| {
            let case = self.current(serving.of(service)?, entry)?;
            Some((service.to_string(), case.told()))
        });
        cases.collect()
    }

    /// How the releases of all services stand.
    pub(crate) fn standing(&self) -> Vec<Standing> {
        let serving = self.in_force.serving();
        let docket = self.docket();
        let services = serving.services().iter();
        let all = services.map(|service| {
            let id = service.pools().service_id();
            let entry = docket.get(service.name());
            let entry = entry.filter(|it| it.service_id == id);
            Standing {
                service: service.name().clone(),
                settings: service.pools().settings().verdict.clone(),
                is_tripped: service.is_tripped(),
                is_out: !has_peer_up(service.pools(), PoolName::Pre),
                rollout: self.trips.rollout(service.name()),
                case: entry.and_then(|it| self.current(service, it)),
            }
        });
        all.collect()
    }

    /// What follows for the next step of a rollout, and of which release.
    pub(crate) fn opinion(&self, service: &ServiceName) -> (String, Opinion) {
        let serving = self.in_force.serving();
        let no_verdict = || Opinion::Open("there is no verdict".to_owned());
        let Some(of) = serving.of(service) else {
            return (String::new(), no_verdict());
        };
        // Then nobody gets it, and what was found before says nothing of how it does.
        if !has_peer_up(of.pools(), PoolName::Pre) {
            let why = "no server of pre is up".to_owned();
            let release = self.trips.release(service, of.lists());
            return (release, Opinion::Against(why));
        }
        let Some(case) = self.case(service) else {
            return (String::new(), no_verdict());
        };
        let opinion = case.opinion(&of.pools().settings().verdict);
        let opinion = match opinion {
            Opinion::Against(_) => opinion,
            // An incident is seen by whoever serves the clients.
            Opinion::Good | Opinion::Open(_) => match self.doubt_of_others(service, &case) {
                Some(finding) => Opinion::Against(format!("another gateway finds: {finding}")),
                None => opinion,
            },
        };
        (case.release().to_owned(), opinion)
    }

    /// What another gateway finds of the same release that speaks against its next step, if one does.
    fn doubt_of_others(&self, service: &ServiceName, case: &Case) -> Option<String> {
        let others = self.others.of(service, Instant::now()).into_iter();
        let mut same = others.filter(|it| it.release == case.release());
        let doubt = same.find(|it| Verdict::is_against(&it.finding));
        doubt.map(|it| it.finding)
    }

    /// How many servers of `pre` of a service are up here, and how many there are.
    pub(crate) fn pre_up(&self, service: &ServiceName) -> Option<PeersUp> {
        let serving = self.in_force.serving();
        let peers = serving.of(service)?.pools()[PoolName::Pre].peers();
        Some(PeersUp {
            up: peers.iter().filter(|it| it.health.is_up()).count() as u64,
            all: peers.len() as u64,
        })
    }

    /// What is known of the release of a service.
    pub(crate) fn case(&self, service: &ServiceName) -> Option<Case> {
        let serving = self.in_force.serving();
        self.current(serving.of(service)?, self.docket().get(service)?)
    }

    /// What is known of the release that is in force: nothing as yet, where it is another one since the last
    /// block. Whoever has heard of a reset is not told what was found before.
    fn current(&self, service: &ServiceInForce, entry: &Entry) -> Option<Case> {
        let case = entry.case.as_ref()?;
        let release = self.trips.release(service.name(), service.lists());
        if case.release() == release {
            return Some(case.clone());
        }
        let settings = &service.pools().settings().verdict;
        let is_list = !service.lists().gray.is_of_everybody();
        let mut habits = Habits::default();
        let mut begun = Case::new(release, SystemTime::now(), settings, is_list, &mut habits);
        begun.judge(&[], settings, &habits, Duration::ZERO);
        Some(begun)
    }

    /// How long it takes after the beginning of a release until others are known to judge it.
    fn acquainted(&self) -> Duration {
        match &self.config.load().store {
            Store::Redis(settings) if settings.fleet.heartbeat.is_some() => ACQUAINTED,
            _ => Duration::ZERO,
        }
    }

    /// Tells people what is due, if that is up to this gateway.
    fn tell_people(&self, service: &ServiceName, untold: &mut Vec<UntoldNotice>, now: Instant) {
        let own = self.trips.node();
        for it in untold.extract_if(.., |it| it.due <= now) {
            if self.others.is_first((service, &it.version), &own, now) {
                self.webhook.tell(it.notice);
            }
        }
    }

    /// Why what other gateways have seen is not known, if it is to be.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.others.trouble()
    }

    /// Whether a release is under way, so that others are heard: one who serves none of its clients has to
    /// know as well what others see. It may be the one that carries the rollout on, or that tells people.
    fn is_release_under_way(&self) -> bool {
        let serving = self.in_force.serving();
        let mut judged = serving.services().iter().filter(|it| {
            let settings = &it.pools().settings().verdict;
            settings.is_on() && it.pools().units().is_some()
        });
        let has_clients = |it: &ServiceInForce| {
            let lists = it.lists();
            !lists.pre.is_empty() && !lists.gray.is_empty()
        };
        judged.any(|it| has_clients(it))
            || !self.trips.rolling_out().is_empty()
            || self.has_evidence()
    }

    /// Whether anything was counted of a release just now.
    fn has_evidence(&self) -> bool {
        let docket = self.docket();
        let mut counted = docket.values().filter_map(|it| it.counted);
        counted.any(|it| it.elapsed() < LISTENING)
    }

    fn docket(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Entry>> {
        // What a panic has left is as it was before or after a block.
        self.docket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second is over.
    fn turn(&self, now: Instant, wall: SystemTime) {
        let serving = self.in_force.serving();
        let mut docket = self.docket();
        docket.retain(|service, entry| {
            let service = serving.of(service);
            service.is_some_and(|it| it.pools().service_id() == entry.service_id)
        });
        let mut is_news = false;
        for service in serving.services() {
            let entry = docket.entry(service.name().clone()).or_default();
            entry.service_id = service.pools().service_id();
            is_news |= self.turn_of(service, entry, now, wall);
        }
        if is_news {
            // A ring that nobody has heard yet is enough.
            let _ = self.bell.try_send(());
        }
    }

    /// Takes the block of a service. True when others should hear of what it comes to.
    fn turn_of(
        &self,
        service: &ServiceInForce,
        entry: &mut Entry,
        now: Instant,
        wall: SystemTime,
    ) -> bool {
        let pools = service.pools();
        let settings = &pools.settings().verdict;
        let Some(units) = pools.units().filter(|_| settings.is_on()) else {
            return entry.close();
        };
        let release = self.trips.release(service.name(), service.lists());
        entry.take_block(service, units, release, (now, wall));
        let Some(case) = &mut entry.case else {
            return false;
        };
        units.set_slow_bound(slow_bound(units, settings));
        let heard = self.others.of(service.name(), now);
        let since = now.saturating_duration_since(self.begun);
        let turns = case.judge(&heard, settings, &entry.habits, since);
        let taken_back = case.takes_back(settings);
        let taken_back = taken_back.filter(|_| has_peer_up(pools, PoolName::Prod));
        let version = version_of(case.release());
        for turn in turns {
            tell(service, case, &turn);
            let notice = notice(service.name(), case, &turn.judged);
            let begun = entry.begun.map(|it| it + self.acquainted());
            entry.untold.extend(notice.map(|notice| UntoldNotice {
                due: begun.map_or(now, |it| now.max(it)),
                version: version.to_owned(),
                release: case.release().to_owned(),
                notice,
            }));
        }
        // Of a version that is taken back, people are told that.
        let is_told = taken_back.is_some() || service.is_tripped();
        entry
            .untold
            .retain(|it| !is_told && it.release == case.release());
        self.tell_people(service.name(), &mut entry.untold, now);
        if let Some((ground, judged)) = taken_back
            && !service.is_tripped()
        {
            let trip = trip(service, case, ground, judged, (self.trips.node(), wall));
            self.trips.trip(service.name(), trip);
        }
        if case.has_evidence() {
            entry.counted = Some(now);
        }
        let told = case.told();
        let is_news = entry.rung.as_ref().is_none_or(|it| told.differs_much(it));
        if is_news {
            entry.rung = Some(told);
        }
        is_news
    }
}

/// What was counted since the last look.
fn second(units: &Units, counts: &UnitCounts) -> Second {
    let counted = |it: UnitCount| Counted {
        units: it.units.into(),
        bad: it.bad.into(),
    };
    let block = |of: [UnitCount; PoolName::ALL.len()]| Block {
        pre: counted(of[PoolName::Pre as usize]),
        prod: counted(of[PoolName::Prod as usize]),
    };
    Second {
        failing: block(counts.units),
        slow: block(counts.slow),
        left_out: block(counts.left_out),
        pre_clients: match units.pre_clients() {
            PreClients::Few(few) => few as u64,
            PreClients::Many => MANY,
        },
        bad_clients: units.bad_clients(),
    }
}

/// What is slow from now on.
fn slow_bound(units: &Units, settings: &VerdictSettings) -> Option<Duration> {
    let p95 = (settings.slow != VerdictMode::Off).then(|| units.prod_p95())?;
    p95.map(|it| it.max(NOT_SLOW))
}

fn has_peer_up(pools: &Pools, pool: PoolName) -> bool {
    pools[pool].peers().iter().any(|it| it.health.is_up())
}

/// What is written of a version that is taken back: by this gateway, now.
fn trip(
    service: &ServiceInForce,
    case: &Case,
    ground: Ground,
    judged: &Judged,
    (by, wall): (String, SystemTime),
) -> Trip {
    Trip {
        service: service.name().to_string(),
        by,
        at: humantime::format_rfc3339_millis(wall).to_string(),
        why: ground.name().to_owned(),
        pre: version_of(case.release()).to_owned(),
        release: case.release().to_owned(),
        numbers: numbers_of(judged, case),
        reason: None,
    }
}

#[cfg(test)]
mod tests;
