//! What was in force when: a place is looked at again and again, so that of each thing that was seen there it
//! is known between which two moments it came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Something that was seen for some time.
#[derive(Clone, Debug)]
pub(crate) struct Spell<T> {
    pub(crate) seen: T,
    /// The last look that did not show it yet was begun then: it was not there before.
    pub(crate) not_before: Instant,
    /// The first look that showed it had ended then: it was there from then on.
    pub(crate) surely: Instant,
}

/// All that was seen at a place, in the order of time.
pub(crate) type Timeline<T> = Vec<Spell<T>>;

/// The places in a timeline of what may have been in force at some moment between these two.
pub(crate) fn possible<T>(
    timeline: &[Spell<T>],
    from: Instant,
    to: Instant,
) -> impl Iterator<Item = usize> {
    let is_over = move |at: usize| timeline.get(at + 1).is_some_and(|it| it.surely < from);
    let has_begun = move |at: usize| timeline[at].not_before <= to;
    (0..timeline.len()).filter(move |&at| has_begun(at) && !is_over(at))
}

/// Looks at a place until it is dropped.
pub(crate) struct Watch<T> {
    timeline: Arc<Mutex<Timeline<T>>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Clone + PartialEq + Send + 'static> Watch<T> {
    /// Begins with a look.
    pub(crate) fn start(every: Duration, mut look: impl FnMut() -> T + Send + 'static) -> Self {
        let not_before = Instant::now();
        let first = Spell {
            seen: look(),
            not_before,
            surely: Instant::now(),
        };
        let timeline = Arc::new(Mutex::new(vec![first]));
        let done = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&timeline), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut not_before = not_before;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let seen = look();
                let surely = Instant::now();
                let mut all = shared.lock().unwrap();
                if all.last().unwrap().seen != seen {
                    all.push(Spell {
                        seen,
                        not_before,
                        surely,
                    });
                }
                drop(all);
                not_before = begun;
                std::thread::sleep(every);
            }
        });
        Self {
            timeline,
            done,
            thread: Some(thread),
        }
    }

    fn all(&self) -> MutexGuard<'_, Timeline<T>> {
        self.timeline.lock().unwrap()
    }

    /// All that was seen so far.
    pub(crate) fn timeline(&self) -> Timeline<T> {
        self.all().clone()
    }

    /// What was seen last.
    pub(crate) fn last(&self) -> Spell<T> {
        self.all().last().unwrap().clone()
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Before the place goes; if it has failed, it has said why.
            let _ = thread.join();
        }
    }
}
