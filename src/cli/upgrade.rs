//! `graygate upgrade`: puts another process in the place of the running gateway, and no connection is refused
//! meanwhile.
//!
//! A supervisor is asked to start the new process. Where there is none, it is started from here, with the
//! rights of whoever asks: root, where the gateway has given up root's. It finds the running one by the ini
//! file: see [`crate::run::upgrade`].

use std::path::Path;

use serde_json::json;

use crate::cli::report::Report;
use crate::run;
use crate::run::supervise::asking::{self, Told};
use crate::run::upgrade::starting;

/// Has `program`, or the one that now lies where this one was started from, take over from the gateway that
/// runs with the file at `config`.
///
/// # Errors
/// One line; a running gateway serves on, as if nothing had been.
pub(crate) fn upgrade(config: &Path, program: Option<&Path>) -> Result<Report, String> {
    let settings = run::load(config)?;
    let program = match program {
        Some(program) => std::path::absolute(program).map_err(|error| error.to_string())?,
        None => starting::own_program()?,
    };
    let outcome = match asking::upgrade(config, &program, starting::limit(&settings)) {
        Ok(Told::Nobody) if !starting::has_predecessor(config) => {
            let config = config.display();
            return Err(format!("no gateway that can be asked runs with {config}"));
        }
        Ok(Told::Nobody) => starting::start(&program, config, &settings).map(|pid| (pid, None)),
        Ok(Told::Done { pid, note }) => Ok((pid, note)),
        Err(why) => Err(why),
    };
    let (pid, note) = outcome.map_err(|why| {
        let program = program.display();
        match starting::has_predecessor(config) {
            true => format!("{program}: {why}; the running gateway serves on"),
            false => format!("{program}: {why}; no gateway serves"),
        }
    })?;
    let more = note.as_ref().map(|it| format!("; {it}"));
    let line = format!("upgraded (pid {pid}){}", more.unwrap_or_default());
    let json = json!({ "outcome": line, "pid": pid, "note": note });
    Ok(Report::new(format!("{line}\n"), json))
}

/// Ends the supervisor of the gateway that runs with the file at `config`, and leaves the gateway serving.
///
/// # Errors
/// One line; nothing has changed.
pub(crate) fn leave(config: &Path) -> Result<Report, String> {
    match asking::leave(config)? {
        Told::Nobody => Err(format!("no supervisor runs with {}", config.display())),
        Told::Done { pid, .. } => {
            let line = format!("left (pid {pid} serves on)");
            let json = json!({ "outcome": line, "pid": pid });
            Ok(Report::new(format!("{line}\n"), json))
        }
    }
}
