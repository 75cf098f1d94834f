//! An upgrade puts another process in the place of the gateway, and no connection is refused.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{DEADLINE, Gateway, Origin, Setup, ok, pid_in_file, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// `graygate upgrade` for this gateway.
fn upgrade(gateway: &Gateway, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_graygate"))
        .arg("upgrade")
        .args(more)
        .arg("-c")
        .arg(gateway.path("graygate.ini"))
        .output()
        .unwrap()
}

/// Also when nobody has asked how it has ended.
fn has_ended(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|it| it.trim_start().starts_with(['Z', 'X']))
}

/// Whoever is the gateway at last ends with the test.
struct Last<'a>(&'a Gateway);

impl Last<'_> {
    fn pid(&self) -> i32 {
        fs::read_to_string(self.0.path("pid"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        if let Ok(text) = fs::read_to_string(self.0.path("pid")) {
            let pid = text.trim().parse().unwrap();
            // The first one ends by itself.
            if pid != self.0.pid().cast_signed() {
                kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
                wait_until("it ends", DEADLINE, || has_ended(pid));
            }
        }
    }
}

fn setup(origin: &Origin) -> Setup {
    Setup::serving(origin)
        .set("gateway.workers", 2)
        .set("gateway.pid_file", "pid")
}

#[test]
fn upgrades_in_a_row_refuse_no_connection() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let last = Last(&gateway);
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let mut client = gateway.connect_from_another();
                    assert_eq!(client.ask(GET).status(), 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let said: Vec<_> = (0..2)
            .map(|_| (upgrade(&gateway, &[]), last.pid()))
            .collect();
        is_over.store(true, Ordering::SeqCst);
        for (output, pid) in &said {
            assert!(output.status.success(), "{output:?}");
            let expected = format!("upgraded (pid {pid})\n");
            assert_eq!(output.stdout, expected.into_bytes(), "{output:?}");
        }
        assert_ne!(said[0].1, said[1].1);
    });
    assert!(asked.load(Ordering::SeqCst) > 0);
}

#[test]
fn where_the_new_one_fails_the_old_one_serves_on() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let refused = |gateway: &mut Gateway, more: &[&str], why: &str| {
        let output = upgrade(gateway, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
        assert!(said.contains("the running gateway serves on"), "{said}");
        assert!(gateway.is_running());
        assert_eq!(gateway.connect().ask(GET).status(), 200);
        let own = fs::read_to_string(gateway.path("pid")).unwrap();
        assert_eq!(own.trim(), gateway.pid().to_string());
    };
    refused(&mut gateway, &["--program", "/bin/false"], "it has ended");
    refused(
        &mut gateway,
        &["--program", "/no/such/program"],
        "No such file",
    );
    // It says that it is ready, and dies.
    refused(&mut gateway, &["--program", "/bin/false"], "it has ended");
}

#[test]
fn a_signal_is_an_upgrade_to_the_program_that_lies_at_the_path_by_now() {
    let origin = Origin::saying(ok("fine"));
    let setup = setup(&origin);
    let path = setup.path("graygate-own");
    let program = path.to_str().unwrap().to_owned();
    fs::copy(env!("CARGO_BIN_EXE_graygate"), &path).unwrap();
    let replace = |by: &dyn Fn(&std::path::Path)| {
        let new = path.with_extension("new");
        by(&new);
        fs::rename(new, &path).unwrap();
    };
    let gateway = setup
        .under(&["sh", "-c", "shift; exec \"$0\" \"$@\"", &program])
        .start();
    let last = Last(&gateway);
    let before = gateway.pid().cast_signed();
    replace(&|new| {
        fs::write(new, "#!/bin/sh\nexit 3\n").unwrap();
        fs::set_permissions(new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
    gateway.signal(Signal::SIGUSR2);
    let line = gateway.wait_for_log("upgrade-failed");
    assert!(line.contains("exit status: 3"), "{line}");
    assert!(!has_ended(before));
    replace(&|new| {
        fs::copy(env!("CARGO_BIN_EXE_graygate"), new).unwrap();
    });
    gateway.signal(Signal::SIGUSR2);
    wait_until("it has ended", DEADLINE, || has_ended(before));
    assert_ne!(last.pid(), before);
    assert_eq!(gateway.connect().ask(GET).status(), 200);
}

#[test]
fn a_signal_is_not_an_upgrade_to_a_program_that_was_moved_away_or_that_a_link_has_left() {
    let origin = Origin::saying(ok("fine"));
    let setup = setup(&origin);
    let (first, second, kept) = (setup.path("v1"), setup.path("v2"), setup.path("kept"));
    let link = setup.path("current");
    for path in [&first, &second] {
        fs::copy(env!("CARGO_BIN_EXE_graygate"), path).unwrap();
    }
    symlink(&first, &link).unwrap();
    let gateway = setup
        .under(&[
            "sh",
            "-c",
            "shift; exec \"$0\" \"$@\"",
            link.to_str().unwrap(),
        ])
        .start();
    let _last = Last(&gateway);
    let upgraded_to = |program: &Path| {
        let before = pid_in_file(&gateway);
        kill(Pid::from_raw(before), Signal::SIGUSR2).unwrap();
        wait_until("it has ended", DEADLINE, || has_ended(before));
        let runs = fs::read_link(format!("/proc/{}/exe", pid_in_file(&gateway))).unwrap();
        assert_eq!(runs, program);
    };
    fs::remove_file(&link).unwrap();
    symlink(&second, &link).unwrap();
    upgraded_to(&second);
    // As one keeps a program to roll back to.
    fs::rename(&second, &kept).unwrap();
    fs::copy(&first, &second).unwrap();
    upgraded_to(&second);
}

#[test]
fn an_ini_file_that_is_a_link_may_lead_to_another_file_at_an_upgrade() {
    let origin = Origin::saying(ok("fine"));
    for supervised in [false, true] {
        let setup = setup(&origin);
        let (ini, first) = (setup.path("graygate.ini"), setup.path("first.ini"));
        let second = setup.path("second.ini");
        let setup = match supervised {
            true => setup.supervised(),
            false => setup,
        };
        // Before it starts, since it is found by the path that it was started with.
        let link = format!(
            "mv {ini} {first}; ln -s first.ini {ini}; shift; exec {program} \"$@\"",
            ini = ini.display(),
            first = first.display(),
            program = env!("CARGO_BIN_EXE_graygate"),
        );
        let mut gateway = setup.under(&["sh", "-c", &link, "sh"]).start();
        wait_until("it can be asked", DEADLINE, || {
            fs::read_to_string(gateway.path("pid")).is_ok_and(|it| !it.is_empty())
        });
        let last = Last(&gateway);
        let by_target = |path: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
            command.arg("upgrade").arg("-c").arg(path).output().unwrap()
        };
        let text = fs::read_to_string(&first).unwrap();
        let text = text.replace("[gateway]", "[gateway]\nmax_connections = 99");
        fs::write(&second, text).unwrap();
        fs::remove_file(&ini).unwrap();
        symlink("second.ini", &ini).unwrap();
        let upgraded = upgrade(&gateway, &[]);
        assert!(upgraded.status.success(), "{upgraded:?}");
        let config = gateway.admin_get("/config").1;
        assert!(config.contains("\"max_connections\": 99"), "{config}");
        if !supervised {
            let upgraded = by_target(&second);
            assert!(upgraded.status.success(), "{upgraded:?}");
        }
        assert_eq!(gateway.connect().ask(GET).status(), 200);
        drop(last);
        if supervised {
            gateway.signal(Signal::SIGTERM);
            gateway.wait_exit();
        }
    }
}

const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn idle_connections_go_on_in_the_new_process() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let _last = Last(&gateway);
    let mut clients: Vec<_> = (0..100).map(|_| gateway.connect()).collect();
    // Half of them have asked before.
    for client in &mut clients[..50] {
        assert_eq!(client.ask(KEPT).status(), 200);
    }
    wait_until("they are parked", DEADLINE, || {
        let of = |worker| format!("graygate_connections_parked{{worker=\"{worker}\"}}");
        gateway.metric(&of(0)) + gateway.metric(&of(1)) == 100.0
    });
    let output = upgrade(&gateway, &[]);
    assert!(output.status.success(), "{output:?}");
    for client in &mut clients {
        assert_eq!(client.ask(KEPT).status(), 200);
        assert_eq!(client.ask(POST).status(), 200);
    }
    gateway.wait_for_log("predecessor-ended connections=100");
}

#[test]
fn busy_connections_notice_no_upgrade() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let _last = Last(&gateway);
    let is_over = AtomicBool::new(false);
    let said: Vec<_> = thread::scope(|scope| {
        for request in [KEPT, POST].iter().cycle().take(8) {
            let (gateway, is_over) = (&gateway, &is_over);
            scope.spawn(move || {
                let mut client = gateway.connect();
                while !is_over.load(Ordering::SeqCst) {
                    assert_eq!(client.ask(request).status(), 200);
                }
            });
        }
        let said = (0..2).map(|_| upgrade(&gateway, &[])).collect();
        is_over.store(true, Ordering::SeqCst);
        said
    });
    assert!(
        said.iter().all(|it: &Output| it.status.success()),
        "{said:?}"
    );
}

#[test]
fn tunnels_and_downloads_go_on_in_the_old_process_and_a_stop_of_that_cuts_no_download() {
    const MUCH: usize = 3_000_000;
    let origin = Origin::scripted(|conn| {
        let Some(head) = conn.head()? else {
            return Ok(());
        };
        if head.field("upgrade").is_some() {
            conn.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            let said = conn.wire.exactly(5)?;
            conn.send(said)?;
            return conn.wire.rest().map(drop);
        }
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))?;
        conn.send(vec![b'x'; MUCH / 2])?;
        conn.wait_for_release()?;
        conn.send(vec![b'x'; MUCH - MUCH / 2])
    });
    let setup = setup(&origin).set("gateway.drain_timeout", "1h");
    let gateway = setup
        .set("gateway.drain_tunnel_timeout", "100ms")
        .set("upstream.stall_timeout", "1h")
        .start();
    let _last = Last(&gateway);
    let mut download = gateway.connect();
    download.send(KEPT);
    assert_eq!(download.head().status(), 200);
    let mut socket = gateway.connect();
    socket.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(socket.head().status(), 101);
    let output = upgrade(&gateway, &[]);
    assert!(output.status.success(), "{output:?}");
    // Silent for much longer than a stop would leave it.
    assert_eq!(socket.glance(std::time::Duration::from_secs(1)), None);
    socket.send("hello");
    assert_eq!(socket.exactly(5), b"hello");

    gateway.signal(Signal::SIGTERM);
    assert_eq!(socket.wire.some(usize::MAX).unwrap(), b"");
    drop(socket);
    origin.release();
    assert_eq!(download.exactly(MUCH).len(), MUCH);
    drop(download);
    let old = gateway.pid().cast_signed();
    wait_until("it ends", DEADLINE, || has_ended(old));
    assert_eq!(gateway.stderr.count("drain-cut"), 0);
}
