//! Clients that notice whatever an upgrade of the proxy between them and a server does to them, and that
//! server. Used by the test (`tests/upgrades_under_load.rs`) and by the comparison (`main.rs`).
//!
//! Everything is plain HTTP/1.1 and blocking, by code of its own, and every byte of an answer is compared with
//! what it must be. Nothing is asked a second time: what fails is counted.

mod asking;
mod connection;
mod long;
mod origin;
mod owned;
mod tally;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) use origin::Origin;
pub(crate) use owned::{Owned, processes_of};
pub(crate) use tally::{Count, Tally};

/// How many of each kind there are at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Connections with one request after the other.
    pub(crate) busy: usize,
    /// The longest of their pauses.
    pub(crate) pause: Duration,
    /// Connections that are silent but for a request now and then.
    pub(crate) idle: usize,
    /// The longest of their silences.
    pub(crate) silence: Duration,
    pub(crate) websockets: usize,
    pub(crate) downloads: usize,
    pub(crate) uploads: usize,
    /// About how long each of these three takes; then the next one begins.
    pub(crate) long: Duration,
}

impl Plan {
    /// What is promised, and measured beside others.
    pub(crate) const FULL: Self = Self {
        busy: 64,
        pause: Duration::from_millis(100),
        idle: 1000,
        silence: Duration::from_secs(20),
        websockets: 20,
        downloads: 5,
        uploads: 5,
        long: Duration::from_secs(12),
    };
}

/// What the clients do at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Busy and idle connections ask.
    Short,
    /// All of them do what they are there for.
    All,
    /// Busy and idle connections stay open, and are silent; there are no others once these have come to their
    /// end.
    Quiet,
    /// Each connection is asked once more, and ends.
    Over,
}

/// What all clients share.
struct Shared {
    proxy: SocketAddr,
    plan: Plan,
    tally: Tally,
    phase: AtomicU8,
    /// Clients that are doing something.
    active: AtomicUsize,
    /// The clients' ports of connections that cannot move: of tunnels, and of transfers.
    long: Mutex<BTreeSet<u16>>,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Short,
            1 => Phase::All,
            2 => Phase::Quiet,
            _ => Phase::Over,
        }
    }

    /// Waits for something to do; false at the end. Who has waited is active from now on.
    fn has_turn(&self, phases: &[Phase]) -> bool {
        loop {
            self.active.fetch_add(1, Ordering::AcqRel);
            let phase = self.phase();
            if phases.contains(&phase) {
                return true;
            }
            self.rest();
            if phase == Phase::Over {
                return false;
            }
            thread::sleep(LOOK);
        }
    }

    fn rest(&self) {
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    fn long(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.long.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often clients look what they are to do.
const LOOK: Duration = Duration::from_millis(20);

/// Clients of a proxy, while they are there.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients of the proxy at this address, as in [`Phase::Short`].
    pub(crate) fn start(proxy: SocketAddr, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            proxy,
            plan,
            tally: Tally::default(),
            phase: AtomicU8::new(Phase::Short as u8),
            active: AtomicUsize::new(0),
            long: Mutex::default(),
        });
        let mut load = Self {
            shared,
            threads: Vec::new(),
        };
        load.spawn(1, asking::probe);
        load.spawn(plan.busy, asking::busy);
        load.spawn(asking::IDLE_THREADS, asking::idle);
        load.spawn(plan.websockets, long::websocket);
        load.spawn(plan.downloads, long::download);
        load.spawn(plan.uploads, long::upload);
        load
    }

    fn spawn(&mut self, count: usize, client: fn(&Shared, usize)) {
        for at in 0..count {
            let shared = Arc::clone(&self.shared);
            self.threads
                .push(thread::spawn(move || client(&shared, at)));
        }
    }

    /// What has happened so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// From now on the clients do something else.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase as u8, Ordering::Release);
    }

    /// True when nobody does anything, in [`Phase::Quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.active.load(Ordering::Acquire) == 0
    }

    /// The clients' ports of connections that cannot move.
    pub(crate) fn long_ports(&self) -> BTreeSet<u16> {
        self.shared.long().clone()
    }

    /// Ends them all; what has happened.
    pub(crate) fn end(mut self) -> Tally {
        self.enter(Phase::Over);
        for thread in self.threads.drain(..) {
            // A client that panics has not come to its end.
            if thread.join().is_err() {
                self.shared.tally.note(Count::Failed, "a client panicked");
            }
        }
        std::mem::take(&mut self.shared_mut().tally)
    }

    fn shared_mut(&mut self) -> &mut Shared {
        Arc::get_mut(&mut self.shared).expect("all clients have ended")
    }
}

/// The content with this number: the same to whoever sends it and to whoever checks it.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(number).fill(&mut bytes);
    bytes
}

/// Length of a piece of a download.
const DOWN_PIECE: usize = 64 * 1024;

/// Length of a piece of an upload.
const UP_PIECE: usize = 16 * 1024;

/// Between two pieces.
const PIECE_PAUSE: Duration = Duration::from_millis(100);

/// A piece of a transfer with this number.
fn piece(transfer: u64, at: usize, length: usize) -> Vec<u8> {
    content(transfer ^ (at as u64) << 32, length)
}

/// Sleeps for up to `longest`, as chance has it, but not beyond `until`.
fn pause(longest: Duration, until: Option<Instant>) {
    let length = longest.mul_f64(fastrand::f64());
    let left = until.map(|it| it.saturating_duration_since(Instant::now()));
    thread::sleep(left.map_or(length, |left| left.min(length)));
}
