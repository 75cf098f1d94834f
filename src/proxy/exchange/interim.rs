//! How many interim responses of a peer are passed on, and how fast they are read.
//!
//! All of them are passed on, and each renews the time limit for the next head: that is what 102 is for
//! (RFC 2518 section 10.1). From a peer that abuses them the surplus is dropped; and a flood of
//! megabytes, which nobody can want, is read at a limited pace, so that TCP slows the peer down. Nothing
//! else happens: its response may still be a success, and asking another peer would do twice what the
//! request asks for. The request fails only when it has waited for minutes because of that pace.

use std::time::{Duration, Instant};

/// A short one counts as this many bytes: it costs as much.
const LEAST: u64 = 64;

/// What is passed on.
const PASSED: ByteRate = ByteRate {
    burst: 256 * 1024,
    rate: 16 * 1024,
};

/// What is read, passed on or not: a few hundredths of what a worker could read.
const READ: ByteRate = ByteRate {
    burst: 16 << 20,
    rate: 2 << 20,
};

/// A shorter pause would end no sooner: the worker's clock checks its waits only this often.
const PAUSE: Duration = Duration::from_millis(25);

/// The pauses may add up to this many times `read_timeout`.
const ENDLESS: u32 = 600;

/// How many bytes at once, and how many a second in the long run.
struct ByteRate {
    burst: u64,
    rate: u64,
}

/// A leaky bucket: the bytes that have not drained yet.
#[derive(Debug, Default)]
struct Level {
    bytes: u64,
    /// When `bytes` was last updated.
    since: Option<Instant>,
}

impl Level {
    /// Subtracts what has drained at this `pace` until `now`.
    fn settle(&mut self, pace: &ByteRate, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
        let made_up = millis.saturating_mul(pace.rate) / 1000;
        if made_up > 0 {
            self.bytes = self.bytes.saturating_sub(made_up);
            self.since = Some(now);
        }
    }
}

/// The interim responses of one peer in one attempt.
#[derive(Debug, Default)]
pub(super) struct Interim {
    passed: Level,
    read: Level,
    /// How long reading was paused because of them.
    paused: Duration,
    /// Some were dropped.
    surplus: bool,
}

/// What becomes of an interim response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterimVerdict {
    /// The client gets it.
    pub(super) passes: bool,
    /// It is the first one that is dropped.
    pub(super) is_news: bool,
    /// How long to pause reading after it.
    pub(super) pause: Option<Duration>,
}

impl Interim {
    /// Judges one of this many bytes that has arrived `now`.
    pub(super) fn judge(&mut self, bytes: usize, now: Instant) -> InterimVerdict {
        let bytes = (bytes as u64).max(LEAST);
        self.passed.settle(&PASSED, now);
        self.read.settle(&READ, now);
        let passes = self.passed.bytes + bytes <= PASSED.burst;
        if passes {
            self.passed.bytes += bytes;
        }
        self.read.bytes += bytes;
        let is_too_much = self.read.bytes > READ.burst;
        if is_too_much {
            self.paused += PAUSE;
        }
        InterimVerdict {
            passes,
            is_news: !passes && !std::mem::replace(&mut self.surplus, true),
            pause: is_too_much.then_some(PAUSE),
        }
    }

    /// True once the request has waited for so long that nobody is waiting for an answer any more.
    pub(super) fn is_endless(&self, read_timeout: Duration) -> bool {
        self.paused > read_timeout.saturating_mul(ENDLESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` of so many bytes, one each `pause`: how many pass, and for how long is nothing read?
    fn sends(count: usize, bytes: usize, pause: Duration) -> (usize, Duration) {
        let (mut interim, mut now) = (Interim::default(), Instant::now());
        let (mut passed, mut news) = (0, 0);
        for _ in 0..count {
            let verdict = interim.judge(bytes, now);
            passed += usize::from(verdict.passes);
            news += usize::from(verdict.is_news);
            now += pause + verdict.pause.unwrap_or_default();
        }
        assert_eq!(news, usize::from(passed < count));
        (passed, interim.paused)
    }

    #[test]
    fn all_pass_that_somebody_could_mean_and_of_a_flood_as_many_as_the_pace_allows() {
        let (at_once, milli, second) = (
            Duration::ZERO,
            Duration::from_millis(1),
            Duration::from_secs(1),
        );
        // How many, how large, how often; how many pass, and for how many seconds nothing is read.
        let table = [
            (1, 25, at_once, 1, 0),
            (4096, 25, at_once, 4096, 0),
            (4097, 25, at_once, 4096, 0),
            // A head of 32 KiB at most: eight at once.
            (9, 32 * 1024, at_once, 8, 0),
            // For a day.
            (86_400, 40, second, 86_400, 0),
            (86_400, 16 * 1024, second, 86_400, 0),
            // A thousand a second for ten minutes: the burst, and then a quarter of them.
            (600_000, 64, milli, 4096 + 149_999, 0),
            (262_144, 64, at_once, 4096, 0),
            // What is read beyond the burst takes its time, in which more may pass.
            (262_144 + 32_768, 64, at_once, 4096 + 256, 1),
            (1_000_000, 64, at_once, 4096 + 22 * 256, 22),
        ];
        for (count, bytes, pause, passed, seconds) in table {
            let got = sends(count, bytes, pause);
            let case = format!("{count} of {bytes}, one each {pause:?}: {got:?}");
            // Some more or less by rounding, and by the last pause.
            let slack = if seconds == 0 { 2 } else { 256 };
            assert!(got.0.abs_diff(passed) <= slack, "{case}");
            let paused = Duration::from_secs(seconds);
            assert!(got.1.abs_diff(paused) <= paused / 20, "{case}");
        }
    }

    #[test]
    fn a_flood_is_endless_only_after_minutes_of_pauses() {
        let second = Duration::from_secs(1);
        let (mut interim, begun) = (Interim::default(), Instant::now());
        let mut now = begun;
        let mut bytes = 0;
        while !interim.is_endless(second) {
            let verdict = interim.judge(1024, now);
            now += verdict.pause.unwrap_or_default();
            bytes += 1024;
        }
        assert!((now - begun).abs_diff(600 * second) < second);
        // A gigabyte.
        assert!(bytes > 1_000_000_000, "{bytes}");
        // Who sends as much in a day is not paused.
        assert!(!interim.is_endless(2 * second));
    }
}
