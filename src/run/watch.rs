//! Tells whoever listens that the gateway is ready, and that its workers turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::net;
use crate::process::notices::{Notice, Notices};
use crate::process::supervised;
use crate::store::Publisher;

/// How often it is looked whether there are lists.
const LISTS_LOOK: Duration = Duration::from_millis(50);

/// Says [`Notice::Ready`] once there are lists, and what is waited for until then; and from now on that the
/// workers turn, if that is of interest, as long as they do.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn start(notices: Notices, publisher: Arc<Publisher>, workers: usize) -> io::Result<()> {
    let mut turns: Vec<Turn> = (0..workers).map(|_| Turn::default()).collect();
    supervised::spawn("watch", move || {
        let pace = notices.pace();
        let (mut is_ready, mut waits_for) = (false, None);
        let mut passed = Duration::ZERO;
        loop {
            if !is_ready {
                is_ready = tell_of_lists(&notices, &publisher, &mut waits_for);
            }
            if pace.is_some_and(|it| passed >= it) {
                passed = Duration::ZERO;
                // Each of them is asked.
                let mut all = true;
                for (worker, turn) in turns.iter_mut().enumerate() {
                    all &= turn.is_done(worker);
                }
                if all {
                    notices.tell(Notice::Turns);
                }
            }
            let pause = match (is_ready, pace) {
                (false, _) => LISTS_LOOK,
                (true, Some(pace)) => pace.saturating_sub(passed),
                (true, None) => return,
            };
            std::thread::sleep(pause);
            passed += pause;
        }
    })?;
    Ok(())
}

/// True once there are some.
fn tell_of_lists(notices: &Notices, publisher: &Publisher, said: &mut Option<String>) -> bool {
    if publisher.lists().are_read() {
        notices.tell(Notice::Ready);
        return true;
    }
    let why = publisher.status().error;
    let waits = why.map_or("waiting for the lists".to_owned(), |it| {
        format!("waiting for the lists: {it}")
    });
    if said.as_ref() != Some(&waits) {
        notices.tell(Notice::Waits(waits.clone()));
        *said = Some(waits);
    }
    false
}

/// A worker, and the task by which it is seen whether it turns: one at a time.
#[derive(Default)]
struct Turn {
    asked: u64,
    done: Arc<AtomicU64>,
}

impl Turn {
    /// Whether `worker` has done what it was asked last time; then it is asked anew.
    fn is_done(&mut self, worker: usize) -> bool {
        if self.done.load(Ordering::Acquire) < self.asked {
            return false;
        }
        let (done, number) = (Arc::clone(&self.done), self.asked + 1);
        let asked = net::spawn(worker, move || done.store(number, Ordering::Release));
        if asked.is_ok() {
            self.asked = number;
        }
        asked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_worker_that_hangs_is_seen_and_so_is_that_it_goes_on() {
        net::start(1).unwrap();
        let mut turn = Turn::default();
        let mut until = |wanted: bool| {
            let begun = Instant::now();
            while turn.is_done(0) != wanted {
                assert!(begun.elapsed() < Duration::from_secs(10));
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        until(true);
        let (go_on, hangs) = mpsc::channel::<()>();
        net::spawn(0, move || {
            let _ = hangs.recv();
        })
        .unwrap();
        until(false);
        drop(go_on);
        until(true);
    }
}
