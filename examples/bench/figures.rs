//! Figures of single runs, and what is made of several: medians and ratios.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::Outcome;

/// What can be asked of a [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    /// Requests a second.
    Rate,
    /// Latencies, in milliseconds.
    P50,
    P99,
    P999,
    /// CPU microseconds a request.
    CpuRequest,
    /// CPU milliseconds a gigabyte (10^9 bytes) of what the client got or sent.
    CpuGigabyte,
    /// Bytes of memory an idle connection.
    Memory,
    /// Megabytes (10^6 bytes) a second of the downloads beside.
    Downloads,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests/s",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::CpuRequest => "CPU a request",
            Self::CpuGigabyte => "CPU a gigabyte",
            Self::Memory => "memory",
            Self::Downloads => "downloads",
        }
    }
}

/// Parts of all requests, for which a sample keeps the longest latency.
pub(crate) const PARTS: [f64; 10] = [
    0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9998,
];

/// One run of one proxy.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    requests: u64,
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    /// Nanoseconds, of [`PARTS`].
    latencies: [u64; PARTS.len()],
    /// How many these are taken of.
    timed: usize,
    memory: Option<f64>,
    /// Megabytes a second.
    downloads: Option<f64>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Sample {
    pub(crate) fn of(outcome: Outcome) -> Self {
        let sorted = &outcome.latencies;
        let percentile = |part: f64| {
            let at = (sorted.len() as f64 * part) as usize;
            sorted.get(at).or(sorted.last()).copied().unwrap_or(0)
        };
        Self {
            requests: outcome.requests,
            bytes: outcome.bytes,
            elapsed: outcome.elapsed,
            cpu: outcome.cpu,
            latencies: PARTS.map(percentile),
            timed: sorted.len(),
            memory: None,
            downloads: None,
            errors: outcome.errors,
        }
    }

    /// A run that looked at memory only.
    pub(crate) fn of_memory(bytes_each: f64) -> Self {
        Self {
            memory: Some(bytes_each),
            ..Self::of(Outcome::default())
        }
    }

    /// With what downloads beside it took, in megabytes a second.
    pub(crate) fn with_downloads(self, rate: f64) -> Self {
        let downloads = Some(rate);
        Self { downloads, ..self }
    }

    /// A figure, if the run has it and it counts: one with errors does not.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        if !self.errors.is_empty() {
            return None;
        }
        let millis = |at: usize| self.latencies[at] as f64 / 1e6;
        let value = match metric {
            Metric::Memory => return self.memory,
            Metric::Downloads => return self.downloads,
            Metric::Rate => self.requests as f64 / self.elapsed.as_secs_f64(),
            Metric::P50 => millis(0),
            Metric::P99 => millis(5),
            Metric::P999 => millis(8),
            Metric::CpuRequest => self.cpu.as_secs_f64() * 1e6 / self.requests as f64,
            Metric::CpuGigabyte => self.cpu.as_secs_f64() * 1e3 / (self.bytes as f64 / 1e9),
        };
        (value.is_finite() && self.memory.is_none()).then_some(value)
    }

    /// How many answers were timed in a run that counts.
    pub(crate) fn timed(&self) -> Option<usize> {
        let counts = self.errors.is_empty() && self.memory.is_none();
        counts.then_some(self.timed)
    }

    /// The latencies of [`PARTS`] in milliseconds, of a run that counts.
    pub(crate) fn latencies(&self) -> Option<[f64; PARTS.len()]> {
        let counts = self.errors.is_empty() && self.memory.is_none();
        counts.then(|| self.latencies.map(|it| it as f64 / 1e6))
    }
}

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// None of no values.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (&min, &max) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    };
    Some(Spread { median, min, max })
}
