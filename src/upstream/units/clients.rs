//! Which clients there were: a few of their hashes, without locks.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So many clients behind bad units are known.
const MOST: usize = 64;

/// Fewer clients than this are few.
const MANY: usize = 5;

/// An hour, in so many parts, and the one under way.
const PARTS: usize = 12 + 1;
const PART: Duration = Duration::from_secs(5 * 60);

/// No hash is 0 here.
fn named(client: u64) -> u64 {
    client.max(1)
}

/// The first ones behind bad units.
#[derive(Debug)]
pub(super) struct BadClients {
    /// 0 where there is none yet.
    hashes: [AtomicU64; MOST],
    next: AtomicUsize,
}

impl Default for BadClients {
    fn default() -> Self {
        Self {
            hashes: [const { AtomicU64::new(0) }; MOST],
            next: AtomicUsize::new(0),
        }
    }
}

impl BadClients {
    /// One more, which is not among them.
    pub(super) fn add(&self, client: u64) {
        if self.next.load(Ordering::Relaxed) >= MOST {
            return;
        }
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(hash) = self.hashes.get(at) {
            hash.store(named(client), Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> Vec<u64> {
        let hashes = self.hashes.iter().map(|it| it.load(Ordering::Relaxed));
        hashes.filter(|it| *it != 0).collect()
    }

    pub(super) fn clear(&self) {
        let hashes = self.hashes.iter();
        hashes.for_each(|it| it.store(0, Ordering::Relaxed));
        self.next.store(0, Ordering::Relaxed);
    }
}

/// How many clients `pre` had in the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreClients {
    /// So many: fewer than 5.
    Few(usize),
    /// 5 or more.
    Many,
}

/// The first few clients in each part of the last hour: if there were few in each, these are all.
#[derive(Debug)]
pub(super) struct RecentClients {
    parts: [[AtomicU64; MANY]; PARTS],
    /// The part that is under way.
    current: AtomicUsize,
    /// When it has begun. For the control plane.
    begun: Mutex<Option<Instant>>,
}

impl RecentClients {
    pub(super) fn new() -> Self {
        Self {
            parts: [const { [const { AtomicU64::new(0) }; MANY] }; PARTS],
            current: AtomicUsize::new(0),
            begun: Mutex::new(None),
        }
    }

    /// There is this one now.
    #[inline]
    pub(super) fn note(&self, client: u64) {
        let client = named(client);
        let part = &self.parts[self.current.load(Ordering::Relaxed) % PARTS];
        for place in part {
            match place.load(Ordering::Relaxed) {
                it if it == client => return,
                0 => {
                    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
                    match place.compare_exchange(0, client, set, fetch) {
                        Ok(_) => return,
                        Err(it) if it == client => return,
                        Err(_) => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// To be called once a second, by one thread.
    pub(super) fn look(&self, now: Instant) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let since = begun.get_or_insert(now);
        // What is longer ago than all parts together is as long ago as that.
        for _ in 0..PARTS {
            if now.saturating_duration_since(*since) < PART {
                return;
            }
            *since += PART;
            let next = (self.current.load(Ordering::Relaxed) + 1) % PARTS;
            let places = self.parts[next].iter();
            places.for_each(|it| it.store(0, Ordering::Relaxed));
            self.current.store(next, Ordering::Relaxed);
        }
        *since = now;
    }

    pub(super) fn count(&self) -> PreClients {
        let mut known = [0; MANY];
        let mut count = 0;
        for place in self.parts.iter().flatten() {
            let client = place.load(Ordering::Relaxed);
            if client == 0 || known[..count].contains(&client) {
                continue;
            }
            known[count] = client;
            count += 1;
            if count == MANY {
                return PreClients::Many;
            }
        }
        PreClients::Few(count)
    }

    pub(super) fn clear(&self) {
        let places = self.parts.iter().flatten();
        places.for_each(|it| it.store(0, Ordering::Relaxed));
    }
}
