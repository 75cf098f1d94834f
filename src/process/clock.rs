//! Whether the wall clock goes as the monotonic one does.
//!
//! Entries of the gray list end at a time of the wall clock, and somebody may set it.
//!
//! That a running gateway says so has no test through the program: it would have to set the machine's clock.
//! A time namespace shifts the monotonic clock only (time_namespaces(7)), and from the start on, while it
//! takes two looks of one process to see a jump.

use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock must have gone wrong from one look to the next: what is less is for those to put
/// right who do it slowly (NTP).
const JUMP: Duration = Duration::from_secs(5);

/// Between the readings of both clocks may be so much time at most.
const TOGETHER: Duration = Duration::from_secs(1);

/// A watch over the wall clock.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    /// Both clocks when they were looked at last.
    last: Option<(Instant, SystemTime)>,
}

impl ClockWatch {
    /// To be called again and again, by one thread: says so if the clock has jumped since the last time.
    pub(crate) fn look(&mut self) {
        let (instant, time) = (Instant::now(), SystemTime::now());
        // Otherwise this thread has slept in between.
        if instant.elapsed() > TOGETHER {
            return;
        }
        if let Some(seconds) = self.jump(instant, time) {
            let now = humantime::format_rfc3339_seconds(time);
            log::warn!("clock-jumped by={seconds:+.1}s now={now}");
        }
    }

    /// By how many seconds the wall clock has jumped since the last time, forward or backward, if it has.
    fn jump(&mut self, instant: Instant, time: SystemTime) -> Option<f64> {
        let (last_instant, last_time) = self.last.replace((instant, time))?;
        let passed = instant - last_instant;
        let expected = last_time + passed;
        match time.duration_since(expected) {
            Ok(ahead) => (ahead > JUMP).then_some(ahead.as_secs_f64()),
            Err(error) => {
                let behind = error.duration();
                (behind > JUMP).then_some(-behind.as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_more_than_five_seconds_is_seen_once_in_either_direction() {
        let (mut instant, mut time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        time += Duration::from_secs(1_800_000_000);
        let mut watch = ClockWatch::default();
        assert_eq!(watch.jump(instant, time), None);
        // How much each clock goes on, in milliseconds, and what is said.
        for (passed, by, expected) in [
            (1_000, 1_000, None),
            // The machine has slept a while: both clocks say so.
            (60_000, 60_000, None),
            (1_000, 6_000, None),
            (1_000, -4_000, None),
            (1_000, 6_001, Some(5.001)),
            (1_000, 1_000, None),
            (1_000, -4_001, Some(-5.001)),
            (1_000, 1_000, None),
            (1_000, 3_601_000, Some(3_600.0)),
            (1_000, -3_599_000, Some(-3_600.0)),
            (0, 0, None),
        ] {
            instant += Duration::from_millis(passed);
            let step = Duration::from_millis(i64::unsigned_abs(by));
            time = match by < 0 {
                true => time - step,
                false => time + step,
            };
            let jump = watch.jump(instant, time);
            assert_eq!(jump, expected, "{by} ms in {passed} ms");
        }
    }
}
