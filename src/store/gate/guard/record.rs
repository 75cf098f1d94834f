//! A gate as another process of the same gateway goes on with it: an upgrade is no way around what is held,
//! and no reason to ask anew.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Gate, Guarded, HoldReason, Waiting};

/// A gate at a moment, in a form that can leave the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GateRecord {
    /// See [`Gate::doubt`].
    pub doubtful: bool,
    /// How long ago the last change was let in at once.
    pub changed: Option<Duration>,
    /// What waits.
    pub waiting: Option<WaitingRecord>,
    /// The entries of the list before the burst of changes that may be under way, one a line.
    pub baseline: Option<Vec<u8>>,
}

/// A change that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingRecord {
    /// The entries, one a line.
    pub entries: Vec<u8>,
    /// The name of the reason for which it is held; none if it only has to settle.
    pub reason: Option<String>,
    /// When it was first seen.
    pub since: SystemTime,
    /// For how long every reading has seen it.
    pub stood: Option<Duration>,
}

impl HoldReason {
    const ALL: [Self; 3] = [Self::EmptiesProd, Self::RemovesPeers, Self::AdmitsEverybody];
}

impl<L: Guarded> Gate<L> {
    /// The gate at `now`.
    pub(in crate::store) fn record(&self, now: Instant) -> GateRecord {
        let ago = |at: Instant| now.saturating_duration_since(at);
        GateRecord {
            doubtful: self.doubtful,
            changed: self.changed.map(ago),
            waiting: self.waiting.as_ref().map(|it| WaitingRecord {
                entries: it.content.to_lines(),
                reason: it.reason.map(|it| it.name().to_owned()),
                since: it.since,
                stood: it.stands_since.map(ago),
            }),
            baseline: self.baseline.as_deref().map(Guarded::to_lines),
        }
    }

    /// The gate of that `record`; peers without a port get `peer_port`. What waits for a reason that is not
    /// known here is judged anew.
    pub(in crate::store) fn of_record(
        record: &GateRecord,
        in_force: &L,
        peer_port: u16,
        now: Instant,
    ) -> Self {
        let at = |ago: Duration| now.checked_sub(ago);
        let list = |lines: &Vec<u8>| L::of_lines(lines, peer_port).with_salt_of(in_force);
        let baseline = record.baseline.as_ref().map(list).map(Arc::new);
        let waiting = record.waiting.as_ref().and_then(|it| {
            let reason = match &it.reason {
                Some(name) => Some(HoldReason::ALL.into_iter().find(|it| it.name() == name)?),
                None => None,
            };
            let content = list(&it.entries);
            let before = baseline.as_deref().unwrap_or(in_force);
            // As it was told when it was first seen.
            let [gone, new] = before.difference(&content, it.since);
            Some(Waiting {
                digest: Guarded::digest(&content),
                reason,
                since: it.since,
                stands_since: it.stood.and_then(at),
                entries: content.count(),
                gone,
                new,
                content: Arc::new(content),
            })
        });
        Self {
            waiting,
            doubtful: record.doubtful,
            baseline,
            changed: record.changed.and_then(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::PeerList;
    use crate::store::gate::guard::{GuardRules, Timestamp};

    fn peers(entries: &[&str]) -> PeerList {
        PeerList::parse(entries, 80)
    }

    const RULES: GuardRules = GuardRules {
        share: 50,
        timeout: None,
    };

    #[test]
    fn a_gate_that_was_handed_over_goes_on_as_if_it_had_never_been_elsewhere() {
        let in_force = Arc::new(peers(&["10.0.0.1", "10.0.0.2", "10.0.0.3:81 weight=2"]));
        let mut gate = Gate::default();
        let seen = Timestamp::now();
        assert!(
            gate.judge(RULES, &in_force, peers(&["10.0.0.1"]), seen)
                .is_none()
        );
        let (before, later) = (gate.held().unwrap(), seen.instant + Duration::from_secs(9));
        let record = gate.record(later);
        let mut gate = Gate::of_record(&record, &*in_force, 80, later);
        assert_eq!(gate.held(), Some(before.clone()));
        assert_eq!(gate.record(later), record);
        // The store still has it: it is the same change, since then.
        let again = Timestamp {
            instant: later,
            time: seen.time + Duration::from_secs(9),
        };
        assert!(
            gate.judge(RULES, &in_force, peers(&["10.0.0.1"]), again)
                .is_none()
        );
        assert_eq!(gate.held(), Some(before.clone()));
        let timed = GuardRules {
            timeout: Some(Duration::from_secs(10)),
            ..RULES
        };
        let at = seen.instant + Duration::from_secs(10);
        assert_eq!(gate.ripe_at(timed), Some(at));
        assert!(gate.accept(&before.digest.to_string()).is_some());
    }

    #[test]
    fn a_burst_that_has_begun_elsewhere_is_still_one_change() {
        let list = peers(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        let mut gate = Gate::default();
        let now = Timestamp::now();
        let less = peers(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let in_force = gate.judge(RULES, &Arc::new(list), less, now).unwrap();
        gate.note_change(now.instant);
        let mut gate = Gate::of_record(&gate.record(now.instant), &*in_force, 80, now.instant);
        // Two of four were allowed, and three are not.
        let least = peers(&["10.0.0.1"]);
        assert!(gate.judge(RULES, &in_force, least, now).is_none());
        assert_eq!(gate.held().unwrap().gone.count, 3);
    }

    #[test]
    fn what_is_held_for_a_reason_of_a_later_version_is_judged_anew() {
        let record = GateRecord {
            waiting: Some(WaitingRecord {
                entries: b"10.0.0.1\n".to_vec(),
                reason: Some("later".to_owned()),
                since: SystemTime::UNIX_EPOCH,
                stood: None,
            }),
            ..GateRecord::default()
        };
        let gate = Gate::of_record(&record, &peers(&[]), 80, Instant::now());
        assert!(gate.is_empty());
    }
}
