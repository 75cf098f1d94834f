//! `graygate upgrade`: puts another process in the place of the running gateway, and no connection is refused
//! meanwhile.
//!
//! The new process is started from here, with the rights of whoever asks: root, where the gateway has given
//! up root's. It finds the running one by the ini file: see [`crate::run::upgrade`].

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::config::Config;
use crate::run;
use crate::run::upgrade::{ANSWER, DONE, PROBATION, VARIABLE};

/// Has `program`, or the one that now lies where this one was started from, take over from the gateway that
/// runs with the file at `config`. Returns one line: the outcome.
///
/// # Errors
/// One line; the running gateway serves on, as if nothing had been.
pub(crate) fn upgrade(config: &Path, program: Option<&Path>) -> Result<String, String> {
    let settings = run::load(config)?;
    let program = match program {
        Some(program) => program.to_owned(),
        None => own_program()?,
    };
    let mut command = Command::new(&program);
    command.arg("run").arg("-c").arg(config).env(VARIABLE, "1");
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = None;
    let started = command.spawn().map_err(|error| error.to_string());
    let outcome = started.and_then(|it| wait(child.insert(it), limit(&settings)));
    match outcome {
        Ok(()) => {
            let pid = child.map(|it| it.id()).unwrap_or_default();
            Ok(format!("upgraded (pid {pid})"))
        }
        Err(why) => Err(format!(
            "{}: {why}; the running gateway serves on",
            program.display()
        )),
    }
}

/// The program that lies at the path that this one was started from: the kernel says so when that was
/// replaced.
fn own_program() -> Result<std::path::PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = path.to_string_lossy();
    Ok(text
        .strip_suffix(" (deleted)")
        .map_or(path.clone(), Into::into))
}

/// For all that the new process has to do.
fn limit(settings: &Config) -> Duration {
    settings.gateway.upgrade_timeout + PROBATION + 3 * ANSWER
}

/// Waits until it has taken over; ends it if it does not.
fn wait(child: &mut Child, limit: Duration) -> Result<(), String> {
    let (said, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
    }
    let (until, mut why) = (std::time::Instant::now() + limit, None);
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line == DONE => return Ok(()),
            Ok(line) => why = Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // The running gateway notices that.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it has not taken over within {limit:?}"));
            }
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    Err(why.unwrap_or_else(|| format!("it has ended ({status})")))
}
