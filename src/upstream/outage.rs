//! The end of an outage: of a pool of which nobody was up.
//!
//! The cause was hardly a fault of each peer's own then, and it may have lasted until all of them were out
//! for minutes. Those that are asked all the same show that it is over: one that has answered all that it
//! was asked in the last second is back with its next answer, and as soon as one is back, the trials of the
//! others are due. Otherwise half of the pool would have to do the work of all of it until their time is
//! over.
//!
//! A peer has been out for `fail_timeout` before that, so that one that flaps does not change more often
//! than any other.

use std::time::Instant;

use super::events::Up;
use super::serving::Pools;
use crate::lists::PoolName;

/// Sees when outages end.
#[derive(Default)]
pub(super) struct OutageWatch {
    /// Of the pools in their order: at the last look, peers were out, and nobody was up.
    was_out: [bool; PoolName::ALL.len()],
}

impl OutageWatch {
    /// To be called once a second, by one thread, after it has looked at the peers.
    pub(super) fn look(&mut self, pools: &Pools, now: Instant) {
        let rules = pools.rules();
        for (pool, was_out) in PoolName::ALL.into_iter().zip(&mut self.was_out) {
            let peers = pools[pool].peers();
            let is_up = Up::of(peers).up > 0;
            for health in peers.iter().map(|it| &it.health) {
                let is_over = match is_up {
                    true => *was_out,
                    false => {
                        health.out_for(now) >= rules.fail_timeout && health.has_answered_of_late()
                    }
                };
                if is_over {
                    health.need_not_be_out(now);
                }
            }
            *was_out = !is_up && peers.iter().any(|it| it.health.is_out());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::Failure;
    use crate::lists::lists_of;
    use crate::upstream::health::tests::rules;
    use crate::upstream::health::{Change, Health, Why};
    use crate::upstream::in_force::InForce;

    /// Four peers, of which each has just gone out, for minutes.
    struct Outage {
        in_force: InForce,
        watch: OutageWatch,
        now: Instant,
    }

    impl Outage {
        fn begin() -> Self {
            let in_force = InForce::new(1);
            let prod = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
            in_force.store(lists_of(&[], &[], &prod));
            let mut outage = Self {
                in_force,
                watch: OutageWatch::default(),
                now: Instant::now(),
            };
            for _ in 0..4 {
                (0..4).for_each(|at| while outage.fail(at).is_none() {});
                outage.now += Duration::from_secs(160);
            }
            (0..4).for_each(|at| while outage.fail(at).is_none() {});
            outage.look(0);
            outage
        }

        fn peer(&self, at: usize) -> Arc<Health> {
            let pools = self.in_force.pools();
            Arc::clone(&pools[PoolName::Prod].peers()[at].health)
        }

        fn fail(&self, at: usize) -> Option<Change> {
            let why = Why::Failed(Failure::ConnectRefused);
            self.peer(at).failed(0, why, self.now, &rules(), 0.0)
        }

        fn answer(&self, at: usize) -> Option<Change> {
            let change = self.peer(at).is_answering(self.now);
            self.peer(at).succeeded(0);
            change
        }

        fn look(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.in_force.look(self.now);
            self.watch.look(&self.in_force.pools(), self.now);
        }

        fn is_tried(&self, at: usize) -> bool {
            let trial = self.peer(at).begin_trial(self.now, true, &rules());
            trial.is_some()
        }
    }

    #[test]
    fn who_answers_all_of_a_second_is_back_and_the_others_are_tried() {
        let mut outage = Outage::begin();
        outage.look(20);
        assert_eq!(outage.answer(0), None, "it is out for longer");
        outage.look(1);
        assert_eq!(outage.answer(0), Some(Change::Back));
        assert!(!outage.is_tried(1));
        outage.look(1);
        assert!((1..4).all(|at| outage.is_tried(at)));
    }

    #[test]
    fn who_fails_now_and_then_or_is_not_asked_stays_out() {
        let mut outage = Outage::begin();
        outage.look(20);
        outage.answer(1);
        outage.fail(1);
        outage.look(1);
        assert_eq!(outage.answer(1), None, "it has failed as well");
        outage.look(1);
        outage.look(1);
        assert_eq!(outage.answer(2), None, "nobody has asked it");
    }

    #[test]
    fn who_flaps_is_out_for_fail_timeout_each_time() {
        let mut outage = Outage::begin();
        outage.look(20);
        outage.answer(0);
        outage.look(1);
        assert_eq!(outage.answer(0), Some(Change::Back));
        while outage.fail(0).is_none() {}
        outage.answer(0);
        outage.look(8);
        assert_eq!(outage.answer(0), None);
        outage.look(3);
        assert_eq!(outage.answer(0), Some(Change::Back));
    }

    #[test]
    fn while_somebody_is_up_there_is_no_outage() {
        let mut outage = Outage::begin();
        outage.look(20);
        outage.answer(0);
        outage.look(1);
        assert_eq!(outage.answer(0), Some(Change::Back));
        outage.look(1);
        (1..4).for_each(|at| assert!(outage.is_tried(at)));
        (1..4).for_each(|at| assert!(outage.fail(at).is_some()));
        outage.look(30);
        outage.answer(1);
        outage.look(1);
        assert_eq!(outage.answer(1), None);
        assert!(!outage.is_tried(1));
    }
}
