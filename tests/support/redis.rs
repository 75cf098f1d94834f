//! Real Redis servers, each on a loopback address of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::ports::free_address;
use super::{DEADLINE, wait_until};

/// A Redis server of a test. It keeps nothing on disk, so that it is empty after a restart.
#[derive(Debug)]
pub(crate) struct Redis {
    program: PathBuf,
    address: SocketAddr,
    password: Option<String>,
    options: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with_password(None)
    }

    /// Starts a server that asks for a password.
    #[track_caller]
    pub(crate) fn start_with_password(password: Option<&str>) -> Self {
        Self::start_with(password, &[])
    }

    /// Starts a server with options of its own: `["--databases", "4"]`.
    #[track_caller]
    pub(crate) fn start_with_options(options: &[&str]) -> Self {
        Self::start_with(None, options)
    }

    /// Starts another program than the system's `redis-server`.
    #[track_caller]
    pub(crate) fn start_program(program: &Path, options: &[&str]) -> Self {
        Self::start_all(program, None, options)
    }

    #[track_caller]
    fn start_with(password: Option<&str>, options: &[&str]) -> Self {
        Self::start_all(Path::new("redis-server"), password, options)
    }

    #[track_caller]
    fn start_all(program: &Path, password: Option<&str>, options: &[&str]) -> Self {
        let mut last = String::new();
        // The free port may be taken by another test before the server has it.
        for _ in 0..5 {
            let mut redis = Self::stopped();
            redis.program = program.to_owned();
            redis.password = password.map(str::to_owned);
            redis.options = options.iter().map(|it| (*it).to_owned()).collect();
            match redis.try_restart() {
                Ok(()) => return redis,
                Err(error) => last = error,
            }
        }
        panic!("no redis-server: {last}");
    }

    /// A server that is yet to be started with [`Self::restart`].
    pub(crate) fn stopped() -> Self {
        // Nobody else takes it while it is down.
        Self::stopped_at(free_address())
    }

    /// As [`Self::stopped`], at this address.
    pub(crate) fn stopped_at(address: SocketAddr) -> Self {
        Self {
            program: "redis-server".into(),
            address,
            password: None,
            options: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
            child: None,
        }
    }

    /// The URL of its database 0, with the password if it has one.
    pub(crate) fn url(&self) -> String {
        self.url_of(0)
    }

    /// The URL of database `db`, with the password if it has one.
    pub(crate) fn url_of(&self, db: u8) -> String {
        let password = self
            .password
            .as_ref()
            .map(|it| format!(":{it}@"))
            .unwrap_or_default();
        format!("redis://{password}{}/{db}", self.address)
    }

    /// Starts it with these options from now on.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|it| (*it).to_owned()).collect();
    }

    /// The path of a file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a signal to it, for instance SIGSTOP.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on the same address, empty.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|error| panic!("{error}"));
    }

    pub(super) fn try_restart(&mut self) -> Result<(), String> {
        let log = self.dir.path().join("log");
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", &self.address.ip().to_string()])
            .args(["--port", &self.address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .arg("--logfile")
            .arg(&log);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.options);
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = quiet.spawn().map_err(|error| {
            let program = self.program.display();
            format!("cannot start {program} ({error}); on Debian: apt-get install redis-server")
        })?;
        let mut ended = false;
        wait_until("redis-server answers", DEADLINE, || {
            ended = child.try_wait().unwrap().is_some();
            ended || self.try_cli(&["PING"]).is_ok()
        });
        if ended {
            return Err(std::fs::read_to_string(log).unwrap_or_default());
        }
        self.child = Some(child);
        Ok(())
    }

    /// Runs a command, as `redis-cli` would.
    #[track_caller]
    pub(crate) fn cli(&self, command: &[&str]) -> redis::Value {
        let outcome = self.try_cli(command);
        outcome.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// As [`Self::cli`], where the server may be away, or end the connection.
    pub(crate) fn try_cli(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = self.try_connect(0)?;
        redis::cmd(command[0])
            .arg(&command[1..])
            .query(&mut connection)
    }

    /// A connection to database `db`, for what needs more than single commands.
    #[track_caller]
    pub(crate) fn connect(&self, db: u8) -> redis::Connection {
        self.try_connect(db).unwrap()
    }

    fn try_connect(&self, db: u8) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url_of(db))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(DEADLINE))?;
        Ok(connection)
    }

    /// Makes the server unable to save, as a full disk does: from then on it refuses writes, and PING, until
    /// it is told to save nothing (`CONFIG SET save ""`).
    #[track_caller]
    pub(crate) fn fail_to_save(&self) {
        // No file takes the place of a folder, not even root's.
        std::fs::create_dir(self.path("dump.rdb")).unwrap();
        self.cli(&["CONFIG", "SET", "save", "3600 1"]);
        self.cli(&["BGSAVE"]);
        wait_until("writes are refused", DEADLINE, || {
            let refused = self.try_cli(&["PING"]);
            refused.is_err_and(|it| it.code() == Some("MISCONF"))
        });
    }

    /// Makes these the peers of each version.
    #[track_caller]
    pub(crate) fn push_peers(&self, pre: &dyn std::fmt::Display, prod: &dyn std::fmt::Display) {
        self.push("pre", &[pre]);
        self.push("prod", &[prod]);
    }

    /// Appends `entries` to the list `key`, in one command.
    #[track_caller]
    pub(crate) fn push(&self, key: &str, entries: &[&dyn std::fmt::Display]) {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let mut command = vec!["RPUSH", key];
        command.extend(entries.iter().map(String::as_str));
        self.cli(&command);
    }

    /// Gives this user the rights that a command in docs/redis.md gives, the first one there (0) or a later.
    #[track_caller]
    pub(crate) fn allow_as_in_the_docs(&self, user: &str, which: usize) {
        // Read when it is needed, so that an edit of the page compiles no test anew.
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md");
        let page = std::fs::read_to_string(page).unwrap();
        let begin = format!("redis-cli ACL SETUSER {user} ");
        let command = page.split(&begin).nth(which + 1);
        let command = command.and_then(|it| it.split_once("\n```")).unwrap().0;
        // As a shell takes them.
        let words = command.split_whitespace().filter(|it| *it != "\\");
        let words = words.map(|it| it.trim_matches('\'').replace(r"\|", "|"));
        let words: Vec<String> = words.collect();
        let words = words.iter().map(String::as_str);
        let all: Vec<&str> = ["ACL", "SETUSER", user].into_iter().chain(words).collect();
        self.cli(&all);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
