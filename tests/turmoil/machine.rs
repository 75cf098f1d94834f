//! A clock of the time for which the machine runs: a virtual one may stand still for seconds, and then nobody
//! was late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two looks at the time.
const TICK: Duration = Duration::from_millis(10);

/// No tick counts for more: whoever sleeps for so short a time is woken earlier by a machine that runs.
const MOST: Duration = Duration::from_millis(50);

pub(crate) struct MachineClock {
    /// How long the machine has run, in microseconds.
    ran: Arc<AtomicU64>,
    /// The longest time between two ticks, in microseconds.
    stood: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    ticks: Option<JoinHandle<()>>,
}

impl MachineClock {
    pub(crate) fn start() -> Self {
        let (ran, stood) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let is_over = Arc::<AtomicBool>::default();
        let ticks = {
            let (ran, stood, is_over) = (ran.clone(), stood.clone(), is_over.clone());
            thread::spawn(move || {
                let mut last = Instant::now();
                while !is_over.load(Ordering::Relaxed) {
                    thread::sleep(TICK);
                    let tick = last.elapsed();
                    last += tick;
                    ran.fetch_add(micros(tick.min(MOST)), Ordering::Relaxed);
                    stood.fetch_max(micros(tick), Ordering::Relaxed);
                }
            })
        };
        Self {
            ran,
            stood,
            is_over,
            ticks: Some(ticks),
        }
    }

    /// For how long the machine has run.
    pub(crate) fn ran(&self) -> Duration {
        Duration::from_micros(self.ran.load(Ordering::Relaxed))
    }

    /// The longest time for which it has not, and what it takes to be woken.
    pub(crate) fn stood(&self) -> Duration {
        Duration::from_micros(self.stood.load(Ordering::Relaxed))
    }
}

impl Drop for MachineClock {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.ticks.take().map(JoinHandle::join);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}
