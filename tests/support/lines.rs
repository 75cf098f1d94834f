//! What a child process writes, kept line by line as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The lines of a stream so far. Clones see the same lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Arc<(Mutex<Kept>, Condvar)>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    ended: bool,
}

/// What a wait for a line came to.
#[derive(Debug)]
pub(crate) enum Found {
    Line(String),
    /// The stream ended without it.
    Ended,
    TimedOut,
}

impl Lines {
    /// Reads `stream` to its end in a thread of its own.
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let kept = lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\n', '\r']).to_owned();
                kept.change(|kept| kept.lines.push(text));
                line.clear();
            }
            kept.change(|kept| kept.ended = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        let (kept, changed) = &*self.0;
        change(&mut kept.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        let kept = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.clone()
    }

    /// How many of the lines so far contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|it| it.contains(text)).count()
    }

    /// Waits for a line that contains `text`, from the first one on.
    pub(crate) fn wait_for(&self, text: &str, deadline: Duration) -> Found {
        let until = Instant::now() + deadline;
        let (kept, changed) = &*self.0;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = kept.lines.iter().find(|it| it.contains(text)) {
                return Found::Line(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if kept.ended {
                return Found::Ended;
            }
            if left.is_zero() {
                return Found::TimedOut;
            }
            let waited = changed.wait_timeout(kept, left);
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
