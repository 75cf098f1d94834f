//! Against values that were computed with rational numbers of any length, or with 60 digits; and against the
//! plainest sums, where these are exact enough.

use proptest::prelude::*;

use super::*;

fn block(n: u64, total: u64, x: u64, m: u64) -> Block {
    let pre = Counted { units: n, bad: x };
    let prod = Counted {
        units: total - n,
        bad: m - x,
    };
    Block { pre, prod }
}

fn ln_likelihood(block: &Block, odds: f64) -> f64 {
    Conditional::of(block).map_or(0.0, |it| it.ln_likelihood(odds))
}

/// C(n, k), exact enough for small ones.
fn choose(n: u64, k: u64) -> f64 {
    (0..k).fold(1.0, |all, at| all * (n - at) as f64 / (at + 1) as f64)
}

/// The probabilities of 0 and more bad units in `pre`, where the odds are `odds`; by the definition.
fn probabilities(n: u64, total: u64, m: u64, odds: f64) -> Vec<f64> {
    let weights: Vec<f64> = (0..=n.min(m))
        .map(|j| match m - j <= total - n {
            true => choose(n, j) * choose(total - n, m - j) * odds.powi(j as i32),
            false => 0.0,
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|it| it / sum).collect()
}

const ODDS: [f64; 4] = [1.5, 3.0, 10.0, 1000.0];

/// n, N, x, m, and ln L for each of the odds.
type Exact = ((u64, u64, u64, u64), [f64; 4]);

#[rustfmt::skip]
const EXACT: &[Exact] = &[
    ((1, 2, 1, 1), [0.182321557, 0.405465108, 0.597837001, 0.692147680]),
    ((1, 3, 0, 1), [-0.154150680, -0.510825624, -1.386294361, -5.811140993]),
    ((10, 100, 1, 1), [0.356674944, 0.916290732, 1.660731207, 2.293625352]),
    ((10, 100, 3, 3), [1.070641849, 2.756407559, 5.043660766, 7.172489587]),
    ((10, 100, 0, 4), [-0.193929563, -0.714314746, -2.445261183, -17.847184999]),
    ((41, 3941, 3, 5), [1.190460572, 3.192970101, 6.462001748, 8.764715875]),
    ((20, 40, 5, 5), [0.921900349, 2.092880980, 3.171892559, 3.741874587]),
    ((7, 9, 6, 8), [-0.105360516, -0.367724780, -1.098612289, -5.407171771]),
    ((50, 1000, 20, 25), [7.495359226, 19.635652746, 37.288559811, 46.494964798]),
    ((500, 1000, 300, 500), [15.139334544, 17.641037412, -42.297184568, -720.605641144]),
    ((1, 1000, 1, 999), [0.000333389, 0.000666889, 0.000900405, 0.000999499]),
    ((999, 1000, 998, 999), [-0.000499875, -0.001998003, -0.008959741, -0.692647056]),
    ((3000, 6000, 1600, 3001), [9.565930566, -114.239026315, -714.663870380, -5703.289693393]),
    ((10_000, 100_000, 600, 5_000), [1.849306890, -222.177538179, -1583.109923791, -17562.768350162]),
    ((50_000, 100_000, 25_200, 50_000), [-431.790798580, -3505.543396480, -15266.538761926, -105111.985193499]),
    ((90_000, 100_000, 99, 100), [2.985219892, 5.802948794, 7.132843156, 3.622677419]),
    ((99_999, 100_000, 50_000, 50_001), [-0.223139551, -0.693137181, -1.704731728, -6.215587639]),
];

#[test]
fn the_likelihood_is_exact() {
    for ((n, total, x, m), expected) in EXACT {
        for (odds, expected) in ODDS.iter().zip(expected) {
            let found = ln_likelihood(&block(*n, *total, *x, *m), *odds);
            let error = (found - expected).abs();
            assert!(
                error < 1e-8 * (1.0 + expected.abs()),
                "{n} {total} {x} {m}: odds {odds}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn a_block_of_one_pool_or_without_bad_units_or_with_nothing_else_teaches_nothing() {
    let blocks = [
        block(0, 0, 0, 0),
        block(0, 50, 0, 7),
        block(50, 50, 7, 7),
        block(10, 50, 0, 0),
        block(10, 50, 10, 50),
    ];
    for block in blocks {
        let mut evidence = Evidence::new(Concern::Failing);
        evidence.add(&block, 1.0);
        assert_eq!(evidence.sums(), [0.0; 18], "{block:?}");
        assert_eq!(evidence.ln_tolerable(), 0.0);
        assert_eq!(
            evidence.ln_worse(),
            Evidence::new(Concern::Failing).ln_worse()
        );
        assert_eq!((evidence.pre(), evidence.prod()), (block.pre, block.prod));
    }
}

/// Every possible block of small sizes; and for each, what is expected of it.
fn for_each_size(mut check: impl FnMut(u64, u64, u64)) {
    for total in [2, 3, 5, 12, 30] {
        for n in 1..total {
            for m in 0..=total {
                check(n, total, m);
            }
        }
    }
}

#[test]
fn the_mean_of_the_likelihood_is_1_where_the_odds_are_equal() {
    for_each_size(|n, total, m| {
        for odds in [1.5, 3.0, 30.0, 1000.0] {
            let probabilities = probabilities(n, total, m, 1.0);
            let possible = probabilities.iter().zip(0..).filter(|(it, _)| **it > 0.0);
            let mean =
                possible.map(|(it, x)| it * ln_likelihood(&block(n, total, x, m), odds).exp());
            let mean: f64 = mean.sum();
            assert!((mean - 1.0).abs() < 1e-9, "{n} {total} {m} {odds}: {mean}");
        }
    });
}

#[test]
fn with_a_margin_no_true_odds_up_to_it_speak_against_pre() {
    for_each_size(|n, total, m| {
        for (margin, truly) in [(1.0, 0.3), (1.0, 1.0), (2.0, 1.0), (2.0, 1.7), (2.0, 2.0)] {
            let probabilities = probabilities(n, total, m, truly);
            let mut means = [0.0; 8];
            for (probability, x) in probabilities.iter().zip(0..) {
                if *probability > 0.0 {
                    let mut evidence = Evidence::new(Concern::Failing);
                    evidence.add(&block(n, total, x, m), margin);
                    for (mean, sum) in means.iter_mut().zip(&evidence.sums) {
                        *mean += probability * sum.exp();
                    }
                }
            }
            let are_fair = means.iter().all(|it| *it <= 1.0 + 1e-9);
            assert!(are_fair, "{n} {total} {m}: {margin} {truly}: {means:?}");
        }
    });
}

#[test]
fn three_times_the_odds_or_more_are_never_found_tolerable() {
    for_each_size(|n, total, m| {
        for truly in [3.0, 5.0, 100.0] {
            let probabilities = probabilities(n, total, m, truly);
            let possible = probabilities.iter().zip(0..).filter(|(it, _)| **it > 0.0);
            let mean = possible.map(|(probability, x)| {
                let mut evidence = Evidence::new(Concern::Failing);
                evidence.add(&block(n, total, x, m), 1.0);
                probability * evidence.ln_tolerable().exp()
            });
            let mean: f64 = mean.sum();
            assert!(mean <= 1.0 + 1e-9, "{n} {total} {m} {truly}: {mean}");
        }
    });
}

#[test]
fn the_largest_blocks_are_numbers() {
    const TOTAL: u64 = 100_000;
    let blocks = [
        block(1, TOTAL, 1, 1),
        block(1, TOTAL, 0, TOTAL - 1),
        block(TOTAL - 1, TOTAL, TOTAL - 1, TOTAL - 1),
        block(TOTAL - 1, TOTAL, 0, 1),
        block(TOTAL / 2, TOTAL, TOTAL / 2, TOTAL / 2),
        block(TOTAL / 2, TOTAL, 0, TOTAL / 2),
        block(TOTAL / 2, TOTAL, TOTAL / 4, TOTAL / 2),
        block(TOTAL / 2, 1 << 32, TOTAL / 2, TOTAL / 2),
    ];
    for block in blocks {
        for margin in [1.0, 2.0, 1000.0] {
            let mut evidence = Evidence::new(Concern::Failing);
            for _ in 0..20 {
                evidence.add(&block, margin);
            }
            let numbers = [evidence.ln_worse(), evidence.ln_tolerable()];
            let are_finite = numbers
                .iter()
                .chain(&evidence.sums())
                .all(|it| it.is_finite());
            assert!(are_finite, "{block:?}: {evidence:?}");
            assert_eq!(read_back(&evidence), Some(evidence), "{block:?}");
        }
    }
}

#[test]
fn counts_beyond_all_reason_are_numbers() {
    let counted = Counted {
        units: u64::MAX,
        bad: 1,
    };
    let mut evidence = Evidence::new(Concern::Failing);
    for _ in 0..2 {
        let (pre, prod) = (counted, counted);
        evidence.add(&Block { pre, prod }, 1.0);
    }
    assert!(evidence.ln_worse().is_finite());
    // More bad units than units are as many as there are.
    let pre = Counted { units: 3, bad: 9 };
    let prod = Counted { units: 9, bad: 0 };
    evidence.add(&Block { pre, prod }, f64::NAN);
    assert!(evidence.ln_worse().is_finite());
}

/// ln M, by its definition.
fn ln_worse(ever: &[f64], recent: &[f64], weight: f64) -> f64 {
    let mean = |ratios: &[f64]| ratios.iter().sum::<f64>() / ratios.len() as f64;
    (0.8 * (0.75 * mean(ever) + 0.25 * weight * mean(recent))).ln()
}

#[test]
fn m_is_the_mean_over_the_odds_that_are_looked_for() {
    let mut evidence = Evidence::new(Concern::Slow);
    assert_eq!(evidence.sums().len(), 12);
    evidence.add(&block(10, 100, 1, 1), 1.0);
    // One bad unit, in `pre`: ψ / (1 + (ψ - 1) n/N).
    let ratios = [1.5, 2.0, 3.0, 5.0, 10.0].map(|it: f64| it / (1.0 + (it - 1.0) / 10.0));
    assert!((evidence.ln_worse() - ln_worse(&ratios, &ratios, 0.5)).abs() < 1e-9);
    assert!((evidence.ln_tolerable() + (3.0_f64 / 1.2).ln()).abs() < 1e-9);
}

#[test]
fn each_five_minutes_a_product_begins_anew_that_counts_for_less_each_time() {
    let one = block(10, 100, 1, 1);
    let ratios = [1.5, 2.0, 3.0, 5.0, 10.0].map(|it: f64| it / (1.0 + (it - 1.0) / 10.0));
    let squares = ratios.map(|it| it * it);
    let mut evidence = Evidence::new(Concern::Slow);
    evidence.add(&one, 1.0);
    for (before, weight) in [(299, 0.5 / 2.0), (299, 0.5 / 6.0), (299, 0.5 / 12.0)] {
        for _ in 0..before {
            evidence.add(&Block::default(), 1.0);
        }
        let mut next = evidence;
        next.add(&one, 1.0);
        let expected = ln_worse(&squares, &ratios, weight);
        assert!((next.ln_worse() - expected).abs() < 1e-9, "{weight}");
        evidence.add(&Block::default(), 1.0);
    }
}

#[test]
fn what_was_before_a_defect_hardly_delays_it() {
    // A day with a bad unit of `prod` every second block, and half of a stretch.
    let mut evidence = Evidence::new(Concern::Failing);
    for at in 0..86_400 + 150 {
        if evidence.is_used_up() {
            evidence.renew();
        }
        evidence.add(&block(10, 100, 0, at % 2), 1.0);
    }
    let seconds = (1..).find(|_| {
        evidence.add(&block(10, 100, 5, 5), 1.0);
        evidence.ln_worse() >= 1000.0_f64.ln()
    });
    assert!(seconds.unwrap() <= 10, "{seconds:?}");
}

#[test]
fn after_an_hour_it_is_renewed_and_counts_for_less_each_time() {
    let one = block(10, 100, 1, 1);
    let mut evidence = Evidence::new(Concern::Failing);
    let new = evidence.ln_worse();
    for hour in 1..4 {
        for _ in 0..3600 {
            assert!(!evidence.is_used_up());
            evidence.add(&one, 1.0);
        }
        assert!(evidence.is_used_up());
        let before = evidence;
        evidence.renew();
        assert_eq!(
            (evidence.pre(), evidence.prod()),
            (before.pre(), before.prod())
        );
        assert_eq!(evidence.ln_tolerable(), before.ln_tolerable());
        let weight = 0.2 / f64::from(hour * (hour + 1)) / 0.8;
        assert!((evidence.ln_worse() - new - weight.ln()).abs() < 1e-9);
    }
    // Of two gateways it is what both have had.
    let all = together(&[
        Testimony::new(evidence, vec![]),
        Testimony::new(evidence, vec![]),
    ]);
    let weight = 0.2_f64 / 42.0 / 0.8;
    assert!((all.ln_worse() - new - weight.ln()).abs() < 1e-9);
    assert_eq!(read_back(&evidence), Some(evidence));
}

#[test]
fn stretches_of_several_gateways_count_for_less_the_more_there_were() {
    let mut one = Evidence::new(Concern::Failing);
    for _ in 0..601 {
        one.add(&Block::default(), 1.0);
    }
    one.add(&block(10, 100, 1, 1), 1.0);
    let all = together(&[Testimony::new(one, vec![1]), Testimony::new(one, vec![2])]);
    assert_eq!((one.sums()[16], all.sums()[16]), (2.0, 4.0));
    let squares: Vec<f64> = one.sums[..8].iter().map(|it| (2.0 * it).exp()).collect();
    let expected = ln_worse(&squares, &squares, 0.5 / 20.0);
    assert!((all.ln_worse() - expected).abs() < 1e-9);
}

fn read_back(evidence: &Evidence) -> Option<Evidence> {
    let (pre, prod) = (evidence.pre(), evidence.prod());
    let (sums, tolerable) = (evidence.sums(), evidence.ln_tolerable());
    let read = Evidence::from_numbers(evidence.concern(), pre, prod, &sums, tolerable);
    // How much of its stretch is over is not told.
    read.map(|it| Evidence {
        seconds: evidence.seconds,
        ..it
    })
}

#[test]
fn numbers_that_no_blocks_lead_to_are_no_evidence() {
    let (pre, prod) = (Counted { units: 10, bad: 2 }, Counted { units: 90, bad: 1 });
    let of = |pre, prod, sum: f64, stretch: f64, tolerable| {
        let sums = [&[sum; 16][..], &[stretch, 0.0]].concat();
        Evidence::from_numbers(Concern::Failing, pre, prod, &sums, tolerable)
    };
    assert!(of(pre, prod, 0.5, 7.0, -1.0).is_some());
    assert!(of(pre, prod, f64::NAN, 7.0, -1.0).is_none());
    // Two bad units are at most evidence of 1.5² to 1 for odds of 1.5.
    assert!(of(pre, prod, 0.9, 7.0, -1.0).is_none());
    assert!(of(pre, prod, -1.3, 7.0, -1.0).is_none());
    assert!(of(pre, prod, 0.5, 7.0, 3.4).is_none());
    assert!(of(pre, prod, 0.5, 7.0, f64::INFINITY).is_none());
    assert!(of(pre, prod, 0.5, -1.0, -1.0).is_none());
    assert!(of(pre, prod, 0.5, f64::NAN, -1.0).is_none());
    let more_bad_than_all = Counted { units: 1, bad: 2 };
    assert!(of(more_bad_than_all, prod, 0.5, 7.0, -1.0).is_none());
    for length in [0, 8, 16, 17, 19] {
        let sums = vec![0.5; length];
        let read = Evidence::from_numbers(Concern::Failing, pre, prod, &sums, -1.0);
        assert_eq!(read, None, "{length}");
    }
    let mut sums = [0.5; 18];
    sums[17] = -1.0;
    let read = Evidence::from_numbers(Concern::Failing, pre, prod, &sums, -1.0);
    assert_eq!(read, None);
    // One of them is enough.
    for wrong in 0..16 {
        let mut sums = [0.5; 18];
        sums[wrong] = 20.0;
        let read = Evidence::from_numbers(Concern::Failing, pre, prod, &sums, -1.0);
        assert_eq!(read, None, "{wrong}");
    }
}

/// What a gateway says that saw this, with these clients behind the bad units.
fn testimony(blocks: &[Block], bad_clients: &[u64]) -> Testimony {
    let mut evidence = Evidence::new(Concern::Failing);
    for block in blocks {
        evidence.add(block, 1.0);
    }
    Testimony::new(evidence, bad_clients.to_vec())
}

fn together(gateways: &[Testimony]) -> Evidence {
    Evidence::together(Concern::Failing, gateways)
}

#[test]
fn gateways_that_share_no_client_know_together_what_one_would_know() {
    let blocks: Vec<Block> = (0..10).map(|it| block(5, 50, it % 3, 3)).collect();
    let parts = blocks.iter().zip(1..);
    let parts: Vec<Testimony> = parts
        .map(|(it, client)| testimony(&[*it], &[client]))
        .collect();
    let (all, one) = (together(&parts), testimony(&blocks, &[]).evidence);
    assert_eq!((all.pre(), all.prod()), (one.pre(), one.prod()));
    assert!((all.ln_worse() - one.ln_worse()).abs() < 1e-9);
    assert!((all.ln_tolerable() - one.ln_tolerable()).abs() < 1e-9);
    assert_eq!(together(&[]), Evidence::new(Concern::Failing));
}

#[test]
fn of_two_gateways_that_share_a_client_the_stronger_one_counts() {
    let strong = testimony(&[block(10, 100, 4, 4)], &[1, 2, 3, 4]);
    let weak = testimony(&[block(10, 100, 1, 1)], &[4]);
    let (alone, both) = (strong.evidence, together(&[weak.clone(), strong.clone()]));
    assert!(both.ln_worse() < alone.ln_worse());
    assert!(both.ln_worse() > alone.ln_worse() - 2.0_f64.ln());
    // The units are told all the same.
    assert_eq!(both.pre(), Counted { units: 20, bad: 5 });
    assert_eq!(bad_clients(&[weak.clone(), strong.clone()]), 4);
    // The same client at ten gateways is no more than at one.
    let same = vec![weak.clone(); 10];
    assert!((together(&same).ln_worse() - weak.evidence.ln_worse()).abs() < 1e-9);
    assert_eq!(together(&[strong, weak]), both);
}

#[test]
fn who_shares_with_another_by_way_of_a_third_is_added_to_it() {
    let a = testimony(&[block(10, 100, 3, 3)], &[1, 2, 3]);
    let b = testimony(&[block(10, 100, 2, 2)], &[3, 4]);
    let c = testimony(&[block(10, 100, 4, 5)], &[4, 5, 6, 7]);
    let (ac, b_alone) = (together(&[a.clone(), c.clone()]), b.evidence);
    let all = together(&[a.clone(), b.clone(), c.clone()]);
    // {A, C}, {B}, {C, A}.
    for ((sum, ac), b) in all.sums.iter().zip(ac.sums).zip(b_alone.sums) {
        let mean: f64 = ((2.0 * ac.exp() + b.exp()) / 3.0).ln();
        assert!((sum - mean).abs() < 1e-9);
    }
    // In whatever order they are, and beside others that share nothing.
    let d = testimony(&[block(10, 100, 1, 1)], &[9]);
    let more = together(&[d.clone(), c, a, b]);
    for ((more, sum), d) in more.sums.iter().zip(all.sums).zip(d.evidence.sums) {
        assert!((more - sum - d).abs() < 1e-9);
    }
}

#[test]
fn evidence_of_another_concern_is_left_out() {
    let slow = Testimony::new(Evidence::new(Concern::Slow), vec![1]);
    let failing = testimony(&[block(10, 100, 1, 1)], &[1]);
    let all = together(&[slow, failing.clone()]);
    assert_eq!(
        (all.pre(), all.sums()),
        (failing.evidence.pre(), failing.evidence.sums())
    );
}

fn blocks() -> impl Strategy<Value = Block> {
    let counts = (0..=100_000_u64, 0.0..=1.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64);
    counts.prop_map(|(total, share, of_pre, of_prod)| {
        let of = |all: u64, share: f64| ((all as f64 * share) as u64).min(all);
        let n = of(total, share);
        let (x, y) = (of(n, of_pre), of(total - n, of_prod));
        block(n, total, x, x + y)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_counted_the_numbers_are_possible(
        blocks in proptest::collection::vec(blocks(), 1..6),
        margin in 1.0..10.0_f64,
    ) {
        let mut evidence = Evidence::new(Concern::Failing);
        for block in &blocks {
            evidence.add(block, margin);
        }
        prop_assert!(evidence.ln_worse().is_finite());
        prop_assert_eq!(read_back(&evidence), Some(evidence));
    }

    #[test]
    fn another_bad_unit_of_pre_speaks_against_it(block in blocks()) {
        let mut worse = block;
        if block.pre.bad < block.pre.units && block.prod.bad > 0 {
            // As many bad ones in all.
            worse.pre.bad += 1;
            worse.prod.bad -= 1;
            let of = |block: &Block| {
                let mut evidence = Evidence::new(Concern::Failing);
                evidence.add(block, 1.0);
                evidence
            };
            prop_assert!(of(&worse).ln_worse() > of(&block).ln_worse());
            prop_assert!(of(&worse).ln_tolerable() < of(&block).ln_tolerable());
        }
    }
}

#[test]
fn where_traffic_is_low_a_block_is_as_many_seconds_as_it_takes_to_compare() {
    let second = |pre: (u64, u64), prod: (u64, u64)| {
        let of = |(units, bad)| Counted { units, bad };
        Block {
            pre: of(pre),
            prod: of(prod),
        }
    };
    let of_failing = || Evidence::new(Concern::Failing);
    // One unit in each second, now of the one and now of the other.
    let mut alone = of_failing();
    let mut together = of_failing();
    for at in 0..40 {
        let second = match at % 2 {
            0 => second((1, 1), (0, 0)),
            _ => second((0, 0), (1, 0)),
        };
        alone.add(&second, 1.0);
        together.add_second(&second, 1.0);
    }
    assert_eq!(alone.sums()[7], 0.0);
    let mut long = of_failing();
    for _ in 0..4 {
        long.add(&second((5, 5), (5, 0)), 1.0);
    }
    assert_eq!(together.sums()[..16], long.sums()[..16]);
    assert!(together.ln_worse() > 3.0, "{}", together.ln_worse());
    assert_eq!((together.pre(), together.prod()), (long.pre(), long.prod()));
    // Where there is enough, a second is a block; and what is counted is known at once.
    let busy = second((8, 1), (8, 0));
    let (mut one, mut other) = (of_failing(), of_failing());
    one.add(&busy, 1.0);
    other.add_second(&busy, 1.0);
    assert_eq!(one, other);
    let mut open = of_failing();
    open.add_second(&second((7, 7), (8, 0)), 1.0);
    assert_eq!((open.pre().bad, open.sums()[7]), (7, 0.0));
    // The largest margin of its seconds holds.
    open.add_second(&second((1, 0), (0, 0)), 2.0);
    let mut with_margin = of_failing();
    with_margin.add(&second((8, 7), (8, 0)), 2.0);
    assert_eq!(open.sums()[..8], with_margin.sums()[..8]);
    // Nothing of what was not complete is left after a renewal.
    open.add_second(&second((1, 1), (1, 0)), 1.0);
    open.renew();
    (0..10).for_each(|_| open.add_second(&Block::default(), 1.0));
    assert!(open.sums()[..16].iter().all(|it| *it == 0.0));
}

#[test]
fn stretches_and_hours_are_of_seconds_however_long_blocks_are() {
    let mut evidence = Evidence::new(Concern::Failing);
    for _ in 0..3600 {
        assert!(!evidence.is_used_up());
        evidence.add_second(&Block::default(), 1.0);
    }
    assert!(evidence.is_used_up());
}
