//! The ini file of a test, and the start of the gateway with it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::DEADLINE;
use super::gateway::Gateway;

/// Addresses of peers, whatever displays as one.
pub(crate) type Peers<'a> = &'a [&'a dyn Display];

/// Names the section and the key of a setting: `gateway.workers`.
type Name = String;

/// What the gateway is started with. The defaults suit tests: free ports, two workers, logs in
/// the test's folder and on stderr, and upstream deadlines that a busy machine does not reach.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    settings: BTreeMap<Name, String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    is_supervised: bool,
    ready_within: Duration,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let defaults = [
            ("gateway.listen", "127.0.0.1:0"),
            ("gateway.workers", "2"),
            ("gateway.pid_file", ""),
            ("gateway.user", ""),
            ("lists.file", "lists"),
            ("lists.last_good", ""),
            ("upstream.connect_timeout", "5s"),
            ("upstream.send_timeout", "5s"),
            ("upstream.read_timeout", "5s"),
            ("upstream.stall_timeout", "5s"),
            ("log.access", "access.log"),
            ("log.error", "stderr"),
            ("admin.listen", "127.0.0.1:0"),
            ("admin.socket", "admin.sock"),
            // Tests read lists over TCP.
            ("admin.expose", "full"),
        ];
        Self {
            dir: tempfile::tempdir().unwrap(),
            settings: defaults
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            is_supervised: false,
            ready_within: DEADLINE,
        }
    }

    /// Sets `section.key` to `value`.
    pub(crate) fn set(mut self, name: &str, value: impl Display) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// Leaves a key out, so that the gateway's own default is in force.
    pub(crate) fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Writes the lists file.
    pub(crate) fn lists(self, gray: &[&str], pre: Peers<'_>, prod: Peers<'_>) -> Self {
        self.file("lists", &lists_text(gray, pre, prod))
    }

    /// Lists with this peer in `prod`, and nobody who is gray.
    pub(crate) fn serving(peer: &dyn Display) -> Self {
        Self::new().lists(&[], &[], &[peer])
    }

    /// One worker, so that the next request finds a connection to a peer that was kept.
    pub(crate) fn one_worker(self) -> Self {
        self.set("gateway.workers", 1)
    }

    /// Takes the lists from Redis instead of a file.
    pub(crate) fn redis(self, url: impl Display) -> Self {
        self.unset("lists.file").set("redis.url", url)
    }

    /// Writes a file beside the ini file.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    /// Lets every user read what lies beside the ini file.
    pub(crate) fn open_to_all(self) -> Self {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), mode).unwrap();
        self
    }

    /// Sets a variable of the gateway's environment.
    pub(crate) fn environment(mut self, name: &str, value: impl Display) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the gateway by another program, which gets the gateway's command line as further
    /// arguments and must become it by exec: `["sh", "-c", "ulimit -n 80; exec \"$0\" \"$@\""]`.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&it| it.to_owned()).collect();
        self
    }

    /// Starts it by `run --supervise`.
    pub(crate) fn supervised(mut self) -> Self {
        self.is_supervised = true;
        self
    }

    /// How long the start may take, where that is more than usual.
    pub(crate) fn ready_within(mut self, limit: Duration) -> Self {
        self.ready_within = limit;
        self
    }

    pub(super) fn limit_of_start(&self) -> Duration {
        self.ready_within
    }

    /// The value of `section.key`, if it is set.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The path of a file beside the ini file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of the ini file.
    pub(crate) fn ini(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        // The map is sorted, so the keys of a section stand together.
        for (name, value) in &self.settings {
            let (section, key) = name.split_once('.').unwrap();
            if section != last {
                writeln!(text, "[{section}]").unwrap();
                last = section;
            }
            writeln!(text, "{key} = {value}").unwrap();
        }
        text
    }

    /// Writes the ini file, and returns its path.
    pub(crate) fn write_ini(&self) -> PathBuf {
        let path = self.path("graygate.ini");
        std::fs::write(&path, self.ini()).unwrap();
        path
    }

    /// Starts the gateway, without waiting for anything.
    pub(crate) fn spawn(&self) -> Child {
        let ini = self.write_ini();
        let mut command = graygate_under(&self.wrapper);
        command.arg("run").arg("-c").arg(ini);
        if self.is_supervised {
            command.arg("--supervise");
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command.spawn().unwrap()
    }

    /// Starts the gateway, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before that, with all that it said.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let child = self.spawn();
        Gateway::of(child, self)
    }

    /// What `graygate -t` says on standard error; it must find the configuration good.
    #[track_caller]
    pub(crate) fn warnings(&self) -> String {
        let output = run_to_exit(&["-t", "-c", self.write_ini().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts the gateway where it must refuse to start, and waits until it has ended.
    #[track_caller]
    pub(crate) fn start_in_vain(&self) -> Output {
        output_of(self.spawn())
    }
}

/// The text of a lists file.
pub(crate) fn lists_text(gray: &[&str], pre: Peers<'_>, prod: Peers<'_>) -> String {
    let mut text = String::new();
    let gray: Vec<&dyn Display> = gray.iter().map(|it| it as &dyn Display).collect();
    for (name, entries) in [("gray", &gray[..]), ("pre", pre), ("prod", prod)] {
        writeln!(text, "[{name}]").unwrap();
        for entry in entries {
            writeln!(text, "{entry}").unwrap();
        }
    }
    text
}

/// The gateway's program, with its output to be read and nothing of the caller's settings.
fn graygate() -> Command {
    graygate_under(&[])
}

/// As [`graygate`], started by `wrapper` if there is one.
fn graygate_under(wrapper: &[String]) -> Command {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_graygate");
    let mut command = match wrapper {
        [] => Command::new(PROGRAM),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(PROGRAM);
            command
        }
    };
    command
        .env_remove("GRAYGATE_REDIS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the gateway's program with `arguments` to its end.
///
/// # Panics
/// When it does not end.
#[track_caller]
pub(crate) fn run_to_exit(arguments: &[&str]) -> Output {
    output_of(graygate().args(arguments).spawn().unwrap())
}

/// Starts the gateway's program with `arguments` in `dir`, which is also its folder for temporary
/// files; what it says is to be read.
pub(crate) fn spawn(arguments: &[&str], dir: &Path) -> Child {
    let mut command = graygate();
    command.args(arguments).current_dir(dir).env("TMPDIR", dir);
    command.spawn().unwrap()
}

#[track_caller]
fn output_of(child: Child) -> Output {
    let id = Pid::from_raw(child.id().cast_signed());
    // It is read meanwhile: whoever says more than a pipe holds would not end before.
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    if let Ok(output) = is_done.recv_timeout(DEADLINE) {
        return output;
    }
    let _ = kill(id, Signal::SIGKILL);
    let output = is_done.recv().unwrap();
    panic!("it did not end by itself: {output:?}");
}
