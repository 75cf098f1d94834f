//! Changes of a list at a steady pace, beside what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::site::{CHANGING, Site};

/// 100 changes a second.
const GAP: Duration = Duration::from_millis(10);

/// A thread that adds an entry and removes it, in turn, until it is dropped.
pub(crate) struct Changes {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Changes {
    pub(crate) fn start(site: &Site) -> redis::RedisResult<Self> {
        let mut connection = site.connect_to_redis()?;
        let end = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&end);
        let mut change = move || -> redis::RedisResult<()> {
            let mut due = Instant::now();
            let mut is_in = false;
            while is_in || !until.load(Ordering::Relaxed) {
                let mut command = redis::cmd(if is_in { "LREM" } else { "LPUSH" });
                command.arg(CHANGING);
                if is_in {
                    command.arg(1);
                }
                command.arg("192.168.2.1").exec(&mut connection)?;
                is_in = !is_in;
                due += GAP;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(())
        };
        let thread = std::thread::spawn(move || {
            // Who started it sees that it has ended.
            let _ = change();
        });
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }

    /// False when Redis has ended it.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
