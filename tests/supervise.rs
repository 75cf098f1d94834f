//! `graygate run --supervise`: a process that outlives the gateways which it starts.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Client, DEADLINE, Gateway, Origin, Setup, ok, run_to_exit, wait_for, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn setup(origin: &Origin) -> Setup {
    Setup::serving(origin)
        .supervised()
        .set("gateway.pid_file", "pid")
}

/// The only gateway that this supervisor has started, and which lives; the supervisor knows that one serves,
/// or has served.
#[track_caller]
fn child(supervisor: &Gateway) -> i32 {
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(supervisor) == Some(supervisor.pid().cast_signed())
    });
    wait_for("there is one gateway", || match supervisor.children()[..] {
        [pid] => Some(pid),
        _ => None,
    })
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn has_ended(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|it| it.trim_start().starts_with(['Z', 'X']))
}

fn pid_in_file(gateway: &Gateway) -> Option<i32> {
    let text = fs::read_to_string(gateway.path("pid")).ok()?;
    text.trim().parse().ok()
}

#[test]
fn a_gateway_that_was_killed_is_replaced_and_no_connection_is_refused() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway) == Some(gateway.pid().cast_signed())
    });
    let (is_over, asked, lost) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    // Panics when it is refused.
                    let mut client = gateway.connect_from_another();
                    client.send_if_open(GET);
                    match client.try_response_to("GET").ok() {
                        Some(response) => assert_eq!(response.status(), 200),
                        // What was under way goes with its gateway.
                        None => drop(lost.fetch_add(1, Ordering::SeqCst)),
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 1..=3 {
            let before = asked.load(Ordering::SeqCst);
            wait_until("there is load", DEADLINE, || {
                asked.load(Ordering::SeqCst) > before + 8
            });
            let killed = child(&gateway);
            send(killed, Signal::SIGKILL);
            let line = gateway.wait_for_log(&format!("restarts={number} "));
            assert!(
                line.contains(&format!(
                    "gateway-died pid={killed} status=\"signal 9 (SIGKILL)\""
                )),
                "{line}"
            );
            let pause = line.rsplit("pause=").next().unwrap();
            assert_eq!(pause, ["0ns", "100ms", "200ms"][number - 1]);
            wait_until("another one serves", DEADLINE, || {
                gateway.metric("graygate_requests_total{pool=\"prod\",status=\"2xx\"}") > 8.0
            });
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(pid_in_file(&gateway), Some(gateway.pid().cast_signed()));
    let ini = gateway.path("graygate.ini");
    let status = run_to_exit(&["status", "-c", ini.to_str().unwrap()]);
    let said = String::from_utf8(status.stdout).unwrap();
    let expected = format!(
        "supervisor  pid {}, restarts 3, the last time after: signal 9 (SIGKILL)\n",
        gateway.pid()
    );
    assert!(said.contains(&expected), "{said}");
    gateway.end();
}

#[test]
fn a_gateway_that_cannot_start_the_first_time_ends_its_supervisor_as_it_ends_a_run() {
    let origin = Origin::saying(ok("fine"));
    for (key, value) in [
        ("gateway.workers", "none"),
        ("gateway.listen", "192.0.2.1:80"),
        ("admin.socket", "/proc/none/socket"),
    ] {
        let supervised = setup(&origin).set(key, value).start_in_vain();
        let setup = Setup::serving(&origin)
            .set("gateway.pid_file", "pid")
            .set(key, value);
        let own = setup.start_in_vain();
        let said = |output: &std::process::Output| {
            let text = String::from_utf8(output.stderr.clone()).unwrap();
            let line = text
                .lines()
                .find(|it| it.starts_with("graygate: "))
                .unwrap();
            // Their folders differ.
            line.rsplit('/').next().unwrap().to_owned()
        };
        assert_eq!(supervised.status.code(), own.status.code(), "{key}");
        assert_eq!(said(&supervised), said(&own), "{key}");
    }
}

#[test]
fn signals_to_the_supervisor_are_signals_to_the_gateway() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).set("log.access", "access.log").start();
    let pid = gateway.pid().to_string();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway).is_some()
    });
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "9s"));
    let ini = gateway.path("graygate.ini");
    let reloaded = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
    let expected = format!("reloaded (pid {pid})\n");
    assert_eq!(String::from_utf8(reloaded.stdout).unwrap(), expected);
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_for_log("logs-reopened");
    let under_way = origin.accepted();
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("stopped");
    assert!(gateway.wait_exit().success());
    assert_eq!(origin.accepted(), under_way);
    assert!(!gateway.path("pid").exists());
}

#[test]
fn a_drain_waits_for_what_is_under_way_refuses_others_and_hurries_when_told_twice() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
        conn.wait_gone()
    });
    let mut gateway = setup(&origin).set("gateway.drain_timeout", "1h").start();
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("draining connections=1");
    wait_until("connections are refused", DEADLINE, || {
        std::net::TcpStream::connect(gateway.addr()).is_err()
    });
    assert!(gateway.is_running());
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("drain-cut connections=1");
    assert!(gateway.wait_exit().success());
}

#[test]
fn what_a_bad_file_does_to_a_restart_is_said_once_until_the_file_changes() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "soon"));
    let killed = child(&gateway);
    send(killed, Signal::SIGKILL);
    let line = gateway.wait_for_log("gateway-waits error=");
    assert!(line.contains("drain_timeout"), "{line}");
    // Whoever comes meanwhile waits.
    let mut client = gateway.connect();
    client.send(GET);
    wait_until("time passes", DEADLINE * 2, || {
        gateway.stderr.count("gateway-waits") == 1 && {
            thread::sleep(std::time::Duration::from_millis(2200));
            true
        }
    });
    assert_eq!(gateway.stderr.count("gateway-waits"), 1);
    assert!(gateway.children().is_empty());
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "10s"));
    assert_eq!(client.response().status(), 200);
    gateway.end();
}

#[test]
fn a_supervisor_without_a_gateway_ends_at_once() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "soon"));
    send(child(&gateway), Signal::SIGKILL);
    gateway.wait_for_log("gateway-waits error=");
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_gateway_outlives_its_supervisor_and_the_next_one_takes_over_from_it() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let orphan = child(&gateway);
    let mut kept = gateway.connect();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(kept.ask(ask).status(), 200);
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit();
    let line = gateway.wait_for_log("supervisor-died");
    assert!(line.contains(&format!("pid={}", gateway.pid())), "{line}");
    assert_eq!(kept.ask(ask).status(), 200);
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    let ini = gateway.path("graygate.ini");
    let reloaded = run_to_exit(&["reload", "-c", ini.to_str().unwrap()]);
    let expected = format!("reloaded (pid {orphan})\n");
    assert_eq!(String::from_utf8(reloaded.stdout).unwrap(), expected);
    let mut next = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["run", "--supervise", "-c"])
        .arg(&ini)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = next.id().cast_signed();
    wait_until("the old one has gone", DEADLINE, || has_ended(orphan));
    wait_until("the pid file is the new one's", DEADLINE, || {
        pid_in_file(&gateway) == Some(pid)
    });
    assert_eq!(kept.ask(ask).status(), 200);
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    send(pid, Signal::SIGTERM);
    assert!(next.wait().unwrap().success());
}

#[test]
fn a_second_supervisor_with_the_same_file_is_refused() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let ini = gateway.path("graygate.ini");
    let second = run_to_exit(&["run", "--supervise", "-c", ini.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    let expected = format!("it is supervised by process {}", gateway.pid());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    assert_eq!(pid_in_file(&gateway), Some(gateway.pid().cast_signed()));
    gateway.end();
}

fn graygate(arguments: &[&str], gateway: &Gateway) -> std::process::Output {
    let ini = gateway.path("graygate.ini");
    Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(arguments)
        .arg("-c")
        .arg(ini)
        .output()
        .unwrap()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The program that a process runs.
fn program_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn an_upgrade_replaces_the_gateway_and_then_the_supervisor_under_one_process_id() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let pid = gateway.pid().cast_signed();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway) == Some(pid)
    });
    let before = child(&gateway);
    let mut kept = gateway.connect();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(kept.ask(ask).status(), 200);
    let is_over = AtomicBool::new(false);
    let other = gateway.path("graygate-2");
    fs::copy(env!("CARGO_BIN_EXE_graygate"), &other).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let mut client = gateway.connect_from_another();
                    assert_eq!(client.ask(GET).status(), 200);
                }
            });
        }
        let upgraded = graygate(&["upgrade", "--program", other.to_str().unwrap()], &gateway);
        is_over.store(true, Ordering::SeqCst);
        assert!(upgraded.status.success(), "{upgraded:?}");
        wait_until("the old one has gone", DEADLINE, || has_ended(before));
        let after = child(&gateway);
        assert_ne!(after, before);
        assert_eq!(said(&upgraded), format!("upgraded (pid {after})\n"));
        assert_eq!(
            [program_of(pid), program_of(after)],
            [other.clone(), other.clone()]
        );
    });
    assert_eq!(kept.ask(ask).status(), 200);
    assert_eq!(pid_in_file(&gateway), Some(pid));
    // The new one knows all that the old one did: it restarts, reloads, upgrades and ends.
    send(child(&gateway), Signal::SIGKILL);
    gateway.wait_for_log("gateway-died");
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    assert_eq!(program_of(child(&gateway)), other);
    let reloaded = graygate(&["reload"], &gateway);
    assert_eq!(said(&reloaded), format!("reloaded (pid {pid})\n"));
    let before = child(&gateway);
    gateway.signal(Signal::SIGUSR2);
    gateway.wait_for_log("upgraded pid=");
    wait_until("the old one has gone", DEADLINE, || has_ended(before));
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    gateway.end();
}

#[test]
fn where_gateways_keep_dying_an_upgrade_brings_another_program_without_waiting() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    // Until the pause is longer than what follows takes. By other signals in turn, since the same death of a
    // gateway that has not said yet that it serves is told only once.
    for number in 1..=8 {
        assert_eq!(gateway.connect().ask(GET).status(), 200);
        send(
            child(&gateway),
            [Signal::SIGKILL, Signal::SIGALRM][number % 2],
        );
        gateway.wait_for_log(&format!("restarts={number} "));
    }
    let failed = graygate(&["upgrade", "--program", "/bin/false"], &gateway);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(
        said(&failed).ends_with("; no gateway serves\n"),
        "{failed:?}"
    );
    let other = gateway.path("graygate-2");
    fs::copy(env!("CARGO_BIN_EXE_graygate"), &other).unwrap();
    let upgraded = graygate(&["upgrade", "--program", other.to_str().unwrap()], &gateway);
    assert!(upgraded.status.success(), "{upgraded:?}");
    // The socket is the one that the first had.
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    assert_eq!(program_of(child(&gateway)), other);
    assert_eq!(gateway.stderr.count("gateway-died"), 8);
    gateway.end();
}

#[test]
fn where_an_upgrade_fails_gateway_and_supervisor_go_on_as_they_were() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let (pid, own) = (gateway.pid().cast_signed(), child(&gateway));
    let programs = [program_of(pid), program_of(own)];
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = gateway.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // It says that it can, and dies.
    let dies = script("dies", "#!/bin/sh\n[ \"$3\" = --help ] && exit 0; exit 7\n");
    for (program, why) in [
        ("/bin/false", "it cannot go on as a supervisor"),
        ("/no/such/program", "No such file"),
        (&dies, "it has ended: exit code 7"),
    ] {
        let refused = graygate(&["upgrade", "--program", program], &gateway);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = said(&refused);
        assert!(said.contains(why), "{said}");
        assert!(said.contains("the running gateway serves on"), "{said}");
        assert_eq!(gateway.connect().ask(GET).status(), 200);
        assert_eq!([program_of(pid), program_of(child(&gateway))], programs);
    }
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "soon"));
    gateway.signal(Signal::SIGUSR2);
    let line = gateway.wait_for_log("drain_timeout");
    assert!(line.contains("upgrade-failed"), "{line}");
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    assert_eq!(child(&gateway), own);
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "30s"));
    gateway.end();
}

#[test]
fn where_the_supervisor_cannot_become_the_new_program_it_says_so_and_goes_on() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let (pid, own) = (gateway.pid().cast_signed(), child(&gateway));
    let program = program_of(pid);
    // Gone once the new gateway runs.
    let path = gateway.path("vanishes");
    let text = format!(
        "#!/bin/sh\n[ \"$3\" = --help ] && exit 0; rm \"$0\"; exec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_graygate")
    );
    fs::write(&path, text).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let upgraded = graygate(&["upgrade", "--program", path.to_str().unwrap()], &gateway);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert!(
        said(&upgraded).contains("the supervisor goes on as it is"),
        "{upgraded:?}"
    );
    gateway.wait_for_log("supervisor-not-replaced");
    wait_until("the old one has gone", DEADLINE, || has_ended(own));
    assert_eq!(program_of(pid), program);
    send(child(&gateway), Signal::SIGKILL);
    gateway.wait_for_log("gateway-died");
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    gateway.end();
}

#[test]
fn during_a_drain_the_supervisor_has_two_gateways_and_ends_both() {
    let origin = Origin::scripted(|conn| {
        while conn.request()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
        }
        Ok(())
    });
    let mut gateway = setup(&origin)
        .set("gateway.drain_timeout", "1h")
        .set("upstream.stall_timeout", "1h")
        .start();
    let before = child(&gateway);
    let mut busy = gateway.connect();
    busy.send(GET);
    assert_eq!(busy.head().status(), 200);
    let upgraded = graygate(&["upgrade"], &gateway);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(gateway.children().len(), 2);
    let mut other = gateway.connect();
    other.send(GET);
    assert_eq!(other.head().status(), 200);
    gateway.signal(Signal::SIGTERM);
    wait_until("connections are refused", DEADLINE, || {
        std::net::TcpStream::connect(gateway.addr()).is_err()
    });
    assert_eq!(gateway.children().len(), 2);
    assert!(!has_ended(before));
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(has_ended(before));
}

#[test]
fn what_a_gateway_was_told_before_it_died_in_an_upgrade_the_new_one_is_told() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let before = child(&gateway);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| graygate(&["upgrade"], &gateway));
        wait_until("the new one is ready", DEADLINE, || {
            gateway.stderr.count(" ready ") == 2
        });
        send(before, Signal::SIGSTOP);
        gateway.signal(Signal::SIGUSR1);
        let ini = gateway.path("graygate.ini");
        let text = fs::read_to_string(&ini).unwrap();
        fs::write(
            &ini,
            text.replace("[gateway]", "[gateway]\nmax_connections = 99"),
        )
        .unwrap();
        gateway.signal(Signal::SIGHUP);
        wait_until("it has been told", DEADLINE, || {
            let status = fs::read_to_string(format!("/proc/{before}/status")).unwrap();
            let pending = status.lines().find_map(|it| it.strip_prefix("ShdPnd:"));
            let pending = u64::from_str_radix(pending.unwrap().trim(), 16).unwrap();
            [Signal::SIGHUP, Signal::SIGUSR1]
                .iter()
                .all(|it| pending & (1 << (*it as i32 - 1)) != 0)
        });
        send(before, Signal::SIGKILL);
        let upgraded = upgrade.join().unwrap();
        assert!(upgraded.status.success(), "{upgraded:?}");
    });
    gateway.wait_for_log("logs-reopened");
    gateway.wait_for_log("reloaded file=");
    let config = gateway.admin_get("/config").1;
    assert!(config.contains("\"max_connections\": 99"), "{config}");
    gateway.end();
}

#[test]
fn a_supervisor_that_is_told_to_leave_ends_at_once_and_the_next_one_goes_on() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway).is_some()
    });
    let own = child(&gateway);
    let mut kept = gateway.connect();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(kept.ask(ask).status(), 200);
    let left = said(&graygate(&["leave", "--json"], &gateway));
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    let outcome = format!("left (pid {own} serves on)");
    assert_eq!(left, serde_json::json!({ "outcome": outcome, "pid": own }));
    assert!(gateway.wait_exit().success());
    gateway.wait_for_log("supervisor-left");
    assert_eq!(pid_in_file(&gateway), Some(own));
    let again = graygate(&["leave"], &gateway);
    assert!(
        said(&again).contains("no supervisor runs with"),
        "{again:?}"
    );
    let mut next = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["run", "--supervise", "-c"])
        .arg(gateway.path("graygate.ini"))
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = next.id().cast_signed();
    wait_until("the old one has gone", DEADLINE, || has_ended(own));
    wait_until("the pid file is the new one's", DEADLINE, || {
        pid_in_file(&gateway) == Some(pid)
    });
    assert_eq!(kept.ask(ask).status(), 200);
    send(pid, Signal::SIGTERM);
    assert!(next.wait().unwrap().success());
}

/// A service manager, which listens at a socket of its own.
struct Manager {
    path: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

/// What ends it.
const OVER: &str = "over";

impl Manager {
    fn at(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).unwrap();
        let heard = Arc::default();
        let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&heard);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let length = socket.recv(&mut bytes).unwrap();
                let said = String::from_utf8(bytes[..length].to_vec()).unwrap();
                if said == OVER {
                    return;
                }
                kept.lock().unwrap().push(said);
            }
        });
        Self { path, heard }
    }

    /// What it has been told so far.
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        wait_for(text, || {
            self.heard().into_iter().find(|it| it.contains(text))
        })
    }

    /// Waits for something that it has not heard yet.
    #[track_caller]
    fn wait_for_another(&self, text: &str) {
        let before = self.heard().iter().filter(|it| it.contains(text)).count();
        wait_until(text, DEADLINE, || {
            self.heard().iter().filter(|it| it.contains(text)).count() > before
        });
    }

    fn has_heard(&self, text: &str) -> bool {
        self.heard().iter().any(|it| it.contains(text))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let own = UnixDatagram::unbound().unwrap();
        let _ = own.send_to(OVER.as_bytes(), &self.path);
    }
}

fn managed(setup: Setup) -> (Setup, Manager) {
    let path = setup.path("notify");
    let manager = Manager::at(path.clone());
    (setup.environment("NOTIFY_SOCKET", path.display()), manager)
}

#[test]
fn a_service_manager_is_told_that_it_is_ready_once_there_are_lists_and_not_before() {
    for supervised in [true, false] {
        let mut redis = support::Redis::stopped();
        let origin = Origin::saying(ok("fine"));
        let setup = Setup::new()
            .redis(redis.url())
            .set("gateway.pid_file", "pid");
        let setup = if supervised {
            setup.supervised()
        } else {
            setup
        };
        let (setup, manager) = managed(setup);
        let mut gateway = setup.start();
        manager.wait_for("STATUS=waiting for the lists");
        assert!(!manager.has_heard("READY=1"));
        redis.restart();
        redis.push_peers(&origin, &origin);
        manager.wait_for("READY=1\nSTATUS=serving");
        gateway.edit_ini(|it| it.set("gateway.drain_timeout", "9s"));
        gateway.signal(Signal::SIGHUP);
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=");
        let heard = manager.heard();
        let begun = heard
            .iter()
            .position(|it| it.contains("RELOADING=1"))
            .unwrap();
        wait_until("it is said that it has been read", DEADLINE, || {
            manager.heard()[begun..]
                .iter()
                .any(|it| it.contains("READY=1"))
        });
        assert!(!manager.has_heard("STOPPING=1"));
        gateway.signal(Signal::SIGTERM);
        manager.wait_for("STOPPING=1");
        assert!(gateway.wait_exit().success());
    }
}

#[test]
fn a_service_manager_hears_that_it_lives_only_as_long_as_it_does() {
    let origin = Origin::saying(ok("fine"));
    let (setup, manager) = managed(setup(&origin).environment("WATCHDOG_USEC", "100000"));
    let gateway = setup.start();
    for _ in 0..3 {
        manager.wait_for_another("WATCHDOG=1");
    }
    // The supervisor does not speak for a gateway that hangs.
    let stopped = child(&gateway);
    send(stopped, Signal::SIGSTOP);
    wait_until("it is silent", DEADLINE, || {
        let before = manager.heard().len();
        thread::sleep(std::time::Duration::from_millis(300));
        manager.heard().len() == before
    });
    send(stopped, Signal::SIGCONT);
    manager.wait_for_another("WATCHDOG=1");
    // And it speaks for itself while there is none.
    let mut gateway = gateway;
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "soon"));
    send(stopped, Signal::SIGKILL);
    manager.wait_for("STATUS=waiting for a good file");
    for _ in 0..3 {
        manager.wait_for_another("WATCHDOG=1");
    }
    gateway.edit_ini(|it| it.set("gateway.drain_timeout", "9s"));
    manager.wait_for_another("READY=1");
    // Whoever has not heard of it ends it, and then nobody may be left.
    let left = child(&gateway);
    gateway.signal(Signal::SIGABRT);
    assert_eq!(gateway.wait_exit().code(), Some(128 + 9));
    assert!(has_ended(left));
}

#[test]
fn a_service_manager_learns_of_an_upgrade_without_a_supervisor_and_hears_of_the_new_one() {
    let origin = Origin::saying(ok("fine"));
    let setup = Setup::serving(&origin).set("gateway.pid_file", "pid");
    let (setup, manager) = managed(setup.environment("WATCHDOG_USEC", "100000"));
    let gateway = setup.start();
    manager.wait_for("READY=1");
    // The command line knows nothing of the manager.
    let upgraded = graygate(&["upgrade"], &gateway);
    assert!(upgraded.status.success(), "{upgraded:?}");
    let pid = pid_in_file(&gateway).unwrap();
    manager.wait_for(&format!("MAINPID={pid}"));
    assert!(!manager.has_heard("STOPPING=1"));
    let mut gateway = gateway;
    assert!(gateway.wait_exit().success());
    manager.wait_for_another("WATCHDOG=1");
    send(pid, Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    wait_until("it ends", DEADLINE, || has_ended(pid));
}

/// A gateway that becomes the user nobody, whose supervisor stays root; none where the test is not root's.
fn with_rights(origin: &Origin) -> Option<Setup> {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let setup = setup(origin)
        .set("gateway.user", "nobody")
        .set("log.error", "logs/error.log")
        .set("log.access", "logs/access.log");
    let ini = setup.write_ini();
    fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for path in [ini, setup.path("lists")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    Some(setup)
}

fn user_of(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|it| it.strip_prefix("Uid:"))
        .unwrap();
    let user = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(user));
    user.unwrap().unwrap().name
}

fn oom_score_of(pid: i32) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    text.trim().parse().unwrap()
}

/// In a container, root may lack that right.
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|it| it.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & CAP_SYS_RESOURCE != 0
}

#[test]
fn the_supervisor_keeps_the_rights_that_the_gateway_gives_up() {
    let origin = Origin::saying(ok("fine"));
    let Some(setup) = with_rights(&origin) else {
        return;
    };
    let own = oom_score_of(std::process::id().cast_signed());
    let mut gateway = setup.start();
    let pid = gateway.pid().cast_signed();
    let events = || fs::read_to_string(gateway.path("logs/error.log")).unwrap();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway) == Some(pid)
    });
    for round in 0..3 {
        let before = child(&gateway);
        assert_eq!([user_of(pid), user_of(before)], ["root", "nobody"]);
        let supervisors = if may_lower_oom_score() { -900 } else { own };
        assert_eq!(
            [oom_score_of(pid), oom_score_of(before)],
            [supervisors, own]
        );
        match round {
            0 => {
                send(before, Signal::SIGKILL);
                wait_until("its end is in the log", DEADLINE, || {
                    events().contains("gateway-died")
                });
            }
            // By the rights of root, as the first start.
            1 => {
                let upgraded = graygate(&["upgrade"], &gateway);
                assert!(upgraded.status.success(), "{upgraded:?}");
            }
            _ => break,
        }
        wait_until("the old one has gone", DEADLINE, || has_ended(before));
        assert_eq!(gateway.connect().ask(GET).status(), 200);
    }
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(!gateway.path("pid").exists());
}

#[test]
fn a_reload_takes_addresses_for_which_only_the_supervisor_has_the_rights() {
    let origin = Origin::saying(ok("fine"));
    let Some(setup) = with_rights(&origin) else {
        return;
    };
    let ports = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if ports.trim().parse::<u16>().unwrap() <= 90 {
        return;
    }
    // An address of its own, so that nobody else has the port.
    let id = std::process::id();
    let host = format!("127.{}.{}.7", 1 + id % 250, 1 + id / 250 % 250);
    let (clients, metrics) = (format!("{host}:80"), format!("{host}:90"));
    let mut gateway = setup.start();
    let pid = gateway.pid();
    wait_until("the pid file is there", DEADLINE, || {
        pid_in_file(&gateway).is_some()
    });
    gateway.edit_ini(|it| {
        it.set("gateway.listen", format!("127.0.0.1:0, {clients}"))
            .set("admin.metrics", &metrics)
    });
    let reloaded = graygate(&["reload"], &gateway);
    assert_eq!(said(&reloaded), format!("reloaded (pid {pid})\n"));
    let ask =
        |addr: &str, request: &str| Client::connect(addr.parse().unwrap()).ask(request).status();
    assert_eq!(ask(&clients, GET), 200);
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&metrics, health), 200);
    // They are kept as the others are.
    send(child(&gateway), Signal::SIGKILL);
    assert_eq!(ask(&clients, GET), 200);
    assert_eq!(ask(&metrics, health), 200);
    gateway.end();
}

#[test]
fn others_than_root_cannot_ask_a_supervisor_for_anything() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let origin = Origin::saying(ok("fine"));
    let Some(setup) = with_rights(&origin) else {
        return;
    };
    let gateway = setup.start();
    // Where everybody can read it.
    let program = gateway.path("graygate-2");
    fs::copy(env!("CARGO_BIN_EXE_graygate"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let own = child(&gateway);
    for command in ["leave", "upgrade"] {
        let refused = Command::new(&program)
            .args([command, "-c"])
            .arg(gateway.path("graygate.ini"))
            .uid(nobody.uid.as_raw())
            .gid(nobody.gid.as_raw())
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(said(&refused).contains("not permitted: "), "{refused:?}");
        assert_eq!(child(&gateway), own);
        assert_eq!(gateway.connect().ask(GET).status(), 200);
    }
    gateway.end();
}

#[test]
fn a_supervised_gateway_leaves_its_place_only_to_what_its_supervisor_has_started() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let own = child(&gateway);
    let other = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["run", "-c"])
        .arg(gateway.path("graygate.ini"))
        .env("GRAYGATE_UPGRADE", "1")
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let expected = format!("it is supervised by process {}", gateway.pid());
    assert!(said(&other).contains(&expected), "{other:?}");
    assert_eq!(child(&gateway), own);
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    gateway.end();
}

#[test]
fn what_keeps_a_restart_from_serving_is_said_once_and_a_better_file_is_taken_at_once() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    // It can be read, and nobody can listen there.
    gateway.edit_ini(|it| it.set("admin.metrics", "192.0.2.1:9"));
    send(child(&gateway), Signal::SIGKILL);
    let line = gateway.wait_for_log("gateway-died pid=");
    assert!(line.contains("signal 9"), "{line}");
    gateway.wait_for_log("cannot listen on 192.0.2.1:9");
    let said = || {
        let lines = gateway.stderr.all();
        lines
            .iter()
            .filter(|it| it.contains("gateway-died") && it.contains("192.0.2.1"))
            .count()
    };
    wait_until("it is said", DEADLINE, || said() == 1);
    // Several more attempts, with growing pauses.
    wait_until("it is tried again", DEADLINE, || {
        gateway
            .stderr
            .count("graygate: cannot listen on 192.0.2.1:9")
            > 4
    });
    assert_eq!(said(), 1);
    let begun = std::time::Instant::now();
    gateway.edit_ini(|it| it.set("admin.metrics", "off"));
    assert_eq!(gateway.connect().ask(GET).status(), 200);
    assert!(begun.elapsed() < DEADLINE);
    gateway.end();
}
