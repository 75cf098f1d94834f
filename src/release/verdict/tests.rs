//! The rules as tables, and the sentences word by word.

use super::rules::DIFFERENCE;
use super::*;
use crate::release::evidence::{Block, Concern, Counted, Evidence};

mod usual;

const RULES: Rules = Rules {
    alpha: 0.001,
    tolerate: 0.01,
    margin_list: 2.0,
    margin_percent: 1.0,
};

fn block(pre: (u64, u64), prod: (u64, u64)) -> Block {
    let of = |(bad, units)| Counted { units, bad };
    Block {
        pre: of(pre),
        prod: of(prod),
    }
}

/// As many times the same block, x of n in `pre` and y of q in `prod`.
fn evidence_of(times: usize, pre: (u64, u64), prod: (u64, u64)) -> Evidence {
    let mut evidence = Evidence::new(Concern::Failing);
    for _ in 0..times {
        evidence.add(&block(pre, prod), 1.0);
    }
    evidence
}

/// With many clients, each bad unit from another one.
fn facts(evidence: Evidence) -> Facts {
    Facts {
        evidence,
        bad_clients: Some(evidence.pre().bad),
        pre_clients: 100,
        margin: 1.0,
        per_second: PerSecond {
            pre: 10.0,
            prod: 90.0,
        },
        lately: None,
        usual: None,
        is_incident: false,
    }
}

fn verdict_of(facts: &Facts) -> Verdict {
    judge(&RULES, facts).verdict
}

/// Half of `pre` fails, of ten units and ninety of `prod`.
fn plainly_worse() -> Facts {
    facts(evidence_of(4, (5, 10), (0, 90)))
}

#[test]
fn evidence_of_a_thousand_to_one_is_worse() {
    // 1 of 10 units of `pre`, and 2 of 90 of `prod`, time and again.
    let mut found = Vec::new();
    for times in 0..60 {
        let facts = facts(evidence_of(times, (1, 10), (2, 90)));
        let expected = match facts.evidence.ln_worse().exp() {
            it if it >= 1000.0 => Verdict::Worse(Ground::Failing),
            it if it >= 20.0 => Verdict::Suspect,
            _ => Verdict::Nothing,
        };
        assert_eq!(verdict_of(&facts), expected);
        found.push(expected);
    }
    found.dedup();
    let expected = [
        Verdict::Nothing,
        Verdict::Suspect,
        Verdict::Worse(Ground::Failing),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_stricter_alpha_asks_for_more() {
    let facts = facts(evidence_of(3, (1, 10), (0, 90)));
    let alpha = (-facts.evidence.ln_worse()).exp();
    for (times, expected) in [
        (1.01, Verdict::Worse(Ground::Failing)),
        (0.99, Verdict::Suspect),
    ] {
        let rules = Rules {
            alpha: alpha * times,
            ..RULES
        };
        assert_eq!(judge(&rules, &facts).verdict, expected);
    }
}

#[test]
fn without_three_clients_or_a_difference_that_matters_it_is_suspect() {
    let all = plainly_worse();
    assert_eq!(verdict_of(&all), Verdict::Worse(Ground::Failing));
    for (bad_clients, expected) in [
        (Some(2), Verdict::Suspect),
        (Some(3), Verdict::Worse(Ground::Failing)),
        (None, Verdict::Worse(Ground::Failing)),
    ] {
        let facts = Facts { bad_clients, ..all };
        assert_eq!(verdict_of(&facts), expected);
    }

    // 0.19 points more, of very many.
    let small = facts(evidence_of(400, (21, 10_000), (2, 10_000)));
    assert_eq!(verdict_of(&small), Verdict::Suspect);
    let enough = facts(evidence_of(400, (22, 10_000), (2, 10_000)));
    assert_eq!(verdict_of(&enough), Verdict::Worse(Ground::Failing));
    // What happens now does not drown in what was before.
    let (pre, prod) = (0.5, 0.0002);
    let lately = Some(Lately { pre, prod });
    let facts = Facts { lately, ..small };
    assert_eq!(verdict_of(&facts), Verdict::Worse(Ground::Failing));
}

#[test]
fn few_clients_are_enough_only_where_it_is_plain() {
    let few = |pre_clients, bad_clients, evidence| Facts {
        pre_clients,
        bad_clients: Some(bad_clients),
        ..facts(evidence)
    };
    let half = evidence_of(5, (5, 10), (0, 90));
    for (pre_clients, bad_clients, expected) in [
        (1, 1, Verdict::Worse(Ground::Blunt)),
        (2, 1, Verdict::Suspect),
        (2, 2, Verdict::Worse(Ground::Blunt)),
        (4, 2, Verdict::Suspect),
        (4, 3, Verdict::Worse(Ground::Blunt)),
        (5, 3, Verdict::Worse(Ground::Failing)),
        // Nobody in the last hour, but bad units: they had one.
        (0, 1, Verdict::Worse(Ground::Blunt)),
        (0, 0, Verdict::Suspect),
    ] {
        let found = verdict_of(&few(pre_clients, bad_clients, half));
        assert_eq!(found, expected, "{pre_clients} {bad_clients}");
    }
    for (clients, pre, prod, expected) in [
        // 19 units, and 20.
        (1, (10, 19), (0, 900), Verdict::Suspect),
        (1, (10, 20), (0, 900), Verdict::Worse(Ground::Blunt)),
        // A fifth is not more than a fifth.
        (1, (10, 50), (0, 900), Verdict::Suspect),
        (1, (11, 50), (0, 900), Verdict::Worse(Ground::Blunt)),
        // Ten bad ones may be one client's.
        (4, (20, 50), (0, 900), Verdict::Suspect),
        (4, (21, 50), (0, 900), Verdict::Worse(Ground::Blunt)),
        // `prod` has a quarter of the share, or less than that.
        (1, (40, 100), (90, 900), Verdict::Suspect),
        (1, (40, 100), (89, 900), Verdict::Worse(Ground::Blunt)),
        // However plain it looks, it may be chance.
        (1, (5, 20), (0, 20), Verdict::Nothing),
    ] {
        let found = verdict_of(&few(clients, clients, evidence_of(1, pre, prod)));
        assert_eq!(found, expected, "{pre:?} {prod:?}");
    }
}

#[test]
fn few_clients_that_begin_to_fail_late_are_plain_once_all_of_them_do() {
    for (bad, pre, prod, expected) in [
        (21, 0.5, 0.001, Verdict::Worse(Ground::Blunt)),
        // Two of three can have had these.
        (20, 0.5, 0.001, Verdict::Suspect),
        (21, 0.2, 0.001, Verdict::Suspect),
        (21, 0.5, 0.125, Verdict::Suspect),
    ] {
        let mut evidence = evidence_of(1000, (0, 1), (0, 10));
        for _ in 0..bad {
            evidence.add(&block((1, 1), (0, 10)), 1.0);
        }
        let facts = Facts {
            pre_clients: 3,
            bad_clients: Some(3),
            lately: Some(Lately { pre, prod }),
            ..facts(evidence)
        };
        assert_eq!(verdict_of(&facts), expected, "{bad} {pre} {prod}");
    }
}

#[test]
fn an_incident_is_no_verdict() {
    let is_incident = true;
    for all in [plainly_worse(), facts(evidence_of(40, (0, 10), (0, 90)))] {
        let facts = Facts { is_incident, ..all };
        assert_eq!(verdict_of(&facts), Verdict::Incident);
    }
}

#[test]
fn good_enough_is_300_units_without_a_bad_one_or_evidence_against_three_times_the_odds() {
    for (times, expected) in [(29, Verdict::Nothing), (30, Verdict::GoodEnough)] {
        let facts = facts(evidence_of(times, (0, 10), (0, 90)));
        assert_eq!(verdict_of(&facts), expected);
    }
    let rules = Rules {
        tolerate: 0.05,
        ..RULES
    };
    let facts_60 = facts(evidence_of(6, (0, 10), (0, 90)));
    assert_eq!(judge(&rules, &facts_60).verdict, Verdict::GoodEnough);

    // A bad unit in 300, and one in 300 of `prod`: good enough once that is certain.
    let mut found = Vec::new();
    for times in 1..60 {
        let facts = facts(evidence_of(times, (1, 300), (1, 300)));
        let expected = match facts.evidence.ln_tolerable().exp() >= 20.0 {
            true => Verdict::GoodEnough,
            false => Verdict::Nothing,
        };
        assert_eq!(verdict_of(&facts), expected);
        found.push(expected);
    }
    found.dedup();
    assert_eq!(found, [Verdict::Nothing, Verdict::GoodEnough]);
}

#[test]
fn margins_are_those_of_the_settings_and_at_least_2_for_few_clients() {
    for (is_list, pre_clients, expected) in [
        (true, 100, 2.0),
        (false, 100, 1.0),
        (false, 5, 1.0),
        (false, 4, 2.0),
    ] {
        assert_eq!(RULES.margin(is_list, pre_clients), expected);
    }
    let rules = Rules {
        margin_percent: 3.0,
        ..RULES
    };
    assert_eq!(rules.margin(false, 1), 3.0);
}

#[test]
fn slow_ones_need_no_clients_and_are_slow() {
    let mut evidence = Evidence::new(Concern::Slow);
    for _ in 0..20 {
        evidence.add(&block((5, 10), (5, 90)), 1.0);
    }
    let facts = Facts {
        bad_clients: None,
        pre_clients: 2,
        ..facts(evidence)
    };
    assert_eq!(verdict_of(&facts), Verdict::Worse(Ground::Slow));
}

#[test]
fn what_is_needed_yet_is_what_it_takes() {
    // Without a bad unit, what is left of 300.
    let judged = judge(&RULES, &facts(evidence_of(12, (0, 10), (1, 90))));
    assert!(judged.needed.is_some_and(|it| (1..=180).contains(&it)));
    let judged = judge(&RULES, &facts(evidence_of(12, (0, 10), (0, 90))));
    assert_eq!(judged.needed, Some(180));

    // With one, so many more of the same kind: the foresight is not far from what happens then.
    let before = facts(evidence_of(3, (1, 100), (1, 100)));
    let before = Facts {
        per_second: PerSecond {
            pre: 100.0,
            prod: 100.0,
        },
        ..before
    };
    let needed = judge(&RULES, &before).needed.unwrap();
    let enough = (4..).find(|it| {
        let all = evidence_of(*it, (1, 100), (1, 100));
        verdict_of(&facts(all)) == Verdict::GoodEnough
    });
    let truly = (enough.unwrap() - 3) as f64 * 100.0;
    let ratio = needed as f64 / truly;
    assert!((0.8..1.25).contains(&ratio), "{needed}, truly {truly}");
}

#[test]
fn when_it_will_be_known_is_foretold() {
    for (pre, prod) in [((1, 10), (2, 90)), ((1, 10), (0, 90)), ((3, 10), (9, 90))] {
        let begun = facts(evidence_of(2, pre, prod));
        let seconds = judge(&RULES, &begun).known_in;
        let known = (3..).find(|it| {
            let all = evidence_of(*it, pre, prod);
            matches!(verdict_of(&facts(all)), Verdict::Worse(_))
        });
        let truly = (known.unwrap() - 2) as f64;
        let ratio = seconds.unwrap() / truly;
        assert!((0.7..1.5).contains(&ratio), "{seconds:?}, truly {truly}");
    }
    // Nothing speaks against it; all is said; it cannot be told.
    for facts in [
        facts(evidence_of(9, (0, 10), (1, 90))),
        plainly_worse(),
        Facts {
            per_second: PerSecond::default(),
            ..facts(evidence_of(2, (1, 10), (2, 90)))
        },
    ] {
        assert_eq!(judge(&RULES, &facts).known_in, None);
    }
}

#[test]
fn what_is_not_found_within_an_hour_is_told() {
    let healthy = facts(evidence_of(100, (0, 10), (1, 900)));
    let visible = |pre, prod| {
        let per_second = PerSecond { pre, prod };
        let facts = Facts {
            per_second,
            ..healthy
        };
        Unseen::at_present(&RULES, &facts).unwrap().below
    };
    // With 1000 a second, every difference that matters; with less, less and less.
    let of_prod = healthy.evidence.prod().rate();
    assert_eq!(visible(1000.0, 9000.0), Some(of_prod + DIFFERENCE));
    let found = [10.0, 1.0, 0.1].map(|it| visible(it, it * 9.0).unwrap());
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    // One in a thousand seconds, or no `prod` at the same time.
    assert_eq!(visible(0.001, 0.01), None);
    assert_eq!(visible(10.0, 0.0), None);
    assert_eq!(visible(0.0, 10.0), None);
    // Nothing is known of `prod`.
    let unknown = facts(evidence_of(1, (0, 10), (1, 90)));
    assert_eq!(Unseen::at_present(&RULES, &unknown), None);
}

fn said(facts: &Facts) -> String {
    judge(&RULES, facts).to_string()
}

#[test]
fn it_is_said_in_plain_words() {
    let few = Facts {
        pre_clients: 2,
        ..facts(evidence_of(5, (5, 10), (0, 90)))
    };
    let two = Facts {
        bad_clients: Some(2),
        ..plainly_worse()
    };
    let one = Facts {
        bad_clients: Some(1),
        ..few
    };
    let incident = Facts {
        is_incident: true,
        ..facts(evidence_of(4, (5, 10), (45, 90)))
    };
    let mut slow = Evidence::new(Concern::Slow);
    for _ in 0..20 {
        slow.add(&block((5, 10), (5, 90)), 1.0);
    }
    let cases = [
        (
            facts(evidence_of(0, (0, 0), (0, 0))),
            "no request to pre has been counted yet",
        ),
        (
            facts(evidence_of(1, (0, 7), (0, 0))),
            "0 of 7 requests to pre failed, and none to prod has been counted to compare with; good enough \
             after about 293 more that do not differ",
        ),
        (
            facts(evidence_of(1, (1, 41), (2, 3900))),
            "1 of 41 requests to pre failed, 2 of 3,900 to prod: 49 times the odds, evidence 3.9 of 1,000; \
             at this rate known in about 14 s",
        ),
        (
            facts(evidence_of(1, (2, 41), (2, 3900))),
            "2 of 41 requests to pre failed, 2 of 3,900 to prod: 100 times the odds, evidence 96 of 1,000; \
             at this rate known in about 3 s",
        ),
        (
            facts(evidence_of(12, (0, 10), (0, 90))),
            "0 of 120 requests to pre failed, 0 of 1,080 to prod; good enough after about 180 more that do \
             not differ",
        ),
        (
            facts(evidence_of(30, (0, 10), (1, 90))),
            "0 of 300 requests to pre failed, 30 of 2,700 to prod; good enough to go on",
        ),
        (
            plainly_worse(),
            "20 of 40 requests to pre failed, 0 of 360 to prod: evidence more than 1,000,000 of 1,000; \
             pre is worse",
        ),
        (
            few,
            "25 of 50 requests to pre failed, 0 of 450 to prod: evidence more than 1,000,000 of 1,000; \
             pre is plainly worse, though it has only 2 clients",
        ),
        (
            one,
            "25 of 50 requests to pre failed, 0 of 450 to prod: evidence more than 1,000,000 of 1,000; \
             likely worse, but pre has only 2 clients",
        ),
        (
            two,
            "20 of 40 requests to pre failed, 0 of 360 to prod: evidence more than 1,000,000 of 1,000; \
             likely worse, but that is what 2 clients had",
        ),
        (
            facts(evidence_of(400, (21, 10_000), (2, 10_000))),
            "8,400 of 4,000,000 requests to pre failed, 800 of 4,000,000 to prod: 11 times the odds, \
             evidence more than 1,000,000 of 1,000; likely worse, but by too little to matter",
        ),
        (
            incident,
            "20 of 40 requests to pre failed, 180 of 360 to prod: the same odds, evidence 0.1 of 1,000; both \
             fail far more than usual, so nothing is concluded",
        ),
        (
            facts(slow),
            "100 of 200 requests to pre were slow, 100 of 1,800 to prod: 17 times the odds, evidence more \
             than 1,000,000 of 1,000; pre is slower",
        ),
    ];
    for (facts, expected) in &cases {
        assert_eq!(said(facts), *expected);
    }
}

#[test]
fn what_cannot_be_seen_is_said() {
    let at = |times, per_second| {
        let facts = Facts {
            per_second,
            ..facts(evidence_of(times, (0, 10), (1, 90)))
        };
        Unseen::at_present(&RULES, &facts).map(|it| it.to_string())
    };
    let (pre, prod) = (1.0, 9.0);
    assert_eq!(at(1, PerSecond { pre, prod }), None);
    let text = "at 1 a second to pre and 9 to prod, where 1.1 % of prod fails, a pre of which \
                less than 2.0 % fails would not be found within an hour";
    assert_eq!(at(100, PerSecond { pre, prod }).as_deref(), Some(text));
    let prod = 0.0;
    let text = "at 1 a second to pre and 0 to prod, nothing that happens to pre would be found \
                within an hour";
    assert_eq!(at(100, PerSecond { pre, prod }).as_deref(), Some(text));
}

#[test]
fn a_version_that_fails_in_plain_sight_is_not_good_enough_though_the_old_one_fails_more() {
    let down = facts(evidence_of(20, (3, 10), (90, 90)));
    let judged = judge(&RULES, &down);
    assert_eq!((judged.verdict, judged.needed), (Verdict::Incident, None));
    let usual = Some(0.1);
    assert_eq!(
        verdict_of(&Facts { usual, ..down }),
        Verdict::GoodEnough,
        "so much fails anyway"
    );
    let healthy = facts(evidence_of(20, (2, 100), (90, 90)));
    assert_eq!(verdict_of(&healthy), Verdict::Incident, "2 % are too many");
    let healthy = facts(evidence_of(20, (1, 101), (90, 90)));
    assert_eq!(verdict_of(&healthy), Verdict::GoodEnough, "it would help");
    // Where a quarter fails of what fails in the other version, going back would help.
    let (pre, prod) = (0.9, 0.21);
    let lately = Some(Lately { pre, prod });
    let verdict = verdict_of(&Facts { lately, ..down });
    assert_eq!(verdict, Verdict::Nothing);
}

#[test]
fn an_outage_of_both_is_an_incident_also_before_it_is_known_what_is_usual() {
    // Hardly any traffic.
    let outage = facts(evidence_of(4, (5, 5), (5, 5)));
    let judged = judge(&RULES, &outage);
    assert_eq!(judged.verdict, Verdict::Incident);
    assert_eq!(
        judged.to_string(),
        "20 of 20 requests to pre failed, 20 of 20 to prod: evidence 0.7 of 1,000; \
         both fail in plain sight, so nothing is concluded"
    );
    // Fewer are not plain; and what fails anyway is no incident.
    let few = facts(evidence_of(3, (5, 5), (5, 5)));
    assert_eq!(verdict_of(&few), Verdict::Nothing);
    let half = facts(evidence_of(4, (3, 6), (3, 6)));
    let usual = Some(0.4);
    assert_eq!(verdict_of(&Facts { usual, ..half }), Verdict::Nothing);
    // It is over.
    let (pre, prod) = (0.0, 0.0);
    let lately = Some(Lately { pre, prod });
    assert_eq!(verdict_of(&Facts { lately, ..half }), Verdict::Nothing);
    // Evidence goes before.
    let worse = facts(evidence_of(40, (5, 9), (20, 90)));
    assert_eq!(verdict_of(&worse), Verdict::Worse(Ground::Failing));
}

#[test]
fn where_nobody_is_left_on_prod_what_fails_in_plain_sight_is_suspect_and_never_worse() {
    let alone = |bad: u64, units: u64| facts(evidence_of(1, (bad, units), (0, 0)));
    for (facts, expected) in [
        (alone(19, 19), Verdict::Nothing),
        (alone(4, 20), Verdict::Nothing),
        (alone(5, 20), Verdict::Suspect),
        (alone(2000, 2000), Verdict::Suspect),
        // Some requests were under way when the last of them left.
        (facts(evidence_of(1, (500, 1000), (0, 9))), Verdict::Suspect),
        // One client, who is always the same.
        (
            Facts {
                bad_clients: Some(2),
                ..alone(10, 20)
            },
            Verdict::Nothing,
        ),
        // So much fails anyway.
        (
            Facts {
                usual: Some(0.1),
                ..alone(8, 20)
            },
            Verdict::Nothing,
        ),
        (
            Facts {
                usual: Some(0.1),
                ..alone(9, 20)
            },
            Verdict::Suspect,
        ),
    ] {
        assert_eq!(verdict_of(&facts), expected, "{facts:?}");
    }
    let judged = judge(&RULES, &alone(5, 20)).to_string();
    assert_eq!(
        judged,
        "5 of 20 requests to pre failed, and none to prod has been counted to compare with; so much fails that \
         pre is likely worse, but too few are left on prod to tell"
    );
}

#[test]
fn where_nobody_is_left_on_prod_a_version_is_good_enough_by_its_own_rate() {
    let alone = |bad: u64, units: u64| facts(evidence_of(1, (bad, units), (0, 0)));
    // 20 to 1 that fewer than a hundredth fail: ln 20 of units of which each adds ln(0.99667/0.99), and bad
    // ones take ln 3.
    for (bad, least) in [(1, 611), (2, 776), (5, 1270)] {
        assert_eq!(verdict_of(&alone(bad, least - 2)), Verdict::Nothing);
        assert_eq!(verdict_of(&alone(bad, least + 2)), Verdict::GoodEnough);
    }
    assert_eq!(verdict_of(&alone(200, 20_000)), Verdict::Nothing);
    // Twice as much as one would put up with, where that is usual.
    let usual = Facts {
        usual: Some(0.02),
        ..alone(20, 1000)
    };
    assert_eq!(verdict_of(&usual), Verdict::GoodEnough);
    let judged = judge(&RULES, &alone(1, 400)).to_string();
    assert_eq!(
        judged,
        "1 of 400 requests to pre failed, and none to prod has been counted to compare with; good enough after \
         about 359 more that do not differ"
    );
    // Nobody waits for what is slow by a rate of its own.
    let mut slow = Evidence::new(Concern::Slow);
    slow.add(&block((1, 10_000), (0, 0)), 1.0);
    let slow = Facts {
        bad_clients: None,
        per_second: PerSecond {
            pre: 10.0,
            prod: 0.0,
        },
        ..facts(slow)
    };
    assert_eq!(judge(&RULES, &slow).needed, None);
    // With something to compare with, that counts.
    let compared = facts(evidence_of(100, (0, 10), (0, 1)));
    assert_eq!(verdict_of(&compared), Verdict::GoodEnough);
    let compared = facts(evidence_of(1, (3, 1000), (1, 50)));
    assert_eq!(verdict_of(&compared), Verdict::Nothing);
}
