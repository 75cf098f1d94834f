//! The supervisor's lines in the error log.
//!
//! It opens the log for each of them: they are few, and a file that was rotated away, or a target that a
//! reload has changed, needs no attention this way.

use log::Level;

use crate::config::Config;
use crate::logs::events;
use crate::logs::writer::ERROR_LOG;
use crate::process::Identity;
use crate::run::logs::open_log;

/// Writes one event where `config` says.
pub(super) fn tell(config: &Config, level: Level, event: &str) {
    if level > config.log.level {
        return;
    }
    let settings = &config.gateway;
    let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref());
    let identity = identity.ok().flatten();
    match open_log(ERROR_LOG, &config.log.error, identity.as_ref()) {
        Ok(log) => {
            log.queue().send(events::line(level, event));
            log.close();
        }
        Err(error) => complain(&format!("{error}; {event}")),
    }
}

/// Where there is no log.
fn complain(what: &str) {
    use std::io::Write;
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "graygate: {what}");
}
