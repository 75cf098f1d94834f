//! What is usual, and what is an incident.

use super::*;

/// A second, of whose clients all count.
fn add(usual: &mut Usual, block: Block) {
    usual.add(&block, &Block::default());
}

/// So many seconds of 100 units of `pre` and 1000 of `prod`, of which these are bad.
fn pass(usual: &mut Usual, seconds: u32, pre: u64, prod: u64) {
    for _ in 0..seconds {
        add(usual, block((pre, 100), (prod, 1000)));
    }
}

/// Some hours with 1 % bad in both.
fn settled() -> Usual {
    let mut usual = Usual::default();
    pass(&mut usual, 4 * 3600, 1, 10);
    assert!(!usual.is_incident());
    usual
}

#[test]
fn both_at_ten_times_their_usual_are_an_incident() {
    for (pre, prod, expected) in [
        (50, 500, true),
        (9, 90, false),
        (15, 150, true),
        // One of them only.
        (50, 10, false),
        (1, 500, false),
        // Both, but `prod` is much better: that is no reason to stay.
        (90, 150, false),
        (90, 300, true),
    ] {
        let mut usual = settled();
        pass(&mut usual, 60, pre, prod);
        assert_eq!(usual.is_incident(), expected, "{pre} {prod}");
    }
}

#[test]
fn an_incident_is_seen_within_seconds_and_lasts_for_a_minute_longer() {
    let mut usual = settled();
    pass(&mut usual, 10, 50, 500);
    assert!(usual.is_incident());
    pass(&mut usual, 60, 1, 10);
    assert!(usual.is_incident());
    pass(&mut usual, 120, 1, 10);
    assert!(!usual.is_incident() && !usual.has_ended());
}

#[test]
fn an_outage_of_two_hours_does_not_become_usual_and_a_new_level_does() {
    let mut usual = settled();
    pass(&mut usual, 2 * 3600, 15, 150);
    assert!(usual.is_incident());
    pass(&mut usual, 10 * 3600, 15, 150);
    assert!(!usual.is_incident());
}

#[test]
fn nothing_is_usual_at_the_start_and_a_new_pre_is_held_against_prod() {
    let mut usual = Usual::default();
    pass(&mut usual, 60, 50, 500);
    assert!(!usual.is_incident());

    // A `pre` with half of it bad that is replaced.
    let mut usual = Usual::default();
    pass(&mut usual, 3600, 50, 10);
    usual.begin();
    assert_eq!(usual.lately(), None);
    pass(&mut usual, 10, 50, 500);
    assert!(usual.is_incident());
    usual.begin();
    assert!(!usual.is_incident());
}

#[test]
fn what_hardly_ever_fails_has_an_incident_from_1_percent_and_three_units_on() {
    for (pre, prod, expected) in [(2, 20, true), (1, 9, false)] {
        let mut usual = Usual::default();
        pass(&mut usual, 3600, 0, 0);
        pass(&mut usual, 120, pre, prod);
        assert_eq!(usual.is_incident(), expected);
    }
    for (bad, expected) in [(4, true), (2, false)] {
        let mut usual = Usual::default();
        pass(&mut usual, 3600, 0, 0);
        usual.begin();
        add(&mut usual, block((bad, 20), (bad * 10, 200)));
        add(&mut usual, block((0, 1), (3000, 3000)));
        assert_eq!(usual.is_incident(), expected);
    }
}

#[test]
fn the_present_is_told_where_there_is_enough_of_both() {
    let mut usual = Usual::default();
    add(&mut usual, block((0, 9), (0, 100)));
    assert_eq!(usual.lately(), None);
    add(&mut usual, block((9, 9), (25, 100)));
    let lately = usual.lately().unwrap();
    assert!((lately.pre - 0.5).abs() < 0.03, "{lately:?}");
    assert!((lately.prod - 0.125).abs() < 0.01, "{lately:?}");
}

#[test]
fn an_incident_lasts_while_clients_fail_who_count_no_more_and_its_end_is_said_once() {
    let mut usual = settled();
    pass(&mut usual, 5, 50, 500);
    for _ in 0..1800 {
        // Everybody has had a bad unit.
        usual.add(&Block::default(), &block((50, 100), (500, 1000)));
        assert!(usual.is_incident() && !usual.has_ended());
    }
    let mut ends = 0;
    for _ in 0..300 {
        usual.add(&block((0, 10), (0, 100)), &block((0, 90), (0, 900)));
        ends += u32::from(usual.has_ended());
    }
    assert!(!usual.is_incident());
    assert_eq!(ends, 1);
}

#[test]
fn a_client_that_begins_to_fail_all_the_time_makes_no_incident() {
    let mut usual = settled();
    usual.add(&block((1, 100), (1, 1000)), &Block::default());
    for _ in 0..120 {
        // Far more than usual, and it is one client of each.
        usual.add(&block((1, 100), (10, 1000)), &block((50, 50), (500, 500)));
        assert!(!usual.is_incident());
    }
}

#[test]
fn those_who_always_fail_make_no_incident_when_they_count_again() {
    // One in twenty, of whom nobody else fails.
    let of_all = |usual: &mut Usual, bad: u64| {
        usual.add(
            &block((bad, 95 + bad), (10 * bad, 950 + 10 * bad)),
            &block((5 - bad, 5 - bad), (50 - 10 * bad, 50 - 10 * bad)),
        );
    };
    let mut usual = Usual::default();
    (0..3600).for_each(|_| of_all(&mut usual, 0));
    for _ in 0..30 {
        of_all(&mut usual, 5);
        assert!(!usual.is_incident());
    }
}

#[test]
fn an_outage_with_which_a_release_begins_is_one_incident_however_much_traffic_was_well_before() {
    let mut usual = Usual::default();
    for _ in 0..12 {
        add(&mut usual, block((0, 20), (0, 20)));
    }
    usual.begin();
    let mut evidence = Evidence::new(Concern::Failing);
    for second in 1..=40 {
        // Six a second, of which hardly one does not fail.
        let good = |at: u64| u64::from(second % 10 == at);
        let block = block((3 - good(0), 3), (3 - good(5), 3));
        add(&mut usual, block);
        evidence.add(&block, 1.0);
        let found = verdict_of(&Facts {
            lately: usual.lately(),
            usual: usual.of_prod(),
            is_incident: usual.is_incident(),
            ..facts(evidence)
        });
        let expected = match evidence.pre().units >= 20 {
            true => Verdict::Incident,
            false => Verdict::Nothing,
        };
        assert_eq!(found, expected, "{second} {:?}", usual.lately());
    }
}

#[test]
fn an_outage_before_it_is_known_what_is_usual_does_not_become_usual() {
    // With nothing before it, nobody can tell it from what fails anyway.
    for (well_before, expected) in [(0, false), (12, true), (24, true)] {
        let mut usual = Usual::default();
        for _ in 0..well_before {
            add(&mut usual, block((0, 20), (0, 20)));
        }
        usual.begin();
        for _ in 0..300 {
            add(&mut usual, block((3, 3), (3, 3)));
        }
        let found = verdict_of(&Facts {
            lately: usual.lately(),
            usual: usual.of_prod(),
            is_incident: usual.is_incident(),
            ..facts(evidence_of(300, (3, 3), (3, 3)))
        });
        assert_eq!(
            found == Verdict::Incident,
            expected,
            "{well_before} {usual:?}"
        );
    }
}
