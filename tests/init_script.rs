//! The init script with the real gateway, run by each shell that may be a system's `/bin/sh`.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use support::{DEADLINE, DeafPeer, Redis, Setup, free_address, wait_for, wait_until};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/graygate.init");

/// Those of Debian, of Red Hat and of Alpine.
const SHELLS: [Shell; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// More than the script's own limits in these tests.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

const NOBODY: u32 = 65534;

type Shell = &'static [&'static str];

/// A gateway under the script, with a folder of its own.
struct Service {
    shell: Shell,
    setup: Setup,
    script: PathBuf,
    environment: Vec<(String, String)>,
    uid: Option<u32>,
}

/// What a run of the script came to: its exit status, and what it wrote to stdout and stderr.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    said: String,
}

impl Service {
    fn new(shell: Shell) -> Self {
        let setup = Setup::serving(&"127.0.0.1:9");
        let pid_file = setup.path("graygate.pid").display().to_string();
        let setup = setup
            .set("gateway.user", "")
            .set("gateway.pid_file", pid_file)
            .set("log.error", "error.log");
        setup.write_ini();
        let service = Self {
            shell,
            setup,
            script: SCRIPT.into(),
            environment: Vec::new(),
            uid: None,
        };
        let ini = service.path("graygate.ini");
        // There is no such file, so that the system's is not read.
        let defaults = service.path("defaults");
        service
            .with("GRAYGATE_BIN", env!("CARGO_BIN_EXE_graygate"))
            .with("GRAYGATE_CONF", ini.display())
            .with("GRAYGATE_DEFAULTS", defaults.display())
    }

    /// Sets a variable of the script's environment.
    fn with(mut self, name: &str, value: impl Display) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    /// Sets a key of the ini file.
    fn configure(&mut self, name: &str, value: impl Display) {
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        self.setup = setup.set(name, value);
        self.setup.write_ini();
    }

    /// Leaves a key of the ini file out.
    fn unconfigure(&mut self, name: &str) {
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        self.setup = setup.unset(name);
        self.setup.write_ini();
    }

    /// Runs the script to its end, and until nobody holds its output open any longer.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Run {
        let (mut output, near) = std::io::pipe().unwrap();
        let mut command = Command::new(self.shell[0]);
        command
            .args(&self.shell[1..])
            .arg(&self.script)
            .args(arguments)
            .env_remove("GRAYGATE_PID")
            .env_remove("GRAYGATE_REDIS_URL")
            .env_remove("GRAYGATE_START_TIMEOUT")
            .env_remove("GRAYGATE_STOP_TIMEOUT")
            .env_remove("GRAYGATE_RESTART")
            .env_remove("NAME")
            .envs(self.environment.clone())
            .current_dir(self.path(""))
            .stdin(Stdio::null())
            .stdout(near.try_clone().unwrap())
            .stderr(near);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let mut script = Ended(command.spawn().unwrap());
        // It has the near end of the pipe.
        drop(command);
        let (sender, whole) = mpsc::channel();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let read = output.read_to_end(&mut said);
            sender.send(read.map(|_| said))
        });
        let said = whole.recv_timeout(SCRIPT_LIMIT);
        let said =
            said.unwrap_or_else(|_| panic!("{arguments:?} does not end, or left its output open"));
        Run {
            code: script.0.wait().unwrap().code(),
            said: String::from_utf8_lossy(&said.unwrap()).into_owned(),
        }
    }

    /// Runs one command of the script, which must exit with `code`; returns what it said.
    #[track_caller]
    fn expect(&self, command: &str, code: i32) -> String {
        let run = self.run(&[command]);
        assert_eq!(
            run.code,
            Some(code),
            "{command} in {:?}:\n{}",
            self.shell,
            run.said
        );
        run.said
    }

    /// The number in the pid file.
    #[track_caller]
    fn pid(&self) -> Pid {
        let text = std::fs::read_to_string(self.path("graygate.pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap())
    }

    /// The live gateways with this ini file. Those that have ended have no command line.
    fn gateways(&self) -> Vec<Pid> {
        self.processes("run\0-c")
    }

    /// What starts them again.
    fn supervisors(&self) -> Vec<Pid> {
        self.processes("run\0--supervise\0-c")
    }

    fn processes(&self, command: &str) -> Vec<Pid> {
        let tail = format!("\0{command}\0{}\0", self.path("graygate.ini").display());
        let processes = std::fs::read_dir("/proc").unwrap();
        let numbers = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
        let ours = numbers.filter(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.ends_with(tail.as_bytes()))
        });
        ours.map(Pid::from_raw).collect()
    }

    /// Who serves.
    #[track_caller]
    fn only(&self) -> Only {
        let (gateways, supervisors) = (self.gateways(), self.supervisors());
        let ([gateway], [supervisor]) = (&gateways[..], &supervisors[..]) else {
            panic!("{gateways:?} {supervisors:?}");
        };
        assert_eq!(self.pid(), *supervisor);
        Only {
            gateway: *gateway,
            supervisor: *supervisor,
        }
    }

    /// Asserts that these, and no others, are there.
    #[track_caller]
    fn assert_untouched(&self, those: Only) {
        assert_eq!(self.only(), those);
        self.expect("status", 0);
    }

    /// Asserts that nothing is left.
    #[track_caller]
    fn assert_gone(&self) {
        assert_eq!((self.gateways(), self.supervisors()), (vec![], vec![]));
    }

    /// Ends all of it without a word, and returns who was the one that is known.
    #[track_caller]
    fn crash(&self) -> Pid {
        let Only { supervisor, .. } = self.only();
        self.kill();
        wait_until("it is gone", DEADLINE, || self.gateways().is_empty());
        supervisor
    }

    /// Ends all of it without a word.
    fn kill(&self) {
        // One that is about to start may yet appear, so until none is left.
        loop {
            let first = self.supervisors().into_iter().chain(self.gateways()).next();
            let Some(first) = first else {
                return;
            };
            let _ = kill(first, Signal::SIGKILL);
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A gateway and its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Only {
    gateway: Pid,
    supervisor: Pid,
}

/// A child that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `test` in each shell that is installed: at once, since most of it is waiting.
#[track_caller]
fn in_each_shell(test: impl Fn(Service) + Sync) {
    let installed = |shell: &Shell| {
        let mut command = Command::new(shell[0]);
        let quiet = command
            .args(&shell[1..])
            .args(["-c", "exit 0"])
            .stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let shells: Vec<Shell> = SHELLS.into_iter().filter(installed).collect();
    assert!(!shells.is_empty(), "none of {SHELLS:?} is installed");
    let failed: Vec<Shell> = std::thread::scope(|scope| {
        let test = &test;
        let run = |shell| (shell, scope.spawn(move || test(Service::new(shell))));
        let runs: Vec<_> = shells.into_iter().map(run).collect();
        let ended = runs.into_iter().map(|(shell, run)| (shell, run.join()));
        ended
            .filter_map(|(shell, end)| end.is_err().then_some(shell))
            .collect()
    });
    assert!(failed.is_empty(), "in {failed:?}");
}

/// Runs a helper program. What is executed later must be written by a child: while this process
/// has it open for writing, children of other tests would inherit that, and it could not run.
#[track_caller]
fn helper(program: &str, arguments: &[&dyn AsRef<Path>]) {
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|it| it.as_ref()));
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn start_returns_when_ready_and_stop_when_gone() {
    in_each_shell(|service| {
        service.expect("status", 3);
        service.expect("start", 0);
        assert!(service.log().contains(" ready "), "{}", service.log());
        let only = service.only();
        service.assert_untouched(only);
        for pid in [only.gateway, only.supervisor] {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            assert_eq!(name, "graygate\n");
        }

        service.expect("stop", 0);
        service.assert_gone();
        assert!(!service.path("graygate.pid").exists());
        service.expect("status", 3);
        service.expect("stop", 0);
    });
}

#[test]
fn a_second_start_changes_nothing() {
    in_each_shell(|service| {
        service.expect("start", 0);
        let only = service.only();
        service.expect("start", 0);
        service.assert_untouched(only);
    });
}

#[test]
fn of_two_starts_at_once_one_starts() {
    in_each_shell(|service| {
        let outcomes = std::thread::scope(|scope| {
            let starts = [(); 2].map(|()| scope.spawn(|| service.expect("start", 0)));
            starts.map(|start| start.join().unwrap())
        });
        let second = outcomes
            .iter()
            .filter(|said| said.contains("already running"));
        assert_eq!(second.count(), 1, "{outcomes:?}");
        service.assert_untouched(service.only());
    });
}

#[test]
fn a_restart_is_an_upgrade_and_the_process_that_is_known_stays() {
    in_each_shell(|service| {
        let said = service.expect("restart", 0);
        let old = service.only();
        let started = format!("graygate: started (pid {})\n", old.supervisor);
        assert_eq!(said, started);
        for command in ["restart", "try-restart", "condrestart", "upgrade"] {
            let before = service.only();
            let said = service.expect(command, 0);
            assert!(said.starts_with("graygate: upgraded (pid "), "{said}");
            wait_until("the old one has ended", DEADLINE, || {
                !service.gateways().contains(&before.gateway)
            });
            let now = service.only();
            assert_ne!(now.gateway, before.gateway);
            assert_eq!(now.supervisor, old.supervisor);
        }
        service.expect("stop", 0);
        service.assert_gone();
    });
}

#[test]
fn who_still_ends_what_was_under_way_at_a_restart_is_part_of_the_status() {
    in_each_shell(|mut service| {
        service.configure("gateway.head_timeout", "1h");
        service.expect("start", 0);
        let old = service.only();
        let log = service.log();
        let address = log.split_once(" ready listen=").unwrap().1;
        let address = address.split_once(' ').unwrap().0;
        let mut busy = std::net::TcpStream::connect(address).unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        wait_until("it has read some of it", DEADLINE, || {
            service.run(&["status"]).code == Some(0)
        });
        service.expect("restart", 0);
        let said = service.expect("status", 0);
        let draining = format!("; draining the old process {} since ", old.gateway);
        assert!(said.contains(&draining), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        drop(busy);
        wait_until("nobody does any more", DEADLINE, || {
            !service.run(&["status"]).said.contains("draining")
        });
    });
}

#[test]
fn a_restart_only_if_it_runs_starts_nothing() {
    in_each_shell(|service| {
        for command in ["try-restart", "condrestart"] {
            assert_eq!(service.expect(command, 0), "");
            service.assert_gone();
        }
        let said = service.expect("upgrade", 7);
        assert!(said.contains("not running"), "{said}");
        // And one that runs is upgraded.
        service.expect("start", 0);
        let old = service.only();
        let said = service.expect("try-restart", 0);
        assert!(said.starts_with("graygate: upgraded (pid "), "{said}");
        wait_until("the old one has ended", DEADLINE, || {
            !service.gateways().contains(&old.gateway)
        });
        assert_eq!(service.only().supervisor, old.supervisor);
    });
}

#[test]
fn an_upgrade_that_fails_says_why_and_the_old_one_serves_on() {
    in_each_shell(|service| {
        service.expect("start", 0);
        let only = service.only();
        // Takes the file for good, and does not serve.
        let broken = service.path("graygate.broken");
        let text = r#"printf '#!/bin/sh\n[ "$1" != -t ] || exit 0\necho it is broken >&2\nexit 3\n' >"$0"; chmod 755 "$0""#;
        helper("sh", &[&"-c", &text, &broken]);
        let run = service.run(&["upgrade", broken.to_str().unwrap()]);
        assert_eq!(run.code, Some(1), "{}", run.said);
        assert!(
            run.said.contains("the running gateway serves on"),
            "{}",
            run.said
        );
        service.assert_untouched(only);
        let run = service.run(&["upgrade", "/nonexistent/graygate"]);
        assert_eq!(run.code, Some(5), "{}", run.said);
        service.assert_untouched(only);
    });
}

#[test]
fn a_restart_can_be_a_stop_and_a_start() {
    in_each_shell(|service| {
        let service = service.with("GRAYGATE_RESTART", "stop");
        service.expect("start", 0);
        let old = service.only();
        let said = service.expect("restart", 0);
        assert!(said.starts_with("graygate: stopped\n"), "{said}");
        assert_ne!(service.only().supervisor, old.supervisor);
    });
}

#[test]
fn a_restart_takes_another_url_on_without_a_stop() {
    in_each_shell(|mut service| {
        service.expect("start", 0);
        let old = service.only();
        service.unconfigure("lists.file");
        let redis = Redis::start();
        redis.push("prod", &[&"127.0.0.1:9"]);
        service = service.with("GRAYGATE_REDIS_URL", redis.url());
        let said = service.expect("restart", 0);
        assert!(said.starts_with("graygate: upgraded (pid "), "{said}");
        wait_until("the old one has ended", DEADLINE, || {
            !service.gateways().contains(&old.gateway)
        });
        assert_ne!(service.only().supervisor, old.supervisor);
        let log = service.log();
        assert_eq!(log.matches(" INFO stopped").count(), 1, "{log}");
        assert!(log.contains(" INFO handed-over "), "{log}");
    });
}

#[test]
fn what_runs_without_a_supervisor_has_one_after_a_restart_or_a_start() {
    in_each_shell(|service| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
        let quiet = command
            .args(["run", "-c"])
            .arg(service.path("graygate.ini"))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let mut old = Ended(quiet.spawn().unwrap());
        wait_until("it serves", DEADLINE, || {
            service.log().contains(" INFO ready ")
        });
        wait_until("it has said so", DEADLINE, || {
            service.run(&["status"]).said.contains("running (pid ")
        });
        let said = service.expect("restart", 0);
        assert!(said.contains("upgraded (pid "), "{said}");
        assert!(old.0.wait().unwrap().success());
        service.assert_untouched(service.only());

        // After the death of that, a start is enough.
        let Only { supervisor, .. } = service.only();
        kill(supervisor, Signal::SIGKILL).unwrap();
        wait_until("the gateway has the pid file", DEADLINE, || {
            let said = service.run(&["status"]).said;
            said.contains("running (pid ") && !said.contains(&format!("(pid {supervisor})"))
        });
        let said = service.expect("start", 0);
        assert!(said.contains("upgraded (pid "), "{said}");
        wait_until("the old one has ended", DEADLINE, || {
            service.gateways().len() == 1
        });
        service.assert_untouched(service.only());
    });
}

#[test]
fn what_a_gateway_that_cannot_serve_lacks_is_told_at_its_start_and_later() {
    in_each_shell(|mut service| {
        service.unconfigure("lists.file");
        service.configure("redis.url", "redis://127.0.0.1:1");
        service.configure("redis.timeout", "1s");
        let said = service.expect("start", 150);
        let refused = "but no lists have been read: Connection refused";
        let pid = service.only().supervisor;
        let started = format!("graygate: started (pid {pid}), {refused}");
        assert!(said.contains(&started), "{said}");
        let said = service.expect("status", 0);
        let running = format!("graygate: running (pid {pid}), {refused}");
        assert!(said.starts_with(&running), "{said}");
        assert!(said.contains("; lists-unreadable"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        service.expect("stop", 0);
    });
}

/// A program of a version that knows nothing of supervisors.
fn unsupervised(service: &Service) -> PathBuf {
    let program = service.path("graygate-before");
    let text = format!(
        r#"printf '#!/bin/sh\n[ "$*" != "run --help" ] || exit 0\nexec {} "$@"\n' >"$0"; chmod 755 "$0""#,
        env!("CARGO_BIN_EXE_graygate")
    );
    helper("sh", &[&"-c", &text, &program]);
    program
}

/// Sets a variable that is set already.
fn reset(service: &mut Service, name: &str, value: impl Display) {
    service.environment.retain(|(it, _)| it != name);
    service
        .environment
        .push((name.to_owned(), value.to_string()));
}

#[test]
fn a_program_that_knows_no_supervisor_is_started_and_upgraded_without_one_and_found_all_the_time() {
    in_each_shell(|mut service| {
        let before = unsupervised(&service);
        reset(&mut service, "GRAYGATE_BIN", before.display());
        service.expect("start", 0);
        let old = service.pid();
        assert_eq!(
            (service.gateways(), service.supervisors()),
            (vec![old], vec![])
        );
        // By whomever: the number in the pid file is another one then.
        let upgrade = std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
                command
                    .args(["upgrade", "-c"])
                    .arg(service.path("graygate.ini"));
                command.stdin(Stdio::null()).output().unwrap()
            });
            while !upgrade.is_finished() {
                let said = service.expect("status", 0);
                assert!(said.starts_with("graygate: running (pid "), "{said}");
            }
            upgrade.join().unwrap()
        });
        assert!(upgrade.status.success(), "{upgrade:?}");
        wait_until("the old one has ended", DEADLINE, || {
            !service.gateways().contains(&old)
        });
        let said = service.expect("status", 0);
        assert!(
            said.contains(&format!("running (pid {})", service.pid())),
            "{said}"
        );
        let said = service.expect("restart", 0);
        assert!(said.starts_with("graygate: upgraded (pid "), "{said}");
        assert_eq!(service.supervisors(), []);
        // The next version has one.
        reset(&mut service, "GRAYGATE_BIN", env!("CARGO_BIN_EXE_graygate"));
        let said = service.expect("restart", 0);
        assert!(said.starts_with("graygate: upgraded (pid "), "{said}");
        wait_until("the old one has ended", DEADLINE, || {
            service.gateways().len() == 1
        });
        service.assert_untouched(service.only());
    });
}

#[test]
fn a_gateway_that_cannot_hand_over_is_stopped_and_started_by_a_restart_which_says_so() {
    if !geteuid().is_root() {
        eprintln!("not run: only root has such namespaces");
        return;
    }
    in_each_shell(|service| {
        // Whoever looks for the socket by which an upgrade is asked for finds none.
        let mut command = Command::new("unshare");
        let quiet = command
            .args([
                "--net",
                "sh",
                "-c",
                r#"ip link set lo up; exec "$0" run -c "$1""#,
            ])
            .arg(env!("CARGO_BIN_EXE_graygate"))
            .arg(service.path("graygate.ini"))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let mut old = Ended(quiet.spawn().unwrap());
        wait_until("it serves", DEADLINE, || {
            service.run(&["status"]).said.contains("running (pid ")
        });
        let said = service.expect("upgrade", 1);
        assert!(said.contains("cannot hand over"), "{said}");
        let said = service.expect("restart", 0);
        let lines: Vec<&str> = said.lines().collect();
        let expected = [
            "graygate: the running gateway is of a version that cannot hand over: it is stopped and started",
            "graygate: stopped",
        ];
        assert_eq!(&lines[..2], expected, "{said}");
        assert!(lines[2].starts_with("graygate: started (pid "), "{said}");
        assert!(old.0.wait().unwrap().success());
        service.assert_untouched(service.only());
    });
}

#[test]
fn why_redis_refuses_is_told_by_a_first_start() {
    let redis = Redis::start_with_password(Some("secret"));
    let address = redis.address();
    in_each_shell(|mut service| {
        service.unconfigure("lists.file");
        service.configure("redis.timeout", "1s");
        for (url, why) in [
            (format!("redis://{address}"), "NOAUTH"),
            (format!("redis://:wrong@{address}"), "WRONGPASS"),
            (format!("redis://nobody:secret@{address}"), "WRONGPASS"),
            ("redis://localhost.invalid".to_owned(), "failed to lookup"),
        ] {
            service.configure("redis.url", url);
            let said = service.expect("start", 150);
            let started = format!(
                "graygate: started (pid {}), but ",
                service.only().supervisor
            );
            let told = said
                .lines()
                .any(|it| it.starts_with(&started) && it.contains(why));
            assert!(told, "{why}: {said}");
            service.expect("stop", 0);
        }
    });
}

/// Runs commands in a namespace of processes in which their shell is the first one, as systemd is, with
/// `script` for the init script and a systemctl that knows of the job in the file `job`.
#[track_caller]
fn as_the_first_process(service: &Service, commands: &str) -> String {
    let folder = service.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let systemctl = folder.join("systemctl");
    let text = format!(
        r#"printf '#!/bin/sh\n[ "$1 $4" != "list-jobs graygate.service" ] || cat {}\n' >"$0"; chmod 755 "$0""#,
        service.path("job").display()
    );
    helper("sh", &[&"-c", &text, &systemctl]);
    let path = std::env::var("PATH").unwrap();
    let shell = service.shell.join(" ");
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c"])
        .arg(format!("script='{shell} {SCRIPT}'\n{commands}"))
        .envs(service.environment.clone())
        .env("PATH", format!("{}:{path}", folder.display()))
        .current_dir(service.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_restart_by_systemd_leaves_the_gateway_to_the_next_start() {
    if !geteuid().is_root() {
        eprintln!("not run: only root has such namespaces");
        return;
    }
    in_each_shell(|service| {
        let said = as_the_first_process(
            &service,
            r#"
            gateway() { pgrep -f 'graygate [r]un -c' | tail -n 1; }
            : >job
            $script start; echo "start $?"
            old=$(gateway)
            echo '7 graygate.service restart running' >job
            $script stop; echo "stop $?"
            [ "$(gateway)" = "$old" ] && echo "serves on"
            $script status
            $script start; echo "start $?"
            [ "$(gateway)" != "$old" ] && echo "changed"
            while kill -0 "$old" 2>/dev/null && ! grep -q 'State:.Z' "/proc/$old/status"; do sleep 0.1; done
            pgrep -f 'graygate [r]un --supervise' >/dev/null && echo supervised
            echo '8 graygate.service stop running' >job
            $script stop; echo "stop $?"
            $script status
            "#,
        );
        let lines: Vec<&str> = said.lines().collect();
        let expected = [
            "graygate: started (pid ",
            "start 0",
            "graygate: left to the next start",
            "stop 0",
            "serves on",
            "graygate: running (pid ",
            "graygate: upgraded (pid ",
            "start 0",
            "changed",
            "supervised",
            "graygate: stopped",
            "stop 0",
            "graygate: not running",
        ];
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{expected:?} in {said}");
        }
    });
}

#[test]
fn systemd_does_not_take_a_gateway_without_lists_for_one_that_has_failed() {
    if !geteuid().is_root() {
        eprintln!("not run: only root has such namespaces");
        return;
    }
    in_each_shell(|mut service| {
        service.unconfigure("lists.file");
        service.configure("redis.url", "redis://127.0.0.1:1");
        let said = as_the_first_process(
            &service,
            r#"$script start; echo "start $?"; $script stop; echo "stop $?""#,
        );
        assert!(said.contains(", but no lists have been read: "), "{said}");
        assert!(said.contains("\nstart 0\n"), "{said}");
        assert!(said.contains("\nstop 0\n"), "{said}");
    });
}

#[test]
fn instances_have_files_of_their_own_and_all_of_them_can_be_told() {
    in_each_shell(|service| {
        let ini = service.path("graygate.ini");
        let etc = ini.parent().unwrap().display();
        let service = service.with("GRAYGATE_ETC", etc);
        let mut environment = service.environment.clone();
        environment.retain(|(name, _)| name != "GRAYGATE_CONF");
        let (mut first, mut shop) = (service, Service::new(&["true"]));
        first.environment.clone_from(&environment);
        shop.shell = first.shell;
        // With the first one's folder.
        environment.push(("NAME".to_owned(), "shop".to_owned()));
        shop.environment = environment;

        let said = shop.expect("start", 6);
        assert!(said.contains("shop.ini"), "{said}");
        shop.expect("new", 0);
        shop.expect("new", 1);
        let ini = std::fs::read_to_string(first.path("shop.ini")).unwrap();
        for (line, theirs) in [
            ("pid_file = /run/graygate-shop.pid", first.path("shop.pid")),
            (
                "error = /var/log/graygate/shop-error.log",
                first.path("shop-error.log"),
            ),
            (
                "access = /var/log/graygate/shop-access.log",
                first.path("shop-access.log"),
            ),
            ("socket = /run/graygate/shop.sock", first.path("shop.sock")),
            ("last_good = /var/lib/graygate/shop", PathBuf::new()),
        ] {
            assert_eq!(
                ini.lines().filter(|it| *it == line).count(),
                1,
                "{line} in {ini}"
            );
            let (key, _) = line.split_once('=').unwrap();
            let now = std::fs::read_to_string(first.path("shop.ini")).unwrap();
            let now = now.replace(line, &format!("{key}= {}", theirs.display()));
            std::fs::write(first.path("shop.ini"), now).unwrap();
        }
        std::fs::write(first.path("defaults-shop"), "GRAYGATE_STOP_TIMEOUT=7\n").unwrap();
        let start = first.run(&["start", "all"]);
        assert_eq!(start.code, Some(0), "{}", start.said);
        let said = &start.said;
        assert!(said.contains("graygate: started (pid "), "{said}");
        assert!(said.contains("graygate-shop: started (pid "), "{said}");
        assert!(first.path("shop.pid").exists());

        // By its name, as a link in a folder of a run level.
        let link = first.path("S20graygate-shop");
        std::os::unix::fs::symlink(SCRIPT, &link).unwrap();
        first.script = link;
        let said = first.expect("status", 0);
        assert!(said.starts_with("graygate-shop: running (pid "), "{said}");
        first.expect("stop", 0);
        first.script = SCRIPT.into();
        let status = first.run(&["status", "all"]);
        assert_eq!(status.code, Some(3), "{}", status.said);
        assert!(
            status.said.contains("graygate-shop: not running"),
            "{}",
            status.said
        );
        assert!(status.said.contains("graygate: running"), "{}", status.said);
        let stop = first.run(&["stop", "all"]);
        assert_eq!(stop.code, Some(0), "{}", stop.said);
        first.assert_gone();
        // Whose pid file it is, nobody but its own instance can touch.
        first.expect("start", 0);
        let only = first.only();
        let text = std::fs::read_to_string(first.path("shop.ini")).unwrap();
        let shared = first.path("graygate.pid").display().to_string();
        let text = text.replace(&first.path("shop.pid").display().to_string(), &shared);
        std::fs::write(first.path("shop.ini"), text).unwrap();
        let whose = format!(
            "is that of the gateway with {}",
            first.path("graygate.ini").display()
        );
        for (command, code) in [
            ("start", 6),
            ("stop", 6),
            ("restart", 6),
            ("reload", 6),
            ("status", 3),
        ] {
            let said = shop.expect(command, code);
            assert!(said.contains(&whose), "{command}: {said}");
        }
        first.assert_untouched(only);
        first.expect("stop", 0);
        for name in ["a/b", "-x", "a b"] {
            let bad = shop.environment.len() - 1;
            shop.environment[bad].1 = name.to_owned();
            shop.expect("status", 2);
        }
    });
}

#[test]
fn a_bad_configuration_stops_nothing_that_runs() {
    in_each_shell(|mut service| {
        service.expect("configtest", 0);
        service.expect("start", 0);
        let pid = service.only();
        service.configure("gateway.nonsense", 1);

        let refuse = |service: &Service, named: &str| {
            for command in ["restart", "reload", "force-reload"] {
                let said = service.expect(command, 6);
                assert!(said.contains(named), "{command}: {said}");
                service.assert_untouched(pid);
            }
            let said = service.expect("configtest", 1);
            assert!(said.contains(named), "{said}");
        };
        refuse(&service, "nonsense");
        // What is good in the file itself, and would keep it from starting.
        service.unconfigure("gateway.nonsense");
        service.configure("log.access", "missing/folder/access.log");
        refuse(&service, "missing");
        service.expect("start", 0);
        service.assert_untouched(pid);
        assert!(!service.log().contains("reload"), "{}", service.log());
    });
}

#[test]
fn a_bad_configuration_is_not_started() {
    in_each_shell(|mut service| {
        service.configure("gateway.nonsense", 1);
        for command in ["start", "restart"] {
            let said = service.expect(command, 6);
            assert!(said.contains("nonsense"), "{command}: {said}");
            service.assert_gone();
        }
        service.expect("status", 3);
    });
}

#[test]
fn a_failed_start_says_why() {
    in_each_shell(|mut service| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        service.configure("gateway.listen", address);

        let said = service.expect("start", 1);
        assert!(said.contains(&address.to_string()), "{said}");
        service.assert_gone();
        service.expect("status", 3);

        drop(taken);
        service.expect("start", 0);
    });
}

#[test]
fn a_gateway_that_does_not_become_ready_is_ended() {
    in_each_shell(|service| {
        // A pid file elsewhere than the script looks for it.
        let elsewhere = service.path("elsewhere.pid");
        let service = service
            .with("GRAYGATE_PID", elsewhere.display())
            .with("GRAYGATE_START_TIMEOUT", 1);
        let said = service.expect("start", 1);
        assert!(said.contains("not ready after 1 s"), "{said}");
        service.assert_gone();
    });
}

#[test]
fn a_reload_reaches_the_gateway() {
    in_each_shell(|mut service| {
        // Nor has it a socket.
        service.configure("admin.socket", "off");
        for command in ["reload", "force-reload"] {
            service.expect(command, 7);
        }
        service.expect("start", 0);
        let pid = service.only();
        for (count, command) in [(1, "reload"), (2, "force-reload")] {
            // Its admin listener has no port that the ini file names.
            let said = service.expect(command, 0);
            assert!(said.contains("error log"), "{said}");
            wait_until("the log says so", DEADLINE, || {
                service.log().matches(" reloaded ").count() == count
            });
        }
        service.assert_untouched(pid);
    });
}

#[test]
fn a_reload_returns_when_it_is_done_and_fails_when_it_is_refused() {
    in_each_shell(|mut service| {
        service.configure("admin.listen", free_address());
        service.expect("start", 0);
        let pid = service.only();
        service.configure("gateway.workers", 3);
        let said = service.expect("reload", 0);
        let gateway = service.pid();
        let expected =
            format!("graygate: reloaded (pid {gateway}); only a restart changes gateway.workers\n");
        assert_eq!(said, expected);
        assert!(service.log().contains(" reloaded "), "{}", service.log());

        // Good here, but the gateway's environment is another one.
        service.configure("lists.file", "");
        let service = service.with("GRAYGATE_REDIS_URL", "redis://127.0.0.1:1");
        service.expect("configtest", 0);
        let said = service.expect("reload", 1);
        assert!(said.contains("no source for the lists"), "{said}");
        service.assert_untouched(pid);
    });
}

#[test]
fn a_warning_is_told_and_stops_nothing() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can become somebody else");
        return;
    }
    in_each_shell(|mut service| {
        service.configure("admin.listen", free_address());
        service.configure("gateway.user", "nobody");
        let mode = |name: &str, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(service.path(name), mode).unwrap();
        };
        mode("", 0o755);
        mode("graygate.ini", 0o600);
        for command in ["configtest", "start"] {
            let said = service.expect(command, 0);
            assert!(said.contains("every reload will fail"), "{said}");
        }
        let said = service.expect("reload", 1);
        assert!(said.contains("cannot be read: Permission denied"), "{said}");
        mode("graygate.ini", 0o644);
        let said = service.expect("reload", 0);
        assert_eq!(
            said,
            format!("graygate: reloaded (pid {})\n", service.pid())
        );
        service.expect("stop", 0);
    });
}

#[test]
fn a_pid_file_left_by_a_crash_is_tolerated() {
    in_each_shell(|service| {
        service.expect("start", 0);
        let dead = service.crash();
        assert_eq!(service.pid(), dead);

        service.expect("status", 1);
        service.expect("reload", 7);
        service.expect("start", 0);
        assert_ne!(service.pid(), dead);

        service.crash();
        service.expect("stop", 0);
        service.expect("status", 3);
    });
}

#[test]
fn a_pid_file_with_the_pid_of_another_program_harms_nobody() {
    in_each_shell(|service| {
        let start = |program: &str, argument: &str| {
            let mut command = Command::new(program);
            let quiet = command
                .arg(argument)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            Ended(quiet.spawn().unwrap())
        };
        // It reads a pipe that we hold, so it stays for as long as nobody signals it.
        let mut other = start("cat", "-");
        let other_pid = other.0.id();
        for text in [
            format!("{other_pid}\n"),
            "graygate\n".into(),
            String::new(),
            "-1\n".into(),
        ] {
            std::fs::write(service.path("graygate.pid"), &text).unwrap();
            service.expect("status", 1);
            service.expect("reload", 7);
            service.expect("stop", 0);
            service.expect("status", 3);

            std::fs::write(service.path("graygate.pid"), &text).unwrap();
            service.expect("start", 0);
            assert_ne!(service.pid().as_raw(), other_pid.cast_signed());
            service.expect("stop", 0);
        }
        assert_eq!(other.0.try_wait().unwrap(), None);
    });
}

#[test]
fn a_gateway_whose_pid_file_was_removed_is_found_by_its_lock() {
    in_each_shell(|service| {
        service.expect("start", 0);
        let pid = service.pid();
        for is_replaced in [false, true] {
            std::fs::remove_file(service.path("graygate.pid")).unwrap();
            if is_replaced {
                std::fs::write(service.path("graygate.pid"), "1\n").unwrap();
            }
            let said = service.expect("status", 0);
            assert!(said.contains(&format!("running (pid {pid})")), "{said}");
            assert_eq!(
                said.contains("somebody has removed"),
                !is_replaced,
                "{said}"
            );
            let said = service.expect("start", 0);
            assert_eq!(said, format!("graygate: already running (pid {pid})\n"));
            let said = service.expect("reload", 0);
            assert!(said.contains(&format!("reloaded (pid {pid})")), "{said}");
            assert_eq!(service.supervisors(), [pid]);
            std::fs::write(service.path("graygate.pid"), "").unwrap();
        }
        let said = service.expect("stop", 0);
        assert_eq!(said, "graygate: stopped\n");
        service.assert_gone();
        service.expect("status", 3);
    });
}

#[test]
fn a_gateway_whose_pid_file_was_moved_and_linked_to_is_found_by_its_lock() {
    in_each_shell(|service| {
        service.expect("start", 0);
        let (pid_file, elsewhere) = (service.path("graygate.pid"), service.path("moved"));
        std::fs::rename(&pid_file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &pid_file).unwrap();
        service.expect("status", 0);
        service.expect("reload", 0);
        service.expect("stop", 0);
        service.assert_gone();
    });
}

/// A file system of its own at a folder, until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).unwrap();
        helper("mount", &[&"-t", &"tmpfs", &"none", &folder]);
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_gateway_whose_pid_file_has_the_same_inode_number_elsewhere_is_another_one() {
    if !geteuid().is_root() {
        return;
    }
    in_each_shell(|mut one| {
        let mut other = Service::new(one.shell);
        let mut numbers = Vec::new();
        let mut mounted = Vec::new();
        for service in [&mut one, &mut other] {
            let folder = Mounted::at(service.path("run"));
            let pid_file = folder.0.join("graygate.pid");
            service.configure("gateway.pid_file", pid_file.display());
            // Also what the script keeps beside it is made in the same order.
            service.expect("start", 0);
            numbers.push(std::fs::metadata(&pid_file).unwrap().ino());
            mounted.push(folder);
        }
        assert_eq!(numbers[0], numbers[1]);
        one.kill();
        wait_until("it is gone", DEADLINE, || one.gateways().is_empty());
        one.expect("status", 1);
        one.expect("reload", 7);
        one.expect("stop", 0);
        assert_eq!(other.gateways().len(), 1);
        other.expect("status", 0);
        other.expect("stop", 0);
    });
}

#[test]
fn what_is_written_into_the_pid_file_of_a_gateway_that_runs_is_not_believed() {
    in_each_shell(|service| {
        let mut command = Command::new("cat");
        let quiet = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut other = Ended(quiet.spawn().unwrap());
        service.expect("start", 0);
        let pid = service.pid();
        std::fs::write(service.path("graygate.pid"), format!("{}\n", other.0.id())).unwrap();
        let said = service.expect("status", 0);
        assert!(said.contains(&format!("running (pid {pid})")), "{said}");
        service.expect("reload", 0);
        service.expect("reopen", 0);
        wait_until("its logs are open anew", DEADLINE, || {
            service.log().contains(" INFO logs-reopened\n")
        });
        service.expect("stop", 0);
        service.assert_gone();
        assert_eq!(other.0.try_wait().unwrap(), None);
        service.expect("reopen", 7);
    });
}

#[test]
fn a_gateway_that_is_about_to_start_is_seen_and_can_be_stopped() {
    in_each_shell(|mut service| {
        let redis = DeafPeer::new();
        service.unconfigure("lists.file");
        service.configure("redis.url", format!("redis://{redis}"));
        // For so long it waits for its lists.
        service.configure("redis.timeout", "1m");
        service = service.with("GRAYGATE_STOP_TIMEOUT", 1);
        let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
        let quiet = command
            .args(["run", "-c"])
            .arg(service.path("graygate.ini"))
            .stderr(Stdio::null());
        let mut gateway = Ended(quiet.spawn().unwrap());
        let pid = gateway.0.id();
        wait_until("it holds its pid file", DEADLINE, || {
            service
                .run(&["status"])
                .said
                .contains(&format!("starting (pid {pid})"))
        });
        let said = service.expect("start", 0);
        assert_eq!(said, format!("graygate: already starting (pid {pid})\n"));
        service.expect("reload", 7);
        service.expect("stop", 0);
        assert!(!gateway.0.wait().unwrap().success());
        service.expect("status", 3);
    });
}

#[test]
fn a_gateway_that_does_not_end_is_killed() {
    in_each_shell(|service| {
        let service = service.with("GRAYGATE_STOP_TIMEOUT", 1);
        service.expect("start", 0);
        // A stopped process does not get SIGTERM.
        kill(service.pid(), Signal::SIGSTOP).unwrap();
        let said = service.expect("stop", 0);
        assert!(said.contains("killing"), "{said}");
        service.assert_gone();
        service.expect("status", 3);
    });
}

#[test]
fn a_gateway_whose_program_was_replaced_is_recognized() {
    in_each_shell(|service| {
        let bin = service.path("graygate");
        let fresh = service.path("fresh");
        helper("cp", &[&env!("CARGO_BIN_EXE_graygate"), &bin]);
        helper("cp", &[&bin, &fresh]);
        let service = service.with("GRAYGATE_BIN", bin.display());
        service.expect("start", 0);
        let old = service.only();

        // The way of the install script: the old program is unlinked.
        helper("mv", &[&fresh, &bin]);
        service.expect("start", 0);
        service.assert_untouched(old);
        service.expect("restart", 0);
        wait_until("the old one has ended", DEADLINE, || {
            !service.gateways().contains(&old.gateway)
        });
        service.assert_untouched(service.only());

        // Kept under another name.
        helper("mv", &[&bin, &service.path("graygate.old")]);
        service.expect("status", 0);
        service.expect("restart", 5);
        service.assert_untouched(service.only());
        service.expect("stop", 0);
        service.assert_gone();
    });
}

#[test]
fn an_unprivileged_user_may_look_but_not_touch() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can become somebody else");
        return;
    }
    in_each_shell(|mut service| {
        let readable = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(service.path(""), readable(0o755)).unwrap();
        // The repository may lie where nobody else may look.
        let (script, bin) = (service.path("graygate.init"), service.path("graygate"));
        std::fs::copy(SCRIPT, &script).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_graygate"), &bin).unwrap();
        service.script = script;
        service = service.with("GRAYGATE_BIN", bin.display());
        service.expect("start", 0);
        let pid = service.only();

        service.uid = Some(NOBODY);
        service.expect("status", 0);
        service.expect("stop", 4);
        service.expect("start", 4);
        service.expect("reload", 4);
        std::fs::set_permissions(service.path(""), readable(0o700)).unwrap();
        service.uid = None;
        service.assert_untouched(pid);
    });
}

#[test]
fn a_missing_program_is_said() {
    in_each_shell(|service| {
        let service = service.with("GRAYGATE_BIN", "/nonexistent/graygate");
        for command in ["start", "restart", "reload", "configtest"] {
            service.expect(command, 5);
        }
        // What needs no program.
        service.expect("stop", 0);
        service.expect("status", 3);
    });
}

#[test]
fn an_unknown_command_is_refused() {
    in_each_shell(|service| {
        for arguments in [&["begin"][..], &[], &["start", "now"]] {
            let run = service.run(arguments);
            assert_eq!(run.code, Some(2), "{}", run.said);
            assert!(run.said.contains("usage"), "{}", run.said);
        }
        service.assert_gone();
    });
}

#[test]
fn settings_come_from_the_defaults_file_and_the_environment_wins() {
    in_each_shell(|service| {
        let bin = service.path("tell");
        let tell =
            r#"printf '#!/bin/sh\necho "$GRAYGATE_REDIS_URL and $*"\n' >"$0"; chmod 755 "$0""#;
        helper("sh", &[&"-c", &tell, &bin]);
        let defaults = format!(
            "GRAYGATE_BIN='{}'\nGRAYGATE_CONF=/nonexistent\nGRAYGATE_REDIS_URL=redis://there\n",
            bin.display()
        );
        std::fs::write(service.path("defaults"), defaults).unwrap();

        let mut service = service;
        service
            .environment
            .retain(|(name, _)| name != "GRAYGATE_BIN");
        let said = service.expect("configtest", 0);
        let ini = service.path("graygate.ini");
        assert_eq!(said, format!("redis://there and -t -c {}\n", ini.display()));
    });
}

#[test]
fn the_pid_file_is_found_in_the_ini_file() {
    in_each_shell(|service| {
        let moved = service.path("moved.pid");
        let text = service.setup.ini();
        let text: Vec<&str> = text
            .lines()
            .filter(|it| !it.starts_with("pid_file"))
            .collect();
        let text = text.join("\n");
        let ours = format!("[gateway]\npid_file={}   \n", moved.display());
        let text = format!("# pid_file = no\n{}\n", text.replace("[gateway]\n", &ours));
        std::fs::write(service.path("graygate.ini"), text).unwrap();

        service.expect("start", 0);
        wait_for("the pid file", || std::fs::read(&moved).ok());
        service.expect("status", 0);
        service.expect("stop", 0);
        assert!(!moved.exists());
    });
}
