//! `graygate run --supervise`: a process that outlives the gateways which it starts.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// The only gateway that this supervisor has started, and which lives.
#[track_caller]
fn child(supervisor: &Gateway) -> i32 {
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
                    let mut client = Client::connect(gateway.addr());
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
fn program_of(pid: i32) -> std::path::PathBuf {
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
                    assert_eq!(gateway.connect().ask(GET).status(), 200);
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
    let left = graygate(&["leave"], &gateway);
    assert_eq!(said(&left), format!("left (pid {own} serves on)\n"));
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
