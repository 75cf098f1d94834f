//! Scheduling within a worker: its rounds.
//!
//! A *round* is one look for events from the kernel and what follows from it. A coroutine that has had
//! its turn ([`yield_turn`]), or is woken when the round is full ([`enter`]), waits in a queue; each
//! round lets a few of them go on, however long the queue is. So the wait of those who ask for little (a
//! new connection, a request, its answer: a few rounds) does not grow with the number of those who ask
//! for much.
//!
//! Code that gives work to many others at once does so in portions, one a round ([`next_round`]).

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use may::coroutine::{self, Coroutine};
use may::io::{CoIo, WaitIo};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::events::Descriptor;
use super::{coroutines, numbers};

/// A turn, in bytes. Less than the most that is moved at once, so that a well-filled pipe or large
/// buffer is a turn of its own.
pub(super) const SHARE: usize = 128 * 1024;

/// The work of one round, in bytes as [`Turns`](super::Turns) counts them: eight turns, which take a
/// millisecond or two.
const A_ROUND: usize = 8 * SHARE;

/// How many others are woken, begun or ended in one portion: about as much work.
pub(super) const PORTION: usize = 64;

thread_local! {
    static ROUNDS: OnceCell<Rc<Rounds>> = const { OnceCell::new() };
}

struct Rounds {
    /// Starts the next round although there is no other event.
    bell: EventFd,
    io: CoIo<Descriptor>,
    rung: Cell<bool>,
    /// These go on in the next round.
    first: RefCell<VecDeque<Coroutine>>,
    /// These go on when it is their turn; each with the work that it is expected to do then.
    queue: RefCell<VecDeque<(Coroutine, usize)>>,
    /// Work that still fits into this round.
    left: Cell<usize>,
}

/// How often coroutines have queued on each worker, which alone counts them.
static TURNS: OnceLock<Box<[Count]>> = OnceLock::new();

/// In a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

fn count_of(worker: usize) -> Option<&'static AtomicU64> {
    let all = TURNS.get_or_init(|| {
        (0..coroutines::workers())
            .map(|_| Count::default())
            .collect()
    });
    all.get(worker).map(|it| &it.0)
}

/// Makes the calling worker's queue, and begins to serve it.
pub(super) fn start() -> io::Result<()> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = numbers::with_fitting_number(EventFd::from_flags(flags)?.into())?;
    // SAFETY: it is the descriptor of an eventfd, and nobody else's.
    let bell = unsafe { EventFd::from_owned_fd(bell) };
    let io = CoIo::new(Descriptor(bell.as_fd().as_raw_fd())).map_err(io::Error::from)?;
    let rounds = Rc::new(Rounds {
        bell,
        io,
        rung: Cell::new(false),
        first: RefCell::default(),
        queue: RefCell::default(),
        left: Cell::new(A_ROUND),
    });
    ROUNDS.with(|cell| cell.set(rounds).ok());
    coroutines::spawn(coroutines::worker(), || {
        if let Some(rounds) = here() {
            rounds.run();
        }
    })
}

fn here() -> Option<Rc<Rounds>> {
    ROUNDS.with(|cell| cell.get().cloned())
}

/// Ends the turn of the calling coroutine: it goes on after those that ended theirs before, a few of
/// them in each round. For what moves bytes there are [`Turns`](super::Turns).
pub fn yield_turn() {
    wait_for_turn(SHARE);
}

/// As [`yield_turn`], for one that is expected to do this much work then. Returns how much of it is
/// charged to the round already.
pub(super) fn wait_for_turn(expected: usize) -> usize {
    let Some(rounds) = here() else {
        return 0;
    };
    if let Some(count) = count_of(coroutines::worker()) {
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    let me = coroutine::current();
    rounds.queue.borrow_mut().push_back((me, expected));
    rounds.wait();
    expected
}

/// For one that was woken, and is expected to do this much work: returns at once if the round has room
/// for it and the queue is empty, otherwise when it is its turn. Returns how much of the work is charged
/// to the round already.
pub(super) fn enter(expected: usize) -> usize {
    let has_room = |rounds: &Rc<Rounds>| rounds.left.get() > 0 && rounds.queue.borrow().is_empty();
    let goes_on = ROUNDS.with(|cell| cell.get().is_none_or(has_room));
    match goes_on {
        true => 0,
        false => wait_for_turn(expected),
    }
}

/// Charges work to the round.
pub(super) fn charge(cost: usize) {
    let charge = |rounds: &Rc<Rounds>| rounds.left.set(rounds.left.get().saturating_sub(cost));
    ROUNDS.with(|cell| cell.get().map(charge));
}

/// Continues in the next round, ahead of the queue: for coroutines that start what others wait for.
///
/// A plain yield would not do: `may` drains its run queue before it asks for news again.
pub(super) fn next_round() {
    if let Some(rounds) = here() {
        rounds.first.borrow_mut().push_back(coroutine::current());
        rounds.wait();
    }
}

/// How often coroutines have waited for their turn on `worker` so far.
pub fn turns_over(worker: usize) -> u64 {
    count_of(worker).map_or(0, |it| it.load(Ordering::Relaxed))
}

impl Rounds {
    fn wait(&self) {
        self.ring();
        coroutine::park();
    }

    fn ring(&self) {
        // It fails only if its counter would overflow.
        if !self.rung.replace(true) && self.bell.write(1).is_err() {
            self.rung.set(false);
        }
    }

    fn run(&self) {
        loop {
            self.io.wait_io();
            // How often does not matter, only that the descriptor is quiet again.
            let _ = self.bell.read();
            self.rung.set(false);
            // They run after all those that this round has events for.
            for waiting in self.first.borrow_mut().drain(..) {
                waiting.unpark();
            }
            let (mut queue, mut left) = (self.queue.borrow_mut(), A_ROUND);
            while left > 0
                && let Some((waiting, expected)) = queue.pop_front()
            {
                left = left.saturating_sub(expected);
                waiting.unpark();
            }
            self.left.set(left);
            if !queue.is_empty() {
                self.ring();
            }
        }
    }
}
