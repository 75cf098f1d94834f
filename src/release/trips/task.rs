//! What is to be written of a trip, and what has come of it: the same for every store.

use std::time::Duration;

use super::known::HeldTrip;
use crate::lists::ServiceName;
use crate::release::history::ChangeRecord;
use crate::release::state::ReleaseState;

/// Makes the record of a trip, of the newest ones that there are.
pub(super) type RecordOf<'a> = &'a dyn Fn(&[ChangeRecord]) -> Option<ChangeRecord>;

/// A trip that is to be written.
pub(super) struct TripTask<'a> {
    pub(super) held: &'a HeldTrip,
    pub(super) noted: RecordOf<'a>,
    /// It is not yet known to be there.
    pub(super) is_wanted: &'a dyn Fn() -> bool,
    /// What the store has in `pre` may be in force here in a moment.
    pub(super) lags: bool,
}

/// What has come of an attempt to write.
pub(super) enum Written {
    /// The store has it.
    Yes,
    /// It has another gateway's, of the same version.
    Before,
    /// It is over, as this state says, where it is that.
    Over(Option<Box<ReleaseState>>),
    /// The store has nothing in `pre`: it is filled first.
    Empty,
    /// The store has something else that it must not overwrite.
    Left,
    /// Somebody has changed something meanwhile.
    Again,
}

/// Why something is not written.
pub(super) struct NotWritten {
    /// In words.
    pub(super) why: String,
    /// The server has answered, and does not want it: so it will, until somebody has changed that.
    pub(super) is_refused: bool,
}

/// The longest pause after attempts that were refused.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after an attempt to write that has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct WritingPause {
    first: Duration,
    last: Duration,
}

impl WritingPause {
    /// At first this one.
    pub(super) const fn of(first: Duration) -> Self {
        Self {
            first,
            last: Duration::ZERO,
        }
    }

    /// The one after an attempt that `is_refused`: twice as long as the last one. Of a connection that failed
    /// nothing is known: it may be there the next moment.
    pub(super) fn after(&mut self, is_refused: bool) -> Duration {
        self.last = match is_refused {
            true => (self.last * 2).clamp(self.first, LONGEST),
            false => self.first,
        };
        self.last
    }
}

/// Says that the history cannot say it.
pub(super) fn tell_unrecorded(service: &ServiceName, error: &str) {
    let name = service.in_log();
    log::info!(
        "history-refused {name}error={error:?} effect=\"that the version was taken back is not in the history\""
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_ever_more_seldom_and_a_lost_connection_at_once() {
        let mut pause = WritingPause::of(Duration::from_secs(1));
        let pauses = [(); 8].map(|()| pause.after(true).as_secs());
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause.after(false), Duration::from_secs(1));
        assert_eq!(pause.after(true), Duration::from_secs(2));
    }
}
