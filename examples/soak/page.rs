//! The page at the end of a run.

use std::fmt::Write;

use crate::sample::Series;
use crate::tally::Tallies;
use crate::verdict::{self, Verdict};

/// The page of a run, and whether all is well.
pub(crate) fn of(command: &str, series: &[Series], tallies: &Tallies) -> (String, bool) {
    let (mut page, mut sound) = (format!("{command}\n"), true);
    // Writing to a String cannot fail.
    for series in series {
        let _ = writeln!(page, "\n{}: medians of each third", series.name);
        let _ = writeln!(
            page,
            "{:<26} {:>5} {:>10} {:>10} {:>10} {:>9}  verdict",
            "quantity", "state", "first", "middle", "last", "a round"
        );
        for (quantity, row) in series.quantities.iter().zip(&series.rows) {
            let _ = write!(page, "{:<26} {:>5} ", quantity.name, quantity.state.name());
            let verdict = verdict::judge(row, quantity.slack);
            sound &= !verdict.is_some_and(|it| it.grows);
            let _ = match verdict {
                Some(verdict) => writeln!(page, "{}", line(&verdict)),
                None => writeln!(page, "{:>42}  too few rounds", ""),
            };
        }
    }
    page.push_str(&tallies.page());
    sound &= tallies.failed() == 0;
    page.push_str(match sound {
        true => "\nOK: nothing grows, and nothing failed that must not\n",
        false => "\nFAILED\n",
    });
    (page, sound)
}

fn line(verdict: &Verdict) -> String {
    let [first, middle, last] = verdict.thirds;
    let word = match verdict.grows {
        true => "GROWS",
        false => "steady",
    };
    let slope = verdict.slope;
    format!("{first:>10.0} {middle:>10.0} {last:>10.0} {slope:>9.1}  {word}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::QUANTITIES;
    use crate::tally::Outcome;

    fn series(highest: impl Fn(usize) -> f64) -> Series {
        let row = |name: &str| {
            let number = |at| {
                if name == "highest socket" {
                    highest(at)
                } else {
                    100.0
                }
            };
            (0..14).map(number).collect()
        };
        let mut series = Series::new("2 workers".to_owned(), &QUANTITIES);
        series.rows = QUANTITIES.iter().map(|it| row(it.name)).collect();
        series
    }

    #[test]
    fn what_grows_is_named_and_fails_the_run() {
        let tallies = Tallies::new(1);
        let (page, sound) = of("soak", &[series(|_| 100.0)], &tallies);
        assert!(sound && !page.contains("GROWS"), "{page}");
        let (page, sound) = of("soak", &[series(|at| 100.0 * at as f64)], &tallies);
        let grown: Vec<&str> = page.lines().filter(|it| it.ends_with("GROWS")).collect();
        assert!(!sound && page.ends_with("FAILED\n"));
        assert_eq!(grown.len(), 2, "{page}");
        assert!(grown.iter().all(|it| it.starts_with("highest socket")));
    }

    #[test]
    fn a_failure_fails_the_run_and_is_shown() {
        let tallies = Tallies::new(1);
        tallies
            .of(0)
            .note("get", Outcome::Wrong("502 connect-failed".to_owned()));
        let (page, sound) = of("soak", &[series(|_| 100.0)], &tallies);
        assert!(!sound && page.contains("502 connect-failed"), "{page}");
    }
}
