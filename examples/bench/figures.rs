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
}

/// One run of one proxy.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    requests: u64,
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    /// Nanoseconds: 50 %, 99 %, 99.9 %.
    percentiles: [u64; 3],
    memory: Option<f64>,
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
            percentiles: [0.5, 0.99, 0.999].map(percentile),
            memory: None,
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

    /// A figure, if the run has it and it counts: one with errors does not.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        if !self.errors.is_empty() {
            return None;
        }
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let value = match metric {
            Metric::Memory => return self.memory,
            Metric::Rate => self.requests as f64 / self.elapsed.as_secs_f64(),
            Metric::P50 => millis(self.percentiles[0]),
            Metric::P99 => millis(self.percentiles[1]),
            Metric::P999 => millis(self.percentiles[2]),
            Metric::CpuRequest => self.cpu.as_secs_f64() * 1e6 / self.requests as f64,
            Metric::CpuGigabyte => self.cpu.as_secs_f64() * 1e3 / (self.bytes as f64 / 1e9),
        };
        (value.is_finite() && self.memory.is_none()).then_some(value)
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
