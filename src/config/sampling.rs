//! Which lines of the access log stand for others that are left out.

use super::error::{ValueResult, shown, wrong};

/// How many requests one line of the access log stands for, by their status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampling(Vec<Rate>);

/// One of `every` lines is written, for statuses of `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    first: u16,
    last: u16,
    every: u32,
}

impl Sampling {
    /// One of how many lines of requests with this status is written; 1 where all are.
    pub(crate) fn rate(&self, status: u16) -> u32 {
        let rate = self
            .0
            .iter()
            .find(|it| (it.first..=it.last).contains(&status));
        rate.map_or(1, |it| it.every)
    }
}

const ALLOWED: &str = "statuses below 400 or their classes, each with one of how many lines is written, from 1 to \
                       1000000, such as 2xx:100, 304:1000; lines of errors are all written; empty: all lines";

/// Parses `2xx:100, 304:1000`.
pub(super) fn sampling(text: &str) -> ValueResult<Sampling> {
    let mut rates: Vec<Rate> = Vec::new();
    if text.is_empty() {
        return Ok(Sampling::default());
    }
    for item in text.split(',').map(str::trim) {
        let Some((statuses, every)) = item.split_once(':') else {
            return wrong(format!("`{}` is not STATUS:NUMBER", shown(item)), ALLOWED);
        };
        let Some((first, last)) = statuses_of(statuses.trim()) else {
            let what = format!(
                "`{}` is not a status below 400 or a class of them",
                shown(statuses)
            );
            return wrong(what, ALLOWED);
        };
        let digits = every.trim();
        let number = digits
            .parse()
            .ok()
            .filter(|it| (1..=1_000_000).contains(it));
        let Some(every) = number.filter(|_| digits.bytes().all(|it| it.is_ascii_digit())) else {
            return wrong(format!("`{}` is not such a number", shown(digits)), ALLOWED);
        };
        if rates.iter().any(|it| (it.first, it.last) == (first, last)) {
            return wrong(format!("{} is given twice", shown(statuses)), ALLOWED);
        }
        rates.push(Rate { first, last, every });
    }
    // A status goes before its class.
    rates.sort_by_key(|it| it.last - it.first);
    Ok(Sampling(rates))
}

/// The first and the last of the statuses that are meant by `204` or `2xx`.
fn statuses_of(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.strip_suffix("xx") {
        Some(class) if class.len() == 1 => {
            let class = class.parse::<u16>().ok()? * 100;
            (class, class + 99)
        }
        Some(_) => return None,
        None if text.len() == 3 => (text.parse().ok()?, text.parse().ok()?),
        None => return None,
    };
    (100..400).contains(&first).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_own_rate_or_that_of_its_class_or_all_its_lines() {
        let rates = sampling("2xx:100, 3xx : 10,304:1000, 204:1").unwrap();
        for (status, rate) in [
            (200, 100),
            (299, 100),
            (204, 1),
            (304, 1000),
            (302, 10),
            (101, 1),
            (404, 1),
            (502, 1),
            (0, 1),
        ] {
            assert_eq!(rates.rate(status), rate, "{status}");
        }
        assert_eq!(sampling("").unwrap(), Sampling::default());
    }
}
