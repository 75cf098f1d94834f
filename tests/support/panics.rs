//! The error log of a test that runs the library's workers in its own process: for panics there.

use std::fs::File;
use std::path::PathBuf;

use graygate::config::LogTarget;
use graygate::logs::events;
use graygate::logs::writer::{ERROR_LOG, Log};
use graygate::process;
use tempfile::TempDir;

/// The error log of this process. Alone in it: the hook for panics is everybody's.
pub(crate) struct PanicLog {
    _dir: TempDir,
    path: PathBuf,
    _log: Log,
}

impl PanicLog {
    /// Logs panics from now on as the gateway does, but what fails in the calling test is told as
    /// ever.
    pub(crate) fn install() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        let target = LogTarget::File(path.clone());
        let log = Log::open(ERROR_LOG, &target, |path| File::create(path)).unwrap();
        events::install(log.queue(), log::LevelFilter::Info);
        let (test, ordinary) = (std::thread::current().id(), std::panic::take_hook());
        process::log_panics();
        let logged = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            match std::thread::current().id() == test {
                true => ordinary(panic),
                false => logged(panic),
            }
        }));
        Self {
            _dir: dir,
            path,
            _log: log,
        }
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}
