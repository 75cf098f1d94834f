//! A scenario's figures as tables: the proxies, and Graygate beside each of the others.

use crate::figures::{Metric, Sample, Spread, spread};
use crate::proxies::{Proxy, Setting};
use crate::runs::{Measured, Subject};
use crate::site::{CHANGING, HALF, MILLION, OTHERS, STILL};
use crate::tables::Table;

/// The figures of each proxy: medians of the rounds.
pub(crate) fn figures(measured: &Measured) -> Table {
    let cost = measured.scenario.cost;
    if cost == Metric::Memory {
        let mut table = Table::new(1, ["proxy", "workers", "KiB each", "from", "to"]);
        for subject in &measured.subjects {
            let kib = |it: f64| format!("{:.2}", it / 1024.0);
            let memory = of(subject, Metric::Memory);
            let [median, min, max] = three(memory, kib);
            let setting = subject.setting;
            let row = [name(setting), setting.workers.to_string(), median, min, max];
            table.push(row);
        }
        return table;
    }
    let head = [
        "proxy",
        "workers",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        unit(cost),
        "from",
        "to",
        "errors",
    ];
    let mut table = Table::new(1, head);
    for subject in &measured.subjects {
        let median = |metric, digits: usize| {
            let value = of(subject, metric);
            value.map_or("-".to_owned(), |it| format!("{:.digits$}", it.median))
        };
        let digits = if cost == Metric::CpuRequest { 2 } else { 0 };
        let [cpu, min, max] = three(of(subject, cost), |it| format!("{it:.digits$}"));
        table.push([
            name(subject.setting),
            subject.setting.workers.to_string(),
            median(Metric::Rate, 0),
            median(Metric::P50, 2),
            median(Metric::P99, 2),
            median(Metric::P999, 2),
            cpu,
            min,
            max,
            errors(subject).to_string(),
        ]);
    }
    table
}

/// What to know of the percentiles of few answers.
pub(crate) fn remark(measured: &Measured) -> Option<String> {
    let samples = measured.subjects.iter().flat_map(|it| &it.samples);
    let fewest = samples.flatten().filter_map(Sample::timed).min()?;
    let slowest = match fewest {
        0..=100 => "p99 and p99.9 are",
        101..=1000 => "p99.9 is",
        _ => return None,
    };
    Some(format!(
        "A run has had only {fewest} answers. Of so few, {slowest} the slowest one."
    ))
}

/// Graygate's figures divided by those of the others, round by round.
pub(crate) fn ratios(measured: &Measured) -> Table {
    let cost = measured.scenario.cost;
    let metrics: &[Metric] = match cost {
        Metric::Memory => &[cost],
        _ => &[cost, Metric::Rate, Metric::P99],
    };
    let mut head = vec!["Graygate to", "workers"];
    for metric in metrics {
        head.extend([metric.name(), "from", "to"]);
    }
    let mut table = Table::new(1, head);
    for own in &measured.subjects {
        if own.setting.proxy != Proxy::Graygate {
            continue;
        }
        for other in &measured.subjects {
            if !are_compared(own.setting, other.setting) {
                continue;
            }
            let mut row = vec![name(other.setting), own.setting.workers.to_string()];
            for &metric in metrics {
                let ratios = by_round(own, other, metric);
                let ratio = spread(ratios.into_iter().flatten());
                row.extend(three(ratio, |it| format!("{it:.2}")));
            }
            table.push(row);
        }
    }
    table
}

/// True for a Graygate with something special beside the plain one, with other entries beside one with
/// addresses alone, one that watches a release beside one that does not, and else for a Graygate beside
/// others with as many workers. The floor has only one.
fn are_compared(own: Setting, other: Setting) -> bool {
    if own.gray == OTHERS || other.gray == OTHERS {
        return own.gray == OTHERS && other.gray == MILLION;
    }
    if own.gray == HALF || other.gray == HALF {
        return own.gray == HALF && other.proxy == Proxy::GraygateUnwatched;
    }
    if other.proxy == Proxy::Graygate {
        return own.gray != STILL && other.gray == STILL;
    }
    own.gray == STILL && (own.workers == other.workers || other.proxy == Proxy::Floor)
}

/// The ratios of two proxies; none in a round in which one has no such figure.
pub(crate) fn by_round(own: &Subject, other: &Subject, metric: Metric) -> Vec<Option<f64>> {
    let rounds = own.samples.iter().zip(&other.samples);
    let ratio = rounds.map(|(own, other)| {
        let own = own.as_ref()?.get(metric)?;
        let ratio = own / other.as_ref()?.get(metric)?;
        ratio.is_finite().then_some(ratio)
    });
    ratio.collect()
}

/// The spread of a figure over the rounds that count.
pub(crate) fn of(subject: &Subject, metric: Metric) -> Option<Spread> {
    let samples = subject.samples.iter().flatten();
    spread(samples.filter_map(|it| it.get(metric)))
}

/// What to call an instance.
pub(crate) fn name(setting: Setting) -> String {
    let name = setting.proxy.name();
    match setting.gray {
        MILLION => format!("{name}, a million entries"),
        OTHERS => format!("{name}, and a hundred others"),
        CHANGING => format!("{name}, 100 changes/s"),
        _ => name.to_owned(),
    }
}

/// What went wrong, a line each.
pub(crate) fn problems(measured: &Measured) -> Vec<String> {
    let mut lines = Vec::new();
    for subject in &measured.subjects {
        let (name, workers) = (name(subject.setting), subject.setting.workers);
        for problem in &subject.problems {
            lines.push(format!("{name}, {workers} workers: {problem}"));
        }
        for (round, sample) in subject.samples.iter().enumerate() {
            for (error, count) in sample.iter().flat_map(|it| &it.errors) {
                lines.push(format!(
                    "{name}, {workers} workers, round {}, which does not count: {count} × {error}",
                    round + 1
                ));
            }
        }
    }
    lines
}

fn errors(subject: &Subject) -> u64 {
    let samples = subject.samples.iter().flatten();
    samples.flat_map(|it| it.errors.values()).sum()
}

fn three(spread: Option<Spread>, show: impl Fn(f64) -> String) -> [String; 3] {
    let none = || "-".to_owned();
    spread.map_or_else(
        || [none(), none(), none()],
        |it| [show(it.median), show(it.min), show(it.max)],
    )
}

/// The unit of a cost.
pub(crate) fn unit(cost: Metric) -> &'static str {
    match cost {
        Metric::CpuGigabyte => "CPU ms/GB",
        Metric::Memory => "KiB each",
        Metric::Downloads => "downloads MB/s",
        _ => "CPU µs/req",
    }
}
