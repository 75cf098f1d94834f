//! What an exchange says of the peers that it was tried on.
//!
//! A connection that cannot be made speaks against the peer at once, and so does a response that is cut. What
//! fails in between may fail because of what is asked for: a client that asks again and again for what makes
//! any server reset would put all of them out. So the peer is only accused, until one of these is known:
//!
//! - another peer answers the same request, or it cannot be sent to another one: the peer has failed;
//! - others have failed as well, or were not asked because no retry was [allowed](crate::upstream::budget)
//!   or the client has gone: that says as much of the request, and is held against the peer only [in a long
//!   row](Health::may_have_failed).
//!
//! [`Health::may_have_failed`]: crate::upstream::health::Health::may_have_failed

use std::io;
use std::time::Instant;

use super::accusation::{Accusation, PeerVerdict};
use super::{Exchange, Outcome, Stop, Upstream};
use crate::error::Failure;
use crate::net;
use crate::proxy::chooser::Chosen;
use crate::proxy::downstream::Downstream;
use crate::upstream::health::Why;
use crate::upstream::units::WARMING_UP;

impl<D: Downstream> Exchange<'_, D> {
    /// Counts an attempt that has ended, and what it says of its peer.
    pub(super) fn account(
        &mut self,
        chosen: &Chosen,
        outcome: &Result<Outcome, Stop>,
        error: Option<&io::Error>,
    ) {
        let (pool, worker) = (chosen.pool, self.worker);
        let counters = worker.counters_of(chosen.pools());
        if self.tally.attempts > 0 {
            counters.retries[pool as usize].increment();
        }
        self.tally.attempts += 1;
        let verdict = std::mem::take(&mut self.verdict);
        if let Some(unit) = &mut self.tally.unit {
            let has_failed = !net::are_waits_cut()
                && fault_of_peer(outcome, verdict, error.is_some(), self.body.is_complete());
            unit.attempt_has_ended(pool, has_failed);
        }
        let failure = match (outcome, verdict) {
            (Ok(_), PeerVerdict::Answered) => {
                counters.attempts_ok[pool as usize].increment();
                worker.answered(chosen);
                return;
            }
            (Ok(_), _) => {
                counters.attempts_ok[pool as usize].increment();
                return;
            }
            (_, PeerVerdict::Cut(failure)) => failure,
            (Err(Stop::Failed(failure)), _) => *failure,
            // Nobody can tell how the peer would have done.
            (Err(Stop::Over(_)), _) => {
                worker.abandoned(chosen);
                return;
            }
        };
        // Nor when the gateway has cut it.
        if net::are_waits_cut() {
            worker.abandoned(chosen);
            return;
        }
        worker.reports.attempt_failed(chosen, failure, error);
        // Where `deadline` is shorter than the other times, nothing else would tell that a peer hangs.
        let had_all_time = failure == Failure::Deadline
            && self.tally.attempts == 1
            && self.body.is_complete()
            && matches!(verdict, PeerVerdict::None);
        if !failure.blames_peer() && !had_all_time {
            chosen.counts(worker.index()).abandoned.increment();
        } else if error.is_some() || matches!(verdict, PeerVerdict::Cut(_)) {
            worker.failed(chosen, Why::Failed(failure));
        } else {
            self.verdict = PeerVerdict::Accused(failure);
        }
    }

    /// The head of the final response has come.
    pub(super) fn head_has_come(&mut self, chosen: &Chosen, upstream: &Upstream) {
        let now = Instant::now();
        let took = upstream.asked.map(|asked| now - asked);
        if let Some(took) = took {
            chosen.counts(self.worker.index()).latency.note(took);
            let counters = self.worker.counters_of(chosen.pools());
            counters.upstream_durations[chosen.pool as usize].note(took);
        }
        let status = self.workspace.response.status;
        if let Some(unit) = &mut self.tally.unit {
            let is_warm = chosen.peer().health.is_warm(WARMING_UP, now);
            let took = took.filter(|_| is_warm);
            unit.is_answered(chosen.pool, status >= 500, took);
        }
        self.verdict = match self.rules.fail_statuses.contains(&status) {
            true => {
                self.worker.failed(chosen, Why::Status);
                PeerVerdict::Refused
            }
            false => {
                self.worker.is_answering(chosen, now);
                if !self.accused.is_empty() {
                    self.convict();
                }
                PeerVerdict::Answered
            }
        };
    }

    /// The request has failed at the peer, which is judged later.
    #[cold]
    pub(super) fn leave(&mut self, chosen: Chosen) {
        match std::mem::take(&mut self.verdict) {
            PeerVerdict::Accused(failure) => {
                let accusation = Accusation::new(chosen, failure);
                self.last_is_bad = self.is_bad(&accusation.chosen);
                self.accused.push(accusation);
            }
            _ => {
                self.last_is_bad = self.is_bad(&chosen);
                chosen.is_given_up();
            }
        }
    }

    /// The peer is out, or will be if what has just failed there is its fault.
    pub(super) fn is_bad(&self, chosen: &Chosen) -> bool {
        let health = &chosen.peer().health;
        health.is_out() || health.is_suspect(self.rules.max_fails)
    }

    /// Those at which the request has failed have failed themselves.
    #[cold]
    fn convict(&mut self) {
        for accusation in self.accused.drain(..) {
            let why = Why::Failed(accusation.failure);
            self.worker.failed(&accusation.chosen, why);
        }
    }

    /// No other peer is asked any more: says of each that is still accused what is to be thought of it.
    #[cold]
    pub(super) fn judge(&mut self, outcome: &Outcome) {
        let no_other_was_left = matches!(outcome, Outcome::Failed(_)) && !self.tally.retry_denied;
        if self.accused.len() == 1 && no_other_was_left {
            return self.convict();
        }
        for accusation in self.accused.drain(..) {
            self.worker
                .may_have_failed(&accusation.chosen, accusation.failure);
        }
    }
}

/// Whether an attempt with this outcome has failed by what the peer did or did not do, for the verdict on a
/// release. That is more than what a peer is put out for: also the silence within a response, and a request
/// that had come in full, and whose time was over before the head of the response was there.
fn fault_of_peer(
    outcome: &Result<Outcome, Stop>,
    verdict: PeerVerdict,
    is_of_connecting: bool,
    is_all_here: bool,
) -> bool {
    let failure = match (outcome, verdict) {
        (Ok(_), _) => return false,
        (_, PeerVerdict::Cut(failure)) => failure,
        (Err(Stop::Failed(failure)), _) => *failure,
        // The client's.
        (Err(Stop::Over(_)), _) => return false,
    };
    match failure {
        Failure::ResponseStalled => true,
        Failure::Deadline => {
            is_of_connecting || is_all_here && matches!(verdict, PeerVerdict::None)
        }
        failure => failure.blames_peer(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Close;

    #[test]
    fn what_the_client_or_the_gateway_has_caused_is_no_fault_of_the_peer() {
        use Failure::{
            ClientGone, Deadline, Draining, NoneUsable, OutOfDescriptors, OutOfPorts, Stale,
        };
        let others = [
            Stale,
            NoneUsable,
            OutOfDescriptors,
            OutOfPorts,
            Draining,
            ClientGone,
            Deadline,
        ];
        for failure in Failure::ALL {
            let failed = Err(Stop::Failed(*failure));
            let is_fault = fault_of_peer(&failed, PeerVerdict::None, false, false);
            assert_eq!(is_fault, !others.contains(failure), "{failure:?}");
            // The client has part of its answer already.
            let over = || Err(Stop::Over(Outcome::Close(Close::ResponseCut)));
            let cut = PeerVerdict::Cut(*failure);
            let is_cut = fault_of_peer(&over(), cut, false, true);
            assert_eq!(is_cut, !others.contains(failure), "{failure:?}");
            let is_fault = fault_of_peer(&over(), PeerVerdict::Answered, false, true);
            assert!(!is_fault, "{failure:?}");
        }
    }

    #[test]
    fn a_deadline_is_the_peers_fault_where_nobody_else_can_have_let_it_pass() {
        let failed = Err(Stop::Failed(Failure::Deadline));
        for (is_of_connecting, is_all_here, verdict, expected) in [
            (false, true, PeerVerdict::None, true),
            (true, false, PeerVerdict::None, true),
            // The client is still sending.
            (false, false, PeerVerdict::None, false),
            // The client may be slow to take what has come.
            (false, true, PeerVerdict::Answered, false),
            (false, true, PeerVerdict::Cut(Failure::Deadline), false),
        ] {
            let is_fault = fault_of_peer(&failed, verdict, is_of_connecting, is_all_here);
            assert_eq!(is_fault, expected);
        }
    }
}
