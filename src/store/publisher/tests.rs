//! The one way for lists into force.

mod services;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::lists::{ByList, PeerList};
use crate::store::copy::{self, KeptLists};
use crate::store::gate::door::{self, Awaited};
use crate::store::gate::guard::{self, HoldReason, Timestamp};
use crate::store::status::ReportedFaults;
use crate::store::{Entries, Fault, Reading, ServiceReading, StoreName};

const RULES: GuardRules = GuardRules {
    share: 50,
    timeout: None,
};

impl Publisher {
    /// Brings what was read into force, as a store's feed does it. An empty list is taken to be meant so.
    fn publish(&self, reading: Reading, cause: Cause) {
        self.publish_watched(reading, ByList::all(Duration::MAX), cause);
    }

    fn publish_watched(
        &self,
        reading: Reading,
        empty_for: ByList<Duration>,
        cause: Cause,
    ) -> Awaited {
        let read = self.parse(vec![ServiceReading {
            empty_for,
            ..ServiceReading::settled(reading)
        }]);
        self.prepare(&read);
        self.publish_parsed(read, cause, Timestamp::now)
    }
}

/// The only service that most of these know.
fn own() -> ServiceName {
    ServiceName::default()
}

fn faults_of(publisher: &Publisher) -> Vec<(ListName, Fault)> {
    publisher.status().of(&own()).faults
}

/// The digest of the change that is held, of several the one at this place.
fn held_digest(publisher: &Publisher, at: usize) -> String {
    publisher.status().of(&own()).held[at].digest.to_string()
}

/// True when nothing is to be looked at again, as a check finds that has read all services.
fn confirms(publisher: &Publisher, cause: Cause) -> bool {
    let services = publisher.services();
    let is_settled = publisher.confirm(&services.iter().collect::<Vec<_>>());
    let are_all = !is_settled.contains(&false);
    if are_all {
        publisher.checked(cause);
    }
    are_all
}

fn texts(entries: &[&str]) -> Result<Entries, Fault> {
    Ok(entries.iter().collect())
}

fn reading(gray: &[&str], pre: &[&str], prod: &[&str]) -> Reading {
    Reading {
        gray: texts(gray),
        pre: texts(pre),
        prod: texts(prod),
    }
}

/// Publishes what was read, where empty lists are found so for the first time. Returns those that are
/// not believed to be.
fn find(publisher: &Publisher, gray: &[&str], pre: &[&str], prod: &[&str]) -> Vec<ListName> {
    emptied_of(&find_after(
        publisher,
        Duration::ZERO,
        reading(gray, pre, prod),
    ))
}

fn emptied_of(awaited: &Awaited) -> Vec<ListName> {
    awaited.emptied.iter().map(|(_, list)| *list).collect()
}

/// As [`find`], at a later time.
fn find_after(publisher: &Publisher, time: Duration, reading: Reading) -> Awaited {
    let first = ByList::all(Duration::ZERO);
    let mut now = Timestamp::now();
    now.instant += time;
    let read = publisher.parse(vec![ServiceReading {
        empty_for: first,
        ..ServiceReading::settled(reading)
    }]);
    publisher.publish_parsed(read, Cause::Event, || now)
}

fn publisher() -> Publisher {
    let lists = Arc::new(InForce::new(1));
    let publisher = Publisher::new(lists, 80, RULES, "test");
    publisher.publish(
        reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]),
        Cause::Start,
    );
    publisher
}

fn in_force(publisher: &Publisher) -> (u64, [usize; 3]) {
    let lists = publisher.lists();
    (lists.generation, ListName::ALL.map(|list| lists.len(list)))
}

fn held(publisher: &Publisher) -> Vec<(ListName, HoldReason)> {
    let held = publisher.status().of(&own()).held.into_iter();
    held.map(|it| (it.list, it.reason)).collect()
}

#[test]
fn a_change_is_a_new_generation_and_the_same_lists_are_not() {
    let publisher = publisher();
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    publisher.publish(
        reading(&["1.1.1.1"], &[" 2.2.2.2"], &["3.3.3.3"]),
        Cause::Check,
    );
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    publisher.publish(reading(&[], &["2.2.2.2"], &["3.3.3.3"]), Cause::Event);
    assert_eq!(in_force(&publisher), (2, [0, 1, 1]));
    assert_eq!(publisher.status().refreshes, [1, 1, 1, 0, 0, 0]);
}

#[test]
fn a_list_that_cannot_be_accepted_keeps_its_value_and_the_others_change() {
    let publisher = publisher();
    publisher.publish(reading(&[], &["garbage!"], &[]), Cause::Event);
    assert_eq!(in_force(&publisher), (2, [0, 1, 1]));
    let faults = faults_of(&publisher);
    assert_eq!(faults, [(ListName::Pre, Fault::AllSkipped)]);
    assert_eq!(
        held(&publisher),
        [(ListName::Prod, HoldReason::EmptiesProd)]
    );
    assert_eq!(publisher.lists().skipped(ListName::Pre).count, 1);
    let wrong = Reading {
        gray: Err(Fault::WrongType),
        ..reading(&[], &[], &["3.3.3.3", "4.4.4.4"])
    };
    publisher.publish(wrong, Cause::Event);
    assert_eq!(in_force(&publisher), (3, [0, 0, 2]));
    assert_eq!(faults_of(&publisher), [(ListName::Gray, Fault::WrongType)]);
    assert_eq!(held(&publisher), []);
}

#[test]
fn skipped_entries_are_told_without_a_new_generation() {
    let publisher = publisher();
    let garbage = reading(&["1.1.1.1", "x"], &["2.2.2.2"], &["3.3.3.3"]);
    publisher.publish(garbage, Cause::Event);
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    assert_eq!(publisher.lists().skipped(ListName::Gray).count, 1);
}

#[test]
fn whoever_sees_new_lists_sees_what_is_held_and_kept_beside_them() {
    let publisher = publisher();
    let plain = || reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]);
    let held = || reading(&["5.5.5.5"], &["2.2.2.2"], &[]);
    let kept = || Reading {
        pre: Err(Fault::WrongType),
        ..reading(&["6.6.6.6"], &[], &["3.3.3.3"])
    };
    let is_over = AtomicBool::new(false);
    let look = || {
        let (lists, beside) = publisher.lists_with(&own(), |status| {
            let of_service = status.of(&own());
            (of_service.held.len(), of_service.faults.len())
        });
        let grays: Vec<String> = lists.gray.entries().map(|it| it.to_string()).collect();
        (grays.concat(), beside)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                for reading in [plain(), held(), kept(), held()] {
                    publisher.publish(reading, Cause::Event);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            let (gray, beside) = look();
            let expected = match &*gray {
                "1.1.1.1" => (0, 0),
                "5.5.5.5" => (1, 0),
                _ => (0, 1),
            };
            assert_eq!(beside, expected, "{gray}");
        }
    });
}

#[test]
fn a_failure_keeps_the_lists_and_is_forgotten_after_a_success() {
    let publisher = publisher();
    publisher.failed("gone");
    publisher.failed("gone");
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    let status = publisher.status();
    assert_eq!(
        (status.error.as_deref(), status.failures),
        (Some("gone"), 2)
    );
    publisher.publish(reading(&[], &["2.2.2.2"], &["3.3.3.3"]), Cause::Reconnect);
    assert_eq!(publisher.status().error, None);
}

/// The moment `after` this time, by both clocks.
fn later(after: Duration) -> Timestamp {
    let now = Timestamp::now();
    Timestamp {
        instant: now.instant + after,
        time: now.time + after,
    }
}

/// Lets in what is ripe `after` this time.
fn let_in_ripe(publisher: &Publisher, after: Duration) {
    let mut entrance = publisher.locked_entrance();
    publisher.let_in_ripe(&mut entrance, &own(), later(after));
}

#[test]
fn what_is_held_of_a_store_that_cannot_be_read_stays_held_and_can_be_accepted() {
    let publisher = publisher();
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    publisher.set_rules(GuardRules {
        timeout: Some(minute),
        ..RULES
    });
    let emptied = || reading(&["1.1.1.1"], &["2.2.2.2"], &[]);
    publisher.publish(emptied(), Cause::Event);
    let before = held(&publisher);
    assert_eq!(before, [(ListName::Prod, HoldReason::EmptiesProd)]);
    publisher.failed("gone");
    let_in_ripe(&publisher, hour);
    assert_eq!(
        (in_force(&publisher), held(&publisher)),
        ((1, [1, 1, 1]), before)
    );
    publisher.publish(emptied(), Cause::Reconnect);
    let_in_ripe(&publisher, minute / 2);
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    publisher.failed("gone");
    let digest = held_digest(&publisher, 0);
    publisher.accept(&digest, By::Command).unwrap();
    assert_eq!(in_force(&publisher), (2, [1, 1, 0]));

    publisher.publish(
        reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]),
        Cause::Event,
    );
    publisher.publish(emptied(), Cause::Event);
    let_in_ripe(&publisher, minute);
    assert_eq!(
        in_force(&publisher),
        (4, [1, 1, 0]),
        "while it is read, time counts"
    );
}

#[test]
fn what_the_store_does_not_tell_is_not_accepted_and_what_waits_for_others_is() {
    let other = |prod| Reading {
        prod,
        ..reading(&["1.1.1.1"], &["2.2.2.2"], &[])
    };
    let untold = [texts(&["x"]), Err(Fault::WrongType), texts(&[])];
    for prod in untold {
        let publisher = publisher();
        publisher.publish(other(texts(&["9.9.9.9"])), Cause::Event);
        let digest = held_digest(&publisher, 0);
        let shown = format!("{prod:?}");
        let first = ByList::all(Duration::ZERO);
        publisher.publish_watched(other(prod), first, Cause::Event);
        let outcome = publisher.accept(&digest, By::Command);
        assert!(outcome.is_err(), "{shown}");
    }
    let publisher = publisher();
    for pre in [&["2.2.2.2"][..], &[]] {
        find(&publisher, &["1.1.1.1"], pre, &["9.9.9.9"]);
    }
    let (pre, unsettled) = (ListName::Pre, Fault::Unsettled);
    assert_eq!(faults_of(&publisher), [(pre, unsettled)]);
    let digest = held_digest(&publisher, 0);
    publisher.accept(&digest, By::Command).unwrap();
    assert_eq!(publisher.lists().prod.peers()[0].to_string(), "9.9.9.9:80");
    assert_eq!(faults_of(&publisher), [(pre, unsettled)]);
}

#[test]
fn what_is_read_again_is_confirmed_only_if_all_of_it_is_in_force() {
    let lists = Arc::new(InForce::new(1));
    assert!(!confirms(
        &Publisher::new(lists, 80, RULES, "test"),
        Cause::Start
    ));
    let publisher = publisher();
    assert!(confirms(&publisher, Cause::Check));
    assert_eq!(publisher.status().refreshes, [1, 0, 1, 0, 0, 0]);
    let good = || reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]);
    let everybody = reading(&["0.0.0.0/0"], &["2.2.2.2"], &["3.3.3.3"]);
    let garbage = reading(&["1.1.1.1"], &["x!"], &["3.3.3.3"]);
    let emptied = reading(&["1.1.1.1"], &["2.2.2.2"], &[]);
    for doubtful in [everybody, garbage, emptied] {
        let first = ByList::all(Duration::ZERO);
        publisher.publish_watched(doubtful, first, Cause::Event);
        let before = publisher.status().refreshes;
        assert!(!confirms(&publisher, Cause::Check));
        assert_eq!(publisher.status().refreshes, before);
        publisher.publish(good(), Cause::Event);
        assert!(confirms(&publisher, Cause::Check));
    }
    publisher.failed("gone");
    assert!(confirms(&publisher, Cause::Reconnect));
    assert_eq!(publisher.status().error, None);
    assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
}

#[test]
fn lists_that_come_with_a_prod_that_is_yet_to_settle_wait_for_it() {
    let publisher = publisher();
    let both = |gray: &str| reading(&[gray], &["2.2.2.2"], &["3.3.3.3", "4.4.4.4"]);
    publisher.publish(both("1.1.1.1"), Cause::Event);
    let trouble = Reading {
        prod: Err(Fault::WrongType),
        ..both("1.1.1.1")
    };
    publisher.publish(trouble, Cause::Event);
    let before = publisher.lists();
    // Behind trouble, one that lacks a peer has to stand for a moment.
    publisher.publish(
        reading(&["5.5.5.5"], &["6.6.6.6"], &["3.3.3.3"]),
        Cause::Event,
    );
    assert_eq!(publisher.lists().digest, before.digest);
    let_in_ripe(&publisher, Duration::from_secs(60));
    let lists = publisher.lists();
    let peers = |list: &PeerList| list.written()[0].to_string();
    assert_eq!(lists.gray.entries().collect::<Vec<_>>(), ["5.5.5.5"]);
    assert_eq!(
        (peers(&lists.pre), peers(&lists.prod)),
        ("6.6.6.6".into(), "3.3.3.3".into())
    );
    assert_eq!(lists.generation, before.generation + 1);
}

/// A publisher whose `prod` has lost a peer behind trouble, and is yet to settle.
fn settling(gray: &[&str], pre: &[&str]) -> Publisher {
    let publisher = publisher();
    let both = || reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3", "4.4.4.4"]);
    publisher.publish(both(), Cause::Event);
    let trouble = Reading {
        prod: Err(Fault::WrongType),
        ..both()
    };
    publisher.publish(trouble, Cause::Event);
    publisher.publish(reading(gray, pre, &["3.3.3.3"]), Cause::Event);
    publisher
}

fn grays(publisher: &Publisher) -> Vec<String> {
    let lists = publisher.lists();
    lists.gray.entries().map(|it| it.to_string()).collect()
}

#[test]
fn what_is_withheld_for_prod_is_told_and_comes_in_without_it_after_a_bound() {
    let publisher = settling(&["5.5.5.5"], &["2.2.2.2"]);
    let (gray, prod) = (ListName::Gray, ListName::Prod);
    let withheld = (gray, Fault::Withheld);
    assert_eq!(faults_of(&publisher), [withheld, (prod, Fault::Unsettled)]);
    // Again and again it is not told: it never settles.
    let start = Instant::now();
    let emptied = || reading(&["5.5.5.5"], &["2.2.2.2"], &[]);
    let awaited = find_after(&publisher, Duration::ZERO, emptied());
    assert_eq!(emptied_of(&awaited), [prod]);
    let until = awaited.until.unwrap() - start;
    assert!(until <= door::MOST_WITHHELD, "{until:?}");
    let_in_ripe(&publisher, Duration::ZERO);
    assert_eq!(grays(&publisher), ["1.1.1.1"], "{:?}", start.elapsed());
    // Only a reading tells whether it is still empty.
    let_in_ripe(&publisher, MINUTE);
    assert_eq!(grays(&publisher), ["1.1.1.1"]);
    let awaited = find_after(&publisher, door::MOST_WITHHELD, emptied());
    assert_eq!((emptied_of(&awaited), awaited.until), (vec![prod], None));
    assert_eq!(grays(&publisher), ["5.5.5.5"]);
    assert_eq!(in_force(&publisher).1, [1, 1, 2]);
    assert_eq!(faults_of(&publisher), [(prod, Fault::Unsettled)]);
}

#[test]
fn what_is_withheld_for_prod_does_not_come_in_from_a_store_that_nobody_sees() {
    let publisher = settling(&["5.5.5.5"], &["2.2.2.2"]);
    publisher.failed("gone");
    let_in_ripe(&publisher, 2 * door::MOST_WITHHELD);
    assert_eq!(grays(&publisher), ["1.1.1.1"]);
    assert_eq!(in_force(&publisher).1, [1, 1, 2]);
}

#[test]
fn the_bound_of_what_is_withheld_begins_anew_with_a_store_that_is_seen_again() {
    let publisher = settling(&["5.5.5.5"], &["2.2.2.2"]);
    let mut later = Timestamp::now();
    later.instant += 2 * door::MOST_WITHHELD;
    publisher.failed("gone");
    let mut entrance = publisher.locked_entrance();
    let read = door::parse(reading(&["6.6.6.6"], &["2.2.2.2"], &["3.3.3.3"]), 80, &[]);
    let current = publisher.lists();
    let first = ByList::all(Duration::ZERO);
    let new = entrance
        .get_mut(&own())
        .unwrap()
        .door
        .judge(&current, read, (first, None), later);
    assert_eq!(new.gray.digest(), current.gray.digest());
    let faults = entrance.get_mut(&own()).unwrap().door.faults();
    assert!(
        faults.contains(&(ListName::Gray, Fault::Withheld)),
        "{faults:?}"
    );
}

#[test]
fn a_reading_that_was_long_on_its_way_does_not_end_the_wait() {
    let publisher = publisher();
    let change = || reading(&["5.5.5.5"], &[], &["3.3.3.3"]);
    let first = ByList::all(Duration::ZERO);
    let asked_at = |asked: Instant, come: Instant| {
        let read = publisher.parse(vec![ServiceReading {
            empty_for: first,
            asked: Some(asked),
            ..ServiceReading::settled(change())
        }]);
        let now = Timestamp {
            instant: come,
            ..Timestamp::now()
        };
        publisher.publish_parsed(read, Cause::Event, || now);
        grays(&publisher).concat()
    };
    let begun = Instant::now();
    let bound = begun + door::MOST_WITHHELD;
    assert_eq!(asked_at(begun, begun), "1.1.1.1");
    let before = bound.checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(asked_at(before, begun + 2 * door::MOST_WITHHELD), "1.1.1.1");
    assert_eq!(asked_at(bound, bound), "5.5.5.5");
}

#[test]
fn a_prod_that_never_settles_does_not_keep_the_others_from_changing_after_the_bound() {
    let publisher = settling(&["5.5.5.5"], &["2.2.2.2"]);
    let mut now = Timestamp::now();
    now.instant += door::MOST_WITHHELD;
    let judge = |prod: &[&str], gray: &str, now| {
        let mut entrance = publisher.locked_entrance();
        let read = door::parse(reading(&[gray], &["2.2.2.2"], prod), 80, &[]);
        let first = ByList::all(Duration::ZERO);
        let new = entrance.get_mut(&own()).unwrap().door.judge(
            &publisher.lists(),
            read,
            (first, None),
            now,
        );
        let entries: Vec<_> = new.gray.entries().map(|it| it.to_string()).collect();
        (entries.concat(), new.prod.peers().len())
    };
    // It is found empty, and half, and empty: the count goes on meanwhile.
    judge(&[], "5.5.5.5", Timestamp::now());
    let (half, whole) = (["3.3.3.3"], ["3.3.3.3", "4.4.4.4"]);
    for (prod, gray, in_force) in [
        (&half[..], "6.6.6.6", "6.6.6.6"),
        (&half, "7.7.7.7", "7.7.7.7"),
        (&[], "7.7.7.7", "7.7.7.7"),
        // Once it was whole, the next time counts for itself.
        (&whole, "7.7.7.7", "7.7.7.7"),
        (&[], "7.7.7.7", "1.1.1.1"),
        (&half, "8.8.8.8", "1.1.1.1"),
    ] {
        assert_eq!(judge(prod, gray, now), (in_force.to_owned(), 2), "{prod:?}");
    }
}

#[test]
fn emptying_gray_does_not_wait_for_prod() {
    let publisher = settling(&[], &["9.9.9.9"]);
    assert_eq!(in_force(&publisher).1, [0, 1, 2]);
    assert_eq!(publisher.lists().pre.peers()[0].to_string(), "9.9.9.9:80");
    let faults = faults_of(&publisher);
    assert_eq!(faults, [(ListName::Prod, Fault::Unsettled)]);
}

#[test]
fn a_gray_that_is_accepted_while_prod_settles_drops_nothing_of_what_came_with_it() {
    let publisher = settling(&["1.1.1.1", "0.0.0.0/0"], &["9.9.9.9"]);
    let pre = || publisher.lists().pre.peers()[0].to_string();
    let digest = held_digest(&publisher, 0);
    publisher.accept(&digest, By::Command).unwrap();
    assert_eq!(
        (in_force(&publisher).1, pre()),
        ([2, 1, 2], "2.2.2.2:80".into())
    );
    let_in_ripe(&publisher, guard::SETTLE);
    assert_eq!(
        (in_force(&publisher).1, pre()),
        ([2, 1, 1], "9.9.9.9:80".into())
    );
    assert_eq!(faults_of(&publisher), []);
}

const MINUTE: Duration = Duration::from_secs(60);

/// The peers of a `prod` in force.
fn prods(publisher: &Publisher) -> Vec<String> {
    let lists = publisher.lists();
    lists
        .prod
        .written()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_held_change_that_the_store_takes_back_with_another_list_that_waits_is_forgotten() {
    let table: [(&[&str], &[&str]); 3] = [
        // All of `prod` was lost, or too much; or everybody was gray.
        (&["1.1.1.1"], &[]),
        (&["1.1.1.1"], &["9.9.9.9"]),
        (&["1.1.1.1", "0.0.0.0/0"], &["3.3.3.3"]),
    ];
    for (gray, prod) in table {
        let publisher = publisher();
        let timeout = Some(MINUTE);
        publisher.set_rules(GuardRules { timeout, ..RULES });
        publisher.publish(reading(gray, &["2.2.2.2"], prod), Cause::Event);
        let digest = held_digest(&publisher, 0);
        let emptied = find(&publisher, &["1.1.1.1"], &[], &["3.3.3.3"]);
        assert_eq!((emptied, held(&publisher)), (vec![ListName::Pre], vec![]));
        publisher.accept(&digest, By::Key).unwrap_err();
        let_in_ripe(&publisher, 2 * MINUTE);
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]), "{gray:?} {prod:?}");
    }
}

#[test]
fn the_time_of_a_held_change_goes_on_while_the_store_has_it_with_another_list_that_waits() {
    let publisher = publisher();
    let timeout = Some(MINUTE);
    publisher.set_rules(GuardRules { timeout, ..RULES });
    find(&publisher, &["1.1.1.1"], &["2.2.2.2"], &["9.9.9.9"]);
    find(&publisher, &["5.5.5.5"], &[], &["9.9.9.9"]);
    let before = ripe_at(&publisher);
    find(&publisher, &["5.5.5.5"], &[], &["9.9.9.9"]);
    assert_eq!(ripe_at(&publisher), before);
    // It comes alone, as it was held alone.
    let digest = held_digest(&publisher, 0);
    publisher.accept(&digest, By::Command).unwrap();
    assert_eq!(
        (grays(&publisher), prods(&publisher)),
        (vec!["1.1.1.1".into()], vec!["9.9.9.9".into()])
    );
    publisher.publish(reading(&["5.5.5.5"], &[], &["9.9.9.9"]), Cause::Event);
    assert_eq!(
        (grays(&publisher), in_force(&publisher).1),
        (vec!["5.5.5.5".into()], [1, 0, 1])
    );
}

#[test]
fn what_is_taken_back_while_it_waits_never_comes_into_force() {
    let publisher = settling(&["5.5.5.5"], &["9.9.9.9"]);
    let before = publisher.lists();
    find(&publisher, &["1.1.1.1"], &[], &["3.3.3.3", "4.4.4.4"]);
    assert_eq!(faults_of(&publisher), [(ListName::Pre, Fault::Unsettled)]);
    let_in_ripe(&publisher, MINUTE);
    assert_eq!(publisher.lists().digest, before.digest);
    // And what has been read in its place does, with the others.
    find(
        &publisher,
        &["6.6.6.6"],
        &[],
        &["3.3.3.3", "4.4.4.4", "5.5.5.5"],
    );
    assert_eq!(publisher.lists().digest, before.digest);
    find(
        &publisher,
        &["7.7.7.7"],
        &["2.2.2.2"],
        &["3.3.3.3", "4.4.4.4", "6.6.6.6"],
    );
    assert_eq!(
        (grays(&publisher), prods(&publisher).len()),
        (vec!["7.7.7.7".into()], 3)
    );
}

#[test]
fn a_prod_that_has_stood_waits_for_what_was_found_empty_with_it_up_to_a_bound() {
    let publisher = settling(&["5.5.5.5"], &[]);
    find(&publisher, &["5.5.5.5"], &[], &["3.3.3.3"]);
    let [gray, pre, prod] = ListName::ALL;
    let unsettled = (pre, Fault::Unsettled);
    let all = [(gray, Fault::Withheld), unsettled, (prod, Fault::Unsettled)];
    assert_eq!(faults_of(&publisher), all);
    let_in_ripe(&publisher, guard::SETTLE);
    assert_eq!(
        (in_force(&publisher).1, faults_of(&publisher)),
        ([1, 1, 2], all.into())
    );
    // Only a reading tells that it is still empty, and comes in time.
    let_in_ripe(&publisher, MINUTE);
    assert_eq!(faults_of(&publisher), all);
    let read = reading(&["5.5.5.5"], &[], &["3.3.3.3"]);
    find_after(&publisher, door::MOST_WITHHELD, read);
    // What was found empty is still what nobody believes.
    assert_eq!(
        (in_force(&publisher).1, faults_of(&publisher)),
        ([1, 1, 1], vec![unsettled])
    );
    assert_eq!(grays(&publisher), ["5.5.5.5"]);
}

#[test]
fn a_transaction_that_empties_a_list_comes_into_force_as_a_whole_or_after_a_bound() {
    let all = [
        (ListName::Gray, Fault::Withheld),
        (ListName::Pre, Fault::Unsettled),
        (ListName::Prod, Fault::Withheld),
    ];
    for is_settled in [true, false] {
        let publisher = publisher();
        find(&publisher, &["5.5.5.5"], &[], &["3.3.3.3", "4.4.4.4"]);
        assert_eq!(
            (in_force(&publisher), faults_of(&publisher)),
            ((1, [1, 1, 1]), all.into())
        );
        let same = reading(&["5.5.5.5"], &[], &["3.3.3.3", "4.4.4.4"]);
        match is_settled {
            true => publisher.publish(same, Cause::Event),
            false => drop(find_after(&publisher, door::MOST_WITHHELD, same)),
        }
        let (pre, faults) = match is_settled {
            true => (0, vec![]),
            false => (1, vec![all[1]]),
        };
        assert_eq!(
            (in_force(&publisher), faults_of(&publisher)),
            ((2, [1, pre, 2]), faults)
        );
        assert_eq!(grays(&publisher), ["5.5.5.5"]);
    }
}

#[test]
fn a_rollback_waits_for_no_list_that_was_found_empty_with_it() {
    let publisher = publisher();
    // Empty for long enough for `gray`, and not for `pre`.
    let a_moment = ByList::all(Duration::from_millis(20));
    let rollback = reading(&[], &[], &["3.3.3.3", "4.4.4.4"]);
    let awaited = publisher.publish_watched(rollback, a_moment, Cause::Event);
    let emptied = emptied_of(&awaited);
    assert_eq!(
        (emptied, in_force(&publisher).1),
        (vec![ListName::Pre], [0, 1, 2])
    );
    let emptied = find(&publisher, &["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]);
    assert_eq!((emptied, in_force(&publisher).1), (vec![], [1, 1, 1]));
    let emptied = find(&publisher, &[], &["2.2.2.2"], &["3.3.3.3"]);
    assert_eq!(
        (emptied, in_force(&publisher).1),
        (vec![ListName::Gray], [1, 1, 1])
    );
}

fn ripe_at(publisher: &Publisher) -> Option<Instant> {
    let entrance = publisher.locked_entrance();
    entrance.get(&own()).unwrap().door.ripe_at()
}

fn owes(publisher: &Publisher) -> bool {
    let entrance = publisher.locked_entrance();
    entrance.get(&own()).unwrap().reported.owes()
}

/// A publisher with the copy at `path`, which may be used up to this age.
fn with_copy(path: &Path, max_age: Option<Duration>) -> Publisher {
    let lists = Arc::new(InForce::new(1));
    let publisher = Publisher::new(lists, 80, RULES, "test");
    let purpose = copy::Purpose {
        store: store(),
        ports: 80.into(),
        max_age,
        config: "/etc/graygate.ini".into(),
        succeeds: false,
    };
    publisher.with_copy(path, purpose).unwrap()
}

fn store() -> StoreName {
    StoreName::of_file(Path::new("/lists"))
}

#[test]
fn a_copy_that_is_too_old_is_compared_with_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let hour = Duration::from_secs(3600);
    let write = || {
        let written = SystemTime::now() - 2 * hour;
        let text = copy::render(
            &KeptLists::from(publisher().lists()),
            &[],
            &store(),
            written,
        );
        copy::write(&path, &text).unwrap();
    };
    for (max_age, used) in [(Some(hour), false), (Some(3 * hour), true), (None, true)] {
        write();
        let publisher = with_copy(&path, max_age);
        publisher.use_copy();
        assert_eq!(publisher.lists().are_read(), used, "{max_age:?}");
        publisher.publish(reading(&[], &["9.9.9.9"], &["8.8.8.8"]), Cause::Start);
        // What is held keeps the value that it has in the copy: there is no other.
        let lists = publisher.lists();
        let first = |list: &PeerList| list.peers()[0].to_string();
        assert_eq!(
            (first(&lists.pre), first(&lists.prod)),
            ("9.9.9.9:80".into(), "3.3.3.3:80".into())
        );
        assert_eq!(
            held(&publisher),
            [(ListName::Prod, HoldReason::RemovesPeers)]
        );
        publisher.end();
    }
}

#[test]
fn lists_that_are_confirmed_renew_the_time_of_their_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let publisher = with_copy(&path, None);
    let lists = || reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]);
    publisher.publish(lists(), Cause::Start);
    let mut first = None;
    while first.is_none() {
        first = copy::read(&path, 80).unwrap();
        std::thread::yield_now();
    }
    let written = first.unwrap().written;
    while SystemTime::now() < written + Duration::from_millis(2) {
        std::thread::yield_now();
    }
    assert!(confirms(&publisher, Cause::Check));
    publisher.end();
    assert!(copy::read(&path, 80).unwrap().unwrap().written > written);
}

#[test]
fn without_anything_to_compare_with_nothing_is_held() {
    let lists = Arc::new(InForce::new(1));
    let publisher = Publisher::new(lists, 80, RULES, "test");
    publisher.publish(reading(&["0.0.0.0/0"], &[], &[]), Cause::Start);
    assert_eq!(in_force(&publisher), (1, [1, 0, 0]));
    assert_eq!(held(&publisher), []);
    publisher.publish(reading(&[], &[], &["1.1.1.1"]), Cause::Event);
    assert_eq!(in_force(&publisher), (2, [0, 0, 1]));
}

#[test]
fn the_first_lists_begin_no_burst() {
    let lists = Arc::new(InForce::new(1));
    let publisher = Publisher::new(lists, 80, RULES, "test");
    let all = ["3.3.3.1", "3.3.3.2", "3.3.3.3", "3.3.3.4"];
    // One by one: the third is more than half of what there was.
    for (left, in_force) in [(4, 4), (3, 3), (2, 2), (1, 2)] {
        find(&publisher, &[], &["2.2.2.2"], &all[..left]);
        assert_eq!(prods(&publisher).len(), in_force, "{left}");
    }
    assert_eq!(
        held(&publisher),
        [(ListName::Prod, HoldReason::RemovesPeers)]
    );
}

#[test]
fn what_is_held_of_one_list_changes_nothing_for_the_others_and_is_accepted_alone() {
    let publisher = publisher();
    let change = || reading(&["0.0.0.0/0", "1.1.1.1"], &[], &["9.9.9.9"]);
    publisher.publish(change(), Cause::Event);
    assert_eq!(in_force(&publisher), (2, [1, 0, 1]));
    let both = [
        (ListName::Gray, HoldReason::AdmitsEverybody),
        (ListName::Prod, HoldReason::RemovesPeers),
    ];
    assert_eq!(held(&publisher), both);
    let wrong = publisher.accept("0000000000000000", By::Command);
    assert_eq!(wrong.unwrap_err().len(), 2);
    let digest = held_digest(&publisher, 1);
    let accepted = publisher.accept(&digest, By::Key).unwrap();
    assert_eq!((accepted.list, accepted.generation), (ListName::Prod, 3));
    assert_eq!(held(&publisher), both[..1]);
    publisher.publish(change(), Cause::Check);
    assert_eq!(in_force(&publisher), (3, [1, 0, 1]));
    assert_eq!(publisher.lists().prod.peers()[0].to_string(), "9.9.9.9:80");
    let refreshes = publisher.status().refreshes;
    assert_eq!(refreshes, [1, 1, 1, 0, 0, 1]);
}

#[test]
fn what_the_log_is_owed_is_told_with_a_later_reading_that_finds_the_same() {
    let publisher = publisher();
    let garbage = |at: usize| {
        let entry = format!("garbage {at}");
        reading(&["1.1.1.1", &entry], &["2.2.2.2"], &["3.3.3.3"])
    };
    // More than is reported in a second.
    for at in 0..50 {
        publisher.publish(garbage(at), Cause::Event);
    }
    assert!(owes(&publisher));
    assert!(
        !confirms(&publisher, Cause::Check),
        "there is something to tell"
    );
    let mut entrance = publisher.locked_entrance();
    let later = Instant::now() + Duration::from_secs(1);
    let (lists, intake) = (publisher.lists(), entrance.get_mut(&own()).unwrap());
    intake
        .reported
        .tell(&lists, &publisher.findings(&lists), later);
    drop(entrance);
    assert!(!owes(&publisher));
    assert!(confirms(&publisher, Cause::Check));
}

#[test]
fn faults_that_come_and_go_are_told_ten_times_a_second_and_at_last() {
    let (mut told, now) = (ReportedFaults::default(), Instant::now());
    let kept = [(ListName::Pre, Fault::WrongType)];
    for _ in 0..50 {
        told.tell(&own(), &kept, now);
        told.tell(&own(), &[], now);
    }
    told.tell(&own(), &kept, now);
    assert!(!told.knows(kept[0]), "ten were told");
    // Of each fault for itself.
    told.tell(&own(), &[(ListName::Pre, Fault::AllSkipped)], now);
    assert!(told.knows((ListName::Pre, Fault::AllSkipped)));
    told.tell(&own(), &kept, now + Duration::from_secs(1));
    assert!(told.knows(kept[0]));
}
