//! The threads that make checks, one after the other each: as many as are needed, and no more than
//! [`MOST`].

use std::io;
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

/// A thread that could not be started is started so much later, if it is still needed.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// When to try again to start a thread for what waits in vain.
    grows_at: Option<Instant>,
    spawn: Spawn,
}

/// Starts a thread.
type Spawn = fn(Receiver<CrewOrder>, Sender<Ended>) -> io::Result<()>;

impl Crew {
    /// Nobody yet; and where the checks that have ended come from.
    pub(super) fn new() -> (Self, Receiver<Ended>) {
        Self::with(|orders, ended| {
            supervised::spawn("health-check", move || work(&orders, &ended)).map(drop)
        })
    }

    fn with(spawn: Spawn) -> (Self, Receiver<Ended>) {
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
            grows_at: None,
            spawn,
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
        let now = Instant::now();
        match (self.spawn)(self.taken.clone(), self.ended.clone()) {
            Ok(()) => {
                self.threads += 1;
                self.review.get_or_insert(now + REVIEW);
            }
            // Others do it, if there are any.
            Err(error) => {
                log::error!("health-check-thread-failed error={:?}", error.to_string());
                self.grows_at = Some(now + PAUSE);
            }
        }
    }

    /// A check has ended.
    pub(super) fn has_ended(&mut self) {
        self.running -= 1;
    }

    /// When to [look](Self::look) next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.review.into_iter().chain(self.grows_at).min()
    }

    /// Starts a thread that could not be started before, and lets those go that were not needed of late.
    pub(super) fn look(&mut self, now: Instant) {
        if self.grows_at.take_if(|it| now >= *it).is_some() && self.running > self.threads {
            self.grow();
        }
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
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::Config;
    use crate::lists::PoolName;
    use crate::upstream::check::ask::CheckClient;

    /// Nobody is at this port.
    const NOBODY: CheckTarget = CheckTarget {
        peer: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
        way: PoolName::Prod,
    };

    fn asker() -> Arc<CheckClient> {
        let text = "[health]\npath = /\n[redis]\nurl = redis://h\n";
        let config = Config::parse(Path::new("graygate.ini"), text, None).unwrap();
        let checks = config
            .default_service()
            .health
            .of_pool(PoolName::Prod)
            .unwrap();
        Arc::new(CheckClient::new(Arc::clone(checks)))
    }

    #[test]
    fn there_are_as_many_threads_as_are_needed_and_those_that_are_not_any_more_end() {
        let asker = asker();
        let (mut crew, ends) = Crew::new();
        let check = |crew: &mut Crew, at_once: usize| {
            for _ in 0..at_once {
                let asker = Arc::clone(&asker);
                crew.make(Job {
                    target: NOBODY,
                    asker,
                });
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

    /// The check that waits may be the only one: without it nobody would be checked any more.
    #[test]
    fn a_thread_that_cannot_be_started_is_started_later() {
        static IS_SHORT: AtomicBool = AtomicBool::new(true);
        let asker = asker();
        let (mut crew, ends) = Crew::with(|orders, ended| {
            if IS_SHORT.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            std::thread::spawn(move || work(&orders, &ended));
            Ok(())
        });
        crew.make(Job {
            target: NOBODY,
            asker,
        });
        crew.look(crew.wakes_at().unwrap());
        IS_SHORT.store(false, Ordering::SeqCst);
        let again = crew.wakes_at().unwrap();
        crew.look(again - Duration::from_millis(1));
        assert_eq!(crew.threads, 0);
        crew.look(again);
        assert_eq!(crew.threads, 1);
        assert_eq!(ends.recv().unwrap().answer.outcome, Checked::Refused);
    }
}
