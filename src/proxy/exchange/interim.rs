//! How many interim responses of a peer are passed on, and for how long they keep it being waited for.
//!
//! All of them are, and each renews the time in which the next head must come: that is what 102 is for
//! (RFC 2518 section 10.1). From a peer that abuses them the surplus is dropped, and nothing else
//! happens: its response may still be a success, and to ask another peer would be to do twice what the
//! request asks for. Only what nobody could mean, megabytes of them, renews that time no more.

use std::time::Instant;

/// A short one counts for so many bytes: it costs as much.
const LEAST: u64 = 64;

/// So many bytes are passed on at once.
const BURST: u64 = 256 * 1024;

/// So many bytes a second are passed on in the long run.
const PACE: u64 = 16 * 1024;

/// After so many bytes, passed on or not, the time is renewed no more.
const RENEWING: u64 = 16 << 20;

/// What one peer has sent of them in one attempt.
#[derive(Debug, Default)]
pub(super) struct Interim {
    /// All bytes.
    total: u64,
    /// Those passed on that the pace has not made up for yet.
    level: u64,
    /// As of when that is.
    since: Option<Instant>,
    /// Some were dropped.
    surplus: bool,
}

/// What becomes of an interim response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The client gets it.
    pub(super) passes: bool,
    /// The peer has its whole time again.
    pub(super) renews: bool,
    /// It is the first one that is dropped.
    pub(super) is_news: bool,
}

impl Interim {
    /// Judges one of so many bytes that has come `now`.
    pub(super) fn judge(&mut self, bytes: usize, now: Instant) -> Verdict {
        let bytes = (bytes as u64).max(LEAST);
        self.total += bytes;
        let since = *self.since.get_or_insert(now);
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
        let made_up = millis.saturating_mul(PACE) / 1000;
        if made_up > 0 {
            self.level = self.level.saturating_sub(made_up);
            self.since = Some(now);
        }
        let passes = self.level + bytes <= BURST;
        if passes {
            self.level += bytes;
        }
        Verdict {
            passes,
            renews: self.total <= RENEWING,
            is_news: !passes && !std::mem::replace(&mut self.surplus, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Sends `count` of so many bytes, one each `pause`: how many pass, and how many renew?
    fn sends(count: usize, bytes: usize, pause: Duration) -> (usize, usize) {
        let (mut interim, begun) = (Interim::default(), Instant::now());
        let at = |number: usize| begun + pause * u32::try_from(number).unwrap();
        let verdicts: Vec<Verdict> = (0..count)
            .map(|number| interim.judge(bytes, at(number)))
            .collect();
        let news = verdicts.iter().filter(|it| it.is_news).count();
        assert_eq!(news, usize::from(verdicts.iter().any(|it| !it.passes)));
        (
            verdicts.iter().filter(|it| it.passes).count(),
            verdicts.iter().filter(|it| it.renews).count(),
        )
    }

    #[test]
    fn all_pass_that_somebody_could_mean_and_of_a_flood_as_many_as_the_pace_allows() {
        let (at_once, milli, second) = (
            Duration::ZERO,
            Duration::from_millis(1),
            Duration::from_secs(1),
        );
        // How many, how large, how often; and how many pass and renew.
        let table = [
            (1, 25, at_once, 1, 1),
            (4096, 25, at_once, 4096, 4096),
            (4097, 25, at_once, 4096, 4097),
            // A head of 32 KiB at most: eight at once.
            (9, 32 * 1024, at_once, 8, 9),
            // For a day.
            (86_400, 40, second, 86_400, 86_400),
            (86_400, 16 * 1024, second, 86_400, 1024),
            // A thousand a second for ten minutes: the burst, and then a quarter of them.
            (600_000, 64, milli, 4096 + 149_999, 262_144),
            (1_000_000, 64, at_once, 4096, 262_144),
        ];
        for (count, bytes, pause, passed, renewed) in table {
            let got = sends(count, bytes, pause);
            let case = format!("{count} of {bytes}, one each {pause:?}: {got:?}");
            // One more or less by rounding.
            assert!(got.0.abs_diff(passed) <= 2, "{case}");
            assert_eq!(got.1, renewed, "{case}");
        }
    }
}
