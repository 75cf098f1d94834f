//! How often a pool's requests may be tried again, so that a pool that fails is not asked three times over
//! ("retry storm"): a share of its requests of late, and a few in any case.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::health::WINDOW;
use crate::metrics::Counter;

/// Retries a second that are always allowed.
const ALWAYS: u64 = 3;

/// The account of one pool. Requests are counted by each worker for itself; retries, which are rare, by all
/// together.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Box<[Requests]>,
    retries: AtomicU64,
    /// As they were one [`WINDOW`] ago.
    past_requests: AtomicU64,
    past_retries: AtomicU64,
    /// For the control plane.
    looks: Mutex<VecDeque<(Instant, u64, u64)>>,
}

/// Of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Requests(Counter);

impl Budget {
    /// The account of a pool that so many workers serve.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            requests: (0..workers).map(|_| Requests::default()).collect(),
            retries: AtomicU64::new(0),
            past_requests: AtomicU64::new(0),
            past_retries: AtomicU64::new(0),
            looks: Mutex::default(),
        }
    }

    /// `worker` has a request for the pool.
    pub(crate) fn request(&self, worker: usize) {
        self.requests[worker].0.increment();
    }

    /// True when one more retry is within `percent` of the requests of late; it is counted then.
    pub(crate) fn allows(&self, percent: u64) -> bool {
        let requests = self
            .requests()
            .wrapping_sub(self.past_requests.load(Ordering::Relaxed));
        let allowed =
            (requests.saturating_mul(percent) / 100).saturating_add(ALWAYS * WINDOW.as_secs());
        let past = self.past_retries.load(Ordering::Relaxed);
        let count =
            |retries: u64| (retries.wrapping_sub(past) < allowed).then(|| retries.wrapping_add(1));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.retries.fetch_update(set, fetch, count).is_ok()
    }

    fn requests(&self) -> u64 {
        let counts = self.requests.iter().map(|it| it.0.get());
        counts.fold(0, u64::wrapping_add)
    }

    /// To be called once a second, by one thread.
    pub(crate) fn look(&self, now: Instant) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        looks.push_back((now, self.requests(), self.retries.load(Ordering::Relaxed)));
        while looks.get(1).is_some_and(|(at, ..)| is_old(*at)) {
            looks.pop_front();
        }
        if let Some((at, requests, retries)) = looks.front()
            && is_old(*at)
        {
            self.past_requests.store(*requests, Ordering::Relaxed);
            self.past_retries.store(*retries, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowed(budget: &Budget) -> usize {
        (0..100_000).take_while(|_| budget.allows(20)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_some_in_any_case_may_be_tried_again() {
        let budget = Budget::new(2);
        assert_eq!(allowed(&budget), 30);
        for number in 0..1000 {
            budget.request(number % 2);
        }
        assert_eq!(allowed(&budget), 200);
    }

    #[test]
    fn what_is_older_than_ten_seconds_counts_no_more() {
        let budget = Budget::new(1);
        let begun = Instant::now();
        budget.look(begun);
        (0..1000).for_each(|_| budget.request(0));
        assert_eq!(allowed(&budget), 230);
        for second in 1..=10 {
            budget.look(begun + Duration::from_secs(second));
        }
        assert!(
            !budget.allows(20),
            "the requests and the retries are as old"
        );
        budget.look(begun + Duration::from_secs(11));
        assert_eq!(allowed(&budget), 30, "of no request");
    }
}
