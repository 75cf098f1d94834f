//! The targets: what Graygate means to reach beside the others, and whether it does in this run.

use crate::figures::{Metric, Spread, spread};
use crate::proxies::Proxy;
use crate::report;
use crate::runs::{Measured, Subject};
use crate::site::{CHANGING, HALF, MILLION, OTHERS, STILL};
use crate::tables::Table;

/// What Graygate's figure is divided by.
#[derive(Clone, Copy)]
enum Against {
    /// That of this proxy.
    One(Proxy),
    /// The lower of nginx's and HAProxy's.
    Better,
    /// Its own, with one worker and a small list that nobody changes.
    Itself,
    /// Its own, with the addresses alone of a list that has other entries, too.
    Addresses,
    /// Its own, where nothing is counted for a verdict.
    Unwatched,
    /// So many of the unit.
    Fixed(f64),
}

/// One target.
struct Target {
    scenario: &'static str,
    /// Graygate's list and workers.
    gray: &'static str,
    workers: u8,
    metric: Metric,
    against: Against,
    /// The ratio that it must not be above; for requests a second, below.
    limit: f64,
}

const fn target(
    scenario: &'static str,
    workers: u8,
    metric: Metric,
    against: Against,
    limit: f64,
) -> Target {
    Target {
        scenario,
        gray: STILL,
        workers,
        metric,
        against,
        limit,
    }
}

const fn of_list(scenario: &'static str, gray: &'static str) -> Target {
    let plain = target(scenario, 1, Metric::CpuRequest, Against::Itself, 1.05);
    Target { gray, ..plain }
}

fn targets() -> Vec<Target> {
    use Against::{Addresses, Better, Fixed, Itself, One, Unwatched};
    use Metric::{CpuGigabyte, CpuRequest, Memory, P50, P99, Rate};
    let (nginx, haproxy) = (One(Proxy::Nginx), One(Proxy::Haproxy));
    let mut all = Vec::new();
    for scenario in ["small", "many"] {
        for workers in [1, 2] {
            all.push(target(scenario, workers, CpuRequest, nginx, 0.80));
            all.push(target(scenario, workers, CpuRequest, haproxy, 0.80));
            let floor = One(Proxy::Floor);
            all.push(target(scenario, workers, CpuRequest, floor, 1.15));
        }
        all.push(target(scenario, 2, CpuRequest, Itself, 1.05));
    }
    for scenario in ["crowd-512", "crowd-2000"] {
        for workers in [1, 2] {
            let tuned = One(Proxy::GraygateTuned);
            all.push(target(scenario, workers, CpuRequest, tuned, 1.05));
            all.push(target(scenario, workers, CpuRequest, haproxy, 1.0));
        }
    }
    for workers in [1, 2] {
        for proxy in [Proxy::OpenResty, Proxy::OpenRestyPool] {
            all.push(target("small", workers, Rate, One(proxy), 15.0));
        }
    }
    for scenario in ["offered-50", "offered-80"] {
        for workers in [1, 2] {
            all.push(target(scenario, workers, P99, nginx, 1.0));
        }
    }
    for scenario in [
        "answers-16k",
        "answers-1m",
        "uploads-1k",
        "uploads-1m",
        "answers-64m",
    ] {
        all.push(target(scenario, 1, CpuGigabyte, Better, 1.0));
    }
    all.push(target("connections", 1, CpuRequest, nginx, 1.0));
    all.push(target("beside", 1, P50, nginx, 1.0));
    all.push(target("beside", 1, P99, nginx, 1.0));
    all.push(target("idle", 1, Memory, Fixed(1024.0), 1.0));
    all.push(of_list("million", MILLION));
    for scenario in ["others", "others-browser"] {
        all.push(Target {
            gray: OTHERS,
            ..target(scenario, 1, CpuRequest, Addresses, 1.10)
        });
    }
    all.push(of_list("changes", CHANGING));
    all.push(Target {
        gray: HALF,
        ..target("verdict", 1, CpuRequest, Unwatched, 1.02)
    });
    all
}

impl Target {
    /// The ratios of the rounds that have one. Where the scenario has not run: none.
    fn ratios(&self, all: &[Measured]) -> Option<Vec<f64>> {
        let measured = all.iter().find(|it| it.scenario.name == self.scenario)?;
        let find = |proxy, gray: &str, workers| {
            measured.subjects.iter().find(|it| {
                let setting = it.setting;
                // The floor has only one worker.
                let fits = setting.workers == workers || proxy == Proxy::Floor;
                setting.proxy == proxy && setting.gray == gray && fits
            })
        };
        let own = find(Proxy::Graygate, self.gray, self.workers)?;
        let beside = |other: Option<&Subject>| {
            other.map_or_else(Vec::new, |it| report::by_round(own, it, self.metric))
        };
        let ratios: Vec<Option<f64>> = match self.against {
            Against::One(proxy) => beside(find(proxy, STILL, self.workers)),
            Against::Itself => beside(find(Proxy::Graygate, STILL, 1)),
            Against::Addresses => beside(find(Proxy::Graygate, MILLION, self.workers)),
            Against::Unwatched => {
                let unwatched = Proxy::GraygateUnwatched;
                beside(find(unwatched, HALF, self.workers))
            }
            Against::Better => {
                let nginx = beside(find(Proxy::Nginx, STILL, self.workers));
                let haproxy = beside(find(Proxy::Haproxy, STILL, self.workers));
                let rounds = nginx.into_iter().zip(haproxy);
                rounds.map(|(a, b)| Some(a?.max(b?))).collect()
            }
            Against::Fixed(unit) => {
                let samples = own.samples.iter().flatten();
                samples
                    .map(|it| Some(it.get(self.metric)? / unit))
                    .collect()
            }
        };
        Some(ratios.into_iter().flatten().collect())
    }

    fn text(&self) -> String {
        let (limit, sign) = (self.limit, if self.is_least() { "≥" } else { "≤" });
        match self.against {
            Against::One(Proxy::OpenRestyPool) => {
                format!("{sign} {limit:.0} × the same with Redis pool")
            }
            Against::One(Proxy::GraygateTuned) => {
                format!("{sign} {limit:.2} × with keepalive = 4096")
            }
            Against::One(proxy) if self.is_least() => {
                format!("{sign} {limit:.0} × {}", proxy.name())
            }
            Against::One(proxy) => format!("{sign} {limit:.2} × {}", proxy.name()),
            Against::Better => format!("{sign} {limit:.2} × better of nginx, HAProxy"),
            Against::Itself if self.gray == STILL => format!("{sign} {limit:.2} × with 1 worker"),
            Against::Itself => format!("{sign} {limit:.2} × a small, still list"),
            Against::Addresses => format!("{sign} {limit:.2} × the addresses alone"),
            Against::Unwatched => format!("{sign} {limit:.2} × with [verdict] mode = off"),
            Against::Fixed(_) => format!("{sign} {limit:.0} KiB each"),
        }
    }

    fn is_least(&self) -> bool {
        self.metric == Metric::Rate
    }

    /// Whether all rounds, none, or only some of them meet it.
    fn verdict(&self, ratio: Spread) -> &'static str {
        let (best, worst) = if self.is_least() {
            (ratio.max, ratio.min)
        } else {
            (ratio.min, ratio.max)
        };
        let meets = |ratio: f64| {
            if self.is_least() {
                ratio >= self.limit
            } else {
                ratio <= self.limit
            }
        };
        match (meets(best), meets(worst)) {
            (_, true) => "met",
            (true, false) => "unclear",
            (false, false) => "MISSED",
        }
    }
}

/// All targets of the scenarios that have run.
pub(crate) fn table(all: &[Measured]) -> Table {
    let head = [
        "scenario", "figure", "workers", "target", "verdict", "median", "from", "to",
    ];
    let mut table = Table::new(5, head);
    for target in targets() {
        let Some(ratios) = target.ratios(all) else {
            continue;
        };
        let mut row = vec![
            target.scenario.to_owned(),
            target.metric.name().to_owned(),
            target.workers.to_string(),
            target.text(),
        ];
        if let Some(ratio) = spread(ratios) {
            row.push(target.verdict(ratio).to_owned());
            row.extend([ratio.median, ratio.min, ratio.max].map(|it| format!("{it:.2}")));
        } else {
            row.push("no figure".to_owned());
            row.extend(["-", "-", "-"].map(str::to_owned));
        }
        table.push(row);
    }
    table
}

/// The targets that tests show. What they say here is what these tests check.
pub(crate) fn counted() -> Table {
    let mut table = Table::new(3, ["target a request", "what is shown", "by"]);
    let mut add = |target: &str, shown: &str, by: &str| {
        table.push([target, shown, by].map(str::to_owned));
    };
    add(
        "0 memory allocations",
        "none by the worker's thread, in 2,000 requests of each kind: a small answer, one in chunks, a \
         request with a body, 30 fields both ways; without an access log and with one",
        "`cargo test --test allocations --test allocations_logged`",
    );
    add(
        "0 locks",
        "none, not even a free one: no instruction of the worker in the source files of locks, in 50 \
         requests of each kind, says callgrind",
        "`cargo test --test locks`",
    );
    add(
        "≤ 7 system calls",
        "7 where one request comes after the other, says strace: a wait, a read and a write on each side, \
         besides the ticks of the worker's clock, and a look at the kept connection, on which nothing may \
         have come before the request is sent",
        "`cargo test --test system_calls`",
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(metric: Metric, limit: f64, rounds: &[f64], verdict: &str) {
        let target = target("small", 1, metric, Against::One(Proxy::Nginx), limit);
        let ratio = spread(rounds.iter().copied()).expect("rounds");
        assert_eq!(target.verdict(ratio), verdict, "{rounds:?}");
    }

    #[test]
    fn a_target_is_met_in_every_round_or_missed_in_every_round_or_unclear() {
        check(Metric::CpuRequest, 0.80, &[0.80, 0.70], "met");
        check(Metric::CpuRequest, 0.80, &[0.81, 0.70, 0.70], "unclear");
        check(Metric::CpuRequest, 0.80, &[0.80, 0.90, 0.90], "unclear");
        check(Metric::CpuRequest, 0.80, &[0.81, 0.90], "MISSED");
    }

    #[test]
    fn of_requests_a_second_more_is_better() {
        check(Metric::Rate, 15.0, &[15.0, 16.0], "met");
        check(Metric::Rate, 15.0, &[14.9, 16.0, 16.0], "unclear");
        check(Metric::Rate, 15.0, &[14.0, 14.0, 15.0], "unclear");
        check(Metric::Rate, 15.0, &[14.0, 14.9], "MISSED");
    }
}
