//! The error log is the `log` crate's: [`install`] makes it write to a log of ours, one line an event,
//! `time LEVEL event key=value …`. What libraries log gets that form, too, or is left out (`foreign`).

use std::time::{Instant, SystemTime};

use super::foreign;
use super::writer::{Batch, LogQueue};

struct ErrorLog(LogQueue);

impl log::Log for ErrorLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // The libraries' debug messages are for their developers.
        !foreign::is_foreign(metadata.target()) || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let event = match foreign::is_foreign(record.target()) {
            false => Some(record.args().to_string()),
            true => foreign::event(record.target(), record.args(), Instant::now()),
        };
        let Some(event) = event else {
            return;
        };
        self.0.send(line(record.level(), &event));
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// An event as it stands in the log.
pub(crate) fn line(level: log::Level, event: &str) -> Batch {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    Batch {
        bytes: format!("{time} {level} {event}\n").into_bytes(),
        lines: 1,
    }
}

/// Makes `queue` the error log of the process, for events of `level` and above.
pub fn install(queue: LogQueue, level: log::LevelFilter) {
    log::set_max_level(level);
    // Only a second call in the same process could fail, and it would change nothing.
    let _ = log::set_boxed_logger(Box::new(ErrorLog(queue)));
}
