//! `graygate reload`: makes the running gateway read its ini file anew, and waits for the outcome.
//!
//! The file is checked first. The signal is sent to the gateway that holds the lock on the pid file, and
//! it is asked for the outcome.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::admin::pages::config::ConfigPage;
use crate::cli::admin_client::{AdminClient, is_same_file};
use crate::cli::report::Report;
use crate::config::{Config, REDIS_URL_VARIABLE};
use crate::process;

/// Time for the gateway to read its file.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Between two questions.
const LOOK: Duration = Duration::from_millis(20);

/// Makes the gateway that runs with the file at `path` read it anew. Returns the outcome.
///
/// # Errors
/// One line: it could not be told to, it refused, or the outcome is unknown.
pub(crate) fn reload(path: &Path) -> Result<Report, String> {
    let config = load(path)?;
    let Some(pid_file) = &config.gateway.pid_file else {
        return Err("[gateway] pid_file is empty, so the process cannot be found".to_owned());
    };
    let pid = process::find_gateway(pid_file)?;
    let mut gateway = AskedGateway {
        config: &config,
        pid,
        asker: None,
    };
    let before = gateway.progress();
    if let Ok(before) = &before
        && !is_same_file(&before.file, &config.path)
    {
        let file = &before.file;
        return Err(format!("process {pid} runs with another file, {file}"));
    }
    signal(pid)?;
    if let Err(why) = &before
        && !may_be_asked(&config)
    {
        let line = format!("told to reload (pid {pid}); the outcome is in the error log: {why}");
        let json = json!({ "outcome": line, "in_force": null, "pid": pid.as_raw() });
        return Ok(Report::new(format!("{line}\n"), json));
    }
    let told = |what: String| {
        format!("process {pid} was told to reload; the outcome is in the error log: {what}")
    };
    // One that can be asked only afterwards has been moved by this very reload.
    let done = before.map_or(1, |before| before.next());
    let after = gateway.wait(done);
    outcome(pid, &after.map_err(told)?)
}

/// Reads the file as the running gateway will. Only the gateway knows its environment, which may contain
/// the Redis URL, so here the source of the lists may be missing; if it is wrong, the gateway says so.
fn load(path: &Path) -> Result<Config, String> {
    const ANY: &str = "redis://127.0.0.1";
    let load = |url| Config::load(path, url);
    load(std::env::var(REDIS_URL_VARIABLE).ok())
        .or_else(|error| load(Some(ANY.to_owned())).map_err(|_| error))
        .map_err(|error| error.to_string())
}

fn signal(pid: Pid) -> Result<(), String> {
    kill(pid, Signal::SIGHUP).map_err(|error| match error {
        Errno::EPERM => format!("not permitted to signal process {pid}"),
        error => format!("process {pid}: {error}"),
    })
}

fn outcome(pid: Pid, progress: &ReloadProgress) -> Result<Report, String> {
    if let Some(error) = &progress.error {
        return Err(format!("process {pid} keeps its settings: {error}"));
    }
    let mut line = format!("reloaded (pid {pid})");
    if !progress.ignored.is_empty() {
        let keys = progress.ignored.join(", ");
        line.push_str(&format!("; only a restart changes {keys}"));
    }
    if !progress.masked.is_empty() {
        let keys = progress.masked.join(", ");
        line.push_str(&format!(
            "; {REDIS_URL_VARIABLE} in the gateway's environment takes precedence over {keys}"
        ));
    }
    let json = json!({
        "outcome": line,
        "in_force": true,
        "pid": pid.as_raw(),
        "file": progress.file,
        "ignored": progress.ignored,
        "masked": progress.masked,
    });
    Ok(Report::new(format!("{line}\n"), json))
}

/// What is said where another process answers.
const INSTEAD: &str = " answers instead";

/// What `/config` says about reloads.
struct ReloadProgress {
    file: String,
    /// Reloads that have ended.
    done: u64,
    under_way: bool,
    error: Option<String>,
    ignored: Vec<String>,
    masked: Vec<String>,
}

impl ReloadProgress {
    /// How many reloads will have ended once one has ended that begins after this. One that is under way
    /// may have read the file before it was edited, so it does not count.
    fn next(&self) -> u64 {
        self.done + u64::from(self.under_way) + 1
    }

    /// What the page says, if it is that of process `pid`.
    fn of(page: ConfigPage, pid: Pid) -> Result<Self, String> {
        // What is signalled is its supervisor, if it has one, which passes that on.
        let supervisor = page.supervisor.as_ref().map(|it| it.pid);
        let is_asked = |it: u64| it.cast_signed() == i64::from(pid.as_raw());
        if ![page.pid, supervisor].into_iter().flatten().any(is_asked) {
            let answers = page.pid.map_or("null".to_owned(), |it| it.to_string());
            return Err(format!("process {answers}{INSTEAD}"));
        }
        Ok(Self {
            file: page.file,
            done: page.reloads.ok + page.reloads.failed,
            under_way: page.reloads.under_way,
            error: page.error,
            ignored: page.ignored,
            masked: page.masked,
        })
    }
}

/// Whether the gateway of this file can be asked about itself, once it has taken it on.
fn may_be_asked(config: &Config) -> bool {
    let admin = &config.admin;
    // With port 0, the actual port is unknown.
    admin.socket.is_some() || admin.listen.is_some_and(|it| it.port() != 0)
}

/// The gateway that is asked: where the file says, or else, since a reload may change that, by a Unix socket
/// at which the process listens.
struct AskedGateway<'a> {
    config: &'a Config,
    pid: Pid,
    asker: Option<AdminClient>,
}

impl AskedGateway<'_> {
    fn progress(&mut self) -> Result<ReloadProgress, String> {
        if let Some(asker) = self.asker.take()
            && let Ok(progress) = self.ask(asker)
        {
            return Ok(progress);
        }
        let named = AdminClient::with(&self.config.admin, &self.config.path);
        let why = match named.and_then(|asker| self.ask(asker)) {
            Ok(progress) => return Ok(progress),
            Err(why) => why,
        };
        for asker in AdminClient::all_of(self.pid) {
            if let Ok(progress) = self.ask(asker) {
                return Ok(progress);
            }
        }
        Err(why)
    }

    /// Asks there, and later on first.
    fn ask(&mut self, asker: AdminClient) -> Result<ReloadProgress, String> {
        let progress = ReloadProgress::of(asker.page()?, self.pid)?;
        self.asker = Some(asker);
        Ok(progress)
    }

    /// Waits until this many reloads have ended.
    fn wait(&mut self, done: u64) -> Result<ReloadProgress, String> {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let late = match self.progress() {
                Ok(progress) if progress.done >= done => return Ok(progress),
                Ok(_) => format!("it has not finished within {TIME_LIMIT:?}"),
                Err(why) => why,
            };
            // Where another process answers, this one will not.
            if Instant::now() >= deadline || late.ends_with(INSTEAD) {
                return Err(late);
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::pages::config::ReloadCounts;

    fn page(pid: Option<u64>, under_way: bool) -> ConfigPage {
        let reloads = ReloadCounts {
            ok: 3,
            failed: 2,
            under_way,
        };
        ConfigPage {
            file: "/f".to_owned(),
            pid,
            reloads,
            ..ConfigPage::default()
        }
    }

    fn progress(under_way: bool) -> Result<ReloadProgress, String> {
        ReloadProgress::of(page(Some(7), under_way), Pid::from_raw(7))
    }

    #[test]
    fn a_reload_that_is_under_way_is_not_the_one_that_was_asked_for() {
        assert_eq!(progress(false).unwrap().next(), 6);
        assert_eq!(progress(true).unwrap().next(), 7);
    }

    #[test]
    fn only_the_process_that_was_signalled_is_believed() {
        let of = |pid| ReloadProgress::of(page(pid, false), Pid::from_raw(7)).map(drop);
        let other = Err("process 8 answers instead".to_owned());
        assert_eq!(of(Some(8)), other);
        let none = Err("process null answers instead".to_owned());
        assert_eq!(of(None), none);
    }
}
