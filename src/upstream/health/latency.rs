//! How long a peer takes, as a histogram: four buckets an octave, so that a quantile is right within a
//! tenth or so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::Counter;

/// From 1 microsecond to 2^27 (134 s); what takes longer counts as that.
const BUCKETS: usize = 27 * 4;

/// What the quantiles of a peer are of.
const SPAN: Duration = Duration::from_secs(60);

/// Any span moves on in so many steps.
const STEPS: u32 = 6;

/// One worker's histogram of one peer.
#[derive(Debug)]
pub(crate) struct Latency([Counter; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self([const { Counter::new() }; BUCKETS])
    }
}

impl Latency {
    /// The head of a response took so long.
    pub(crate) fn note(&self, took: Duration) {
        self.0[bucket(took)].increment();
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    // The two bits behind the highest one.
    let quarter = match octave {
        0 | 1 => (micros << (2 - octave)) & 3,
        _ => micros >> (octave - 2) & 3,
    };
    let at = (octave as usize * 4).saturating_add(usize::try_from(quarter).unwrap_or(0));
    at.min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket % 4);
    let low = (1_u64 << octave) as f64 * (1.0 + quarter as f64 / 4.0);
    let width = (1_u64 << octave) as f64 / 4.0;
    Duration::from_nanos(((low + width / 2.0) * 1000.0) as u64)
}

/// Of the heads of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantiles {
    /// Half of them took no longer.
    pub median: Duration,
    /// All but one in twenty took no longer.
    pub p95: Duration,
    /// All but one in a hundred took no longer.
    pub p99: Duration,
}

type Sums = [u64; BUCKETS];

fn sums<'a>(workers: impl Iterator<Item = &'a Latency>) -> Box<Sums> {
    let mut all = Box::new([0; BUCKETS]);
    for latency in workers {
        for (sum, counter) in all.iter_mut().zip(&latency.0) {
            *sum = u64::wrapping_add(*sum, counter.get());
        }
    }
    all
}

/// What the histograms were of late.
#[derive(Debug)]
pub(in crate::upstream) struct RecentLatency {
    span: Duration,
    looks: VecDeque<(Instant, Box<Sums>)>,
}

/// Of the last minute.
impl Default for RecentLatency {
    fn default() -> Self {
        Self::over(SPAN)
    }
}

impl RecentLatency {
    /// Its quantiles are of so long.
    pub(in crate::upstream) fn over(span: Duration) -> Self {
        let looks = VecDeque::new();
        Self { span, looks }
    }

    /// Notes what is seen `now`, if the last look is long enough ago.
    pub(in crate::upstream) fn note<'a>(
        &mut self,
        workers: impl Iterator<Item = &'a Latency>,
        now: Instant,
    ) {
        let is_due = |last: Instant| now.saturating_duration_since(last) >= self.span / STEPS;
        match self.looks.back() {
            // What came before the first look counts as well.
            None => self.looks.push_back((now, Box::new([0; BUCKETS]))),
            Some((last, _)) if is_due(*last) => self.looks.push_back((now, sums(workers))),
            Some(_) => return,
        }
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.span)
        {
            self.looks.pop_front();
        }
    }

    /// Of what has come since the oldest look.
    pub(in crate::upstream) fn quantiles<'a>(
        &self,
        workers: impl Iterator<Item = &'a Latency>,
    ) -> Option<Quantiles> {
        let mut now = sums(workers);
        if let Some((_, before)) = self.looks.front() {
            for (count, before) in now.iter_mut().zip(before.iter()) {
                *count = count.wrapping_sub(*before);
            }
        }
        let all: u64 = now.iter().sum();
        let at = |share: u64| {
            let mut left = (all * share).div_ceil(100).max(1);
            let place = now.iter().position(|count| {
                let is_here = left <= *count;
                left = left.saturating_sub(*count);
                is_here
            });
            place.map(middle)
        };
        Some(Quantiles {
            median: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_an_eighth() {
        for micros in [3, 70, 150, 999, 12_345, 999_999, 30_000_000] {
            let latency = Latency::default();
            let recent = RecentLatency::default();
            assert_eq!(recent.quantiles([&latency].into_iter()), None);
            for _ in 0..98 {
                latency.note(Duration::from_micros(micros));
            }
            for _ in 0..2 {
                latency.note(Duration::from_micros(micros * 4));
            }
            let found = recent.quantiles([&latency].into_iter()).unwrap();
            let near = |found: Duration, micros: u64| {
                let ratio = found.as_secs_f64() * 1e6 / micros as f64;
                assert!((0.87..1.15).contains(&ratio), "{found:?} {micros}");
            };
            near(found.median, micros);
            near(found.p99, micros * 4);
        }
    }

    #[test]
    fn what_is_older_than_a_minute_counts_no_more() {
        let (latency, mut recent) = (Latency::default(), RecentLatency::default());
        let begun = Instant::now();
        latency.note(Duration::from_secs(1));
        for second in 0..60 {
            recent.note([&latency].into_iter(), begun + Duration::from_secs(second));
        }
        latency.note(Duration::from_millis(1));
        for second in 60..140 {
            recent.note([&latency].into_iter(), begun + Duration::from_secs(second));
        }
        assert_eq!(recent.quantiles([&latency].into_iter()), None);
        latency.note(Duration::from_millis(1));
        let p99 = recent.quantiles([&latency].into_iter()).unwrap().p99;
        assert!(p99 < Duration::from_millis(2), "{p99:?}");
    }

    #[test]
    fn no_time_is_too_short_or_too_long() {
        let latency = Latency::default();
        latency.note(Duration::ZERO);
        latency.note(Duration::MAX);
        assert_eq!((latency.0[0].get(), latency.0[BUCKETS - 1].get()), (1, 1));
    }
}
