//! How a peer does, for another process of the same gateway: it is not to be tried anew because of an
//! upgrade.
//!
//! What was counted stays behind: counters begin with a process.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::word::{StateKind, StateWord};
use super::{Health, LastCheck, PeerState, Why};
use crate::config;
use crate::error::Checked;

/// How a peer does at a moment, in a form that can leave the process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HealthRecord {
    pub(crate) state: RecordedState,
    /// Failures in a row, by their weight.
    pub(crate) in_a_row: u32,
    /// Responses in a row that it has cut short.
    pub(crate) cuts_in_a_row: u32,
    /// How often in a row it went out.
    pub(crate) strikes: u32,
    /// How long ago it went out.
    pub(crate) out_for: Duration,
    /// It has answered since it was last out.
    pub(crate) is_proven: bool,
    /// Its checks fail.
    pub(crate) fails_checks: bool,
    /// The check that ended last.
    pub(crate) last_check: Option<RecordedCheck>,
}

/// A [`LastCheck`] of so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordedCheck {
    pub(crate) ago: Duration,
    pub(crate) outcome: Checked,
    pub(crate) status: Option<u16>,
}

/// A [`PeerState`] with lengths of time in place of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordedState {
    /// Since so long ago.
    Up(Duration),
    Unchecked,
    /// For so long. One that was on trial is due for another one: nobody will hear of the first.
    Out(Duration, Why),
    /// Since so long ago.
    Starting(Duration),
}

impl RecordedState {
    /// Its name, how long, and why.
    pub(crate) const fn parts(self) -> (&'static str, Duration, &'static str) {
        match self {
            Self::Up(since) => ("up", since, ""),
            Self::Unchecked => ("unchecked", Duration::ZERO, ""),
            Self::Out(left, why) => ("out", left, why.name()),
            Self::Starting(since) => ("starting", since, ""),
        }
    }

    /// What these are the parts of. A state that is not known here counts as up: its requests will show.
    pub(crate) fn of_parts(name: &str, time: Duration, why: &str) -> Self {
        match name {
            "unchecked" => Self::Unchecked,
            "out" => Self::Out(time, Why::of_name(why).unwrap_or(Why::Status)),
            "starting" => Self::Starting(time),
            _ => Self::Up(time),
        }
    }
}

impl Health {
    /// How it does at `now`.
    pub(crate) fn record(&self, now: Instant, rules: &config::UpstreamSettings) -> HealthRecord {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let word = self.word();
        let state = match self.state(now, rules) {
            PeerState::Up => RecordedState::Up(ago(self.moment_of(word))),
            PeerState::Unchecked => RecordedState::Unchecked,
            PeerState::Out { until, why } => {
                RecordedState::Out(until.saturating_duration_since(now), why)
            }
            PeerState::Trial { .. } => RecordedState::Out(Duration::ZERO, word.why()),
            PeerState::Starting { since } => RecordedState::Starting(ago(since)),
        };
        HealthRecord {
            state,
            in_a_row: self.in_a_row.load(Ordering::Relaxed),
            cuts_in_a_row: self.cuts_in_a_row.load(Ordering::Relaxed),
            strikes: self.strikes(),
            out_for: self.out_for(now),
            is_proven: self.is_proven(),
            fails_checks: self.fails_checks(),
            last_check: self.last_check().map(|it| RecordedCheck {
                ago: ago(it.at),
                outcome: it.outcome,
                status: it.status,
            }),
        }
    }

    fn moment_of(&self, word: StateWord) -> Instant {
        self.base + Duration::from_millis(word.millis())
    }

    /// A peer of which that is known at `now`; `new` is one of which nothing is.
    pub(crate) fn of_record(record: &HealthRecord, new: Self, now: Instant) -> Self {
        let since = match record.state {
            RecordedState::Up(since) | RecordedState::Starting(since) => since,
            RecordedState::Unchecked | RecordedState::Out(..) => Duration::ZERO,
        };
        let longest = since.max(record.out_for);
        let mut health = Self {
            base: now.checked_sub(longest).unwrap_or(now),
            is_handed: true,
            ..new
        };
        let at = |ago: Duration| health.millis(now.checked_sub(ago).unwrap_or(now));
        let word = match record.state {
            RecordedState::Up(since) => StateWord::new(StateKind::Up, at(since)),
            // Whether it is to be checked first is up to the settings.
            RecordedState::Unchecked => health.word(),
            RecordedState::Out(left, why) => StateWord::out(why, health.millis(now + left)),
            RecordedState::Starting(since) => StateWord::new(StateKind::Starting, at(since)),
        };
        let out_since = at(record.out_for);
        *health.state.get_mut() = word.bits();
        *health.out_since.get_mut() = out_since;
        *health.in_a_row.get_mut() = record.in_a_row;
        *health.cuts_in_a_row.get_mut() = record.cuts_in_a_row;
        *health.strikes.get_mut() = record.strikes;
        *health.proven.get_mut() = record.is_proven;
        *health.check_failing.get_mut() = record.fails_checks;
        if let Some(check) = record.last_check {
            health.note_last_check(LastCheck {
                at: now.checked_sub(check.ago).unwrap_or(now),
                outcome: check.outcome,
                status: check.status,
            });
        }
        health
    }

    /// True when its checks have failed in another process, and no check here has said otherwise.
    pub(crate) fn fails_checks_since_before(&self) -> bool {
        self.is_handed && self.fails_checks()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::super::tests::rules;
    use super::*;
    use crate::error::Failure;
    use crate::upstream::changes::Changes;

    const REFUSED: Why = Why::Failed(Failure::ConnectRefused);

    fn new(now: Instant) -> Health {
        Health::new(1, Changes::default(), false, now)
    }

    /// As another process has it after what was said of it by its parts.
    fn handed(health: &Health, now: Instant) -> Health {
        let record = health.record(now, &rules());
        let (name, time, why) = record.state.parts();
        assert_eq!(RecordedState::of_parts(name, time, why), record.state);
        // Of another age.
        let later = now + Duration::from_secs(1000);
        let health = Health::of_record(&record, new(later), later);
        assert_eq!(health.record(later, &rules()), record);
        health
    }

    #[test]
    fn a_peer_that_is_out_stays_so_for_as_long_and_its_next_time_is_longer() {
        let (now, rules) = (Instant::now(), rules());
        let health = new(now);
        while health.failed(0, REFUSED, now, &rules, 0.0).is_none() {}
        let health = handed(&health, now + Duration::from_secs(2));
        let now = now + Duration::from_secs(1002);
        let until = match health.state(now, &rules) {
            PeerState::Out { until, why } => {
                assert_eq!(why, REFUSED);
                until
            }
            state => panic!("{state:?}"),
        };
        assert_eq!(until, now + rules.fail_timeout - Duration::from_secs(2));
        assert_eq!(health.out_for(now), Duration::from_secs(2));
        assert!(health.begin_trial(until, true, &rules).is_some());
        let change = health.failed(0, REFUSED, until, &rules, 0.0);
        assert_eq!(change, Some(Change::Out(rules.fail_timeout * 2, REFUSED)));
    }

    #[test]
    fn failures_that_were_too_few_count_on() {
        let (now, rules) = (Instant::now(), rules());
        let health = new(now);
        for _ in 1..rules.max_fails {
            assert_eq!(health.failed(0, REFUSED, now, &rules, 0.0), None);
        }
        let health = handed(&health, now);
        let change = health.failed(0, REFUSED, now, &rules, 0.0);
        assert!(matches!(change, Some(Change::Out(..))), "{change:?}");
    }

    #[test]
    fn a_trial_whose_outcome_nobody_will_hear_is_due_again() {
        let (now, rules) = (Instant::now(), rules());
        let health = new(now);
        while health.failed(0, REFUSED, now, &rules, 0.0).is_none() {}
        let due = now + rules.fail_timeout;
        assert!(health.begin_trial(due, true, &rules).is_some());
        let health = handed(&health, due);
        let now = due + Duration::from_secs(1000);
        assert!(health.begin_trial(now, true, &rules).is_some());
    }

    #[test]
    fn a_share_that_grows_grows_on() {
        let mut rules = rules();
        rules.slow_start = Duration::from_secs(10);
        let now = Instant::now();
        let health = new(now);
        health.check_has_failed(now);
        health.check_has_succeeded(now);
        let now = now + Duration::from_secs(5);
        assert!((health.share(now, &rules) - 0.5).abs() < 0.01);
        let health = Health::of_record(&health.record(now, &rules), new(now), now);
        assert!((health.share(now, &rules) - 0.5).abs() < 0.01);
    }

    #[test]
    fn what_checks_have_shown_is_known() {
        let now = Instant::now();
        let health = new(now);
        health.check_has_failed(now);
        health.note_last_check(LastCheck {
            at: now,
            outcome: Checked::ALL[0],
            status: Some(503),
        });
        let health = handed(&health, now);
        assert!(health.fails_checks() && health.fails_checks_since_before());
        assert!(!health.awaits_first_check());
        assert_eq!(health.last_check().unwrap().status, Some(503));
    }
}
