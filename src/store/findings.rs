//! What the log says about the lists of a service in force: that they came into force, what was skipped, and
//! findings.
//!
//! Lists may change a thousand times a second. Then only some changes are logged, with the number of
//! those that were not, and the last state once it has stood for a while.

use std::time::{Duration, Instant};

use super::Cause;
use crate::lists::findings::{Finding, Findings};
use crate::lists::notes::FindingKind;
use crate::lists::{ByList, ListName, Lists, ServiceName, Skipped};
use crate::logs::throttle::Throttle;

/// What was logged about the entries in force.
#[derive(Default)]
pub(super) struct Reported {
    service: ServiceName,
    /// Its gray list is another service's, where everything is said of it.
    pub(super) shares_gray: bool,
    /// Nobody is served by it, so that it needs no servers.
    pub(super) is_unused: bool,
    skipped: ByList<Skipped>,
    findings: Vec<Finding>,
    /// For each of the two.
    throttles: [Throttle; 2],
    /// Something was left out since the last line.
    owes: bool,
    /// Of lists that came into force.
    published: Throttle,
    /// Why lists came into force that have not been logged yet, and when they can be.
    unpublished: Option<(Cause, Instant)>,
}

/// How long the log pauses when it has said too much.
const PAUSE: Duration = Duration::from_secs(1);

impl Reported {
    /// Nothing was said of this service yet.
    pub(super) fn of(service: ServiceName) -> Self {
        Self {
            service,
            ..Self::default()
        }
    }

    /// True when [`Self::tell`] has left something out that may still hold.
    pub(super) fn owes(&self) -> bool {
        self.owes
    }

    /// Logs that `lists` have come into force.
    pub(super) fn tell_published(&mut self, lists: &Lists, cause: Cause, now: Instant) {
        let turn = self.published.turn(now);
        self.say_published(turn, lists, cause, now);
    }

    fn say_published(&mut self, turn: Option<u64>, lists: &Lists, cause: Cause, now: Instant) {
        let Some(untold) = turn else {
            self.unpublished = Some((cause, now + PAUSE));
            return;
        };
        self.unpublished = None;
        let Lists {
            generation, digest, ..
        } = lists;
        let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
        let service = self.service.in_log();
        log::info!(
            "lists-published {service}generation={generation} digest={digest} cause={} gray={gray} pre={pre} prod={prod} untold={untold}",
            cause.name()
        );
        if prod == 0 && !self.is_unused {
            log::error!(
                "prod-empty {service}generation={generation} remedy=\"push servers to prod: all but listed \
                 clients get 503\""
            );
        }
    }

    /// Logs that the `lists` in force are, if they have not changed since that was left out.
    pub(super) fn tell_unpublished(&mut self, lists: &Lists, now: Instant) {
        let due = self.unpublished.filter(|(_, at)| *at <= now);
        if let Some((cause, _)) = due {
            let turn = self.published.late_turn(now);
            self.say_published(turn, lists, cause, now);
        }
    }

    /// When [`Self::tell_unpublished`] has something to log.
    pub(super) fn unpublished_at(&self) -> Option<Instant> {
        self.unpublished.map(|(_, at)| at)
    }

    /// Logs what is new about `lists`, in which `findings` were found.
    pub(super) fn tell(&mut self, lists: &Lists, findings: &Findings, now: Instant) {
        self.owes = false;
        self.tell_findings(findings, now);
        self.tell_skipped(lists, now);
    }

    /// One line for each kind, with the first.
    fn tell_findings(&mut self, findings: &Findings, now: Instant) {
        for kind in FindingKind::ALL {
            let of_kind = findings.first.iter().filter(|it| it.kind == kind);
            let of_kind = of_kind.filter(|it| !self.shares_gray || it.list != ListName::Gray);
            let is_told = |it: &&Finding| self.findings.iter().any(|told| told.says_as(it));
            let mut news = of_kind.clone().filter(|it| !is_told(it));
            if let Some(first) = news.next() {
                let Some(untold) = self.throttles[0].turn(now) else {
                    self.owes = true;
                    continue;
                };
                let service = self.service.in_log();
                log::warn!(
                    "lists-finding {service}finding={} count={} list={} entry={:?} text={:?} untold={untold}",
                    kind.name(),
                    findings.count(kind),
                    first.list.name(),
                    first.entry,
                    first.text
                );
            }
            self.findings.retain(|it| it.kind != kind);
            let found: Vec<Finding> = of_kind.cloned().collect();
            self.findings.extend(found);
        }
    }

    fn tell_skipped(&mut self, lists: &Lists, now: Instant) {
        for list in ListName::ALL {
            if self.shares_gray && list == ListName::Gray {
                continue;
            }
            let told = &mut self.skipped[list];
            let skipped = lists.skipped(list);
            if skipped == told {
                continue;
            }
            if let Some(first) = skipped.first.first() {
                let Some(untold) = self.throttles[1].turn(now) else {
                    self.owes = true;
                    continue;
                };
                let service = self.service.in_log();
                log::warn!(
                    "entries-skipped {service}list={} count={} first={:?} reason={:?} untold={untold}",
                    list.name(),
                    skipped.count,
                    first.entry,
                    first.reason
                );
            }
            told.clone_from(skipped);
        }
    }
}
