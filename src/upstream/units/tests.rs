use super::*;

use std::time::Duration;

const PRE: usize = PoolName::Pre as usize;
const PROD: usize = PoolName::Prod as usize;

fn units() -> Units {
    let units = Units::new(2, 0);
    units.begin(7);
    units
}

/// Many clients have been served by `pre`.
fn units_of_many() -> Units {
    let units = units();
    (1..=5).for_each(|it| units.pre_clients.note(it));
    units.look(Instant::now());
    assert_eq!(units.pre_clients(), PreClients::Many);
    units
}

/// A request of the client ends at `pool`.
fn ends(units: &Units, client: u32, pool: PoolName, is_bad: bool) {
    let mut unit = units.unit(&client.to_be_bytes(), pool).unwrap();
    unit.attempt_has_ended(pool, is_bad);
    units.count(client as usize % 2, &unit);
}

fn count(units: u32, bad: u32) -> UnitCount {
    UnitCount { units, bad }
}

#[test]
fn what_has_come_between_two_looks_is_a_block() {
    let (units, mut seen) = (units(), SeenUnits::default());
    let nothing = UnitCounts::default();
    ends(&units, 1, PoolName::Pre, false);
    assert_eq!(
        units.take(&mut seen),
        nothing,
        "the first look has no begin"
    );
    ends(&units, 2, PoolName::Pre, false);
    ends(&units, 3, PoolName::Pre, true);
    ends(&units, 4, PoolName::Prod, false);
    let block = units.take(&mut seen);
    assert_eq!(block.units, [count(2, 1), count(1, 0)]);
    assert_eq!(units.take(&mut seen), nothing);
}

#[test]
fn counts_go_round_and_blocks_do_not_mind() {
    let (units, mut seen) = (units(), SeenUnits::default());
    units.workers[1].units[PRE]
        .0
        .store(u64::MAX, Ordering::Relaxed);
    units.take(&mut seen);
    ends(&units, 1, PoolName::Pre, true);
    assert_eq!(units.counts().units[PRE], count(0, 0));
    assert_eq!(units.take(&mut seen).units[PRE], count(1, 1));
}

#[test]
fn a_client_counts_until_its_first_bad_unit_in_whichever_pool() {
    use PoolName::{Pre, Prod};
    let (units, mut seen) = (units_of_many(), SeenUnits::default());
    units.take(&mut seen);
    ends(&units, 1, Pre, false);
    ends(&units, 1, Pre, true);
    ends(&units, 1, Pre, true);
    ends(&units, 1, Pre, false);
    ends(&units, 1, Prod, false);
    ends(&units, 2, Prod, true);
    ends(&units, 2, Pre, true);
    ends(&units, 3, Pre, false);
    let block = units.take(&mut seen);
    assert_eq!(block.units, [count(3, 1), count(1, 1)]);
    // What is left out of it is known, too.
    assert_eq!(block.left_out, [count(3, 2), count(1, 0)]);
}

#[test]
fn of_requests_of_a_client_that_are_under_way_together_one_bad_one_counts() {
    let (units, mut seen) = (units_of_many(), SeenUnits::default());
    units.take(&mut seen);
    let unit = || units.unit(b"client", PoolName::Pre).unwrap();
    let mut together = [unit(), unit(), unit()];
    for unit in &mut together[..2] {
        unit.attempt_has_ended(PoolName::Pre, true);
    }
    together[2].attempt_has_ended(PoolName::Pre, false);
    together.iter().for_each(|it| units.count(0, it));
    assert_eq!(units.take(&mut seen).units[PRE], count(1, 1));
}

#[test]
fn where_pre_has_few_clients_ten_bad_units_of_each_count() {
    let (units, mut seen) = (units(), SeenUnits::default());
    units.take(&mut seen);
    (0..20).for_each(|_| ends(&units, 1, PoolName::Pre, true));
    (0..20).for_each(|_| ends(&units, 2, PoolName::Prod, true));
    ends(&units, 1, PoolName::Pre, false);
    let block = units.take(&mut seen);
    assert_eq!(block.units, [count(10, 10), count(10, 10)]);
    assert_eq!(units.pre_clients(), PreClients::Few(1));
    // Of prod there may be as many as there are.
    assert_eq!(units.bad_clients().len(), 1);
    (3..=6).for_each(|it| ends(&units, it, PoolName::Pre, false));
    assert_eq!(units.pre_clients(), PreClients::Many);
    units.look(Instant::now());
    (0..20).for_each(|_| ends(&units, 7, PoolName::Pre, true));
    assert_eq!(units.take(&mut seen).units[PRE], count(5, 1));
}

#[test]
fn all_clients_count_again_when_all_begins_anew_and_what_was_under_way_does_not() {
    let (units, mut seen) = (units_of_many(), SeenUnits::default());
    ends(&units, 1, PoolName::Pre, true);
    assert_eq!(units.bad_clients().len(), 1);
    let mut under_way = units.unit(b"2", PoolName::Pre).unwrap();
    under_way.attempt_has_ended(PoolName::Pre, true);
    units.take(&mut seen);
    units.begin(7);
    units.count(0, &under_way);
    ends(&units, 1, PoolName::Pre, true);
    assert_eq!(
        units.take(&mut seen),
        UnitCounts::default(),
        "no block is of both"
    );
    assert_eq!(units.bad_clients().len(), 1);
    ends(&units, 3, PoolName::Pre, true);
    assert_eq!(units.take(&mut seen).units[PRE], count(1, 1));
    // The same release: its clients are known.
    assert_eq!(units.pre_clients(), PreClients::Many);
    units.begin(8);
    assert_eq!(units.pre_clients(), PreClients::Few(0));
}

#[test]
fn the_lists_begin_a_release_once() {
    let units = Units::new(1, 0);
    assert!(
        units.unit(b"1", PoolName::Pre).is_none(),
        "nothing has begun"
    );
    units.is_release(7);
    let unit = units.unit(b"1", PoolName::Pre).unwrap();
    assert_eq!(unit.client, xxh64(b"1", 7), "as every gateway has it");
    units.is_release(7);
    assert_eq!(units.unit(b"1", PoolName::Pre).unwrap().round, unit.round);
    units.is_release(8);
    assert_ne!(units.unit(b"1", PoolName::Pre).unwrap().round, unit.round);
}

#[test]
fn rounds_go_round_and_none_is_that_of_nobody() {
    let units = Units::new(1, u32::MAX - 2);
    for _ in 0..3 {
        units.begin(7);
        let round = units.unit(b"1", PoolName::Pre).unwrap().round;
        assert!(round != 0 && round.is_multiple_of(2), "{round}");
    }
}

#[test]
fn a_unit_is_what_its_own_pool_has_made_of_it() {
    use PoolName::{Pre, Prod};
    let (units, mut seen) = (units_of_many(), SeenUnits::default());
    let mut counted = |act: &dyn Fn(&mut Unit)| {
        units.begin(7);
        units.take(&mut seen);
        let mut unit = units.unit(b"1", Pre).unwrap();
        act(&mut unit);
        units.count(0, &unit);
        units.take(&mut seen).units
    };
    let none = [count(0, 0), count(0, 0)];
    let (good, bad) = ([count(1, 0), count(0, 0)], [count(1, 1), count(0, 0)]);
    assert_eq!(counted(&|_| {}), none);
    assert_eq!(counted(&|it| it.attempt_has_ended(Prod, true)), none);
    assert_eq!(counted(&|it| it.is_answered(Prod, true, None)), none);
    assert_eq!(counted(&|it| it.attempt_has_ended(Pre, false)), good);
    assert_eq!(counted(&|it| it.attempt_has_ended(Pre, true)), bad);
    assert_eq!(counted(&|it| it.is_answered(Pre, true, None)), bad);
    let rescued = |by| {
        move |it: &mut Unit| {
            it.attempt_has_ended(Pre, true);
            it.is_answered(by, false, None);
            it.attempt_has_ended(by, false);
        }
    };
    assert_eq!(counted(&rescued(Pre)), bad);
    assert_eq!(counted(&rescued(Prod)), bad);
}

/// The head of the answer of `pool` comes after so many milliseconds.
fn takes(units: &Units, client: u32, pool: PoolName, millis: u64) {
    let mut unit = units.unit(&client.to_be_bytes(), pool).unwrap();
    unit.is_answered(pool, false, Some(Duration::from_millis(millis)));
    unit.attempt_has_ended(pool, false);
    units.count(0, &unit);
}

#[test]
fn a_unit_is_slow_above_the_bound_and_a_client_counts_until_its_first_slow_one() {
    use PoolName::{Pre, Prod};
    let (units, mut seen) = (units_of_many(), SeenUnits::default());
    units.take(&mut seen);
    takes(&units, 1, Pre, 1000);
    assert_eq!(
        units.take(&mut seen).slow,
        [UnitCount::default(); 2],
        "no bound"
    );
    units.set_slow_bound(Some(Duration::from_millis(50)));
    takes(&units, 1, Pre, 50);
    takes(&units, 1, Pre, 51);
    takes(&units, 1, Pre, 49);
    takes(&units, 2, Prod, 51);
    // Nothing is known of how long it took.
    ends(&units, 3, Pre, false);
    let block = units.take(&mut seen);
    assert_eq!(block.slow, [count(2, 1), count(1, 1)]);
    assert_eq!(
        block.units,
        [count(4, 0), count(1, 0)],
        "none of them was bad"
    );
    // One account says nothing of the other.
    ends(&units, 4, Pre, true);
    takes(&units, 4, Pre, 51);
    ends(&units, 1, Pre, true);
    let block = units.take(&mut seen);
    assert_eq!(
        (block.slow[PRE], block.units[PRE]),
        (count(1, 1), count(2, 2))
    );
    units.set_slow_bound(None);
    takes(&units, 5, Prod, 51);
    assert_eq!(units.take(&mut seen).slow[PROD], count(0, 0));
}

#[test]
fn the_bound_can_be_found_in_the_times_of_prod() {
    let units = units();
    assert_eq!(units.prod_p95(), None);
    let begun = Instant::now();
    units.look(begun);
    (0..95).for_each(|it| takes(&units, it, PoolName::Prod, 80));
    (0..5).for_each(|it| takes(&units, it, PoolName::Prod, 800));
    (0..100).for_each(|it| takes(&units, it, PoolName::Pre, 8000));
    let p95 = units.prod_p95().unwrap().as_secs_f64();
    assert!((0.07..0.09).contains(&p95), "{p95}");
    takes(&units, 1, PoolName::Prod, 800);
    let p95 = units.prod_p95().unwrap().as_secs_f64();
    assert!((0.7..0.9).contains(&p95), "{p95}");
    // In the last five minutes.
    for second in 0..=360 {
        units.look(begun + Duration::from_secs(second));
    }
    assert_eq!(units.prod_p95(), None);
}

#[test]
fn the_first_64_clients_behind_bad_units_of_pre_are_known() {
    let units = units_of_many();
    (0..10).for_each(|it| ends(&units, it, PoolName::Prod, true));
    assert!(units.bad_clients().is_empty());
    (100..103).for_each(|it| ends(&units, it, PoolName::Pre, true));
    let expected = [100_u32, 101, 102].map(|it| xxh64(&it.to_be_bytes(), 7));
    assert_eq!(units.bad_clients(), expected);
    (200..400).for_each(|it| ends(&units, it, PoolName::Pre, true));
    assert_eq!(units.bad_clients().len(), 64);
    units.begin(7);
    assert!(units.bad_clients().is_empty());
}

#[test]
fn clients_of_pre_are_forgotten_after_an_hour() {
    let (clients, begun) = (RecentClients::new(), Instant::now());
    let minute = |it: u64| begun + Duration::from_secs(60 * it);
    clients.look(begun);
    clients.note(1);
    clients.look(minute(30));
    for client in [2, 3, 2, 3] {
        clients.note(client);
    }
    clients.look(minute(31));
    clients.note(1);
    assert_eq!(clients.count(), PreClients::Few(3));
    clients.look(minute(59));
    clients.note(4);
    assert_eq!(clients.count(), PreClients::Few(4));
    clients.note(5);
    assert_eq!(clients.count(), PreClients::Many);
    clients.look(minute(95));
    assert_eq!(clients.count(), PreClients::Few(2), "of 4 and 5 it is less");
    // However long nobody has looked.
    clients.look(minute(1000));
    assert_eq!(clients.count(), PreClients::Few(0));
    clients.note(6);
    assert_eq!(clients.count(), PreClients::Few(1));
}

#[test]
fn there_are_units_while_a_release_is_under_way_and_another_one_has_others() {
    let of_service = UnitsOfService::default();
    assert!(of_service.while_release(false, 1).is_none());
    let first = of_service.while_release(true, 1).unwrap();
    first.begin(7);
    let mut seen = SeenUnits::default();
    first.take(&mut seen);
    let again = of_service.while_release(true, 1).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    drop(again);
    assert!(of_service.while_release(false, 1).is_none());
    // Whoever lets go of the first is not the one who frees it.
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_some());
    of_service.tidy();
    assert!(weak.upgrade().is_none());
    let next = of_service.while_release(true, 1).unwrap();
    next.begin(7);
    ends(&next, 2, PoolName::Pre, true);
    let block = next.take(&mut seen);
    assert_eq!(block, UnitCounts::default(), "they are others");
}
