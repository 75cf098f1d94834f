//! Upgrades that come to nothing: the old process serves on as if nothing had been, and whoever has asked for
//! the upgrade learns why.
//!
//! The new process is the real one where that can be made to fail, and a peer played by the test where it is
//! to fail at a certain step; so is the old one in turn.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{
    DEADLINE, Gateway, HandoverEnd, HandoverPlace, LastProcess, Origin, Redis, Setup,
    expect_refused, expect_unchanged, has_ended, ok, pid_in_file, poll, upgrade_command,
    upgrade_in_vain, upgrade_well, wait_for, wait_until,
};

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn setup(origin: &Origin) -> Setup {
    Setup::serving(origin).set("gateway.pid_file", "pid")
}

fn ini(gateway: &Gateway) -> PathBuf {
    gateway.path("graygate.ini")
}

/// A program that does this with the arguments of the real one, whose path is `$0`.
fn program(gateway: &Gateway, script: &str) -> String {
    let path = gateway.path("program");
    let real = env!("CARGO_BIN_EXE_graygate");
    fs::write(&path, format!("#!/bin/sh\nreal={real}\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The process of a successor that is under way.
fn successor(gateway: &Gateway) -> i32 {
    let line = gateway.wait_for_log("upgrade-begun");
    let pid = line.split("pid=").nth(1).unwrap();
    pid.split(' ').next().unwrap().parse().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn a_program_that_does_not_start_or_is_none_changes_nothing() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    upgrade_in_vain(
        &mut gateway,
        &["--program", "/no/such/program"],
        "No such file",
    );
    upgrade_in_vain(&mut gateway, &["--program", "/bin/false"], "it has ended");
    let broken = program(&gateway, "kill -SEGV $$");
    upgrade_in_vain(
        &mut gateway,
        &["--program", &broken],
        "it has ended (signal: 11",
    );
    let last = LastProcess(&gateway);
    upgrade_well(&gateway);
    drop(last);
}

#[test]
fn where_nobody_runs_no_program_is_started() {
    let setup = setup(&Origin::saying(ok("fine")));
    let ini = setup.write_ini();
    let program = setup.path("program");
    let begun = setup.path("begun");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", begun.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (ini, program) = (ini.to_str().unwrap(), program.to_str().unwrap());
    let output = support::run_to_exit(&["upgrade", "--program", program, "-c", ini]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = format!("graygate: no gateway that can be asked runs with {ini}\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert!(!begun.exists());
}

#[test]
fn an_ini_file_that_the_new_one_rejects_changes_nothing() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let good = fs::read_to_string(ini(&gateway)).unwrap();
    fs::write(ini(&gateway), good.replace("workers = 2", "workers = many")).unwrap();
    let output = upgrade_command(&gateway, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("workers"), "{said}");
    expect_unchanged(&mut gateway);
    // What the command finds good, a program of another version may not know.
    fs::write(ini(&gateway), &good).unwrap();
    let other = program(
        &gateway,
        &format!(
            "sed 's/^workers.*/later = 1/' {0} > {0}.x; cp {0}.x {0}; exec $real \"$@\"",
            ini(&gateway).display()
        ),
    );
    upgrade_in_vain(&mut gateway, &["--program", &other], "later");
}

#[test]
fn one_that_cannot_take_what_it_needs_changes_nothing() {
    let origin = Origin::saying(ok("fine"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = setup(&origin).start();
    let address = taken.local_addr().unwrap();
    gateway.edit_ini(|it| it.set("gateway.listen", format!("127.0.0.1:0, {address}")));
    upgrade_in_vain(&mut gateway, &[], "cannot listen on");
    gateway.edit_ini(|it| it.set("gateway.listen", "127.0.0.1:0"));
    // The pid file can be neither read nor made.
    let mut upgrade = upgrade_command(&gateway, &[]);
    fs::rename(gateway.path("pid"), gateway.path("pid.aside")).unwrap();
    fs::create_dir(gateway.path("pid")).unwrap();
    let output = upgrade.output().unwrap();
    fs::remove_dir(gateway.path("pid")).unwrap();
    fs::rename(gateway.path("pid.aside"), gateway.path("pid")).unwrap();
    expect_refused(&mut gateway, &output, "pid: ");
    gateway.edit_ini(|it| it.set("log.error", "/dev/full/error.log"));
    upgrade_in_vain(&mut gateway, &[], "/dev/full");
    wait_until("each has failed in the log", DEADLINE, || {
        gateway.stderr.count("upgrade-failed") == 3
    });
}

#[test]
fn lists_that_only_the_old_one_can_read_are_a_failure() {
    let (redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    redis.push_peers(&origin, &origin);
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.pid_file", "pid");
    let mut gateway = setup.set("gateway.upgrade_timeout", "2s").start();
    wait_until("it serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    // Whoever is connected stays so.
    redis.cli(&["CONFIG", "SET", "requirepass", "other"]);
    upgrade_in_vain(&mut gateway, &[], "no lists were read within");
}

#[test]
fn one_that_is_not_ready_in_time_changes_nothing() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).set("gateway.upgrade_timeout", "1s").start();
    let slow = program(&gateway, "sleep 1; kill -STOP $$; exec $real \"$@\"");
    let begun = Instant::now();
    upgrade_in_vain(
        &mut gateway,
        &["--program", &slow],
        "it has not taken over within",
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
    // It asks, and then says nothing.
    let silent = HandoverEnd::to(&ini(&gateway));
    silent.take();
    let refused = silent.hear_until("refused");
    let reason = refused.last().unwrap().0["reason"].as_str().unwrap();
    assert!(
        reason.contains("not ready within upgrade_timeout, 1s"),
        "{reason}"
    );
    expect_unchanged(&mut gateway);
}

#[test]
fn one_that_dies_at_any_step_changes_nothing() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    // Before it has asked, in the middle of what it gets, when it has all, when it is ready.
    drop(HandoverEnd::to(&ini(&gateway)));
    let asks = HandoverEnd::to(&ini(&gateway));
    asks.say(r#"{"message":"take"}"#);
    drop(asks);
    expect_unchanged(&mut gateway);
    drop_after_offer(&gateway);
    expect_unchanged(&mut gateway);
    let ready = HandoverEnd::to(&ini(&gateway));
    ready.take();
    ready.say(r#"{"message":"ready"}"#);
    ready.hear_until("ping");
    drop(ready);
    gateway.wait_for_log("it has ended within its first seconds");
    expect_unchanged(&mut gateway);
    // Between `yours` and `taken`.
    let last = HandoverEnd::to(&ini(&gateway));
    last.take();
    last.say(r#"{"message":"ready"}"#);
    answer_until_yours(&last);
    drop(last);
    gateway.wait_for_log("it has ended before it had taken over");
    expect_unchanged(&mut gateway);
    wait_until("each has failed in the log", DEADLINE, || {
        gateway.stderr.count("upgrade-failed") == 5
    });
    let _last = LastProcess(&gateway);
    upgrade_well(&gateway);
}

fn drop_after_offer(gateway: &Gateway) {
    HandoverEnd::to(&ini(gateway)).take();
}

/// Gives signs of life for as long as it is asked for them.
fn answer_until_yours(end: &HandoverEnd) {
    loop {
        let (said, _) = end.hear().expect("the end");
        match said["message"].as_str().unwrap() {
            "ping" => end.say(r#"{"message":"pong"}"#),
            "yours" => return,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_real_one_that_is_killed_in_its_first_seconds_costs_only_what_it_has_begun() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let mut kept = gateway.connect();
    assert_eq!(kept.ask(KEPT).status(), 200);
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    let pid = successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    signal(pid, Signal::SIGKILL);
    let output = child.wait_with_output().unwrap();
    expect_refused(&mut gateway, &output, "signal: 9");
    assert_eq!(kept.ask(KEPT).status(), 200);
}

#[test]
fn one_that_hangs_is_given_up() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    let pid = successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    let given_up = || {
        let count = gateway.stderr.count("it has given no sign of life for 3s");
        (count > 0).then_some(())
    };
    // It may be stopped before it has said that it is ready, for which there is more time.
    let stopped = (0..3).any(|_| {
        signal(pid, Signal::SIGSTOP);
        let is_so = poll(DEADLINE / 2, given_up).is_some();
        if !is_so {
            signal(pid, Signal::SIGCONT);
            poll(DEADLINE / 50, given_up);
        }
        is_so
    });
    assert!(stopped);
    expect_unchanged(&mut gateway);
    // And should it go on, it learns that it was refused.
    signal(pid, Signal::SIGCONT);
    let output = child.wait_with_output().unwrap();
    expect_refused(&mut gateway, &output, "it has given no sign of life");
    wait_until("it ends", DEADLINE, || has_ended(pid));
    expect_unchanged(&mut gateway);
}

/// Run by the next test in a process of its own, which the gateway may kill.
#[test]
fn plays_one_that_hangs_after_yours() {
    let Some(ini) = std::env::var_os("HANGS_AFTER_YOURS") else {
        return;
    };
    let end = HandoverEnd::to(&PathBuf::from(ini));
    end.take();
    end.say(r#"{"message":"ready"}"#);
    answer_until_yours(&end);
    thread::sleep(3 * DEADLINE);
}

#[test]
fn one_that_hangs_when_it_is_to_take_over_is_killed() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let mut hanging = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_one_that_hangs_after_yours"])
        .env("HANGS_AFTER_YOURS", ini(&gateway))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    gateway.wait_for_log("it has not taken over: ");
    let ended = wait_for("it is killed", || hanging.try_wait().unwrap());
    assert!(!ended.success());
    expect_unchanged(&mut gateway);
}

#[test]
fn a_command_that_is_killed_midway_leaves_one_gateway() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    // Before the new one has begun: nothing has happened. (SIGINT may be ignored where the tests are run.)
    let slow = program(&gateway, "sleep 5; exec $real \"$@\"");
    let mut child = upgrade_command(&gateway, &["--program", &slow]);
    let mut child = child.process_group(0).spawn().unwrap();
    let group = child.id().cast_signed();
    wait_until("it has started", DEADLINE, || {
        let tasks = format!("/proc/{group}/task/{group}/children");
        fs::read_to_string(tasks).is_ok_and(|it| !it.is_empty())
    });
    kill(Pid::from_raw(-group), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    expect_unchanged(&mut gateway);
    // Later, it is finished without the command.
    let mut child = upgrade_command(&gateway, &[]);
    let mut child = child.process_group(0).spawn().unwrap();
    let group = child.id().cast_signed();
    let pid = successor(&gateway);
    let _last = LastProcess(&gateway);
    kill(Pid::from_raw(-group), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    wait_until("the new one is the gateway", DEADLINE, || {
        pid_in_file(&gateway) == pid
    });
    gateway.wait_for_log("predecessor-ended");
    assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
    assert_eq!(gateway.stderr.count(" ERROR "), 0);
}

#[test]
fn of_two_upgrades_at_once_the_second_is_refused() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let first = HandoverEnd::to(&ini(&gateway));
    first.take();
    upgrade_in_vain(&mut gateway, &[], "another upgrade is under way");
    drop(first);
    gateway.wait_for_log("upgrade-failed");
    let _last = LastProcess(&gateway);
    upgrade_well(&gateway);
}

#[test]
fn an_end_in_the_middle_of_an_upgrade_ends_both() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    let pid = successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    gateway.signal(Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said.contains("the running gateway is shutting down"),
        "{said}"
    );
    assert!(gateway.wait_exit().success());
    wait_until("the new one ends", DEADLINE, || has_ended(pid));
    assert!(!gateway.path("pid").exists());
}

#[test]
fn a_reload_in_the_middle_of_an_upgrade_is_one_of_the_new_process() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    gateway.edit_ini(|it| it.set("gateway.max_connections", 99));
    gateway.signal(Signal::SIGHUP);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let _last = LastProcess(&gateway);
    wait_until("the new one goes by it", DEADLINE, || {
        gateway
            .admin_get("/config")
            .1
            .contains("\"max_connections\": 99")
    });
}

#[test]
fn logs_that_are_rotated_in_the_middle_of_an_upgrade_are_opened_anew_by_the_new_process() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    fs::rename(gateway.path("access.log"), gateway.path("access.log.1")).unwrap();
    gateway.signal(Signal::SIGUSR1);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let _last = LastProcess(&gateway);
    wait_until("both have opened them anew", DEADLINE, || {
        gateway.stderr.count("logs-reopened") == 2
    });
    assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
    assert_eq!(gateway.wait_for_access_lines(1).len(), 1);
}

#[test]
fn what_the_old_one_is_told_while_the_new_one_takes_over_is_passed_on() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let end = HandoverEnd::to(&ini(&gateway));
    end.take();
    end.say(r#"{"message":"ready"}"#);
    answer_until_yours(&end);
    for told in [Signal::SIGHUP, Signal::SIGUSR1] {
        gateway.signal(told);
    }
    wait_until("they are taken", DEADLINE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let pending = |line: &&str| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:");
        let mut pending = status.lines().filter(pending);
        pending.all(|it| it.ends_with("\t0000000000000000"))
    });
    // The thread that takes signals is to pass them on, of which nothing is seen from here.
    thread::sleep(Duration::from_millis(300));
    end.say(r#"{"message":"taken"}"#);
    let mut told = Vec::new();
    while let Some((said, _)) = end.hear() {
        told.push(said["message"].as_str().unwrap().to_owned());
    }
    for expected in ["reload", "reopen"] {
        assert!(told.iter().any(|it| it == expected), "{told:?}");
    }
    assert!(gateway.wait_exit().success());
}

#[test]
fn where_the_old_one_dies_the_new_one_takes_over() {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).start();
    let child = upgrade_command(&gateway, &[]).spawn().unwrap();
    let pid = successor(&gateway);
    wait_until("it is ready", DEADLINE, || {
        gateway.stderr.count(" ready ") == 2
    });
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit();
    let output = child.wait_with_output().unwrap();
    let _last = LastProcess(&gateway);
    assert!(output.status.success(), "{output:?}");
    gateway.wait_for_log("predecessor-died");
    assert_eq!(pid_in_file(&gateway), pid);
    assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
}

#[test]
fn the_pid_file_names_a_gateway_at_any_time_and_is_written_over_without_room() {
    let origin = Origin::saying(ok("fine"));
    let gateway = setup(&origin).start();
    let _last = LastProcess(&gateway);
    wait_until("it says so", DEADLINE, || {
        fs::read_to_string(gateway.path("pid")).is_ok_and(|it| !it.is_empty())
    });
    let inode = || fs::metadata(gateway.path("pid")).unwrap().ino();
    let before = inode();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let pid = pid_in_file(&gateway);
                // The file may have been written over between the two looks.
                assert!(!has_ended(pid) || pid_in_file(&gateway) != pid);
            }
        });
        upgrade_well(&gateway);
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(inode(), before);
}

/// The real one in the place of the new process, and the test in that of the old one.
fn starts_against(setup: &Setup, place: impl FnOnce(HandoverPlace)) -> std::process::Output {
    let path = setup.write_ini();
    let old = HandoverPlace::of(&path);
    let child = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["run", "-c", path.to_str().unwrap()])
        .env("GRAYGATE_UPGRADE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    place(old);
    child.wait_with_output().unwrap()
}

/// Of a user without any rights, and its group.
const STRANGER: u32 = 65_533;

/// What a new process of this user says that is to take over from the gateway with this ini file.
fn takes_over_as(user: u32, ini: &std::path::Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["run", "-c", ini.to_str().unwrap()])
        .env("GRAYGATE_UPGRADE", "1")
        .stdin(Stdio::null())
        .uid(user)
        .gid(user)
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_user_without_rights_can_neither_take_a_gateways_place_nor_have_roots_take_over_its_own() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let origin = Origin::saying(ok("fine"));
    let mut gateway = setup(&origin).open_to_all().start();
    let said = takes_over_as(STRANGER, &ini(&gateway));
    assert!(
        said.contains("the running gateway has broken off"),
        "{said}"
    );
    assert_eq!(gateway.stderr.count("upgrade-begun"), 0);
    expect_unchanged(&mut gateway);

    // A false one, with the same ini file as the one that root starts.
    let stranger = [
        "setpriv",
        "--reuid=65533",
        "--regid=65533",
        "--clear-groups",
    ];
    let setup = Setup::serving(&origin).set("gateway.pid_file", "");
    let setup = setup.set("log.access", "off").set("admin.socket", "off");
    let gateway = setup.open_to_all().under(&stranger).start();
    let said = takes_over_as(0, &ini(&gateway));
    assert!(
        said.contains("no gateway that can be asked runs with"),
        "{said}"
    );
    assert_eq!(gateway.stderr.count("upgrade-begun"), 0);
    assert_eq!(gateway.connect().ask(KEPT).status(), 200);
}

#[test]
fn an_old_one_that_changes_its_mind_at_any_step_is_believed() {
    let origin = Origin::saying(ok("fine"));
    let refused = r#"{"message":"refused","reason":"not today"}"#;
    for step in ["take", "ready", "pong"] {
        let setup = Setup::serving(&origin).set("gateway.drain_timeout", "1s");
        let output = starts_against(&setup, |place| {
            let end = place.accept();
            if step != "take" {
                end.hear_until("take");
                end.say(r#"{"message":"offered","has_lists":false}"#);
            }
            if step == "pong" {
                end.hear_until("ready");
                end.say(r#"{"message":"ping"}"#);
            }
            end.hear_until(step);
            end.say(refused);
            // Until it has ended.
            while end.hear().is_some() {}
        });
        assert_eq!(output.status.code(), Some(1), "{step}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("not taken over: not today"), "{step}: {said}");
    }
}

#[test]
fn an_old_one_that_breaks_off_and_lives_keeps_what_it_has() {
    let origin = Origin::saying(ok("fine"));
    for step in ["take", "ready"] {
        let output = starts_against(&Setup::serving(&origin), |place| {
            let end = place.accept();
            end.hear_until("take");
            if step == "ready" {
                end.say(r#"{"message":"offered","has_lists":false}"#);
                end.hear_until("ready");
            }
        });
        assert_eq!(output.status.code(), Some(1), "{step}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("the running gateway has broken off"),
            "{step}: {said}"
        );
    }
}
