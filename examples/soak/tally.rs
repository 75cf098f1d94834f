//! What became of everything that clients did.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How something that a client did has ended. Nothing is counted twice.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// As it must: so many requests.
    Right(u64),
    /// In a way that is allowed, by the name of that.
    Allowed(&'static str),
    /// As it must not.
    Wrong(String),
}

/// Failures that are shown.
const SHOWN: usize = 10;

/// Of one gateway.
#[derive(Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    failed: AtomicU64,
    /// By what the client did, and how it has ended.
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    wrong: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(crate) fn note(&self, act: &'static str, outcome: Outcome) {
        let (requests, how) = match outcome {
            Outcome::Right(requests) => (requests, "right"),
            Outcome::Allowed(how) => (1, how),
            Outcome::Wrong(what) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut wrong = lock(&self.wrong);
                if wrong.len() < SHOWN {
                    wrong.push(format!("{act}: {what}"));
                }
                (1, "WRONG")
            }
        };
        self.requests.fetch_add(requests, Ordering::Relaxed);
        *lock(&self.counts).entry((act, how)).or_default() += 1;
    }
}

/// Of all gateways.
pub(crate) struct Tallies(Vec<Tally>);

impl Tallies {
    pub(crate) fn new(gateways: usize) -> Self {
        Self((0..gateways).map(|_| Tally::default()).collect())
    }

    pub(crate) fn of(&self, gateway: usize) -> &Tally {
        &self.0[gateway]
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0
            .iter()
            .map(|it| it.requests.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.0
            .iter()
            .map(|it| it.failed.load(Ordering::Relaxed))
            .sum()
    }

    /// The part of the page on what clients saw.
    pub(crate) fn page(&self) -> String {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for tally in &self.0 {
            for (key, count) in &*lock(&tally.counts) {
                *counts.entry(*key).or_default() += count;
            }
        }
        // Writing to a String cannot fail.
        let mut page = format!("\n{} requests\n", self.requests());
        for ((act, how), count) in counts {
            let _ = writeln!(page, "{act:<26} {count:>10}  {how}");
        }
        for (at, tally) in self.0.iter().enumerate() {
            for wrong in &*lock(&tally.wrong) {
                let _ = writeln!(page, "gateway {}: {wrong}", at + 1);
            }
        }
        page
    }
}
