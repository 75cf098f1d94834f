//! The gateway as a child process.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::access::AccessLine;
use super::client::{Client, Response};
use super::lines::{Found, Lines};
use super::setup::{Peers, Setup, lists_text};
use super::{DEADLINE, poll, wait_for, wait_until};

/// A running gateway, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    setup: Setup,
    listen: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    /// What it writes to stderr: the error log, unless the test's ini file says otherwise.
    pub(crate) stderr: Lines,
    /// What it writes to stdout.
    pub(crate) stdout: Lines,
}

impl Gateway {
    /// Starts one whose lists have this peer in `prod`, and nobody who is gray.
    #[track_caller]
    pub(crate) fn serving(origin: &dyn Display) -> Self {
        Setup::serving(origin).start()
    }

    /// The same with one worker, so that the next request finds a connection to the peer that was kept.
    #[track_caller]
    pub(crate) fn by_one_worker(origin: &dyn Display) -> Self {
        Setup::serving(origin).one_worker().start()
    }

    /// The same with one try for a request, so that what the peer did wrong is answered.
    #[track_caller]
    pub(crate) fn trying_once(origin: &dyn Display) -> Self {
        let setup = Setup::serving(origin).one_worker();
        setup.set("upstream.tries", 1).start()
    }

    /// Waits until `child` is ready.
    #[track_caller]
    pub(super) fn of(mut child: Child, setup: Setup) -> Self {
        let stderr = Lines::of(child.stderr.take().unwrap());
        let stdout = Lines::of(child.stdout.take().unwrap());
        let mut gateway = Self {
            child,
            setup,
            listen: Vec::new(),
            admin: None,
            stderr,
            stdout,
        };
        let ready = gateway.wait_ready();
        let value = |key: &str| {
            let prefix = format!("{key}=");
            let found = ready.split(' ').find_map(|word| word.strip_prefix(&prefix));
            found.map(str::to_owned)
        };
        let listen = value("listen").unwrap();
        gateway.listen = listen.split(',').map(|it| it.parse().unwrap()).collect();
        gateway.admin = value("admin").and_then(|it| it.parse().ok());
        gateway
    }

    /// Waits for the line that says "ready", wherever the error log goes.
    #[track_caller]
    fn wait_ready(&mut self) -> String {
        let error_log = self.setup.setting("log.error");
        let file = error_log
            .filter(|it| *it != "stderr")
            .map(|it| self.path(it));
        let Some(file) = file else {
            return match self.stderr.wait_for(" ready ", self.setup.limit_of_start()) {
                Found::Line(line) => line,
                outcome => panic!("the gateway did not become ready: {outcome:?}"),
            };
        };
        wait_for("the gateway is ready", || {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let mut lines = log.split_inclusive('\n');
            let ready = lines.find(|it| it.contains(" ready ") && it.ends_with('\n'));
            assert!(self.is_running(), "the gateway did not become ready: {log}");
            ready.map(|it| it.trim_end().to_owned())
        })
    }

    /// The first address that it listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listen[0]
    }

    /// All addresses that it listens on.
    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The address of its admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.unwrap()
    }

    /// The path of a file beside its ini file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    /// Connects from 127.0.0.1.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        self.connect_from("127.0.0.1")
    }

    /// Connects from `source`.
    #[track_caller]
    pub(crate) fn connect_from(&self, source: &str) -> Client {
        Client::from(source, self.addr())
    }

    /// Connects from another address each time ([`Client::from_another`]).
    #[track_caller]
    pub(crate) fn connect_from_another(&self) -> Client {
        Client::from_another(self.addr())
    }

    /// `GET path` from `source`, on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, source: &str, path: &str) -> Response {
        let mut client = self.connect_from(source);
        client.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))
    }

    /// Waits until a GET from `source` is answered with 200 and `content`.
    #[track_caller]
    pub(crate) fn wait_served(&self, source: &str, content: &str, deadline: Duration) {
        wait_until(
            &format!("{source} is served by {content}"),
            deadline,
            || {
                let response = self.get(source, "/");
                response.status() == 200 && response.text() == content
            },
        );
    }

    /// Asks for many clients in 10.1.0.0/16, and as many in 10.2.0.0/16, by way of a proxy that it has to
    /// trust, until it is so.
    #[track_caller]
    pub(crate) fn load_both_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut number = 0;
        wait_until(what, DEADLINE, || {
            let mut client = self.connect();
            for _ in 0..20 {
                number += 1;
                for net in [1, 2] {
                    let (high, low) = (number / 250, number % 250 + 1);
                    client.ask(format!(
                        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{high}.{low}\r\n\r\n"
                    ));
                }
            }
            holds(self)
        });
    }

    /// `GET path` at the admin listener: status and body.
    #[track_caller]
    pub(crate) fn admin_get(&self, path: &str) -> (u16, String) {
        // Who waits for something asks often.
        let mut client = Client::from_another(self.admin());
        let response = client.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        (response.status(), response.text())
    }

    /// What `/lists` says.
    #[track_caller]
    pub(crate) fn lists(&self) -> serde_json::Value {
        self.page("/lists")
    }

    /// What `/peers` says.
    #[track_caller]
    pub(crate) fn peers(&self) -> serde_json::Value {
        self.page("/peers")
    }

    #[track_caller]
    fn page(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.admin_get(path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Waits until `cond` holds for what `/lists` says, and returns that.
    #[track_caller]
    pub(crate) fn wait_for_lists(
        &self,
        what: &str,
        cond: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        wait_for(what, || Some(self.lists()).filter(&cond))
    }

    /// The value of a metric: `graygate_requests_total{pool="pre",status="2xx"}`. The labels may
    /// stand in any order; a metric that is not shown is `None`.
    #[track_caller]
    pub(crate) fn shown_metric(&self, name: &str) -> Option<f64> {
        let (status, body) = self.admin_get("/metrics");
        assert_eq!(status, 200, "{body}");
        let name = sorted_labels(name);
        let mut lines = body.lines().filter(|line| !line.starts_with('#'));
        lines.find_map(|line| {
            let (shown, value) = line.rsplit_once(' ')?;
            (sorted_labels(shown) == name).then(|| value.parse().unwrap())
        })
    }

    /// As [`Self::shown_metric`], but a counter that is not shown is 0.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.shown_metric(name).unwrap_or_default()
    }

    /// Waits until the metric `name` is `value`. Counters may lag behind the answer by a moment.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, value: f64) {
        let mut last = None;
        wait_until(&format!("{name} is {value}"), DEADLINE, || {
            last = self.shown_metric(name);
            last.unwrap_or_default() == value
        });
    }

    /// Waits until `/healthz` answers with `status` and with `text` in its reason.
    #[track_caller]
    pub(crate) fn wait_for_health(&self, status: u16, text: &str) {
        wait_until(&format!("health {status}: {text}"), DEADLINE, || {
            let (now, reason) = self.admin_get("/healthz");
            now == status && reason.contains(text)
        });
    }

    /// Waits for a line of the error log that contains `text`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        match self.stderr.wait_for(text, DEADLINE) {
            Found::Line(line) => line,
            outcome => panic!("no {text:?} in the error log: {outcome:?}"),
        }
    }

    /// The access log so far.
    pub(crate) fn access_lines(&self) -> Vec<AccessLine> {
        let text = std::fs::read(self.path("access.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A last line without its end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| {
            AccessLine::parse(line).unwrap_or_else(|| panic!("no access line: {line:?}"))
        });
        lines.collect()
    }

    /// Waits for an access line with these fields (`"pool=pre status=200"`), and returns it.
    #[track_caller]
    pub(crate) fn wait_for_access(&self, pairs: &str) -> AccessLine {
        let mut lines = Vec::new();
        let found = poll(DEADLINE, || {
            lines = self.access_lines();
            lines.iter().position(|line| line.has(pairs))
        });
        let Some(found) = found else {
            let raw: Vec<String> = lines.into_iter().map(|it| it.raw).collect();
            panic!("no access line with {pairs}:\n{}", raw.join("\n"));
        };
        lines.swap_remove(found)
    }

    /// Waits until the access log has `count` lines, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_access_lines(&self, count: usize) -> Vec<AccessLine> {
        wait_for(&format!("{count} access lines"), || {
            Some(self.access_lines()).filter(|lines| lines.len() >= count)
        })
    }

    /// Replaces the lists file as an editor does, by a rename.
    #[track_caller]
    pub(crate) fn write_lists(&self, gray: &[&str], pre: Peers<'_>, prod: Peers<'_>) {
        self.write_lists_text(&lists_text(gray, pre, prod));
    }

    /// Replaces the lists file with this text, by a rename.
    #[track_caller]
    pub(crate) fn write_lists_text(&self, text: &str) {
        let new = self.path("lists.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path("lists")).unwrap();
    }

    /// Changes keys of the ini file; the gateway learns of it by SIGHUP.
    pub(crate) fn edit_ini(&mut self, edit: impl FnOnce(Setup) -> Setup) {
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        self.setup = edit(setup);
        self.setup.write_ini();
    }

    /// The processes that it has started, and which live.
    pub(crate) fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace().map(|it| it.parse().unwrap());
        pids.collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Ends it as its operator does.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.wait_exit().success());
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        wait_for("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// True while it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Those of a supervisor serve on without it.
        let own = self.children();
        let _ = self.child.kill();
        for pid in own {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- stderr of the gateway ---\n{}",
                self.stderr.all().join("\n")
            );
            eprintln!("--- its ini file ---\n{}", self.setup.ini());
        }
    }
}

/// A metric's name with its labels in alphabetical order.
fn sorted_labels(name: &str) -> String {
    let Some((bare, labels)) = name.split_once('{') else {
        return name.to_owned();
    };
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{bare}{{{}}}", labels.join(","))
}
