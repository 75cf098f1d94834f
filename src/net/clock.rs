//! A worker's clock: cuts waits that are overdue and runs the worker's housekeeping.
//!
//! `may` waits without a time limit (its own timers cost more per wait than a request should
//! pay). So each worker has a table of waits with their deadlines, and one coroutine of its own
//! that looks through the table every [`TICK`], driven by a timerfd in the worker's own epoll set:
//! what is overdue is woken *on this worker*. The timer runs only while something waits with a
//! deadline or the housekeeping has something left, so an idle gateway wakes nobody.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use may::io::{CoIo, WaitIo};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::events::{Descriptor, Io, Watched};
use super::places::Places;
use super::{coroutines, numbers, rounds};

/// How often a worker looks for overdue waits, while there are any.
const TICK: Duration = Duration::from_millis(25);

thread_local! {
    static CLOCK: OnceCell<Rc<Clock>> = const { OnceCell::new() };
}

struct Clock {
    timer: TimerFd,
    io: CoIo<Descriptor>,
    running: Cell<bool>,
    waits: RefCell<Waits>,
    housekeeping: RefCell<Option<Rc<dyn Fn() -> bool>>>,
}

/// The streams of a worker; a stream keeps its place for life.
#[derive(Default)]
struct Waits {
    places: Places<ArmedWait>,
    /// How many places have a deadline.
    armed: usize,
}

struct ArmedWait {
    io: Rc<Io>,
    due: Option<Instant>,
    /// Wake the waiter when this has happened, too.
    watched: Option<Watched>,
    /// The wait may be cut by [`interrupt_idle`].
    idle: bool,
}

/// Makes the calling worker's clock and starts it.
pub(super) fn start() -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let timer = numbers::with_fitting_number(timer.into())?;
    // SAFETY: it is a timer's descriptor, and nobody else's.
    let timer = unsafe { TimerFd::from_raw_fd(timer.into_raw_fd()) };
    let io = CoIo::new(Descriptor(timer.as_fd().as_raw_fd())).map_err(io::Error::from)?;
    let clock = Rc::new(Clock {
        timer,
        io,
        running: Cell::new(false),
        waits: RefCell::default(),
        housekeeping: RefCell::new(None),
    });
    CLOCK.with(|cell| cell.set(clock).ok());
    coroutines::spawn(coroutines::worker(), || {
        if let Some(clock) = CLOCK.with(|cell| cell.get().cloned()) {
            clock.run();
        }
    })
}

fn with_clock<T>(action: impl FnOnce(&Rc<Clock>) -> T) -> T {
    CLOCK.with(|cell| match cell.get() {
        Some(clock) => action(clock),
        None => panic!("this worker has no clock"),
    })
}

/// Sets a task that the calling worker runs at every tick. The clock keeps ticking as long as the task
/// returns true ("there is more to do") or anything waits.
pub(crate) fn set_housekeeping(task: impl Fn() -> bool + 'static) {
    with_clock(|clock| *clock.housekeeping.borrow_mut() = Some(Rc::new(task)));
}

/// Makes sure that the housekeeping of the calling worker is run soon.
pub(crate) fn ensure_ticking() {
    with_clock(|clock| clock.ensure_ticking());
}

/// As [`ensure_ticking`], on every worker.
pub(crate) fn ensure_all_ticking() {
    // A worker that cannot be told now notices at its next request.
    let _ = coroutines::on_each_worker(|_| ensure_ticking());
}

/// Ends every idle wait of the calling worker with [`super::Wake::Interrupted`], some in each round.
pub(crate) fn interrupt_idle() {
    let clock = with_clock(Rc::clone);
    clock.for_some(|place| place.idle, Io::interrupt);
}

/// Set once every wait is to end.
static CUT: AtomicBool = AtomicBool::new(false);

/// Ends every wait of every worker, now and from now on, as if its deadline had passed: whatever is
/// under way is cut off.
///
/// # Errors
/// As [`coroutines::spawn`].
pub(crate) fn cut_waits() -> io::Result<()> {
    CUT.store(true, Ordering::Release);
    coroutines::on_each_worker(|_| wake_all())
}

/// True once waits are cut.
pub(crate) fn are_waits_cut() -> bool {
    CUT.load(Ordering::Acquire)
}

/// Wakes every waiting coroutine of the calling worker, without an event.
fn wake_all() {
    with_clock(|clock| {
        let waits = clock.waits.borrow();
        waits.places.iter().for_each(|place| place.io.wake());
    });
}

/// Gives a stream its place in the table.
pub(super) fn register(io: impl FnOnce(usize) -> Rc<Io>) -> Rc<Io> {
    with_clock(|clock| {
        let mut waits = clock.waits.borrow_mut();
        let place = waits.places.put(|place| ArmedWait {
            io: io(place),
            due: None,
            watched: None,
            idle: false,
        });
        Rc::clone(&waits.places[place].io)
    })
}

/// Frees a stream's place.
pub(super) fn release(place: usize) {
    let place = with_clock(|clock| clock.waits.borrow_mut().places.take(place));
    // The socket is closed after the table's borrow has ended.
    drop(place);
}

/// Notes that the stream at `place` is about to wait.
pub(super) fn arm(place: usize, due: Option<Instant>, watched: Option<Watched>, idle: bool) {
    with_clock(|clock| {
        {
            let mut waits = clock.waits.borrow_mut();
            waits.armed += usize::from(due.is_some());
            let place = &mut waits.places[place];
            place.due = due;
            place.watched = watched;
            place.idle = idle;
        }
        if due.is_some() {
            clock.ensure_ticking();
        }
    });
}

/// Notes that the wait at `place` is over.
pub(super) fn disarm(place: usize) {
    with_clock(|clock| {
        let mut waits = clock.waits.borrow_mut();
        let place = &mut waits.places[place];
        let was_armed = place.due.take().is_some();
        place.watched = None;
        place.idle = false;
        waits.armed -= usize::from(was_armed);
    });
}

impl Clock {
    fn ensure_ticking(&self) {
        if !self.running.replace(true) {
            let interval = Expiration::Interval(TimeSpec::from(TICK));
            if let Err(error) = self.timer.set(interval, TimerSetTimeFlags::empty()) {
                self.running.set(false);
                log::error!("clock-failed error={:?}", error.to_string());
            }
        }
    }

    fn stop(&self) {
        if self.running.replace(false) && self.timer.unset().is_err() {
            self.running.set(true);
        }
    }

    fn run(&self) {
        loop {
            self.io.wait_io();
            // The count of ticks does not matter, only that the descriptor is quiet again.
            let _ = self.timer.wait();
            self.wake_overdue();
            let housekeeping = self.housekeeping.borrow().clone();
            let more = housekeeping.is_some_and(|task| task());
            if !more && self.waits.borrow().armed == 0 {
                self.stop();
            }
        }
    }

    fn wake_overdue(&self) {
        let now = Instant::now();
        let ends = |place: &ArmedWait| {
            let overdue = place.due.is_some_and(|due| due <= now);
            overdue || place.watched.as_ref().is_some_and(Watched::has_happened)
        };
        // Puts the waiter into the run queue; it runs after this coroutine waits again.
        self.for_some(ends, Io::wake);
    }

    /// Does `action` with the streams of those places for which `applies` holds, some in each round: a
    /// crowd that came together must not hold everybody else up when it leaves together.
    fn for_some(&self, applies: impl Fn(&ArmedWait) -> bool, action: impl Fn(&Io)) {
        let mut from = Some(0);
        while let Some(at) = from {
            from = self.for_a_portion(at, &applies, &action);
            if from.is_some() {
                rounds::next_round();
            }
        }
    }

    /// One portion of [`Self::for_some`], from the place `from` on. Returns where to continue, if there
    /// may be more.
    fn for_a_portion(
        &self,
        from: usize,
        applies: impl Fn(&ArmedWait) -> bool,
        action: impl Fn(&Io),
    ) -> Option<usize> {
        let waits = self.waits.borrow();
        let places = (from..waits.places.end()).filter_map(|at| Some((at, waits.places.get(at)?)));
        let mut left = rounds::PORTION;
        for (at, place) in places.filter(|(_, place)| applies(place)) {
            action(&place.io);
            left -= 1;
            if left == 0 {
                return Some(at + 1);
            }
        }
        None
    }
}
