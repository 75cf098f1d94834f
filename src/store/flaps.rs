//! Failures that come and go: which of them are logged.
//!
//! The first failure is logged at once, and so is its end. One that follows soon after is logged only if
//! it lasts: a connection that is cut every second would fill the log with pairs of lines that say
//! nothing new. The log says once that this has begun, and once that it is over, with the number of
//! failures.

use std::time::{Duration, Instant};

/// After this time without a failure, the next one counts as the first again.
const QUIET: Duration = Duration::from_secs(60);

/// A failure that lasts this long is logged in any case.
const LASTS: Duration = Duration::from_secs(1);

/// What has been logged of the failures so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flaps {
    /// Since when it has been failing, and whether that was logged.
    failing: Option<(Instant, bool)>,
    /// When the last failure ended.
    ended: Option<Instant>,
    /// How many failures were not logged.
    untold: u64,
}

/// What is to be logged on a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    /// Nothing.
    Nothing,
    /// A failure that was logged has ended.
    Again,
    /// It fails and recovers again and again; from now on that is not logged.
    Unsteady,
    /// That has ended; this many failures were not logged.
    Steady(u64),
}

impl Flaps {
    /// Notes a failure, the first or another one; one that will not pass by itself is logged at once.
    /// True when it is to be logged and was not yet.
    pub(crate) fn failed(&mut self, at_once: bool, now: Instant) -> bool {
        let is_soon = self.ended.is_some_and(|it| now.duration_since(it) < QUIET);
        let (since, told) = self.failing.get_or_insert((now, false));
        *told |= at_once || !is_soon || now.duration_since(*since) >= LASTS;
        *told
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Success {
        match self.failing.take() {
            Some((_, true)) => {
                self.ended = Some(now);
                Success::Again
            }
            Some((_, false)) => {
                self.ended = Some(now);
                self.untold += 1;
                match self.untold {
                    1 => Success::Unsteady,
                    _ => Success::Nothing,
                }
            }
            None if self.untold > 0
                && self.ended.is_some_and(|it| now.duration_since(it) >= QUIET) =>
            {
                Success::Steady(std::mem::take(&mut self.untold))
            }
            None => Success::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn one_that_fails_every_second_is_told_once_and_once_when_it_is_over() {
        let (mut flaps, start) = (Flaps::default(), Instant::now());
        assert!(flaps.failed(false, at(0.0)(start)));
        assert_eq!(flaps.succeeded(at(0.1)(start)), Success::Again);
        for second in 1..300 {
            let second = f64::from(second);
            assert!(!flaps.failed(false, at(second)(start)));
            let told = flaps.succeeded(at(second + 0.2)(start));
            let expected = match second {
                1.0 => Success::Unsteady,
                _ => Success::Nothing,
            };
            assert_eq!(told, expected, "{second}");
            assert_eq!(flaps.succeeded(at(second + 0.3)(start)), Success::Nothing);
        }
        assert_eq!(flaps.succeeded(at(359.1)(start)), Success::Nothing);
        assert_eq!(flaps.succeeded(at(359.2)(start)), Success::Steady(299));
        assert_eq!(flaps.succeeded(at(360.0)(start)), Success::Nothing);
        assert!(flaps.failed(false, at(361.0)(start)));
    }

    #[test]
    fn one_that_lasts_is_told_however_soon_after_another() {
        let (mut flaps, start) = (Flaps::default(), Instant::now());
        assert!(flaps.failed(false, at(0.0)(start)));
        assert!(flaps.failed(false, at(100.0)(start)));
        assert_eq!(flaps.succeeded(at(101.0)(start)), Success::Again);
        assert!(!flaps.failed(false, at(102.0)(start)));
        assert!(!flaps.failed(false, at(102.9)(start)));
        assert!(flaps.failed(false, at(103.0)(start)));
        assert_eq!(flaps.succeeded(at(104.0)(start)), Success::Again);
        assert!(flaps.failed(true, at(104.1)(start)));
        assert_eq!(flaps.succeeded(at(104.2)(start)), Success::Again);
        assert_eq!(flaps.succeeded(at(900.0)(start)), Success::Nothing);
    }
}
