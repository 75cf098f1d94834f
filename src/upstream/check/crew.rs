//! The threads that make checks, one after the other each: as many as are needed, and no more than
//! [`MOST`].

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::ask::CheckOutcome;
use super::job::{CheckTarget, Ended, Job};
use crate::error::Checked;
use crate::process::supervised;

/// No more threads than these. A thousand peers of which one in twenty hangs for a second take ten of them
/// at an interval of 5 s.
pub(super) const MOST: usize = 32;

/// How often threads that were not needed since are let go.
const REVIEW: Duration = Duration::from_secs(60);

enum CrewOrder {
    Check(Job),
    /// One thread is to end.
    Leave,
}

/// The threads, as the one that schedules knows them.
pub(super) struct Crew {
    orders: Sender<CrewOrder>,
    taken: Receiver<CrewOrder>,
    ended: Sender<Ended>,
    threads: usize,
    /// Checks under way.
    running: usize,
    /// The most of these since the last review.
    busiest: usize,
    review: Option<Instant>,
}

impl Crew {
    /// Nobody yet; and where the checks that have ended come from.
    pub(super) fn new() -> (Self, Receiver<Ended>) {
        let (orders, taken) = unbounded();
        let (ended, ends) = unbounded();
        let crew = Self {
            orders,
            taken,
            ended,
            threads: 0,
            running: 0,
            busiest: 0,
            review: None,
        };
        (crew, ends)
    }

    /// How many more checks may be made at once.
    pub(super) fn room(&self) -> usize {
        MOST - self.running
    }

    /// True while checks are under way.
    pub(super) fn is_running(&self) -> bool {
        self.running > 0
    }

    /// Has a check made. There must be room.
    pub(super) fn make(&mut self, job: Job) {
        self.running += 1;
        self.busiest = self.busiest.max(self.running);
        if self.running > self.threads {
            self.grow();
        }
        // The other end is here.
        let _ = self.orders.send(CrewOrder::Check(job));
    }

    fn grow(&mut self) {
        let (taken, ended) = (self.taken.clone(), self.ended.clone());
        match supervised::spawn("health-check", move || work(&taken, &ended)) {
            Ok(_) => {
                self.threads += 1;
                self.review.get_or_insert_with(|| Instant::now() + REVIEW);
            }
            // Others will do it, or one that can be started later.
            Err(error) => log::error!("health-check-thread-failed error={:?}", error.to_string()),
        }
    }

    /// A check has ended.
    pub(super) fn has_ended(&mut self) {
        self.running -= 1;
    }

    /// When to [look](Self::look) next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.review
    }

    /// Lets threads go that were not needed of late.
    pub(super) fn look(&mut self, now: Instant) {
        if self.review.is_none_or(|it| now < it) {
            return;
        }
        for _ in self.busiest..self.threads {
            let _ = self.orders.send(CrewOrder::Leave);
        }
        self.threads = self.threads.min(self.busiest);
        self.busiest = self.running;
        self.review = (self.threads > 0).then_some(now + REVIEW);
    }
}

fn work(orders: &Receiver<CrewOrder>, ended: &Sender<Ended>) {
    while let Ok(CrewOrder::Check(job)) = orders.recv() {
        // Whatever becomes of this thread, the end of the check is told.
        let mut end = CheckEnd {
            told: ended,
            target: job.target,
            answer: None,
        };
        end.answer = Some(job.asker.ask(job.target.peer));
    }
}

struct CheckEnd<'a> {
    told: &'a Sender<Ended>,
    target: CheckTarget,
    /// None when the thread has not got so far.
    answer: Option<CheckOutcome>,
}

impl Drop for CheckEnd<'_> {
    fn drop(&mut self) {
        // Who schedules may have begun anew.
        let _ = self.told.send(Ended {
            target: self.target,
            answer: self.answer.take().unwrap_or(Checked::NotMade.into()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::lists::PoolName;
    use crate::upstream::check::ask::CheckClient;

    #[test]
    fn there_are_as_many_threads_as_are_needed_and_those_that_are_not_any_more_end() {
        let text = "[health]\npath = /\n[redis]\nurl = redis://h\n";
        let config = Config::parse(Path::new("graygate.ini"), text, None).unwrap();
        let checks = config.health.of_pool(PoolName::Prod).unwrap();
        let asker = Arc::new(CheckClient::new(Arc::clone(checks)));
        let (mut crew, ends) = Crew::new();
        // Nobody is at this port.
        let target = CheckTarget {
            peer: ([127, 0, 0, 1], 1).into(),
            way: PoolName::Prod,
        };
        let check = |crew: &mut Crew, at_once: usize| {
            for _ in 0..at_once {
                let asker = Arc::clone(&asker);
                crew.make(Job { target, asker });
            }
            for _ in 0..at_once {
                assert_eq!(ends.recv().unwrap().answer.outcome, Checked::Refused);
                crew.has_ended();
            }
        };
        check(&mut crew, 3);
        check(&mut crew, 1);
        assert_eq!((crew.threads, crew.room()), (3, MOST));
        // Three were busy at once before the first look, and nobody since.
        for left in [3, 0] {
            let now = crew.wakes_at().unwrap();
            crew.look(now - Duration::from_millis(1));
            crew.look(now);
            assert_eq!(crew.threads, left);
        }
        assert_eq!(crew.wakes_at(), None, "there is nobody to look at");
        while !crew.taken.is_empty() {
            std::thread::yield_now();
        }
        check(&mut crew, 1);
        assert_eq!(crew.threads, 1);
    }
}
