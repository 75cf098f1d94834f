//! Reports the current step of a start that takes long.
//!
//! A start can wait for things that have no deadline of their own: a file on a server that is away, a
//! user directory behind the network, a pipe that nobody opens. An operator who only sees that the start
//! does not end must be told what it is waiting for.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::notices::{Notice, Notices};

/// A step that takes longer than this is reported, again and again at this interval.
const LONG: Duration = Duration::from_secs(3);

/// The steps of a start. They are watched until this is dropped.
pub(crate) struct Startup {
    steps: Sender<String>,
    notices: Option<Notices>,
}

impl Startup {
    /// Starts to watch. Reports go to standard error, since the start may be waiting for the logs.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn begin() -> io::Result<Self> {
        let tell = |what: &str| {
            // If this fails, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "graygate: {what}");
        };
        show_name();
        Self::watched(LONG, tell)
    }

    fn watched(long: Duration, tell: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let (steps, news) = unbounded();
        let thread = std::thread::Builder::new().name("startup".to_owned());
        thread.spawn(move || watch(&news, long, tell))?;
        Ok(Self {
            steps,
            notices: None,
        })
    }

    /// Each step is a notice, too, from now on.
    pub(crate) fn with_notices(mut self, notices: Notices) -> Self {
        self.notices = Some(notices);
        self
    }

    /// Notes the current step: the words that follow "still".
    pub(crate) fn at(&self, step: impl Into<String>) {
        let step = step.into();
        if let Some(notices) = &self.notices {
            notices.tell(Notice::Waits(step.clone()));
        }
        // The thread ends only when this is dropped.
        let _ = self.steps.send(step);
    }
}

/// Has the process listed under the name that it was started by: a supervisor starts its gateways by a link,
/// and the kernel names them after that.
fn show_name() {
    let started_by = std::env::args_os().next();
    if let Some(name) = started_by
        .as_deref()
        .and_then(|it| Path::new(it).file_name())
    {
        // A list without it is no harm.
        let _ = fs::write("/proc/self/comm", name.as_encoded_bytes());
    }
}

fn watch(news: &Receiver<String>, long: Duration, tell: impl Fn(&str)) {
    let (mut step, mut since) = ("starting".to_owned(), Instant::now());
    loop {
        match news.recv_timeout(long) {
            Ok(next) => (step, since) = (next, Instant::now()),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = since.elapsed().as_secs();
                tell(&format!("still {step}, for {seconds} s"));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_takes_long_is_told_of_and_a_start_that_has_ended_is_not() {
        let (say, said) = unbounded();
        let told = move |what: &str| say.send(what.to_owned()).unwrap();
        let startup = Startup::watched(Duration::from_millis(1), told).unwrap();
        startup.at("opening /a");
        let opens_a = |it: String| it.starts_with("still opening /a, for ");
        assert!(said.iter().any(opens_a));
        startup.at("opening /b");
        assert!(said.iter().any(|it| it == "still opening /b, for 0 s"));
        drop(startup);
        // The watcher ends, and with it what it tells with.
        assert!(said.iter().last().is_none_or(|it| it.contains("/b")));
    }
}
