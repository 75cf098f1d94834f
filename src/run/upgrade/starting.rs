//! Starting the process that is to take over, where no supervisor does so.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{ANSWER, DONE, FAILED, PROBATION, VARIABLE, socket_names_of};
use crate::config::Config;
use crate::process::notices::WATCHED;
use crate::run::supervisor::SUPERVISED;

/// The path that this program was started from, whatever lies there by now. It must be asked for early, since
/// the kernel follows a program that is moved away.
///
/// # Errors
/// The kernel's; in words.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    static OWN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    OWN.get_or_init(find_own_program).clone()
}

fn find_own_program() -> Result<PathBuf, String> {
    // As it was called: it may be a symbolic link, which leads to the next version some day.
    if let Some(path) = called() {
        return Ok(path);
    }
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = path.to_string_lossy();
    Ok(text
        .strip_suffix(" (deleted)")
        .map_or(path.clone(), Into::into))
}

/// The path that this process was called by, if that leads to its program.
fn called() -> Option<PathBuf> {
    let file = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let own = file(Path::new("/proc/self/exe"))?;
    let name = PathBuf::from(std::env::args_os().next()?);
    let is_path = name.parent().is_some_and(|it| it != Path::new(""));
    let folders: Vec<PathBuf> = match is_path {
        true => vec![PathBuf::new()],
        false => std::env::split_paths(&std::env::var_os("PATH")?).collect(),
    };
    let paths = folders.iter().map(|it| it.join(&name));
    let mut paths = paths.filter_map(|it| std::path::absolute(it).ok());
    paths.find(|it| file(it) == Some(own))
}

/// For so long, one that has just begun to serve may not be seen; nor is a table that changes while it is
/// read to be believed at once.
const UNSEEN: Duration = Duration::from_millis(500);
const UNSEEN_LOOK: Duration = Duration::from_millis(20);

/// For all that the new process has to do.
pub(crate) fn limit(settings: &Config) -> Duration {
    settings.gateway.upgrade_timeout + PROBATION + 2 * ANSWER
}

/// Whether anybody can be asked who runs with the file at `config`, as far as can be told. Nobody is asked.
pub(crate) fn has_predecessor(config: &Path) -> bool {
    let names = socket_names_of(config);
    let is_seen = || {
        let table = fs::read_to_string("/proc/net/unix");
        table.map_or(true, |it| {
            let open = it.lines().filter_map(|it| it.split_whitespace().nth(7));
            let mut open = open.filter_map(|it| it.strip_prefix('@'));
            open.any(|it| names.iter().any(|name| name == it))
        })
    };
    let until = Instant::now() + UNSEEN;
    while !is_seen() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(UNSEEN_LOOK);
    }
    true
}

/// Has `program` take over from the gateway that runs with these settings, which are those of the file at
/// `config`. Returns the process id of the new one.
///
/// # Errors
/// Why it does not; the running gateway serves on.
pub(crate) fn start(program: &Path, config: &Path, settings: &Config) -> Result<u32, String> {
    let mut command = Command::new(program);
    command.arg("run").arg("-c").arg(config).env(VARIABLE, "1");
    command.env_remove(SUPERVISED).env_remove(WATCHED);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    wait(&mut child, limit(settings))?;
    Ok(child.id())
}

/// Has the program at this one's path take over from this process, whose settings these are, while this one
/// goes on. What comes of it is in the log.
pub(in crate::run) fn start_beside(settings: &Config) {
    let settings = settings.clone();
    let failed = |why: &str| log::error!("upgrade-failed reason={why:?}");
    let start = move || {
        let program = own_program()?;
        start(&program, &settings.path, &settings).map(drop)
    };
    let thread = thread::Builder::new().name("upgrade-start".to_owned());
    let started = thread.spawn(move || {
        if let Err(why) = start() {
            failed(&why);
        }
    });
    if let Err(error) = started {
        failed(&error.to_string());
    }
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
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line == DONE => return Ok(()),
            // It may still have to answer those who have come to it.
            Ok(line) if line.starts_with(FAILED) => {
                return Err(line[FAILED.len()..].to_owned());
            }
            // Its log may go there.
            Ok(_) => {}
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
    Err(format!("it has ended ({status})"))
}
