//! Healthy releases are not taken back, and broken ones soon are: some of what `cargo bench --bench verdict`
//! plays, with a fixed seed, so that it is the same each time.

#[path = "../benches/simulation/mod.rs"]
mod simulation;

use simulation::world::{Drift, Gateways, World};
use simulation::{Fate, play};

fn fates(runs: usize, world: &World) -> Vec<Fate> {
    let mut random = fastrand::Rng::with_seed(17);
    (0..runs).map(|_| play(world, &mut random)).collect()
}

#[track_caller]
fn assert_healthy(world: &World) {
    let fates = fates(20, world);
    assert!(fates.iter().all(|it| it.tripped.is_none()), "{world:?}");
    // One in twenty may be suspect; three of twenty are, once in so many worlds.
    let suspect = fates.iter().filter(|it| it.is_suspect).count();
    assert!(suspect <= 3, "{world:?}: {suspect} suspect");
}

/// All of them within so many seconds.
#[track_caller]
fn assert_found(within: u32, world: &World) {
    for fate in fates(20, world) {
        let trip = fate
            .tripped
            .unwrap_or_else(|| panic!("{world:?}: not found"));
        assert!(trip.seconds <= within, "{world:?}: {trip:?}");
    }
}

fn healthy() -> World {
    World {
        seconds: 200,
        clients: 1000,
        ..World::healthy()
    }
}

/// From 0.01 % to this.
fn worse(worse: f64) -> World {
    World {
        rate: 0.0001,
        worse,
        clients: 5000,
        ..healthy()
    }
}

#[test]
fn errors_of_both_versions_prove_nothing_however_many_and_however_they_drift() {
    for (rate, drift) in [
        (0.005, Drift::Swing(0.9, 60.0)),
        (0.2, Drift::Swing(0.5, 60.0)),
        (0.001, Drift::Outage(0.5)),
        (0.5, Drift::None),
    ] {
        assert_healthy(&World {
            rate,
            drift,
            ..healthy()
        });
    }
}

#[test]
fn clients_that_always_fail_are_none_of_the_release_s_doing() {
    for (broken, share) in [(0.01, 0.1), (0.05, 0.1), (0.05, 0.5)] {
        assert_healthy(&World {
            broken,
            share,
            ..healthy()
        });
    }
    // Nor where ten gateways see the same ones.
    assert_healthy(&World {
        broken: 0.05,
        gateways: Gateways::Spread(10),
        ..healthy()
    });
}

#[test]
fn a_list_may_be_twice_as_bad_and_few_clients_are_not_trusted() {
    assert_healthy(&World {
        odds: 2.0,
        is_list: true,
        rate: 0.02,
        ..healthy()
    });
    assert_healthy(&World {
        pre_clients: Some(3),
        broken: 0.05,
        rate: 0.05,
        ..healthy()
    });
}

#[test]
fn half_of_all_requests_failing_is_found_within_ten_seconds() {
    assert_found(10, &worse(0.5));
    // By three testers, too.
    assert_found(
        20,
        &World {
            pre_clients: Some(3),
            ..worse(0.5)
        },
    );
    // And where ten gateways have a tenth of the traffic each.
    assert_found(
        10,
        &World {
            gateways: Gateways::Sticky(10),
            ..worse(0.5)
        },
    );
}

#[test]
fn after_an_outage_that_all_clients_had_a_defect_is_found_as_soon_as_ever() {
    let after_an_outage = |rate| World {
        drift: Drift::Outages(1.0, 120, 300),
        onset: 300 + 120 + 120,
        seconds: 590,
        clients: 1000,
        ..worse(rate)
    };
    assert_found(10, &after_an_outage(0.5));
    assert_found(
        10,
        &World {
            gateways: Gateways::Sticky(10),
            ..after_an_outage(0.5)
        },
    );
    // A healthy one has outages as often as it likes.
    assert_healthy(&World {
        drift: Drift::Outages(0.5, 30, 200),
        seconds: 1200,
        broken: 0.01,
        ..healthy()
    });
}

#[test]
fn one_in_twenty_failing_is_found_within_forty_seconds_at_any_time() {
    assert_found(40, &worse(0.05));
    assert_found(
        60,
        &World {
            onset: 750,
            seconds: 900,
            ..worse(0.05)
        },
    );
}

#[test]
fn one_request_a_second_over_ten_gateways_is_enough_to_find_what_is_plain() {
    let at_one_a_second = |world: World| World {
        per_second: 1.0,
        gateways: Gateways::Spread(10),
        ..world
    };
    for share in [0.1, 0.5] {
        assert_found(
            150,
            &at_one_a_second(World {
                share,
                ..worse(0.5)
            }),
        );
    }
    assert_healthy(&at_one_a_second(World {
        rate: 0.05,
        drift: Drift::Swing(0.9, 60.0),
        share: 0.3,
        seconds: 600,
        ..healthy()
    }));
}
