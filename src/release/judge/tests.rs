//! Hours of a release within a moment: real units, and a clock that the tests set.

use crossbeam_channel::bounded;

use super::*;
use crate::config::ServiceSettings;
use crate::lists::lists_of;
use crate::release::evidence::Concern;
use crate::store::{ReleaseReading, ReleaseWatch as _, StoredText};

/// Clients of each version, and how many of them ask in a second.
const CLIENTS: u32 = 200;
const PER_SECOND: u32 = 20;

struct Bench {
    judge: Judge,
    now: Instant,
    seconds: u32,
}

impl Bench {
    /// With many clients, and a time in which nothing fails.
    fn settled() -> Self {
        let text = "[redis]\nurl = redis://127.0.0.1:1\ntimeout = 100ms\n";
        let config = Config::parse(std::path::Path::new("/g.ini"), text, None).unwrap();
        let in_force = Arc::new(InForce::new(1));
        in_force.set_services(&[Arc::new(ServiceSettings::default())]);
        in_force.store(lists_of(&["1.1.1.1"], &["10.0.0.9:80"], &["10.0.0.1:80"]));
        let bell = bounded(1).0;
        let webhook = Webhook::start(&config, false).unwrap();
        let trips = Trips::start(&config, &in_force, &webhook, bell.clone(), None).unwrap();
        let now = Instant::now();
        let judge = Judge {
            in_force,
            config: Arc::new(Published::new(config)),
            trips,
            webhook,
            bell,
            others: Others::default(),
            begun: now,
            docket: Mutex::default(),
        };
        let mut bench = Self {
            judge,
            now,
            seconds: 0,
        };
        bench.pass(60, |_, _| false);
        assert!(bench.judged().pre.units > 500);
        bench
    }

    /// So many seconds, in which a request of a client to a pool fails or not.
    fn pass(&mut self, seconds: u32, fails: impl Fn(PoolName, u32) -> bool) {
        for _ in 0..seconds {
            let serving = self.judge.in_force.serving();
            let units = serving.default_service().pools().units().unwrap();
            for pool in PoolName::ALL {
                for at in 0..PER_SECOND {
                    let client = (self.seconds * PER_SECOND + at) % CLIENTS;
                    let key = [pool as u32, client].map(u32::to_be_bytes).concat();
                    let Some(mut unit) = units.unit(&key, pool) else {
                        continue;
                    };
                    unit.attempt_has_ended(pool, fails(pool, client));
                    units.count(0, &unit);
                }
            }
            self.seconds += 1;
            self.now += BLOCK;
            self.judge.in_force.look(self.now);
            self.judge.turn(self.now, SystemTime::UNIX_EPOCH);
        }
    }

    fn judged(&self) -> Judged {
        let case = self.judge.case(&ServiceName::default()).unwrap();
        *case.judged(Concern::Failing).unwrap()
    }

    /// How many seconds it takes until a defect of `pre`, by which half of its clients have errors, is found.
    fn find(&mut self) -> Option<u32> {
        (1..=60).find(|_| {
            self.pass(1, |pool, client| {
                pool == PoolName::Pre && client.is_multiple_of(2)
            });
            self.judged().verdict == Verdict::Worse(Ground::Failing)
        })
    }
}

#[test]
fn a_defect_that_comes_after_an_outage_of_both_is_found_though_everybody_has_had_a_bad_unit() {
    let mut it = Bench::settled();
    assert!(Bench::settled().find().unwrap() <= 5);
    // Far longer than it takes everybody to fail once.
    for _ in 0..5 {
        it.pass(60, |_, _| true);
        assert_eq!(it.judged().verdict, Verdict::Incident);
    }
    it.pass(30, |_, _| false);
    assert_eq!(it.judged().verdict, Verdict::Incident);
    let before = it.judged().pre.units;
    it.pass(240, |_, _| false);
    assert_ne!(it.judged().verdict, Verdict::Incident);
    assert!(it.judged().pre.units > before + 100, "clients count again");
    assert!(it.judged().ln_worse < 1.0);
    let found = it.find();
    assert!(found.is_some_and(|it| it <= 10), "{found:?}");
}

#[test]
fn after_an_hour_a_defect_is_found_though_everybody_has_had_a_bad_unit() {
    let mut it = Bench::settled();
    // One after the other, in both.
    for client in 0..CLIENTS {
        it.pass(10, |_, other| other == client);
    }
    assert_ne!(it.judged().verdict, Verdict::Incident);
    assert_eq!(it.judged().pre.bad, u64::from(CLIENTS));
    assert_eq!(it.find(), None, "nobody is left who could show it");
    it.pass(3700 - it.seconds, |_, _| false);
    let found = it.find();
    assert!(found.is_some_and(|it| it <= 10), "{found:?}");
}

#[test]
fn those_who_always_fail_do_not_have_the_evidence_begin_anew_again_and_again() {
    let mut it = Bench::settled();
    let fails = |_, client: u32| client.is_multiple_of(20);
    it.pass(2 * 3600, fails);
    let case = it.judge.case(&ServiceName::default()).unwrap();
    let renewed = case.evidence(Concern::Failing).sums();
    assert!(renewed.last().is_some_and(|it| *it <= 2.0), "{renewed:?}");
}

#[test]
fn a_rollout_goes_no_further_while_the_new_version_has_no_server_that_is_up() {
    let mut it = Bench::settled();
    let service = ServiceName::default();
    it.pass(60, |_, _| false);
    assert_eq!(it.judge.opinion(&service).1, Opinion::Good);
    let serving = it.judge.in_force.serving();
    let pre = &serving.default_service().pools()[PoolName::Pre];
    pre.peers()[0].health.check_has_failed(Instant::now());
    let (release, opinion) = it.judge.opinion(&service);
    let why = "no server of pre is up".to_owned();
    assert_eq!(opinion, Opinion::Against(why));
    assert_eq!(release, it.judge.case(&service).unwrap().release());
    pre.peers()[0].health.check_has_succeeded(Instant::now());
    assert_eq!(it.judge.opinion(&service).1, Opinion::Good);
    // Also where there is none of which anything could be known.
    let lists = lists_of(&["1.1.1.1"], &[], &["10.0.0.1:80"]);
    it.judge.in_force.store(lists);
    let why = "no server of pre is up".to_owned();
    assert_eq!(it.judge.opinion(&service).1, Opinion::Against(why));
}

#[test]
fn what_was_found_before_a_reset_and_is_not_told_yet_never_is() {
    let mut it = Bench::settled();
    let service = ServiceName::default();
    // It is not known yet which gateway tells people.
    it.judge.docket().get_mut(&service).unwrap().begun = Some(it.now + Duration::from_secs(3600));
    it.find().unwrap();
    let untold = |it: &Bench| it.judge.docket()[&service].untold.len();
    assert!(untold(&it) > 0);
    let reset = ReleaseReading {
        tripped: StoredText::Absent,
        state: StoredText::Text(br#"{"epoch":"5e7"}"#.to_vec()),
        lost: false,
    };
    it.judge.trips.see(&service, &reset);
    it.pass(1, |_, _| false);
    assert!(it.judged().pre.units < 100, "it has begun anew");
    assert_eq!(untold(&it), 0);
}
