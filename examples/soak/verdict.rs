//! Whether a row of numbers grows.
//!
//! The numbers of one quantity are all taken in the same state (all idle, or all under the same load), so
//! a sound gateway's go up and down around one value, and a leak's go up. A row *grows* when both hold:
//!
//! - the median of its last third is above that of its first third by more than the quantity may differ
//!   from one round to another (its *slack*): a small step is no verdict, and one outlier moves no median;
//! - its numbers rise in order (Mann-Kendall, one-sided, z above 2.33: by chance once in a hundred rows):
//!   a gateway that was busier by chance late in the run is no leak.
//!
//! The first fifth is warm-up: memory and pools reach their size then.

/// How much a quantity may differ between two parts of a run: this, and a share of what it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    pub(crate) fixed: f64,
    pub(crate) share: f64,
}

/// What is said of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Medians of the first, the middle and the last third, after the warm-up.
    pub(crate) thirds: [f64; 3],
    /// Median of the slopes between all pairs (Theil-Sen), a round.
    pub(crate) slope: f64,
    pub(crate) grows: bool,
}

/// In standard deviations; see the module.
const SIGNIFICANT: f64 = 2.33;

/// Fewer numbers say nothing.
pub(crate) const LEAST: usize = 6;

/// The verdict on `row`, `None` when it is too short.
pub(crate) fn judge(row: &[f64], slack: Slack) -> Option<Verdict> {
    let row = &row[row.len().div_ceil(5)..];
    if row.len() < LEAST {
        return None;
    }
    let third = row.len() / 3;
    let (first, rest) = row.split_at(third);
    let (middle, last) = rest.split_at(rest.len() - third);
    let thirds = [first, middle, last].map(median);
    let rise = thirds[2] - thirds[0];
    let allowed = slack.fixed + slack.share * thirds[0];
    Some(Verdict {
        thirds,
        slope: slope(row),
        grows: rise > allowed && mann_kendall(row) > SIGNIFICANT,
    })
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Each pair in order: the two places, and how much the later number is above the earlier one.
fn pairs(row: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    let later = |at: usize| row[at + 1..].iter().enumerate();
    let pair = move |at: usize| later(at).map(move |(steps, it)| (steps + 1, it - row[at]));
    (0..row.len()).flat_map(pair)
}

fn slope(row: &[f64]) -> f64 {
    let slopes: Vec<f64> = pairs(row)
        .map(|(steps, rise)| rise / steps as f64)
        .collect();
    median(&slopes)
}

/// How far from chance the row rises, in standard deviations, with ties taken into account.
fn mann_kendall(row: &[f64]) -> f64 {
    let sign = |rise: f64| match rise {
        0.0 => 0.0,
        rise => rise.signum(),
    };
    let sum: f64 = pairs(row).map(|(_, rise)| sign(rise)).sum();
    let term = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut sorted = row.to_vec();
    sorted.sort_by(f64::total_cmp);
    let ties = sorted.chunk_by(|one, other| one == other);
    let ties: f64 = ties.map(|it| term(it.len() as f64)).sum();
    let variance = (term(row.len() as f64) - ties) / 18.0;
    match variance > 0.0 {
        true => (sum - sum.signum()) / variance.sqrt(),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Slack = Slack {
        fixed: 10.0,
        share: 0.1,
    };

    fn grows(row: impl IntoIterator<Item = f64>) -> bool {
        let row: Vec<f64> = row.into_iter().collect();
        judge(&row, SLACK).expect("enough numbers").grows
    }

    #[test]
    fn a_steady_leak_grows_however_the_numbers_shake() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let leak = |at: u32| 100.0 + 5.0 * f64::from(at) + 10.0 * random.f64();
            assert!(grows((0..14).map(leak)), "seed {seed}");
        }
    }

    #[test]
    fn numbers_that_only_shake_do_not_grow() {
        for seed in 0..1000 {
            let mut random = fastrand::Rng::with_seed(seed);
            assert!(
                !grows((0..14).map(|_| 100.0 + 20.0 * random.f64())),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn a_warm_up_an_outlier_and_a_small_step_are_no_growth() {
        let warm_up = [20.0, 60.0, 90.0, 100.0].into_iter();
        assert!(!grows(warm_up.chain(std::iter::repeat_n(100.0, 14))));
        let outlier = std::iter::repeat_n(100.0, 13).chain([5000.0]);
        assert!(!grows(outlier));
        assert!(!grows((0..14).map(|at| 100.0 + f64::from(at))));
    }

    #[test]
    fn what_falls_or_stays_does_not_grow() {
        assert!(!grows((0..14).map(|at| 1000.0 - 20.0 * f64::from(at))));
        assert!(!grows([0.0; 14]));
    }

    #[test]
    fn a_step_that_stays_grows_when_it_is_a_large_one() {
        let step = |at: usize| if at < 8 { 100.0 } else { 200.0 };
        assert!(grows((0..14).map(step)));
    }

    #[test]
    fn the_thirds_and_the_slope_are_those_after_the_warm_up() {
        let row: Vec<f64> = (0..15).map(|at| 100.0 * f64::from(at)).collect();
        let verdict = judge(&row, SLACK).expect("enough numbers");
        assert_eq!(verdict.thirds, [450.0, 850.0, 1250.0]);
        assert_eq!((verdict.slope, verdict.grows), (100.0, true));
    }

    #[test]
    fn too_few_numbers_say_nothing() {
        assert_eq!(judge(&[1.0; 7], SLACK), None);
        assert!(judge(&[1.0; 8], SLACK).is_some());
    }
}
