use std::path::Path;

use super::*;
use crate::config::Config;

/// The settings as shipped.
pub(crate) fn rules() -> config::UpstreamSettings {
    let url = Some("redis://127.0.0.1".to_owned());
    Config::parse(Path::new("graygate.ini"), "", url)
        .unwrap()
        .default_service()
        .upstream
        .clone()
}

const REFUSED: Why = Why::Failed(Failure::ConnectRefused);

struct Case {
    health: Health,
    rules: config::UpstreamSettings,
    begun: Instant,
    /// Seconds since then.
    passed: f64,
}

impl Case {
    fn new() -> Self {
        let begun = Instant::now();
        Self {
            health: Health::new(2, Changes::default(), false, begun),
            rules: rules(),
            begun,
            passed: 0.0,
        }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs_f64(self.passed)
    }

    fn fail(&self, times: u32) -> Option<Change> {
        let fail = |_| self.health.failed(0, REFUSED, self.now(), &self.rules, 0.0);
        (0..times).map(fail).last().flatten()
    }

    fn maybe_fail(&self, times: u32) -> Option<Change> {
        let (failure, now) = (Failure::ConnectRefused, self.now());
        let fail = |_| {
            self.health
                .may_have_failed(0, failure, now, &self.rules, 0.0)
        };
        (0..times).map(fail).last().flatten()
    }

    fn succeed(&self) -> Option<Change> {
        self.health.succeeded(1);
        self.health.is_answering(self.now())
    }

    fn begin_trial(&self, may_be_risked: bool) -> Option<Trial> {
        self.health
            .begin_trial(self.now(), may_be_risked, &self.rules)
    }

    fn state(&self) -> PeerState {
        self.health.state(self.now(), &self.rules)
    }

    /// Puts it out and brings it to its trial.
    fn be_tried(&mut self, after: f64) {
        self.passed += after;
        assert!(self.begin_trial(true).is_some(), "{:?}", self.state());
        assert!(matches!(self.state(), PeerState::Trial { .. }));
    }
}

fn out(seconds: u64) -> Option<Change> {
    Some(Change::Out(Duration::from_secs(seconds), REFUSED))
}

#[test]
fn so_many_failures_in_a_row_put_a_peer_out() {
    let case = Case::new();
    assert_eq!(case.fail(2), None);
    assert_eq!(case.succeed(), None);
    assert_eq!(case.fail(2), None, "they were not in a row");
    assert_eq!(case.fail(1), out(10));
    assert!(matches!(case.state(), PeerState::Out { why: REFUSED, .. }));
    assert_eq!(case.fail(5), None, "it is out already");
    assert_eq!(case.succeed(), None, "that was sent before");
    assert!(matches!(case.state(), PeerState::Out { .. }));
}

#[test]
fn more_than_half_of_enough_outcomes_put_a_peer_out() {
    let mut case = Case::new();
    case.rules.max_fails = 1000;
    for _ in 0..9 {
        case.succeed();
        assert_eq!(case.fail(1), None);
    }
    assert_eq!(case.fail(1), None, "too few to tell");
    assert_eq!(case.fail(1), out(10));
}

#[test]
fn half_of_the_outcomes_are_not_most_of_them_and_older_ones_do_not_count() {
    let mut case = Case::new();
    case.rules.max_fails = 1000;
    for _ in 0..100 {
        case.succeed();
        assert_eq!(case.fail(1), None);
    }
    for second in 0..=11 {
        case.passed = f64::from(second);
        case.health.look(case.now());
    }
    assert_eq!(case.fail(19), None, "the ones before are forgotten");
    assert_eq!(case.fail(1), out(10));
}

#[test]
fn what_may_be_the_fault_of_requests_puts_a_peer_out_only_in_a_long_row() {
    let case = Case::new();
    assert_eq!(case.maybe_fail(14), None);
    assert_eq!(case.succeed(), None);
    assert_eq!(case.maybe_fail(14), None, "they were not in a row");
    assert_eq!(case.maybe_fail(1), out(10));
    assert_eq!(case.health.unsure(), 29);
    assert_eq!(case.health.failures(Failure::ConnectRefused), 29);
    assert_eq!(case.health.outcomes().failed, 0);
}

#[test]
fn what_may_be_the_fault_of_requests_leaves_a_trial_to_the_next_one() {
    let mut case = Case::new();
    case.fail(3);
    case.passed = 11.0;
    let trial = case.begin_trial(true).unwrap();
    assert_eq!(case.maybe_fail(15), None);
    case.health.trial_is_void(trial, case.now());
    assert!(case.begin_trial(true).is_some());
}

#[test]
fn a_peer_is_suspect_that_will_be_out_by_all_that_it_is_accused_of() {
    let mut case = Case::new();
    let is_suspect = |case: &Case| case.health.is_suspect(case.rules.max_fails);
    (0..2).for_each(|_| case.health.note_accused());
    case.maybe_fail(14);
    assert!(!is_suspect(&case));
    case.health.note_accused();
    assert!(is_suspect(&case));
    case.health.note_judged();
    assert!(!is_suspect(&case));
    case.health.note_accused();
    case.rules.max_fails = 0;
    assert!(!is_suspect(&case));
}

#[test]
fn no_number_of_failures_puts_a_peer_out_when_that_is_off() {
    let mut case = Case::new();
    case.rules.max_fails = 0;
    assert_eq!(case.fail(1000), None);
    assert_eq!(case.maybe_fail(1000), None);
    assert_eq!(case.state(), PeerState::Up);
}

#[test]
fn one_request_is_the_trial_and_the_peer_starts_slowly_once_it_is_answered() {
    let mut case = Case::new();
    case.fail(3);
    case.passed = 9.9;
    assert!(case.begin_trial(true).is_none());
    case.be_tried(0.2);
    assert!(case.begin_trial(true).is_none(), "there is one");
    assert_eq!(case.succeed(), Some(Change::Back));
    assert!(matches!(case.state(), PeerState::Starting { .. }));
    let share = |case: &Case| case.health.share(case.now(), &case.rules);
    assert!((share(&case) - 0.1).abs() < 0.001);
    case.passed += 5.0;
    assert!((share(&case) - 0.5).abs() < 0.001);
    case.passed += 5.1;
    assert_eq!((case.state(), share(&case)), (PeerState::Up, 1.0));
}

#[test]
fn each_failed_trial_doubles_the_time_up_to_five_minutes() {
    let mut case = Case::new();
    assert_eq!(case.fail(3), out(10));
    let mut pause = 10;
    for expected in [20, 40, 80, 160, 300, 300] {
        case.be_tried(pause as f64 + 0.1);
        assert_eq!(case.fail(1), out(expected));
        pause = expected;
    }
}

#[test]
fn whoever_has_been_well_for_long_begins_anew() {
    let mut case = Case::new();
    case.fail(3);
    case.be_tried(10.1);
    assert_eq!(case.fail(1), out(20));
    case.be_tried(20.1);
    case.succeed();
    case.passed += 30.0;
    assert_eq!(case.fail(3), out(40), "not for long enough");
    case.be_tried(40.1);
    case.succeed();
    case.passed += 100.0;
    assert_eq!(case.fail(3), out(10));
}

#[test]
fn chance_makes_the_time_up_to_a_tenth_longer() {
    let case = Case::new();
    case.fail(2);
    let change = case.health.failed(0, REFUSED, case.now(), &case.rules, 1.0);
    assert_eq!(change, out(11));
}

#[test]
fn a_request_that_must_not_fail_is_the_trial_only_when_no_other_came_for_long() {
    let mut case = Case::new();
    case.fail(3);
    case.passed = 69.0;
    assert!(case.begin_trial(false).is_none());
    case.passed = 70.1;
    assert!(case.begin_trial(false).is_some());
    // In proportion where peers are out for less.
    let mut case = Case::new();
    case.rules.fail_timeout = Duration::from_secs(1);
    case.fail(3);
    case.passed = 6.9;
    assert!(case.begin_trial(false).is_none());
    case.passed = 7.1;
    assert!(case.begin_trial(false).is_some());
}

#[test]
fn one_that_is_asked_though_it_is_out_comes_back_or_goes_out_anew_when_its_time_is_over() {
    let mut case = Case::new();
    case.fail(3);
    case.passed = 9.9;
    assert_eq!((case.succeed(), case.fail(1)), (None, None));
    case.passed = 10.1;
    assert_eq!(case.fail(1), out(20));
    case.passed = 30.2;
    assert_eq!(case.succeed(), Some(Change::Back));
    // Not one whose checks fail.
    let mut case = Case::new();
    case.health.check_has_failed(case.now());
    case.passed = 100.0;
    assert_eq!((case.succeed(), case.fail(1)), (None, None));
}

#[test]
fn responses_that_are_cut_short_in_a_row_put_a_peer_out_though_each_has_a_head() {
    let case = Case::new();
    let cut = |case: &Case| {
        case.health.is_answering(case.now());
        let why = Why::Failed(Failure::ResponseCut);
        let change = case.health.failed(0, why, case.now(), &case.rules, 0.0);
        change.is_some()
    };
    // As a part of all outcomes they do not matter.
    (0..100).for_each(|_| _ = case.succeed());
    assert!((0..14).all(|_| !cut(&case)));
    case.succeed();
    assert!((0..14).all(|_| !cut(&case)));
    assert!(cut(&case));
}

#[test]
fn a_trial_without_an_outcome_is_followed_by_another() {
    let mut case = Case::new();
    case.fail(3);
    case.passed = 10.1;
    let first = case.begin_trial(true).unwrap();
    case.health.trial_is_void(first, case.now());
    case.be_tried(0.1);
    // Whoever had the one before has nothing to do with this one.
    case.health.trial_is_void(first, case.now());
    assert!(matches!(case.state(), PeerState::Trial { .. }));
    case.passed += 59.0;
    assert!(case.begin_trial(true).is_none(), "it may still answer");
    case.be_tried(1.1);
}

#[test]
fn what_is_to_be_checked_first_waits_for_its_check() {
    let begun = Instant::now();
    let health = Health::new(1, Changes::default(), true, begun);
    let rules = rules();
    assert_eq!(health.state(begun, &rules), PeerState::Unchecked);
    assert_eq!(health.check_has_succeeded(begun), Some(Change::Back));
    assert_eq!(health.check_has_succeeded(begun), None);
    assert!(matches!(
        health.state(begun, &rules),
        PeerState::Starting { .. }
    ));
}

#[test]
fn failed_checks_put_a_peer_out_until_they_succeed() {
    let mut case = Case::new();
    let change = case.health.check_has_failed(case.now());
    assert_eq!(change, Some(Change::Out(Duration::ZERO, Why::Check)));
    case.passed = 1000.0;
    assert!(case.begin_trial(true).is_none(), "no request is risked");
    assert_eq!(
        case.health.check_has_succeeded(case.now()),
        Some(Change::Back)
    );
}

#[test]
fn a_check_that_succeeds_does_not_bring_back_whom_requests_have_put_out() {
    let case = Case::new();
    case.fail(3);
    assert_eq!(case.health.check_has_succeeded(case.now()), None);
    assert!(matches!(case.state(), PeerState::Out { .. }));
}

#[test]
fn whom_nobody_has_checked_waits_through_failed_checks() {
    let begun = Instant::now();
    let health = Health::new(1, Changes::default(), true, begun);
    assert_eq!(health.check_has_failed(begun), None);
    assert!(health.is_unchecked());
    assert_eq!(health.check_has_succeeded(begun), Some(Change::Back));
}

#[test]
fn without_checks_nobody_waits_for_one_and_nobody_is_out_by_one() {
    let begun = Instant::now();
    let unchecked = Health::new(1, Changes::default(), true, begun);
    assert_eq!(unchecked.is_not_checked(begun), None);
    assert_eq!(unchecked.state(begun, &rules()), PeerState::Up);
    let mut case = Case::new();
    case.health.check_has_failed(case.now());
    assert_eq!(case.health.is_not_checked(case.now()), Some(Change::Back));
    assert!(matches!(case.state(), PeerState::Starting { .. }));
    // What requests have found out stands.
    case.fail(3);
    case.health.check_has_failed(case.now());
    assert_eq!(case.health.is_not_checked(case.now()), None);
    assert!(matches!(case.state(), PeerState::Out { why: REFUSED, .. }));
    case.be_tried(10.1);
}

#[test]
fn workers_learn_that_a_peer_may_be_tried_again_since_its_checks_succeed() {
    let mut case = Case::new();
    case.fail(3);
    case.health.check_has_failed(case.now());
    case.passed = 20.0;
    assert_eq!(case.health.tried_at(true, &case.rules), None);
    let before = case.health.changes.count();
    assert_eq!(case.health.check_has_succeeded(case.now()), None);
    assert_ne!(case.health.changes.count(), before);
    assert!(case.health.tried_at(true, &case.rules).is_some());
}

#[test]
fn every_reason_survives_its_way_through_the_cell() {
    for why in Failure::ALL
        .iter()
        .map(|it| Why::Failed(*it))
        .chain([Why::Status, Why::Check])
    {
        let mut case = Case::new();
        case.rules.max_fails = 1;
        // A response that is cut does not count in full.
        (0..5).for_each(|_| _ = case.health.failed(0, why, case.now(), &case.rules, 0.0));
        assert!(matches!(case.state(), PeerState::Out { why: found, .. } if found == why));
    }
}

#[test]
fn workers_that_see_a_peer_fail_at_once_put_it_out_once() {
    for _ in 0..50 {
        let health = Health::new(8, Changes::default(), false, Instant::now());
        let rules = rules();
        let changes: usize = std::thread::scope(|scope| {
            let fail = |worker: usize| {
                let (health, rules) = (&health, &rules);
                move || {
                    let fail =
                        |_: usize| health.failed(worker, REFUSED, Instant::now(), rules, 0.0);
                    (0..10).filter_map(fail).count()
                }
            };
            let threads: Vec<_> = (0..8).map(|worker| scope.spawn(fail(worker))).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(changes, 1);
        assert_eq!(health.outcomes().failed, 80);
    }
}

#[test]
fn a_peer_is_warm_once_it_was_asked_for_so_long_without_having_been_out() {
    const TIME: Duration = Duration::from_secs(30);
    let mut case = Case::new();
    let is_warm = |case: &Case| case.health.is_warm(TIME, case.now());
    assert!(!is_warm(&case), "it is new");
    case.passed = 29.9;
    assert!(!is_warm(&case));
    case.passed = 30.0;
    assert!(is_warm(&case));
    case.succeed();
    assert!(is_warm(&case), "that it goes on answering changes nothing");
    case.fail(case.rules.max_fails);
    assert!(case.health.is_out() && !is_warm(&case));
    case.passed = 100.0;
    assert!(case.begin_trial(true).is_some());
    assert!(!is_warm(&case), "it is on trial");
    assert_eq!(case.succeed(), Some(Change::Back));
    assert!(!is_warm(&case), "it is back");
    case.passed = 129.9;
    assert!(!is_warm(&case));
    case.passed = 130.0;
    assert!(is_warm(&case));
    // A check has taken it down, and up again.
    case.health.check_has_failed(case.now());
    assert!(!is_warm(&case));
    case.health.check_has_succeeded(case.now());
    assert!(!is_warm(&case));
    case.passed = 160.0;
    assert!(is_warm(&case));
}
