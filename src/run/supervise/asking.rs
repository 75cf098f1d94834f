//! What the command line asks of a supervisor, by a socket that it finds by the ini file's path. Whoever asks
//! must be root or the supervisor's own user, and the other way round: the kernel knows.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::process::handover::{Channel, Message, SupervisorMessage};
use crate::run::upgrade::{ANSWER, supervisor_names_of};

/// What has come of it.
#[derive(Debug)]
pub(crate) enum Told {
    /// There is no supervisor.
    Nobody,
    /// It is done.
    Done {
        /// The gateway that serves now.
        pid: u32,
        /// What should be known besides.
        note: Option<String>,
    },
}

/// Asks the supervisor of the gateway with this ini file to put `program` in the gateway's place, and in its
/// own.
///
/// # Errors
/// Why that was not done, in words.
pub(crate) fn upgrade(config: &Path, program: &Path, limit: Duration) -> Result<Told, String> {
    let program = program.to_str().ok_or("its path is not UTF-8")?.to_owned();
    // It checks the program first, too.
    ask(
        config,
        SupervisorMessage::Upgrade { program },
        limit + ANSWER,
    )
}

/// Asks it to leave the gateway alone.
///
/// # Errors
/// As with [`upgrade`].
pub(crate) fn leave(config: &Path) -> Result<Told, String> {
    ask(config, SupervisorMessage::Leave, ANSWER)
}

fn ask(config: &Path, what: SupervisorMessage, limit: Duration) -> Result<Told, String> {
    let in_words = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => format!("the supervisor has not answered within {limit:?}"),
        _ => error.to_string(),
    };
    let found =
        Channel::connect_to_any(&supervisor_names_of(config), |_, _| false).map_err(in_words)?;
    let Some(channel) = found else {
        return Ok(Told::Nobody);
    };
    if !channel.is_heard().map_err(in_words)? {
        return Err(
            "not permitted: only root, and the supervisor's own user, may ask it".to_owned(),
        );
    }
    let asked = channel.send(&Message::Supervisor(what), &[]);
    asked.map_err(in_words)?;
    match channel.receive(limit).map_err(in_words)? {
        Some((Message::Supervisor(SupervisorMessage::Done { pid, note }), _)) => {
            Ok(Told::Done { pid, note })
        }
        Some((Message::Refused { reason }, _)) => Err(reason),
        Some(_) => Err("the supervisor has said what it should not".to_owned()),
        None => Err("the supervisor has ended".to_owned()),
    }
}
